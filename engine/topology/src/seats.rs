//! Which CPU, and so which node, each of a number of workers is meant for.

use std::collections::{BTreeMap, BTreeSet};

use crate::{CpuId, NodeId, Topology};

/// The place of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// The node it works for.
    pub node: NodeId,
    /// The CPU it is meant for, where it is to have one of its own.
    pub cpu: CpuId,
}

impl Topology {
    /// Seats for `workers` workers: spread over the nodes by their cores, one a core before any
    /// core gets a second, the nodes' shares rounded so that they add up (the largest remainder
    /// first). More workers than CPUs start over. A node without CPUs gets none.
    ///
    /// All seats of a node stand together, nodes ascending, so that a range of workers is a node.
    pub fn seats(&self, workers: usize) -> Vec<Seat> {
        let layers = self.layers();
        let mut taken: BTreeMap<NodeId, Vec<CpuId>> = BTreeMap::new();
        let mut left = workers;
        for layer in layers.iter().cycle() {
            let size = layer.values().map(Vec::len).sum::<usize>();
            for (node, share) in shares(layer, left.min(size)) {
                taken
                    .entry(node)
                    .or_default()
                    .extend(&layer[&node][..share]);
            }
            left = left.saturating_sub(size);
            if left == 0 {
                break;
            }
        }
        let seat = |(node, cpus): (NodeId, Vec<CpuId>)| {
            cpus.into_iter().map(move |cpu| Seat { node, cpu })
        };
        taken.into_iter().flat_map(seat).collect()
    }

    /// The first CPU of every core by node, then the second of every core that has one, and so on.
    fn layers(&self) -> Vec<BTreeMap<NodeId, Vec<CpuId>>> {
        let mut of_core: BTreeMap<u32, usize> = BTreeMap::new();
        let mut layers: Vec<BTreeMap<NodeId, Vec<CpuId>>> = Vec::new();
        for cpu in self.cpus() {
            let depth = of_core.entry(cpu.core).or_insert(0);
            if *depth == layers.len() {
                layers.push(BTreeMap::new());
            }
            layers[*depth].entry(cpu.node).or_default().push(cpu.id);
            *depth += 1;
        }
        layers
    }
}

/// `total` seats split over the nodes of a layer in proportion to their CPUs in it.
fn shares(layer: &BTreeMap<NodeId, Vec<CpuId>>, total: usize) -> BTreeMap<NodeId, usize> {
    let size = layer.values().map(Vec::len).sum::<usize>();
    let mut shares: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut remainders = BTreeSet::new();
    for (&node, cpus) in layer {
        shares.insert(node, total * cpus.len() / size);
        remainders.insert((std::cmp::Reverse(total * cpus.len() % size), node));
    }
    let missing = total - shares.values().sum::<usize>();
    for (_, node) in remainders.into_iter().take(missing) {
        *shares.entry(node).or_default() += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes_of(machine: &Topology, workers: usize) -> Vec<u32> {
        machine
            .seats(workers)
            .iter()
            .map(|seat| seat.node.0)
            .collect()
    }

    #[test]
    fn workers_spread_over_nodes_by_their_cores() {
        let machine = Topology::synthetic("NUMANode:4 Core:2 PU:2").expect("a machine");
        assert_eq!(nodes_of(&machine, 1), [0]);
        assert_eq!(nodes_of(&machine, 4), [0, 1, 2, 3]);
        assert_eq!(nodes_of(&machine, 6), [0, 0, 1, 1, 2, 3]);
        assert_eq!(nodes_of(&machine, 8), [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(machine.seats(0), []);
    }

    #[test]
    fn a_core_gets_a_second_worker_only_when_all_have_one() {
        let machine = Topology::synthetic("NUMANode:2 Core:4 PU:2").expect("a machine");
        for workers in 1..40 {
            let seats = machine.seats(workers);
            assert_eq!(seats.len(), workers);
            let mut of_core = BTreeMap::new();
            for seat in &seats {
                let cpu = machine.cpu(seat.cpu).expect("a CPU of the machine");
                assert_eq!(cpu.node, seat.node);
                *of_core.entry(cpu.core).or_insert(0) += 1;
            }
            let most = of_core.values().max().expect("a worker");
            let least = if of_core.len() < 8 {
                0
            } else {
                *of_core.values().min().expect("one")
            };
            assert!(most - least <= 1, "{workers} workers: {of_core:?}");
            assert!(seats.is_sorted_by_key(|seat| seat.node));
        }
    }
}
