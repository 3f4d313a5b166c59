//! Where the objects of a pool are while nobody uses them: in the caches of threads, and in the depots
//! of nodes. How many there may be, and who waits for one, is told here too. What they are, how they
//! are made and dropped, and which thread has which cache, it does not know.
//!
//! `README.md` tells the protocol.

use std::collections::VecDeque;
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::{Arc, PoisonError};

use crossbeam_utils::CachePadded;
use reiver_topology::NodeId;

use crate::protocol::arena::drop_placed;
use crate::protocol::barrier;
use crate::protocol::depot::{Depot, Held, MOST};
use crate::protocol::stack::{Object, Stack};
use crate::protocol::sync::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, Signal, fence,
    fence_needed, needed, pause, yield_now,
};

/// What one thread caches. Its owner alone pushes and pops; the lock is for all else.
#[derive(Debug)]
#[repr(C)]
pub struct Cache {
    /// The node of its owner, which alone writes it.
    home: AtomicUsize,
    /// Objects of that node.
    pub own: Stack<{ 2 * MOST }>,
    /// Objects on their way home, which nobody pops.
    pub away: Stack<MOST>,
    /// How many have gone home from here. Written under the lock.
    sent: AtomicU64,
    /// It lies in pages of the store's own.
    is_placed: bool,
    /// Nobody has come to the lock since this was set. Written under the lock.
    is_probed: AtomicBool,
    lock: CachePadded<Mutex<()>>,
}

impl Cache {
    fn new(home: usize, is_placed: bool) -> Cache {
        Cache {
            home: AtomicUsize::new(home),
            own: Stack::new(),
            away: Stack::new(),
            sent: AtomicU64::new(0),
            is_placed,
            is_probed: AtomicBool::new(false),
            lock: CachePadded::new(Mutex::new(())),
        }
    }

    /// The node whose objects it keeps.
    #[inline(always)]
    pub fn home(&self) -> usize {
        // ORDERING: relaxed: the owner reads what it wrote; others read it under the lock.
        self.home.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seems_empty(&self) -> bool {
        self.own.seems_empty() && self.away.seems_empty()
    }
}

/// What belongs to one node.
#[derive(Debug)]
pub struct Node {
    /// Its magazines.
    pub depot: Depot,
    /// Objects that live, cached or not, and those being made.
    live: CachePadded<AtomicUsize>,
}

/// What a thread that wants an object gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// One that was cached.
    Object(Object),
    /// Room for a new one at this node.
    Room(usize),
}

/// A thread that waits.
struct Waiter {
    /// Its node.
    here: usize,
    signal: Signal,
    /// What it was given.
    got: Mutex<Option<Got>>,
}

#[derive(Default)]
struct State {
    caches: Vec<NonNull<Cache>>,
    /// Of threads that have ended.
    unused: Vec<NonNull<Cache>>,
    /// The longest first.
    waiters: VecDeque<Arc<Waiter>>,
}

// SAFETY: caches are shared by their own rules, and live as long as the store.
unsafe impl Send for State {}

/// See the module.
pub struct Store {
    /// Everything that there may be is in use, as far as anybody knows: whoever returns something, or
    /// wants something, comes to the state. Written under its lock.
    is_scarce: AtomicBool,
    /// The kernel has no barrier for us: caches are used under their locks alone.
    is_eager: AtomicBool,
    /// Objects a magazine holds.
    magazine: usize,
    /// Objects a node may have.
    capacity: usize,
    nodes: Box<[AtomicPtr<Node>]>,
    /// For each node that is known from the beginning, those nearest to it first.
    near: Box<[Box<[usize]>]>,
    home_of: Box<dyn Fn(Object) -> usize + Send + Sync>,
    /// Where what belongs to a node is to lie.
    memory: Box<dyn Fn(usize) -> Option<NodeId> + Send + Sync>,
    /// Threads that move objects without a cache's lock.
    movers: CachePadded<AtomicUsize>,
    /// Objects that came home without a cache.
    sent: AtomicU64,
    state: CachePadded<Mutex<State>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("magazine", &self.magazine)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Numbers, at a moment when nobody moves anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Cached anywhere.
    pub cached: usize,
    /// Cached or in use.
    pub live: usize,
    /// Came home from other nodes.
    pub sent: u64,
}

