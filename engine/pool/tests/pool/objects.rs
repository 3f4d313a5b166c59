//! What becomes of objects: used again, reset, discarded, taken out; with types and closures of every kind.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use reiver_pool::{Pool, Pooled, PooledArc, Recycle};
use reiver_topology::Topology;

use crate::watchdog::watched;

/// Counts how many of it live.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(crate) fn new(live: &Arc<AtomicUsize>) -> Counted {
        live.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(live))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A pool of such, of one node: on whichever threads run, they share their objects.
pub(crate) fn counted() -> (Arc<AtomicUsize>, Pool<Counted>) {
    let live = Arc::new(AtomicUsize::new(0));
    let alive = Arc::clone(&live);
    let builder = Pool::builder(move || Counted::new(&alive));
    let machine = Topology::synthetic("PU:1").unwrap();
    (live, builder.topology(machine).build())
}

#[test]
fn an_object_is_used_again() {
    let pool = Pool::builder(Vec::<u8>::new).build();
    let mut first = pool.get();
    first.extend([1, 2, 3]);
    let address = first.as_ptr();
    drop(first);
    let again = pool.get();
    assert_eq!((again.as_ptr(), &again[..]), (address, &[1, 2, 3][..]));
    assert_eq!(pool.stats().created, 1);
}

#[test]
fn guards_are_what_they_hold() {
    let pool = Pool::builder(|| String::from("x")).build();
    let mut guard = pool.get();
    guard.push('y');
    assert_eq!(format!("{guard:?} {}", guard.len()), "\"xy\" 2");
    let mut owned = pool.get_owned();
    owned.push('z');
    assert_eq!(&*owned, "xz");
    assert!(format!("{pool:?}").contains("outstanding: 2"));
}

#[test]
fn guards_and_pools_go_where_their_objects_may() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Pooled<'static, Cell<u8>>>();
    send::<PooledArc<Cell<u8>>>();
    sync::<Pooled<'static, u8>>();
    sync::<PooledArc<u8>>();
    send::<Pool<Cell<u8>>>();
    sync::<Pool<Cell<u8>>>();
}

#[test]
fn a_pool_drops_all_that_it_caches_wherever_that_is() {
    let (live, pool) = counted();
    let held: Vec<_> = (0..1000).map(|_| pool.get()).collect();
    assert_eq!(live.load(Ordering::SeqCst), 1000);
    std::thread::scope(|scope| {
        // Joined, for a scope does not wait until threads are gone: one that is about to go has the pool, too.
        scope.spawn(|| drop(held)).join().unwrap();
    });
    let stats = pool.stats();
    assert_eq!(
        (stats.outstanding, stats.cached, stats.created),
        (0, 1000, 1000)
    );
    drop(pool);
    assert_eq!(live.load(Ordering::SeqCst), 0);
}

#[test]
fn reset_readies_and_recycle_discards() {
    let pool = Pool::builder(Vec::<u8>::new)
        .recycle(|bytes| {
            if bytes.len() > 2 {
                Recycle::Discard
            } else {
                Recycle::Keep
            }
        })
        .reset(Vec::clear)
        .build();
    pool.get().extend([1, 2]);
    assert!(pool.get().is_empty());
    assert_eq!(pool.stats().created, 1);
    pool.get().extend([1, 2, 3]);
    let stats = pool.stats();
    assert_eq!((stats.cached, stats.outstanding), (0, 0));
    drop(pool.get());
    assert_eq!(pool.stats().created, 2);
}

#[test]
fn a_panic_in_reset_drops_the_object_and_is_counted() {
    let live = Arc::new(AtomicUsize::new(0));
    let builder = || {
        let alive = Arc::clone(&live);
        Pool::builder(move || Counted::new(&alive)).capacity_per_node(1)
    };
    let in_reset = builder().reset(|_| panic!("on purpose"));
    let in_recycle = builder().recycle(|_| panic!("on purpose"));
    for pool in [in_reset.build(), in_recycle.build()] {
        for round in 1..4 {
            drop(pool.get());
            assert_eq!(pool.stats().reset_panics, round);
            assert_eq!(live.load(Ordering::SeqCst), 0);
            assert_eq!(pool.stats().outstanding, 0);
        }
    }
}

