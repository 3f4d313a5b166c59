//! One attempt of one job, from its launch to its end, on one thread that waits in one `poll`: for
//! the leader, for what is captured, for the timeout, and for being told to end.
//!
//! States: running → (ended by itself) or → ending (TERM was sent; KILL follows) → ended. While it
//! is ending the leader is not reaped, so that its number, by which its session is known, stays its
//! own; output is read on, so that nobody hangs on a full pipe while cleaning up.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use super::brand::Brand;
use super::cgroups::{Group, Groups};
use super::control::Control;
use super::descriptors::{Room, Turns};
use super::launch::{Launched, Launcher, Setting, Zygotes};
use super::process::{self, Marks, Pid, Snapshot};
use super::spawn::Begun;
use super::stock::Held;
use super::tokens::Offer;
use super::trace::Trace;
use reiver::{Class, Priority};

use crate::Plan;
use crate::capture::Captured;
use crate::event::{AttemptEnd, LeaderEnd, Reason, Status, Usage};
use crate::journal::Born;
use crate::plan::{JobIndex, Settings, variable_of};

/// What all attempts of a run share.
#[derive(Debug)]
pub(super) struct Attempts {
    launcher: Launcher,
    run_id: String,
    state_folder: PathBuf,
    control: Control,
    /// When the run began.
    begin: Instant,
    trace: Trace,
    groups: Option<Groups>,
    turns: Turns,
    /// Who starts a process by them has no turn, for that may take long: whoever waits for a turn is
    /// never held up by jobs that give way. While they are held no orphans are reaped, for a leader of
    /// theirs is known only once it lives.
    zygotes: Mutex<Zygotes>,
    /// Leaders that live, or have not been reaped. Whoever starts one holds the lock for reading
    /// until it stands here; whoever reaps orphans holds it for writing, and so mistakes none.
    leaders: RwLock<Mutex<HashSet<Pid>>>,
}

/// How soon it is looked again whether all that is to end has ended; doubled each time up to the
/// longest.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const LOOK_AGAIN_MOST: Duration = Duration::from_millis(64);
/// What is being executed shows whose it is in microseconds; some other attempt's is the likelier.
const LOOKS_FOR_HIDDEN: u8 = 3;

/// What ends so soon is told of once, with its end. Nobody sees a start that much later, and no timer of
/// the kernel's has to go off sooner than its tick, which costs as much as all of the wait.
const SOON: Duration = Duration::from_millis(10);

/// A process that an attempt has got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(super) pid: u32,
    pub(super) born: Born,
    /// When that was.
    pub(super) time: SystemTime,
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its process, where nobody was told of it.
    pub(super) start: Option<Start>,
    pub(super) end: AttemptEnd,
}

/// The readers of ended attempts' output that some process can still write to, each with who was being
/// started when its attempt ended; of one thread.
#[derive(Debug, Default)]
pub(super) struct Lingering(Vec<(OwnedFd, Begun)>);

/// With more than these the next attempt waits.
const MOST_LINGERING: usize = 2;

impl Attempts {
    pub(super) fn new(
        run_id: String,
        state_folder: PathBuf,
        control: Control,
        room: Room,
        begin: Instant,
        groups: Option<Groups>,
        offer: Offer,
    ) -> io::Result<Attempts> {
        let leaders = RwLock::default();
        let trace = Trace::of(std::env::var_os("TRACEPARENT").as_deref());
        Ok(Attempts {
            launcher: Launcher::new(offer)?,
            run_id,
            state_folder,
            control,
            begin,
            trace,
            groups,
            turns: Turns::new(room),
            zygotes: Mutex::default(),
            leaders,
        })
    }

