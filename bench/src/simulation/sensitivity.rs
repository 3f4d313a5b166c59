//! Whether what the simulation says depends on a cost that was published for some other machine: each
//! is halved and doubled, and it is counted which comparisons turn round.
//!
//! At half the usual size, so that a child is done in a minute. A comparison is of the engine as it is with one other policy, on one machine at one kind of work.
//! It turns round if who was better is worse now, each by more than a tie. Which ones those are is told
//! on standard error by the child.

use std::collections::BTreeMap;

use super::costs::{CONSTANTS, Constant, Costs};
use super::machine::{Machine, NAMES};
use super::outcome::Run;
use super::policy::POLICIES;
use super::scenario::{EIGHTH, HALF, WORK, workload};
use super::world::simulate;
use crate::case::{Case, Contender, Outcome, Role, Task};

/// Makespans that differ by less are level; shares of the work, by so much of it.
const TIE: f64 = 0.05;

const CASES: [(&str, &str); 2] = [
    ("sensitivity-makespan", "which policy ends first"),
    (
        "sensitivity-far-work",
        "which policy does most where its data lies",
    ),
];

pub(super) fn cases() -> Vec<Case> {
    let comparisons = NAMES.len() * WORK.len() * (POLICIES.len() - 1);
    let case = |(name, what): (&'static str, &str)| {
        let unit = format!("comparisons of {comparisons} that turn round");
        let what = format!("{what}, when a cost is halved or doubled");
        let contenders = CONSTANTS.iter().map(|known| Contender {
            name: known.name,
            role: Role::Floor,
            run,
        });
        let named = (name, &*unit.leak());
        let case = Case::new("simulation", named, what.leak(), contenders.collect());
        case.at(&[1]).once().slow()
    };
    CASES.map(case).into()
}

/// Policies by machine and work.
type Results = BTreeMap<(&'static str, &'static str), Vec<Run>>;

fn run(task: &Task) -> Outcome {
    let known = CONSTANTS.iter().find(|known| known.name == task.contender);
    let constant = known
        .expect("each contender is named after its constant")
        .constant;
    let compare = if task.case == CASES[0].0 {
        by_makespan
    } else {
        by_far_work
    };
    let shorter = task.size(HALF, EIGHTH);
    let published = all(&Costs::published(), shorter);
    let turned = [0.5, 2.0].map(|factor| {
        let changed = all(&Costs::published().times(constant, factor), shorter);
        turned_round(&published, &changed, compare, constant, factor)
    });
    Ok(turned.into())
}

fn all(costs: &Costs, shorter: u32) -> Results {
    let mut results = Results::new();
    for name in NAMES {
        let machine = Machine::named(name);
        for (work, _) in WORK {
            let workload = workload(&machine, work, shorter, 1);
            let run = |policy| simulate(&machine, &workload, policy, costs, 1);
            results.insert((name, work), POLICIES.map(run).into());
        }
    }
    results
}

/// Positive if the second is better by more than a tie, negative if it is worse, else 0.
fn by_makespan(a: &Run, b: &Run) -> i32 {
    let ratio = a.over_ideal() / b.over_ideal();
    i32::from(ratio > 1.0 + TIE) - i32::from(ratio < 1.0 / (1.0 + TIE))
}

fn by_far_work(a: &Run, b: &Run) -> i32 {
    let more = a.far_share() - b.far_share();
    i32::from(more > TIE) - i32::from(more < -TIE)
}

fn turned_round(
    before: &Results,
    after: &Results,
    compare: fn(&Run, &Run) -> i32,
    constant: Constant,
    factor: f64,
) -> f64 {
    let mut turned = 0;
    for (&(machine, work), before) in before {
        let after = &after[&(machine, work)];
        for (place, policy) in POLICIES.iter().enumerate().skip(1) {
            let then = compare(&before[0], &before[place]);
            let now = compare(&after[0], &after[place]);
            if then * now < 0 {
                turned += 1;
                eprintln!(
                    "{constant:?} times {factor}: {machine} {work}, {}",
                    policy.name
                );
            }
        }
    }
    f64::from(turned)
}
