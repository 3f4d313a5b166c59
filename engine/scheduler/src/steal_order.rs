//! Where a worker looks for work that is not its own: nearest first.
//!
//! A pure function of the machine and the workers' seats, so that it is tested on machines of
//! hundreds of cores that nobody here has. To change where work is stolen from, change this file.

use reiver_topology::{CacheKind, NodeId, Seat, Topology};

/// The other workers in the order in which one worker steals from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StealOrder {
    /// Workers of the same node, those that share the innermost cache first.
    pub same_node: Vec<Victim>,
    /// Other nodes that have workers, nearest first, each with its workers.
    pub remote: Vec<(NodeId, Vec<Victim>)>,
}

/// A worker that can be stolen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// Its number.
    pub worker: usize,
    /// How near it is.
    pub distance: Distance,
}

/// How near two workers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distance {
    /// They share a cache of level 2 or more, or a core.
    SameCache,
    /// They are on one node.
    SameNode,
    /// They are on different nodes.
    Remote,
}

/// The steal order of each worker, in the order of `seats`.
///
/// Within a node: those that share a core, then a cache of level 2, 3 and so on, then the rest of
/// the node. Then the other nodes by distance, equally far ones beginning behind the worker's own
/// so that the thieves of one node do not all go to the same. Among equals each worker begins with
/// the one after itself, so that thieves spread.
///
/// Costs a look at every cache for each worker, and one entry for each pair of workers.
pub fn steal_orders(machine: &Topology, seats: &[Seat]) -> Vec<StealOrder> {
    let caches_of_seat: Vec<Vec<usize>> =
        seats.iter().map(|seat| caches_of(machine, seat)).collect();
    (0..seats.len())
        .map(|worker| steal_order(machine, seats, &caches_of_seat, worker))
        .collect()
}

/// The data caches of a seat as indices, innermost first; its core counts as the innermost.
pub(crate) fn caches_of(machine: &Topology, seat: &Seat) -> Vec<usize> {
    let holds = |cache: &reiver_topology::Cache| {
        cache.kind != CacheKind::Instruction && cache.cpus.contains(seat.cpu)
    };
    let caches = machine.caches().iter().enumerate();
    caches
        .filter(|(_, cache)| holds(cache))
        .map(|(index, _)| index)
        .collect()
}

/// The steal order of one worker.
pub(crate) fn steal_order(
    machine: &Topology,
    seats: &[Seat],
    caches_of_seat: &[Vec<usize>],
    worker: usize,
) -> StealOrder {
    let own = seats[worker];
    // How many workers further on, going round: spreads thieves that are otherwise alike.
    let onward = |other: usize| (other + seats.len() - worker) % seats.len();
    // How far out the innermost cache is that both have; the core counts as 0.
    let closeness = |other: usize| -> usize {
        let core = |seat: Seat| machine.cpu(seat.cpu).map(|cpu| cpu.core);
        if core(own) == core(seats[other]) {
            return 0;
        }
        let theirs = &caches_of_seat[other];
        let shared = caches_of_seat[worker]
            .iter()
            .find(|cache| theirs.contains(cache));
        shared.map_or(usize::MAX, |&cache| {
            usize::from(machine.caches()[cache].level)
        })
    };

    let mates = (0..seats.len()).filter(|&other| other != worker && seats[other].node == own.node);
    let mut near: Vec<(usize, usize, usize)> = mates
        .map(|other| (closeness(other), onward(other), other))
        .collect();
    near.sort_unstable();
    let same_node = near
        .into_iter()
        .map(|(closeness, _, worker)| {
            let shares = closeness != usize::MAX;
            let distance = if shares {
                Distance::SameCache
            } else {
                Distance::SameNode
            };
            Victim { worker, distance }
        })
        .collect();

    let mut nodes: Vec<(u32, usize, NodeId)> = Vec::new();
    for (other, seat) in seats.iter().enumerate() {
        if seat.node != own.node && !nodes.iter().any(|&(_, _, node)| node == seat.node) {
            nodes.push((
                machine.distance(own.node, seat.node),
                onward(other),
                seat.node,
            ));
        }
    }
    nodes.sort_unstable();
    let remote = nodes
        .into_iter()
        .map(|(_, _, node)| {
            let mut victims: Vec<usize> = (0..seats.len())
                .filter(|&other| seats[other].node == node)
                .collect();
            let start = worker % victims.len();
            victims.rotate_left(start);
            let victim = |worker| Victim {
                worker,
                distance: Distance::Remote,
            };
            (node, victims.into_iter().map(victim).collect())
        })
        .collect();
    StealOrder { same_node, remote }
}
