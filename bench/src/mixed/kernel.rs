//! How the kernel schedules the current thread, as far as the standard library does not say.
//!
//! What is refused gives an error, for whoever needs it to be skipped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::case::Trouble;

/// What a thread asks of the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ask {
    /// More than 0: yields to others. None: as it is.
    pub(super) nice: Option<i32>,
    /// How long it wants to run at a time, in microseconds.
    pub(super) slice_us: Option<u64>,
    pub(super) policy: Policy,
    /// The number of the one CPU that it may use.
    pub(super) cpu: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Policy {
    #[default]
    Ordinary,
    /// Whatever others leave.
    Idle,
    /// Before all others, and before those of a lower number, from 1; wants privilege.
    RealTime(u32),
}

/// As the kernel has it; libc lacks it.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl Ask {
    pub(super) const ORDINARY: Ask = Ask {
        nice: None,
        slice_us: None,
        policy: Policy::Ordinary,
        cpu: None,
    };

    /// Does so, for the current thread.
    pub(super) fn apply(self) -> io::Result<()> {
        if let Some(cpu) = self.cpu {
            confine(cpu)?;
        }
        let (policy, priority) = match self.policy {
            Policy::Ordinary => (libc::SCHED_OTHER, 0),
            Policy::Idle => (libc::SCHED_IDLE, 0),
            Policy::RealTime(priority) => (libc::SCHED_FIFO, priority),
        };
        let attributes = Attributes {
            size: u32::try_from(size_of::<Attributes>()).expect("it is small"),
            policy: u32::try_from(policy).expect("policies are small numbers"),
            nice: self.nice.unwrap_or(0),
            priority,
            runtime: self.slice_us.unwrap_or(0) * 1000,
            ..Attributes::default()
        };
        // SAFETY: the kernel reads as many bytes as `size` says.
        let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
        checked(result)
    }
}

/// What the system refuses cannot be measured.
pub(super) fn granted(asked: io::Result<()>) -> Result<(), Trouble> {
    asked.map_err(|error| Trouble::Skipped(format!("the system refuses: {error}")))
}

fn checked(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Confines the current thread, and those it starts, to one CPU.
pub(super) fn confine(cpu: usize) -> io::Result<()> {
    let mut mask = [0_u64; 16];
    *mask
        .get_mut(cpu / 64)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))? |= 1 << (cpu % 64);
    // SAFETY: the kernel reads as many bytes as the mask has.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            0,
            size_of_val(&mask),
            mask.as_ptr(),
        )
    };
    checked(result)
}

/// The current thread sleeps no longer than it asks for.
pub(super) fn sleeps_exactly() {
    // SAFETY: a number, in nanoseconds.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// Confines the current thread, and those it starts, to the first half of the CPUs.
pub(super) fn confine_to_half() -> Result<(), Trouble> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    if cpus != 2 {
        return Err(Trouble::Skipped(format!(
            "it is written for 2 CPUs, not {cpus}"
        )));
    }
    confine(0).map_err(|error| Trouble::Skipped(format!("the system refuses: {error}")))
}

/// This process in a cgroup with a quota of half the CPUs, until it is dropped.
#[derive(Debug)]
pub(super) struct Quota {
    group: PathBuf,
}

impl Quota {
    pub(super) fn of_half() -> Result<Quota, Trouble> {
        const PERIOD_US: usize = 100_000;
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let quota = (cpus * PERIOD_US / 2).to_string();
        let name = format!("reiver-bench-{}", std::process::id());
        let skipped = |error: io::Error| {
            Trouble::Skipped(format!("no cgroup with a quota can be made here: {error}"))
        };
        // The first generation where it has the controller, else the second.
        let first = Path::new("/sys/fs/cgroup/cpu");
        let (root, file, text) = if first.join("cpu.cfs_quota_us").exists() || first.is_dir() {
            (first, "cpu.cfs_quota_us", quota)
        } else {
            let text = format!("{quota} {PERIOD_US}");
            (Path::new("/sys/fs/cgroup"), "cpu.max", text)
        };
        let group = root.join(name);
        fs::create_dir(&group).map_err(skipped)?;
        let quota = Quota { group };
        fs::write(quota.group.join(file), text).map_err(skipped)?;
        let own = std::process::id().to_string();
        fs::write(quota.group.join("cgroup.procs"), own).map_err(skipped)?;
        Ok(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // What is left behind is empty, and nobody's.
        if let Some(root) = self.group.parent() {
            let own = std::process::id().to_string();
            let _ = fs::write(root.join("cgroup.procs"), own);
        }
        let _ = fs::remove_dir(&self.group);
    }
}

/// Another program, a process a CPU, until it is dropped.
#[derive(Debug)]
pub(super) struct Others(Vec<Child>);

impl Others {
    pub(super) fn start(cpus: usize) -> Result<Others, Trouble> {
        let mut others = Others(Vec::new());
        for _ in 0..cpus {
            let program = Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn();
            let program = program.map_err(|error| Trouble::Skipped(format!("sh: {error}")))?;
            others.0.push(program);
        }
        Ok(others)
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for program in &mut self.0 {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// How long CPUs have been idle, and how much CPU time this program has had, so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy {
    now: Instant,
    cpus: u32,
    idle: Duration,
    own: Duration,
}

impl Busy {
    pub(super) fn now() -> Option<Busy> {
        let now = Instant::now();
        // In ticks: user, nice, system, idle, waiting for disks, interrupts of two kinds, stolen. Only the idle
        // times are measured; the others count what ticks came upon, and jobs that come by the clock come with
        // the ticks.
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let (all, each) = stat.split_once('\n')?;
        let ticks = |field: usize| all.split_whitespace().nth(field)?.parse::<u64>().ok();
        let cpus = each.lines().take_while(|line| line.starts_with("cpu"));
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: there is room for the time.
        unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
        Some(Busy {
            now,
            cpus: u32::try_from(cpus.count()).ok()?,
            // A hundred a second, on all machines that Linux runs on today.
            idle: Duration::from_millis(10 * (ticks(4)? + ticks(5)?)),
            own: Duration::new(
                u64::try_from(time.tv_sec).ok()?,
                u32::try_from(time.tv_nsec).ok()?,
            ),
        })
    }

    /// What others had since `before`, the machine's host among them.
    pub(super) fn of_others(self, before: Busy) -> Duration {
        let all = self.now.duration_since(before.now) * self.cpus;
        let idle = self.idle.saturating_sub(before.idle);
        let own = self.own.saturating_sub(before.own);
        all.saturating_sub(idle + own)
    }
}
