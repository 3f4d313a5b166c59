//! Capacity, and who waits for room.

use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use reiver_pool::{Pool, Pooled};
use reiver_topology::Topology;

use crate::objects::Counted;
use crate::watchdog::watched;

/// A pool of one node.
fn small(capacity: usize) -> Pool<u64> {
    Pool::builder(|| 0)
        .capacity_per_node(capacity)
        .topology(Topology::synthetic("PU:4").unwrap())
        .build()
}

#[test]
fn at_capacity_there_is_nothing_to_be_had() {
    for capacity in [1, 2, 3, 64, 65, 1000] {
        let pool = small(capacity);
        let held: Vec<_> = (0..capacity).map(|_| pool.try_get().unwrap()).collect();
        let error = pool.try_get().unwrap_err();
        assert!(error.to_string().contains("capacity_per_node"), "{error}");
        assert_eq!(pool.stats().outstanding, capacity);
        drop(held);
        assert_eq!(pool.stats().cached, capacity);
        assert!(pool.try_get().is_ok());
    }
}

#[test]
fn a_pool_without_room_never_has_anything() {
    let pool = small(0);
    assert!(pool.try_get().is_err());
    let panic = std::panic::catch_unwind(|| drop(pool.get())).unwrap_err();
    let words = panic.downcast_ref::<&str>().unwrap();
    assert!(words.contains("capacity of 0"), "{words}");
}

#[test]
fn what_an_idle_thread_caches_is_not_out_of_reach() {
    watched();
    let pool = small(100);
    let (done, go_on) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let held: Vec<_> = (0..100).map(|_| pool.get()).collect();
            drop(held);
            done.wait();
            // It sleeps on its cache.
            go_on.wait();
            assert!(pool.try_get().is_err());
            go_on.wait();
        });
        done.wait();
        let held: Vec<_> = (0..100)
            .map(|_| pool.try_get().expect("it is idle"))
            .collect();
        assert_eq!(pool.stats().created, 100);
        go_on.wait();
        go_on.wait();
        drop(held);
    });
}

#[test]
fn who_waits_gets_what_an_idle_thread_returned_last() {
    watched();
    let pool = small(1);
    for _ in 0..200 {
        let held = pool.get();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| *pool.get());
            drop(held);
            waiter.join().unwrap();
        });
    }
}

#[test]
fn all_who_wait_get_their_turn() {
    watched();
    let pool = small(2);
    let turns = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let mut held = pool.get();
                    *held += 1;
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(turns.into_inner(), 3000);
    let stats = pool.stats();
    assert_eq!((stats.outstanding, stats.cached as u64), (0, stats.created));
    let (first, second) = (pool.get(), pool.get());
    assert_eq!(*first + *second, 3000);
}

#[test]
fn who_waits_is_served_also_by_what_leaves_the_pool() {
    watched();
    let pool = Pool::builder(|| 1)
        .recycle(|_| reiver_pool::Recycle::Discard)
        .capacity_per_node(1)
        .topology(Topology::synthetic("PU:1").unwrap())
        .build();
    for detaches in [true, false] {
        let held = pool.get();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| *pool.get());
            // Long enough for most runs that it waits by then; it holds in any case.
            thread::sleep(Duration::from_millis(5));
            if detaches {
                assert_eq!(Pooled::detach(held), 1);
            } else {
                drop(held);
            }
            assert_eq!(waiter.join().unwrap(), 1);
        });
    }
}

#[test]
fn never_do_more_objects_live_than_there_may_be() {
    watched();
    let live = Arc::new(AtomicUsize::new(0));
    let alive = Arc::clone(&live);
    let pool = Pool::builder(move || {
        let counted = Counted::new(&alive);
        assert!(alive.load(Ordering::SeqCst) <= 5);
        counted
    })
    .capacity_per_node(5)
    .topology(Topology::synthetic("PU:1").unwrap())
    .build();
    thread::scope(|scope| {
        for number in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..2000 {
                    let held: Vec<_> = (0..number + 1)
                        .filter_map(|_| pool.try_get().ok())
                        .collect();
                    if round % 97 == 0 {
                        pool.trim();
                    }
                    drop(held);
                }
            });
        }
    });
    assert!(pool.stats().cached <= 5);
}

/// What moves from caches to depots while it is counted is in both, or in neither.
#[test]
fn what_is_told_is_never_more_than_there_may_be() {
    const CAPACITY: usize = 8192;
    watched();
    let pool = Pool::builder(|| 0_u64)
        .capacity_per_node(CAPACITY)
        .topology(Topology::synthetic("PU:1").unwrap())
        .build();
    drop((0..CAPACITY).map(|_| pool.get()).collect::<Vec<_>>());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Caches are full when all of them, or few, are back.
            for count in (1..1500).cycle().step_by(7) {
                drop((0..count).map(|_| pool.get()).collect::<Vec<_>>());
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let told = (0..200_000).map(|_| pool.stats());
        let most = told.map(|stats| stats.outstanding + stats.cached).max();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(most, Some(CAPACITY));
    });
}

#[test]
fn as_many_threads_as_objects_never_find_the_pool_exhausted() {
    watched();
    let pool = small(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5000 {
                    drop(pool.try_get().expect("one of four is free all the time"));
                }
            });
        }
    });
}

