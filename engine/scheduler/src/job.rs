//! Jobs as users see them: the builder that submits one, the handle that waits for it, the context
//! that it runs in.

use std::any::TypeId;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use reiver_topology::{NodeId, place};

use crate::breaker::Verdict;
use crate::cell::{JobCell, Meta, Outcome, Place, Rare, any};
use crate::clock::Stamp;
use crate::current::{Current, block_until};
use crate::engine::Engine;
use crate::error::{Interrupted, JobError, PanicPayload, SubmitError};
use crate::many::{Many, Outcomes};
use crate::panics::contain;
use crate::protocol::refs::Ref;
use crate::protocol::sync::{AtomicBool, AtomicU8, Ordering};
use crate::room::Stands;
#[cfg(feature = "tokio")]
use crate::shared::Shared;
use crate::slot::{Ended, Slot};
use crate::token::CancellationToken;
#[cfg(feature = "tracing")]
use crate::trace::{self, Trace, TraceParent};
use crate::{Class, Priority};

/// A job about to be submitted; made by [`Engine::job`].
#[derive(Debug)]
#[must_use = "a job does nothing until it is submitted"]
pub struct JobBuilder<'e> {
    engine: &'e Engine,
    name: Option<Cow<'static, str>>,
    class: Class,
    priority: Priority,
    node: Option<NodeId>,
    near: Option<NodeId>,
    deadline: Option<Duration>,
    token: Option<CancellationToken>,
    weight: u32,
    #[cfg(feature = "tracing")]
    trace_parent: Option<TraceParent>,
}

impl<'e> JobBuilder<'e> {
    pub(crate) fn new(engine: &'e Engine) -> JobBuilder<'e> {
        JobBuilder {
            engine,
            name: None,
            class: Class::default(),
            priority: Priority::default(),
            node: None,
            near: None,
            deadline: None,
            token: None,
            weight: 1,
            #[cfg(feature = "tracing")]
            trace_parent: None,
        }
    }

    /// A name, shown by [`Engine::running`].
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What it does with its thread. Default [`Class::Cpu`].
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// How urgent it is. Default [`Priority::P1`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Only workers of this node take it; where the node has none, those of the nearest that has.
    pub fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// Workers of the node that holds most of the pages of `data` take it first, others once those
    /// have nothing of their own. Asks the kernel: some 0.1 µs a page, at most 1,024 pages.
    pub fn near<T>(mut self, data: &[T]) -> Self {
        self.near = place::node_of(data);
        self
    }

    /// It is of no use after this time from its submission: still queued, it ends then as
    /// [`JobError::DeadlineExceeded`]; running, it learns of it at its next
    /// [`checkpoint`](JobContext::checkpoint). The deadline of the job that submits it holds too.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Cancelling `token` cancels it. If it was queued still, what its closure owns is dropped there, once
    /// the job is over.
    pub fn cancel_with(mut self, token: &CancellationToken) -> Self {
        self.token = Some(token.clone());
        self
    }

    /// How much of the limits of its class and its name it takes, if there are any. Default 1; with 0 it
    /// passes them all.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The trace that it belongs to, as the W3C's header `traceparent` has it (crate feature `tracing`):
    /// that of a request, say. Default: that of the job that submits it, else what the environment names
    /// in `TRACEPARENT`, else one of its own. What is no such text is as if it were not given.
    #[cfg(feature = "tracing")]
    pub fn traceparent(mut self, header: &str) -> Self {
        self.trace_parent = TraceParent::parse(header);
        self
    }

    /// Hands it over. Costs no call of an allocator where what the closure owns is below some 900 bytes,
    /// and, where a worker sleeps, waking it. The memory of jobs that were submitted one after the other
    /// by one thread, some hundreds of small ones, is used again when all of their handles are gone.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`], [`SubmitError::Limited`], [`SubmitError::BreakerOpen`],
    /// [`SubmitError::ShutDown`] or [`SubmitError::UnknownNode`]; the closure is dropped.
    pub fn submit<T, F>(self, body: F) -> Result<JobHandle<T>, SubmitError>
    where
        F: FnOnce(&JobContext) -> T + Send + 'static,
        T: Send + 'static,
    {
        let engine = self.engine;
        let (job, handle) = self.into_cell(body)?.split();
        engine.shared().submit(job)?;
        Ok(JobHandle {
            inner: Inner::Job(handle),
        })
    }

    /// The job, stamped and ready to be handed over.
    pub(crate) fn into_cell<T, F>(self, body: F) -> Result<JobCell<T, F>, SubmitError>
    where
        F: FnOnce(&JobContext) -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(JobCell::new(self.into_meta(TypeId::of::<F>)?, body))
    }

