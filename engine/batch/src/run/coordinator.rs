//! Which job runs next, and what becomes of those that do not: policy alone.
//!
//! It knows no processes and no clock, so every rule of the job file is tested here by itself. It
//! is told what ends, and answers with what may start ([`next`](Coordinator::next)) and what has
//! become of jobs ([`take_news`](Coordinator::take_news)). A job is waiting (for needs), ready,
//! running, delayed (for its next attempt) or over.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use reiver::{Class, Priority};

use super::tokens::Slots;
use crate::Plan;
use crate::event::{Reason, Status};
use crate::job_file::{Backoff, When};
use crate::plan::{JobIndex, Retries};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// With how many needs that have not ended.
    Waiting(u32),
    Ready,
    Running,
    Delayed,
    Over,
}

/// How a job was for those that need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
}

/// What has become of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It is tried again after a delay.
    Retried {
        job: JobIndex,
        /// The attempt that failed.
        attempt: u32,
        delay: Duration,
    },
    /// It is over, and this is how it ended.
    Finished(JobIndex, Status),
    /// It is over without having run, because of this need.
    Skipped(JobIndex, JobIndex),
}

/// Why nothing starts any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// So many jobs have failed that the rest is not worth it, or the run is in trouble.
    Failures,
    /// Somebody outside wants the run to end.
    Cancel,
}

#[derive(Debug)]
pub(crate) struct Coordinator<'p> {
    plan: &'p Plan,
    states: Vec<State>,
    /// The last attempt that was started, by job.
    attempts: Vec<u32>,
    /// Why the last attempt of a delayed job failed is kept here until its next one.
    last_reason: Vec<Option<Reason>>,
    /// Who needs a job: those of job `j` are `dependents[first_dependent[j]..first_dependent[j+1]]`.
    dependents: Vec<(JobIndex, When)>,
    first_dependent: Vec<u32>,
    /// By class: the most urgent first, then in file order.
    ready: [BinaryHeap<Reverse<(Priority, JobIndex)>>; 2],
    free: [u32; 2],
    delayed: BinaryHeap<Reverse<(Instant, JobIndex)>>,
    news: VecDeque<News>,
    /// Jobs that are not over.
    left: usize,
    failed: u32,
    stop: Option<Stop>,
    random: u64,
}

impl<'p> Coordinator<'p> {
    /// With a seed for the waits that are random, and marks at the jobs that have succeeded before, if
    /// there are any.
    pub(crate) fn new(plan: &'p Plan, seed: u64, done: &[bool]) -> Coordinator<'p> {
        let count = plan.len();
        let mut first_dependent = vec![0u32; count + 1];
        for job in plan.jobs() {
            for need in plan.needs(job) {
                first_dependent[need.job.0 as usize + 1] += 1;
            }
        }
        for index in 0..count {
            first_dependent[index + 1] += first_dependent[index];
        }
        let mut next = first_dependent.clone();
        let edges = first_dependent[count] as usize;
        let mut dependents = vec![(JobIndex(0), When::Success); edges];
        for job in plan.jobs() {
            for need in plan.needs(job) {
                let place = &mut next[need.job.0 as usize];
                dependents[*place as usize] = (job, need.when);
                *place += 1;
            }
        }
        let limits = plan.limits();
        let mut coordinator = Coordinator {
            plan,
            states: vec![State::Waiting(0); count],
            attempts: vec![0; count],
            last_reason: vec![None; count],
            dependents,
            first_dependent,
            ready: Default::default(),
            free: [limits.cpus, limits.io],
            delayed: BinaryHeap::new(),
            news: VecDeque::new(),
            left: count,
            failed: 0,
            stop: None,
            random: seed,
        };
        let is_done = |job: JobIndex| done.get(job.0 as usize) == Some(&true);
        for job in plan.jobs() {
            coordinator.states[job.0 as usize] = match u32::try_from(plan.needs(job).len()) {
                _ if is_done(job) => State::Over,
                Ok(needs) => State::Waiting(needs),
                Err(_) => unreachable!("needs are counted in 32 bits"),
            };
        }
        for job in plan.jobs() {
            if is_done(job) {
                coordinator.left -= 1;
                coordinator.tell_dependents(job, End::Succeeded);
            } else if plan.needs(job).is_empty() {
                coordinator.make_ready(job);
            }
        }
        coordinator
    }

    /// The next attempt that may start now, its slots taken.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(JobIndex, u32)> {
        while let Some(&Reverse((at, job))) = self.delayed.peek() {
            if at > now {
                break;
            }
            self.delayed.pop();
            if self.states[job.0 as usize] == State::Delayed {
                self.make_ready(job);
            }
        }
        if self.stop.is_some() {
            return None;
        }
        // Of the two classes' first jobs the more urgent, then the earlier: the order of the file.
        let mut classes = [0, 1];
        classes.sort_by_key(|&class| {
            self.ready[class]
                .peek()
                .map_or((1, None), |&Reverse(first)| (0, Some(first)))
        });
        for class in classes {
            // Only the first of a class: a job that needs several slots is not passed over, slots
            // that come free are kept for it.
            let Some(&Reverse((_, job))) = self.ready[class].peek() else {
                continue;
            };
            let slots = self.slots(job);
            if slots <= self.free[class] {
                self.ready[class].pop();
                self.free[class] -= slots;
                self.states[job.0 as usize] = State::Running;
                self.attempts[job.0 as usize] += 1;
                return Some((job, self.attempts[job.0 as usize]));
            }
        }
        None
    }

