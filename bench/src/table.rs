//! The result as a table in the terminal.
//!
//! A block a case: a line a contender with its median, spread and multiple of the best peer, then a
//! sentence for each number of threads. Where we lose is said again at the end.

use crate::case::Case;
use crate::costs::Costs;
use crate::figures;
use crate::summary::Row;
use crate::threads;
use crate::verdict::{self, number};
use crate::versions;

/// Prints everything: the machine, the peers, a table a case, and where we lose.
pub(crate) fn print(cases: &[&Case], rows: &[Row], machine: &[(&str, String)]) {
    for (name, what) in machine {
        println!("{name:>22}  {what}");
    }
    println!("{:>22}  {}", "contenders", contenders(rows).join(", "));
    let mut lost = Vec::new();
    for case in cases {
        let name = format!("{}/{}", case.suite, case.name);
        println!("\n{name}: {}, in {}", case.what, case.unit);
        let looked = verdict::of_case(case, rows).any(|row| row.costs.is_some());
        let is_rate = verdict::of_case(case, rows).any(|row| row.rate.is_some());
        println!(
            "  {:<29} {:>7} {:>10} {:>10} {:>10} {:>10} {:>6} {:>9}{}",
            "contender",
            "threads",
            "median",
            "p99",
            "min",
            "max",
            "rounds",
            "of best",
            match (looked, is_rate) {
                (true, _) => COSTS,
                (false, true) => RATE,
                (false, false) => "",
            }
        );
        let verdicts = verdict::of(case, rows);
        for row in verdict::of_case(case, rows) {
            let best = verdicts
                .iter()
                .find(|verdict| verdict.threads == row.threads);
            println!("{}", line(row, best.and_then(|verdict| verdict.best_peer)));
        }
        figures::print(case, rows);
        for verdict in verdicts {
            let told = format!("at {}: {}", threads(verdict.threads), verdict.sentence);
            println!("  {told}");
            if verdict.lost {
                lost.push(format!("{name} {told}"));
            }
        }
    }
    println!(
        "\nWhere we lose:{}",
        if lost.is_empty() { " nowhere" } else { "" }
    );
    for sentence in lost {
        println!("  {sentence}");
    }
    println!();
}

/// What is told beside time, where somebody looked.
const COSTS: &str = "      ops/s   faults/op  peak MiB";

/// The first of them alone.
const RATE: &str = "      ops/s";

/// What it took beside time, as [`COSTS`] names it.
pub(crate) fn costs(costs: &Costs) -> [String; 3] {
    [
        rate(costs.operations_per_second),
        number(costs.minor_faults_per_operation),
        format!("{:.1}", costs.peak_kib as f64 / 1024.0),
    ]
}

/// Operations a second.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        1e6.. => format!("{} M", number(per_second / 1e6)),
        1e3.. => format!("{} k", number(per_second / 1e3)),
        _ => number(per_second),
    }
}

/// A contender's numbers, and its median as a multiple of the best peer's.
fn line(row: &Row, best_peer: Option<f64>) -> String {
    let start = format!("  {:<29} {:>7}", row.contender, row.threads);
    if let Some(note) = &row.note {
        return format!("{start}  {note}");
    }
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    let times = match (row.median, best_peer) {
        (Some(median), Some(best)) if best > 0.0 => format!("{:.2}", median / best),
        _ => String::new(),
    };
    let costs = match (&row.costs, row.rate) {
        (Some(taken), _) => {
            let [operations, faults, peak] = costs(taken);
            format!(" {operations:>10} {faults:>11} {peak:>9}")
        }
        (None, Some(per_second)) => format!(" {:>10}", rate(per_second)),
        (None, None) => String::new(),
    };
    format!(
        "{start} {:>10} {:>10} {:>10} {:>10} {:>6} {times:>9}{costs}",
        cell(row.median),
        cell(row.p99),
        cell(row.min),
        cell(row.max),
        row.rounds
    )
}

/// How many, in words, and whether they had to take turns.
pub(crate) fn threads(number: usize) -> String {
    let cpus = threads::cpus();
    match number {
        1 => "1 thread".to_owned(),
        more if more > cpus => {
            format!("{more} threads, which take turns on what CPUs there are ({cpus})")
        }
        more => format!("{more} threads"),
    }
}

/// Everybody who was measured, with the version.
pub(crate) fn contenders(rows: &[Row]) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for row in rows {
        let Some(version) = versions::of(row.contender) else {
            continue;
        };
        let peer = row.contender.split_whitespace().next().unwrap_or_default();
        let named_so = format!("{peer} {version}");
        if !named.contains(&named_so) {
            named.push(named_so);
        }
    }
    named
}
