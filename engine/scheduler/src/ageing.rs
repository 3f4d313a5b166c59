//! When background work of class Cpu has stood still for too long, and who sees that.
//!
//! It goes by progress and not by how long a job has waited: behind a backlog every job has waited long,
//! and ordinary workers that took them for that would be in them when urgent work comes.
//!
//! Ordinary workers look between two pieces of work. Where they sleep, and other programs or urgent work
//! take all CPUs, nobody of the background may come to do so either: so while background jobs wait the
//! spawner wakes now and then, and wakes an ordinary worker where they stand still. It rests while none waits
//! (see [`doze`](crate::protocol::doze)).

use std::time::{Duration, Instant};

use crate::Priority;
use crate::clock::Stamp;
use crate::protocol::sync::{AtomicU64, Ordering};
use crate::queues::NodeQueues;
use crate::schedule::is_stoppable;
use crate::shared::Shared;
use crate::spawner::Request;

/// The spawner looks no more often, however short patience is.
const LOOKS_APART: Duration = Duration::from_millis(10);

/// When work of a node last moved.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    /// A job has ended, or has come where none waited.
    pub(crate) fn note(&self, now: Stamp) {
        // ORDERING: relaxed, as all here: a time, which publishes nothing.
        self.0.store(now.ticks(), Ordering::Relaxed);
    }

    /// How long nothing need move yet.
    pub(crate) fn left(&self, now: Stamp, patience: Duration) -> Duration {
        let last = self.0.load(Ordering::Relaxed);
        patience.saturating_sub(now.since(Stamp::from_ticks(last)))
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

impl Shared {
    /// Background jobs wait, which somebody is to look after.
    pub(crate) fn look_after_background(&self) {
        let asks = match is_stoppable() {
            true => self.looks_after.rests(),
            false => self.looks_after.must_wake(),
        };
        if asks {
            self.spawner.ask(Request::LookAfter(self.weak()));
        }
    }

    /// For the spawner, which was asked to look after the background: when.
    pub(crate) fn looks_after_background(&self) -> Option<Instant> {
        self.looks_after.wakes();
        self.next_look(self.options.background_patience)
    }

    /// `None` if that is never.
    fn next_look(&self, wait: Duration) -> Option<Instant> {
        Instant::now().checked_add(wait.max(LOOKS_APART))
    }

    /// True if background jobs stand still that a worker of this node may do.
    pub(crate) fn is_background_overdue(&self, node: usize) -> bool {
        let (now, patience) = (Stamp::now(), self.options.background_patience);
        self.background().is_some_and(|crew| {
            let may_do = |other: &usize| crew.queues[*other].has(Priority::P2, *other == node);
            let mut near = self.machine.near[node].iter();
            near.any(|other| may_do(other) && crew.time_left(*other, now, patience).is_zero())
        })
    }

    /// For the spawner: has ordinary workers that sleep do what stands still; gives when to come again, if
    /// anything waits.
    pub(crate) fn relieve_background(&self) -> Option<Instant> {
        let crew = self.background()?;
        let (now, patience) = (Stamp::now(), self.options.background_patience);
        let waits = |queues: &NodeQueues| queues.has(Priority::P2, true);
        let is_idle = || crew.nodes_where(waits).next().is_none();
        if self.looks_after.may_rest(is_idle) {
            return None;
        }
        let mut wait = patience;
        for node in crew.nodes_where(waits) {
            let left = crew.time_left(node, now, patience);
            if left.is_zero() {
                self.main().wake_one(self, node);
            } else {
                wait = wait.min(left);
            }
        }
        self.next_look(wait)
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
