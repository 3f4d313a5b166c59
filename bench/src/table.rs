//! The result as a table in the terminal.

use crate::case::Case;
use crate::summary::Row;
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
        println!(
            "\n{}/{}: {}, in {}",
            case.suite, case.name, case.what, case.unit
        );
        println!(
            "  {:<26} {:>7} {:>10} {:>10} {:>10} {:>10} {:>6}",
            "contender", "threads", "median", "p99", "min", "max", "rounds"
        );
        for row in verdict::of_case(case, rows) {
            println!("{}", line(row));
        }
        for verdict in verdict::of(case, rows) {
            println!("  at {}: {}", verdict.threads, verdict.sentence);
            if verdict.lost {
                lost.push(format!(
                    "{}/{} at {}: {}",
                    case.suite, case.name, verdict.threads, verdict.sentence
                ));
            }
        }
    }
    println!(
        "\nWhere we lose: {}",
        if lost.is_empty() { "nowhere" } else { "" }
    );
    for sentence in lost {
        println!("  {sentence}");
    }
    println!();
}

fn line(row: &Row) -> String {
    let start = format!("  {:<26} {:>7}", row.contender, row.threads);
    if let Some(note) = &row.note {
        return format!("{start}  {note}");
    }
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    format!(
        "{start} {:>10} {:>10} {:>10} {:>10} {:>6}",
        cell(row.median),
        cell(row.p99),
        cell(row.min),
        cell(row.max),
        row.rounds
    )
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