/// Panics when it is dropped.
struct Angry;

impl Drop for Angry {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
fn objects_that_panic_when_they_are_dropped_leave_the_pool_whole() {
    let pool = Pool::builder(|| Angry)
        .reset(|_| std::panic::panic_any(Angry))
        .capacity_per_node(2)
        .build();
    // Where there are more nodes there is more room.
    for _ in 0..10 {
        drop(pool.get());
    }
    assert_eq!(pool.stats().outstanding, 0);
    let pool = Pool::builder(|| Angry).build();
    drop(pool.get());
    pool.trim();
    assert_eq!(pool.stats().cached, 0);
    drop(pool.get());
    drop(pool);
}

#[test]
fn a_panic_in_the_constructor_goes_to_who_wanted_the_object_and_costs_nothing() {
    let tries = AtomicUsize::new(0);
    let create = move || {
        assert!(tries.fetch_add(1, Ordering::SeqCst) % 2 == 1, "on purpose");
        7
    };
    let pool = Pool::builder(create).capacity_per_node(1).build();
    for _ in 0..3 {
        assert!(catch_unwind(AssertUnwindSafe(|| drop(pool.try_get()))).is_err());
        let stats = pool.stats();
        assert_eq!((stats.outstanding, stats.cached), (0, 0));
        assert_eq!(*pool.get(), 7);
        pool.trim();
    }
    assert_eq!(pool.stats().created, 3);
}

#[test]
fn a_detached_object_leaves_room() {
    let (live, pool) = counted();
    let object = Pooled::detach(pool.get());
    let other = PooledArc::detach(pool.get_owned());
    let stats = pool.stats();
    assert_eq!((stats.outstanding, stats.cached, stats.created), (0, 0, 2));
    drop(pool);
    assert_eq!(live.load(Ordering::SeqCst), 2);
    drop((object, other));
    assert_eq!(live.load(Ordering::SeqCst), 0);
}

#[test]
fn a_forgotten_guard_costs_room_alone() {
    let live = Arc::new(AtomicUsize::new(0));
    let alive = Arc::clone(&live);
    let machine = Topology::synthetic("PU:1").unwrap();
    let pool = Pool::builder(move || Counted::new(&alive))
        .capacity_per_node(2)
        .topology(machine)
        .build();
    std::mem::forget(pool.get());
    pool.trim();
    let other = pool.get();
    assert!(pool.try_get().is_err());
    drop(other);
    assert_eq!((pool.stats().outstanding, pool.stats().cached), (1, 1));
    drop(pool);
    assert_eq!(live.load(Ordering::SeqCst), 1);
}

#[test]
fn an_owned_guard_keeps_its_pool_alive() {
    let (live, pool) = counted();
    let owned = pool.get_owned();
    drop(pool.get());
    drop(pool);
    assert_eq!(live.load(Ordering::SeqCst), 2);
    std::thread::spawn(move || drop(owned)).join().unwrap();
    assert_eq!(live.load(Ordering::SeqCst), 0);
}

#[test]
fn guards_that_outlive_other_handles_and_unwinding_go_back() {
    let (_, pool) = counted();
    let other = pool.clone();
    let held = other.get();
    drop(pool);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _held = other.get();
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    drop(held);
    let stats = other.stats();
    assert_eq!((stats.outstanding, stats.cached), (0, 2));
}

#[test]
fn objects_of_no_size_are_counted_as_any() {
    struct Nothing;
    let pool = Pool::builder(|| Nothing).capacity_per_node(3).build();
    let mut held = Vec::new();
    while let Ok(guard) = pool.try_get() {
        held.push(guard);
    }
    assert_eq!(held.len() % 3, 0);
    let addresses: std::collections::BTreeSet<_> =
        held.iter().map(|held| &raw const **held).collect();
    assert_eq!(addresses.len(), held.len());
    drop(held);
    assert_eq!(pool.stats().outstanding, 0);
}

#[test]
fn objects_of_a_megabyte_are_whole() {
    let pool = Pool::builder(|| [1_u8; 1 << 20]).build();
    let mut held: Vec<_> = (0..4).map(|_| pool.get()).collect();
    for (number, object) in held.iter_mut().enumerate() {
        assert!(object.iter().all(|&byte| byte == 1));
        object.fill(u8::try_from(number).unwrap() + 2);
    }
    for (number, object) in held.iter().enumerate() {
        assert!(object.iter().all(|&byte| usize::from(byte) == number + 2));
    }
    drop(held);
    pool.trim();
    assert_eq!(pool.stats().cached, 0);
}

#[test]
fn objects_lie_as_their_type_wants() {
    #[repr(align(8192))]
    struct Aligned(u8);
    #[repr(align(256))]
    struct Small([u8; 300]);
    let pool = Pool::builder(|| Aligned(1)).build();
    let held: Vec<_> = (0..20).map(|_| pool.get()).collect();
    for object in &held {
        assert_eq!((&raw const **object).addr() % 8192, 0);
        assert_eq!(object.0, 1);
    }
    let pool = Pool::builder(|| Small([2; 300])).build();
    let held: Vec<_> = (0..200).map(|_| pool.get()).collect();
    for object in &held {
        assert_eq!((&raw const **object).addr() % 256, 0);
        assert_eq!(object.0[299], 2);
    }
}

#[test]
fn objects_of_odd_sizes_never_overlap() {
    fn check<const N: usize>() {
        let pool = Pool::builder(|| [0_u8; N]).build();
        for _ in 0..2 {
            let mut held: Vec<_> = (0..500).map(|_| pool.get()).collect();
            for (number, object) in held.iter_mut().enumerate() {
                object.fill(u8::try_from(number % 251).unwrap());
            }
            for (number, object) in held.iter().enumerate() {
                assert!(object.iter().all(|&byte| usize::from(byte) == number % 251));
            }
        }
        pool.trim();
    }
    check::<1>();
    check::<63>();
    check::<65>();
    check::<1000>();
    check::<1024>();
    check::<4097>();
    check::<70_000>();
}

/// Uses the pool that it comes from when it is dropped.
struct Nested(Option<u8>);

static NESTED: OnceLock<Pool<Nested>> = OnceLock::new();

impl Drop for Nested {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|depth| depth > 0) {
            let mut other = NESTED.get().unwrap().get();
            other.0 = None;
            drop(Pooled::detach(other));
        }
    }
}

