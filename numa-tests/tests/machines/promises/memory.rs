//! Memory lies where it will be used.

use std::collections::BTreeMap;
use std::fs;

use reiver::NodeId;
use reiver_topology::place;

use super::Ground;
use super::pages::{MIB, PAGE, Pages};

pub(super) fn where_it_lies_is_known(ground: &Ground) {
    let engine = ground.engine();
    let touched = ground.on_each_worker(&engine, |_| Pages::new(MIB).touched());
    for (_, pages) in touched {
        assert_eq!(place::nodes_of(pages.bytes()), pages.nodes());
    }
    let untouched = Pages::new(MIB);
    assert_eq!(place::node_of(untouched.bytes()), None);
}

pub(super) fn what_a_worker_touches_lies_on_its_node(ground: &Ground) {
    let engine = ground.engine();
    let touched = ground.on_each_worker(&engine, |_| Pages::new(MIB).touched().nodes());
    for (node, nodes) in touched {
        assert_eq!(nodes.values().sum::<usize>(), MIB / PAGE);
        let is_home = |at: &NodeId| ground.is_home(node, *at);
        assert!(
            nodes.keys().all(is_home),
            "of a worker of node {node}: {nodes:?}"
        );
    }
}

/// Elements of a page.
const WORDS: usize = PAGE / size_of::<u64>();

pub(super) fn a_numa_vec_lies_on_its_nodes(ground: &Ground) {
    let engine = ground.engine();
    let crew = ground.crew(&engine);
    let workers: usize = crew.values().sum();
    // The second is made of memory that was touched before, all on one node.
    let nodes = crew.keys().copied();
    for used_before in [None, nodes.min()] {
        let pages = workers * 128;
        let len = pages * WORDS;
        if let Some(node) = used_before {
            let job = engine
                .job()
                .node(node)
                .submit(move |_| drop(vec![1_u64; len]));
            job.expect("it is known").join().expect("no panic");
        }
        let data = engine.numa_vec(len, |i| i as u64);
        // Nodes have shares in order, by their workers.
        let mut begin = 0;
        for (&node, &count) in &crew {
            let share = len / workers * count;
            // Borders are as exact as a sixteenth of a share, and where pages begin.
            let inexact = share / 8;
            let inner = &data[begin + inexact..begin + share - inexact];
            let lies = place::nodes_of(inner);
            let is_home = |at: &NodeId| ground.is_home(node, *at);
            let far = lies.iter().filter(|(at, _)| !is_home(at));
            let far: usize = far.map(|(_, pages)| pages).sum();
            let all: usize = lies.values().sum();
            // A node has its share in several pieces, and a page that two of them share is nobody's.
            assert!(far <= all / 50, "the part of node {node}: {lies:?}");
            assert!(all > inner.len() / WORDS / 2);
            begin += share;
        }
        assert!(data.into_iter().eq(0..len as u64));
    }
}

/// What the kernel has counted at a node.
pub(super) fn counted(node: NodeId) -> BTreeMap<String, u64> {
    let path = format!("/sys/devices/system/node/node{node}/numastat");
    let text = fs::read_to_string(path).expect("the kernel counts");
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(name, count)| (name.to_owned(), count.parse().expect("a number")))
        .collect()
}

/// So many allocations of others may come in between.
const NOISE: u64 = 256;

pub(super) fn the_kernels_counters_agree(ground: &Ground) {
    let engine = ground.engine();
    let memory = ground.memory_nodes();
    let missed = || {
        let vmstat = fs::read_to_string("/proc/vmstat").expect("/proc");
        let line = vmstat
            .lines()
            .find_map(|line| line.strip_prefix("numa_miss "));
        line.expect("the kernel counts")
            .parse::<u64>()
            .expect("a number")
    };
    for &node in ground
        .crew(&engine)
        .keys()
        .filter(|node| memory.contains(node))
    {
        let (before, missed_before) = (counted(node), missed());
        let job = engine
            .job()
            .node(node)
            .submit(|_| Pages::new(8 * MIB).touched());
        let pages = job.expect("it is known").join().expect("no panic");
        let (after, missed) = (counted(node), missed() - missed_before);
        let more = |name: &str| after[name] - before[name];
        println!(
            "2048 pages touched on node {node}: local_node +{}, other_node +{}, numa_miss +{missed}",
            more("local_node"),
            more("other_node")
        );
        assert!(more("local_node") >= 2048);
        assert!(more("other_node") < NOISE, "{}", more("other_node"));
        assert!(missed < NOISE, "{missed}");
        drop(pages);
    }
}
