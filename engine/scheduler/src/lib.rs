//! A work-stealing parallel job engine that knows the machine's NUMA nodes.
//!
//! Work is done near its data, and stolen from the nearest neighbour first. An [`Engine`] has
//! workers grouped by node; they run
//! - forks: [`join`] and [`scope`] borrow freely and return when all is done; [`par_for`] and its like
//!   split ranges by them, each node's part on that node, where [`numa_vec`] has laid the data;
//! - jobs: closures with a [`Class`], a [`Priority`], a deadline and a [`CancellationToken`], whose
//!   [`JobHandle`] is waited for or awaited. Jobs that block run on threads of their own; a
//!   [`batch`](Engine::batch) makes one of each of many inputs.
//!
//! ```
//! use reiver::{Class, Engine, Priority};
//!
//! let engine = Engine::builder().build()?;
//! let urgent = engine.job().priority(Priority::P0).submit(|_| 1 + 1)?;
//! let file = engine.job().class(Class::Io).submit(|_| std::fs::read("/proc/self/stat"))?;
//! let (left, right) = engine.join(|| 3, || 4);
//! assert_eq!((urgent.join()?, left, right), (2, 3, 4));
//! assert!(!file.join()??.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The engine never spins while it has nothing to do, never runs a job of class Io on a computing worker
//! (but where its submitter is one and is [to run it](WhenFull::CallerRuns)), and moves no memory but that of a
//! [`numa_vec`](Engine::numa_vec).

#[cfg(not(reiver_loom))]
mod admission;
#[cfg(not(reiver_loom))]
mod affinity;
#[cfg(not(reiver_loom))]
mod ageing;
#[cfg(all(feature = "tokio", not(reiver_loom)))]
mod asyncs;
#[cfg(not(reiver_loom))]
mod auto;
#[cfg(not(reiver_loom))]
mod batch;
#[cfg(not(reiver_loom))]
mod breaker;
#[cfg(not(reiver_loom))]
mod builder;
#[cfg(not(reiver_loom))]
mod cell;
mod class;
#[cfg(not(reiver_loom))]
mod clock;
#[cfg(not(reiver_loom))]
mod cpu_time;
#[cfg(not(reiver_loom))]
mod crew;
#[cfg(not(reiver_loom))]
mod current;
#[cfg(not(reiver_loom))]
mod engine;
#[cfg(not(reiver_loom))]
mod error;
#[cfg(not(reiver_loom))]
mod fork;
#[cfg(not(reiver_loom))]
mod histogram;
#[cfg(not(reiver_loom))]
mod hybrid;
#[cfg(not(reiver_loom))]
mod io;
#[cfg(not(reiver_loom))]
mod job;
#[cfg(not(reiver_loom))]
pub mod limit;
#[cfg(not(reiver_loom))]
mod machine;
#[cfg(not(reiver_loom))]
mod many;
#[cfg(not(reiver_loom))]
mod memory;
#[cfg(not(reiver_loom))]
mod metrics;
#[cfg(not(reiver_loom))]
mod numa_vec;
#[cfg(not(reiver_loom))]
mod orders;
#[cfg(not(reiver_loom))]
mod panics;
#[cfg(not(reiver_loom))]
mod parallel;
#[cfg(not(reiver_loom))]
mod parker;
#[cfg(all(feature = "metrics", not(reiver_loom)))]
mod prometheus;
#[cfg_attr(
    not(reiver_loom),
    expect(unreachable_pub, reason = "the models reach it")
)]
mod protocol;
#[cfg(not(reiver_loom))]
mod queues;
#[cfg(all(feature = "rayon", not(reiver_loom)))]
pub mod rayon;
#[cfg(not(reiver_loom))]
mod room;
#[cfg(not(reiver_loom))]
mod running;
#[cfg(not(reiver_loom))]
mod schedule;
#[cfg(not(reiver_loom))]
mod scope;
#[cfg(not(reiver_loom))]
mod shared;
#[cfg(not(reiver_loom))]
mod slot;
#[cfg(not(reiver_loom))]
mod spares;
#[cfg(not(reiver_loom))]
mod spawner;
pub mod steal_order;
#[cfg(not(reiver_loom))]
mod sweep;
#[cfg(not(reiver_loom))]
mod threads;
#[cfg(not(reiver_loom))]
mod timer;
#[cfg(not(reiver_loom))]
mod token;
#[cfg(all(feature = "tracing", not(reiver_loom)))]
mod trace;
#[cfg(not(reiver_loom))]
mod watchdog;
#[cfg(not(reiver_loom))]
mod worker;

pub use class::{Class, Priority};
pub use reiver_topology::{NodeId, Topology, TopologyError};

#[cfg(not(reiver_loom))]
pub use {
    auto::Placed,
    batch::{Batch, BatchError, BatchRun, TryBatchRun},
    breaker::{Breaker, BreakerMetrics, BreakerState},
    builder::{EngineBuilder, Pinning},
    engine::{Engine, ShutdownReport},
    error::{BuildError, Interrupted, JobError, PanicPayload, Phase, SubmitError},
    fork::join,
    histogram::Histogram,
    job::{JobBuilder, JobContext, JobHandle},
    metrics::{HybridThreads, JobCounts, Metrics, Rejections, Steals},
    numa_vec::numa_vec,
    parallel::{par_chunks_mut, par_for, par_for_ranges, par_map_reduce, par_reduce},
    room::WhenFull,
    running::RunningJob,
    scope::{Scope, scope},
    token::CancellationToken,
};

#[cfg(all(feature = "metrics", not(reiver_loom)))]
pub use prometheus::EngineCollector;

/// Object pools that stay on their node, and buffers from them.
#[cfg(not(reiver_loom))]
pub mod pool {
    pub use reiver_pool::{
        Buffer, BufferPool, Exhausted, Pool, PoolBuilder, PoolStats, Pooled, PooledArc, Recycle,
    };
}

/// Counters that many threads add to at once.
#[cfg(not(reiver_loom))]
pub mod counter {
    pub use reiver_pool::counter::PaddedCounter;
}

/// What the models in `tests/loom_*.rs` are about.
#[cfg(reiver_loom)]
#[doc(hidden)]
pub mod model {
    pub use crate::protocol::arena::Arena;
    pub use crate::protocol::away::Away;
    pub use crate::protocol::count::Count;
    pub use crate::protocol::doze::Doze;
    pub use crate::protocol::drain::Drain;
    pub use crate::protocol::hand_over::{HandOver, Mover};
    pub use crate::protocol::holding::Holding;
    pub use crate::protocol::latch::{Latch, Waits};
    pub use crate::protocol::left::Left;
    pub use crate::protocol::muster::Muster;
    pub use crate::protocol::notice::Notice;
    pub use crate::protocol::permits::Permits;
    pub use crate::protocol::private::{PrivateList, Robber};
    pub use crate::protocol::refs::{Ref, Watch};
    pub use crate::protocol::resting::Resting;
    pub use crate::protocol::shown::Shown;
    pub use crate::protocol::sleep::{Demand, Sleep, Sleepers};
    pub use crate::protocol::state::State;
    pub use crate::protocol::stop::Stop;
    pub use crate::protocol::sync::weak::{fails_without, refused, without};
}
