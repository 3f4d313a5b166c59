//! What becomes of objects that nobody uses, and how many there are.

use super::{Counts, Store, caches};
use crate::protocol::stack::Object;
use crate::protocol::sync::Ordering;

impl Store {
    /// Puts all that threads cache into the depots.
    pub fn shake_out(&self) {
        let mut state = self.state();
        for cache in caches(&state) {
            let _lock = cache.lock();
            cache.own.shut();
        }
        self.barrier(&state, "trim fence", None);
        for cache in caches(&state) {
            let _lock = cache.lock();
            if !cache.own.is_shut() {
                // Its owner has opened it again.
                cache.own.raise_floor();
                self.barrier(&state, "trim again fence", Some(cache));
            }
            self.empty(cache, |depot, held| depot.put(held));
        }
        self.serve(&mut state);
    }

    /// Takes an object of a node that nobody uses, to be dropped: one alone, for that may take long, and all
    /// others stay where everybody finds them.
    pub fn take_idle(&self, index: usize) -> Option<Object> {
        // Who makes sure would miss what is in our hands.
        let _state = self.state();
        self.take_one(self.depot(index))
    }

    /// The same, of those of which nobody has used any since the last epoch.
    pub fn take_aged(&self, index: usize) -> Option<Object> {
        let _state = self.state();
        let depot = self.depot(index);
        let mut held = depot.take_aged()?;
        let object = held.pop();
        match held.len() {
            0 => depot.put(held),
            _ => depot.put_aged(held),
        }
        object
    }

    /// An epoch ends. What threads cache that have not used it since the last time is put among the
    /// aged, which the caller then takes and drops; what is in the depots is aged after that, by
    /// [`age`](Self::age).
    pub fn probe(&self) {
        let mut state = self.state();
        self.barrier(&state, "probe fence", None);
        for cache in caches(&state) {
            let _lock = cache.lock();
            // ORDERING: relaxed, both: written under the lock.
            if cache.is_probed.load(Ordering::Relaxed) {
                self.empty(cache, |depot, held| depot.put_aged(held));
            } else {
                cache.is_probed.store(true, Ordering::Relaxed);
                cache.own.shut();
                cache.away.shut();
            }
        }
        self.serve(&mut state);
    }

    /// See [`probe`](Self::probe).
    pub fn age(&self) {
        let mut state = self.state();
        for (_, node) in self.nodes() {
            node.depot.age();
        }
        self.serve(&mut state);
    }

    /// How many there are.
    pub fn counts(&self) -> Counts {
        let state = self.state();
        // ORDERING: relaxed, all: counts of their own.
        let mut counts = Counts {
            sent: self.sent.load(Ordering::Relaxed),
            ..Counts::default()
        };
        for cache in caches(&state) {
            let on_their_way = cache.away.len();
            counts.cached += cache.own.len() + on_their_way;
            counts.sent += on_their_way as u64 + cache.sent.load(Ordering::Relaxed);
        }
        for cache in &state.unused {
            // SAFETY: it lives as long as the store.
            let unused = unsafe { cache.as_ref() };
            counts.sent += unused.sent.load(Ordering::Relaxed);
        }
        for (_, node) in self.nodes() {
            counts.cached += node.depot.cached();
            counts.live += node.live.load(Ordering::Relaxed);
        }
        counts
    }

    /// Takes all that is cached, for one who has the store alone.
    pub fn drain(&mut self, mut see: impl FnMut(Object)) {
        let state = self.state();
        for cache in caches(&state) {
            cache
                .own
                .take(usize::MAX >> 1, |all| all.for_each(&mut see));
            cache
                .away
                .take(usize::MAX >> 1, |all| all.for_each(&mut see));
        }
        for (_, node) in self.nodes() {
            while let Some(mut held) = node.depot.take() {
                while let Some(object) = held.pop() {
                    see(object);
                }
                node.depot.put(held);
            }
        }
    }
}
