//! A plan carried out.
//!
//! An attempt is carried out by a thread of the engine, of class Io, that asks the `Coordinator` itself,
//! under its lock, what to go on with (`Dispatch`); the calling thread waits for all else that
//! matters. Events go to the
//! journal first, where there is one (`recorder`), and from there to a reporter thread that
//! hands them to the sinks, so that one that blocks (a pager that nobody scrolls) holds up new
//! attempts but never the end of running ones.
//!
//! The engine's threads are not pinned here: they only wait, and what they start inherits the
//! affinity and memory policy that this process was started with. Jobs that are functions of the
//! program have an engine of their own (`tasks`), whose workers are where engines have them.

mod attempt;
mod brand;
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
mod spawn;
mod stock;
mod streams;
mod tasks;
mod tokens;
mod trace;
mod zygote;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use reiver::{Class, Engine, Pinning};

use crate::Plan;
use crate::capture::Captured;
use crate::event::{AttemptEnd, Event, EventKind, LeaderEnd, Reason, Sink, Status, Summary};
use crate::journal::{Born, Journal};
use crate::plan::{JobIndex, Settings};
use attempt::{Attempts, Ended, Lingering, Start};
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
    /// More is to be done, or sooner, than was known.
    Look,
    /// It is time to look for orphans that have ended.
    Reap,
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

    let attempts = Arc::new(attempts);
    let succeeded_before = done.iter().filter(|&&done| done).count();
    let mut run = Run {
        plan: Arc::clone(plan),
        control: control.clone(),
        attempts: Arc::clone(&attempts),
        tasks,
        coordinator: Coordinator::new(Arc::clone(plan), RandomState::new().hash_one(begin), &done),
        tokens,
        sender,
        report: reporter.report.clone(),
        recorder,
        last_ends: HashMap::new(),
        summary: Summary {
            succeeded: succeeded_before,
            ..Summary::default()
        },
        lost: false,
        trouble: None,
        begin,
        load: Load::new(plan.limits().load),
        next_reaping: begin,
        looks_at: None,
        sleeps_until: None,
    };
    if let Some(tokens) = &mut run.tokens {
        tokens.begin(&mut run.coordinator);
    }
    run.report(EventKind::RunStarted {
        jobs: plan.len(),
        succeeded_before,
    });
    let dispatch = Arc::new(Dispatch {
        run: Mutex::new(Some(run)),
        plan: Arc::clone(plan),
        attempts: Arc::clone(&attempts),
        goes_on: room.attempts >= slots.saturating_mul(2),
    });
    let run = dispatch.coordinate(&engine, &receiver);

    let Run {
        tasks,
        mut summary,
        lost,
        report,
        recorder,
        mut trouble,
        tokens: _tokens,
        ..
    } = run;
    // The reporter ends with the last one.
    drop(report);
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

