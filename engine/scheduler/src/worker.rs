//! One CPU worker: finds the next thing to do, does it, sleeps when there is none.
//!
//! It looks for work in this order, from the start each time:
//! 1. its own deque: forks of what it has begun, the newest first;
//! 2. P0 jobs, of its own node, then of others by distance;
//! 3. forks of the workers of its node, and those that came to its node from outside;
//! 4. P1 jobs of its node;
//! 5. node by node by distance: forks of its workers and from outside, its P1 jobs;
//! 6. P2 jobs, of its own node, then of others by distance.
//!
//! Inside a join or scope it takes forks alone, inside a wait for a job only its own; what it then
//! leaves lying a spare does in its place, see [`spares`](crate::spares).
//!
//! What is stolen is the oldest fork of the victim, which is the largest part of its work.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use crossbeam_deque::{Steal, Stealer};
use crossbeam_utils::Backoff;
use crossbeam_utils::sync::{Parker, Unparker};
use reiver_topology::here::{self, Here};
use reiver_topology::{Seat, place};

use crate::Priority;
use crate::builder::Pinning;
use crate::current::Current;
use crate::fork::Fork;
use crate::panics::contain;
use crate::queues::{NodeQueues, Task};
use crate::shared::Shared;
use crate::sleep::{Bit, Sleep};
use crate::steal_order::{Distance, StealOrder};
use crate::sync::{Ordering, fence};

/// What a worker thread owns.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    /// The index of its node.
    node: usize,
    /// Of a spare: the worker whose seat it shares.
    twin: Option<usize>,
    /// Newest first for its owner: the fork that is in the cache; oldest first for thieves.
    deque: crossbeam_deque::Worker<Fork>,
    parker: Parker,
    unparker: Unparker,
    waker: Waker,
    bit: Bit,
}

/// What others know of it.
#[derive(Debug)]
pub(crate) struct WorkerFace {
    pub(crate) seat: Seat,
    pub(crate) stealer: Stealer<Fork>,
    pub(crate) unparker: Unparker,
    pub(crate) order: Arc<StealOrder>,
}

struct WorkerWaker(Unparker);

impl Wake for WorkerWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Worker {
    pub(crate) fn new(index: usize, node: usize, twin: Option<usize>, bit: Bit) -> Worker {
        let parker = Parker::new();
        let unparker = parker.unparker().clone();
        let waker = Waker::from(Arc::new(WorkerWaker(unparker.clone())));
        Worker {
            index,
            node,
            twin,
            deque: crossbeam_deque::Worker::new_lifo(),
            parker,
            unparker,
            waker,
            bit,
        }
    }

    /// A worker for the current thread, for as long as it lives.
    pub(crate) fn guest(shared: &Shared) -> Worker {
        Worker::new(0, 0, None, shared.sleepers.bit(0, 0))
    }

