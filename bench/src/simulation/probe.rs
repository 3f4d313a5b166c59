//! What things cost on this machine: a few small measurements, as costs for the simulation.
//!
//! Each is a median, with both CPUs at work where the engine would have them at work.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::costs::{Constant, Costs};
use crate::stats;

/// Work that takes some nanoseconds an iteration and cannot be shortened.
pub(super) fn work(iterations: u64) {
    let mut value = iterations | 1;
    for _ in 0..iterations {
        value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(5);
    }
    black_box(value);
}

/// The costs of this machine, for what the engine does on one node.
pub(super) fn costs() -> Costs {
    let [call, turn] = wake_ns();
    Costs::published()
        .with(Constant::LineNear, line_ns())
        .with(Constant::WakeCall, call)
        .with(Constant::WakeTurn, turn)
        .with(Constant::Kernel, each_ns(1000, thread::yield_now))
        .with(Constant::Spin, each_ns(1000, spin_loop))
}

fn median_of(times: usize, mut measure: impl FnMut() -> f64) -> f64 {
    let values: Vec<f64> = (0..times).map(|_| measure()).collect();
    stats::median(&values).expect("it is measured at least once")
}

fn ns(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e9
}

fn each_ns(times: u32, mut what: impl FnMut()) -> f64 {
    median_of(21, || {
        let start = Instant::now();
        (0..times).for_each(|_| what());
        ns(start) / f64::from(times)
    })
}

/// What an iteration of [`work`] takes while so many threads do it: the slowest of them.
pub(super) fn iteration_ns(threads: usize) -> f64 {
    const ITERATIONS: u64 = 50_000;
    let start = Barrier::new(threads);
    let measure = || {
        start.wait();
        median_of(5, || {
            let start = Instant::now();
            work(black_box(ITERATIONS));
            ns(start) / ITERATIONS as f64
        })
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(measure)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.fold(0.0_f64, |most, ns| most.max(ns.expect("it only counts")))
    })
}

/// Knows whether so many CPUs are free just now: others share this machine.
#[derive(Debug)]
pub(super) struct Quiet {
    threads: usize,
    best_ns: f64,
}

impl Quiet {
    /// Slower by more than this than at best, and somebody else is at work.
    const MOST: f64 = 1.05;

    pub(super) fn of(threads: usize) -> Quiet {
        let times = (0..50).map(|_| iteration_ns(threads));
        Quiet {
            threads,
            best_ns: times.fold(f64::INFINITY, f64::min),
        }
    }

    /// What an iteration takes while nobody else is at work.
    pub(super) fn iteration_ns(&self) -> f64 {
        self.best_ns
    }

    fn is_so(&self) -> bool {
        iteration_ns(self.threads) <= Quiet::MOST * self.best_ns
    }

    /// What `measure` gives where the CPUs were free just before and just after; it goes on until the
    /// time is over or there is enough. Whether it is kept does not depend on what it gave.
    pub(super) fn measure(&self, within: Duration, mut measure: impl FnMut() -> f64) -> Vec<f64> {
        const ENOUGH: usize = 200;
        let mut kept = Vec::new();
        let begun = Instant::now();
        let mut was_quiet = self.is_so();
        while begun.elapsed() < within && kept.len() < ENOUGH {
            let measured = measure();
            let is_quiet = self.is_so();
            if was_quiet && is_quiet {
                kept.push(measured);
            }
            was_quiet = is_quiet;
        }
        kept
    }
}

/// A line that goes to and fro between two threads: one way, the median of all turns, for a mean would
/// be what the kernel does to one of the two now and then.
fn line_ns() -> f64 {
    const TURNS: u64 = 20_000;
    let word = CachePadded::new(AtomicU64::new(0));
    // ORDERING: relaxed: the word is all that is passed on.
    let wait_for = |value: u64| {
        while word.load(Ordering::Relaxed) != value {
            spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..TURNS {
                wait_for(2 * turn + 1);
                word.store(2 * turn + 2, Ordering::Relaxed);
            }
        });
        let turn = |turn| {
            let start = Instant::now();
            word.store(2 * turn + 1, Ordering::Relaxed);
            wait_for(2 * turn + 2);
            ns(start) / 2.0
        };
        let turns: Vec<f64> = (0..TURNS).map(turn).collect();
        stats::median(&turns).expect("there were some")
    })
}

/// What an unpark takes whoever calls it, and from its call until the other runs.
fn wake_ns() -> [f64; 2] {
    const PAUSE: Duration = Duration::from_micros(300);
    let (say, woke) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        loop {
            thread::park();
            if say.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    let mut calls = Vec::new();
    let turn = median_of(101, || {
        thread::sleep(PAUSE);
        let start = Instant::now();
        sleeper.thread().unpark();
        calls.push(ns(start));
        let woke = woke.recv().expect("it says so");
        woke.saturating_duration_since(start).as_secs_f64() * 1e9
    });
    drop(woke);
    sleeper.thread().unpark();
    [stats::median(&calls).expect("it was called"), turn]
}
