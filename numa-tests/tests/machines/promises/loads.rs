//! Work is done where it belongs, and elsewhere only by who has nothing of their own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use reiver::{Class, Engine, NodeId};
use reiver_topology::place;

use super::Ground;
use super::ground::{Held, whereabouts};
use super::pages::{MIB, PAGE, Pages};

pub(super) fn results_are_right(ground: &Ground) {
    results_of(&ground.engine());
}

/// Whatever became of the machine.
pub(super) fn results_of(engine: &Engine) {
    let sum = engine.par_reduce(
        0..1_000_000,
        0,
        || 0_u64,
        |sum, i| sum + i as u64,
        |a, b| a + b,
    );
    assert_eq!(sum, 499_999_500_000);
    let jobs = engine.submit_many((0..1000_u64).map(|i| move |_: &_| i * i));
    let squares: u64 = jobs
        .into_iter()
        .map(|job| job.join().expect("no panic"))
        .sum();
    assert_eq!(squares, 332_833_500);
    let batch = engine
        .batch(0..100_u64)
        .class(Class::Io)
        .map(|_, i| i + 1)
        .collect();
    let batch: Vec<u64> = batch
        .into_iter()
        .map(|value| value.expect("no panic"))
        .collect();
    assert!(batch.into_iter().eq(1..=100));
    let data = engine.numa_vec(100_000, |i| i);
    assert!(data.into_iter().eq(0..100_000));
    assert_eq!(engine.install(|| fibonacci(20)), 6765);
}

fn fibonacci(n: u32) -> u32 {
    match n {
        0 | 1 => n,
        _ => {
            let (a, b) = reiver::join(|| fibonacci(n - 1), || fibonacci(n - 2));
            a + b
        }
    }
}

pub(super) fn jobs_for_a_node_run_there(ground: &Ground) {
    let engine = ground.engine();
    let crew = ground.crew(&engine);
    for class in [Class::Cpu, Class::Io] {
        let nodes: Vec<NodeId> = ground.topology.nodes().collect();
        let jobs: Vec<_> = nodes
            .into_iter()
            .cycle()
            .take(200)
            .map(|node| {
                let job = engine.job().class(class).node(node);
                (
                    node,
                    job.submit(|ctx| (ctx.node(), whereabouts().1))
                        .expect("it is known"),
                )
            })
            .collect();
        for (node, job) in jobs {
            let (said, on) = job.join().expect("no panic");
            assert_eq!(said, on);
            assert!(
                ground.is_nearest(node, on, crew.keys().copied()),
                "on {on}, not {node}"
            );
        }
    }
}

/// Each node gets as many jobs as it has workers, near data of its own, while everybody is held; and each
/// job waits for all. So every worker takes one, and none has to take that of another node.
pub(super) fn jobs_near_data_run_there(ground: &Ground) {
    let engine = ground.engine();
    let crew = ground.crew(&engine);
    let data: BTreeMap<NodeId, Pages> = crew
        .keys()
        .map(|&node| {
            let job = engine
                .job()
                .node(node)
                .submit(|_| Pages::new(MIB).touched());
            (node, job.expect("it is known").join().expect("no panic"))
        })
        .collect();
    let held = Held::new(&engine, crew.iter());
    let all = Arc::new(Barrier::new(crew.values().sum()));
    let places = crew.iter().flat_map(|(&node, &count)| vec![node; count]);
    let jobs: Vec<_> = places
        .map(|node| {
            let near = data[&node].bytes();
            // Data of a node without memory lies elsewhere.
            let job = match place::node_of(near) == Some(node) {
                true => engine.job().near(near),
                false => engine.job().node(node),
            };
            let all = Arc::clone(&all);
            let job = job.submit(move |_| {
                all.wait();
                whereabouts().1
            });
            (node, job.expect("it is known"))
        })
        .collect();
    let before = engine.metrics().steals().remote;
    held.let_go();
    for (node, job) in jobs {
        assert_eq!(job.join().expect("no panic"), node);
    }
    assert_eq!(engine.metrics().steals().remote, before);
}

/// So long every part of a balanced load takes. It is slept, for one thread emulates all CPUs of an
/// emulated machine: what they compute they do one after the other, a tenth of a second each, but they
/// sleep all at once.
const PART_TAKES: Duration = Duration::from_millis(8);

/// Most loops are: a node whose CPUs are slow to wake finds some of its part taken, as it should be, and
/// emulated CPUs are often slow.
pub(super) fn a_balanced_load_is_local(ground: &Ground) {
    let mut shares = Vec::new();
    while shares.len() < 24 {
        let share = local_share_of_a_loop(ground);
        println!("local: {:.1} % of what a loop visited", share * 100.0);
        shares.push(share);
        let local = shares.iter().filter(|&&share| share >= 0.95).count();
        if shares.len() >= 3 && 2 * local > shares.len() {
            return;
        }
    }
    panic!("most loops are not local");
}

fn local_share_of_a_loop(ground: &Ground) -> f64 {
    const WORDS: usize = PAGE / size_of::<u64>();
    let engine = ground.engine();
    let workers = engine.metrics().workers();
    let len = workers * 128 * WORDS;
    let data = engine.numa_vec(len, |i| i as u64);
    let local = AtomicUsize::new(0);
    let sum = engine.par_map_reduce(
        0..len,
        2 * WORDS,
        |part: Range<usize>| {
            let (_, on) = whereabouts();
            let lies = place::node_of(&data[part.clone()]).expect("it was touched");
            if ground.is_home(on, lies) {
                local.fetch_add(part.len(), Ordering::Relaxed);
            }
            thread::sleep(PART_TAKES);
            data[part].iter().sum::<u64>()
        },
        |a, b| a + b,
    );
    assert_eq!(sum, (0..len as u64).sum::<u64>());
    local.into_inner() as f64 / len as f64
}

