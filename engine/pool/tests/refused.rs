//! The kernel refuses its barrier after it has promised it: a filter for system calls comes late.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use reiver_pool::Pool;
use reiver_topology::Topology;

#[path = "pool/refusal.rs"]
mod refusal;
#[path = "pool/watchdog.rs"]
mod watchdog;

/// Knows whether somebody uses it.
#[derive(Default)]
struct Thing(AtomicBool);

#[test]
fn objects_have_one_user_when_the_barrier_is_refused_late() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 20_000;
    watchdog::watched();
    let pool = Pool::builder(Thing::default)
        .capacity_per_node(THREADS - 1)
        .topology(Topology::synthetic("PU:1").unwrap())
        .build();
    let refused = AtomicBool::new(false);
    let (half, done) = (Barrier::new(THREADS), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (pool, half, done, refused) = (&pool, &half, &done, &refused);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    if round == ROUNDS / 2 {
                        half.wait();
                        // The others go on, and rob each other, as the filter comes.
                        if number == 0 {
                            refused.store(refusal::refuse_the_barrier(), Ordering::SeqCst);
                        }
                    }
                    let thing = match round % 3 {
                        0 => pool.get(),
                        _ => match pool.try_get() {
                            Ok(thing) => thing,
                            Err(_) => continue,
                        },
                    };
                    assert!(!thing.0.swap(true, Ordering::Relaxed), "two have it");
                    std::hint::spin_loop();
                    assert!(thing.0.swap(false, Ordering::Relaxed), "two had it");
                    drop(thing);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(done.into_inner() > 0);
    let all: Vec<_> = (1..THREADS)
        .map(|_| pool.try_get().expect("nothing is in use"))
        .collect();
    assert!(pool.try_get().is_err());
    drop(all);
    pool.trim();
    assert_eq!(pool.stats().cached, 0);
    if !refused.into_inner() {
        println!("skipped in part: no filter for system calls may be set here");
    }
}
