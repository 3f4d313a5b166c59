//! A value that somebody leaves for somebody else: whoever takes it out owns it.
//!
//! In one word, and without a lock: a job has one for who waits for it, and most are never waited for.

use std::ptr;

use crate::protocol::sync::{AtomicPtr, Ordering, both};

/// A value, or none yet, or none any more.
#[derive(Debug)]
pub struct Left<W>(AtomicPtr<W>);

// SAFETY: values go from thread to thread, one at a time.
unsafe impl<W: Send> Sync for Left<W> {}
// SAFETY: as above.
unsafe impl<W: Send> Send for Left<W> {}

impl<W> Left<W> {
    /// Nothing.
    pub fn nothing() -> Left<W> {
        Left(AtomicPtr::new(ptr::null_mut()))
    }

    /// Leaves this, and gives what was left before.
    pub fn leave(&self, value: W) -> Option<W> {
        self.swap(Box::into_raw(Box::new(value)))
    }

    /// Takes what was left.
    pub fn take(&self) -> Option<W> {
        self.swap(ptr::null_mut())
    }

    fn swap(&self, value: *mut W) -> Option<W> {
        // ORDERING: release and acquire, with itself: what was left is visible to who takes it.
        let before = self.0.swap(value, both("left leave", "left take"));
        // SAFETY: it came from a box, and was swapped out once.
        (!before.is_null()).then(|| *unsafe { Box::from_raw(before) })
    }
}

impl<W> Drop for Left<W> {
    fn drop(&mut self) {
        // ORDERING: relaxed: nobody else has it.
        if !self.0.load(Ordering::Relaxed).is_null() {
            drop(self.take());
        }
    }
}
