//! What contenders measured beside their samples, as a table of its own, and how far each is from the bar.
//!
//! A figure is told as the median of its rounds; beside one that has a bar stands the median of each
//! round's ratio to what the bar's contender measured in that same round, so that whatever the machine
//! did meanwhile hits both.

use crate::case::Case;
use crate::stats;
use crate::summary::Row;
use crate::verdict::{self, number};

/// Prints the figures of a case, if it has any.
pub(crate) fn print(case: &Case, rows: &[Row]) {
    let rows: Vec<&Row> = verdict::of_case(case, rows).collect();
    let Some(first) = rows.iter().find_map(|row| row.told.first()) else {
        return;
    };
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    let mut head = format!("  {:<30}", "");
    names
        .iter()
        .for_each(|name| head += &format!(" {name:>12}"));
    if case.bar.is_some() {
        head += &format!(" {:>8} {:>12}", "p99/bar", "blocked/bar");
    }
    println!("{head}");
    for row in rows.iter().filter(|row| !row.told.is_empty()) {
        let mut line = format!("  {:<30}", row.contender);
        for name in &names {
            let cell = row.figures.get(*name).copied().map_or("-".into(), number);
            line += &format!(" {cell:>12}");
        }
        let bar = case.bar.and_then(|bar| {
            let is_bar = |row: &&&Row| row.contender == bar;
            rows.iter().find(is_bar)
        });
        if let Some(bar) = bar {
            let cell = |name| ratio(row, bar, name).map_or("-".into(), number);
            line += &format!(" {:>8} {:>12}", cell("p99"), cell("blocked p99"));
        }
        println!("{line}");
    }
}

/// The median of each round's ratio.
fn ratio(row: &Row, bar: &Row, name: &str) -> Option<f64> {
    let of = |row: &Row, round: usize| {
        let round = row.told.get(round)?;
        round
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| *value)
    };
    let ratios = (0..row.told.len()).filter_map(|round| Some(of(row, round)? / of(bar, round)?));
    stats::median(&ratios.collect::<Vec<_>>())
}
