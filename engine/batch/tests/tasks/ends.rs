//! How tasks end, and are ended.

use serde_json::Value;

use crate::case::{Case, Done, Named, signal, wait_for_event, wait_for_words};

pub(crate) const TRIALS: &[Named] = &[
    (
        "an_error_and_a_panic_are_failures_told_apart",
        an_error_and_a_panic,
    ),
    (
        "a_panic_whose_value_panics_again_ends_the_job_alone",
        a_bomb,
    ),
    (
        "a_failure_is_retried_and_the_task_knows_its_attempt",
        a_retry,
    ),
    ("a_timeout_and_a_deadline_reach_a_task_that_looks", limits),
    (
        "what_does_not_look_keeps_its_slots_past_its_timeout_and_that_is_said",
        stubborn,
    ),
    ("what_returns_after_its_timeout_has_timed_out", too_late),
    ("ctrl_c_ends_a_task_that_looks_and_term_does", ctrl_c),
    ("a_second_ctrl_c_waits_for_no_task", twice),
    ("needs_and_max_fails_hold_for_tasks", needs),
    ("an_exit_count_counts_tasks", exit_count),
    ("a_panic_of_the_program_itself_is_told_apart", bug),
];

fn finished<'e>(events: &'e [Value], job: &str) -> &'e Value {
    let is_it = |event: &&Value| event["event"] == "job-finished" && event["job"] == job;
    events.iter().find(is_it).expect("it has ended")
}

const FAILURES: &str = r#"
[[job]]
name = "fails"
task = "fails"
args = { text = "no such\nthing" }

[[job]]
name = "panics"
task = "expect"
args = { file = "jobs.toml", holds = 1 }

[[job]]
name = "well"
run = "echo well"
"#;

