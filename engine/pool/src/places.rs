//! The nodes as pools number them: those of a machine from 0, and behind them any that a thread says it
//! works for and that the machine does not have. Such are groups without a place.

use std::sync::{Arc, OnceLock};

use reiver_topology::{NodeId, Topology, here, place};

#[derive(Debug)]
pub(crate) struct Places {
    /// Ascending.
    ids: Vec<NodeId>,
    /// Whose memory the objects of each lie in: its own, or where it has none that of the nearest that
    /// has; none on one node, nor where the machine is only described.
    memory: Vec<Option<NodeId>>,
    /// For each all of them, the nearest first, itself before all.
    near: Vec<Box<[usize]>>,
    /// By the number of a CPU; of this machine.
    of_cpu: Vec<usize>,
}

impl Places {
    /// This machine, read once; a machine of one node where it cannot be read.
    pub(crate) fn detected() -> Arc<Places> {
        static DETECTED: OnceLock<Arc<Places>> = OnceLock::new();
        let detect = || match Topology::detect() {
            Ok(machine) => Arc::new(Places::of(&machine)),
            Err(error) => {
                tracing::warn!("pools take this machine for one of one node: {error}");
                Arc::new(Places::single())
            }
        };
        Arc::clone(DETECTED.get_or_init(detect))
    }

    fn single() -> Places {
        Places {
            ids: vec![NodeId(0)],
            memory: vec![None],
            near: vec![Box::new([0])],
            of_cpu: Vec::new(),
        }
    }

    pub(crate) fn of(machine: &Topology) -> Places {
        let mut ids: Vec<NodeId> = machine.nodes().collect();
        ids.sort_unstable();
        if ids.is_empty() {
            return Places::single();
        }
        let index_of = |id: NodeId| ids.binary_search(&id).ok();
        let nearest = |id: NodeId| std::iter::once(id).chain(machine.nearest_nodes(id));
        let near = ids
            .iter()
            .map(|&id| nearest(id).filter_map(index_of).collect());
        let has_memory = |id: &NodeId| machine.node(*id).is_some_and(|node| node.memory_bytes > 0);
        let is_placed = machine.is_this_machine() && ids.len() > 1;
        let memory_of = |&id: &NodeId| is_placed.then(|| nearest(id).find(has_memory)).flatten();
        let mut of_cpu = Vec::new();
        if is_placed {
            for cpu in machine.cpus() {
                let number = cpu.id.0 as usize;
                of_cpu.resize(of_cpu.len().max(number + 1), 0);
                of_cpu[number] = index_of(cpu.node).unwrap_or(0);
            }
        }
        Places {
            near: near.collect(),
            memory: ids.iter().map(memory_of).collect(),
            of_cpu,
            ids,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn memory(&self, index: usize) -> Option<NodeId> {
        self.memory.get(index).copied().flatten()
    }

    pub(crate) fn near(&self) -> Box<[Box<[usize]>]> {
        self.near.clone().into_boxed_slice()
    }

    /// The node that the current thread works for, or else runs on just now.
    #[inline]
    pub(crate) fn here(&self) -> Result<usize, NodeId> {
        if let Some(here) = here::get() {
            return self.ids.binary_search(&here.node).map_err(|_| here.node);
        }
        if self.of_cpu.is_empty() {
            return Ok(0);
        }
        let cpu = place::current_cpu().and_then(|cpu| self.of_cpu.get(cpu.0 as usize));
        Ok(cpu.copied().unwrap_or(0))
    }
}
