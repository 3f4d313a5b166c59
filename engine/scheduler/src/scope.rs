//! Scopes: any number of forks that borrow, which all have ended when the scope ends.
//!
//! A scope counts what is spawned on it (see [`count`](crate::protocol::count)). Each spawned closure lies in
//! the arena of the worker that spawns it, and in its private list like any other fork; where somebody
//! is idle, many go to the deque as one bundle, for each may be tiny. Whoever takes a bundle has its
//! forks in a private list again, and counts the ends of those that it runs itself together.
//!
//! A spawn of a closure that counts, by one worker, and its run, in instructions (callgrind, 110,000
//! less 10,000): boxed, with an `Arc` of the scope in each and one shared count 654; as it stands 127.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use reiver_topology::NodeId;

use crate::crew::Rank;
use crate::current::{Current, Frame};
use crate::engine::Engine;
use crate::fork::{Fork, Head};
use crate::panics::NoUnwind;
use crate::parker::Unparker;
use crate::protocol::arena;
use crate::protocol::count::Count;
use crate::queues::Task;
use crate::shared::Shared;
use crate::worker::{Takes, Worker, run};

/// Calls `body` with a scope on which it can spawn work that borrows, and waits for all of it.
///
/// On a worker of an engine it runs there, else it enters the global engine. Scopes nest some 9,900 deep
/// on a worker's stack of 2 MiB, 1,500 without optimisation; what is spawned does not nest.
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
#[repr(transparent)]
pub struct Scope<'scope> {
    core: Core,
    /// Invariant: what is spawned may both read and write what it borrows.
    marker: PhantomData<fn(&'scope ()) -> &'scope ()>,
}

/// Lies in the frame of its owner, who waits for it there.
struct Core {
    shared: Arc<Shared>,
    owner: *const Current,
    /// What its owner is in.
    frame: *const Frame,
    count: Count,
    /// Whose forks they are.
    rank: Rank,
    unparker: Unparker,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: the owner is only compared with; what its frame says may be read anywhere; the owner's part
// of the count is touched by the owner.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

impl Core {
    fn keep(&self, panic: Box<dyn Any + Send>) {
        let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(panic);
        } else {
            // Dropping a payload may panic again; forgetting it leaks a few bytes instead.
            std::mem::forget(panic);
        }
    }

    /// Some of what was spawned has ended.
    ///
    /// # Safety
    /// So many were counted, and are no more.
    #[inline]
    unsafe fn end(this: *const Core, ended: usize, current: &Current) {
        // SAFETY: alive until what has ended is no longer counted.
        if ptr::eq(unsafe { (*this).owner }, current) {
            // SAFETY: as above.
            let core = unsafe { &*this };
            // SAFETY: this is the owner.
            return unsafe { core.count.end_own(ended) };
        }
        let ready = || {
            // SAFETY: it is asked for while the scope is alive.
            let unparker = unsafe { &(*this).unparker }.clone();
            move || unparker.unpark()
        };
        // SAFETY: as above; only pointed to.
        let count = unsafe { &raw const (*this).count };
        // SAFETY: alive when this is called, and not used afterwards.
        unsafe { Count::end(count, ended, ready) };
    }
}

/// The scope whose ends the current thread counts together, and how many those are; null if it counts
/// each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends(*const Core, usize);

impl Ends {
    pub(crate) const NONE: Ends = Ends(ptr::null(), 0);
}

/// What is spawned, wherever it lies.
#[repr(C)]
struct Spawned<F> {
    /// First, so that a pointer to it is one to the whole.
    place: Place,
    body: F,
}

/// What everything that is spawned begins with.
#[repr(C)]
struct Place {
    /// First, as above.
    head: Head,
    /// Null for a bundle.
    scope: *const Core,
}

/// So many spawned forks at most are moved as one.
pub(crate) const BUNDLE: usize = 256;

/// Spawned forks that are moved as one.
#[repr(C)]
struct Bundle {
    /// First, as above.
    place: Place,
    forks: Vec<Fork>,
}

/// Makes fewer forks of many, the oldest first: those that were spawned one after the other become
/// bundles.
pub(crate) fn bundled(forks: Vec<Fork>) -> Vec<Fork> {
    if forks.len() == 1 {
        return forks;
    }
    let mut bundled = Vec::new();
    let mut spawned = Vec::new();
    for fork in forks {
        if fork.is_spawned() {
            spawned.push(fork);
        } else {
            bundled.extend(bundle(std::mem::take(&mut spawned)));
            bundled.push(fork);
        }
    }
    bundled.extend(bundle(spawned));
    bundled
}

