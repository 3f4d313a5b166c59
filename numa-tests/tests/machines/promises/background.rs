//! Jobs of the background beside others, on one CPU: what each gets of it, in the kernel's words.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use reiver_topology::{CpuSet, place};

use super::Ground;
use super::command::reiver;
use crate::trial::USER;

/// Whether the kernel shares CPUs by session first.
const AUTOGROUP: &str = "/proc/sys/kernel/sched_autogroup_enabled";
/// So long the other one computes while it is looked at.
const LONG: Duration = Duration::from_secs(3);

pub(super) fn the_background_gets_a_twentieth_at_most(ground: &Ground) {
    is_a_twentieth_at_most(ground, "0");
}

/// A class of its own is not enough then.
pub(super) fn it_does_so_where_the_kernel_groups_by_session(ground: &Ground) {
    is_a_twentieth_at_most(ground, "1");
}

/// Of root, and of an ordinary user.
fn is_a_twentieth_at_most(ground: &Ground, autogroup: &str) {
    fs::write(AUTOGROUP, autogroup).expect("the kernel can");
    // What is in another group is not grouped by session.
    let own = std::process::id().to_string();
    fs::write("/sys/fs/cgroup/cgroup.procs", own).expect("root may go anywhere");
    for user in [0, USER] {
        let share = share_of_background(ground, user);
        println!("autogroup {autogroup}, user {user}: {:.2} %", 100.0 * share);
        assert!(share <= 0.05, "{share}");
    }
}

/// What a job of the background gets of a CPU that one of ordinary priority wants all of.
fn share_of_background(ground: &Ground, user: u32) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    chown(folder.path(), Some(user), Some(user)).expect("root may");
    // The other one waits, for beside it the background would take long to begin.
    let jobs = "[[job]]\npriority = 'P2'\nrun = 'echo $$ > background; while :; do :; done'\n\
                [[job]]\nrun = 'until [ -s background ]; do sleep 0.1; done; \
                echo $$ > other; while :; do :; done'\n";
    fs::write(folder.path().join("jobs.toml"), jobs).expect("a file");
    let mut command = reiver();
    command
        .args(["run", "jobs.toml", "-j2"])
        .current_dir(folder.path());
    command.uid(user).gid(user);
    let only: CpuSet = ground
        .topology
        .cpus()
        .iter()
        .map(|cpu| cpu.id)
        .take(1)
        .collect();
    let mut run = started_on(&only, command);
    let [other, background] = ["other", "background"].map(|name| process_of(folder.path(), name));
    let before = [computed(other), computed(background)];
    while computed(other) - before[0] < LONG {
        thread::sleep(Duration::from_millis(50));
    }
    let gone = computed(other) - before[0];
    let background = computed(background) - before[1];
    // SAFETY: takes numbers; the process is a child that has not been waited for.
    unsafe { libc::kill(run.id().cast_signed(), libc::SIGTERM) };
    run.wait().expect("it is ours");
    background.as_secs_f64() / (gone + background).as_secs_f64()
}

/// Starts it where it may use these CPUs alone.
fn started_on(cpus: &CpuSet, mut command: Command) -> Child {
    thread::scope(|scope| {
        let starts = scope.spawn(move || {
            place::set_thread_affinity(cpus).expect("CPUs that may be used");
            command.spawn().expect("it can be executed")
        });
        starts.join().expect("no panic")
    })
}

/// The number that a job has written, once it has.
fn process_of(folder: &Path, name: &str) -> u32 {
    loop {
        let said = fs::read_to_string(folder.join(name)).unwrap_or_default();
        if let Some(number) = said.strip_suffix('\n') {
            return number.parse().expect("a number");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// How long a process of one thread has been on a CPU.
fn computed(process: u32) -> Duration {
    let said = fs::read_to_string(format!("/proc/{process}/schedstat")).expect("it lives");
    let nanos = said.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}
