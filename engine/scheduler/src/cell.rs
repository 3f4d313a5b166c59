//! One job from its submission to its end: the closure, its state, its outcome.
//!
//! The state goes `QUEUED → RUNNING → ENDED`, or straight from `QUEUED` to `ENDED` where it is
//! cancelled, late or shut down before a worker comes to it. Whoever moves it out of `QUEUED` owns
//! what follows: the worker runs the closure, the canceller drops it. So a job ends exactly once.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

use crate::current::Current;
use crate::error::{JobError, PanicPayload, Phase};
use crate::job::JobContext;
use crate::panics::contain;
use crate::shared::Shared;
use crate::state::State;
use crate::token::CancellationToken;
use crate::{Class, Priority};

/// What everybody may know of a job.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) class: Class,
    pub(crate) priority: Priority,
    pub(crate) place: Place,
    pub(crate) deadline: Option<Instant>,
    pub(crate) token: Option<CancellationToken>,
    pub(crate) submitted: Instant,
    /// Weak: a queued job does not keep its engine.
    pub(crate) engine: Weak<Shared>,
    pub(crate) state: State,
}

/// On which node a job is to run, as an index among the nodes that have workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Near whoever submits it.
    Any,
    /// There first, elsewhere once those have nothing of their own.
    Prefer(usize),
    /// There only.
    Strict(usize),
}

/// A job whose type is forgotten: what queues hold.
pub(crate) trait AnyJob: Send + Sync + fmt::Debug {
    fn meta(&self) -> &Meta;
    /// Runs it, unless it has ended or runs already. Never panics.
    fn run(self: Arc<Self>, current: &Current) -> bool;
    /// Ends it without running it, if it is still queued.
    fn end_queued(&self, error: JobError) -> bool;
}

/// A job as its handle sees it.
pub(crate) trait Outcome<T>: AnyJob {
    /// The outcome, once; or leaves the waker to be woken when there is one.
    fn take(&self, waker: Option<&Waker>) -> Option<Result<T, JobError>>;
    fn is_ended(&self) -> bool;
}

pub(crate) struct JobCell<T, F> {
    meta: Meta,
    body: Mutex<Option<F>>,
    slot: Mutex<Slot<T>>,
}

struct Slot<T> {
    ended: bool,
    outcome: Option<Result<T, JobError>>,
    waker: Option<Waker>,
}

impl<T, F> JobCell<T, F> {
    pub(crate) fn new(meta: Meta, body: F) -> JobCell<T, F> {
        let slot = Slot {
            ended: false,
            outcome: None,
            waker: None,
        };
        JobCell {
            meta,
            body: Mutex::new(Some(body)),
            slot: Mutex::new(slot),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_body(&self) -> Option<F> {
        self.body
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Counts the end, then makes it known: whoever has joined a job finds it in the metrics.
    ///
    /// The engine no longer waits for the job once somebody else's code is called, a waker or the
    /// destructor of what the closure holds: that may end the engine.
    fn end(
        &self,
        outcome: Result<T, JobError>,
        engine: Option<&Shared>,
        was: Phase,
        body: Option<F>,
    ) {
        self.meta.state.end();
        if let Some(engine) = engine {
            engine.note_end(&self.meta, outcome.as_ref().err(), was);
        }
        let mut engine = engine;
        if body.is_some() {
            engine.take().into_iter().for_each(Shared::note_gone);
            contain(|| drop(body));
        }
        let waker = {
            let mut slot = self.slot();
            slot.ended = true;
            slot.outcome = Some(outcome);
            slot.waker.take()
        };
        engine.into_iter().for_each(Shared::note_gone);
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
    }
}

impl<T, F> AnyJob for JobCell<T, F>
where
    T: Send + 'static,
    F: FnOnce(&JobContext) -> T + Send + 'static,
{
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn run(self: Arc<Self>, current: &Current) -> bool {
        if !self.meta.state.claim() {
            return false;
        }
        let engine = current.engine().shared();
        let Some(body) = self.take_body() else {
            return false;
        };
        let started = Instant::now();
        if self
            .meta
            .deadline
            .is_some_and(|deadline| started >= deadline)
        {
            let late = JobError::DeadlineExceeded {
                phase: Phase::Queued,
            };
            self.end(Err(late), Some(engine), Phase::Queued, Some(body));
            return true;
        }
        let job: Arc<dyn AnyJob> = Arc::clone(&self) as Arc<dyn AnyJob>;
        let context = JobContext::new(Arc::clone(&job), current);
        let outcome = current.running(&job, started, || {
            match catch_unwind(AssertUnwindSafe(|| body(&context))) {
                Err(payload) => Err(JobError::Panicked(PanicPayload::new(payload))),
                Ok(value) => match context.interrupt_seen() {
                    None => Ok(value),
                    Some(interrupt) => {
                        contain(|| drop(value));
                        Err(interrupt.into())
                    }
                },
            }
        });
        self.end(outcome, Some(engine), Phase::Running, None);
        true
    }

    fn end_queued(&self, error: JobError) -> bool {
        if !self.meta.state.claim() {
            return false;
        }
        let body = self.take_body();
        let engine = self.meta.engine.upgrade();
        self.end(Err(error), engine.as_deref(), Phase::Queued, body);
        if let Some(engine) = engine {
            engine.note_dead(self.meta.class);
        }
        true
    }
}

impl<T, F> Outcome<T> for JobCell<T, F>
where
    T: Send + 'static,
    F: FnOnce(&JobContext) -> T + Send + 'static,
{
    fn take(&self, waker: Option<&Waker>) -> Option<Result<T, JobError>> {
        // A waker is somebody else's code: cloned and dropped outside of the lock.
        let mut waker = waker.cloned();
        let mut slot = self.slot();
        if !slot.ended {
            std::mem::swap(&mut slot.waker, &mut waker);
        }
        let outcome = slot.outcome.take();
        drop(slot);
        drop(waker);
        outcome
    }

    fn is_ended(&self) -> bool {
        self.slot().ended
    }
}

impl<T, F> fmt::Debug for JobCell<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobCell")
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}
