//! What is simulated: every machine with every kind of work, at one size.

use super::machine::Machine;
use super::workload::{Shape, Workload};

/// The kinds of work, by the names of the cases, and what they are.
pub(super) const WORK: [(&str, &str); 5] = [
    ("fib", "Fibonacci numbers by forks"),
    ("uts", "an unbalanced tree by forks"),
    ("loop", "an even loop over data on the nodes"),
    (
        "ramp",
        "a loop over data on the nodes, dearer towards its end",
    ),
    ("burst", "jobs that all come to one node"),
];

/// Of the trees with this depth one of average size.
pub(super) const TREE: u64 = 4;

/// How much smaller than usual, as a power of two or a little more.
pub(super) const HALF: u32 = 1;
pub(super) const EIGHTH: u32 = 3;

/// A kind of work for a machine, so much smaller; the seed varies the leaves.
pub(super) fn workload(machine: &Machine, name: &str, shorter: u32, seed: u64) -> Workload {
    let nodes = machine.nodes();
    let (shape, memory) = match name {
        "fib" => {
            let (n, cut, call_ns) = (33 - 2 * shorter, 8, 100.0);
            (Shape::Fib { n, cut, call_ns }, 0.0)
        }
        "uts" => {
            let (depth, node_ns, tree) = (9 - shorter, 1000.0, TREE);
            (
                Shape::Uts {
                    depth,
                    node_ns,
                    tree,
                },
                0.0,
            )
        }
        "loop" | "ramp" => {
            let shape = Shape::Loop {
                leaves: (1 << 15) >> shorter,
                leaf_ns: 20_000.0,
                nodes,
                ramp: name == "ramp",
            };
            (shape, 1.0)
        }
        "burst" => {
            let (jobs, job_ns) = (20_000 >> shorter, 20_000.0);
            (Shape::Burst { jobs, job_ns }, 0.25)
        }
        other => unreachable!("no case is named after {other}"),
    };
    Workload::new(shape, memory, seed)
}
