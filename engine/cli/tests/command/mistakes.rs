//! What a wrong job file gets: everything that is wrong with it, each at its place.

use crate::case::Case;

/// Checks `text` as `name`, and finds each of these lines of what is said.
fn refused(name: &str, text: &[u8], expected: &[&str]) {
    let case = Case::new();
    case.write(name, text);
    let done = case.reiver(&["run", name]);
    assert_eq!(done.code, 2, "{done:#?}");
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("nothing was run"), "{}", done.stderr);
    let mistakes: Vec<&str> = done
        .stderr
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("x "))
        .collect();
    assert_eq!(mistakes.len(), expected.len(), "{}", done.stderr);
    for (mistake, expected) in mistakes.iter().zip(expected) {
        let expected = format!("{name}:{expected}");
        assert!(
            mistake.starts_with(&expected),
            "\n{mistake}\n{expected}\n{}",
            done.stderr
        );
    }
    let checked = case.reiver(&["check", name]).expect(2);
    assert_eq!(checked.stderr, "", "an answer goes to standard output");
    assert!(checked.stdout.contains(mistakes[0]));
}

fn toml(text: &str, expected: &[&str]) {
    refused("jobs.toml", text.as_bytes(), expected);
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    toml(
        "max-fails = -1\ncolour = 1\n[limits]\ncpus = 0\n[[job]]\nname = 'a'\nrun = 'x'\n\
         command = ['x']\nneds = ['b']\n[[job]]\nname = 'a'\ntimeout = '5'\npriority = 'p1'\n\
         needs = ['nope', 'x*']\n",
        &[
            "1:13: -1 is out of range",
            "2:1: unknown key `colour`",
            "4:8: 0 is out of range",
            "8:1: the job has both `run` and `command`",
            "9:1: unknown key `neds`",
            "10:1: the job has neither `run` nor `command`",
            "11:8: two jobs are called `a`",
            "12:11: `5` is no duration",
            "13:12: unknown value `p1`",
            "14:10: no job is called `nope`",
            "14:18: `x*` matches no other job",
        ],
    );
}

#[test]
fn syntax_that_is_no_toml() {
    toml("[[job]\nrun = 'x'\n", &["1:"]);
    toml("[[job]]\nrun = 'x\n", &["2:"]);
    toml("[[job]]\nrun = 'x'\nrun = 'y'\n", &["3:1"]);
}

