//! What happens to an engine whose machine changes under it, or runs out of memory.

use std::fs;
use std::thread;
use std::time::Duration;

use reiver::{Engine, NodeId};
use reiver_topology::CpuSet;

use super::Ground;
use super::ground::{threads, warnings};
use super::loads::results_of;
use super::pages::{MIB, Pages};

fn write(path: &str, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// What workers may use now.
fn allowed() -> Vec<CpuSet> {
    let mut sets: Vec<CpuSet> = threads("reiver-cpu")
        .into_iter()
        .map(|(_, cpus)| cpus)
        .collect();
    sets.sort_by_key(|cpus| cpus.to_string());
    sets.dedup();
    sets
}

/// Workers look when they wake, now and then; the watchdog of the test ends a wait for nothing.
fn it_is_said(ground: &Ground, engine: &Engine) {
    let said = || {
        let is_it = |said: &String| said.contains("CPUs were taken from this process");
        warnings().iter().filter(|said| is_it(said)).count()
    };
    while said() == 0 {
        ground.on_each_worker(engine, |_| ());
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(said(), 1);
}

/// Linux 6.12 gives most of them back what it took, 6.1 does not; the workers do when they wake.
fn they_go_back(ground: &Ground, engine: &Engine, before: &[CpuSet]) {
    while allowed() != before {
        ground.on_each_worker(engine, |_| ());
        thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn the_cpuset_shrinks_under_an_engine(ground: &Ground) {
    let group = fs::read_to_string("/proc/self/cgroup").expect("/proc");
    let group = group.trim().strip_prefix("0::").expect("cgroup v2");
    let cpuset = format!("/sys/fs/cgroup{group}/cpuset.cpus");
    let all: CpuSet = ground.topology.cpus().iter().map(|cpu| cpu.id).collect();
    let fewer: CpuSet = all.iter().take(all.len() / 2).collect();

    let engine = ground.engine();
    ground.on_each_worker(&engine, |_| ());
    let before = allowed();
    write(&cpuset, &fewer.to_string());
    let within = allowed();
    println!("workers may use {before:?}; in a cpuset of {fewer}, {within:?}");
    assert!(
        within
            .iter()
            .all(|cpus| !cpus.is_empty() && cpus.is_subset(&fewer))
    );
    it_is_said(ground, &engine);
    results_of(&engine);
    write(&cpuset, &all.to_string());
    they_go_back(ground, &engine, &before);
    results_of(&engine);
}

pub(super) fn cpus_go_offline_under_an_engine(ground: &Ground) {
    let last = ground.topology.cpus().last().expect("a machine has CPUs");
    let mut going: Vec<_> = ground.cpus_of(last.node).iter().collect();
    // The first of a machine cannot go.
    going.retain(|cpu| cpu.0 != 0);
    let engine = ground.engine();
    ground.on_each_worker(&engine, |_| ());
    let before = allowed();
    let switch = |state: &str| {
        for cpu in &going {
            write(&format!("/sys/devices/system/cpu/cpu{cpu}/online"), state);
        }
    };
    switch("0");
    println!(
        "workers may use {before:?}; without {going:?}, {:?}",
        allowed()
    );
    it_is_said(ground, &engine);
    results_of(&engine);
    // An engine that starts now has the CPUs that are left.
    let fewer = ground.topology.cpus().len() - going.len();
    let late = ground.engine();
    assert_eq!(late.metrics().workers(), fewer);
    results_of(&late);
    drop(late);
    switch("1");
    they_go_back(ground, &engine, &before);
    results_of(&engine);
}

/// A line of the memory of a node, in bytes.
fn meminfo(node: NodeId, line: &str) -> usize {
    let path = format!("/sys/devices/system/node/node{node}/meminfo");
    let text = fs::read_to_string(path).expect("the kernel says");
    let found = text.lines().find(|text| text.contains(line)).expect(line);
    let kib: usize = found
        .split_whitespace()
        .nth(3)
        .expect("a number")
        .parse()
        .expect("a number");
    kib << 10
}

pub(super) fn a_full_node_spills(ground: &Ground) {
    let engine = ground.engine();
    let memory = ground.memory_nodes();
    let crew = ground.crew(&engine);
    let full = crew.keys().filter(|node| memory.contains(node));
    let full = *full
        .min_by_key(|node| meminfo(**node, "MemFree"))
        .expect("one of two");
    let foreign = || super::memory::counted(full)["numa_foreign"];
    let (free, before) = (meminfo(full, "MemFree"), foreign());
    let job = engine
        .job()
        .node(full)
        .submit(move |_| Pages::new(free + 24 * MIB).touched());
    let pages = job.expect("it is known").join().expect("no panic");
    let lies = pages.nodes();
    let spilled: usize = lies
        .iter()
        .filter(|(node, _)| **node != full)
        .map(|(_, pages)| pages)
        .sum();
    let counted = foreign() - before;
    println!(
        "node {full} had {} MiB: {lies:?}, numa_foreign +{counted}",
        free / MIB
    );
    assert!(lies[&full] > 0 && spilled > 0);
    assert!(
        counted >= spilled as u64 / 2,
        "{counted} of {spilled} were counted"
    );
    results_of(&engine);
}