    /// Carries out one attempt, with what it holds; `started` is told its process, unless it has ended
    /// by then: that is told with its end. Where somebody may still write to its output the reader is among
    /// the `lingering` afterwards, to be [let go](Attempts::let_go) once the end has been told.
    pub(super) fn run(
        &self,
        plan: &Plan,
        job: JobIndex,
        number: u32,
        held: &Held,
        lingering: &mut Lingering,
        started: impl FnOnce(Start),
    ) -> Ended {
        let begin = Instant::now();
        let settings = plan.settings(job);
        let name = plan.name(job).into_owned();
        let marks = [
            ("REIVER_RUN_ID", OsString::from(&self.run_id)),
            ("REIVER_JOB", OsString::from(&name)),
            ("REIVER_ATTEMPT", OsString::from(number.to_string())),
        ];
        let group = self.group(settings, job, number);
        let brand = Brand::new();
        let setting = Setting {
            variables: self.variables(plan, &name, &marks, held),
            placement: held.placement().map(|placement| &**placement),
            is_background: settings.priority == Priority::P2,
            cgroups: group.as_ref().map_or(&[], Group::procs),
            brand,
        };
        let launch = |zygotes| {
            let from = process::ticks();
            let launched = self.launch(plan, job, number, &setting, zygotes);
            let to = process::ticks();
            launched.map(|(leader, launched)| (leader, launched, Born { from, to }))
        };
        let launched = if setting.takes_zygote() {
            // That may take long.
            self.let_go(lingering, true);
            let mut zygotes = self.zygotes.lock().unwrap_or_else(PoisonError::into_inner);
            launch(Some(&mut *zygotes))
        } else {
            self.turns.take(|| launch(None))
        };
        let mut ended = match launched {
            Err(reason) => Ended {
                start: None,
                end: AttemptEnd {
                    status: Status::Failed(Reason::Spawn),
                    leader: LeaderEnd::NotStarted(reason),
                    duration: begin.elapsed(),
                    stdout: Captured::default(),
                    stderr: Captured::default(),
                    placement: None,
                    usage: None,
                },
            },
            Ok((leader, launched, born)) => {
                let start = Start {
                    pid: u32::try_from(launched.pid).expect("a process number is positive"),
                    born,
                    time: SystemTime::now(),
                };
                let group = group.as_ref();
                Watch::new(
                    self,
                    settings,
                    leader,
                    launched,
                    (marks, brand, group),
                    begin,
                )
                .follow(start, lingering, started)
            }
        };
        ended.end.placement = held.placement().cloned();
        if let Some(group) = group {
            group.remove();
        }
        if let Status::Failed(_) = ended.end.status {
            self.keep_output(&mut ended.end, job, &name, number);
        }
        ended
    }

    /// Sees to it that whoever still writes to an ended attempt's output is neither held up nor killed by it.
    ///
    /// Most often nobody does: what some other thread starts just then has all descriptors of ours until
    /// it executes its program. A reader that is held by such a one only stays where it is, or is waited
    /// for with `all`; one that has been let go of is closed; one that somebody holds all the same is given to
    /// somebody who reads on.
    pub(super) fn let_go(&self, lingering: &mut Lingering, all: bool) {
        let Lingering(readers) = lingering;
        loop {
            readers.retain(|(reader, begun)| {
                // Asked first: what executes meanwhile has let go before the reader is looked at.
                let have_executed = begun.have_executed();
                let mut fds = [hang_up_of(reader)];
                poll(&mut fds, Some(Duration::ZERO));
                if fds[0].revents & libc::POLLHUP != 0 {
                    return false;
                }
                if have_executed {
                    self.launcher.drain_into_nothing(reader);
                }
                !have_executed
            });
            let waits = all || readers.len() > MOST_LINGERING;
            match readers.first() {
                Some((reader, _)) if waits => poll(&mut [hang_up_of(reader)], Some(LOOK_AGAIN)),
                _ => return,
            }
        }
    }

    fn launch(
        &self,
        plan: &Plan,
        job: JobIndex,
        number: u32,
        setting: &Setting<'_>,
        zygotes: Option<&mut Zygotes>,
    ) -> Result<(OwnedFd, Launched), String> {
        let attempt = plan.attempt(job, number);
        let _launching = self.control.launching();
        let read = || self.leaders.read().unwrap_or_else(PoisonError::into_inner);
        let before = zygotes.is_none().then(read);
        let mut launched = self.launcher.launch(&attempt, setting, zygotes)?;
        let leaders = before.unwrap_or_else(read);
        leaders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(launched.pid);
        drop(leaders);
        let end = launched.end.take().map(Ok);
        match end.unwrap_or_else(|| process::end_of(launched.pid)) {
            Ok(end) => Ok((end, launched)),
            Err(error) => {
                // Without a handle it could not be watched.
                let _ = process::signal(launched.pid, libc::SIGKILL);
                // There is nobody to be told how it ended.
                let _ = process::reap(launched.pid);
                self.forget(launched.pid);
                Err(format!("cannot watch the process: {error}"))
            }
        }
    }

    /// The cgroup of an attempt, if its job states memory and there can be one.
    fn group(&self, settings: &Settings, job: JobIndex, number: u32) -> Option<Group> {
        let (groups, bytes) = (self.groups.as_ref()?, settings.memory?);
        let group = groups.group(&format!("{}-{number}", job.0 + 1), bytes);
        group
            .inspect_err(|error| {
                static ONCE: std::sync::Once = std::sync::Once::new();
                ONCE.call_once(|| {
                    tracing::warn!("cannot limit the memory of a job: {error}");
                });
            })
            .ok()
    }

