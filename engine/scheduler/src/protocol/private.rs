//! The forks that a worker has begun and nobody has asked for: a stack of its own, which it pushes to
//! and pops from with plain loads and stores, and which a thief may rob all the same.
//!
//! The owner works at the tail, thieves take from the head, where the oldest and largest forks are:
//!
//! | owner pops | thief takes, under the lock |
//! | --- | --- |
//! | 1. tail = t | 1. head = h + n |
//! | 2. cheap fence | 2. dear fence |
//! | 3. head is at most t: `t` is its own | 3. what lies below the tail is its own, at most n; head = that |
//! | else: asks again under the lock | |
//!
//! *Nothing is taken twice.* With the two sides of [`barrier`] one of the two stores is seen by the
//! other: the owner finds a head beyond its tail, and waits for the thief's lock; or the thief finds
//! a tail below its head, and steps back. Cilk's THE protocol (Frigo, Leiserson, Randall, "The
//! Implementation of the Cilk-5 Multithreaded Language", 1998) with the fence of the common side
//! taken out. `tests/loom_private.rs` checks it; with either fence taken out the models fail.
//!
//! *Nothing is missed.* Between 1 and 3 the head may stand beyond what the thief will take, if it has
//! seen more than there was. So a head beyond the tail does not say that the list is empty; the owner
//! finds that out under the lock.
//!
//! Robbing costs the dear fence, so it is the last resort of a thief that would otherwise sleep;
//! whoever pushes while somebody is idle moves forks to a deque that is made to be stolen from.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::{Arc, PoisonError};

use crossbeam_utils::CachePadded;

use crate::protocol::barrier;
use crate::protocol::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, UnsafeCell, needed};

/// At most so many forks are taken at once.
const MOST_AT_ONCE: usize = 256;
/// The first array has room for so many: more than joins nest that split a range by halves.
const FIRST_SLOTS: usize = if cfg!(reiver_loom) { 4 } else { 128 };
/// An array of more is not kept for long.
const MANY_SLOTS: usize = if cfg!(reiver_loom) { 4 } else { 64 * 128 };

/// The owner's side. `T` is a word or two.
#[derive(Debug)]
pub struct PrivateList<T> {
    list: Arc<List<T>>,
    /// Not shared between threads: there is one owner.
    _not_sync: PhantomData<Cell<()>>,
}

/// The thieves' side.
#[derive(Debug)]
pub struct Robber<T> {
    list: Arc<List<T>>,
}

/// Room for one value, which is moved in and out as bits.
#[derive(Debug)]
struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

impl<T> Slot<T> {
    fn empty() -> Slot<T> {
        Slot(UnsafeCell::new(MaybeUninit::uninit()))
    }

    fn holding(value: T) -> Slot<T> {
        Slot(UnsafeCell::new(MaybeUninit::new(value)))
    }

    /// # Safety
    /// Nobody else uses it.
    #[inline]
    unsafe fn write(&self, value: T) {
        // SAFETY: nobody else uses it.
        self.0
            .with_mut(|slot| unsafe { slot.cast::<T>().write(value) });
    }

    /// # Safety
    /// It holds a value that was not moved out before, and nobody writes it.
    #[inline]
    unsafe fn read(&self) -> T {
        // SAFETY: it holds one.
        self.0.with(|slot| unsafe { slot.cast::<T>().read() })
    }

    /// # Safety
    /// It held a value once, and nobody writes it.
    #[inline]
    unsafe fn is(&self, value: &T) -> bool
    where
        T: PartialEq,
    {
        self.0.with(|slot| {
            // SAFETY: it holds one, or what one has left.
            let held = unsafe { &*slot.cast::<T>() };
            held == value
        })
    }
}

/// What both see. Thieves seldom look, so it may lie together.
#[derive(Debug)]
struct List<T> {
    ends: CachePadded<Ends<T>>,
    /// Held by a thief while it takes, and by the owner while it moves the head or the array.
    lock: Mutex<()>,
}

#[derive(Debug)]
struct Ends<T> {
    /// Written by the owner alone.
    tail: AtomicUsize,
    /// Written under the lock. Greater than the tail while the owner has not noticed that what it
    /// wanted was taken.
    head: AtomicUsize,
    /// Replaced by the owner under the lock.
    slots: UnsafeCell<Box<[Slot<T>]>>,
}

// SAFETY: values go from the owner's thread to a thief's, each to one; the protocol above orders it.
unsafe impl<T: Send> Send for List<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for List<T> {}

impl<T> List<T> {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + PartialEq> PrivateList<T> {
    /// An empty one, and what thieves hold of it. `bottom` is equal to nothing that is ever pushed.
    pub fn new(bottom: T) -> (PrivateList<T>, Robber<T>) {
        let ends = Ends {
            tail: AtomicUsize::new(1),
            head: AtomicUsize::new(1),
            slots: UnsafeCell::new(Box::new([Slot::holding(bottom)])),
        };
        let list = Arc::new(List {
            ends: CachePadded::new(ends),
            lock: Mutex::new(()),
        });
        let robber = Robber {
            list: Arc::clone(&list),
        };
        let owner = PrivateList {
            list,
            _not_sync: PhantomData,
        };
        (owner, robber)
    }

