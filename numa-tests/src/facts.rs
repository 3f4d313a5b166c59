//! What two readers say of one machine, held against each other.

use std::collections::{BTreeMap, BTreeSet};

use reiver_topology::{CacheKind, CpuId, CpuSet, NodeId, Topology};

/// Which facts are told differently, a line for each kind: the kind and of what, as sets of the
/// numbers of nodes or CPUs. None if the machines are the same.
pub fn differences(ours: &Topology, theirs: &Topology) -> Vec<String> {
    let mut differences = Vec::new();
    let mut note = |kind: &str, of: CpuSet| {
        if !of.is_empty() {
            differences.push(format!("{kind}: {of}"));
        }
    };
    let of_nodes = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| CpuId(node.0)).collect();
    let nodes = |machine: &Topology| machine.nodes().collect::<BTreeSet<NodeId>>();
    let (in_ours, in_theirs) = (nodes(ours), nodes(theirs));
    note("nodes only in ours", of_nodes(&(&in_ours - &in_theirs)));
    note("nodes only in theirs", of_nodes(&(&in_theirs - &in_ours)));
    let both = &in_ours & &in_theirs;
    let differ = |fact: &dyn Fn(&Topology, NodeId) -> Vec<Option<u64>>| {
        let differ = both
            .iter()
            .filter(|&&id| fact(ours, id) != fact(theirs, id));
        of_nodes(&differ.copied().collect())
    };
    let memory = |machine: &Topology, id| vec![machine.node(id).map(|node| node.memory_bytes)];
    note("memory of nodes", differ(&memory));
    let distances = |machine: &Topology, from| {
        let row = both.iter().map(|&to| u64::from(machine.distance(from, to)));
        row.map(Some).collect()
    };
    note("distances from nodes", differ(&distances));
    let accesses = |machine: &Topology, to| {
        let row = both.iter().map(|&from| machine.memory_access(from, to));
        row.flat_map(|access| access.map_or([None; 2], |a| [a.bandwidth_mib_s, a.latency_ns]))
            .collect()
    };
    note("speeds of nodes", differ(&accesses));

    let places = |machine: &Topology| places(machine);
    let (of_ours, of_theirs) = (places(ours), places(theirs));
    let cpus = |of: &BTreeMap<CpuId, Place>| of.keys().copied().collect::<CpuSet>();
    let (in_ours, in_theirs) = (cpus(&of_ours), cpus(&of_theirs));
    note("CPUs only in ours", in_ours.difference(&in_theirs));
    note("CPUs only in theirs", in_theirs.difference(&in_ours));
    let differ = |fact: &dyn Fn(&Place) -> u32| -> CpuSet {
        let both = in_ours.intersection(&in_theirs);
        let both = both.iter();
        both.filter(|cpu| fact(&of_ours[cpu]) != fact(&of_theirs[cpu]))
            .collect()
    };
    note("nodes of CPUs", differ(&|place| place.node));
    note("packages of CPUs", differ(&|place| place.package));
    note("cores of CPUs", differ(&|place| place.core));
    let (of_ours, of_theirs) = (caches(ours), caches(theirs));
    let differ = |same: &dyn Fn(Option<&u64>, Option<&u64>) -> bool| -> CpuSet {
        let all = of_ours.keys().chain(of_theirs.keys());
        let differ = all.filter(|cache| !same(of_ours.get(cache), of_theirs.get(cache)));
        differ
            .flat_map(|(_, _, cpus)| cpus)
            .map(|&cpu| CpuId(cpu))
            .collect()
    };
    note("caches of CPUs", differ(&|a, b| a.is_some() == b.is_some()));
    note(
        "sizes of caches of CPUs",
        differ(&|a, b| a.xor(b).is_some() || a == b),
    );
    differences
}

struct Place {
    node: u32,
    package: u32,
    /// The lowest CPU of the core.
    core: u32,
}

fn places(machine: &Topology) -> BTreeMap<CpuId, Place> {
    let mut first: BTreeMap<u32, u32> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for cpu in machine.cpus() {
        let core = *first.entry(cpu.core).or_insert(cpu.id.0);
        let (node, package) = (cpu.node.0, cpu.package);
        places.insert(
            cpu.id,
            Place {
                node,
                package,
                core,
            },
        );
    }
    places
}

/// The size of each cache, by its level, kind and CPUs.
fn caches(machine: &Topology) -> BTreeMap<(u8, CacheKind, Vec<u32>), u64> {
    let caches = machine.caches().iter();
    let facts = caches.map(|cache| {
        let cpus = cache.cpus.iter().map(|cpu| cpu.0).collect();
        ((cache.level, cache.kind, cpus), cache.size_bytes)
    });
    facts.collect()
}
