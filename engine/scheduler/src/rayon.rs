//! Plain rayon pools, one for each node: for programs that are written with rayon's iterators and
//! want each part of their data worked on where it lies. Engines of this crate are not involved.
//!
//! A thread inherits its CPUs and its memory policy from its creator. So for each node a thread of its
//! own first goes to that node, and then creates those of the pool, whose stacks are there from the
//! first byte; rayon's own `spawn_handler` is what it does that by.

use std::io;
use std::thread::{self, Builder};

use ::rayon::{ThreadBuilder, ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use reiver_topology::here::{self, Here};
use reiver_topology::{NodeId, Topology, TopologyError, place};

/// Why there are no pools.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodePoolsError {
    /// The machine could not be read.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The system refuses the thread that creates a pool.
    #[error("the system gave no thread to create the pool of node {node} ({source})")]
    Thread {
        /// The node.
        node: NodeId,
        /// The system's reason.
        source: io::Error,
    },
    /// A pool could not be built; the most likely reason is that the system refuses threads.
    #[error("there is no pool for node {node}: {source}; the limit of threads may be too low")]
    Pool {
        /// The node.
        node: NodeId,
        /// Rayon's reason.
        source: ThreadPoolBuildError,
    },
}

/// A rayon pool for each node of this machine that has CPUs which this process may use, ascending.
///
/// Together they have [`Topology::worker_count`] threads, spread over the nodes by their cores. Each
/// thread is confined to the CPUs of its node and prefers its memory; where the kernel refuses either,
/// that is logged once and done without. [`here`] says on a thread which node it is on.
///
/// What runs in a pool stays in it: rayon steals within a pool alone.
///
/// # Errors
/// [`NodePoolsError`]; pools that were made by then are ended again.
///
/// ```
/// use rayon::prelude::*;
///
/// let pools = reiver::rayon::node_pools()?;
/// let sums: Vec<u64> = pools
///     .iter()
///     .map(|(_, pool)| pool.install(|| (0..1000_u64).into_par_iter().sum()))
///     .collect();
/// assert!(sums.iter().all(|&sum| sum == 499_500));
/// # Ok::<(), reiver::rayon::NodePoolsError>(())
/// ```
pub fn node_pools() -> Result<Vec<(NodeId, ThreadPool)>, NodePoolsError> {
    node_pools_of(&Topology::detect()?)
}

/// As [`node_pools`], for the nodes of `machine`. Where that is only described, its pools have as many
/// threads as its nodes have CPUs, and nothing is confined or placed.
///
/// # Errors
/// As there.
///
/// ```
/// use reiver::{NodeId, Topology};
///
/// let machine = Topology::synthetic("NUMANode:2 Core:3 PU:1")?;
/// let pools = reiver::rayon::node_pools_of(&machine)?;
/// let threads: Vec<_> = pools.iter().map(|(id, pool)| (*id, pool.current_num_threads())).collect();
/// assert_eq!(threads, [(NodeId(0), 3), (NodeId(1), 3)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn node_pools_of(machine: &Topology) -> Result<Vec<(NodeId, ThreadPool)>, NodePoolsError> {
    let seats = machine.seats(machine.worker_count());
    let of_nodes = seats.chunk_by(|one, other| one.node == other.node);
    let pools = of_nodes.map(|seats| {
        let node = seats[0].node;
        let pool = thread::scope(|scope| {
            let creator = Builder::new().name(format!("reiver-rayon-{node}"));
            let creator = creator.spawn_scoped(scope, || {
                settle(machine, node);
                pool(node, seats.len())
            });
            let creator = creator.map_err(|source| NodePoolsError::Thread { node, source })?;
            let pool = creator.join().expect("nothing panics there");
            pool.map_err(|source| NodePoolsError::Pool { node, source })
        });
        pool.map(|pool| (node, pool))
    });
    pools.collect()
}

/// Puts the current thread, and whatever it creates, to a node.
fn settle(machine: &Topology, node: NodeId) {
    if machine.is_this_machine() {
        place::pin_thread_to(machine, place::Target::Node(node));
        place::prefer_memory_of(Some(node));
    }
}

/// A pool whose threads inherit all from the current one.
fn pool(node: NodeId, threads: usize) -> Result<ThreadPool, ThreadPoolBuildError> {
    let spawn = |thread: ThreadBuilder| {
        let worker = thread.index();
        Builder::new()
            .name(format!("reiver-rayon-{node}-{worker}"))
            .spawn(move || {
                here::set(Some(Here { node, worker }));
                thread.run();
            })
            .map(drop)
    };
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .spawn_handler(spawn)
        .build()
}
