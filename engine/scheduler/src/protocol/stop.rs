//! That an engine has stopped, and who runs the forks that still come from outside: a worker at its
//! last look, or whoever brings one once no worker may look any more.
//!
//! | worker | whoever brings a fork |
//! | --- | --- |
//! | 1. sees that the engine has stopped | 1. pushes it |
//! | 2. fence | 2. fence |
//! | 3. runs what came | 3. if the engine has stopped, runs what came |
//!
//! Of the two fences one comes first: the worker finds the fork, or who brought it sees that the
//! engine has stopped. `tests/loom_end.rs` checks it.

use crate::protocol::sync::{AtomicBool, Ordering, fence_needed};

/// Said once, when nothing is left to do.
#[derive(Debug)]
pub struct Stop(AtomicBool);

impl Default for Stop {
    fn default() -> Stop {
        Stop(AtomicBool::new(false))
    }
}

impl Stop {
    /// Ends the workers once they have nothing to do. They are to be woken.
    pub fn say(&self) {
        // ORDERING: relaxed: it publishes nothing; the wakes make it seen, and the fences order it
        // where it matters.
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once it was said.
    pub fn is_said(&self) -> bool {
        // ORDERING: relaxed, as above.
        self.0.load(Ordering::Relaxed)
    }

    /// For a worker that has seen it, before it looks for the last time.
    pub fn before_last_look(&self) {
        debug_assert!(self.is_said());
        // ORDERING: with the fence in `after_push`.
        fence_needed("stop look fence");
    }

    /// For whoever has brought a fork: true if it may be that no worker looks for it any more.
    pub fn after_push(&self) -> bool {
        // ORDERING: with the fence in `before_last_look`.
        fence_needed("stop push fence");
        self.is_said()
    }
}
