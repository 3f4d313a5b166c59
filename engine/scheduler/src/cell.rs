//! One job from its submission to its end: what is known of it, and its [`slot`](crate::slot).

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

use crate::admission::Pass;
use crate::auto::{Auto, Spent};
use crate::breaker::Verdict;
use crate::clock::Stamp;
use crate::current::Current;
use crate::error::{Interrupted, JobError, Phase};
use crate::job::JobContext;
use crate::protocol::left::Left;
use crate::protocol::refs::{Inner, Ref};
use crate::shared::Shared;
use crate::slot::{Ended, Slot, error_of};
use crate::token::CancellationToken;
#[cfg(feature = "tracing")]
use crate::trace::{self, Trace};
use crate::{Class, Priority};

/// What everybody may know of a job.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) class: Class,
    pub(crate) priority: Priority,
    pub(crate) place: Place,
    /// Its class, or where it was placed.
    pub(crate) runs_as: Class,
    pub(crate) submitted: Stamp,
    /// The address of its engine, which it is known by.
    pub(crate) engine: *const Shared,
    /// What most jobs do without.
    pub(crate) rare: Option<Box<Rare>>,
}

// SAFETY: the engine is only compared with.
unsafe impl Send for Meta {}
// SAFETY: as above.
unsafe impl Sync for Meta {}

#[derive(Debug, Clone)]
pub(crate) struct Rare {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) token: Option<CancellationToken>,
    pub(crate) pass: Option<Arc<Pass>>,
    pub(crate) auto: Option<Auto>,
    #[cfg(feature = "tracing")]
    pub(crate) trace: Option<Trace>,
    /// For who ends it from outside. Weak: a queued job does not keep its engine.
    pub(crate) engine: Weak<Shared>,
}

impl Meta {
    pub(crate) fn name(&self) -> Option<&Cow<'static, str>> {
        self.rare.as_ref()?.name.as_ref()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.rare.as_ref()?.deadline
    }

    /// What it has to pass before it is taken.
    pub(crate) fn pass(&self) -> Option<&Pass> {
        self.rare.as_ref()?.pass.as_deref()
    }

    /// Its place in a trace, if somebody records that.
    #[cfg(feature = "tracing")]
    pub(crate) fn trace(&self) -> Option<&Trace> {
        self.rare.as_ref()?.trace.as_ref()
    }

    /// Calls `body`, the job, in a span of its own.
    #[cfg(feature = "tracing")]
    fn traced<T>(&self, body: impl FnOnce() -> Ended<T>) -> Ended<T> {
        if self.trace().is_none() {
            return body();
        }
        let span = trace::span(self);
        let outcome = span.in_scope(body);
        trace::note_end(&span, error_of(&outcome));
        outcome
    }

    #[cfg(not(feature = "tracing"))]
    #[inline]
    fn traced<T>(&self, body: impl FnOnce() -> Ended<T>) -> Ended<T> {
        body()
    }

    /// Passes all that it has to, if it may at once.
    pub(crate) fn may_pass(&self) -> bool {
        self.pass().is_none_or(|pass| pass.try_take().is_ok())
    }

    /// The job is over, and leaves what it has passed.
    pub(crate) fn leave(&self, verdict: impl FnOnce() -> Verdict) {
        if let Some(pass) = self.pass() {
            pass.leave(verdict());
        }
    }

    /// It is about to begin on the current thread: why it is not to, if it is not, or what is to be measured
    /// of it.
    #[inline]
    fn begin(&self, engine: &Shared) -> Result<Measured, Interrupted> {
        match &self.rare {
            None => Ok(None),
            Some(rare) => rare.begin(engine),
        }
    }

    /// It has ended there, with what `begin` gave.
    #[inline]
    fn end(&self, engine: &Shared, measured: Measured, verdict: impl FnOnce() -> Verdict) {
        if let Some(rare) = &self.rare {
            rare.measure(engine, measured);
            if let Some(pass) = &rare.pass {
                pass.leave(verdict());
            }
        }
    }

    /// The same, for another one.
    pub(crate) fn copied(&self) -> Meta {
        Meta {
            rare: self.rare.clone(),
            ..*self
        }
    }

    /// Ends one of the jobs of this that the caller has claimed, without running it; `engine` is its
    /// own if that is still there, with where the caller counts.
    pub(crate) fn end_unrun<T, F>(
        &self,
        (slot, body): (&Slot<T, F>, F),
        why: Interrupted,
        engine: Option<(&Shared, usize)>,
        wake: impl FnOnce(),
    ) {
        let error = JobError::unrun(why);
        self.leave(|| Verdict::None);
        if let Some((engine, lane)) = engine {
            engine.note_end(lane, self, Some(&error), Phase::Queued);
        }
        let gone = || {
            if let Some((engine, lane)) = engine {
                engine.note_gone(lane);
            }
        };
        slot.end_unrun(error, body, gone, wake);
    }

    /// Calls `code` with its engine if that is still there: the one that is known, or the [`Rare`] one.
    pub(crate) fn with_engine<R>(
        &self,
        known: Option<&Shared>,
        code: impl FnOnce(Option<&Shared>) -> R,
    ) -> R {
        let upgraded = match (known, &self.rare) {
            (None, Some(rare)) => rare.engine.upgrade(),
            _ => None,
        };
        code(known.or(upgraded.as_deref()))
    }

    pub(crate) fn token(&self) -> Option<&CancellationToken> {
        self.rare.as_ref()?.token.as_ref()
    }
}

