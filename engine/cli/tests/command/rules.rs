//! Order, slots, needs, retries, max-fails, and what the command line settles.

use serde_json::Value;

use crate::case::Case;

/// The names of jobs in the order in which they started.
fn started(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter(|event| event["event"] == "job-started")
        .map(|event| event["job"].as_str().unwrap())
        .collect()
}

/// `name status` of every job, sorted; a skipped one with its reason.
fn ends(events: &[Value]) -> Vec<String> {
    let mut ends: Vec<String> = events
        .iter()
        .filter_map(|event| {
            let name = event["job"].as_str()?;
            match event["event"].as_str()? {
                "job-finished" => Some(format!("{name} {}", event["status"].as_str()?)),
                "job-skipped" => Some(format!("{name} skipped for {}", event["because"].as_str()?)),
                _ => None,
            }
        })
        .collect();
    ends.sort();
    ends
}

#[test]
fn the_urgent_start_first_then_file_order() {
    let case = Case::toml(
        "[[job]]\nname = 'holds'\nrun = 'true'\npriority = 'P0'\n\
         [[job]]\nname = 'p2'\nrun = 'true'\npriority = 'P2'\n\
         [[job]]\nname = 'p1-b'\nrun = 'true'\n\
         [[job]]\nname = 'p1-a'\nrun = 'true'\npriority = 'P1'\n\
         [[job]]\nname = 'p0'\nrun = 'true'\npriority = 'P0'\n\
         [[job]]\nname = 'late-p0'\nrun = 'true'\npriority = 'P0'\nneeds = ['p1-b']\n",
    );
    let (events, done) = case.events(&["-j1"]);
    done.expect(0);
    let expected = ["holds", "p0", "p1-b", "late-p0", "p1-a", "p2"];
    assert_eq!(started(&events), expected);
}

#[test]
fn classes_have_slots_of_their_own() {
    // Each waits for the other: they run at once, though each class has one slot.
    let wait = |own: &str, other: &str| {
        format!("run = 'touch {own}; while ! [ -e {other} ]; do sleep 0.01; done'\n")
    };
    let case = Case::toml(&format!(
        "[limits]\ncpus = 1\nio = 1\n[[job]]\n{}[[job]]\nclass = 'io'\n{}",
        wait("a", "b"),
        wait("b", "a")
    ));
    case.run().expect(0);
}

#[test]
fn a_class_never_runs_more_than_its_slots() {
    let count =
        "run = 'mkdir slot-$REIVER_JOB; ls -d slot-* | wc -l; sleep 0.05; rmdir slot-$REIVER_JOB'";
    let case = Case::toml(&format!(
        "[[job]]\nname = '{{i}}'\nmatrix = {{ i = [1,2,3,4,5,6,7,8,9,10,11,12] }}\n{count}"
    ));
    let done = case.reiver(&["run", "jobs.toml", "-j3"]).expect(0);
    let most = done
        .stdout
        .lines()
        .map(|line| line.trim().parse::<u32>().unwrap())
        .max();
    assert!(most <= Some(3), "{}", done.stdout);
}

#[test]
fn a_wide_job_is_not_passed_over_for_ever() {
    let mut text = String::from("[limits]\ncpus = 4\n");
    for job in 0..4 {
        text += &format!("[[job]]\nname = 'early-{job}'\nrun = 'sleep 0.0{job}'\n");
    }
    text += "[[job]]\nname = 'wide'\ncpus = 4\nrun = 'true'\n";
    for job in 0..20 {
        text += &format!("[[job]]\nname = 'late-{job}'\nrun = 'sleep 0.02'\n");
    }
    let case = Case::toml(&text);
    let (events, done) = case.events(&[]);
    done.expect(0);
    assert_eq!(started(&events)[4], "wide");
}

