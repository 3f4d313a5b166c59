//! A machine as hwloc's objects, whoever lists them: its library, or a file of `lstopo`.
//!
//! hwloc says to whom memory is near, the kernel to which node a CPU belongs. This makes the second
//! of the first, and the kernel's units of hwloc's numbers, so that a machine is the same whoever
//! reads it.

use std::collections::{BTreeMap, BTreeSet};

use crate::machine::{Accesses, Parts, mean};
use crate::{Cache, Cpu, CpuId, CpuSet, MemoryAccess, Node, NodeId};

/// What was listed, in any order.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) pus: Vec<Pu>,
    pub(crate) nodes: Vec<MemoryNode>,
    /// With all their CPUs, also those that are no PU here.
    pub(crate) caches: Vec<Cache>,
    pub(crate) latencies: Option<Matrix>,
    pub(crate) speeds: Vec<Speed>,
}

#[derive(Debug)]
pub(crate) struct Pu {
    pub(crate) id: CpuId,
    pub(crate) package: u32,
    /// Any number that only the PUs of this core have.
    pub(crate) core: u32,
    /// The numbers of its nodes, as a set of bits: also of those that are not listed.
    pub(crate) nodes: CpuSet,
}

#[derive(Debug)]
pub(crate) struct MemoryNode {
    pub(crate) id: NodeId,
    /// Whom it is near to.
    pub(crate) cpus: CpuSet,
    pub(crate) memory_bytes: u64,
}

/// Latencies between nodes, in whatever unit.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) nodes: Vec<NodeId>,
    /// Row by row, as many rows and columns as nodes.
    pub(crate) values: Vec<u64>,
}

/// One number of how fast a node's memory is.
#[derive(Debug)]
pub(crate) struct Speed {
    pub(crate) attribute: Attribute,
    pub(crate) to: NodeId,
    pub(crate) from: CpuSet,
    pub(crate) value: u64,
}

/// hwloc's attributes of memory that are asked for, by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attribute {
    Bandwidth,
    ReadBandwidth,
    WriteBandwidth,
    Latency,
    ReadLatency,
    WriteLatency,
}

impl Objects {
    pub(crate) fn into_parts(self) -> Parts {
        let nodes = nodes(&self.pus, self.nodes);
        let usable: CpuSet = self.pus.iter().map(|pu| pu.id).collect();
        let mut caches = self.caches;
        for cache in &mut caches {
            cache.cpus = cache.cpus.intersection(&usable);
        }
        let cpus = self.pus.iter().map(|pu| Cpu {
            id: pu.id,
            node: NodeId(0),
            package: pu.package,
            core: pu.core,
        });
        Parts {
            cpus: cpus.collect(),
            accesses: accesses(&nodes, &self.speeds),
            nodes,
            caches,
            rest_is_left: false,
            distances: self.latencies.map(distances).unwrap_or_default(),
        }
    }
}

/// The nodes with the CPUs that are theirs. A node without CPUs shows those it is near to: they
/// belong to the node that is near to fewer, in doubt to the one with the lower number. CPUs whose
/// node is not listed bring it with them.
fn nodes(pus: &[Pu], mut listed: Vec<MemoryNode>) -> Vec<Node> {
    let mut left: CpuSet = pus.iter().map(|pu| pu.id).collect();
    listed.sort_by_cached_key(|node| (node.cpus.len(), node.id));
    let mut nodes = BTreeMap::new();
    for node in listed {
        let cpus = node.cpus.intersection(&left);
        left = left.difference(&cpus);
        nodes.insert(node.id, (cpus, node.memory_bytes));
    }
    let known: BTreeSet<NodeId> = nodes.keys().copied().collect();
    for pu in pus.iter().filter(|pu| left.contains(pu.id)) {
        let mut ids = pu.nodes.iter().map(|bit| NodeId(bit.0));
        if let Some(id) = ids.find(|id| !known.contains(id)) {
            let (cpus, _) = nodes.entry(id).or_default();
            cpus.insert(pu.id);
        }
    }
    let nodes = nodes.into_iter().map(|(id, (cpus, memory_bytes))| Node {
        id,
        cpus,
        memory_bytes,
    });
    nodes.collect()
}

/// Latencies in the kernel's units: each row such that a node is 10 from itself, as it is already
/// where the numbers are the kernel's, and 11 or more from others. A row whose own node has no
/// number, and a number that is 0, says nothing.
fn distances(latencies: Matrix) -> BTreeMap<(NodeId, NodeId), u32> {
    let size = latencies.nodes.len();
    let mut distances = BTreeMap::new();
    for (index, (&from, row)) in latencies
        .nodes
        .iter()
        .zip(latencies.values.chunks_exact(size.max(1)))
        .enumerate()
    {
        let local = u128::from(row[index]);
        for (&to, &value) in latencies.nodes.iter().zip(row) {
            if from != to && local > 0 && value > 0 {
                let scaled = (u128::from(value) * 10 + local / 2) / local;
                let distance = u32::try_from(scaled).unwrap_or(u32::MAX);
                distances.insert((from, to), distance.max(11));
            }
        }
    }
    distances
}

