//! All atomics and fences of the scheduler, from std or, for the models in `tests/loom_*.rs`, from
//! loom: the same code runs under both.

#[cfg(not(reiver_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(reiver_loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
