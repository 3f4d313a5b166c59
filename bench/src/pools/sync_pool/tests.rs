use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use super::SyncPool;

/// More than tests have threads at once.
const WORKERS: usize = 256;

/// Objects that know which one they are, and who count what is alive of them.
struct Counted {
    number: usize,
    alive: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

fn pool() -> (SyncPool<Counted>, Arc<AtomicUsize>) {
    let alive = Arc::new(AtomicUsize::new(0));
    let (made, count) = (AtomicUsize::new(0), Arc::clone(&alive));
    let pool = SyncPool::new(WORKERS, move || {
        count.fetch_add(1, Ordering::Relaxed);
        Counted {
            number: made.fetch_add(1, Ordering::Relaxed),
            alive: Arc::clone(&count),
        }
    });
    (pool, alive)
}

/// Takes so many at once, and gives them back.
fn take(pool: &SyncPool<Counted>, many: usize) -> BTreeSet<usize> {
    let lent: Vec<_> = (0..many).map(|_| pool.get()).collect();
    let numbers: BTreeSet<usize> = lent.iter().map(|lent| lent.number).collect();
    assert_eq!(numbers.len(), many, "one object was lent twice at once");
    numbers
}

#[test]
fn what_was_given_back_is_lent_again() {
    let (pool, alive) = pool();
    let first = take(&pool, 100);
    assert_eq!(take(&pool, 100), first);
    assert_eq!(alive.load(Ordering::Relaxed), 100);
    drop(pool);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn the_private_one_comes_first_and_then_the_last_that_was_shared() {
    let (pool, _) = pool();
    let mut lent: Vec<_> = (0..4).map(|_| pool.get()).collect();
    // 0 is private, 1 to 3 are shared in this order.
    lent.drain(..).for_each(drop);
    let order: Vec<_> = (0..4).map(|_| pool.get()).collect();
    let order: Vec<usize> = order.iter().map(|lent| lent.number).collect();
    assert_eq!(order, [0, 3, 2, 1]);
}

#[test]
fn another_thread_steals_the_oldest_but_never_the_private_one() {
    let (pool, alive) = pool();
    take(&pool, 4);
    thread::scope(|scope| {
        let stolen = scope.spawn(|| {
            let lent: Vec<_> = (0..4).map(|_| pool.get()).collect();
            lent.iter().map(|lent| lent.number).collect::<Vec<_>>()
        });
        assert_eq!(stolen.join().expect("they are lent"), [1, 2, 3, 4]);
    });
    assert_eq!(alive.load(Ordering::Relaxed), 5);
}

#[test]
fn victims_come_back_until_the_second_collection() {
    let (pool, alive) = pool();
    let first = take(&pool, 20);
    pool.collect();
    assert_eq!(take(&pool, 20), first, "one collection only ages them");
    assert_eq!(alive.load(Ordering::Relaxed), 20);
    pool.collect();
    pool.collect();
    let later = take(&pool, 20);
    assert!(first.is_disjoint(&later), "two collections drop them");
    assert_eq!(alive.load(Ordering::Relaxed), 20);
}

#[test]
fn victims_are_stolen_too_and_only_those_in_use_survive() {
    let (pool, alive) = pool();
    let first = take(&pool, 10);
    pool.collect();
    let used = thread::scope(|scope| {
        let thief = scope.spawn(|| take(&pool, 3));
        thief.join().expect("they are lent")
    });
    assert!(used.is_subset(&first));
    pool.collect();
    // What nobody used is gone once its worker comes by; what the thief used is its victims now.
    drop(pool.get());
    let alive = alive.load(Ordering::Relaxed);
    assert!((1..=4).contains(&alive), "{alive} are alive");
}

#[test]
fn a_worker_that_never_comes_back_loses_all_but_its_private_one() {
    let (pool, alive) = pool();
    thread::scope(|scope| {
        scope
            .spawn(|| take(&pool, 50))
            .join()
            .expect("they are lent");
    });
    pool.collect();
    pool.collect();
    let left = alive.load(Ordering::Relaxed);
    assert!(left <= 1, "{left} are alive");
}

#[test]
fn a_thread_beyond_the_workers_keeps_nothing() {
    let alive = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&alive);
    let pool = SyncPool::new(0, move || {
        count.fetch_add(1, Ordering::Relaxed);
        Counted {
            number: 0,
            alive: Arc::clone(&count),
        }
    });
    drop(pool.get());
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn nothing_is_lent_twice_or_lost_while_all_steal_and_collect() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 2_000;
    let (pool, alive) = pool();
    let start = Barrier::new(THREADS);
    let out: Vec<AtomicUsize> = (0..THREADS * ROUNDS * 40)
        .map(|_| AtomicUsize::new(0))
        .collect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pool, start, out) = (&pool, &start, &out);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let lent: Vec<_> = (0..(round * 7 + thread) % 40).map(|_| pool.get()).collect();
                    for lent in &lent {
                        assert_eq!(out[lent.number].fetch_add(1, Ordering::Relaxed), 0);
                    }
                    for lent in &lent {
                        out[lent.number].fetch_sub(1, Ordering::Relaxed);
                    }
                    drop(lent);
                    if round % 64 == 0 {
                        pool.collect();
                    }
                }
            });
        }
    });
    assert!(alive.load(Ordering::Relaxed) > 0);
    drop(pool);
    assert_eq!(alive.load(Ordering::Relaxed), 0, "some were lost");
}
