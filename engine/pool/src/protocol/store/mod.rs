//! Where the objects of a pool are while nobody uses them: in the caches of threads, and in the depots
//! of nodes. How many there may be, and who waits for one, is told here too. What they are, how they
//! are made and dropped, and which thread has which cache, it does not know.
//!
//! What an owner does that its own cache does not serve is in `exchange.rs`, what happens when there is
//! nothing left in `scarcity.rs`, what becomes of idle objects in `idle.rs`.
//!
//! `README.md` tells the protocol.

mod exchange;
mod idle;
mod scarcity;

use std::collections::VecDeque;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::{Arc, PoisonError};

use crossbeam_utils::CachePadded;
use reiver_topology::NodeId;

use crate::protocol::arena::drop_placed;
use crate::protocol::barrier;
use crate::protocol::depot::{Depot, MOST};
use crate::protocol::stack::{Object, Stack};
use crate::protocol::sync::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, Signal, fence,
    needed, pause,
};

/// Magazines that a thread keeps of its own node's objects, and as many of others'. Where objects are so
/// large that a magazine holds fewer than [`MOST`], less of them: see [`Store::new`].
const MAGAZINES: usize = if cfg!(reiver_loom) { 2 } else { 16 };
const KEPT: usize = MAGAZINES * MOST;

/// What one thread caches. Its owner alone pushes and pops; the lock is for all else. The slots of its stacks
/// come last, but for the gates of the second: of one that caches little, two pages are ever written.
#[derive(Debug)]
#[repr(C)]
pub struct Cache {
    /// How many have gone home from here. Written under the lock.
    sent: AtomicU64,
    /// It lies in pages of the store's own.
    is_placed: bool,
    /// Nobody has come to the lock since this was set. Written under the lock.
    is_probed: AtomicBool,
    lock: CachePadded<Mutex<()>>,
    /// The node of its owner, which alone writes it.
    home: AtomicUsize,
    /// Objects of that node.
    pub own: Stack<{ KEPT }>,
    /// Objects on their way home, which nobody pops.
    pub away: Stack<{ KEPT }>,
}

