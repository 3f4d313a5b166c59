//! What a thread is in, for others to see: a list that lies in the thread's own frames, which it writes
//! with plain stores.
//!
//! A thread takes an entry off its list before the entry's frame is gone. Whoever reads the list must
//! not be in it then:
//!
//! | thread | reader, under the list's lock |
//! | --- | --- |
//! | 1. takes the entry off | 1. says that it reads, dear fence |
//! | 2. cheap fence | 2. reads |
//! | 3. waits for the lock, if somebody reads | 3. says that it no longer does |
//!
//! Of the two fences one comes first: either the reader no longer finds the entry, or the thread waits
//! for it. `tests/loom_shown.rs` checks it.

use std::ptr;
use std::sync::PoisonError;
#[cfg(not(reiver_loom))]
use std::{thread, time::Duration};

use crate::protocol::barrier;
use crate::protocol::sync::{AtomicBool, AtomicPtr, Mutex, MutexGuard, Ordering, fence, needed};

/// The list of one thread.
#[derive(Debug)]
pub struct Shown<T> {
    innermost: AtomicPtr<Entry<T>>,
    is_read: AtomicBool,
    lock: Mutex<()>,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    below: *mut Entry<T>,
}

impl<T> Default for Shown<T> {
    fn default() -> Shown<T> {
        Shown {
            innermost: AtomicPtr::new(ptr::null_mut()),
            is_read: AtomicBool::new(false),
            lock: Mutex::new(()),
        }
    }
}

impl<T> Shown<T> {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows `value` while `body` runs, which does not unwind. `is_eager` where the kernel has no
    /// barrier for us.
    ///
    /// # Safety
    /// Only the thread whose list it is calls this, and whatever the value points to lives until this
    /// returns.
    pub unsafe fn during<R>(&self, value: T, is_eager: bool, body: impl FnOnce() -> R) -> R {
        // ORDERING: relaxed: only this thread writes it.
        let below = self.innermost.load(Ordering::Relaxed);
        let entry = Entry { value, below };
        // ORDERING: release, with the acquire in `read`: the entry is visible.
        let release = needed("shown on", Ordering::Release);
        let shown = ptr::from_ref(&entry).cast_mut();
        self.innermost.store(shown, release);
        let result = body();
        // ORDERING: release, as above, for who finds only what lies below.
        self.innermost
            .store(below, needed("shown below", Ordering::Release));
        // ORDERING: with the dear fence in `read`, see the module.
        barrier::light("shown off fence");
        if is_eager {
            fence(Ordering::SeqCst);
        }
        // ORDERING: acquire, with the release at the end of `read`: it no longer reads the entry.
        if self.is_read.load(needed("shown seen", Ordering::Acquire)) {
            drop(self.lock());
        }
        result
    }

    /// Gives each value that is shown just now, the innermost first.
    pub fn read(&self, mut see: impl FnMut(&T)) {
        let _lock = self.lock();
        // ORDERING: relaxed, for the fence orders it.
        self.is_read.store(true, Ordering::Relaxed);
        // ORDERING: with the cheap fence in `during`.
        if !barrier::heavy("shown read fence") {
            // Threads pass full fences, unless it is refused since just now: then by the time that
            // this is over whatever they had in their store buffers is out.
            #[cfg(not(reiver_loom))]
            thread::sleep(Duration::from_millis(1));
            fence(Ordering::SeqCst);
        }
        // ORDERING: acquire, see `during`.
        let acquire = needed("shown read", Ordering::Acquire);
        let mut next = self.innermost.load(acquire).cast_const();
        // SAFETY: whatever is on the list stays until its thread has seen that nobody reads.
        while let Some(entry) = unsafe { next.as_ref() } {
            see(&entry.value);
            next = entry.below;
        }
        // ORDERING: release, see `during`. A thread that still reads true waits for the lock in vain.
        self.is_read
            .store(false, needed("shown done", Ordering::Release));
    }
}
