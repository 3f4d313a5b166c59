//! Processes as the kernel knows them: handles, ends, and who descends from whom.
//!
//! Leaders and strays are reaped by their numbers, never any child whatever: the threads of this
//! process, and whoever else lives in it, keep theirs.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use super::brand::Brand;
use crate::event::LeaderEnd;
use crate::journal::Born;

/// A process number.
pub(crate) type Pid = libc::pid_t;

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Something to `poll` that is ready once a child of ours has ended: a pidfd or, where a sandbox or the
/// kernel has none, a pipe that a thread closes then. The child is not reaped by it.
pub(crate) fn end_of(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers, gives a new descriptor.
    let opened = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
    match opened {
        Ok(fd) => {
            let fd = RawFd::try_from(fd).expect("a descriptor is a small number");
            // SAFETY: it is new, and nobody else's.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                tracing::warn!("no pidfd_open here ({error}): a thread more waits for each job");
            });
            end_by_thread(pid)
        }
        Err(error) => Err(error),
    }
}

fn end_by_thread(pid: Pid) -> io::Result<OwnedFd> {
    let (reader, writer) = io::pipe()?;
    let id = libc::id_t::try_from(pid).expect("a process number is positive");
    thread::Builder::new()
        .name("reiver-wait".into())
        .spawn(move || {
            // It stays there to be reaped, so that its number stays its own. Where this fails there
            // is nothing to wait for.
            let _ = wait(libc::P_PID, id, libc::WEXITED | libc::WNOWAIT);
            drop(writer);
        })?;
    Ok(reader.into())
}

/// Takes the end of a child that has ended; waits if it has not. Nobody else may have taken it, or the
/// number may be another's by now.
pub(crate) fn reap(child: Pid) -> io::Result<LeaderEnd> {
    reap_with_cpu_time(child).map(|(end, _)| end)
}

/// The same, with what it computed, and its children that were waited for.
pub(super) fn reap_with_cpu_time(child: Pid) -> io::Result<(LeaderEnd, Duration)> {
    let id = libc::id_t::try_from(child).expect("a process number is positive");
    wait(libc::P_PID, id, libc::WEXITED)
}

/// How long the first thread of a process could have run and had no CPU; `None` where the system does not
/// tell. Also of one that has ended, until it is reaped.
pub(super) fn time_queued(pid: Pid) -> Option<Duration> {
    let told = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    parse_queued(&told)
}

/// `nanoseconds on a CPU, nanoseconds without one, turns`; all zero where nobody counts.
fn parse_queued(told: &str) -> Option<Duration> {
    let mut numbers = told.split_ascii_whitespace().map(str::parse::<u64>);
    let mut number = || numbers.next()?.ok();
    let (_, queued, turns) = (number()?, number()?, number()?);
    (turns > 0).then_some(Duration::from_nanos(queued))
}

/// The same, and does not wait.
pub(crate) fn reap_ended(child: Pid) -> io::Result<LeaderEnd> {
    let id = libc::id_t::try_from(child).expect("a process number is positive");
    wait(libc::P_PID, id, libc::WEXITED | libc::WNOHANG).map(|(end, _)| end)
}

/// The system call itself: the C library's function does not tell what was computed.
fn wait(
    kind: libc::idtype_t,
    id: libc::id_t,
    options: libc::c_int,
) -> io::Result<(LeaderEnd, Duration)> {
    // SAFETY: an all-zero siginfo_t is a valid one.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: an all-zero rusage is a valid one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        let (info, usage) = (&raw mut info, &raw mut usage);
        // SAFETY: the kernel writes one siginfo_t and one rusage.
        let result = unsafe { libc::syscall(libc::SYS_waitid, kind, id, info, options, usage) };
        match checked(result) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // SAFETY: waitid has filled in the fields of a child's end.
    let status = unsafe { info.si_status() };
    let end = if info.si_code == libc::CLD_EXITED {
        LeaderEnd::Exited(status)
    } else {
        LeaderEnd::Signalled(status)
    };
    let time = |time: libc::timeval| {
        let (seconds, micros) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_usec));
        Duration::from_secs(seconds.unwrap_or(0)) + Duration::from_micros(micros.unwrap_or(0))
    };
    Ok((end, time(usage.ru_utime) + time(usage.ru_stime)))
}