    /// What is known of a job with such a closure.
    fn into_meta(self, body: fn() -> TypeId) -> Result<Meta, SubmitError> {
        let shared = self.engine.shared();
        let index = |home| u16::try_from(home).expect("nodes have numbers of 16 bits");
        let place = match (self.node, self.near) {
            (Some(node), _) => Place::Strict(index(self.home(node)?)),
            (None, Some(near)) => {
                let home = shared.machine.home(near);
                home.map_or(Place::Any, |home| Place::Prefer(index(home)))
            }
            (None, None) => Place::Any,
        };
        let inherited = Current::with(|current| current?.deadline());
        let own = self
            .deadline
            .and_then(|deadline| Instant::now().checked_add(deadline));
        let deadline = own.into_iter().chain(inherited).min();
        let pass = shared.rules.as_ref().and_then(|rules| {
            let name = self.name.as_deref();
            rules.pass(self.class, name, self.weight)
        });
        let is_rare = self.name.is_some()
            || deadline.is_some()
            || self.token.is_some()
            || pass.is_some()
            || self.class == Class::Auto;
        #[cfg(feature = "tracing")]
        let trace = Trace::of_submission(self.trace_parent);
        #[cfg(feature = "tracing")]
        let is_rare = is_rare || trace.is_some();
        let mut runs_as = self.class;
        let rare = is_rare.then(|| {
            let mut auto = None;
            if self.class == Class::Auto {
                let (class, placed) = shared.place(self.name.as_deref(), body());
                (runs_as, auto) = (class, Some(placed));
            }
            Box::new(Rare {
                name: self.name,
                deadline,
                token: self.token,
                pass,
                auto,
                #[cfg(feature = "tracing")]
                trace,
                engine: Arc::downgrade(shared),
            })
        });
        Ok(Meta {
            class: self.class,
            priority: self.priority,
            place,
            runs_as,
            submitted: Stamp::now(),
            engine: Arc::as_ptr(shared),
            rare,
        })
    }

    /// The engine, and the job, stamped.
    #[cfg(feature = "tokio")]
    pub(crate) fn into_shared_and_meta(self) -> Result<(&'e Arc<Shared>, Meta), SubmitError> {
        let shared = self.engine.shared();
        Ok((shared, self.into_meta(TypeId::of::<()>)?))
    }

    /// The home of the node that it asks for.
    fn home(&self, node: NodeId) -> Result<usize, SubmitError> {
        let shared = self.engine.shared();
        let home = shared.machine.home(node);
        if let Err(error) = &home {
            shared
                .metrics
                .note_rejected(self.class, self.priority, error, 1);
        }
        home
    }

    /// Submits these, each as described; no node is named.
    pub(crate) fn submit_many<T, F>(self, bodies: impl Iterator<Item = F>) -> Vec<JobHandle<T>>
    where
        F: FnOnce(&JobContext) -> T + Send + 'static,
        T: Send + 'static,
    {
        let shared = self.engine.shared();
        let slots: Box<[Slot<T, F>]> = bodies.map(Slot::new).collect();
        let jobs = u32::try_from(slots.len()).expect("memory holds fewer jobs");
        // Nobody sees what the one thread that there is then holds: it is to find each in the queue.
        let workers = match shared.threadless {
            true => slots.len(),
            false => shared.metrics.workers(),
        };
        let meta = self.into_meta(TypeId::of::<F>);
        let meta = meta.expect("no node is named, so none is unknown");
        let many = Ref::new(Many::new(meta, slots));
        let chunks = Many::chunks(&many, workers);
        if let Err(error) = shared.submit_many(many.meta(), jobs as usize, chunks) {
            let never = |_| JobHandle::never(JobError::untaken(error.clone()));
            return (0..jobs).map(never).collect();
        }
        let handle = |(owner, job)| JobHandle {
            inner: Inner::OfMany(owner, job),
        };
        let owners = Ref::many(&Many::outcomes(many), jobs);
        owners.zip(0..jobs).map(handle).collect()
    }
}

