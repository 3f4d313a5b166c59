//! What an engine has done, as numbers. To add a metric: a word in [`Block`], a `note_*` that
//! writes it where it happens, and its sum in [`Metrics`].
//!
//! Each worker writes a block of its own, padded, with plain loads and stores, and reading adds them
//! up; threads that are no workers share one, and add to it atomically. Joins, spawns and forks are not
//! jobs and are not timed.
//!
//! Counts only grow, and a job is counted as submitted before it is counted as started, and as
//! started before it is counted as ended. They are read in the opposite order, so that a snapshot
//! never shows more ends than starts, nor more starts than submissions: what is queued and what is
//! running are differences that cannot be negative, and the sum in [`JobCounts`] always holds.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::auto::Placed;
use crate::breaker::BreakerMetrics;
use crate::cpu_time::CpuTimes;
use crate::error::{JobError, Phase, SubmitError};
use crate::histogram::{Histogram, Recorder};
use crate::limit::Refused;
use crate::protocol::sync::{AtomicU64, Ordering};
use crate::steal_order::Distance;
use crate::{Class, Priority};

/// Jobs by how far they have come:
/// `submitted = completed + panicked + cancelled + deadline_exceeded + shut_down + queued + running`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Jobs that were taken.
    pub submitted: u64,
    /// Jobs that gave a value.
    pub completed: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Jobs whose deadline passed.
    pub deadline_exceeded: u64,
    /// Jobs that the end of the engine ended.
    pub shut_down: u64,
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
    /// Jobs that were not taken; not among those submitted.
    pub rejected: u64,
}

/// How often a worker took work that was not its own, by how far that was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steals {
    /// From a worker that shares a cache of level 2 or more, or a core.
    pub same_cache: u64,
    /// From another worker of the node.
    pub same_node: u64,
    /// From another node: a fork of its workers, or a job queued there.
    pub remote: u64,
}

/// The threads for jobs of class [`Hybrid`](Class::Hybrid).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HybridThreads {
    /// How many there are, those that have nothing to do among them.
    pub threads: usize,
    /// How many were blocked in a job when that was last looked at: at most 100 ms ago while any job runs,
    /// a few ms while jobs wait.
    pub blocked: usize,
}

/// Jobs that were not taken, by the reason that their submitters were told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejections {
    /// The queue of the class was full.
    pub queue_full: u64,
    /// The engine took none any more.
    pub shut_down: u64,
    /// The machine has no such node.
    pub unknown_node: u64,
    /// A limiter of the class or the name had not enough tokens.
    pub rate: u64,
    /// A limiter of the class or the name had not enough permits.
    pub concurrency: u64,
    /// The breaker of the name was open.
    pub breaker_open: u64,
    /// The system refused the threads of a runtime for futures.
    pub no_runtime: u64,
}

