//! A stack of objects that its owner uses with plain loads and stores, and from whose bottom others
//! take, under a lock and with a barrier that the owner does not pay for.
//!
//! ```text
//!   0        base                len            limit
//!   ├─ taken ─┼───── objects ─────┼──── room ────┤
//!             ▲ thieves take here ▲ the owner pushes and pops here
//! ```
//!
//! The owner stores the new length first and then looks at the *floor*, below which it may not pop:
//!
//! | the owner pops | a thief, under the lock |
//! | --- | --- |
//! | 1. stores the length less one | 1. raises the floor above everything |
//! | 2. cheap fence | 2. dear fence |
//! | 3. reads the floor: if its object lies below, it puts the length back and comes to the lock | 3. reads the length: what lies below it is the thief's to take |
//!
//! Of the two fences one comes first: either the owner sees the floor and leaves the object, or the
//! thief sees the length without it. A push needs none of that: it writes above the length, where no
//! thief looks. The *limit*, from which on the owner may not push, is how full the stack may get; both
//! gates can be shut, so that the owner comes to the lock next time.
//!
//! After Cilk's THE protocol ("The Implementation of the Cilk-5 Multithreaded Language", Frigo,
//! Leiserson, Randall, 1998), with the fence made asymmetric.

use std::mem::MaybeUninit;
use std::ops::Range;
#[cfg(not(reiver_loom))]
use std::ptr;

use crate::protocol::barrier;
use crate::protocol::sync::{AtomicIsize, Ordering, UnsafeCell, needed};

/// An object of a pool, of whatever type. It is whoever's has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Object(pub *mut u8);

// SAFETY: pools hold only objects of types that may be sent.
unsafe impl Send for Object {}

impl Object {
    /// What an empty place of a magazine holds.
    pub const NONE: Object = Object(std::ptr::null_mut());

    /// It is about to be used here, after others may have used it elsewhere: has its first line fetched, to
    /// be written to. It need not be there.
    #[inline(always)]
    pub fn expect_use(self) {
        #[cfg(all(target_arch = "x86_64", not(reiver_loom)))]
        {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: it reads nothing that is seen, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(self.0.cast()) };
        }
    }
}

/// Above every length.
const SHUT: isize = isize::MAX;
/// Below every length.
const FULL: isize = -1;

/// The gates stand beside the length that the owner writes all the time: who moves them sends the owner
/// to the lock anyway, and does so rarely.
#[derive(Debug)]
#[repr(C)]
struct Gates {
    /// Written by the owner alone.
    len: AtomicIsize,
    /// Gate of pops. Written under the lock.
    floor: AtomicIsize,
    /// Gate of pushes. Written under the lock.
    limit: AtomicIsize,
    /// Where the lowest object lies. Read and written under the lock.
    base: AtomicIsize,
}

impl Gates {
    /// Of one that is empty, and shut.
    fn new() -> Gates {
        Gates {
            len: AtomicIsize::new(0),
            floor: AtomicIsize::new(SHUT),
            limit: AtomicIsize::new(FULL),
            base: AtomicIsize::new(0),
        }
    }
}

/// See the module.
#[derive(Debug)]
#[repr(C)]
pub struct Stack<const N: usize> {
    gates: Gates,
    /// From the base to the length there are objects.
    slots: [UnsafeCell<MaybeUninit<Object>>; N],
}

// SAFETY: a slot is used by the owner at or above the length, and by whoever has the lock below it,
// as the module says.
unsafe impl<const N: usize> Sync for Stack<N> {}

#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "positions are small, and negative for gates alone"
)]
impl<const N: usize> Stack<N> {
    /// Empty, and shut.
    #[cfg(reiver_loom)]
    pub fn new() -> Stack<N> {
        Stack {
            gates: Gates::new(),
            slots: std::array::from_fn(|_| UnsafeCell::new(MaybeUninit::uninit())),
        }
    }

    /// Makes one there, empty and shut. Its slots are not written, so that pages of them appear as they are used.
    ///
    /// # Safety
    /// There is room for it, which nobody else uses.
    pub unsafe fn place(at: *mut Stack<N>) {
        #[cfg(not(reiver_loom))]
        // SAFETY: as the caller says; the gates come first.
        unsafe {
            at.cast::<Gates>().write(Gates::new());
        };
        #[cfg(reiver_loom)]
        // SAFETY: as the caller says.
        unsafe {
            at.write(Stack::new());
        };
    }