    pub(crate) fn face(&self, seat: Seat, order: Arc<StealOrder>) -> WorkerFace {
        let (stealer, unparker) = (self.deque.stealer(), self.parker.unparker().clone());
        WorkerFace {
            seat,
            stealer,
            unparker,
            order,
        }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    #[inline]
    pub(crate) fn node(&self) -> usize {
        self.node
    }

    pub(crate) fn unparker(&self) -> &Unparker {
        &self.unparker
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    #[inline]
    pub(crate) fn push(&self, fork: Fork) {
        self.deque.push(fork);
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<Fork> {
        self.deque.pop()
    }

    /// The life of the thread.
    pub(crate) fn live(self, shared: Arc<Shared>) {
        self.live_until(shared, |shared, worker, current| {
            worker.work_until(current, Takes::All, None, |_| shared.is_stopped());
        });
    }

    /// The life of the thread of a spare.
    pub(crate) fn live_as_spare(self, shared: Arc<Shared>) {
        self.live_until(shared, |shared, worker, current| {
            let spares = &shared.spares[worker.node];
            while !shared.is_stopped() {
                worker.work_until(current, Takes::All, None, |_| {
                    shared.is_stopped() || spares.rests(worker.index, shared)
                });
                while !shared.is_stopped() && spares.still_rests(worker.index) {
                    worker.parker.park();
                }
            }
        });
    }

    fn live_until(self, shared: Arc<Shared>, life: impl FnOnce(&Arc<Shared>, &Worker, &Current)) {
        settle(&shared, &self);
        let current = Current::cpu(shared, self);
        let worker = current.worker().expect("this is a CPU worker");
        let shared = current.engine().shared();
        current.set_unparker(&shared.workers[worker.index].unparker);
        life(shared, worker, &current);
        // What came before it was seen that the engine has stopped; whoever comes later sees it.
        // ORDERING: with the fence in `from_outside`.
        fence(Ordering::SeqCst);
        shared.finish_forks(&current);
        here::set(None);
    }

    /// Works until `is_done`; gives false if it is not done by `until`. `is_done` is asked between
    /// tasks and before sleeping, and arranges that the waker it is given ends a sleep.
    ///
    /// Where it is woken for what it does not take, or has found that there is such work, it hands
    /// its place to a spare until it is done.
    pub(crate) fn work_until(
        &self,
        current: &Current,
        takes: Takes,
        until: Option<Instant>,
        mut is_done: impl FnMut(&Waker) -> bool,
    ) -> bool {
        let shared = current.engine().shared();
        let (mut takes, is_waiting) = (takes, takes != Takes::All);
        let sleep = if is_waiting {
            Sleep::Waiting
        } else {
            Sleep::Idle
        };
        // True from the moment that it had nothing to do until it has found something.
        let mut idle = false;
        // Inside code that blocks, a spare has it already.
        let was_handed_on = current.blocks();
        let mut post = if was_handed_on {
            Post::HandedOn
        } else {
            Post::Own
        };
        // From when on it would hand its place on.
        let mut patient_until = None;
        let backoff = Backoff::new();
        let is_late = || until.is_some_and(|until| Instant::now() >= until);
        let done = loop {
            if is_done(&self.waker) {
                break true;
            }
            if is_late() {
                break false;
            }
            if let Some(task) = self.find(shared, takes) {
                if idle {
                    shared.pass_on(self.node);
                    idle = false;
                }
                backoff.reset();
                run(task, current);
                continue;
            }
            if !backoff.is_completed() {
                idle = true;
                backoff.snooze();
                continue;
            }
            if post == Post::HandedOn {
                // It was announced before, and whoever claimed it has been passed on: now others
                // are claimed.
                self.park(shared, until);
                continue;
            }
            idle = true;
            shared.sleepers.announce(self.bit, sleep);
            // The search after the announcement, see `sleep`.
            if let Some(task) = self.find(shared, takes) {
                shared.sleepers.retract(self.bit, sleep);
                shared.pass_on(self.node);
                idle = false;
                backoff.reset();
                run(task, current);
                continue;
            }
            if is_done(&self.waker) {
                shared.sleepers.retract(self.bit, sleep);
                break true;
            }
            let mut wake_at = until;
            if is_waiting && post == Post::Own && self.leaves_work(shared, takes) {
                let now = Instant::now();
                let patient = *patient_until.get_or_insert(match takes {
                    Takes::Forks => now + PATIENCE,
                    Takes::Own | Takes::All => now,
                });
                if now >= patient {
                    shared.sleepers.retract(self.bit, sleep);
                    if shared.spares[self.node].replace(shared, self.node) {
                        post = Post::HandedOn;
                    } else if current.depth() < MOST_NESTED {
                        post = Post::Kept;
                        takes = Takes::All;
                    } else {
                        self.parker.park_timeout(PATIENCE);
                    }
                    continue;
                }
                wake_at = Some(until.map_or(patient, |until| until.min(patient)));
            }
            self.park(shared, wake_at);
            shared.sleepers.retract(self.bit, sleep);
            backoff.reset();
        };
        if post == Post::HandedOn && !was_handed_on {
            shared.spares[self.node].give_back();
        }
        if idle {
            // It may have been claimed for work that it now leaves to others.
            shared.pass_on(self.node);
        }
        done
    }

    fn park(&self, shared: &Shared, until: Option<Instant>) {
        shared.metrics.note_park(self.index);
        match until {
            None => self.parker.park(),
            Some(until) => self.parker.park_deadline(until),
        }
    }

    fn find(&self, shared: &Shared, takes: Takes) -> Option<Task> {
        let own = self.pop().map(Task::Fork);
        if own.is_some() || takes == Takes::Own {
            return own;
        }
        let all = takes == Takes::All;
        let jobs = |node: usize, priority: Priority| {
            let job = all.then(|| shared.queues[node].take(priority, node == self.node));
            job.flatten().map(Task::Job)
        };
        let forks_of = |node: usize| shared.queues[node].take_fork().map(Task::Fork);
        let far = &shared.machine.near[self.node];
        let order = &shared.workers[self.index].order;
        far.iter()
            .find_map(|&node| jobs(node, Priority::P0))
            .or_else(|| self.steal_from_mates(shared, order).map(Task::Fork))
            .or_else(|| forks_of(self.node))
            .or_else(|| jobs(self.node, Priority::P1))
            .or_else(|| {
                order.remote.iter().find_map(|(node, victims)| {
                    let node = shared.machine.index_of(*node)?;
                    let victims = victims.iter().map(|victim| victim.worker);
                    let task = victims
                        .chain(shared.active_spares(node))
                        .find_map(|victim| steal(shared, victim))
                        .map(Task::Fork)
                        .or_else(|| forks_of(node))
                        .or_else(|| jobs(node, Priority::P1))?;
                    shared.metrics.note_steal(self.index, Distance::Remote);
                    Some(task)
                })
            })
            .or_else(|| far.iter().find_map(|&node| jobs(node, Priority::P2)))
    }

    fn steal_from_mates(&self, shared: &Shared, order: &StealOrder) -> Option<Fork> {
        let mates = order
            .same_node
            .iter()
            .map(|victim| (victim.worker, victim.distance));
        // A spare has the order of the worker whose seat it shares, in which that one is not.
        let twin = self.twin.map(|twin| (twin, Distance::SameCache));
        let spares = shared.active_spares(self.node);
        let spares = spares.map(|spare| (spare, Distance::SameNode));
        mates
            .chain(twin)
            .chain(spares)
            .filter(|&(victim, _)| victim != self.index)
            .find_map(|(victim, distance)| {
                let fork = steal(shared, victim)?;
                shared.metrics.note_steal(self.index, distance);
                Some(fork)
            })
    }

    /// True if there is work that it does not take while it waits.
    fn leaves_work(&self, shared: &Shared, takes: Takes) -> bool {
        let has_jobs = |(node, queues): (usize, &NodeQueues)| {
            queues.has_jobs(node == self.node) || (takes == Takes::Own && queues.has_forks())
        };
        let has_forks =
            || takes == Takes::Own && shared.workers.iter().any(|other| !other.stealer.is_empty());
        shared.queues.iter().enumerate().any(has_jobs) || has_forks()
    }
}

/// What a worker does while it works until something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Everything: it waits for nothing.
    All,
    /// Forks: inside a join or a scope.
    Forks,
    /// Forks of its own: inside a wait for a job.
    Own,
}

/// What has become of a worker's place while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Post {
    Own,
    HandedOn,
    /// Nobody was there to take it: it does other work itself.
    Kept,
}

/// How long a join waits for what was stolen from it before its place is handed on: longer than most
/// stolen work takes, so that no thread is woken in vain.
const PATIENCE: Duration = Duration::from_millis(1);
/// So many jobs on one stack, and no more are begun there while others wait: a stack of 2 MiB has
/// room for them.
pub(crate) const MOST_NESTED: usize = 32;

fn steal(shared: &Shared, victim: usize) -> Option<Fork> {
    loop {
        match shared.workers[victim].stealer.steal() {
            Steal::Success(fork) => return Some(fork),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

/// Puts the thread in its place: its first act, before it touches memory of its own.
fn settle(shared: &Shared, worker: &Worker) {
    let seat = shared.workers[worker.index].seat;
    let target = match shared.pinning {
        Pinning::Node => Some(place::Target::Node(seat.node)),
        Pinning::Core => Some(place::Target::Core(seat.cpu)),
        Pinning::None => None,
    };
    if let Some(target) = target {
        place::pin_thread_to(&shared.machine.topology, target);
        if shared.machine.topology.is_this_machine() {
            place::prefer_memory_of(Some(seat.node));
        }
    }
    here::set(Some(Here {
        node: seat.node,
        worker: worker.index,
    }));
}

/// Runs a task. Panics of jobs are caught where they are run, those of forks handed to whoever waits;
/// this is the net for what the destructors of values and payloads may do after that.
pub(crate) fn run(task: Task, current: &Current) {
    match task {
        Task::Job(job) => contain(|| {
            job.run(current);
        }),
        Task::Fork(fork) => current.within(fork.job(), || contain(|| fork.execute())),
    }
}
