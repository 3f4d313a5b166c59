//! What an owner does when its cache does not serve it, or it is about to sleep or to end: magazines go
//! between its cache and the depots.

use std::ptr::NonNull;

use super::{Cache, Got, Store};
use crate::protocol::depot::{Depot, Held, Load};
use crate::protocol::stack::Object;
use crate::protocol::sync::{Ordering, fence_needed, needed};

impl Store {
    /// An object, or room for one, for a thread at a node. `None` if everything is in use, unless it
    /// waits.
    ///
    /// # Safety
    /// Only the owner of the cache gives it here.
    pub unsafe fn get(&self, cache: Option<&Cache>, here: usize, waits: bool) -> Option<Got> {
        let object = match cache {
            // SAFETY: as the caller says.
            Some(cache) => unsafe { self.refill(cache, here) },
            None => self.take_directly(here),
        };
        if let Some(object) = object {
            return Some(Got::Object(object));
        }
        let node = self.node(here).expect("threads are at known nodes");
        if !self.is_scarce() && self.reserve(node) {
            return Some(Got::Room(here));
        }
        self.get_scarce(cache, here, waits)
    }

    /// # Safety
    /// Only the owner of the cache calls this.
    unsafe fn refill(&self, cache: &Cache, here: usize) -> Option<Object> {
        let Ok(lock) = cache.lock.try_lock() else {
            return self.take_directly(here);
        };
        let object = cache.own.take_newest();
        // Who looks for the last object looks under this lock, so it either sees what is moved here, or
        // has said so before.
        if self.is_scarce() {
            return object;
        }
        if object.is_some() {
            self.open(cache);
            return object;
        }
        if cache.home() != here {
            self.send(cache);
            // ORDERING: relaxed: see `Cache::home`.
            cache.home.store(here, Ordering::Relaxed);
        }
        cache.own.settle();
        let depot = self.depot(here);
        let object = depot.take().and_then(|mut held| {
            let object = held.pop();
            held.take_all(|objects| {
                objects.iter().for_each(|object| object.expect_use());
                cache.own.fill(objects);
            });
            depot.put(held);
            object
        });
        self.open(cache);
        drop(lock);
        object
    }

    /// Takes one object from the depot of a node, without a cache.
    fn take_directly(&self, here: usize) -> Option<Object> {
        // ORDERING: relaxed: the fence orders it.
        self.movers.fetch_add(1, Ordering::Relaxed);
        // ORDERING: with the dear fence in `make_sure`: either it waits for us, or we see that it is
        // scarce.
        fence_needed("movers fence");
        let object = if self.is_scarce() {
            None
        } else {
            self.take_one(self.depot(here))
        };
        // ORDERING: release, with the acquire in `make_sure`: what we have put back is seen.
        self.movers
            .fetch_sub(1, needed("movers done", Ordering::Release));
        object
    }

    pub(super) fn take_one(&self, depot: &Depot) -> Option<Object> {
        let mut held = depot.take()?;
        let object = held.pop();
        depot.put(held);
        object
    }

    /// Takes an object back, for an owner whose cache has no room, or that has none.
    ///
    /// # Safety
    /// Only the owner of the cache gives it here.
    pub unsafe fn put(&self, cache: Option<&Cache>, object: Object) {
        let home = (self.home_of)(object);
        if let Some(cache) = cache
            && !self.is_scarce()
            && let Ok(lock) = cache.lock.try_lock()
            // As in `refill`.
            && !self.is_scarce()
        {
            if home == cache.home() {
                if cache.own.len() >= self.kept {
                    let mut load = self.depot(home).load();
                    cache.own.take(self.kept / 2, |mut objects| {
                        while objects.len() > 0 {
                            load.extend(self.magazine, objects.by_ref().take(self.magazine));
                        }
                    });
                    load.put();
                }
                cache.own.settle();
                cache.own.fill(&[object]);
                self.open(cache);
            } else {
                if cache.away.len() >= self.batch {
                    self.send(cache);
                }
                cache.away.settle();
                cache.away.fill(&[object]);
                self.open_away(cache);
            }
            drop(lock);
            return;
        }
        let is_foreign = cache.is_some_and(|cache| cache.home() != home);
        self.put_directly(object, home, is_foreign);
    }

