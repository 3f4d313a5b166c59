//! Who owns a job and who watches it, in every interleaving: the value is dropped once, by the last
//! owner, who has seen what the others did; the memory is freed once, by the last of all.
//!
//! Loom watches the allocations, so what is freed twice or never fails a model.
#![cfg(reiver_loom)]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use reiver::model::{Left, Ref, State, Watch, fails_without};

/// Something that one thread at a time may touch, and that says when it is gone.
struct Value {
    memory: UnsafeCell<u8>,
    dropped: Arc<AtomicUsize>,
}

// SAFETY: loom says where two use it at once.
unsafe impl Sync for Value {}
// SAFETY: as above.
unsafe impl Send for Value {}

impl Value {
    fn read(&self) -> u8 {
        // SAFETY: loom checks that nobody writes it.
        self.memory.with(|memory| unsafe { *memory })
    }

    fn write(&self, value: u8) {
        // SAFETY: loom checks that nobody else uses it.
        self.memory.with_mut(|memory| unsafe { *memory = value });
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // Loom cannot be asked while a model fails.
        if !std::thread::panicking() {
            self.write(2);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn two_owners(is_watchable: bool) -> (Ref<Value>, Ref<Value>, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let value = Value {
        memory: UnsafeCell::new(1),
        dropped: Arc::clone(&dropped),
    };
    let (one, other) = Ref::pair(value, is_watchable);
    (one, other, dropped)
}

/// Both look at the value, and go at once.
fn two_go(is_watchable: bool) {
    loom::model(move || {
        let (one, other, dropped) = two_owners(is_watchable);
        let there = thread::spawn(move || assert_eq!(other.read(), 1));
        assert_eq!(one.read(), 1);
        drop(one);
        there.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn the_last_of_two_owners_drops_the_value() {
    two_go(false);
    two_go(true);
}

#[test]
fn owners_release_and_the_last_acquires() {
    fails_without("ref drop", || two_go(true));
    fails_without("ref last", || two_go(true));
    fails_without("ref alone", || two_go(false));
}

/// Of owners that were made together one goes elsewhere, and one is never asked for.
fn many_go() {
    loom::model(|| {
        let (one, other, dropped) = two_owners(true);
        let mut many = Ref::many(&one, 2);
        drop(one);
        let first = many.next().expect("there are two");
        let there = thread::spawn(move || assert_eq!(first.read(), 1));
        drop(many);
        assert_eq!(other.read(), 1);
        drop(other);
        there.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn owners_made_together_go_one_by_one() {
    many_go();
    fails_without("ref drop", many_go);
}

/// One watches while the owners go: it gets the whole value, or nothing.
fn one_watches() {
    loom::model(|| {
        let (one, other, dropped) = two_owners(true);
        let watch = Ref::watched(&one);
        let owner = thread::spawn(move || drop(other));
        let watcher = thread::spawn(move || {
            let upgraded = watch.upgrade();
            if let Some(value) = upgraded {
                assert_eq!(value.read(), 1);
            }
        });
        drop(one);
        owner.join().unwrap();
        watcher.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn who_watches_owns_it_or_finds_it_gone() {
    one_watches();
}

/// The memory outlives whoever watches, and goes once.
fn a_watch_outlives_the_value() {
    loom::model(|| {
        let (one, other, dropped) = two_owners(true);
        drop(other);
        let watch: Watch<Value> = Ref::watched(&one);
        let watcher = thread::spawn(move || {
            watch.is_alive();
        });
        drop(one);
        watcher.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn the_memory_goes_with_the_last_that_watches() {
    a_watch_outlives_the_value();
}

#[test]
fn who_watches_releases_and_the_last_acquires() {
    fails_without("watch drop", a_watch_outlives_the_value);
    fails_without("watch last", a_watch_outlives_the_value);
}

struct Job {
    state: State,
    outcome: Value,
    left: Left<u8>,
}

/// A worker runs a job, without atomic operations where it finds itself alone, while somebody who has a
/// handle takes the outcome if it is there, or leaves word, or neither, and goes.
fn a_worker_may_be_alone(takes: bool) {
    loom::model(move || {
        let dropped = Arc::new(AtomicUsize::new(0));
        let job = Job {
            state: State::queued(),
            outcome: Value {
                memory: UnsafeCell::new(0),
                dropped: Arc::clone(&dropped),
            },
            left: Left::nothing(),
        };
        let (queued, handle) = Ref::pair(job, false);
        let worker = thread::spawn(move || {
            let is_claimed = match Ref::is_alone(&queued) {
                true => queued.state.claim_alone(),
                false => queued.state.claim(),
            };
            if !is_claimed {
                return false;
            }
            queued.outcome.write(1);
            if Ref::is_alone(&queued) {
                queued.state.end_alone();
                return true;
            }
            if queued.state.end() {
                assert_eq!(queued.left.take(), Some(7));
            }
            true
        });
        let mut cancelled = false;
        if takes {
            if handle.state.is_ended() || handle.left.leave(7).is_some() || handle.state.wait() {
                assert!(handle.state.take());
                assert_eq!(handle.outcome.read(), 1);
            }
        } else {
            cancelled = handle.state.claim();
        }
        drop(handle);
        assert_ne!(worker.join().unwrap(), cancelled, "one of them has it");
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_worker_that_is_alone_with_a_job_shares_it_with_nobody() {
    a_worker_may_be_alone(true);
    a_worker_may_be_alone(false);
}

/// Two that leave something, and one of them takes what is there.
fn something_is_left() {
    loom::model(|| {
        let left = Arc::new(Left::nothing());
        let one = Arc::clone(&left);
        let one = thread::spawn(move || {
            let cell = UnsafeCell::new(1_u8);
            // SAFETY: it is this thread's alone.
            cell.with_mut(|cell| unsafe { *cell = 2 });
            one.leave(cell).is_some()
        });
        let found = left.take();
        let is_found = found.is_some();
        if let Some(cell) = found {
            // SAFETY: loom checks that nobody writes it.
            assert_eq!(cell.with(|cell| unsafe { *cell }), 2);
        }
        assert!(!one.join().unwrap());
        assert_eq!(left.take().is_some(), !is_found);
    });
}

#[test]
fn what_is_left_is_seen_whole_by_one() {
    something_is_left();
    fails_without("left leave", something_is_left);
    fails_without("left take", something_is_left);
}
