//! Threads for jobs that block: as many as there are jobs, up to a limit, and fewer again when
//! there is less to do. They never run CPU jobs, and CPU workers never run theirs, but where who submits one is
//! to run it itself.
//!
//! There are four pools of them, which share nothing: one for jobs that block, and three for those that
//! also compute, of whose threads fewer may be in a job than there are (see [`hybrid`](crate::hybrid)).
//!
//! One mutex guards it all: these jobs wait in the kernel for longer than anybody waits here.
//!
//! A thread is at a node, pinned to it and with its memory. It takes the most urgent job, its own
//! node's before others', and goes with the job to the job's node. A job wakes the thread of its node that
//! has been idle for the shortest time; where there is none a new one is started, or, at the limit, an idle
//! one elsewhere is woken. So no job waits while a thread is idle and may begin one, whatever node it asks
//! for; and who has been idle for long is not needed, and ends ([`resting`](crate::protocol::resting)).
//!
//! P0 is taken before P1 before P2, but that a job of P2 that waits is taken where none of its node was
//! for [`background_patience`](crate::EngineBuilder::background_patience).

mod life;
mod node;
mod regulated;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cell::{AnyJob, Meta};
use crate::cpu_time;
use crate::hybrid::Watched;
use crate::panics::contain;
use crate::parker::Unparker;
use crate::protocol::refs::Ref;
use crate::protocol::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::schedule::{ThreadId, note_lock_of_all};
use crate::{Class, Priority};
use node::Node;
use regulated::{Member, Regulator};

pub(crate) use life::{live, settle, stand_in};

/// How long a thread stays without work: long enough to outlast the pauses of a steady load, short
/// enough that those of a burst are gone soon.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// So many threads may have handed their place on at once.
const MOST_REPLACED: usize = 256;
/// From so many on, who waits rather does itself what it waits for.
const MANY_REPLACED: usize = 16;

/// Which threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    Io,
    /// Of class Hybrid, P1.
    Hybrid,
    /// Of class Hybrid, P0.
    UrgentHybrid,
    /// Of class Hybrid, P2. The kernel may stop its threads at any step.
    BackgroundHybrid,
}

impl Pool {
    /// Those that a job runs on; none if that is a worker.
    pub(crate) fn of(meta: &Meta) -> Option<Pool> {
        match (meta.runs_as, meta.priority) {
            (Class::Cpu, _) => None,
            (Class::Io, _) => Some(Pool::Io),
            (Class::Hybrid | Class::Auto, Priority::P0) => Some(Pool::UrgentHybrid),
            (Class::Hybrid | Class::Auto, Priority::P1) => Some(Pool::Hybrid),
            (Class::Hybrid | Class::Auto, Priority::P2) => Some(Pool::BackgroundHybrid),
        }
    }

    /// True if its threads may do jobs of that pool: ordinary ones relieve the background.
    pub(crate) fn does(self, of: Pool) -> bool {
        self == of || (self, of) == (Pool::Hybrid, Pool::BackgroundHybrid)
    }

    /// What its threads are called.
    pub(crate) fn thread_name(self) -> &'static str {
        match self {
            Pool::Io => "reiver-io",
            Pool::Hybrid => "reiver-hybrid",
            Pool::UrgentHybrid => "reiver-hyb-p0",
            Pool::BackgroundHybrid => "reiver-hyb-p2",
        }
    }
}

/// The threads of a pool, and the jobs that wait for them.
#[derive(Debug)]
pub(crate) struct Io {
    pool: Pool,
    state: Mutex<State>,
    /// The regulator has something to look at.
    looks: Condvar,
    limits: RangeInclusive<usize>,
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
    /// So many threads may be in a job at once, and more for those that wait there.
    places: usize,
    /// Threads that were blocked in a job when the regulator last looked.
    blocked: usize,
    /// Of those that have not handed their place on, so many count at the most.
    most_blocked: usize,
    /// Of a pool that has a regulator, those that live; by a number of their own.
    members: Vec<Member>,
    numbers: u64,
    /// It was asked for.
    has_regulator: bool,
    regulator: Regulator,
    stopped: bool,
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
        let idle: usize = self.nodes.iter().map(|node| node.idle.count()).sum();
        self.threads - idle
    }

    /// How many threads may be in a job just now. One that has handed its place on is seen to be blocked,
    /// too, sooner or later.
    fn most_busy(&self) -> usize {
        let most = self.most_blocked.saturating_add(self.replaced);
        let waiting = self.replaced.max(self.blocked.min(most));
        self.places.saturating_add(waiting)
    }

    /// True if one more may be in a job.
    fn has_place(&self) -> bool {
        self.busy() < self.most_busy()
    }

    fn member(&mut self, number: u64) -> Option<&mut Member> {
        let mut members = self.members.iter_mut();
        members.find(|member| member.number == number)
    }

    fn lie_down(&mut self, node: usize, thread: &Resident) {
        let wakes = thread.wakes.clone();
        self.nodes[node].idle.lie_down(thread.number, wakes);
        if let Some(member) = self.member(thread.number) {
            member.is_idle = true;
        }
    }

    fn get_up(&mut self, node: usize, number: u64) {
        self.nodes[node].idle.get_up(number);
        if let Some(member) = self.member(number) {
            member.is_fresh |= std::mem::take(&mut member.is_idle);
        }
    }
}

