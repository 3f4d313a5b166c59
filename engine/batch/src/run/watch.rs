//! One attempt that has a process, to its end, on one thread that waits in one `poll`: for
//! the leader, for what is captured, for the timeout, and for being told to end.
//!
//! States: running → (ended by itself) or → ending (TERM was sent; KILL follows) → ended. While it
//! is ending the leader is not reaped, so that its number, by which its session is known, stays its
//! own; output is read on, so that nobody hangs on a full pipe while cleaning up.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use super::attempt::{Attempts, Ended, Lingering, Start};
use super::brand::Brand;
use super::cgroups::Group;
use super::launch::{Launched, Words};
use super::process::{self, Marks, Pid, Snapshot};
use super::spawn::Begun;
use reiver::Class;

use crate::capture::Captured;
use crate::event::{AttemptEnd, LeaderEnd, Reason, Status, Usage};
use crate::plan::Settings;

/// How soon it is looked again whether all that is to end has ended; doubled each time up to the
/// longest.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(2);
const LOOK_AGAIN_MOST: Duration = Duration::from_millis(64);
/// What is being executed shows whose it is in microseconds; some other attempt's is the likelier.
const LOOKS_FOR_HIDDEN: u8 = 3;

/// What ends so soon is told of once, with its end. Nobody sees a start that much later, and no timer of
/// the kernel's has to go off sooner than its tick, which costs as much as all of the wait.
const SOON: Duration = Duration::from_millis(10);

/// When an attempt is over at the latest, and by which limit: a timeout from when it began, if it has, or a
/// deadline from the run's begin. One that the clock cannot hold never passes.
pub(super) fn earlier_limit(
    (began, timeout): (Option<Instant>, Option<Duration>),
    (begin, deadline): (Instant, Option<Duration>),
) -> Option<(Instant, Reason)> {
    let timeout = began.zip(timeout);
    let timeout = timeout.and_then(|(began, limit)| began.checked_add(limit));
    let deadline = deadline.and_then(|limit| begin.checked_add(limit));
    let timeout = timeout.map(|at| (at, Reason::Timeout));
    let deadline = deadline.map(|at| (at, Reason::Deadline));
    timeout
        .into_iter()
        .chain(deadline)
        .min_by_key(|&(at, _)| at)
}

/// An attempt that has a process.
pub(super) struct Watch<'a> {
    all: &'a Attempts,
    settings: &'a Settings,
    leader: OwnedFd,
    pid: Pid,
    group: Option<&'a Group>,
    /// What its environment was given.
    words: &'a Words,
    brand: Option<Brand>,
    /// Looked up when it is first to be ended.
    marks: OnceCell<Marks>,
    begin: Instant,
    /// The same by the run's clock.
    began: Instant,
    streams: [Stream; 2],
    /// When it ended or was asked to, by the run's clock, if that is measured.
    ended: Option<Instant>,
    ending: Option<Ending>,
    /// For those who print much.
    buffer: Vec<u8>,
}

/// Most jobs print less; more than this is read in larger pieces.
const LITTLE: usize = 4 * 1024;
const MUCH: usize = 64 * 1024;

/// One captured stream: where it comes from until that is closed, and what came.
struct Stream {
    reader: Option<File>,
    captured: Captured,
}

