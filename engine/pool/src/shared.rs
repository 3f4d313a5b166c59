//! A pool, of whatever type: what its handles share. Threads get and put by their own caches, see
//! [`local`](crate::local); this is the rest of it.

use std::alloc::Layout;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use reiver_topology::NodeId;

use crate::local;
use crate::places::Places;
use crate::protocol::stack::Object;
use crate::protocol::store::{Cache, Got, Store};
use crate::slab::{self, Heap, Shape};
use crate::stats::PoolStats;

/// So many nodes that the machine does not have may come to be known.
const SPARE: usize = 64;
/// A magazine is at most so many bytes of objects, and so is what a thread keeps of its own node's, and of others'
/// on their way home; or it is one object, and two of its own node's magazines. `Store` has a table.
const FEW_BYTES: usize = 64 << 10;

type Make = dyn Fn(*mut u8) + Send + Sync;
pub(crate) type Keep = dyn Fn(*mut u8) -> bool + Send + Sync;

/// What a pool is made of. The pointers are to slots of the type that the pool is for.
pub(crate) struct Parts {
    pub(crate) layout: Layout,
    /// Makes an object.
    pub(crate) make: Box<Make>,
    /// Readies an object that comes back for the next use; false if it is not to be kept.
    pub(crate) keep: Option<Box<Keep>>,
    /// Drops an object.
    pub(crate) drop: Option<unsafe fn(*mut u8)>,
    pub(crate) capacity_per_node: usize,
    pub(crate) places: Arc<Places>,
    pub(crate) epoch: Duration,
}

pub(crate) struct Core {
    /// Where threads find their caches.
    pub(crate) seats: local::Row,
    /// Bits of an address that say which slab it is in.
    mask: usize,
    keep: Option<Contained<Box<Keep>>>,
    pub(crate) store: Store,
    make: Contained<Box<Make>>,
    drop: Option<unsafe fn(*mut u8)>,
    layout: Layout,
    places: Arc<Places>,
    /// The numbers, plus one, of nodes that the machine does not have.
    strange: Box<[AtomicU64]>,
    heaps: Box<[Heap]>,
    created: AtomicU64,
    reset_panics: AtomicU64,
    pub(crate) epoch: Duration,
    me: Weak<Core>,
}

