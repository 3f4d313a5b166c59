//! The machine is known as it is, and what of it does not work is said.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use reiver::{Class, NodeId};
use reiver_numa_tests::facts::differences;
use reiver_numa_tests::skipped;
use reiver_topology::{CpuId, CpuSet, Topology, place};

use super::Ground;
use super::ground::{status, warnings, whereabouts};
use crate::requirements::LSTOPO;

pub(super) fn it_is_what_it_was_told_to_be(ground: &Ground) {
    let (machine, told) = ground.told.as_ref().expect("somebody told");
    let topology = &ground.topology;
    let found: Vec<NodeId> = topology.nodes().collect();
    let expected: Vec<NodeId> = told.nodes.iter().map(|node| NodeId(node.id)).collect();
    assert_eq!(found, expected);
    for (from, node) in told.nodes.iter().enumerate() {
        let found = topology.node(NodeId(node.id)).expect("it was found");
        assert_eq!(found.cpus, node.cpus, "node {}", node.id);
        // The firmware and the kernel keep some of it.
        let mib = found.memory_bytes >> 20;
        let most = u64::from(node.mib);
        assert!(
            mib <= most && mib >= most / 2,
            "node {}: {mib} of {most} MiB",
            node.id
        );
        for (to, other) in told.nodes.iter().enumerate() {
            let distance = topology.distance(NodeId(node.id), NodeId(other.id));
            assert_eq!(
                distance, told.distances[from][to],
                "{} to {}",
                node.id, other.id
            );
        }
    }
    for a in topology.cpus() {
        for b in topology.cpus() {
            let (seat_a, seat_b) = (machine.seat_of(a.id), machine.seat_of(b.id));
            assert_eq!(a.package == b.package, seat_a.0 == seat_b.0, "{a:?} {b:?}");
            let is_one_core = (seat_a.0, seat_a.1) == (seat_b.0, seat_b.1);
            assert_eq!(a.core == b.core, is_one_core, "{a:?} {b:?}");
        }
    }
    assert_eq!(topology.worker_count(), told.workers);
}

pub(super) fn hwloc_sees_the_same(ground: &Ground) {
    let output = Command::new(LSTOPO).args(["--of", "xml"]).output();
    let Ok(output) = output else {
        return skipped(&format!("a comparison with hwloc: no {LSTOPO} here"));
    };
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("it writes text");
    let theirs = Topology::from_xml_text(&text).expect("a machine");
    let ours = &ground.topology;
    let mut differences = differences(ours, &theirs);
    let node_of = |id| ours.node(id).expect("it is one of ours");
    if ours.nodes().any(|id| node_of(id).memory_bytes == 0) {
        // hwloc counts more distances than nodes with memory, and drops all.
        differences.retain(|line| !line.starts_with("distances"));
    }
    // hwloc leaves out nodes whose memory may not be used. We know of them: other memory may lie there.
    let may_be_used: CpuSet = status("self", "Mems_allowed_list");
    let is_left_out =
        |id: &NodeId| node_of(*id).memory_bytes > 0 && !may_be_used.contains(CpuId(id.0));
    let left_out: CpuSet = ours
        .nodes()
        .filter(is_left_out)
        .map(|id| CpuId(id.0))
        .collect();
    differences.retain(|line| *line != format!("nodes only in ours: {left_out}"));
    assert_eq!(differences, [""; 0]);
}

pub(super) fn every_cpu_is_where_the_kernel_says(ground: &Ground) {
    let known: CpuSet = ground.topology.cpus().iter().map(|cpu| cpu.id).collect();
    // A mask keeps CPUs that have gone offline.
    let allowed: CpuSet = status("self", "Cpus_allowed_list");
    let online = fs::read_to_string("/sys/devices/system/cpu/online").expect("/sys");
    assert_eq!(
        known,
        allowed.intersection(&online.parse().expect("a list"))
    );
    let mut of_nodes = CpuSet::new();
    for node in ground.topology.nodes() {
        let cpus = ground.cpus_of(node);
        assert!(
            cpus.intersection(&of_nodes).is_empty(),
            "two nodes have {cpus}"
        );
        of_nodes = of_nodes.union(cpus);
    }
    assert_eq!(of_nodes, known);
    for cpu in ground.topology.cpus() {
        let only: CpuSet = [cpu.id].into_iter().collect();
        let seen = thread::spawn(move || {
            place::set_thread_affinity(&only).expect("a CPU that may be used");
            whereabouts()
        });
        assert_eq!(seen.join().expect("no panic"), (cpu.id, cpu.node));
    }
}

/// Everything that asks something of the kernel.
fn use_all(ground: &Ground) {
    let engine = ground.engine();
    let data = Arc::new(engine.numa_vec(1 << 20, |i| i));
    ground.on_each_worker(&engine, |_| ());
    for node in ground.topology.nodes() {
        for class in [Class::Cpu, Class::Io] {
            let job = engine
                .job()
                .class(class)
                .node(node)
                .submit(|ctx| ctx.node());
            job.expect("the node is known").join().expect("no panic");
        }
    }
    let near = Arc::clone(&data);
    let job = engine
        .job()
        .near(&data)
        .submit(move |_| near.iter().sum::<usize>());
    let sum = job.expect("it is taken").join().expect("no panic");
    assert_eq!(sum, (1 << 20) * ((1 << 20) - 1) / 2);
}

pub(super) fn nothing_is_warned_of_where_all_works(ground: &Ground) {
    use_all(ground);
    assert_eq!(warnings(), [""; 0]);
}

pub(super) fn what_is_refused_is_said_once(ground: &Ground) {
    use_all(ground);
    use_all(ground);
    let said = warnings();
    assert_eq!(said.len(), 1, "{said:?}");
}