/// Tells a sink, which is somebody else's code: a panic is an error of it, and stops no other.
fn told(sink: &mut dyn Sink, plan: &Plan, event: &Event) -> io::Result<()> {
    let told = catch_unwind(AssertUnwindSafe(|| sink.event(plan, event)));
    told.unwrap_or_else(|_| Err(io::Error::other("whoever is told of the run has panicked")))
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

/// A run that its threads share. Whoever has ended an attempt tells so itself, under the lock, and takes
/// what may start next: while there is something to do, nobody wakes anybody. What more may start is handed to
/// the engine, whose threads begin it.
///
/// The thread that the run was asked for takes care of the rest: it waits for messages, and for the
/// time. An attempt's thread wakes it where the run is over, and where it sleeps for longer than it may
/// by what has just changed. It says under the lock how long it sleeps, before it sleeps, and what it is told
/// meanwhile waits in its channel: no wake is lost.
///
/// The lock is held for no process, no disk and no sink: what they are to do is put into queues. Who holds
/// it may take an engine's locks, and never the other way round.
#[derive(Debug)]
struct Dispatch {
    /// None once it is over.
    run: Mutex<Option<Run>>,
    plan: Arc<Plan>,
    attempts: Arc<Attempts>,
    /// A thread that has ended an attempt may go on with another one. Not where attempts may have to
    /// wait for a thread: those that do are older.
    goes_on: bool,
}

#[derive(Debug)]
struct Run {
    plan: Arc<Plan>,
    control: Control,
    attempts: Arc<Attempts>,
    /// None where the plan has no tasks.
    tasks: Option<Tasks>,
    coordinator: Coordinator<Arc<Plan>>,
    tokens: Option<Tokens>,
    sender: Sender<Message>,
    report: Report,
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
    /// When the time next makes a difference.
    looks_at: Option<Instant>,
    /// How long whoever waits for the time sleeps; for ever if none.
    sleeps_until: Option<Instant>,
}

/// An attempt that is to start.
#[derive(Debug)]
struct Next {
    job: JobIndex,
    /// The attempt, from 1.
    number: u32,
    held: Held,
}

impl Dispatch {
    fn lock(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for messages and for the time, until the run is over.
    fn coordinate(self: &Arc<Self>, engine: &Engine, messages: &Receiver<Message>) -> Run {
        let mut message = None;
        loop {
            if let Some(Message::Reap) = message {
                self.reap_orphans();
            }
            let mut shared = self.lock();
            let run = shared.as_mut().expect("nobody else takes it");
            if let Some(message) = message.take() {
                run.take(message);
            }
            run.go_on(self, engine, None);
            if run.coordinator.is_over() {
                return shared.take().expect("it was there just now");
            }
            run.sleeps_until = run.looks_at;
            let until = run.sleeps_until;
            drop(shared);
            let received = match until {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => messages.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            message = match received {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => unreachable!("this run holds a sender"),
            };
        }
    }

    /// Carries out attempts on this thread, as long as there are any for it.
    fn work(self: &Arc<Self>, engine: &Engine, first: Next) {
        let mut lingering = Lingering::default();
        let mut next = Some(first);
        while let Some(Next { job, number, held }) = next {
            let started = |start| {
                if let Some(run) = &mut *self.lock() {
                    run.report_start(job, start);
                }
            };
            let attempts = &self.attempts;
            let ended = attempts.run(&self.plan, job, number, &held, &mut lingering, started);
            let Ended { start, end } = ended;
            next = self.ended(engine, job, start, end);
            attempts.let_go(&mut lingering, next.is_none());
        }
    }

    /// Tells how an attempt has ended; the next one for this thread.
    fn ended(
        self: &Arc<Self>,
        engine: &Engine,
        job: JobIndex,
        start: Option<Start>,
        end: AttemptEnd,
    ) -> Option<Next> {
        let mut shared = self.lock();
        // It is not over before this attempt is.
        let run = shared.as_mut()?;
        run.ended(job, start, Arc::new(end));
        let mut next = None;
        run.go_on(self, engine, self.goes_on.then_some(&mut next));
        if run.has_to_wake() {
            // Refused only once the run is over.
            let _ = run.sender.send(Message::Look);
        }
        next
    }

    fn reap_orphans(&self) {
        let begin = Instant::now();
        let mut shared = self.lock();
        match shared.as_ref() {
            // No task may begin meanwhile.
            Some(run) if run.tasks.is_some() => {
                if run.may_reap() {
                    self.attempts.reap_orphans();
                }
            }
            _ => {
                drop(shared);
                self.attempts.reap_orphans();
                shared = self.lock();
            }
        }
        let pause = (begin.elapsed() * REAPING_PART).max(REAPING_PAUSE);
        if let Some(run) = shared.as_mut() {
            run.next_reaping = begin + pause;
        }
    }
}

impl Run {
    /// All that follows from what has just happened. The first attempt that may start goes to `mine`, where
    /// that is given; the others to the engine.
    fn go_on(
        &mut self,
        dispatch: &Arc<Dispatch>,
        engine: &Engine,
        mut mine: Option<&mut Option<Next>>,
    ) {
        if self.control.is_ending() {
            self.coordinator.stop(Stop::Cancel);
        }
        // An end is told before what starts in its slot.
        self.tell_news();
        let age = self.control.now().saturating_duration_since(self.begin);
        self.coordinator.pass_deadlines(age);
        if let Some(tasks) = &mut self.tasks {
            tasks.pass_limits();
        }
        // Also while nothing may start: what has come is not waited for.
        self.coordinator.pass_delays(self.control.now());
        let mut looks_again = self.start_what_may(dispatch, engine, &mut mine);
        while let Some(tokens) = &mut self.tokens
            && tokens.balance(&mut self.coordinator)
        {
            looks_again = self.start_what_may(dispatch, engine, &mut mine);
        }
        self.tell_news();
        self.looks_at = self.next_look(looks_again);
    }

    /// When the time next makes a difference; `looks_again` is when to look whether more may start.
    fn next_look(&self, looks_again: Option<Instant>) -> Option<Instant> {
        let delay = self.coordinator.next_delay();
        let deadline = self.coordinator.next_deadline();
        // One that the clock cannot hold never passes.
        let deadline = deadline.and_then(|deadline| self.begin.checked_add(deadline));
        let limit = self.tasks.as_ref().and_then(Tasks::next_limit);
        let by_clock_of_run = delay.into_iter().chain(deadline).chain(limit).min();
        let by_clock_of_run = by_clock_of_run.and_then(|at| {
            let left = at.saturating_duration_since(self.control.now());
            Instant::now().checked_add(left)
        });
        by_clock_of_run.into_iter().chain(looks_again).min()
    }

    /// True if whoever waits for the time has to look at once; asked once for each time.
    fn has_to_wake(&mut self) -> bool {
        if self.coordinator.is_over() {
            return true;
        }
        let Some(at) = self.looks_at else {
            return false;
        };
        let is_earlier = self.sleeps_until.is_none_or(|until| at < until);
        if is_earlier {
            self.sleeps_until = Some(at);
        }
        is_earlier
    }

    /// Starts what may start; when to look again, if not for what this is told of.
    fn start_what_may(
        &mut self,
        dispatch: &Arc<Dispatch>,
        engine: &Engine,
        mine: &mut Option<&mut Option<Next>>,
    ) -> Option<Instant> {
        while self.is_abreast() {
            if let Some(later) = self.load.is_too_high(Instant::now()) {
                return Some(later);
            }
            let (job, number) = self.coordinator.next(self.control.now())?;
            let held = self.coordinator.held(job).cloned().unwrap_or_default();
            if let Some(tasks) = &mut self.tasks
                && tasks.start(
                    &self.plan,
                    (job, number),
                    &held,
                    &self.attempts,
                    &self.sender,
                )
            {
                continue;
            }
            let next = Next { job, number, held };
            match mine.take() {
                Some(mine) => *mine = Some(next),
                None => self.submit(dispatch, engine, next),
            }
        }
        None
    }

    /// Has a thread of the engine carry out an attempt.
    fn submit(&mut self, dispatch: &Arc<Dispatch>, engine: &Engine, next: Next) {
        let (job, placement) = (next.job, next.held.placement().cloned());
        let dispatch = Arc::clone(dispatch);
        let submitted = engine
            .job()
            .class(Class::Io)
            .submit(move |context| dispatch.work(context.engine(), next));
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
            self.ended(job, None, Arc::new(end));
        }
    }

    fn ended(&mut self, job: JobIndex, start: Option<Start>, end: Arc<AttemptEnd>) {
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
        let now = Instant::now();
        if self.may_reap() && now >= self.next_reaping {
            self.next_reaping = now + REAPING_PAUSE;
            // Not by this thread, and not under its lock. Refused only once the run is over.
            let _ = self.sender.send(Message::Reap);
        }
    }

    /// What a task has started is for the task to wait for.
    fn may_reap(&self) -> bool {
        self.tasks.as_ref().is_none_or(Tasks::are_over)
    }

    fn take(&mut self, message: Message) {
        match message {
            // What is to be done is done in any case.
            Message::Look | Message::Reap | Message::Reported => {}
            Message::Cancel => {
                self.coordinator.stop(Stop::Cancel);
                if let Some(tasks) = &mut self.tasks {
                    tasks.cancel();
                }
            }
            Message::Kill => {
                let abandoned = self.tasks.as_mut().map(Tasks::abandon);
                for (job, end) in abandoned.into_iter().flatten() {
                    self.ended(job, None, end);
                }
            }
            Message::Task { job, number, news } => {
                let heard = self.tasks.as_mut();
                match heard.map_or(Heard::Nothing, |tasks| tasks.hear(job, number, news)) {
                    Heard::Started(start) => self.report_start(job, start),
                    Heard::Ended(end) => self.ended(job, None, end),
                    Heard::Nothing => {}
                }
            }
            Message::TokensCame => {
                if let Some(tokens) = &mut self.tokens {
                    tokens.came();
                }
            }
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

    fn report_start(&self, job: JobIndex, Start { pid, born, time }: Start) {
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
            None => self.report.report(event),
        }
    }

    /// True while the journal and the sinks keep up.
    fn is_abreast(&self) -> bool {
        self.recorder.as_ref().is_none_or(Recorder::is_abreast) && self.report.is_abreast()
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
                    sinks.retain_mut(|sink| match told(&mut **sink, &plan, &event) {
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
