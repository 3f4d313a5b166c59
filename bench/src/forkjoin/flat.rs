//! Flat loops that only compute.
//!
//! In `flat` every number of the range has the same work; in `flat-uneven` the more the later it comes,
//! so that halves of the range are no halves of the work.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::case::{Case, Contender, Outcome, Task, floor, ours, peer};
use crate::forkjoin::case;
use crate::forkjoin::memory::paralight_pool;
use crate::forks::{rayon_pool, reiver_engine};
use crate::outside;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "flat",
            "ms",
            "a loop over 1M numbers (quick 200k), 64 steps each",
            contenders::<false>(),
        ),
        case(
            "flat-uneven",
            "ms",
            "a loop over 1M numbers (quick 200k), 1 step for the first and 128 for the last",
            contenders::<true>(),
        ),
    ]
}

fn contenders<const UNEVEN: bool>() -> Vec<Contender> {
    vec![
        ours("reiver par_for", reiver::<UNEVEN>),
        peer("rayon par_iter", rayon::<UNEVEN>),
        peer("paralight", paralight::<UNEVEN>),
        peer("openmp", openmp::<UNEVEN>),
        floor("serial", serial::<UNEVEN>),
    ]
}

fn len(task: &Task) -> usize {
    task.size(1_000_000, 200_000)
}

/// The logistic map: nothing to vectorise along it, nothing to fetch.
fn steps<const UNEVEN: bool>(i: usize, len: usize) -> u64 {
    let count = if UNEVEN {
        1 + 127 * i / len
    } else {
        black_box(64)
    };
    let mut x = (i + 1) as f64 / (len + 1) as f64;
    for _ in 0..count {
        x = 3.9 * x * (1.0 - x);
    }
    x.to_bits()
}

/// Times `fill`, which is to put what the steps come to into every place, and checks some of it.
fn sample<const UNEVEN: bool>(task: &Task, mut fill: impl FnMut(&[AtomicU64])) -> Outcome {
    let len = len(task);
    let places: Vec<AtomicU64> = (0..len).map(|_| AtomicU64::new(0)).collect();
    let samples = task.sample_ms(|| fill(&places));
    for i in (0..len).step_by(len / 100).chain([len - 1]) {
        // ORDERING: relaxed, as all here: whoever filled it has been waited for.
        assert_eq!(
            places[i].load(Ordering::Relaxed),
            steps::<UNEVEN>(i, len),
            "a place"
        );
    }
    Ok(samples)
}

fn reiver<const UNEVEN: bool>(task: &Task) -> Outcome {
    let engine = reiver_engine(task.threads);
    sample::<UNEVEN>(task, |places| {
        engine.par_for(0..places.len(), 0, |i| put::<UNEVEN>(places, i));
    })
}

fn put<const UNEVEN: bool>(places: &[AtomicU64], i: usize) {
    places[i].store(steps::<UNEVEN>(i, places.len()), Ordering::Relaxed);
}

fn rayon<const UNEVEN: bool>(task: &Task) -> Outcome {
    use ::rayon::prelude::*;
    let pool = rayon_pool(task.threads);
    sample::<UNEVEN>(task, |places| {
        pool.install(|| {
            (0..places.len())
                .into_par_iter()
                .for_each(|i| put::<UNEVEN>(places, i))
        });
    })
}

fn paralight<const UNEVEN: bool>(task: &Task) -> Outcome {
    use ::paralight::prelude::*;
    let mut pool = paralight_pool(task);
    sample::<UNEVEN>(task, |places| {
        (0..places.len())
            .into_par_iter()
            .with_thread_pool(&mut pool)
            .for_each(|i| put::<UNEVEN>(places, i));
    })
}

fn openmp<const UNEVEN: bool>(task: &Task) -> Outcome {
    let name = if UNEVEN { "flat-uneven" } else { "flat" };
    outside::openmp(task, name, len(task))
}

fn serial<const UNEVEN: bool>(task: &Task) -> Outcome {
    sample::<UNEVEN>(task, |places| {
        (0..places.len()).for_each(|i| put::<UNEVEN>(places, i))
    })
}
