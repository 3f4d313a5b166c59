//! Quicksort, a fork a partition.
//!
//! Memory that is walked through, and halves that are none. The first partition runs on one thread,
//! whoever forks: so two threads can save less than half of the time.

use std::time::Instant;

use crate::case::{Case, Outcome, Task};
use crate::forkjoin::case;
use crate::forks::{Forks, forkers_and_serial};

pub(super) fn cases() -> Vec<Case> {
    let what =
        "quicksort of 10M u32 (quick 1M), a fork a partition, parts of 64 by the standard library";
    vec![case("quicksort", "ms", what, forkers_and_serial!(run))]
}

const LEAF: usize = 64;

fn sort<F: Forks>(here: &mut F::Here<'_>, data: &mut [u32]) {
    if data.len() <= LEAF {
        return data.sort_unstable();
    }
    let middle = partition(data);
    let (left, right) = data.split_at_mut(middle);
    F::join(
        here,
        |here| sort::<F>(here, left),
        |here| sort::<F>(here, &mut right[1..]),
    );
}

/// Puts the median of three where it belongs, with nothing greater before it and nothing less behind.
fn partition(data: &mut [u32]) -> usize {
    let last = data.len() - 1;
    let middle = data.len() / 2;
    let mut three = [(data[0], 0), (data[middle], middle), (data[last], last)];
    three.sort_unstable();
    data.swap(three[1].1, last);
    let pivot = data[last];
    let mut end = 0;
    for i in 0..last {
        // Without a branch: half of them would be mispredicted.
        let below = data[i] < pivot;
        data.swap(i, end);
        end += usize::from(below);
    }
    data.swap(end, last);
    end
}

fn run<F: Forks>(task: &Task) -> Outcome {
    let len = task.size(10_000_000_u32, 1_000_000);
    // A bijection of 32 bits, so that all are different.
    let data: Vec<u32> = (0..len)
        .map(|i| i.wrapping_mul(2_654_435_761).rotate_left(13))
        .collect();
    let mut sorted = data.clone();
    let engine = F::start(task.threads);
    Ok(task.sample(|| {
        sorted.copy_from_slice(&data);
        let start = Instant::now();
        engine.enter(|here| sort::<F>(here, &mut sorted));
        let time = start.elapsed();
        assert!(sorted.is_sorted(), "they are sorted");
        time.as_secs_f64() * 1e3
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forks::Serial;

    #[test]
    fn equal_numbers_and_short_slices_are_sorted() {
        let mut data: Vec<u32> = (0..1000).map(|i| (i * 7919) % 10).collect();
        sort::<Serial>(&mut (), &mut data);
        assert!(data.is_sorted());
        let mut one = [3];
        sort::<Serial>(&mut (), &mut one);
    }

    #[test]
    fn a_pivot_stands_where_it_belongs() {
        let mut data: Vec<u32> = (0..100).map(|i| (i * 37) % 101).collect();
        let middle = partition(&mut data);
        assert!(data[..middle].iter().all(|x| *x <= data[middle]));
        assert!(data[middle..].iter().all(|x| *x >= data[middle]));
    }
}
