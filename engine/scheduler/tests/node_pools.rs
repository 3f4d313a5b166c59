//! Plain rayon pools by node, of this machine and of described ones.

#[path = "engine/watchdog.rs"]
mod watchdog;

use std::collections::BTreeSet;

use rayon::prelude::*;
use reiver::rayon::{node_pools, node_pools_of};
use reiver::{NodeId, Topology};
use reiver_topology::{CpuSet, here, place};
use watchdog::watched;

#[test]
fn each_node_of_this_machine_has_a_pool_that_stays_there() {
    watched();
    let machine = Topology::detect().unwrap();
    let before = place::thread_affinity().unwrap();
    let pools = node_pools().unwrap();
    assert_eq!(
        place::thread_affinity().unwrap(),
        before,
        "the caller stays where it is"
    );
    let threads: usize = pools
        .iter()
        .map(|(_, pool)| pool.current_num_threads())
        .sum();
    assert_eq!(threads, machine.worker_count());
    for (node, pool) in &pools {
        let cpus: &CpuSet = &machine.node(*node).unwrap().cpus;
        let seen = pool.broadcast(|thread| {
            let here = here::get().unwrap();
            assert_eq!((here.node, here.worker), (*node, thread.index()));
            place::thread_affinity().unwrap()
        });
        assert!(seen.iter().all(|seen| seen == cpus), "{seen:?}");
        // What a thread touches first lies on its node.
        let touched = pool.broadcast(|_| place::node_of(&vec![1_u8; 1 << 22]));
        if machine.nodes().count() > 1 && touched.iter().all(Option::is_some) {
            assert!(touched.iter().all(|on| on == &Some(*node)), "{touched:?}");
        }
    }
}

#[test]
fn a_described_machine_has_its_pools_and_moves_no_thread() {
    watched();
    let mine = place::thread_affinity().unwrap();
    let machine = Topology::synthetic("NUMANode:4 Core:2 PU:1").unwrap();
    let pools = node_pools_of(&machine).unwrap();
    let nodes: Vec<NodeId> = pools.iter().map(|&(node, _)| node).collect();
    assert_eq!(nodes, [0, 1, 2, 3].map(NodeId));
    let data: Vec<u64> = (0..1_000_000).collect();
    let parts = data.chunks(250_000).zip(&pools);
    let sum: u64 = parts
        .map(|(part, (node, pool))| {
            let seen =
                pool.broadcast(|_| (here::get().unwrap().node, place::thread_affinity().unwrap()));
            assert_eq!(seen, vec![(*node, mine.clone()); 2]);
            pool.install(|| part.par_iter().sum::<u64>())
        })
        .sum();
    assert_eq!(sum, 499_999_500_000);
}

#[test]
fn threads_are_named_after_their_node() {
    watched();
    let machine = Topology::synthetic("NUMANode:2 Core:2 PU:1").unwrap();
    let names: BTreeSet<String> = node_pools_of(&machine)
        .unwrap()
        .iter()
        .flat_map(|(_, pool)| pool.broadcast(|_| std::thread::current().name().unwrap().to_owned()))
        .collect();
    let expected = [
        "reiver-rayon-0-0",
        "reiver-rayon-0-1",
        "reiver-rayon-1-0",
        "reiver-rayon-1-1",
    ];
    assert!(names.iter().eq(&expected));
}
