//! What was measured, as rows, and `summary.json`, which is an array of them.
//!
//! The keys are what other programs read: they may grow, and never change. Whoever was skipped or failed
//! has null for numbers, 0 rounds, and a note.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::case::{Figures, Role, Trouble};
use crate::costs::Costs;
use crate::runner::Entry;
use crate::stats;

/// One contender at one number of threads. Whoever has no numbers has a note that says why.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) suite: &'static str,
    pub(crate) case: &'static str,
    pub(crate) contender: &'static str,
    pub(crate) threads: usize,
    pub(crate) unit: &'static str,
    /// Of the medians of the rounds.
    pub(crate) median: Option<f64>,
    /// Of all samples, as are the least and the greatest.
    pub(crate) p99: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) rounds: usize,
    /// What it took beside time, where that was looked at: medians of the rounds, and the greatest peak.
    #[serde(flatten)]
    pub(crate) costs: Option<Costs>,
    /// Where nobody looked at that, what the median comes to.
    #[serde(
        rename = "operations_per_second",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// What was measured beside the samples: medians of the rounds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) figures: BTreeMap<String, f64>,
    #[serde(skip)]
    pub(crate) told: Vec<Figures>,
    #[serde(skip)]
    pub(crate) role: Role,
}

/// What a contender's samples come to. One that failed in any round has no numbers.
pub(crate) fn row(entry: &Entry<'_>) -> Row {
    let note = entry.trouble.as_ref().map(|trouble| match trouble {
        Trouble::Skipped(why) => format!("skipped: {why}"),
        Trouble::Failed(why) => format!("failed: {why}"),
    });
    let rounds: &[Vec<f64>] = if note.is_some() { &[] } else { &entry.rounds };
    let medians: Vec<f64> = rounds
        .iter()
        .filter_map(|round| stats::median(round))
        .collect();
    let all = rounds.concat();
    let median = stats::median(&medians);
    let costs = if note.is_some() {
        None
    } else {
        costs(&entry.costs)
    };
    Row {
        suite: entry.case.suite,
        case: entry.case.name,
        contender: entry.contender.name,
        threads: entry.threads,
        unit: entry.case.unit,
        median,
        p99: stats::quantile(&all, 0.99),
        min: stats::quantile(&all, 0.0),
        max: stats::quantile(&all, 1.0),
        rounds: rounds.len(),
        figures: medians_of(&entry.figures),
        told: entry.figures.clone(),
        rate: match costs {
            None => median.and_then(|median| entry.case.rate(median)),
            Some(_) => None,
        },
        costs,
        note,
        role: entry.contender.role,
    }
}

/// Of each figure the median over the rounds.
fn medians_of(rounds: &[Figures]) -> BTreeMap<String, f64> {
    let mut by_name: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, value) in rounds.iter().flatten() {
        by_name.entry(name.clone()).or_default().push(*value);
    }
    let median = |(name, values): (String, Vec<f64>)| Some((name, stats::median(&values)?));
    by_name.into_iter().filter_map(median).collect()
}

fn costs(rounds: &[Costs]) -> Option<Costs> {
    let median = |of: fn(&Costs) -> f64| {
        let values: Vec<f64> = rounds.iter().map(of).collect();
        stats::median(&values)
    };
    Some(Costs {
        operations_per_second: median(|costs| costs.operations_per_second)?,
        minor_faults_per_operation: median(|costs| costs.minor_faults_per_operation)?,
        peak_kib: rounds.iter().map(|costs| costs.peak_kib).max()?,
    })
}

/// Writes the array.
pub(crate) fn write(path: &Path, rows: &[Row]) -> Result<(), String> {
    let text = serde_json::to_string_pretty(rows).map_err(|error| error.to_string())?;
    fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forkjoin;

    fn entry_of(cases: &[crate::case::Case]) -> Entry<'_> {
        Entry {
            case: &cases[0],
            contender: &cases[0].contenders[0],
            threads: 2,
            rounds: vec![vec![1.0, 2.0, 9.0], vec![4.0], vec![3.0, 3.0]],
            figures: Vec::new(),
            costs: Vec::new(),
            trouble: None,
        }
    }

    #[test]
    fn a_row_has_the_promised_keys_and_the_median_of_medians() {
        let cases = forkjoin::cases();
        let row = serde_json::to_value(row(&entry_of(&cases))).expect("it is JSON");
        let keys: Vec<&String> = row.as_object().expect("an object").keys().collect();
        let mut promised = [
            "suite",
            "case",
            "contender",
            "threads",
            "unit",
            "median",
            "p99",
            "min",
            "max",
            "rounds",
        ];
        promised.sort_unstable();
        assert_eq!(keys, promised);
        assert_eq!(row["median"], 3.0);
        assert_eq!((&row["min"], &row["max"]), (&1.0.into(), &9.0.into()));
        assert_eq!(row["rounds"], 3);
    }

    #[test]
    fn whoever_failed_has_a_note_and_no_numbers() {
        let cases = forkjoin::cases();
        let mut entry = entry_of(&cases);
        entry.trouble = Some(Trouble::Failed("it fell".into()));
        let row = row(&entry);
        assert_eq!(row.note.as_deref(), Some("failed: it fell"));
        assert_eq!((row.median, row.max, row.rounds), (None, None, 0));
    }

    #[test]
    fn whoever_looked_at_more_than_time_has_more_keys() {
        let cases = forkjoin::cases();
        let mut entry = entry_of(&cases);
        let costs = |rate, peak_kib| Costs {
            operations_per_second: rate,
            minor_faults_per_operation: 0.5,
            peak_kib,
        };
        entry.costs = vec![costs(3.0, 10), costs(1.0, 30), costs(2.0, 20)];
        let row = serde_json::to_value(row(&entry)).expect("it is JSON");
        assert_eq!(row["operations_per_second"], 2.0);
        assert_eq!(row["minor_faults_per_operation"], 0.5);
        assert_eq!(row["peak_kib"], 30);
    }
}
