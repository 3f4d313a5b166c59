//! Pools of objects of one type, and the guards through which objects are used.

use std::alloc::Layout;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use reiver_topology::Topology;

use crate::places::Places;
use crate::protocol::stack::Object;
use crate::shared::{Contained, Core, Keep, Parts};
use crate::slab;
use crate::stats::{Exhausted, PoolStats};

/// A pool of objects: what is expensive to make or to allocate is used again.
///
/// Clones are handles of the same pool. When the last of them is gone, and the last [`PooledArc`], whatever
/// is cached is dropped, in whichever thread's cache it is. A thread that ends has the pool too until it has left its
/// cache (joining it waits for that, a scope of threads does not), a worker that sends objects home before it
/// sleeps, and one that drops what is idle at the end of an epoch: if one of them lets go last, it drops the rest.
///
/// Objects belong to the node whose memory they lie in: that of the worker that made them, or of the CPU that
/// a thread without a worker ran on then. Each takes whole cache lines (64 bytes), so that two never share
/// one. A `T` that owns memory of its own (a `Vec`) has that from the allocator, wherever that is.
///
/// A thread that uses a pool has a cache of it, for up to 1024 objects of its own node and 1024 of others: 16 KiB,
/// of which pages become memory as they are used, two or so with the first object. A cache stays until the pool
/// goes; a thread that comes takes that of one that has ended. A pool has seats for the caches of 1016 threads
/// of the process at once; those that come then use theirs under its lock until one of them ends. The seats are 16
/// KiB more for each pool, and memory from the beginning where the allocator clears so few bytes itself, as glibc's
/// does.
///
/// What `T`'s destructor panics with, when the pool drops an object, ends in the pool; and so does what the
/// destructors of what its closures have captured panic with, when the pool goes.
pub struct Pool<T> {
    core: Arc<Core>,
    /// Invariant, as guards are.
    holds: PhantomData<fn(T) -> T>,
}

/// What becomes of an object that was returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recycle {
    /// It is used again.
    Keep,
    /// It is dropped.
    Discard,
}

/// As one that owns a `T`, but for its variance, which is none.
type Owned<T> = (T, fn(T) -> T);

/// Says how a [`Pool`] is to be.
pub struct PoolBuilder<T> {
    make: Box<dyn Fn(*mut u8) + Send + Sync>,
    reset: Option<Box<Keep>>,
    recycle: Option<Box<Keep>>,
    capacity_per_node: usize,
    topology: Option<Topology>,
    epoch: Duration,
    makes: PhantomData<fn() -> T>,
}

