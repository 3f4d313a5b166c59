//! Slots, defaults, and the processes beside tasks.

use crate::case::{Case, Named};

pub(crate) const TRIALS: &[Named] = &[
    ("tasks_take_slots_like_processes", slots),
    ("a_pool_holds_tasks_and_commands_alike", pool),
    (
        "what_defaults_say_of_processes_is_not_about_tasks",
        defaults,
    ),
    (
        "a_process_that_a_task_starts_is_its_own_to_wait_for",
        children,
    ),
    ("many_tasks", many),
    ("commands_in_the_background_run_beside_tasks", background),
    ("tasks_of_class_auto_that_wait_take_io_slots", auto),
    ("placeholders_are_values_of_the_type", placeholders),
];

fn slots() {
    let case = Case::toml("");
    for (class, limit) in [("cpu", "cpus=1"), ("io", "io=1"), ("hybrid", "cpus=1")] {
        let text = format!(
            "[[job]]\nmatrix = {{ n = [1, 2, 3, 4, 5, 6, 7, 8] }}\ntask = \"alone\"\nclass = \"{class}\"\n"
        );
        case.write("jobs.toml", &text);
        case.run(&["--limit", limit]).expect(0);
    }
    // One that takes both slots is alone, too.
    case.write(
        "jobs.toml",
        "[[job]]\nmatrix = { n = [1, 2, 3, 4] }\ntask = \"alone\"\ncpus = 2\n",
    );
    case.run(&["-j2"]).expect(0);
}

fn pool() {
    let case = Case::toml(
        "[pools]\none = 1\n[defaults]\npool = \"one\"\n[[job]]\nmatrix = { n = [1, 2, 3, 4] }\ntask = \"alone\"\n\
         [[job]]\nrun = \"true\"\n",
    );
    case.run(&["-j4"]).expect(0);
}

fn defaults() {
    let case = Case::toml(
        r#"
[defaults]
cwd = "absent"
env = { A = "b" }
stdout = "file"
success-codes = [3]
numa = { affinity = "require" }
kill-after = "1s"
[[job]]
task = "echo"
"#,
    );
    assert_eq!(case.run(&["--numa", "require"]).expect(0).stdout, "{}\n");
}

/// Orphans are reaped while commands end; a child of a task is none.
fn children() {
    let case = Case::toml(
        r#"
[[job]]
name = "a"
task = "starts"
args = { seconds = 2.5 }
class = "io"
[[job]]
matrix = { n = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] }
run = "(sleep 0.1 &) ; sleep 0.2"
"#,
    );
    case.run(&["-j1"]).expect(0);
}

fn many() {
    let numbers: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    let case = Case::toml(&format!(
        "[[job]]\nmatrix = {{ n = [{}] }}\ntask = \"fails\"\nargs = {{ text = \"{{n}}\" }}\n\
         [[job]]\nmatrix = {{ n = [{}] }}\ntask = \"flaky\"\nargs = {{ fails = 0 }}\n",
        numbers[..100].join(", "),
        numbers.join(", ")
    ));
    case.run(&["-j4", "--exit-count"])
        .expect(100)
        .says("3100 jobs: 3000 succeeded, 100 failed");
}

/// Such a command is started by this program, started once more.
fn background() {
    let case = Case::toml(
        r#"
[[job]]
name = "a"
priority = "P2"
run = "echo in the background"
[[job]]
needs = ["a"]
task = "echo"
priority = "P0"
"#,
    );
    let done = case.run(&[]).expect(0);
    assert_eq!(done.stdout, "in the background\n{}\n");
}

fn auto() {
    if !std::path::Path::new("/proc/thread-self/schedstat").exists() {
        eprintln!("skipped: this kernel does not tell who waits for a CPU");
        return;
    }
    let case = Case::toml(
        "[[job]]\nmatrix = { n = [1, 2, 3, 4, 5] }\ntask = \"idle\"\nclass = \"auto\"\n",
    );
    let (events, done) = case.events(&["-j1"]);
    done.expect(0);
    let started = events
        .iter()
        .filter(|event| event["event"] == "job-started");
    let classes: Vec<&str> = started
        .filter_map(|event| event["class"].as_str())
        .collect();
    assert_eq!(classes, ["cpu", "cpu", "cpu", "io", "io"]);
}

fn placeholders() {
    let case = Case::toml(
        r#"
[[job]]
name = "{a}-{key}"
matrix = { a = [1.5] }
cpus = 2
task = "echo"
args = { "{a}" = "{a}", b = "{{a}} {name} {attempt} {cpus} {other}", c = [{ d = "{key}" }], e = 0x10, f = 1e3 }
"#,
    );
    let done = case.run(&["-j2", "--set", "key=k"]).expect(0);
    assert_eq!(
        done.stdout,
        "{\"b\":\"{a} 1.5-k 1 2 {other}\",\"c\":[{\"d\":\"k\"}],\"e\":16,\"f\":1000.0,\"{a}\":\"1.5\"}\n"
    );
}