/// In spans in which the thread never stood still for long, whatever else the machine did.
#[test]
fn what_is_used_in_each_epoch_stays_cached() {
    const EPOCH: Duration = Duration::from_millis(200);
    watched();
    let pool = Pool::builder(|| 0_u64).epoch(EPOCH).build();
    let (mut begun, mut last) = (Instant::now(), Instant::now());
    let mut created = 0;
    while begun.elapsed() < 4 * EPOCH {
        drop(pool.get());
        let now = Instant::now();
        if now - last > EPOCH / 4 {
            (begun, created) = (now, pool.stats().created);
        }
        last = now;
        created = created.max(1);
        assert_eq!(pool.stats().created, created);
        thread::sleep(Duration::from_millis(5));
    }
}

/// The thread that ends epochs may come late: here somebody else's destructor holds it up.
#[test]
fn two_epochs_of_a_pool_do_not_end_at_once() {
    const EPOCH: Duration = Duration::from_millis(300);
    watched();
    let (begun, begins) = mpsc::channel();
    let may_end = Arc::new(Barrier::new(2));
    let (is_first, end) = (Arc::default(), Arc::clone(&may_end));
    let slow = Pool::builder(move || Slow {
        begun: begun.clone(),
        may_end: Arc::clone(&end),
        is_first: Arc::clone(&is_first),
    });
    // The first of them reads the machine; the epochs of these two end together.
    drop(small(1));
    let used = Pool::builder(|| 0_u64).epoch(EPOCH);
    let (slow, used) = (slow.epoch(EPOCH).build(), used.build());
    drop(slow.get());
    while begins.try_recv().is_err() {
        drop(used.get());
        thread::sleep(Duration::from_millis(1));
    }
    // By now another epoch would have ended.
    thread::sleep(2 * EPOCH);
    drop(used.get());
    let (last, created) = (Instant::now(), used.stats().created);
    may_end.wait();
    // Until that of the other pool has, for which its object is idle.
    while slow.stats().cached > 0 || last.elapsed() < EPOCH / 3 {
        thread::sleep(Duration::from_millis(1));
    }
    drop(used.get());
    let is_in_time = last.elapsed() < EPOCH;
    assert!(used.stats().created == created || !is_in_time);
}

#[test]
fn idle_objects_age_and_those_in_use_do_not() {
    watched();
    let live = Arc::new(AtomicUsize::new(0));
    let alive = Arc::clone(&live);
    let pool = Pool::builder(move || Counted::new(&alive))
        .epoch(Duration::from_millis(20))
        .build();
    let held: Vec<_> = (0..500).map(|_| pool.get()).collect();
    let (mut lent, used): (Vec<_>, Vec<_>) = held
        .into_iter()
        .enumerate()
        .partition(|(at, _)| at % 100 == 0);
    drop(used);
    // Until all that is idle is gone, in the caches too; the last one counts until its destructor has ended.
    let left = || {
        let stats = pool.stats();
        (stats.outstanding, stats.cached)
    };
    while left() != (lent.len(), 0) {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(live.load(Ordering::SeqCst), lent.len());
    lent.clear();
}

/// Its destructor says that it has begun, and ends when it may.
struct Slow {
    begun: mpsc::Sender<()>,
    may_end: Arc<Barrier>,
    is_first: Arc<AtomicUsize>,
}

impl Drop for Slow {
    fn drop(&mut self) {
        if self.is_first.fetch_add(1, Ordering::SeqCst) == 0 {
            self.begun.send(()).unwrap();
            self.may_end.wait();
        }
    }
}

/// While the first of a full pool's idle objects is being dropped, all others are to be had, and no more;
/// when it is gone, so is its place.
fn dropped_one_at_a_time(epoch: Duration, drop_idle: impl FnOnce(&Pool<Slow>) + Send) {
    const CAPACITY: usize = 150;
    watched();
    let (begun, begins) = mpsc::channel();
    let may_end = Arc::new(Barrier::new(2));
    let is_first = Arc::default();
    let end = Arc::clone(&may_end);
    let pool = Pool::builder(move || Slow {
        begun: begun.clone(),
        may_end: Arc::clone(&end),
        is_first: Arc::clone(&is_first),
    })
    .capacity_per_node(CAPACITY)
    .topology(Topology::synthetic("PU:1").unwrap())
    .epoch(epoch)
    .build();
    let held: Vec<_> = (0..CAPACITY).map(|_| pool.get()).collect();
    drop(held);
    thread::scope(|scope| {
        let dropping = scope.spawn(|| drop_idle(&pool));
        begins.recv().unwrap();
        let mut held: Vec<_> = (1..CAPACITY)
            .map(|_| pool.try_get().expect("it is not the one being dropped"))
            .collect();
        assert!(pool.try_get().is_err());
        assert_eq!(pool.stats().outstanding, CAPACITY);
        let waiter = scope.spawn(|| drop(pool.get()));
        may_end.wait();
        waiter.join().unwrap();
        held.push(pool.get());
        dropping.join().unwrap();
    });
}

#[test]
fn who_trims_leaves_all_but_what_it_is_dropping_to_others() {
    dropped_one_at_a_time(Duration::MAX, Pool::trim);
}

#[test]
fn who_ages_leaves_all_but_what_it_is_dropping_to_others() {
    dropped_one_at_a_time(Duration::from_millis(20), |_| ());
}

#[test]
fn a_producer_and_a_consumer_share_few_objects() {
    watched();
    let pool = small(usize::MAX);
    thread::scope(|scope| {
        let (give, take) = mpsc::sync_channel::<Pooled<'_, u64>>(16);
        scope.spawn(move || take.into_iter().for_each(drop));
        for number in 0..100_000 {
            let mut held = pool.get();
            *held = number;
            give.send(held).unwrap();
        }
    });
    let stats = pool.stats();
    assert_eq!(stats.outstanding, 0);
    assert!(stats.created < 2000, "{stats:?}");
}
