//! Handing a job to threads from outside, as each contender spells it, behind one trait.
//!
//! Neither chili nor forte are among them. Chili takes no jobs; forte's `spawn` from outside runs the job
//! on the thread that brings it, before it returns.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

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

type Job = Box<dyn FnOnce() + Send>;

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
pub(crate) struct CondvarPool(Arc<Shared>);

#[derive(Default)]
struct Shared {
    jobs: Mutex<VecDeque<Job>>,
    some: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

const UNPOISONED: &str = "jobs run without the lock";

impl Pool for CondvarPool {
    fn start(threads: usize) -> CondvarPool {
        let shared = Arc::new(Shared::default());
        for _ in 0..threads {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                loop {
                    let jobs = shared.jobs.lock().expect(UNPOISONED);
                    let mut jobs = shared
                        .some
                        .wait_while(jobs, |jobs| jobs.is_empty())
                        .expect(UNPOISONED);
                    let job = jobs.pop_front().expect("it is not empty");
                    drop(jobs);
                    job();
                }
            });
        }
        CondvarPool(shared)
    }

    fn give(&self, job: impl FnOnce() + Send + 'static) {
        self.0
            .jobs
            .lock()
            .expect(UNPOISONED)
            .push_back(Box::new(job));
        self.0.some.notify_one();
    }
}

/// The contenders that take jobs, for a function that is generic over [`Pool`].
macro_rules! pools {
    ($run:ident) => {
        vec![
            $crate::case::ours("reiver submit", $run::<$crate::pools::Reiver>),
            $crate::case::peer("rayon spawn", $run::<$crate::pools::Rayon>),
            $crate::case::peer("tokio spawn", $run::<$crate::pools::Tokio>),
            $crate::case::peer("channel and threads", $run::<$crate::pools::Channel>),
            $crate::case::peer("condvar pool", $run::<$crate::pools::CondvarPool>),
        ]
    };
}
pub(crate) use pools;
