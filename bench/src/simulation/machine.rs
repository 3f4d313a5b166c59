//! A described machine as the simulation wants it: who sits where, how far nodes are apart, and the
//! engine's own steal orders.

use reiver::steal_order::{StealOrder, steal_orders};
use reiver::{NodeId, Topology};

#[derive(Debug)]
pub(super) struct Machine {
    /// The index of each worker's node.
    pub(super) node_of: Vec<usize>,
    /// Between nodes, as firmware gives it.
    distances: Vec<Vec<u32>>,
    pub(super) orders: Vec<StealOrder>,
    ids: Vec<NodeId>,
    /// For each node all nodes, itself first, the nearest next.
    pub(super) near: Vec<Vec<usize>>,
    /// The workers of each node.
    pub(super) workers_of: Vec<Vec<usize>>,
}

/// Four sockets, each linked to each other: Xeon Scalable boards of four.
const FOUR: &str = "Package:4 NUMANode:1 L3:1 Core:28 PU:1 \
                    distances=10,21,21,21;21,10,21,21;21,21,10,21;21,21,21,10";
/// Two sockets of eight nodes each, a node a cache: EPYC with its L3 caches as nodes.
const SIXTEEN: &str = "Package:2 NUMANode:8 L3:1 Core:8 PU:1";

/// What is simulated, by the names of the cases.
pub(super) const NAMES: [&str; 3] = [SMALLEST, "8x56", "16x8"];
pub(super) const SMALLEST: &str = "4x28";

impl Machine {
    /// The one with this name.
    pub(super) fn named(name: &str) -> Machine {
        match name {
            "4x28" => Machine::described(FOUR),
            // Three links a socket: a cube, whose other corners are two hops away.
            "8x56" => {
                let hops =
                    |from: usize, to: usize| [10, 21, 31, 31][(from ^ to).count_ones() as usize];
                Machine::with_matrix("Package:8 NUMANode:1 L3:1 Core:56 PU:1", 8, hops)
            }
            "16x8" => {
                let hops = |from: usize, to: usize| match (from == to, from / 8 == to / 8) {
                    (true, _) => 10,
                    (false, true) => 12,
                    (false, false) => 32,
                };
                Machine::with_matrix(SIXTEEN, 16, hops)
            }
            other => Machine::described(other),
        }
    }

    fn with_matrix(levels: &str, nodes: usize, distance: impl Fn(usize, usize) -> u32) -> Machine {
        let row = |from| {
            let row: Vec<String> = (0..nodes)
                .map(|to| distance(from, to).to_string())
                .collect();
            row.join(",")
        };
        let rows: Vec<String> = (0..nodes).map(row).collect();
        Machine::described(&format!("{levels} distances={}", rows.join(";")))
    }

    /// With a worker on every CPU.
    ///
    /// # Panics
    /// If that is no description of a machine.
    pub(super) fn described(text: &str) -> Machine {
        let topology = Topology::synthetic(text).expect("a described machine");
        let seats = topology.seats(topology.worker_count());
        let mut ids: Vec<NodeId> = seats.iter().map(|seat| seat.node).collect();
        ids.dedup();
        let index_of = |id: NodeId| ids.iter().position(|&known| known == id);
        let node_of: Vec<usize> = seats
            .iter()
            .map(|seat| index_of(seat.node).expect("every seat's node is listed"))
            .collect();
        let distances: Vec<Vec<u32>> = ids
            .iter()
            .map(|&from| ids.iter().map(|&to| topology.distance(from, to)).collect())
            .collect();
        let near = (0..ids.len())
            .map(|from| {
                let mut nodes: Vec<usize> = (0..ids.len()).collect();
                nodes.sort_by_key(|&to| (to != from, distances[from][to], to));
                nodes
            })
            .collect();
        let workers_of = (0..ids.len())
            .map(|node| {
                (0..seats.len())
                    .filter(|&worker| node_of[worker] == node)
                    .collect()
            })
            .collect();
        Machine {
            orders: steal_orders(&topology, &seats),
            node_of,
            distances,
            ids,
            near,
            workers_of,
        }
    }

    pub(super) fn workers(&self) -> usize {
        self.node_of.len()
    }

    pub(super) fn nodes(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn distance(&self, from: usize, to: usize) -> u32 {
        self.distances[from][to]
    }

    pub(super) fn index_of(&self, id: NodeId) -> usize {
        let index = self.ids.iter().position(|&known| known == id);
        index.expect("a steal order names nodes that have workers")
    }
}
