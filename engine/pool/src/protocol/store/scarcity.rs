//! How many objects there may be, and what happens when all of them are in use: others' caches are
//! searched, and whoever still has none waits, and is served in order.

use std::sync::{Arc, PoisonError};

use super::{Cache, Got, Node, State, Store, Waiter, caches};
use crate::protocol::stack::Object;
use crate::protocol::sync::{Mutex, Ordering, Signal, needed, yield_now};

impl Store {
    pub(super) fn reserve(&self, node: &Node) -> bool {
        // ORDERING: relaxed, all: a count; who waits for room is told under the state's lock.
        let mut live = node.live.load(Ordering::Relaxed);
        while live < self.capacity {
            let more = node.live.compare_exchange_weak(
                live,
                live + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match more {
                Ok(_) => return true,
                Err(now) => live = now,
            }
        }
        false
    }

    /// Gives back room for so many objects: they are gone, or were never made.
    pub fn release(&self, home: usize, count: usize) {
        let node = self.node(home).expect("objects belong to known nodes");
        // ORDERING: relaxed: a count; `tell` orders it.
        node.live.fetch_sub(count, Ordering::Relaxed);
        self.tell();
    }

    // When there is nothing left.

    pub(super) fn get_scarce(
        &self,
        cache: Option<&Cache>,
        here: usize,
        waits: bool,
    ) -> Option<Got> {
        let mut state = self.state();
        if let Some(cache) = cache {
            // A pop that was refused while somebody looked into the cache has left its object there,
            // and may have hidden it. Whoever looks has the state, so nobody does now.
            let _lock = cache.lock();
            if let Some(object) = cache.own.take_newest() {
                return Some(Got::Object(object));
            }
        }
        let got = if self.is_scarce() {
            let is_next = state.waiters.is_empty();
            is_next.then(|| self.find(here)).flatten()
        } else {
            self.find_or_rob(&state, here)
                .or_else(|| self.make_sure(&state, here))
        };
        if got.is_some() {
            self.serve(&mut state);
            return got;
        }
        if !waits {
            return None;
        }
        let waiter = Arc::new(Waiter {
            here,
            signal: Signal::default(),
            got: Mutex::new(None),
        });
        state.waiters.push_back(Arc::clone(&waiter));
        drop(state);
        loop {
            let got = waiter
                .got
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if got.is_some() {
                return got;
            }
            waiter.signal.wait();
        }
    }

    /// Something from a depot, or room, at the nearest node that has any.
    fn find(&self, here: usize) -> Option<Got> {
        self.near(here)
            .find_map(|(index, node)| self.find_at(index, node))
    }

    fn find_at(&self, index: usize, node: &Node) -> Option<Got> {
        let object = self.take_one(&node.depot).map(Got::Object);
        object.or_else(|| self.reserve(node).then_some(Got::Room(index)))
    }

    /// The same, and what other threads cache, node by node.
    fn find_or_rob(&self, state: &State, here: usize) -> Option<Got> {
        self.near(here).find_map(|(index, node)| {
            self.find_at(index, node)
                .or_else(|| self.rob(state, index).map(Got::Object))
        })
    }

    /// Takes half of what some thread caches of a node's objects; one is for the caller, the rest for
    /// the depot.
    fn rob(&self, state: &State, index: usize) -> Option<Object> {
        for cache in caches(state).filter(|cache| !cache.seems_empty()) {
            let lock = cache.lock();
            self.send(cache);
            let depot = self.depot(index);
            let mut held = depot.empty();
            if cache.home() == index && !cache.own.seems_empty() {
                let was_shut = cache.own.is_shut();
                cache.own.raise_floor();
                self.barrier(state, "rob fence", Some(cache));
                let half = cache.own.len().div_ceil(2).min(self.magazine);
                cache.own.take(half, |objects| held.extend(objects));
                // ORDERING: relaxed: see `open`.
                if !was_shut && !self.is_eager.load(Ordering::Relaxed) {
                    cache.own.reopen_floor();
                }
            }
            let object = held.pop();
            depot.put(held);
            drop(lock);
            let object = object.or_else(|| self.take_one(depot));
            if object.is_some() {
                return object;
            }
        }
        None
    }

    /// Nothing was found. From now on everybody who returns something comes to the state; what was
    /// returned before, this finds.
    fn make_sure(&self, state: &State, here: usize) -> Option<Got> {
        // ORDERING: relaxed: the fence orders it.
        self.is_scarce.store(true, Ordering::Relaxed);
        // ORDERING: with the cheap fence after a push and the full ones in `tell` and `take_directly`.
        self.barrier(state, "scarce fence", None);
        // ORDERING: acquire, with the release in `take_directly`: what was put back is seen.
        while self.movers.load(needed("movers seen", Ordering::Acquire)) > 0 {
            yield_now();
        }
        for cache in caches(state) {
            // Whoever was moving something under the lock is done then, and moves nothing more.
            let lock = cache.lock();
            self.send(cache);
            if !cache.own.seems_empty() {
                cache.own.raise_floor();
                self.barrier(state, "evacuation fence", Some(cache));
                self.empty(cache, |depot, held| depot.put(held));
            }
            drop(lock);
        }
        self.find(here)
    }

    /// Gives what is free to those who wait, the longest first; if there is more, the scarcity is over.
    pub(super) fn serve(&self, state: &mut State) {
        if !self.is_scarce() {
            return;
        }
        while let Some(waiter) = state.waiters.front() {
            let Some(got) = self.find(waiter.here) else {
                return;
            };
            let waiter = state.waiters.pop_front().expect("it was there");
            *waiter.got.lock().unwrap_or_else(PoisonError::into_inner) = Some(got);
            waiter.signal.give();
        }
        let is_free = |(_, node): (usize, &Node)| {
            // ORDERING: relaxed: a count; what is missed here is served by whoever brings it.
            let has_room = node.live.load(Ordering::Relaxed) < self.capacity;
            has_room || !node.depot.seems_empty()
        };
        if self.nodes().any(is_free) {
            // ORDERING: relaxed: who still sees it comes to the state in vain.
            self.is_scarce.store(false, Ordering::Relaxed);
        }
    }
}
