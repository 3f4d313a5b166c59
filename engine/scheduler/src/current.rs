//! The engine thread that code runs on, if it is one; and how any thread waits.
//!
//! A CPU worker that waits for a job hands its place to a spare meanwhile; an I/O thread, and a
//! thread that is no engine's, just sleeps.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use reiver_topology::NodeId;

use crate::Class;
use crate::cell::{AnyJob, Meta, Place};
use crate::engine::Engine;
use crate::shared::Shared;
use crate::worker::{Takes, Worker};

/// One thread of an engine.
#[derive(Debug)]
pub(crate) struct Current {
    /// Does not own the engine: dropping it ends nothing.
    engine: Engine,
    role: Role,
    /// What the thread is in, the innermost last: a job, or a fork of one, or a fork of none.
    frames: RefCell<Vec<Option<JobFrame>>>,
}

/// A job that some thread is in. Forks carry that of whoever made them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobFrame(*const dyn AnyJob);

impl JobFrame {
    fn address(self) -> usize {
        self.0.cast::<()>().addr()
    }
}

#[derive(Debug)]
enum Role {
    Cpu(Worker),
    /// The index of the node that an I/O thread is at.
    Io(std::cell::Cell<usize>),
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Current>>> = const { RefCell::new(None) };
}

impl Current {
    pub(crate) fn cpu(shared: Arc<Shared>, worker: Worker) -> Rc<Current> {
        Current::enter(shared, Role::Cpu(worker))
    }

    pub(crate) fn io(shared: Arc<Shared>, node: usize) -> Rc<Current> {
        Current::enter(shared, Role::Io(std::cell::Cell::new(node)))
    }

    fn enter(shared: Arc<Shared>, role: Role) -> Rc<Current> {
        let engine = Engine::borrowed(shared);
        let current = Rc::new(Current {
            engine,
            role,
            frames: RefCell::default(),
        });
        CURRENT.set(Some(Rc::clone(&current)));
        current
    }

    /// Forgets the thread's engine: its last act.
    pub(crate) fn leave() {
        CURRENT.set(None);
    }

    /// Does what is brought to an engine that has no threads, or none any more: as its worker, on the
    /// current thread.
    pub(crate) fn as_worker<R>(
        shared: &Arc<Shared>,
        body: impl FnOnce(&Current, &Worker) -> R,
    ) -> R {
        struct Restore(Option<Rc<Current>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }

        let before = CURRENT.with(|current| current.borrow().clone());
        let own = before.as_deref().filter(|current| current.is_of(shared));
        if let Some((current, worker)) = own.and_then(|own| Some((own, own.worker()?))) {
            return body(current, worker);
        }
        let _restore = Restore(before);
        let worker = Worker::new(0, 0, None, shared.sleepers.bit(0, 0));
        let current = Current::cpu(Arc::clone(shared), worker);
        body(&current, current.worker().expect("it was just made one"))
    }

