//! With how many threads cases are run: all numbers come from the machine.

use std::thread;

/// CPUs that this process may use.
pub(crate) fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// 1, 2, 4 and so on, to twice the CPUs of this process.
pub(crate) fn up_to_twice_the_cpus() -> Vec<usize> {
    doubled_to(2 * cpus())
}

/// The same, and no less than eight.
pub(crate) fn up_to_eight_or_more() -> Vec<usize> {
    doubled_to(8.max(2 * cpus()))
}

/// One, one for each CPU, and two.
pub(crate) fn few() -> Vec<usize> {
    let mut few = vec![1, cpus(), 2 * cpus()];
    few.dedup();
    few
}

/// 2, 4 and so on, as far as each has a CPU: whoever wait for each other are measured at no more.
pub(crate) fn as_there_are_cpus() -> Vec<usize> {
    let more = up_to_twice_the_cpus().into_iter();
    more.filter(|threads| *threads == 2 || (3..=cpus()).contains(threads))
        .collect()
}

/// Ends with the greatest, whether it is a power of two or not.
fn doubled_to(most: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |threads| Some(2 * threads));
    let mut all: Vec<usize> = doubled.take_while(|threads| *threads < most).collect();
    all.push(most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_double_up_to_the_greatest() {
        assert_eq!(doubled_to(1), [1]);
        assert_eq!(doubled_to(2), [1, 2]);
        assert_eq!(doubled_to(8), [1, 2, 4, 8]);
        assert_eq!(doubled_to(12), [1, 2, 4, 8, 12]);
    }

    #[test]
    fn who_waits_for_another_has_one() {
        assert_eq!(as_there_are_cpus()[0], 2);
    }
}
