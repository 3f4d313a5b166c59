//! `reiver run --dry-run`: what would run, in the order in which it would become ready.

use std::io::{self, Write};

use reiver::{Class, Priority};

use super::console::{count, place, plain};
use crate::Plan;
use crate::job_file::When;
use crate::plan::JobIndex;
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
        let needs: Vec<String> = plan
            .needs(job)
            .iter()
            .map(|need| {
                let when = match need.when {
                    When::Success => "",
                    When::Failure => " fails",
                    When::Always => " ends",
                };
                format!("{}{when}", plain(&plan.name(need.job)))
            })
            .collect();
        match needs.len() {
            0 => writeln!(out)?,
            1..=5 => writeln!(out, "  [after {}]", needs.join(", "))?,
            more => writeln!(
                out,
                "  [after {} and {} more]",
                needs[..4].join(", "),
                more - 4
            )?,
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
    let mut waits: Vec<usize> = plan.jobs().map(|job| plan.needs(job).len()).collect();
    let mut dependents: Vec<Vec<JobIndex>> = vec![Vec::new(); plan.len()];
    for job in plan.jobs() {
        for need in plan.needs(job) {
            dependents[need.job.0 as usize].push(job);
        }
    }
    let entry = |job: JobIndex| std::cmp::Reverse((plan.settings(job).priority, job));
    let mut ready: std::collections::BinaryHeap<_> = plan
        .jobs()
        .filter(|job| waits[job.0 as usize] == 0)
        .map(entry)
        .collect();
    let mut order = Vec::with_capacity(plan.len());
    while let Some(std::cmp::Reverse((_, job))) = ready.pop() {
        order.push(job);
        for &dependent in &dependents[job.0 as usize] {
            let waits = &mut waits[dependent.0 as usize];
            *waits -= 1;
            if *waits == 0 {
                ready.push(entry(dependent));
            }
        }
    }
    order
}
