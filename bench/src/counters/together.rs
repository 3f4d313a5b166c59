//! What others who do the same at the same time add to an operation: the ratio that shows false sharing.

use super::cells::{self, Tally};
use crate::case::{Outcome, Task};
use crate::crew::On;
use crate::pools;
use crate::stats;

/// Of a counter, on threads that no engine knows.
pub(super) fn tally_together<T: Tally>(task: &Task) -> Outcome {
    ratio(task, |task| cells::measure::<T>(task, On::Threads))
}

/// Of a counter, on workers of an engine.
pub(super) fn tally_together_on_workers<T: Tally>(task: &Task) -> Outcome {
    ratio(task, |task| cells::measure::<T>(task, On::Workers))
}

/// Of a pool of small objects, one out at a time, on threads that no engine knows.
pub(super) fn pool_together<L: pools::Lender>(task: &Task) -> Outcome {
    ratio(task, pools::depth_1::<L>)
}

/// Samples at all threads, each as a multiple of the median of one thread alone.
fn ratio(task: &Task, measure: impl Fn(&Task) -> Outcome) -> Outcome {
    let part = |threads| {
        let part = Task {
            threads,
            budget: task.budget / 2,
            ..task.clone()
        };
        measure(&part)
    };
    let alone = stats::median(&part(1)?).expect("at least one sample");
    let together = part(task.threads)?;
    Ok(together.into_iter().map(|sample| sample / alone).collect())
}
