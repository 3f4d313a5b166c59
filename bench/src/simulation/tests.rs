//! What holds in every simulated run.

use super::costs::Costs;
use super::machine::{Machine, NAMES};
use super::policy::{POLICIES, Victims};
use super::workload::{Shape, Workload};
use super::world::simulate;

const TREE: u64 = 4;
#[test]
fn sizes() {
    for tree in 0..60 {
        let w = Workload::new(
            Shape::Uts {
                depth: 9,
                node_ns: 1000.0,
                tree,
            },
            0.0,
            1,
        );
        eprintln!("SIZE {tree}:{} ", w.totals().forks);
    }
}
fn shapes(nodes: usize) -> Vec<(&'static str, Shape, f64)> {
    vec![
        (
            "fib",
            Shape::Fib {
                n: 33,
                cut: 8,
                call_ns: 100.0,
            },
            0.0,
        ),
        (
            "uts",
            Shape::Uts {
                depth: 9,
                node_ns: 1000.0,
                tree: TREE,
            },
            0.0,
        ),
        (
            "loop",
            Shape::Loop {
                leaves: 1 << 15,
                leaf_ns: 20_000.0,
                nodes,
                ramp: false,
            },
            1.0,
        ),
        (
            "ramp",
            Shape::Loop {
                leaves: 1 << 15,
                leaf_ns: 20_000.0,
                nodes,
                ramp: true,
            },
            1.0,
        ),
        (
            "burst",
            Shape::Burst {
                jobs: 20000,
                job_ns: 20_000.0,
            },
            0.25,
        ),
    ]
}

#[test]
fn look() {
    for name in NAMES {
        let machine = Machine::named(name);
        for (shape_name, shape, memory) in shapes(machine.nodes()) {
            for policy in POLICIES {
                let w = Workload::new(shape.clone(), memory, 1);
                let totals = w.totals();
                let t = std::time::Instant::now();
                let o = simulate(&machine, &w, policy, &Costs::published(), 1);
                eprintln!(
                    "{name} {shape_name:6} {:26} over {:.3} far {:.3} spread {:6}us mk {:6}us near {} farst {} rob {} wakes {} parks {} shared {} passed {} ({:?}) leaves {} forks {}",
                    policy.name,
                    o.over_ideal(),
                    o.far_share(),
                    o.spread_ns.unwrap_or(0) / 1000,
                    o.makespan_ns / 1000,
                    o.near_steals,
                    o.far_steals,
                    o.robberies,
                    o.wakes,
                    o.parks,
                    o.shared,
                    o.passed_over,
                    t.elapsed(),
                    totals.leaves,
                    totals.forks
                );
                assert_eq!(o.work_ns, totals.work_ns);
                assert_eq!((o.leaves, o.forks), (totals.leaves, totals.forks));
                if policy.victims == Victims::ByDistance {
                    assert_eq!(o.passed_over, 0);
                }
            }
        }
    }
}
