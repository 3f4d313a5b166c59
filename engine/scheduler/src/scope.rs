//! Scopes: any number of forks that borrow, which all have ended when the scope ends.
//!
//! A scope counts what is spawned on it, and its body as one more. Each spawned closure lies on the
//! heap and goes through the deque of whoever spawns it; whoever makes the count zero wakes the
//! scope's owner.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use reiver_topology::NodeId;

use crate::current::{Current, JobFrame};
use crate::engine::Engine;
use crate::fork::{Fork, heap_fork};
use crate::panics::NoUnwind;
use crate::shared::Shared;
use crate::sync::{AtomicUsize, Ordering};
use crate::worker::{Takes, Worker};

/// Calls `body` with a scope on which it can spawn work that borrows, and waits for all of it.
///
/// On a worker of an engine it runs there, else it enters the global engine.
///
/// # Panics
/// If `body` or anything spawned panics, once everything has ended.
///
/// ```
/// let mut halves = [0, 0];
/// let (left, right) = halves.split_at_mut(1);
/// reiver::scope(|scope| {
///     scope.spawn(|_| left[0] = 1);
///     scope.spawn(|_| right[0] = 2);
/// });
/// assert_eq!(halves, [1, 2]);
/// ```
pub fn scope<'scope, R: Send>(body: impl FnOnce(&Scope<'scope>) -> R + Send) -> R {
    Engine::of_thread(|engine| engine.scope(body))
}

impl Engine {
    /// As [`scope`](crate::scope), on a worker of this engine.
    ///
    /// # Panics
    /// As there.
    pub fn scope<'scope, R: Send>(&self, body: impl FnOnce(&Scope<'scope>) -> R + Send) -> R {
        self.on_worker(|current, worker| scope_here(current, worker, body))
    }
}

/// On which work that borrows can be spawned; see [`scope`](crate::scope).
pub struct Scope<'scope> {
    core: Arc<ScopeCore>,
    /// Invariant: what is spawned may both read and write what it borrows.
    marker: PhantomData<fn(&'scope ()) -> &'scope ()>,
}

// SAFETY: all but what it says of its job is so by itself, and that may be read anywhere.
unsafe impl Send for ScopeCore {}
// SAFETY: as above.
unsafe impl Sync for ScopeCore {}

struct ScopeCore {
    shared: Arc<Shared>,
    /// The job that it is a part of, which waits for it.
    job: Option<JobFrame>,
    /// Spawned and not yet ended, and one more for the body.
    pending: AtomicUsize,
    waker: Waker,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl ScopeCore {
    fn keep(&self, panic: Box<dyn Any + Send>) {
        let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(panic);
        } else {
            // Dropping a payload may panic again; forgetting it leaks a few bytes instead.
            std::mem::forget(panic);
        }
    }

    fn one_ended(&self) {
        // ORDERING: release, with the acquire in `is_over`: what was done is visible to the scope.
        if self.pending.fetch_sub(1, Ordering::Release) == 1 {
            self.waker.wake_by_ref();
        }
    }

    fn is_over(&self) -> bool {
        // ORDERING: acquire, see `one_ended`; read-modify-writes in between keep its chain.
        self.pending.load(Ordering::Acquire) == 0
    }
}

impl<'scope> Scope<'scope> {
    /// Spawns `body`; it has ended when the scope ends.
    pub fn spawn(&self, body: impl FnOnce(&Scope<'scope>) + Send + 'scope) {
        let fork = self.fork(body);
        let shared = &self.core.shared;
        Current::with(|current| {
            let current = current.filter(|current| current.is_of(shared));
            match current.and_then(Current::worker) {
                Some(worker) => {
                    worker.push(fork);
                    shared.wake_for_fork(worker.node());
                }
                None => shared.push_fork(shared.node_of_caller(), fork),
            }
        });
    }

    /// Spawns `body` on a node: its workers take it first, others once those have nothing of their
    /// own. A node that the machine does not have is ignored.
    pub fn spawn_on(&self, node: NodeId, body: impl FnOnce(&Scope<'scope>) + Send + 'scope) {
        let shared = &self.core.shared;
        let node = shared
            .machine
            .home(node)
            .unwrap_or_else(|_| shared.node_of_caller());
        shared.push_fork(node, self.fork(body));
    }

    /// As [`spawn_on`](Scope::spawn_on) for each, by the indices of nodes; but all are there before
    /// anybody is woken for them, so that each node finds its own.
    pub(crate) fn spawn_on_each<F>(&self, bodies: impl Iterator<Item = (usize, F)>)
    where
        F: FnOnce(&Scope<'scope>) + Send + 'scope,
    {
        let shared = &self.core.shared;
        if shared.threadless {
            return bodies.for_each(|(node, body)| shared.push_fork(node, self.fork(body)));
        }
        let forks: Vec<_> = bodies.map(|(node, body)| (node, self.fork(body))).collect();
        let mut nodes: Vec<usize> = forks.iter().map(|&(node, _)| node).collect();
        nodes.dedup();
        for (node, fork) in forks {
            shared.queues[node].push_fork(fork);
        }
        nodes.into_iter().for_each(|node| shared.wake_one(node));
    }

    fn fork(&self, body: impl FnOnce(&Scope<'scope>) + Send + 'scope) -> Fork {
        // ORDERING: relaxed: the scope cannot end meanwhile, for its body, or the work that calls
        // this, is pending too.
        self.core.pending.fetch_add(1, Ordering::Relaxed);
        let core = Arc::clone(&self.core);
        let body = move || {
            let scope = Scope {
                core,
                marker: PhantomData,
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&scope))) {
                scope.core.keep(panic);
            }
            scope.core.one_ended();
        };
        heap_fork(body, self.core.job)
    }
}

fn scope_here<'scope, R>(
    current: &Current,
    worker: &Worker,
    body: impl FnOnce(&Scope<'scope>) -> R,
) -> R {
    let core = Arc::new(ScopeCore {
        shared: Arc::clone(current.engine().shared()),
        job: current.innermost(),
        pending: AtomicUsize::new(1),
        waker: worker.waker().clone(),
        panic: Mutex::new(None),
    });
    let scope = Scope {
        core: Arc::clone(&core),
        marker: PhantomData,
    };
    // Nothing that was spawned outlives this function: it ends only when all of it has, whether the
    // body returns or panics.
    let pointed_to = NoUnwind;
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&scope)));
    core.one_ended();
    worker.work_until(current, Takes::Forks, None, |_| core.is_over());
    pointed_to.release();
    let panic = core
        .panic
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match (outcome, panic) {
        (Ok(value), None) => value,
        (Err(panic), other) => {
            std::mem::forget(other);
            resume_unwind(panic)
        }
        (Ok(_), Some(panic)) => resume_unwind(panic),
    }
}

impl std::fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // ORDERING: relaxed: for people.
        let pending = self.core.pending.load(Ordering::Relaxed);
        f.debug_struct("Scope").field("pending", &pending).finish()
    }
}