    #[inline(always)]
    fn slot(&self, at: isize) -> &UnsafeCell<MaybeUninit<Object>> {
        debug_assert!((0..N as isize).contains(&at));
        // SAFETY: positions are below a limit, which is at most `N`.
        unsafe { self.slots.get_unchecked(at as usize) }
    }

    #[inline(always)]
    fn read(&self, at: isize) -> Object {
        // SAFETY: there is an object, and nobody writes it meanwhile, as the module says.
        self.slot(at).with(|slot| unsafe { *slot.cast::<Object>() })
    }

    #[inline(always)]
    fn write(&self, at: isize, object: Object) {
        // SAFETY: nobody else uses it meanwhile, as the module says.
        self.slot(at)
            .with_mut(|slot| unsafe { *slot = MaybeUninit::new(object) });
    }

    /// Takes the newest object; `None` where there is none, or the gate is shut: look under the lock.
    ///
    /// # Safety
    /// Only the owner calls this.
    #[inline(always)]
    pub unsafe fn pop(&self) -> Option<Object> {
        // ORDERING: relaxed: only the owner writes it.
        let top = self.gates.len.load(Ordering::Relaxed) - 1;
        // ORDERING: release, with the acquire in `look`: whoever finds this length sees the objects
        // below it.
        self.gates
            .len
            .store(top, needed("stack pop", Ordering::Release));
        // ORDERING: with the dear fence in `look`, see the module.
        barrier::light("stack pop fence");
        // ORDERING: relaxed: the fence orders it, and slots below it are used again under the lock
        // alone.
        if top >= self.gates.floor.load(Ordering::Relaxed) {
            return Some(self.read(top));
        }
        // ORDERING: release, as above; where the fence is a full one, it would do.
        self.gates.len.store(top + 1, Ordering::Release);
        None
    }

    /// Puts an object on top; gives it back where there is no room, or the gate is shut: look under the
    /// lock.
    ///
    /// # Safety
    /// Only the owner calls this.
    #[inline(always)]
    pub unsafe fn push(&self, object: Object) -> Result<(), Object> {
        // ORDERING: relaxed: only the owner writes it.
        let len = self.gates.len.load(Ordering::Relaxed);
        // ORDERING: relaxed: a push that comes late for a gate that was just shut writes where nobody
        // looks; that the slots are the owner's again it knows by the lock.
        if len >= self.gates.limit.load(Ordering::Relaxed) {
            return Err(object);
        }
        self.write(len, object);
        // ORDERING: release, with the acquire in `look`: the object is seen with it.
        self.gates
            .len
            .store(len + 1, needed("stack push", Ordering::Release));
        Ok(())
    }

    /// How many there are, as a guess. Exact while the owner is at rest.
    pub fn len(&self) -> usize {
        // ORDERING: relaxed: a guess.
        let len = self.gates.len.load(Ordering::Relaxed);
        let base = self.gates.base.load(Ordering::Relaxed);
        (len - base).max(0) as usize
    }
}

/// What is done under the lock that the stack's user has for it; by the owner or by others.
#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "positions are small, and negative for gates alone"
)]
impl<const N: usize> Stack<N> {
    /// Shuts both gates: the owner comes to the lock next time. A pop that is under way may still
    /// succeed, unless a dear fence comes next.
    pub fn shut(&self) {
        // ORDERING: relaxed, both: the dear fence orders what has to be ordered.
        self.gates.floor.store(SHUT, Ordering::Relaxed);
        self.gates.limit.store(FULL, Ordering::Relaxed);
    }

    /// True if nobody has opened the gates since they were shut.
    pub fn is_shut(&self) -> bool {
        // ORDERING: relaxed: written under the lock.
        self.gates.floor.load(Ordering::Relaxed) == SHUT
    }

    /// Opens the gates, for up to so many objects. By the owner only, for whom all that lies there is.
    pub fn open(&self, most: usize) {
        debug_assert!(most <= N);
        // ORDERING: relaxed, all: the owner reads them.
        let base = self.gates.base.load(Ordering::Relaxed);
        self.gates.floor.store(base, Ordering::Relaxed);
        self.gates.limit.store(most as isize, Ordering::Relaxed);
    }

