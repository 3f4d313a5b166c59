//! The engine as its users hold it, and how it ends.
//!
//! How it ends, in this order: intake stops; what is queued is drained by the workers, or, at the
//! limit and at a drop, ended; running jobs are told at their checkpoints; when none runs any more
//! the threads are told to stop, woken, and joined.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::Class;
use crate::builder::EngineBuilder;
use crate::current::Current;
use crate::error::JobError;
use crate::job::{JobBuilder, JobContext, JobHandle};
use crate::metrics::Metrics;
use crate::running::RunningJob;
use crate::shared::Shared;
use crate::spawner::Absence;

/// Runs jobs and forks on workers grouped by NUMA node.
///
/// Dropping it ends queued jobs as [`JobError::ShutDown`], waits for running ones, and joins its
/// threads; on one of its own workers it does not wait for itself.
///
/// A child of `fork` that does not `exec` has an engine without threads: jobs that it submits never run, so
/// [`join`](Engine::join), [`install`](Engine::install) and [`JobHandle::join`] wait for ever there, and to drop the
/// engine panics. Such a child does without the engine, [`global`](Engine::global) included, and ends by `exec` or
/// `_exit`; or the engine is built after the last `fork`. (`std::process::Command` always has its children `exec`.)
///
/// ```
/// use reiver::{Class, Engine};
///
/// let engine = Engine::builder().cpu_workers(2).build()?;
/// let answer = engine.submit(|_| 6 * 7);
/// let text = engine.job().class(Class::Io).submit(|_| std::fs::read_to_string("/etc/hostname"))?;
/// assert_eq!(answer.join()?, 42);
/// let _ = text.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    /// False for what workers and job contexts hold: dropping those ends nothing.
    owns: bool,
}

/// What [`Engine::shutdown`] had to leave.
#[derive(Debug, Clone, Default)]
#[must_use = "it says whether everything was finished"]
pub struct ShutdownReport {
    /// Jobs that were still queued at the limit; they ended as [`JobError::ShutDown`].
    pub queued: usize,
    /// Jobs that still ran at the limit.
    pub running: Vec<RunningJob>,
}

impl ShutdownReport {
    /// True if every job had ended by itself.
    pub fn is_clean(&self) -> bool {
        self.queued == 0 && self.running.is_empty()
    }
}

