//! Object pools that stay on their NUMA node, and padded counters.

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

/// Sends home what the current thread has in its hands of other nodes' objects. Whoever runs a worker
/// calls it before the worker sleeps or ends. Costs one thread-local read where there is nothing.
#[cfg(not(reiver_loom))]
#[inline]
pub fn park_hook() {
    local::flush();
}
