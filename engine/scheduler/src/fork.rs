//! Fork and join, and moving onto a worker: work that borrows, so whoever starts it waits for its end,
//! whatever happens.
//!
//! A fork lies on the stack of the worker that made it, and its deque holds a pointer there. The
//! worker takes it back and runs it itself, or, where a thief was faster, does other work until the
//! fork's latch is set.
//!
//! Tried, and slower in instructions a join (callgrind, fib by joins): a waker in each latch and deque
//! entries of a pointer and a function and the job (210), moving the fork out when it is taken back
//! (172). As it stands: 152.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::Arc;
use std::task::Waker;
use std::thread;

use crossbeam_utils::sync::Unparker;

use crate::current::{Current, JobFrame, block_until};
use crate::engine::Engine;
use crate::panics::NoUnwind;
use crate::queues::Task;
use crate::shared::Shared;
use crate::sync::{AtomicBool, Ordering, fence};
use crate::worker::{Takes, Worker, run};

/// A part of a join, scope or install, its type forgotten: a pointer to its head, so that a deque
/// moves a word.
#[derive(Debug)]
pub(crate) struct Fork(*const Head);

/// What a fork begins with, whatever it is.
#[derive(Debug)]
struct Head {
    execute: unsafe fn(*const Head),
    /// The job that it is a part of.
    job: Option<JobFrame>,
}

// SAFETY: a fork is only ever made of a `StackFork` or a `HeapFork`, whose closures are `Send`; the
// pointer is used once, by whoever executes it. What it says of its job may be read anywhere.
unsafe impl Send for Fork {}

impl Fork {
    pub(crate) fn job(&self) -> Option<JobFrame> {
        // SAFETY: whoever made it keeps it alive until it has run.
        unsafe { (*self.0).job }
    }

    #[inline]
    fn is_at(&self, head: *const Head) -> bool {
        ptr::eq(self.0, head)
    }

    /// Runs it. Its outcome, or its panic, goes to whoever waits for it.
    pub(crate) fn execute(self) {
        // SAFETY: whoever made it keeps it alive until it has run.
        let execute = unsafe { (*self.0).execute };
        // SAFETY: the constructors pair a head with the function that knows what it is the head of,
        // and a queue hands it out once.
        unsafe { execute(self.0) }
    }
}

/// Set once; wakes the one that waits for it.
#[derive(Debug)]
struct Latch {
    set: AtomicBool,
    waits: Waits,
}

/// Who waits for a latch.
#[derive(Debug)]
enum Waits {
    /// A worker, by what outlives every fork of its engine.
    Worker(*const Unparker),
    Other(Waker),
}

impl Latch {
    fn new(waits: Waits) -> Latch {
        Latch {
            set: AtomicBool::new(false),
            waits,
        }
    }

    #[inline]
    fn is_set(&self) -> bool {
        // ORDERING: acquire, with the release in `set`: the result is visible.
        self.set.load(Ordering::Acquire)
    }

    /// Sets the latch.
    ///
    /// # Safety
    /// `latch` is valid when this is called, on a thread of the engine that its fork is of. It may
    /// be gone once it is set, so who waits is read before.
    unsafe fn set(latch: *const Latch) {
        // SAFETY: valid until it is set.
        let waits = match unsafe { &(*latch).waits } {
            Waits::Worker(unparker) => Waits::Worker(*unparker),
            Waits::Other(waker) => Waits::Other(waker.clone()),
        };
        // SAFETY: as above; this is the last use.
        // ORDERING: release, with the acquire in `is_set`: publishes the result.
        unsafe { (*latch).set.store(true, Ordering::Release) };
        match waits {
            Waits::Worker(unparker) => {
                // SAFETY: it is the engine's, which this thread of it holds; or that of a worker
                // without a thread of its own, whose forks nobody else executes.
                let unparker = unsafe { &*unparker };
                unparker.unpark();
            }
            Waits::Other(waker) => waker.wake(),
        }
    }
}

/// A closure on the stack of whoever waits for it.
#[repr(C)]
struct StackFork<F, R> {
    /// First, so that a pointer to it is one to the whole.
    head: Head,
    body: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<thread::Result<R>>>,
    latch: Latch,
}

