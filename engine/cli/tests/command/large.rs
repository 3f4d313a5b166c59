//! Job files of 100 MB. Their jobs are few for that, so that a debug build reads them in seconds; what a
//! million of jobs takes is measured (`NOTES.md` of `engine/batch`).

use crate::case::Case;

/// The jobs before the last one, each of 1000 bytes.
const JOBS: usize = 100_000;

/// Jobs that do nothing with much, in one of the forms, and another one at the end.
fn file(job: impl Fn(&str) -> String, last: &str) -> String {
    let empty = job("").len();
    let file = job(&"x".repeat(1000 - empty)).repeat(JOBS) + &job(last);
    assert!(file.len() > 100_000_000);
    file
}

/// Its last job is found, and so is a mistake in it.
fn is_read_to_its_end(form: &str, job: impl Fn(&str) -> String, mistake: &str) {
    let case = Case::new();
    let name = format!("large.{form}");
    case.write(&name, file(&job, "; echo last"));
    let number = JOBS + 1;
    let filter = format!("*-{number}");
    let done = case.reiver(&["run", &name, "--filter", &filter]).expect(0);
    assert_eq!(done.stdout, "last\n");
    assert!(done.stderr.contains("1 job: 1 succeeded"), "{done:?}");

    case.write(&name, file(&job, mistake));
    let done = case.reiver(&["check", &name]).expect(2);
    let place = format!("{name}:{number}:");
    assert!(done.stdout.contains(&place), "{done:?}");
    assert!(done.stdout.contains("1 mistake"), "{done:?}");
}

#[test]
fn a_list_of_100_mb_is_read_to_its_end() {
    is_read_to_its_end("txt", |text| format!(": {text}\n"), "a NUL: \0");
}

#[test]
fn json_lines_of_100_mb_are_read_to_their_end() {
    let job = |text: &str| format!("{{\"run\": \": {text}\"}}\n");
    is_read_to_its_end("jsonl", job, "no escape: \\y");
}
