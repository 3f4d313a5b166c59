//! `--output json`: events to the letter.

use serde_json::{Value, json};

use crate::case::{Case, with_time_enough};

/// The keys of an event, sorted.
fn keys(event: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = event
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn every_event_has_its_keys() {
    let case = Case::toml(
        "[[job]]\nname = 'flaky'\nretries = 1\nrun = 'echo out; echo err >&2; [ $REIVER_ATTEMPT = 2 ]'\n\
         [[job]]\nname = 'bad'\nrun = 'kill $$'\n\
         [[job]]\nname = 'hangs'\nrun = 'true'\nneeds = ['bad']\n",
    );
    let (events, done) = case.events(&["-j1"]);
    done.expect(1);
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(kinds[0], "run-started");
    assert_eq!(kinds[kinds.len() - 1], "run-finished");
    let of = |kind: &str| events.iter().find(|event| event["event"] == kind).unwrap();
    assert_eq!(
        keys(of("run-started")),
        ["event", "files", "jobs", "run", "schema", "time"]
    );
    assert_eq!(of("run-started")["schema"], 1);
    assert_eq!(of("run-started")["jobs"], 3);
    assert_eq!(of("run-started")["files"], json!(["jobs.toml"]));
    assert_eq!(
        keys(of("job-started")),
        ["attempt", "event", "job", "pid", "run", "time"]
    );
    let ended = |status: &str| {
        let is_it = |event: &&Value| event["event"] == "job-finished" && event["status"] == status;
        keys(events.iter().find(is_it).unwrap())
    };
    assert!(!ended("success").contains(&"reason"));
    let end = [
        "attempt", "code", "event", "job", "reason", "run", "seconds", "signal", "status", "time",
    ];
    assert_eq!(ended("failed"), end);
    assert_eq!(of("job-retried")["attempt"], 1);
    let mut retried = end.to_vec();
    retried.push("delay");
    retried.sort_unstable();
    assert_eq!(keys(of("job-retried")), retried);
    assert_eq!(
        keys(of("job-skipped")),
        ["attempt", "because", "event", "job", "run", "time"]
    );
    assert_eq!(of("job-skipped")["attempt"], 0);
    assert_eq!(
        keys(of("run-finished")),
        [
            "cancelled",
            "event",
            "exit",
            "failed",
            "run",
            "seconds",
            "skipped",
            "succeeded",
            "time"
        ]
    );
    assert_eq!(of("run-finished")["exit"], 1);
    let run = &events[0]["run"];
    for event in &events {
        assert_eq!(&event["run"], run);
        let time = event["time"].as_str().unwrap();
        let shape: String = time
            .chars()
            .map(|letter| if letter.is_ascii_digit() { '0' } else { letter })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000Z");
    }
    let mut times: Vec<&str> = events
        .iter()
        .map(|event| event["time"].as_str().unwrap())
        .collect();
    let told = times.clone();
    times.sort_unstable();
    assert_eq!(times, told);
}

#[test]
fn standard_output_holds_nothing_else() {
    let case = Case::toml("[[job]]\nrun = 'echo from stdout; echo from stderr >&2'");
    let (events, done) = case.events(&[]);
    assert_eq!(events.len(), 4);
    let done = done.expect(0);
    assert!(done.stderr.contains("from stdout\n") && done.stderr.contains("from stderr\n"));
}

#[test]
fn a_job_that_was_never_started_is_cancelled_with_attempt_zero() {
    let case =
        Case::toml("max-fails = 1\n[[job]]\nrun = 'exit 1'\n[[job]]\nname = 'never'\nrun = 'true'");
    let (events, done) = case.events(&["-j1"]);
    done.expect(1);
    let never = events.iter().find(|event| event["job"] == "never").unwrap();
    assert_eq!(never["status"], "cancelled");
    assert_eq!(never["attempt"], 0);
    for key in ["reason", "code", "signal"] {
        assert_eq!(never[key], Value::Null, "{key}");
    }
}

#[test]
fn text_that_is_no_utf8_is_told_as_well_as_it_can_be() {
    let case = Case::new();
    std::fs::write(case.path("lines.txt"), b"true \xff\n").unwrap();
    let done = case
        .reiver(&["run", "lines.txt", "--output", "json"])
        .expect(0);
    assert_eq!(crate::case::events(&done.stdout).len(), 4);
}

#[test]
fn the_job_log_has_the_columns_of_gnu_parallel() {
    let case = Case::toml(
        "[[job]]\nname = 'code'\nrun = 'echo 123; exit 7'\n\
         [[job]]\nname = 'fine'\ncommand = ['printf', \"a\\tb\\n\", 'c\\d']\n\
         [[job]]\nname = 'kill'\nrun = 'kill -9 $$'\n\
         [[job]]\nname = 'time'\nrun = 'sleep 100'\ntimeout = '50ms'\n\
         [[job]]\nname = 'spawn'\ncommand = ['/nowhere']\n\
         [[job]]\nname = 'again'\nrun = '[ $REIVER_ATTEMPT = 2 ]'\nretries = 1\n\
         [[job]]\nname = 'hangs'\nneeds = ['code']\nrun = 'true'\n",
    );
    let arguments = ["run", "jobs.toml", "-j1", "--joblog", "log", "--exit-count"];
    case.reiver(&arguments).expect(4);
    let log = case.read("log");
    let mut lines = log.lines();
    let header = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand";
    assert_eq!(lines.next(), Some(header));
    let mut rows: Vec<Vec<&str>> = lines.map(|line| line.split('\t').collect()).collect();
    rows.sort();
    let told: Vec<[&str; 6]> = rows
        .iter()
        .map(|row| {
            let [
                seq,
                host,
                start,
                runtime,
                send,
                receive,
                exit,
                signal,
                command,
            ] = row[..]
            else {
                panic!("nine columns: {row:?}");
            };
            assert!(start.parse::<f64>().unwrap() > 1e9 && runtime.trim().parse::<f64>().is_ok());
            assert_eq!((host, send), (":", "0"));
            [seq, receive, exit, signal, command, ""]
        })
        .collect();
    let expected = [
        ["1", "4", "7", "0", "echo 123; exit 7", ""],
        ["2", "4", "0", "0", "printf 'a\\tb\\n' 'c\\\\d'", ""],
        ["3", "0", "0", "9", "kill -9 $$", ""],
        ["4", "0", "-1", "15", "sleep 100", ""],
        ["5", "0", "-1", "0", "/nowhere", ""],
        ["6", "0", "0", "0", "[ $REIVER_ATTEMPT = 2 ]", ""],
    ];
    assert_eq!(told, expected);
    let done = case
        .reiver(&["run", "jobs.toml", "--joblog", "no/such/folder"])
        .expect(2);
    assert!(done.stderr.contains("nothing was run"), "{}", done.stderr);
}

#[test]
fn a_job_that_fails_while_it_waits_for_a_retry_started_when_its_last_attempt_did() {
    let (case, events) = with_time_enough(|ms| {
        let case = Case::toml(&format!(
            "[[job]]\nname = 'late'\nrun = 'false'\nretries = {{ count = 1, delay = '1h' }}\ndeadline = '{ms}ms'\n",
        ));
        let (events, done) = case.events(&["--joblog", "log"]);
        done.expect(1);
        let waited = events.iter().any(|event| event["event"] == "job-retried");
        waited.then_some((case, events))
    });
    let log = case.read("log");
    let row: Vec<&str> = log.lines().nth(1).expect("a row").split('\t').collect();
    let started: f64 = row[2].parse().expect("seconds");
    let time = |name: &str| {
        let event = events.iter().find(|event| event["event"] == name);
        let time = event.expect(name)["time"].as_str().expect("a time");
        let time = humantime::parse_rfc3339(time).expect("a time of RFC 3339");
        let time = time.duration_since(std::time::UNIX_EPOCH);
        time.expect("later than 1970").as_secs_f64()
    };
    // To the millisecond that is written.
    assert!(started <= time("job-retried") + 0.001, "{log}");
    assert!(
        time("job-finished") > time("job-retried") + 0.002,
        "it waited"
    );
}

#[test]
fn the_exit_code_counts_failures_where_that_is_asked_for() {
    let case = Case::new();
    for (failures, code) in [(0, 0), (3, 3), (100, 100), (130, 101)] {
        case.write("lines", format!("true\n{}", "false\n".repeat(failures)));
        case.reiver(&["run", "lines", "--exit-count", "--no-journal"])
            .expect(code);
    }
}
