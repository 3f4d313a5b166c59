//! What happens next in a run: asked by whoever has ended an attempt, and carried on by it.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reiver::{Class, Engine};

use super::Message;
use super::attempt::{Attempts, Ended, Lingering, Start};
use super::control::Control;
use super::coordinator::{Coordinator, News, Stop};
use super::load::Load;
use super::recorder::Recorder;
use super::reporter::Report;
use super::stock::Held;
use super::tasks::{Heard, Tasks};
use super::tokens::Tokens;
use crate::Plan;
use crate::capture::Captured;
use crate::event::{AttemptEnd, Event, EventKind, LeaderEnd, Moment, Reason, Status, Summary};
use crate::journal::Born;
use crate::plan::JobIndex;
use crate::task::message_of;

/// Looking for orphans that have ended is given at most this part of the time.
const REAPING_PART: u32 = 100;
const REAPING_PAUSE: Duration = Duration::from_secs(1);

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
pub(super) struct Dispatch {
    /// None once it is over.
    pub(super) run: Mutex<Option<Run>>,
    pub(super) plan: Arc<Plan>,
    pub(super) attempts: Arc<Attempts>,
    pub(super) sender: Sender<Message>,
    /// A thread that has ended an attempt may go on with another one. Not where attempts may have to
    /// wait for a thread: those that do are older.
    pub(super) goes_on: bool,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) plan: Arc<Plan>,
    pub(super) control: Control,
    pub(super) attempts: Arc<Attempts>,
    /// None where the plan has no tasks.
    pub(super) tasks: Option<Tasks>,
    pub(super) coordinator: Coordinator<Arc<Plan>>,
    pub(super) tokens: Option<Tokens>,
    pub(super) sender: Sender<Message>,
    pub(super) report: Report,
    pub(super) recorder: Option<Recorder>,
    /// How the last attempt ended, of jobs that have one and are not over.
    pub(super) last_ends: HashMap<JobIndex, Arc<AttemptEnd>>,
    pub(super) summary: Summary,
    /// Output of some job had no place.
    pub(super) lost: bool,
    pub(super) trouble: Option<io::Error>,
    pub(super) begin: Instant,
    pub(super) load: Load,
    pub(super) next_reaping: Instant,
    /// When the time next makes a difference.
    pub(super) looks_at: Option<Instant>,
    /// How long whoever waits for the time sleeps; for ever if none.
    pub(super) sleeps_until: Option<Instant>,
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

    /// Waits for messages and for the time, until the run is over; what there is of it then. Where something of
    /// the engine has panicked, on this thread or on one of an attempt, that is a bug, and nothing is decided
    /// any more by what it has left: what runs is ended, and the panic told.
    pub(super) fn coordinate(
        self: &Arc<Self>,
        engine: &Engine,
        messages: &Receiver<Message>,
    ) -> (Run, Option<String>) {
        let coordinated = AssertUnwindSafe(|| self.coordinate_until_over(engine, messages));
        let panic = match catch_unwind(coordinated) {
            Ok(Ok(run)) => return (run, None),
            Ok(Err(panic)) => panic,
            Err(payload) => message_of(payload),
        };
        let mut run = self.lock().take().expect("nobody else takes it");
        self.attempts.control.cancel(None);
        if let Some(tasks) = &mut run.tasks {
            // None of those is waited for: how it ends would be told to nobody.
            tasks.abandon();
        }
        // All attempts are over then: they are waited for without limit.
        let _ = engine.shutdown(Duration::MAX);
        (run, Some(panic))
    }

    /// The error is what something of the engine has panicked with.
    fn coordinate_until_over(
        self: &Arc<Self>,
        engine: &Engine,
        messages: &Receiver<Message>,
    ) -> Result<Run, String> {
        let mut message = None;
        loop {
            match message {
                Some(Message::Reap) => self.reap_orphans(),
                Some(Message::Panicked(panic)) => return Err(panic),
                _ => {}
            }
            let mut shared = self.lock();
            let run = shared.as_mut().expect("nobody else takes it");
            if let Some(message) = message.take() {
                run.take(message);
            }
            run.go_on(self, engine, None);
            if run.coordinator.is_over() {
                return Ok(shared.take().expect("it was there just now"));
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
        let worked = catch_unwind(AssertUnwindSafe(|| self.work_on(engine, first)));
        if let Err(payload) = worked {
            // Refused only once the run is over.
            let _ = self.sender.send(Message::Panicked(message_of(payload)));
        }
    }

    fn work_on(self: &Arc<Self>, engine: &Engine, first: Next) {
        let mut lingering = Lingering::default();
        let mut next = Some(first);
        // It may have waited for this thread; what follows is decided by this thread, just before.
        if let Some(Next { job, .. }) = &next
            && self.is_stopped()
        {
            next = self.over(engine, *job, None);
        }
        while let Some(Next { job, number, held }) = next {
            let started = |start| {
                if let Some(run) = &mut *self.lock() {
                    run.report_start(job, start);
                }
            };
            let attempts = &self.attempts;
            let ended = attempts.run(&self.plan, job, number, &held, &mut lingering, started);
            next = self.over(engine, job, ended);
            attempts.let_go(&mut lingering, next.is_none());
        }
    }

    fn is_stopped(&self) -> bool {
        let shared = self.lock();
        shared
            .as_ref()
            .is_none_or(|run| run.coordinator.is_stopped())
    }

    /// Tells how an attempt has ended, or that there is none; the next one for this thread.
    fn over(
        self: &Arc<Self>,
        engine: &Engine,
        job: JobIndex,
        ended: Option<Ended>,
    ) -> Option<Next> {
        let mut shared = self.lock();
        // It is not over before this attempt is.
        let run = shared.as_mut()?;
        match ended {
            Some(Ended { start, end }) => run.ended(job, start, Arc::new(end)),
            None => run.withdrawn(job),
        }
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

    /// The run was told to end before an attempt had a process.
    fn withdrawn(&mut self, job: JobIndex) {
        if self.control.is_ending() {
            self.coordinator.stop(Stop::Cancel);
        }
        self.coordinator.withdrawn(job);
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
            Message::Look | Message::Reap | Message::Reported | Message::Panicked(_) => {}
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

    pub(super) fn report(&self, kind: EventKind) {
        let time = Moment::now();
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
