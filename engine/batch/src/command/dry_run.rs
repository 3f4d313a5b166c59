//! `reiver run --dry-run`: what would run, in the order in which it would become ready.

use std::io::{self, Write};

use reiver::{Class, Priority};

use super::console::{count, place, plain};
use crate::Plan;
use crate::job_file::When;
use crate::plan::{Dependents, JobIndex};
use crate::run::rehearse;

pub(crate) fn show(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let limits = plan.limits();
    writeln!(
        out,
        "{}, {} and {}; nothing is run",
        count(plan.len(), "job"),
        count(limits.cpus as usize, "cpu slot"),
        count(limits.io as usize, "io slot"),
    )?;
    let places = rehearse(plan);
    for job in order(plan) {
        let settings = plan.settings(job);
        let class = match settings.class {
            Class::Cpu => format!("cpu×{}", settings.cpus.unwrap_or(1)),
            Class::Io => "io".to_owned(),
            Class::Hybrid => format!("hybrid×{}", settings.cpus.unwrap_or(1)),
            Class::Auto => format!("auto×{}", settings.cpus.unwrap_or(1)),
        };
        let command = plan.command_text(job);
        write!(
            out,
            "{} {class:<6} {}: {}",
            word(settings.priority),
            plain(&plan.name(job)),
            plain(&command.to_string_lossy())
        )?;
        if let Some(placement) = &places[job.0 as usize] {
            write!(out, "  [{}]", place(placement))?;
        }
        let needs = plan.needs(job);
        let count = needs.clone().count();
        // One line is one screen's: a job may wait for all others.
        let shown = if count > 5 { 4 } else { count };
        let names: Vec<String> = needs
            .take(shown)
            .map(|need| {
                let when = match need.when {
                    When::Success => "",
                    When::Failure => " fails",
                    When::Always => " ends",
                };
                format!("{}{when}", plain(&plan.name(need.job)))
            })
            .collect();
        let names = names.join(", ");
        match count - shown {
            0 if shown == 0 => writeln!(out)?,
            0 => writeln!(out, "  [after {names}]")?,
            more => writeln!(out, "  [after {names} and {more} more]")?,
        }
    }
    Ok(())
}

fn word(priority: Priority) -> &'static str {
    match priority {
        Priority::P0 => "P0",
        Priority::P1 => "P1",
        Priority::P2 => "P2",
    }
}

/// Every job after its needs; among those that could run, by priority and then in file order.
fn order(plan: &Plan) -> Vec<JobIndex> {
    let mut dependents = Dependents::of(plan);
    let entry = |job: JobIndex| std::cmp::Reverse((plan.settings(job).priority, job));
    let mut ready: std::collections::BinaryHeap<_> = plan
        .jobs()
        .filter(|job| plan.needs(*job).next().is_none())
        .map(entry)
        .collect();
    let mut order = Vec::with_capacity(plan.len());
    while let Some(std::cmp::Reverse((_, job))) = ready.pop() {
        order.push(job);
        for (list, _) in dependents.end(job, |_| true) {
            ready.extend(dependents.waiting(list).iter().copied().map(entry));
        }
    }
    order
}
