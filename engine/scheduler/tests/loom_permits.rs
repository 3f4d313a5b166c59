//! Permits, in every interleaving: no two have the same one, and nobody waits for one that is free.
#![cfg(reiver_loom)]

#[path = "stand_ins/parker.rs"]
mod parker;

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::cell::UnsafeCell;
use loom::thread;
use parker::Parker;
use reiver::model::{Permits, fails_without};

struct Wakes(Parker);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Shared {
    permits: Arc<Permits>,
    /// Written under the only permit.
    written: UnsafeCell<u32>,
}

// SAFETY: loom watches the cell.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn new(permits: usize) -> Arc<Shared> {
        Arc::new(Shared {
            permits: Arc::new(Permits::new(permits)),
            written: UnsafeCell::new(0),
        })
    }

    fn write(&self) {
        // SAFETY: loom watches it.
        self.written.with_mut(|written| unsafe { *written += 1 });
    }

    fn give(&self, permits: usize) {
        if self.permits.give(permits) {
            self.permits.wake_first();
        }
    }

    /// Waits until it has so many.
    fn take(&self, permits: usize) {
        let wakes = Arc::new(Wakes(Parker::new()));
        let waker = Waker::from(Arc::clone(&wakes));
        // Where the model fails its threads unwind, and may not lock any more. Who has what it waited for
        // has left the list already.
        let mut waiter = ManuallyDrop::new(self.permits.waiter());
        while !waiter.poll(permits, &waker) {
            wakes.0.park();
        }
    }
}

fn one_permit_for_two() {
    loom::model(|| {
        let shared = Shared::new(1);
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                if shared.permits.try_take(1) {
                    shared.write();
                    shared.give(1);
                }
            })
        };
        if shared.permits.try_take(1) {
            shared.write();
            shared.give(1);
        }
        other.join().unwrap();
        assert_eq!(shared.permits.free(), 1);
    });
}

#[test]
fn two_never_have_the_same_permit() {
    one_permit_for_two();
}

fn one_that_waits() {
    loom::model(|| {
        let shared = Shared::new(1);
        assert!(shared.permits.try_take(1));
        let waits = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.take(1))
        };
        shared.give(1);
        waits.join().unwrap();
        assert_eq!(shared.permits.free(), 0);
    });
}

#[test]
fn who_waits_is_woken_by_who_gives() {
    one_that_waits();
}

/// Two give a half each of what one waits for.
#[test]
fn a_heavy_one_is_woken_by_the_last_of_those_who_give() {
    let mut model = loom::model::Builder::new();
    // All of it takes minutes.
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Shared::new(2);
        assert!(shared.permits.try_take(2));
        let gives = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.give(1))
        };
        let waits = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.take(2))
        };
        shared.give(1);
        gives.join().unwrap();
        waits.join().unwrap();
    });
}

/// What is given may be told to the one that goes.
#[test]
fn one_that_goes_away_leaves_what_was_given_to_the_next() {
    let mut model = loom::model::Builder::new();
    // All of it takes minutes.
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Shared::new(1);
        assert!(shared.permits.try_take(1));
        let waits = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.take(1))
        };
        let goes = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let waker = Waker::from(Arc::new(Wakes(Parker::new())));
                if shared.permits.waiter().poll(1, &waker) {
                    shared.give(1);
                }
            })
        };
        shared.give(1);
        goes.join().unwrap();
        waits.join().unwrap();
    });
}

#[test]
fn who_gives_has_to_release() {
    fails_without("permits given", one_permit_for_two);
}

#[test]
fn who_takes_has_to_acquire() {
    fails_without("permits taken", one_permit_for_two);
}

#[test]
fn who_gives_needs_its_fence() {
    fails_without("permits give fence", one_that_waits);
}

#[test]
fn who_waits_needs_its_fence() {
    fails_without("permits wait fence", one_that_waits);
}
