//! The machine as data: which NUMA nodes, cores, caches and CPUs there are, how far nodes lie from
//! each other, and what of it this process may use.
//!
//! A [`Topology`] is plain data with several readers ([`Topology::detect`],
//! [`Topology::from_sysfs`], [`Topology::from_xml`], [`Topology::from_hwloc`],
//! [`Topology::synthetic`]), so that everything above it can be tested on machines that nobody here
//! has. [`place`] acts on the machine itself: it pins threads, prefers
//! memory, and asks where pages lie. [`here`] is what a thread knows of its own place.
//!
//! The crate starts no threads, and changes nothing but the thread that asks it to.
//!
//! ```
//! use reiver_topology::Topology;
//!
//! let machine = Topology::synthetic("NUMANode:4 Core:8 PU:2")?;
//! assert_eq!(machine.nodes().count(), 4);
//! assert_eq!(machine.worker_count(), 64);
//! # Ok::<(), reiver_topology::TopologyError>(())
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("reiver runs on Linux only: it reads /sys and places threads by Linux system calls");

mod cpu_set;
mod error;
pub mod here;
#[cfg(feature = "hwloc")]
mod hwloc;
mod machine;
mod objects;
mod pack;
pub mod place;
mod quota;
mod seats;
mod synthetic;
mod sys;
mod sysfs;
mod xml;

pub use cpu_set::{CpuId, CpuSet, ParseCpuSetError};
pub use error::TopologyError;
pub use machine::{Cache, CacheKind, Cpu, MemoryAccess, Node, NodeId, Reader, Topology};
pub use seats::Seat;
