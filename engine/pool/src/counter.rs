//! A counter that many threads add to at once: each to a cell of its own.
//!
//! A thread has a number for as long as it lives, and the cell of that number in every counter; who has
//! it next finds it by the lock that numbers are given out under. So cells are written with plain loads
//! and stores.

use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;

type Padded = CachePadded<AtomicU64>;

// Neighbours are fetched in pairs of lines.
const _: () = assert!(size_of::<Padded>() == 128 && align_of::<Padded>() == 128);

/// Cells of the first chunk; each further one has twice as many.
const FIRST: usize = 16;
const CHUNKS: usize = 24;

/// A count that threads add to without getting in each other's way: each has a cell of its own, 128 bytes
/// from the next.
///
/// ```
/// use reiver_pool::counter::PaddedCounter;
///
/// static HITS: PaddedCounter = PaddedCounter::new();
///
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| HITS.add(2));
///     }
/// });
/// assert_eq!(HITS.sum(), 8);
/// ```
pub struct PaddedCounter {
    chunks: [AtomicPtr<Padded>; CHUNKS],
    /// Of threads that are about to end, and have no number any more.
    shared: AtomicU64,
}

impl PaddedCounter {
    /// A counter that stands at 0.
    pub const fn new() -> PaddedCounter {
        PaddedCounter {
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS],
            shared: AtomicU64::new(0),
        }
    }

    /// Adds `count`; the sum wraps around. Costs a load and a store, some 1 ns; a thread's first time a lock.
    #[inline]
    pub fn add(&self, count: u64) {
        let number = NUMBER.get();
        if number < FIRST {
            // ORDERING: acquire, with the release in `add_chunk`.
            let chunk = self.chunks[0].load(Ordering::Acquire);
            if !chunk.is_null() {
                // SAFETY: the chunk has so many cells, and stays until the counter goes.
                return bump(unsafe { &*chunk.wrapping_add(number) }, count);
            }
        }
        self.add_elsewhere(count);
    }

    #[cold]
    fn add_elsewhere(&self, count: u64) {
        let Some(number) = number() else {
            // ORDERING: relaxed: a count of its own.
            self.shared.fetch_add(count, Ordering::Relaxed);
            return;
        };
        let chunk = (number / FIRST + 1).ilog2() as usize;
        let at = number - FIRST * ((1 << chunk) - 1);
        // ORDERING: acquire, with the release in `add_chunk`: its cells are zeros.
        let mut start = self.chunks[chunk].load(Ordering::Acquire);
        if start.is_null() {
            start = self.add_chunk(chunk);
        }
        // SAFETY: the chunk has so many cells, and stays until the counter goes.
        bump(unsafe { &*start.wrapping_add(at) }, count);
    }

    fn add_chunk(&self, chunk: usize) -> *mut Padded {
        let cells: Box<[Padded]> = (0..FIRST << chunk).map(|_| Padded::default()).collect();
        let new = Box::into_raw(cells).cast::<Padded>();
        // ORDERING: release, with the acquires of those who find it; acquire for one that was first.
        let placed = self.chunks[chunk].compare_exchange(
            ptr::null_mut(),
            new,
            Ordering::Release,
            Ordering::Acquire,
        );
        match placed {
            Ok(_) => new,
            Err(there) => {
                // SAFETY: it was made above, and nobody has seen it.
                unsafe { drop_chunk(new, chunk) };
                there
            }
        }
    }

    /// What was added by now: all that happened before this, and maybe some of what goes on meanwhile.
    pub fn sum(&self) -> u64 {
        // ORDERING: relaxed: counts of their own.
        let mut sum = self.shared.load(Ordering::Relaxed);
        for (chunk, start) in self.chunks.iter().enumerate() {
            // ORDERING: acquire, as in `add`.
            let start = start.load(Ordering::Acquire);
            if start.is_null() {
                continue;
            }
            // SAFETY: the chunk has so many cells, and stays until the counter goes.
            let cells = unsafe { std::slice::from_raw_parts(start, FIRST << chunk) };
            for cell in cells {
                // ORDERING: relaxed, as above.
                sum = sum.wrapping_add(cell.load(Ordering::Relaxed));
            }
        }
        sum
    }
}

/// Adds to a cell of the current thread's.
#[inline(always)]
fn bump(cell: &AtomicU64, count: u64) {
    // ORDERING: relaxed, both: only this thread writes it, and it counts for itself.
    let now = cell.load(Ordering::Relaxed);
    cell.store(now.wrapping_add(count), Ordering::Relaxed);
}

/// # Safety
/// It was made for a chunk of this number, and nobody uses it any more.
unsafe fn drop_chunk(start: *mut Padded, chunk: usize) {
    let whole = ptr::slice_from_raw_parts_mut(start, FIRST << chunk);
    // SAFETY: as the caller says.
    drop(unsafe { Box::from_raw(whole) });
}

impl Default for PaddedCounter {
    fn default() -> PaddedCounter {
        PaddedCounter::new()
    }
}

impl Drop for PaddedCounter {
    fn drop(&mut self) {
        for (chunk, start) in self.chunks.iter_mut().enumerate() {
            let start = *start.get_mut();
            if !start.is_null() {
                // SAFETY: it is ours alone.
                unsafe { drop_chunk(start, chunk) };
            }
        }
    }
}

impl fmt::Debug for PaddedCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PaddedCounter").field(&self.sum()).finish()
    }
}

/// No number yet.
const NONE: usize = usize::MAX;
/// Had a number.
const LEFT: usize = usize::MAX - 1;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(NONE) };
    static LEASE: Lease = const { Lease };
}

/// Gives the number of its thread back.
struct Lease;

impl Drop for Lease {
    fn drop(&mut self) {
        numbers().1.push(NUMBER.replace(LEFT));
    }
}

/// How many were ever given out, and those that were given back.
fn numbers() -> MutexGuard<'static, (usize, Vec<usize>)> {
    static NUMBERS: Mutex<(usize, Vec<usize>)> = Mutex::new((0, Vec::new()));
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of the current thread; `None` when it is about to end.
fn number() -> Option<usize> {
    match NUMBER.get() {
        LEFT => None,
        NONE => {
            // Its destructor runs from now on.
            LEASE.try_with(|_| ()).ok()?;
            let mut numbers = numbers();
            let number = numbers.1.pop().unwrap_or_else(|| {
                numbers.0 += 1;
                numbers.0 - 1
            });
            NUMBER.set(number);
            Some(number)
        }
        number => Some(number),
    }
}
