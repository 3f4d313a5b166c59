//! The result as one page that needs nothing else: no script, no font, no picture from elsewhere.
//!
//! First where we lose, then the machine and who was measured, then a plot, a plain sentence and the
//! numbers for each case. `report.css` knows light and dark.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::case::Case;
use crate::plot::{self, escaped};
use crate::summary::Row;
use crate::table;
use crate::verdict::{self, number};

const STYLE: &str = include_str!("report.css");

/// Writes the page.
pub(crate) fn write(
    path: &Path,
    cases: &[&Case],
    rows: &[Row],
    machine: &[(&str, String)],
) -> Result<(), String> {
    let page = page(cases, rows, machine);
    fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()))
}

fn page(cases: &[&Case], rows: &[Row], machine: &[(&str, String)]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>reiver beside its peers</title>\n<style>\n{STYLE}</style>\n\
         <h1>reiver beside its peers</h1>\n\
         <p class=\"key\">A bar ends at the median of the rounds' medians; the line goes from the least \
         sample to the 99th percentile of all. ×n is the number of threads.<br>\
         <span style=\"background: var(--ours)\"></span>reiver\
         <span style=\"background: var(--peer)\"></span>peers\
         <span style=\"background: var(--floor)\"></span>no contender: what there is to reach, or one \
         thread</p>\n"
    );
    page.push_str(&lost(cases, rows));
    page.push_str(&about(rows, machine));
    for case in cases {
        page.push_str(&section(case, rows));
    }
    page.push_str("</html>\n");
    page
}

fn lost(cases: &[&Case], rows: &[Row]) -> String {
    let mut items = String::new();
    for case in cases {
        for verdict in verdict::of(case, rows)
            .into_iter()
            .filter(|verdict| verdict.lost)
        {
            let name = format!("{}/{}", case.suite, case.name);
            let _ = writeln!(
                items,
                "<li><a href=\"#{}\">{name}</a> at {}: {}</li>",
                case.name,
                table::threads(verdict.threads),
                escaped(&verdict.sentence)
            );
        }
    }
    if items.is_empty() {
        return "<h3>Where we lose</h3>\n<p>Nowhere.</p>\n".to_owned();
    }
    format!("<h3>Where we lose</h3>\n<ul class=\"lost\">\n{items}</ul>\n")
}

fn about(rows: &[Row], machine: &[(&str, String)]) -> String {
    let mut about = "<h3>The machine, and who was measured</h3>\n<table>\n".to_owned();
    for (name, what) in machine {
        let _ = writeln!(about, "<tr><td>{name}<td>{}", escaped(what));
    }
    let contenders = table::contenders(rows).join(", ");
    let _ = writeln!(
        about,
        "<tr><td>contenders<td>{}\n</table>",
        escaped(&contenders)
    );
    about
}

fn section(case: &Case, rows: &[Row]) -> String {
    let of_case: Vec<&Row> = verdict::of_case(case, rows).collect();
    let title = format!("{}/{}", case.suite, case.name);
    let mut section = format!(
        "<h2 id=\"{}\">{title}</h2>\n<p class=\"what\">{}, in {}</p>\n",
        case.name,
        escaped(case.what),
        escaped(case.unit)
    );
    for verdict in verdict::of(case, rows) {
        let class = if verdict.lost { " class=\"lost\"" } else { "" };
        let threads = table::threads(verdict.threads);
        let _ = writeln!(
            section,
            "<p{class}>At {threads}: {}</p>",
            escaped(&verdict.sentence)
        );
    }
    section.push_str(&plot::svg(&of_case, &title));
    section.push_str(&numbers(&of_case));
    section
}

fn numbers(rows: &[&Row]) -> String {
    let mut table = "<details><summary>Numbers</summary>\n<table>\n<tr><th>contender<th>threads\
                     <th>median<th>p99<th>min<th>max<th>rounds"
        .to_owned();
    if rows.iter().any(|row| row.costs.is_some()) {
        table.push_str("<th>operations/s<th>faults/operation<th>peak MiB");
    } else if rows.iter().any(|row| row.rate.is_some()) {
        table.push_str("<th>operations/s");
    }
    table.push('\n');
    for row in rows {
        let _ = write!(
            table,
            "<tr><td>{}<td>{}",
            escaped(row.contender),
            row.threads
        );
        if let Some(note) = &row.note {
            let _ = writeln!(table, "<td colspan=\"5\">{}", escaped(note));
            continue;
        }
        for value in [row.median, row.p99, row.min, row.max] {
            let _ = write!(table, "<td>{}", value.map_or_else(String::new, number));
        }
        let _ = write!(table, "<td>{}", row.rounds);
        for value in row.costs.iter().flat_map(table::costs) {
            let _ = write!(table, "<td>{value}");
        }
        if let Some(per_second) = row.rate {
            let _ = write!(table, "<td>{}", table::rate(per_second));
        }
        table.push('\n');
    }
    table + "</table>\n</details>\n"
}
