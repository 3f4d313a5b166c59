//! Permits that are taken so many at a time: a weighted semaphore, and who waits for it.
//!
//! To take and to give are one step on one word, so nobody waits for a thread that holds anything. Only
//! who has to wait, and who gives while somebody does, meet at a list. The first in the list takes
//! before the others do, however heavy it is; who does not wait may come before all of them:
//!
//! | who waits | who gives |
//! | --- | --- |
//! | 1. stands in the list with its waker, under the lock | 1. gives |
//! | 2. fence | 2. fence |
//! | 3. if it is the first: tries to take, and wakes the next once it has | 3. if anybody waits: wakes the first, under the lock |
//!
//! Of the two fences one comes first: either the try finds what was given, or whoever gives finds who
//! waits. One that goes away wakes whoever is first then, so that no permit lies while somebody waits
//! for it. `tests/loom_permits.rs` checks it.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crossbeam_utils::CachePadded;

use crate::protocol::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, fence_needed, needed};

/// So many permits, of which some are taken.
#[derive(Debug)]
pub struct Permits {
    free: CachePadded<AtomicUsize>,
    /// How long the list is.
    waiting: AtomicUsize,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    /// Tells them apart.
    next: u64,
    list: VecDeque<(u64, Waker)>,
}

impl Permits {
    /// So many, all free.
    pub fn new(permits: usize) -> Permits {
        Permits {
            free: CachePadded::new(AtomicUsize::new(permits)),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::new(Waiters::default()),
        }
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        #[cfg(test)]
        crate::schedule::note_lock_of_all();
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_waiting(&self, waiters: &Waiters) {
        // ORDERING: relaxed: written under the lock; who must see it is told by the fences.
        self.waiting.store(waiters.list.len(), Ordering::Relaxed);
    }

    /// How many are free just now.
    pub fn free(&self) -> usize {
        // ORDERING: relaxed: a number for people.
        self.free.load(Ordering::Relaxed)
    }

    /// Takes so many, if they are free.
    pub fn try_take(&self, permits: usize) -> bool {
        let take = |free: usize| free.checked_sub(permits);
        // ORDERING: acquire, with the release in `give`: what was done under a permit is visible to who
        // has it next.
        let acquire = needed("permits taken", Ordering::Acquire);
        let taken = self.free.fetch_update(acquire, Ordering::Relaxed, take);
        taken.is_ok()
    }

    /// Gives back so many that were taken; true if somebody waits: [`wake_first`](Permits::wake_first) is
    /// to be called then.
    pub fn give(&self, permits: usize) -> bool {
        // ORDERING: release, see `try_take`.
        let release = needed("permits given", Ordering::Release);
        self.free.fetch_add(permits, release);
        // ORDERING: with the fence in `Waiter::poll`.
        fence_needed("permits give fence");
        // ORDERING: relaxed: the fence is enough to see who must be seen.
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Wakes who has waited longest, under the lock.
    pub fn wake_first(&self) {
        let first = self.waiters().list.front().map(|(_, waker)| waker.clone());
        first.into_iter().for_each(Waker::wake);
    }

    /// Somebody who is to wait for permits.
    pub fn waiter(self: &Arc<Self>) -> Waiter {
        Waiter {
            permits: Arc::clone(self),
            number: None,
        }
    }
}

/// Somebody who waits for permits, until it is dropped.
#[derive(Debug)]
pub struct Waiter {
    permits: Arc<Permits>,
    /// Under which it is in the list.
    number: Option<u64>,
}

impl Waiter {
    /// Takes so many once all are free and nobody has waited for longer; else arranges that the waker
    /// is woken when it is worth trying again.
    pub fn poll(&mut self, permits: usize, waker: &Waker) -> bool {
        let mut waiters = self.permits.waiters();
        let number = *self.number.get_or_insert_with(|| {
            waiters.next += 1;
            waiters.next
        });
        let listed = waiters.list.iter_mut().find(|(known, _)| *known == number);
        match listed {
            Some((_, known)) => known.clone_from(waker),
            None => waiters.list.push_back((number, waker.clone())),
        }
        self.permits.note_waiting(&waiters);
        // ORDERING: with the fence in `give`.
        fence_needed("permits wait fence");
        let is_first = waiters
            .list
            .front()
            .is_some_and(|&(first, _)| first == number);
        drop(waiters);
        let taken = is_first && self.permits.try_take(permits);
        if taken {
            self.go();
        }
        taken
    }

    /// Leaves the list, if it is in it, and wakes who is first then.
    fn go(&mut self) {
        let Some(number) = self.number.take() else {
            return;
        };
        let mut waiters = self.permits.waiters();
        let listed = waiters.list.iter().position(|&(known, _)| known == number);
        let left = listed.and_then(|index| waiters.list.remove(index));
        self.permits.note_waiting(&waiters);
        drop(waiters);
        drop(left);
        self.permits.wake_first();
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.go();
    }
}