    /// When the next delayed job may become ready.
    pub(crate) fn next_delay(&self) -> Option<Instant> {
        self.delayed.peek().map(|&Reverse((at, _))| at)
    }

    /// A running attempt has ended.
    pub(crate) fn ended(&mut self, job: JobIndex, status: Status, now: Instant) {
        debug_assert_eq!(self.states[job.0 as usize], State::Running);
        self.free[self.class(job)] += self.slots(job);
        let retries = self.plan.settings(job).retries;
        let attempt = self.attempts[job.0 as usize];
        match status {
            Status::Failed(reason) if self.stop.is_none() && attempt <= retries.count => {
                let delay = self.delay(&retries, attempt);
                self.last_reason[job.0 as usize] = Some(reason);
                self.states[job.0 as usize] = State::Delayed;
                // A wait that the clock cannot hold is one without end.
                if let Some(at) = now.checked_add(delay) {
                    self.delayed.push(Reverse((at, job)));
                }
                let attempt = self.attempt(job);
                self.news.push_back(News::Retried {
                    job,
                    attempt,
                    delay,
                });
            }
            _ => self.finish(job, status),
        }
    }

    /// Starts nothing any more. What waits for a retry has failed (or, where the run is cancelled,
    /// is cancelled); what is ready is cancelled; what waits for needs follows as those end.
    pub(crate) fn stop(&mut self, stop: Stop) {
        if self.stop == Some(Stop::Cancel) || self.stop == Some(stop) {
            return;
        }
        self.stop = Some(stop);
        let delayed: Vec<JobIndex> = self
            .plan
            .jobs()
            .filter(|job| self.states[job.0 as usize] == State::Delayed)
            .collect();
        self.delayed.clear();
        for job in delayed {
            let status = match (stop, self.last_reason[job.0 as usize]) {
                (Stop::Failures, Some(reason)) => Status::Failed(reason),
                _ => Status::Cancelled,
            };
            self.finish(job, status);
        }
        for class in 0..self.ready.len() {
            for Reverse((_, job)) in std::mem::take(&mut self.ready[class])
                .into_sorted_vec()
                .into_iter()
                .rev()
            {
                if self.states[job.0 as usize] == State::Ready {
                    self.finish(job, Status::Cancelled);
                }
            }
        }
    }

    /// True once every job is over.
    pub(crate) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// What has become of jobs since this was asked last, in order.
    pub(crate) fn take_news(&mut self) -> VecDeque<News> {
        std::mem::take(&mut self.news)
    }

    /// The last attempt of a job that was started; 0 before the first.
    pub(crate) fn attempt(&self, job: JobIndex) -> u32 {
        self.attempts[job.0 as usize]
    }

    fn class(&self, job: JobIndex) -> usize {
        match self.plan.settings(job).class {
            Class::Cpu => 0,
            Class::Io => 1,
        }
    }

    fn slots(&self, job: JobIndex) -> u32 {
        let settings = self.plan.settings(job);
        match settings.class {
            Class::Cpu => settings.cpus.unwrap_or(1),
            Class::Io => 1,
        }
    }

