//! Somebody who looks after jobs, and rests while there are none.
//!
//! | who looks | who brings a job |
//! | --- | --- |
//! | 1. says that it rests | 1. counts the job |
//! | 2. fence | 2. fence |
//! | 3. asks whether there are jobs; rests if there are none | 3. if somebody rests: wakes it |
//!
//! Of the two fences one comes first: the job is seen, or who brings it sees that somebody rests. One that may
//! be stopped before it has woken anybody only asks whether somebody rests, and does not take that upon itself:
//! others would leave it to it. `tests/loom_doze.rs` checks it.

use crate::protocol::sync::{AtomicBool, Ordering, fence_needed};

/// Whether somebody rests.
#[derive(Debug)]
pub struct Doze(AtomicBool);

impl Default for Doze {
    fn default() -> Doze {
        Doze(AtomicBool::new(false))
    }
}

impl Doze {
    /// One who rests until it is woken first.
    pub fn resting() -> Doze {
        Doze(AtomicBool::new(true))
    }

    /// For who looks, which was woken by one that did not take that upon itself.
    pub fn wakes(&self) {
        // ORDERING: relaxed: who brings a job before it is seen wakes it once more, for nothing.
        self.0.store(false, Ordering::Relaxed);
    }

    /// True if who looks may rest until it is woken, for there is nothing to look after.
    pub fn may_rest(&self, is_idle: impl FnOnce() -> bool) -> bool {
        // ORDERING: relaxed, here and below: the fences order it.
        self.0.store(true, Ordering::Relaxed);
        // ORDERING: with the fence in `must_wake`.
        fence_needed("doze rest fence");
        let rests = is_idle();
        if !rests {
            self.0.store(false, Ordering::Relaxed);
        }
        rests
    }

    /// True for who has counted a job in and is to wake who rests.
    pub fn must_wake(&self) -> bool {
        self.rests() && self.0.swap(false, Ordering::Relaxed)
    }

    /// For who has counted a job in: true if somebody rests.
    pub fn rests(&self) -> bool {
        // ORDERING: with the fence in `may_rest`.
        fence_needed("doze wake fence");
        self.0.load(Ordering::Relaxed)
    }
}
