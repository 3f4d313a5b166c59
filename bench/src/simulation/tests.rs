//! What holds in every simulated run, whatever things cost.

use super::costs::{CONSTANTS, Constant, Costs};
use super::machine::{Machine, NAMES};
use super::outcome::Run;
use super::policy::{POLICIES, Policy, Victims};
use super::scenario::{WORK, workload};
use super::workload::{Shape, Workload};
use super::world::simulate;

/// A sixteenth: the tests run without optimisation.
const TINY: u32 = 4;

const RANDOM: Policy = POLICIES[POLICIES.len() - 1];

fn run(machine: &str, work: &str, policy: Policy, seed: u64) -> Run {
    let machine = Machine::named(machine);
    let workload = workload(&machine, work, TINY, seed);
    simulate(&machine, &workload, policy, &Costs::published(), seed)
}

/// Every policy at every kind of work; on the largest machine, which takes longest, the engine's own
/// and random stealing alone.
fn each(mut check: impl FnMut(&str, &str, Policy)) {
    for machine in NAMES {
        let is_large = machine == "8x56";
        let extremes = [POLICIES[0], RANDOM];
        let policies: &[Policy] = if is_large { &extremes } else { &POLICIES };
        for (work, _) in WORK {
            policies
                .iter()
                .for_each(|&policy| check(machine, work, policy));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    each(|machine, work, policy| {
        let [first, second] = [7, 7].map(|seed| run(machine, work, policy, seed));
        assert_eq!(first, second, "{machine} {work}, {}", policy.name);
    });
    let [first, second] = [7, 8].map(|seed| run("4x28", "loop", POLICIES[0], seed));
    assert_ne!(first, second, "another seed is another run");
}

#[test]
fn all_work_is_done_once() {
    each(|name, work, policy| {
        let machine = Machine::named(name);
        let workload = workload(&machine, work, TINY, 3);
        let totals = workload.totals();
        let run = simulate(&machine, &workload, policy, &Costs::published(), 3);
        let about = format!("{name} {work}, {}", policy.name);
        assert_eq!(run.work_ns, totals.work_ns, "{about}");
        assert_eq!(
            (run.leaves, run.forks),
            (totals.leaves, totals.forks),
            "{about}"
        );
        assert!(run.over_ideal() >= 1.0, "{about}");
    });
}

#[test]
fn all_work_is_done_once_whatever_things_cost() {
    let machine = Machine::named("16x8");
    for constant in CONSTANTS.map(|known| known.constant) {
        for factor in [0.0, 20.0] {
            let costs = Costs::published().times(constant, factor);
            for policy in [POLICIES[0], POLICIES[4], RANDOM] {
                let workload = workload(&machine, "uts", TINY, 1);
                let run = simulate(&machine, &workload, policy, &costs, 1);
                assert_eq!(
                    run.leaves,
                    workload.totals().leaves,
                    "{constant:?} times {factor}"
                );
            }
        }
    }
}

#[test]
fn nobody_steals_elsewhere_while_there_is_something_on_its_node() {
    each(|machine, work, policy| {
        let passed_over = run(machine, work, policy, 1).passed_over;
        if policy.victims == Victims::ByDistance {
            assert_eq!(passed_over, 0, "{machine} {work}, {}", policy.name);
        }
    });
    assert!(
        run("4x28", "fib", RANDOM, 1).passed_over > 0,
        "or this counts nothing"
    );
}

#[test]
fn the_engine_does_more_at_home_than_random_stealing() {
    assert_eq!(RANDOM.victims, Victims::Random);
    for machine in NAMES {
        for work in ["loop", "ramp"] {
            let far = |policy| run(machine, work, policy, 1).far_share();
            assert!(far(POLICIES[0]) <= far(RANDOM), "{machine} {work}");
        }
    }
}

#[test]
fn one_worker_takes_as_long_as_its_work_and_forks() {
    let machine = Machine::described("NUMANode:1 Core:1 PU:1");
    let shape = Shape::Fib {
        n: 15,
        cut: 5,
        call_ns: 100.0,
    };
    let workload = Workload::new(shape, 0.0, 1);
    let totals = workload.totals();
    // All else is what it takes to hand the work over.
    let costs = CONSTANTS
        .iter()
        .filter(|known| known.constant != Constant::Fork)
        .fold(Costs::published(), |costs, known| {
            costs.with(known.constant, 0.0)
        });
    let run = simulate(&machine, &workload, POLICIES[0], &costs, 1);
    let forks_ns = totals.forks * costs.ns(Constant::Fork);
    assert_eq!(run.makespan_ns, totals.work_ns + forks_ns);
    assert_eq!((run.near_steals, run.far_steals, run.wakes), (0, 0, 1));
}

#[test]
fn a_remote_leaf_takes_as_much_longer_as_remote_memory() {
    let machine = Machine::named("4x28");
    let costs = Costs::published();
    let far = costs.memory_factor(machine.distance(0, 1));
    assert!((far - 146.0 / 96.4).abs() < 0.01, "{far}");
}

#[test]
fn half_of_one_is_one() {
    // The engine shares one fork at a time, so taking half changes nothing but for jobs.
    for (work, _) in WORK
        .iter()
        .filter(|(work, _)| ["fib", "loop"].contains(work))
    {
        let [one, half] = [0, 1].map(|policy| run("4x28", work, POLICIES[policy], 1));
        assert_eq!(one, half, "{work}");
    }
}