impl Rejections {
    fn of(words: &[AtomicU64; REASONS]) -> Rejections {
        // ORDERING: relaxed: in no sum with others.
        let [
            queue_full,
            shut_down,
            unknown_node,
            rate,
            concurrency,
            breaker_open,
            no_runtime,
        ] = words.each_ref().map(|word| word.load(Ordering::Relaxed));
        Rejections {
            queue_full,
            shut_down,
            unknown_node,
            rate,
            concurrency,
            breaker_open,
            no_runtime,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let limited = self.rate + self.concurrency + self.breaker_open + self.no_runtime;
        self.queue_full + self.shut_down + self.unknown_node + limited
    }
}

const REASONS: usize = 7;

/// Why a job was not taken, as an index into [`Counters::rejected`].
fn reason(why: &SubmitError) -> usize {
    match why {
        SubmitError::QueueFull => 0,
        SubmitError::ShutDown => 1,
        SubmitError::UnknownNode => 2,
        SubmitError::Limited(Refused::Rate) => 3,
        SubmitError::Limited(Refused::Concurrency) => 4,
        SubmitError::BreakerOpen => 5,
        SubmitError::NoRuntime => 6,
    }
}

pub(crate) const CLASSES: [Class; 4] = [Class::Cpu, Class::Io, Class::Hybrid, Class::Auto];
const KINDS: usize = CLASSES.len() * 3;
const ENDS: usize = 5;

#[inline]
fn kind(class: Class, priority: Priority) -> usize {
    class as usize * 3 + priority as usize
}

/// How a job ended, as an index into [`Block::ended`].
#[inline]
fn end(error: Option<&JobError>) -> usize {
    match error {
        None => 0,
        Some(JobError::Panicked(_)) => 1,
        Some(JobError::Cancelled) => 2,
        Some(JobError::DeadlineExceeded { .. }) => 3,
        Some(JobError::ShutDown | JobError::Rejected(_)) => 4,
    }
}

#[derive(Debug, Default)]
struct Block {
    jobs: [JobWords; KINDS],
    steals: [AtomicU64; 3],
    parks: AtomicU64,
    failed_searches: AtomicU64,
    promotions: AtomicU64,
}

#[derive(Debug, Default)]
struct JobWords {
    started: AtomicU64,
    /// Ended while queued: these were never started.
    ended_queued: [AtomicU64; ENDS],
    ended: [AtomicU64; ENDS],
    /// Made when first needed: 10 KiB each.
    queue_wait: OnceLock<Recorder>,
    run_time: OnceLock<Recorder>,
}

/// Adds to a word, which the current thread alone writes if it is its own.
#[inline]
fn count(word: &AtomicU64, more: u64, is_own: bool) {
    // ORDERING: release, see `note_submitted`.
    if is_own {
        word.store(word.load(Ordering::Relaxed) + more, Ordering::Release);
    } else {
        word.fetch_add(more, Ordering::Release);
    }
}

/// The numbers as they are written.
#[derive(Debug)]
pub(crate) struct Counters {
    /// Workers without the spares.
    workers: usize,
    /// One a worker, spares too, and a last one for everybody else.
    blocks: Box<[CachePadded<Block>]>,
    submitted: [CachePadded<AtomicU64>; KINDS],
    /// By kind, then by reason.
    rejected: [[AtomicU64; REASONS]; KINDS],
    begun: Instant,
    /// Of the threads that compute.
    pub(crate) cpu_times: CpuTimes,
    wakes: AtomicU64,
}

impl Counters {
    pub(crate) fn new(workers: usize, with_spares: usize) -> Counters {
        Counters {
            workers,
            blocks: (0..=with_spares).map(|_| CachePadded::default()).collect(),
            submitted: Default::default(),
            rejected: Default::default(),
            begun: Instant::now(),
            cpu_times: CpuTimes::default(),
            wakes: AtomicU64::new(0),
        }
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    pub(crate) fn note_submitted(&self, class: Class, priority: Priority, jobs: u64) {
        // ORDERING: release, as all counts of jobs, with the acquire in `snapshot`: whoever sees a
        // later count of the same job sees this one.
        self.submitted[kind(class, priority)].fetch_add(jobs, Ordering::Release);
    }

    pub(crate) fn note_rejected(
        &self,
        class: Class,
        priority: Priority,
        why: &SubmitError,
        jobs: u64,
    ) {
        // ORDERING: relaxed: in no sum with others.
        self.rejected[kind(class, priority)][reason(why)].fetch_add(jobs, Ordering::Relaxed);
    }

    /// Makes what threads that may be stopped would else make, while others wait for it.
    pub(crate) fn prepare(&self, class: Class, priority: Priority) {
        let words = &self.block(usize::MAX).jobs[kind(class, priority)];
        words.queue_wait.get_or_init(Recorder::new);
        words.run_time.get_or_init(Recorder::new);
    }

    /// `block` is a worker's number, or that of nobody in particular.
    #[inline]
    pub(crate) fn note_start(&self, block: usize, class: Class, priority: Priority) {
        let started = &self.block(block).jobs[kind(class, priority)].started;
        count(started, 1, self.is_own(block));
    }

    pub(crate) fn note_wait(
        &self,
        block: usize,
        class: Class,
        priority: Priority,
        wait: Duration,
        jobs: u64,
    ) {
        let words = &self.block(block).jobs[kind(class, priority)];
        words
            .queue_wait
            .get_or_init(Recorder::new)
            .record(wait, jobs, self.is_own(block));
    }

    #[inline]
    pub(crate) fn note_end(
        &self,
        block: usize,
        class: Class,
        priority: Priority,
        error: Option<&JobError>,
        was: Phase,
    ) {
        let words = &self.block(block).jobs[kind(class, priority)];
        let ended = match was {
            Phase::Queued => &words.ended_queued,
            Phase::Running => &words.ended,
        };
        count(&ended[end(error)], 1, self.is_own(block));
    }

    pub(crate) fn note_run_time(
        &self,
        block: usize,
        class: Class,
        priority: Priority,
        time: Duration,
        jobs: u64,
    ) {
        let words = &self.block(block).jobs[kind(class, priority)];
        words
            .run_time
            .get_or_init(Recorder::new)
            .record(time, jobs, self.is_own(block));
    }

    pub(crate) fn note_steal(&self, worker: usize, distance: Distance) {
        count(
            &self.block(worker).steals[distance as usize],
            1,
            self.is_own(worker),
        );
    }

    pub(crate) fn note_park(&self, worker: usize) {
        count(&self.block(worker).parks, 1, self.is_own(worker));
    }

    pub(crate) fn note_failed_search(&self, worker: usize) {
        let failed = &self.block(worker).failed_searches;
        count(failed, 1, self.is_own(worker));
    }

    pub(crate) fn note_promotion(&self, worker: usize) {
        count(&self.block(worker).promotions, 1, self.is_own(worker));
    }

    pub(crate) fn note_wake(&self) {
        // ORDERING: relaxed: in no sum with others.
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }

    /// True if one thread alone writes the block.
    #[inline]
    fn is_own(&self, index: usize) -> bool {
        index < self.blocks.len() - 1
    }

    #[inline]
    fn block(&self, index: usize) -> &Block {
        &self.blocks[index.min(self.blocks.len() - 1)]
    }

    pub(crate) fn snapshot(&self) -> Metrics {
        let mut metrics = Metrics {
            workers: self.workers,
            cpu_time: self.cpu_times.sum(),
            uptime: self.begun.elapsed(),
            ..Metrics::default()
        };
        // ORDERING: acquire, with the releases in `note_*`: ends first, then starts, then
        // submissions.
        let sum = |words: &mut dyn Iterator<Item = &AtomicU64>| -> u64 {
            words.map(|word| word.load(Ordering::Acquire)).sum()
        };
        for kind in 0..KINDS {
            let words = || self.blocks.iter().map(move |block| &block.jobs[kind]);
            let mut of_running = [0; ENDS];
            let mut of_queued = [0; ENDS];
            for end in 0..ENDS {
                of_running[end] = sum(&mut words().map(|words| &words.ended[end]));
                of_queued[end] = sum(&mut words().map(|words| &words.ended_queued[end]));
            }
            let started = sum(&mut words().map(|words| &words.started));
            let submitted = sum(&mut std::iter::once(&*self.submitted[kind]));
            metrics.rejections[kind] = Rejections::of(&self.rejected[kind]);
            let ends = |end: usize| of_running[end] + of_queued[end];
            metrics.jobs[kind] = JobCounts {
                submitted,
                completed: ends(0),
                panicked: ends(1),
                cancelled: ends(2),
                deadline_exceeded: ends(3),
                shut_down: ends(4),
                queued: submitted - started - of_queued.iter().sum::<u64>(),
                running: started - of_running.iter().sum::<u64>(),
                rejected: metrics.rejections[kind].total(),
            };
            for words in words() {
                if let Some(recorder) = words.queue_wait.get() {
                    recorder.add_to(&mut metrics.queue_wait[kind]);
                }
                if let Some(recorder) = words.run_time.get() {
                    recorder.add_to(&mut metrics.run_time[kind]);
                }
            }
        }
        for block in &self.blocks {
            metrics.steals.same_cache += block.steals[0].load(Ordering::Relaxed);
            metrics.steals.same_node += block.steals[1].load(Ordering::Relaxed);
            metrics.steals.remote += block.steals[2].load(Ordering::Relaxed);
            metrics.parks += block.parks.load(Ordering::Relaxed);
            metrics.failed_searches += block.failed_searches.load(Ordering::Relaxed);
            metrics.promotions += block.promotions.load(Ordering::Relaxed);
        }
        metrics.wakes = self.wakes.load(Ordering::Relaxed);
        metrics
    }
}

/// What an engine has done since it was built, at the moment it was asked for.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    jobs: [JobCounts; KINDS],
    rejections: [Rejections; KINDS],
    queue_wait: [Histogram; KINDS],
    run_time: [Histogram; KINDS],
    steals: Steals,
    wakes: u64,
    parks: u64,
    failed_searches: u64,
    promotions: u64,
    workers: usize,
    pub(crate) nr_throttled: Option<u64>,
    pub(crate) breakers: Vec<BreakerMetrics>,
    pub(crate) hybrid_threads: HybridThreads,
    pub(crate) placed: Placed,
    cpu_time: Duration,
    uptime: Duration,
}

impl Metrics {
    /// Jobs of a class and priority.
    pub fn jobs(&self, class: Class, priority: Priority) -> JobCounts {
        self.jobs[kind(class, priority)]
    }