impl<T: Send + 'static> Pool<T> {
    /// Begins a pool whose objects `create` makes, when one is wanted and none is idle. It may use the pool
    /// itself; if it panics, that goes to whoever wanted the object, and nothing is lost.
    pub fn builder(create: impl Fn() -> T + Send + Sync + 'static) -> PoolBuilder<T> {
        // SAFETY: it is given slots for objects of this type, without one.
        let make = move |slot: *mut u8| unsafe { slot.cast::<T>().write(create()) };
        PoolBuilder {
            make: Box::new(make),
            reset: None,
            recycle: None,
            capacity_per_node: usize::MAX,
            topology: None,
            epoch: EPOCH,
            makes: PhantomData,
        }
    }

    /// An object: an idle one, or else a new one. At capacity it waits, behind all who have waited for longer,
    /// until one is returned; an object that an idle thread caches is not waited for, but taken from it.
    ///
    /// Costs 2 to 5 ns with its return, by the machine, from the thread's own cache, and 4 to 6 each where thousands
    /// are taken at once, of which most go through the depot: beyond what the same loop takes without a pool. A
    /// thread that waits sleeps; on a worker it keeps the worker.
    ///
    /// # Panics
    /// If `create` panics, or the capacity is 0. Ends the process, as an allocation does, where the system
    /// has no memory.
    #[inline(always)]
    pub fn get(&self) -> Pooled<'_, T> {
        Pooled::new(&self.core, self.core.get())
    }

    /// An object, if one is idle anywhere or there is room for a new one.
    ///
    /// Costs what [`get`](Self::get) does. The first to find nothing has every CPU that runs a thread of the
    /// process pass a fence, which takes 0.5 to 10 µs; those after it some 70 ns.
    ///
    /// # Errors
    /// [`Exhausted`]: every object that there may be is in use, or the system has no memory for one more.
    ///
    /// # Panics
    /// If `create` panics.
    #[inline(always)]
    pub fn try_get(&self) -> Result<Pooled<'_, T>, Exhausted> {
        match self.core.try_get() {
            Ok(object) => Ok(Pooled::new(&self.core, object)),
            Err(_) => Err(Exhausted),
        }
    }

    /// As [`get`](Self::get), with a guard that borrows nothing and keeps the pool alive. Costs two atomic
    /// counts more, some 9 ns.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    #[inline]
    pub fn get_owned(&self) -> PooledArc<T> {
        let object = self.core.get();
        PooledArc {
            object: slab::address(object).cast(),
            core: Arc::clone(&self.core),
            holds: PhantomData,
        }
    }

    /// Numbers, summed over all caches: some 40 ns, and a look at the cache of each thread that uses the pool.
    pub fn stats(&self) -> PoolStats {
        self.core.stats()
    }

    /// Drops all idle objects, those in other threads' caches too, and gives their memory back to the system.
    /// What is returned meanwhile may stay. Costs 0.5 to 10 µs, and each object's destructor. They are dropped one
    /// after the other: until its turn comes each is to be had, and its place is free when its destructor has ended.
    ///
    /// A slab's memory goes back once none of its objects is left. By itself a pool drops what nobody has used
    /// for two epochs, see [`PoolBuilder::epoch`].
    pub fn trim(&self) {
        self.core.trim();
    }
}

/// How long an epoch is unless somebody says so.
const EPOCH: Duration = Duration::from_secs(10);

