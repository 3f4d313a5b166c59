//! Why there is no [`Topology`](crate::Topology).

use std::io;
use std::path::PathBuf;

/// Why a machine could not be read or described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A file of the machine could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A machine without a CPU that may be used.
    #[error("{origin} shows no usable CPU; is the path the root of a /sys, and are CPUs online?")]
    NoCpus {
        /// Where they were looked for.
        origin: String,
    },
    /// A description that is not understood.
    #[error(
        "in the synthetic topology `{text}`, at character {at}: {problem}; \
         write levels from the outside in, like `NUMANode:4 Core:8 PU:2`"
    )]
    Synthetic {
        /// The whole description.
        text: String,
        /// The character that is not understood, from 1.
        at: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// hwloc refused.
    #[error("hwloc cannot read this machine: {reason}; the sysfs reader needs no library")]
    Hwloc {
        /// Its reason.
        reason: String,
    },
}
