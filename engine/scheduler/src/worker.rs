//! One CPU worker: finds the next thing to do, does it, sleeps when there is none.
//!
//! It looks for work in this order, from the start each time:
//! 1. its own private list and deque: forks of what it has begun, the newest first;
//! 2. P0 jobs, of its own node, then of others by distance;
//! 3. forks of the workers of its node, and those that came to its node from outside;
//! 4. P1 jobs of its node;
//! 5. node by node by distance: forks of its workers and from outside, its P1 jobs;
//! 6. P2 jobs, of its own node, then of others by distance.
//!
//! Inside a join or scope it takes forks alone, inside a wait for a job only its own; what it then
//! leaves lying a spare does in its place, see [`spares`](crate::spares).
//!
//! Of the P1 jobs of another node it fetches half, for its mates: a burst on one node spreads so.
//!
//! What is stolen is the oldest fork of the victim, which is the largest part of its work. Forks lie in
//! the worker's private list until somebody is idle: then whoever forks moves the oldest to its deque,
//! where it can be stolen. A worker that would sleep although others hold private forks, because they
//! are in long leaves, takes the older half of those from the nearest.

use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_deque::{Steal, Stealer};
use crossbeam_utils::sync::{Parker, Unparker};
use reiver_topology::here::{self, Here};
use reiver_topology::{Seat, place};

use crate::Priority;
use crate::builder::Pinning;
use crate::current::Current;
use crate::fork::Fork;
use crate::machine::Machine;
use crate::many::Holding;
use crate::panics::contain;
use crate::private::{PrivateList, Robber};
use crate::queues::{NodeQueues, Task};
use crate::scope::{BUNDLE, bundled, spawned_in};
use crate::shared::Shared;
use crate::sleep::{Bit, Demand, Sleep, Sleepers};
use crate::steal_order::{Distance, StealOrder};

/// What a worker thread owns.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    lane: usize,
    /// The index of its node.
    node: usize,
    /// Of a spare: the worker whose seat it shares.
    twin: Option<usize>,
    /// The forks that nobody has asked for.
    private: PrivateList<Fork>,
    /// Those that somebody may take. Newest first for its owner: the fork that is in the cache;
    /// oldest first for thieves.
    deque: crossbeam_deque::Worker<Fork>,
    demand: Demand,
    /// Not before this does it ask others to share.
    asks_from: Cell<Option<Instant>>,
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
    pub(crate) robber: Robber<Fork>,
    pub(crate) unparker: Unparker,
    pub(crate) holding: Holding,
    /// The number of its seat: its own, or of a spare that of its twin.
    pub(crate) seat_number: usize,
}

struct WorkerWaker(Unparker);

impl Wake for WorkerWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Worker {
    /// A worker, and what others know of it.
    pub(crate) fn new(
        (index, node): (usize, usize),
        twin: Option<usize>,
        sleepers: &Sleepers,
        seat: Seat,
    ) -> (Worker, WorkerFace) {
        let parker = Parker::new();
        let unparker = parker.unparker().clone();
        let waker = Waker::from(Arc::new(WorkerWaker(unparker.clone())));
        let (private, robber) = PrivateList::new(Fork::NONE);
        let deque = crossbeam_deque::Worker::new_lifo();
        let face = WorkerFace {
            seat,
            stealer: deque.stealer(),
            robber,
            unparker: unparker.clone(),
            holding: Holding::default(),
            seat_number: twin.unwrap_or(index),
        };
        let worker = Worker {
            index,
            lane: index,
            node,
            twin,
            private,
            deque,
            demand: sleepers.demand(),
            asks_from: Cell::new(None),
            parker,
            unparker,
            waker,
            bit: sleepers.bit(node, index),
        };
        (worker, face)
    }

    /// A worker for the current thread, for as long as it lives.
    pub(crate) fn guest(shared: &Shared) -> Worker {
        let first = &shared.workers[0];
        let (guest, _) = Worker::new((0, 0), None, &shared.sleepers, first.seat);
        Worker {
            lane: shared.lane_of_strangers(),
            ..guest
        }
    }

