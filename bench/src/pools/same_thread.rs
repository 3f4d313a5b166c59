//! A thread takes some objects, writes to them, and gives them back in the order in which it took them.
//!
//! An operation is all of that for one object. How many are out at once, and how much of each is written
//! to, is known to the compiler, so that nothing but the pool is paid for.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::Duration;

use super::lender::{Lender, Objects};
use super::memory::{Memory, Touch, touch};
use crate::case::{Outcome, Task};
use crate::crew::{self, On, Pace};

pub(super) const NOTHING: u8 = 0;
pub(super) const LINE: u8 = 1;
pub(super) const ALL: u8 = 2;
pub(super) const PAGES: u8 = 3;

/// Types can be told numbers only.
pub(super) const fn named(touch: u8) -> Touch {
    match touch {
        NOTHING => Touch::Nothing,
        LINE => Touch::Line,
        ALL => Touch::All,
        _ => Touch::Pages,
    }
}

fn without_idling<const DEPTH: usize>() -> Pace {
    Pace {
        operations: DEPTH as u64,
        idle: Duration::ZERO,
    }
}

/// From threads that no engine knows.
pub(super) fn same<L: Lender, const DEPTH: usize, const TOUCH: u8>(task: &Task) -> Outcome {
    measure::<L, DEPTH, TOUCH>(task, On::Threads, without_idling::<DEPTH>())
}

/// From the workers of an engine.
pub(super) fn on_workers<L: Lender, const DEPTH: usize, const TOUCH: u8>(task: &Task) -> Outcome {
    measure::<L, DEPTH, TOUCH>(task, On::Workers, without_idling::<DEPTH>())
}

/// Long enough for whoever ages what is idle to come by, if it does so that soon.
pub(super) const IDLE: Duration = Duration::from_millis(1);

/// Nothing happens between one sample and the next.
pub(super) fn burst<L: Lender, const DEPTH: usize, const TOUCH: u8>(task: &Task) -> Outcome {
    measure::<L, DEPTH, TOUCH>(task, On::Threads, bursts::<DEPTH>())
}

/// As `burst`, from the workers of an engine.
pub(super) fn burst_on_workers<L: Lender, const DEPTH: usize, const TOUCH: u8>(
    task: &Task,
) -> Outcome {
    measure::<L, DEPTH, TOUCH>(task, On::Workers, bursts::<DEPTH>())
}

fn bursts<const DEPTH: usize>() -> Pace {
    Pace {
        idle: IDLE,
        ..without_idling::<DEPTH>()
    }
}

fn measure<L: Lender, const DEPTH: usize, const TOUCH: u8>(
    task: &Task,
    on: On,
    pace: Pace,
) -> Outcome {
    // One more is out all the time, as others are in any program: an allocator whose last object of a
    // size comes back may give up its page for it, and take another one for the next.
    let lender = L::start(task.threads, task.threads * (DEPTH + 1));
    let lender = &lender;
    crew::measure(task, on, pace, |_| {
        let kept = lender.lend();
        let mut out = Vec::with_capacity(DEPTH);
        move |rounds| {
            black_box(&kept);
            the_rounds::<L, DEPTH, TOUCH>(lender, &mut out, rounds);
        }
    })
}

/// What is timed. A function of its own, to be found by whoever looks at what the compiler made of it.
#[inline(never)]
fn the_rounds<'l, L: Lender, const DEPTH: usize, const TOUCH: u8>(
    lender: &'l L,
    out: &mut Vec<L::Lent<'l>>,
    rounds: u64,
) {
    for _ in 0..rounds {
        if DEPTH == 1 {
            let mut lent = lender.lend();
            touch(L::bytes(&mut lent), named(TOUCH));
            continue;
        }
        for _ in 0..DEPTH {
            let mut lent = lender.lend();
            touch(L::bytes(&mut lent), named(TOUCH));
            out.push(lent);
        }
        out.clear();
    }
}

/// The same loop over objects that a thread has anyway: the floor.
pub(super) fn held<O: Objects, const DEPTH: usize, const TOUCH: u8>(task: &Task) -> Outcome {
    hold::<O, DEPTH, TOUCH>(task, without_idling::<DEPTH>())
}

/// The floor of `burst`.
pub(super) fn burst_held<O: Objects, const DEPTH: usize, const TOUCH: u8>(task: &Task) -> Outcome {
    hold::<O, DEPTH, TOUCH>(task, bursts::<DEPTH>())
}

/// An object on lines of its own, as ours are: to clear 1 KiB that begins within a line takes 1.6 times as long.
#[repr(align(64))]
struct OnLines<M>(M);

fn hold<O: Objects, const DEPTH: usize, const TOUCH: u8>(task: &Task, pace: Pace) -> Outcome {
    crew::measure(task, On::Threads, pace, |_| {
        let mut objects: Vec<_> = (0..DEPTH).map(|_| OnLines(O::fresh())).collect();
        let mut out = Vec::with_capacity(DEPTH);
        move |rounds| the_rounds_without::<O, DEPTH, TOUCH>(&mut objects, &mut out, rounds)
    })
}

/// Puts each object where the other loop would, and takes it out again.
#[inline(never)]
fn the_rounds_without<O: Objects, const DEPTH: usize, const TOUCH: u8>(
    objects: &mut [OnLines<O::Memory>],
    out: &mut Vec<*mut MaybeUninit<u8>>,
    rounds: u64,
) {
    for _ in 0..rounds {
        for OnLines(object) in objects.iter_mut() {
            touch(object.bytes(), named(TOUCH));
            O::reset(object);
            if DEPTH > 1 {
                out.push(object.bytes().as_mut_ptr());
            } else {
                black_box(object.bytes().as_mut_ptr());
            }
        }
        out.iter().for_each(|object| {
            black_box(object);
        });
        out.clear();
    }
}
