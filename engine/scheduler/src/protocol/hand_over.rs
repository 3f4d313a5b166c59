//! A list onto which anybody puts things, and from which all are taken at once; and a queue that is
//! made of one, for threads that the kernel may stop at any step.
//!
//! Nobody waits for anybody here: not who puts for who takes, nor who takes for an unfinished put, and a
//! thread that is stopped anywhere keeps nothing from others but what it has in its hands.
//!
//! *The list.* A put is one compare-and-swap of the head, a take one swap (Treiber, "Systems Programming:
//! Coping with Parallelism", 1986, without its pop, and so without its ABA).
//!
//! *The queue.* What is on the list is the newest first. Whoever wants the oldest moves all of it to
//! where single ones can be taken; one moves at a time, and who finds another at it goes away:
//!
//! | who moves | who looks in vain and sleeps |
//! | --- | --- |
//! | 1. takes the mark, moves all, gives the mark back | 1. says that it sleeps |
//! | 2. fence (of whoever wakes) | 2. fence |
//! | 3. wakes one, if anything is left anywhere | 3. looks once more |
//!
//! Of the two fences one comes first: who moved sees the sleeper, or the sleeper finds what was moved,
//! or takes the mark. So whoever is told that it [`moved`](Taken::moved) must wake another.
//! `tests/loom_hand_over.rs` checks both.

use std::ptr;

use crate::protocol::sync::{AtomicBool, AtomicPtr, Ordering, needed};

/// The list.
#[derive(Debug)]
pub struct HandOver<T> {
    head: AtomicPtr<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    value: T,
    below: *mut Node<T>,
}

// SAFETY: a value is put by one thread and taken by one; nothing else of it is shared.
unsafe impl<T: Send> Send for HandOver<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for HandOver<T> {}

impl<T> Default for HandOver<T> {
    fn default() -> HandOver<T> {
        HandOver {
            head: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl<T> HandOver<T> {
    /// Puts a value; true if there was none.
    pub fn put(&self, value: T) -> bool {
        // ORDERING: relaxed: only compared with.
        let mut below = self.head.load(Ordering::Relaxed);
        let node = Box::into_raw(Box::new(Node { value, below }));
        loop {
            // ORDERING: release, with the acquire in `take_all`: the node is visible.
            let release = needed("hand over put", Ordering::Release);
            let put = self
                .head
                .compare_exchange_weak(below, node, release, Ordering::Relaxed);
            match put {
                Ok(_) => return below.is_null(),
                Err(now) => {
                    below = now;
                    // SAFETY: nobody else has it yet.
                    unsafe { (*node).below = below };
                }
            }
        }
    }

    /// True if nothing is there, as far as the caller sees.
    pub fn is_empty(&self) -> bool {
        // ORDERING: relaxed: whoever must not miss a value has a fence before.
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes all, the oldest first.
    pub fn take_all(&self) -> Vec<T> {
        if self.is_empty() {
            return Vec::new();
        }
        // ORDERING: acquire, with the release in `put`, of those below the head too: each put has read
        // the one before, and what modifies a word in between goes on with its release.
        let acquire = needed("hand over take", Ordering::Acquire);
        let mut next = self.head.swap(ptr::null_mut(), acquire);
        let mut taken = Vec::new();
        while !next.is_null() {
            // SAFETY: it was leaked by `put`, and the swap gave the chain to this thread alone.
            let node = unsafe { Box::from_raw(next) };
            taken.push(node.value);
            next = node.below;
        }
        taken.reverse();
        taken
    }
}

impl<T> Drop for HandOver<T> {
    fn drop(&mut self) {
        self.take_all();
    }
}

/// That somebody moves what is on a list.
#[derive(Debug)]
pub struct Mover(AtomicBool);

impl Default for Mover {
    fn default() -> Mover {
        Mover(AtomicBool::new(false))
    }
}

impl Mover {
    /// Calls `moves`, unless somebody else is at it.
    pub fn alone<R>(&self, moves: impl FnOnce() -> R) -> Option<R> {
        // ORDERING: acquire, with the release below: what the one before has moved is visible.
        let acquire = needed("mover take", Ordering::Acquire);
        if self.0.swap(true, acquire) {
            return None;
        }
        let result = moves();
        // ORDERING: release, see above.
        self.0.store(false, needed("mover give", Ordering::Release));
        Some(result)
    }
}