    /// Pushes a value.
    #[inline]
    pub fn push(&self, value: T) {
        let ends = &self.list.ends;
        // ORDERING: relaxed: nobody else writes it.
        let mut tail = ends.tail.load(Ordering::Relaxed);
        if tail == self.capacity() {
            tail = self.make_room();
        }
        // SAFETY: thieves read only slots that they have claimed, below the tail.
        self.with_slot(tail, |slot| unsafe { slot.write(value) });
        // ORDERING: release, with the acquire in `rob`: the value is visible to who sees the tail.
        let release = needed("private push", Ordering::Release);
        ends.tail.store(tail + 1, release);
    }

    /// Takes back this value if it is the newest, and gives false if it is not, or is gone.
    #[inline]
    pub fn take_back(&self, value: &T) -> bool {
        // ORDERING: relaxed: nobody else writes it.
        let place = self.list.ends.tail.load(Ordering::Relaxed) - 1;
        // SAFETY: below the tail all slots have been written, and thieves only read them.
        let is_newest = self.with_slot(place, |slot| unsafe { slot.is(value) });
        is_newest && self.take_newest(place)
    }

    /// Takes the newest.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        // ORDERING: relaxed: nobody else writes it.
        let place = self.list.ends.tail.load(Ordering::Relaxed) - 1;
        // The head alone does not tell that it is empty: a thief that has seen more than there is now
        // has moved it too far, and will put it back. Who finds it empty, under the lock, starts anew
        // from the bottom.
        let is_taken = place > 0 && self.take_newest(place);
        is_taken.then(|| self.read(place))
    }

    #[inline]
    fn take_newest(&self, place: usize) -> bool {
        let ends = &self.list.ends;
        // ORDERING: release, as in `push`: a thief that sees this tail sees all that lies below it.
        let release = needed("private take", Ordering::Release);
        ends.tail.store(place, release);
        // ORDERING: with the dear fence in `rob`, see the module.
        barrier::light("private take fence");
        ends.head.load(Ordering::Relaxed) <= place || self.dispute(place)
    }

    /// Takes up to so many of the oldest, as long as `take` wants more; true if any are left.
    pub fn take_oldest(&self, most: usize, mut take: impl FnMut(T) -> bool) -> bool {
        let ends = &self.list.ends;
        let _lock = self.list.lock();
        // ORDERING: relaxed: the lock keeps thieves out, and the tail is this thread's.
        let head = ends.head.load(Ordering::Relaxed);
        let tail = ends.tail.load(Ordering::Relaxed);
        let end = tail.min(head.saturating_add(most));
        let taken = (head..end).take_while(|&place| take(self.read(place)));
        let taken = (taken.count() + 1).min(end.saturating_sub(head));
        ends.head.store(head + taken, Ordering::Relaxed);
        head + taken < tail
    }

    /// About how many it holds: fewer while a thief, that has seen more, is about to step back.
    pub fn len(&self) -> usize {
        let ends = &self.list.ends;
        let tail = ends.tail.load(Ordering::Relaxed);
        tail.saturating_sub(ends.head.load(Ordering::Relaxed))
    }

    /// True if it holds nothing. Exact, and so costs the lock.
    pub fn is_empty(&self) -> bool {
        let ends = &self.list.ends;
        let _lock = self.list.lock();
        // ORDERING: relaxed: under the lock no thief has moved the head too far.
        ends.head.load(Ordering::Relaxed) >= ends.tail.load(Ordering::Relaxed)
    }

    /// True if there may be something to [`trim`](PrivateList::trim).
    pub fn is_large(&self) -> bool {
        self.capacity() > MANY_SLOTS
    }

    /// Gives back memory that a burst has left, if it is empty.
    pub fn trim(&self) {
        let ends = &self.list.ends;
        let _lock = self.list.lock();
        // ORDERING: relaxed: exact under the lock, where no thief has moved the head too far.
        let is_empty = ends.head.load(Ordering::Relaxed) >= ends.tail.load(Ordering::Relaxed);
        if is_empty && self.is_large() {
            self.move_to(FIRST_SLOTS);
        }
    }

    #[inline]
    fn capacity(&self) -> usize {
        // SAFETY: only the owner replaces the array, and that is this thread.
        self.list.ends.slots.with(|slots| unsafe { &*slots }.len())
    }

