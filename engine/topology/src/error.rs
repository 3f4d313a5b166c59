//! Why there is no [`Topology`](crate::Topology).

use std::fmt;
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
    /// A file that `lstopo` did not write, or that is damaged.
    #[error("{origin}{}: {problem}", At(*at))]
    Xml {
        /// The file, or what else it is called.
        origin: String,
        /// The line and column that are meant, from 1; `None` for the whole file.
        at: Option<(u32, u32)>,
        /// What is wrong there, and what helps.
        problem: String,
    },
    /// This was built without hwloc.
    #[error(
        "this reiver was built without hwloc; build it with the feature `hwloc` (in its sources: `cargo \
         install --path engine/cli --features hwloc`) where libhwloc-dev, libudev-dev and pkg-config \
         are installed, or use the sysfs reader, which needs no library"
    )]
    NoHwloc,
    /// hwloc refused.
    #[error("hwloc cannot read this machine: {reason}; the sysfs reader needs no library")]
    Hwloc {
        /// Its reason.
        reason: String,
    },
}

/// `:3:7`, or nothing.
struct At(Option<(u32, u32)>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((line, column)) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}
