//! Runs of the command while somebody sets the machine's clock.

use std::fs::{self, File};
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Ground;
use super::command::reiver;

const HOUR: i64 = 3600;
/// What takes seconds, and what may not be mistaken for an hour.
const SECONDS: f64 = 60.0;

/// The machine's clock; right again when this is dropped.
struct Clock {
    wall: SystemTime,
    since: Instant,
}

impl Clock {
    fn new() -> Clock {
        Clock {
            wall: SystemTime::now(),
            since: Instant::now(),
        }
    }

    /// Sets it so many seconds ahead of what is right, or behind.
    fn set(&self, ahead: i64) {
        let right = (self.wall + self.since.elapsed()).duration_since(UNIX_EPOCH);
        let right = right.expect("after 1970");
        let time = libc::timespec {
            tv_sec: right.as_secs().cast_signed() + ahead,
            tv_nsec: right.subsec_nanos().into(),
        };
        // SAFETY: the kernel reads the time, which lives until the call returns.
        let result = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.set(0);
    }
}

fn start(folder: &Path, said: &str, more: &[&str]) -> Child {
    let file = |name: &str| File::create(folder.join(name)).expect("a file");
    let mut command = reiver();
    command
        .args(["run", "jobs.toml", "-j9", "--output", "json"])
        .args(more);
    let command = command
        .current_dir(folder)
        .stdout(file("events"))
        .stderr(file(said));
    command.spawn().expect("it can be executed")
}

fn events(folder: &Path) -> Vec<Value> {
    let said = fs::read_to_string(folder.join("events")).expect("events");
    let event = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    // The last line may not be whole yet.
    let whole = said.rfind('\n').map_or("", |end| &said[..end]);
    whole.lines().map(event).collect()
}

fn find<'e>(events: &'e [Value], event: &str, job: &str) -> &'e Value {
    let found = events
        .iter()
        .find(|one| one["event"] == event && one["job"] == job);
    found.unwrap_or_else(|| panic!("no {event} of {job}: {events:#?}"))
}

