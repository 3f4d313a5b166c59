//! Who may run a job, who may end it, and who may have its outcome: one word.
//!
//! It goes `QUEUED → CLAIMED → ENDED`, and whoever claims the job owns its closure, and then its
//! outcome until it has ended. Beside that two marks: somebody waits for the end, and somebody has
//! taken the outcome.

use crate::protocol::sync::{AtomicU8, Ordering, both, needed};

const CLAIMED: u8 = 1;
const ENDED: u8 = 2;
const WAITED_FOR: u8 = 4;
const TAKEN: u8 = 8;

/// The state of a job; see [`cell`](crate::cell).
#[derive(Debug)]
pub struct State(AtomicU8);

impl State {
    /// A job that waits.
    pub fn queued() -> State {
        State(AtomicU8::new(0))
    }

    /// Takes the job out of the queue, to run it or to end it. True for one caller only.
    #[inline]
    pub fn claim(&self) -> bool {
        // ORDERING: relaxed: whoever can claim it was given it, and with it what is in it.
        self.0.fetch_or(CLAIMED, Ordering::Relaxed) & CLAIMED == 0
    }

    /// As [`claim`](State::claim), where nobody else can reach it before it is gone.
    pub fn claim_alone(&self) -> bool {
        // ORDERING: relaxed, here and below: whoever had it has it no more, and has said so.
        let state = self.0.load(Ordering::Relaxed);
        self.0.store(state | CLAIMED, Ordering::Relaxed);
        state & CLAIMED == 0
    }

    /// As [`end`](State::end), where nobody else can reach it before it is gone: nobody waits.
    pub fn end_alone(&self) {
        self.0
            .store(self.0.load(Ordering::Relaxed) | ENDED, Ordering::Relaxed);
    }

    /// It has ended, says who has claimed it; true if somebody [`wait`](State::wait)s.
    #[inline]
    pub fn end(&self) -> bool {
        // ORDERING: release, with the acquires in `wait` and `take`: the outcome is visible. Acquire,
        // with the release in `wait`: so is who waits.
        self.0.fetch_or(ENDED, both("state end", "state end sees")) & WAITED_FOR != 0
    }

    /// Says that somebody waits, who has left word of where before; true if it has ended already, and
    /// nobody will come.
    pub fn wait(&self) -> bool {
        // ORDERING: see `end`.
        self.0
            .fetch_or(WAITED_FOR, needed("state wait", Ordering::Release))
            & ENDED
            != 0
    }

    /// Takes the outcome, if it has ended. True for one caller only.
    pub fn take(&self) -> bool {
        // ORDERING: relaxed: `is_ended` has acquired what the end has released.
        self.is_ended() && self.0.fetch_or(TAKEN, Ordering::Relaxed) & TAKEN == 0
    }

    /// True if it has ended, and nobody has taken the outcome.
    #[inline]
    pub fn has_outcome(&mut self) -> bool {
        // ORDERING: relaxed: nobody else has it.
        self.0.load(Ordering::Relaxed) & (ENDED | TAKEN) == ENDED
    }

    /// True once it has ended.
    #[inline]
    pub fn is_ended(&self) -> bool {
        // ORDERING: acquire, see `end`.
        self.0.load(needed("state ended", Ordering::Acquire)) & ENDED != 0
    }

    /// True while nobody has claimed it.
    #[inline]
    pub fn is_queued(&self) -> bool {
        // ORDERING: relaxed: a hint; `claim` decides.
        self.0.load(Ordering::Relaxed) & CLAIMED == 0
    }
}