#[test]
fn values_of_the_wrong_kind() {
    let job = |line: &str| format!("[[job]]\nname = 'j'\nrun = 'x'\n{line}\n");
    for (line, expected) in [
        ("cpus = 'two'", "4:8"),
        ("cpus = 0", "4:8"),
        ("cpus = 1.5", "4:8"),
        ("cpus = 99999999999", "4:8"),
        ("timeout = 30", "4:11"),
        ("timeout = '0'", "4:11"),
        ("timeout = '3 parsecs'", "4:11"),
        ("kill-after = true", "4:14"),
        ("retries = -1", "4:11"),
        ("retries = { delay = '1s' }", "4:11"),
        ("retries = { count = 1, backof = 'fixed' }", "4:24"),
        ("retries = { count = 1, backoff = 'linear' }", "4:34"),
        ("class = 'gpu'", "4:9"),
        ("class = 'automatic'", "4:9"),
        ("class = 'gpu'", "4:9"),
        ("priority = 0", "4:12"),
        ("env = { A = [1] }", "4:13"),
        ("env = { 'A=B' = '1' }", "4:9"),
        ("success-codes = [0, 256]", "4:21"),
        ("success-codes = []", "4:17"),
        ("needs = 'a'", "4:9"),
        ("matrix = { a = [] }", "4:16: the axis `a` is empty"),
        ("matrix = {}", "4:10: the matrix is empty"),
        ("matrix = { name = [1] }", "4:"),
        ("matrix = { a = [1], exclude = [{ b = 1 }] }", "4:"),
        ("stderr = ['x']", "4:10"),
        ("cwd = \"a\\u0000b\"", "4:7"),
        ("deadline = '0s'", "4:12: a deadline of zero"),
        ("memory = '1G'", "4:10: `1G` is no size"),
        ("memory = 0", "4:10: `0` is no size"),
        ("memory = 1.5", "4:10: `1.5` is no size"),
        ("memory = '1024'", "4:10: `1024` is no size"),
        ("pool = 'db'", "4:8: there is no pool `db`"),
        ("pool = ''", "4:8: `pool` is empty"),
        (
            "resources = { gpu = 1 }",
            "4:21: there is no resource `gpu`",
        ),
        (
            "resources = { 'g p' = 1 }",
            "4:15: `g p` cannot name a resource",
        ),
        ("resources = { gpu = -1 }", "4:21: -1 is out of range"),
        (
            "priority = 2",
            "4:12: expected one of P0, P1, P2, found a number",
        ),
        ("numa = 'require'", "4:8: expected a table"),
        (
            "numa = { afinity = 'none' }",
            "4:10: unknown key `afinity` in numa",
        ),
        ("numa = { affinity = 'some' }", "4:21: unknown value `some`"),
        (
            "numa = { policy = 'weighted' }",
            "4:19: unknown value `weighted`",
        ),
        ("numa = { nodes = [] }", "4:18: `nodes` is empty"),
        ("numa = { nodes = 0 }", "4:18: expected a list of nodes"),
        ("numa = { nodes = [-1] }", "4:19: -1 is out of range"),
        (
            "numa = { nodes = [0, 999] }",
            "4:18: this machine has no node 999",
        ),
    ] {
        toml(&job(line), &[expected]);
    }
    toml(
        &job("needs = [{ job = 'a', when = 'sometimes' }]"),
        &[
            "4:18: no job is called `a`",
            "4:30: unknown value `sometimes`",
        ],
    );
    toml("[[job]]\ncommand = []\n", &["2:11"]);
    toml("[[job]]\ncommand = 'ls'\n", &["2:11"]);
    toml("[[job]]\nrun = ['ls']\n", &["2:7"]);
    toml("name = '.hidden'\n", &["1:8"]);
    toml("name = 'a/b'\n", &["1:8"]);
    toml("[defaults]\nneeds = ['a']\n", &["2:1"]);
    toml(
        "[pools]\ndb = 0\n'' = 1\n",
        &["2:6", "3:1: the name of a pool"],
    );
    toml(
        "[resources]\na-b = 1\nA_B = 2\njob = 1\n",
        &[
            "2:1: `a-b` and `A_B` would both give jobs REIVER_A_B",
            "4:1: `job` would give",
        ],
    );
    toml(
        "[limits]\nmemory = '1KiB'\nload = 0\n[resources]\ngpu = 2\n\
         [[job]]\nrun = 'x'\nmemory = 1025\nresources = { gpu = 3 }\n",
        &[
            "3:8: 0 is out of range",
            "8:10: 1025 bytes never fit: the run has 1024",
            "9:21: 3 of `gpu` never fit: the run has 2",
        ],
    );
    toml(
        "[pools]\ndatabase = 1\n[[job]]\nrun = 'x'\npool = 'databse'\n",
        &["5:8: there is no pool `databse`"],
    );
}

#[test]
fn graphs_that_cannot_be() {
    toml(
        "[[job]]\nname = 'a'\nrun = 'x'\nneeds = ['b']\n[[job]]\nname = 'b'\nrun = 'x'\nneeds = ['a']\n",
        &["4:10"],
    );
    toml("[[job]]\nname = 'a'\nrun = 'x'\nneeds = ['a']\n", &["4:10"]);
    toml(
        "[[job]]\nname = 'a'\nrun = 'x'\nneeds = ['a*']\n",
        &["4:10"],
    );
    toml(
        "[limits]\ncpus = 2\n[[job]]\nrun = 'x'\ncpus = 3\n",
        &["5:8"],
    );
}

#[test]
fn placeholders_whose_quoting_cannot_be_told() {
    for line in [
        "cat <<E\\n{name}\\nE",
        "echo `echo {name}`",
        "echo $(( {cpus} + 1 ))",
        "echo ${x:-{name}}",
    ] {
        toml(&format!("[[job]]\nname = 'j'\nrun = \"{line}\"\n"), &["3:"]);
    }
}

#[test]
fn nesting_without_end_is_one_mistake() {
    let deep = format!("a = {}", "[".repeat(100_000));
    let case = Case::new();
    case.write("deep.toml", deep);
    let done = case.reiver(&["check", "deep.toml"]).expect(2);
    assert!(done.stdout.lines().count() < 20, "{}", done.stdout);
}

#[test]
fn lines_of_json() {
    refused(
        "jobs.jsonl",
        b"{\"run\": \"true\"}\n{\"run\": }\n[1]\n\n{\"run\": \"x\", \"run\": \"y\"}\n{\"rum\": \"x\"}\n{\"run\": \"x\"} trailing\n",
        &["2:9", "3:1", "5:14", "6:1", "6:2", "7:"],
    );
    refused(
        "jobs.jsonl",
        b"{\"run\": \"\xff\"}\n",
        &["1:10: this byte is not UTF-8"],
    );
}

