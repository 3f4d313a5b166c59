//! Who may run a job, and who may end it: one word, won by one.

use crate::sync::{AtomicU8, Ordering};

const QUEUED: u8 = 0;
const CLAIMED: u8 = 1;
const ENDED: u8 = 2;

/// The state of a job; see [`cell`](crate::cell).
#[derive(Debug)]
pub struct State(AtomicU8);

impl State {
    /// A job that waits.
    pub fn queued() -> State {
        State(AtomicU8::new(QUEUED))
    }

    /// Takes the job out of the queue, to run it or to end it. True for one caller only.
    pub fn claim(&self) -> bool {
        // ORDERING: relaxed: the closure and the outcome are behind their own mutexes; this word
        // only says whose they are.
        let claimed =
            self.0
                .compare_exchange(QUEUED, CLAIMED, Ordering::Relaxed, Ordering::Relaxed);
        claimed.is_ok()
    }

    /// It has ended.
    pub fn end(&self) {
        // ORDERING: relaxed, as above.
        self.0.store(ENDED, Ordering::Relaxed);
    }

    /// True while nobody has claimed it.
    pub fn is_queued(&self) -> bool {
        // ORDERING: relaxed: a hint; `claim` decides.
        self.0.load(Ordering::Relaxed) == QUEUED
    }
}
