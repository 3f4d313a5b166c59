//! The promises held on the machine itself, and a report that can go with a bug.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use reiver::Topology;

use crate::promises::PROMISES;
use crate::trial::{self, THIS_MACHINE, Verdict};

/// The file of the report.
pub(crate) const REPORT: &str = "numa-report.txt";

/// Holds the promises whose names contain one of `parts`, or all if there are none.
pub(crate) fn run(parts: &[String]) -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let topology = Topology::detect().expect("this machine");
    let nodes = topology.nodes().count();
    let mut report = String::from("# What is promised about nodes, on this machine\n\n");
    let kernel = fs::read_to_string("/proc/version").unwrap_or_default();
    let _ = writeln!(report, "reiver {}, {kernel}", env!("CARGO_PKG_VERSION"));
    if nodes < 2 {
        println!("this machine has one node: what is promised about several cannot be held here");
    }
    let (mut broken, mut held, mut not_held) = (0, 0, 0);
    let is_meant = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part));
    for promise in PROMISES.iter().filter(|promise| is_meant(promise.name)) {
        let output = folder.path().join("output");
        let ended = trial::run(THIS_MACHINE, "-", promise.name, &output).expect("a trial");
        let (word, more) = match ended.verdict() {
            Verdict::Holds => {
                held += 1;
                ("ok".to_owned(), ended.output)
            }
            Verdict::NotHeld(reason) => {
                not_held += 1;
                (format!("left out: {reason}"), String::new())
            }
            Verdict::Broken(how) => {
                broken += 1;
                ("BROKEN".to_owned(), how)
            }
        };
        println!("{} ... {word}", promise.name);
        let _ = writeln!(report, "{} ... {word}", promise.name);
        for line in more.lines() {
            let _ = writeln!(report, "    {line}");
        }
    }
    let summary = format!("{held} held, {broken} broken, {not_held} left out");
    let _ = writeln!(report, "\n{summary}");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(REPORT);
    // Where it was built, or where it was brought.
    let path = match fs::write(&path, &report) {
        Ok(()) => path,
        Err(_) => {
            fs::write(REPORT, report).expect("a report");
            REPORT.into()
        }
    };
    println!("{summary}; the report is in {}", path.display());
    ExitCode::from(u8::from(broken > 0))
}
