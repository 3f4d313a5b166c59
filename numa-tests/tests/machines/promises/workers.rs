//! Threads run where they were put, and have their stacks there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use reiver::{Class, Engine, NodeId, Pinning, Priority};
use reiver_topology::{CpuId, CpuSet};

use super::Ground;
use super::ground::{status, threads, whereabouts};
use super::pages::nodes_of_mapping;

pub(super) fn there_are_as_many_as_the_machine_grants(ground: &Ground) {
    let engine = ground.engine();
    let workers = engine.metrics().workers();
    assert_eq!(workers, ground.topology.worker_count());
    let seen = ground.on_each_worker(&engine, |_| thread::current().id());
    let mut threads: Vec<_> = seen
        .into_iter()
        .map(|(_, thread)| format!("{thread:?}"))
        .collect();
    threads.sort();
    threads.dedup();
    assert_eq!(threads.len(), workers);
    // Nodes have workers by their CPUs, whatever is granted.
    let cpus = ground.topology.cpus().len();
    for (node, count) in ground.crew(&engine) {
        let share = workers * ground.cpus_of(node).len() / cpus;
        assert!(
            count.abs_diff(share) <= 1,
            "node {node} has {count}, its share is {share}"
        );
    }
}

pub(super) fn they_stay_on_their_node(ground: &Ground) {
    let engine = ground.engine();
    let seen = ground.on_each_worker(&engine, |_| {
        let places = (0..50).map(|_| {
            thread::yield_now();
            whereabouts()
        });
        let allowed: CpuSet = status("thread-self", "Cpus_allowed_list");
        (places.collect::<Vec<_>>(), allowed)
    });
    for (node, (places, allowed)) in &seen {
        // Inside a quota it has a part of them.
        assert!(
            allowed.is_subset(ground.cpus_of(*node)),
            "a worker of node {node} may use {allowed}"
        );
        for (cpu, on) in places {
            assert!(
                allowed.contains(*cpu) && on == node,
                "CPU {cpu} of {on}, not {node}"
            );
        }
    }
    let named = threads("reiver-cpu");
    assert!(named.len() >= seen.len(), "{named:?}");
    for (name, allowed) in &named {
        let on: Vec<_> = ground
            .topology
            .nodes()
            .filter(|&n| allowed.is_subset(ground.cpus_of(n)))
            .collect();
        assert_eq!(on.len(), 1, "{name} may use {allowed}");
    }
}

/// What computes has as many CPUs as the quota grants, together, and is told where that was used up.
pub(super) fn a_quota_confines_them_and_is_counted(ground: &Ground) {
    let engine = ground.engine();
    let throttled = || engine.metrics().nr_throttled();
    if ground.topology.cpu_quota().is_none() {
        assert_eq!(throttled(), None);
        return;
    }
    let granted = engine.metrics().workers();
    for priority in [Priority::P1, Priority::P0, Priority::P2] {
        // Threads of others come with the first job of theirs.
        let job = engine.job().priority(priority).submit(|_| ());
        job.expect("it is taken").join().expect("no panic");
        let prefix = match priority {
            Priority::P1 => "reiver-cpu",
            Priority::P0 => "reiver-p0",
            Priority::P2 => "reiver-p2",
        };
        let allowed = || -> BTreeSet<CpuId> {
            let threads = threads(prefix);
            threads
                .iter()
                .flat_map(|(_, allowed)| allowed.iter())
                .collect()
        };
        // Each puts itself in its place as it begins.
        while allowed().len() > granted {
            thread::sleep(Duration::from_millis(5));
        }
    }
    let before = throttled().expect("it is read where the quota is");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in ground.topology.cpus() {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        while throttled() <= Some(before) {
            thread::sleep(Duration::from_millis(50));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

pub(super) fn pinned_to_cores_each_has_its_own(ground: &Ground) {
    let engine = Engine::builder()
        .pinning(Pinning::Core)
        .build()
        .expect("an engine");
    let seen = ground.on_each_worker(&engine, |_| {
        let allowed: CpuSet = status("thread-self", "Cpus_allowed_list");
        (allowed, whereabouts())
    });
    let mut taken = CpuSet::new();
    let mut of_core: BTreeMap<u32, usize> = BTreeMap::new();
    for (node, (allowed, (cpu, on))) in seen {
        assert_eq!(allowed, [cpu].into_iter().collect());
        assert_eq!(on, node);
        assert!(!taken.contains(cpu), "two workers on CPU {cpu}");
        taken.insert(cpu);
        let core = ground.topology.cpu(cpu).expect("it may be used").core;
        *of_core.entry(core).or_default() += 1;
    }
    // No core has two workers while another has none.
    let cores: Vec<u32> = ground.topology.cpus().iter().map(|cpu| cpu.core).collect();
    let is_one_idle = cores.iter().any(|core| !of_core.contains_key(core));
    let most = of_core.values().max().copied().unwrap_or(0);
    assert!(!is_one_idle || most == 1, "{of_core:?}");
}

pub(super) fn threads_that_block_are_at_their_node(ground: &Ground) {
    let engine = ground.engine();
    let crew = ground.crew(&engine);
    for node in ground.topology.nodes() {
        let job = engine.job().class(Class::Io).node(node).submit(|ctx| {
            let allowed: CpuSet = status("thread-self", "Cpus_allowed_list");
            (ctx.node(), allowed, whereabouts().1)
        });
        let (said, allowed, on) = job.expect("it is known").join().expect("no panic");
        assert!(
            ground.is_nearest(node, on, crew.keys().copied()),
            "{on} for {node}"
        );
        assert_eq!(said, on);
        assert_eq!(&allowed, ground.cpus_of(on));
    }
}

pub(super) fn urgent_and_background_workers_are_at_their_node(ground: &Ground) {
    let engine = ground.engine();
    let crew = ground.crew(&engine);
    for priority in [Priority::P0, Priority::P2] {
        for &node in crew.keys() {
            let job = engine.job().priority(priority).node(node).submit(|ctx| {
                let allowed: CpuSet = status("thread-self", "Cpus_allowed_list");
                (ctx.node(), allowed, whereabouts().1)
            });
            let (said, allowed, on) = job.expect("it is known").join().expect("no panic");
            assert_eq!((said, on), (node, node), "{priority:?}");
            assert!(
                allowed.is_subset(ground.cpus_of(node)),
                "{priority:?} at {node} may use {allowed}"
            );
        }
    }
}

pub(super) fn their_stacks_lie_on_their_node(ground: &Ground) {
    let engine = ground.engine();
    let stacks = ground.on_each_worker(&engine, |_| {
        let on_stack = [1_u8; 16 << 10];
        nodes_of_mapping(std::hint::black_box(&on_stack).as_ptr().addr())
    });
    let mut far: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (node, stack) in stacks {
        println!("a stack of node {node}: pages {stack:?}");
        for (at, pages) in stack {
            if !ground.is_home(node, at) {
                *far.entry(node).or_default() += pages;
            }
        }
    }
    assert!(far.is_empty(), "pages of stacks on other nodes: {far:?}");
}
