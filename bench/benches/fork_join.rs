//! Joins, and jobs brought one by one, beside rayon with the same number of workers.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// The same recursion for both.
macro_rules! fib {
    ($name:ident, $join:path) => {
        fn $name(n: u64) -> u64 {
            if n < 2 {
                return n;
            }
            let (left, right) = $join(|| $name(n - 1), || $name(n - 2));
            left + right
        }
    };
}

fib!(fib_reiver, reiver::join);
fib!(fib_rayon, rayon::join);

fn joins(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fib(24) by joins");
    for workers in [1, 2] {
        let engine = reiver::Engine::builder().cpu_workers(workers).build();
        let engine = engine.expect("an engine");
        group.bench_function(BenchmarkId::new("reiver", workers), |bench| {
            bench.iter(|| engine.install(|| fib_reiver(black_box(24))));
        });
        let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build();
        let pool = pool.expect("a pool");
        group.bench_function(BenchmarkId::new("rayon", workers), |bench| {
            bench.iter(|| pool.install(|| fib_rayon(black_box(24))));
        });
    }
    group.finish();
}

fn sums(criterion: &mut Criterion) {
    use rayon::prelude::*;

    let data: Vec<f64> = (0..10_000_000_u32).map(f64::from).collect();
    let squares = |part: &[f64]| part.iter().map(|x| x * x).sum::<f64>();
    let mut group = criterion.benchmark_group("sum of squares of 10M f64");
    let engine = reiver::Engine::builder().cpu_workers(2).build();
    let engine = engine.expect("an engine");
    group.bench_function("reiver par_map_reduce", |bench| {
        bench.iter(|| {
            engine.par_map_reduce(0..data.len(), 0, |part| squares(&data[part]), |a, b| a + b)
        });
    });
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    let pool = pool.expect("a pool");
    group.bench_function("rayon par_chunks", |bench| {
        bench.iter(|| pool.install(|| data.par_chunks(10_000).map(squares).sum::<f64>()));
    });
    group.finish();
}

fn jobs(criterion: &mut Criterion) {
    const JOBS: usize = 10_000;
    let mut group = criterion.benchmark_group("10,000 jobs from outside");
    let engine = reiver::Engine::builder().cpu_workers(2).build();
    let engine = engine.expect("an engine");
    group.bench_function("reiver submit", |bench| {
        bench.iter(|| {
            let jobs: Vec<_> = (0..JOBS).map(|i| engine.submit(move |_| i)).collect();
            jobs.into_iter()
                .map(|job| job.join().expect("a value"))
                .sum::<usize>()
        });
    });
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    let pool = pool.expect("a pool");
    group.bench_function("rayon spawn", |bench| {
        bench.iter(|| {
            let sum = Arc::new(AtomicUsize::new(0));
            let (done, all) = std::sync::mpsc::channel::<()>();
            for i in 0..JOBS {
                let (sum, done) = (Arc::clone(&sum), done.clone());
                pool.spawn(move || {
                    sum.fetch_add(i, Ordering::Relaxed);
                    drop(done);
                });
            }
            drop(done);
            let _ = all.recv();
            sum.load(Ordering::Relaxed)
        });
    });
    group.finish();
}

criterion_group!(benches, joins, sums, jobs);
criterion_main!(benches);
