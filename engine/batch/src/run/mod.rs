//! A plan carried out.
//!
//! The calling thread coordinates: it owns the `Coordinator`, hands each
//! attempt to the engine as a job of class Io, and hears of its end by message. Events go to the
//! journal first, where there is one (`recorder`), and from there to a reporter thread that
//! hands them to the sinks, so that one that blocks (a pager that nobody scrolls) holds up new
//! attempts but never the end of running ones.
//!
//! The engine's threads are not pinned here: they only wait, and what they start inherits the
//! affinity and memory policy that this process was started with. Jobs that are functions of the
//! program have an engine of their own (`tasks`), whose workers are where engines have them.

mod attempt;
mod cgroups;
mod control;
mod coordinator;
mod descriptors;
mod launch;
mod leftovers;
mod load;
mod memory;
mod pause;
mod placed;
mod places;
mod process;
mod recorder;
mod rehearsal;
mod stock;
mod streams;
mod tasks;
mod tokens;
mod trace;
mod zygote;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use reiver::{Class, Engine, Pinning};

use crate::Plan;
use crate::capture::Captured;
use crate::event::{AttemptEnd, Event, EventKind, LeaderEnd, Reason, Sink, Status, Summary};
use crate::journal::{Born, Journal};
use crate::plan::{JobIndex, Settings};
use attempt::{Attempts, Ended, Start};
use cgroups::Groups;
pub use control::Control;
use coordinator::{Coordinator, News, Stop};
use descriptors::Room;
pub use launch::close_inherited_descriptors;
pub use leftovers::{Leftovers, boot_id, end_leftovers};
use load::Load;
pub use memory::available_memory;
use recorder::Recorder;
pub use rehearsal::rehearse;
use stock::Held;
use tasks::{Heard, TaskNews, Tasks};
use tokens::{Offer, Tokens};
pub use zygote::serve_if_zygote;

/// What a run needs besides its plan.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names the run in events and in the environment of its jobs.
    pub run_id: String,
    /// Where output of failed jobs is kept, made when first needed.
    pub state_folder: PathBuf,
    /// Jobs that have succeeded before, one mark a job: they are not run again. Empty for none.
    pub done: Vec<bool>,
    /// The exit code counts failed jobs instead of saying that there are some: 101 is more than 100.
    pub exit_counts: bool,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// How many jobs ended how.
    pub summary: Summary,
    /// The exit code that says so: 0, 1 (or how many failed), 3 where output of jobs was lost or their
    /// ends could not be recorded, or 128 and the number of the signal that ended it.
    pub exit: u8,
    /// The first sink's trouble, where one had any.
    pub trouble: Option<io::Error>,
    /// Jobs that had an end which the journal could not take: they count as cancelled.
    pub unrecorded: usize,
}

/// What the coordinating thread is told.
#[derive(Debug)]
pub(crate) enum Message {
    Started {
        job: JobIndex,
        start: Start,
    },
    Ended {
        job: JobIndex,
        /// Its process, where that was not told before.
        start: Option<Start>,
        end: Arc<AttemptEnd>,
    },
    Cancel,
    Kill,
    /// Of a job that is a function of the program.
    Task {
        job: JobIndex,
        number: u32,
        news: TaskNews,
    },
    /// The jobserver's pipe may hold something.
    TokensCame,
    /// The reporter, or the journal, has caught up.
    Reported,
    JournalFailed,
    SinkFailed(io::Error),
}

/// The exit code of a run that lost what jobs printed, or could not record how they ended: reiver
/// failed, whatever they did.
const REIVER_FAILED: u8 = 3;
/// The exit code that means more failed jobs than it can count, as GNU parallel's.
const MOST_COUNTED: usize = 101;
/// Events that wait for slow sinks before no more attempts are started.
const MOST_UNREPORTED: usize = 256;
/// With room for fewer attempts than this there is no jobserver.
const ROOM_FOR_TOKENS: usize = 8;
/// Looking for orphans that have ended is given at most this part of the time.
const REAPING_PART: u32 = 100;
const REAPING_PAUSE: Duration = Duration::from_secs(1);

