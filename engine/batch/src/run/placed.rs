//! A thread that stands where a job is to be while it starts it: a process inherits the CPUs and the
//! memory policy of the thread that starts it, so its first page is where it belongs already.

use std::io;
use std::sync::Once;

use reiver_topology::CpuSet;
use reiver_topology::place::{self, MemoryMode, ThreadMemory};

use crate::event::Placement;
use crate::job_file::MemoryPolicy;

/// Until this is dropped the current thread stands there; then where it stood before.
#[derive(Debug)]
pub(super) struct Placed {
    cpus: Option<CpuSet>,
    memory: Option<ThreadMemory>,
}

impl Placed {
    /// What the system refuses is done without, and said once.
    pub(super) fn of(placement: &Placement) -> Placed {
        let mut placed = Placed {
            cpus: None,
            memory: None,
        };
        if !placement.cpus.is_empty() {
            let moved = place::thread_affinity()
                .and_then(|before| place::set_thread_affinity(&placement.cpus).map(|()| before));
            match moved {
                Ok(before) => placed.cpus = Some(before),
                Err(error) => say_once_of_cpus(&error),
            }
        }
        if let Some((policy, nodes)) = &placement.memory {
            let mode = mode_of(*policy);
            let set = ThreadMemory::current()
                .and_then(|before| place::set_thread_memory(mode, nodes).map(|()| before));
            match set {
                Ok(before) => placed.memory = Some(before),
                Err(error) => say_once_of_memory(&error),
            }
        }
        placed
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // What could be changed can be changed back, but for a cpuset that moved meanwhile: then the
        // kernel has said where the thread is to be.
        if let Some(before) = &self.cpus {
            let _ = place::set_thread_affinity(before);
        }
        if let Some(before) = &self.memory {
            let _ = before.restore();
        }
    }
}

/// A policy in the system's terms.
pub(super) fn mode_of(policy: MemoryPolicy) -> MemoryMode {
    match policy {
        MemoryPolicy::Bind => MemoryMode::Bind,
        MemoryPolicy::Preferred => MemoryMode::Preferred,
        MemoryPolicy::Interleave => MemoryMode::Interleave,
        MemoryPolicy::Local => MemoryMode::Local,
    }
}

pub(super) fn say_once_of_cpus(error: &io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            "the system refuses to confine a job to its CPUs ({error}); jobs run wherever the kernel \
             puts them"
        );
    });
}

pub(super) fn say_once_of_memory(error: &io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            "the system refuses a job's memory policy ({error}); where it does, memory comes from the \
             node of the CPU that touches it first"
        );
    });
}
