//! Threads for jobs that block: as many as there are jobs, up to a limit, and fewer again when
//! there is less to do. They never run CPU jobs, and CPU workers never run theirs.
//!
//! One mutex guards it all: these jobs wait in the kernel for longer than anybody waits here.
//!
//! A thread is at a node, pinned to it and with its memory. It takes the most urgent job, its own
//! node's before others', and goes with the job to the job's node. A job wakes an idle thread of
//! its node; where there is none a new one is started, or, at the limit, an idle one elsewhere is
//! woken. So no job waits while a thread is idle, whatever node it asks for.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reiver_topology::here::{self, Here};
use reiver_topology::place;

use crate::builder::Pinning;
use crate::cell::{AnyJob, Place};
use crate::current::Current;
use crate::panics::contain;
use crate::protocol::refs::Ref;
use crate::protocol::sync::{AtomicBool, Ordering};
use crate::queues::Task;
use crate::schedule::note_lock_of_all;
use crate::shared::Shared;
use crate::worker::run;

/// How long a thread stays without work: long enough to outlast the pauses of a steady load, short
/// enough that a burst's threads are gone within the minute.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// So many threads may have handed their place on at once.
const MOST_REPLACED: usize = 256;
/// From so many on, who waits rather does itself what it waits for.
const MANY_REPLACED: usize = 16;

#[derive(Debug)]
pub(crate) struct Io {
    state: Mutex<State>,
    /// One a node.
    woken: Box<[Condvar]>,
    limits: RangeInclusive<usize>,
    /// A thread was refused, and that was said.
    refused: AtomicBool,
}

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    /// Threads that live or have been asked for.
    threads: usize,
    /// Threads that have handed their place on.
    replaced: usize,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Node {
    /// By priority.
    jobs: [VecDeque<Ref<dyn AnyJob>>; 3],
    /// Threads that wait here and that nobody has woken yet.
    idle: usize,
    /// Wakes that no thread has taken up yet.
    wakes: usize,
}

impl Node {
    fn has_jobs(&self) -> bool {
        self.jobs.iter().any(|jobs| !jobs.is_empty())
    }
}

