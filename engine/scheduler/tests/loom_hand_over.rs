//! Work for threads that the kernel may stop, in every interleaving: what is put on a list is taken once
//! and seen whole, one at a time moves it, and nobody sleeps beside what another has moved.
#![cfg(reiver_loom)]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use reiver::model::Sleep::Idle;
use reiver::model::{HandOver, Mover, Sleepers, fails_without};

/// Memory that loom watches.
#[derive(Default)]
struct Memory(UnsafeCell<usize>);

// SAFETY: loom says where two use it at once.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

impl Memory {
    fn write(&self, value: usize) {
        // SAFETY: loom checks that nobody else uses it.
        self.0.with_mut(|memory| unsafe { *memory = value });
    }

    fn read(&self) -> usize {
        // SAFETY: loom checks that nobody writes it.
        self.0.with(|memory| unsafe { *memory })
    }
}

#[derive(Default)]
struct List {
    list: HandOver<usize>,
    memory: [Memory; 3],
}

/// Two put, one of them twice, and one takes meanwhile.
fn puts_and_takes() {
    loom::model(|| {
        let list = Arc::new(List::default());
        let put = |values: &'static [usize]| {
            let list = Arc::clone(&list);
            thread::spawn(move || {
                for &value in values {
                    list.memory[value].write(value + 1);
                    list.list.put(value);
                }
            })
        };
        let putters = [put(&[0, 1]), put(&[2])];
        let mut taken = list.list.take_all();
        while taken.is_empty() {
            thread::yield_now();
            taken = list.list.take_all();
        }
        for &value in &taken {
            assert_eq!(list.memory[value].read(), value + 1);
        }
        putters.map(|putter| putter.join().unwrap());
        taken.extend(list.list.take_all());
        let place = |value| taken.iter().position(|&taken| taken == value);
        assert!(place(0) < place(1), "the oldest comes first");
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
    });
}

#[test]
fn what_is_put_is_taken_once_in_order_and_seen_whole() {
    puts_and_takes();
}

#[test]
fn a_list_needs_its_release_and_its_acquire() {
    fails_without("hand over put", puts_and_takes);
    fails_without("hand over take", puts_and_takes);
}

fn two_movers() {
    loom::model(|| {
        let moved = Arc::new((Mover::default(), Memory::default()));
        let add = |moved: &(Mover, Memory)| {
            let added = moved.0.alone(|| moved.1.write(moved.1.read() + 1));
            usize::from(added.is_some())
        };
        let other = {
            let moved = Arc::clone(&moved);
            thread::spawn(move || add(&moved))
        };
        let own = add(&moved);
        let all = own + other.join().unwrap();
        assert_eq!(moved.1.read(), all);
        assert!(all > 0);
    });
}

#[test]
fn one_at_a_time_moves() {
    two_movers();
}

#[test]
fn a_mover_needs_its_release_and_its_acquire() {
    fails_without("mover take", two_movers);
    fails_without("mover give", two_movers);
}

/// Does what `queues.rs` and `worker/` do around it. Where things are moved to is a count that only the
/// fences order.
struct Crew {
    brought: HandOver<()>,
    mover: Mover,
    moved: AtomicUsize,
    sleepers: Sleepers,
    unparked: [AtomicBool; 2],
    /// False to show that a model fails then.
    wakes: bool,
}

impl Crew {
    fn wake_one(&self) {
        if let Some(worker) = self.sleepers.claim_for_any(std::iter::once(0)) {
            self.unparked[worker].swap(true, Ordering::SeqCst);
        }
    }

    fn take_moved(&self) -> bool {
        let took = |held: usize| held.checked_sub(1);
        let taken = self
            .moved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, took);
        taken.is_ok()
    }

    fn find(&self) -> bool {
        if self.take_moved() {
            return true;
        }
        if self.brought.is_empty() {
            return false;
        }
        let found = self.mover.alone(|| {
            let all = self.brought.take_all().len();
            self.moved
                .fetch_add(all.saturating_sub(1), Ordering::Relaxed);
            all > 0
        });
        let found = found.unwrap_or(false);
        if found && self.wakes {
            self.wake_one();
        }
        found
    }

    /// True if it has found something, and works to the end of the model.
    fn work(&self, worker: usize) -> bool {
        let bit = self.sleepers.bit(0, worker);
        self.sleepers.seek(Idle);
        self.sleepers.announce(bit, Idle);
        let found = self.find();
        if found {
            self.sleepers.retract(bit, Idle);
            self.sleepers.leave(Idle);
        }
        found
    }

    fn is_some_left(&self) -> bool {
        !self.brought.is_empty() || self.moved.load(Ordering::SeqCst) > 0
    }
}

fn one_moves_while_another_goes_to_sleep(wakes: bool) {
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let crew = Arc::new(Crew {
            brought: HandOver::default(),
            mover: Mover::default(),
            moved: AtomicUsize::new(0),
            sleepers: Sleepers::new(vec![vec![0, 1]], false),
            unparked: [AtomicBool::new(false), AtomicBool::new(false)],
            wakes,
        });
        crew.brought.put(());
        crew.brought.put(());
        let sleeper = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || crew.work(1))
        };
        // One that is between two tasks, and passes nothing on.
        crew.find();
        let found = sleeper.join().unwrap();
        let is_asleep = !found && !crew.unparked[1].load(Ordering::SeqCst);
        assert!(!(crew.is_some_left() && is_asleep));
    });
}

/// Both are there; one takes both into its hands and keeps one, the other looks meanwhile.
#[test]
fn nobody_sleeps_beside_what_another_has_moved() {
    one_moves_while_another_goes_to_sleep(true);
}

#[test]
#[should_panic]
fn who_has_moved_has_to_wake() {
    one_moves_while_another_goes_to_sleep(false);
}
