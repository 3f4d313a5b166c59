//! The real `sync.Pool`: a program in Go (`bench/go/sync_pool.go`) that does the loops of this suite.

use super::lender::Objects;
use super::memory::{Memory, Touch};
use super::same_thread::{self, named};
use crate::case::{Outcome, Task};
use crate::outside;

/// The loop of `same_thread.rs`.
pub(super) fn same<O: Objects, const DEPTH: usize, const TOUCH: u8>(task: &Task) -> Outcome {
    loops::<O>(task, "same", DEPTH, name(named(TOUCH)), 0)
}

/// As `same`, with pauses.
pub(super) fn burst<O: Objects, const DEPTH: usize, const TOUCH: u8>(task: &Task) -> Outcome {
    let idle_us = same_thread::IDLE.as_micros();
    loops::<O>(task, "same", DEPTH, name(named(TOUCH)), idle_us)
}

/// With the constructor of [`super::memory::Costly`]; a line is touched.
pub(super) fn costly<O: Objects, const DEPTH: usize, const TOUCH: u8>(task: &Task) -> Outcome {
    loops::<O>(task, "same", DEPTH, "costly", 0)
}

/// The loop of `handover.rs`.
pub(super) fn handover<O: Objects>(task: &Task) -> Outcome {
    loops::<O>(task, "handover", 1, "line", 0)
}

fn name(touch: Touch) -> &'static str {
    match touch {
        Touch::Nothing => "nothing",
        Touch::Line => "line",
        Touch::All => "all",
        Touch::Pages => "pages",
    }
}

fn loops<O: Objects>(task: &Task, name: &str, depth: usize, touch: &str, idle_us: u128) -> Outcome {
    let args = [
        name.to_owned(),
        O::Memory::BYTES.to_string(),
        depth.to_string(),
        touch.to_owned(),
        O::ZEROED.to_string(),
        task.threads.to_string(),
        task.short_budget().as_millis().max(1).to_string(),
        idle_us.to_string(),
    ];
    outside::go(task, &args)
}