fn bundle(mut forks: Vec<Fork>) -> Option<Fork> {
    /// # Safety
    /// `head` is that of a leaked `Bundle`, that is executed for the first time.
    unsafe fn execute(head: *const Head, current: &Current) {
        // SAFETY: as the caller says.
        let bundle = unsafe { Box::from_raw(head.cast_mut().cast::<Bundle>()) };
        run_bundle(bundle.forks, current);
    }
    if forks.len() < 2 {
        return forks.pop();
    }
    let place = Place {
        head: Head::new(execute, ptr::null()),
        scope: ptr::null(),
    };
    let bundle = Box::new(Bundle { place, forks });
    Some(Fork::spawned(NonNull::from(Box::leak(bundle)).cast()))
}

fn run_bundle(forks: Vec<Fork>, current: &Current) {
    let worker = current.worker().expect("forks run on CPU workers");
    let Some(scope) = forks.first().and_then(scope_of) else {
        return;
    };
    // The oldest is to be the first again.
    let forks = forks.into_iter().rev();
    forks.for_each(|fork| worker.push(current, fork));
    // The scope cannot end before what is run here, so nobody waits for the single ends in vain.
    let around = current.ends().replace(Ends(scope, 0));
    while let Some(fork) = worker.pop_private() {
        if scope_of(&fork) != Some(scope) {
            worker.push(current, fork);
            break;
        }
        run(Task::Fork(fork), current);
    }
    let Ends(_, ended) = current.ends().replace(around);
    if ended > 0 {
        // SAFETY: so many have ended, and are still counted.
        unsafe { Core::end(scope, ended, current) };
    }
}

/// How many spawned forks it is.
pub(crate) fn spawned_in(fork: &Fork) -> u32 {
    match scope_of(fork) {
        None => 0,
        Some(scope) if !scope.is_null() => 1,
        Some(_) => {
            let bundle = fork.head().cast::<Bundle>();
            // SAFETY: it is one, and alive until it has run.
            let forks = unsafe { &(*bundle).forks };
            u32::try_from(forks.len()).unwrap_or(u32::MAX)
        }
    }
}

/// The scope that a fork was spawned on; null for a bundle.
fn scope_of(fork: &Fork) -> Option<*const Core> {
    fork.is_spawned().then(|| {
        let place = fork.head().cast::<Place>();
        // SAFETY: what is spawned begins so, and is alive until it has run.
        unsafe { (*place).scope }
    })
}