    /// Calls `code` with the current engine thread. Also while thread-locals are being destroyed,
    /// when there is none any more.
    pub(crate) fn with<R>(code: impl FnOnce(Option<&Current>) -> R) -> R {
        let current = CURRENT
            .try_with(|current| current.borrow().clone())
            .ok()
            .flatten();
        code(current.as_deref())
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn is_of(&self, shared: &Shared) -> bool {
        std::ptr::eq(Arc::as_ptr(self.engine.shared()), shared)
    }

    /// The index of the node the thread works for.
    pub(crate) fn node_index(&self) -> usize {
        match &self.role {
            Role::Cpu(worker) => worker.node(),
            Role::Io(node) => node.get(),
        }
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

    pub(crate) fn worker(&self) -> Option<&Worker> {
        match &self.role {
            Role::Cpu(worker) => Some(worker),
            Role::Io(_) => None,
        }
    }

    /// What the thread is in, of what lies within each other the last.
    pub(crate) fn innermost(&self) -> Option<JobFrame> {
        self.frames.borrow().last().copied().flatten()
    }

    /// The deadline of the job that the thread is in.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.with_jobs(|jobs| jobs.last().and_then(|job| job.as_ref()?.deadline))
    }

    /// How much the thread is in, one within the other.
    pub(crate) fn depth(&self) -> usize {
        self.frames.borrow().len()
    }

    /// The addresses of the jobs of an engine that the thread is in, each once.
    pub(crate) fn jobs_of(&self, shared: &Shared) -> Vec<usize> {
        let of_engine = self.with_jobs(|jobs| {
            let is_of = |job: &Option<&Meta>| {
                job.is_some_and(|job| std::ptr::eq(job.engine.as_ptr(), shared))
            };
            jobs.iter().map(is_of).collect::<Vec<bool>>()
        });
        let frames = self.frames.borrow();
        let frames = frames.iter().zip(of_engine).filter(|(_, is_of)| *is_of);
        let mut addresses: Vec<usize> = frames
            .filter_map(|(frame, _)| frame.map(JobFrame::address))
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Calls `code` with what is known of the jobs that the thread is in.
    fn with_jobs<R>(&self, code: impl FnOnce(&[Option<&Meta>]) -> R) -> R {
        let frames = self.frames.borrow();
        let meta = |frame: &Option<JobFrame>| {
            frame.map(|frame| {
                // SAFETY: a frame is pushed with a job that is alive, which `running` holds for as
                // long as the job runs; whoever made a fork waits for it inside that job. The frame
                // is popped before either ends.
                let job: &dyn AnyJob = unsafe { &*frame.0 };
                job.meta()
            })
        };
        let jobs: Vec<Option<&Meta>> = frames.iter().map(meta).collect();
        code(&jobs)
    }

    /// Calls `body` as a part of what `frame` says.
    pub(crate) fn within<R>(&self, frame: Option<JobFrame>, body: impl FnOnce() -> R) -> R {
        self.frames.borrow_mut().push(frame);
        let result = body();
        self.frames.borrow_mut().pop();
        result
    }

    /// Runs `body`, which does not unwind, as `job`.
    pub(crate) fn running<R>(
        &self,
        job: &Arc<dyn AnyJob>,
        started: Instant,
        body: impl FnOnce() -> R,
    ) -> R {
        let shared = self.engine.shared();
        let lane = self.worker().map_or(shared.workers.len(), Worker::index);
        let entry = shared.note_start(lane, job, started);
        let result = self.within(Some(JobFrame(Arc::as_ptr(job))), body);
        shared.forget_running(lane, entry);
        result
    }

    /// Runs a job that somebody here waits for, if it is still queued and this thread is of the
    /// kind and on the node that it asks for. So waiting threads never run out of threads.
    pub(crate) fn run_if_queued(&self, job: Arc<dyn AnyJob>) {
        let meta = job.meta();
        let shared = self.engine.shared();
        let is_engine = std::ptr::eq(meta.engine.as_ptr(), Arc::as_ptr(shared));
        if !is_engine || !meta.state.is_queued() {
            return;
        }
        let ran = match (&self.role, meta.class, meta.place) {
            (Role::Cpu(worker), Class::Cpu, Place::Strict(node)) => {
                node == worker.node() && Arc::clone(&job).run(self)
            }
            // I/O threads go where their jobs are.
            (Role::Io(at), Class::Io, Place::Strict(node)) if node != at.get() => {
                let home = at.replace(node);
                crate::io::settle(shared, node);
                let ran = Arc::clone(&job).run(self);
                at.set(home);
                crate::io::settle(shared, home);
                ran
            }
            (Role::Cpu(_), Class::Cpu, _) | (Role::Io(_), Class::Io, _) => {
                Arc::clone(&job).run(self)
            }
            (Role::Cpu(_), Class::Io, _) | (Role::Io(_), Class::Cpu, _) => false,
        };
        if ran {
            shared.note_dead(job.meta().class);
        }
    }
}

/// Waits until `is_done`, which arranges that the waker it is given is woken when that may have
/// changed; gives false if it is not done by `until`. A CPU worker hands its place on meanwhile.
pub(crate) fn block_until(until: Option<Instant>, mut is_done: impl FnMut(&Waker) -> bool) -> bool {
    Current::with(
        |current| match current.and_then(|current| Some((current, current.worker()?))) {
            Some((current, worker)) => worker.work_until(current, Takes::Own, until, is_done),
            None => {
                let waker = Waker::from(Arc::new(ThreadWaker(thread::current())));
                while !is_done(&waker) {
                    match until.map(|until| until.saturating_duration_since(Instant::now())) {
                        None => thread::park(),
                        Some(left) if left.is_zero() => return false,
                        Some(left) => thread::park_timeout(left),
                    }
                }
                true
            }
        },
    )
}

struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