/// Waits for a job's value: by [`join`](JobHandle::join), or as a future in any executor.
///
/// Dropping it lets the job run.
#[must_use = "dropping a handle lets the job run, but its value and its panic are lost"]
pub struct JobHandle<T> {
    inner: Inner<T>,
}

enum Inner<T> {
    Job(Ref<dyn Outcome<T>>),
    /// One of those that were submitted together.
    OfMany(Ref<dyn Outcomes<T>>, u32),
    Never(Option<Box<JobError>>),
}

impl<T> JobHandle<T> {
    pub(crate) fn never(error: JobError) -> JobHandle<T> {
        JobHandle {
            inner: Inner::Never(Some(Box::new(error))),
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn of(job: Ref<dyn Outcome<T>>) -> JobHandle<T> {
        let inner = Inner::Job(job);
        JobHandle { inner }
    }

    /// True once the job has ended.
    pub fn is_finished(&self) -> bool {
        self.inner.is_ended()
    }
}

impl<T> Inner<T> {
    fn is_ended(&self) -> bool {
        match self {
            Inner::Job(job) => job.is_ended(),
            Inner::OfMany(many, job) => many.is_ended(*job as usize),
            Inner::Never(_) => true,
        }
    }

    /// The outcome, once; or leaves the waker to be woken when there is one.
    fn take(&mut self, waker: Option<&Waker>) -> Option<Result<T, JobError>> {
        match self {
            Inner::Job(job) => job.take(waker),
            Inner::OfMany(many, job) => many.take(*job as usize, waker),
            Inner::Never(error) => error.take().map(|error| Err(*error)),
        }
    }
}

impl<T: 'static> Inner<T> {
    /// Runs it on the current thread, which is to wait for it, if it is still queued and may run here.
    fn run_if_queued(&self, current: &Current) {
        match self {
            Inner::Job(job) if job.is_queued() => {
                current.run_if_queued(&any(job));
            }
            Inner::OfMany(many, job) if many.is_queued(*job as usize) => {
                many.run_if_queued(*job as usize, current);
            }
            Inner::Job(_) | Inner::OfMany(..) | Inner::Never(_) => {}
        }
    }
}

impl<T: 'static> JobHandle<T> {
    /// Waits for the job's end.
    ///
    /// On a worker of an engine it does not only wait: a job that is still queued is run here, and
    /// while one runs elsewhere, another thread takes the worker's place. So it does an I/O thread's, see
    /// [`io_workers`](crate::EngineBuilder::io_workers).
    ///
    /// # Errors
    /// Why there is no value.
    ///
    /// # Panics
    /// If the handle was polled as a future before and has given its value.
    pub fn join(mut self) -> Result<T, JobError> {
        let job = &mut self.inner;
        Current::with(|current| current.into_iter().for_each(|here| job.run_if_queued(here)));
        let mut outcome = job.take(None);
        if outcome.is_none() {
            let _stands = Stands::while_waiting();
            block_until(None, |waker| {
                outcome = outcome.take().or_else(|| job.take(Some(waker)));
                outcome.is_some() || job.is_ended()
            });
        }
        outcome
            .or_else(|| job.take(None))
            .expect("a handle gives its value once")
    }
}

impl<T> Unpin for JobHandle<T> {}

impl<T> Future for JobHandle<T> {
    type Output = Result<T, JobError>;

