//! The examples run, and find what they say: each checks its own result.
//!
//! They are run as built, which `cargo test` does unless it is asked for this test alone.

#[path = "engine/watchdog.rs"]
mod watchdog;

use std::path::PathBuf;
use std::process::Command;

/// Beside the folder that this test lies in.
fn example(name: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let target = me.parent().and_then(|deps| deps.parent()).unwrap();
    target.join("examples").join(name)
}

fn says(name: &str, expected: &str) {
    watchdog::watched();
    let path = example(name);
    assert!(
        path.exists(),
        "{} is not built; `cargo build -p reiver --examples` builds it",
        path.display()
    );
    let output = Command::new(path).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(expected), "{name}: {text}");
}

#[test]
fn examples_run_and_print_what_is_true() {
    says("fork_join", "sorted 1000000 numbers");
    says("batch", "from 27 it takes 111 steps to 1");
    says(
        "batch",
        "word 2 is no number: invalid digit found in string",
    );
    says("numa_array", "4194304 numbers on ");
    says("mixed", "bulk: 306944 primes");
    says("watching", "watchdog: stuck still runs");
    says("limits", "downloaded 12 files");
    says(
        "limits",
        "after 4 attempts: the breaker of the job's name is open",
    );
}

#[cfg(feature = "tokio")]
#[test]
fn the_example_of_futures_runs() {
    says("futures", "the squares below 100 add up to 328350");
    says("futures", "an hour of sleep: the job's deadline passed");
}

#[cfg(feature = "rayon")]
#[test]
fn the_example_of_rayon_runs() {
    says("node_pools", "node 0: ");
}
