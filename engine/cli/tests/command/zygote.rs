//! Jobs of the background are started by a process of their own: what becomes of them when that ends.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use crate::case::{Case, Done};

/// Seldom enough to leave the CPUs to what gives way to everybody.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

const LOGS: &str = "#!/bin/sh\necho ran >> \"${0%/*}/log\"\n";

/// A child of reiver's that is a zygote, or is about to be a job: with the session that it is in.
fn zygotes(reiver: u32) -> Vec<(u32, u32)> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let is_one = String::from_utf8_lossy(&line).contains("--zygote");
        let (parent, session): (u32, u32) = (fields[1].parse().ok()?, fields[3].parse().ok()?);
        (is_one && parent == reiver).then_some((pid, session))
    })
    .collect()
}

fn kill(pid: u32) {
    // SAFETY: takes two numbers; the process is a child of the run that this test has started.
    unsafe { libc::kill(i32::try_from(pid).expect("a small number"), libc::SIGKILL) };
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        thread::sleep(LOOK_AGAIN);
    }
}

/// Keeps others from opening a file, as executing it does, while it lives; `None` where the file system
/// has no leases.
fn lease(path: &std::path::Path) -> Option<File> {
    let file = File::open(path).expect("a file of the test");
    let fd = file.as_raw_fd();
    // SAFETY: takes numbers. Who is told that somebody else wants the file is to do nothing.
    unsafe {
        libc::fcntl(fd, 10 /* F_SETSIG */, libc::SIGURG)
    };
    // SAFETY: takes numbers.
    let taken = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) };
    (taken == 0).then_some(file)
}

/// True once somebody waits for a file that is kept from others.
fn is_wanted(held: &File) -> bool {
    // SAFETY: takes numbers.
    let lease = unsafe { libc::fcntl(held.as_raw_fd(), libc::F_GETLEASE) };
    lease != libc::F_WRLCK
}

#[test]
fn a_line_whose_start_was_cut_short_is_not_started_a_second_time() {
    let case = Case::new();
    case.write("prog", LOGS);
    let program = case.path("prog");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    case.write("list.txt", "#JOB priority=P2\n./prog\n");
    let Some(held) = lease(&program) else {
        eprintln!("skipped: no leases on this file system");
        return;
    };
    let mut reiver = case.start(&["run", "list.txt"]);
    let id = reiver.id();
    // It is executing.
    wait_until(|| is_wanted(&held));
    let is_job = |&(pid, session): &(u32, u32)| pid != session;
    let (zygote, _) = *zygotes(id)
        .iter()
        .find(|one| !is_job(one))
        .expect("it lives");
    kill(zygote);
    let is_new = |&(pid, session): &(u32, u32)| pid == session && pid != zygote;
    wait_until(|| {
        let has_ended = reiver.try_wait().expect("it is ours").is_some();
        has_ended || zygotes(id).iter().any(is_new)
    });
    drop(held);
    let done = Done::of(reiver).expect(1);
    assert!(
        done.stderr
            .contains("the process that starts it ended meanwhile"),
        "{done:#?}"
    );
    assert!(!case.has("log"), "it was ended before it began");
}

#[test]
fn a_zygote_that_was_killed_between_two_jobs_is_replaced() {
    let case = Case::new();
    case.write("prog", LOGS);
    let program = case.path("prog");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    case.write(
        "list.txt",
        "#JOB priority=P2\nuntil [ -e go ]; do sleep 0.01; done\n./prog\n./prog\n",
    );
    let mut command = case.command(["run", "list.txt", "-j1", "--output", "json"]);
    let told = File::create(case.path("told")).expect("a file of the test");
    let reiver = command.stdout(told).spawn().expect("reiver starts");
    // By then the zygote has nothing more to say of it.
    wait_until(|| case.read("told").contains("job-started"));
    let all = zygotes(reiver.id());
    assert_eq!(all.len(), 1, "{all:?}");
    kill(all[0].0);
    case.write("go", "");
    Done::of(reiver).expect(0);
    assert_eq!(case.read("log"), "ran\nran\n");
}

#[test]
fn jobs_run_once_each_whenever_their_zygotes_are_killed() {
    let case = Case::new();
    let jobs = 30;
    case.write(
        "list.txt",
        format!("#JOB priority=P2\n{}", "./prog\n".repeat(jobs)),
    );
    case.write("prog", LOGS);
    let program = case.path("prog");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut reiver = case.start(&["run", "list.txt", "-j2", "--output", "json"]);
    let mut killed = 0;
    while reiver.try_wait().expect("it is ours").is_none() {
        let leaders = zygotes(reiver.id());
        for (zygote, _) in leaders.into_iter().filter(|(pid, session)| pid == session) {
            if killed < 10 {
                kill(zygote);
                killed += 1;
            }
        }
        thread::sleep(LOOK_AGAIN);
    }
    let done = Done::of(reiver);
    let events = crate::case::events(&done.stdout);
    let finished = |status: &str| {
        let finished = events
            .iter()
            .filter(|event| event["event"] == "job-finished");
        finished.filter(|event| event["status"] == status).count()
    };
    let (succeeded, failed) = (finished("success"), finished("failed"));
    assert!(killed > 0 && succeeded + failed == jobs, "{done:#?}");
    let ran = case.read("log").lines().count();
    // Of those that failed some may have come so far.
    assert!(
        (succeeded..=jobs).contains(&ran),
        "{ran} ran, {succeeded} succeeded"
    );
}
