//! Jobs that are futures (crate feature `tokio`): on a runtime of tokio for each node, whose threads
//! stay on that node and are threads of the engine.
//!
//! A future is a job of class Io: it has its room, limits, breaker, deadline, token and metrics. It is
//! queued until it is polled for the first time, and running from then on, also while it waits. Who
//! ends it from outside ends it if it is queued, and else wakes it: before it is polled again it sees
//! that it is cancelled, late or shut down, and is dropped. So it never goes past the `await` at which it
//! was told.
//!
//! A runtime is started with the first future of its node, by the spawner, from whom its threads inherit
//! what threads inherit. It ends after the jobs have.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread;

use reiver_topology::here;
use tokio::runtime::{self, Handle, Runtime};
use tokio::task;

use crate::Class;
use crate::breaker::Verdict;
use crate::cell::{AnyJob, Meta, Outcome, Place};
use crate::clock::Stamp;
use crate::current::{Current, Entered};
use crate::engine::Engine;
use crate::error::{Interrupted, JobError, PanicPayload, Phase, SubmitError};
use crate::io::{Pool, settle};
use crate::job::{JobBuilder, JobHandle};
use crate::panics::contain;
use crate::protocol::refs::{Inner, Ref};
use crate::room::Entry;
use crate::running::RunningJob;
use crate::shared::Shared;
use crate::slot::{Ended, Slot, error_of};
use crate::spawner::Request;

/// The runtimes of an engine, and the futures that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Asyncs {
    /// By node; held while one is started.
    runtimes: Mutex<Runtimes>,
    live: Mutex<HashMap<usize, Live>>,
}

#[derive(Debug, Default)]
struct Runtimes {
    nodes: HashMap<usize, Runtime>,
    stopped: bool,
}

#[derive(Debug)]
struct Live {
    job: Ref<dyn AnyJob>,
    /// The index of its node, and since when it runs.
    started: Option<(usize, Stamp)>,
}

thread_local! {
    /// What makes the thread one of its engine.
    static ENTERED: RefCell<Option<Entered>> = const { RefCell::new(None) };
}

impl Asyncs {
    fn live(&self) -> MutexGuard<'_, HashMap<usize, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runtimes(&self) -> MutexGuard<'_, Runtimes> {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, node: usize) -> Option<Handle> {
        let runtimes = self.runtimes();
        runtimes
            .nodes
            .get(&node)
            .map(|runtime| runtime.handle().clone())
    }

    /// Futures that have been polled and have not ended.
    pub(crate) fn running(&self, shared: &Shared) -> Vec<RunningJob> {
        let live = self.live();
        let running = live.values().filter_map(|live| {
            let (node, started) = live.started?;
            let node = shared.machine.nodes[node].id;
            Some(RunningJob::of(live.job.meta(), node, started))
        });
        running.collect()
    }

    /// Ends those that have not begun, and wakes the others; gives how many were ended.
    pub(crate) fn end_queued(&self, shared: &Shared) -> usize {
        let jobs = self.live().values().map(|live| live.job.clone()).collect();
        shared.end_unbegun(jobs)
    }

    /// Has all futures polled, to see what they are told.
    pub(crate) fn wake_all(&self) {
        let jobs: Vec<_> = self.live().values().map(|live| live.job.clone()).collect();
        jobs.into_iter().for_each(|job| contain(|| job.wake()));
    }

    /// Ends the runtimes, once no future is left; waits for their threads unless the current one is
    /// one of the engine's.
    pub(crate) fn stop(&self, waits: bool) {
        let runtimes = {
            let mut runtimes = self.runtimes();
            runtimes.stopped = true;
            std::mem::take(&mut runtimes.nodes)
        };
        for runtime in runtimes.into_values() {
            if !waits {
                runtime.shutdown_background();
            } else if Handle::try_current().is_ok() {
                // Inside of a runtime another one may not be waited for: this thread waits for a thread.
                thread::scope(|scope| {
                    scope.spawn(|| drop(runtime));
                });
            } else {
                drop(runtime);
            }
        }
    }