impl<'scope> Scope<'scope> {
    /// Spawns `body`; it has ended when the scope ends.
    #[inline]
    pub fn spawn(&self, body: impl FnOnce(&Scope<'scope>) + Send + 'scope) {
        let core = &self.core;
        Current::with(|current| match current {
            Some(current) if ptr::eq(core.owner, current) => {
                // SAFETY: this is the owner.
                unsafe { core.count.begin_own() };
                if let Some(worker) = current.worker() {
                    worker.push(current, self.fork(current, body));
                }
            }
            current => self.spawn_elsewhere(current, body),
        });
    }

    #[cold]
    fn spawn_elsewhere(
        &self,
        current: Option<&Current>,
        body: impl FnOnce(&Scope<'scope>) + Send + 'scope,
    ) {
        let shared = &self.core.shared;
        self.core.count.begin();
        let here = current
            .filter(|current| current.is_of(shared))
            .and_then(|current| Some((current, current.worker()?)));
        match here {
            Some((current, worker)) => worker.push(current, self.fork(current, body)),
            None => shared.push_fork(self.core.rank, shared.node_of_caller(), self.boxed(body)),
        }
    }

    /// Spawns `body` on a node: its workers take it first, others once those have nothing of their
    /// own. A node that the machine does not have is ignored.
    pub fn spawn_on(&self, node: NodeId, body: impl FnOnce(&Scope<'scope>) + Send + 'scope) {
        let shared = &self.core.shared;
        let node = shared
            .machine
            .home(node)
            .unwrap_or_else(|_| shared.node_of_caller());
        self.spawn_at(node, body);
    }

    /// As [`spawn_on`](Scope::spawn_on), by the index of a node.
    pub(crate) fn spawn_at(&self, node: usize, body: impl FnOnce(&Scope<'scope>) + Send + 'scope) {
        let Core { shared, rank, .. } = &self.core;
        self.core.count.begin();
        shared.push_fork(*rank, node, self.boxed(body));
    }

    /// As [`spawn_at`](Scope::spawn_at) for each part, of which `at` gives the node's index; but all are
    /// there before anybody is woken for them, so that each node finds its own, and those of this
    /// node come last: its workers are the likeliest to be awake.
    pub(crate) fn spawn_on_each<P, F>(
        &self,
        parts: impl Iterator<Item = P>,
        at: impl Fn(&P) -> usize,
        body: F,
    ) where
        P: Send + 'scope,
        F: Fn(&Scope<'scope>, P) + Copy + Send + 'scope,
    {
        let shared = &self.core.shared;
        let forks = parts.map(|part| {
            self.core.count.begin();
            let node = at(&part);
            (
                node,
                self.boxed(move |scope: &Scope<'scope>| body(scope, part)),
            )
        });
        if shared.threadless {
            forks.for_each(|(node, fork)| shared.push_fork(Rank::Ordinary, node, fork));
            return;
        }
        let mut forks: Vec<_> = forks.collect();
        let own = shared.node_of_caller();
        forks.sort_by_key(|&(node, _)| node == own);
        let mut nodes: Vec<usize> = forks.iter().map(|&(node, _)| node).collect();
        nodes.dedup();
        // Its owner is of that crew, or it could not have begun the scope.
        let crew = shared.crew(self.core.rank);
        for (node, fork) in forks {
            crew.queues[node].push_fork(fork);
        }
        for node in nodes {
            crew.wake_one(shared, node);
        }
        crew.call_for_more(shared);
    }

    /// In the arena of the current worker. The count holds it already.
    #[inline]
    fn fork<F>(&self, current: &Current, body: F) -> Fork
    where
        F: FnOnce(&Scope<'scope>) + Send + 'scope,
    {
        if const { arena::fits::<Spawned<F>>() } {
            let spawned = self.spawned(body, execute_from_arena::<F>);
            Fork::spawned(current.arena().take(spawned).cast())
        } else {
            self.boxed(body)
        }
    }

    fn boxed<F>(&self, body: F) -> Fork
    where
        F: FnOnce(&Scope<'scope>) + Send + 'scope,
    {
        let spawned = Box::new(self.spawned(body, execute_boxed::<F>));
        Fork::spawned(NonNull::from(Box::leak(spawned)).cast())
    }

    #[inline]
    fn spawned<F>(&self, body: F, execute: unsafe fn(*const Head, &Current)) -> Spawned<F> {
        let head = Head::new(execute, self.core.frame);
        let scope = &raw const self.core;
        Spawned {
            place: Place { head, scope },
            body,
        }
    }
}

/// # Safety
/// `head` is that of a `Spawned<F>` in an arena, that is executed for the first time.
unsafe fn execute_from_arena<'scope, F>(head: *const Head, current: &Current)
where
    F: FnOnce(&Scope<'scope>),
{
    // SAFETY: it points to a block, and so is not null.
    let block = unsafe { NonNull::new_unchecked(head.cast_mut().cast::<Spawned<F>>()) };
    // SAFETY: it came from an arena as such, and is executed once.
    let spawned = unsafe { current.arena().give_back(block) };
    // SAFETY: as the caller says.
    unsafe { execute(spawned, current) };
}

/// # Safety
/// `head` is that of a boxed `Spawned<F>`, that is executed for the first time.
unsafe fn execute_boxed<'scope, F>(head: *const Head, current: &Current)
where
    F: FnOnce(&Scope<'scope>),
{
    // SAFETY: it was leaked as such, and is executed once.
    let spawned = *unsafe { Box::from_raw(head.cast_mut().cast::<Spawned<F>>()) };
    // SAFETY: as the caller says.
    unsafe { execute(spawned, current) };
}

/// # Safety
/// The scope counts it.
#[inline]
unsafe fn execute<'scope, F>(spawned: Spawned<F>, current: &Current)
where
    F: FnOnce(&Scope<'scope>),
{
    let Spawned { place, body } = spawned;
    let scope = place.scope;
    // SAFETY: a scope is its core and nothing else; it is alive while it counts this.
    let lent = unsafe { &*scope.cast::<Scope<'scope>>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(lent))) {
        lent.core.keep(panic);
    }
    match current.ends().get() {
        Ends(counted, ended) if ptr::eq(counted, scope) => {
            current.ends().set(Ends(counted, ended + 1));
        }
        // SAFETY: it was counted when it was spawned.
        _ => unsafe { Core::end(scope, 1, current) },
    }
}

fn scope_here<'scope, R>(
    current: &Current,
    worker: &Worker,
    body: impl FnOnce(&Scope<'scope>) -> R,
) -> R {
    let scope = Scope {
        core: Core {
            shared: Arc::clone(current.engine().shared()),
            owner: current,
            frame: current.frame(),
            count: Count::new(),
            rank: worker.rank(),
            unparker: worker.unparker().clone(),
            panic: Mutex::new(None),
        },
        marker: PhantomData,
    };
    // Nothing that was spawned outlives this function: it ends only when all of it has, whether the
    // body returns or panics.
    let pointed_to = NoUnwind;
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&scope)));
    let count = &scope.core.count;
    // SAFETY: this is the owner.
    while !unsafe { count.is_zero() } {
        match worker.pop(current.engine().shared()) {
            Some(fork) => run(Task::Fork(fork), current),
            None => {
                // SAFETY: as above.
                let is_over = |_: &Waker| unsafe { count.fold() };
                worker.work_until(current, Takes::Forks, None, is_over);
            }
        }
    }
    pointed_to.release();
    let panic = scope
        .core
        .panic
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
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
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}
