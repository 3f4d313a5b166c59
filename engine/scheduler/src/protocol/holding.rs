//! Where a worker shows the chunks of jobs that it is in, so that others take jobs of them.
//!
//! | who is in a chunk | who has found nothing |
//! | --- | --- |
//! | 1. puts it on the list, and says that there is something | 1. says that it is about to sleep, dear fence |
//! | 2. fence, wakes one if somebody sleeps | 2. looks whether there is something, then sleeps |
//!
//! The fences are those of the [`sleep`](crate::protocol::sleep) protocol. Of the two one comes first:
//! either the chunk is found, or who shows it sees somebody to wake. Who runs a job of it is settled by
//! the [`state`](crate::protocol::state) of each. `tests/loom_holding.rs` checks it.

use std::sync::PoisonError;

use crate::protocol::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// The chunks that one worker is in.
#[derive(Debug)]
pub struct Holding<C> {
    /// A hint, for who looks at many.
    is_any: AtomicBool,
    chunks: Mutex<Vec<C>>,
}

impl<C> Default for Holding<C> {
    fn default() -> Holding<C> {
        Holding {
            is_any: AtomicBool::new(false),
            chunks: Mutex::new(Vec::new()),
        }
    }
}

impl<C: Clone> Holding<C> {
    fn chunks(&self) -> MutexGuard<'_, Vec<C>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a chunk; who does then wakes somebody for it.
    pub fn push(&self, chunk: C) {
        let mut chunks = self.chunks();
        chunks.push(chunk);
        // ORDERING: relaxed: whoever must not miss it has a fence before it looks, and whoever sets it
        // has one before it asks who sleeps.
        self.is_any.store(true, Ordering::Relaxed);
    }

    /// The chunk that was shown last is not shown any more.
    pub fn pop(&self) {
        let mut chunks = self.chunks();
        let last = chunks.pop();
        // ORDERING: relaxed: who still reads true looks in vain.
        self.is_any.store(!chunks.is_empty(), Ordering::Relaxed);
        drop(chunks);
        drop(last);
    }

    /// True if there may be jobs that others could run.
    pub fn is_any(&self) -> bool {
        // ORDERING: relaxed, see `push`.
        self.is_any.load(Ordering::Relaxed)
    }

    /// True if there is a chunk that has jobs which nobody has begun.
    pub fn has(&self, is_queued: impl FnMut(&C) -> bool) -> bool {
        self.is_any() && self.chunks().iter().any(is_queued)
    }

    /// A chunk that has jobs which nobody has begun.
    pub fn get(&self, is_queued: impl Fn(&C) -> bool) -> Option<C> {
        let chunks = self.chunks();
        chunks.iter().find(|chunk| is_queued(chunk)).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<C> {
        self.chunks().clone()
    }
}
