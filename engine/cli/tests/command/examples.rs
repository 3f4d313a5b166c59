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

/// What an example prints, its jobs in any order.
fn printed(name: &str, code: i32) -> (Case, Vec<String>) {
    let (case, done) = run(name);
    let mut lines: Vec<String> = done
        .expect(code)
        .stdout
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    (case, lines)
}

#[test]
fn matrix() {
    let (_case, lines) = printed("matrix.toml", 0);
    for line in [
        "HOUSE",
        "IT'S",
        "it's",
        "TWO WORDS",
        "two words",
        "LHWDC",
        "a cell of its own",
    ] {
        assert!(lines.iter().any(|other| other == line), "{line}: {lines:?}");
    }
    assert!(!lines.iter().any(|line| line == "house"), "it is excluded");
}

#[test]
fn retries() {
    let (case, lines) = printed("retries.toml", 0);
    assert_eq!(lines, ["0"]);
    assert_eq!(case.read("out/retries/flaky.3.out"), "attempt 3\n");
}

#[test]
fn needs() {
    let (_case, lines) = printed("needs.toml", 1);
    let expected = [
        "building",
        "cleaning up",
        "one test fails",
        "somebody should look at the tests",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn streams() {
    let (_case, done) = run("streams.toml");
    let expected =
        "hello\na job's own env goes over the defaults\n1 a\n2 b\n3 c\nout\nerr\nout again\n";
    assert_eq!(done.expect(0).stdout, expected);
}

#[test]
fn limits() {
    let (_case, lines) = printed("limits.toml", 0);
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[4], "wide: 2 slots of my own");
}

#[test]
fn words() {
    let (_case, lines) = printed("words.txt", 0);
    assert!(
        lines.contains(&"COLOUR is still green, SHAPE is round".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn jobs() {
    let (_case, lines) = printed("jobs.jsonl", 0);
    assert_eq!(lines, ["1 2 3 4 5 ", "15", "5 4 3 2 1 "]);
}

#[test]
fn every_example_is_run_by_a_test() {
    let tests = include_str!("examples.rs");
    for entry in fs::read_dir(examples()).expect("the examples").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        if entry.path().is_file() {
            assert!(
                tests.contains(&format!("\"{name}\"")),
                "{name} is run by no test"
            );
        }
    }
}

#[test]
fn places() {
    let (_case, lines) = printed("places.toml", 0);
    let asked = [
        "ask 1", "ask 2", "ask 3", "ask 4", "render 1", "render 2", "render 3",
    ];
    assert_eq!(lines[..7], asked);
    assert!(lines[7].starts_with("solve 1 on node "), "{lines:?}");
    assert_eq!(lines[10..], ["tidy"]);
}
