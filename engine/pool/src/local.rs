//! Which cache of which pool is the current thread's.
//!
//! A thread looks at one of a few seats first, the one of the pool's number; that is a plain
//! thread-local without a destructor. A seat names its pool by an id that no other pool ever has, so a
//! seat of a pool that is gone is never taken for another's. All caches of a thread are in a list
//! beside, which has the destructor: when the thread ends it leaves them to others.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use crate::protocol::store::Cache;
use crate::shared::Core;

/// So many pools have a seat of their own; more of them share.
pub(crate) const SEATS: usize = 64;

/// On a seat that nobody has; the id of no pool.
const NOBODY: u64 = 0;
/// On no seat at all.
pub(crate) const NEVER: u64 = u64::MAX;

struct Seat {
    id: Cell<u64>,
    cache: Cell<NonNull<Cache>>,
}

impl Seat {
    const fn new() -> Seat {
        Seat {
            id: Cell::new(NOBODY),
            cache: Cell::new(NonNull::dangling()),
        }
    }
}

thread_local! {
    static NEAR: [Seat; SEATS] = const { [const { Seat::new() }; SEATS] };
    /// Something may be on its way home from here.
    static HAS_AWAY: Cell<bool> = const { Cell::new(false) };
    /// The thread has left its caches.
    static HAS_LEFT: Cell<bool> = const { Cell::new(false) };
    static ATTACHED: Attached = const { Attached(RefCell::new(Vec::new())) };
}

struct Entry {
    id: u64,
    core: Weak<Core>,
    cache: NonNull<Cache>,
}

struct Attached(RefCell<Vec<Entry>>);

/// The seat of a pool.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lowest bits are the seat"
)]
pub(crate) fn seat_of(id: u64) -> usize {
    id as usize % SEATS
}

/// The cache of a pool, if it is on its seat.
#[inline(always)]
pub(crate) fn cache(core: &Core) -> Option<&Cache> {
    cache_of(core, core.id)
}

/// The same, for who returns an object that has to be readied for nothing.
#[inline(always)]
pub(crate) fn cache_to_put(core: &Core) -> Option<&Cache> {
    cache_of(core, core.plain_id)
}

/// Where a seat is, in bytes from the first: kept by a pool, so that a get and a put need not work it out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeatOffset(usize);

impl SeatOffset {
    pub(crate) fn of(id: u64) -> SeatOffset {
        SeatOffset(seat_of(id) * size_of::<Seat>())
    }
}

/// The cache of a pool, if it is on its seat under this id.
#[inline(always)]
fn cache_of(core: &Core, id: u64) -> Option<&Cache> {
    NEAR.with(|near| {
        let seat = near.as_ptr().wrapping_byte_add(core.seat.0);
        // SAFETY: offsets are those of seats.
        let seat = unsafe { &*seat };
        if seat.id.get() == id {
            // SAFETY: it is the cache of this pool, which we have, and caches live as long as it does.
            Some(unsafe { seat.cache.get().as_ref() })
        } else {
            None
        }
    })
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
        if let Some(entry) = attached.iter().find(|entry| entry.id == core.id) {
            return entry.cache;
        }
        attached.retain(|entry| entry.core.strong_count() > 0);
        let cache = core.store.join(here);
        attached.push(Entry {
            id: core.id,
            core: core.weak(),
            cache,
        });
        cache
    });
    let found = attached.ok()?;
    NEAR.with(|near| {
        let seat = &near[seat_of(core.id)];
        seat.cache.set(found);
        seat.id.set(core.id);
    });
    cache(core)
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
    NEAR.with(|near| near.iter().for_each(|seat| seat.id.set(NOBODY)));
    let mut last: Vec<Arc<Core>> = Vec::new();
    for entry in attached {
        if let Some(core) = entry.core.upgrade() {
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
    }
}
