//! The machine as the engine numbers it: nodes that have workers, from 0 without gaps.

use reiver_topology::{NodeId, Seat, Topology, place};

use crate::error::SubmitError;

/// A node that has workers.
#[derive(Debug)]
pub(crate) struct WorkerNode {
    pub(crate) id: NodeId,
    /// Whose memory is nearest: its own, if it has some.
    pub(crate) memory: NodeId,
    /// The number of its first worker; the others follow.
    pub(crate) first: usize,
    /// How many workers it has, at least one.
    pub(crate) workers: usize,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) topology: Topology,
    /// Ascending by id.
    pub(crate) nodes: Vec<WorkerNode>,
    /// For each of them all of them as indices, nearest first: itself, then by distance.
    pub(crate) near: Vec<Vec<usize>>,
}

impl Machine {
    pub(crate) fn new(topology: Topology, seats: &[Seat]) -> Machine {
        let mut nodes: Vec<WorkerNode> = Vec::new();
        for (index, seat) in seats.iter().enumerate() {
            match nodes.last_mut() {
                Some(last) if last.id == seat.node => last.workers += 1,
                _ => nodes.push(WorkerNode {
                    id: seat.node,
                    memory: nearest_memory(&topology, seat.node),
                    first: index,
                    workers: 1,
                }),
            }
        }
        let index_of = |id| nodes.iter().position(|node| node.id == id);
        let near = nodes.iter().enumerate().map(|(index, node)| {
            let others = topology
                .nearest_nodes(node.id)
                .into_iter()
                .filter_map(index_of);
            std::iter::once(index).chain(others).collect()
        });
        let near = near.collect();
        Machine {
            topology,
            nodes,
            near,
        }
    }

    /// The current thread is to have its memory at a node that has workers, also what it has by now.
    pub(crate) fn settle_memory(&self, node: usize) {
        if !self.topology.is_this_machine() {
            return;
        }
        let memory = self.nodes[node].memory;
        let is_settled = place::prefer_memory_of(Some(memory));
        if is_settled && self.topology.nodes().nth(1).is_some() {
            place::move_stack_to_node(memory);
        }
    }

    /// The index of a node that has workers.
    pub(crate) fn index_of(&self, id: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok()
    }

    /// The node that does the work of `id`: itself, or the nearest that has workers.
    pub(crate) fn home(&self, id: NodeId) -> Result<usize, SubmitError> {
        if self.topology.node(id).is_none() {
            return Err(SubmitError::UnknownNode);
        }
        let nearest = || {
            self.topology
                .nearest_nodes(id)
                .into_iter()
                .find_map(|id| self.index_of(id))
        };
        self.index_of(id)
            .or_else(nearest)
            .ok_or(SubmitError::UnknownNode)
    }

    /// The node that the current thread runs on just now.
    pub(crate) fn node_of_cpu(&self) -> Option<usize> {
        if self.nodes.len() == 1 {
            return Some(0);
        }
        if !self.topology.is_this_machine() {
            return None;
        }
        let cpu = place::current_cpu()?;
        self.home(self.topology.cpu(cpu)?.node).ok()
    }
}

/// The nearest node that has memory, where anybody says which have some.
fn nearest_memory(topology: &Topology, node: NodeId) -> NodeId {
    let has_memory = |id: &NodeId| topology.node(*id).is_some_and(|node| node.memory_bytes > 0);
    let all = std::iter::once(node).chain(topology.nearest_nodes(node));
    all.into_iter().find(has_memory).unwrap_or(node)
}