/// An attempt that was asked to end.
struct Ending {
    /// What it ends as.
    status: Status,
    kill_at: Option<Instant>,
    killed: bool,
    /// So often it is looked again although nothing is left, where something is just being executed.
    looks_for_hidden: u8,
    look_again: Duration,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        all: &'a Attempts,
        settings: &'a Settings,
        leader: OwnedFd,
        launched: Launched,
        (words, brand, group): (&'a Words, Option<Brand>, Option<&'a Group>),
        begin: Instant,
    ) -> Watch<'a> {
        let stream = |reader: Option<OwnedFd>| Stream {
            reader: reader.map(File::from),
            captured: Captured::default(),
        };
        let streams = [stream(launched.stdout), stream(launched.stderr)];
        let (pid, ending) = (launched.pid, None);
        Watch {
            all,
            settings,
            leader,
            pid,
            group,
            words,
            brand,
            marks: OnceCell::new(),
            begin,
            began: all.control.now(),
            streams,
            ended: None,
            ending,
            buffer: Vec::new(),
        }
    }

    /// Follows it to its end. It does not outlive a panic of ours.
    pub(super) fn follow(
        mut self,
        start: Start,
        lingering: &mut Lingering,
        started: impl FnOnce(Start),
    ) -> Ended {
        let to_end = AssertUnwindSafe(|| self.follow_to_end(start, lingering, started));
        match catch_unwind(to_end) {
            Ok((start, may_have_more)) => self.finish(start, lingering, may_have_more),
            Err(panic) => {
                self.end_at_once();
                resume_unwind(panic)
            }
        }
    }

    /// Its start, where nobody was told of it, and which streams may hold more.
    fn follow_to_end(
        &mut self,
        start: Start,
        lingering: &mut Lingering,
        started: impl FnOnce(Start),
    ) -> (Option<Start>, [bool; 2]) {
        let mut soon = self.begin + SOON;
        let mut untold = Some((start, started));
        let may_have_more = loop {
            let has_to_look = untold.is_some() || !lingering.0.is_empty();
            let ready = self.wait(has_to_look.then_some(soon));
            if ready.leader && self.is_measured() {
                self.ended = Some(self.all.control.now());
            }
            if has_to_look && !ready.leader && Instant::now() >= soon {
                if let Some((start, started)) = untold.take() {
                    started(start);
                }
                self.all.let_go(lingering, false);
                soon = Instant::now() + LOOK_AGAIN_MOST;
            }
            for (index, events) in ready.streams.into_iter().enumerate() {
                if events & libc::POLLIN != 0 {
                    self.read(index);
                } else if events != 0 {
                    // Nothing is in it, and nobody can write any more.
                    self.streams[index].reader = None;
                }
            }
            if self.ending.is_some() {
                if self.push_on() {
                    break [true; 2];
                }
            } else if ready.leader {
                // The streams were looked at once it had ended.
                break ready.streams.map(|events| events & libc::POLLIN != 0);
            } else if self.all.control.is_ending() {
                self.ask_to_end(Status::Cancelled);
            } else if let Some((at, reason)) = self.time_limit()
                && self.all.control.now() >= at
            {
                self.ask_to_end(Status::Failed(reason));
            }
        };
        (untold.map(|(start, _)| start), may_have_more)
    }

    /// Kills all of it; nobody is told.
    fn end_at_once(&mut self) {
        self.ask_to_end(Status::Cancelled);
        for stream in &mut self.streams {
            stream.reader = None;
        }
        loop {
            if let Some(ending) = &mut self.ending {
                ending.killed = true;
            }
            if self.push_on() {
                break;
            }
            self.wait(None);
        }
        // There is nobody to be told how it ended.
        let _ = process::reap(self.pid);
        self.all.forget(self.pid);
    }

    /// When the timeout or the deadline passes, the earlier of the two, by the run's clock; one that the
    /// clock cannot hold never does.
    fn time_limit(&self) -> Option<(Instant, Reason)> {
        let timeout = (Some(self.began), self.settings.timeout);
        earlier_limit(timeout, (self.all.begin, self.settings.deadline))
    }

    /// Waits for something to happen, or until `at`.
    fn wait(&self, at: Option<Instant>) -> Ready {
        let fd = |fd: Option<RawFd>| libc::pollfd {
            // A negative one is passed over.
            fd: fd.unwrap_or(-1),
            events: libc::POLLIN,
            revents: 0,
        };
        let control = &self.all.control;
        let until = match &self.ending {
            None => {
                let left = |at: Instant| at.saturating_duration_since(control.now());
                self.time_limit().map(|(at, _)| left(at))
            }
            Some(ending) => Some(ending.look_again),
        };
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        let until = until.into_iter().chain(at.map(left)).min();
        let told = match &self.ending {
            None => Some(control.cancel_fd()),
            Some(ending) => (!ending.killed).then(|| control.kill_fd()),
        };
        // Once it has ended there is nothing more to learn from the leader.
        let leader = self.ending.is_none().then(|| self.leader.as_raw_fd());
        let [stdout, stderr] = self
            .streams
            .each_ref()
            .map(|stream| stream.reader.as_ref().map(AsRawFd::as_raw_fd));
        let mut fds = [fd(leader), fd(told), fd(stdout), fd(stderr)];
        poll(&mut fds, until);
        let [leader, _, stdout, stderr] = fds.map(|fd| fd.revents);
        Ready {
            leader: leader != 0,
            streams: [stdout, stderr],
        }
    }

    /// Reads what a stream has; lets go of it at its end.
    fn read(&mut self, index: usize) -> bool {
        let stream = &mut self.streams[index];
        let Some(reader) = &mut stream.reader else {
            return false;
        };
        let mut little = [0; LITTLE];
        let buffer = match &mut self.buffer[..] {
            [] => &mut little[..],
            buffer => buffer,
        };
        match reader.read(buffer) {
            Ok(0) => stream.reader = None,
            Ok(read) => {
                let folder = &self.all.state_folder;
                stream.captured.push(&buffer[..read], folder);
                if read == LITTLE {
                    self.buffer.resize(MUCH, 0);
                }
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => stream.reader = None,
        }
        false
    }

    /// True to a job that learns from its attempts.
    fn is_measured(&self) -> bool {
        self.settings.class == Class::Auto
    }

    fn ask_to_end(&mut self, status: Status) {
        self.ended = self.is_measured().then(|| self.all.control.now());
        let kill_at = self.all.control.now().checked_add(self.settings.kill_after);
        let ending = Ending {
            status,
            kill_at,
            killed: false,
            looks_for_hidden: LOOKS_FOR_HIDDEN,
            look_again: LOOK_AGAIN,
        };
        self.ending = Some(ending);
        self.send(libc::SIGTERM);
        // What is stopped takes its TERM only once it goes on.
        self.send(libc::SIGCONT);
    }

    /// Brings the end on; true once nothing is left.
    fn push_on(&mut self) -> bool {
        let Some(ending) = &mut self.ending else {
            return false;
        };
        ending.look_again = (ending.look_again * 2).min(LOOK_AGAIN_MOST);
        let is_late = ending
            .kill_at
            .is_some_and(|at| self.all.control.now() >= at);
        if is_late || self.all.control.is_killing() {
            ending.killed = true;
        }
        let killed = ending.killed;
        let (members, may_hide) = self.look();
        // Again and again: what is forked while it is killed is found the next time.
        let is_left = match killed {
            true => self.send_to(&members, libc::SIGKILL),
            false => !members.is_empty(),
        };
        if let Some(ending) = &mut self.ending
            && !is_left
            && may_hide
            && ending.looks_for_hidden > 0
        {
            ending.looks_for_hidden -= 1;
            return false;
        }
        !is_left
    }

    fn members(&self) -> Vec<Pid> {
        self.look().0
    }

    fn marks(&self) -> &Marks {
        self.marks.get_or_init(|| {
            let words = self.words.each_ref().map(|(key, value)| {
                let key = format!("{key}=").into_bytes();
                [key, value.as_encoded_bytes().to_vec()].concat()
            });
            let readers = self.streams.iter();
            let readers = readers.filter_map(|stream| stream.reader.as_ref());
            Marks::new(words, readers, self.brand)
        })
    }

    /// What is left; and whether there may be more, that is just being executed.
    fn look(&self) -> (Vec<Pid>, bool) {
        let look = || {
            Snapshot::take().map(|snapshot| {
                let mut members = snapshot.members(self.pid, self.marks());
                // From here nobody can hide.
                let grouped = self.group.map_or_else(Vec::new, Group::members);
                let grouped = grouped.into_iter().filter(|&pid| !snapshot.has_ended(pid));
                members.extend(grouped);
                members.sort_unstable();
                members.dedup();
                (members, snapshot.has_executing_child())
            })
        };
        self.all.turns.take(look).unwrap_or_else(|error| {
            tracing::warn!("cannot read /proc ({error}); only the first process of a job is ended");
            let leader = (!self.has_leader_ended()).then_some(self.pid);
            (leader.into_iter().collect(), false)
        })
    }

    fn has_leader_ended(&self) -> bool {
        let mut fds = [libc::pollfd {
            fd: self.leader.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }];
        poll(&mut fds, Some(Duration::ZERO));
        fds[0].revents != 0
    }

    fn send(&self, signal: libc::c_int) {
        let mut members = self.members();
        if !members.contains(&self.pid) {
            members.push(self.pid);
        }
        self.send_to(&members, signal);
    }

    /// True if any of them took it: one that may not be signalled is not waited for.
    fn send_to(&self, members: &[Pid], signal: libc::c_int) -> bool {
        let mut taken = false;
        for &pid in members {
            match process::signal(pid, signal) {
                Ok(()) => taken = true,
                Err(error) => tracing::warn!("cannot signal process {pid} of a job: {error}"),
            }
        }
        taken
    }

    fn finish(
        mut self,
        start: Option<Start>,
        lingering: &mut Lingering,
        may_have_more: [bool; 2],
    ) -> Ended {
        for (index, may_have_more) in may_have_more.into_iter().enumerate() {
            while may_have_more && self.read(index) {}
            let reader = self.streams[index].reader.take();
            let reader = reader.filter(|_| self.ending.is_none()).map(OwnedFd::from);
            lingering
                .0
                .extend(reader.map(|reader| (reader, Begun::so_far())));
        }
        // Told of what is not reaped yet.
        let queued = self.is_measured().then(|| self.time_queued());
        let reaped = process::reap_with_cpu_time(self.pid);
        let usage = match (&reaped, queued, self.ended) {
            (Ok((_, cpu)), Some(queued), Some(ended)) => Some(Usage {
                cpu: *cpu,
                queued,
                wall: ended.saturating_duration_since(self.began),
            }),
            _ => None,
        };
        let leader = reaped.map_or_else(
            |error| LeaderEnd::NotStarted(format!("its end was taken by somebody else: {error}")),
            |(end, _)| end,
        );
        self.all.forget(self.pid);
        let ran_out = || self.group.is_some_and(Group::has_run_out);
        let status = match (&self.ending, &leader) {
            (Some(ending), _) => ending.status,
            (None, LeaderEnd::Exited(code)) if self.is_success(*code) => Status::Success,
            (None, LeaderEnd::Exited(_) | LeaderEnd::Signalled(_)) if ran_out() => {
                Status::Failed(Reason::OutOfMemory)
            }
            (None, LeaderEnd::Exited(_)) => Status::Failed(Reason::Exit),
            (None, LeaderEnd::Signalled(_)) => Status::Failed(Reason::Signal),
            (None, _) => Status::Failed(Reason::Spawn),
        };
        let [stdout, stderr] = self.streams.map(|stream| stream.captured);
        let end = AttemptEnd {
            status,
            leader,
            duration: self.begin.elapsed(),
            stdout,
            stderr,
            placement: None,
            usage,
        };
        Ended { start, end }
    }

    fn time_queued(&self) -> Option<Duration> {
        let queued = process::time_queued(self.pid);
        if queued.is_none() {
            static ONCE: std::sync::Once = std::sync::Once::new();
            ONCE.call_once(|| {
                tracing::warn!(
                    "the system does not tell how long jobs find no CPU free (/proc/PID/schedstat): for \
                     jobs of class auto that counts as waiting"
                );
            });
        }
        queued
    }

    fn is_success(&self, code: i32) -> bool {
        u8::try_from(code).is_ok_and(|code| self.settings.success_codes.contains(&code))
    }
}

struct Ready {
    leader: bool,
    /// What `poll` says of each, looked at after the leader.
    streams: [libc::c_short; 2],
}

/// Waits until one of them is ready, or the time is over. Exact to the timer of the kernel, where
/// `poll` itself counts milliseconds.
pub(super) fn poll(fds: &mut [libc::pollfd], limit: Option<Duration>) {
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = libc::nfds_t::try_from(fds.len()).expect("a handful");
    // SAFETY: as many entries as are said, and a time or nothing. An interruption is no harm: who
    // waits looks again at what it waits for.
    unsafe { libc::ppoll(fds.as_mut_ptr(), count, limit, std::ptr::null()) };
}
