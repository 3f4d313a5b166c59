//! Threads for jobs that block: as many as there are jobs, up to a limit, and fewer again when
//! there is less to do. They never run CPU jobs, and CPU workers never run theirs.
//!
//! There are three pools of them, which share nothing: one for jobs that block, and two for those that
//! also compute, of whose threads fewer may be in a job than there are (see [`hybrid`](crate::hybrid)).
//!
//! One mutex guards it all: these jobs wait in the kernel for longer than anybody waits here.
//!
//! A thread is at a node, pinned to it and with its memory. It takes the most urgent job, its own
//! node's before others', and goes with the job to the job's node. A job wakes an idle thread of
//! its node; where there is none a new one is started, or, at the limit, an idle one elsewhere is
//! woken. So no job waits while a thread is idle and may begin one, whatever node it asks for.
//!
//! P0 is taken before P1 before P2, but that a job of P2 that waits is taken where none of its node was
//! for [`background_patience`](crate::EngineBuilder::background_patience).

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reiver_topology::here::{self, Here};
use reiver_topology::place;

use crate::builder::Pinning;
use crate::cell::{AnyJob, Meta, Place};
use crate::clock::Stamp;
use crate::cpu_time;
use crate::current::Current;
use crate::hybrid::Watched;
use crate::panics::contain;
use crate::protocol::refs::Ref;
use crate::protocol::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::queues::Task;
use crate::schedule::{ThreadId, note_lock_of_all};
use crate::shared::Shared;
use crate::spawner::Request;
use crate::worker::run;
use crate::{Class, Priority};

/// How long a thread stays without work: long enough to outlast the pauses of a steady load, short
/// enough that a burst's threads are gone within the minute.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// So many threads may have handed their place on at once.
const MOST_REPLACED: usize = 256;
/// From so many on, who waits rather does itself what it waits for.
const MANY_REPLACED: usize = 16;

/// Which threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    Io,
    /// Of class Hybrid, P1 and P2.
    Hybrid,
    /// Of class Hybrid, P0.
    UrgentHybrid,
}

impl Pool {
    /// Those that a job runs on; none if that is a worker.
    pub(crate) fn of(meta: &Meta) -> Option<Pool> {
        match (meta.runs_as, meta.priority) {
            (Class::Cpu, _) => None,
            (Class::Io, _) => Some(Pool::Io),
            (Class::Hybrid | Class::Auto, Priority::P0) => Some(Pool::UrgentHybrid),
            (Class::Hybrid | Class::Auto, Priority::P1 | Priority::P2) => Some(Pool::Hybrid),
        }
    }

    fn thread_name(self) -> &'static str {
        match self {
            Pool::Io => "reiver-io",
            Pool::Hybrid => "reiver-hybrid",
            Pool::UrgentHybrid => "reiver-hyb-p0",
        }
    }
}

/// The threads of a pool, and the jobs that wait for them.
#[derive(Debug)]
pub(crate) struct Io {
    pool: Pool,
    state: Mutex<State>,
    /// One a node.
    woken: Box<[Condvar]>,
    /// The regulator has something to look at.
    looks: Condvar,
    limits: RangeInclusive<usize>,
    /// So many may be in a job, and more for those that are blocked there; of class Io all.
    cpus: usize,
    patience: Duration,
    /// A thread was refused, and that was said.
    refused: AtomicBool,
    /// For the metrics: how many threads there are, and how many are blocked in a job.
    counts: [AtomicUsize; 2],
}

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    /// Threads that live or have been asked for.
    threads: usize,
    /// Threads that have handed their place on.
    replaced: usize,
    /// So many threads may be in a job at once.
    places: usize,
    /// Of a pool that has a regulator, those that live; by a number of their own.
    members: Vec<Member>,
    numbers: u64,
    /// It was asked for.
    has_regulator: bool,
    regulator: Regulator,
    stopped: bool,
}

/// What the regulator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Regulator {
    Awake,
    /// It sleeps for longer than is good while jobs wait for a place.
    Lazy,
    /// It sleeps until there is a job.
    Resting,
}