    /// The owner has put the tail here, and the head was beyond: whose is it?
    #[cold]
    fn dispute(&self, place: usize) -> bool {
        let ends = &self.list.ends;
        let _lock = self.list.lock();
        // ORDERING: relaxed: the lock orders it after the thief.
        let is_own = ends.head.load(Ordering::Relaxed) <= place;
        if !is_own {
            // It is gone, and so is all below it.
            ends.head.store(1, Ordering::Relaxed);
            ends.tail.store(1, Ordering::Relaxed);
        }
        is_own
    }

    /// Gives the tail, below which there is room now.
    #[cold]
    fn make_room(&self) -> usize {
        let ends = &self.list.ends;
        let _lock = self.list.lock();
        let tail = ends.tail.load(Ordering::Relaxed);
        let held = tail.saturating_sub(ends.head.load(Ordering::Relaxed));
        let is_crowded = held >= self.capacity() / 2;
        self.move_to((self.capacity() << u32::from(is_crowded)).max(FIRST_SLOTS));
        ends.tail.load(Ordering::Relaxed)
    }

    /// Under the lock, on the owner's thread: moves what it holds to the bottom of a new array.
    fn move_to(&self, slots: usize) {
        let ends = &self.list.ends;
        let head = ends.head.load(Ordering::Relaxed);
        let held = head..ends.tail.load(Ordering::Relaxed).max(head);
        let filled = held.len() + 1;
        let moved = std::iter::once(0).chain(held).map(|place| {
            // SAFETY: written when it was pushed, or the bottom; moved, not doubled, for the old array
            // is forgotten below.
            Slot::holding(self.with_slot(place, |slot| unsafe { slot.read() }))
        });
        let mut new: Vec<Slot<T>> = Vec::with_capacity(slots);
        new.extend(moved);
        new.resize_with(slots, Slot::empty);
        ends.slots.with_mut(|slots| {
            // SAFETY: thieves look at it under the lock, which is held; the owner is here.
            unsafe { *slots = new.into_boxed_slice() };
        });
        // ORDERING: relaxed: the lock publishes it to thieves.
        ends.head.store(1, Ordering::Relaxed);
        ends.tail.store(filled, Ordering::Relaxed);
    }

    #[inline]
    fn with_slot<R>(&self, place: usize, code: impl FnOnce(&Slot<T>) -> R) -> R {
        self.list.ends.with_slot(place, code)
    }

    #[inline]
    fn read(&self, place: usize) -> T {
        // SAFETY: it was written when it was pushed, and has been claimed by this thread.
        self.with_slot(place, |slot| unsafe { slot.read() })
    }
}

impl<T> Ends<T> {
    /// For the owner, or who holds the lock; the place is below the capacity.
    #[inline]
    fn with_slot<R>(&self, place: usize, code: impl FnOnce(&Slot<T>) -> R) -> R {
        self.slots.with(|slots| {
            // SAFETY: the owner replaces the array under the lock.
            let slots = unsafe { &*slots };
            debug_assert!(place < slots.len());
            // SAFETY: places are taken at the tail, which is kept below the capacity.
            let slot = unsafe { slots.get_unchecked(place) };
            code(slot)
        })
    }
}

impl<T: Send> Robber<T> {
    /// True if there seems to be something: a hint that costs two loads.
    pub fn is_worth_it(&self) -> bool {
        let ends = &self.list.ends;
        // ORDERING: relaxed: whoever must not miss a push has a fence before this.
        ends.head.load(Ordering::Relaxed) < ends.tail.load(Ordering::Relaxed)
    }

    /// Takes the older half, at most 256, and gives how many. Nothing where another thief is at work.
    pub fn rob(&self, mut take: impl FnMut(T)) -> usize {
        let ends = &self.list.ends;
        let Ok(_lock) = self.list.lock.try_lock() else {
            return 0;
        };
        // ORDERING: relaxed: only who holds the lock writes the head, and the tail is read again.
        let head = ends.head.load(Ordering::Relaxed);
        let seen = ends.tail.load(Ordering::Relaxed);
        let wanted = seen.saturating_sub(head).div_ceil(2).min(MOST_AT_ONCE);
        if wanted == 0 {
            return 0;
        }
        ends.head.store(head + wanted, Ordering::Relaxed);
        // ORDERING: with the cheap fence in `take_newest`, see the module.
        if !barrier::heavy("private rob fence") {
            ends.head.store(head, Ordering::Relaxed);
            return 0;
        }
        // ORDERING: acquire, with the releases of the owner: what lies below the tail is visible.
        let tail = ends.tail.load(needed("private rob", Ordering::Acquire));
        let taken = wanted.min(tail.saturating_sub(head));
        if taken < wanted {
            ends.head.store(head + taken, Ordering::Relaxed);
        }
        for place in head..head + taken {
            // SAFETY: the owner wrote it before it moved the tail beyond it, and since the head is
            // beyond it too, asks for the lock before it touches the slot again.
            take(ends.with_slot(place, |slot| unsafe { slot.read() }));
        }
        taken
    }
}