// Panics of what it calls are caught, or leave it as it was; what it holds is guarded by locks and counts.
impl UnwindSafe for Core {}
impl RefUnwindSafe for Core {}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Why there is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// All that there may be are in use.
    Objects,
    /// The system has no memory.
    Memory,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Arc<Core> {
        let shape = Shape::of(parts.layout);
        let mask = shape.mask();
        let known = parts.places.len();
        let few = FEW_BYTES / parts.layout.size().max(1);
        // SAFETY: what is in the store lies in slabs of this shape.
        let home_of = move |object| unsafe { slab::home_of(mask, object) };
        let places = parts.places;
        let memory = {
            let places = Arc::clone(&places);
            move |index: usize| places.memory(index)
        };
        let store = Store::new(
            places.near(),
            SPARE,
            parts.capacity_per_node,
            few,
            Box::new(home_of),
            Box::new(memory),
        );
        let heap = |home| Heap::new(shape, home, places.memory(home));
        let heaps = (0..known + SPARE).map(heap).collect();
        let core = Arc::new_cyclic(|me| Core {
            seats: local::Row::new(),
            mask,
            keep: parts.keep.map(Contained::new),
            store,
            make: Contained::new(parts.make),
            drop: parts.drop,
            layout: parts.layout,
            strange: (0..SPARE).map(|_| AtomicU64::new(0)).collect(),
            heaps,
            places,
            created: AtomicU64::new(0),
            reset_panics: AtomicU64::new(0),
            epoch: parts.epoch,
            me: Weak::clone(me),
        });
        crate::age::watch(&core);
        core
    }

    pub(crate) fn weak(&self) -> Weak<Core> {
        Weak::clone(&self.me)
    }

    /// Objects that come back are put away as they are.
    pub(crate) fn is_plain(&self) -> bool {
        self.keep.is_none()
    }

    /// The number of the node that the current thread is at.
    pub(crate) fn here(&self) -> usize {
        self.places.here().unwrap_or_else(|id| self.stranger(id))
    }

    /// The number of a node that the machine does not have. Of more than there is room for several share
    /// a number.
    fn stranger(&self, NodeId(id): NodeId) -> usize {
        let known = self.places.len();
        let named = u64::from(id) + 1;
        for (at, slot) in self.strange.iter().enumerate() {
            // ORDERING: relaxed, both: the store says whether the node is there.
            let mut found = slot.load(Ordering::Relaxed);
            if found == 0 {
                self.store.add_node(known + at);
                let taken = slot.compare_exchange(0, named, Ordering::Relaxed, Ordering::Relaxed);
                found = taken.map_or_else(|found| found, |_| named);
            }
            if found == named {
                self.store.add_node(known + at);
                return known + at;
            }
        }
        id as usize % known
    }

    /// An object for the current thread.
    #[inline(always)]
    pub(crate) fn get(&self) -> Object {
        match self.get_cached() {
            Some(object) => object,
            None => self.get_waiting(),
        }
    }

    #[inline(always)]
    pub(crate) fn try_get(&self) -> Result<Object, Lack> {
        match self.get_cached() {
            Some(object) => Ok(object),
            None => self.get_uncached(),
        }
    }

    #[inline(always)]
    fn get_cached(&self) -> Option<Object> {
        let cache = local::cache(self)?;
        // SAFETY: it is the current thread's.
        unsafe { cache.own.pop() }
    }

    #[cold]
    #[inline(never)]
    fn get_uncached(&self) -> Result<Object, Lack> {
        let here = self.here();
        let cache = local::attach(self, here);
        // SAFETY: it is the current thread's.
        let got = unsafe { self.store.get(cache, here, false) };
        self.made(got.ok_or(Lack::Objects)?)
    }

    #[cold]
    #[inline(never)]
    fn get_waiting(&self) -> Object {
        let got = self.get_uncached().or_else(|lack| match lack {
            Lack::Memory => Err(lack),
            Lack::Objects => {
                assert!(
                    self.store.capacity() > 0,
                    "a pool with a capacity of 0 never has an object to wait for: give \
                     capacity_per_node at least 1"
                );
                // Whoever we wait for may wait for what is on its way in our hands.
                local::flush();
                let here = self.here();
                let cache = local::attach(self, here);
                // SAFETY: it is the current thread's.
                let got = unsafe { self.store.get(cache, here, true) };
                self.made(got.expect("it waits"))
            }
        });
        got.unwrap_or_else(|_| std::alloc::handle_alloc_error(self.layout))
    }

    fn made(&self, got: Got) -> Result<Object, Lack> {
        match got {
            Got::Object(object) => Ok(object),
            Got::Room(home) => self.make(home),
        }
    }

    /// Makes an object where there is room for it.
    fn make(&self, home: usize) -> Result<Object, Lack> {
        /// Gives the room back unless there is an object in it.
        struct Room<'a>(&'a Core, usize, Option<Object>);
        impl Drop for Room<'_> {
            fn drop(&mut self) {
                if let Some(slot) = self.2.take() {
                    // SAFETY: it was allocated there, and has no object.
                    unsafe { self.0.heaps[self.1].free(slot) };
                }
                self.0.store.release(self.1, 1);
            }
        }
        let mut room = Room(self, home, None);
        let slot = self.heaps[home].allocate().ok_or(Lack::Memory)?;
        room.2 = Some(slot);
        (self.make)(slot.0);
        std::mem::forget(room);
        // ORDERING: relaxed: a count of its own.
        self.created.fetch_add(1, Ordering::Relaxed);
        Ok(slot)
    }

    /// Takes an object back from the current thread.
    ///
    /// # Safety
    /// It is one of this pool's, and nobody uses it any more.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, object: Object) {
        if let Some(cache) = local::cache_to_put(self) {
            // SAFETY: objects lie in slabs with this mask.
            let home = unsafe { slab::home_of(self.mask, object) };
            if home != cache.home() {
                // SAFETY: as the caller says; the cache is the current thread's.
                return unsafe { self.put_away(cache, object) };
            }
            // SAFETY: it is the current thread's.
            if unsafe { self.store.put_own(cache, object) }.is_ok() {
                return;
            }
        }
        // SAFETY: as the caller says.
        unsafe { self.put_otherwise(object) };
    }

    /// The same, of an object that is not at home here. It calls nothing that comes back, thread-locals
    /// among it, so that it has nothing to save: each store waits behind that of the user to an object that
    /// comes from far away, and the fewer there are between two such, the more of them are on their way at once.
    ///
    /// # Safety
    /// As for `put`; the cache is the current thread's.
    #[inline(never)]
    unsafe fn put_away(&self, cache: &Cache, object: Object) {
        // SAFETY: as the caller says.
        if unsafe { self.store.put_away(cache, object) }.is_err() {
            self.put_uncached(object);
        }
    }

    /// The same, for objects that are to be readied, and when the cache is full.
    ///
    /// # Safety
    /// As for `put`.
    #[inline(never)]
    unsafe fn put_otherwise(&self, object: Object) {
        if self.keep.is_none() {
            return self.put_uncached(object);
        }
        // SAFETY: as the caller says.
        if !unsafe { self.keep(object) } {
            return;
        }
        if let Some(cache) = local::cache(self) {
            // SAFETY: objects lie in slabs with this mask.
            let home = unsafe { slab::home_of(self.mask, object) };
            let put = if home == cache.home() {
                // SAFETY: it is the current thread's.
                unsafe { self.store.put_own(cache, object) }
            } else {
                // SAFETY: as above.
                unsafe { self.store.put_away(cache, object) }
            };
            if put.is_ok() {
                return;
            }
        }
        self.put_uncached(object);
    }

    #[cold]
    #[inline(never)]
    fn put_uncached(&self, object: Object) {
        let cache = local::attach(self, self.here());
        // SAFETY: objects lie in slabs with this mask.
        let home = unsafe { slab::home_of(self.mask, object) };
        if cache.is_some_and(|cache| cache.home() != home) {
            local::note_away();
        }
        // SAFETY: it is the current thread's.
        unsafe { self.store.put(cache, object) };
    }

    /// Readies an object for the next use; false if it is gone.
    ///
    /// # Safety
    /// As for `put`.
    unsafe fn keep(&self, object: Object) -> bool {
        let Some(keep) = &self.keep else {
            return true;
        };
        match catch_unwind(AssertUnwindSafe(|| keep(object.0))) {
            Ok(true) => return true,
            Ok(false) => (),
            Err(panic) => {
                // ORDERING: relaxed: a count of its own.
                self.reset_panics.fetch_add(1, Ordering::Relaxed);
                contain(|| drop(panic));
            }
        }
        // SAFETY: as the caller says.
        unsafe { self.destroy(object) };
        false
    }

    /// Drops an object. What its destructor panics with ends here.
    ///
    /// # Safety
    /// As for `put`.
    unsafe fn destroy(&self, object: Object) {
        if let Some(drop) = self.drop {
            // SAFETY: it is an object of the type that this is for, and nobody uses it.
            contain(|| unsafe { drop(object.0) });
        }
        // SAFETY: it has no object any more.
        unsafe { self.forget(object) };
    }

    /// Takes a slot back whose object is gone, and with it the room.
    ///
    /// # Safety
    /// As for `put`, and its object is dropped or was moved away.
    pub(crate) unsafe fn forget(&self, object: Object) {
        // SAFETY: objects lie in slabs with this mask.
        let home = unsafe { slab::home_of(self.mask, object) };
        // SAFETY: it was allocated there.
        unsafe { self.heaps[home].free(object) };
        self.store.release(home, 1);
    }

    /// The size of an object.
    pub(crate) fn object_bytes(&self) -> usize {
        self.layout.size()
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let counts = self.store.counts();
        // What was moved to a depot in the meantime was counted twice.
        let cached = counts.cached.min(counts.live);
        PoolStats {
            outstanding: counts.live - cached,
            cached,
            // ORDERING: relaxed, both: counts of their own.
            created: self.created.load(Ordering::Relaxed),
            reset_panics: self.reset_panics.load(Ordering::Relaxed),
            remote_returns: counts.sent,
        }
    }

    /// Drops all that nobody uses, and gives the memory back.
    pub(crate) fn trim(&self) {
        self.store.shake_out();
        for (index, node) in self.store.nodes() {
            // What comes back meanwhile is not idle.
            let mut left = node.depot.cached();
            while left > 0
                && let Some(object) = self.store.take_idle(index)
            {
                left -= 1;
                // SAFETY: it was cached: nobody uses it.
                unsafe { self.destroy(object) };
            }
            self.heaps[index].trim();
        }
    }

    /// An epoch ends: drops what nobody has used since the last one ended.
    pub(crate) fn age(&self) {
        self.store.probe();
        for (index, _) in self.store.nodes() {
            let mut is_any = false;
            while let Some(object) = self.store.take_aged(index) {
                is_any = true;
                // SAFETY: it was cached: nobody uses it.
                unsafe { self.destroy(object) };
            }
            if is_any {
                self.heaps[index].trim();
            }
        }
        self.store.age();
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let drop = self.drop;
        self.store.drain(|object| {
            if let Some(drop) = drop {
                // SAFETY: it was cached: nobody uses it. Its memory goes with the heaps, after this.
                contain(|| unsafe { drop(object.0) });
            }
        });
    }
}

/// A closure. What the destructors of its captures panic with ends in the pool.
pub(crate) struct Contained<T>(ManuallyDrop<T>);

impl<T> Contained<T> {
    pub(crate) fn new(closure: T) -> Contained<T> {
        Contained(ManuallyDrop::new(closure))
    }
}

impl<T> Deref for Contained<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        // SAFETY: it is not used any more.
        contain(|| unsafe { ManuallyDrop::drop(&mut self.0) });
    }
}

/// Ends a panic here. It was said when it began.
fn contain(body: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
        // What it was thrown with may panic when it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    }
}
