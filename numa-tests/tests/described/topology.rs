//! Every machine, by rules: what is asked of it hangs together, and workers spread over it.

use std::collections::{BTreeMap, BTreeSet};

use reiver_numa_tests::skipped;
use reiver_topology::{CpuSet, NodeId, Topology};

use crate::machines;

pub(crate) fn check_rules(name: &str, machine: &Topology) {
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

pub(crate) fn check_seats(name: &str, machine: &Topology) {
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

/// Jobs of many sizes are given CPUs until none is free, some give theirs back, and again.
pub(crate) fn check_packing(name: &str, machine: &Topology) {
    let all: CpuSet = machine.cpus().iter().map(|cpu| cpu.id).collect();
    let mut free = all.clone();
    let mut held: Vec<CpuSet> = Vec::new();
    for count in [2, 1, 4, 3, 8, 5, 2, 16, 1, 6].iter().cycle().take(60) {
        let packed = machine.pack(&free, *count);
        check_packed(name, machine, &free, *count, &packed);
        free = free.difference(&packed);
        held.push(packed);
        if free.len() < *count {
            // Every second job ends.
            let ended = held.iter().step_by(2);
            free = ended.fold(free, |free, packed| free.union(packed));
            held = held.into_iter().skip(1).step_by(2).collect();
        }
    }
    assert_eq!(machine.pack(&all, all.len() + 1), all, "{name}");
}

fn check_packed(name: &str, machine: &Topology, free: &CpuSet, count: usize, packed: &CpuSet) {
    let told = || format!("{name}: {count} of {free} are {packed}");
    assert!(packed.is_subset(free), "{}", told());
    assert_eq!(packed.len(), count.min(free.len()), "{}", told());
    let mut cores: BTreeMap<u32, CpuSet> = BTreeMap::new();
    for cpu in machine.cpus() {
        cores.entry(cpu.core).or_default().insert(cpu.id);
    }
    let whole = cores.values().filter(|core| core.is_subset(free));
    let whole = whole.fold(CpuSet::new(), |whole, core| whole.union(core));
    let wanted = if whole.len() >= count { &whole } else { free };
    assert!(packed.is_subset(wanted), "{}", told());
    let fits = |free: &CpuSet| {
        let mut nodes = machine.nodes().filter_map(|id| machine.node(id));
        nodes.any(|node| node.cpus.intersection(free).len() >= count)
    };
    if fits(wanted) {
        let mut nodes = machine.nodes().filter_map(|id| machine.node(id));
        let is_on_one = nodes.any(|node| packed.is_subset(&node.cpus));
        assert!(is_on_one, "{}", told());
    }
    if whole.len() >= count {
        let taken = |core: &CpuSet| core.intersection(packed).len();
        let halves = cores.values();
        let halves = halves.filter(|core| (1..core.len()).contains(&taken(core)));
        assert!(halves.count() <= 1, "{}", told());
    }
}

#[test]
fn every_machine_is_sound() {
    for (name, machine) in machines::all() {
        check_rules(name, machine);
        check_seats(name, machine);
        check_packing(name, machine);
    }
}

#[test]
fn files_of_lstopo_say_what_their_names_say() {
    for (name, nodes, cores, cpus) in [
        // Three nodes are out of bounds and without memory, two without CPUs, one CPU of two is.
        ("16amd64-8n2c-cpusets.xml", 8, 10, 10),
        ("192em64t-24n8c2t.xml", 24, 192, 384),
        ("64intel64-heteromem.xml", 8, 16, 64),
        ("8intel64-4n2t-memattrs.xml", 4, 8, 8),
        ("96em64t-4n4d3ca2co-pci.xml", 4, 96, 96),
        ("memorysidecaches.xml", 4, 40, 80),
        ("power8gpudistances.xml", 2, 8, 16),
        // Taken from the CPUs alone, which do not know of nodes.
        ("x86__AMD-19h-Zen4-2xEpyc-9654.xml", 1, 192, 384),
        ("x86__Intel-SapphireRapids-2xXeonMax9460.xml", 1, 80, 160),
    ] {
        let Some((_, machine)) = machines::all().iter().find(|(other, _)| other == name) else {
            skipped(&format!("{name}: it is not here"));
            continue;
        };
        let of_cores: BTreeSet<u32> = machine.cpus().iter().map(|cpu| cpu.core).collect();
        let counts = (
            machine.nodes().count(),
            of_cores.len(),
            machine.cpus().len(),
        );
        assert_eq!(counts, (nodes, cores, cpus), "{name}");
    }
}

#[test]
fn memory_on_the_package_is_faster_than_the_memory_beside_it() {
    let name = "64intel64-heteromem.xml";
    let Some((_, machine)) = machines::all().iter().find(|(other, _)| other == name) else {
        return skipped(&format!("{name}: it is not here"));
    };
    let bandwidth = |from, to| {
        machine
            .memory_access(NodeId(from), NodeId(to))?
            .bandwidth_mib_s
    };
    // Nodes 0 to 3 have CPUs; whose memory 4 to 7 are is known by their speed alone.
    for (node, beside) in [(0, 7), (1, 4), (2, 5), (3, 6)] {
        assert_eq!(bandwidth(node, node), Some(22_500));
        assert_eq!(bandwidth(node, beside), Some(90_000));
        let other = (node + 1) % 4;
        assert_eq!(bandwidth(other, beside), None);
    }
}
