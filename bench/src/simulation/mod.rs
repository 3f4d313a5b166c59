//! The suite `simulation`: the engine's steal order, and choices that it might make, on machines that
//! nobody here has.
//!
//! A discrete-event simulation: [`world`] moves simulated workers on a simulated clock, who steal where
//! the engine's own `steal_orders` send them, as [`policy`] chooses, at the costs of [`costs`]. A round
//! of the runner is a seed, and the same seed gives the same numbers. `sensitivity` halves and doubles
//! each cost; `calibration` has the real engine beside it, on this machine.
//!
//! What is not modelled: memory bandwidth that runs out, hardware threads that share a core, the
//! kernel's own scheduling, priorities, spares, caches that warm up.

mod calibration;
mod costs;
mod machine;
mod outcome;
mod policy;
mod probe;
mod random;
mod scenario;
mod search;
mod sensitivity;
mod sleepers;
mod workload;
mod world;

#[cfg(test)]
mod tests;

use crate::case::{Case, Contender, Outcome, Role, Task};
use costs::Costs;
use machine::Machine;
use outcome::Run;
use policy::{POLICIES, Policy, Victims};
use scenario::EIGHTH;

/// What is told of a run: how a case's name ends, its unit, and the number.
type Metric = (&'static str, &'static str, fn(&Run) -> f64);

const METRICS: [Metric; 6] = [
    ("", "times the ideal makespan", Run::over_ideal),
    ("-far-work", "% of the work, away from its data", |run| {
        100.0 * run.far_share()
    }),
    ("-spread", "us until nine workers in ten work", |run| {
        run.spread_us()
    }),
    ("-far-steals", "steals from other nodes", |run| {
        run.far_steals as f64
    }),
    ("-near-steals", "steals within nodes", |run| {
        run.near_steals as f64
    }),
    ("-wakes", "wakes", |run| run.wakes as f64),
];

/// All of them, in the order in which they are told.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for machine in machine::NAMES {
        for (work, what) in scenario::WORK {
            cases.extend(METRICS.map(|(ending, unit, _)| {
                // A few hundred bytes, once a process.
                let name = format!("{machine}-{work}{ending}").leak();
                let what = format!("simulated: {what}, on {machine} CPUs").leak();
                let contenders = POLICIES.map(contender).into();
                let case = Case::new("simulation", (name, unit), what, contenders);
                let case = case.at(&[Machine::named(machine).workers()]).no_rate();
                Case {
                    // The same run again, for another number of it; and all machines but the smallest.
                    slow: !ending.is_empty() || machine != machine::SMALLEST,
                    ..case
                }
            }));
        }
    }
    cases.extend(sensitivity::cases());
    cases.extend(calibration::cases());
    cases
}

/// The engine as it is, whoever knows nothing of nodes, and what the engine might be instead: that is
/// no contender, or a case would be won by what nobody has built.
fn contender(policy: Policy) -> Contender {
    let role = match policy.victims {
        _ if policy == POLICIES[0] => Role::Ours,
        Victims::ByDistance => Role::Floor,
        Victims::Random => Role::Peer,
    };
    Contender {
        name: policy.name,
        role,
        run,
    }
}

/// Simulates what a case's name says, once.
fn run(task: &Task) -> Outcome {
    let mut parts = task.case.splitn(3, '-');
    let mut part = || parts.next().unwrap_or_default();
    let (machine, work, metric) = (part(), part(), part());
    let known = POLICIES.iter().find(|policy| policy.name == task.contender);
    let policy = *known.expect("each contender is named after its policy");
    let machine = Machine::named(machine);
    let workload = scenario::workload(&machine, work, task.size(0, EIGHTH), task.seed);
    let run = world::simulate(&machine, &workload, policy, &Costs::published(), task.seed);
    let named = |(ending, ..): &&Metric| ending.trim_start_matches('-') == metric;
    let (_, _, number) = METRICS
        .iter()
        .find(named)
        .expect("each case has its metric");
    Ok(vec![number(&run)])
}
