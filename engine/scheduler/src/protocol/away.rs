//! Somebody who does what others ask for, and may be away: in code of somebody else that takes as long as
//! it likes, or waits for just those who ask.
//!
//! | who asks | who goes away |
//! | --- | --- |
//! | 1. leaves its request | 1. says that it is away |
//! | 2. fence | 2. fence |
//! | 3. if it is away: does itself what must not wait | 3. does what was asked for that must not wait |
//!
//! Of the two fences one comes first: the request is seen, or who asks sees that nobody will come. Both may
//! be, so whoever does something takes it first. `tests/loom_crew.rs` checks it.

use crate::protocol::sync::{AtomicBool, Ordering, fence_needed};

/// Whether somebody is away.
#[derive(Debug)]
pub struct Away(AtomicBool);

impl Default for Away {
    fn default() -> Away {
        Away(AtomicBool::new(false))
    }
}

impl Away {
    /// It goes; gives whether it was away already.
    pub fn goes(&self) -> bool {
        // ORDERING: relaxed: only who goes writes it, and the fence orders it.
        let was_away = self.0.load(Ordering::Relaxed);
        self.0.store(true, Ordering::Relaxed);
        // ORDERING: with the fence in `after_asking`, or another one of who asks.
        fence_needed("away fence");
        was_away
    }

    /// It is there again.
    pub fn returns(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// For who has left a request: true if nobody may come to it.
    pub fn after_asking(&self) -> bool {
        // ORDERING: with the fence in `goes`.
        fence_needed("away ask fence");
        self.is_so()
    }

    /// The same, after another fence.
    pub fn is_so(&self) -> bool {
        // ORDERING: relaxed: the fence orders it.
        self.0.load(Ordering::Relaxed)
    }
}
