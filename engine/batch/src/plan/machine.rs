//! The machine that a run is planned for.

use std::sync::Arc;

use reiver::Topology;

use super::Limits;

/// The machine that a run is planned for: this one, or one that is only described.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What holds where neither a file nor an option says otherwise.
    pub limits: Limits,
    /// Where its CPUs and nodes are.
    pub topology: Arc<Topology>,
}

impl Machine {
    /// Slots for io jobs a CPU: they wait most of the time.
    const IO_A_CPU: u32 = 16;

    /// A machine with so much memory for jobs, and the default slots.
    pub fn new(topology: Topology, memory: Option<u64>) -> Machine {
        let cpus = u32::try_from(topology.cpus().len()).unwrap_or(u32::MAX);
        Machine {
            limits: Limits {
                cpus,
                io: cpus.saturating_mul(Self::IO_A_CPU),
                memory,
                load: None,
            },
            topology: Arc::new(topology),
        }
    }
}
