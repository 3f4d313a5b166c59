//! What is done: trees of forks that unfold as they are run, each with the work in its leaves and the
//! node where the data of a leaf lies.
//!
//! A workload is pure: the same task unfolds in the same way whoever runs it, and whenever.

use super::costs::rounded;
use super::random::{mixed, unit};
use crate::forkjoin::uts::drawn_children;

/// A kind of work, and how much.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) shape: Shape,
    /// How much of the work waits for memory: 0 for none, 1 for all.
    pub(super) memory: f64,
    seed: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// As Fibonacci numbers call each other, down to leaves of fewer than `cut`, at `call_ns` a call.
    Fib { n: u32, cut: u32, call_ns: f64 },
    /// A tree of which nobody knows what is below, as UTS T1: children of a geometric distribution,
    /// 4 in the mean, cut at a depth.
    Uts { depth: u32, node_ns: f64, tree: u64 },
    /// A loop over data that lies on the nodes in order; each node's part begins there. With `ramp`
    /// the last leaf has three times the work of the first.
    Loop {
        leaves: u32,
        leaf_ns: f64,
        nodes: usize,
        ramp: bool,
    },
    /// Jobs that all come to the first node.
    Burst { jobs: u32, job_ns: f64 },
}

/// A part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    low: u32,
    high: u32,
    depth: u32,
    state: u64,
    is_range: bool,
}

/// What a task does: some work, then whatever comes next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) work_ns: u64,
    /// The node where its data lies; none where it has what its fork was made of.
    pub(super) home: Option<usize>,
    pub(super) then: Then,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    Done,
    Next(Task),
    /// The first is run, the second waits for its owner or a thief.
    Fork(Task, Task),
}

impl Workload {
    /// `memory` says how much of it waits for memory; leaves differ by up to a tenth, by the seed.
    pub(super) fn new(shape: Shape, memory: f64, seed: u64) -> Workload {
        Workload {
            shape,
            memory,
            seed: mixed(seed),
        }
    }

    /// What comes from outside, and to which node.
    pub(super) fn starts(&self) -> Vec<(usize, Task)> {
        let range = |low, high| Task {
            low,
            high,
            depth: 0,
            state: 0,
            is_range: true,
        };
        match self.shape {
            Shape::Fib { n, .. } => vec![(0, range(n, n))],
            Shape::Uts { tree, .. } => {
                let root = Task {
                    state: mixed(tree),
                    is_range: false,
                    ..range(0, 0)
                };
                vec![(0, root)]
            }
            Shape::Loop { leaves, nodes, .. } => {
                let border = |node: usize| {
                    let border = u64::from(leaves) * node as u64 / nodes as u64;
                    u32::try_from(border).expect("at most `leaves`")
                };
                (0..nodes)
                    .map(|node| (node, range(border(node), border(node + 1))))
                    .collect()
            }
            Shape::Burst { jobs, .. } => (0..jobs).map(|job| (0, range(job, job + 1))).collect(),
        }
    }

    /// True if a task was put on a node because its data lies there.
    pub(super) fn is_placed(&self, task: &Task) -> bool {
        matches!(self.shape, Shape::Loop { .. }) && task.is_range
    }

    /// What a task does.
    pub(super) fn step(&self, task: &Task) -> Step {
        match self.shape {
            Shape::Fib { cut, call_ns, .. } => {
                let n = task.low;
                if n < cut {
                    return self.leaf(task, calls(n) * call_ns, None);
                }
                let smaller = |less: u32, salt: u64| Task {
                    low: n - less,
                    state: mixed(task.state ^ salt),
                    ..*task
                };
                fork(smaller(1, 1), smaller(2, 2))
            }
            Shape::Uts { depth, node_ns, .. } if !task.is_range => {
                let children = if task.depth == depth {
                    0
                } else {
                    children(task.state)
                };
                let below = Task {
                    low: 0,
                    high: children,
                    is_range: true,
                    ..*task
                };
                let then = if children == 0 {
                    Then::Done
                } else {
                    Then::Next(below)
                };
                Step {
                    then,
                    ..self.leaf(task, node_ns, None)
                }
            }
            Shape::Uts { .. } => halves(task).unwrap_or_else(|| Step {
                work_ns: 0,
                home: None,
                then: Then::Next(Task {
                    depth: task.depth + 1,
                    state: mixed(task.state.wrapping_add(u64::from(task.low) + 1)),
                    is_range: false,
                    ..*task
                }),
            }),
            Shape::Loop {
                leaves,
                leaf_ns,
                nodes,
                ramp,
            } => halves(task).unwrap_or_else(|| {
                let place = f64::from(task.low) / f64::from(leaves);
                let weight = if ramp { 0.5 + place } else { 1.0 };
                let node = u64::from(task.low) * nodes as u64 / u64::from(leaves);
                let home = usize::try_from(node).expect("less than `nodes`");
                self.leaf(task, leaf_ns * weight, Some(home))
            }),
            Shape::Burst { job_ns, .. } => self.leaf(task, job_ns, Some(0)),
        }
    }

    fn leaf(&self, task: &Task, ns: f64, home: Option<usize>) -> Step {
        let key = task.state ^ (u64::from(task.low) << 32) ^ u64::from(task.high);
        let varied = 0.9 + 0.2 * unit(mixed(key ^ self.seed));
        Step {
            work_ns: rounded(ns * varied),
            home,
            then: Then::Done,
        }
    }

    /// All work and all forks, one after the other.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let mut left: Vec<Task> = self.starts().into_iter().map(|(_, task)| task).collect();
        while let Some(task) = left.pop() {
            let step = self.step(&task);
            totals.work_ns += step.work_ns;
            match step.then {
                Then::Done => totals.leaves += 1,
                Then::Next(next) => left.push(next),
                Then::Fork(now, later) => {
                    totals.forks += 1;
                    left.extend([later, now]);
                }
            }
        }
        totals
    }
}

/// What a workload comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) work_ns: u64,
    pub(super) leaves: u64,
    pub(super) forks: u64,
}

fn fork(now: Task, later: Task) -> Step {
    Step {
        work_ns: 0,
        home: None,
        then: Then::Fork(now, later),
    }
}

fn halves(task: &Task) -> Option<Step> {
    let half = (task.high - task.low) / 2;
    (half > 0).then(|| {
        let middle = task.low + half;
        let (left, right) = (
            Task {
                high: middle,
                ..*task
            },
            Task {
                low: middle,
                ..*task
            },
        );
        fork(left, right)
    })
}

/// The calls of a recursion for the n-th Fibonacci number.
pub(super) fn calls(n: u32) -> f64 {
    let (mut calls, mut next) = (1.0, 1.0);
    for _ in 1..n.max(1) {
        (calls, next) = (next, calls + next + 1.0);
    }
    next
}

fn children(state: u64) -> u32 {
    drawn_children(unit(mixed(state ^ 0x5eed)))
}