    /// Starts the runtime of a node, on the spawner; true if there is one.
    pub(crate) fn start(&self, shared: &Arc<Shared>, node: usize) -> bool {
        let mut runtimes = self.runtimes();
        if runtimes.stopped || runtimes.nodes.contains_key(&node) {
            return !runtimes.stopped;
        }
        let enters = Arc::downgrade(shared);
        let built = catch_unwind(AssertUnwindSafe(|| {
            runtime::Builder::new_multi_thread()
                .worker_threads(shared.machine.nodes[node].workers.max(1))
                .thread_name("reiver-async")
                .on_thread_start(move || enter(&enters, node))
                .on_thread_park(reiver_pool::park_hook)
                .on_thread_stop(leave_engine)
                .enable_all()
                .build()
        }));
        match built {
            Ok(Ok(runtime)) => {
                runtimes.nodes.insert(node, runtime);
                true
            }
            Ok(Err(error)) => {
                tracing::warn!("the system refuses a runtime for futures ({error})");
                false
            }
            Err(_) => {
                tracing::warn!("the system refuses the threads of a runtime for futures");
                false
            }
        }
    }
}

/// The current thread is one of a runtime.
fn enter(engine: &Weak<Shared>, node: usize) {
    if let Some(shared) = engine.upgrade() {
        settle(&shared, Pool::Io, node);
        let entered = Current::io(shared, node);
        ENTERED.set(Some(entered));
    }
}

/// The current thread is none of a runtime any more.
fn leave_engine() {
    drop(ENTERED.take());
    here::set(None);
}

/// Runs what blocks; on a thread of a runtime of an engine another one polls futures meanwhile.
pub(crate) fn blocking<R>(body: impl FnOnce() -> R) -> R {
    // Asked while the thread ends, there is no such thing any more.
    let is_own = ENTERED.try_with(|entered| entered.try_borrow().is_ok_and(|own| own.is_some()));
    if is_own.unwrap_or(false) {
        task::block_in_place(body)
    } else {
        body()
    }
}

/// One future from its submission to its end.
struct FutureJob<F: Future> {
    meta: Meta,
    slot: Slot<F::Output, F>,
    /// Who waits for its end.
    waiter: Mutex<Option<Waker>>,
    /// What has it polled again.
    task: Mutex<Option<Waker>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a waker into its place; wakers are somebody else's code, and dropped outside of the lock.
fn leave(place: &Mutex<Option<Waker>>, waker: &Waker) {
    if lock(place)
        .as_ref()
        .is_some_and(|known| known.will_wake(waker))
    {
        return;
    }
    let mut waker = Some(waker.clone());
    std::mem::swap(&mut *lock(place), &mut waker);
    drop(waker);
}

fn wake(place: &Mutex<Option<Waker>>) {
    let waker = lock(place).take();
    waker.into_iter().for_each(Waker::wake);
}

impl<F> FutureJob<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    /// The job as all see it.
    fn any(job: &Ref<Self>) -> Ref<dyn AnyJob> {
        // SAFETY: the same pointer.
        unsafe { job.clone().cast(|job| job as *mut Inner<dyn AnyJob>) }
    }

    /// The job as its handle sees it.
    fn outcome(job: Ref<Self>) -> Ref<dyn Outcome<F::Output>> {
        // SAFETY: the same pointer.
        unsafe { job.cast(|job| job as *mut Inner<dyn Outcome<F::Output>>) }
    }

    fn key(&self) -> usize {
        (&raw const self.meta).addr()
    }

    /// Why it should end, if it should.
    fn interrupt(&self, shared: &Shared) -> Option<Interrupted> {
        let shut_down = || shared.is_hurrying().then_some(Interrupted::ShutDown);
        let rare = self.meta.rare.as_ref();
        rare.and_then(|rare| rare.interrupt()).or_else(shut_down)
    }

    /// Ends it unrun; the caller has claimed it.
    fn end_unrun(&self, body: F, why: Interrupted, shared: Option<&Shared>) {
        if let Some(shared) = shared {
            shared.asyncs.live().remove(&self.key());
        }
        let counted = shared.map(|shared| (shared, shared.lane_of_strangers()));
        let end = (&self.slot, body);
        self.meta
            .end_unrun(end, why, counted, || wake(&self.waiter));
    }

