//! The engine thread that code runs on, if it is one; and how any thread waits.
//!
//! A CPU worker that waits for a job hands its place to a spare meanwhile; an I/O thread, and a
//! thread that is no engine's, just sleeps.

use std::cell::Cell;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use reiver_topology::NodeId;

#[cfg(feature = "tokio")]
use crate::asyncs::blocking;
use crate::cell::{AnyJob, Meta, Place};
use crate::clock::Stamp;
use crate::crew::Rank;
use crate::engine::Engine;
use crate::io::Pool;
use crate::panics::NoUnwind;
use crate::parker::Unparker;
use crate::protocol::arena::Arena;
use crate::protocol::refs::Ref;
use crate::running::Own;
use crate::schedule::is_stoppable;
use crate::scope::Ends;
use crate::shared::Shared;
use crate::spawner::Absence;
#[cfg(feature = "tracing")]
use crate::trace::Trace;
use crate::worker::{Takes, Worker};
use crate::{Class, Priority};

/// One thread of an engine.
#[derive(Debug)]
pub(crate) struct Current {
    /// Does not own the engine: dropping it ends nothing.
    engine: Engine,
    role: Role,
    /// Whose it is if it is no worker.
    pool: Pool,
    /// What the thread is in, the innermost first; each lies in the frame of who is in it.
    frames: Cell<*const Frame>,
    /// Of a CPU worker: what unparks it, and outlives every fork of it that others may execute.
    unparker: Cell<*const Unparker>,
    /// What the thread is besides, null if nothing.
    below: *const Current,
    /// Where what it counts goes, see [`Counters`](crate::metrics::Counters).
    lane: usize,
    /// The jobs that it is in, for others to see.
    running: Arc<Own>,
    /// When it ended a job, if it has done nothing since.
    ended: Cell<Option<Stamp>>,
    /// Its place has been handed on while code that blocks runs.
    blocks: Cell<bool>,
    /// Memory for what it spawns.
    arena: Arena,
    /// What it counts together of what others have spawned.
    ends: Cell<Ends>,
}

/// A job, a fork of one, or a fork of none, that a thread is in.
#[derive(Debug)]
pub(crate) struct Frame {
    job: Option<JobFrame>,
    below: *const Frame,
}

impl Frame {
    /// The job, or that of the fork.
    pub(crate) fn job(&self) -> Option<JobFrame> {
        self.job
    }
}

/// A job that some thread is in. Forks carry that of whoever made them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobFrame(*const Meta);

/// A thread that has become one of an engine; it is what it was before once this is dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    current: Box<Current>,
    before: *const Current,
    /// It is a worker of the background.
    is_background: bool,
}

impl Deref for Entered {
    type Target = Current;

    fn deref(&self) -> &Current {
        &self.current
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let shared = self.current.engine.shared();
        let running = &self.current.running;
        if !self.is_background {
            let (shared, running) = (Arc::clone(shared), Arc::clone(running));
            unstopped(move || shared.running.leave(&running));
        } else if shared.stop.is_said() {
            // Else the spawner does it when it hears that the worker has left.
            shared.running.leave(running);
        }
        CURRENT.set(self.before);
    }
}

impl Entered {
    /// The worker, once the thread is none of the engine's any more.
    pub(crate) fn into_worker(mut self) -> Option<Worker> {
        match std::mem::replace(&mut self.current.role, Role::Io(Cell::new(0))) {
            Role::Cpu(worker) => Some(worker),
            Role::Io(_) => None,
        }
    }
}

#[derive(Debug)]
enum Role {
    Cpu(Worker),
    /// The index of the node that a thread of a pool is at.
    Io(Cell<usize>),
}

thread_local! {
    /// Null, or what an `Entered` of this thread holds. Without a destructor, so that it can be read
    /// to the very end of a thread.
    static CURRENT: Cell<*const Current> = const { Cell::new(ptr::null()) };
}

impl Current {
    /// The thread of a worker, which shows its jobs there.
    pub(crate) fn cpu(shared: Arc<Shared>, worker: Worker, own: Arc<Own>) -> Entered {
        Current::enter(shared, Role::Cpu(worker), Pool::Io, own)
    }

    pub(crate) fn io(shared: Arc<Shared>, node: usize) -> Entered {
        Current::elastic(shared, Pool::Io, node)
    }

    /// A thread of a pool.
    pub(crate) fn elastic(shared: Arc<Shared>, pool: Pool, node: usize) -> Entered {
        let entered = Arc::clone(&shared);
        let own = unstopped(move || entered.running.enter());
        Current::enter(shared, Role::Io(Cell::new(node)), pool, own)
    }

