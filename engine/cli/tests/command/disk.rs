//! A disk that is full: a file may not grow (`ulimit -f`), or a job fills a real disk, of a mebibyte.

use std::collections::HashSet;

use serde_json::Value;

use crate::case::{Case, events, started, sums};

const JOBS: usize = 400;

/// More jobs than run while the disk is waited for, however slow it is.
const FAR: usize = 1500;

/// Fills the disk, the first time, once some jobs are known to have succeeded, however slow it is.
const FILL: &str = "mkdir ../filled || exit 0; until grep -q success ../first; do sleep 0.01; done; \
                    head -c 2M /dev/zero > fill; true";

/// The jobs whose success was told.
fn succeeded(case: &Case, name: &str) -> HashSet<String> {
    let events = events(&case.read(name));
    let ended = events
        .iter()
        .filter(|event| event["event"] == "job-finished");
    let well = ended.filter(|event| event["status"] == "success");
    let name = |event: &Value| event["job"].as_str().expect("a name").to_owned();
    well.map(name).collect()
}

/// Under its journal, or else under what it is to write: the run has 3 and says of what, and what was told to have
/// succeeded does not run again.
#[test]
fn a_disk_that_a_job_fills_costs_no_end_of_a_job() {
    for (options, said) in [
        ("", "No space left on device"),
        (
            "--journal ../journal --joblog log",
            "--joblog: log: No space",
        ),
        (
            "--journal ../journal --trace trace",
            "--trace: trace: No space",
        ),
        (
            "--journal ../journal --report page",
            "--report: page: No space",
        ),
    ] {
        let case = Case::new();
        let job = |number: usize| {
            let name = "x".repeat(100);
            match number {
                50 => format!("{{\"name\": \"fills\", \"run\": \"{FILL}\"}}\n"),
                _ => format!("{{\"name\": \"{number}-{name}\", \"run\": \"true\"}}\n"),
            }
        };
        case.write("jobs.jsonl", (0..JOBS).map(job).collect::<String>());
        let (journal, _) = options.split_once(" --").unwrap_or_default();
        let script = format!(
            "mkdir disk && mount -t tmpfs -o size=1m none disk || exit 77\n\
             cp jobs.jsonl disk && cd disk || exit 1\n\
             $REIVER run jobs.jsonl -j2 --output json {options} >../first 2>../said\n\
             echo $? >../code\n\
             rm fill\n\
             $REIVER run jobs.jsonl -j2 --output json --resume {journal} >../second\n"
        );
        case.write("script", script);
        let done = case.through_shell("unshare -rm sh ./script");
        if [1, 77, 127].contains(&done.code) && !case.has("code") {
            eprintln!("skipped: no disk can be mounted here: {}", done.stderr);
            return;
        }
        let done = done.expect(0);
        assert_eq!(case.read("code"), "3\n", "{}", case.read("said"));
        assert!(case.read("said").contains(said), "{}", case.read("said"));
        let (first, second) = (succeeded(&case, "first"), succeeded(&case, "second"));
        assert!(!first.is_empty(), "{}", case.read("first"));
        let twice: Vec<&String> = first.intersection(&second).collect();
        assert!(twice.is_empty(), "{twice:?}: {done:?}");
        assert_eq!(first.len() + second.len(), JOBS);
    }
}

#[test]
fn a_full_disk_under_the_journal_stops_the_intake_and_loses_nothing() {
    let lines: String = (0..FAR)
        .map(|line| format!("echo {line} >> ran\n"))
        .collect();
    let case = Case::new();
    case.write("lines", &lines);
    // No file may be larger than 16 blocks, of 512 bytes or of 1,024.
    let line = "ulimit -f 16; exec $REIVER run lines -j2 --output json";
    let done = case.through_shell(line).expect(3);
    assert!(
        done.stderr.contains("cannot write the journal"),
        "{}",
        done.stderr
    );
    let first = events(&done.stdout);
    let ran = case.read("ran").lines().count();
    let [succeeded, failed, cancelled, skipped] = sums(&first);
    assert_eq!((succeeded + cancelled, failed, skipped), (FAR, 0, 0));
    assert!(ran >= succeeded && ran < FAR, "{ran} of {succeeded}");
    let told = first.iter().filter(|e| e["status"] == "success").count();
    assert_eq!(told, succeeded);
    let shown = case.reiver(&["journal", "show", "lines"]).expect(0).stdout;
    assert!(shown.contains(&format!("{told} succeeded")), "{shown}");
    // With room again, what was not told runs.
    let done = case
        .reiver(&["run", "lines", "--resume", "--output", "json"])
        .expect(0);
    let second = events(&done.stdout);
    assert_eq!(started(&second).len(), FAR - told);
    assert_eq!(sums(&second), [FAR, 0, 0, 0]);
}