#[test]
fn directives_of_text() {
    refused(
        "jobs.txt",
        b"true\n#JOB cpus\n#JOB cpus=none\n#JOB name=x\n#JOB timeout=\"1\ntr\0ue\n",
        &[
            "2:6",
            "3:11",
            "4:6",
            "5:14",
            "6:3: a command cannot hold a NUL byte",
        ],
    );
}

#[test]
fn a_mark_and_crlf_are_taken_off_and_columns_are_true() {
    refused(
        "jobs.toml",
        b"\xef\xbb\xbfcolour = 1\r\n[[job]]\r\nrun = 'x'\r\nneds = []\r\n",
        &["1:1: unknown key `colour`", "4:1: unknown key `neds`"],
    );
    // Characters, not bytes.
    toml(
        "[[job]]\nenv = { 'ä' = 'größe' }\nrun = 'ü' # ß\n[x]\n",
        &["4:2"],
    );
    let case = Case::new();
    case.write("jobs.toml", "\u{feff}[[job]]\r\nrun = 'echo well'\r\n");
    assert_eq!(case.run().expect(0).stdout, "well\n");
}

#[test]
fn files_that_are_none() {
    let case = Case::new();
    std::fs::create_dir(case.path("folder.toml")).unwrap();
    let done = case.reiver(&["run", "folder.toml", "gone.toml"]).expect(2);
    assert!(
        done.stderr.contains("folder.toml: Is a directory"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("gone.toml: No such file"),
        "all of them: {}",
        done.stderr
    );
    case.write("wrong.toml", "colour = 1");
    let done = case.reiver(&["run", "wrong.toml", "gone.toml"]).expect(2);
    assert!(
        done.stderr.contains("wrong.toml:1:1: unknown key"),
        "{}",
        done.stderr
    );
    let done = case.reiver(&["run", "-", "-"]).expect(2);
    assert!(done.stderr.contains("only once"), "{}", done.stderr);
    case.write("one.toml", "");
    for other in ["one.toml", "./one.toml"] {
        let done = case.reiver(&["run", "one.toml", other]).expect(2);
        assert!(
            done.stderr.contains("has it already, as one.toml"),
            "{}",
            done.stderr
        );
    }
}

#[test]
fn a_slip_in_a_placeholder_is_pointed_out_and_runs() {
    let case = Case::toml("[[job]]\nname = 'j'\nmatrix = { shard = [1] }\nrun = 'echo {shart}'\n");
    let done = case.reiver(&["check", "jobs.toml"]).expect(0);
    assert!(done.stdout.contains("jobs.toml:4:"), "{}", done.stdout);
    assert!(done.stdout.contains("1 warning"), "{}", done.stdout);
    assert_eq!(case.run().expect(0).stdout, "{shart}\n");
}

#[test]
fn tasks_are_for_programs_that_have_some() {
    let case = Case::toml("[[job]]\ntask = \"resize\"\nargs = { width = 3 }\n");
    for command in ["run", "check"] {
        let done = case.reiver(&[command, "jobs.toml"]).expect(2);
        let said = done.stdout + &done.stderr;
        for words in [
            "jobs.toml:2:8: tasks are functions of the program that runs the file",
            "reiver_batch::main",
        ] {
            assert!(said.contains(words), "no `{words}` in {said}");
        }
    }
}

/// What is said of a mistake that others seem to follow from, and whose first line is `only`.
fn one_mistake(files: &[(&str, &str)], only: &str) {
    let case = Case::new();
    let mut words = vec!["check"];
    for (name, text) in files {
        case.write(name, text);
        words.push(name);
    }
    let said = case.reiver(&words).expect(2).stdout;
    let findings = said.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("x ").or(line.strip_prefix("! "))
    });
    let findings: Vec<&str> = findings.collect();
    assert_eq!(findings.len(), 1, "{said}");
    assert!(findings[0].starts_with(only), "{said}");
}