    /// Removes what is left of the run's cgroups.
    pub(super) fn close_groups(&self) {
        if let Some(groups) = &self.groups {
            groups.close();
        }
    }

    /// What an attempt's environment has over the job's own.
    fn variables(
        &self,
        plan: &Plan,
        name: &str,
        marks: &[(&'static str, OsString)],
        held: &Held,
    ) -> Vec<(String, OsString)> {
        let marks = marks.iter();
        let mut variables: Vec<(String, OsString)> = marks
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        let parent = self.trace.parent_of(name);
        variables.push(("TRACEPARENT".to_owned(), parent.into()));
        if let Some(node) = held.placement().and_then(|placement| placement.node) {
            variables.push(("REIVER_NODE".to_owned(), node.to_string().into()));
        }
        for (resource, indices) in held.indices() {
            let (resource, _) = &plan.resources()[*resource];
            let indices: Vec<String> = indices.iter().map(u32::to_string).collect();
            let variable = variable_of(resource);
            let variable = variable.expect("a plan's resources have variables of their own");
            variables.push((variable, indices.join(",").into()));
        }
        variables
    }

    fn forget(&self, leader: Pid) {
        let leaders = self.leaders.read().unwrap_or_else(PoisonError::into_inner);
        leaders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&leader);
    }

    /// Keeps a failed attempt's output in files for people to read. Their names begin with the
    /// job's number, so that names that look alike as file names stay apart.
    pub(super) fn keep_output(&self, end: &mut AttemptEnd, job: JobIndex, name: &str, number: u32) {
        let safe = |letter: char| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => letter,
            _ => '_',
        };
        let name: String = name.chars().take(64).map(safe).collect();
        let stem = format!("{}-{name}.{number}", job.0 + 1);
        for (stream, ending) in [(&mut end.stdout, "out"), (&mut end.stderr, "err")] {
            if stream.is_empty() {
                continue;
            }
            let path = self
                .state_folder
                .join("logs")
                .join(format!("{stem}.{ending}"));
            if let Err(error) = stream.keep(path) {
                static ONCE: std::sync::Once = std::sync::Once::new();
                ONCE.call_once(|| {
                    let folder = self.state_folder.display();
                    tracing::warn!("cannot keep the output of failed jobs under {folder}: {error}");
                });
            }
        }
    }

    /// Ends what runs: nobody is left to be told of it.
    pub(super) fn cancel(&self) {
        self.control.cancel(Some(libc::SIGPIPE));
    }

    /// Takes the ends of orphans that have ended, so that they do not pile up.
    pub(super) fn reap_orphans(&self) {
        let Ok(_zygotes) = self.zygotes.try_lock() else {
            return;
        };
        // First the turn and then the lock, as a launch does; but no launch is waited for: one may take
        // long, on a file system that hangs, and who comes here has jobs to start.
        self.turns.try_take(|| {
            let leaders = match self.leaders.try_write() {
                Ok(leaders) => leaders,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let leaders = leaders.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(snapshot) = Snapshot::take() {
                snapshot
                    .ended_orphans(&leaders)
                    .into_iter()
                    // Somebody else in this process may have been faster.
                    .for_each(|orphan| drop(process::reap_ended(orphan)));
            }
        });
    }
}

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
struct Watch<'a> {
    all: &'a Attempts,
    settings: &'a Settings,
    leader: OwnedFd,
    pid: Pid,
    group: Option<&'a Group>,
    /// What its environment was given.
    words: [(&'static str, OsString); 3],
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
    fn new(
        all: &'a Attempts,
        settings: &'a Settings,
        leader: OwnedFd,
        launched: Launched,
        (words, brand, group): (
            [(&'static str, OsString); 3],
            Option<Brand>,
            Option<&'a Group>,
        ),
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

    fn follow(
        mut self,
        start: Start,
        lingering: &mut Lingering,
        started: impl FnOnce(Start),
    ) -> Ended {
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
        let start = untold.map(|(start, _)| start);
        self.finish(start, lingering, may_have_more)
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

/// To wait until nobody can write any more: that is told unasked, and nothing is asked.
fn hang_up_of(reader: &OwnedFd) -> libc::pollfd {
    libc::pollfd {
        fd: reader.as_raw_fd(),
        events: 0,
        revents: 0,
    }
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
