use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use reiver::{Class, Engine, NodeId, Pinning, Topology};
use reiver_topology::{CpuSet, place};

use crate::engine;
use crate::watchdog::watched;

/// What `/proc` says of the calling thread's CPUs.
fn allowed() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("Cpus_allowed_list:"));
    line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn a_worker_may_use_the_cpus_of_its_node_that_the_process_may() {
    let engine = engine(1);
    // Of one node or of many: no worker has a CPU that the process has not.
    let topology = Topology::detect().unwrap();
    let own = engine.submit(|ctx| (ctx.node(), allowed())).join().unwrap();
    assert!(topology.nodes().any(|node| node == own.0));
    if topology.nodes().count() == 1 {
        assert_eq!(own.1, allowed());
    }
}

#[test]
fn pinned_to_cores_each_worker_has_one_cpu_of_its_own() {
    let engine = Engine::builder().pinning(Pinning::Core).build().unwrap();
    let workers = engine.metrics().workers();
    let everybody = Barrier::new(workers);
    let seen = std::sync::Mutex::new(Vec::new());
    engine.scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|_| {
                everybody.wait();
                seen.lock().unwrap().push(allowed());
            });
        }
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort();
    let all = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), all, "{seen:?}");
    assert!(
        seen.iter().all(|cpus| cpus.parse::<u32>().is_ok()),
        "{seen:?}"
    );
}

/// The kernel does the second for threads that were asleep while their CPUs were away, and forgets others.
#[test]
fn a_worker_stays_where_it_was_moved_until_its_own_cpus_are_there_again() {
    watched();
    let all = place::thread_affinity().unwrap();
    let builder = Engine::builder().cpu_workers(1);
    let engine = builder.pinning(Pinning::Core).build().unwrap();
    let of_worker = || engine.install(|| place::thread_affinity().unwrap());
    let own = of_worker();
    let others: CpuSet = all.iter().filter(|&cpu| !own.contains(cpu)).collect();
    if !others.is_empty() {
        engine.install(|| place::set_thread_affinity(&others).unwrap());
        // It looks every tenth of a second.
        for _ in 0..30 {
            thread::sleep(Duration::from_millis(10));
            assert_eq!(of_worker(), others);
        }
    }
    engine.install(|| place::set_thread_affinity(&all).unwrap());
    while of_worker() != own {
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_described_machine_moves_no_thread() {
    let mine = allowed();
    let topology = Topology::synthetic("NUMANode:4 Core:2").unwrap();
    let engine = Engine::builder()
        .topology(topology)
        .pinning(Pinning::Core)
        .build()
        .unwrap();
    for node in 0..4 {
        let job = engine.job().node(NodeId(node)).submit(|_| allowed());
        assert_eq!(job.unwrap().join().unwrap(), mine);
    }
}

#[test]
fn a_job_for_a_node_runs_there_and_nowhere_else() {
    let topology = Topology::synthetic("NUMANode:4 Core:2").unwrap();
    let engine = Engine::builder().topology(topology).build().unwrap();
    for class in [Class::Cpu, Class::Io] {
        let jobs: Vec<_> = (0..400)
            .map(|number| {
                let node = NodeId(number % 4);
                let job = engine.job().class(class).node(node);
                (node, job.submit(|ctx| ctx.node()).unwrap())
            })
            .collect();
        for (node, job) in jobs {
            assert_eq!(job.join().unwrap(), node, "{class:?}");
        }
    }
}

#[test]
fn a_node_without_workers_is_served_by_the_nearest_that_has_some() {
    let topology = Topology::synthetic("NUMANode:4 Core:1").unwrap();
    let engine = Engine::builder()
        .topology(topology)
        .cpu_workers(1)
        .build()
        .unwrap();
    let nodes: Vec<NodeId> = (0..4)
        .map(|node| {
            let job = engine.job().node(NodeId(node)).submit(|ctx| ctx.node());
            job.unwrap().join().unwrap()
        })
        .collect();
    assert_eq!(nodes, [nodes[0]; 4]);
}

#[test]
fn a_job_near_data_of_this_machine_runs() {
    let engine = engine(1);
    let data = vec![1_u64; 100_000];
    let job = engine.job().near(&data).submit(|ctx| ctx.node()).unwrap();
    let node = job.join().unwrap();
    assert!(
        Topology::detect()
            .unwrap()
            .nodes()
            .any(|known| known == node)
    );
    let nothing: [u8; 0] = [];
    let job = engine.job().near(&nothing).submit(|_| 1).unwrap();
    assert_eq!(job.join().unwrap(), 1);
}