/// A number holds for a node's CPUs if it holds for each of them.
fn accesses(nodes: &[Node], speeds: &[Speed]) -> Accesses {
    let mut said: BTreeMap<(NodeId, NodeId), BTreeMap<Attribute, u64>> = BTreeMap::new();
    let with_cpus = || nodes.iter().filter(|node| !node.cpus.is_empty());
    for speed in speeds.iter().filter(|speed| speed.value > 0) {
        if nodes.iter().all(|node| node.id != speed.to) {
            continue;
        }
        for from in with_cpus().filter(|node| node.cpus.is_subset(&speed.from)) {
            let of_pair = said.entry((from.id, speed.to)).or_default();
            of_pair.insert(speed.attribute, speed.value);
        }
    }
    let access = |of_pair: &BTreeMap<Attribute, u64>| {
        let number = |attribute| of_pair.get(&attribute).copied();
        let either = |both, read, write| number(both).or(mean(number(read), number(write)));
        MemoryAccess {
            bandwidth_mib_s: either(
                Attribute::Bandwidth,
                Attribute::ReadBandwidth,
                Attribute::WriteBandwidth,
            ),
            latency_ns: either(
                Attribute::Latency,
                Attribute::ReadLatency,
                Attribute::WriteLatency,
            ),
        }
    };
    said.iter()
        .map(|(&pair, of_pair)| (pair, access(of_pair)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().expect("a set")
    }

    fn pus(count: u32, nodes: &str) -> Vec<Pu> {
        let pu = |id| Pu {
            id: CpuId(id),
            package: 0,
            core: id,
            nodes: set(nodes),
        };
        (0..count).map(pu).collect()
    }

    fn node(id: u32, cpus: &str) -> MemoryNode {
        MemoryNode {
            id: NodeId(id),
            cpus: set(cpus),
            memory_bytes: 1,
        }
    }

    fn shape(pus: &[Pu], listed: Vec<MemoryNode>) -> Vec<(u32, String, u64)> {
        let nodes = nodes(pus, listed);
        let shape = |node: &Node| (node.id.0, node.cpus.to_string(), node.memory_bytes);
        nodes.iter().map(shape).collect()
    }

    #[test]
    fn shared_cpus_belong_to_the_nearest_node_and_memory_alone_has_none() {
        let near_to_all = node(0, "0-3");
        let listed = vec![near_to_all, node(5, "0-1"), node(2, "0-1"), node(3, "2-3")];
        let expected = [(0, ""), (2, "0-1"), (3, "2-3"), (5, "")];
        assert_eq!(
            shape(&pus(4, ""), listed),
            expected.map(|(id, cpus)| (id, cpus.to_owned(), 1))
        );
    }

    #[test]
    fn cpus_of_a_node_that_is_not_listed_bring_it() {
        let mut pus = pus(4, "1");
        pus[0].nodes = set("1,7");
        pus[3].nodes = set("");
        let listed = vec![node(1, "1-2")];
        let expected = [(1, "1-2".to_owned(), 1), (7, "0".to_owned(), 0)];
        assert_eq!(shape(&pus, listed), expected);
    }

    fn scaled(values: &[u64]) -> Vec<u32> {
        let matrix = Matrix {
            nodes: vec![NodeId(0), NodeId(4)],
            values: values.to_vec(),
        };
        distances(matrix).into_values().collect()
    }

    #[test]
    fn latencies_become_distances_of_which_10_is_local() {
        assert_eq!(scaled(&[10, 21, 32, 10]), [21, 32]);
        assert_eq!(scaled(&[90, 139, 141, 100]), [15, 14]);
        assert_eq!(scaled(&[90, 80, 90, 90]), [11, 11]);
        assert_eq!(scaled(&[0, 80, 0, 90]), []);
        assert_eq!(scaled(&[1, u64::MAX, 1, u64::MAX]), [u32::MAX, 11]);
    }

    #[test]
    fn speeds_hold_for_nodes_whose_every_cpu_they_hold_for() {
        let nodes = nodes(
            &pus(4, ""),
            vec![node(0, "0-1"), node(1, "2-3"), node(2, "0-1")],
        );
        let speed = |attribute, to, from, value| Speed {
            attribute,
            to: NodeId(to),
            from: set(from),
            value,
        };
        let accesses = accesses(
            &nodes,
            &[
                speed(Attribute::ReadBandwidth, 2, "0-3", 100),
                speed(Attribute::WriteBandwidth, 2, "0-1", 50),
                speed(Attribute::ReadLatency, 2, "0", 9),
                speed(Attribute::Latency, 0, "0-1", 80),
                speed(Attribute::Latency, 0, "2-3", 0),
                speed(Attribute::Latency, 9, "0-3", 80),
            ],
        );
        let said: Vec<_> = accesses
            .iter()
            .map(|(&(from, to), access)| (from.0, to.0, access.bandwidth_mib_s, access.latency_ns))
            .collect();
        assert_eq!(
            said,
            [
                (0, 0, None, Some(80)),
                (0, 2, Some(75), None),
                (1, 2, Some(100), None)
            ]
        );
    }
}
