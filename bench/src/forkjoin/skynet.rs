//! Skynet: a million leaves under nodes of ten children each, which do nothing but add up their numbers.
//!
//! <https://github.com/atemerev/skynet>, with joins in place of its actors.

use std::hint::black_box;

use crate::case::{Case, Outcome, Task};
use crate::forkjoin::case;
use crate::forks::{self, Forks, forkers_and_serial};

pub(super) fn cases() -> Vec<Case> {
    let what = "skynet: a million leaves, ten children a node, added up by joins";
    vec![case("skynet", "ms", what, forkers_and_serial!(run))]
}

const LEAVES: u64 = 1_000_000;
const CHILDREN: u64 = 10;

fn node<F: Forks>(here: &mut F::Here<'_>, first: u64, leaves: u64) -> u64 {
    if leaves == 1 {
        // Or the compiler adds up all of a serial skynet beforehand.
        return black_box(first);
    }
    children::<F>(here, first, leaves / CHILDREN, CHILDREN)
}

/// So many children of so many leaves each, by halves.
fn children<F: Forks>(here: &mut F::Here<'_>, first: u64, leaves: u64, number: u64) -> u64 {
    if number == 1 {
        return node::<F>(here, first, leaves);
    }
    let half = number / 2;
    let (left, right) = F::join(
        here,
        |here| children::<F>(here, first, leaves, half),
        |here| children::<F>(here, first + half * leaves, leaves, number - half),
    );
    left + right
}

fn run<F: Forks>(task: &Task) -> Outcome {
    forks::sample_ms(task, |engine: &F| {
        let sum = engine.enter(|here| node::<F>(here, 0, LEAVES));
        assert_eq!(sum, LEAVES * (LEAVES - 1) / 2, "the sum of all leaves");
    })
}
