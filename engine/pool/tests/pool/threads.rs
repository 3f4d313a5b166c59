//! Threads that come and go, with pools that do.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::thread;

use reiver_pool::{Pool, PooledArc};

use crate::objects::counted;
use crate::watchdog::watched;

#[test]
fn threads_that_end_leave_what_they_cache() {
    let (_, pool) = counted();
    for _ in 0..300 {
        let pool = pool.clone();
        // Joined, for a scope does not wait until threads are gone.
        let thread = thread::spawn(move || {
            let held: Vec<_> = (0..10).map(|_| pool.get()).collect();
            drop(held);
        });
        thread.join().unwrap();
    }
    let stats = pool.stats();
    assert_eq!(
        (stats.outstanding, stats.cached, stats.created),
        (0, 10, 10)
    );
}

#[test]
fn pools_end_while_threads_that_used_them_go_on() {
    watched();
    let (give, take) = std::sync::mpsc::channel::<Pool<crate::objects::Counted>>();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        for pool in take {
            drop(pool.get());
            drop(pool);
            done.send(()).unwrap();
        }
    });
    for _ in 0..200 {
        let (live, pool) = counted();
        give.send(pool.clone()).unwrap();
        is_done.recv().unwrap();
        assert_eq!(live.load(Ordering::SeqCst), 1);
        drop(pool);
        assert_eq!(live.load(Ordering::SeqCst), 0);
    }
    drop(give);
    worker.join().unwrap();
}

#[test]
fn many_pools_work_side_by_side() {
    let pools: Vec<_> = (0..200)
        .map(|number| Pool::builder(move || number).build())
        .collect();
    for _ in 0..5 {
        let held: Vec<_> = pools.iter().map(Pool::get).collect();
        for (number, held) in held.iter().enumerate() {
            assert_eq!(**held, number);
        }
    }
    for pool in &pools {
        assert_eq!(pool.stats().created, 1);
    }
}

#[test]
fn objects_are_got_and_returned_also_when_a_thread_ends() {
    /// Returns what it holds, and uses the pool, when the thread's values are dropped.
    struct Late(
        Option<PooledArc<crate::objects::Counted>>,
        Pool<crate::objects::Counted>,
    );
    impl Drop for Late {
        fn drop(&mut self) {
            drop(self.0.take());
            drop(self.1.get());
        }
    }
    thread_local! {
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }
    let (live, pool) = counted();
    for uses_first in [true, false] {
        let others = pool.clone();
        thread::spawn(move || {
            // Whichever is registered first is dropped last.
            if uses_first {
                drop(others.get());
                LATE.set(Some(Late(Some(others.get_owned()), others)));
            } else {
                LATE.set(None);
                LATE.set(Some(Late(Some(others.get_owned()), others)));
            }
        })
        .join()
        .unwrap();
    }
    let stats = pool.stats();
    assert_eq!(stats.outstanding, 0);
    drop(pool);
    assert_eq!(live.load(Ordering::SeqCst), 0);
}

#[test]
fn trimming_while_others_work_loses_nothing() {
    watched();
    let (live, pool) = counted();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|number| {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..3000 {
                        let held: Vec<_> = (0..(round * 7 + number) % 150)
                            .map(|_| pool.get())
                            .collect();
                        drop(held);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                pool.trim();
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    pool.trim();
    let stats = pool.stats();
    assert_eq!((stats.outstanding, stats.cached), (0, 0));
    assert_eq!(live.load(Ordering::SeqCst), 0);
}

#[test]
fn a_thread_with_a_small_stack_uses_a_pool() {
    let pool = Pool::builder(|| 0_u64).build();
    let small = thread::Builder::new().stack_size(64 << 10);
    let thread = small.spawn(move || drop(pool.get())).unwrap();
    thread.join().unwrap();
}