/// An id for a run, not to be guessed from another: 16 hexadecimal digits.
pub fn new_run_id() -> String {
    // std's hasher is seeded by the system.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Carries out a plan, keeps the journal if one is given, and tells the sinks what happens. Returns when
/// every job is over and every sink has been told. With a journal the plan must know what its jobs [are
/// known by](Plan::identify).
///
/// # Errors
/// Where it cannot begin: no descriptors, no threads. Trouble later is in the [`Outcome`].
pub fn run(
    plan: &Arc<Plan>,
    options: Options,
    control: &Control,
    journal: Option<Journal>,
    sinks: Vec<Box<dyn Sink>>,
) -> io::Result<Outcome> {
    let begin = Instant::now();
    process::adopt_orphans();
    let limits = plan.limits();
    let (sender, receiver) = channel();
    // Few descriptors are for jobs rather than for their makes.
    let (tokens, offer) = match Room::of_process()?.attempts {
        ..ROOM_FOR_TOKENS => (None, Offer::default()),
        _ => Tokens::open(limits.cpus, sender.clone()),
    };
    let slots = limits.cpus.saturating_add(limits.io) as usize;
    let slots = slots.min(plan.len()).max(1);
    let room = Room::of_process()?;
    if room.attempts < slots {
        let Room {
            attempts, limit, ..
        } = room;
        tracing::warn!(
            "jobs at once: {attempts} at the most, for the limit on open files is {limit}; \
             raise it with `ulimit -n`"
        );
    }
    // What is over that waits in the engine's queue, its slots taken.
    let engine = Engine::builder()
        .cpu_workers(1)
        .io_workers(0..=slots.min(room.attempts))
        .pinning(Pinning::None)
        .queue_capacity(Class::Io, slots)
        .build()
        .map_err(io::Error::other)?;
    let (done, exit_counts) = (options.done, options.exit_counts);
    let run_id = options.run_id;
    let tasks = Tasks::open(plan, &run_id, &options.state_folder, control, begin)?;
    let attempts = Attempts::new(
        run_id.clone(),
        options.state_folder,
        control.clone(),
        room,
        begin,
        groups_for(plan, &run_id),
        offer,
    )?;
    let reporter = Reporter::start(Arc::clone(plan), sinks, sender.clone())?;
    let recorder = journal
        .map(|journal| {
            let (plan, report) = (Arc::clone(plan), reporter.report.clone());
            Recorder::start(journal, plan, report, sender.clone())
        })
        .transpose()?;
    control.connect(sender.clone());

    let mut run = Run {
        plan,
        engine: &engine,
        control,
        attempts: Arc::new(attempts),
        tasks,
        coordinator: Coordinator::new(plan, RandomState::new().hash_one(begin), &done),
        tokens,
        sender,
        reporter,
        recorder,
        last_ends: HashMap::new(),
        summary: Summary::default(),
        lost: false,
        trouble: None,
        begin,
        load: Load::new(plan.limits().load),
        next_reaping: begin,
    };
    let succeeded_before = done.iter().filter(|&&done| done).count();
    run.summary.succeeded = succeeded_before;
    if let Some(tokens) = &mut run.tokens {
        tokens.begin(&mut run.coordinator);
    }
    run.report(EventKind::RunStarted {
        jobs: plan.len(),
        succeeded_before,
    });
    run.coordinate(&receiver);

    let Run {
        attempts,
        tasks,
        mut summary,
        lost,
        reporter,
        recorder,
        mut trouble,
        ..
    } = run;
    if tasks.as_ref().is_none_or(Tasks::are_over) {
        attempts.reap_orphans();
    }
    if let Some(tasks) = tasks {
        tasks.close();
    }
    attempts.close_groups();
    summary.duration = begin.elapsed();
    let signal = control
        .signal()
        .and_then(|signal| u8::try_from(128 + signal).ok());
    let exit_of = |summary: Summary, has_failed: bool| {
        let failed = summary.failed > 0 || summary.cancelled > 0;
        let by_itself = match (has_failed, exit_counts) {
            (true, _) => REIVER_FAILED,
            (false, true) => u8::try_from(summary.failed.min(MOST_COUNTED)).expect("it is small"),
            (false, false) => u8::from(failed),
        };
        signal.unwrap_or(by_itself)
    };
    let mut exit = exit_of(summary, lost);
    let mut unrecorded = 0;
    if let Some(recorder) = recorder {
        let settled = recorder.settle(summary, exit);
        (summary, unrecorded) = (settled.summary, settled.unrecorded);
        exit = exit_of(summary, lost || settled.trouble.is_some());
    }
    reporter
        .report
        .kind(EventKind::RunFinished { summary, exit });
    reporter.finish();
    while let Ok(message) = receiver.try_recv() {
        if let Message::SinkFailed(error) = message {
            trouble.get_or_insert(error);
        }
    }
    Ok(Outcome {
        summary,
        exit,
        trouble,
        unrecorded,
    })
}

/// The cgroups for a run some of whose jobs state memory. What killed runs have left of theirs is removed
/// in any case.
fn groups_for(plan: &Plan, run_id: &str) -> Option<Groups> {
    cgroups::sweep();
    // What a task takes cannot be told from what the run takes.
    let is_limited = |settings: &Settings| settings.memory.is_some() && !settings.is_task;
    if !plan.tables().any(is_limited) {
        return None;
    }
    match Groups::make(run_id) {
        Ok(groups) => Some(groups),
        Err(error) => {
            tracing::warn!(
                "cgroups cannot be used here ({error}): the memory that jobs state decides when they \
                 start, and does not limit them"
            );
            None
        }
    }
}

struct Run<'p> {
    plan: &'p Arc<Plan>,
    engine: &'p Engine,
    control: &'p Control,
    attempts: Arc<Attempts>,
    /// None where the plan has no tasks.
    tasks: Option<Tasks>,
    coordinator: Coordinator<'p>,
    tokens: Option<Tokens>,
    sender: Sender<Message>,
    reporter: Reporter,
    recorder: Option<Recorder>,
    /// How the last attempt ended, of jobs that have one and are not over.
    last_ends: HashMap<JobIndex, Arc<AttemptEnd>>,
    summary: Summary,
    /// Output of some job had no place.
    lost: bool,
    trouble: Option<io::Error>,
    begin: Instant,
    load: Load,
    next_reaping: Instant,
}