    /// The task of the runtime.
    async fn drive(job: Ref<Self>, engine: Weak<Shared>, node: usize) {
        // Ended while it was queued, and the engine may be gone.
        let Some(body) = job.slot.claim() else {
            return;
        };
        let Some(shared) = engine.upgrade() else {
            return job.end_unrun(body, Interrupted::ShutDown, None);
        };
        if let Some(why) = job.interrupt(&shared) {
            return job.end_unrun(body, why, Some(&shared));
        }
        let lane = shared.lane_of_strangers();
        let started = Stamp::now();
        if let Some(live) = shared.asyncs.live().get_mut(&job.key()) {
            live.started = Some((node, started));
        }
        shared.note_start(lane, &job.meta);
        shared.note_wait(lane, &job.meta, started.since(job.meta.submitted), 1);
        drop(shared);

        let mut body = Some(Box::pin(body));
        #[cfg(feature = "tracing")]
        let span = crate::trace::span(&job.meta);
        let outcome = poll_fn(|context| {
            #[cfg(feature = "tracing")]
            let _within = span.enter();
            job.poll(&mut body, &engine, context)
        });
        let outcome = outcome.await;
        #[cfg(feature = "tracing")]
        crate::trace::note_end(&span, error_of(&outcome));
        // A future that was told to end is dropped like this one.
        contain(|| drop(body.take()));
        let shared = engine.upgrade();
        let run_time = started.elapsed();
        let error = error_of(&outcome);
        job.meta.leave(|| match error {
            None => Verdict::Success,
            Some(JobError::Panicked(_)) => Verdict::Failure,
            Some(_) => Verdict::None,
        });
        if let Some(shared) = &shared {
            shared.asyncs.live().remove(&job.key());
            shared.note_run_time(lane, &job.meta, run_time, 1);
            shared.note_end(lane, &job.meta, error, Phase::Running);
        }
        let gone = || shared.iter().for_each(|shared| shared.note_gone(lane));
        job.slot.end(outcome, gone, || wake(&job.waiter));
    }

    fn poll(
        &self,
        body: &mut Option<Pin<Box<F>>>,
        engine: &Weak<Shared>,
        context: &mut Context<'_>,
    ) -> Poll<Ended<F::Output>> {
        // Before it looks: who tells it after that wakes it.
        leave(&self.task, context.waker());
        let Some(shared) = engine.upgrade() else {
            return Poll::Ready(Err(Box::new(JobError::ShutDown)));
        };
        if let Some(why) = self.interrupt(&shared) {
            return Poll::Ready(Err(Box::new(why.into())));
        }
        drop(shared);
        let Some(future) = body else {
            return Poll::Ready(Err(Box::new(JobError::ShutDown)));
        };
        let polled = Current::with(|current| {
            let mut poll = || catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
            match current {
                Some(current) => current.within_job(&self.meta, poll),
                None => poll(),
            }
        });
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(payload) => {
                let error = JobError::Panicked(PanicPayload::new(payload));
                Poll::Ready(Err(Box::new(error)))
            }
        }
    }
}

impl<F> AnyJob for FutureJob<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn is_queued(&self) -> bool {
        self.slot.is_queued()
    }

    /// Only its task runs it.
    fn run(&self, _job: &Ref<dyn AnyJob>, _current: &Current) -> bool {
        false
    }

    fn wake(&self) {
        wake(&self.task);
    }

    fn end_queued(&self, why: Interrupted, engine: Option<&Shared>) -> usize {
        let Some(body) = self.slot.claim() else {
            // It runs, and looks for itself.
            wake(&self.task);
            return 0;
        };
        self.meta
            .with_engine(engine, |engine| self.end_unrun(body, why, engine));
        1
    }
}

impl<F> Outcome<F::Output> for FutureJob<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn take(&self, waker: Option<&Waker>) -> Option<Result<F::Output, JobError>> {
        self.slot
            .take(waker.map(|waker| || leave(&self.waiter, waker)))
    }

    fn is_ended(&self) -> bool {
        self.slot.is_ended()
    }
}

