//! Which job runs next, and what becomes of those that do not: policy alone.
//!
//! It knows no processes and no clock, so every rule of the job file is tested here by itself. It
//! is told what ends, and answers with what may start ([`next`](Coordinator::next)) and what has
//! become of jobs ([`take_news`](Coordinator::take_news)). A job is waiting (for needs), ready,
//! running, delayed (for its next attempt) or over.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::ops::Deref;
use std::time::{Duration, Instant};

use reiver::{Class, Priority};

use super::heads::Heads;
use super::stock::{Demand, Held, Kept, Stock};
use super::tokens::Slots;
use crate::Plan;
use crate::event::{Reason, Status, Usage};
use crate::job_file::{Backoff, When};
use crate::learnt::Profile;
use crate::plan::{Dependents, JobIndex, Retries, Settings};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// For what it needs.
    Waiting,
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

/// `P` is where the plan is: borrowed, or shared with others.
#[derive(Debug)]
pub(crate) struct Coordinator<P> {
    plan: P,
    states: Vec<State>,
    /// The last attempt that was started, by job.
    attempts: Vec<u32>,
    /// Why the last attempt of a delayed job failed is kept here until its next one.
    last_reason: Vec<Option<Reason>>,
    dependents: Dependents,
    /// Ready jobs, in a queue for each kind of demand.
    queues: Vec<Queue>,
    /// By its demand.
    queue_for: HashMap<Demand, u32>,
    /// The queue of each table's jobs.
    queue_of: Vec<u32>,
    /// What was learnt of jobs of class auto, by table, until it has moved them.
    profiles: HashMap<u32, Profile>,
    /// The queue that running jobs of class auto were taken from: their table may have another by now.
    taken_from: HashMap<JobIndex, u32>,
    heads: Heads,
    stock: Stock,
    /// What running jobs hold besides their slots, if anything.
    held: HashMap<JobIndex, Held>,
    /// Deadlines that have not passed, since the start of the run; the next one last.
    deadlines: Vec<(Duration, JobIndex)>,
    /// How far the run was when deadlines were looked at.
    clock: Duration,
    delayed: BinaryHeap<Reverse<(Instant, JobIndex)>>,
    news: VecDeque<News>,
    /// Jobs that are not over.
    left: usize,
    failed: u32,
    stop: Option<Stop>,
    random: u64,
}

/// Ready jobs that need the same to start: the most urgent first, then in file order. Among them may
/// be some that are over, or have gone to another queue.
#[derive(Debug)]
struct Queue {
    demand: Demand,
    jobs: BinaryHeap<Reverse<(Priority, JobIndex)>>,
}

impl<P: Deref<Target = Plan> + Clone> Coordinator<P> {
    /// With a seed for the waits that are random, and marks at the jobs that have succeeded before, if
    /// there are any.
    pub(crate) fn new(plan: P, seed: u64, done: &[bool]) -> Coordinator<P> {
        let count = plan.len();
        let deadline_of = |job: JobIndex| Some((plan.settings(job).deadline?, job));
        let mut deadlines: Vec<_> = plan.jobs().filter_map(deadline_of).collect();
        deadlines.sort_unstable_by(|a, b| b.cmp(a));
        let mut coordinator = Coordinator {
            plan: plan.clone(),
            states: vec![State::Waiting; count],
            attempts: vec![0; count],
            last_reason: vec![None; count],
            dependents: Dependents::of(&plan),
            queues: Vec::new(),
            queue_for: HashMap::new(),
            queue_of: Vec::with_capacity(plan.tables().len()),
            profiles: HashMap::new(),
            taken_from: HashMap::new(),
            heads: Heads::default(),
            stock: Stock::new(&plan),
            held: HashMap::new(),
            deadlines,
            clock: Duration::ZERO,
            delayed: BinaryHeap::new(),
            news: VecDeque::new(),
            left: count,
            failed: 0,
            stop: None,
            random: seed,
        };
        // Tables that follow each other mostly share their settings.
        let mut last: Option<(&Settings, u32)> = None;
        for settings in plan.tables() {
            let queue = match last {
                Some((same, queue)) if std::ptr::eq(same, settings) => queue,
                _ => coordinator.queue_for(Demand::of(&plan, settings, settings.class)),
            };
            last = Some((settings, queue));
            coordinator.queue_of.push(queue);
        }
        let is_done = |job: JobIndex| done.get(job.0 as usize) == Some(&true);
        for job in plan.jobs().filter(|job| is_done(*job)) {
            coordinator.states[job.0 as usize] = State::Over;
        }
        for job in plan.jobs() {
            if is_done(job) {
                coordinator.left -= 1;
                coordinator.tell_dependents(job, End::Succeeded);
            } else if plan.needs(job).next().is_none() {
                coordinator.make_ready(job);
            }
        }
        coordinator
    }