#[test]
fn needs_wait_for_the_end_that_they_ask_for() {
    let case = Case::toml(
        "[[job]]\nname = 'good'\nrun = 'true'\n[[job]]\nname = 'bad'\nrun = 'false'\n\
         [[job]]\nname = 'after-bad'\nrun = 'true'\nneeds = ['good', 'bad']\n\
         [[job]]\nname = 'hangs-on-it'\nrun = 'true'\nneeds = ['after-bad']\n\
         [[job]]\nname = 'repairs'\nrun = 'true'\nneeds = [{ job = 'bad', when = 'failure' }]\n\
         [[job]]\nname = 'idle-repair'\nrun = 'true'\nneeds = [{ job = 'good', when = 'failure' }]\n\
         [[job]]\nname = 'cleans'\nrun = 'true'\nneeds = [{ job = 'h*', when = 'always' }, { job = 'good', when = 'always' }]\n",
    );
    let (events, done) = case.events(&[]);
    done.expect(1);
    assert_eq!(
        ends(&events),
        [
            "after-bad skipped for bad",
            "bad failed",
            "cleans success",
            "good success",
            "hangs-on-it skipped for after-bad",
            "idle-repair skipped for good",
            "repairs success",
        ]
    );
    let last = events.last().unwrap();
    let sums =
        ["succeeded", "failed", "cancelled", "skipped"].map(|key| last[key].as_u64().unwrap());
    assert_eq!(sums, [3, 1, 0, 3]);
}

#[test]
fn a_skip_without_a_failure_is_no_failure() {
    let case = Case::toml(
        "[[job]]\nname = 'good'\nrun = 'true'\n\
         [[job]]\nname = 'repair'\nrun = 'true'\nneeds = [{ job = 'good', when = 'failure' }]",
    );
    case.run().expect(0);
}

#[test]
fn retries_wait_and_hold_no_slot() {
    let case = Case::toml(
        "[[job]]\nname = 'flaky'\nretries = { count = 3, delay = '50ms', backoff = 'exponential', max-delay = '120ms' }\n\
         run = '[ $REIVER_ATTEMPT = 4 ]'\n\
         [[job]]\nname = 'between'\nrun = 'true'\n",
    );
    let (events, done) = case.events(&["-j1"]);
    done.expect(0);
    let delays: Vec<f64> = events
        .iter()
        .filter(|event| event["event"] == "job-retried")
        .map(|event| event["delay"].as_f64().unwrap())
        .collect();
    assert_eq!(delays, [0.05, 0.1, 0.12]);
    assert_eq!(started(&events)[1], "between");
    let finished = events
        .iter()
        .find(|event| event["event"] == "job-finished" && event["job"] == "flaky");
    assert_eq!(finished.unwrap()["attempt"], 4);
}

#[test]
fn max_fails_lets_what_runs_finish_and_starts_no_more() {
    let text = |option: &str| {
        format!(
            "{option}\n[[job]]\nname = 'runs'\nrun = 'while ! [ -e failed ]; do sleep 0.01; done; sleep 0.3'\n\
             [[job]]\nname = 'fails'\nrun = 'touch failed; exit 1'\n\
             [[job]]\nname = 'hangs'\nrun = 'true'\nneeds = ['fails']\n\
             [[job]]\nname = 'rest'\nrun = 'true'\n"
        )
    };
    let expected = [
        "fails failed",
        "hangs skipped for fails",
        "rest cancelled",
        "runs success",
    ];
    for (option, arguments) in [
        ("max-fails = 1", &["-j2"][..]),
        ("max-fails = 0", &["-j2"]),
        ("", &["-j2", "--max-fails", "1"]),
        ("max-fails = 9", &["-j2", "--max-fails", "0"]),
    ] {
        let case = Case::toml(&text(option));
        let (events, done) = case.events(arguments);
        done.expect(1);
        assert_eq!(ends(&events), expected, "{option} {arguments:?}");
    }
}

