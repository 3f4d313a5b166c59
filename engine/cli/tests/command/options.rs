//! What the command line adds to the files: keys of its own, an order of output, several files at once.

use crate::case::Case;

#[test]
fn a_set_key_stands_wherever_a_matrix_key_may_and_arrives_as_it_is() {
    let case = Case::new();
    case.write(
        "jobs.toml",
        r#"
[[job]]
name = "first-{day}"
run = "printf '%s\\n' {what} \"<{what}>\" '{what}'"
[[job]]
name = "then"
needs = ["first-{day}"]
command = ["printf", "%s\\n", "{what}"]
env = { WHAT = "{what}" }
[[job]]
name = "last"
needs = ["then"]
run = "printf '%s' \"$WHAT\"; pwd | sed 's|.*/||'"
env = { WHAT = "{what}" }
cwd = "{day}"
"#,
    );
    std::fs::create_dir(case.path("mon")).unwrap();
    let odd = r#"a 'b' "c" $HOME `d` \ {day} *"#;
    let set = format!("what={odd}");
    let done = case.reiver(&["run", "jobs.toml", "--set", &set, "--set", "day=mon"]);
    let expected = format!("{odd}\n<{odd}>\n{odd}\n{odd}\n{odd}mon\n");
    assert_eq!(done.expect(0).stdout, expected);
    let listed = case.reiver(&[
        "run",
        "jobs.toml",
        "--set",
        "what=x",
        "--set",
        "day=mon",
        "--dry-run",
    ]);
    assert!(listed.expect(0).stdout.contains("first-mon"));
}

#[test]
fn the_matrix_wins_over_a_set_key() {
    let case = Case::toml(
        "[[job]]\nmatrix = { x = ['cell'] }\nrun = 'echo {x}'\n[[job]]\nrun = 'echo {x}'\n",
    );
    let done = case.reiver(&["run", "jobs.toml", "-j1", "--set", "x=line"]);
    assert_eq!(done.expect(0).stdout, "cell\nline\n");
}

#[test]
fn a_set_key_that_no_job_uses_is_refused_and_so_is_one_with_two_values() {
    let case = Case::toml("[[job]]\nmatrix = { x = [1] }\nrun = 'touch ran; echo {x} {y}'\n");
    for (set, says) in [
        (&["y=1", "z=2"][..], "no job uses `z`"),
        (&["x=1", "y=1"], "no job uses `x`"),
        (&["y=1", "y=2"], "`y` is given two values, `1` and `2`"),
        (&["name=1"], "`name` is the job's own"),
        (&["y"], "write it as KEY=VALUE"),
        (&["=1"], "`` is no key"),
    ] {
        for command in ["run", "check"] {
            let set = set.iter().flat_map(|set| ["--set", set]);
            let words: Vec<&str> = [command, "jobs.toml"].into_iter().chain(set).collect();
            let done = case.reiver(&words).expect(2);
            assert!(done.stderr.contains(says), "{words:?}: {}", done.stderr);
        }
    }
    assert!(!case.has("ran"));
    let done = case.reiver(&["run", "jobs.toml", "--set", "y=1", "--set", "y=1"]);
    assert_eq!(done.expect(0).stdout, "1 1\n");
}

#[test]
fn a_name_that_a_set_key_empties_is_refused() {
    let case = Case::toml("[[job]]\nname = '{x}'\nrun = 'true'\n");
    let done = case.reiver(&["run", "jobs.toml", "--set", "x="]).expect(2);
    assert!(
        done.stderr.contains("by what `--set` gives"),
        "{}",
        done.stderr
    );
}

#[test]
fn set_keys_are_for_lines_of_defaults_and_never_for_text_lines() {
    let case = Case::new();
    case.write("list.txt", "#JOB env={A=\"{x}\"}\necho $A {x}\n");
    let done = case.reiver(&["run", "list.txt", "--set", "x=1"]);
    assert_eq!(done.expect(0).stdout, "1 {x}\n");
}

#[test]
fn the_command_to_paste_sets_what_this_run_sets() {
    let case = Case::toml("[[job]]\nname = 'a'\nrun = '[ {x} = 1 ]'\n");
    let done = case
        .reiver(&["run", "jobs.toml", "--set", "x=a 'b"])
        .expect(1);
    let alone = done
        .stderr
        .lines()
        .find_map(|line| line.trim().strip_prefix("alone: reiver "))
        .unwrap_or_else(|| panic!("{}", done.stderr));
    assert!(alone.contains("--set"), "{alone}");
    let again = case.through_shell(&format!("$REIVER {alone}")).expect(1);
    assert!(again.stderr.contains("1 failed"), "{}", again.stderr);
}

/// The first job ends last; what comes later is more than may lie in memory.
#[test]
fn with_keep_order_output_comes_in_the_order_of_the_files() {
    let mut text = String::from(
        "[[job]]\nname = 'slow'\nrun = 'while ! [ -e go ]; do sleep 0.01; done; echo slow; echo e-slow >&2'\n\
         [[job]]\nname = 'skipped'\nneeds = [{ job = 'slow', when = 'failure' }]\nrun = 'echo never'\n",
    );
    for number in 0..40 {
        let long = "head -c 700000 /dev/zero | tr '\\0' x";
        text += &format!(
            "[[job]]\nname = 'n{number}'\nretries = 1\nrun = '''\n[ $REIVER_ATTEMPT = 2 ] || exit 1\n\
             echo {number}; {long}; echo; echo e-{number} >&2'''\n"
        );
    }
    text += "[[job]]\nneeds = ['n*']\nrun = 'touch go; printf last'\n";
    let case = Case::toml(&text);
    let done = case
        .reiver(&["run", "jobs.toml", "-j3", "--keep-order"])
        .expect(0);
    let mut expected = String::from("slow\n");
    for number in 0..40 {
        expected += &format!("{number}\n{}\n", "x".repeat(700_000));
    }
    expected += "last";
    assert!(done.stdout == expected, "{} bytes", done.stdout.len());
    let errors: Vec<&str> = done
        .stderr
        .lines()
        .filter(|line| line.starts_with("e-"))
        .collect();
    let numbers = (0..40).map(|number| format!("e-{number}"));
    let expected: Vec<String> = std::iter::once("e-slow".to_owned())
        .chain(numbers)
        .collect();
    assert_eq!(errors, expected);
}

