//! One promise, held in a process of its own: so a panic, an abort and a hang are its own, and what it
//! is confined to goes with it.
//!
//! Whoever runs a trial starts this program with [`TRIAL`]. It enters the cgroup of the stance, becomes
//! who it is to be, and holds the promise.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use reiver_numa_tests::machines::{Machine, Stance, machines};

use crate::promises::{self, Ground};

pub(crate) const TRIAL: &str = "--trial";
/// What stands for the machine that this is, of which nobody was told anything.
pub(crate) const THIS_MACHINE: &str = "-";
/// A trial that takes longer hangs. The longest take a minute where one thread emulates all CPUs, and several
/// where others use that thread's.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(600);
/// How a trial ends that found that it cannot be held.
const NOT_HELD: u8 = 99;
/// An ordinary user.
pub(crate) const USER: u32 = 1000;

/// How a trial came out.
#[derive(Debug)]
pub(crate) struct Ended {
    /// 0: the promise holds. That of a signal is 128 more than its number.
    pub(crate) code: i32,
    pub(crate) output: String,
}

/// What became of a promise.
#[derive(Debug)]
pub(crate) enum Verdict {
    Holds,
    /// It was left out, for this reason.
    NotHeld(String),
    Broken(String),
}

impl Ended {
    pub(crate) fn not_held(reason: &str) -> Ended {
        Ended {
            code: i32::from(NOT_HELD),
            output: reason.to_owned(),
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.code {
            0 => Verdict::Holds,
            code if code == i32::from(NOT_HELD) => {
                let reason = self.output.lines().last().unwrap_or_default();
                Verdict::NotHeld(reason.to_owned())
            }
            code => Verdict::Broken(format!("it ended with {code}\n{}", self.output)),
        }
    }
}

/// Runs a trial to its end; what it prints goes through a file at `output`.
pub(crate) fn run(machine: &str, stance: &str, promise: &str, output: &Path) -> io::Result<Ended> {
    let file = fs::File::create(output)?;
    let status = Command::new(env::current_exe()?)
        .args([TRIAL, machine, stance, promise])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()?;
    let by_signal = || status.signal().map_or(1, |signal| 128 + signal);
    Ok(Ended {
        code: status.code().unwrap_or_else(by_signal),
        output: String::from_utf8_lossy(&fs::read(output)?).into_owned(),
    })
}

fn find(name: &str, stance: &str) -> Option<(Machine, Stance)> {
    let machine = machines()
        .into_iter()
        .find(|machine| machine.layout.name == name)?;
    let stance = machine.stance(stance)?.clone();
    Some((machine, stance))
}

/// Enters a stance, and holds the promise in it.
pub(crate) fn hold(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.collect();
    let [name, stance, promise] = &arguments[..] else {
        return refuse("a trial is a machine, a stance and a promise");
    };
    let Some(promise) = promises::find(promise) else {
        return refuse(&format!("there is no promise `{promise}`"));
    };
    let found = find(name, stance);
    match &found {
        Some((_, stance)) => {
            if let Err(error) = enter(stance, promise.name) {
                return refuse(&format!(
                    "cannot enter the stance `{}`: {error}",
                    stance.name
                ));
            }
        }
        None if name == THIS_MACHINE => {}
        None => {
            return refuse(&format!(
                "there is no machine `{name}` with a stance `{stance}`"
            ));
        }
    }
    // Threads with heaps of their own have what is large mapped, and give it back at once: of memory that was
    // touched before nothing could be promised.
    promises::tell_allocator(libc::M_ARENA_MAX, 1);
    abort_if_it_hangs();
    let ground = Ground::new(found);
    if let Some(lacks) = promise.lacks(&ground.site) {
        println!("{lacks}");
        return ExitCode::from(NOT_HELD);
    }
    (promise.hold)(&ground);
    ExitCode::SUCCESS
}

fn enter(stance: &Stance, promise: &str) -> io::Result<()> {
    enter_group(stance, promise)?;
    if stance.as_user {
        become_user()?;
    }
    if stance.no_placement {
        seccomp::refuse_placement();
    }
    Ok(())
}

/// From here on this process is an ordinary user's, as if they had started it.
fn become_user() -> io::Result<()> {
    let checked = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: an empty list is not read.
    checked(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: takes a number.
    checked(unsafe { libc::setgid(USER) })?;
    // SAFETY: as above.
    checked(unsafe { libc::setuid(USER) })?;
    // Its own files in /proc are its own again.
    // SAFETY: sets a flag of this process.
    checked(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) })
}

