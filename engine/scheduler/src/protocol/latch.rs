//! A latch: set once, by whoever has run what somebody waits for, and gone as soon as it is set.
//!
//! The one that waits owns the memory and frees it once it sees the latch set, so whoever sets it
//! reads before whom to wake, and touches it no more after the store. There is one waiter, known from
//! the start: a join or an install is waited for where it was made, a scope has one owner. So no
//! second waiter can find it freed by the first. `tests/loom_latch.rs` checks it.

use crate::protocol::sync::{AtomicBool, Ordering, needed};

/// Set once; wakes the one that waits for it.
#[derive(Debug)]
pub struct Latch<W> {
    set: AtomicBool,
    waits: W,
}

/// Who waits for a latch.
pub trait Waits {
    /// What wakes it once the latch may be gone.
    fn wake_later(&self) -> impl FnOnce() + use<Self>;
}

impl<W: Waits> Latch<W> {
    /// One for who waits so.
    #[inline]
    pub fn new(waits: W) -> Latch<W> {
        Latch {
            set: AtomicBool::new(false),
            waits,
        }
    }

    /// True once it is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        // ORDERING: acquire, with the release in `set`: the result is visible.
        self.set.load(needed("latch is set", Ordering::Acquire))
    }

    /// Sets the latch.
    ///
    /// # Safety
    /// `latch` is valid when this is called, on a thread of the engine that its fork is of. It may
    /// be gone once it is set, so who waits is read before.
    pub unsafe fn set(latch: *const Latch<W>) {
        // SAFETY: valid until it is set.
        let wake = unsafe { (*latch).waits.wake_later() };
        // ORDERING: release, with the acquire in `is_set`: publishes the result.
        let release = needed("latch set", Ordering::Release);
        // SAFETY: as above; this is the last use.
        unsafe { (*latch).set.store(true, release) };
        wake();
    }
}

/// Loom sees here that nobody uses it any more.
#[cfg(reiver_loom)]
impl<W> Drop for Latch<W> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: whoever has set it does not touch it any more.
            unsafe { self.set.unsync_load() };
        }
    }
}