#[test]
fn what_could_not_be_read_may_be_any_job_and_any_limit() {
    let user = (
        "user.toml",
        "[[job]]\nrun = 'x'\nneeds = ['a', 'b-*']\npool = 'db'\nresources = { gpu = 1 }\ncpus = 9999\n",
    );
    let no_toml = "[limits]\ncpus = 9999\n[pools]\ndb = 1\n[[job]\nname = 'a'\nrun = 'x'\n";
    one_mistake(&[("bad.toml", no_toml), user], "bad.toml:5:");
    one_mistake(&[user, ("bad.toml", no_toml)], "bad.toml:5:");
    let needing = ("needing.toml", "[[job]]\nrun = 'x'\nneeds = ['a', 'b-*']\n");
    for (name, text, place) in [
        (
            "bad.jsonl",
            "{\"run\": \"x\"}\n{\"name\": \"a\"\n{\"run\": \"x\"}\n",
            "2:",
        ),
        (
            "bad.jsonl",
            "{\"name\": 3, \"run\": \"x\"}\n",
            "1:10: expected a text",
        ),
        ("bad.jsonl", "3\n", "1:1: the line holds a number"),
        (
            "bad.txt",
            "x\n\0\n",
            "2:1: a command cannot hold a NUL byte",
        ),
        ("bad.toml", "job = 3\n", "1:7: `job` is a number"),
        ("bad.toml", "job = [3]\n", "1:8: expected a table"),
    ] {
        one_mistake(&[(name, text), needing], &format!("{name}:{place}"));
    }
    // Of a file that was read all that is wrong is told.
    let case = Case::new();
    case.write("bad.toml", "[[job]\n");
    case.write("other.toml", "[[job]]\nrun = 'x'\ncpu = 1\n");
    let said = case
        .reiver(&["check", "bad.toml", "other.toml"])
        .expect(2)
        .stdout;
    assert!(said.contains("other.toml:3:1: unknown key `cpu`"), "{said}");
}

#[test]
fn what_follows_from_a_mistake_is_no_second_one() {
    for (text, only) in [
        (
            "[[job]]\nname = 'a-{x}'\nrun = 'x {x}'\nmatrix = [1, 2]\n\
          [[job]]\nrun = 'x'\nneeds = ['a-1']\n",
            "4:10: expected a table",
        ),
        (
            "[[job]]\nrun = 'x'\nmatrix = {}\n",
            "3:10: the matrix is empty",
        ),
        (
            "[[job]]\nrun = 'x {x}'\nmatrix = { x = 3 }\n",
            "3:16: `x` is a number",
        ),
        (
            "[[job]]\nrun = 'x {x}'\nmatrix = { y = [1], x = 3, exclude = [{ x = 3 }] }\n",
            "3:25: `x` is a number",
        ),
        (
            "[[job]]\nrun = 'x'\nmatrix = { include = 3 }\n",
            "3:22: `include` is a number",
        ),
        (
            "[[job]]\nrun = 'x'\nmatrix = { x = [[1]] }\n",
            "3:17: expected a text",
        ),
        (
            "[[job]]\nrun = 'x'\nretries = { count = -1 }\n",
            "3:21: -1 is out of range",
        ),
        (
            "[[job]]\nrun = 'x'\nretries = { cuont = 1 }\n",
            "3:13: unknown key `cuont`",
        ),
        (
            "[defaults]\nretries = 'x'\n[[job]]\nrun = 'x'\nretries = { delay = '1s' }\n",
            "2:11: expected a number",
        ),
        (
            "[defaults]\nretries = { count = 1.5 }\n[[job]]\nrun = 'x'\n\
             retries = { delay = '1s' }\n",
            "2:21: expected a whole number",
        ),
        (
            "[pools]\ndb = 0\n[[job]]\nrun = 'x'\npool = 'db'\n",
            "2:6: 0 is out of range",
        ),
        (
            "[limits]\ncpus = 'many'\n[[job]]\nrun = 'x'\ncpus = 9999\n",
            "2:8: expected a whole number",
        ),
    ] {
        one_mistake(&[("jobs.toml", text)], &format!("jobs.toml:{only}"));
    }
}

#[test]
fn a_name_that_promises_more_than_lines_for_a_shell_is_pointed_out() {
    for (name, is_warned_of) in [("jobs.json", true), ("jobs.YML", true), ("jobs.sh", false)] {
        let case = Case::new();
        case.write(name, "# jobs\necho 1\n");
        let done = case.reiver(&["check", name]).expect(0);
        let said = format!("{name}:1:1: this file is read as text: each line is run by /bin/sh");
        assert_eq!(done.stdout.contains(&said), is_warned_of, "{done:?}");
        let done = case.reiver(&["run", name]).expect(0);
        assert_eq!(done.stdout, "1\n");
        assert_eq!(done.stderr.contains(&said), is_warned_of, "{done:?}");
        let done = case.reiver(&["check", name, "--format", "text"]).expect(0);
        assert!(!done.stdout.contains(&said), "{done:?}");
    }
}
