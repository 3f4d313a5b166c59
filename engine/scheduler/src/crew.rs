//! A crew: workers that share work with each other and with nobody else, with their queues, their spares
//! and their sleep.
//!
//! An engine has a crew for ordinary work from the start, and one each for urgent and for background
//! work from the first job of that priority on. What keeps urgent work on time is the kernel, which
//! takes the CPU from a thread that is less urgent the moment that one that is more so wakes; so each
//! crew has as many threads as there are CPUs to use, and asks the kernel for what its rank stands for:
//!
//! | rank | its jobs | its threads ask for |
//! | --- | --- | --- |
//! | urgent | P0 | nothing |
//! | ordinary | P1 | once there is an urgent crew, and unless the builder says no: to be nice, and to run for short times |
//! | background | P2 | `SCHED_IDLE`; nice 19 where that is refused |
//!
//! Forks stay in the crew of who has begun them. The threads of a background crew may be stopped by the
//! kernel at any step, for as long as there is anything else to do. So nobody waits for what one of
//! them can hold: work for them is handed over (see [`hand_over`](crate::protocol::hand_over)), they
//! sleep without a lock, and what they submit for others is brought by the spawner in their place.
//!
//! Threads that are not there are started by the spawner, which alone knows who is missing, and alone
//! decides. Who brings work and who leaves agree so:
//!
//! | who brings work | a worker that leaves, and once more the spawner for it |
//! | --- | --- |
//! | 1. pushes it | 1. counts itself absent |
//! | 2. fence | 2. fence |
//! | 3. wakes somebody, or, if some are absent, asks the spawner | 3. looks once more; stays, or is started again, if there is work |
//!
//! Of the two fences one comes first: the worker finds the work, or who brought it sees that one is
//! absent. A worker that leaves tells the spawner, which starts one again if there is work by then: so
//! it does not matter which of the two messages comes first. `tests/loom_crew.rs` checks it.
//!
//! Where the system refuses threads, or the spawner is [`away`](crate::protocol::away) in somebody else's
//! code, ordinary workers do what nobody of the crew will come to: all if it has no worker at all, else what
//! may be done only at nodes where it has none. The fence of who brings work goes with one of the spawner.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reiver_topology::Seat;

use crate::Priority;
use crate::ageing::Progress;
use crate::cell::AnyJob;
use crate::clock::Stamp;
use crate::fork::Fork;
use crate::machine::{Machine, WorkerNode};
use crate::orders::StealOrders;
use crate::protocol::muster::Muster;
use crate::protocol::refs::Ref;
use crate::protocol::sleep::Sleepers;
use crate::protocol::sync::{AtomicUsize, Ordering};
use crate::queues::NodeQueues;
use crate::shared::Shared;
use crate::spares::{Spares, spares_for};
use crate::worker::{Worker, WorkerFace};

/// Which crew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    Urgent,
    Ordinary,
    Background,
}

impl Rank {
    pub(crate) fn of(priority: Priority) -> Rank {
        match priority {
            Priority::P0 => Rank::Urgent,
            Priority::P1 => Rank::Ordinary,
            Priority::P2 => Rank::Background,
        }
    }

    /// What its threads are called.
    pub(crate) fn thread_name(self) -> &'static str {
        match self {
            Rank::Urgent => "reiver-p0",
            Rank::Ordinary => "reiver-cpu",
            Rank::Background => "reiver-p2",
        }
    }
}

/// The workers of a rank, and what they share.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) rank: Rank,
    /// Those that are always there, then the spares.
    pub(crate) workers: Box<[WorkerFace]>,
    /// By node.
    pub(crate) spares: Box<[Spares]>,
    /// The numbers of the spares of each node.
    spare_numbers: Box<[Range<usize>]>,
    /// How many spares work just now.
    active_spares: AtomicUsize,
    /// By node.
    pub(crate) queues: Box<[NodeQueues]>,
    pub(crate) sleepers: Sleepers,
    pub(crate) orders: StealOrders,
    /// Who has a thread.
    pub(crate) muster: Muster,
    /// Workers without a thread. The spawner's alone, once the crew is there.
    unstarted: Mutex<Vec<Worker>>,
    /// By node; see [`Crew::age`].
    progress: Box<[Progress]>,
}