/// A thread, as its pool's regulator sees it.
#[derive(Debug)]
struct Member {
    number: u64,
    thread: Watched,
    is_idle: bool,
    /// It was idle since the last look.
    is_fresh: bool,
    yields: bool,
}

#[derive(Debug)]
struct Node {
    /// By priority.
    jobs: [VecDeque<Ref<dyn AnyJob>>; 3],
    /// When a P2 job was last taken, or came where none waited.
    moved: Stamp,
    /// Threads that wait here and that nobody has woken yet.
    idle: usize,
    /// Wakes that no thread has taken up yet.
    wakes: usize,
}

impl Node {
    fn new() -> Node {
        Node {
            jobs: Default::default(),
            moved: Stamp::now(),
            idle: 0,
            wakes: 0,
        }
    }

    fn has_jobs(&self) -> bool {
        self.jobs.iter().any(|jobs| !jobs.is_empty())
    }

    /// One of its idle threads is about to be woken.
    fn note_wake(&mut self) {
        self.idle -= 1;
        self.wakes += 1;
    }

    fn push(&mut self, priority: Priority, job: Ref<dyn AnyJob>) {
        let jobs = &mut self.jobs[priority as usize];
        if priority == Priority::P2 && jobs.is_empty() {
            self.moved = Stamp::now();
        }
        jobs.push_back(job);
    }

    /// Takes a P2 job if none was for so long.
    fn pop_overdue(&mut self, patience: Duration) -> Option<Ref<dyn AnyJob>> {
        let background = Priority::P2 as usize;
        if self.jobs[background].is_empty() || self.moved.elapsed() < patience {
            return None;
        }
        self.pop(background)
    }

    fn pop(&mut self, priority: usize) -> Option<Ref<dyn AnyJob>> {
        let job = self.jobs[priority].pop_front()?;
        if priority == Priority::P2 as usize {
            self.moved = Stamp::now();
        }
        Some(job)
    }
}

impl State {
    /// Takes the most urgent job, of the first of these nodes that has one; before it one that has waited
    /// without anything moving.
    fn most_urgent(
        &mut self,
        nodes: impl Iterator<Item = usize> + Clone,
        patience: Duration,
    ) -> Option<(usize, Ref<dyn AnyJob>)> {
        let mut near = nodes.clone();
        let overdue = near.find_map(|node| {
            let job = self.nodes[node].pop_overdue(patience)?;
            Some((node, job))
        });
        overdue.or_else(|| {
            (0..3).find_map(|priority| {
                nodes.clone().find_map(|node| {
                    let job = self.nodes[node].pop(priority)?;
                    Some((node, job))
                })
            })
        })
    }

    fn has_jobs(&self) -> bool {
        self.nodes.iter().any(Node::has_jobs)
    }

    /// Threads that are in a job, or on their way to one.
    fn busy(&self) -> usize {
        let idle: usize = self.nodes.iter().map(|node| node.idle).sum();
        self.threads - idle
    }

    /// True if one more may be in a job.
    fn has_place(&self) -> bool {
        self.busy() < self.places.saturating_add(self.replaced)
    }

    fn member(&mut self, number: Option<u64>) -> Option<&mut Member> {
        let mut members = self.members.iter_mut();
        members.find(|member| Some(member.number) == number)
    }

    fn note_idle(&mut self, number: Option<u64>, is_idle: bool) {
        if let Some(member) = self.member(number) {
            member.is_idle = is_idle;
            member.is_fresh |= !is_idle;
        }
    }
}

/// Who may begin one job more.
#[derive(Debug)]
enum Admitted {
    Nobody,
    /// A thread of this node, which is to be woken, under the lock or after it.
    Idle(usize),
    /// One that is to be started at this node.
    New(usize),
}

/// What a newly queued job needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing: somebody was woken, or everybody is busy and the limit is reached.
    Nothing,
    /// A new thread at this node.
    Thread(usize),
}

