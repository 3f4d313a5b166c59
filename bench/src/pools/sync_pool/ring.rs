//! Go's `poolDequeue`: a ring that its owner pushes to and pops from at the head, and everybody pops from
//! at the tail, without locks.
//!
//! Head and tail are one word, so that the last object cannot go to two: the owner takes it by the same
//! compare-and-swap as a thief. A thief that has moved the tail owns the slot until it has emptied it; the
//! owner takes the ring as full meanwhile.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Ring<T> {
    /// The head in the upper half, the tail in the lower; both count up and wrap around.
    ends: AtomicU64,
    /// Null where nothing is. A power of two of them.
    slots: Box<[AtomicPtr<T>]>,
}

const HEAD: u64 = 1 << 32;

fn halves(ends: u64) -> (u32, u32) {
    let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).expect("it is masked");
    (half(ends >> 32), half(ends))
}

fn word(head: u32, tail: u32) -> u64 {
    (u64::from(head) << 32) | u64::from(tail)
}

impl<T> Ring<T> {
    /// `len` is a power of two.
    pub(super) fn new(len: usize) -> Ring<T> {
        assert!(len.is_power_of_two());
        Ring {
            ends: AtomicU64::new(0),
            slots: (0..len).map(|_| AtomicPtr::default()).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn slot(&self, at: u32) -> &AtomicPtr<T> {
        // The length is a power of two.
        &self.slots[at as usize & (self.slots.len() - 1)]
    }

    /// The owner's alone. Gives the object back where it is full.
    pub(super) fn push(&self, object: *mut T) -> Result<(), *mut T> {
        // ORDERING: relaxed: only the owner moves the head, and an old tail looks full at worst.
        let (head, tail) = halves(self.ends.load(Ordering::Relaxed));
        if head.wrapping_sub(tail) as usize == self.slots.len() {
            return Err(object);
        }
        let slot = self.slot(head);
        // ORDERING: acquire, with the release of the thief that empties it: it has read what was there.
        if !slot.load(Ordering::Acquire).is_null() {
            return Err(object);
        }
        // ORDERING: relaxed: the head publishes it.
        slot.store(object, Ordering::Relaxed);
        // ORDERING: release, with the acquire of whoever pops: the object and its slot.
        self.ends.fetch_add(HEAD, Ordering::Release);
        Ok(())
    }

    /// The owner's alone: what was pushed last.
    pub(super) fn pop(&self) -> Option<*mut T> {
        let mut ends = self.ends.load(Ordering::Relaxed);
        loop {
            let (head, tail) = halves(ends);
            if head == tail {
                return None;
            }
            let head = head.wrapping_sub(1);
            // ORDERING: acquire for the object, which another owner may have pushed before this thread took
            // its place; release so that a thief that sees this word sees all pushes before it.
            match self.ends.compare_exchange_weak(
                ends,
                word(head, tail),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                // ORDERING: relaxed: the slot is the owner's now, as is the next push to it.
                Ok(_) => {
                    let slot = self.slot(head);
                    let object = slot.load(Ordering::Relaxed);
                    slot.store(ptr::null_mut(), Ordering::Relaxed);
                    return Some(object);
                }
                Err(now) => ends = now,
            }
        }
    }

    /// Anybody's: what was pushed first.
    pub(super) fn steal(&self) -> Option<*mut T> {
        let mut ends = self.ends.load(Ordering::Relaxed);
        loop {
            let (head, tail) = halves(ends);
            if head == tail {
                return None;
            }
            // ORDERING: acquire, with the release of the push: the object and its slot. Release, since the
            // pushes before go on being published by this word.
            match self.ends.compare_exchange_weak(
                ends,
                word(head, tail.wrapping_add(1)),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    let slot = self.slot(tail);
                    let object = slot.load(Ordering::Relaxed);
                    // ORDERING: release, with the acquire of the push that finds it empty.
                    slot.store(ptr::null_mut(), Ordering::Release);
                    return Some(object);
                }
                Err(now) => ends = now,
            }
        }
    }
}