impl Run<'_> {
    fn coordinate(&mut self, messages: &Receiver<Message>) {
        loop {
            // An end is told before what starts in its slot.
            self.tell_news();
            let age = self.control.now().saturating_duration_since(self.begin);
            self.coordinator.pass_deadlines(age);
            if let Some(tasks) = &mut self.tasks {
                tasks.pass_limits();
            }
            // Also while nothing may start: what has come is not waited for.
            self.coordinator.pass_delays(self.control.now());
            let mut looks_again = self.start_what_may();
            while let Some(tokens) = &mut self.tokens
                && tokens.balance(&mut self.coordinator)
            {
                looks_again = self.start_what_may();
            }
            self.tell_news();
            if self.coordinator.is_over() {
                return;
            }
            let now = self.control.now();
            let left = |at: Instant| at.saturating_duration_since(now);
            let delay = self.coordinator.next_delay().map(left);
            let deadline = self.coordinator.next_deadline();
            // One that the clock cannot hold never passes.
            let deadline = deadline.and_then(|deadline| self.begin.checked_add(deadline));
            let looks_again = looks_again.map(|at| at.saturating_duration_since(Instant::now()));
            let limit = self.tasks.as_ref().and_then(Tasks::next_limit);
            let waits = delay.into_iter().chain(deadline.map(left));
            let wait = waits.chain(looks_again).chain(limit.map(left)).min();
            let message = match wait {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => messages.recv_timeout(wait),
            };
            match message {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("this run holds a sender"),
            }
        }
    }

    /// Starts what may start; when to look again, if not for what this is told of.
    fn start_what_may(&mut self) -> Option<Instant> {
        while self.is_abreast() {
            if let Some(later) = self.load.is_too_high(Instant::now()) {
                return Some(later);
            }
            let (job, number) = self.coordinator.next(self.control.now())?;
            let held = self.coordinator.held(job).cloned().unwrap_or_default();
            if let Some(tasks) = &mut self.tasks
                && tasks.start(
                    self.plan,
                    (job, number),
                    &held,
                    &self.attempts,
                    &self.sender,
                )
            {
                continue;
            }
            let placement = held.placement().cloned();
            let (plan, attempts) = (Arc::clone(self.plan), Arc::clone(&self.attempts));
            let sender = self.sender.clone();
            let submitted = self.engine.job().class(Class::Io).submit(move |_| {
                // Refused only once the run is over.
                let started = |start| drop(sender.send(Message::Started { job, start }));
                let ended = attempts.run(&plan, job, number, &held, started);
                let Ended {
                    start,
                    end,
                    lingering,
                } = ended;
                let end = Arc::new(end);
                let _ = sender.send(Message::Ended { job, start, end });
                attempts.let_go(lingering);
            });
            if let Err(error) = submitted {
                let end = AttemptEnd {
                    status: Status::Failed(Reason::Spawn),
                    leader: LeaderEnd::NotStarted(error.to_string()),
                    duration: Duration::ZERO,
                    stdout: Captured::default(),
                    stderr: Captured::default(),
                    placement,
                    usage: None,
                };
                let (start, end) = (None, Arc::new(end));
                self.take(Message::Ended { job, start, end });
            }
        }
        None
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Started { job, start } => self.report_start(job, start),
            Message::Ended { job, start, end } => {
                if let Some(start) = start {
                    self.report_start(job, start);
                }
                let status = end.status;
                if let Some(usage) = end.usage.filter(|_| status != Status::Cancelled) {
                    self.coordinator.learn(job, &usage);
                }
                self.lost |= end.stdout.lost_bytes() + end.stderr.lost_bytes() > 0;
                self.last_ends.insert(job, end);
                self.coordinator.ended(job, status, self.control.now());
                self.reap_orphans_now_and_then();
            }
            Message::Cancel => {
                self.coordinator.stop(Stop::Cancel);
                if let Some(tasks) = &mut self.tasks {
                    tasks.cancel();
                }
            }
            Message::Kill => {
                let abandoned = self.tasks.as_mut().map(Tasks::abandon);
                for (job, end) in abandoned.into_iter().flatten() {
                    self.end_task(job, end);
                }
            }
            Message::Task { job, number, news } => {
                let heard = self.tasks.as_mut();
                match heard.map_or(Heard::Nothing, |tasks| tasks.hear(job, number, news)) {
                    Heard::Started(start) => self.report_start(job, start),
                    Heard::Ended(end) => self.end_task(job, end),
                    Heard::Nothing => {}
                }
            }
            Message::TokensCame => {
                if let Some(tokens) = &mut self.tokens {
                    tokens.came();
                }
            }
            Message::Reported => {}
            Message::JournalFailed => self.coordinator.stop(Stop::Failures),
            Message::SinkFailed(error) => {
                if error.kind() == io::ErrorKind::BrokenPipe {
                    self.attempts.cancel();
                }
                self.coordinator.stop(Stop::Failures);
                self.trouble.get_or_insert(error);
            }
        }
    }

    fn end_task(&mut self, job: JobIndex, end: Arc<AttemptEnd>) {
        let start = None;
        self.take(Message::Ended { job, start, end });
    }

    fn tell_news(&mut self) {
        for news in self.coordinator.take_news() {
            let kind = match news {
                News::Retried {
                    job,
                    attempt,
                    delay,
                } => {
                    let end = Arc::clone(&self.last_ends[&job]);
                    EventKind::JobRetried {
                        job,
                        attempt,
                        end,
                        delay,
                    }
                }
                News::Finished(job, status) => {
                    match status {
                        Status::Success => self.summary.succeeded += 1,
                        Status::Failed(_) => self.summary.failed += 1,
                        Status::Cancelled => self.summary.cancelled += 1,
                    }
                    let (attempt, end) =
                        (self.coordinator.attempt(job), self.last_ends.remove(&job));
                    EventKind::JobFinished {
                        job,
                        attempt,
                        status,
                        end,
                    }
                }
                News::Skipped(job, because) => {
                    self.summary.skipped += 1;
                    EventKind::JobSkipped { job, because }
                }
            };
            self.report(kind);
        }
    }

    fn report(&self, kind: EventKind) {
        let time = SystemTime::now();
        self.report_born(Event { time, kind }, Born::default());
    }

    fn report_start(&self, job: JobIndex, Start { pid, born }: Start) {
        let time = SystemTime::now();
        let held = self.coordinator.held(job);
        let kind = EventKind::JobStarted {
            job,
            attempt: self.coordinator.attempt(job),
            pid,
            class: self.coordinator.class(job),
            placement: held.and_then(Held::placement).cloned(),
        };
        self.report_born(Event { time, kind }, born);
    }

    /// Reports an event; `born` is of the process that it tells of.
    fn report_born(&self, event: Event, born: Born) {
        match &self.recorder {
            Some(recorder) => recorder.record(event, born),
            None => self.reporter.report.report(event),
        }
    }

    /// True while the journal and the sinks keep up.
    fn is_abreast(&self) -> bool {
        self.recorder.as_ref().is_none_or(Recorder::is_abreast) && self.reporter.report.is_abreast()
    }

    fn reap_orphans_now_and_then(&mut self) {
        let now = Instant::now();
        // What a task has started is for the task to wait for.
        let may_reap = self.tasks.as_ref().is_none_or(Tasks::are_over);
        if may_reap && now >= self.next_reaping {
            self.attempts.reap_orphans();
            let pause = (now.elapsed() * REAPING_PART).max(REAPING_PAUSE);
            self.next_reaping = now + pause;
        }
    }
}

