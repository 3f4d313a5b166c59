//! How much of a long test is done.

/// `full`, divided by what `REIVER_SHRINK` says: for tools that make everything slower, like valgrind.
pub(crate) fn sized(full: usize) -> usize {
    let by = std::env::var("REIVER_SHRINK").map_or(1, |by| by.parse().unwrap());
    (full / by).max(1)
}
