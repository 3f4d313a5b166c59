//! Which cache of which pool is the current thread's.
//!
//! Each thread that has a cache has a number, and each pool a row of seats, one for each number: there
//! stands the thread's cache. So a thread finds it by a plain thread-local without a destructor, and the
//! pool that it has in its hands; a seat of a pool that is gone is gone with it. All caches of a thread are
//! in a list beside, which has the destructor: when the thread ends it leaves them to others, and its seats
//! and its number too. Threads of which there are more than seats find their caches in the list alone,
//! until one with a number ends.

use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::protocol::store::Cache;
use crate::shared::Core;

/// The seats of a pool. So many threads of a process, but for the first few, have numbers at once.
const SEATS: usize = if cfg!(test) { 16 } else { 1024 };
/// The first that a thread has. Beside those before it lies memory that others may write all the time.
const FIRST: usize = 128 / size_of::<Seat>();

/// A thread's seat of a pool. Written by the thread that has its number, alone.
#[derive(Debug)]
struct Seat {
    /// Its cache, or null.
    cache: AtomicPtr<Cache>,
    /// The same, if objects that come back are put away as they are; else null.
    cache_to_put: AtomicPtr<Cache>,
}

/// The seats of a pool. The first of all is that of threads without a number: nobody writes it, and it stays empty.
#[derive(Debug)]
pub(crate) struct Row(Box<[Seat]>);

/// The seat of a thread, in bytes from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SeatOffset(usize);

/// Of threads that have no number.
const NOBODY: SeatOffset = SeatOffset(0);

thread_local! {
    static SEAT: Cell<SeatOffset> = const { Cell::new(NOBODY) };
    /// Something may be on its way home from here.
    static HAS_AWAY: Cell<bool> = const { Cell::new(false) };
    /// The thread has left its caches.
    static HAS_LEFT: Cell<bool> = const { Cell::new(false) };
    static ATTACHED: Attached = const { Attached(RefCell::new(Vec::new())) };
}

struct Entry {
    core: Weak<Core>,
    cache: NonNull<Cache>,
}

struct Attached(RefCell<Vec<Entry>>);

impl Row {
    pub(crate) fn new() -> Row {
        // SAFETY: a seat is two pointers, which may be null.
        Row(unsafe { Box::new_zeroed_slice(SEATS).assume_init() })
    }

    /// The current thread's.
    #[inline(always)]
    fn mine(&self) -> &Seat {
        let seat = self.0.as_ptr().wrapping_byte_add(SEAT.get().0);
        // SAFETY: offsets are those of seats.
        unsafe { &*seat }
    }

    fn take_seat(&self, cache: NonNull<Cache>, is_plain: bool) {
        let cache = cache.as_ptr();
        let to_put = if is_plain { cache } else { ptr::null_mut() };
        self.write_seat(cache, to_put);
    }

    fn leave_seat(&self) {
        self.write_seat(ptr::null_mut(), ptr::null_mut());
    }

    /// Writes the current thread's, if it has a number.
    fn write_seat(&self, cache: *mut Cache, cache_to_put: *mut Cache) {
        if SEAT.get() == NOBODY {
            return;
        }
        let seat = self.mine();
        // ORDERING: relaxed, both: only this thread reads it, and who has its number next gets that by a lock.
        seat.cache.store(cache, Ordering::Relaxed);
        seat.cache_to_put.store(cache_to_put, Ordering::Relaxed);
    }
}

/// The cache of a pool, if it is on its seat.
#[inline(always)]
pub(crate) fn cache(core: &Core) -> Option<&Cache> {
    // ORDERING: relaxed: this thread wrote it.
    let cache = core.seats.mine().cache.load(Ordering::Relaxed);
    // SAFETY: it is the cache of this pool, which we have, and caches live as long as it does.
    unsafe { cache.as_ref() }
}

/// The same, for who returns an object; none where such have to be readied.
#[inline(always)]
pub(crate) fn cache_to_put(core: &Core) -> Option<&Cache> {
    // ORDERING: relaxed: this thread wrote it.
    let cache = core.seats.mine().cache_to_put.load(Ordering::Relaxed);
    // SAFETY: as in `cache`.
    unsafe { cache.as_ref() }
}

