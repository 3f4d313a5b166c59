//! One CPU worker: finds the next thing to do, does it, sleeps when there is none.
//!
//! Where it finds it, and in which order, is in [`search`]; how it passes a time without work in
//! [`spell`]; how its thread begins and ends in [`life`]. Inside a join or scope it takes forks alone,
//! inside a wait for a job only its own; what it then leaves lying a spare does in its place, see
//! [`spares`](crate::spares).
//!
//! Forks lie in its private list until somebody is idle: then it moves the oldest to its deque, where
//! they can be stolen.

mod footing;
mod life;
mod pace;
mod search;
mod spell;
mod turn;

use std::cell::{Cell, OnceCell};
use std::ptr;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use crossbeam_deque::Stealer;
use crossbeam_utils::CachePadded;
use footing::Footing;
use pace::Pace;
use reiver_topology::Seat;
use spell::Spell;

use crate::cell::AnyJob;
use crate::clock::Stamp;
use crate::crew::{Crew, Rank};
use crate::current::Current;
use crate::fork::Fork;
use crate::memory;
use crate::panics::contain;
use crate::parker::{Parker, Unparker};
use crate::protocol::holding::Holding;
use crate::protocol::private::{PrivateList, Robber};
use crate::protocol::refs::Ref;
use crate::protocol::sleep::{Bit, Demand, Sleep, Sleepers};
use crate::protocol::sync::{AtomicBool, AtomicI32, Ordering};
use crate::queues::Task;
use crate::schedule::ThreadId;
use crate::scope::{BUNDLE, bundled, spawned_in};
use crate::shared::Shared;

/// What a worker thread owns.
#[derive(Debug)]
pub(crate) struct Worker {
    rank: Rank,
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
    shares: Shares,
    demand: Demand,
    /// Not before this does it ask others to share.
    asks_from: Cell<Option<Instant>>,
    /// The last search has found a job.
    found_job: Cell<bool>,
    footing: OnceCell<Box<Footing>>,
    parker: Parker,
    unparker: Unparker,
    waker: Waker,
    bit: Bit,
    /// Whether it has found anything since somebody set this to false.
    has_worked: Cell<bool>,
    /// When it last let others have its CPU.
    looked: Cell<Stamp>,
    /// Of a background worker where there is a quota.
    pace: OnceCell<Box<Pace>>,
}

/// What others know of it.
#[derive(Debug)]
pub(crate) struct WorkerFace {
    pub(crate) seat: Seat,
    pub(crate) stealer: Stealer<Fork>,
    shares: Shares,
    pub(crate) robber: Robber<Fork>,
    pub(crate) unparker: Unparker,
    pub(crate) holding: Holding<Ref<dyn AnyJob>>,
    /// The number of its seat: its own, or of a spare that of its twin.
    pub(crate) seat_number: usize,
    /// The kernel's number of its thread, 0 while it has none.
    thread: AtomicI32,
}

impl WorkerFace {
    /// Its thread, if it has shown it.
    pub(crate) fn thread(&self) -> Option<ThreadId> {
        // ORDERING: relaxed: a number, which publishes nothing.
        ThreadId::from_raw(self.thread.load(Ordering::Relaxed))
    }
}

impl WorkerFace {
    /// True if there may be forks to steal.
    pub(crate) fn has_forks(&self) -> bool {
        self.shares.may_be() && !self.stealer.is_empty()
    }

    /// A chunk that it is in, with jobs that nobody has begun.
    pub(crate) fn chunk(&self) -> Option<Ref<dyn AnyJob>> {
        self.holding
            .is_any()
            .then(|| self.holding.get(|chunk| chunk.is_queued()))?
    }

    /// True if there is one.
    pub(crate) fn has_chunk(&self) -> bool {
        self.holding.has(|chunk| chunk.is_queued())
    }
}

/// False while a worker's deque is empty. To ask the deque itself costs a fence, and most workers ask
/// most others at every search.
#[derive(Debug, Clone, Default)]
struct Shares(Arc<CachePadded<AtomicBool>>);

impl Shares {
    /// By the owner: before it puts something there, or once it has found nothing there.
    fn note(&self, shares: bool) {
        // ORDERING: relaxed: nobody else writes it. Who must not miss what lies in the deque passes the
        // fence that makes it see the deque, and sees this, which is written before.
        if self.0.load(Ordering::Relaxed) != shares {
            self.0.store(shares, Ordering::Relaxed);
        }
    }