impl State {
    /// Takes the most urgent job, of the first of these nodes that has one.
    fn most_urgent(
        &mut self,
        nodes: impl Iterator<Item = usize> + Clone,
    ) -> Option<(usize, Ref<dyn AnyJob>)> {
        (0..3).find_map(|priority| {
            nodes.clone().find_map(|node| {
                let job = self.nodes[node].jobs[priority].pop_front()?;
                Some((node, job))
            })
        })
    }
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
    pub(crate) fn new(nodes: usize, limits: RangeInclusive<usize>) -> Io {
        let state = State {
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            threads: 0,
            replaced: 0,
            stopped: false,
        };
        let woken = (0..nodes).map(|_| Condvar::new()).collect();
        Io {
            state: Mutex::new(state),
            woken,
            limits,
            refused: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        note_lock_of_all();
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job at a node; `near` are all nodes, nearest to it first.
    pub(crate) fn push(&self, near: &[usize], job: Ref<dyn AnyJob>) -> Wanted {
        let home = near[0];
        let mut state = self.state();
        state.nodes[home].jobs[job.meta().priority as usize].push_back(job);
        let has_idle = |state: &State, node: usize| state.nodes[node].idle > 0;
        let idle = if has_idle(&state, home) {
            Some(home)
        } else if state.threads < self.most_threads(&state) {
            state.threads += 1;
            return Wanted::Thread(home);
        } else {
            near.iter().copied().find(|&node| has_idle(&state, node))
        };
        if let Some(node) = idle {
            self.wake(&mut state, node);
        }
        Wanted::Nothing
    }

    /// Wakes an idle thread of a node that has one.
    fn wake(&self, state: &mut State, node: usize) {
        state.nodes[node].idle -= 1;
        state.nodes[node].wakes += 1;
        self.woken[node].notify_one();
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
        let job = is_alone.then(|| state.most_urgent(0..self.woken.len()));
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
        let idle = state.nodes.iter().position(|node| node.idle > 0);
        if let Some(node) = idle.filter(|_| state.nodes.iter().any(Node::has_jobs)) {
            self.wake(state, node);
        }
    }

    fn most_threads(&self, state: &State) -> usize {
        self.limits.end().saturating_add(state.replaced)
    }

    /// A thread is about to wait for what others may have to do: one more may run meanwhile. `None`
    /// where none more may, or none is to be had.
    pub(crate) fn hand_on(&self) -> Option<Wanted> {
        let mut state = self.state();
        if state.replaced >= MOST_REPLACED || self.is_refused() {
            return None;
        }
        state.replaced += 1;
        let waits = state.nodes.iter().position(Node::has_jobs);
        match waits.filter(|_| state.threads < self.most_threads(&state)) {
            None => Some(Wanted::Nothing),
            Some(node) => {
                state.threads += 1;
                Some(Wanted::Thread(node))
            }
        }
    }

    pub(crate) fn is_mostly_replaced(&self) -> bool {
        self.state().replaced >= MANY_REPLACED || self.is_refused()
    }

    /// The next job, for a thread that waits and nobody else could take the place of.
    pub(crate) fn take(&self, near: &[usize]) -> Option<Ref<dyn AnyJob>> {
        let found = self.state().most_urgent(near.iter().copied());
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
    }

    /// The next job for a thread, the most urgent first, and the node it belongs to; `None` when
    /// the thread is to end.
    fn next(&self, near: &[usize]) -> Option<(usize, Ref<dyn AnyJob>)> {
        let here = near[0];
        let mut state = self.state();
        loop {
            if state.threads > self.most_threads(&state) {
                self.end_one(&mut state);
                return None;
            }
            if let Some(found) = state.most_urgent(near.iter().copied()) {
                return Some(found);
            }
            if state.stopped {
                state.threads -= 1;
                return None;
            }
            state.nodes[here].idle += 1;
            let until = Instant::now() + KEEP_ALIVE;
            while state.nodes[here].wakes == 0 && !state.stopped {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() && state.threads > *self.limits.start() {
                    state.nodes[here].idle -= 1;
                    // Nothing waits, unless a thread for it was asked for and has not come yet.
                    let job = state.most_urgent(near.iter().copied());
                    state.threads -= usize::from(job.is_none());
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
        }
    }
}

/// The life of an I/O thread, which begins at a node.
pub(crate) fn live(shared: Arc<Shared>, mut node: usize) {
    settle(&shared, node);
    let current = Current::io(Arc::clone(&shared), node);
    while let Some((home, job)) = shared.io.next(&shared.machine.near[node]) {
        if home != node && matches!(job.meta().place, Place::Strict(_) | Place::Prefer(_)) {
            node = home;
            reiver_pool::move_hook();
            settle(&shared, node);
            current.move_to(node);
        }
        run(Task::Job(job), &current);
        current.forget_stamp();
        // What it has in its hands of other nodes' objects is not to wait for the next job.
        reiver_pool::park_hook();
    }
    here::set(None);
}

/// Where the system refuses the first I/O thread: runs what waits, on a thread that is none.
pub(crate) fn stand_in(shared: &Arc<Shared>) {
    let current = Current::io(Arc::clone(shared), 0);
    while let Some(job) = shared.io.next_without_threads() {
        run(Task::Job(job), &current);
    }
}

/// Puts the thread at a node.
pub(crate) fn settle(shared: &Shared, node: usize) {
    let id = shared.machine.nodes[node].id;
    if shared.options.pinning != Pinning::None {
        place::pin_thread_to(&shared.machine.topology, place::Target::Node(id));
        shared.machine.settle_memory(node);
    }
    here::set(Some(Here {
        node: id,
        worker: shared.main().workers.len() + node,
    }));
}
