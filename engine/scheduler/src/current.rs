//! The engine thread that code runs on, if it is one; and how any thread waits.
//!
//! A CPU worker that waits does other work meanwhile; an I/O thread, and a thread that is no
//! engine's, just sleeps.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use reiver_topology::NodeId;

use crate::cell::{AnyJob, Place};
use crate::engine::Engine;
use crate::shared::Shared;
use crate::worker::Worker;
use crate::{Class, Priority};

/// One thread of an engine.
#[derive(Debug)]
pub(crate) struct Current {
    /// Does not own the engine: dropping it ends nothing.
    engine: Engine,
    role: Role,
    /// The jobs that the thread is in, the innermost last.
    jobs: RefCell<Vec<Arc<dyn AnyJob>>>,
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
            jobs: RefCell::default(),
        });
        CURRENT.set(Some(Rc::clone(&current)));
        current
    }

    /// Forgets the thread's engine: its last act.
    pub(crate) fn leave() {
        CURRENT.set(None);
    }

    /// Does what is brought to an engine without threads: as its worker, on the current thread.
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
        if let Some(current) = before.as_deref().filter(|current| current.is_of(shared)) {
            let worker = current.worker().expect("it has no I/O threads");
            return body(current, worker);
        }
        let _restore = Restore(before);
        let worker = Worker::new(0, 0, shared.sleepers.bit(0, 0));
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

    /// The job that the thread is in, of those within each other the last.
    pub(crate) fn innermost(&self) -> Option<Arc<dyn AnyJob>> {
        self.jobs.borrow().last().cloned()
    }

    /// The deadline of the job that the thread is in.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.jobs.borrow().last()?.meta().deadline
    }

    /// How many jobs the thread is in, one within the other.
    pub(crate) fn depth(&self) -> usize {
        self.jobs.borrow().len()
    }

    /// Runs `body` as `job`.
    pub(crate) fn running<R>(
        &self,
        job: Arc<dyn AnyJob>,
        started: Instant,
        body: impl FnOnce() -> R,
    ) -> R {
        let shared = self.engine.shared();
        let lane = self.worker().map_or(shared.workers.len(), Worker::index);
        let entry = shared.note_start(lane, &job, started);
        self.jobs.borrow_mut().push(job);
        let result = body();
        self.jobs.borrow_mut().pop();
        shared.forget_running(lane, entry);
        result
    }

    /// Runs a job that somebody here waits for, if it is still queued and this thread is of the
    /// kind and on the node that it asks for. So waiting threads never run out of threads.
    pub(crate) fn run_if_queued(&self, job: Arc<dyn AnyJob>) {
        let meta = job.meta();
        let is_engine = std::ptr::eq(meta.engine.as_ptr(), Arc::as_ptr(self.engine.shared()));
        let is_class = match &self.role {
            Role::Cpu(_) => meta.class == Class::Cpu,
            Role::Io(_) => meta.class == Class::Io,
        };
        let is_place = match meta.place {
            Place::Strict(node) => node == self.node_index(),
            Place::Any | Place::Prefer(_) => true,
        };
        if is_engine && is_class && is_place && meta.state.is_queued() {
            job.run(self);
        }
    }

    fn priority(&self) -> Priority {
        self.jobs
            .borrow()
            .last()
            .map_or(Priority::default(), |job| job.meta().priority)
    }
}

/// Waits until `is_done`, which arranges that the waker it is given is woken when that may have
/// changed; gives false if it is not done by `until`. A CPU worker does other work meanwhile, at
/// least as urgent as the less urgent of its own job and `awaited`.
pub(crate) fn block_until(
    awaited: Priority,
    until: Option<Instant>,
    mut is_done: impl FnMut(&Waker) -> bool,
) -> bool {
    Current::with(
        |current| match current.and_then(|current| Some((current, current.worker()?))) {
            Some((current, worker)) => {
                worker.work_until(current, current.priority().max(awaited), until, is_done)
            }
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