fn an_error_and_a_panic() {
    let case = Case::toml(FAILURES);
    let done = case.run(&["--joblog", "log", "--report", "r.html", "--trace", "t.json"]);
    let done = done.expect(1);
    assert_eq!(done.stdout, "well\n");
    let done = done
        .says("fails (attempt 1 of 1): error after")
        .says(": no such\n")
        .says("  | thing")
        .says("panics (attempt 1 of 1): panicked after")
        .says("3 jobs: 1 succeeded, 2 failed");
    let alone = done.stderr.lines().find(|line| line.contains("alone:"));
    assert!(
        alone.is_some_and(
            |line| line.contains(" run jobs.toml --filter ") && !line.contains("alone: reiver")
        ),
        "{alone:?}"
    );
    let log = case.read("log");
    let row = |name: &str| {
        let row = log.lines().find(|row| row.ends_with(name));
        let row = row.unwrap_or_else(|| panic!("no {name} in {log}"));
        row.split('\t').map(str::to_owned).collect::<Vec<_>>()
    };
    let failed = row(r#"fails {"text":"no such\\nthing"}"#);
    assert_eq!(failed[6..8], ["1", "0"]);
    assert!(case.read("r.html").contains("error: no such"));
    assert!(case.read("t.json").contains("\"cat\":\"failed\""));

    let (events, _) = case.events(&[]);
    let fails = finished(&events, "fails");
    assert_eq!(fails["reason"], "error");
    assert_eq!(fails["message"], "no such\nthing");
    assert_eq!(fails["code"], Value::Null);
    let panics = finished(&events, "panics");
    assert_eq!(panics["reason"], "panic");
    assert!(
        panics["message"]
            .as_str()
            .is_some_and(|text| text.contains("in jobs.toml"))
    );
}

fn a_bomb() {
    let case = Case::toml("[[job]]\nname = \"a\"\ntask = \"bomb\"\n[[job]]\nrun = \"echo on\"\n");
    let done = case.run(&[]).expect(1);
    assert_eq!(done.stdout, "on\n");
    done.says("panicked after")
        .says("with a value that is no text");
}

fn a_retry() {
    let case =
        Case::toml("[[job]]\nname = \"a\"\ntask = \"flaky\"\nargs = { fails = 2 }\nretries = 2\n");
    let done = case.run(&[]).expect(0);
    done.says("asked 1 times")
        .says("a (attempt 2 of 3): error after");
    let case =
        Case::toml("[[job]]\nname = \"a\"\ntask = \"flaky\"\nargs = { fails = 2 }\nretries = 1\n");
    case.run(&[]).expect(1).says("asked 2 times");
}

/// The deadline counts from the run's start: it leaves the task the time to begin, on a full machine too.
fn limits() {
    let case = Case::toml(
        r#"
[[job]]
name = "timeout"
task = "wait"
args = { seconds = 1000 }
class = "io"
timeout = "50ms"

[[job]]
name = "deadline"
task = "wait"
args = { seconds = 1000 }
deadline = "2s"
retries = 3

[[job]]
name = "forks"
task = "primes"
args = { below = 100_000_000_000, into = "x" }
timeout = "50ms"
"#,
    );
    let (events, done) = case.events(&[]);
    done.expect(1);
    assert_eq!(finished(&events, "timeout")["reason"], "timeout");
    assert_eq!(finished(&events, "deadline")["reason"], "deadline");
    assert_eq!(finished(&events, "deadline")["attempt"], 1);
    assert_eq!(finished(&events, "forks")["reason"], "timeout");
}

fn too_late() {
    let case = Case::toml("[[job]]\nname = \"a\"\ntask = \"late\"\ntimeout = \"20ms\"\n");
    let done = case.run(&[]).expect(1);
    done.says("timeout, returned after");
}

fn ctrl_c() {
    let case = Case::toml(
        r#"
[[job]]
name = "a"
task = "wait"
args = { seconds = 1000 }
retries = 5
[[job]]
name = "b"
needs = ["a"]
task = "echo"
"#,
    );
    for (number, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut child = case.start(&["jobs.toml", "--output", "json"]);
        wait_for_event(&mut child, "job-started");
        signal(&child, number);
        let done = Done::of(child).expect(code);
        let cancelled = done.stdout.matches("\"status\":\"cancelled\"").count();
        assert_eq!(cancelled, 2, "{done:#?}");
    }
}

fn twice() {
    let case = Case::toml(
        "[[job]]\nname = \"a\"\ntask = \"stubborn\"\n[[job]]\nname = \"b\"\nrun = \"trap '' TERM; sleep 1000\"\n",
    );
    let mut child = case.start(&["jobs.toml", "--output", "json", "-j2"]);
    wait_for_event(&mut child, "job-started");
    wait_for_event(&mut child, "job-started");
    signal(&child, libc::SIGINT);
    // A second one that came before the first was taken would be none.
    wait_for_words(&mut child, "to kill it\n");
    signal(&child, libc::SIGINT);
    let done = Done::of(child).expect(130);
    assert_eq!(done.stdout.matches("\"status\":\"cancelled\"").count(), 2);
    assert!(done.stderr.contains("here to stay"), "{done:#?}");
    // What it was doing is not taken for done.
    case.program(&["journal", "show", "jobs.toml"]).expect(0);
}

fn stubborn() {
    let case = Case::toml(
        "[[job]]\nname = \"a\"\ntask = \"stubborn\"\ntimeout = \"10ms\"\n[[job]]\nname = \"b\"\nrun = \"true\"\n",
    );
    let mut child = case.start(&["jobs.toml", "--output", "json", "-j1"]);
    wait_for_words(&mut child, "it keeps its slots until it returns\n");
    signal(&child, libc::SIGTERM);
    wait_for_words(&mut child, "to kill it\n");
    signal(&child, libc::SIGTERM);
    let done = Done::of(child).expect(143);
    assert!(done.stdout.contains("\"reason\":\"timeout\""), "{done:#?}");
    assert!(
        done.stdout.contains("\"status\":\"cancelled\""),
        "{done:#?}"
    );
    assert!(
        done.stderr.contains("timeout, did not return after"),
        "{done:#?}"
    );
}

fn needs() {
    let case = Case::toml(
        r#"
[[job]]
name = "a"
task = "fails"
args = { text = "x" }
[[job]]
name = "skipped"
needs = ["a"]
run = "echo no"
[[job]]
name = "runs"
needs = [{ job = "a", when = "failure" }]
task = "echo"
args = { key = "value" }
"#,
    );
    let done = case.run(&[]).expect(1);
    assert_eq!(done.stdout, "{\"key\":\"value\"}\n");
    done.says("skipped: skipped for a");
    let case = Case::toml(
        "max-fails = 1\n[[job]]\ntask = \"fails\"\nargs = { text = \"x\" }\n[[job]]\ntask = \"alone\"\n",
    );
    case.run(&["-j1"]).expect(1).says("1 failed, 1 cancelled");
}

fn exit_count() {
    let case = Case::toml(
        "[[job]]\nmatrix = { n = [1, 2, 3] }\ntask = \"fails\"\nargs = { text = \"{n}\" }\n",
    );
    case.run(&["--exit-count"]).expect(3);
}

/// On the thread of `main`, before the run has begun: its warning of few descriptors panics.
fn bug() {
    let cells: Vec<String> = (0..100).map(|cell| cell.to_string()).collect();
    let cells = cells.join(", ");
    let case = Case::toml(&format!(
        "[[job]]\nmatrix = {{ i = [{cells}] }}\nrun = 'true'\n"
    ));
    let done = case.shell("ulimit -n 64; REIVER_TEST_PANICS=1 exec $THIS jobs.toml -j100");
    done.expect(3).says("a bug");
}
