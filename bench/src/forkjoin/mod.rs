//! The suite `forkjoin`: forks and joins, spawns, loops over ranges, and how fast and how quietly
//! workers sleep and wake.

mod fib;
mod tree;

use crate::case::Case;

/// All of them, in the order in which they are told.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(fib::cases());
    cases.extend(tree::cases());
    cases
}
