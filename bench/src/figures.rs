//! What contenders measured beside their samples, as a table of its own, and how far each is from the bar.
//!
//! A figure is told as the median of its rounds; beside one that has a bar stands the median of each
//! round's ratio to what the bar's contender measured in that same round, so that whatever the machine
//! did meanwhile hits both. Where contenders say what part of the machine [`OTHERS`] had, rounds in which
//! that was more than a little count for neither, as long as some are left.

use crate::case::{Case, Figures};
use crate::stats;
use crate::summary::Row;
use crate::verdict::{self, number};

/// The figure that says what part of the machine other programs had, in percent.
pub(crate) const OTHERS: &str = "others %";
/// More than this is noise.
const MOST_OTHERS: f64 = 5.0;

/// Prints the figures of a case, if it has any.
pub(crate) fn print(case: &Case, rows: &[Row]) {
    let rows: Vec<&Row> = verdict::of_case(case, rows).collect();
    let mut told = rows.iter().flat_map(|row| &row.told);
    let Some(first) = told.find(|round| !round.is_empty()) else {
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
    head += &format!(" {:>7}", "rounds");
    println!("{head}");
    for row in rows.iter().filter(|row| counted(row).count() > 0) {
        let mut line = format!("  {:<30}", row.contender);
        for name in &names {
            let values: Vec<f64> = counted(row)
                .filter_map(|round| figure(&row.told[round], name))
                .collect();
            let cell = stats::median(&values).map_or("-".into(), number);
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
        line += &format!(" {:>7}", counted(row).count());
        println!("{line}");
    }
}

fn figure(round: &Figures, name: &str) -> Option<f64> {
    let found = round.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| *value)
}

fn is_quiet(round: &Figures) -> bool {
    figure(round, OTHERS).is_none_or(|others| others <= MOST_OTHERS)
}

/// The rounds that count: of those that have figures the quiet ones, or all if there is none.
fn counted(row: &Row) -> impl Iterator<Item = usize> {
    let told = row.told.iter().enumerate();
    let told = told.filter(|(_, round)| !round.is_empty());
    let has_quiet = told.clone().any(|(_, round)| is_quiet(round));
    told.filter(move |(_, round)| !has_quiet || is_quiet(round))
        .map(|(number, _)| number)
}

/// The median of each round's ratio, of those that count for both.
fn ratio(row: &Row, bar: &Row, name: &str) -> Option<f64> {
    let of_bar: Vec<usize> = counted(bar).collect();
    let ratios = counted(row)
        .filter(|round| of_bar.contains(round))
        .filter_map(|round| {
            Some(figure(&row.told[round], name)? / figure(&bar.told[round], name)?)
        });
    stats::median(&ratios.collect::<Vec<_>>())
}
