//! How much of a scope is not yet over: one count in two parts, so that what its owner begins and ends
//! itself costs no atomic operation.
//!
//! The owner keeps its part to itself, and others theirs in a shared word; either may be negative,
//! for what one begins another may end. The owner knows both, and so when their sum is zero. Before
//! it sleeps it moves its part to the shared word ([`fold`](Count::fold)), which is then the whole
//! count: whoever makes that zero wakes the owner, and has made its wake ready before, because the
//! scope may be gone at once. `tests/loom_scope.rs` checks it.

use std::cell::Cell;

use crate::protocol::sync::{AtomicUsize, Ordering, needed};

/// What is begun and has not ended.
#[derive(Debug)]
pub struct Count {
    /// Touched by the owner alone. Both wrap around below zero.
    own: Cell<usize>,
    shared: AtomicUsize,
}

// SAFETY: `own` is touched only where the caller says that this is the owner's thread.
unsafe impl Sync for Count {}

impl Count {
    /// Nothing.
    pub fn new() -> Count {
        Count {
            own: Cell::new(0),
            shared: AtomicUsize::new(0),
        }
    }

    /// The owner begins something.
    ///
    /// # Safety
    /// This is the owner's thread.
    #[inline]
    pub unsafe fn begin_own(&self) {
        self.own.set(self.own.get().wrapping_add(1));
    }

    /// The owner has ended so many, whoever began them.
    ///
    /// # Safety
    /// This is the owner's thread.
    #[inline]
    pub unsafe fn end_own(&self, ended: usize) {
        self.own.set(self.own.get().wrapping_sub(ended));
    }

    /// Another thread begins something, inside what has not ended.
    pub fn begin(&self) {
        // ORDERING: relaxed: what it is begun in is counted, so the scope cannot end meanwhile.
        self.shared.fetch_add(1, Ordering::Relaxed);
    }

    /// Another thread has ended so many. `ready` gives what wakes the owner; it is called while the
    /// count is alive, and what it has given after the end, if that may have been the last.
    ///
    /// # Safety
    /// `this` is alive when this is called; it need not be when it returns.
    pub unsafe fn end<W: FnOnce()>(this: *const Count, ended: usize, ready: impl Fn() -> W) {
        // SAFETY: what is to end is counted, so it is alive until the exchange below succeeds.
        let shared = unsafe { &(*this).shared };
        let mut count = shared.load(Ordering::Relaxed);
        loop {
            let wake = (count == ended).then(&ready);
            let less = count.wrapping_sub(ended);
            // ORDERING: release, with the acquire in `is_zero`: what was done is visible to the
            // owner. Relaxed where it fails: it is tried again.
            let release = needed("count end", Ordering::Release);
            match shared.compare_exchange_weak(count, less, release, Ordering::Relaxed) {
                Ok(_) => {
                    if let Some(wake) = wake {
                        wake();
                    }
                    return;
                }
                Err(now) => count = now,
            }
        }
    }

    /// True once everything has ended.
    ///
    /// # Safety
    /// This is the owner's thread.
    #[inline]
    pub unsafe fn is_zero(&self) -> bool {
        // ORDERING: acquire, see `end`; the exchanges in between keep its chain.
        let acquire = needed("count is zero", Ordering::Acquire);
        let shared = self.shared.load(acquire);
        shared.wrapping_add(self.own.get()) == 0
    }

    /// As [`is_zero`](Count::is_zero), for an owner that will sleep if it is not: from here on, until
    /// it begins or ends something itself, whoever ends the last wakes it.
    ///
    /// # Safety
    /// This is the owner's thread.
    pub unsafe fn fold(&self) -> bool {
        let own = self.own.replace(0);
        if own != 0 {
            // ORDERING: relaxed: it publishes nothing, and as a read-modify-write it keeps the chain
            // of the releases in `end`.
            self.shared.fetch_add(own, Ordering::Relaxed);
        }
        // SAFETY: as the caller says.
        unsafe { self.is_zero() }
    }
}

/// Loom sees here that nobody uses it any more.
#[cfg(reiver_loom)]
impl Drop for Count {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.shared.with_mut(|_| ());
        }
    }
}
