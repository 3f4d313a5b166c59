//! Programs that are not Rust: whoever counts (valgrind, perf, strace), and contenders that are
//! compiled when they are needed.

/// Ends this process without waiting for the threads of contenders.
pub(crate) fn end_now() -> ! {
    std::process::exit(0)
}