/// Sends a signal. A process that is gone is none the worse.
pub(crate) fn signal(pid: Pid, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: takes two numbers.
    let result = unsafe { libc::kill(pid, signal) };
    match checked(libc::c_long::from(result)) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map(drop),
    }
}

/// True if a process has a handler for a signal.
pub(super) fn catches(pid: Pid, signal: libc::c_int) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The time since the machine started, in ticks, as `/proc` tells when processes were started.
pub(crate) fn ticks() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes to memory of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    // SAFETY: takes a number.
    let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    let a_second = u64::try_from(a_second).unwrap_or(100);
    seconds.unwrap_or(0) * a_second + nanos.unwrap_or(0) * a_second / 1_000_000_000
}

/// From now on orphans among our descendants become our children, so that none is lost.
pub(crate) fn adopt_orphans() {
    // SAFETY: sets a flag of this process; no memory is passed.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    if let Err(error) = checked(libc::c_long::from(result)) {
        tracing::warn!(
            "the system refuses to hand orphans over ({error}); daemons that a job leaves behind \
             are not found when it is ended"
        );
    }
}

/// What `/proc` says of one process.
#[derive(Debug, Clone, Copy)]
struct Entry {
    parent: Pid,
    group: Pid,
    session: Pid,
    state: State,
    /// In ticks since the machine started.
    born: u64,
    memory: Memory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Lives,
    /// Lives, and was stopped.
    Stopped,
    /// Its first thread has ended, and others live. Nothing is known of it but by them.
    LivesWithoutFirstThread,
    Ended,
}

/// Where the code, the stack and the environment of a process lie: drawn anew whenever a program is
/// executed. All zero of one that is just being executed, or that has ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Memory([u64; 3]);

/// All processes at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    entries: HashMap<Pid, Entry>,
}