    /// # Panics
    /// If it is polled again after it has given the value.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let job = &mut self.inner;
        match job.take(Some(context.waker())) {
            Some(outcome) => Poll::Ready(outcome),
            None if job.is_ended() => {
                Poll::Ready(job.take(None).expect("a handle gives its value once"))
            }
            None => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for JobHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle")
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// What a running job is told and can ask.
#[derive(Debug)]
pub struct JobContext {
    /// Alive while the job runs, which alone is given this, for as long as it runs.
    job: *const Meta,
    /// As above.
    engine: *const Engine,
    node: NodeId,
    /// What a checkpoint has returned: 0 for nothing yet.
    seen: AtomicU8,
    has_failed: AtomicBool,
}

// SAFETY: what it points to may be used by any thread.
unsafe impl Send for JobContext {}
// SAFETY: as above.
unsafe impl Sync for JobContext {}

const INTERRUPTS: [Interrupted; 3] = [
    Interrupted::Cancelled,
    Interrupted::DeadlineExceeded,
    Interrupted::ShutDown,
];

impl JobContext {
    /// For a job that runs on the current thread, and only as long as it does.
    pub(crate) fn new(job: &Meta, current: &Current) -> JobContext {
        JobContext {
            job,
            engine: current.engine(),
            node: current.node(),
            seen: AtomicU8::new(0),
            has_failed: AtomicBool::new(false),
        }
    }

    fn meta(&self) -> &Meta {
        // SAFETY: it runs.
        unsafe { &*self.job }
    }

    /// Runs the closure, and says how it came out.
    #[inline]
    pub(crate) fn call<T>(&self, body: impl FnOnce(&JobContext) -> T) -> Ended<T> {
        match catch_unwind(AssertUnwindSafe(|| body(self))) {
            Err(payload) => Err(Box::new(JobError::Panicked(PanicPayload::new(payload)))),
            Ok(value) => match self.interrupt_seen() {
                None => Ok(value),
                Some(interrupt) => {
                    contain(|| drop(value));
                    Err(Box::new(interrupt.into()))
                }
            },
        }
    }

    /// Lets a long job end early, and urgent ones in: call it now and then, and return when it says so. A
    /// job to which it has returned an error ends as that error, whatever it returns. Where a more urgent
    /// job waits for a CPU, the thread gives it that. Where urgent jobs have no threads of their own (the
    /// engine [does not yield](crate::EngineBuilder::yield_to_urgent), or the system refuses them), this
    /// runs one that waits: then hold no lock across it that a P0 job takes.
    ///
    /// Costs a few nanoseconds, or some twenty with a deadline; some ten more once there have been urgent
    /// jobs, and then some 0.3 µs each 50 µs.
    ///
    /// # Errors
    /// Why the job should end.
    pub fn checkpoint(&self) -> Result<(), Interrupted> {
        let interrupt = if self.is_cancelled() {
            0
        } else if self
            .deadline()
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            1
        } else if self.engine().shared().is_hurrying() {
            2
        } else {
            self.give_way();
            return Ok(());
        };
        // ORDERING: relaxed: read by the thread that runs the job, after the closure has returned.
        self.seen.store(interrupt + 1, Ordering::Relaxed);
        Err(INTERRUPTS[usize::from(interrupt)])
    }

    fn give_way(&self) {
        Current::with(|current| {
            if let Some((current, worker)) = current.and_then(|here| Some((here, here.worker()?))) {
                let shared = current.engine().shared();
                worker.give_way(shared);
                if self.meta().priority != Priority::P0 {
                    worker.serve_urgent(current);
                }
            }
        });
    }

    /// True once its token is cancelled. Asking does not count as having been told.
    pub fn is_cancelled(&self) -> bool {
        self.meta()
            .token()
            .is_some_and(CancellationToken::is_cancelled)
    }

    /// For the [`breaker`](crate::EngineBuilder::breaker) of its name the job counts as failed, whatever
    /// it returns. A job that panics does so anyway.
    pub fn report_failure(&self) {
        // ORDERING: relaxed: read by the thread that runs the job, after the closure has returned.
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// What its breaker makes of a job that came out like this.
    pub(crate) fn verdict(&self, error: Option<&JobError>) -> Verdict {
        match error {
            _ if self.has_failed.load(Ordering::Relaxed) => Verdict::Failure,
            Some(JobError::Panicked(_)) => Verdict::Failure,
            Some(_) => Verdict::None,
            None => Verdict::Success,
        }
    }

    /// When it should have ended.
    pub fn deadline(&self) -> Option<Instant> {
        self.meta().deadline()
    }

    /// The job's place in its trace, as the header `traceparent` or `TRACEPARENT` has it (crate feature
    /// `tracing`): for a request that it sends, or a process that it starts. Where nobody records the
    /// spans of jobs, what the environment names, if it does.
    #[cfg(feature = "tracing")]
    pub fn traceparent(&self) -> Option<String> {
        let own = self.meta().trace().map(Trace::own);
        own.or_else(trace::of_process).map(|own| own.to_string())
    }

    /// The node of the thread that runs it.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The engine that runs it: for submitting more.
    pub fn engine(&self) -> &Engine {
        // SAFETY: that of the thread that runs the job.
        unsafe { &*self.engine }
    }

    #[inline]
    fn interrupt_seen(&self) -> Option<Interrupted> {
        // ORDERING: relaxed, see `checkpoint`.
        let seen = usize::from(self.seen.load(Ordering::Relaxed));
        seen.checked_sub(1).map(|index| INTERRUPTS[index])
    }
}