    fn may_be(&self) -> bool {
        // ORDERING: relaxed, as above.
        self.0.load(Ordering::Relaxed)
    }
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
        rank: Rank,
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
        let shares = Shares::default();
        let face = WorkerFace {
            seat,
            stealer: deque.stealer(),
            shares: shares.clone(),
            robber,
            unparker: unparker.clone(),
            holding: Holding::default(),
            seat_number: twin.unwrap_or(index),
            thread: AtomicI32::new(0),
        };
        let worker = Worker {
            rank,
            index,
            // Those of other crews count together.
            lane: match rank {
                Rank::Ordinary => index,
                Rank::Urgent | Rank::Background => usize::MAX,
            },
            node,
            twin,
            private,
            deque,
            shares,
            demand: sleepers.demand(),
            asks_from: Cell::new(None),
            found_job: Cell::new(false),
            footing: OnceCell::new(),
            parker,
            unparker,
            waker,
            bit: sleepers.bit(node, index),
            has_worked: Cell::new(false),
            looked: Cell::new(Stamp::now()),
            pace: OnceCell::new(),
        };
        (worker, face)
    }

    /// A worker for the current thread, for as long as it lives.
    pub(crate) fn guest(shared: &Shared) -> Worker {
        let main = shared.main();
        let first = &main.workers[0];
        let place = (0, 0);
        let (guest, _) = Worker::new(Rank::Ordinary, place, None, &main.sleepers, first.seat);
        Worker {
            lane: shared.lane_of_strangers(),
            ..guest
        }
    }

    pub(crate) fn rank(&self) -> Rank {
        self.rank
    }

    /// Those it shares work with.
    pub(crate) fn crew<'s>(&self, shared: &'s Shared) -> &'s Crew {
        shared.crew(self.rank)
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
            let fork = self.deque.pop();
            if fork.is_none() {
                self.shares.note(false);
            }
            return fork;
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
        let crew = self.crew(shared);
        let is_eager = crew.sleepers.is_eager();
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
                self.push_shared(fork);
            }
            if !(is_eager && is_some_left) {
                break;
            }
        }
        crew.wake_one(shared, self.node);
    }

    /// Puts a fork where it can be stolen.
    fn push_shared(&self, fork: Fork) {
        self.shares.note(true);
        self.deque.push(fork);
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
        let crew = self.crew(shared);
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
        let mut spell = Spell::of(takes, self.rank);
        let is_late = || until.is_some_and(|until| Instant::now() >= until);
        let done = loop {
            if is_done(&self.waker) {
                break true;
            }
            if is_late() {
                break false;
            }
            let found = self.find(shared, takes, spell.is_patient());
            let rob = || spell.may_rob().then(|| self.rob(shared, takes)).flatten();
            if let Some(task) = found.or_else(rob) {
                spell = spell.after(&task);
                self.has_worked.set(true);
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
                crew.sleepers.seek(sleep);
                seeks = true;
            }
            if spell.goes_on() {
                continue;
            }
            current.arena().count_foreign();
            memory::rest();
            crew.sleepers.announce(self.bit, sleep);
            // The search after the announcement, see `sleep`.
            let last = self.find(shared, takes, false);
            let last = last.or_else(|| self.rob(shared, takes));
            if let Some(task) = last.or_else(|| self.help(shared, takes)) {
                crew.sleepers.retract(self.bit, sleep);
                self.stop_seeking(shared, sleep, &mut seeks);
                self.has_worked.set(true);
                spell = spell.after(&task);
                self.run_stolen(task, current);
                continue;
            }
            if is_done(&self.waker) {
                crew.sleepers.retract(self.bit, sleep);
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
                    crew.sleepers.retract(self.bit, sleep);
                    if crew.spares[self.node].replace(shared, crew, self.node) {
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
            self.sleep(current, wake_at);
            crew.sleepers.retract(self.bit, sleep);
            spell.begin_again();
        };
        if post == Post::HandedOn && !was_handed_on {
            crew.spares[self.node].give_back();
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
            let crew = self.crew(shared);
            crew.sleepers.leave(sleep);
            crew.pass_on(shared, self.node);
        }
    }

    /// Parks. If that is for long, it gives back the memory that a burst of forks has left.
    fn sleep(&self, current: &Current, until: Option<Instant>) {
        let shared = current.engine().shared();
        let is_large = self.private.is_large() || current.arena().is_large();
        if !is_large || until.is_some() {
            return self.park(shared, until);
        }
        let until = Instant::now() + KEEPS_MEMORY;
        self.park(shared, Some(until));
        if Instant::now() >= until {
            self.private.trim();
            current.arena().trim();
        }
    }

    fn park(&self, shared: &Shared, until: Option<Instant>) {
        shared.metrics.note_park(self.lane);
        // What it has in its hands of other nodes' objects is not to wait for it.
        reiver_pool::park_hook();
        let Some(footing) = self.footing.get() else {
            return self.parker.park_until(until);
        };
        if self.rank == Rank::Urgent {
            let seat = self.crew(shared).workers[self.index].seat;
            let workers = shared.machine.nodes[self.node].workers;
            footing.bind(seat, workers, shared.is_filled());
        }
        self.parker.park_until(until);
        footing.look(shared);
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

/// Runs a task. Panics of jobs are caught where they are run, those of forks handed to whoever waits;
/// this is the net for what the destructors of values and payloads may do after that.
pub(crate) fn run(task: Task, current: &Current) {
    current.between_pieces();
    if let Task::Fork(_) = task {
        current.forget_stamp();
    }
    match task {
        Task::Job(job) => contain(|| {
            job.run(&job, current);
            drop(job);
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
