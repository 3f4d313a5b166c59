//! What a thread knows of its own place: the node it works for, and which worker it is.
//!
//! Whoever starts a worker writes it, as the worker's first act; pools and schedulers read it. A
//! thread that nobody placed has none.

use std::cell::Cell;

use crate::NodeId;

/// The place of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here {
    /// The node it works for.
    pub node: NodeId,
    /// Its number among the workers of its engine, from 0.
    pub worker: usize,
}

thread_local! {
    static HERE: Cell<Option<Here>> = const { Cell::new(None) };
}

/// Says where the current thread is; `None` takes it back.
pub fn set(here: Option<Here>) {
    HERE.set(here);
}

/// Where the current thread is, if somebody said so. Costs one thread-local read.
pub fn get() -> Option<Here> {
    HERE.get()
}