/// Forward and back by an hour, from before the first job to the end, at every twentieth of a second.
pub(super) fn a_clock_that_is_set_moves_no_limit_and_no_duration(_: &Ground) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let jobs = "[[job]]\nname = 'hangs'\ntimeout = '2s'\nrun = 'sleep 600'\n\
                [[job]]\nname = 'late'\ndeadline = '2s'\nrun = 'sleep 600'\n\
                [[job]]\nname = 'again'\nretries = { count = 1, delay = '2s' }\n\
                run = '[ $REIVER_ATTEMPT = 2 ]'\n\
                [[job]]\nname = 'after'\nneeds = ['again']\nrun = 'sleep 1'\n\
                [[job]]\nname = 'patient'\ntimeout = '10m'\ndeadline = '20m'\nrun = 'sleep 3'\n";
    fs::write(folder.join("jobs.toml"), jobs).expect("a file");
    let clock = Clock::new();
    clock.set(-HOUR);
    let logs = [
        "--report",
        "report.html",
        "--trace",
        "trace",
        "--joblog",
        "log",
    ];
    let mut run = start(folder, "said", &logs);
    let mut aheads = [HOUR, -HOUR].into_iter().cycle();
    while run.try_wait().expect("it is ours").is_none() {
        clock.set(aheads.next().expect("it goes round"));
        // Before its first event it does not list what runs, but is ended.
        if !events(folder).is_empty() {
            // SAFETY: takes numbers; the process is a child that has not been waited for.
            unsafe { libc::kill(run.id().cast_signed(), libc::SIGUSR1) };
        }
        thread::sleep(Duration::from_millis(50));
    }
    let ended = run.wait().expect("it is ours");
    let said = fs::read_to_string(folder.join("said")).expect("what it said");
    let events = events(folder);
    assert_eq!(ended.code(), Some(1), "{said}");

    for (job, reason, least) in [
        ("hangs", Value::from("timeout"), 2.0),
        ("late", Value::from("deadline"), 1.0),
        ("again", Value::Null, 0.0),
        ("after", Value::Null, 1.0),
        ("patient", Value::Null, 3.0),
    ] {
        let end = find(&events, "job-finished", job);
        assert_eq!(end["reason"], reason, "{end}");
        let seconds = end["seconds"].as_f64().expect("a number");
        assert!((least..SECONDS).contains(&seconds), "{end}");
    }
    let all = events.last().expect("its end")["seconds"].as_f64();
    assert!((3.0..SECONDS).contains(&all.expect("a number")), "{all:?}");

    let trace = fs::read_to_string(folder.join("trace")).expect("a trace");
    let trace: Vec<Value> = serde_json::from_str(&trace).expect("JSON");
    let spans = |job: &str| -> Vec<(f64, f64)> {
        let own = trace
            .iter()
            .filter(|one| one["ph"] == "X" && one["name"] == job);
        let seconds = |value: &Value| value.as_f64().expect("a number") / 1e6;
        own.map(|one| (seconds(&one["ts"]), seconds(&one["dur"])))
            .collect()
    };
    for job in ["hangs", "late", "again", "after", "patient"] {
        for (start, length) in spans(job) {
            assert!((0.0..SECONDS).contains(&start), "{job}: {trace:#?}");
            assert!((0.0..SECONDS).contains(&length), "{job}: {trace:#?}");
        }
    }
    let [(first, took), (second, _)] = spans("again")[..] else {
        panic!("two attempts: {trace:#?}");
    };
    assert!(second - (first + took) > 1.0, "it waited: {trace:#?}");
    assert!(spans("patient")[0].1 >= 3.0, "{trace:#?}");
    assert!(!said.contains(" h "), "nothing ran for an hour: {said}");

    let log = fs::read_to_string(folder.join("log")).expect("a job log");
    for row in log.lines().skip(1) {
        let runtime = row
            .split('\t')
            .nth(3)
            .and_then(|text| text.trim().parse().ok());
        assert!(
            (0.0..SECONDS).contains(&runtime.expect("a number")),
            "{log}"
        );
    }
    let report = fs::read_to_string(folder.join("report.html")).expect("a report");
    assert!(report.contains("patient"));
}

/// Killed with the clock ahead, resumed with it behind, and once more.
pub(super) fn a_clock_that_was_set_disturbs_no_resume(_: &Ground) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let jobs = "[[job]]\nname = 'done'\nrun = 'echo ran >> done'\n\
                [[job]]\nname = 'lives'\nneeds = ['done']\n\
                run = 'echo $$ >> lives; [ -e last ] || sleep 600'\n";
    fs::write(folder.join("jobs.toml"), jobs).expect("a file");
    let clock = Clock::new();
    let lines = |name: &str| -> Vec<String> {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    for (round, ahead) in (1..).zip([HOUR, -HOUR, HOUR]) {
        clock.set(ahead);
        let mut run = start(folder, "said", &["--resume"]);
        while lines("lives").len() < round {
            thread::sleep(Duration::from_millis(20));
        }
        run.kill().expect("it is ours");
        run.wait().expect("it is ours");
    }
    fs::write(folder.join("last"), "").expect("a file");
    clock.set(-2 * HOUR);
    let status = start(folder, "said", &["--resume"])
        .wait()
        .expect("it is ours");
    let said = fs::read_to_string(folder.join("said")).expect("what it said");
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(lines("done"), ["ran"], "{said}");
    let lives = lines("lives");
    assert_eq!(lives.len(), 4, "{said}");
    for process in &lives {
        let stat = fs::read_to_string(Path::new("/proc").join(process).join("stat"));
        // Nobody reaps those whose run was killed, here.
        let is_left = stat.is_ok_and(|stat| !stat.contains(") Z "));
        assert!(!is_left, "{process} of {lives:?} was not ended: {said}");
    }
}