impl<F: FnOnce() -> R + Send, R: Send> StackFork<F, R> {
    fn new(body: F, waits: Waits, job: Option<JobFrame>) -> StackFork<F, R> {
        let body = UnsafeCell::new(Some(body));
        let execute = Self::execute;
        StackFork {
            head: Head { execute, job },
            body,
            result: UnsafeCell::new(None),
            latch: Latch::new(waits),
        }
    }

    /// The closure.
    ///
    /// # Safety
    /// Nobody has executed the fork, and nobody else has a pointer to it that they may use.
    #[inline]
    unsafe fn take_body(&self) -> F {
        // SAFETY: nobody else touches the body.
        let body = unsafe { &mut *self.body.get() };
        body.take()
            .expect("a fork that was taken back has not been executed")
    }

    /// # Safety
    /// The fork outlives its execution (whoever made it waits for the latch), and is executed once:
    /// by a queue, or here by its owner once the queue has given it back.
    unsafe fn as_fork(&self) -> Fork {
        Fork(ptr::from_ref(self).cast())
    }

    /// # Safety
    /// `head` is that of a `StackFork<F, R>` that is executed for the first time.
    unsafe fn execute(head: *const Head) {
        let this = head.cast::<StackFork<F, R>>();
        // SAFETY: it is alive until the latch is set.
        let body = unsafe { &(*this).body };
        // SAFETY: nobody else touches the body.
        let body = unsafe { &mut *body.get() };
        let body = body.take().expect("a fork is executed once");
        let outcome = catch_unwind(AssertUnwindSafe(body));
        // SAFETY: it is alive until the latch is set.
        let result = unsafe { &(*this).result };
        // SAFETY: nobody reads the result before the latch is set.
        unsafe { *result.get() = Some(outcome) };
        // SAFETY: a place in it, which is only pointed to.
        let latch = unsafe { &raw const (*this).latch };
        // SAFETY: still alive; the last use.
        unsafe { Latch::set(latch) };
    }

    fn into_result(self) -> thread::Result<R> {
        debug_assert!(self.latch.is_set());
        self.result
            .into_inner()
            .expect("a fork whose latch is set has a result")
    }
}

/// Runs both closures, at the same time where a worker is free, and gives both results.
///
/// On a worker of an engine it runs there, else it enters the global engine. `a` runs on the
/// current worker, `b` too unless another one takes it meanwhile. Either may borrow freely.
///
/// While it waits for a stolen `b` the worker runs other forks on the same stack: hold no lock across
/// a join that another fork takes, and let no fork wait for the job that joins;
/// [`blocking`](Engine::blocking) is for locks inside.
///
/// # Panics
/// If either panics, once both have ended; with that of `a` where both do.
///
/// ```
/// fn sum(values: &[u64]) -> u64 {
///     if values.len() < 1000 {
///         return values.iter().sum();
///     }
///     let (left, right) = values.split_at(values.len() / 2);
///     let (left, right) = reiver::join(|| sum(left), || sum(right));
///     left + right
/// }
/// assert_eq!(sum(&vec![1; 10_000]), 10_000);
/// ```
pub fn join<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA + Send,
    B: FnOnce() -> RB + Send,
    RA: Send,
    RB: Send,
{
    Current::with(
        |current| match current.and_then(|current| Some((current, current.worker()?))) {
            Some((current, worker)) => join_here(current, worker, a, b),
            None => Engine::of_thread(|engine| engine.join(a, b)),
        },
    )
}

impl Engine {
    /// As [`join`](crate::join), on a worker of this engine.
    ///
    /// # Panics
    /// As there.
    pub fn join<A, B, RA, RB>(&self, a: A, b: B) -> (RA, RB)
    where
        A: FnOnce() -> RA + Send,
        B: FnOnce() -> RB + Send,
        RA: Send,
        RB: Send,
    {
        self.on_worker(|current, worker| join_here(current, worker, a, b))
    }

    /// Runs `body` on a worker of this engine and waits for its value; on such a worker, simply
    /// runs it. A worker of another engine does that engine's work while it waits.
    ///
    /// # Panics
    /// If `body` panics.
    pub fn install<R: Send>(&self, body: impl FnOnce() -> R + Send) -> R {
        self.on_worker(|_, _| body())
    }

    pub(crate) fn on_worker<R: Send>(&self, body: impl FnOnce(&Current, &Worker) -> R + Send) -> R {
        let shared = self.shared();
        Current::with(|current| match current {
            Some(current) if current.is_of(shared) => match current.worker() {
                Some(worker) => body(current, worker),
                None => from_outside(shared, body),
            },
            _ => from_outside(shared, body),
        })
    }
}