impl<T: Send + 'static> PoolBuilder<T> {
    /// Called on each object that is returned, by the thread that returns it. If it panics, the object is
    /// dropped, the panic ends there, and it is counted.
    #[must_use]
    pub fn reset(mut self, reset: impl Fn(&mut T) + Send + Sync + 'static) -> PoolBuilder<T> {
        self.reset = Some(Box::new(move |slot| {
            // SAFETY: it is given objects of this type that nobody uses.
            reset(unsafe { &mut *slot.cast::<T>() });
            true
        }));
        self
    }

    /// Asked of each object that is returned whether to keep it, before [`reset`](Self::reset), which those that
    /// are discarded do not see. If it panics, that is as in `reset`.
    ///
    /// ```
    /// use reiver_pool::{Pool, Recycle};
    ///
    /// let pool = Pool::builder(Vec::<u8>::new)
    ///     .recycle(|bytes| match bytes.capacity() {
    ///         0..=65_536 => Recycle::Keep,
    ///         _ => Recycle::Discard,
    ///     })
    ///     .reset(Vec::clear)
    ///     .build();
    /// pool.get().reserve(1_000_000);
    /// assert_eq!(pool.stats().cached, 0);
    /// ```
    #[must_use]
    pub fn recycle(
        mut self,
        recycle: impl Fn(&mut T) -> Recycle + Send + Sync + 'static,
    ) -> PoolBuilder<T> {
        self.recycle = Some(Box::new(move |slot| {
            // SAFETY: it is given objects of this type that nobody uses.
            recycle(unsafe { &mut *slot.cast::<T>() }) == Recycle::Keep
        }));
        self
    }

    /// So many objects for each node of the machine, in use or idle: in all that times the nodes. A thread
    /// whose node has none left takes from the nearest that has. Without it there is no limit.
    #[must_use]
    pub fn capacity_per_node(mut self, objects: usize) -> PoolBuilder<T> {
        self.capacity_per_node = objects;
        self
    }

    /// The machine whose nodes the pool has; without it this one. On one that is only described, nodes are
    /// groups of workers, and memory lies wherever it is first touched. A worker is at the node that its engine
    /// says, be that of another machine; one at a node that this machine does not have makes it one more group.
    #[must_use]
    pub fn topology(mut self, machine: Topology) -> PoolBuilder<T> {
        self.topology = Some(machine);
        self
    }

    /// How long an epoch is; 10 s unless this is said. An object that nobody has used for one whole epoch is
    /// dropped at the end of the next at the latest, and its memory goes back to the system; but those at
    /// the bottom of a cache that its thread uses, and those of other nodes in it. Less than a millisecond is one.
    #[must_use]
    pub fn epoch(mut self, epoch: Duration) -> PoolBuilder<T> {
        self.epoch = epoch.max(Duration::from_millis(1));
        self
    }

    /// The pool, still without objects. The first pool of a process reads the machine, which takes a
    /// millisecond or so.
    pub fn build(self) -> Pool<T> {
        // One call through a pointer for each return, where there is one of them alone.
        let keep: Option<Box<Keep>> = match (self.recycle, self.reset) {
            (Some(recycle), Some(reset)) => {
                let (recycle, reset) = (Contained::new(recycle), Contained::new(reset));
                Some(Box::new(move |slot| recycle(slot) && reset(slot)))
            }
            (recycle, reset) => recycle.or(reset),
        };
        let places = match &self.topology {
            None => Places::detected(),
            Some(machine) => Arc::new(Places::of(machine)),
        };
        let core = Core::new(Parts {
            layout: Layout::new::<T>(),
            make: self.make,
            keep,
            drop: std::mem::needs_drop::<T>().then_some(drop_at::<T> as unsafe fn(*mut u8)),
            capacity_per_node: self.capacity_per_node,
            places,
            epoch: self.epoch,
        });
        Pool {
            core,
            holds: PhantomData,
        }
    }
}

/// # Safety
/// There is an object of this type that nobody uses.
unsafe fn drop_at<T>(slot: *mut u8) {
    // SAFETY: as the caller says.
    unsafe { slot.cast::<T>().drop_in_place() };
}

/// An object of a [`Pool`], which goes back when this is dropped, on whichever thread that is.
///
/// If it is forgotten, its place in the pool is lost for as long as the pool lives, and its destructor does not
/// run; nothing else is.
///
/// Nothing is left in an object that lives shorter than the pool:
///
/// ```compile_fail,E0597
/// let pool = reiver_pool::Pool::builder(Vec::<&'static str>::new).build();
/// {
///     let gone = String::from("gone");
///     pool.get().push(&gone);
/// }
/// println!("{}", pool.get()[0]);
/// ```
pub struct Pooled<'a, T> {
    object: NonNull<T>,
    core: &'a Core,
    /// Invariant: what is written here is read by whoever gets the object next.
    holds: PhantomData<Owned<T>>,
}

/// An object of a [`Pool`], which goes back when this is dropped, and keeps the pool alive until then.
pub struct PooledArc<T> {
    object: NonNull<T>,
    core: Arc<Core>,
    /// As there.
    holds: PhantomData<Owned<T>>,
}

// SAFETY: it is the object's only user, and pools themselves are shared by all threads.
unsafe impl<T: Send> Send for Pooled<'_, T> {}
// SAFETY: a shared one gives shared objects, no more.
unsafe impl<T: Sync> Sync for Pooled<'_, T> {}
// SAFETY: as for `Pooled`.
unsafe impl<T: Send> Send for PooledArc<T> {}
// SAFETY: as for `Pooled`.
unsafe impl<T: Sync> Sync for PooledArc<T> {}

