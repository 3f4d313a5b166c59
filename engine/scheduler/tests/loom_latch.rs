//! Latches in every interleaving: no waiter sleeps on, what was done is visible, and nobody touches a
//! latch that its waiter has freed.
//!
//! The memory of a latch is really freed by its waiter. What a latch keeps of its waiter is watched by
//! loom, so whoever still read it then would fail the model;
//! `who_asks_a_latch_that_is_set_whom_to_wake_is_caught` shows that.
#![cfg(reiver_loom)]

#[path = "stand_ins/parker.rs"]
mod parker;

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};
use parker::Parker;
use reiver::model::{Latch, Waits, fails_without};

/// Memory that loom watches: read while it is in use, written when it is freed.
struct Memory(UnsafeCell<()>);

impl Memory {
    fn new() -> Memory {
        Memory(UnsafeCell::new(()))
    }

    fn touch(&self) {
        self.0.with(|_| ());
    }

    fn free(&self) {
        self.0.with_mut(|_| ());
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A second panic would end the process.
        if !std::thread::panicking() {
            self.free();
        }
    }
}

struct Waiter {
    parker: Arc<Parker>,
    memory: Memory,
}

impl Waits for Waiter {
    fn wake_later(&self) -> impl FnOnce() + use<> {
        self.memory.touch();
        let parker = Arc::clone(&self.parker);
        move || parker.unpark()
    }
}

/// As a fork that lies in the frame of who waits for it.
struct Fork {
    result: UnsafeCell<u32>,
    latch: Latch<Waiter>,
}

#[derive(Clone, Copy)]
struct Pointer(*const Fork);

// SAFETY: what loom watches.
unsafe impl Send for Pointer {}

impl Pointer {
    fn new(parker: &Arc<Parker>) -> Pointer {
        let (parker, memory) = (Arc::clone(parker), Memory::new());
        let fork = Fork {
            result: UnsafeCell::new(0),
            latch: Latch::new(Waiter { parker, memory }),
        };
        Pointer(Box::into_raw(Box::new(fork)))
    }

    fn execute(self) {
        // SAFETY: alive until the latch is set.
        let fork = unsafe { &*self.0 };
        // SAFETY: loom watches it.
        fork.result.with_mut(|result| unsafe { *result = 7 });
        // SAFETY: a place in it; the last use.
        unsafe { Latch::set(&raw const (*self.0).latch) };
    }

    fn executed_elsewhere(self) -> JoinHandle<()> {
        thread::spawn(move || self.execute())
    }

    /// Waits for it, frees it and gives its result.
    fn wait(self, parker: &Parker) -> u32 {
        // SAFETY: this is what frees it.
        while !unsafe { &*self.0 }.latch.is_set() {
            parker.park();
        }
        // SAFETY: it was made so, and whoever executed it does not touch it any more.
        let fork = unsafe { Box::from_raw(self.0.cast_mut()) };
        // SAFETY: loom watches it.
        fork.result.with(|result| unsafe { *result })
    }
}

fn one_fork() {
    loom::model(|| {
        let parker = Arc::new(Parker::new());
        let fork = Pointer::new(&parker);
        let thief = fork.executed_elsewhere();
        assert_eq!(fork.wait(&parker), 7);
        thief.join().unwrap();
    });
}

/// Nor does its waiter sleep on, or whoever sets it touch it once it is freed.
#[test]
fn what_a_fork_has_given_is_visible_once_its_latch_is_set() {
    one_fork();
}

/// Joins within each other have a latch each and one worker that waits, whose parker has one token.
#[test]
fn a_wake_for_the_outer_join_is_not_lost_to_the_inner() {
    loom::model(|| {
        let parker = Arc::new(Parker::new());
        let (outer, inner) = (Pointer::new(&parker), Pointer::new(&parker));
        let thieves = [outer.executed_elsewhere(), inner.executed_elsewhere()];
        assert_eq!(inner.wait(&parker), 7);
        assert_eq!(outer.wait(&parker), 7);
        thieves.into_iter().for_each(|thief| thief.join().unwrap());
    });
}

/// Rayon's issue 739, in a latch that is not ours: the models above can tell.
#[test]
fn who_asks_a_latch_that_is_set_whom_to_wake_is_caught() {
    let broken = || {
        loom::model(|| {
            let latch = loom::sync::Arc::new((AtomicBool::new(false), Memory::new()));
            let setter = {
                let latch = loom::sync::Arc::clone(&latch);
                thread::spawn(move || {
                    latch.0.store(true, Ordering::Release);
                    latch.1.touch();
                })
            };
            if latch.0.load(Ordering::Acquire) {
                latch.1.free();
            }
            setter.join().unwrap();
        });
    };
    assert!(std::panic::catch_unwind(broken).is_err());
}

#[test]
fn who_sets_a_latch_has_to_release() {
    fails_without("latch set", one_fork);
}

#[test]
fn who_sees_a_latch_set_has_to_acquire() {
    fails_without("latch is set", one_fork);
}
