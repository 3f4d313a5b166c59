//! An object taken and given back, and a counter added to, in one process: what `just bench pools` has no
//! room for, such as the ways to take one object.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use reiver_pool::counter::PaddedCounter;
use reiver_pool::{BufferPool, Pool};

fn objects(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("64 B taken, written to, given back");
    let pool = Pool::builder(|| [0_u8; 64]).build();
    group.bench_function("get", |bench| {
        bench.iter(|| pool.get()[0] = black_box(1));
    });
    group.bench_function("try_get", |bench| {
        bench.iter(|| {
            if let Ok(mut object) = pool.try_get() {
                object[0] = black_box(1);
            }
        });
    });
    group.bench_function("get_owned", |bench| {
        bench.iter(|| pool.get_owned()[0] = black_box(1));
    });
    let bounded = Pool::builder(|| [0_u8; 64]).capacity_per_node(1024).build();
    group.bench_function("get with a capacity", |bench| {
        bench.iter(|| bounded.get()[0] = black_box(1));
    });
    let zeroing = Pool::builder(|| [0_u8; 64])
        .reset(|object| object.fill(0))
        .build();
    group.bench_function("get with a reset", |bench| {
        bench.iter(|| zeroing.get()[0] = black_box(1));
    });
    group.bench_function("Box", |bench| {
        bench.iter(|| black_box(Box::new([0_u8; 64]))[0] = black_box(1));
    });
    group.finish();
}

fn buffers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a buffer taken, written to, given back");
    let pool = BufferPool::new();
    for kib in [4, 64, 1024] {
        group.bench_function(format!("{kib} KiB"), |bench| {
            bench.iter(|| pool.get(kib << 10)[0] = black_box(1));
        });
    }
    group.finish();
}

fn counters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a counter");
    let counter = PaddedCounter::new();
    group.bench_function("add", |bench| bench.iter(|| counter.add(black_box(1))));
    group.bench_function("sum", |bench| bench.iter(|| counter.sum()));
    group.finish();
}

criterion_group!(benches, objects, buffers, counters);
criterion_main!(benches);
