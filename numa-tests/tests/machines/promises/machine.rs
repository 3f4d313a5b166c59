//! The machine is known as it is, and what of it does not work is said.

use std::fs;
use std::sync::Arc;
use std::thread;

use reiver::{Class, NodeId};
use reiver_topology::{CpuSet, place};

use super::Ground;
use super::ground::{status, warnings, whereabouts};

// What hwloc says of the machine is to be compared here as well.
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
    drop(ground.engine());
    let at_start = warnings();
    assert_eq!(at_start.len(), 1, "{at_start:?}");
    use_all(ground);
    use_all(ground);
    let mut all = warnings();
    all.sort();
    let said = all.len();
    all.dedup();
    assert_eq!(all.len(), said, "each thing once");
}
