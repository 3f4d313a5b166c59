//! Attempts, each carried out from its launch to its end on one thread, and what all of a run share.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use super::brand::Brands;
use super::cgroups::{Group, Groups};
use super::control::Control;
use super::descriptors::{Room, Turns};
use super::launch::{Launched, Launcher, Setting, Zygotes};
use super::process::{self, Pid, Snapshot};
use super::spawn::Begun;
use super::stock::Held;
use super::tokens::Offer;
use super::trace::Trace;
use super::watch::{LOOK_AGAIN, Watch, poll};
use reiver::Priority;

use crate::Plan;
use crate::capture::Captured;
use crate::event::{AttemptEnd, LeaderEnd, Moment, Reason, Status};
use crate::journal::Born;
use crate::plan::{Attempt, JobIndex, Settings, variable_of};

/// What all attempts of a run share.
#[derive(Debug)]
pub(super) struct Attempts {
    launcher: Launcher,
    run_id: String,
    brands: Option<Brands>,
    pub(super) state_folder: PathBuf,
    pub(super) control: Control,
    /// When the run began.
    pub(super) begin: Instant,
    pub(super) trace: Trace,
    groups: Option<Groups>,
    pub(super) turns: Turns,
    /// Who starts a process by them has no turn, for that may take long: whoever waits for a turn is
    /// never held up by jobs that give way. While they are held no orphans are reaped, for a leader of
    /// theirs is known only once it lives.
    zygotes: Mutex<Zygotes>,
    /// Leaders that live, or have not been reaped. Whoever starts one holds the lock for reading
    /// until it stands here; whoever reaps orphans holds it for writing, and so mistakes none.
    leaders: RwLock<Mutex<HashSet<Pid>>>,
}

/// A process that an attempt has got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(super) pid: u32,
    pub(super) born: Born,
    /// When that was.
    pub(super) time: Moment,
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
pub(super) struct Lingering(pub(super) Vec<(OwnedFd, Begun)>);

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
            brands: Brands::to_give(&run_id),
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

    /// Carries out one attempt, with what it holds; none where the run is told to end before it has a
    /// process. `started` is told its process, unless it has ended
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
    ) -> Option<Ended> {
        let begin = Instant::now();
        let settings = plan.settings(job);
        let name = plan.name(job).into_owned();
        let words = [
            ("REIVER_RUN_ID", OsString::from(&self.run_id)),
            ("REIVER_JOB", OsString::from(&name)),
            ("REIVER_ATTEMPT", OsString::from(number.to_string())),
        ];
        let group = self.group(settings, job, number);
        let brand = self.brands.and_then(|brands| brands.brand(job, number));
        let setting = Setting {
            words: &words,
            variables: self.variables(plan, &name, held),
            placement: held.placement().map(|placement| &**placement),
            is_background: settings.priority == Priority::P2,
            cgroups: group.as_ref().map_or(&[], Group::procs),
            brand,
        };
        let launch = |zygotes| {
            let from = process::ticks();
            let launched = self.launch(plan, job, number, &setting, zygotes)?;
            let to = process::ticks();
            Some(launched.map(|(leader, launched)| (leader, launched, Born { from, to })))
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
            None => {
                if let Some(group) = group {
                    group.remove();
                }
                return None;
            }
            Some(Err(reason)) => Ended {
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
            Some(Ok((leader, launched, born))) => {
                let start = Start {
                    pid: u32::try_from(launched.pid).expect("a process number is positive"),
                    born,
                    time: Moment::now(),
                };
                let group = group.as_ref();
                Watch::new(
                    self,
                    settings,
                    leader,
                    launched,
                    (&words, brand, group),
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
        Some(ended)
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

    /// Starts the process of an attempt; none where the run has been told to end.
    fn launch(
        &self,
        plan: &Plan,
        job: JobIndex,
        number: u32,
        setting: &Setting<'_>,
        zygotes: Option<&mut Zygotes>,
    ) -> Option<Result<(OwnedFd, Launched), String>> {
        let attempt = plan.attempt(job, number);
        let _launching = self.control.launching();
        // What is told from here on ends what has been started.
        (!self.control.is_ending()).then(|| self.launch_now(&attempt, setting, zygotes))
    }

    fn launch_now(
        &self,
        attempt: &Attempt,
        setting: &Setting<'_>,
        zygotes: Option<&mut Zygotes>,
    ) -> Result<(OwnedFd, Launched), String> {
        let read = || self.leaders.read().unwrap_or_else(PoisonError::into_inner);
        let before = zygotes.is_none().then(read);
        let mut launched = self.launcher.launch(attempt, setting, zygotes)?;
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

    /// What an attempt's environment has over the job's own, besides the words that it is known by.
    fn variables(&self, plan: &Plan, name: &str, held: &Held) -> Vec<(String, OsString)> {
        let parent = self.trace.parent_of(name);
        let mut variables = vec![("TRACEPARENT".to_owned(), parent.into())];
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

    pub(super) fn forget(&self, leader: Pid) {
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

/// To wait until nobody can write any more: that is told unasked, and nothing is asked.
fn hang_up_of(reader: &OwnedFd) -> libc::pollfd {
    libc::pollfd {
        fd: reader.as_raw_fd(),
        events: 0,
        revents: 0,
    }
}
