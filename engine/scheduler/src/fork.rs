//! Fork and join, and moving onto a worker: work that borrows, so whoever starts it waits for its end,
//! whatever happens.
//!
//! A fork lies on the stack of the worker that made it, and its private list holds a pointer there.
//! The worker takes it back and runs it itself; or somebody was idle meanwhile, and it is in the
//! worker's deque, or stolen. Then the worker does other work until the fork's latch is set.
//!
//! Tried, and slower in instructions a join (callgrind, fib by joins): every fork through a
//! `crossbeam_deque`, with a waker in each latch (210), with an unparker (152).

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::Waker;
use std::thread;

use crate::Priority;
use crate::crew::Rank;
use crate::current::{Current, Frame, JobFrame, block_until};
use crate::engine::Engine;
use crate::panics::NoUnwind;
use crate::parker::Unparker;
use crate::protocol::latch::{Latch, Waits};
use crate::queues::Task;
use crate::room::Stands;
use crate::shared::Shared;
use crate::worker::{Takes, Worker, run};

/// A part of a join, scope or install, its type forgotten: a pointer to its head, so that a deque
/// moves a word. Equal to itself alone. It must be executed, or it leaks, and who waits for it hangs.
#[derive(Debug, PartialEq)]
pub(crate) struct Fork(*const Head);

/// What a fork begins with, whatever it is.
#[derive(Debug)]
#[repr(align(8))]
pub(crate) struct Head {
    execute: unsafe fn(*const Head, &Current),
    /// What its maker was in, or null.
    frame: *const Frame,
}

/// In the address of a fork that was spawned on a scope: nobody takes that very one back, and it may
/// be tiny, so many are moved at once.
const SPAWNED: usize = 1;

// SAFETY: a fork is only ever made of what has `Send` closures; the pointer is used once, by whoever
// executes it. What it says of its job may be read anywhere.
unsafe impl Send for Fork {}

impl Head {
    /// `execute` is given this head, as the first of what it is the head of.
    #[inline]
    pub(crate) fn new(execute: unsafe fn(*const Head, &Current), frame: *const Frame) -> Head {
        Head { execute, frame }
    }
}

impl Fork {
    /// What no fork is equal to.
    pub(crate) const NONE: Fork = Fork(ptr::null());

    /// One that was spawned on a scope, which keeps it alive until it has run.
    #[inline]
    pub(crate) fn spawned(head: NonNull<Head>) -> Fork {
        Fork(head.as_ptr().map_addr(|addr| addr | SPAWNED))
    }

    pub(crate) fn is_spawned(&self) -> bool {
        self.0.addr() & SPAWNED != 0
    }

    #[inline]
    pub(crate) fn head(&self) -> *const Head {
        self.0.map_addr(|addr| addr & !SPAWNED)
    }

    /// What its maker was in, or null.
    #[inline]
    pub(crate) fn frame(&self) -> *const Frame {
        // SAFETY: whoever made it keeps it alive until it has run.
        unsafe { (*self.head()).frame }
    }

    /// The job that it is a part of.
    #[inline]
    pub(crate) fn job(&self) -> Option<JobFrame> {
        let frame = self.frame();
        // SAFETY: null, or that of whoever made the fork, or the scope that it is on, who waits for
        // its end inside that frame.
        unsafe { frame.as_ref() }.and_then(Frame::job)
    }

    /// Runs it. Its outcome, or its panic, goes to whoever waits for it.
    #[inline]
    pub(crate) fn execute(self, current: &Current) {
        // SAFETY: whoever made it keeps it alive until it has run.
        let execute = unsafe { (*self.head()).execute };
        // SAFETY: whoever made the head paired it with the function that knows what it is the head
        // of, and a queue hands it out once.
        unsafe { execute(self.head(), current) }
    }
}

/// A worker, by what outlives every fork of its engine.
impl Waits for *const Unparker {
    fn wake_later(&self) -> impl FnOnce() + use<> {
        let unparker = *self;
        move || {
            // SAFETY: it is the engine's, which this thread of it holds; or that of a worker without
            // a thread of its own, whose forks nobody else executes.
            let unparker = unsafe { &*unparker };
            unparker.unpark();
        }
    }
}

impl Waits for Waker {
    fn wake_later(&self) -> impl FnOnce() + use<> {
        let waker = self.clone();
        move || waker.wake()
    }
}

/// A closure on the stack of whoever waits for it.
#[repr(C)]
struct StackFork<F, R, W> {
    /// First, so that a pointer to it is one to the whole.
    head: Head,
    /// Moved out by whoever executes the fork, or takes it back.
    body: UnsafeCell<MaybeUninit<F>>,
    /// Written before the latch is set.
    result: UnsafeCell<MaybeUninit<thread::Result<R>>>,
    latch: Latch<W>,
}

