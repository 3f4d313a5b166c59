//! Who looks after jobs, in every interleaving: it never rests while there is one.
#![cfg(reiver_loom)]

#[path = "stand_ins/parker.rs"]
mod parker;

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use parker::Parker;
use reiver::model::{Doze, fails_without};

struct Shared {
    doze: Doze,
    jobs: AtomicUsize,
    parker: Parker,
}

fn jobs_beside_a_rest(bringers: usize) {
    let mut model = loom::model::Builder::new();
    // All of it takes minutes where there are two.
    model.preemption_bound = (bringers > 1).then_some(3);
    model.check(move || {
        let shared = Arc::new(Shared {
            doze: Doze::default(),
            jobs: AtomicUsize::new(0),
            parker: Parker::new(),
        });
        let bringers: Vec<_> = (0..bringers)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.jobs.fetch_add(1, Ordering::Relaxed);
                    if shared.doze.must_wake() {
                        shared.parker.unpark();
                    }
                })
            })
            .collect();
        let is_idle = || shared.jobs.load(Ordering::Relaxed) == 0;
        while is_idle() {
            if shared.doze.may_rest(is_idle) {
                // A lost job is a deadlock.
                shared.parker.park();
            }
        }
        bringers
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn who_rests_is_woken_for_a_job() {
    jobs_beside_a_rest(1);
    jobs_beside_a_rest(2);
}

/// By one that may be stopped, and so leaves it to others as well.
fn a_job_of_one_that_may_be_stopped(bringers: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = (bringers > 1).then_some(3);
    model.check(move || {
        let shared = Arc::new(Shared {
            doze: Doze::resting(),
            jobs: AtomicUsize::new(0),
            parker: Parker::new(),
        });
        let bringers: Vec<_> = (0..bringers)
            .map(|number| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.jobs.fetch_add(1, Ordering::Relaxed);
                    let wakes = match number {
                        0 => shared.doze.rests(),
                        _ => shared.doze.must_wake(),
                    };
                    if wakes {
                        shared.parker.unpark();
                    }
                })
            })
            .collect();
        // It rests already. A lost job is a deadlock.
        loop {
            shared.parker.park();
            shared.doze.wakes();
            if !shared
                .doze
                .may_rest(|| shared.jobs.load(Ordering::Relaxed) == 0)
            {
                break;
            }
        }
        bringers
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn who_rests_is_woken_by_one_that_may_be_stopped() {
    a_job_of_one_that_may_be_stopped(1);
    a_job_of_one_that_may_be_stopped(2);
}

#[test]
fn who_rests_needs_its_fence() {
    fails_without("doze rest fence", || jobs_beside_a_rest(1));
}

#[test]
fn who_brings_a_job_needs_its_fence() {
    fails_without("doze wake fence", || jobs_beside_a_rest(1));
}