/// The cache of a pool, on its seat from here on; a new one, at this node, if there is none. `None` in a
/// thread that is about to end and has left its caches.
pub(crate) fn attach(core: &Core, here: usize) -> Option<&Cache> {
    if let Some(cache) = cache(core) {
        return Some(cache);
    }
    if HAS_LEFT.get() {
        return None;
    }
    let attached = ATTACHED.try_with(|Attached(attached)| {
        let mut attached = attached.borrow_mut();
        take_number();
        let is_its = |entry: &&Entry| ptr::eq(entry.core.as_ptr(), core);
        let found = attached.iter().find(is_its).map(|entry| entry.cache);
        let cache = found.unwrap_or_else(|| {
            attached.retain(|entry| entry.core.strong_count() > 0);
            let cache = core.store.join(here);
            attached.push(Entry {
                core: core.weak(),
                cache,
            });
            cache
        });
        core.seats.take_seat(cache, core.is_plain());
        cache
    });
    // SAFETY: as in `cache`.
    Some(unsafe { attached.ok()?.as_ref() })
}

/// Something will be on its way home from here. Said by whoever comes to open a cache for what is away.
pub(crate) fn note_away() {
    HAS_AWAY.set(true);
}

/// Sends home all that is on its way there.
#[inline]
pub(crate) fn flush() {
    if HAS_AWAY.get() {
        flush_all();
    }
}

#[cold]
fn flush_all() {
    HAS_AWAY.set(false);
    // The last of a pool's handles may be dropped here, and with it objects that use pools.
    let mut last = Vec::new();
    let _ = ATTACHED.try_with(|Attached(attached)| {
        for entry in attached.borrow().iter() {
            let Some(core) = entry.core.upgrade() else {
                continue;
            };
            // SAFETY: it is the current thread's, and lives as long as the pool.
            let cache = unsafe { entry.cache.as_ref() };
            // SAFETY: as above.
            let is_done = unsafe { core.store.flush(cache) };
            if !is_done {
                HAS_AWAY.set(true);
            }
            last.push(core);
        }
    });
    drop(last);
}

/// Leaves all caches to others: the thread goes to another node, where it gets others, or ends.
pub(crate) fn leave() {
    let left = ATTACHED.try_with(|Attached(attached)| attached.take());
    leave_all(left.unwrap_or_default());
}

fn leave_all(attached: Vec<Entry>) {
    let mut last: Vec<Arc<Core>> = Vec::new();
    for entry in attached {
        if let Some(core) = entry.core.upgrade() {
            core.seats.leave_seat();
            // SAFETY: it is the current thread's, which does not use it any more.
            unsafe { core.store.leave(entry.cache) };
            last.push(core);
        }
    }
    drop(last);
}

impl Drop for Attached {
    fn drop(&mut self) {
        HAS_LEFT.set(true);
        leave_all(self.0.take());
        give_number_back();
    }
}

/// Which numbers threads have.
#[derive(Debug)]
struct Numbers {
    /// Those from this one on nobody ever had.
    fresh: usize,
    /// Of threads that have ended.
    free: Vec<SeatOffset>,
}

impl Numbers {
    /// One that no other thread has, if there is any left.
    fn take(&mut self) -> SeatOffset {
        if let Some(seat) = self.free.pop() {
            return seat;
        }
        if self.fresh == SEATS {
            return NOBODY;
        }
        self.fresh += 1;
        SeatOffset((self.fresh - 1) * size_of::<Seat>())
    }

    fn give_back(&mut self, seat: SeatOffset) {
        self.free.push(seat);
    }
}

fn numbers() -> MutexGuard<'static, Numbers> {
    static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers {
        fresh: FIRST,
        free: Vec::new(),
    });
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some numbers may be nobody's. Written under the lock of the numbers; threads without one look at it often.
static ARE_LEFT: AtomicBool = AtomicBool::new(true);

/// Gives the current thread a number, if it has none and there is one.
fn take_number() {
    // ORDERING: relaxed, here and below: who sees it late is without a number for a little longer.
    if SEAT.get() == NOBODY && ARE_LEFT.load(Ordering::Relaxed) {
        let mut numbers = numbers();
        SEAT.set(numbers.take());
        ARE_LEFT.store(SEAT.get() != NOBODY, Ordering::Relaxed);
    }
}

fn give_number_back() {
    let seat = SEAT.replace(NOBODY);
    if seat != NOBODY {
        let mut numbers = numbers();
        numbers.give_back(seat);
        ARE_LEFT.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests;