    /// Jobs of all classes and priorities.
    pub fn total(&self) -> JobCounts {
        self.jobs
            .iter()
            .fold(JobCounts::default(), |sum, jobs| JobCounts {
                submitted: sum.submitted + jobs.submitted,
                completed: sum.completed + jobs.completed,
                panicked: sum.panicked + jobs.panicked,
                cancelled: sum.cancelled + jobs.cancelled,
                deadline_exceeded: sum.deadline_exceeded + jobs.deadline_exceeded,
                shut_down: sum.shut_down + jobs.shut_down,
                queued: sum.queued + jobs.queued,
                running: sum.running + jobs.running,
                rejected: sum.rejected + jobs.rejected,
            })
    }

    /// Jobs of a class and priority that were not taken, by reason.
    pub fn rejections(&self, class: Class, priority: Priority) -> Rejections {
        self.rejections[kind(class, priority)]
    }

    /// How long jobs waited, from their submission to their start; those that were never started
    /// are not among them.
    pub fn queue_wait(&self, class: Class, priority: Priority) -> Histogram {
        self.queue_wait[kind(class, priority)].clone()
    }

    /// How long jobs ran, from their start to their end.
    pub fn run_time(&self, class: Class, priority: Priority) -> Histogram {
        self.run_time[kind(class, priority)].clone()
    }

