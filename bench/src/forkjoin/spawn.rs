//! A million tiny closures: spawned in a scope from inside, brought one by one from outside, and brought
//! in one go.
//!
//! Each notes in a word of its own thread that it ran; the notes are added up and checked.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::case::{Case, Outcome, Task, floor, ours, peer};
use crate::forkjoin::case;
use crate::forks::{FORTE, rayon_pool, reiver_engine};
use crate::thread_pools::{Bare, Pool, pools, tokio_runtime};

const FULL: u64 = 1_000_000;
const QUICK: u64 = 200_000;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "spawn-inside",
            "ns each",
            "1M spawns (quick 200k) in a scope, from a worker, until all have run",
            vec![
                ours("reiver", inside_reiver),
                peer("rayon", inside_rayon),
                peer("forte", inside_forte),
                peer("tokio", inside_tokio),
            ],
        ),
        case(
            "spawn-outside",
            "ns each",
            "1M jobs (quick 200k) brought one by one from outside, until all have run",
            {
                let mut contenders = pools!(outside);
                contenders.push(floor("a bare job with a handle", outside::<Bare>));
                contenders
            },
        ),
        case(
            "submit-many",
            "ns each",
            "1M tiny jobs (quick 200k) brought from outside in the contender's best way",
            vec![
                ours("reiver submit_many", many_reiver),
                peer("rayon scope", many_rayon),
                peer("tokio spawn", outside::<crate::thread_pools::Tokio>),
                peer(
                    "channel and threads",
                    outside::<crate::thread_pools::Channel>,
                ),
            ],
        ),
    ]
}

/// How often something ran, a word a thread.
static RAN: [CachePadded<AtomicU64>; 64] = [const { CachePadded::new(AtomicU64::new(0)) }; 64];
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static WORD: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

/// Takes a number, so that no box is for free for being empty.
fn note(number: u64) {
    black_box(number);
    let word = WORD.get().unwrap_or_else(|| {
        // ORDERING: relaxed, as all here: each word is written by one thread, and only counts.
        let word: &AtomicU64 = &RAN[THREADS.fetch_add(1, Ordering::Relaxed)];
        WORD.set(Some(word));
        word
    });
    word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

fn ran() -> u64 {
    RAN.iter().map(|word| word.load(Ordering::Relaxed)).sum()
}

/// Nanoseconds for each of `spawns`, which `bring` brings; over when all have run.
fn sample(task: &Task, bring: impl Fn(u64)) -> Outcome {
    let spawns = task.size(FULL, QUICK);
    Ok(task.sample(|| {
        let before = ran();
        let start = Instant::now();
        bring(spawns);
        while ran() - before < spawns {
            thread::sleep(Duration::from_micros(20));
        }
        let time = start.elapsed();
        assert_eq!(ran() - before, spawns, "each runs once");
        time.as_secs_f64() * 1e9 / spawns as f64
    }))
}

fn inside_reiver(task: &Task) -> Outcome {
    let engine = reiver_engine(task.threads);
    sample(task, |spawns| {
        engine.scope(|scope| (0..spawns).for_each(|i| scope.spawn(move |_| note(i))));
    })
}

fn inside_rayon(task: &Task) -> Outcome {
    let pool = rayon_pool(task.threads);
    sample(task, |spawns| {
        pool.scope(|scope| (0..spawns).for_each(|i| scope.spawn(move |_| note(i))));
    })
}

/// Whoever opens the scope is one of the threads.
fn inside_forte(task: &Task) -> Outcome {
    FORTE.resize_to(task.threads - 1);
    sample(task, |spawns| {
        FORTE.scope(|scope| (0..spawns).for_each(|i| scope.spawn(move |_| note(i))));
    })
}

/// Tokio has no scopes: the same spawns from a task.
fn inside_tokio(task: &Task) -> Outcome {
    let runtime = tokio_runtime(task.threads);
    sample(task, |spawns| {
        runtime.spawn(async move {
            (0..spawns).for_each(|i| drop(tokio::spawn(async move { note(i) })));
        });
    })
}

fn outside<P: Pool>(task: &Task) -> Outcome {
    let pool = P::start(task.threads);
    sample(task, |spawns| {
        (0..spawns).for_each(|i| pool.give(move || note(i)))
    })
}

fn many_reiver(task: &Task) -> Outcome {
    let engine = reiver_engine(task.threads);
    sample(task, |spawns| {
        drop(engine.submit_many((0..spawns).map(|i| move |_: &reiver::JobContext| note(i))));
    })
}

fn many_rayon(task: &Task) -> Outcome {
    let pool = rayon_pool(task.threads);
    sample(task, |spawns| {
        pool.in_place_scope(|scope| (0..spawns).for_each(|i| scope.spawn(move |_| note(i))));
    })
}