    /// Lowers the floor again after a theft, unless the gates had been shut for longer.
    pub fn reopen_floor(&self) {
        // ORDERING: relaxed, both, see `open`.
        let base = self.gates.base.load(Ordering::Relaxed);
        self.gates.floor.store(base, Ordering::Relaxed);
    }

    /// Raises the floor alone: pops come to the lock, pushes do not.
    pub fn raise_floor(&self) {
        // ORDERING: relaxed: the dear fence orders it.
        self.gates.floor.store(SHUT, Ordering::Relaxed);
    }

    /// How many may be taken: all that the owner has not popped by now.
    fn look(&self) -> isize {
        // ORDERING: acquire, with the releases of the owner: the objects are visible.
        self.gates.len.load(needed("stack look", Ordering::Acquire))
    }

    /// True if there seems to be something. By others, without a fence.
    pub fn seems_empty(&self) -> bool {
        // ORDERING: relaxed, both: whoever acts on it looks again.
        self.gates.len.load(Ordering::Relaxed) <= self.gates.base.load(Ordering::Relaxed)
    }

    /// Takes up to so many of the oldest objects. By the owner, or by a thief after the floor was raised
    /// and a dear fence passed; of a stack from which only its lockers take no fence is needed.
    pub fn take(&self, most: usize, see: impl FnOnce(Taken<'_, N>)) -> usize {
        let len = self.look();
        // ORDERING: relaxed, here and below: written under the lock alone.
        let base = self.gates.base.load(Ordering::Relaxed);
        let count = (len - base).clamp(0, most as isize);
        see(Taken {
            stack: self,
            left: base..base + count,
        });
        self.gates.base.store(base + count, Ordering::Relaxed);
        count as usize
    }

    /// Takes the newest. By the owner.
    pub fn take_newest(&self) -> Option<Object> {
        // ORDERING: relaxed: only the owner writes it.
        let top = self.gates.len.load(Ordering::Relaxed) - 1;
        // ORDERING: relaxed: written under the lock alone.
        if top < self.gates.base.load(Ordering::Relaxed) {
            return None;
        }
        let object = self.read(top);
        // ORDERING: relaxed: others read it under the lock.
        self.gates.len.store(top, Ordering::Relaxed);
        Some(object)
    }

    /// Moves what is there to the bottom, where there is room above it again. By the owner, the gates
    /// being shut or to be opened next.
    pub fn settle(&self) {
        // ORDERING: relaxed, all: others read and write them under the lock.
        let (len, base) = (
            self.gates.len.load(Ordering::Relaxed),
            self.gates.base.load(Ordering::Relaxed),
        );
        if base == 0 {
            return;
        }
        self.move_down(base, len - base);
        self.gates.base.store(0, Ordering::Relaxed);
        self.gates.len.store(len - base, Ordering::Relaxed);
    }

    /// Moves so many objects from this position to the bottom: all at once, for there are many.
    #[cfg(not(reiver_loom))]
    fn move_down(&self, from: isize, count: isize) {
        let moved = &self.slots[from as usize..][..count as usize];
        let bottom = self.slots.as_ptr().cast_mut();
        // SAFETY: both are among the slots, which are cells that nobody else uses meanwhile.
        unsafe { ptr::copy(moved.as_ptr(), bottom, moved.len()) };
    }

    #[cfg(reiver_loom)]
    fn move_down(&self, from: isize, count: isize) {
        for at in from..from + count {
            self.write(at - from, self.read(at));
        }
    }

    /// Adds objects on top. By the owner, after [`settle`](Self::settle); there is room for them.
    pub fn fill(&self, objects: &[Object]) {
        // ORDERING: relaxed, both: others read it under the lock.
        let len = self.gates.len.load(Ordering::Relaxed);
        for (at, &object) in (len..).zip(objects) {
            self.write(at, object);
        }
        self.gates
            .len
            .store(len + objects.len() as isize, Ordering::Relaxed);
    }
}

/// Objects that are taken off the bottom.
#[derive(Debug, Clone)]
pub struct Taken<'a, const N: usize> {
    stack: &'a Stack<N>,
    left: Range<isize>,
}

impl<const N: usize> Iterator for Taken<'_, N> {
    type Item = Object;

    #[inline]
    fn next(&mut self) -> Option<Object> {
        Some(self.stack.read(self.left.next()?))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl<const N: usize> ExactSizeIterator for Taken<'_, N> {}
