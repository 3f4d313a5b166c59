//! What jobs share besides slots: pools, resources, memory, the machine's load, and time.

use std::fs;

use serde_json::Value;

use crate::case::{Case, with_time_enough};

fn finished<'e>(events: &'e [Value], name: &str) -> &'e Value {
    let found = events
        .iter()
        .find(|event| event["event"] == "job-finished" && event["job"] == name);
    found.unwrap_or_else(|| panic!("`{name}` did not finish: {events:#?}"))
}

/// What 12 jobs print that say how many of them run at once, and what they hold.
fn at_once(keys: &str, arguments: &[&str]) -> Vec<(u32, String)> {
    let case = Case::toml(&format!(
        "[[job]]\nname = '{{i}}'\nmatrix = {{ i = [1,2,3,4,5,6,7,8,9,10,11,12] }}\nclass = 'io'\n\
         run = 'mkdir at-$REIVER_JOB; echo $(ls -d at-* | wc -l) $REIVER_GPU_CARD; sleep 0.05; \
         rmdir at-$REIVER_JOB'\n{keys}\n"
    ));
    let done = case
        .reiver(&[&["run", "jobs.toml"], arguments].concat())
        .expect(0);
    let lines = done.stdout.lines();
    let said: Vec<(u32, String)> = lines
        .map(|line| {
            let (count, held) = line.split_once(' ').unwrap_or((line, ""));
            (count.parse().expect("a number"), held.to_owned())
        })
        .collect();
    assert_eq!(said.len(), 12);
    said
}

#[test]
fn a_pool_never_runs_more_than_its_limit() {
    let said = at_once("pool = 'few of them'", &["--pool", "few of them=3"]);
    assert!(said.iter().all(|(count, _)| *count <= 3), "{said:?}");
}

#[test]
fn memory_that_is_stated_fits_the_budget() {
    let said = at_once("memory = '300MiB'", &["--limit", "memory=1GiB"]);
    assert!(said.iter().all(|(count, _)| *count <= 3), "{said:?}");
}

#[test]
fn jobs_hold_indices_of_resources_that_nobody_else_holds() {
    let said = at_once(
        "resources = { gpu-card = 2 }",
        &["--resource", "gpu-card=5"],
    );
    for (count, held) in &said {
        assert!(*count <= 2, "{said:?}");
        let indices: Vec<u32> = held
            .split(',')
            .map(|index| index.parse().unwrap())
            .collect();
        assert!(
            indices.len() == 2 && indices[0] < indices[1] && indices[1] < 5,
            "{held}"
        );
    }
}

#[test]
fn a_job_that_holds_nothing_of_a_resource_has_no_indices_of_another_run() {
    let case = Case::toml(
        "[resources]\ngpu = 2\n[[job]]\nname = 'outer'\nresources = { gpu = 1 }\n\
         run = '$REIVER run inner.toml -j1'\n",
    );
    let show = "echo ${REIVER_GPU-none} ${REIVER_TPU-none}";
    let inner = format!(
        "[resources]\ngpu = 2\n[[job]]\nrun = '{show}'\n[[job]]\nrun = '{show}'\n\
         resources = {{ gpu = 0 }}\n[[job]]\nrun = '{show}'\nresources = {{ gpu = 2 }}\n"
    );
    case.write("inner.toml", inner);
    let run = "REIVER_TPU=7 $REIVER run jobs.toml";
    let done = case.through_shell(run).expect(0);
    assert_eq!(done.stdout, "none 7\nnone 7\n0,1 7\n");
}

#[test]
fn limits_may_be_as_large_as_their_numbers() {
    let case = Case::toml(
        "[resources]\ngpu = 4294967295\n[pools]\np = 4294967295\n\
         [limits]\ncpus = 4294967295\nio = 4294967295\n[defaults]\npool = 'p'\n\
         [[job]]\nname = 'first'\nresources = { gpu = 2 }\nrun = 'echo $REIVER_GPU'\n\
         [[job]]\nneeds = ['first']\nresources = { gpu = 3 }\nrun = 'echo $REIVER_GPU'\n",
    );
    assert_eq!(case.run().expect(0).stdout, "0,1\n0,1,2\n");
}

