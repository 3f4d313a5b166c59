//! A disk that is full: a real one, of a mebibyte, that a job fills.

use std::collections::HashSet;

use serde_json::Value;

use crate::case::{Case, events};

const JOBS: usize = 400;

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
