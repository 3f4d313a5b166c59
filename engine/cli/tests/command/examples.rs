//! The job files of `examples/`, as a newcomer runs them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::case::Case;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// Runs an example on a copy of the folder, so that tests leave the original alone.
fn run(name: &str) -> (Case, crate::case::Done) {
    let case = Case::new();
    for entry in fs::read_dir(examples()).expect("the examples").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::copy(entry.path(), case.path(entry.file_name().to_str().unwrap())).unwrap();
        }
    }
    let done = case.reiver(&["run", name]);
    (case, done)
}

#[test]
fn quickstart() {
    let (case, done) = run("quickstart.toml");
    let done = done.expect(0);
    assert!(
        done.stdout.contains("all pieces are whole"),
        "{}",
        done.stdout
    );
    assert!(
        done.stderr.contains("14 jobs: 14 succeeded"),
        "{}",
        done.stderr
    );
    assert!(case.has("out/quickstart/4.txt.gz"));
}