/// What is measured of a job that runs: a word, for most there is nothing.
type Measured = Option<Box<Spent>>;

impl Rare {
    #[inline(never)]
    fn begin(&self, engine: &Shared) -> Result<Measured, Interrupted> {
        if let Some(why) = self.interrupt() {
            return Err(why);
        }
        let measured = self.auto.and_then(|auto| engine.autos().begin(auto));
        Ok(measured.map(Box::new))
    }

    fn measure(&self, engine: &Shared, measured: Measured) {
        if let (Some(auto), Some(before)) = (self.auto, measured) {
            engine.autos().end(auto, *before);
        }
    }

    /// Why it is not to begin, if it is not: whoever cancels it may not have come to it yet, and the
    /// timer neither.
    pub(crate) fn interrupt(&self) -> Option<Interrupted> {
        let is_cancelled = |token: &CancellationToken| token.is_cancelled();
        if self.token.as_ref().is_some_and(is_cancelled) {
            return Some(Interrupted::Cancelled);
        }
        let is_late = self.deadline.is_some_and(|at| Instant::now() >= at);
        is_late.then_some(Interrupted::DeadlineExceeded)
    }
}

/// On which node a job is to run, as an index among the nodes that have workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Near whoever submits it.
    Any,
    /// There first, elsewhere once those have nothing of their own.
    Prefer(u16),
    /// There only.
    Strict(u16),
}

/// A job whose type is forgotten: what queues hold.
pub(crate) trait AnyJob: Send + Sync + fmt::Debug {
    fn meta(&self) -> &Meta;
    /// A hint: false once somebody runs it, or it has ended.
    fn is_queued(&self) -> bool;
    /// Runs it, which is `job`, unless it has ended or runs already. Never panics.
    fn run(&self, job: &Ref<dyn AnyJob>, current: &Current) -> bool;
    /// Of a chunk that another worker has taken: runs jobs of it, from the end on, until none is left.
    fn help(&self, _current: &Current) {}
    /// Ends it without running it, if it is still queued; gives how many jobs that were. Where `engine`
    /// is not given it is the [`Rare`] one.
    fn end_queued(&self, why: Interrupted, engine: Option<&Shared>) -> usize;
    /// Sees to it that a future looks whether it is to end.
    #[cfg(feature = "tokio")]
    fn wake(&self) {}
}

/// A job as its handle sees it.
pub(crate) trait Outcome<T>: AnyJob {
    /// The outcome, once; or leaves the waker to be woken when there is one.
    fn take(&self, waker: Option<&Waker>) -> Option<Result<T, JobError>>;
    fn is_ended(&self) -> bool;
}

/// One whose closure and value are a word each fills a cache line.
pub(crate) struct JobCell<T, F> {
    meta: Meta,
    slot: Slot<T, F>,
    waker: Left<Waker>,
}

const _: () = assert!(size_of::<Inner<JobCell<(), [usize; 1]>>>() == 64);

