//! One measurement, in a process of its own: what the runner starts this binary with.
//!
//! A child measures one contender of one case, prints what it got as its last line, and ends without
//! waiting for anybody's threads.

use std::sync::OnceLock;

use crate::args::Args;
use crate::case::{Case, Figures, Task, Trouble};
use crate::costs::Costs;
use crate::outside;

/// What a child prints, as one line of JSON.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    Samples(Vec<f64>),
    /// With what was measured beside them.
    Told(Vec<f64>, Figures),
    /// By those who look at more than time.
    Measured {
        samples: Vec<f64>,
        costs: Costs,
        #[serde(default)]
        figures: Figures,
    },
    Skipped(String),
    Failed(String),
}

/// Measures `who`: suite, case, contender, threads.
pub(crate) fn run(cases: &[Case], who: &[String], args: &Args) -> Result<bool, String> {
    let [suite, name, contender, threads] = who else {
        return Err("--child wants a suite, a case, a contender and a number of threads".into());
    };
    let case = cases
        .iter()
        .find(|case| case.suite == suite && case.name == name)
        .ok_or_else(|| format!("there is no case {suite}/{name}"))?;
    let contender = case
        .contenders
        .iter()
        .find(|known| known.name == contender)
        .ok_or_else(|| format!("{suite}/{name} has no contender {contender}"))?;
    let task = Task {
        case: case.name,
        contender: contender.name,
        threads: threads
            .parse()
            .map_err(|_| format!("`{threads}` is no number of threads"))?,
        quick: args.quick,
        budget: args.budget(),
        seed: args.seed,
        out: args.out.clone(),
        probe: args.probe,
        figures: Default::default(),
        costs: OnceLock::new(),
    };
    let outcome = (contender.run)(&task);
    let figures = std::mem::take(&mut *task.figures());
    let said = match (outcome, task.costs.get()) {
        (Ok(samples), _) if samples.is_empty() => Said::Failed("it gave no samples".into()),
        (Ok(samples), Some(&costs)) => Said::Measured {
            samples,
            costs,
            figures,
        },
        (Ok(samples), None) if figures.is_empty() => Said::Samples(samples),
        (Ok(samples), None) => Said::Told(samples, figures),
        (Err(Trouble::Skipped(why)), _) => Said::Skipped(why),
        (Err(Trouble::Failed(why)), _) => Said::Failed(why),
    };
    let line = serde_json::to_string(&said).map_err(|error| error.to_string())?;
    println!("{line}");
    // Not every contender can be stopped, and none need be.
    outside::end_now()
}