impl Snapshot {
    /// # Errors
    /// Where `/proc` cannot be read, or is another's.
    pub(crate) fn take() -> io::Result<Snapshot> {
        let mut entries = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<Pid>().ok()) else {
                continue;
            };
            // It may have ended since the folder was read.
            let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
            if let Some(entry) = parse_stat(&stat) {
                entries.insert(pid, entry);
            }
        }
        if !entries.contains_key(&own_pid()) {
            return Err(io::Error::other("it does not show this process"));
        }
        Ok(Snapshot { entries })
    }

    /// Every process that lives and that the attempt started: the session and the group of its leader, orphans
    /// that carry its marks, and what descends from any of those.
    ///
    /// Not what some other thread of ours starts just now: until it executes its program it has our
    /// memory and all our descriptors, and so the marks of every attempt.
    pub(crate) fn members(&self, leader: Pid, marks: &Marks) -> Vec<Pid> {
        let own = own_pid();
        let own_memory = self.entries.get(&own).map(|entry| entry.memory);
        let is_starting = |memory| Some(memory) == own_memory || memory == Memory::default();
        let mut members: HashSet<Pid> = HashSet::new();
        for (&pid, entry) in &self.entries {
            let is_orphan = entry.parent == own && pid != leader;
            let is_marked = || match entry.state {
                State::Lives | State::Stopped => {
                    !is_starting(entry.memory) && marks.are_in(Path::new("/proc"), pid)
                }
                State::LivesWithoutFirstThread => marks.are_in_threads(pid),
                State::Ended => false,
            } || marks.has_brand(pid);
            let is_with_leader = [pid, entry.group, entry.session].contains(&leader);
            if is_with_leader || (is_orphan && is_marked()) {
                members.insert(pid);
            }
        }
        loop {
            let children: Vec<Pid> = self
                .entries
                .iter()
                .filter(|(pid, entry)| members.contains(&entry.parent) && !members.contains(pid))
                .map(|(&pid, _)| pid)
                .collect();
            if children.is_empty() {
                break;
            }
            members.extend(children);
        }
        members.remove(&own);
        members
            .into_iter()
            .filter(|pid| self.entries[pid].state != State::Ended)
            .collect()
    }

    /// True if this process began then, and has not ended.
    pub(super) fn was_born(&self, pid: Pid, born: Born) -> bool {
        let entry = self.entries.get(&pid);
        entry.is_some_and(|entry| {
            entry.state != State::Ended && (born.from..=born.to).contains(&entry.born)
        })
    }

    /// True if this process was started then, and has not been reaped.
    pub(super) fn is(&self, pid: Pid, born: u64) -> bool {
        self.entries
            .get(&pid)
            .is_some_and(|entry| entry.born == born)
    }

    /// What descends from this process and is neither stopped nor at its end, with when it was started.
    pub(super) fn running_descendants(&self) -> Vec<(Pid, u64)> {
        let mut found = HashSet::from([own_pid()]);
        let mut running = Vec::new();
        loop {
            let entries = self.entries.iter();
            let children: Vec<(Pid, &Entry)> = entries
                .filter(|(pid, entry)| found.contains(&entry.parent) && !found.contains(pid))
                .map(|(&pid, entry)| (pid, entry))
                .collect();
            if children.is_empty() {
                return running;
            }
            for (pid, entry) in children {
                found.insert(pid);
                if !matches!(entry.state, State::Stopped | State::Ended) {
                    running.push((pid, entry.born));
                }
            }
        }
    }

    /// What lives of the session or the group of a leader.
    pub(super) fn session(&self, leader: Pid) -> Vec<Pid> {
        let entries = self.entries.iter();
        let is_with_leader = |entry: &Entry| [entry.group, entry.session].contains(&leader);
        entries
            .filter(|(_, entry)| is_with_leader(entry) && entry.state != State::Ended)
            .map(|(&pid, _)| pid)
            .collect()
    }

    /// True if there is one that leads a session of its own and is just being executed: it does not
    /// show yet whose it is.
    pub(super) fn has_starting(&self) -> bool {
        self.entries.iter().any(|(&pid, entry)| {
            let is_starting = entry.memory == Memory::default() && entry.state == State::Lives;
            is_starting && entry.session == pid
        })
    }

    /// True to a process that had ended, and waits for its parent.
    pub(crate) fn has_ended(&self, pid: Pid) -> bool {
        let entry = self.entries.get(&pid);
        entry.is_some_and(|entry| entry.state == State::Ended)
    }

    /// True if a child of ours is just being executed: it does not show yet whose it is.
    pub(crate) fn has_executing_child(&self) -> bool {
        let own = own_pid();
        self.entries.values().any(|entry| {
            let is_executing = entry.memory == Memory::default() && entry.state == State::Lives;
            is_executing && entry.parent == own
        })
    }

    /// What lives.
    pub(super) fn living(&self) -> impl Iterator<Item = Pid> {
        let living = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.state != State::Ended);
        living.map(|(&pid, _)| pid)
    }

    /// What lives, with its environment as far as that may be read.
    pub(super) fn environments(&self) -> impl Iterator<Item = (Pid, Vec<u8>)> {
        self.entries.iter().filter_map(|(&pid, entry)| {
            let environment = match entry.state {
                State::Lives | State::Stopped => fs::read(format!("/proc/{pid}/environ")).ok(),
                State::LivesWithoutFirstThread => threads(pid).find_map(|thread| {
                    let environ = format!("/proc/{pid}/task/{thread}/environ");
                    fs::read(environ).ok().filter(|read| !read.is_empty())
                }),
                State::Ended => None,
            };
            Some((pid, environment?))
        })
    }

    /// These, and what descends from them and lives, with the word of its ancestor; never this process
    /// or what it descends from.
    pub(super) fn with_descendants<W: Clone>(&self, of: HashMap<Pid, W>) -> HashMap<Pid, W> {
        let mut all = of;
        let mut own = Some(own_pid());
        let mut ancestors = HashSet::new();
        while let Some(pid) = own.filter(|&pid| ancestors.insert(pid)) {
            own = self.entries.get(&pid).map(|entry| entry.parent);
        }
        all.retain(|pid, _| !ancestors.contains(pid));
        loop {
            let children: Vec<(Pid, W)> = self
                .entries
                .iter()
                .filter(|(pid, _)| !all.contains_key(pid) && !ancestors.contains(pid))
                .filter_map(|(&pid, entry)| Some((pid, all.get(&entry.parent)?.clone())))
                .collect();
            if children.is_empty() {
                break;
            }
            all.extend(children);
        }
        all.retain(|pid, _| {
            self.entries
                .get(pid)
                .is_some_and(|e| e.state != State::Ended)
        });
        all
    }

    /// Children of ours that have ended, and that are none of `leaders`.
    pub(crate) fn ended_orphans(&self, leaders: &HashSet<Pid>) -> Vec<Pid> {
        let own = own_pid();
        let is_ours = |(pid, entry): &(&Pid, &Entry)| {
            entry.parent == own && entry.state == State::Ended && !leaders.contains(pid)
        };
        self.entries
            .iter()
            .filter(is_ours)
            .map(|(&pid, _)| pid)
            .collect()
    }
}

