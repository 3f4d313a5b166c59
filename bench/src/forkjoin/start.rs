//! How long it takes to begin: the global engine up to its first result in a fresh process, and an
//! engine for a machine of 256 cores that is only described.
//!
//! Without forte: its pools are statics, and emptying one, to fill it again, deadlocks in 1.0.0-alpha.4
//! (it waits for its heartbeat thread while it holds the lock that this one is waiting for).

use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use reiver::{Engine, Topology};

use crate::case::{Case, Outcome, Task, Trouble, floor, ours, peer};
use crate::forkjoin::case;
use crate::forks::rayon_pool;
use crate::thread_pools::tokio_runtime;
use crate::threads;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "cold-start",
            "us",
            "the global engine up to its first result, once a process; as many threads as CPUs",
            vec![
                ours("reiver", cold_reiver),
                peer("rayon", cold_rayon),
                peer("chili", cold_chili),
                peer("tokio", cold_tokio),
                floor("threads, and the machine is read", cold_threads),
            ],
        )
        .at(&[threads::cpus()]),
        case(
            "build-256",
            "ms",
            "an engine of 256 workers up to its first result, for reiver on a described machine of 4 nodes",
            vec![
                ours("reiver", build_reiver),
                peer("rayon", build_rayon),
                peer("tokio", build_tokio),
            ],
        )
        .at(&[256]),
    ]
}

/// Only the first time is cold.
fn once(first: impl FnOnce() -> u64) -> Outcome {
    let start = Instant::now();
    let value = first();
    let time = start.elapsed();
    assert_eq!(value, 42, "the first result");
    Ok(vec![time.as_secs_f64() * 1e6])
}

fn cold_reiver(_: &Task) -> Outcome {
    once(|| Engine::global().install(|| 42))
}

fn cold_rayon(_: &Task) -> Outcome {
    once(|| rayon::scope(|_| 42))
}

fn cold_chili(_: &Task) -> Outcome {
    once(|| chili::Scope::global().join(|_| 40, |_| 2).0 + 2)
}

fn cold_tokio(_: &Task) -> Outcome {
    once(|| {
        let runtime = tokio::runtime::Runtime::new().expect("the system gives threads");
        let value = runtime
            .block_on(runtime.spawn(async { 42 }))
            .expect("it runs");
        std::mem::forget(runtime);
        value
    })
}

/// What an engine cannot do without that knows where its workers are.
fn cold_threads(task: &Task) -> Outcome {
    once(|| {
        let machine = Topology::detect().expect("this machine");
        let workers = machine.worker_count().min(task.threads);
        let (give, take) = channel();
        for _ in 0..workers {
            let give = give.clone();
            thread::spawn(move || give.send(42));
        }
        take.recv().expect("a thread gives it")
    })
}

/// Milliseconds of `build`; what it built is dropped outside of them.
fn built<E>(task: &Task, build: impl Fn() -> (E, u64)) -> Outcome {
    Ok(task.sample(|| {
        let start = Instant::now();
        let (engine, value) = build();
        let time = start.elapsed();
        assert_eq!(value, 42, "the first result");
        drop(engine);
        time.as_secs_f64() * 1e3
    }))
}

fn build_reiver(task: &Task) -> Outcome {
    let machine = Topology::synthetic("NUMANode:4 Core:64 PU:1");
    let machine = machine.map_err(|error| Trouble::Failed(error.to_string()))?;
    built(task, || {
        let engine = Engine::builder().topology(machine.clone()).build();
        let engine = engine.expect("a described machine");
        assert_eq!(engine.metrics().workers(), task.threads, "a worker a core");
        let value = engine.install(|| 42);
        (engine, value)
    })
}

fn build_rayon(task: &Task) -> Outcome {
    built(task, || {
        let pool = rayon_pool(task.threads);
        let value = pool.install(|| 42);
        (pool, value)
    })
}

fn build_tokio(task: &Task) -> Outcome {
    built(task, || {
        let runtime = tokio_runtime(task.threads);
        let value = runtime
            .block_on(runtime.spawn(async { 42 }))
            .expect("it runs");
        (runtime, value)
    })
}