impl<F: FnOnce() -> R + Send, R: Send, W: Waits> StackFork<F, R, W> {
    /// It is to be executed or taken back, or its closure leaks.
    #[inline]
    fn new(body: F, waits: W, frame: *const Frame) -> StackFork<F, R, W> {
        let execute = Self::execute;
        StackFork {
            head: Head::new(execute, frame),
            body: UnsafeCell::new(MaybeUninit::new(body)),
            result: UnsafeCell::new(MaybeUninit::uninit()),
            latch: Latch::new(waits),
        }
    }

    /// The closure.
    ///
    /// # Safety
    /// Called once, by who was given the fork to execute, or has it back.
    #[inline]
    unsafe fn take_body(&self) -> F {
        // SAFETY: nobody else touches the body.
        let body = unsafe { &*self.body.get() };
        // SAFETY: it is there until this moves it out.
        unsafe { body.assume_init_read() }
    }

    /// # Safety
    /// The fork outlives its execution (whoever made it waits for the latch), and is executed once:
    /// by a queue, or here by its owner once the queue has given it back.
    #[inline]
    unsafe fn as_fork(&self) -> Fork {
        self.itself()
    }

    /// As [`as_fork`](StackFork::as_fork), to be compared and not executed.
    #[inline]
    fn itself(&self) -> Fork {
        Fork(ptr::from_ref(self).cast())
    }

    /// # Safety
    /// `head` is that of a `StackFork<F, R, W>` that is executed for the first time.
    unsafe fn execute(head: *const Head, _: &Current) {
        let this = head.cast::<StackFork<F, R, W>>();
        // SAFETY: it is alive until the latch is set.
        let fork = unsafe { &*this };
        // SAFETY: this is its execution.
        let body = unsafe { fork.take_body() };
        let outcome = catch_unwind(AssertUnwindSafe(body));
        // SAFETY: nobody reads the result before the latch is set.
        unsafe { (*fork.result.get()).write(outcome) };
        // SAFETY: a place in it, which is only pointed to.
        let latch = unsafe { &raw const (*this).latch };
        // SAFETY: still alive; the last use.
        unsafe { Latch::set(latch) };
    }

    fn into_result(self) -> thread::Result<R> {
        assert!(self.latch.is_set(), "a fork ends before its result is read");
        // SAFETY: it was written before the latch was set, and this moves it out.
        unsafe { self.result.into_inner().assume_init() }
    }
}

/// Runs both closures, at the same time where a worker is free, and gives both results.
///
/// On a worker of an engine it runs there, else it enters the global engine. `a` runs on the
/// current worker, `b` too unless another one takes it meanwhile. Either may borrow freely.
///
/// Joins nest some 18,000 deep on a worker's stack of 2 MiB, 2,200 without optimisation, with what the
/// closures themselves put there on top.
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
#[inline]
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
            None => join_elsewhere(a, b),
        },
    )
}

/// A join of a thread that is no worker.
#[cold]
#[inline(never)]
fn join_elsewhere<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA + Send,
    B: FnOnce() -> RB + Send,
    RA: Send,
    RB: Send,
{
    Engine::of_thread(|engine| engine.join(a, b))
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
    /// runs it. A worker of another engine does that engine's work while it waits; the place of an I/O
    /// thread of this engine is taken by another meanwhile.
    ///
    /// # Panics
    /// If `body` panics.
    pub fn install<R: Send>(&self, body: impl FnOnce() -> R + Send) -> R {
        self.on_worker(|_, _| body())
    }

    /// As [`install`](Engine::install), on a worker that does jobs of this priority.
    ///
    /// What holds a lock in a background job that more urgent work waits for belongs in here, see
    /// [`Priority::P2`]. Costs the way to another thread and back, some 20 µs.
    ///
    /// # Panics
    /// If `body` panics.
    ///
    /// ```
    /// use std::sync::Mutex;
    /// use reiver::{Engine, Priority};
    ///
    /// static SHARED: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    ///
    /// let engine = Engine::builder().cpu_workers(1).build()?;
    /// let background = engine.job().priority(Priority::P2).submit(|ctx| {
    ///     let found = 7;
    ///     ctx.engine().install_at(Priority::P0, || SHARED.lock().map(|mut all| all.push(found)).is_ok())
    /// })?;
    /// assert!(background.join()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn install_at<R: Send>(&self, priority: Priority, body: impl FnOnce() -> R + Send) -> R {
        let shared = self.shared();
        let rank = shared.crew_for(priority).rank;
        Current::with(|current| {
            let here = current.filter(|current| current.is_of(shared));
            let worker = here.and_then(Current::worker);
            match worker.filter(|worker| worker.rank() == rank) {
                Some(_) => body(),
                None => from_outside(shared, rank, |_, _| body()),
            }
        })
    }

    pub(crate) fn on_worker<R: Send>(&self, body: impl FnOnce(&Current, &Worker) -> R + Send) -> R {
        let shared = self.shared();
        Current::with(|current| match current {
            Some(current) if current.is_of(shared) => match current.worker() {
                Some(worker) => body(current, worker),
                None => from_outside(shared, shared.crew_of_caller().rank, body),
            },
            _ => from_outside(shared, Rank::Ordinary, body),
        })
    }
}