impl<'a, T> Pooled<'a, T> {
    #[inline(always)]
    fn new(core: &'a Core, object: Object) -> Pooled<'a, T> {
        // SAFETY: objects lie in slabs, and not at null.
        let object = unsafe { NonNull::new_unchecked(object.0) };
        Pooled {
            object: object.cast(),
            core,
            holds: PhantomData,
        }
    }

    /// Takes the object out of the pool, which then has room for another one: it is not reset, and
    /// dropped by whoever has it.
    pub fn detach(this: Pooled<'a, T>) -> T {
        let this = ManuallyDrop::new(this);
        // SAFETY: it is ours, and not used through the guard any more.
        unsafe { taken_out(this.core, this.object) }
    }
}

impl<T> PooledArc<T> {
    /// Takes the object out of the pool, which then has room for another one: it is not reset, and
    /// dropped by whoever has it.
    pub fn detach(this: PooledArc<T>) -> T {
        let this = ManuallyDrop::new(this);
        // SAFETY: it is read once, for the guard is not dropped.
        let core = unsafe { std::ptr::read(&raw const this.core) };
        // SAFETY: it is ours, and not used through the guard any more.
        unsafe { taken_out(&core, this.object) }
    }
}

/// # Safety
/// The object is one of the pool's, and nobody uses it any more.
unsafe fn taken_out<T>(core: &Core, slot: NonNull<T>) -> T {
    // SAFETY: as the caller says.
    let object = unsafe { slot.read() };
    // SAFETY: it was moved away.
    unsafe { core.forget(Object(slot.as_ptr().cast())) };
    object
}

impl<T> Drop for Pooled<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: it is the pool's, and this was its only user.
        unsafe { self.core.put(Object(self.object.as_ptr().cast())) };
    }
}

impl<T> Drop for PooledArc<T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: it is the pool's, and this was its only user.
        unsafe { self.core.put(Object(self.object.as_ptr().cast())) };
    }
}

macro_rules! guards {
    ($($guard:ty),*) => {$(
        impl<T> Deref for $guard {
            type Target = T;

            #[inline(always)]
            fn deref(&self) -> &T {
                // SAFETY: there is an object, which is this guard's.
                unsafe { self.object.as_ref() }
            }
        }

        impl<T> DerefMut for $guard {
            #[inline(always)]
            fn deref_mut(&mut self) -> &mut T {
                // SAFETY: there is an object, which is this guard's.
                unsafe { self.object.as_mut() }
            }
        }

        impl<T: fmt::Debug> fmt::Debug for $guard {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        }
    )*};
}

guards!(Pooled<'_, T>, PooledArc<T>);

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Pool<T> {
        Pool {
            core: Arc::clone(&self.core),
            holds: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("stats", &self.core.stats())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for PoolBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("capacity_per_node", &self.capacity_per_node)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use reiver_topology::NodeId;
    use reiver_topology::here::{self, Here};

    use super::*;
    use crate::local::tests::alone;

    #[test]
    fn what_is_away_goes_home_though_an_epoch_has_ended() {
        let _alone = alone();
        let machine = Topology::synthetic("NUMANode:2 PU:1").expect("it is well described");
        let pool = Pool::builder(|| 0_u64).topology(machine).build();
        let store = &pool.core.store;
        let works_for = |node| {
            let node = NodeId(node);
            here::set(Some(Here { node, worker: 0 }));
        };
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                works_for(0);
                (0..50).map(|_| pool.get()).collect::<Vec<_>>()
            });
            let held = first.join().expect("it does not panic");
            let second = scope.spawn(|| {
                works_for(1);
                drop(pool.get());
                drop(held);
                store.probe();
                drop(pool.get());
                crate::park_hook();
                let home = store.node(0).expect("the machine has it");
                assert_eq!(home.depot.cached(), 50);
            });
            // Joined, for a scope does not wait until threads are gone.
            second.join().expect("it does not panic");
        });
    }
}
