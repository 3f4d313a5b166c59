//! Go's `sync.Pool` in Rust: what the published claim was measured with, without Go around it.
//!
//! As in Go's `sync/pool.go`, which names Dmitry Vyukov's design: each worker has one private object and a
//! chain of rings (`chain.rs`, `ring.rs`), to which it alone adds. A worker that has nothing steals the
//! oldest of the others; what a collection finds unused becomes the victim generation, from which it can be
//! had back until the next one. `worker.rs` is the P.
//!
//! What differs. A collection does not stop the world: each worker ages its own when it next comes by, so
//! the private object of one that never comes back stays until the pool is dropped. Nothing collects by
//! itself: where Go's loop allocates nothing, its collector does not run either. A thread beyond the
//! workers of a pool steals and makes, but keeps nothing.

mod chain;
mod ring;
mod worker;

use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use chain::Chain;

pub(crate) struct SyncPool<T> {
    locals: Box<[CachePadded<Local<T>>]>,
    /// How many collections there were.
    collections: AtomicUsize,
    /// One more than the collection since which no victims are left.
    victims_gone: AtomicUsize,
    new: Box<dyn Fn() -> T + Send + Sync>,
}

/// A worker's own. What is old and what is young change places at each collection.
struct Local<T> {
    /// The collection that it has come to.
    at: AtomicUsize,
    generations: [Generation<T>; 2],
}

struct Generation<T> {
    /// The worker's alone.
    private: AtomicPtr<T>,
    shared: Chain<T>,
}

// SAFETY: objects go from thread to thread, and never to two at once.
unsafe impl<T: Send> Sync for SyncPool<T> {}

// SAFETY: as above; it owns what it keeps.
unsafe impl<T: Send> Send for SyncPool<T> {}

impl<T> Default for Generation<T> {
    fn default() -> Generation<T> {
        Generation {
            private: AtomicPtr::default(),
            shared: Chain::default(),
        }
    }
}

impl<T> Generation<T> {
    /// The worker's alone.
    #[inline]
    fn take_private(&self) -> Option<Box<T>> {
        // ORDERING: relaxed, as in `put_private`: the worker's alone; its number, under a lock, publishes it
        // to the next thread of that number.
        let object = self.private.load(Ordering::Relaxed);
        if object.is_null() {
            return None;
        }
        self.private.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: `put_private` made it of a box, and it is taken once.
        Some(unsafe { Box::from_raw(object) })
    }

    /// The worker's alone; gives the object back where there is one.
    #[inline]
    fn put_private(&self, object: Box<T>) -> Result<(), Box<T>> {
        if !self.private.load(Ordering::Relaxed).is_null() {
            return Err(object);
        }
        self.private.store(Box::into_raw(object), Ordering::Relaxed);
        Ok(())
    }

    /// The worker's alone: takes everything.
    fn empty(&self) -> Vec<Box<T>> {
        let shared = std::iter::from_fn(|| self.shared.pop());
        self.take_private().into_iter().chain(shared).collect()
    }
}

impl<T> Drop for Generation<T> {
    fn drop(&mut self) {
        drop(self.take_private());
    }
}

impl<T> Local<T> {
    fn young(&self) -> &Generation<T> {
        // ORDERING: relaxed: the worker's alone.
        &self.generations[self.at.load(Ordering::Relaxed) & 1]
    }
}

impl<T> SyncPool<T> {
    /// For so many workers.
    pub(super) fn new(workers: usize, new: impl Fn() -> T + Send + Sync + 'static) -> SyncPool<T> {
        let local = |_| {
            CachePadded::new(Local {
                at: AtomicUsize::new(0),
                generations: Default::default(),
            })
        };
        SyncPool {
            locals: (0..workers).map(local).collect(),
            collections: AtomicUsize::new(0),
            victims_gone: AtomicUsize::new(0),
            new: Box::new(new),
        }
    }

    #[inline]
    pub(super) fn get(&self) -> Lent<'_, T> {
        let object = match self.local() {
            Some(local) => {
                let young = local.young();
                young.take_private().or_else(|| young.shared.pop())
            }
            None => None,
        };
        let object = object
            .or_else(|| self.steal())
            .unwrap_or_else(|| Box::new((self.new)()));
        Lent {
            object: Some(object),
            pool: self,
        }
    }

    #[inline]
    fn put(&self, object: Box<T>) {
        if let Some(local) = self.local() {
            let young = local.young();
            if let Err(object) = young.put_private(object) {
                young.shared.push(object);
            }
        }
    }

    /// What a garbage collection does: victims are dropped, the rest become victims.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "the loops that are measured allocate nothing, so nothing is collected"
        )
    )]
    pub(super) fn collect(&self) {
        // ORDERING: relaxed: nothing but the number is passed on; all else is the chains' own.
        let now = self.collections.fetch_add(1, Ordering::Relaxed) + 1;
        // Of workers that do not come by, all but the private one; a thief may take from any chain.
        for local in &self.locals {
            while local.generations[now & 1].shared.steal().is_some() {}
        }
    }

    /// The current thread's, once it has aged to the last collection.
    #[inline]
    fn local(&self) -> Option<&Local<T>> {
        let local = self.locals.get(worker::number())?;
        let now = self.collections.load(Ordering::Relaxed);
        if local.at.load(Ordering::Relaxed) != now {
            Self::age(local, now);
        }
        Some(local)
    }

    #[cold]
    fn age(local: &Local<T>, now: usize) {
        let before = local.at.swap(now, Ordering::Relaxed);
        // The victims' place is that of the young now.
        let mut dropped = local.generations[now & 1].empty();
        if now.wrapping_sub(before) > 1 {
            dropped.append(&mut local.generations[(now + 1) & 1].empty());
        }
        // Only now: whatever their drop does, it finds the pool in order.
        drop(dropped);
    }

    /// From the others, then from the victims, its own first.
    #[cold]
    fn steal(&self) -> Option<Box<T>> {
        let (me, workers) = (worker::number(), self.locals.len());
        let now = self.collections.load(Ordering::Relaxed);
        let from = |generation: usize, first: usize| {
            let order = (0..workers).map(move |i| first.wrapping_add(i) % workers);
            order
                .map(|worker| &self.locals[worker].generations[generation & 1].shared)
                .find_map(Chain::steal)
        };
        if let Some(object) = from(now, me.wrapping_add(1)) {
            return Some(object);
        }
        if now == 0 || self.victims_gone.load(Ordering::Relaxed) == now + 1 {
            return None;
        }
        let own = self.locals.get(me);
        let private = own.and_then(|local| local.generations[(now + 1) & 1].take_private());
        let object = private.or_else(|| from(now + 1, me));
        if object.is_none() {
            self.victims_gone.store(now + 1, Ordering::Relaxed);
        }
        object
    }
}

/// Goes back when it is dropped.
pub(crate) struct Lent<'p, T> {
    /// There until the drop.
    object: Option<Box<T>>,
    pool: &'p SyncPool<T>,
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.object.as_ref().expect("it is there until the drop")
    }
}

impl<T> DerefMut for Lent<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.object.as_mut().expect("it is there until the drop")
    }
}

impl<T> Drop for Lent<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.pool.put(object);
        }
    }
}

#[cfg(test)]
mod tests;