/// Hands `body` to a worker and waits.
fn from_outside<R: Send>(
    shared: &Arc<Shared>,
    rank: Rank,
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
    let frame = Current::with(|current| current.map_or(ptr::null(), Current::frame));
    let mut on_worker = Some(on_worker);
    let mut fork: Option<Box<StackFork<_, R, Waker>>> = None;
    let pointed_to = NoUnwind;
    let stands = Stands::while_waiting();
    // The waker of whoever waits is known only inside the wait, so the fork is made there.
    block_until(None, |waker| {
        if let Some(body) = on_worker.take() {
            let fork = fork.insert(Box::new(StackFork::new(body, waker.clone(), frame)));
            // SAFETY: the fork is on the heap, is neither moved nor dropped before the wait is over,
            // which ends when its latch is set, and is pushed once.
            let pushed = unsafe { fork.as_fork() };
            shared.push_fork(rank, shared.node_of_caller(), pushed);
            shared.finish_if_stopped();
        }
        fork.as_ref().is_some_and(|fork| fork.latch.is_set())
    });
    drop(stands);
    pointed_to.release();
    match fork.expect("the wait made it").into_result() {
        Ok(value) => value,
        Err(panic) => resume_unwind(panic),
    }
}

#[inline]
fn join_here<A, B, RA, RB>(current: &Current, worker: &Worker, a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA + Send,
    B: FnOnce() -> RB + Send,
    RA: Send,
    RB: Send,
{
    let fork = StackFork::new(b, current.unparker(), current.frame());
    // SAFETY: this function does not return, nor unwind, before the latch is set or the fork is taken
    // back: `a` is caught, and what panics between here and there ends the process. It is pushed once.
    worker.push(current, unsafe { fork.as_fork() });
    let a = catch_unwind(AssertUnwindSafe(a));
    if worker.take_back(&fork.itself()) {
        // SAFETY: the list has given it back, and hands out a fork once.
        let b = unsafe { fork.take_body() };
        return match a {
            // It is a call like any other now.
            Ok(a) => (a, b()),
            Err(panic) => panic_after(b, panic),
        };
    }
    let (a, b) = match wait_for(&fork) {
        // SAFETY: the deque has given it back, and hands out a fork once.
        Waited::Own => (
            a,
            catch_unwind(AssertUnwindSafe(unsafe { fork.take_body() })),
        ),
        Waited::Stolen => (a, fork.into_result()),
    };
    match (a, b) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(panic), Err(other)) => {
            std::mem::forget(other);
            resume_unwind(panic)
        }
        (Err(panic), Ok(_)) | (Ok(_), Err(panic)) => resume_unwind(panic),
    }
}

/// What has become of a fork that was not where it was pushed.
enum Waited {
    /// It is back, and has not run.
    Own,
    /// Somebody has run it.
    Stolen,
}

/// Runs what `a` has spawned on scopes around the join, and waits until the fork is back or has run.
/// Asks anew which worker this is, so that a join that is not stolen need not keep it.
#[cold]
fn wait_for<F, R>(fork: &StackFork<F, R, *const Unparker>) -> Waited
where
    F: FnOnce() -> R + Send,
    R: Send,
{
    let pointed_to = NoUnwind;
    let waited = Current::with(|current| {
        let current = current.expect("forks are made on workers");
        let worker = current.worker().expect("forks are made on CPU workers");
        loop {
            match worker.pop(current.engine().shared()) {
                Some(own) if own == fork.itself() => break Waited::Own,
                Some(other) => run(Task::Fork(other), current),
                None => {
                    worker.work_until(current, Takes::Forks, None, |_| fork.latch.is_set());
                    break Waited::Stolen;
                }
            }
        }
    });
    pointed_to.release();
    waited
}

/// Runs the other half of a join whose first has panicked.
#[cold]
fn panic_after<R>(b: impl FnOnce() -> R, panic: Box<dyn std::any::Any + Send>) -> ! {
    let b = catch_unwind(AssertUnwindSafe(b));
    std::mem::forget(b.err());
    resume_unwind(panic)
}
