//! The sysfs reader on snapshots of real machines: by rules, and against hwloc where its tools
//! are installed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use reiver_numa_tests::{skipped, snapshots};
use reiver_topology::{CpuSet, NodeId, Topology};

fn check_rules(name: &str, machine: &Topology) {
    let cpus: CpuSet = machine.cpus().iter().map(|cpu| cpu.id).collect();
    assert_eq!(
        cpus.len(),
        machine.cpus().len(),
        "{name}: a CPU is listed twice"
    );
    assert_eq!(machine.worker_count(), cpus.len(), "{name}");

    let mut of_nodes = CpuSet::new();
    for id in machine.nodes() {
        let node = machine.node(id).expect("a listed node exists");
        assert!(
            of_nodes.intersection(&node.cpus).is_empty(),
            "{name}: node {id} shares CPUs"
        );
        of_nodes = of_nodes.union(&node.cpus);
        assert!(
            node.cpus
                .iter()
                .all(|cpu| machine.cpu(cpu).is_some_and(|cpu| cpu.node == id))
        );
        assert_eq!(
            machine.distance(id, id),
            10,
            "{name}: node {id} is not local to itself"
        );
        for other in machine.nodes().filter(|&other| other != id) {
            assert!(machine.distance(id, other) > 10, "{name}: {id} to {other}");
        }
        let near = machine.nearest_nodes(id);
        assert!(
            near.is_sorted_by_key(|&to| (machine.distance(id, to), to)),
            "{name}"
        );
        assert_eq!(near.len() + 1, machine.nodes().count(), "{name}");
    }
    assert_eq!(of_nodes, cpus, "{name}: every CPU has a node");

    let mut node_of_core: BTreeMap<u32, NodeId> = BTreeMap::new();
    for cpu in machine.cpus() {
        let node = node_of_core.entry(cpu.core).or_insert(cpu.node);
        assert_eq!(
            *node, cpu.node,
            "{name}: core {} lies on two nodes",
            cpu.core
        );
    }
    for cache in machine.caches() {
        assert!(
            !cache.cpus.is_empty() && cache.cpus.is_subset(&cpus),
            "{name}: {cache:?}"
        );
    }
}

fn check_seats(name: &str, machine: &Topology) {
    let cpus = machine.cpus().len();
    let cores = machine
        .cpus()
        .iter()
        .map(|cpu| cpu.core)
        .collect::<BTreeSet<_>>()
        .len();
    for workers in [1, 2, cores / 2, cores, cores + 1, cpus, 2 * cpus + 3] {
        let seats = machine.seats(workers);
        assert_eq!(seats.len(), workers, "{name}");
        assert!(
            seats.is_sorted_by_key(|seat| seat.node),
            "{name}: nodes do not stand together"
        );
        let mut of_core: BTreeMap<u32, usize> = BTreeMap::new();
        for seat in &seats {
            let cpu = machine
                .cpu(seat.cpu)
                .expect("a seat is on a CPU of the machine");
            assert_eq!(cpu.node, seat.node, "{name}");
            *of_core.entry(cpu.core).or_default() += 1;
        }
        if workers <= cores {
            assert!(
                of_core.values().all(|&on_core| on_core == 1),
                "{name}: {workers} workers"
            );
        } else {
            assert_eq!(
                of_core.len(),
                cores,
                "{name}: {workers} workers leave a core empty"
            );
        }
        if workers == cpus {
            let taken: CpuSet = seats.iter().map(|seat| seat.cpu).collect();
            assert_eq!(taken.len(), cpus, "{name}: one worker a CPU");
        }
    }
}

/// How many objects of a type hwloc sees in a snapshot, not looking at what the process that took
/// the snapshot was allowed.
fn hwloc_count(root: &Path, object: &str) -> Option<usize> {
    let output = Command::new("hwloc-calc")
        .arg("-i")
        .arg(root)
        .args(["--if", "fsroot", "--disallowed", "-N", object, "all"])
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let number = said.parse();
    Some(number.unwrap_or_else(|_| panic!("hwloc-calc says {output:?}")))
}

#[test]
fn every_snapshot_is_a_sound_machine() {
    for snapshot in snapshots().iter() {
        let name = &snapshot.name;
        let machine =
            Topology::from_sysfs(&snapshot.root).unwrap_or_else(|e| panic!("{name}: {e}"));
        check_rules(name, &machine);
        check_seats(name, &machine);
    }
}

#[test]
fn a_described_machine_of_256_cpus_is_sound() {
    let machine = Topology::synthetic("NUMANode:8 Core:16 PU:2").expect("a machine");
    check_rules("synthetic", &machine);
    check_seats("synthetic", &machine);
}

#[test]
fn snapshots_are_seen_as_hwloc_sees_them() {
    for snapshot in snapshots().iter() {
        let name = snapshot.name.as_str();
        let machine =
            Topology::from_sysfs(&snapshot.root).unwrap_or_else(|e| panic!("{name}: {e}"));
        let cores = machine
            .cpus()
            .iter()
            .map(|cpu| cpu.core)
            .collect::<BTreeSet<_>>()
            .len();
        for (object, ours) in [
            ("pu", machine.cpus().len()),
            ("core", cores),
            ("numanode", machine.nodes().count()),
        ] {
            let Some(theirs) = hwloc_count(&snapshot.root, object) else {
                skipped("the comparison with hwloc: hwloc-calc is not installed");
                return;
            };
            // hwloc leaves nodes of a graphics card's memory out unless it is told to keep them;
            // to the kernel, and so to us, they are nodes without CPUs.
            let cards = if (name, object) == ("nvidiagpunumanodes", "numanode") {
                6
            } else {
                0
            };
            assert_eq!(ours, theirs + cards, "{name}: {object}");
        }
    }
}