/// Hands `body` to a worker and waits.
fn from_outside<R: Send>(
    shared: &Arc<Shared>,
    body: impl FnOnce(&Current, &Worker) -> R + Send,
) -> R {
    if shared.threadless {
        return Current::as_worker(shared, body);
    }
    let on_worker = || {
        Current::with(|current| {
            let current = current.expect("forks run on workers");
            body(current, current.worker().expect("forks run on CPU workers"))
        })
    };
    let job = Current::with(|current| current?.innermost());
    let mut on_worker = Some(on_worker);
    let mut fork: Option<Box<StackFork<_, R>>> = None;
    let pointed_to = NoUnwind;
    // The waker of whoever waits is known only inside the wait, so the fork is made there.
    block_until(None, |waker| {
        if let Some(body) = on_worker.take() {
            let fork = fork.insert(Box::new(StackFork::new(
                body,
                Waits::Other(waker.clone()),
                job,
            )));
            // SAFETY: the fork is on the heap, is neither moved nor dropped before the wait is over,
            // which ends when its latch is set, and is pushed once.
            let pushed = unsafe { fork.as_fork() };
            shared.push_fork(shared.node_of_caller(), pushed);
            // ORDERING: with the fence at the end of a worker: it finds the fork, or this sees that
            // the engine has stopped.
            fence(Ordering::SeqCst);
            if shared.is_stopped() {
                Current::as_worker(shared, |current, _| shared.finish_forks(current));
            }
        }
        fork.as_ref().is_some_and(|fork| fork.latch.is_set())
    });
    pointed_to.release();
    match fork.expect("the wait made it").into_result() {
        Ok(value) => value,
        Err(panic) => resume_unwind(panic),
    }
}

fn join_here<A, B, RA, RB>(current: &Current, worker: &Worker, a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA + Send,
    B: FnOnce() -> RB + Send,
    RA: Send,
    RB: Send,
{
    let shared = current.engine().shared();
    let waits = Waits::Worker(current.unparker());
    let fork = StackFork::new(b, waits, current.innermost());
    let pointed_to = NoUnwind;
    // SAFETY: this function does not return, nor unwind, before the latch is set or the fork is taken
    // back: `a` is caught, and what panics between here and there ends the process. It is pushed once.
    worker.push(unsafe { fork.as_fork() });
    shared.wake_for_fork(worker.node());
    let a = catch_unwind(AssertUnwindSafe(a));
    // What lies above the fork on the deque was spawned by `a` on scopes around this join.
    loop {
        match worker.pop() {
            Some(own) if own.is_at(&raw const fork.head) => {
                // It is a call like any other now.
                pointed_to.release();
                // SAFETY: the deque has given it back, and hands out a fork once.
                let b = unsafe { fork.take_body() };
                return match a {
                    Ok(a) => (a, b()),
                    Err(panic) => {
                        let b = catch_unwind(AssertUnwindSafe(b));
                        std::mem::forget(b.err());
                        resume_unwind(panic)
                    }
                };
            }
            Some(other) => run(Task::Fork(other), current),
            // Somebody has stolen it.
            None => break,
        }
    }
    worker.work_until(current, Takes::Forks, None, |_| fork.latch.is_set());
    pointed_to.release();
    match (a, fork.into_result()) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(panic), Err(other)) => {
            std::mem::forget(other);
            resume_unwind(panic)
        }
        (Err(panic), Ok(_)) | (Ok(_), Err(panic)) => resume_unwind(panic),
    }
}

/// A closure on the heap.
#[repr(C)]
struct HeapFork<F> {
    /// First, as in a `StackFork`.
    head: Head,
    body: F,
}

/// A fork that owns its closure. It must be executed, or it leaks.
pub(crate) fn heap_fork<F: FnOnce() + Send>(body: F, job: Option<JobFrame>) -> Fork {
    unsafe fn execute<F: FnOnce()>(head: *const Head) {
        // SAFETY: `head` is that of the box that `heap_fork` let go of, and comes here once.
        let fork = unsafe { Box::from_raw(head.cast_mut().cast::<HeapFork<F>>()) };
        (fork.body)();
    }
    let execute = execute::<F>;
    let head = Head { execute, job };
    Fork(
        Box::into_raw(Box::new(HeapFork { head, body }))
            .cast_const()
            .cast(),
    )
}