impl Store {
    /// A store for nodes numbered from 0, of which `near` lists the nearest for each, itself first;
    /// `spare` more may come to be known. `home_of` says to which node an object belongs, `memory` where
    /// what belongs to a node is to lie.
    pub fn new(
        near: Box<[Box<[usize]>]>,
        spare: usize,
        capacity: usize,
        magazine: usize,
        home_of: Box<dyn Fn(Object) -> usize + Send + Sync>,
        memory: Box<dyn Fn(usize) -> Option<NodeId> + Send + Sync>,
    ) -> Store {
        let known = near.len();
        let store = Store {
            is_scarce: AtomicBool::new(false),
            is_eager: AtomicBool::new(!barrier::register()),
            magazine: magazine.clamp(1, MOST),
            capacity,
            nodes: (0..known + spare)
                .map(|_| AtomicPtr::new(ptr::null_mut()))
                .collect(),
            near,
            home_of,
            memory,
            movers: CachePadded::new(AtomicUsize::new(0)),
            sent: AtomicU64::new(0),
            state: CachePadded::new(Mutex::new(State::default())),
        };
        for index in 0..known {
            store.add_node(index);
        }
        store
    }

    /// Makes a node known.
    pub fn add_node(&self, index: usize) {
        let node = Node {
            depot: Depot::new((self.memory)(index)),
            live: CachePadded::new(AtomicUsize::new(0)),
        };
        let new = Box::into_raw(Box::new(node));
        // ORDERING: release, with the acquire in `node`: the node is seen whole.
        let placed = self.nodes[index].compare_exchange(
            ptr::null_mut(),
            new,
            needed("store node", Ordering::Release),
            Ordering::Relaxed,
        );
        if placed.is_err() {
            // SAFETY: it was made above, and nobody has seen it.
            drop(unsafe { Box::from_raw(new) });
        }
    }

    /// A node that is known.
    pub fn node(&self, index: usize) -> Option<&Node> {
        // ORDERING: acquire, with the release in `add_node`.
        let node = self.nodes[index].load(needed("store node seen", Ordering::Acquire));
        // SAFETY: it stays until the store goes.
        unsafe { node.as_ref() }
    }

    fn depot(&self, index: usize) -> &Depot {
        &self
            .node(index)
            .expect("objects belong to known nodes")
            .depot
    }

