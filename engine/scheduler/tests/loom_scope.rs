//! The count of a scope in every interleaving: the scope is over once all has ended and not before,
//! its owner is woken then, sees what was done, and nobody touches what it frees.
//!
//! The memory of the count is really freed by the owner. What else a scope is made of is a cell that
//! loom watches: read by whoever makes a wake ready, written when the owner frees it.
#![cfg(reiver_loom)]

#[path = "stand_ins/parker.rs"]
mod parker;

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};
use parker::Parker;
use reiver::model::{Count, fails_without};

/// What lies in the frame of the owner.
struct Scope {
    count: Count,
    parker: Arc<Parker>,
    memory: UnsafeCell<()>,
    /// What is spawned writes here.
    done: [UnsafeCell<u32>; 3],
    /// A fork that lies where the owner finds it.
    offered: AtomicBool,
}

impl Drop for Scope {
    fn drop(&mut self) {
        // A second panic would end the process.
        if !std::thread::panicking() {
            self.memory.with_mut(|_| ());
        }
    }
}

#[derive(Clone, Copy)]
struct Pointer(*const Scope);

// SAFETY: what loom watches.
unsafe impl Send for Pointer {}

impl Pointer {
    /// A scope on which its owner has spawned so many.
    fn new(begun: usize) -> Pointer {
        let scope = Scope {
            count: Count::new(),
            parker: Arc::new(Parker::new()),
            memory: UnsafeCell::new(()),
            done: std::array::from_fn(|_| UnsafeCell::new(0)),
            offered: AtomicBool::new(false),
        };
        for _ in 0..begun {
            // SAFETY: this is the owner.
            unsafe { scope.count.begin_own() };
        }
        Pointer(Box::into_raw(Box::new(scope)))
    }

    /// For who is counted, or the owner.
    fn scope(&self) -> &Scope {
        // SAFETY: alive until all has ended.
        unsafe { &*self.0 }
    }

    fn run(self, spawned: usize) {
        // SAFETY: loom watches it.
        self.scope().done[spawned].with_mut(|done| unsafe { *done += 1 });
    }

    /// Another thread has ended so many.
    fn end(self, ended: usize) {
        let ready = || {
            let scope = self.scope();
            scope.memory.with(|_| ());
            let parker = Arc::clone(&scope.parker);
            move || parker.unpark()
        };
        // SAFETY: a place in the scope.
        let count = unsafe { &raw const (*self.0).count };
        // SAFETY: what is to end is counted; the last use.
        unsafe { Count::end(count, ended, ready) };
    }

    fn ended_elsewhere(self, spawned: std::ops::Range<usize>) -> JoinHandle<()> {
        thread::spawn(move || {
            let ended = spawned.len();
            spawned.for_each(|spawned| self.run(spawned));
            self.end(ended);
        })
    }

    /// The owner runs what it finds, waits for the rest, frees the scope and gives what was done.
    fn wait(self) -> [u32; 3] {
        let scope = self.scope();
        loop {
            // SAFETY: this is the owner.
            if unsafe { scope.count.fold() } {
                break;
            }
            if scope.offered.swap(false, Ordering::AcqRel) {
                self.run(2);
                // SAFETY: this is the owner.
                unsafe { scope.count.end_own(1) };
            } else {
                scope.parker.park();
            }
        }
        // SAFETY: it was made so, and nobody touches it any more.
        let scope = unsafe { Box::from_raw(self.0.cast_mut()) };
        // SAFETY: loom watches it.
        std::array::from_fn(|spawned| scope.done[spawned].with(|done| unsafe { *done }))
    }
}

fn two_others() {
    loom::model(|| {
        let scope = Pointer::new(2);
        let others = [scope.ended_elsewhere(0..1), scope.ended_elsewhere(1..2)];
        assert_eq!(scope.wait(), [1, 1, 0]);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// Nor is it freed while the one before the last still ends.
#[test]
fn a_scope_is_over_when_all_have_ended_and_shows_what_they_did() {
    two_others();
}

/// One of them makes the shared part zero while the owner has ended, but not moved, its own.
#[test]
fn a_fold_beside_an_end_loses_no_wake() {
    loom::model(|| {
        let scope = Pointer::new(2);
        let other = scope.ended_elsewhere(0..1);
        scope.run(1);
        // SAFETY: this is the owner.
        unsafe { scope.scope().count.end_own(1) };
        assert_eq!(scope.wait(), [1, 1, 0]);
        other.join().unwrap();
    });
}

/// Bundles are counted as one step.
#[test]
fn ends_of_several_at_once_wake_the_owner_once_all_are_over() {
    loom::model(|| {
        let scope = Pointer::new(3);
        let others = [scope.ended_elsewhere(0..2), scope.ended_elsewhere(2..3)];
        assert_eq!(scope.wait(), [1, 1, 1]);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// What is spawned spawns in turn: it is counted before what it is spawned in ends.
#[test]
fn what_others_spawn_is_waited_for() {
    loom::model(|| {
        let scope = Pointer::new(1);
        let other = thread::spawn(move || {
            scope.scope().count.begin();
            let spawned = scope.ended_elsewhere(1..2);
            scope.run(0);
            scope.end(1);
            spawned.join().unwrap();
        });
        assert_eq!(scope.wait(), [1, 1, 0]);
        other.join().unwrap();
    });
}

/// What others have spawned the owner ends, after it has moved its part: its own goes below zero, and
/// whoever ends last does not know.
#[test]
fn an_owner_that_ends_what_others_began_does_not_wait_for_itself() {
    let mut builder = Builder::new();
    // All of it takes a minute.
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let scope = Pointer::new(1);
        let other = thread::spawn(move || {
            scope.scope().count.begin();
            // Loom lets an exchange miss a mere store.
            scope.scope().offered.swap(true, Ordering::AcqRel);
            scope.scope().parker.unpark();
            scope.run(0);
            scope.end(1);
        });
        assert_eq!(scope.wait(), [1, 0, 1]);
        other.join().unwrap();
    });
}

#[test]
fn who_ends_has_to_release() {
    fails_without("count end", two_others);
}

#[test]
fn the_owner_has_to_acquire() {
    fails_without("count is zero", two_others);
}