impl Crew {
    /// A crew on these seats, all of whose workers are without threads.
    pub(crate) fn new(
        rank: Rank,
        machine: &Machine,
        seats: &[Seat],
        threadless: bool,
        eager: bool,
    ) -> Crew {
        let count = seats.len();
        let mut of_node: Vec<Vec<usize>> = vec![Vec::new(); machine.nodes.len()];
        for (index, seat) in seats.iter().enumerate() {
            let node = machine.index_of(seat.node);
            of_node[node.expect("a seat's node has workers")].push(index);
        }
        // After those that are always there come the spares, node by node, each on the seat of one of
        // them.
        let mut twins: Vec<(usize, usize)> = Vec::new();
        let mut numbers: Vec<Range<usize>> = Vec::new();
        for (node, mates) in of_node.iter().enumerate() {
            let first = count + twins.len();
            let spares = if threadless {
                0
            } else {
                spares_for(mates.len())
            };
            twins.extend(mates.iter().cycle().take(spares).map(|&twin| (node, twin)));
            numbers.push(first..first + spares);
        }
        let with_spares = of_node.iter().zip(&numbers);
        let with_spares = with_spares
            .map(|(mates, spares)| mates.iter().copied().chain(spares.clone()).collect());
        let sleepers = Sleepers::new(with_spares.collect(), eager);
        let sleepers = if rank == Rank::Urgent && machine.topology.is_this_machine() {
            // Whoever submits is not to be stopped by whom it wakes.
            let twin = |worker: usize| worker.checked_sub(count).map(|spare| twins[spare].1);
            sleepers.apart(|worker| seats[twin(worker).unwrap_or(worker)].cpu)
        } else {
            sleepers
        };

        let (mut workers, mut faces) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (index, seat) in seats.iter().enumerate() {
            let node = machine
                .index_of(seat.node)
                .expect("a seat's node has workers");
            let (worker, face) = Worker::new(rank, (index, node), None, &sleepers, *seat);
            faces.push(face);
            workers.push(worker);
        }
        let mut spares: Vec<Vec<Worker>> = machine.nodes.iter().map(|_| Vec::new()).collect();
        for (index, (node, twin)) in (count..).zip(twins) {
            let (spare, face) =
                Worker::new(rank, (index, node), Some(twin), &sleepers, seats[twin]);
            faces.push(face);
            spares[node].push(spare);
        }
        // The last is taken first.
        workers.reverse();
        Crew {
            rank,
            workers: faces.into(),
            spares: spares.into_iter().map(Spares::new).collect(),
            spare_numbers: numbers.into(),
            active_spares: AtomicUsize::new(0),
            queues: machine
                .nodes
                .iter()
                .map(|_| NodeQueues::new(rank == Rank::Background))
                .collect(),
            sleepers,
            orders: StealOrders::new(seats),
            // Whoever builds the engine starts those of ordinary work.
            muster: Muster::new(
                if rank == Rank::Ordinary { 0 } else { count },
                machine.nodes.len(),
            ),
            unstarted: Mutex::new(workers),
            progress: machine.nodes.iter().map(|_| Progress::default()).collect(),
        }
    }

    /// All workers, where others start their threads.
    pub(crate) fn take_unstarted(&self) -> Vec<Worker> {
        let mut unstarted = self.unstarted();
        let mut workers = std::mem::take(&mut *unstarted);
        workers.reverse();
        workers
    }

    /// A worker without a thread, for the spawner.
    pub(crate) fn next_unstarted(&self) -> Option<Worker> {
        self.unstarted().pop()
    }

    /// A worker has no thread any more, or got none, says the spawner.
    pub(crate) fn keep_unstarted(&self, worker: Worker) {
        self.unstarted().push(worker);
    }

