//! When background work has stood still for too long: policy alone.
//!
//! It goes by progress and not by how long a job has waited: behind a backlog every job has waited long,
//! and ordinary workers that took them for that would be in them when urgent work comes.

use std::time::Duration;

use crate::clock::Stamp;
use crate::protocol::sync::{AtomicU64, Ordering};

/// When work of a node last moved.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    /// A job has ended, or has come where none waited.
    pub(crate) fn note(&self, now: Stamp) {
        // ORDERING: relaxed, as all here: a time, which publishes nothing.
        self.0.store(now.ticks(), Ordering::Relaxed);
    }

    /// True if nothing has moved for so long: for one of all who ask, and then not for as long again.
    pub(crate) fn is_overdue(&self, now: Stamp, patience: Duration) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        now.since(Stamp::from_ticks(last)) >= patience
            && self
                .0
                .compare_exchange(last, now.ticks(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Ends,
        Asks,
    }

    fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
        let event = prop_oneof![Just(Event::Ends), Just(Event::Asks), Just(Event::Asks)];
        proptest::collection::vec((0_u64..400_000_000, event), 1..100)
    }

    proptest! {
        /// Against what it is to be: one for each full patience in which nothing ended and none was
        /// taken. Whatever the clock's ticks are, the model reads the same ones.
        #[test]
        fn one_is_taken_for_each_patience_in_which_nothing_moves(events in events()) {
            let patience = Duration::from_millis(10);
            let start = Stamp::now();
            let progress = Progress::default();
            progress.note(start);
            let (mut now, mut moved) = (start.ticks(), start);
            let mut taken = 0;
            for (pause, event) in events {
                now += pause;
                let at = Stamp::from_ticks(now);
                match event {
                    Event::Ends => {
                        progress.note(at);
                        moved = at;
                    }
                    Event::Asks => {
                        let is_due = at.since(moved) >= patience;
                        prop_assert_eq!(progress.is_overdue(at, patience), is_due);
                        // Whoever asks right after that is told no.
                        prop_assert!(!progress.is_overdue(at, patience));
                        if is_due {
                            moved = at;
                            taken += 1;
                        }
                    }
                }
            }
            let passed = Stamp::from_ticks(now).since(start);
            prop_assert!(patience * taken <= passed);
        }
    }
}
