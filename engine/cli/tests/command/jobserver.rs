//! Slots shared with makes inside jobs, and with a make outside.

use std::process::Command;

use crate::case::Case;

/// False where there is no make, which is said.
fn has_make() -> bool {
    let has = Command::new("make").arg("--version").output().is_ok();
    if !has {
        eprintln!("skipped: make is not installed");
    }
    has
}

/// The most lines `+` that were not followed by their `-`.
fn most_at_once(log: &str) -> i32 {
    let mut now = 0;
    log.lines()
        .map(|line| {
            now += if line == "+" { 1 } else { -1 };
            now
        })
        .max()
        .unwrap_or(0)
}

/// Targets that log when they begin and end.
const LOGS: &str = "all: a b c d\na b c d:\n\t@echo + >> log; sleep 0.05; echo - >> log\n";

/// Targets of which each waits until the others run.
const MEET: &str = "all: a b c\na b c:\n\t@touch $@.here; \
    until [ -e a.here ] && [ -e b.here ] && [ -e c.here ]; do sleep 0.01; done\n";

#[test]
fn a_make_in_a_job_has_the_slots_that_no_job_waits_for() {
    if !has_make() {
        return;
    }
    let case = Case::new();
    case.write("Makefile", MEET);
    case.write("list.txt", "make\n");
    let done = case.reiver(&["run", "list.txt", "-j3"]).expect(0);
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
}

#[test]
fn makes_in_jobs_run_no_more_at_once_than_there_are_slots() {
    if !has_make() {
        return;
    }
    let case = Case::new();
    case.write("Makefile", LOGS);
    case.write("list.txt", "make -s\n".repeat(6));
    case.reiver(&["run", "list.txt", "-j2"]).expect(0);
    let log = case.read("log");
    assert_eq!(log.lines().count(), 48);
    assert!(most_at_once(&log) <= 2, "{log}");
}

#[test]
fn a_job_that_needs_several_slots_gets_back_what_was_lent() {
    if !has_make() {
        return;
    }
    let case = Case::new();
    case.write("Makefile", LOGS);
    case.write(
        "jobs.toml",
        "[[job]]\nname = 'make'\nrun = 'make -s'\n\
         [[job]]\nname = 'waits'\nclass = 'io'\nrun = 'until [ -e log ]; do sleep 0.01; done'\n\
         [[job]]\nneeds = ['waits']\ncpus = 3\nrun = 'echo + >> log; echo + >> log; echo + >> log; sleep 0.05; \
         echo - >> log; echo - >> log; echo - >> log'\n",
    );
    case.reiver(&["run", "jobs.toml", "-j3"]).expect(0);
    let log = case.read("log");
    assert!(most_at_once(&log) <= 3, "{log}");
}

#[test]
fn tokens_that_a_killed_make_took_with_it_hold_nobody_up() {
    if !has_make() {
        return;
    }
    let case = Case::new();
    case.write(
        "Makefile",
        "all: a b c\na b c:\n\t@touch $@.here; sleep 1000\n",
    );
    case.write(
        "jobs.toml",
        "[[job]]\nname = 'make'\nrun = 'make & until [ -e a.here ] && [ -e b.here ] && [ -e c.here ]; do \
         sleep 0.01; done; kill -KILL 0'\n\
         [[job]]\ncpus = 3\nneeds = [{ job = 'make', when = 'failure' }]\nrun = 'echo well'\n",
    );
    let done = case.reiver(&["run", "jobs.toml", "-j3"]).expect(1);
    assert_eq!(done.stdout, "well\n");
}

#[test]
fn inside_a_make_it_runs_as_much_as_that_allows() {
    if !has_make() {
        return;
    }
    let case = Case::new();
    case.write(
        "list.txt",
        "echo + >> log; sleep 0.05; echo - >> log\n".repeat(12),
    );
    // Both recipes are reivers, and the second one of them has to share.
    case.write(
        "Makefile",
        "all: x y\nx y:\n\t+@$(REIVER) run list.txt -j8 --no-journal\n",
    );
    let done = case.through_shell("make -j3 2>&1").expect(0);
    assert!(!done.stdout.contains("jobserver"), "{}", done.stdout);
    let log = case.read("log");
    assert_eq!(log.lines().count(), 48);
    assert!(most_at_once(&log) <= 3, "{log}");

    case.write("list.txt", "touch a; until [ -e b ]; do sleep 0.01; done\ntouch b; until [ -e a ]; do sleep 0.01; done\n");
    case.write(
        "Makefile",
        "all:\n\t+@$(REIVER) run list.txt -j8 --no-journal\n",
    );
    case.through_shell("make -j2").expect(0);
}

#[test]
fn a_make_that_keeps_its_tokens_to_itself_is_said_to() {
    if !has_make() {
        return;
    }
    let case = Case::new();
    case.write("list.txt", "/bin/true\n");
    case.write("Makefile", "all:\n\t@$(REIVER) run list.txt --no-journal\n");
    let done = case.through_shell("make -j2").expect(0);
    assert!(done.stderr.contains("begin with `+`"), "{}", done.stderr);
}

#[test]
fn flags_of_a_make_above_are_kept_and_a_file_may_set_its_own() {
    let case = Case::toml(
        "[[job]]\nname = 'a'\nrun = 'echo \"$MAKEFLAGS|$MFLAGS|$CARGO_MAKEFLAGS\"'\n\
         [[job]]\nneeds = ['a']\nrun = 'echo \"$MAKEFLAGS\"'\nenv = { MAKEFLAGS = 'k' }\n",
    );
    let line = "MAKEFLAGS='kw -j4 --warn -- A=b' MFLAGS=-k exec $REIVER run jobs.toml";
    let done = case.through_shell(line).expect(0);
    let (first, second) = done.stdout.split_once('\n').unwrap();
    let flags = first.strip_suffix(" -- A=b||").expect(first);
    let (flags, address) = flags.split_once(" --jobserver-fds=").expect(first);
    assert_eq!(flags, "kw --warn -j");
    let (fds, auth) = address.split_once(" --jobserver-auth=").expect(first);
    assert_eq!(fds, auth);
    assert_eq!(second, "k\n");
}