/// Where events go that the sinks are to be told of.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    events: Sender<Event>,
    unreported: Arc<AtomicUsize>,
}

/// Hands events to the sinks, on a thread of its own.
struct Reporter {
    report: Report,
    thread: thread::JoinHandle<()>,
}

impl Reporter {
    fn start(
        plan: Arc<Plan>,
        mut sinks: Vec<Box<dyn Sink>>,
        coordinator: Sender<Message>,
    ) -> io::Result<Reporter> {
        let (events, receiver) = channel::<Event>();
        let unreported = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&unreported);
        let thread = thread::Builder::new()
            .name("reiver-report".into())
            .spawn(move || {
                for event in receiver {
                    sinks.retain_mut(|sink| match sink.event(&plan, &event) {
                        Ok(()) => true,
                        Err(error) => {
                            let _ = coordinator.send(Message::SinkFailed(error));
                            false
                        }
                    });
                    if count.fetch_sub(1, Ordering::Relaxed) == MOST_UNREPORTED / 2 {
                        let _ = coordinator.send(Message::Reported);
                    }
                }
            })?;
        let report = Report { events, unreported };
        Ok(Reporter { report, thread })
    }

    /// Waits until every sink has been told everything.
    fn finish(self) {
        drop(self.report);
        let _ = self.thread.join();
    }
}

impl Report {
    fn report(&self, event: Event) {
        self.unreported.fetch_add(1, Ordering::Relaxed);
        // Refused only if the reporter has panicked, which has been reported.
        let _ = self.events.send(event);
    }

    fn kind(&self, kind: EventKind) {
        let time = SystemTime::now();
        self.report(Event { time, kind });
    }

    /// True while the sinks keep up.
    fn is_abreast(&self) -> bool {
        self.unreported.load(Ordering::Relaxed) < MOST_UNREPORTED
    }
}