impl Cache {
    /// Makes one in its place, for it is too large for the stacks of some threads.
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "the address of a field, and its write, for all of them"
    )]
    fn place(room: &mut MaybeUninit<Cache>, home: usize, is_placed: bool) {
        let at = room.as_mut_ptr();
        // SAFETY: there is room for all of it.
        unsafe {
            (&raw mut (*at).sent).write(AtomicU64::new(0));
            (&raw mut (*at).is_placed).write(is_placed);
            (&raw mut (*at).is_probed).write(AtomicBool::new(false));
            (&raw mut (*at).lock).write(CachePadded::new(Mutex::new(())));
            (&raw mut (*at).home).write(AtomicUsize::new(home));
            Stack::place(&raw mut (*at).own);
            Stack::place(&raw mut (*at).away);
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
    /// Objects that a thread keeps of its own node's; when it has so many, half of them go to the depot.
    kept: usize,
    /// Objects of other nodes that it keeps until they go home together. An exchange waits for whatever the
    /// thread has stored before, which is mostly to objects that were still on their way to it: so, seldom.
    batch: usize,
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
    /// `spare` more may come to be known. What `few` and the capacity make of magazines and caches `amounts` says.
    /// `home_of` says to which node an object belongs, `memory` where what belongs to a node is to lie.
    pub fn new(
        near: Box<[Box<[usize]>]>,
        spare: usize,
        capacity: usize,
        few: usize,
        home_of: Box<dyn Fn(Object) -> usize + Send + Sync>,
        memory: Box<dyn Fn(usize) -> Option<NodeId> + Send + Sync>,
    ) -> Store {
        let known = near.len();
        let [magazine, kept, batch] = amounts(few, capacity);
        let store = Store {
            is_scarce: AtomicBool::new(false),
            is_eager: AtomicBool::new(!barrier::register()),
            magazine,
            kept,
            batch,
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
        } else {
            // It has room for those who wait.
            self.tell();
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
                arena.place_one(|room| Cache::place(room, home, arena.is_placed()))
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

    /// Lets the owner use the cache without its lock, for objects of its own node. By the owner, under the
    /// lock.
    fn open(&self, cache: &Cache) {
        if self.may_open(cache) {
            cache.own.open(self.kept);
        }
    }

    /// The same, for objects that are away; until the next [`flush`](Self::flush).
    fn open_away(&self, cache: &Cache) {
        if self.may_open(cache) {
            cache.away.open(self.batch);
        }
    }

    /// The owner has come to the lock.
    fn may_open(&self, cache: &Cache) -> bool {
        // ORDERING: relaxed: written under the lock.
        cache.is_probed.store(false, Ordering::Relaxed);
        // ORDERING: relaxed: who sets it takes the lock next, and shuts what was opened before.
        !self.is_eager.load(Ordering::Relaxed)
    }

    /// Passes the dear fence, under the lock of this cache or of none. Where the kernel refuses it all of a
    /// sudden, caches are shut for good, each under its lock, and whatever their owners have in their store
    /// buffers is out by the time that this is over.
    fn barrier(&self, state: &State, name: &'static str, locked: Option<&Cache>) {
        // ORDERING: relaxed: written under the state's lock, which we have.
        if self.is_eager.load(Ordering::Relaxed) {
            // ORDERING: for those who pass full fences themselves; owners come to the lock.
            return fence(Ordering::SeqCst);
        }
        if barrier::heavy(name) {
            return;
        }
        // ORDERING: relaxed: see `open`.
        self.is_eager.store(true, Ordering::Relaxed);
        for cache in caches(state) {
            let is_locked = locked.is_some_and(|locked| ptr::eq(locked, cache));
            let _lock = (!is_locked).then(|| cache.lock());
            cache.own.shut();
            cache.away.shut();
        }
        pause();
        // ORDERING: what was stored before is seen from here on.
        fence(Ordering::SeqCst);
    }

    /// Puts an object of the cache's own node into it; gives it back where there is no room.
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

    /// The same, of an object that belongs to another node.
    ///
    /// # Safety
    /// Only the owner of the cache calls this.
    #[inline(always)]
    pub unsafe fn put_away(&self, cache: &Cache, object: Object) -> Result<(), Object> {
        // SAFETY: as the caller says.
        unsafe { cache.away.push(object)? };
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
}

/// How many objects a magazine holds, a thread keeps of its own node's, and of others', if so few take
/// `FEW_BYTES` and a node may have `capacity`. A magazine holds `few`, if that is not too many; a thread keeps two
/// of them, or more as long as it is no more than `few` and an eighth of the capacity, for what some keep others
/// have to look for. Half of what it keeps, and all that it sends home, are whole magazines. Without limit:
///
/// | an object of | few | magazine | kept | batch |
/// | --- | --- | --- | --- | --- |
/// | up to 64 B | 1024 or more | 64 | 1024 | 1024 |
/// | 256 B | 256 | 64 | 256 | 256 |
/// | 1 KiB | 64 | 64 | 128 | 64 |
/// | 4 KiB | 16 | 16 | 32 | 16 |
/// | 64 KiB and more | 1 or 0 | 1 | 2 | 1 |
fn amounts(few: usize, capacity: usize) -> [usize; 3] {
    let magazine = few.clamp(1, MOST);
    let most = few.min(capacity / 8).min(KEPT);
    let whole = |magazines: usize| (most - most % magazines).max(magazines);
    [magazine, whole(2 * magazine), whole(magazine)]
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

#[cfg(all(test, not(reiver_loom)))]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn half_of_what_is_kept_and_all_that_is_sent_are_whole_magazines() {
        for (few, magazine, kept, batch) in [
            (65_536, 64, 1024, 1024),
            (1024, 64, 1024, 1024),
            (1000, 64, 896, 960),
            (256, 64, 256, 256),
            (64, 64, 128, 64),
            (16, 16, 32, 16),
            (1, 1, 2, 1),
            (0, 1, 2, 1),
        ] {
            assert_eq!(amounts(few, usize::MAX), [magazine, kept, batch], "{few}");
        }
        assert_eq!(amounts(1024, 1040), [64, 128, 128]);
        assert_eq!(amounts(1024, 0), [64, 128, 64]);
        for few in 0..1100 {
            for capacity in (0..10_000).step_by(13) {
                let [magazine, kept, batch] = amounts(few, capacity);
                assert_eq!((kept % (2 * magazine), batch % magazine), (0, 0));
                assert!(kept <= KEPT && batch <= KEPT);
            }
        }
    }

    #[test]
    fn a_new_cache_leaves_the_slots_of_its_stacks_alone() {
        const BYTE: u8 = 0xA5;
        let mut room = Box::<Cache>::new_uninit();
        let start = room.as_mut_ptr().cast::<u8>();
        // SAFETY: they are its bytes.
        unsafe { start.write_bytes(BYTE, size_of::<Cache>()) };
        Cache::place(&mut room, 0, false);
        let stacks = [offset_of!(Cache, own), offset_of!(Cache, away)];
        for stack in stacks {
            let behind = stack + size_of::<Stack<KEPT>>();
            let slots = behind - KEPT * size_of::<Object>()..behind;
            for at in slots {
                // SAFETY: it is one of the bytes that were written above.
                assert_eq!(unsafe { start.wrapping_add(at).read() }, BYTE);
            }
        }
    }
}