#[test]
fn what_a_job_printed_whose_end_could_not_be_recorded_is_shown() {
    let case = Case::new();
    // With names so long that the journal is full long before the job log.
    let name = "n".repeat(200);
    let lines: String = (0..FAR)
        .map(|line| {
            format!(
                "{{\"name\": \"{name}-{line}\", \"run\": \"echo {line}; echo {line} >> ran\"}}\n"
            )
        })
        .collect();
    case.write("lines.jsonl", lines);
    let line = "ulimit -f 128; exec $REIVER run lines.jsonl -j2 --joblog log";
    let done = case.through_shell(line).expect(3);
    let sorted = |text: &str| -> Vec<String> {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let ran = sorted(&case.read("ran"));
    assert!(ran.len() < FAR, "{}", ran.len());
    assert_eq!(sorted(&done.stdout), ran);
    let unrecorded = done
        .stderr
        .lines()
        .filter(|l| l.starts_with("not recorded: "));
    let unrecorded: Vec<&str> = unrecorded.collect();
    assert!(!unrecorded.is_empty(), "{}", done.stderr);
    for line in &unrecorded {
        assert!(
            line.contains("exit code 0") && line.contains("--resume"),
            "{line}"
        );
    }
    let number = match unrecorded.len() {
        1 => "1 end of jobs".to_owned(),
        many => format!("{many} ends of jobs"),
    };
    assert!(done.stderr.contains(&number), "{}", done.stderr);
    // They have started, and count as cancelled.
    let log = case.read("log");
    assert_eq!(log.lines().count() - 1, ran.len(), "{log}");
    let cancelled = log.lines().filter(|row| row.contains("\t-1\t0\t"));
    assert_eq!(cancelled.count(), unrecorded.len(), "{log}");
}

#[test]
fn the_failure_of_a_job_whose_end_could_not_be_recorded_is_shown() {
    let case = Case::new();
    case.write(
        "lines",
        said_and_noted(400).replace(">> ran", ">> ran; exit 7"),
    );
    let line = "ulimit -f 16; exec $REIVER run lines -j2 --keep-order";
    let done = case.through_shell(line).expect(3);
    let ran = case.read("ran").lines().count();
    let shown = |word: &str| {
        done.stderr
            .lines()
            .filter(|line| line.starts_with(word) && line.contains("exit code 7"))
            .count()
    };
    let unrecorded = shown("not recorded: ");
    assert!(unrecorded > 0, "{}", done.stderr);
    // The end repeats the first 50 of those that failed.
    let failed = ran - unrecorded;
    assert_eq!(
        shown("failed: "),
        failed + failed.min(50),
        "{}",
        done.stderr
    );
    assert_eq!(done.stdout.lines().count(), ran);
}

/// Lines for a shell that print their number and write it down.
fn said_and_noted(count: usize) -> String {
    let lines = 0..count;
    lines
        .map(|line| format!("echo {line}; echo {line} >> ran\n"))
        .collect()
}

#[test]
fn where_there_is_no_room_for_a_word_of_it_the_run_ends_all_the_same() {
    let case = Case::new();
    case.write("lines", "echo well >> ran\n".repeat(400));
    let line = "ulimit -f 16; exec $REIVER run lines -j2 2>/dev/full";
    case.through_shell(line).expect(3);
    case.reiver(&["run", "lines", "--resume"]).expect(0);
}
