//! The suite `forkjoin`: forks and joins, spawns, loops over ranges, and how fast and how quietly
//! workers sleep and wake.
//!
//! A case a file, or a few that belong together.

mod atomics;
mod counted;
mod fib;
mod flat;
mod idle;
mod long_leaf;
mod matmul;
mod memory;
mod nqueens;
mod quicksort;
mod skynet;
mod spawn;
mod start;
mod tree;
pub(crate) mod uts;
mod wake;

use crate::case::{Case, Contender};

/// All of them, in the order in which they are told.
pub(crate) fn cases() -> Vec<Case> {
    [
        fib::cases(),
        long_leaf::cases(),
        uts::cases(),
        nqueens::cases(),
        quicksort::cases(),
        tree::cases(),
        skynet::cases(),
        matmul::cases(),
        memory::cases(),
        flat::cases(),
        spawn::cases(),
        wake::cases(),
        start::cases(),
        idle::cases(),
        counted::cases(),
        atomics::cases(),
    ]
    .concat()
}

fn case(
    name: &'static str,
    unit: &'static str,
    what: &'static str,
    contenders: Vec<Contender>,
) -> Case {
    Case::new("forkjoin", (name, unit), what, contenders)
}
