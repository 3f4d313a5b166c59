//! A quicksort by fork and join: both halves at once, where a worker is free.
//!
//!     cargo run --release -p reiver --example fork_join

fn sort<T: Ord + Send>(values: &mut [T]) {
    if values.len() <= 1000 {
        return values.sort_unstable();
    }
    let (left, pivot, right) = values.select_nth_unstable(values.len() / 2);
    debug_assert!(left.iter().all(|value| value <= pivot));
    reiver::join(|| sort(left), || sort(right));
}

fn main() {
    // Every number below a million once, mixed up: the factor shares no divisor with a million.
    let mut values: Vec<u64> = (0..1_000_000).map(|i| i * 618_033 % 1_000_000).collect();
    sort(&mut values);
    assert!(values.iter().copied().eq(0..1_000_000));
    println!("sorted {} numbers", values.len());
}