#[test]
fn a_filter_runs_what_matches_and_no_other() {
    let case = Case::toml(
        "[[job]]\nname = 'make-[1]'\nrun = 'echo make 1'\n[[job]]\nname = 'make-1'\nrun = 'echo make one'\n\
         [[job]]\nname = 'use'\nneeds = ['make-*']\nrun = 'echo use'\n\
         [[job]]\nname = 'used'\nneeds = ['use']\nrun = 'echo used'",
    );
    let filtered = |filter: &str| case.reiver(&["run", "jobs.toml", "-j1", "--filter", filter]);
    let done = filtered("use*").expect(0);
    assert_eq!(done.stdout, "use\nused\n");
    assert!(
        done.stderr
            .contains("2 needs outside the filter: taken as met"),
        "{}",
        done.stderr
    );
    assert_eq!(
        filtered("make-[1]").expect(0).stdout,
        "make 1\n",
        "a text is first a name"
    );
    assert_eq!(filtered("make-?").expect(0).stdout, "make one\n");
    let none = filtered("nothing").expect(2);
    assert!(
        none.stderr.contains("no job's name matches `nothing`"),
        "{}",
        none.stderr
    );
}

#[test]
fn the_command_to_paste_runs_the_job_alone() {
    let case = Case::toml(
        "[[job]]\nname = \"it's -{i}\"\nmatrix = { i = [1, 2] }\nrun = 'echo {i}; exit {i}'\n",
    );
    let done = case
        .reiver(&[
            "run",
            "--limit",
            "io=3",
            "-j2",
            "--max-fails",
            "5",
            "jobs.toml",
        ])
        .expect(1);
    let line = done
        .stderr
        .lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("alone: ")
                .filter(|line| line.contains("-2"))
        })
        .unwrap();
    let own = line.strip_prefix("reiver ").unwrap();
    let mut command = std::process::Command::new("sh");
    command
        .current_dir(case.folder())
        .args(["-c", &format!("'{}' {own}", crate::case::REIVER)]);
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"2\n", "{line}");
    assert!(
        line.contains("--limit cpus=2 --limit io=3 --max-fails 5"),
        "{line}"
    );
}

#[test]
fn options_win_over_the_file_and_contradict_nobody() {
    let case = Case::toml("[limits]\ncpus = 8\n[[job]]\ncpus = 2\nrun = 'true'");
    case.reiver(&["run", "jobs.toml", "--limit", "cpus=2"])
        .expect(0);
    let done = case.reiver(&["run", "jobs.toml", "-j1"]).expect(2);
    assert!(done.stderr.contains("1"), "{}", done.stderr);
    case.reiver(&["run", "jobs.toml", "-j", "3", "--limit", "cpus=4"])
        .expect(2);
    case.reiver(&["run", "jobs.toml", "-j0"]).expect(2);
    case.reiver(&["run", "jobs.toml", "--limit", "gpus=1"])
        .expect(2);
    case.reiver(&["run"]).expect(2);
    case.reiver(&["run", "no-such-file"]).expect(2);
    case.reiver(&["walk"]).expect(2);
    case.reiver(&["--help"]).expect(0);
    case.reiver(&["--version"]).expect(0);
}

#[test]
fn the_format_can_be_told() {
    let case = Case::new();
    case.write("odd.txt", "{\"run\": \"echo json\"}\n");
    let done = case
        .reiver(&["run", "odd.txt", "--format", "jsonl"])
        .expect(0);
    assert_eq!(done.stdout, "json\n");
    let done = case
        .reiver_with_input(
            &["run", "-", "--format", "toml"],
            b"[[job]]\nrun = 'echo toml'",
        )
        .expect(0);
    assert_eq!(done.stdout, "toml\n");
}

