//! Jobs that are functions of the program: each a job of an engine of their own, of the class and the
//! priority that the file says.
//!
//! The coordinating thread starts them and asks them to end; how each came out it hears by message, as
//! of processes. Nobody can end a task that does not look: it is asked by its token, and waited for. Once
//! the run is to be killed none is waited for any more: such a one is left behind (`Abandoned`), its
//! thread with it, and what it says then is said to nobody.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use reiver::{CancellationToken, Class, Engine, JobContext};

use super::Message;
use super::attempt::{Attempts, Start};
use super::control::Control;
use super::stock::Held;
use super::watch::earlier_limit;
use crate::Plan;
use crate::event::{AttemptEnd, LeaderEnd, Moment, Reason, Status, Usage};
use crate::journal::Born;
use crate::plan::JobIndex;
use crate::task::{ArgError, Args, Task, TaskContext, Told, message_of};

/// More workers than this there are not: what is over waits in the engine's queue, its slots taken.
const MOST_WORKERS: u32 = 1024;
/// So long after one was asked to end it is said that it goes on.
const PATIENCE: Duration = Duration::from_secs(5);

/// The tasks of a run.
#[derive(Debug)]
pub(super) struct Tasks {
    engine: Engine,
    run_id: String,
    state_folder: PathBuf,
    control: Control,
    /// When the run began.
    begin: Instant,
    running: HashMap<JobIndex, Running>,
    has_abandoned: bool,
}

/// What the run may do about a task that runs, or waits for a worker.
#[derive(Debug)]
struct Running {
    number: u32,
    asks: Arc<Asks>,
    told: Arc<Told>,
    limits: Limits,
    /// When it began; `None` while it waits for a worker.
    began: Option<Began>,
    /// When its timeout or its deadline passes, by the run's clock.
    limit: Option<(Instant, Reason)>,
    /// When it was asked to end, until it is said that it goes on all the same.
    asked: Option<Instant>,
}

/// When a task began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began {
    at: Instant,
    /// The same by the run's clock.
    by_clock: Instant,
}

/// How long a task may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    timeout: Option<Duration>,
    /// With the start of the run, by its clock.
    deadline: (Instant, Option<Duration>),
}

impl Limits {
    /// When the timeout or the deadline passes, the earlier of the two; one that the clock cannot hold
    /// never does.
    fn of(&self, began: Option<Instant>) -> Option<(Instant, Reason)> {
        earlier_limit((began, self.timeout), self.deadline)
    }
}

/// How a task is asked to end.
#[derive(Debug, Default)]
struct Asks {
    /// What it ends as, told before the token is.
    status: OnceLock<Status>,
    token: CancellationToken,
}

/// What a task says of itself.
#[derive(Debug)]
pub(crate) enum TaskNews {
    Started(Began),
    Ended(Arc<AttemptEnd>),
}

/// What that means to the run.
#[derive(Debug)]
pub(super) enum Heard {
    Started(Start),
    Ended(Arc<AttemptEnd>),
    /// It comes of one that nobody waits for any more.
    Nothing,
}

impl Tasks {
    /// An engine for the tasks of a plan; `None` where it has none.
    ///
    /// # Errors
    /// Where the system refuses its threads.
    pub(super) fn open(
        plan: &Plan,
        run_id: &str,
        state_folder: &Path,
        control: &Control,
        begin: Instant,
    ) -> io::Result<Option<Tasks>> {
        let tasks = plan.jobs().filter(|&job| plan.task_name(job).is_some());
        let tasks = u32::try_from(tasks.count()).unwrap_or(u32::MAX);
        if tasks == 0 {
            return Ok(None);
        }
        let limits = plan.limits();
        // As many at once as there are slots; and the forks of few may use all of the machine.
        let machine = u32::try_from(plan.topology().worker_count()).unwrap_or(u32::MAX);
        let workers = limits.cpus.min(tasks.max(machine)).min(MOST_WORKERS);
        let threads = limits.io.min(tasks).min(MOST_WORKERS);
        let engine = Engine::builder()
            .cpu_workers(workers as usize)
            .io_workers(0..=threads as usize)
            .build()
            .map_err(io::Error::other)?;
        Ok(Some(Tasks {
            engine,
            run_id: run_id.to_owned(),
            state_folder: state_folder.to_owned(),
            control: control.clone(),
            begin,
            running: HashMap::new(),
            has_abandoned: false,
        }))
    }