#[test]
fn options_win_over_the_file_and_stand_in_what_is_pasted() {
    let case = Case::toml(
        "[pools]\ndb = 1\n[resources]\ngpu = 1\n[[job]]\nname = 'a b'\nrun = 'exit 3'\npool = 'db'\n\
         resources = { gpu = 2 }\nmemory = '200MiB'\n",
    );
    let options = [
        "run",
        "jobs.toml",
        "--pool",
        "db=2",
        "--resource",
        "gpu=2",
        "--limit",
        "memory=1GiB",
        "--numa",
        "prefer",
    ];
    let done = case.reiver(&options).expect(1);
    let line = done
        .stderr
        .lines()
        .find_map(|line| line.trim().strip_prefix("alone: reiver "));
    let line = line.expect("a command to paste");
    let pasted = case.through_shell(&format!("$REIVER {line}"));
    assert_eq!(pasted.code, 1, "{pasted:?}");
    assert!(pasted.stderr.contains("exit code 3"), "{}", pasted.stderr);
    for wrong in [
        ["--pool", "db"],
        ["--resource", "gpu=0"],
        ["--resource", "node=1"],
        ["--limit", "memory=x"],
        ["--limit", "load=0"],
        ["--numa", "none"],
    ] {
        let done = case.reiver(&[&["run", "jobs.toml"], &wrong[..]].concat());
        assert_eq!(done.code, 2, "{wrong:?}: {done:?}");
    }
    let twice = [
        "run",
        "jobs.toml",
        "--resource",
        "a-b=1",
        "--resource",
        "a_b=1",
    ];
    assert_eq!(case.reiver(&twice).code, 2);
}

#[test]
fn nothing_starts_while_the_load_is_above_the_limit() {
    let load = fs::read_to_string("/proc/loadavg").expect("/proc/loadavg");
    if load.starts_with("0.00 ") {
        eprintln!("skipped: the machine has no load");
        return;
    }
    let case = Case::toml("[limits]\nload = 0.001\n[[job]]\nname = 'a'\nrun = 'touch ran'");
    let done = case.through_shell(
        "$REIVER run jobs.toml 2>said & until grep -q 'nothing is started' said; do sleep 0.01; done; \
         sleep 0.2; kill -TERM $!; wait $!",
    );
    assert_eq!(done.code, 143, "{done:?}");
    assert!(!case.has("ran"));
    case.reiver(&["run", "jobs.toml", "--limit", "load=1e9"])
        .expect(0);
    assert!(case.has("ran"));
}

#[test]
fn a_deadline_ends_what_runs_and_what_waits_and_is_not_tried_again() {
    let (case, events, done) = with_time_enough(|ms| {
        let case = Case::toml(&format!(
            "[defaults]\nretries = 3\n\
             [[job]]\nname = 'runs'\nrun = 'echo run >> runs; sleep 1000'\ndeadline = '{ms}ms'\n\
             [[job]]\nname = 'needs'\nrun = 'touch never'\nneeds = ['runs']\ndeadline = '{ms}ms'\n\
             [[job]]\nname = 'after'\nrun = 'touch after'\nneeds = [{{ job = 'needs', when = 'failure' }}]\n\
             [[job]]\nname = 'retries'\nrun = 'exit 7'\nretries = {{ count = 9, delay = '1h' }}\ndeadline = '{ms}ms'\n",
        ));
        let (events, done) = case.events(&["--joblog", "log"]);
        let done = done.expect(1);
        let have_failed = events.iter().any(|event| event["event"] == "job-retried");
        (case.has("runs") && have_failed).then_some((case, events, done))
    });
    for (name, attempt, code) in [
        ("runs", 1, None),
        ("needs", 0, None),
        ("retries", 1, Some(7)),
    ] {
        let end = finished(&events, name);
        assert_eq!(
            (&end["status"], &end["reason"]),
            (&"failed".into(), &"deadline".into())
        );
        assert_eq!(
            (&end["attempt"], &end["code"]),
            (&attempt.into(), &Value::from(code))
        );
    }
    assert_eq!(finished(&events, "after")["status"], "success");
    assert!(case.has("after") && !case.has("never"));
    assert_eq!(fs::read_to_string(case.path("runs")).unwrap(), "run\n");
    let said = "failed: needs: its deadline passed before it could start";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    let log = fs::read_to_string(case.path("log")).unwrap();
    let row = log
        .lines()
        .find(|line| line.ends_with("sleep 1000"))
        .expect("a row");
    assert_eq!(row.split('\t').nth(6), Some("-1"));
    assert!(!log.contains("never"), "it did not start: {log}");
    // A job that failed for its deadline failed, though it had no attempt.
    case.write(
        "jobs.toml",
        "[[job]]\nname = 'needs'\nrun = 'touch never'\n",
    );
    let (events, done) = case.events(&["--resume-failed"]);
    done.expect(0);
    assert_eq!(finished(&events, "needs")["status"], "success");
}