    /// Puts an object where everybody finds it, and serves those who wait.
    fn put_directly(&self, object: Object, home: usize, is_foreign: bool) {
        let depot = self.depot(home);
        if is_foreign {
            let mut load = depot.load();
            load.extend(1, std::iter::once(object));
            load.bring();
            // ORDERING: relaxed: a count of its own.
            self.sent.fetch_add(1, Ordering::Relaxed);
        } else {
            let mut held = depot.empty();
            held.put(object);
            depot.put(held);
        }
        self.tell();
    }

    /// After something has become free that everybody may find.
    pub(super) fn tell(&self) {
        // ORDERING: with the dear fence in `make_sure`: either it finds what is there now, or we see
        // that it is scarce.
        fence_needed("tell fence");
        if self.is_scarce() {
            let mut state = self.state();
            self.serve(&mut state);
        }
    }

    /// The owner has cached an object, and found then that such are scarce: puts all that it caches where
    /// others find it.
    #[cold]
    #[inline(never)]
    pub(super) fn give_up(&self, cache: &Cache) {
        let lock = cache.lock();
        if self.is_scarce() {
            self.empty(cache, |depot, held| depot.put(held));
            cache.own.settle();
        }
        drop(lock);
        self.tell();
    }

    /// Sends home what is on its way there. By the owner, before it sleeps; it comes to the lock with the next
    /// object that is away. Costs no lock where there is nothing. False if that is not done because somebody looks
    /// into the cache just now.
    ///
    /// # Safety
    /// Only the owner of the cache calls this.
    pub unsafe fn flush(&self, cache: &Cache) -> bool {
        // An epoch, or a kernel without barrier, has it shut with what is in it. One that is open is shut
        // here, be it empty: its owner is to come by when it next puts something there.
        if cache.away.is_shut() && cache.away.seems_empty() {
            return true;
        }
        let Ok(lock) = cache.lock.try_lock() else {
            return false;
        };
        cache.away.shut();
        self.send(cache);
        cache.away.settle();
        drop(lock);
        self.tell();
        true
    }

    /// The owner ends: what it caches is for others.
    ///
    /// # Safety
    /// The owner calls this, and does not use the cache any more.
    pub unsafe fn leave(&self, cache: NonNull<Cache>) {
        let mut state = self.state();
        // SAFETY: it lives as long as the store.
        let left = unsafe { cache.as_ref() };
        let lock = left.lock();
        left.own.shut();
        left.away.shut();
        self.empty(left, |depot, held| depot.put(held));
        left.own.settle();
        drop(lock);
        state.caches.retain(|&other| other != cache);
        state.unused.push(cache);
        self.serve(&mut state);
    }

    /// Brings home what is on its way there. Under the cache's lock.
    pub(super) fn send(&self, cache: &Cache) {
        // Mostly all of it goes to one node.
        let mut first: Option<(usize, Load<'_>)> = None;
        let mut others: Vec<(usize, Load<'_>)> = Vec::new();
        let count = cache.away.take(usize::MAX >> 1, |mut left| {
            let home_of = |object| (self.home_of)(object);
            while let Some(home) = left.clone().next().map(home_of) {
                let is_the_same = |object: &Object| home_of(*object) == home;
                let run = left.clone().take(self.magazine);
                let run = run.take_while(is_the_same).count();
                let load = || (home, self.depot(home).load());
                let first = first.get_or_insert_with(load);
                let known = if first.0 == home {
                    first
                } else {
                    let at = others.iter().position(|(other, _)| *other == home);
                    let at = at.unwrap_or_else(|| {
                        others.push(load());
                        others.len() - 1
                    });
                    &mut others[at]
                };
                known.1.extend(self.magazine, left.by_ref().take(run));
            }
        });
        // ORDERING: relaxed, both: written under the lock.
        let sent = cache.sent.load(Ordering::Relaxed);
        cache.sent.store(sent + count as u64, Ordering::Relaxed);
        for (_, load) in first.into_iter().chain(others) {
            load.bring();
        }
    }

    /// Puts all that a cache holds into magazines. Under its lock; by the owner, or after its floor was
    /// raised and a dear fence passed.
    pub(super) fn empty<'a>(&'a self, cache: &Cache, mut put: impl FnMut(&'a Depot, Held<'a>)) {
        self.send(cache);
        let depot = self.depot(cache.home());
        loop {
            let mut held = depot.empty();
            cache
                .own
                .take(self.magazine, |objects| held.extend(objects));
            if held.len() == 0 {
                return depot.put(held);
            }
            put(depot, held);
        }
    }
}