    fn make_ready(&mut self, job: JobIndex) {
        if self.stop.is_some() {
            return self.finish(job, Status::Cancelled);
        }
        self.states[job.0 as usize] = State::Ready;
        let priority = self.plan.settings(job).priority;
        self.ready[self.class(job)].push(Reverse((priority, job)));
    }

    fn finish(&mut self, job: JobIndex, status: Status) {
        self.states[job.0 as usize] = State::Over;
        self.left -= 1;
        self.news.push_back(News::Finished(job, status));
        let end = match status {
            Status::Success => End::Succeeded,
            Status::Failed(_) => End::Failed,
            Status::Cancelled => End::Cancelled,
        };
        self.tell_dependents(job, end);
        if end == End::Failed {
            self.failed += 1;
            if self
                .plan
                .max_fails()
                .is_some_and(|most| self.failed >= most)
            {
                self.stop(Stop::Failures);
            }
        }
    }

    /// Says to everybody who needs `job` how it ended, and so on to those who need them: a list and
    /// not recursion, for chains may be as long as the file.
    fn tell_dependents(&mut self, job: JobIndex, end: End) {
        let mut over = VecDeque::from([(job, end)]);
        while let Some((job, end)) = over.pop_front() {
            let first = self.first_dependent[job.0 as usize] as usize;
            let last = self.first_dependent[job.0 as usize + 1] as usize;
            for index in first..last {
                let (dependent, when) = self.dependents[index];
                let State::Waiting(needs) = self.states[dependent.0 as usize] else {
                    continue;
                };
                let met = match (when, end) {
                    (_, End::Cancelled) => false,
                    (When::Success, end) => end == End::Succeeded,
                    (When::Failure, end) => end == End::Failed,
                    (When::Always, _) => true,
                };
                if met && needs == 1 && self.stop.is_none() {
                    self.make_ready(dependent);
                } else if met && needs > 1 {
                    self.states[dependent.0 as usize] = State::Waiting(needs - 1);
                } else {
                    self.states[dependent.0 as usize] = State::Over;
                    self.left -= 1;
                    let cancelled = met || end == End::Cancelled;
                    self.news.push_back(if cancelled {
                        News::Finished(dependent, Status::Cancelled)
                    } else {
                        News::Skipped(dependent, job)
                    });
                    let end = if cancelled {
                        End::Cancelled
                    } else {
                        End::Skipped
                    };
                    over.push_back((dependent, end));
                }
            }
        }
    }

    /// The wait after attempt number `attempt`.
    fn delay(&mut self, retries: &Retries, attempt: u32) -> Duration {
        let factor = match retries.backoff {
            Backoff::Fixed => 1,
            Backoff::Exponential => 1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX),
        };
        let delay = retries.delay.checked_mul(factor).unwrap_or(Duration::MAX);
        let delay = retries.max_delay.map_or(delay, |most| delay.min(most));
        if retries.jitter {
            delay.mul_f64(self.random_part()).min(delay)
        } else {
            delay
        }
    }

    /// From 0 to 1 (SplitMix64, by Steele, Lea and Flood).
    fn random_part(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        #[expect(
            clippy::cast_precision_loss,
            reason = "53 bits are a fraction's precision"
        )]
        let part = (bits >> 11) as f64 / (1u64 << 53) as f64;
        part
    }
}

/// Cpu slots come and go: what runs inside jobs shares them.
impl Slots for Coordinator<'_> {
    fn idle_cpus(&self) -> u32 {
        match self.ready[0].is_empty() {
            true => self.free[0],
            false => 0,
        }
    }

    fn wanted_cpus(&self) -> u32 {
        let first = self.ready[0].peek().filter(|_| self.stop.is_none());
        first.map_or(0, |&Reverse((_, job))| {
            self.slots(job).saturating_sub(self.free[0])
        })
    }

    fn free_cpus(&self) -> u32 {
        self.free[0]
    }

    fn add_cpus(&mut self, slots: u32) {
        self.free[0] += slots;
    }

    fn remove_cpus(&mut self, slots: u32) {
        self.free[0] -= slots;
    }
}

#[cfg(test)]
mod tests;