#[test]
fn files_of_one_run_know_each_others_jobs() {
    let case = Case::new();
    case.write(
        "a.toml",
        "[[job]]\nname = 'first'\nrun = 'echo first'\n[[job]]\nrun = 'true'",
    );
    case.write("b.jsonl", "{\"name\": \"second\", \"run\": \"echo second\", \"needs\": [\"first\", \"a.toml:job-2\"]}");
    case.write("c.txt", "true\n");
    let done = case
        .reiver(&["run", "b.jsonl", "a.toml", "c.txt", "--output", "json"])
        .expect(0);
    let mut names: Vec<String> = crate::case::events(&done.stdout)
        .iter()
        .filter(|event| event["event"] == "job-finished")
        .map(|event| event["job"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["a.toml:job-2", "c.txt:line-1", "first", "second"]);
}

#[test]
fn directives_of_text_files_hold_for_the_lines_after_them() {
    let case = Case::new();
    case.write(
        "lines.txt",
        "echo \"[$A$B]\"\n#JOB env={ A = \"a\" } retries=1\necho \"[$A$B]\"\n\
         #JOB env.B=b timeout=\"10s\"\necho \"[$A$B]\"; exit 1\n#JOBS are comments\n",
    );
    let done = case.reiver(&["run", "lines.txt", "-j1"]).expect(1);
    assert_eq!(done.stdout, "[]\n[a]\n[ab]\n");
    assert!(done.stderr.contains("attempt 2 of 2"), "{}", done.stderr);
}

#[test]
fn successive_directives_add_up_as_a_jobs_keys_do_over_the_defaults() {
    let case = Case::new();
    case.write(
        "lines.txt",
        "#JOB retries=2\n#JOB retries={delay=\"10ms\"} cpus=1\nexit 1\n\
         #JOB retries=1\nexit 2\n#JOB retries={max-delay=\"1ms\"}\nexit 3\n",
    );
    let run = ["run", "lines.txt", "--output", "json"];
    let events = crate::case::events(&case.reiver(&run).expect(1).stdout);
    let delays = |job: &str| -> Vec<f64> {
        let retried = events
            .iter()
            .filter(|event| event["job"] == job && event["event"] == "job-retried");
        retried
            .map(|event| event["delay"].as_f64().unwrap())
            .collect()
    };
    assert_eq!(delays("line-3"), [0.01, 0.01]);
    assert_eq!(delays("line-5"), [0.01]);
    assert_eq!(delays("line-7"), [0.001]);
}

#[test]
fn tables_of_a_job_are_merged_over_the_defaults_of_its_own_file() {
    let case = Case::toml(
        "[resources]\ngpu = 1\nslot = 1\n[defaults]\nresources = { gpu = 1, slot = 1 }\n\
         numa = { affinity = 'prefer' }\n[[job]]\nname = 'merged'\nresources = { slot = 0 }\n\
         numa = { policy = 'local' }\n\
         run = 'echo \"$REIVER_GPU,${REIVER_SLOT-none},${REIVER_NODE-none}\"'\n",
    );
    let show = "echo ${REIVER_GPU-none},${REIVER_NODE-none}\n";
    case.write("other.txt", show);
    let run = ["run", "jobs.toml", "other.txt", "--keep-order"];
    let done = case.reiver(&run).expect(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines[0].starts_with("0,none,") && !lines[0].ends_with("none"));
    assert_eq!(lines[1], "none,none");
}

#[test]
fn a_word_of_a_directive_may_begin_with_a_placeholder() {
    let case = Case::new();
    case.write(
        "lines.txt",
        "#JOB stdout={name}.{attempt} env={A=\"{cpus} {{name}}\"} stderr={name}\necho \"$A\"\n\
         #JOB stdout={{name}} timeout=1h\necho 2\n",
    );
    case.reiver(&["run", "lines.txt"]).expect(0);
    assert_eq!(case.read("line-2.1"), "1 {name}\n");
    assert_eq!(case.read("{name}"), "2\n");
}

#[test]
fn more_jobs_at_once_than_open_files_allow_run_all_the_same() {
    let case = Case::new();
    let lines: String = (0..150)
        .map(|line| format!("sleep 0.01; echo {line}\n"))
        .collect();
    case.write("lines.txt", lines);
    for limit in [24, 40, 256] {
        let done = case
            .through_shell(&format!(
                "ulimit -n {limit}; exec $REIVER run lines.txt -j 300"
            ))
            .expect(0);
        assert_eq!(done.stdout.lines().count(), 150);
        assert!(
            done.stderr
                .contains(&format!("the limit on open files is {limit}")),
            "{}",
            done.stderr
        );
    }
}

/// Jobs that reiver has no descriptors for have not failed: they have not been tried.
#[test]
fn where_open_files_allow_no_job_nothing_is_run() {
    let plain = "{\"run\": \"echo 1\"}\n{\"run\": \"echo 2\"}\n".to_owned();
    let all_kinds: String = [
        "\"memory\": \"50MiB\"",
        "\"priority\": \"P2\"",
        "\"stdin\": \"lines.jsonl\"",
        "\"stdout\": \"out-{seq}\", \"stderr\": \"err-{seq}\"",
    ]
    .map(|keys| format!("{{\"run\": \"echo 1\", {keys}}}\n"))
    .concat();
    for (jobs, options) in [
        (&plain, ""),
        (&plain, "--no-journal"),
        (
            &all_kinds.repeat(2),
            "--joblog log --report page --trace trace",
        ),
    ] {
        let mut last = 0;
        for limit in 4..=28 {
            let case = Case::new();
            case.write("lines.jsonl", jobs);
            case.write("log", "of the run before");
            let line = format!(
                "ulimit -n {limit}; exec $REIVER run lines.jsonl -j2 --output json {options}"
            );
            let done = case.through_shell(&line);
            if done.code == 0 {
                continue;
            }
            assert!([2, 3].contains(&done.code), "{limit} {options}: {done:?}");
            assert_eq!(done.stdout, "", "{limit}");
            assert_eq!(case.read("log"), "of the run before", "{limit}");
            assert!(!case.has(".reiver/lines.jsonl/journal"), "{limit}");
            last = limit;
        }
        assert!((8..26).contains(&last), "{last}");
    }
}

#[test]
fn numbers_beyond_all_integers_are_as_they_are_written() {
    let job = "[[job]]\nrun = 'echo $A'\n";
    for number in [
        "0xFFFF_FFFF_FFFF_FFFF_FF",
        "0x8000000000000000",
        "0o7777777777777777777777777",
    ] {
        for env in [
            format!("{job}env = {{ A = {number} }}\n"),
            format!("{job}env.A = {number}\n"),
        ] {
            let done = Case::toml(&env).run().expect(0);
            assert_eq!(done.stdout, format!("{number}\n"));
        }
    }
    for env in ["env = { A = 0x }", "env.A = 0b"] {
        let done = Case::toml(&format!("{job}{env}\n")).run().expect(2);
        let said = "found a number without digits";
        assert!(done.stderr.contains(said), "{}", done.stderr);
    }
}

#[test]
fn line_ends_of_another_system_are_taken_off_within_texts_too() {
    let case = Case::toml(
        "[[job]]\r\nname = \"a\"\r\nrun = \"\"\"\r\nprintf '[%s]' 'one' \\\r\n  two\r\nprintf '[%s]' three\r\n\"\"\"\r\n\
         [[job]]\r\nneeds = ['a']\r\nrun = '''\r\nprintf '[%s]' \\\r\n  four\r\n'''\r\n\
         env = { X = \"\"\"\r\nkept\\r\\n\"\"\" }\r\n\
         [[job]]\r\nneeds = ['job-2']\r\ncommand = ['printf', '[%s]', '''a\r\nb''', \"c\\r\\nd\"]\r\n",
    );
    let done = case.run().expect(0);
    assert_eq!(done.stdout, "[one][two][three][four][a\nb][c\r\nd]");
}