impl Engine {
    /// Settings, with defaults for all.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    pub(crate) fn owning(shared: Arc<Shared>) -> Engine {
        Engine { shared, owns: true }
    }

    /// The same engine, for those who must not end it.
    pub(crate) fn borrowed(shared: Arc<Shared>) -> Engine {
        Engine {
            shared,
            owns: false,
        }
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Calls `code` with the engine of the current thread, or the global one.
    pub(crate) fn of_thread<R>(code: impl FnOnce(&Engine) -> R) -> R {
        Current::with(|current| match current {
            Some(current) => code(current.engine()),
            None => code(Engine::global()),
        })
    }

    /// A job to be described further before it is submitted.
    pub fn job(&self) -> JobBuilder<'_> {
        JobBuilder::new(self)
    }

    /// Submits a job of class Cpu and priority P1. One that is not taken, because the engine is
    /// shut down or the queue is full, says so at its [`join`](JobHandle::join).
    pub fn submit<T, F>(&self, body: F) -> JobHandle<T>
    where
        F: FnOnce(&JobContext) -> T + Send + 'static,
        T: Send + 'static,
    {
        let job = self.job().submit(body);
        job.unwrap_or_else(|error| JobHandle::never(JobError::untaken(error)))
    }

    /// Submits many, in order, as [`submit`](Engine::submit) does each, but in one go: for jobs so
    /// small that submitting them costs as much as running them. They share an allocation, which lives
    /// as long as any handle; their times in the [`metrics`](Engine::metrics) are means of up to 32, and
    /// the age of one that [`runs`](Engine::running) is that of those before it too.
    ///
    /// Costs some 7 ns a job to submit and some 22 until all have run, on two cores. Where class Cpu has a
    /// [`queue_capacity`](crate::EngineBuilder::queue_capacity) or a
    /// [`limit`](crate::EngineBuilder::limit), or the engine a [`watchdog`](crate::EngineBuilder::watchdog), and
    /// where their spans are recorded (crate feature `tracing`), they are submitted one by one.
    ///
    /// ```
    /// use reiver::{Engine, JobContext};
    ///
    /// let squares = Engine::global().submit_many((0..100).map(|i| move |_: &JobContext| i * i));
    /// let squares: Result<Vec<i32>, _> = squares.into_iter().map(|job| job.join()).collect();
    /// assert_eq!(squares?[9], 81);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_many<I, F, T>(&self, jobs: I) -> Vec<JobHandle<T>>
    where
        I: IntoIterator<Item = F>,
        F: FnOnce(&JobContext) -> T + Send + 'static,
        T: Send + 'static,
    {
        if self.shared.is_single(Class::Cpu) {
            return jobs.into_iter().map(|job| self.submit(job)).collect();
        }
        self.job().submit_many(jobs.into_iter())
    }

    /// What jobs of class [`Auto`](Class::Auto) that have this name run as just now: `Hybrid` until some of
    /// them were measured, `None` if none has come of late.
    pub fn auto_class(&self, name: &str) -> Option<Class> {
        self.shared.known_autos()?.class_of(name)
    }

    /// The jobs that run just now.
    pub fn running(&self) -> Vec<RunningJob> {
        self.shared.running_jobs()
    }

    /// What the engine has done since it was built.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = self.shared.metrics.snapshot();
        metrics.hybrid_threads = self.shared.hybrid_threads();
        if let Some(autos) = self.shared.known_autos() {
            metrics.placed = autos.placed();
        }
        metrics.nr_throttled = self.shared.machine.topology.nr_throttled();
        if let Some(rules) = &self.shared.rules {
            metrics.breakers = rules.breakers();
        }
        metrics
    }

    /// Stops taking jobs and waits until those that were taken have ended, for `limit` at the most.
    /// At the limit queued jobs end as [`JobError::ShutDown`], and running ones are told
    /// [`Interrupted::ShutDown`](crate::Interrupted::ShutDown) at their next checkpoint.
    ///
    /// Threads go on: `join`, `scope` and `install` work until the engine is dropped. Called from
    /// one of its own jobs it does not wait for that job.
    pub fn shutdown(&self, limit: Duration) -> ShutdownReport {
        let shared = &self.shared;
        shared.close();
        let until = Instant::now().checked_add(limit);
        if shared.wait_drained(until) {
            return ShutdownReport::default();
        }
        let queued = shared.end_queued();
        let own = shared.jobs_of_thread();
        let mut running = shared.running_jobs();
        running.retain(|running| !own.contains(&running.job));
        // Whoever is told may be gone at once, and was not to be left out of the report.
        shared.hurry();
        ShutdownReport { queued, running }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.owns {
            return;
        }
        let shared = &self.shared;
        // The spawner may be the one that drops the engine, with a job: then nobody is to wait for it.
        let _absence = Absence::begin();
        shared.close();
        shared.end_queued();
        shared.hurry();
        shared.wait_drained(None);
        shared.stop();
        let on_own_thread =
            Current::with(|current| current.is_some_and(|c| c.is_thread_of(shared)));
        #[cfg(feature = "tokio")]
        shared.asyncs.stop(!on_own_thread);
        if on_own_thread {
            return;
        }
        // More may come while they are joined: the spawner is among them.
        loop {
            let threads = shared.spawner.take_threads();
            if threads.is_empty() {
                return;
            }
            for thread in threads {
                // The spawner or the timer may be the one that drops the engine, with a job.
                if thread.thread().id() != thread::current().id() {
                    // Threads contain the panics of jobs; one of our own has been reported.
                    let _ = thread.join();
                }
            }
        }
    }
}
