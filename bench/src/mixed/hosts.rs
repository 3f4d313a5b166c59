//! Who runs the mixed load: this engine, its peers, and what people write by hand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::{iter, thread};

use reiver::{Class, Priority};

use super::kernel::{self, Ask};
use crate::case::{Task, Trouble};
use crate::forks::rayon_pool;
pub(super) use crate::thread_pools::Job;
use crate::thread_pools::{JobQueue, tokio_runtime};

/// Background work, which passes checkpoints where there are any.
pub(super) type Bulk = Box<dyn FnOnce(&dyn Fn()) + Send>;

/// So many plain threads block.
const BLOCKING: usize = 64;

/// Who runs it.
pub(super) trait Host: Send + Sync {
    fn urgent(&self, job: Job);
    fn bulk(&self, job: Bulk);
    fn blocking(&self, job: Job);
    /// Calls what holds a lock in bulk that urgent jobs wait for.
    fn holds_lock(&self, body: &mut (dyn FnMut() + Send)) {
        body();
    }

    /// Calls `body` for each of so many numbers, on all threads of the bulk, again and again until
    /// `is_over`; gives at once.
    fn loops(&self, _len: usize, _body: fn(), _is_over: Arc<AtomicBool>) {
        unreachable!("only hosts that fork are asked to");
    }
}

/// How an engine of ours takes the load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ours {
    pub(super) bulk: Priority,
    pub(super) has_checkpoints: bool,
    /// What holds a lock is done by urgent workers.
    pub(super) shields_locks: bool,
}

#[derive(Debug)]
pub(super) struct Reiver {
    engine: reiver::Engine,
    how: Ours,
}

impl Reiver {
    pub(super) fn start(task: &Task, how: Ours) -> Result<Reiver, Trouble> {
        Reiver::of(reiver::Engine::builder().cpu_workers(task.threads), how)
    }

    pub(super) fn of(builder: reiver::EngineBuilder, how: Ours) -> Result<Reiver, Trouble> {
        let engine = builder.build();
        let engine = engine.map_err(|error| Trouble::Failed(error.to_string()))?;
        Ok(Reiver { engine, how })
    }
}

impl Host for Reiver {
    fn urgent(&self, job: Job) {
        let urgent = self.engine.job().priority(Priority::P0);
        drop(urgent.submit(|_| job()).expect("the queue has no limit"));
    }

    fn bulk(&self, job: Bulk) {
        let has_checkpoints = self.how.has_checkpoints;
        let bulk = self.engine.job().priority(self.how.bulk);
        let bulk = bulk.submit(move |context| {
            job(&|| {
                if has_checkpoints {
                    // Nobody cancels.
                    let _ = context.checkpoint();
                }
            });
        });
        drop(bulk.expect("the queue has no limit"));
    }

    fn blocking(&self, job: Job) {
        let blocking = self.engine.job().class(Class::Io).submit(|_| job());
        drop(blocking.expect("the queue is long enough"));
    }

    fn holds_lock(&self, body: &mut (dyn FnMut() + Send)) {
        if self.how.shields_locks {
            self.engine.install_at(Priority::P0, body);
        } else {
            body();
        }
    }

    fn loops(&self, len: usize, body: fn(), is_over: Arc<AtomicBool>) {
        let bulk = self.engine.job().priority(self.how.bulk);
        let bulk = bulk.submit(move |_| {
            while !is_over.load(Ordering::Relaxed) {
                reiver::par_for(0..len, 0, |_| body());
            }
        });
        drop(bulk.expect("the queue has no limit"));
    }
}

/// One pool of rayon's for all.
#[derive(Debug)]
pub(super) struct Rayon {
    pool: rayon::ThreadPool,
    blocking: Option<Plain>,
}

impl Rayon {
    pub(super) fn start(threads: usize) -> Rayon {
        Rayon {
            pool: rayon_pool(threads),
            blocking: None,
        }
    }

    /// With threads of their own for jobs that block.
    pub(super) fn beside_plain(threads: usize) -> Rayon {
        Rayon {
            pool: rayon_pool(threads),
            blocking: Some(Plain::start(BLOCKING, |_| Ask::ORDINARY).expect("nothing is asked")),
        }
    }
}

impl Host for Rayon {
    fn urgent(&self, job: Job) {
        self.pool.spawn(job);
    }

    fn bulk(&self, job: Bulk) {
        self.pool.spawn(|| job(&|| ()));
    }

    fn blocking(&self, job: Job) {
        match &self.blocking {
            Some(plain) => plain.give(job),
            None => self.pool.spawn(job),
        }
    }

    fn loops(&self, len: usize, body: fn(), is_over: Arc<AtomicBool>) {
        use rayon::iter::{IntoParallelIterator, ParallelIterator};
        self.pool.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                (0..len).into_par_iter().for_each(|_| body());
            }
        });
    }
}

#[derive(Debug)]
pub(super) struct Tokio(tokio::runtime::Runtime);

impl Tokio {
    pub(super) fn start(threads: usize) -> Tokio {
        Tokio(tokio_runtime(threads))
    }
}

impl Host for Tokio {
    fn urgent(&self, job: Job) {
        drop(self.0.spawn(async { job() }));
    }

    fn bulk(&self, job: Bulk) {
        drop(self.0.spawn(async { job(&|| ()) }));
    }

    fn blocking(&self, job: Job) {
        drop(self.0.spawn_blocking(job));
    }
}

