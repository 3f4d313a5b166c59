//! Go's `poolChain`: rings, each twice as long as the one before; the owner works at the newest, thieves
//! at the oldest.
//!
//! Go leaves rings that were emptied to its garbage collector. Here they stay linked from the first one
//! until the chain is dropped: as each is twice as long, all of them are less than two of the newest.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::ring::Ring;

#[derive(Debug)]
struct Link<T> {
    ring: Ring<T>,
    /// Newer; set once, by the owner.
    next: AtomicPtr<Link<T>>,
    /// Older; null once a thief has found it empty for good.
    previous: AtomicPtr<Link<T>>,
}

#[derive(Debug)]
pub(super) struct Chain<T> {
    /// The newest, where the owner pushes. Its own.
    head: AtomicPtr<Link<T>>,
    /// The oldest that may hold something.
    tail: AtomicPtr<Link<T>>,
    /// The oldest ever.
    first: AtomicPtr<Link<T>>,
}

/// As Go has them.
const SHORTEST: usize = 8;
const LONGEST: usize = 1 << 30;

impl<T> Default for Chain<T> {
    fn default() -> Chain<T> {
        Chain {
            head: AtomicPtr::default(),
            tail: AtomicPtr::default(),
            first: AtomicPtr::default(),
        }
    }
}

impl<T> Chain<T> {
    /// What a pointer of this chain points at.
    fn link(&self, link: *mut Link<T>) -> Option<&Link<T>> {
        // SAFETY: links are made by `grow`, are published by a release, and stay until the chain is dropped.
        unsafe { link.as_ref() }
    }

    /// The owner's alone.
    pub(super) fn push(&self, object: Box<T>) {
        // ORDERING: relaxed, as for all that only the owner writes.
        let head = self.head.load(Ordering::Relaxed);
        let object = Box::into_raw(object);
        let Some(link) = self.link(head) else {
            let link = self.grow(head, SHORTEST, object);
            self.first.store(link, Ordering::Relaxed);
            // ORDERING: release, with the acquire of thieves: the link and its ring.
            return self.tail.store(link, Ordering::Release);
        };
        if let Err(object) = link.ring.push(object) {
            let longer = (2 * link.ring.len()).min(LONGEST);
            let newer = self.grow(head, longer, object);
            // ORDERING: release, with the acquire of thieves: the link and its ring.
            link.next.store(newer, Ordering::Release);
        }
    }

    /// Another link, with this object in it, is the head.
    fn grow(&self, previous: *mut Link<T>, len: usize, object: *mut T) -> *mut Link<T> {
        let link = Box::into_raw(Box::new(Link {
            ring: Ring::new(len),
            next: AtomicPtr::default(),
            previous: AtomicPtr::new(previous),
        }));
        let pushed = self.link(link).map(|link| link.ring.push(object));
        assert!(matches!(pushed, Some(Ok(()))), "a new ring has room");
        self.head.store(link, Ordering::Relaxed);
        link
    }

    /// The owner's alone: what was pushed last.
    pub(super) fn pop(&self) -> Option<Box<T>> {
        let mut at = self.link(self.head.load(Ordering::Relaxed));
        while let Some(link) = at {
            if let Some(object) = link.ring.pop() {
                // SAFETY: it was given to `push`, and a ring gives each object once.
                return Some(unsafe { Box::from_raw(object) });
            }
            // There may still be something in an older one. ORDERING: relaxed: its own writes.
            at = self.link(link.previous.load(Ordering::Relaxed));
        }
        None
    }

    /// Anybody's: what was pushed first.
    pub(super) fn steal(&self) -> Option<Box<T>> {
        // ORDERING: acquire, as is `next` below, with the releases of `push`.
        let mut tail = self.tail.load(Ordering::Acquire);
        while let Some(link) = self.link(tail) {
            // Before the ring is found empty: with a newer one after it, it is so for good.
            let next = link.next.load(Ordering::Acquire);
            if let Some(object) = link.ring.steal() {
                // SAFETY: it was given to `push`, and a ring gives each object once.
                return Some(unsafe { Box::from_raw(object) });
            }
            let newer = self.link(next)?;
            // Nobody need look at it again. ORDERING: acquire and release: a thief that sees the newer one
            // here sees what its owner wrote to it.
            let moved = self
                .tail
                .compare_exchange(tail, next, Ordering::AcqRel, Ordering::Relaxed);
            if moved.is_ok() {
                // ORDERING: relaxed: the owner may look at an empty ring once more.
                newer.previous.store(ptr::null_mut(), Ordering::Relaxed);
            }
            tail = next;
        }
        None
    }
}

impl<T> Drop for Chain<T> {
    fn drop(&mut self) {
        while self.steal().is_some() {}
        let mut link = *self.first.get_mut();
        while !link.is_null() {
            // SAFETY: `grow` made it of a box, and nobody else is here any more.
            let mut owned = unsafe { Box::from_raw(link) };
            link = *owned.next.get_mut();
        }
    }
}
