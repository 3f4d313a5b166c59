//! Object pools that stay on their NUMA node, and padded counters.
//!
//! A [`Pool`] keeps objects that are expensive to make, or to allocate, for the next use. Each thread has
//! a cache of its own, so that getting and returning one costs a few nanoseconds and no lock; each node
//! has a depot of what its threads have too much of. Objects lie in memory of their node, and whoever
//! returns one elsewhere sends it home. How many there may be is bounded, and what nobody uses goes back to
//! the system by itself. A [`BufferPool`] is the same for bytes.
//!
//! ```
//! use reiver_pool::Pool;
//!
//! let pool = Pool::builder(|| Vec::<u8>::with_capacity(4096))
//!     .reset(Vec::clear)
//!     .capacity_per_node(1000)
//!     .build();
//! {
//!     let mut line = pool.get();
//!     line.extend(b"some bytes");
//! } // It goes back here, is cleared, and keeps its memory.
//! assert!(pool.get().capacity() >= 4096);
//! assert_eq!(pool.stats().created, 1);
//! ```
//!
//! The crate starts one thread, while there are pools, which ends their epochs. How objects move, and why
//! nothing is lost, is told in `src/protocol/README.md`; what was tried, in `NOTES.md`.
//!
//! A child of `fork` that does not `exec` has the pools as they were, but only the thread that forked. If no other
//! thread was using a pool just then, it gets and returns there as before, and takes what threads cached that the
//! child does not have; what those had in use stays out for ever, and nothing ages. Where another thread had a
//! lock of the pool at that moment, or one of the process (that of the numbers of threads, for those that first
//! use a pool or end; that of the pools that age, for new ones), the child waits for it for ever: a process with
//! threads has its children `exec`, as `fork(2)` says.
//!
//! After "Magazines and Vmem: Extending the Slab Allocator to Many CPUs and Arbitrary Resources" (Bonwick,
//! Adams, 2001).

#[cfg(not(reiver_loom))]
mod age;
#[cfg(not(reiver_loom))]
mod buffers;
#[cfg(not(reiver_loom))]
pub mod counter;
#[cfg(not(reiver_loom))]
mod local;
#[cfg(not(reiver_loom))]
mod places;
#[cfg(not(reiver_loom))]
mod pool;
#[cfg_attr(
    not(reiver_loom),
    expect(unreachable_pub, reason = "the models reach it")
)]
mod protocol;
#[cfg(not(reiver_loom))]
mod shared;
#[cfg(not(reiver_loom))]
mod slab;
#[cfg(not(reiver_loom))]
mod stats;

#[cfg(not(reiver_loom))]
pub use {
    buffers::{Buffer, BufferPool},
    pool::{Pool, PoolBuilder, Pooled, PooledArc, Recycle},
    stats::{Exhausted, PoolStats},
};

// For the scheduler, whose protocols are made of the same. No part of what this crate promises.
#[doc(hidden)]
pub use protocol::{barrier, sync};

/// Sends home what the current thread has in its hands of other nodes' objects. Whoever runs a worker
/// calls it before the worker sleeps or ends. Costs one thread-local read where there is nothing.
#[cfg(not(reiver_loom))]
#[inline]
pub fn park_hook() {
    local::flush();
}

/// Leaves what the current thread has cached to others. Whoever moves a thread to another node calls it
/// between the thread's tasks: what it uses from then on is that node's. Costs a lock for each pool that
/// it has used.
#[cfg(not(reiver_loom))]
pub fn move_hook() {
    local::leave();
}

/// What the models in `tests/loom_*.rs` are about.
#[cfg(reiver_loom)]
#[doc(hidden)]
pub mod model {
    pub use crate::protocol::barrier::heavy;
    pub use crate::protocol::depot::{Depot, Load, MOST};
    pub use crate::protocol::stack::{Object, Stack};
    pub use crate::protocol::store::{Cache, Counts, Got, Node, Store};
    pub use crate::protocol::sync::weak::{fails_without, refused, refused_late};
}
