//! What is seen of tasks, and what they see.

use std::fs;
use std::path::Path;

use crate::case::{Case, Named};

pub(crate) const TRIALS: &[Named] = &[
    ("the_example_runs_its_file", the_example),
    (
        "files_need_no_run_before_them_and_the_command_is_whole",
        the_command,
    ),
    ("a_task_knows_the_job_that_it_is", what_it_knows),
    (
        "what_it_prints_is_the_jobs_and_is_kept_when_it_fails",
        what_it_prints,
    ),
    ("events_say_task_and_process", events),
    (
        "what_it_prints_past_its_context_is_no_jobs_and_no_event",
        past_its_context,
    ),
    ("a_task_is_of_the_trace_that_commands_are_of", trace),
    ("a_dry_run_shows_tasks_with_their_arguments", dry_run),
];

fn past_its_context() {
    let case = Case::toml("[[job]]\ntask = 'prints'\n");
    let done = case.run(&[]).expect(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[0], "past it");
    assert!(lines[1].starts_with("of a process 00-"), "{lines:?}");
    assert!(lines[2].starts_with("trace 00-"), "{lines:?}");
    let (events, done) = case.events(&[]);
    assert_eq!(events.last().expect("there are some")["exit"], 0);
    done.says("past it\n")
        .says("of a process 00-")
        .says("trace 00-");
}

fn trace() {
    let text = "[[job]]\nname = 'task'\ntask = 'prints'\n\
                [[job]]\nname = 'command'\nneeds = ['task']\nrun = 'echo trace $TRACEPARENT'\n";
    let done = Case::toml(text).run(&[]).expect(0);
    let words = done
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("trace "));
    let parents: Vec<Vec<&str>> = words.map(|word| word.split('-').collect()).collect();
    let [task, command] = &parents[..] else {
        panic!("{done:?}");
    };
    assert_eq!((task.len(), task[0], task[1]), (4, command[0], command[1]));
    assert_ne!(task[2], command[2], "each is a span of its own");
}

fn the_example() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let text = fs::read_to_string(folder.join("tasks.toml")).expect("it is there");
    let case = Case::toml(&text);
    let done = case.run(&[]).expect(0);
    let mut lines: Vec<&str> = done.stdout.lines().collect();
    lines.sort_unstable();
    let expected = [
        "12",
        "168 primes below 1000",
        "78498 primes below 1000000",
        "9592 primes below 100000",
    ];
    assert_eq!(lines, expected);
    assert_eq!(case.read("out/tasks/1000000.txt"), "78498");
    done.says("8 jobs: 8 succeeded").says("asked 1 times");
}

fn the_command() {
    let case = Case::toml("[[job]]\nname = \"a\"\ntask = \"echo\"\n");
    for words in [
        &["jobs.toml"][..],
        &["run", "jobs.toml"],
        &["--no-journal", "jobs.toml"],
        &["-j", "3", "jobs.toml"],
    ] {
        let done = case.program(words).expect(0);
        assert_eq!(done.stdout, "{}\n", "{words:?}");
    }
    let help = case.program(&["--help"]).expect(0).stdout;
    assert!(help.contains("Tasks: alone, bomb, echo,"), "{help}");
    assert!(!help.contains("reiver run"), "{help}");
    let format = case.program(&["help", "FORMAT"]).expect(0).stdout;
    assert!(format.contains("TASKS OF THIS PROGRAM"), "{format}");
    case.program(&["check", "jobs.toml"]).expect(0);
    case.program(&["journal", "show", "jobs.toml"]).expect(0);
    case.program(&[]).expect(2);
    case.program(&["absent.toml"]).expect(2).says("absent.toml");
    case.program(&["--no-such-option"]).expect(2);
}