    /// Hands a task to the engine; false where the job is none.
    pub(super) fn start(
        &mut self,
        plan: &Plan,
        (job, number): (JobIndex, u32),
        held: &Held,
        attempts: &Arc<Attempts>,
        sender: &Sender<Message>,
    ) -> bool {
        let Some((task, args)) = plan.task(job, number) else {
            return false;
        };
        let settings = plan.settings(job);
        let resources = held.indices().iter().map(|(resource, indices)| {
            let (name, _) = &plan.resources()[*resource];
            (name.clone(), indices.clone())
        });
        let name = plan.task_name(job).unwrap_or_default().to_owned();
        let job_name = plan.name(job).into_owned();
        let told = Arc::new(Told {
            trace_parent: attempts.trace.parent_of(&job_name),
            name: job_name,
            task: name.clone(),
            attempt: number,
            run_id: self.run_id.clone(),
            cpus: settings.cpus.unwrap_or(1),
            folder: plan.folder(job).to_owned(),
            resources: resources.collect(),
            state_folder: self.state_folder.clone(),
            output: Mutex::default(),
        });
        let asks = Arc::new(Asks::default());
        let limits = Limits {
            timeout: settings.timeout,
            deadline: (self.begin, settings.deadline),
        };
        self.running.insert(
            job,
            Running {
                number,
                asks: Arc::clone(&asks),
                told: Arc::clone(&told),
                limits,
                began: None,
                limit: limits.of(None),
                asked: None,
            },
        );
        let attempt = Attempt {
            job,
            asks: Arc::clone(&asks),
            told,
            attempts: Arc::clone(attempts),
            sender: sender.clone(),
            is_measured: settings.class == Class::Auto,
            has_ended: false,
        };
        let control = self.control.clone();
        // What is refused is dropped, and says so itself.
        let _ = self
            .engine
            .job()
            .name(name)
            .class(settings.class)
            .priority(settings.priority)
            .cancel_with(&asks.token)
            .submit(move |job| attempt.run(&*task, &args, job, &limits, &control));
        true
    }

    /// What a task says, to be told on.
    pub(super) fn hear(&mut self, job: JobIndex, number: u32, news: TaskNews) -> Heard {
        let Some(running) = self.running.get_mut(&job) else {
            return Heard::Nothing;
        };
        if running.number != number {
            return Heard::Nothing;
        }
        match news {
            TaskNews::Started(began) => {
                running.began = Some(began);
                running.limit = running.limits.of(Some(began.by_clock));
                Heard::Started(Start {
                    pid: std::process::id(),
                    // Nobody looks for it once this process is gone.
                    born: Born::default(),
                    time: Moment::now(),
                })
            }
            TaskNews::Ended(end) => {
                self.running.remove(&job);
                Heard::Ended(end)
            }
        }
    }

    /// Asks those to end whose time is over, and says which do not.
    pub(super) fn pass_limits(&mut self) {
        let now = self.control.now();
        for running in self.running.values_mut() {
            if let Some((at, reason)) = running.limit
                && at <= now
            {
                running.ask(Status::Failed(reason), now);
            }
            if let Some(asked) = running.asked
                && now.saturating_duration_since(asked) >= PATIENCE
            {
                running.asked = None;
                tracing::warn!(
                    "`{}` was asked to end and goes on: the task `{}` does not look at its \
                     checkpoints, and cannot be ended; it keeps its slots until it returns",
                    running.told.name,
                    running.told.task
                );
            }
        }
    }

    /// When that is to be done again, by the run's clock.
    pub(super) fn next_limit(&self) -> Option<Instant> {
        let running = self.running.values();
        let limits = running.flat_map(|running| {
            let limit = running.limit.map(|(at, _)| at);
            let patience = running.asked.map(|asked| asked + PATIENCE);
            [limit, patience]
        });
        limits.flatten().min()
    }

    /// Asks all to end.
    pub(super) fn cancel(&mut self) {
        let now = self.control.now();
        for running in self.running.values_mut() {
            running.ask(Status::Cancelled, now);
        }
    }

    /// Waits for none any more; how those end that were waited for.
    pub(super) fn abandon(&mut self) -> Vec<(JobIndex, Arc<AttemptEnd>)> {
        self.cancel();
        let abandoned = self.running.drain().map(|(job, running)| {
            self.has_abandoned = true;
            let [stdout, stderr] = running.told.take_output();
            let status = running.asks.status.get();
            let end = AttemptEnd {
                status: status.copied().unwrap_or(Status::Cancelled),
                leader: LeaderEnd::Abandoned,
                duration: running
                    .began
                    .map_or(Duration::ZERO, |began| began.at.elapsed()),
                stdout,
                stderr,
                placement: None,
                usage: None,
            };
            (job, Arc::new(end))
        });
        abandoned.collect()
    }