#[test]
fn objects_may_use_their_own_pool_when_they_are_dropped() {
    watched();
    let pool = NESTED.get_or_init(|| {
        Pool::builder(|| Nested(Some(1)))
            .recycle(|object| match object.0 {
                Some(_) => Recycle::Discard,
                None => Recycle::Keep,
            })
            .build()
    });
    for _ in 0..100 {
        let held: Vec<_> = (0..10).map(|_| pool.get()).collect();
        drop(held);
        pool.trim();
    }
    assert_eq!(pool.stats().outstanding, 0);
}

#[test]
fn constructors_and_resets_may_use_the_pool() {
    watched();
    static POOL: OnceLock<Pool<u32>> = OnceLock::new();
    thread_local! { static DEPTH: Cell<u32> = const { Cell::new(0) }; }
    let pool = POOL.get_or_init(|| {
        Pool::builder(|| {
            let depth = DEPTH.get();
            DEPTH.set(depth + 1);
            let inner = if depth < 5 {
                *POOL.get().unwrap().get()
            } else {
                0
            };
            DEPTH.set(depth);
            inner + 1
        })
        .reset(|_| {
            let depth = DEPTH.get();
            if depth < 2 {
                DEPTH.set(depth + 1);
                drop(POOL.get().unwrap().get());
                DEPTH.set(depth);
            }
        })
        .build()
    });
    let held: Vec<_> = (0..10).map(|_| pool.get()).collect();
    assert!(held.iter().all(|held| **held >= 1));
    drop(held);
    assert_eq!(pool.stats().outstanding, 0);
}