    /// The next attempt that may start now, all that it needs taken.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(JobIndex, u32)> {
        self.pass_delays(now);
        if self.stop.is_some() {
            return None;
        }
        if self.stock.has_no_slot() {
            return None;
        }
        let mut kept = Kept::default();
        let (job, queue, held) = {
            let mut heads = self.heads.in_order();
            loop {
                let (_, job, queue) = heads.next(|lane| self.stock.is_open(lane, &kept))?;
                // Only the first of each queue: what one does not get, those behind it do not get either.
                let demand = &self.queues[queue as usize].demand;
                if let Some(held) = self.stock.take(demand, &mut kept) {
                    break (job, queue, held);
                }
            }
        };
        self.leave_queue(queue);
        if self.plan.settings(job).class == Class::Auto {
            self.taken_from.insert(job, queue);
        }
        if !held.is_nothing() {
            self.held.insert(job, held);
        }
        self.states[job.0 as usize] = State::Running;
        self.attempts[job.0 as usize] += 1;
        Some((job, self.attempts[job.0 as usize]))
    }

    /// How many cpu slots the first job lacks that waits for nothing else; nothing if some job may start.
    fn lacks_cpus(&self) -> Option<u32> {
        if self.stop.is_some() {
            return Some(0);
        }
        let mut kept = Kept::default();
        let mut heads = self.heads.in_order();
        while let Some((_, _, queue)) = heads.next(|lane| self.stock.is_open(lane, &kept)) {
            let demand = &self.queues[queue as usize].demand;
            if self.stock.look(demand, &mut kept).is_some() {
                return None;
            }
            if kept.waits_for_cpus() {
                return Some(self.stock.lacks_cpus(demand));
            }
        }
        Some(0)
    }

    /// Whose slots a running job holds: `Cpu` or `Io`.
    pub(crate) fn class(&self, job: JobIndex) -> Class {
        let queue = self.taken_from.get(&job).copied();
        let queue = queue.unwrap_or_else(|| self.queue(job));
        self.queues[queue as usize].demand.class()
    }

    /// What a running job holds besides its slots, if anything.
    pub(crate) fn held(&self, job: JobIndex) -> Option<&Held> {
        self.held.get(&job)
    }

    /// The run is so old: jobs whose deadline has passed fail, but for those that run, which know
    /// theirs themselves.
    pub(crate) fn pass_deadlines(&mut self, clock: Duration) {
        self.clock = clock;
        while let Some(&(deadline, job)) = self.deadlines.last() {
            if deadline > clock {
                break;
            }
            self.deadlines.pop();
            match self.states[job.0 as usize] {
                State::Over | State::Running => {}
                State::Ready => {
                    self.finish(job, Status::Failed(Reason::Deadline));
                    let queue = self.queue(job);
                    self.settle_head(queue, None);
                }
                State::Waiting | State::Delayed => {
                    self.finish(job, Status::Failed(Reason::Deadline));
                }
            }
        }
    }

    /// When the next deadline passes, since the start of the run.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.last().map(|&(deadline, _)| deadline)
    }

    /// Delayed jobs whose time has come are ready, whether they may start or not.
    pub(crate) fn pass_delays(&mut self, now: Instant) {
        while let Some(&Reverse((at, job))) = self.delayed.peek() {
            if at > now {
                break;
            }
            self.delayed.pop();
            if self.states[job.0 as usize] == State::Delayed {
                self.make_ready(job);
            }
        }
    }

    /// When the next delayed job may become ready.
    pub(crate) fn next_delay(&self) -> Option<Instant> {
        self.delayed.peek().map(|&Reverse((at, _))| at)
    }

    /// An attempt of a job of class auto did this with its time. Once that moves its table to io slots, those
    /// of it that are ready wait for those, in their old order; what runs keeps the slots that it has.
    pub(crate) fn learn(&mut self, job: JobIndex, usage: &Usage) {
        let plan = self.plan.clone();
        let table = plan.table_of(job);
        let settings = plan.settings(job);
        let before = self.queue(job);
        let is_moved = self.queues[before as usize].demand.class() == Class::Io;
        if settings.class != Class::Auto || is_moved {
            return;
        }
        let profile = self.profiles.entry(table).or_default();
        profile.add(usage);
        if !profile.waits() {
            return;
        }
        self.profiles.remove(&table);
        let demand = Demand::of(&plan, settings, Class::Io);
        self.queue_of[table as usize] = self.queue_for(demand);
        for job in plan.jobs_of(table) {
            if self.states[job.0 as usize] == State::Ready {
                self.enter_queue(job);
            }
        }
        self.settle_head(before, None);
    }

    /// What a running attempt holds is others'.
    fn give_back(&mut self, job: JobIndex) {
        debug_assert_eq!(self.states[job.0 as usize], State::Running);
        let held = self.held.remove(&job).unwrap_or_default();
        let queue = self.taken_from.remove(&job);
        let queue = queue.unwrap_or_else(|| self.queue(job));
        self.stock
            .give_back(&self.queues[queue as usize].demand, held);
    }

    /// True once nothing starts any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_some()
    }

    /// An attempt was not started after all, for the run has been stopped: there never was one.
    pub(crate) fn withdrawn(&mut self, job: JobIndex) {
        self.give_back(job);
        self.attempts[job.0 as usize] -= 1;
        let status = self.unstarted(job);
        self.finish(job, status);
    }

    /// How a job ends whose next attempt does not start any more.
    fn unstarted(&self, job: JobIndex) -> Status {
        match (self.stop, self.last_reason[job.0 as usize]) {
            (Some(Stop::Failures), Some(reason)) => Status::Failed(reason),
            _ => Status::Cancelled,
        }
    }

    /// A running attempt has ended.
    pub(crate) fn ended(&mut self, job: JobIndex, status: Status, now: Instant) {
        self.give_back(job);
        let settings = self.plan.settings(job);
        let retries = settings.retries;
        let attempt = self.attempts[job.0 as usize];
        let is_late = settings
            .deadline
            .is_some_and(|deadline| deadline <= self.clock);
        let status = match status {
            // Its next attempt would come too late.
            Status::Failed(_) if is_late && attempt <= retries.count => {
                Status::Failed(Reason::Deadline)
            }
            status => status,
        };
        match status {
            Status::Failed(reason)
                if self.stop.is_none()
                    && reason != Reason::Deadline
                    && attempt <= retries.count =>
            {
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
            let status = self.unstarted(job);
            self.finish(job, status);
        }
        self.heads.clear();
        let queues = self.queues.iter_mut();
        let mut ready: Vec<Reverse<(Priority, JobIndex)>> = queues
            .flat_map(|queue| std::mem::take(&mut queue.jobs))
            .collect();
        ready.sort_unstable_by(|a, b| b.cmp(a));
        for Reverse((_, job)) in ready {
            if self.states[job.0 as usize] == State::Ready {
                self.finish(job, Status::Cancelled);
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

    fn queue(&self, job: JobIndex) -> u32 {
        self.queue_of[self.plan.table_of(job) as usize]
    }

    fn queue_for(&mut self, demand: Demand) -> u32 {
        *self.queue_for.entry(demand).or_insert_with_key(|demand| {
            let (demand, jobs) = (demand.clone(), BinaryHeap::new());
            self.queues.push(Queue { demand, jobs });
            u32::try_from(self.queues.len() - 1).expect("at most two for each table")
        })
    }

    /// Takes the first job out of a queue.
    fn leave_queue(&mut self, queue: u32) {
        let head = self.queues[queue as usize].jobs.pop();
        self.settle_head(queue, head.map(|Reverse((priority, job))| (priority, job)));
    }

    /// Sees to it that the first of a queue that is ready still is its head; `gone` was.
    fn settle_head(&mut self, queue: u32, gone: Option<(Priority, JobIndex)>) {
        let Queue { demand, jobs } = &mut self.queues[queue as usize];
        let lane = demand.lane();
        if let Some((priority, job)) = gone {
            self.heads.remove(lane, (priority, job, queue));
        }
        while let Some(&Reverse((priority, job))) = jobs.peek() {
            let is_here = self.queue_of[self.plan.table_of(job) as usize] == queue;
            if self.states[job.0 as usize] == State::Ready && is_here {
                self.heads.insert(lane, (priority, job, queue));
                break;
            }
            jobs.pop();
            self.heads.remove(lane, (priority, job, queue));
        }
    }

    fn make_ready(&mut self, job: JobIndex) {
        if self.stop.is_some() {
            return self.finish(job, Status::Cancelled);
        }
        self.states[job.0 as usize] = State::Ready;
        self.enter_queue(job);
    }

    fn enter_queue(&mut self, job: JobIndex) {
        let priority = self.plan.settings(job).priority;
        let queue = self.queue(job);
        let Queue { demand, jobs } = &mut self.queues[queue as usize];
        let first = jobs.peek().map(|&Reverse(first)| first);
        jobs.push(Reverse((priority, job)));
        if first.is_none_or(|first| (priority, job) < first) {
            let lane = demand.lane();
            if let Some((priority, job)) = first {
                self.heads.remove(lane, (priority, job, queue));
            }
            self.heads.insert(lane, (priority, job, queue));
        }
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
            let is_met = |when| match (when, end) {
                (_, End::Cancelled) => false,
                (When::Success, end) => end == End::Succeeded,
                (When::Failure, end) => end == End::Failed,
                (When::Always, _) => true,
            };
            for (list, is_met) in self.dependents.end(job, is_met) {
                let is_skipped = !is_met && end != End::Cancelled;
                for at in 0..self.dependents.waiting(list).len() {
                    let dependent = self.dependents.waiting(list)[at];
                    if self.states[dependent.0 as usize] != State::Waiting {
                        continue;
                    }
                    if is_met && self.stop.is_none() {
                        self.make_ready(dependent);
                        continue;
                    }
                    self.states[dependent.0 as usize] = State::Over;
                    self.left -= 1;
                    let (news, end) = match is_skipped {
                        true => (News::Skipped(dependent, job), End::Skipped),
                        false => (News::Finished(dependent, Status::Cancelled), End::Cancelled),
                    };
                    self.news.push_back(news);
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
impl<P: Deref<Target = Plan> + Clone> Slots for Coordinator<P> {
    fn idle_cpus(&self) -> u32 {
        match self.lacks_cpus() {
            Some(0) => self.stock.free_cpus(),
            _ => 0,
        }
    }

    fn wanted_cpus(&self) -> u32 {
        self.lacks_cpus().unwrap_or(0)
    }

    fn free_cpus(&self) -> u32 {
        self.stock.free_cpus()
    }

    fn runs_others(&self) -> bool {
        self.stock.free_io() < self.plan.limits().io
    }

    fn add_cpus(&mut self, slots: u32) {
        self.stock.add_cpus(slots);
    }

    fn remove_cpus(&mut self, slots: u32) {
        self.stock.remove_cpus(slots);
    }
}

#[cfg(test)]
mod tests;