impl<F: Future> fmt::Debug for FutureJob<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FutureJob")
            .field("meta", &self.meta)
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The runtime of a node, which is started where there is none.
    fn runtime(self: &Arc<Self>, node: usize) -> Result<Handle, SubmitError> {
        if self.is_closed() {
            return Err(SubmitError::ShutDown);
        }
        if let Some(handle) = self.asyncs.handle(node) {
            return Ok(handle);
        }
        if self.threadless {
            return Err(SubmitError::NoRuntime);
        }
        let (answer, answers) = channel();
        let request = Request::Runtime(Arc::downgrade(self), node, answer);
        if !self.spawner.ask_unless_busy(request) {
            return Err(SubmitError::NoRuntime);
        }
        match answers.recv() {
            Ok(true) => self.asyncs.handle(node).ok_or(SubmitError::ShutDown),
            Ok(false) => Err(SubmitError::NoRuntime),
            // The engine has ended.
            Err(_) => Err(SubmitError::ShutDown),
        }
    }

    fn submit_future<F>(self: &Arc<Self>, job: &Ref<FutureJob<F>>) -> Result<(), SubmitError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let meta = &job.meta;
        let node = match meta.place {
            Place::Any => self.node_of_caller(),
            Place::Prefer(node) | Place::Strict(node) => node as usize,
        };
        let runtime = self.runtime(node).and_then(|runtime| {
            let entry = self.enter_to_wait(meta)?;
            self.admit(meta.class, entry)?;
            Ok((runtime, entry))
        });
        let runtime = match runtime {
            Ok((_, Entry::Late)) => {
                self.end_late(&**job);
                return Ok(());
            }
            Ok((runtime, _)) => runtime,
            Err(error) => {
                self.note_rejected(meta, &error);
                return Err(error);
            }
        };
        self.metrics.note_submitted(meta.class, meta.priority, 1);
        let any = FutureJob::any(job);
        let live = Live {
            job: any.clone(),
            started: None,
        };
        self.asyncs.live().insert(job.key(), live);
        self.note_watched();
        if meta.token().is_some_and(|token| token.register(&any)) {
            return Ok(());
        }
        if meta.deadline().is_some_and(|at| self.timer.watch(at, &any)) {
            self.spawner.ask(Request::Timer(Arc::downgrade(self)));
        }
        drop(runtime.spawn(FutureJob::drive(job.clone(), Arc::downgrade(self), node)));
        self.end_queued_if_ending();
        Ok(())
    }
}

/// Answers whoever asked for a runtime; on the spawner.
pub(crate) fn start(engine: &Weak<Shared>, node: usize, answer: &Sender<bool>) {
    let started = engine
        .upgrade()
        .is_some_and(|shared| shared.asyncs.start(&shared, node));
    // Who asked waits.
    let _ = answer.send(started);
}

impl Engine {
    /// Submits a future as a job of class Io and priority P1 (crate feature `tokio`). It is polled on a
    /// runtime of tokio that the engine owns, on threads of its own that stay at their node; inside of
    /// it tokio's timers work, and its sockets where the program's tokio has its feature `net`.
    ///
    /// One that is not taken says so at its [`join`](JobHandle::join).
    ///
    /// ```
    /// let engine = reiver::Engine::builder().cpu_workers(1).build()?;
    /// let sum = engine.spawn_future(async { 1 + 2 });
    /// assert_eq!(sum.join()?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn_future<F>(&self, future: F) -> JobHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let job = self.job().spawn_future(future);
        job.unwrap_or_else(|error| JobHandle::never(JobError::untaken(error)))
    }
}

impl JobBuilder<'_> {
    /// Hands over a future (crate feature `tokio`), as a job of class Io whatever class was named. Name, node,
    /// deadline, token and weight hold for it as for others, and jobs that it submits inherit its
    /// deadline; its priority is only counted. One that is cancelled or late is dropped at the `await`
    /// at which it is.
    ///
    /// Costs four allocations, and at the first time of a node starting its threads, as many as it has
    /// CPU workers. With [`WhenFull::CallerRuns`](crate::WhenFull::CallerRuns) the submitter waits for
    /// room, as with `Block`; in a future rather have it refused.
    ///
    /// # Errors
    /// As [`submit`](JobBuilder::submit); [`SubmitError::NoRuntime`] where the system refuses threads.
    pub fn spawn_future<F>(self, future: F) -> Result<JobHandle<F::Output>, SubmitError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (shared, meta) = self.class(Class::Io).into_shared_and_meta()?;
        let job = Ref::new(FutureJob {
            meta,
            slot: Slot::new(future),
            waiter: Mutex::default(),
            task: Mutex::default(),
        });
        shared.submit_future(&job)?;
        Ok(JobHandle::of(FutureJob::outcome(job)))
    }
}
