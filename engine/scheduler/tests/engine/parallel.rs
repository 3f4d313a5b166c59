use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine;

/// The parts that a range is given in, in order.
fn parts(workers: usize, range: Range<usize>, grain: usize) -> Vec<Range<usize>> {
    let parts = Mutex::new(Vec::new());
    engine(workers).par_for_ranges(range, grain, |part| parts.lock().unwrap().push(part));
    let mut parts = parts.into_inner().unwrap();
    parts.sort_by_key(|part| part.start);
    parts
}

#[test]
fn the_parts_are_the_range_and_no_smaller_than_the_grain() {
    for (range, grain) in [
        (0..1, 1),
        (5..6, 100),
        (0..1000, 1),
        (3..1003, 7),
        (0..100_000, 0),
        (0..1023, 0),
        (10..15, 2),
        (usize::MAX - 1000..usize::MAX, 10),
    ] {
        let parts = parts(2, range.clone(), grain);
        let mut at = range.start;
        for part in &parts {
            assert_eq!(part.start, at);
            at = part.end;
            let least = grain.max(1).min(range.len());
            assert!(part.len() >= least, "{part:?} of {range:?} by {grain}");
            assert!(grain == 0 || part.len() < 2 * grain || part.len() == range.len());
        }
        assert_eq!(at, range.end);
        if grain == 0 && range.len() >= 1024 {
            assert!((512..=2048).contains(&parts.len()), "{}", parts.len());
        }
    }
}

#[test]
fn the_parts_do_not_depend_on_the_workers() {
    let alone = parts(1, 0..12_345, 13);
    for workers in [2, 3, 8] {
        assert_eq!(parts(workers, 0..12_345, 13), alone);
    }
    let sum = |workers| {
        let harmonic = |sum: f64, i: usize| sum + 1.0 / (1.0 + i as f64);
        engine(workers).par_reduce(0..100_000, 0, || 0.0, harmonic, |a, b| a + b)
    };
    assert_eq!(sum(1).to_bits(), sum(5).to_bits());
}

#[test]
fn an_empty_range_calls_nobody() {
    let engine = engine(2);
    let calls = AtomicUsize::new(0);
    let count = || {
        calls.fetch_add(1, Ordering::Relaxed);
    };
    #[expect(clippy::reversed_empty_ranges, reason = "that is the question")]
    for range in [0..0, 7..7, 9..3] {
        engine.par_for(range.clone(), 0, |_| count());
        engine.par_for_ranges(range.clone(), 1, |_| count());
        assert_eq!(engine.par_reduce(range, 3, || 42, |_, _| 0, |_, _| 0), 42);
    }
    engine.par_chunks_mut(&mut [0_u8; 0], 3, |_, _| count());
    assert_eq!(calls.into_inner(), 0);
}

#[test]
fn every_piece_is_given_once_with_its_number() {
    let engine = engine(3);
    for (length, len) in [(1, 1), (10, 3), (100_000, 1), (100_001, 10), (7, 100)] {
        let mut data = vec![usize::MAX; length];
        engine.par_chunks_mut(&mut data, len, |number, piece| {
            assert!(piece.len() == len || number == length / len);
            for (offset, value) in piece.iter_mut().enumerate() {
                *value = number * len + offset;
            }
        });
        assert!(data.into_iter().eq(0..length), "{length} by {len}");
    }
    let zero = AssertUnwindSafe(|| engine.par_chunks_mut(&mut [1, 2], 0, |_, _| ()));
    assert!(catch_unwind(zero).is_err());
}

#[test]
fn loops_within_loops_and_from_anywhere() {
    let count = AtomicUsize::new(0);
    reiver::par_for(0..30, 1, |_| {
        reiver::par_for(0..30, 1, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(count.into_inner(), 900);
    let engine = engine(2);
    let job =
        engine.submit(|_| reiver::par_map_reduce(0..1000, 10, |part| part.len(), |a, b| a + b));
    assert_eq!(job.join().unwrap(), 1000);
}
