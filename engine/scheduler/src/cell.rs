//! One job from its submission to its end: the closure, its state, its outcome.
//!
//! Whoever claims the job (see [`state`](crate::state)) owns what follows: the worker runs the
//! closure, the canceller drops it. So a job ends exactly once, and nothing but one word is shared;
//! a lock is taken by those alone who wait, and whoever wakes them.

use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

use crate::clock::Stamp;
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
    pub(crate) class: Class,
    pub(crate) priority: Priority,
    pub(crate) place: Place,
    pub(crate) submitted: Stamp,
    /// The address of its engine, which it is known by.
    pub(crate) engine: *const Shared,
    /// What most jobs do without.
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) state: State,
}

// SAFETY: the engine is only compared with.
unsafe impl Send for Meta {}
// SAFETY: as above.
unsafe impl Sync for Meta {}

#[derive(Debug)]
pub(crate) struct Rare {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) token: Option<CancellationToken>,
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

    pub(crate) fn token(&self) -> Option<&CancellationToken> {
        self.rare.as_ref()?.token.as_ref()
    }
}

/// On which node a job is to run, as an index among the nodes that have workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Near whoever submits it.
    Any,
    /// There first, elsewhere once those have nothing of their own.
    Prefer(u32),
    /// There only.
    Strict(u32),
}

/// A job whose type is forgotten: what queues hold.
pub(crate) trait AnyJob: Send + Sync + fmt::Debug {
    fn meta(&self) -> &Meta;
    /// A hint: false once somebody runs it, or it has ended.
    fn is_queued(&self) -> bool;
    /// Runs it, unless it has ended or runs already. Never panics.
    fn run(self: Arc<Self>, current: &Current) -> bool;
    /// Ends it without running it, if it is still queued. Where `engine` is not given it is the
    /// [`Rare`] one.
    fn end_queued(&self, error: JobError, engine: Option<&Shared>) -> bool;
}

/// A job as its handle sees it.
pub(crate) trait Outcome<T>: AnyJob {
    /// The outcome, once; or leaves the waker to be woken when there is one.
    fn take(&self, waker: Option<&Waker>) -> Option<Result<T, JobError>>;
    fn is_ended(&self) -> bool;
}

/// Small: with 120 bytes and less a job that another thread frees costs its allocator no lock.
pub(crate) struct JobCell<T, F> {
    meta: Meta,
    /// There until the job is claimed.
    body: UnsafeCell<MaybeUninit<F>>,
    /// There from when it has ended until it is taken.
    outcome: UnsafeCell<MaybeUninit<Result<T, Box<JobError>>>>,
    waker: Mutex<Option<Waker>>,
}

// SAFETY: the closure and the outcome are only touched by whoever the state says owns them; they move
// between threads, and are used by one at a time.
unsafe impl<T: Send, F: Send> Sync for JobCell<T, F> {}

impl<T, F> JobCell<T, F> {
    pub(crate) fn new(meta: Meta, body: F) -> JobCell<T, F> {
        JobCell {
            meta,
            body: UnsafeCell::new(MaybeUninit::new(body)),
            outcome: UnsafeCell::new(MaybeUninit::uninit()),
            waker: Mutex::new(None),
        }
    }

    /// Takes the job out of the queue, with its closure.
    fn claim(&self) -> Option<F> {
        self.meta.state.claim().then(|| {
            // SAFETY: whoever has claimed it alone touches the closure.
            let body = unsafe { &*self.body.get() };
            // SAFETY: it is there until it is claimed, which was just now.
            unsafe { body.assume_init_read() }
        })
    }

    /// Counts the end, then makes it known: whoever has joined a job finds it in the metrics.
    ///
    /// The engine no longer waits for the job once somebody else's code is called, a waker or the
    /// destructor of what the closure holds: that may end the engine.
    fn end(
        &self,
        outcome: Result<T, JobError>,
        engine: Option<(&Shared, usize)>,
        was: Phase,
        body: Option<F>,
    ) {
        if let Some((engine, lane)) = engine {
            engine.note_end(lane, &self.meta, outcome.as_ref().err(), was);
        }
        let gone = || {
            engine
                .into_iter()
                .for_each(|(engine, lane)| engine.note_gone(lane))
        };
        let is_gone = body.is_some();
        if is_gone {
            gone();
            contain(|| drop(body));
        }
        let outcome = outcome.map_err(Box::new);
        // SAFETY: whoever has claimed it alone touches the outcome until it has ended.
        unsafe { (*self.outcome.get()).write(outcome) };
        let is_waited_for = self.meta.state.end();
        if !is_gone {
            gone();
        }
        if is_waited_for {
            let waker = self.waker().take();
            contain(|| waker.into_iter().for_each(Waker::wake));
        }
    }

    fn waker(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, F> JobCell<T, F> {
    fn take_outcome(&self) -> Option<Result<T, JobError>> {
        self.meta.state.take().then(|| {
            // SAFETY: it has ended, and this is the one who takes the outcome.
            let outcome = unsafe { &*self.outcome.get() };
            // SAFETY: it was written before the job ended, and is taken once.
            unsafe { outcome.assume_init_read() }.map_err(|error| *error)
        })
    }
}

impl<T, F> Drop for JobCell<T, F> {
    fn drop(&mut self) {
        // What nobody has run or ended, and what nobody has asked for.
        drop(self.claim());
        drop(self.take_outcome());
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

    fn is_queued(&self) -> bool {
        self.meta.state.is_queued()
    }

    fn run(self: Arc<Self>, current: &Current) -> bool {
        let Some(body) = self.claim() else {
            return false;
        };
        let engine = Some((&**current.engine().shared(), current.lane()));
        let started = current.stamp();
        let deadline = self.meta.deadline();
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let late = JobError::DeadlineExceeded {
                phase: Phase::Queued,
            };
            self.end(Err(late), engine, Phase::Queued, Some(body));
            return true;
        }
        let context = JobContext::new(&*self, current);
        let outcome = current.running(&*self, started, || {
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
        self.end(outcome, engine, Phase::Running, None);
        true
    }

    fn end_queued(&self, error: JobError, engine: Option<&Shared>) -> bool {
        let Some(body) = self.claim() else {
            return false;
        };
        let rare = self.meta.rare.as_ref();
        let upgraded = match engine {
            Some(_) => None,
            None => rare.and_then(|rare| rare.engine.upgrade()),
        };
        let engine = engine.or(upgraded.as_deref());
        let counted = engine.map(|engine| (engine, engine.lane_of_strangers()));
        self.end(Err(error), counted, Phase::Queued, Some(body));
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
        if let Some(waker) = waker
            && !self.meta.state.is_ended()
        {
            // A waker is somebody else's code: cloned and dropped outside of the lock.
            let mut waker = Some(waker.clone());
            std::mem::swap(&mut *self.waker(), &mut waker);
            drop(waker);
            if !self.meta.state.wait() {
                // Whoever ends it wakes the waker, be that just now.
                return None;
            }
        }
        self.take_outcome()
    }

    fn is_ended(&self) -> bool {
        self.meta.state.is_ended()
    }
}

impl<T, F> fmt::Debug for JobCell<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobCell")
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}
