//! Where a worker finds the next thing to do.
//!
//! It looks in this order, from the start each time:
//! 1. its own private list and deque: forks of what it has begun, the newest first;
//! 2. P0 jobs, of its own node, then of others by distance;
//! 3. forks of the workers of its node, and those that came to its node from outside;
//! 4. P1 jobs of its node;
//! 5. node by node by distance: forks of its workers and from outside, its P1 jobs;
//! 6. P2 jobs, of its own node, then of others by distance.
//!
//! It does 5 only once few of its mates hold forks, or it has waited for them to share those, and looked
//! whether it can rob them: work is to stay at its node while there is enough.
//!
//! Of the P1 jobs of another node it fetches half, for its mates: a burst on one node spreads so. What is
//! stolen is the oldest fork of the victim, which is the largest part of its work.
//!
//! Before it sleeps it looks twice more: if others hold private forks, because they are in long leaves,
//! it takes the older half of those from the nearest; and it takes part in chunks of jobs.

use crossbeam_deque::Steal;

use super::{MOST_NESTED, Takes, Worker, WorkerFace, run};
use crate::Priority;
use crate::cell::AnyJob;
use crate::crew::{Crew, Rank};
use crate::current::Current;
use crate::fork::Fork;
use crate::protocol::refs::Ref;
use crate::queues::{NodeQueues, Task};
use crate::scope::bundled;
use crate::shared::Shared;
use crate::steal_order::{Distance, StealOrder};

/// A look at a mate's private list disturbs the mate, so few are asked.
const MATES_ASKED: usize = 4;

impl Worker {
    /// The next thing to do, of what it takes. It does not go to other nodes for forks or P1 jobs while
    /// its mates have forks and it is `patient`.
    pub(super) fn find(&self, shared: &Shared, takes: Takes, patient: bool) -> Option<Task> {
        let own = self.pop(shared).map(Task::Fork);
        if own.is_some() || takes == Takes::Own {
            return own;
        }
        let all = takes == Takes::All;
        let crew = self.crew(shared);
        let jobs = |node: usize, priority: Priority| {
            let job = all.then(|| crew.queues[node].take(priority, node == self.node));
            let job = job.flatten()?;
            Some(Task::Job(crew.see(shared, self.node, job)))
        };
        let forks_of = |node: usize| {
            let fork = crew.queues[node].take_fork()?;
            Some(Task::Fork(crew.see(shared, self.node, fork)))
        };
        if all && let Some(aged) = self.aged(shared) {
            return Some(Task::Job(aged));
        }
        let far = &shared.machine.near[self.node];
        let found = far
            .iter()
            .find_map(|&node| jobs(node, Priority::P0))
            .or_else(|| self.steal_from_mates(shared).map(Task::Fork))
            .or_else(|| forks_of(self.node))
            .or_else(|| {
                if !(all && self.found_job.get()) {
                    return jobs(self.node, Priority::P1);
                }
                let job = crew.queues[self.node].take_next()?;
                Some(Task::Job(crew.see(shared, self.node, job)))
            })
            .or_else(|| {
                let has_work = |&node: &usize| crew.has_work_at(shared, node);
                let order = self.order(shared, || far[1..].iter().any(has_work))?;
                if patient && far[1..].iter().any(has_work) && self.may_share(shared, order) {
                    return None;
                }
                order.remote.iter().find_map(|(node, victims)| {
                    let node = shared.machine.index_of(*node)?;
                    let victims = victims.iter().map(|victim| victim.worker);
                    let task = victims
                        .chain(crew.active_spares(node))
                        .find_map(|victim| steal(crew, victim))
                        .map(Task::Fork)
                        .or_else(|| forks_of(node))
                        .or_else(|| {
                            let job = jobs(node, Priority::P1)?;
                            crew.fetch_half(shared, node, self.node);
                            Some(job)
                        })?;
                    shared.metrics.note_steal(self.lane, Distance::Remote);
                    Some(task)
                })
            })
            .or_else(|| far.iter().find_map(|&node| jobs(node, Priority::P2)));
        self.found_job.set(matches!(found, Some(Task::Job(_))));
        found
    }

    /// Inside of a job that is less urgent, at a place where it lets others in: runs the urgent ones that
    /// wait for this worker, where they have none of their own.
    pub(crate) fn serve_urgent(&self, current: &Current) {
        let shared = current.engine().shared();
        let queues = &self.crew(shared).queues[self.node];
        while queues.has(Priority::P0, true) && current.depth() < MOST_NESTED {
            match queues.take(Priority::P0, true) {
                Some(job) => run(Task::Job(job.value), current),
                None => break,
            }
        }
    }

    /// A background job that has waited for too long, for an ordinary worker.
    fn aged(&self, shared: &Shared) -> Option<Ref<dyn AnyJob>> {
        let is_ordinary = self.rank == Rank::Ordinary;
        let crew = is_ordinary.then(|| shared.background()).flatten()?;
        let patience = shared.options.background_patience;
        let near = &shared.machine.near[self.node];
        near.iter().find_map(|&node| {
            let is_own = node == self.node;
            crew.age(shared, node, is_own, patience)
        })
    }