    fn enter(shared: Arc<Shared>, role: Role, pool: Pool, running: Arc<Own>) -> Entered {
        let lane = match &role {
            Role::Cpu(worker) => worker.lane(),
            Role::Io(_) => shared.lane_of_strangers(),
        };
        // What a guest is in lies within what the thread is in otherwise.
        let below = CURRENT.get();
        // SAFETY: null, or set by an `Entered` of this thread that is still there.
        let frames = unsafe { below.as_ref() }.map_or(ptr::null(), Current::frame);
        let current = Box::new(Current {
            below,
            lane,
            running,
            ended: Cell::new(None),
            engine: Engine::borrowed(shared),
            role,
            pool,
            frames: Cell::new(frames),
            unparker: Cell::new(ptr::null()),
            blocks: Cell::new(false),
            arena: Arena::new(),
            ends: Cell::new(Ends::NONE),
        });
        if let Some(worker) = current.worker() {
            // The deque of a worker that is only a guest is nobody else's.
            current.set_unparker(worker.unparker());
        }
        let worker = current.worker();
        let is_background = worker.is_some_and(|worker| worker.rank() == Rank::Background);
        let before = CURRENT.replace(&raw const *current);
        Entered {
            current,
            before,
            is_background,
        }
    }

    /// Does what is brought to an engine that has no threads, or none any more: as its worker, on the
    /// current thread.
    pub(crate) fn as_worker<R>(
        shared: &Arc<Shared>,
        body: impl FnOnce(&Current, &Worker) -> R,
    ) -> R {
        Current::with(|current| {
            let own = current.filter(|current| current.is_of(shared));
            if let Some((current, worker)) = own.and_then(|own| Some((own, own.worker()?))) {
                return body(current, worker);
            }
            let own = shared.running.enter();
            let current = Current::cpu(Arc::clone(shared), Worker::guest(shared), own);
            let worker = current.worker().expect("it was just made one");
            let outcome = catch_unwind(AssertUnwindSafe(|| body(&current, worker)));
            // What it has spawned on scopes of others lies in its list, where nobody else looks.
            shared.finish_forks(&current);
            outcome.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Calls `code` with the current engine thread.
    #[inline]
    pub(crate) fn with<R>(code: impl FnOnce(Option<&Current>) -> R) -> R {
        let current = CURRENT.get();
        // SAFETY: null, or set by an `Entered` of this thread, which sets it back before it is gone;
        // it lies in a frame below this one, and so outlives `code`.
        code(unsafe { current.as_ref() })
    }

    /// True while its place has been handed on by [`Engine::blocking`].
    pub(crate) fn blocks(&self) -> bool {
        self.blocks.get()
    }

    pub(crate) fn set_blocks(&self, blocks: bool) {
        self.blocks.set(blocks);
    }

    /// The worker has a face, which lives as long as the engine.
    pub(crate) fn set_unparker(&self, unparker: &Unparker) {
        self.unparker.set(ptr::from_ref(unparker));
    }

    #[inline]
    pub(crate) fn unparker(&self) -> *const Unparker {
        self.unparker.get()
    }

    #[inline]
    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    #[inline]
    pub(crate) fn ends(&self) -> &Cell<Ends> {
        &self.ends
    }

    #[inline]
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn is_of(&self, shared: &Shared) -> bool {
        ptr::eq(Arc::as_ptr(self.engine.shared()), shared)
    }

    /// A worker lets in who is more urgent.
    #[inline]
    pub(crate) fn between_pieces(&self) {
        if let Some(worker) = self.worker() {
            worker.give_way(self.engine.shared());
        }
    }

    /// True if the thread is one of an engine, if only besides.
    pub(crate) fn is_thread_of(&self, shared: &Shared) -> bool {
        // SAFETY: null, or an `Entered` of this thread that is still there, for it ends after this one.
        let below = unsafe { self.below.as_ref() };
        self.is_of(shared) || below.is_some_and(|below| below.is_thread_of(shared))
    }

    /// The index of the node the thread works for.
    pub(crate) fn node_index(&self) -> usize {
        match &self.role {
            Role::Cpu(worker) => worker.node(),
            Role::Io(node) => node.get(),
        }
    }

    /// True if work of this node, by its index, has workers elsewhere that it may be left to.
    pub(crate) fn is_away_from(&self, node: usize) -> bool {
        self.node_index() != node && !self.engine.shared().threadless
    }

    /// The node the thread works for.
    pub(crate) fn node(&self) -> NodeId {
        self.engine.shared().machine.nodes[self.node_index()].id
    }

    /// An I/O thread has moved.
    pub(crate) fn move_to(&self, node: usize) {
        if let Role::Io(at) = &self.role {
            at.set(node);
        }
    }

    /// Whose thread it is if it is no worker.
    pub(crate) fn pool(&self) -> Pool {
        self.pool
    }

    #[inline]
    pub(crate) fn worker(&self) -> Option<&Worker> {
        match &self.role {
            Role::Cpu(worker) => Some(worker),
            Role::Io(_) => None,
        }
    }

    /// What the thread is in, of what lies within each other the last; null if it is in nothing.
    #[inline]
    pub(crate) fn frame(&self) -> *const Frame {
        self.frames.get()
    }

    /// The job of that.
    #[inline]
    pub(crate) fn innermost(&self) -> Option<JobFrame> {
        self.frames().next().flatten()
    }

    /// The deadline of the job that the thread is in.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.innermost().and_then(|job| job.meta().deadline())
    }

    /// The place in a trace of the job that the thread is in.
    #[cfg(feature = "tracing")]
    pub(crate) fn trace(&self) -> Option<Trace> {
        self.innermost()?.meta().trace().cloned()
    }

    /// How much the thread is in, one within the other.
    pub(crate) fn depth(&self) -> usize {
        self.frames().count()
    }

    /// The addresses of the jobs of an engine that the thread is in, each once.
    pub(crate) fn jobs_of(&self, shared: &Shared) -> Vec<usize> {
        let is_of = |job: &JobFrame| ptr::eq(job.meta().engine, shared);
        let jobs = self.frames().flatten().filter(is_of);
        let mut addresses: Vec<usize> = jobs.map(|job| job.0.addr()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn frames(&self) -> impl Iterator<Item = Option<JobFrame>> {
        let mut next = self.frames.get();
        std::iter::from_fn(move || {
            // SAFETY: null, or a frame of `within`, which takes it away before it is gone; whoever
            // goes through them does so in a frame above.
            let frame = unsafe { next.as_ref() }?;
            next = frame.below;
            Some(frame.job)
        })
    }

    /// Calls `body`, which does not unwind, as a part of what `job` says.
    pub(crate) fn within<R>(&self, job: Option<JobFrame>, body: impl FnOnce() -> R) -> R {
        let below = self.frames.get();
        let frame = Frame { job, below };
        self.frames.set(&raw const frame);
        let pointed_to = NoUnwind;
        let result = body();
        pointed_to.release();
        self.frames.set(below);
        result
    }

    /// Calls `body`, which does not unwind, as a part of a job that is shown elsewhere.
    #[cfg(feature = "tokio")]
    pub(crate) fn within_job<R>(&self, job: &Meta, body: impl FnOnce() -> R) -> R {
        self.within(Some(JobFrame(job)), body)
    }

    /// Where what it counts goes.
    #[inline]
    pub(crate) fn lane(&self) -> usize {
        self.lane
    }

    /// The time, for a job that begins: the end of one is the beginning of the next.
    pub(crate) fn stamp(&self) -> Stamp {
        self.ended.take().unwrap_or_else(Stamp::now)
    }

    /// It has done something since the last job, or nothing for a while.
    #[inline]
    pub(crate) fn forget_stamp(&self) {
        self.ended.set(None);
    }

    /// Runs `body`, which does not unwind, as `job`, from `started` on; gives what it gives, and the
    /// time when it has ended.
    pub(crate) fn running<R>(
        &self,
        job: &Meta,
        started: Stamp,
        body: impl FnOnce() -> R,
    ) -> (R, Stamp) {
        let shared = self.engine.shared();
        let place = (self.node(), started);
        let is_eager = shared.main().sleepers.is_eager();
        let frame = Some(JobFrame(job));
        let result = self
            .running
            .during(job, place, is_eager, || self.within(frame, body));
        let ended = Stamp::now();
        if (job.runs_as, job.priority) == (Class::Cpu, Priority::P2)
            && let Some(crew) = shared.background()
        {
            crew.note_progress(self.node_index(), ended);
        }
        // Inside of another job that goes on now it is no beginning.
        let is_outermost = self.frames.get().is_null();
        self.ended.set(is_outermost.then_some(ended));
        (result, ended)
    }

    /// True if a job for any node, which somebody here waits for, may run on this thread.
    pub(crate) fn may_run(&self, meta: &Meta) -> bool {
        let shared = self.engine.shared();
        ptr::eq(meta.engine, Arc::as_ptr(shared))
            && self.is_for(meta)
            && !(is_stoppable() && meta.priority < Priority::P2)
    }

    /// True if it is such a thread as the job runs on.
    fn is_for(&self, meta: &Meta) -> bool {
        match (&self.role, Pool::of(meta)) {
            (Role::Cpu(_), pool) => pool.is_none(),
            (Role::Io(_), pool) => pool.is_some_and(|pool| self.pool.does(pool)),
        }
    }

    /// Runs a job that somebody here waits for, if it is still queued and this thread is of the
    /// kind and on the node that it asks for. So waiting threads never run out of threads.
    pub(crate) fn run_if_queued(&self, job: &Ref<dyn AnyJob>) {
        let meta = job.meta();
        let shared = self.engine.shared();
        let is_engine = ptr::eq(meta.engine, Arc::as_ptr(shared));
        // What is more urgent than its thread others may wait for too.
        let is_beneath = is_stoppable() && meta.priority < Priority::P2;
        if !is_engine || is_beneath || !self.is_for(meta) || !job.is_queued() {
            return;
        }
        let ran = match (&self.role, meta.place) {
            (Role::Cpu(worker), Place::Strict(node)) => {
                node as usize == worker.node() && job.run(job, self)
            }
            // Threads of a pool go where their jobs are.
            (Role::Io(at), Place::Strict(node)) if node as usize != at.get() => {
                let node = node as usize;
                let home = at.replace(node);
                crate::io::settle(shared, self.pool, node);
                let ran = job.run(job, self);
                at.set(home);
                crate::io::settle(shared, self.pool, home);
                ran
            }
            (Role::Cpu(_) | Role::Io(_), _) => job.run(job, self),
        };
        if ran {
            shared.note_dead(job.meta().runs_as);
        }
    }
}

/// Waits until `is_done`, which arranges that the waker it is given is woken when that may have
/// changed; gives false if it is not done by `until`. A CPU worker hands its place on meanwhile.
pub(crate) fn block_until(until: Option<Instant>, mut is_done: impl FnMut(&Waker) -> bool) -> bool {
    Current::with(
        |current| match current.and_then(|current| Some((current, current.worker()?))) {
            Some((current, worker)) => worker.work_until(current, Takes::Own, until, is_done),
            None => blocking(|| {
                // Who brings what is waited for may be this very thread.
                let _absence = Absence::begin();
                let waker = Waker::from(Arc::new(ThreadWaker(thread::current())));
                while !is_done(&waker) {
                    match until.map(|until| until.saturating_duration_since(Instant::now())) {
                        None => thread::park(),
                        Some(left) if left.is_zero() => return false,
                        Some(left) => thread::park_timeout(left),
                    }
                }
                true
            }),
        },
    )
}

/// What `what` gives, which holds a lock that others wait for: where the kernel may stop this thread at any
/// step the spawner calls it, and this thread waits for that.
pub(crate) fn unstopped<T: Send + Sync + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    match engine_of_stoppable() {
        Some(shared) => shared.spawner.on_behalf(what),
        None => what(),
    }
}

/// As [`unstopped`], for what nobody waits for here: it comes later then.
pub(crate) fn unstopped_later(what: impl FnOnce() + Send + 'static) {
    match engine_of_stoppable() {
        Some(shared) => shared.spawner.bring(what),
        None => what(),
    }
}

/// The engine of this thread, if the kernel may stop it at any step.
#[inline]
fn engine_of_stoppable() -> Option<Arc<Shared>> {
    let engine = |current: Option<&Current>| Some(Arc::clone(current?.engine.shared()));
    let engine = is_stoppable().then(|| Current::with(engine)).flatten();
    // One without threads has no spawner.
    engine.filter(|engine| !engine.threadless)
}

/// Runs what blocks.
#[cfg(not(feature = "tokio"))]
fn blocking<R>(body: impl FnOnce() -> R) -> R {
    body()
}

impl JobFrame {
    pub(crate) fn priority(self) -> Priority {
        self.meta().priority
    }

    fn meta(&self) -> &Meta {
        // SAFETY: it was made of a job that runs, and is held by frames within that alone; whoever made
        // a fork of it waits for the fork inside the job.
        unsafe { &*self.0 }
    }
}

struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
