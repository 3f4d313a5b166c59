//! How many workers of a crew have no thread, and whether one was asked for: see
//! [`crew`](crate::crew) for the protocol.

use crate::protocol::sync::{AtomicBool, AtomicUsize, Ordering, fence_needed};

/// Who is there, of a crew.
#[derive(Debug)]
pub struct Muster {
    absent: AtomicUsize,
    /// Written by the spawner alone.
    present: AtomicUsize,
    is_refused: AtomicBool,
    is_called: AtomicBool,
}

impl Muster {
    /// So many, and none has a thread.
    pub fn new(workers: usize) -> Muster {
        Muster {
            absent: AtomicUsize::new(workers),
            present: AtomicUsize::new(0),
            is_refused: AtomicBool::new(false),
            is_called: AtomicBool::new(false),
        }
    }

    /// For who has pushed work: true if it is to ask the spawner for a thread.
    pub fn calls(&self) -> bool {
        // ORDERING: with the fence in `leaves`.
        fence_needed("muster call fence");
        // ORDERING: relaxed: the fence orders it.
        if self.absent.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // ORDERING: relaxed: a worker that leaves passes a fence before it looks for what others who
        // relied on this call have pushed.
        !self.is_called.swap(true, Ordering::Relaxed)
    }

    /// The spawner sees to a call: from now on another one counts.
    pub fn answers(&self) {
        // ORDERING: relaxed, see `calls`.
        self.is_called.swap(false, Ordering::Relaxed);
    }

    /// A worker is about to have a thread, says the spawner.
    pub fn comes(&self) {
        // Those for whom none was to be had are not counted.
        let less = |absent: usize| Some(absent.saturating_sub(1));
        // ORDERING: relaxed: who still counts it absent asks in vain.
        let _ = self
            .absent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.present.fetch_add(1, Ordering::Relaxed);
    }

    /// A worker that was said to come has got no thread: none is asked for until one that there is
    /// leaves. True if there is none; who finds that out, or has pushed work, takes it elsewhere.
    pub fn refuses(&self) -> bool {
        self.absent.store(0, Ordering::Relaxed);
        let is_none = self.present.fetch_sub(1, Ordering::Relaxed) == 1;
        if is_none {
            // ORDERING: relaxed: the fence orders it.
            self.is_refused.store(true, Ordering::Relaxed);
            // ORDERING: with the fence in `calls`: who has pushed sees it, or what was pushed is seen.
            fence_needed("muster refuse fence");
        }
        is_none
    }

    /// After `calls`: true if nobody will ever come.
    pub fn is_refused(&self) -> bool {
        // ORDERING: relaxed: the fences order it.
        self.is_refused.load(Ordering::Relaxed)
    }

    /// How many have a thread, or are about to.
    pub fn present(&self) -> usize {
        // ORDERING: relaxed: a hint.
        self.present.load(Ordering::Relaxed)
    }

    /// One that was about to leave has found work.
    pub fn stays(&self) {
        // ORDERING: relaxed, see `comes`.
        self.absent.fetch_sub(1, Ordering::Relaxed);
    }

    /// One has left, says the spawner.
    pub fn left(&self) {
        self.present.fetch_sub(1, Ordering::Relaxed);
    }

    /// A worker is about to lose its thread. It looks for work once more after that.
    pub fn leaves(&self) {
        // ORDERING: relaxed: the fence orders it.
        self.absent.fetch_add(1, Ordering::Relaxed);
        // ORDERING: with the fence in `calls`.
        fence_needed("muster leave fence");
    }
}