impl Wanted {
    /// The node at which a thread is wanted.
    pub(crate) fn thread(self) -> Option<usize> {
        match self {
            Wanted::Nothing => None,
            Wanted::Thread(node) => Some(node),
        }
    }
}

impl Io {
    /// Threads for jobs that block, within these limits.
    pub(crate) fn new(nodes: usize, limits: RangeInclusive<usize>, patience: Duration) -> Io {
        let places = *limits.end();
        Io::of(Pool::Io, nodes, limits, places, patience)
    }

    /// Threads for jobs that also compute, on so many CPUs; as many may be blocked as of class Io.
    pub(crate) fn hybrid(
        pool: Pool,
        nodes: usize,
        cpus: usize,
        most_blocked: usize,
        patience: Duration,
    ) -> Io {
        let limits = 0..=cpus.saturating_add(most_blocked);
        Io::of(pool, nodes, limits, cpus, patience)
    }

    fn of(
        pool: Pool,
        nodes: usize,
        limits: RangeInclusive<usize>,
        places: usize,
        patience: Duration,
    ) -> Io {
        let state = State {
            nodes: (0..nodes).map(|_| Node::new()).collect(),
            threads: 0,
            replaced: 0,
            places,
            members: Vec::new(),
            numbers: 0,
            has_regulator: pool == Pool::Io,
            regulator: Regulator::Awake,
            stopped: false,
        };
        let woken = (0..nodes).map(|_| Condvar::new()).collect();
        Io {
            pool,
            state: Mutex::new(state),
            woken,
            looks: Condvar::new(),
            limits,
            cpus: places,
            patience,
            refused: AtomicBool::new(false),
            counts: Default::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        note_lock_of_all();
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if its threads run jobs of a class.
    pub(crate) fn is_of(&self, class: Class) -> bool {
        (self.pool == Pool::Io) == (class == Class::Io)
    }

    /// Queues a job at a node; `near` are all nodes, nearest to it first.
    pub(crate) fn push(&self, near: &[usize], job: Ref<dyn AnyJob>) -> Wanted {
        let mut state = self.state();
        state.nodes[near[0]].push(job.meta().priority, job);
        let admitted = self.admit(&mut state, near);
        let sleeps = match state.regulator {
            Regulator::Awake => false,
            Regulator::Lazy => !state.has_place(),
            Regulator::Resting => true,
        };
        if sleeps {
            state.regulator = Regulator::Awake;
            self.looks.notify_one();
        }
        // Who is woken wants it at once.
        drop(state);
        self.carry_out(admitted)
    }

    /// There is a job more, or a place: somebody begins one, if there are both.
    fn admit(&self, state: &mut State, near: &[usize]) -> Admitted {
        let home = near[0];
        if !state.has_place() {
            return Admitted::Nobody;
        }
        let has_idle = |state: &State, node: usize| state.nodes[node].idle > 0;
        let idle = if has_idle(state, home) {
            Some(home)
        } else if state.threads < self.most_threads(state) {
            state.threads += 1;
            self.note_threads(state);
            return Admitted::New(home);
        } else {
            near.iter().copied().find(|&node| has_idle(state, node))
        };
        idle.map_or(Admitted::Nobody, |node| {
            state.nodes[node].note_wake();
            Admitted::Idle(node)
        })
    }

    fn carry_out(&self, admitted: Admitted) -> Wanted {
        match admitted {
            Admitted::Nobody => Wanted::Nothing,
            Admitted::Idle(node) => {
                self.woken[node].notify_one();
                Wanted::Nothing
            }
            Admitted::New(node) => Wanted::Thread(node),
        }
    }

    fn note_threads(&self, state: &State) {
        // ORDERING: relaxed, here and below: for whoever looks on.
        self.counts[0].store(state.threads, Ordering::Relaxed);
    }

    /// How many threads there are, and how many were blocked in a job when the regulator last looked.
    pub(crate) fn counts(&self) -> [usize; 2] {
        self.counts
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// True once the system has refused a thread.
    pub(crate) fn is_refused(&self) -> bool {
        // ORDERING: relaxed, here and below: a flag of its own.
        self.refused.load(Ordering::Relaxed)
    }

    /// A thread was refused; true for the first time.
    pub(crate) fn note_refused(&self) -> bool {
        !self.refused.swap(true, Ordering::Relaxed)
    }

    /// A thread that was asked for cannot be had. Gives a job that no other thread would come to,
    /// for whoever asks to run; `None` once there is none, and the thread is no longer counted.
    fn next_without_threads(&self) -> Option<Ref<dyn AnyJob>> {
        let mut state = self.state();
        let is_alone = state.threads.saturating_sub(state.replaced) <= 1;
        let job = is_alone.then(|| state.most_urgent(0..self.woken.len(), self.patience));
        let job = job.flatten();
        if job.is_none() {
            self.end_one(&mut state);
        }
        job.map(|(_, job)| job)
    }

    /// A thread ends that may have been asked for, or woken, for a job: that is left to an idle one,
    /// wherever that is.
    fn end_one(&self, state: &mut State) {
        state.threads -= 1;
        self.note_threads(state);
        let idle = state.nodes.iter().position(|node| node.idle > 0);
        if let Some(node) = idle.filter(|_| state.has_jobs()) {
            state.nodes[node].note_wake();
            self.woken[node].notify_one();
        }
    }

    fn most_threads(&self, state: &State) -> usize {
        self.limits.end().saturating_add(state.replaced)
    }

    /// A thread is about to wait for what others may have to do: one more may run meanwhile. `None`
    /// where none more may, or none is to be had.
    pub(crate) fn hand_on(&self, near: &[Vec<usize>]) -> Option<Wanted> {
        let mut state = self.state();
        if state.replaced >= MOST_REPLACED || self.is_refused() {
            return None;
        }
        state.replaced += 1;
        let waits = state.nodes.iter().position(Node::has_jobs);
        let admitted = waits.map(|node| self.admit(&mut state, &near[node]));
        drop(state);
        Some(admitted.map_or(Wanted::Nothing, |admitted| self.carry_out(admitted)))
    }

    pub(crate) fn is_mostly_replaced(&self) -> bool {
        self.state().replaced >= MANY_REPLACED || self.is_refused()
    }

    /// The next job, for a thread that waits and nobody else could take the place of.
    pub(crate) fn take(&self, near: &[usize]) -> Option<Ref<dyn AnyJob>> {
        let mut state = self.state();
        let found = state.most_urgent(near.iter().copied(), self.patience);
        found.map(|(_, job)| job)
    }

    /// A thread that had handed its place on has it back; another one ends once it is between jobs.
    pub(crate) fn give_back(&self) {
        self.state().replaced -= 1;
    }

    /// How many jobs lie in the queues.
    pub(crate) fn len(&self) -> usize {
        let state = self.state();
        let jobs = state.nodes.iter().flat_map(|node| &node.jobs);
        jobs.map(VecDeque::len).sum()
    }

    /// Takes out what no longer waits.
    pub(crate) fn sweep(&self) {
        let mut dead = Vec::new();
        let mut state = self.state();
        for jobs in state.nodes.iter_mut().flat_map(|node| &mut node.jobs) {
            let (live, ended) = std::mem::take(jobs)
                .into_iter()
                .partition::<VecDeque<_>, _>(|job| job.is_queued());
            *jobs = live;
            dead.extend(ended);
        }
        drop(state);
        // Somebody else's destructors, outside of the lock.
        dead.into_iter().for_each(|job| contain(|| drop(job)));
    }

    /// Takes all that waits.
    pub(crate) fn drain(&self) -> Vec<Ref<dyn AnyJob>> {
        let mut state = self.state();
        state
            .nodes
            .iter_mut()
            .flat_map(|node| &mut node.jobs)
            .flat_map(std::mem::take)
            .collect()
    }

    pub(crate) fn stop(&self) {
        self.state().stopped = true;
        self.woken.iter().for_each(Condvar::notify_all);
        self.looks.notify_all();
    }

    /// The current thread is one of a pool that also computes: its number there, and whether a regulator
    /// is to be asked for.
    fn enter(&self) -> (u64, bool) {
        let thread = Watched {
            id: ThreadId::current().as_raw(),
            clock: cpu_time::own_clock(),
        };
        let mut state = self.state();
        state.numbers += 1;
        let number = state.numbers;
        state.members.push(Member {
            number,
            thread,
            is_idle: false,
            is_fresh: true,
            yields: false,
        });
        (number, !std::mem::replace(&mut state.has_regulator, true))
    }

    fn leave(&self, number: u64) {
        let mut state = self.state();
        state.members.retain(|member| member.number != number);
    }

    /// Threads of ordinary work are to yield to urgent work, those too that come later: each once.
    pub(crate) fn yield_to_urgent(&self, nice: i32) {
        if self.pool != Pool::Hybrid {
            return;
        }
        for member in &mut self.state().members {
            if !std::mem::replace(&mut member.yields, true)
                && let Some(thread) = ThreadId::from_raw(member.thread.id)
            {
                thread.yield_to_others(nice);
            }
        }
    }

    /// For the regulator: waits until it is time for a look, `short` after the last one while jobs wait for
    /// a place; gives the threads that are in jobs, with a number each and whether they were idle since.
    /// `None` once the engine has stopped.
    pub(crate) fn next_look(
        &self,
        short: Duration,
        lazy: Duration,
    ) -> Option<Vec<(u64, Watched, bool)>> {
        let mut state = self.state();
        let begun = Instant::now();
        loop {
            if state.stopped {
                return None;
            }
            let is_hungry = state.has_jobs() && !state.has_place();
            let pause = match (is_hungry, state.busy() > 0) {
                (true, _) => Some(short),
                (false, true) => Some(lazy.max(short)),
                (false, false) => None,
            };
            let left = pause.map(|pause| pause.saturating_sub(begun.elapsed()));
            if left == Some(Duration::ZERO) {
                break;
            }
            state = match left {
                None => {
                    state.regulator = Regulator::Resting;
                    self.note_blocked(0);
                    let woken = self.looks.wait(state);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
                Some(left) => {
                    if !is_hungry {
                        state.regulator = Regulator::Lazy;
                    }
                    let waited = self.looks.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.regulator = Regulator::Awake;
        }
        let busy = state.members.iter_mut().filter(|member| !member.is_idle);
        let see = |member: &mut Member| {
            let is_fresh = std::mem::take(&mut member.is_fresh);
            (member.number, member.thread, is_fresh)
        };
        Some(busy.map(see).collect())
    }

    fn note_blocked(&self, blocked: usize) {
        self.counts[1].store(blocked, Ordering::Relaxed);
    }

    /// So many threads are blocked in a job: as many more may be in one. Gives the nodes at which threads
    /// are wanted.
    pub(crate) fn set_blocked(&self, blocked: usize, near: &[Vec<usize>]) -> Vec<usize> {
        let mut state = self.state();
        let most_blocked = *self.limits.end() - self.cpus;
        let blocked = blocked.min(most_blocked);
        self.note_blocked(blocked.min(state.threads));
        state.places = self.cpus + blocked;
        // As many as may begin one, and no more than there are jobs for.
        let waiting: Vec<(usize, usize)> = state
            .nodes
            .iter()
            .map(|node| node.jobs.iter().map(VecDeque::len).sum())
            .enumerate()
            .collect();
        let mut wanted = Vec::new();
        for (node, jobs) in waiting {
            for _ in 0..jobs {
                if !state.has_place() {
                    return wanted;
                }
                let admitted = self.admit(&mut state, &near[node]);
                wanted.extend(self.carry_out(admitted).thread());
            }
        }
        wanted
    }

    /// The next job for a thread, the most urgent first, and the node it belongs to; `None` when
    /// the thread is to end.
    fn next(&self, near: &[usize], number: Option<u64>) -> Option<(usize, Ref<dyn AnyJob>)> {
        let here = near[0];
        let mut state = self.state();
        loop {
            if state.threads > self.most_threads(&state) {
                self.end_one(&mut state);
                return None;
            }
            // This one is among the busy.
            let is_placed = state.busy() <= state.places.saturating_add(state.replaced);
            let found = is_placed.then(|| state.most_urgent(near.iter().copied(), self.patience));
            if let Some(found) = found.flatten() {
                return Some(found);
            }
            if state.stopped {
                state.threads -= 1;
                return None;
            }
            state.nodes[here].idle += 1;
            state.note_idle(number, true);
            let until = Instant::now() + KEEP_ALIVE;
            while state.nodes[here].wakes == 0 && !state.stopped {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() && state.threads > *self.limits.start() {
                    // Nothing waits, unless a thread for it was asked for and has not come yet, or there
                    // is no place.
                    let job = state.has_place().then(|| {
                        let near = near.iter().copied();
                        state.most_urgent(near, self.patience)
                    });
                    let job = job.flatten();
                    state.nodes[here].idle -= 1;
                    state.note_idle(number, false);
                    state.threads -= usize::from(job.is_none());
                    self.note_threads(&state);
                    return job;
                }
                let left = if left.is_zero() { KEEP_ALIVE } else { left };
                let waited = self.woken[here].wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.nodes[here].wakes > 0 {
                state.nodes[here].wakes -= 1;
            } else {
                state.nodes[here].idle -= 1;
            }
            state.note_idle(number, false);
        }
    }
}

/// The life of a thread of a pool, which begins at a node.
pub(crate) fn live(shared: Arc<Shared>, pool: Pool, mut node: usize) {
    settle(&shared, pool, node);
    let current = Current::elastic(Arc::clone(&shared), pool, node);
    let io = shared.pool(pool);
    let computes = pool != Pool::Io;
    let counted = computes.then(|| shared.metrics.cpu_times.count());
    let number = computes.then(|| {
        let (number, wants_regulator) = io.enter();
        if wants_regulator {
            let regulator = Request::Regulator(Arc::downgrade(&shared), pool);
            shared.spawner.ask(regulator);
        }
        if shared.yields() {
            io.yield_to_urgent(shared.options.nice);
        }
        number
    });
    while let Some((home, job)) = io.next(&shared.machine.near[node], number) {
        if home != node && matches!(job.meta().place, Place::Strict(_) | Place::Prefer(_)) {
            node = home;
            reiver_pool::move_hook();
            settle(&shared, pool, node);
            current.move_to(node);
        }
        run(Task::Job(job), &current);
        current.forget_stamp();
        // What it has in its hands of other nodes' objects is not to wait for the next job.
        reiver_pool::park_hook();
    }
    if let Some(number) = number {
        io.leave(number);
    }
    drop(counted);
    here::set(None);
}

/// What the threads of a pool are called.
pub(crate) fn thread_name(pool: Pool) -> String {
    pool.thread_name().into()
}

/// Where the system refuses the first thread of a pool: runs what waits, on a thread that is none.
pub(crate) fn stand_in(shared: &Arc<Shared>, pool: Pool) {
    let current = Current::elastic(Arc::clone(shared), pool, 0);
    while let Some(job) = shared.pool(pool).next_without_threads() {
        run(Task::Job(job), &current);
    }
}

/// Puts the thread at a node; what computes on no more CPUs than a quota grants.
pub(crate) fn settle(shared: &Shared, pool: Pool, node: usize) {
    let id = shared.machine.nodes[node].id;
    let pinning = shared.options.pinning;
    if pinning != Pinning::None {
        place::pin_thread_to(&shared.machine.topology, place::Target::Node(id));
        shared.machine.settle_memory(node);
    }
    if let (true, Some(cpus)) = (pool != Pool::Io, &shared.options.confined) {
        let node = shared.machine.topology.node(id);
        let own = node.map_or_else(|| cpus.clone(), |node| node.cpus.intersection(cpus));
        // Refused, it stays on those of its node.
        let _ = place::set_thread_affinity(&own);
    }
    here::set(Some(Here {
        node: id,
        worker: shared.main().workers.len() + node,
    }));
}