    fn unstarted(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        self.unstarted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, and sees to it that somebody comes to it.
    pub(crate) fn push(
        &self,
        shared: &Arc<Shared>,
        node: usize,
        strict: bool,
        job: Ref<dyn AnyJob>,
    ) {
        let priority = job.meta().priority;
        let queues = &self.queues[node];
        self.note_first(node);
        queues.push(priority, strict, job);
        if strict {
            shared.wake(self, self.sleepers.claim(std::iter::once(node)));
        } else {
            self.wake_one(shared, node);
        }
        self.call_for_more(shared);
    }

    /// After work was pushed and woken for: asks for a thread if some are absent; what nobody would come
    /// to others do.
    pub(crate) fn call_for_more(&self, shared: &Shared) {
        if self.rank == Rank::Ordinary {
            // Its workers are always there.
            return;
        }
        if self.muster.calls() {
            shared.spawner.call(shared.weak(), self.rank);
        }
        if self.rank == Rank::Background {
            shared.look_after_background();
        }
        self.leave_to_others(shared);
    }

    /// After a fence: ordinary workers do what lies where nobody of the crew is and nobody will be, because
    /// threads are refused, or who would start them is away.
    pub(crate) fn leave_to_others(&self, shared: &Shared) {
        if !self.muster.is_refused() && !shared.spawner.is_away() {
            return;
        }
        let is_left = |node: usize| self.muster.present_at(node) == 0;
        let mut queues = self.queues.iter().enumerate();
        let lies = queues.any(|(node, queues)| is_left(node) && queues.has_strict_jobs())
            || (self.muster.present() == 0 && self.has_queued());
        if lies
            && self.rank != Rank::Ordinary
            && let Some(shared) = shared.weak().upgrade()
        {
            shared.relieve(self);
        }
    }

    /// Wakes the sleeper nearest to a node, if there is one and nobody searches, for work that may be
    /// done on any node. True if it woke one.
    pub(crate) fn wake_one(&self, shared: &Shared, node: usize) -> bool {
        let near = shared.machine.near[node].iter().copied();
        let sleeper = self.sleepers.claim_for_any(near);
        shared.wake(self, sleeper);
        sleeper.is_some()
    }

    /// A worker of a node that searched has found something, or searches no more. Others may have
    /// relied on it, or woken it, for work that it now leaves: somebody else is woken for what there
    /// is, one of its own node for what only those may do.
    pub(crate) fn pass_on(&self, shared: &Shared, node: usize) {
        let near = shared.machine.near[node].iter().copied();
        let has_strict = || self.queues[node].has_strict_jobs();
        let has_work = || self.has_work(shared);
        let woken = self.sleepers.pass_on(node, near, has_strict, has_work);
        shared.wake(self, woken);
    }

    /// True if there is something that anybody may take.
    fn has_work(&self, shared: &Shared) -> bool {
        let lies = |queues: &NodeQueues| queues.has_forks() || queues.has_jobs(false);
        // The look at a private list disturbs its owner, and so comes last.
        let is_held = |worker: &WorkerFace| worker.has_chunk() || worker.robber.is_worth_it();
        let mut nodes = 0..self.queues.len();
        self.queues.iter().any(lies)
            || nodes.clone().any(|node| self.has_forks(shared, node))
            || nodes.any(|node| self.workers_of(shared, node).any(is_held))
    }

    /// True if anything lies in its queues.
    pub(crate) fn has_queued(&self) -> bool {
        let lies = |queues: &NodeQueues| queues.has_forks() || queues.has_jobs(true);
        self.queues.iter().any(lies)
    }

    /// True if there are P0 jobs that a worker of this node may take.
    #[inline]
    pub(crate) fn has_urgent(&self, shared: &Shared, node: usize) -> bool {
        let near = shared.machine.near[node].iter();
        let mut near = near.map(|&other| (&self.queues[other], other == node));
        near.any(|(queues, is_own)| queues.has(Priority::P0, is_own))
    }

    /// True if other nodes may take something from this one.
    pub(crate) fn has_work_at(&self, shared: &Shared, node: usize) -> bool {
        let queues = &self.queues[node];
        queues.has_forks() || queues.has_jobs(false) || self.has_forks(shared, node)
    }

    /// True if a worker of the node, or a spare, has forks in its deque.
    pub(crate) fn has_forks(&self, shared: &Shared, node: usize) -> bool {
        self.workers_of(shared, node).any(WorkerFace::has_forks)
    }

    /// True if a worker or a spare has forks that nobody has asked for.
    pub(crate) fn has_private_forks(&self, shared: &Shared) -> bool {
        let mut nodes = 0..self.queues.len();
        nodes.any(|node| {
            self.workers_of(shared, node)
                .any(|worker| worker.robber.is_worth_it())
        })
    }

    /// The workers of a node, and its spares if any work.
    fn workers_of(&self, shared: &Shared, node: usize) -> impl Iterator<Item = &WorkerFace> {
        let WorkerNode { first, workers, .. } = shared.machine.nodes[node];
        let numbers = (first..first + workers).chain(self.active_spares(node));
        numbers.map(|number| &self.workers[number])
    }

    /// A worker of a node that has nothing has taken a job of another node: it fetches more of them for
    /// its mates.
    pub(crate) fn fetch_half(&self, shared: &Shared, from: usize, home: usize) {
        let (from, to) = (&self.queues[from], &self.queues[home]);
        if from.move_half(Priority::P1, to) {
            // While they were on their way nobody saw them, nor did who empties the queues.
            self.wake_one(shared, home);
            shared.end_queued_if_ending();
        }
    }

    /// What was taken from a queue and is not done goes back, or to the queue of another node.
    pub(crate) fn push_again(&self, shared: &Shared, node: usize, job: Ref<dyn AnyJob>) {
        let priority = job.meta().priority;
        self.queues[node].push(priority, false, job);
        self.wake_one(shared, node);
        shared.end_queued_if_ending();
    }

    /// Pushes a fork from outside.
    pub(crate) fn push_fork(&self, shared: &Arc<Shared>, node: usize, fork: Fork) {
        self.queues[node].push_fork(fork);
        self.wake_one(shared, node);
        self.call_for_more(shared);
    }

    /// What was taken, for a worker of a node. Who moved others has to say so.
    pub(crate) fn see<T>(&self, shared: &Shared, node: usize, taken: crate::queues::Taken<T>) -> T {
        if taken.moved {
            // While they were on their way nobody saw them, nor did who empties the queues, nor a worker
            // that was about to leave.
            self.wake_one(shared, node);
            self.call_for_more(shared);
            shared.end_queued_if_ending();
        }
        taken.value
    }

    /// The spares of a node, if any work just now.
    pub(crate) fn active_spares(&self, node: usize) -> Range<usize> {
        // ORDERING: relaxed: a spare is counted before it pushes anything, and who must not miss
        // what it pushes has the fence of the sleepers in between.
        match self.active_spares.load(Ordering::Relaxed) {
            0 => 0..0,
            _ => self.spare_numbers[node].clone(),
        }
    }

    /// True if at least half of the spares of a node are taken.
    pub(crate) fn are_few_spares(&self, node: usize) -> bool {
        2 * self.spares[node].replaced() >= self.spare_numbers[node].len()
    }

    /// So many more spares work, or fewer.
    pub(crate) fn note_spares(&self, more: isize) {
        // ORDERING: relaxed, see `active_spares`.
        self.active_spares
            .fetch_add(more.cast_unsigned(), Ordering::Relaxed);
    }

    /// Jobs are about to come to a node: it may be that none waits there.
    pub(crate) fn note_first(&self, node: usize) {
        if self.rank == Rank::Background && !self.queues[node].has_jobs(true) {
            self.note_progress(node, Stamp::now());
        }
    }

    /// A job of a node has ended, or has come where none waited.
    pub(crate) fn note_progress(&self, node: usize, now: Stamp) {
        self.progress[node].note(now);
    }

    /// The nodes whose queues are like that.
    pub(crate) fn nodes_where(
        &self,
        is_so: impl Fn(&NodeQueues) -> bool,
    ) -> impl Iterator<Item = usize> {
        let queues = self.queues.iter().enumerate();
        queues
            .filter(move |(_, queues)| is_so(queues))
            .map(|(node, _)| node)
    }

    /// How long nothing of a node need move yet.
    pub(crate) fn time_left(&self, node: usize, now: Stamp, patience: Duration) -> Duration {
        self.progress[node].left(now, patience)
    }

    /// A job that waits although nothing of its node has moved for so long: for a worker that has other
    /// work. Never waits for who may be stopped.
    pub(crate) fn age(
        &self,
        shared: &Shared,
        node: usize,
        is_own: bool,
        patience: Duration,
    ) -> Option<Ref<dyn AnyJob>> {
        let queues = &self.queues[node];
        if !queues.has(Priority::P2, is_own) {
            return None;
        }
        if !self.progress[node].is_overdue(Stamp::now(), patience) {
            return None;
        }
        let taken = queues.take(Priority::P2, is_own);
        taken.map(|taken| self.see(shared, node, taken))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::cell::Outcome;
    use crate::room::Entry;
    use crate::{Class, Engine, Interrupted};

    /// Of one worker, who does no background work itself.
    fn engine() -> Engine {
        let builder = Engine::builder().cpu_workers(1);
        builder.background_patience(Duration::MAX).build().unwrap()
    }

    /// A background job in its queue, of which nobody was told.
    fn queued(engine: &Engine) -> Ref<dyn Outcome<()>> {
        let shared = engine.shared();
        let cell = engine.job().priority(Priority::P2).into_cell(|_| ());
        let (job, handle) = cell.unwrap().split();
        shared.admit(Class::Cpu, Entry::Queued).unwrap();
        let crew = shared.crew_for(Priority::P2);
        crew.queues[0].push(Priority::P2, false, job);
        handle
    }

    fn wait_for(job: &Ref<dyn Outcome<()>>) {
        let begun = Instant::now();
        while !job.is_ended() {
            assert!(begun.elapsed() < Duration::from_secs(200));
            std::thread::yield_now();
        }
    }

    /// As when somebody has all in its hands while the last worker leaves.
    #[test]
    fn who_has_moved_work_calls_for_who_does_it() {
        let engine = engine();
        let (shared, [first, second]) = (engine.shared(), [(); 2].map(|()| queued(&engine)));
        let crew = shared.crew_for(Priority::P2);
        let taken = crew.queues[0].take(Priority::P2, true).unwrap();
        assert!(taken.moved);
        let taken = crew.see(shared, 0, taken);
        wait_for(&second);
        taken.end_queued(Interrupted::Cancelled, Some(shared));
        assert!(first.is_ended());
    }

    #[test]
    fn who_has_swept_calls_for_who_does_what_is_left() {
        let engine = engine();
        let job = queued(&engine);
        for _ in 0..crate::sweep::FEW_DEAD {
            engine.shared().note_dead(Class::Cpu);
        }
        wait_for(&job);
    }
}
