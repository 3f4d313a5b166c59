//! Memory lies where it will be used.

use std::collections::BTreeMap;
use std::fs;

use reiver::NodeId;
use reiver_topology::place;

use super::Ground;
use super::pages::{MIB, PAGE, Pages, tell_allocator};

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

/// Numbers of a page, which are one element.
const WORDS: usize = PAGE / size_of::<u64>();

/// The kernel gathers pages around a border into a huge page, whenever it comes by: that lies on one node.
const HUGE: usize = 2 * MIB / PAGE;

pub(super) fn a_numa_vec_lies_on_its_nodes(ground: &Ground) {
    let engine = ground.engine();
    let crew = ground.crew(&engine);
    let workers: usize = crew.values().sum();
    // Of the share of a single worker a huge page and more is left, between its borders; and all that is to lie
    // on eight small nodes is more than one of them has.
    let len = workers * 6 * HUGE;
    lies_on_its_nodes(ground, &crew, &engine.numa_vec(len, element));
    // The second is made of memory that somebody has touched before, on the last node, and on others once that
    // was full: so what is to lie there finds no room until theirs has left. (The first has the kernel, too.)
    tell_allocator(libc::M_MMAP_MAX, 0);
    tell_allocator(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    let make = move |_: &_| {
        let touched = vec![element(1); len];
        let before = touched.as_ptr().addr();
        drop(touched);
        (before, reiver::numa_vec(len, element))
    };
    let node = *crew.keys().last().expect("it has workers");
    let job = engine.job().node(node).submit(make);
    let (before, data) = job.expect("it is known").join().expect("no panic");
    let apart = data.as_ptr().addr().abs_diff(before);
    assert!(
        apart < HUGE * PAGE,
        "{apart} bytes from what was touched before"
    );
    lies_on_its_nodes(ground, &crew, &data);
}

fn element(number: usize) -> [u64; WORDS] {
    [number as u64; WORDS]
}

fn lies_on_its_nodes(ground: &Ground, crew: &BTreeMap<NodeId, usize>, data: &[[u64; WORDS]]) {
    let workers: usize = crew.values().sum();
    // Nodes have shares in order, by their workers.
    let mut begin = 0;
    for (&node, &count) in crew {
        let share = data.len() / workers * count;
        // Borders are as exact as a sixteenth of a share, and as a huge page.
        let inexact = share / 8 + HUGE;
        let inner = &data[begin + inexact..begin + share - inexact];
        let lies = place::nodes_of(inner);
        let is_home = |at: &NodeId| ground.is_home(node, *at);
        let far = lies.iter().filter(|(at, _)| !is_home(at));
        let far: usize = far.map(|(_, pages)| pages).sum();
        let all: usize = lies.values().sum();
        // A node has its share in several pieces, and a page that two of them share is nobody's.
        assert!(far <= all / 50, "the part of node {node}: {lies:?}");
        // Of many pages 1,024 are asked about.
        assert!(all > inner.len().min(1024) / 2, "{lies:?}");
        begin += share;
    }
    let numbers = data.iter().map(|element| element[0]);
    assert!(numbers.eq(0..data.len() as u64));
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
