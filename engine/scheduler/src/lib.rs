//! A work-stealing parallel job engine that knows the machine's NUMA nodes.

mod class;

pub use class::{Class, Priority};