fn what_it_knows() {
    let case = Case::toml(
        r#"
[resources]
gpu = 4
[[job]]
name = "a-{x}"
matrix = { x = ["y"] }
task = "tell"
cpus = 2
resources = { gpu = 2 }
timeout = "1h"
[[job]]
name = "io"
class = "io"
needs = ["a-*"]
task = "tell"
[[job]]
name = "idle"
needs = ["io"]
priority = "P2"
task = "tell"
"#,
    );
    let done = case.run(&["-j2"]).expect(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(
        lines[0].starts_with("a-y tell 1 cpus=2 gpu=[0, 1] forks=3 "),
        "{lines:?}"
    );
    assert!(lines[0].contains("limited=true"), "{lines:?}");
    let folder = fs::canonicalize(case.path(".")).expect("it is there");
    assert!(
        lines[0].ends_with(&format!("folder={}", folder.display())),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("io tell 1 cpus=1 gpu=[] forks=3 "),
        "{lines:?}"
    );
    assert!(lines[1].contains("limited=false"), "{lines:?}");
    let word = |line: &str, key: &str| {
        let mut words = line.split(' ').filter_map(|word| word.strip_prefix(key));
        words.next().expect("it says so").to_owned()
    };
    let threads: Vec<String> = lines.iter().map(|line| word(line, "thread=")).collect();
    assert!(
        threads.iter().all(|name| name.starts_with("reiver-")),
        "{threads:?}"
    );
    assert_ne!(threads[0], threads[1], "classes have threads of their own");
    let policies: Vec<String> = lines.iter().map(|line| word(line, "policy=")).collect();
    assert_eq!(policies[0], "0");
    // Where the system refuses SCHED_IDLE they are nice.
    assert!([libc::SCHED_IDLE.to_string(), "0".to_owned()].contains(&policies[2]));
    let runs: Vec<String> = lines.iter().map(|line| word(line, "run=")).collect();
    assert!(
        runs.iter().all(|run| *run == runs[0] && run.len() == 16),
        "{runs:?}"
    );
}

fn what_it_prints() {
    let case = Case::toml(
        "[[job]]\nname = \"a\"\ntask = \"stubborn\"\n[[job]]\nname = \"b\"\ntask = \"echo\"\nargs = { x = [1] }\n",
    );
    let done = case.run(&["--filter", "b"]).expect(0);
    assert_eq!(done.stdout, "{\"x\":[1]}\n");
    assert!(done.stderr.contains("aside\n"), "{}", done.stderr);
    let case = Case::toml("[[job]]\nname = \"a\"\ntask = \"grumbles\"\n");
    let done = case
        .run(&[])
        .expect(1)
        .says("error after")
        .says(": no more");
    let all: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
    assert!(done.stdout == all, "{} bytes", done.stdout.len());
    let logs = ".reiver/jobs.toml/logs";
    assert!(case.read(&format!("{logs}/1-a.1.out")) == all);
    assert_eq!(case.read(&format!("{logs}/1-a.1.err")), "aside\n");
    let case = Case::toml("[[job]]\nname = \"b\"\ntask = \"echo\"\nargs = { x = [1] }\n");
    let (_, done) = case.events(&["--filter", "b"]);
    assert!(
        done.stderr.contains("{\"x\":[1]}\naside\n"),
        "{}",
        done.stderr
    );
}

fn events() {
    let case = Case::toml("[[job]]\nname = \"a\"\ntask = \"echo\"\n");
    let child = case.start(&["jobs.toml", "--output", "json"]);
    let pid = child.id();
    let done = crate::case::Done::of(child).expect(0);
    let started = done
        .stdout
        .lines()
        .find(|line| line.contains("job-started"));
    let started: serde_json::Value =
        serde_json::from_str(started.expect("it started")).expect("it is JSON");
    assert_eq!(started["pid"], pid);
    assert_eq!(started["task"], "echo");
    let finished = done
        .stdout
        .lines()
        .find(|line| line.contains("job-finished"));
    let finished: serde_json::Value =
        serde_json::from_str(finished.expect("it ended")).expect("it is JSON");
    assert_eq!(finished["status"], "success");
    assert!(finished["seconds"].as_f64().is_some());
}

fn dry_run() {
    let case = Case::toml(
        "[[job]]\nmatrix = { n = [7] }\ntask = \"primes\"\nargs = { into = \"{n}\", below = \"{n}\" }\ncpus = 2\n",
    );
    let done = case.run(&["--dry-run", "-j2"]).expect(0);
    // A task has no place of its own.
    assert!(
        done.stdout
            .contains("cpu×2  job-1-7: primes {\"below\":\"7\",\"into\":\"7\"}\n"),
        "{}",
        done.stdout
    );
}
