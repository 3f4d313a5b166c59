//! A sum of squares over more memory than any cache holds: who splits it up well only waits for memory.
//!
//! The floor is what so many plain threads need to read it, having done nothing else with it than to
//! add it up as whole numbers. Where a contender hands out chunks, the loop inside is the same for all:
//! sixteen sums side by side, which the compiler vectorises; `par_reduce` and `par_iter` see one number
//! at a time.

use std::num::NonZero;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use paralight::prelude as paralight;

use crate::case::{Case, Outcome, Task, floor, ours, peer};
use crate::forkjoin::case;
use crate::forks::{rayon_pool, reiver_engine};
use crate::outside;

pub(super) fn cases() -> Vec<Case> {
    let contenders = vec![
        ours("reiver par_map_reduce", reiver_chunks),
        ours("reiver par_reduce", reiver_each),
        peer("rayon par_chunks", rayon_chunks),
        peer("rayon par_iter", rayon_each),
        peer("paralight chunks", paralight_chunks),
        peer("openmp", openmp),
        floor("threads that only read", read),
    ];
    let what = "the sum of squares of 100M f64 (quick 10M)";
    vec![case("memory", "ms", what, contenders)]
}

const CHUNK: usize = 8192;

fn len(task: &Task) -> usize {
    task.size(100_000_000, 10_000_000)
}

/// Whole numbers, whose squares add up exactly in any order.
fn data(task: &Task) -> Vec<f64> {
    (0_u32..1000)
        .map(f64::from)
        .cycle()
        .take(len(task))
        .collect()
}

fn squares(part: &[f64]) -> f64 {
    let mut sums = [0.0; 16];
    let (blocks, rest) = part.as_chunks::<16>();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x * x;
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|x| x * x).sum::<f64>()
}

/// Times `sum`, and checks it.
fn sample(task: &Task, mut sum: impl FnMut(&[f64]) -> f64) -> Outcome {
    let data = data(task);
    let expected = data.len() as f64 / 1000.0 * 332_833_500.0;
    Ok(task.sample_ms(|| assert_eq!(sum(&data), expected, "a sum of squares")))
}

fn reiver_chunks(task: &Task) -> Outcome {
    let engine = reiver_engine(task.threads);
    sample(task, |data| {
        engine.par_map_reduce(0..data.len(), 0, |part| squares(&data[part]), |a, b| a + b)
    })
}

fn reiver_each(task: &Task) -> Outcome {
    let engine = reiver_engine(task.threads);
    sample(task, |data| {
        engine.par_reduce(
            0..data.len(),
            0,
            || 0.0,
            |sum, i| sum + data[i] * data[i],
            |a, b| a + b,
        )
    })
}

fn rayon_chunks(task: &Task) -> Outcome {
    use rayon::prelude::*;
    let pool = rayon_pool(task.threads);
    sample(task, |data| {
        pool.install(|| data.par_chunks(CHUNK).map(squares).sum())
    })
}

fn rayon_each(task: &Task) -> Outcome {
    use rayon::prelude::*;
    let pool = rayon_pool(task.threads);
    sample(task, |data| {
        pool.install(|| data.par_iter().map(|x| x * x).sum())
    })
}

/// Paralight has no chunks of slices; their numbers do.
fn paralight_chunks(task: &Task) -> Outcome {
    use self::paralight::*;
    let mut pool = paralight_pool(task);
    sample(task, |data| {
        let chunk = |i: usize| &data[i * CHUNK..data.len().min((i + 1) * CHUNK)];
        (0..data.len().div_ceil(CHUNK))
            .into_par_iter()
            .with_thread_pool(&mut pool)
            .map(|i| squares(chunk(i)))
            .sum::<f64>()
    })
}

pub(super) fn paralight_pool(task: &Task) -> paralight::ThreadPool {
    let threads = NonZero::new(task.threads).expect("one thread or more is asked for");
    paralight::ThreadPoolBuilder {
        num_threads: paralight::ThreadCount::Count(threads),
        range_strategy: paralight::RangeStrategy::WorkStealing,
        cpu_pinning: paralight::CpuPinningPolicy::No,
    }
    .build()
}

fn openmp(task: &Task) -> Outcome {
    outside::openmp(task, "sum", len(task))
}

fn read(task: &Task) -> Outcome {
    let data = data(task);
    let expected = bits(&data);
    Ok(task.sample(|| {
        let together = Barrier::new(task.threads);
        let read = |part| {
            together.wait();
            let start = Instant::now();
            let sum = bits(part);
            (start, Instant::now(), sum)
        };
        let done: Vec<_> = thread::scope(|scope| {
            let parts = data.chunks(data.len().div_ceil(task.threads));
            let readers: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
            readers
                .into_iter()
                .map(|reader| reader.join().expect("it only reads"))
                .collect()
        });
        let sums = done.iter().map(|(_, _, sum)| *sum);
        assert_eq!(sums.fold(0, u64::wrapping_add), expected, "a sum of bits");
        let first = done
            .iter()
            .map(|(start, ..)| *start)
            .min()
            .expect("a thread");
        let last = done.iter().map(|(_, end, _)| *end).max().expect("a thread");
        last.duration_since(first).as_secs_f64() * 1e3
    }))
}

fn bits(part: &[f64]) -> u64 {
    part.iter().fold(0, |sum, x| sum.wrapping_add(x.to_bits()))
}