    /// Takes private forks of others, who are in long leaves: the last resort, for it costs a barrier.
    /// One is to be done now; the rest lies where others can steal it.
    pub(super) fn rob(&self, shared: &Shared, takes: Takes) -> Option<Task> {
        if takes == Takes::Own {
            return None;
        }
        let crew = self.crew(shared);
        let order = self.order(shared, || crew.has_private_forks(shared))?;
        let mates = self.mates(shared, order);
        let others = order.remote.iter().flat_map(|(node, victims)| {
            let node = shared.machine.index_of(*node);
            let spares = node.map_or(0..0, |node| crew.active_spares(node));
            let victims = victims.iter().map(|victim| victim.worker);
            victims
                .chain(spares)
                .map(|victim| (victim, Distance::Remote))
        });
        let mut taken = Vec::new();
        let (_, distance) = mates
            .chain(others)
            .filter(|&(victim, _)| crew.workers[victim].robber.is_worth_it())
            .find(|&(victim, _)| crew.workers[victim].robber.rob(|fork| taken.push(fork)) > 0)?;
        shared.metrics.note_steal(self.lane, distance);
        let mut forks = bundled(taken).into_iter();
        let first = forks.next();
        if forks.len() > 0 {
            forks.for_each(|fork| self.push_shared(fork));
            crew.wake_one(shared, self.node);
        }
        first.map(Task::Fork)
    }

    /// Takes part in a chunk of jobs that another worker has taken, who may be in a long one of them.
    pub(super) fn help(&self, shared: &Shared, takes: Takes) -> Option<Task> {
        if takes != Takes::All {
            return None;
        }
        // Those after it first, so that helpers spread; itself last, for its place may have been handed
        // on inside of a chunk.
        let workers = &self.crew(shared).workers;
        let after = self.index + 1..workers.len();
        after
            .chain(0..=self.index)
            .find_map(|victim| workers[victim].chunk())
            .map(Task::Help)
    }

    /// Where it steals, if that is known, or is needed now.
    fn order<'s>(
        &self,
        shared: &'s Shared,
        is_needed: impl FnOnce() -> bool,
    ) -> Option<&'s StealOrder> {
        let crew = self.crew(shared);
        let seat = crew.workers[self.index].seat_number;
        let known = crew.orders.known(seat);
        let find = || crew.orders.find(&shared.machine.topology, seat);
        known.or_else(|| is_needed().then(find))
    }

    /// True if half of its nearest mates have forks that nobody has asked for, and so will share them, or
    /// be robbed of them. Where few do, others of its node are after those.
    fn may_share(&self, shared: &Shared, order: &StealOrder) -> bool {
        let crew = self.crew(shared);
        let holds = |(mate, _): (usize, Distance)| crew.workers[mate].robber.is_worth_it();
        let (asked, hold) = self
            .mates(shared, order)
            .take(MATES_ASKED)
            .map(holds)
            .fold((0, 0), |(asked, hold), holds| {
                (asked + 1, hold + usize::from(holds))
            });
        hold > 0 && 2 * hold >= asked
    }

    fn steal_from_mates(&self, shared: &Shared) -> Option<Fork> {
        let crew = self.crew(shared);
        let order = self.order(shared, || crew.has_forks(shared, self.node))?;
        self.mates(shared, order).find_map(|(victim, distance)| {
            let fork = steal(crew, victim)?;
            shared.metrics.note_steal(self.lane, distance);
            Some(fork)
        })
    }

    /// The other workers of its node, nearest first.
    fn mates(
        &self,
        shared: &Shared,
        order: &StealOrder,
    ) -> impl Iterator<Item = (usize, Distance)> {
        let mates = order
            .same_node
            .iter()
            .map(|victim| (victim.worker, victim.distance));
        // A spare has the order of the worker whose seat it shares, in which that one is not.
        let twin = self.twin.map(|twin| (twin, Distance::SameCache));
        let spares = self.crew(shared).active_spares(self.node);
        let spares = spares.map(|spare| (spare, Distance::SameNode));
        mates
            .chain(twin)
            .chain(spares)
            .filter(|&(victim, _)| victim != self.index)
    }

    /// True if there is work that it does not take while it waits.
    pub(super) fn leaves_work(&self, shared: &Shared, takes: Takes) -> bool {
        let has_jobs = |(node, queues): (usize, &NodeQueues)| {
            queues.has_jobs(node == self.node) || (takes == Takes::Own && queues.has_forks())
        };
        let has_fork = |other: &WorkerFace| other.has_forks() || other.robber.is_worth_it();
        let crew = self.crew(shared);
        let has_forks = || takes == Takes::Own && crew.workers.iter().any(has_fork);
        crew.queues.iter().enumerate().any(has_jobs)
            || has_forks()
            || crew.workers.iter().any(WorkerFace::has_chunk)
            || (self.rank == Rank::Ordinary && shared.is_background_overdue(self.node))
    }
}

fn steal(crew: &Crew, victim: usize) -> Option<Fork> {
    let victim = &crew.workers[victim];
    // Cheaper than to steal in vain, and most have nothing at most times.
    if !victim.has_forks() {
        return None;
    }
    loop {
        match victim.stealer.steal() {
            Steal::Success(fork) => return Some(fork),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}
