//! What a pool tells of itself.

/// Numbers of a pool, from [`Pool::stats`](crate::Pool::stats). Exact while nobody gets or returns
/// anything; in between they may be off by what is being moved. In use and cached are together never more than
/// there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Objects in use. Those whose guard was forgotten count for as long as the pool lives, those that
    /// were detached no longer.
    pub outstanding: usize,
    /// Objects that nobody uses, wherever they are: also in the caches of other threads, from which they
    /// are taken when there are no others.
    pub cached: usize,
    /// How many objects were ever made.
    pub created: u64,
    /// How often `reset` or `recycle` has panicked; the object was dropped then.
    pub reset_panics: u64,
    /// How many objects were returned by a thread at another node than their own.
    pub remote_returns: u64,
}

/// All objects that a pool may have are in use, or the system has no memory for another one. There is no more
/// to it, so a pattern may name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "all objects that the pool may have are in use: return some first, give it a larger \
     capacity_per_node, or wait for one with get()"
)]
pub struct Exhausted;