    /// The threads for jobs of class [`Hybrid`](Class::Hybrid), and how many are blocked.
    pub fn hybrid_threads(&self) -> HybridThreads {
        self.hybrid_threads
    }

    /// How many jobs of class [`Auto`](Class::Auto) were placed in which class, refused ones too.
    pub fn placed(&self) -> Placed {
        self.placed
    }

    /// How often workers took work that was not their own.
    pub fn steals(&self) -> Steals {
        self.steals
    }

    /// How often a sleeping CPU worker was woken for new work.
    pub fn wakes(&self) -> u64 {
        self.wakes
    }

    /// How often a CPU worker went to sleep.
    pub fn parks(&self) -> u64 {
        self.parks
    }

    /// How often a CPU worker looked at everybody else's work and found none that it takes.
    pub fn failed_searches(&self) -> u64 {
        self.failed_searches
    }

    /// How often a fork was made stealable because somebody was idle. The others were never more than
    /// entries in a list of their own worker.
    pub fn promotions(&self) -> u64 {
        self.promotions
    }

    /// How often the kernel has stopped the cgroup because it had used up its CPU quota (`nr_throttled`
    /// of its `cpu.stat`), since there is that group; `None` without a quota. Urgent work is late each
    /// time.
    pub fn nr_throttled(&self) -> Option<u64> {
        self.nr_throttled
    }

    /// The breakers of all names that have one, in the order of the names.
    pub fn breakers(&self) -> &[BreakerMetrics] {
        &self.breakers
    }

    /// How much CPU time the threads have used that compute: for jobs, for forks, and for finding them.
    /// Those of class Io are not among them.
    pub fn cpu_time(&self) -> Duration {
        self.cpu_time
    }

    /// How long the engine has been there.
    pub fn uptime(&self) -> Duration {
        self.uptime
    }

    /// The share of the CPUs of all workers that was used since the engine was built: 1.0 where each has
    /// been busy all the time. Above it where spare workers have run beside those that wait.
    pub fn utilisation(&self) -> f64 {
        self.utilisation_since(&Metrics::default())
    }

    /// As [`utilisation`](Metrics::utilisation), since an earlier moment of the same engine. 0.0 if no time
    /// has passed.
    pub fn utilisation_since(&self, earlier: &Metrics) -> f64 {
        let used = self.cpu_time.saturating_sub(earlier.cpu_time);
        let passed = self.uptime.saturating_sub(earlier.uptime);
        let available = passed.as_secs_f64() * self.workers as f64;
        if available > 0.0 {
            used.as_secs_f64() / available
        } else {
            0.0
        }
    }

    /// CPU workers.
    pub fn workers(&self) -> usize {
        self.workers
    }
}