/// Jobs near data of every node, while everybody is held. Who then does one of another node has found
/// none at its own: whatever of those begins later was on its way already, one with each other worker
/// at most.
pub(super) fn nobody_leaves_a_node_that_has_jobs(ground: &Ground) {
    const JOBS_A_WORKER: usize = 40;
    let engine = ground.engine();
    let crew = ground.crew(&engine);
    let workers: usize = crew.values().sum();
    let data: Vec<(NodeId, Pages)> = crew
        .keys()
        .filter_map(|&node| Some((node, data_on(ground, &engine, node)?)))
        .collect();
    let held = Held::new(&engine, crew.iter());
    let begun = Arc::new(AtomicUsize::new(0));
    let jobs: Vec<_> = data
        .iter()
        .flat_map(|(node, data)| vec![(*node, data); crew[node] * JOBS_A_WORKER])
        .map(|(home, data)| {
            let begun = Arc::clone(&begun);
            let job = engine.job().near(data.bytes()).submit(move |ctx| {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
                (home, ctx.node(), number)
            });
            job.expect("it is taken")
        })
        .collect();
    let before = engine.metrics().steals().remote;
    held.let_go();
    let mut ran: Vec<(NodeId, NodeId, usize)> = jobs
        .into_iter()
        .map(|job| job.join().expect("no panic"))
        .collect();
    ran.sort_by_key(|&(.., number)| number);
    let mut away = 0;
    for (at, (home, on, _)) in ran.iter().enumerate() {
        if on != home {
            away += 1;
            let late = ran[at..].iter().filter(|(home, ..)| home == on).count();
            assert!(
                late < workers,
                "{late} jobs of node {on} begin after it has left"
            );
        }
    }
    println!("{away} of {} jobs were done by other nodes", ran.len());
    assert_eq!(engine.metrics().steals().remote - before, away);
}

/// Memory on a node, for jobs to be near to; none where it has none of its own.
fn data_on(ground: &Ground, engine: &Engine, node: NodeId) -> Option<Pages> {
    let has_memory = ground.memory_nodes().contains(&node);
    has_memory.then(|| {
        let job = engine
            .job()
            .node(node)
            .submit(|_| Pages::new(MIB).touched());
        job.expect("it is known").join().expect("no panic")
    })
}

pub(super) fn a_dry_node_is_helped_and_each_steal_counted(ground: &Ground) {
    const JOBS: u64 = 100;
    let engine = ground.engine();
    let crew = ground.crew(&engine);
    for (&busy, count) in &crew {
        let Some(data) = data_on(ground, &engine, busy) else {
            continue;
        };
        let held = Held::new(&engine, std::iter::once((&busy, count)));
        let before = engine.metrics().steals().remote;
        let jobs: Vec<_> = (0..JOBS)
            .map(|_| {
                engine
                    .job()
                    .near(data.bytes())
                    .submit(|_| whereabouts().1)
                    .expect("it is taken")
            })
            .collect();
        // Nobody there has time for them, everybody elsewhere has nothing of their own.
        for job in jobs {
            assert_ne!(job.join().expect("no panic"), busy);
        }
        assert_eq!(engine.metrics().steals().remote - before, JOBS);
        held.let_go();
    }
}

/// One worker a node; all but one are held, each with jobs near its own data. The one that is free does
/// them all, in the order of distance.
pub(super) fn the_nearest_is_helped_first(ground: &Ground) {
    const JOBS: usize = 3;
    let nodes = ground.crew(&ground.engine()).len();
    let engine = Engine::builder()
        .cpu_workers(nodes)
        .build()
        .expect("an engine");
    let crew = ground.crew(&engine);
    assert!(
        crew.len() == nodes && crew.values().all(|&count| count == 1),
        "{crew:?}"
    );
    let data: Vec<(NodeId, Pages)> = crew
        .keys()
        .filter_map(|&node| Some((node, data_on(ground, &engine, node)?)))
        .collect();
    for &thief in crew.keys() {
        let others = Held::new(&engine, crew.iter().filter(|(node, _)| **node != thief));
        let own = Held::new(&engine, crew.get_key_value(&thief).into_iter());
        let (says, helped) = channel();
        for (node, data) in data.iter().rev().filter(|(node, _)| *node != thief) {
            for _ in 0..JOBS {
                let (says, node) = (says.clone(), *node);
                let job = engine.job().near(data.bytes());
                let job = job.submit(move |ctx| says.send((node, ctx.node())).expect("it listens"));
                drop(job.expect("it is taken"));
            }
        }
        drop(says);
        own.let_go();
        let helped: Vec<(NodeId, NodeId)> = helped.iter().collect();
        others.let_go();
        assert!(helped.iter().all(|(_, on)| *on == thief), "{helped:?}");
        let distances: Vec<u32> = helped
            .iter()
            .map(|(node, _)| ground.topology.distance(thief, *node))
            .collect();
        assert!(
            distances.is_sorted(),
            "node {thief} helped at {distances:?}"
        );
        let from = data.iter().filter(|(node, _)| *node != thief).count();
        assert_eq!(helped.len(), JOBS * from);
    }
}