    /// All that are known, with their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        let all = 0..self.nodes.len();
        all.filter_map(|index| Some((index, self.node(index)?)))
    }

    /// All known nodes, the nearest to one of them first.
    fn near(&self, here: usize) -> impl Iterator<Item = (usize, &Node)> {
        let known = self.near.len();
        let listed = self.near.get(here);
        let first = listed.map_or(std::slice::from_ref(&here), |near| &near[..]);
        let first: Vec<usize> = first.to_vec();
        let begin = if listed.is_some() { known } else { 0 };
        let others = (begin..self.nodes.len()).filter(move |&index| index != here);
        let all = first.into_iter().chain(others);
        all.filter_map(|index| Some((index, self.node(index)?)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looked at by whoever has just returned something.
    #[inline(always)]
    pub fn is_scarce(&self) -> bool {
        // ORDERING: relaxed: a fence, or a lock, orders it.
        self.is_scarce.load(Ordering::Relaxed)
    }

    /// Objects a node may have.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// A cache for a thread, which gives it back by [`leave`](Self::leave).
    pub fn join(&self, home: usize) -> NonNull<Cache> {
        let mut state = self.state();
        let cache = match state.unused.pop() {
            None => {
                let arena = &self.depot(home).arena;
                arena.place(vec![Cache::new(home, arena.is_placed())])
            }
            Some(cache) => {
                // SAFETY: it lives as long as the store.
                let unused = unsafe { cache.as_ref() };
                // ORDERING: relaxed: the state's lock has handed it over.
                unused.home.store(home, Ordering::Relaxed);
                cache
            }
        };
        state.caches.push(cache);
        cache
    }

    /// Lets the owner use the cache without its lock. By the owner, under the lock.
    fn open(&self, cache: &Cache) {
        // ORDERING: relaxed, both: the one is written under the lock; the other only ever becomes true,
        // and before that caches are shut for good.
        cache.is_probed.store(false, Ordering::Relaxed);
        if !self.is_eager.load(Ordering::Relaxed) {
            cache.own.open(2 * self.magazine);
            cache.away.open(self.magazine);
        }
    }

    /// Passes the dear fence. Where the kernel refuses it all of a sudden, caches are shut for good, and
    /// whatever their owners have in their store buffers is out by the time that this is over.
    fn barrier(&self, state: &State, name: &'static str) {
        // ORDERING: relaxed: see `open`.
        if self.is_eager.load(Ordering::Relaxed) {
            // ORDERING: for those who pass full fences themselves; owners come to the lock.
            return fence(Ordering::SeqCst);
        }
        if barrier::heavy(name) {
            return;
        }
        self.is_eager.store(true, Ordering::Relaxed);
        for cache in caches(state) {
            cache.own.shut();
            cache.away.shut();
        }
        pause();
        // ORDERING: what was stored before is seen from here on.
        fence(Ordering::SeqCst);
    }

    /// Puts an object into the cache of the current thread; gives it back where that has no room. `home`
    /// is the node that it belongs to.
    ///
    /// # Safety
    /// Only the owner of the cache calls this.
    #[inline(always)]
    pub unsafe fn put_cached(
        &self,
        cache: &Cache,
        object: Object,
        home: usize,
    ) -> Result<(), Object> {
        if home == cache.home() {
            // SAFETY: as the caller says.
            return unsafe { self.put_own(cache, object) };
        }
        // SAFETY: as the caller says.
        unsafe { cache.away.push(object)? };
        self.after_push(cache);
        Ok(())
    }

    /// The same, of an object that belongs to the node of the cache.
    ///
    /// # Safety
    /// Only the owner of the cache calls this.
    #[inline(always)]
    pub unsafe fn put_own(&self, cache: &Cache, object: Object) -> Result<(), Object> {
        // SAFETY: as the caller says.
        unsafe { cache.own.push(object)? };
        self.after_push(cache);
        Ok(())
    }

    #[inline(always)]
    fn after_push(&self, cache: &Cache) {
        // ORDERING: with the dear fence in `make_sure`: either it finds the object, or we see that such
        // are scarce.
        barrier::light("put fence");
        if self.is_scarce() {
            self.give_up(cache);
        }
    }

    // What owners do when their cache does not serve them.

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
            cache.own.fill(std::iter::from_fn(|| held.pop()));
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

    fn take_one(&self, depot: &Depot) -> Option<Object> {
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
                if cache.own.len() >= 2 * self.magazine {
                    let depot = self.depot(home);
                    let mut held = depot.empty();
                    cache.own.take(self.magazine, |object| held.put(object));
                    depot.put(held);
                }
                cache.own.settle();
                cache.own.fill(std::iter::once(object));
            } else {
                if cache.away.len() >= self.magazine {
                    self.send(cache);
                }
                cache.away.settle();
                cache.away.fill(std::iter::once(object));
            }
            self.open(cache);
            drop(lock);
            return;
        }
        let is_foreign = cache.is_some_and(|cache| cache.home() != home);
        self.put_directly(object, home, is_foreign);
    }

    /// Puts an object where everybody finds it, and serves those who wait.
    pub fn put_directly(&self, object: Object, home: usize, is_foreign: bool) {
        let depot = self.depot(home);
        let mut held = depot.empty();
        held.put(object);
        if is_foreign {
            depot.bring(held);
            // ORDERING: relaxed: a count of its own.
            self.sent.fetch_add(1, Ordering::Relaxed);
        } else {
            depot.put(held);
        }
        self.tell();
    }

    /// After something has become free that everybody may find.
    fn tell(&self) {
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
    fn give_up(&self, cache: &Cache) {
        let lock = cache.lock();
        if self.is_scarce() {
            self.empty(cache, |depot, held| depot.put(held));
            cache.own.settle();
        }
        drop(lock);
        self.tell();
    }

    /// Sends home what is on its way there. By the owner, before it sleeps; false if that is not done
    /// because somebody looks into the cache just now.
    ///
    /// # Safety
    /// Only the owner of the cache calls this.
    pub unsafe fn flush(&self, cache: &Cache) -> bool {
        let Ok(lock) = cache.lock.try_lock() else {
            return false;
        };
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
    fn send(&self, cache: &Cache) {
        let mut batches: Vec<(usize, Held<'_>)> = Vec::new();
        let count = cache.away.take(usize::MAX >> 1, |object| {
            let home = (self.home_of)(object);
            let batch = batches.iter().position(|&(other, _)| other == home);
            let batch = batch.unwrap_or_else(|| {
                batches.push((home, self.depot(home).empty()));
                batches.len() - 1
            });
            batches[batch].1.put(object);
        });
        // ORDERING: relaxed, both: written under the lock.
        let sent = cache.sent.load(Ordering::Relaxed);
        cache.sent.store(sent + count as u64, Ordering::Relaxed);
        for (home, held) in batches {
            self.depot(home).bring(held);
        }
    }

    /// Puts all that a cache holds into magazines. Under its lock; by the owner, or after its floor was
    /// raised and a dear fence passed.
    fn empty<'a>(&'a self, cache: &Cache, mut put: impl FnMut(&'a Depot, Held<'a>)) {
        self.send(cache);
        let depot = self.depot(cache.home());
        loop {
            let mut held = depot.empty();
            cache.own.take(self.magazine, |object| held.put(object));
            if held.len() == 0 {
                return depot.put(held);
            }
            put(depot, held);
        }
    }

    // Room.

    fn reserve(&self, node: &Node) -> bool {
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

    fn get_scarce(&self, cache: Option<&Cache>, here: usize, waits: bool) -> Option<Got> {
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
                self.barrier(state, "rob fence");
                let half = cache.own.len().div_ceil(2).min(self.magazine);
                cache.own.take(half, |object| held.put(object));
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
        self.barrier(state, "scarce fence");
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
                self.barrier(state, "evacuation fence");
                self.empty(cache, |depot, held| depot.put(held));
            }
            drop(lock);
        }
        self.find(here)
    }

    /// Gives what is free to those who wait, the longest first; if there is more, the scarcity is over.
    fn serve(&self, state: &mut State) {
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

    // What happens to idle objects.

    /// Puts all that threads cache into the depots.
    pub fn shake_out(&self) {
        let mut state = self.state();
        for cache in caches(&state) {
            let _lock = cache.lock();
            cache.own.shut();
        }
        self.barrier(&state, "trim fence");
        for cache in caches(&state) {
            let _lock = cache.lock();
            if !cache.own.is_shut() {
                // Its owner has opened it again.
                cache.own.raise_floor();
                self.barrier(&state, "trim again fence");
            }
            self.empty(cache, |depot, held| depot.put(held));
        }
        self.serve(&mut state);
    }

    /// An epoch ends. What threads cache that have not used it since the last time is put among the
    /// aged, which the caller then takes and drops; what is in the depots is aged after that, by
    /// [`age`](Self::age).
    pub fn probe(&self) {
        let mut state = self.state();
        self.barrier(&state, "probe fence");
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
            cache.own.take(usize::MAX >> 1, &mut see);
            cache.away.take(usize::MAX >> 1, &mut see);
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

/// What threads cache.
fn caches(state: &State) -> impl Iterator<Item = &Cache> {
    // SAFETY: they live as long as the store.
    state.caches.iter().map(|cache| unsafe { cache.as_ref() })
}

impl Drop for Store {
    fn drop(&mut self) {
        // A model that has failed has no locks any more.
        #[cfg(reiver_loom)]
        if std::thread::panicking() {
            return;
        }
        let state = std::mem::take(&mut *self.state());
        for cache in state.caches.into_iter().chain(state.unused) {
            // SAFETY: it lives until here.
            let is_placed = unsafe { cache.as_ref() }.is_placed;
            // SAFETY: it was placed by `join`, and nobody uses it any more.
            unsafe { drop_placed(cache, 1, is_placed) };
        }
        for node in &self.nodes {
            // ORDERING: relaxed: it is ours alone.
            let node = node.load(Ordering::Relaxed);
            if !node.is_null() {
                // SAFETY: it was made by `add_node`, and nobody uses it any more.
                drop(unsafe { Box::from_raw(node) });
            }
        }
    }
}
