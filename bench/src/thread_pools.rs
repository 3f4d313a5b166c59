//! Handing a job to threads from outside, as each contender spells it, behind one trait.
//!
//! Neither chili nor forte are among them. Chili takes no jobs; forte's `spawn` from outside runs the job
//! on the thread that brings it, before it returns.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crossbeam_deque::{Injector, Steal};
use crossbeam_utils::Backoff;

use crate::forks::{rayon_pool, reiver_engine};

/// Who takes jobs.
pub(crate) trait Pool: Sync + 'static {
    fn start(threads: usize) -> Self;
    fn give(&self, job: impl FnOnce() + Send + 'static);
}

#[derive(Debug)]
pub(crate) struct Reiver(reiver::Engine);

impl Pool for Reiver {
    fn start(threads: usize) -> Reiver {
        Reiver(reiver_engine(threads))
    }

    fn give(&self, job: impl FnOnce() + Send + 'static) {
        drop(self.0.submit(|_| job()));
    }
}

#[derive(Debug)]
pub(crate) struct Rayon(rayon::ThreadPool);

impl Pool for Rayon {
    fn start(threads: usize) -> Rayon {
        Rayon(rayon_pool(threads))
    }

    fn give(&self, job: impl FnOnce() + Send + 'static) {
        self.0.spawn(job);
    }
}

#[derive(Debug)]
pub(crate) struct Tokio(tokio::runtime::Runtime);

impl Pool for Tokio {
    fn start(threads: usize) -> Tokio {
        Tokio(tokio_runtime(threads))
    }

    fn give(&self, job: impl FnOnce() + Send + 'static) {
        drop(self.0.spawn(async { job() }));
    }
}

pub(crate) fn tokio_runtime(threads: usize) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .build();
    runtime.expect("the system gives threads")
}

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Threads that share the end of a channel.
#[derive(Debug)]
pub(crate) struct Channel(crossbeam_channel::Sender<Job>);

impl Pool for Channel {
    fn start(threads: usize) -> Channel {
        let (give, take) = crossbeam_channel::unbounded::<Job>();
        for _ in 0..threads {
            let take = take.clone();
            thread::spawn(move || take.iter().for_each(|job| job()));
        }
        Channel(give)
    }

    fn give(&self, job: impl FnOnce() + Send + 'static) {
        self.0.send(Box::new(job)).expect("the threads listen");
    }
}

/// Threads around a queue under a lock: what one writes without a library.
#[derive(Debug)]
pub(crate) struct CondvarPool(Arc<JobQueue>);

/// A queue under a lock. Nobody spins, but in the lock for an instant.
#[derive(Default)]
pub(crate) struct JobQueue {
    jobs: Mutex<VecDeque<Job>>,
    some: Condvar,
}

impl JobQueue {
    pub(crate) fn give(&self, job: Job) {
        self.jobs.lock().expect(UNPOISONED).push_back(job);
        self.some.notify_one();
    }

    /// The next one, once there is one.
    pub(crate) fn take(&self) -> Job {
        let jobs = self.jobs.lock().expect(UNPOISONED);
        let waited = self.some.wait_while(jobs, |jobs| jobs.is_empty());
        let mut jobs = waited.expect(UNPOISONED);
        jobs.pop_front().expect("it is not empty")
    }
}

impl std::fmt::Debug for JobQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobQueue").finish_non_exhaustive()
    }
}

/// The least that a job costs whose end can be waited for, where any of several threads may run it or end
/// it instead: an allocation that two own, a word of state, an injector. Its threads never sleep, and
/// nothing is counted, timed, ordered or placed.
#[derive(Debug)]
pub(crate) struct Bare(Arc<Injector<Arc<dyn Run>>>);

trait Run: Send + Sync + std::fmt::Debug {
    fn run(&self);
}

struct BareJob<F> {
    state: AtomicU8,
    body: UnsafeCell<Option<F>>,
}

const CLAIMED: u8 = 1;
const ENDED: u8 = 2;

// SAFETY: the closure is taken by the one that claims the job.
unsafe impl<F: Send> Sync for BareJob<F> {}

impl<F> std::fmt::Debug for BareJob<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareJob").finish_non_exhaustive()
    }
}

impl<F: FnOnce() + Send> Run for BareJob<F> {
    fn run(&self) {
        // ORDERING: relaxed: whoever can claim it was given it by the injector. The end is released to
        // whoever would wait for it.
        if self.state.fetch_or(CLAIMED, Ordering::Relaxed) & CLAIMED == 0 {
            // SAFETY: it was claimed just now, which happens once.
            let body = unsafe { &mut *self.body.get() }.take();
            let body = body.expect("it was claimed once");
            let _ = catch_unwind(AssertUnwindSafe(body));
            self.state.fetch_or(ENDED, Ordering::AcqRel);
        }
    }
}

impl Pool for Bare {
    fn start(threads: usize) -> Bare {
        let jobs = Arc::new(Injector::<Arc<dyn Run>>::new());
        for _ in 0..threads {
            let jobs = Arc::clone(&jobs);
            thread::spawn(move || {
                let backoff = Backoff::new();
                loop {
                    match jobs.steal() {
                        Steal::Success(job) => {
                            backoff.reset();
                            job.run();
                        }
                        Steal::Empty => backoff.snooze(),
                        Steal::Retry => {}
                    }
                }
            });
        }
        Bare(jobs)
    }

    fn give(&self, job: impl FnOnce() + Send + 'static) {
        let job = Arc::new(BareJob {
            state: AtomicU8::new(0),
            body: UnsafeCell::new(Some(job)),
        });
        let handle = Arc::clone(&job);
        self.0.push(job);
        drop(handle);
    }
}

const UNPOISONED: &str = "jobs run without the lock";

impl Pool for CondvarPool {
    fn start(threads: usize) -> CondvarPool {
        let queue = Arc::<JobQueue>::default();
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                loop {
                    queue.take()();
                }
            });
        }
        CondvarPool(queue)
    }

    fn give(&self, job: impl FnOnce() + Send + 'static) {
        self.0.give(Box::new(job));
    }
}

/// The contenders that take jobs, for a function that is generic over [`Pool`].
macro_rules! pools {
    ($run:ident) => {
        vec![
            $crate::case::ours("reiver submit", $run::<$crate::thread_pools::Reiver>),
            $crate::case::peer("rayon spawn", $run::<$crate::thread_pools::Rayon>),
            $crate::case::peer("tokio spawn", $run::<$crate::thread_pools::Tokio>),
            $crate::case::peer("channel and threads", $run::<$crate::thread_pools::Channel>),
            $crate::case::peer("condvar pool", $run::<$crate::thread_pools::CondvarPool>),
        ]
    };
}
pub(crate) use pools;
