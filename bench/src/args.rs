//! What people can ask for on the command line, and what the runner asks of its children.
//!
//! Every option is defined here once; the help is made of it. What is left out depends on whether the
//! run is a quick one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Measures reiver beside its peers, and says who won.
#[derive(Debug, Parser)]
#[command(name = "reiver-bench")]
pub(crate) struct Args {
    /// What to run, as `suite` or `suite/case`; a case stands for those whose names go on with `-` too.
    /// Everything if none is given
    #[arg(value_name = "SUITE[/CASE]")]
    pub(crate) only: Vec<String>,

    /// Small sizes, short measurements, three rounds, the most telling cases: in under five minutes
    #[arg(long)]
    pub(crate) quick: bool,

    /// How often every contender is measured, each time in a process of its own [default: 5, of mixed 9, quick
    /// 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: Option<u32>,

    /// With how many threads, for cases that do not fix it themselves [default: 1, 2, 4 and so on to twice the
    /// CPUs, quick: as many as CPUs]
    #[arg(long, value_delimiter = ',', value_parser = threads)]
    pub(crate) threads: Vec<usize>,

    /// Only these contenders, by their whole names, of the cases that are run
    #[arg(long = "contender", value_name = "NAME")]
    pub(crate) contenders: Vec<String>,

    /// Where summary.json and report.html go, and what is compiled on the way
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    pub(crate) out: PathBuf,

    /// How long a child measures, warming up apart [default: 1000, quick 100]
    #[arg(long, value_name = "MS")]
    pub(crate) budget_ms: Option<u64>,

    /// Only lists the cases
    #[arg(long)]
    pub(crate) list: bool,

    /// Measures one contender here and prints its samples: what the runner starts its children with
    #[arg(long, hide = true, num_args = 4, value_names = ["SUITE", "CASE", "CONTENDER", "THREADS"])]
    pub(crate) child: Option<Vec<String>>,

    /// With --child: which round it is, for what is simulated
    #[arg(long, hide = true, default_value_t = 1)]
    pub(crate) seed: u64,

    /// With --child: runs the work of a counting case once, so big; nothing is measured
    #[arg(long, hide = true)]
    pub(crate) probe: Option<u64>,
}

impl Args {
    /// For a case that wants so many.
    pub(crate) fn rounds(&self, usual: u32) -> u32 {
        self.rounds.unwrap_or(if self.quick { 3 } else { usual })
    }

    pub(crate) fn budget(&self) -> Duration {
        let ms = self
            .budget_ms
            .unwrap_or(if self.quick { 100 } else { 1000 });
        Duration::from_millis(ms)
    }
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a contender without threads does nothing; give 1 or more".into()),
        Ok(threads) => Ok(threads),
        Err(error) => Err(error.to_string()),
    }
}