/// A group of the stance, and in it one of the trial alone; where an ordinary user is to be in it, it is
/// theirs, as systemd delegates.
fn enter_group(stance: &Stance, promise: &str) -> io::Result<()> {
    let named =
        |error: io::Error, path: &Path| io::Error::other(format!("{}: {error}", path.display()));
    let group = Path::new("/sys/fs/cgroup").join(format!("stance-{}", stance.name));
    let own = group.join(promise);
    let write = |path: &Path, text: &str| fs::write(path, text).map_err(|e| named(e, path));
    fs::create_dir_all(&group).map_err(|error| named(error, &group))?;
    if let Some(cpus) = &stance.cpus {
        write(&group.join("cpuset.cpus"), &cpus.to_string())?;
    }
    if let Some(node) = stance.memory {
        write(&group.join("cpuset.mems"), &node.to_string())?;
    }
    if let Some(percent) = stance.quota_percent {
        write(
            &group.join("cpu.max"),
            &format!("{} 100000", percent * 1000),
        )?;
    }
    write(
        &group.join("cgroup.subtree_control"),
        "+cpuset +cpu +memory +pids",
    )?;
    fs::create_dir_all(&own).map_err(|error| named(error, &own))?;
    write(&own.join("cgroup.procs"), &std::process::id().to_string())?;
    if stance.as_user {
        let theirs = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
        for path in theirs
            .map(|file| group.join(file))
            .iter()
            .chain([&group, &own])
        {
            chown(path, Some(USER), Some(USER)).map_err(|error| named(error, path))?;
        }
        for file in fs::read_dir(&own)?.flatten() {
            chown(file.path(), Some(USER), Some(USER))?;
        }
    }
    Ok(())
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}

/// After a while says what every thread of this process is about, and aborts.
fn abort_if_it_hangs() {
    thread::spawn(|| {
        thread::sleep(HANGS_AFTER);
        eprintln!("hangs; its threads:");
        for task in fs::read_dir("/proc/self/task")
            .into_iter()
            .flatten()
            .flatten()
        {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let status = read("status");
            let state = status.lines().find(|line| line.starts_with("State:"));
            eprintln!(
                "  {} {} in {}",
                read("comm").trim(),
                state.unwrap_or_default(),
                read("wchan").trim()
            );
        }
        std::process::abort();
    });
}

mod seccomp {
    //! What container runtimes refuse to whoever lacks CAP_SYS_NICE.

    use std::io;

    const REFUSED: [libc::c_long; 4] = [
        libc::SYS_mbind,
        libc::SYS_set_mempolicy,
        libc::SYS_get_mempolicy,
        libc::SYS_move_pages,
    ];

    /// From here on these calls fail with `EPERM`, for this process and all that it starts.
    pub(super) fn refuse_placement() {
        let step = |code: u32, if_true: u8, if_false: u8, k: u32| libc::sock_filter {
            code: u16::try_from(code).expect("codes have 16 bits"),
            jt: if_true,
            jf: if_false,
            k,
        };
        let verdict = libc::BPF_RET | libc::BPF_K;
        // The number of the call is the first word of what is filtered.
        let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
        for (left, call) in (1..=REFUSED.len()).rev().zip(REFUSED) {
            let over = u8::try_from(left).expect("a handful");
            let call = u32::try_from(call).expect("calls have small numbers");
            program.push(step(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                over,
                0,
                call,
            ));
        }
        program.push(step(verdict, 0, 0, libc::SECCOMP_RET_ALLOW));
        program.push(step(
            verdict,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs(),
        ));
        let program = libc::sock_fprog {
            len: u16::try_from(program.len()).expect("a handful"),
            filter: program.as_mut_ptr(),
        };
        // SAFETY: sets a flag of this process.
        let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: the kernel copies the program, which lives until the call returns.
        let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}