impl<T, F> JobCell<T, F> {
    pub(crate) fn new(meta: Meta, body: F) -> JobCell<T, F> {
        JobCell {
            meta,
            slot: Slot::new(body),
            waker: Left::nothing(),
        }
    }

    fn wake(&self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

impl<T, F> JobCell<T, F>
where
    T: Send + 'static,
    F: FnOnce(&JobContext) -> T + Send + 'static,
{
    /// The job as queues hold it, and as its handle does.
    pub(crate) fn split(self) -> (Ref<dyn AnyJob>, Ref<dyn Outcome<T>>) {
        let is_watchable = self.meta.rare.is_some();
        let (queued, handle) = Ref::pair(self, is_watchable);
        // SAFETY: the same pointer.
        let queued = unsafe { queued.cast(|job| job as *mut Inner<dyn AnyJob>) };
        // SAFETY: the same pointer.
        let handle = unsafe { handle.cast(|job| job as *mut Inner<dyn Outcome<T>>) };
        (queued, handle)
    }
}

/// A job as queues hold it.
pub(crate) fn any<T: 'static>(job: &Ref<dyn Outcome<T>>) -> Ref<dyn AnyJob> {
    // SAFETY: the same pointer.
    unsafe { job.clone().cast(|job| job as *mut Inner<dyn AnyJob>) }
}

impl<T, F> AnyJob for JobCell<T, F>
where
    T: Send + 'static,
    F: FnOnce(&JobContext) -> T + Send + 'static,
{
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn is_queued(&self) -> bool {
        self.slot.is_queued()
    }

    fn run(&self, job: &Ref<dyn AnyJob>, current: &Current) -> bool {
        // Nobody has a handle any more, so nobody gets one.
        let claimed = match Ref::is_alone(job) {
            true => self.slot.claim_alone(),
            false => self.slot.claim(),
        };
        let Some(body) = claimed else {
            return false;
        };
        let shared = current.engine().shared();
        let (meta, lane) = (&self.meta, current.lane());
        let started = current.stamp();
        let measured = match meta.begin(shared) {
            Ok(measured) => measured,
            Err(why) => {
                let end = (&self.slot, body);
                meta.end_unrun(end, why, Some((shared, lane)), || self.wake());
                return true;
            }
        };
        shared.note_start(lane, meta);
        shared.note_wait(lane, meta, started.since(meta.submitted), 1);
        let context = JobContext::new(meta, current);
        let (outcome, ended) =
            current.running(meta, started, || meta.traced(|| context.call(body)));
        shared.note_run_time(lane, meta, ended.since(started), 1);
        let error = error_of(&outcome);
        meta.end(shared, measured, || context.verdict(error));
        // Whoever has joined a job finds it in the metrics.
        shared.note_end(lane, meta, error, Phase::Running);
        let gone = || shared.note_gone(lane);
        match Ref::is_alone(job) {
            true => self.slot.end_alone(outcome, gone),
            false => self.slot.end(outcome, gone, || self.wake()),
        }
        true
    }

    fn end_queued(&self, why: Interrupted, engine: Option<&Shared>) -> usize {
        let Some(body) = self.slot.claim() else {
            return 0;
        };
        self.meta.with_engine(engine, |engine| {
            let counted = engine.map(|engine| (engine, engine.lane_of_strangers()));
            let end = (&self.slot, body);
            self.meta.end_unrun(end, why, counted, || self.wake());
            if let Some(engine) = engine {
                engine.note_dead(self.meta.runs_as);
            }
        });
        1
    }
}

impl<T, F> Outcome<T> for JobCell<T, F>
where
    T: Send + 'static,
    F: FnOnce(&JobContext) -> T + Send + 'static,
{
    fn take(&self, waker: Option<&Waker>) -> Option<Result<T, JobError>> {
        let leave = waker.map(|waker| || drop(self.waker.leave(waker.clone())));
        self.slot.take(leave)
    }

    fn is_ended(&self) -> bool {
        self.slot.is_ended()
    }
}

impl<T, F> fmt::Debug for JobCell<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobCell")
            .field("meta", &self.meta)
            .field("slot", &self.slot)
            .finish()
    }
}