    /// Where what it counts goes. A guest is not known by its number alone.
    pub(crate) fn lane(&self) -> usize {
        self.lane
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

    /// Begins a fork.
    #[inline]
    pub(crate) fn push(&self, current: &Current, fork: Fork) {
        self.private.push(fork);
        if self.demand.is_any() {
            self.share(current.engine().shared());
        }
    }

    /// True if this fork is the newest, nobody has asked for it, and it is taken back now.
    #[inline]
    pub(crate) fn take_back(&self, fork: &Fork) -> bool {
        self.private.take_back(fork)
    }

    /// The newest fork that nobody has asked for.
    #[inline]
    pub(crate) fn pop_private(&self) -> Option<Fork> {
        self.private.pop()
    }

    /// The newest fork that is left, for who is between tasks.
    #[inline]
    pub(crate) fn pop(&self, shared: &Shared) -> Option<Fork> {
        let fork = self.private.pop();
        if fork.is_none() {
            return self.deque.pop();
        }
        if self.demand.is_any() {
            self.share(shared);
        }
        fork
    }

    /// Somebody is idle: moves the oldest fork to where it can be stolen, unless one is there. Spawned
    /// ones go many at once, but no more than a quarter of what there is.
    #[cold]
    fn share(&self, shared: &Shared) {
        let is_eager = shared.sleepers.is_eager();
        if !is_eager && !self.deque.is_empty() {
            return;
        }
        loop {
            let most = (self.private.len() / 4).clamp(1, BUNDLE);
            let mut taken = Vec::with_capacity(most);
            let is_some_left = self.private.take_oldest(most, |fork| {
                let is_spawned = fork.is_spawned();
                taken.push(fork);
                is_spawned
            });
            for fork in bundled(taken) {
                shared.metrics.note_promotion(self.lane);
                self.deque.push(fork);
            }
            if !(is_eager && is_some_left) {
                break;
            }
        }
        shared.wake_one(self.node);
    }

    /// The life of the thread.
    pub(crate) fn live(self, shared: Arc<Shared>) {
        self.live_until(shared, |shared, worker, current| {
            worker.work_until(current, Takes::All, None, |_| shared.stop.is_said());
        });
    }

    /// The life of the thread of a spare.
    pub(crate) fn live_as_spare(self, shared: Arc<Shared>) {
        self.live_until(shared, |shared, worker, current| {
            let spares = &shared.spares[worker.node];
            while !shared.stop.is_said() {
                // Nobody looks into the lists of one that rests.
                let holds_forks = || !worker.private.is_empty() || !worker.deque.is_empty();
                worker.work_until(current, Takes::All, None, |_| {
                    shared.stop.is_said() || (!holds_forks() && spares.rests(worker.index, shared))
                });
                while !shared.stop.is_said() && spares.still_rests(worker.index) {
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
        shared.stop.before_last_look();
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
        // Counted among the idle: from the moment that it had nothing to do until it has found
        // something, or its place is handed on.
        let mut seeks = false;
        // Inside code that blocks, a spare has it already.
        let was_handed_on = current.blocks();
        let mut post = if was_handed_on {
            Post::HandedOn
        } else {
            Post::Own
        };
        // From when on it would hand its place on.
        let mut patient_until = None;
        let mut spell = Spell::of(takes);
        let is_late = || until.is_some_and(|until| Instant::now() >= until);
        let done = loop {
            if is_done(&self.waker) {
                break true;
            }
            if is_late() {
                break false;
            }
            let found = self.find(shared, takes);
            let rob = || spell.may_rob().then(|| self.rob(shared, takes)).flatten();
            if let Some(task) = found.or_else(rob) {
                spell = spell.after(&task);
                if seeks {
                    self.stop_seeking(shared, sleep, &mut seeks);
                    self.run_stolen(task, current);
                } else {
                    run(task, current);
                }
                continue;
            }
            shared.metrics.note_failed_search(self.lane);
            current.forget_stamp();
            if post == Post::HandedOn {
                // Nobody is to count on it any more.
                self.stop_seeking(shared, sleep, &mut seeks);
                if !spell.goes_on() {
                    self.park(shared, until);
                }
                continue;
            }
            if self
                .asks_from
                .get()
                .is_some_and(|from| Instant::now() < from)
            {
                std::hint::spin_loop();
                continue;
            }
            if !seeks {
                self.asks_from.set(None);
                shared.sleepers.seek(sleep);
                seeks = true;
            }
            if spell.goes_on() {
                continue;
            }
            current.arena().count_foreign();
            shared.sleepers.announce(self.bit, sleep);
            // The search after the announcement, see `sleep`.
            let last = self.find(shared, takes);
            let last = last.or_else(|| self.rob(shared, takes));
            if let Some(task) = last.or_else(|| self.help(shared, takes)) {
                shared.sleepers.retract(self.bit, sleep);
                self.stop_seeking(shared, sleep, &mut seeks);
                spell = spell.after(&task);
                self.run_stolen(task, current);
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
            let is_large = self.private.is_large() || current.arena().is_large();
            if is_large && wake_at.is_none() {
                let until = Instant::now() + KEEPS_MEMORY;
                self.park(shared, Some(until));
                if Instant::now() >= until {
                    self.private.trim();
                    current.arena().trim();
                }
            } else {
                self.park(shared, wake_at);
            }
            shared.sleepers.retract(self.bit, sleep);
            spell.begin_again();
        };
        if post == Post::HandedOn && !was_handed_on {
            shared.spares[self.node].give_back();
        }
        self.stop_seeking(shared, sleep, &mut seeks);
        done
    }

    /// Runs what it had to search for. If that cost more than it was worth, it leaves others in peace
    /// for a while.
    fn run_stolen(&self, task: Task, current: &Current) {
        let spawned = match &task {
            Task::Fork(fork) => spawned_in(fork),
            Task::Job(_) | Task::Help(_) => 0,
        };
        if spawned == 0 {
            return run(task, current);
        }
        let begun = Instant::now();
        run(task, current);
        let now = Instant::now();
        if now - begun < spawned * HARDLY_WORTH_IT {
            self.asks_from.set(Some(now + PEACE));
        }
    }

    /// It has found something, or leaves what it may have been woken for to others.
    fn stop_seeking(&self, shared: &Shared, sleep: Sleep, seeks: &mut bool) {
        if std::mem::take(seeks) {
            shared.sleepers.leave(sleep);
            shared.pass_on(self.node);
        }
    }

    fn park(&self, shared: &Shared, until: Option<Instant>) {
        shared.metrics.note_park(self.lane);
        match until {
            None => self.parker.park(),
            Some(until) => self.parker.park_deadline(until),
        }
    }

    fn find(&self, shared: &Shared, takes: Takes) -> Option<Task> {
        let own = self.pop(shared).map(Task::Fork);
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
        far.iter()
            .find_map(|&node| jobs(node, Priority::P0))
            .or_else(|| self.steal_from_mates(shared).map(Task::Fork))
            .or_else(|| forks_of(self.node))
            .or_else(|| jobs(self.node, Priority::P1))
            .or_else(|| {
                let has_work = |&node: &usize| shared.has_work_at(node);
                let order = self.order(shared, || far[1..].iter().any(has_work))?;
                order.remote.iter().find_map(|(node, victims)| {
                    let node = shared.machine.index_of(*node)?;
                    let victims = victims.iter().map(|victim| victim.worker);
                    let task = victims
                        .chain(shared.active_spares(node))
                        .find_map(|victim| steal(shared, victim))
                        .map(Task::Fork)
                        .or_else(|| forks_of(node))
                        .or_else(|| {
                            let job = jobs(node, Priority::P1)?;
                            shared.fetch_half(node, self.node);
                            Some(job)
                        })?;
                    shared.metrics.note_steal(self.lane, Distance::Remote);
                    Some(task)
                })
            })
            .or_else(|| far.iter().find_map(|&node| jobs(node, Priority::P2)))
    }

    /// Takes private forks of others, who are in long leaves: the last resort, for it costs a barrier.
    /// One is to be done now; the rest lies where others can steal it.
    fn rob(&self, shared: &Shared, takes: Takes) -> Option<Task> {
        if takes == Takes::Own {
            return None;
        }
        let order = self.order(shared, || shared.has_private_forks())?;
        let mates = self.mates(shared, order);
        let others = order.remote.iter().flat_map(|(node, victims)| {
            let node = shared.machine.index_of(*node);
            let spares = node.map_or(0..0, |node| shared.active_spares(node));
            let victims = victims.iter().map(|victim| victim.worker);
            victims
                .chain(spares)
                .map(|victim| (victim, Distance::Remote))
        });
        let mut taken = Vec::new();
        let (_, distance) = mates
            .chain(others)
            .filter(|&(victim, _)| shared.workers[victim].robber.is_worth_it())
            .find(|&(victim, _)| shared.workers[victim].robber.rob(|fork| taken.push(fork)) > 0)?;
        shared.metrics.note_steal(self.lane, distance);
        let mut forks = bundled(taken).into_iter();
        let first = forks.next();
        if forks.len() > 0 {
            forks.for_each(|fork| self.deque.push(fork));
            shared.wake_one(self.node);
        }
        first.map(Task::Fork)
    }

    /// Takes part in a chunk of jobs that another worker has taken, who may be in a long one of them.
    fn help(&self, shared: &Shared, takes: Takes) -> Option<Task> {
        if takes != Takes::All {
            return None;
        }
        // Those after it first, so that helpers spread; itself last, for its place may have been handed
        // on inside of a chunk.
        let after = self.index + 1..shared.workers.len();
        after
            .chain(0..=self.index)
            .map(|victim| &shared.workers[victim].holding)
            .filter(|holding| holding.is_any())
            .find_map(Holding::get)
            .map(Task::Help)
    }

    /// Where it steals, if that is known, or is needed now.
    fn order<'s>(
        &self,
        shared: &'s Shared,
        is_needed: impl FnOnce() -> bool,
    ) -> Option<&'s StealOrder> {
        let Machine {
            orders, topology, ..
        } = &shared.machine;
        let seat = shared.workers[self.index].seat_number;
        let known = orders.known(seat);
        known.or_else(|| is_needed().then(|| orders.find(topology, seat)))
    }

    fn steal_from_mates(&self, shared: &Shared) -> Option<Fork> {
        let order = self.order(shared, || shared.has_forks(self.node))?;
        self.mates(shared, order).find_map(|(victim, distance)| {
            let fork = steal(shared, victim)?;
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
        let spares = shared.active_spares(self.node);
        let spares = spares.map(|spare| (spare, Distance::SameNode));
        mates
            .chain(twin)
            .chain(spares)
            .filter(|&(victim, _)| victim != self.index)
    }

    /// True if there is work that it does not take while it waits.
    fn leaves_work(&self, shared: &Shared, takes: Takes) -> bool {
        let has_jobs = |(node, queues): (usize, &NodeQueues)| {
            queues.has_jobs(node == self.node) || (takes == Takes::Own && queues.has_forks())
        };
        let has_fork = |other: &WorkerFace| !other.stealer.is_empty() || other.robber.is_worth_it();
        let has_forks = || takes == Takes::Own && shared.workers.iter().any(has_fork);
        let is_in_chunk = |other: &WorkerFace| other.holding.has_queued();
        shared.queues.iter().enumerate().any(has_jobs)
            || has_forks()
            || shared.workers.iter().any(is_in_chunk)
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

/// A time without work: first it spins, in case somebody shares work at once; then it looks whether
/// somebody in a long leaf holds any; then it lets other threads have the CPU; then it is to sleep.
///
/// After a job that it was woken for it soon sleeps: the next one may be as long in coming.
#[derive(Debug)]
struct Spell {
    searches: u32,
    most: u32,
    has_slept: bool,
}

impl Spell {
    /// 254 spins in all, some 5 µs.
    const SPINNING: u32 = 7;
    const YIELDING: u32 = 4;
    /// 30 spins in all.
    const AFTER_A_JOB: u32 = 4;

    /// The first, before anything was found.
    fn of(takes: Takes) -> Spell {
        let most = match takes {
            Takes::Forks => Spell::SPINNING + Spell::YIELDING,
            Takes::All | Takes::Own => Spell::AFTER_A_JOB,
        };
        Spell {
            searches: 0,
            most,
            has_slept: false,
        }
    }

    /// What it found has ended it; this is the next.
    fn after(&self, task: &Task) -> Spell {
        let most = match task {
            Task::Fork(_) => Spell::SPINNING + Spell::YIELDING,
            Task::Job(_) | Task::Help(_) if self.has_slept => Spell::AFTER_A_JOB,
            Task::Job(_) | Task::Help(_) => Spell::SPINNING + Spell::YIELDING,
        };
        Spell {
            searches: 0,
            most,
            has_slept: false,
        }
    }

    /// Begins again: it was woken, and has not found anything yet.
    fn begin_again(&mut self) {
        self.searches = 0;
        self.has_slept = true;
    }

    /// Before the next search. False once it is to sleep.
    fn goes_on(&mut self) -> bool {
        self.searches += 1;
        if self.searches > self.most {
            return false;
        }
        if self.searches <= Spell::SPINNING {
            (0..1 << self.searches).for_each(|_| std::hint::spin_loop());
        } else {
            thread::yield_now();
        }
        true
    }

    /// True if it has waited long enough for others to share.
    fn may_rob(&self) -> bool {
        self.searches == Spell::SPINNING
    }
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
/// Spawned forks that take less each cost more to move to another core than they are worth.
const HARDLY_WORTH_IT: Duration = Duration::from_nanos(200);
/// So long a worker that has taken such asks nobody to share more; less than what a fork may wait while
/// somebody is idle.
const PEACE: Duration = Duration::from_micros(50);
/// A worker that sleeps so long gives back the memory that a burst of forks has left.
const KEEPS_MEMORY: Duration = Duration::from_millis(100);
/// So many jobs on one stack, and no more are begun there while others wait: a stack of 2 MiB has
/// room for them.
pub(crate) const MOST_NESTED: usize = 32;

fn steal(shared: &Shared, victim: usize) -> Option<Fork> {
    let stealer = &shared.workers[victim].stealer;
    // Cheaper than to steal in vain, and most have nothing at most times.
    if stealer.is_empty() {
        return None;
    }
    loop {
        match stealer.steal() {
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
    if let Task::Fork(_) = task {
        current.forget_stamp();
    }
    match task {
        Task::Job(job) => contain(|| {
            job.run(current);
        }),
        Task::Help(chunk) => contain(|| {
            chunk.help(current);
            drop(chunk);
        }),
        // It is a part of just what the thread is in.
        Task::Fork(fork) if ptr::eq(fork.frame(), current.frame()) => {
            contain(|| fork.execute(current));
        }
        Task::Fork(fork) => current.within(fork.job(), || contain(|| fork.execute(current))),
    }
}