    /// True if none runs: there is nobody whose processes could be mistaken for orphans.
    pub(super) fn are_over(&self) -> bool {
        self.running.is_empty() && !self.has_abandoned
    }

    /// Ends the engine. What was left behind goes on until the process ends.
    pub(super) fn close(self) {
        if self.has_abandoned {
            std::mem::forget(self.engine);
        }
    }
}

impl Running {
    fn ask(&mut self, status: Status, now: Instant) {
        if self.asks.status.set(status).is_ok() {
            self.limit = None;
            self.asked = Some(now);
            self.asks.token.cancel();
        }
    }
}

/// An attempt on its way through the engine. However it leaves that, the run is told.
struct Attempt {
    job: JobIndex,
    asks: Arc<Asks>,
    told: Arc<Told>,
    attempts: Arc<Attempts>,
    sender: Sender<Message>,
    /// Its job learns from its attempts.
    is_measured: bool,
    has_ended: bool,
}

/// How the closure came out: it may panic, may not like its arguments, and may fail.
type Outcome = thread::Result<Result<Result<(), String>, ArgError>>;

impl Attempt {
    fn run(
        mut self,
        task: &dyn Task,
        args: &Args,
        job: &JobContext,
        limits: &Limits,
        control: &Control,
    ) {
        let began = Began {
            at: Instant::now(),
            by_clock: control.now(),
        };
        self.tell(TaskNews::Started(began));
        let limit = limits.of(Some(began.by_clock));
        let deadline = limit.and_then(|(at, _)| {
            began
                .at
                .checked_add(at.saturating_duration_since(began.by_clock))
        });
        let context = TaskContext {
            job,
            told: &self.told,
            deadline,
        };
        let before = self.is_measured.then(times_of_thread);
        let outcome = catch_unwind(AssertUnwindSafe(|| task.run(args, &context)));
        let usage = match (
            before.flatten(),
            self.is_measured.then(times_of_thread).flatten(),
        ) {
            (Some(before), Some(after)) => Some(Usage {
                cpu: after.0.saturating_sub(before.0),
                queued: Some(after.1.saturating_sub(before.1)),
                wall: control.now().saturating_duration_since(began.by_clock),
            }),
            _ => None,
        };
        self.end(outcome, began.at.elapsed(), usage);
    }

    fn end(&mut self, outcome: Outcome, duration: Duration, usage: Option<Usage>) {
        let (status, leader) = match outcome {
            Ok(Ok(Ok(()))) => (Status::Success, LeaderEnd::Returned(Ok(()))),
            Ok(Ok(Err(message))) => (
                Status::Failed(Reason::Error),
                LeaderEnd::Returned(Err(message)),
            ),
            // It was read before, but for the number of the attempt.
            Ok(Err(error)) => (
                Status::Failed(Reason::Spawn),
                LeaderEnd::NotStarted(format!("the task cannot take its arguments: {error}")),
            ),
            Err(payload) => (
                Status::Failed(Reason::Panic),
                LeaderEnd::Panicked(message_of(payload)),
            ),
        };
        let mut end = self.ended(status, leader, duration);
        end.usage = usage;
        if let Status::Failed(_) = end.status {
            let (name, number) = (&self.told.name, self.told.attempt);
            self.attempts.keep_output(&mut end, self.job, name, number);
        }
        self.has_ended = true;
        self.tell(TaskNews::Ended(Arc::new(end)));
    }

    /// What was asked to end has ended as that, however it did.
    fn ended(&self, status: Status, leader: LeaderEnd, duration: Duration) -> AttemptEnd {
        let [stdout, stderr] = self.told.take_output();
        AttemptEnd {
            status: self.asks.status.get().copied().unwrap_or(status),
            leader,
            duration,
            stdout,
            stderr,
            placement: None,
            usage: None,
        }
    }

    fn tell(&self, news: TaskNews) {
        // Refused only once the run is over.
        let _ = self.sender.send(Message::Task {
            job: self.job,
            number: self.told.attempt,
            news,
        });
    }
}

/// What the current thread has computed, and how long it could have and found no CPU; `None` where the
/// system does not tell.
fn times_of_thread() -> Option<(Duration, Duration)> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut times = told.split_ascii_whitespace().map(|word| word.parse().ok());
    let mut next = || Some(Duration::from_nanos(times.next()??));
    Some((next()?, next()?))
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.has_ended {
            let status = Status::Failed(Reason::Spawn);
            let why = "it had not begun when it was asked to end, or the engine has no room for it";
            let leader = LeaderEnd::NotStarted(why.to_owned());
            let end = self.ended(status, leader, Duration::ZERO);
            self.tell(TaskNews::Ended(Arc::new(end)));
        }
    }
}
