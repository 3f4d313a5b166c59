//! What is wrong with tasks in a file: found before anything runs.

use crate::case::{Case, Named};

pub(crate) const TRIALS: &[Named] = &[
    ("an_unknown_task_is_refused_with_the_nearest_name", unknown),
    (
        "arguments_that_do_not_fit_are_refused_with_their_place",
        arguments,
    ),
    ("a_cell_whose_arguments_do_not_fit_is_refused", a_cell),
    ("what_a_process_has_is_refused_beside_a_task", keys),
    ("a_job_has_one_of_run_command_and_task", actions),
    ("json_lines_have_tasks_too", json_lines),
];

/// The file is refused, and nothing of it ran.
fn refused(text: &str, words: &[&str]) {
    let case = Case::toml(&format!("[[job]]\nrun = \"touch ran\"\n[[job]]\n{text}\n"));
    let mut done = case.run(&[]).expect(2);
    for words in words {
        done = done.says(words);
    }
    assert!(!case.path("ran").exists(), "something ran");
    case.program(&["check", "jobs.toml"]).expect(2);
}

fn unknown() {
    refused(
        "task = \"prime\"",
        &[
            "jobs.toml:4:8: there is no task `prime`",
            "did you mean `primes`?",
        ],
    );
    refused(
        "task = \"x\"",
        &[
            "there is no task `x`",
            "this program has alone, bomb, echo, expect, fails",
        ],
    );
    refused(
        "tsk = \"primes\"",
        &["unknown key `tsk`", "did you mean `task`?"],
    );
    refused(
        "task = 3",
        &["jobs.toml:4:8: expected a text, found a number"],
    );
}

fn arguments() {
    refused(
        "task = \"primes\"\nargs = { below = \"many\", into = \"x\" }",
        &[
            "jobs.toml:5:18: the task `primes` cannot take this: invalid type: string \"many\", \
             expected usize",
            "\"many\"",
        ],
    );
    refused(
        "task = \"primes\"\nargs = { below = 9, int = \"x\" }",
        &[
            "jobs.toml:5:21: the task `primes` cannot take this: unknown field `int`",
            "did you mean `into`?",
        ],
    );
    refused(
        "task = \"primes\"\nargs = { below = 9 }",
        &["jobs.toml:5:8: the task `primes` cannot take this: missing field `into`"],
    );
    refused(
        "task = \"primes\"",
        &["jobs.toml:4:8: the task `primes` cannot take this: missing field"],
    );
    refused(
        "task = \"primes\"\nargs = 3",
        &["jobs.toml:5:8: expected a table, found a number"],
    );
    refused(
        "task = \"echo\"\nargs = { at = 2026-11-21 }",
        &["`args` cannot hold a date"],
    );
    refused(
        "run = \"true\"\nargs = { a = 1 }",
        &["jobs.toml:5:1: `args` are a task's"],
    );
    refused(
        "task = \"bomb\"\nargs = { a = 1 }",
        &["jobs.toml:5:8: the task `bomb` cannot take this: invalid type: map, expected unit"],
    );
}

fn a_cell() {
    refused(
        "matrix = { n = [1, 2, \"x\"] }\ntask = \"primes\"\nargs = { below = \"{n}\", into = \"x\" }",
        &[
            "jobs.toml:6:18: the task `primes` cannot take this: invalid type: string \"x\", expected usize",
        ],
    );
}

fn keys() {
    for key in [
        "cwd = \"x\"",
        "env = { A = \"b\" }",
        "stdin = \"x\"",
        "stdout = \"x\"",
        "stderr = \"stdout\"",
        "kill-after = \"1s\"",
        "success-codes = [1]",
        "numa = { affinity = \"prefer\" }",
    ] {
        let name = key.split(' ').next().expect("a key");
        refused(
            &format!("task = \"echo\"\n{key}"),
            &[&format!("jobs.toml:5:1: a task has no `{name}`")],
        );
    }
    let case = Case::toml("[defaults]\ntask = \"echo\"\n[[job]]\ntask = \"echo\"\n");
    case.run(&[])
        .expect(2)
        .says("`task` cannot stand in [defaults]");
}

fn actions() {
    refused(
        "task = \"echo\"\nrun = \"true\"",
        &["jobs.toml:5:1: the job has both `run` and `task`"],
    );
    refused(
        "command = [\"true\"]\ntask = \"echo\"",
        &["jobs.toml:5:1: the job has both `command` and `task`"],
    );
}

fn json_lines() {
    let case = Case::toml("");
    let lines =
        "{\"task\": \"echo\", \"args\": {\"a\": null, \"b\": [1, -2.5, true, \"{name}\"]}}\n";
    case.write("jobs.jsonl", lines);
    let done = case.program(&["jobs.jsonl"]).expect(0);
    assert_eq!(done.stdout, "{\"a\":null,\"b\":[1,-2.5,true,\"job-1\"]}\n");
    case.write(
        "jobs.jsonl",
        "{\"task\": \"wait\", \"args\": {\"seconds\": null}}\n",
    );
    let done = case.program(&["jobs.jsonl"]).expect(2);
    done.says("jobs.jsonl:1:38: the task `wait` cannot take this");
}
