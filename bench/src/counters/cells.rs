//! Counters that several threads add to, ours and what one would write instead.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use reiver_pool::counter::PaddedCounter;

use crate::case::{Outcome, Task};
use crate::crew::{self, On, Pace};

/// A counter.
pub(super) trait Tally: Sync + 'static {
    fn start(threads: usize) -> Self;

    /// By the thread of this number.
    fn add(&self, thread: usize, value: u64);

    fn sum(&self) -> u64;
}

/// A padded cell a thread, which it finds by itself.
pub(super) struct Ours(PaddedCounter);

impl Tally for Ours {
    fn start(_: usize) -> Ours {
        Ours(PaddedCounter::new())
    }

    #[inline]
    fn add(&self, _: usize, value: u64) {
        self.0.add(value);
    }

    fn sum(&self) -> u64 {
        self.0.sum()
    }
}

/// One word for all, added to by an atomic read-modify-write.
pub(super) struct OneWord(AtomicU64);

impl Tally for OneWord {
    fn start(_: usize) -> OneWord {
        OneWord(AtomicU64::new(0))
    }

    #[inline]
    fn add(&self, _: usize, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn sum(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A word a thread, side by side: several on a line. The thread finds its own by itself, too.
pub(super) struct Packed(Vec<AtomicU64>);

impl Tally for Packed {
    fn start(threads: usize) -> Packed {
        Packed((0..threads).map(|_| AtomicU64::new(0)).collect())
    }

    #[inline]
    fn add(&self, thread: usize, value: u64) {
        if NUMBER.get() == usize::MAX {
            NUMBER.set(thread);
        }
        owned_add(&self.0[NUMBER.get()], value);
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }
}

/// A word a thread, each on lines of its own; the thread is told which.
pub(super) struct Padded(Vec<CachePadded<AtomicU64>>);

impl Tally for Padded {
    fn start(threads: usize) -> Padded {
        Padded((0..threads).map(|_| CachePadded::default()).collect())
    }

    #[inline]
    fn add(&self, thread: usize, value: u64) {
        owned_add(&self.0[thread], value);
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }
}

/// Nobody else writes to the cell, so that a load and a store will do.
#[inline]
fn owned_add(cell: &AtomicU64, value: u64) {
    // ORDERING: relaxed: nothing but the number is passed on.
    let sum = cell.load(Ordering::Relaxed).wrapping_add(value);
    cell.store(sum, Ordering::Relaxed);
}

/// Additions by threads that no engine knows.
pub(super) fn adds<T: Tally>(task: &Task) -> Outcome {
    measure::<T>(task, On::Threads)
}

/// Additions by workers of an engine.
pub(super) fn adds_on_workers<T: Tally>(task: &Task) -> Outcome {
    measure::<T>(task, On::Workers)
}

/// So many additions are one round.
const ROUND: u64 = 64;

pub(super) fn measure<T: Tally>(task: &Task, on: On) -> Outcome {
    let tally = T::start(task.threads);
    let added = AtomicU64::new(0);
    let pace = Pace {
        operations: ROUND,
        idle: Duration::ZERO,
    };
    let samples = crew::measure(task, on, pace, |thread| {
        let (tally, added) = (&tally, &added);
        move |rounds| {
            the_additions(tally, thread, rounds * ROUND);
            added.fetch_add(rounds * ROUND, Ordering::Relaxed);
        }
    })?;
    assert_eq!(
        tally.sum(),
        added.load(Ordering::Relaxed),
        "all are counted"
    );
    Ok(samples)
}

#[inline(never)]
fn the_additions<T: Tally>(tally: &T, thread: usize, count: u64) {
    for _ in 0..count {
        tally.add(thread, black_box(1));
    }
}