#[test]
fn with_keep_order_a_failure_shows_at_once_with_what_was_not_printed_yet() {
    let case = Case::toml(
        "[[job]]\nrun = 'while ! [ -e go ]; do sleep 0.01; done; echo slow'\n\
         [[job]]\nname = 'fails'\nrun = 'echo why >&2; exit 1'\n\
         [[job]]\nneeds = [{ job = 'fails', when = 'failure' }]\nrun = 'touch go'\n",
    );
    let done = case
        .through_shell("exec $REIVER run jobs.toml -j2 --keep-order 2>&1")
        .expect(1);
    let said = &done.stdout;
    let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what}: {said}"));
    assert!(at("failed: fails") < at("  | why"));
    assert!(at("  | why") < at("slow\n"));
    assert!(at("slow\n") < at("\nwhy\n"));
}

#[test]
fn with_keep_order_what_ended_before_a_cancel_is_printed_in_order() {
    let case = Case::toml(
        "[[job]]\nname = 'a'\nrun = 'echo a; touch started; sleep 1000'\n\
         [[job]]\nname = 'b'\nrun = 'echo b'\n[[job]]\nname = 'c'\nneeds = ['b']\n\
         run = 'while ! [ -e started ]; do sleep 0.01; done; echo c; kill -TERM $(cat pid)'\n",
    );
    let line = "echo $$ > pid; exec $REIVER run jobs.toml -j2 --keep-order";
    let done = case.through_shell(line).expect(143);
    assert_eq!(done.stdout, "a\nb\nc\n");
}

#[test]
fn several_files_are_one_run() {
    let case = Case::new();
    std::fs::create_dir(case.path("sub")).unwrap();
    case.write("a.toml", "[[job]]\nname = 'a'\nneeds = ['c', 'b.txt:line-1']\nrun = 'pwd | sed \"s|.*/||\"; echo a'\n");
    case.write("b.txt", "echo b\n");
    case.write(
        "sub/c.jsonl",
        "{\"name\":\"c\",\"run\":\"pwd | sed 's|.*/||'\",\"needs\":[\"b.txt:*\"]}\n",
    );
    let files = ["run", "a.toml", "b.txt", "sub/c.jsonl"];
    let done = case.reiver(&files).expect(0);
    let folder = case.folder().file_name().unwrap().to_str().unwrap();
    assert_eq!(done.stdout, format!("b\nsub\n{folder}\na\n"));
    assert!(case.has(".reiver/a.toml/journal"));
    case.write("sub/c.jsonl", "{\"name\":\"a\",\"run\":\"true\"}\n");
    let done = case.reiver(&files).expect(2);
    assert!(
        done.stderr.contains("two jobs are called `a`"),
        "{}",
        done.stderr
    );
    case.write("b.txt", "#JOB timeout=never\ntrue\n");
    let done = case.reiver(&files).expect(2);
    assert!(
        done.stderr.contains("two jobs are called `a`"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("b.txt:1"), "{}", done.stderr);
}

#[test]
fn check_takes_the_options_that_decide_whether_a_file_is_right() {
    let case = Case::toml(
        "[[job]]\nname = 'solve-{n}'\nmatrix = { n = [1, 2] }\nrun = 'x'\ncpus = 3000\npool = 'db'\n\
         resources = { gpu = 2 }\nmemory = '900TiB'\n[[job]]\nname = 'other'\nrun = 'x'\n",
    );
    let check = |options: &[&str]| case.reiver(&[&["check", "jobs.toml"], options].concat());
    let refused = check(&[]).expect(2).stdout;
    for mistake in [
        "3000 cpus never fit",
        "no pool `db`",
        "no resource `gpu`",
        "bytes never fit",
    ] {
        assert!(refused.contains(mistake), "{refused}");
    }
    let right = [
        "-j3000",
        "--pool",
        "db=1",
        "--resource",
        "gpu=2",
        "--limit",
        "memory=900TiB",
    ];
    let done = check(&right).expect(0);
    assert!(done.stdout.ends_with("3 jobs\n"), "{}", done.stdout);
    let few = [
        &right[..],
        &[
            "--resource",
            "gpu=2",
            "--max-fails",
            "1",
            "--filter",
            "solve-*",
        ],
    ];
    let done = check(&few.concat()).expect(0);
    assert!(done.stdout.ends_with("2 jobs\n"), "{}", done.stdout);
    let one = check(&[
        "-j3000",
        "--pool",
        "db=1",
        "--resource",
        "gpu=1",
        "--limit",
        "memory=900TiB",
    ]);
    assert!(one.expect(2).stdout.contains("2 of `gpu` never fit"));
    check(&[&right[..], &["--pool", "db=2"]].concat()).expect(2);
    check(&[&right[..], &["--filter", "no-*"]].concat()).expect(2);
    // A node that is required has no 3000 CPUs.
    let required = check(&[&right[..], &["--numa", "require"]].concat()).expect(2);
    assert!(
        required.stdout.contains("never fit the nodes"),
        "{}",
        required.stdout
    );
}