/// Who may begin one job more.
#[derive(Debug)]
enum Admitted {
    Nobody,
    /// A thread, which is to be woken, under the lock or after it.
    Idle(Unparker),
    /// One that is to be started at this node.
    New(usize),
}

impl Admitted {
    fn carry_out(self) -> Wanted {
        match self {
            Admitted::Nobody => Wanted::Nothing,
            Admitted::Idle(thread) => {
                thread.unpark();
                Wanted::Nothing
            }
            Admitted::New(node) => Wanted::Thread(node),
        }
    }
}

/// A thread of a pool.
#[derive(Debug, Clone)]
struct Resident {
    number: u64,
    wakes: Unparker,
}

/// What it is to do.
#[derive(Debug)]
enum Next {
    /// A job, and the node that it belongs to.
    Job(usize, Ref<dyn AnyJob>),
    /// To sleep until it is woken.
    Rest,
    End,
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
            blocked: 0,
            most_blocked: limits.end() - places,
            members: Vec::new(),
            numbers: 0,
            has_regulator: pool == Pool::Io,
            regulator: Regulator::Awake,
            stopped: false,
        };
        Io {
            pool,
            state: Mutex::new(state),
            looks: Condvar::new(),
            limits,
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
        self.push_by(near, |node| node.push(job))
    }

    /// The same, before all others of its node, for one that has waited for too long.
    pub(crate) fn push_overdue(&self, near: &[usize], job: Ref<dyn AnyJob>) -> Wanted {
        self.push_by(near, |node| node.push_overdue(job))
    }

    fn push_by(&self, near: &[usize], push: impl FnOnce(&mut Node)) -> Wanted {
        let mut state = self.state();
        push(&mut state.nodes[near[0]]);
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
        admitted.carry_out()
    }

    /// There is a job more, or a place: somebody begins one, if there are both.
    fn admit(&self, state: &mut State, near: &[usize]) -> Admitted {
        let home = near[0];
        if !state.has_place() {
            return Admitted::Nobody;
        }
        if let Some(idle) = state.nodes[home].idle.rouse() {
            return Admitted::Idle(idle);
        }
        if state.threads < self.most_threads(state) {
            state.threads += 1;
            self.note_threads(state);
            return Admitted::New(home);
        }
        let mut others = near.iter();
        let idle = others.find_map(|&node| state.nodes[node].idle.rouse());
        idle.map_or(Admitted::Nobody, Admitted::Idle)
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
        let nodes = 0..state.nodes.len();
        let job = is_alone.then(|| state.most_urgent(nodes, self.patience));
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
        if !state.has_jobs() {
            return;
        }
        let mut nodes = state.nodes.iter_mut();
        if let Some(thread) = nodes.find_map(|node| node.idle.rouse()) {
            thread.unpark();
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
        Some(admitted.map_or(Wanted::Nothing, Admitted::carry_out))
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

    /// A P2 job of each node where none was taken for too long, with the node.
    pub(crate) fn take_overdue(&self) -> Vec<(usize, Ref<dyn AnyJob>)> {
        let mut state = self.state();
        let nodes = state.nodes.iter_mut().enumerate();
        let overdue =
            nodes.filter_map(|(node, here)| Some((node, here.pop_overdue(self.patience)?)));
        overdue.collect()
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
        let mut state = self.state();
        state.stopped = true;
        for node in &mut state.nodes {
            std::iter::from_fn(|| node.idle.rouse()).for_each(|thread| thread.unpark());
        }
        self.looks.notify_all();
    }

    /// The current thread is one of the pool: its number there, and whether a regulator is to be asked for.
    fn enter(&self) -> (u64, bool) {
        let computes = self.pool != Pool::Io;
        let thread = computes.then(|| Watched {
            id: ThreadId::current().as_raw(),
            clock: cpu_time::own_clock(),
        });
        let mut state = self.state();
        state.numbers += 1;
        let number = state.numbers;
        state.members.extend(thread.map(|thread| Member {
            number,
            thread,
            is_idle: false,
            is_fresh: true,
            yields: false,
        }));
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

    /// What a thread of the pool does next that is at `near[0]`; `idle` is for how long it has had nothing
    /// to do, if it has rested.
    fn next(&self, near: &[usize], thread: &Resident, idle: Option<Duration>) -> Next {
        let here = near[0];
        let mut state = self.state();
        if idle.is_some() {
            state.get_up(here, thread.number);
        }
        if state.threads > self.most_threads(&state) {
            self.end_one(&mut state);
            return Next::End;
        }
        // This one is among the busy.
        let is_placed = state.busy() <= state.most_busy();
        let found = is_placed.then(|| state.most_urgent(near.iter().copied(), self.patience));
        if let Some((node, job)) = found.flatten() {
            return Next::Job(node, job);
        }
        let is_needed = state.threads <= *self.limits.start() || idle < Some(KEEP_ALIVE);
        if state.stopped || !is_needed {
            state.threads -= 1;
            self.note_threads(&state);
            return Next::End;
        }
        state.lie_down(here, thread);
        Next::Rest
    }
}