/// Starts threads that do one job after the other. Each asks the kernel for what its number stands for.
fn start_threads(
    threads: usize,
    ask: impl Fn(usize) -> Ask,
    next: impl Fn() -> Option<Job> + Clone + Send + 'static,
) -> Result<(), Trouble> {
    let (say, said) = mpsc::channel();
    for number in 0..threads {
        let (next, say, ask) = (next.clone(), say.clone(), ask(number));
        thread::spawn(move || {
            let granted = ask.apply();
            let is_granted = granted.is_ok();
            let _ = say.send(granted);
            if is_granted {
                iter::from_fn(next).for_each(|job| job());
            }
        });
    }
    for granted in said.iter().take(threads) {
        kernel::granted(granted)?;
    }
    Ok(())
}

/// Threads that take jobs from one queue behind a lock. Nobody spins there, as one does in a channel until
/// the other side has written: a real-time thread would, for most of a second, and keep the other side from
/// the CPU.
#[derive(Debug)]
pub(super) struct Plain(Arc<JobQueue>);

impl Plain {
    pub(super) fn start(threads: usize, ask: impl Fn(usize) -> Ask) -> Result<Plain, Trouble> {
        let queue = Arc::<JobQueue>::default();
        let of_threads = Arc::clone(&queue);
        start_threads(threads, ask, move || Some(of_threads.take()))?;
        Ok(Plain(queue))
    }

    fn give(&self, job: Job) {
        self.0.give(job);
    }
}

/// Threads at a lower rank that take jobs from a channel: a lock would often be held by one that does not get
/// a CPU while whoever submits wants it, and that of a channel seldom is.
#[derive(Debug)]
struct Below(crossbeam_channel::Sender<Job>);

impl Below {
    fn start(threads: usize, ask: Ask) -> Result<Below, Trouble> {
        let (give, take) = crossbeam_channel::unbounded::<Job>();
        start_threads(threads, |_| ask, move || take.recv().ok())?;
        Ok(Below(give))
    }

    fn give(&self, job: Job) {
        self.0.send(job).expect("the threads listen");
    }
}

/// Threads of their own for each kind of work.
#[derive(Debug)]
pub(super) struct Apart {
    urgent: Plain,
    bulk: Below,
    blocking: Plain,
}

impl Apart {
    /// So many threads each for urgent work and for bulk.
    pub(super) fn start(
        threads: usize,
        urgent: impl Fn(usize) -> Ask,
        bulk: Ask,
    ) -> Result<Apart, Trouble> {
        Ok(Apart {
            urgent: Plain::start(threads, urgent)?,
            bulk: Below::start(threads, bulk)?,
            blocking: Plain::start(BLOCKING, |_| Ask::ORDINARY)?,
        })
    }
}

impl Host for Apart {
    fn urgent(&self, job: Job) {
        self.urgent.give(job);
    }

    fn bulk(&self, job: Bulk) {
        self.bulk.give(Box::new(|| job(&|| ())));
    }

    fn blocking(&self, job: Job) {
        self.blocking.give(job);
    }
}

/// One set of threads that takes urgent work first; with checkpoints, inside of other work too.
pub(super) struct Strict {
    queues: Arc<Queues>,
    blocking: Plain,
    has_checkpoints: bool,
}

#[derive(Default)]
struct Queues {
    state: Mutex<Waiting>,
    some: Condvar,
    /// For checkpoints.
    is_urgent: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    urgent: VecDeque<Job>,
    bulk: VecDeque<Job>,
}

impl Queues {
    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, push: impl FnOnce(&mut Waiting)) {
        let mut state = self.state();
        push(&mut state);
        // ORDERING: relaxed: a hint, read again under the lock.
        self.is_urgent
            .store(!state.urgent.is_empty(), Ordering::Relaxed);
        drop(state);
        self.some.notify_one();
    }

    fn take_urgent(&self) -> Option<Job> {
        if !self.is_urgent.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state();
        let job = state.urgent.pop_front();
        self.is_urgent
            .store(!state.urgent.is_empty(), Ordering::Relaxed);
        job
    }

    fn take(&self) -> Job {
        let is_empty = |state: &mut Waiting| state.urgent.is_empty() && state.bulk.is_empty();
        let waited = self.some.wait_while(self.state(), is_empty);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let urgent = state.urgent.pop_front();
        self.is_urgent
            .store(!state.urgent.is_empty(), Ordering::Relaxed);
        let job = urgent.or_else(|| state.bulk.pop_front());
        job.expect("one of them is not empty")
    }
}

impl Strict {
    pub(super) fn start(task: &Task, has_checkpoints: bool) -> Strict {
        let queues = Arc::new(Queues::default());
        for _ in 0..task.threads {
            let queues = Arc::clone(&queues);
            thread::spawn(move || {
                loop {
                    queues.take()();
                }
            });
        }
        Strict {
            queues,
            blocking: Plain::start(BLOCKING, |_| Ask::ORDINARY).expect("nothing is asked"),
            has_checkpoints,
        }
    }
}

impl Host for Strict {
    fn urgent(&self, job: Job) {
        self.queues.push(|waiting| waiting.urgent.push_back(job));
    }

    fn bulk(&self, job: Bulk) {
        let (queues, has_checkpoints) = (Arc::clone(&self.queues), self.has_checkpoints);
        let job: Job = Box::new(move || {
            job(&|| {
                while has_checkpoints && let Some(urgent) = queues.take_urgent() {
                    urgent();
                }
            });
        });
        self.queues.push(|waiting| waiting.bulk.push_back(job));
    }

    fn blocking(&self, job: Job) {
        self.blocking.give(job);
    }
}
