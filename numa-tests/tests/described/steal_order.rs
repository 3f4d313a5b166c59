//! The steal order of every worker, by rules, on machines that nobody here has.

use std::collections::BTreeSet;

use reiver::steal_order::{Distance, StealOrder, steal_orders};
use reiver_topology::{CacheKind, Seat, Topology};

use crate::machines;

/// How near two seats are by what the machine says: 0 for one core, then the level of the innermost
/// cache that both have, then the rest of the node.
fn closeness(machine: &Topology, a: Seat, b: Seat) -> u32 {
    let core = |seat: Seat| machine.cpu(seat.cpu).expect("a seat's CPU").core;
    if core(a) == core(b) {
        return 0;
    }
    let shared = machine.shared_cache(a.cpu, b.cpu);
    assert!(shared.is_none_or(|cache| cache.kind != CacheKind::Instruction));
    shared.map_or(u32::MAX, |cache| u32::from(cache.level))
}

pub(crate) fn check(name: &str, machine: &Topology, seats: &[Seat]) {
    let orders = steal_orders(machine, seats);
    assert_eq!(orders.len(), seats.len(), "{name}");
    for (worker, order) in orders.iter().enumerate() {
        let own = seats[worker];
        let StealOrder { same_node, remote } = order;

        let everybody: Vec<usize> = same_node
            .iter()
            .chain(remote.iter().flat_map(|(_, victims)| victims))
            .map(|victim| victim.worker)
            .collect();
        let distinct: BTreeSet<usize> = everybody.iter().copied().collect();
        assert_eq!(
            distinct.len(),
            everybody.len(),
            "{name}: {worker} sees a victim twice"
        );
        assert_eq!(
            everybody.len(),
            seats.len() - 1,
            "{name}: {worker} does not see everybody"
        );
        assert!(
            !distinct.contains(&worker),
            "{name}: {worker} steals from itself"
        );

        for victim in same_node {
            let seat = seats[victim.worker];
            assert_eq!(
                seat.node, own.node,
                "{name}: a node mate of {worker} is elsewhere"
            );
            let shares = closeness(machine, own, seat) != u32::MAX;
            let expected = if shares {
                Distance::SameCache
            } else {
                Distance::SameNode
            };
            assert_eq!(
                victim.distance, expected,
                "{name}: {worker} and {}",
                victim.worker
            );
        }
        let near =
            |victim: &reiver::steal_order::Victim| closeness(machine, own, seats[victim.worker]);
        assert!(
            same_node.is_sorted_by_key(near),
            "{name}: {worker} passes over a nearer mate"
        );

        let far = |(node, _): &(_, _)| machine.distance(own.node, *node);
        assert!(
            remote.is_sorted_by_key(far),
            "{name}: {worker} passes over a nearer node"
        );
        for (node, victims) in remote {
            assert_ne!(*node, own.node, "{name}");
            assert!(!victims.is_empty(), "{name}");
            for victim in victims {
                assert_eq!(seats[victim.worker].node, *node, "{name}");
                assert_eq!(victim.distance, Distance::Remote, "{name}");
            }
        }
    }
    check_spread(name, seats, &orders);
}

/// Thieves that are alike do not all begin with the same victim: a victim is the first of at most
/// as many as share its node with it, and never of a whole other node.
fn check_spread(name: &str, seats: &[Seat], orders: &[StealOrder]) {
    for (index, order) in orders.iter().enumerate() {
        let Some((node, victims)) = order.remote.first() else {
            continue;
        };
        let thieves: Vec<&StealOrder> = orders
            .iter()
            .zip(seats)
            .filter(|(other, seat)| seat.node == seats[index].node && other.remote[0].0 == *node)
            .map(|(other, _)| other)
            .collect();
        let firsts: BTreeSet<usize> = thieves
            .iter()
            .map(|thief| thief.remote[0].1[0].worker)
            .collect();
        let most = thieves.len().min(victims.len());
        assert_eq!(
            firsts.len(),
            most,
            "{name}: thieves of one node crowd at {node}"
        );
    }
}

#[test]
fn every_worker_of_every_machine_steals_from_the_nearest_first() {
    for (name, machine) in machines::all() {
        check(name, machine, &machine.seats(machine.worker_count()));
    }
}

#[test]
fn fewer_workers_than_cpus_and_more_of_them_steal_from_the_nearest_first() {
    for (name, machine) in machines::all() {
        let cpus = machine.cpus().len();
        if cpus <= 64 {
            for workers in [1, cpus.div_ceil(2), cpus + 1] {
                check(name, machine, &machine.seats(workers));
            }
        }
    }
}

#[test]
fn equally_far_nodes_are_not_all_begun_at_the_same() {
    let machine = Topology::synthetic("NUMANode:4 Core:2").expect("a machine");
    let orders = steal_orders(&machine, &machine.seats(8));
    let firsts: BTreeSet<u32> = orders.iter().map(|order| order.remote[0].0.0).collect();
    assert_eq!(
        firsts.len(),
        4,
        "each node is the first that some other turns to"
    );
}
