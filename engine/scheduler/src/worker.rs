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
//! What is stolen is the oldest fork of the victim, which is the largest part of its work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use crossbeam_deque::{Steal, Stealer};
use crossbeam_utils::Backoff;
use crossbeam_utils::sync::{Parker, Unparker};
use reiver_topology::here::{self, Here};
use reiver_topology::{Seat, place};

use crate::Priority;
use crate::builder::Pinning;
use crate::cell::contain;
use crate::current::Current;
use crate::queues::Task;
use crate::shared::Shared;
use crate::sleep::Bit;
use crate::steal_order::{Distance, StealOrder};

/// What a worker thread owns.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    /// The index of its node.
    node: usize,
    /// Newest first for its owner: the fork that is in the cache; oldest first for thieves.
    deque: crossbeam_deque::Worker<Task>,
    parker: Parker,
    waker: Waker,
    bit: Bit,
}

/// What others know of it.
#[derive(Debug)]
pub(crate) struct WorkerFace {
    pub(crate) seat: Seat,
    pub(crate) stealer: Stealer<Task>,
    pub(crate) unparker: Unparker,
    pub(crate) order: StealOrder,
}

struct WorkerWaker(Unparker);

impl Wake for WorkerWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Worker {
    pub(crate) fn new(index: usize, node: usize, bit: Bit) -> Worker {
        let parker = Parker::new();
        let waker = Waker::from(Arc::new(WorkerWaker(parker.unparker().clone())));
        Worker {
            index,
            node,
            deque: crossbeam_deque::Worker::new_lifo(),
            parker,
            waker,
            bit,
        }
    }

    pub(crate) fn face(&self, seat: Seat, order: StealOrder) -> WorkerFace {
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

    pub(crate) fn node(&self) -> usize {
        self.node
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    pub(crate) fn push(&self, task: Task) {
        self.deque.push(task);
    }

    pub(crate) fn pop(&self) -> Option<Task> {
        self.deque.pop()
    }

    /// The life of the thread.
    pub(crate) fn live(self, shared: Arc<Shared>) {
        settle(&shared, &self);
        let current = Current::cpu(shared, self);
        let worker = current.worker().expect("this is a CPU worker");
        let shared = current.engine().shared();
        worker.work_until(&current, Priority::P2, None, |_| shared.is_stopped());
        here::set(None);
        Current::leave();
    }

    /// Works until `is_done`, on jobs as urgent as `least` and on forks; gives false if it is not
    /// done by `until`. `is_done` is asked between tasks and before sleeping, and arranges that the
    /// waker it is given ends a sleep.
    pub(crate) fn work_until(
        &self,
        current: &Current,
        least: Priority,
        until: Option<Instant>,
        mut is_done: impl FnMut(&Waker) -> bool,
    ) -> bool {
        let shared = current.engine().shared();
        // True from the moment that it had nothing to do until it has found something.
        let mut idle = false;
        let backoff = Backoff::new();
        let is_late = || until.is_some_and(|until| Instant::now() >= until);
        let done = loop {
            if is_done(&self.waker) {
                break true;
            }
            if is_late() {
                break false;
            }
            if let Some(task) = self.find(shared, least) {
                if idle {
                    shared.wake_one(self.node, Priority::P0);
                    idle = false;
                }
                backoff.reset();
                run(task, current);
            } else if !backoff.is_completed() {
                idle = true;
                backoff.snooze();
            } else {
                idle = true;
                shared.sleepers.announce(self.bit, least);
                // The search after the announcement, see `sleep`.
                if let Some(task) = self.find(shared, least) {
                    shared.sleepers.retract(self.bit, least);
                    shared.wake_one(self.node, Priority::P0);
                    idle = false;
                    backoff.reset();
                    run(task, current);
                    continue;
                }
                let done = is_done(&self.waker);
                if !done {
                    shared.metrics.note_park(self.index);
                    match until {
                        None => self.parker.park(),
                        Some(until) => self.parker.park_deadline(until),
                    }
                    backoff.reset();
                }
                shared.sleepers.retract(self.bit, least);
                if done {
                    break true;
                }
            }
        };
        if idle {
            // It may have been claimed for work that it now leaves to others.
            shared.wake_one(self.node, Priority::P0);
        }
        done
    }

    fn find(&self, shared: &Shared, least: Priority) -> Option<Task> {
        let jobs = |node: usize, priority: Priority| {
            let wanted = priority <= least;
            wanted
                .then(|| shared.queues[node].take(priority, node == self.node))
                .flatten()
        };
        let far = &shared.machine.near[self.node];
        let order = &shared.workers[self.index].order;
        self.pop()
            .or_else(|| far.iter().find_map(|&node| jobs(node, Priority::P0)))
            .or_else(|| self.steal_from_mates(shared, order))
            .or_else(|| shared.queues[self.node].take_fork())
            .or_else(|| jobs(self.node, Priority::P1))
            .or_else(|| {
                order.remote.iter().find_map(|(node, victims)| {
                    let node = shared.machine.index_of(*node)?;
                    let task = victims
                        .iter()
                        .find_map(|victim| steal(shared, victim.worker))
                        .or_else(|| shared.queues[node].take_fork())
                        .or_else(|| jobs(node, Priority::P1))?;
                    shared.metrics.note_steal(self.index, Distance::Remote);
                    Some(task)
                })
            })
            .or_else(|| far.iter().find_map(|&node| jobs(node, Priority::P2)))
    }

    fn steal_from_mates(&self, shared: &Shared, order: &StealOrder) -> Option<Task> {
        order.same_node.iter().find_map(|victim| {
            let task = steal(shared, victim.worker)?;
            shared.metrics.note_steal(self.index, victim.distance);
            Some(task)
        })
    }
}

fn steal(shared: &Shared, victim: usize) -> Option<Task> {
    loop {
        match shared.workers[victim].stealer.steal() {
            Steal::Success(task) => return Some(task),
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

/// Runs a task. Panics of jobs are caught where they are run; this is the net for what a value's
/// destructor may do after that.
pub(crate) fn run(task: Task, current: &Current) {
    match task {
        Task::Job(job) => contain(|| {
            job.run(current);
        }),
        Task::Fork(fork) => {
            let outcome = catch_unwind(AssertUnwindSafe(|| fork.execute()));
            debug_assert!(
                outcome.is_ok(),
                "a fork hands its panic to whoever waits for it"
            );
        }
    }
}