/// The threads of a process.
fn threads(pid: Pid) -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let entries = entries.into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn own_pid() -> Pid {
    Pid::try_from(std::process::id()).expect("process numbers are small")
}

/// `pid (name) state parent group session ...`; the name may hold anything, brackets included.
fn parse_stat(stat: &[u8]) -> Option<Entry> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(&stat[after_name..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let mut number = |skipped| {
        let word: Option<&str> = fields.nth(skipped);
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let (threads, born) = (number(13), number(1));
    let memory = Memory([number(3), number(1), number(21)]);
    let state = match state {
        "Z" | "X" if threads > 1 => State::LivesWithoutFirstThread,
        "Z" | "X" => State::Ended,
        "T" | "t" => State::Stopped,
        _ => State::Lives,
    };
    Some(Entry {
        parent,
        group,
        session,
        state,
        born,
        memory,
    })
}

/// By what is known what an attempt has started, wherever it has gone.
#[derive(Debug)]
pub(crate) struct Marks {
    /// Words of its environment.
    words: [Vec<u8>; 3],
    /// The pipes of its output, as `/proc` calls them: nobody else was given them. They are kept by
    /// what drops its environment.
    pipes: Vec<OsString>,
    /// Kept by what drops both.
    brand: Option<Brand>,
}

impl Marks {
    /// Of the words that are set for the attempt, the readers of its pipes, and its brand.
    pub(crate) fn new<'p>(
        words: [Vec<u8>; 3],
        readers: impl IntoIterator<Item = &'p File>,
        brand: Option<Brand>,
    ) -> Marks {
        let name = |reader: &File| {
            let link = fs::read_link(format!("/proc/self/fd/{}", reader.as_raw_fd()));
            link.ok().map(PathBuf::into_os_string)
        };
        Marks {
            words,
            pipes: readers.into_iter().filter_map(name).collect(),
            brand,
        }
    }

    fn has_brand(&self, pid: Pid) -> bool {
        self.brand.is_some() && self.brand == Brand::of(pid)
    }

    fn are_in_threads(&self, pid: Pid) -> bool {
        let folder = PathBuf::from(format!("/proc/{pid}/task"));
        threads(pid).any(|thread| self.are_in(&folder, thread))
    }

    /// Of a process below `/proc`, or of a thread below its folder.
    fn are_in(&self, folder: &Path, id: Pid) -> bool {
        let folder = folder.join(id.to_string());
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        let words: Vec<&[u8]> = environment.split(|&byte| byte == 0).collect();
        self.words
            .iter()
            .all(|mark| words.contains(&mark.as_slice()))
            || self.are_held(&folder.join("fd"))
    }

    fn are_held(&self, descriptors: &Path) -> bool {
        let open = fs::read_dir(descriptors);
        let mut open = open.into_iter().flatten().flatten();
        open.any(|entry| {
            let link = fs::read_link(entry.path()).map(PathBuf::into_os_string);
            link.is_ok_and(|link| self.pipes.contains(&link))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_no_trap() {
        let entry = parse_stat(b"42 (a) R (b c) S 7 42 9 0 -1").expect("a line of /proc/PID/stat");
        assert_eq!(
            (entry.parent, entry.session, entry.state),
            (7, 9, State::Lives)
        );
        let state_of = |threads: u32| {
            let line = format!("42 (x) Z 7 42 9 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 1 2");
            parse_stat(line.as_bytes()).expect("a line").state
        };
        assert_eq!(state_of(1), State::Ended);
        assert_eq!(state_of(2), State::LivesWithoutFirstThread);
        assert!(parse_stat(b"").is_none());
        assert!(parse_stat(b"42 (x) Z").is_none());
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is reaped by what is tested")]
    fn an_end_is_seen_with_a_pidfd_and_without() {
        for end_of in [end_of, end_by_thread] {
            let child = std::process::Command::new("sh")
                .args(["-c", "sleep 0.05; exit 7"])
                .spawn()
                .expect("there is a shell");
            let pid = Pid::try_from(child.id()).expect("a small number");
            let end = end_of(pid).expect("a descriptor");
            let mut fds = [libc::pollfd {
                fd: end.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            }];
            super::super::watch::poll(&mut fds, None);
            assert_ne!(fds[0].revents, 0);
            assert_eq!(reap(pid).expect("it is ours"), LeaderEnd::Exited(7));
        }
    }

    #[test]
    fn what_a_child_and_its_own_children_computed_is_told_with_its_end() {
        let ended = |line: &str| {
            let child = std::process::Command::new("sh").args(["-c", line]).spawn();
            let pid = Pid::try_from(child.expect("there is a shell").id()).expect("a small number");
            let leader_end = end_of(pid).expect("a descriptor");
            let mut fds = [libc::pollfd {
                fd: leader_end.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            }];
            super::super::watch::poll(&mut fds, None);
            let queued = time_queued(pid);
            (reap_with_cpu_time(pid).expect("it is ours"), queued)
        };
        let computes = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done";
        let ((end, idle), _) = ended("sleep 0.1; :");
        assert_eq!(end, LeaderEnd::Exited(0));
        let ((_, own), queued) = ended(computes);
        let ((_, childs), _) = ended(&format!("({computes}); :"));
        assert!(own > idle && childs > idle, "{idle:?} {own:?} {childs:?}");
        let is_counted = Path::new("/proc/self/schedstat").exists();
        assert_eq!(
            queued.is_some(),
            is_counted,
            "told of one that has ended too"
        );
    }

    #[test]
    fn a_kernel_that_does_not_count_tells_nothing() {
        let queued = |told| parse_queued(told);
        assert_eq!(queued("5 7 1\n"), Some(Duration::from_nanos(7)));
        for unknown in ["0 0 0\n", "", "5 7", "x 7 1"] {
            assert_eq!(queued(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn this_process_is_in_the_snapshot() {
        let snapshot = Snapshot::take().expect("/proc");
        assert!(snapshot.entries.contains_key(&own_pid()));
    }
}
