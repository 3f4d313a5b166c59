//! What the journal knows of tasks.

use crate::case::{Case, Done, Named, signal, wait_for_event};

pub(crate) const TRIALS: &[Named] = &[
    (
        "what_succeeded_does_not_run_again_and_what_failed_does",
        again,
    ),
    ("other_arguments_are_another_job", changed),
    ("a_killed_run_goes_on", killed),
];

fn again() {
    let case = Case::toml(
        r#"
[[job]]
name = "well"
task = "echo"
args = { a = 1 }
[[job]]
name = "fails"
task = "expect"
args = { file = "number", holds = 5 }
"#,
    );
    case.run(&[]).expect(1).says("1 succeeded, 1 failed");
    let shown = case
        .program(&["journal", "show", "jobs.toml"])
        .expect(0)
        .stdout;
    assert!(shown.contains("fails (attempt 1): a task after"), "{shown}");
    case.write("number", "5");
    let done = case.run(&["--resume"]).expect(0);
    assert_eq!(done.stdout, "");
    done.says("1 of 2 jobs succeeded before");
    let done = case.run(&["--resume-failed"]).expect(0);
    assert_eq!(done.stdout, "");
}

fn changed() {
    let job = |rest: &str| format!("[[job]]\nname = \"a\"\n{rest}\n[[job]]\ntask = \"echo\"\n");
    let case = Case::toml(&job(
        "task = \"echo\"\nargs = { a = 1, b = [2, { c = 3 }] }",
    ));
    case.run(&[]).expect(0);
    // The order of keys means nothing.
    case.write(
        "jobs.toml",
        &job("args = { b = [2, { c = 3 }], a = 1 }\ntask = \"echo\""),
    );
    assert_eq!(case.run(&["--resume"]).expect(0).stdout, "");
    for (rest, runs) in [
        ("task = \"echo\"\nargs = { a = 1, b = [2, { c = 4 }] }", 1),
        (
            "task = \"echo\"\nargs = { a = \"1\", b = [2, { c = 4 }] }",
            1,
        ),
        ("task = \"tell\"", 1),
        ("task = \"tell\"\nargs = {}", 0),
        ("run = \"echo x\"", 1),
    ] {
        case.write("jobs.toml", &job(rest));
        let done = case.run(&["--resume"]).expect(0);
        assert_eq!(done.stdout.lines().count(), runs, "{rest}: {done:#?}");
    }
}

fn killed() {
    let case = Case::toml(
        r#"
[[job]]
name = "well"
task = "echo"
[[job]]
name = "long"
needs = ["well"]
task = "wait"
args = { seconds = "{seconds}" }
"#,
    );
    let mut child = case.start(&["jobs.toml", "--output", "json", "--set", "seconds=1000"]);
    wait_for_event(&mut child, "\"job\":\"long\"");
    signal(&child, libc::SIGKILL);
    Done::of(child).expect(-libc::SIGKILL);
    let shown = case
        .program(&["journal", "show", "jobs.toml"])
        .expect(0)
        .stdout;
    assert!(shown.contains("started, with no end recorded"), "{shown}");
    let done = case.run(&["--resume", "--set", "seconds=0.01"]).expect(0);
    assert_eq!(done.stdout, "");
    done.says("1 of 2 jobs succeeded before")
        .says("2 jobs: 2 succeeded");
}
