//! The simulation itself: workers that act one after the other in simulated nanoseconds.
//!
//! Whoever is next on the clock acts, at once and wholly, and says how long that took; who acts at the
//! same moment does so in the order in which it was decided. So a run is a function of machine,
//! workload, policy, costs and seed. What an idle worker does is in [`search`](super::search), who
//! sleeps and who is woken in [`sleepers`](super::sleepers).
//!
//! A worker runs a fork's first part at once and leaves the second in its private list; a join takes
//! it back if nobody has it, else the worker does other work until it is done. Forks move to the deque,
//! one at a time, when somebody is idle.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::costs::{Constant, Costs, rounded};
use super::machine::Machine;
use super::outcome::Run;
use super::policy::{Order, Policy};
use super::random::Random;
use super::search::Search;
use super::sleepers::Sleepers;
use super::workload::{Task, Then, Workload};

/// Lines that move with a fork: the ends of the deque, its slot, the fork itself.
pub(super) const LINES_A_STEAL: f64 = 3.0;
/// Lines that move when a stolen fork is done: its latch, its result.
const LINES_A_RETURN: f64 = 2.0;

pub(super) type ForkId = usize;

/// The second part of a fork, or what came from outside.
#[derive(Debug)]
pub(super) struct Fork {
    task: Task,
    /// None if it came from outside.
    pub(super) owner: Option<usize>,
    /// Where it was made.
    node: usize,
    is_done: bool,
}

/// What a worker comes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// The first part is done: this is the second.
    Join(ForkId),
    /// The second part was taken by somebody.
    Wait(ForkId),
    /// This fork is done then, and somebody may wait for it.
    Latch(ForkId),
}

/// What a worker does next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// The task's data of its own lies at this node.
    Run(Task, usize),
    Return,
    Search,
    /// Woken, or about to sleep and woken meanwhile.
    Awake,
    Asleep,
}

/// A queue that others take from, and what it costs to touch it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) forks: VecDeque<ForkId>,
    /// Changes whenever the queue does.
    pub(super) version: u32,
    /// Since when there has been something.
    pub(super) filled_at: u64,
    /// Until then somebody else has the line.
    pub(super) free_at: u64,
    /// Who wrote it last; none if that was outside.
    pub(super) written_by: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) node: usize,
    pub(super) phase: Phase,
    pub(super) frames: Vec<Frame>,
    /// The newest last.
    pub(super) private: VecDeque<ForkId>,
    pub(super) order: Order,
    pub(super) search: Search,
    /// The version at which it has seen each queue.
    pub(super) seen: Vec<u32>,
    demand_seen: u32,
    /// What interrupts have cost since it last acted.
    pub(super) debt_ns: u64,
    is_busy: bool,
    pub(super) random: Random,
}

/// All there is, at one moment.
#[derive(Debug)]
pub(super) struct World<'w> {
    pub(super) machine: &'w Machine,
    workload: &'w Workload,
    pub(super) policy: Policy,
    pub(super) costs: &'w Costs,
    pub(super) now: u64,
    /// Time, order, who.
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    decided: u64,
    pub(super) workers: Vec<Worker>,
    pub(super) forks: Vec<Fork>,
    free: Vec<ForkId>,
    /// The deques of the workers, then the injectors of the nodes.
    pub(super) queues: Vec<Queue>,
    pub(super) sleepers: Sleepers,
    /// By node: who looks at other nodes.
    pub(super) crossers: Vec<Option<usize>>,
    arriving: VecDeque<(usize, Task)>,
    unfinished: usize,
    busy: usize,
    pub(super) outcome: Run,
}

/// Runs a workload from its submission to its end, all workers asleep at first.
pub(super) fn simulate(
    machine: &Machine,
    workload: &Workload,
    policy: Policy,
    costs: &Costs,
    seed: u64,
) -> Run {
    let mut world = World::new(machine, workload, policy, costs, seed);
    while world.unfinished > 0 {
        let Reverse((time, _, who)) = world
            .events
            .pop()
            .expect("somebody works until all is done");
        world.now = time;
        world.act(who);
    }
    world.outcome.makespan_ns = world.now;
    world.outcome.spread_ns.get_or_insert(world.now);
    world.outcome.workers = machine.workers();
    world.outcome
}

impl<'w> World<'w> {
    fn new(
        machine: &'w Machine,
        workload: &'w Workload,
        policy: Policy,
        costs: &'w Costs,
        seed: u64,
    ) -> World<'w> {
        let queues = machine.workers() + machine.nodes();
        let mut random = Random::new(seed);
        let mut worker = |index: usize| Worker {
            node: machine.node_of[index],
            phase: Phase::Asleep,
            frames: Vec::new(),
            private: VecDeque::new(),
            order: policy.order(machine, index),
            search: Search::asleep(),
            seen: vec![0; queues],
            demand_seen: 0,
            debt_ns: 0,
            is_busy: false,
            random: Random::new(random.next()),
        };
        let starts = workload.starts();
        let mut world = World {
            machine,
            workload,
            policy,
            costs,
            now: 0,
            events: BinaryHeap::new(),
            decided: 0,
            workers: (0..machine.workers()).map(&mut worker).collect(),
            forks: Vec::new(),
            free: Vec::new(),
            queues: (0..queues).map(|_| Queue::default()).collect(),
            sleepers: Sleepers::all(machine.workers()),
            crossers: vec![None; machine.nodes()],
            unfinished: starts.len(),
            arriving: starts.into(),
            busy: 0,
            outcome: Run::default(),
        };
        world.plan(machine.workers(), 0);
        world
    }

    /// Somebody acts again so much later.
    pub(super) fn plan(&mut self, who: usize, after_ns: u64) {
        self.decided += 1;
        let event = (self.now + after_ns, self.decided, who);
        self.events.push(Reverse(event));
    }

    fn act(&mut self, who: usize) {
        if who == self.workers.len() {
            return self.arrive();
        }
        let spent = match self.workers[who].phase {
            Phase::Run(task, home) => Some(self.run(who, task, home)),
            Phase::Return => Some(self.go_back(who)),
            Phase::Search => self.search(who),
            Phase::Awake => Some(self.awake(who)),
            Phase::Asleep => unreachable!("who sleeps has no events"),
        };
        if let Some(spent) = spent {
            let debt = std::mem::take(&mut self.workers[who].debt_ns);
            self.plan(who, spent + debt);
        }
    }

    /// Something comes from outside, from a thread of the first node.
    fn arrive(&mut self) {
        let Some((node, task)) = self.arriving.pop_front() else {
            return;
        };
        let fork = self.new_fork(task, None, node);
        let queue = self.machine.workers() + node;
        let spent = self.push(queue, &[fork], None) + self.wake_one(node);
        self.plan(self.workers.len(), spent);
    }

    pub(super) fn new_fork(&mut self, task: Task, owner: Option<usize>, node: usize) -> ForkId {
        let fork = Fork {
            task,
            owner,
            node,
            is_done: false,
        };
        if let Some(id) = self.free.pop() {
            self.forks[id] = fork;
            return id;
        }
        self.forks.push(fork);
        self.forks.len() - 1
    }

    /// Puts forks where others can take them; what that costs.
    pub(super) fn push(&mut self, queue: usize, forks: &[ForkId], by: Option<usize>) -> u64 {
        if forks.is_empty() {
            return 0;
        }
        let now = self.now;
        let moved = self.touch(queue, by);
        let queue = &mut self.queues[queue];
        if queue.forks.is_empty() {
            queue.filled_at = now;
        }
        queue.forks.extend(forks);
        moved
    }

    /// Brings the line of a queue home, to write it; what that costs, with the wait for others who do
    /// the same.
    pub(super) fn touch(&mut self, queue: usize, by: Option<usize>) -> u64 {
        let now = self.now;
        let line = self.line_between(self.queues[queue].written_by, by);
        let queue = &mut self.queues[queue];
        queue.version += 1;
        queue.written_by = by;
        if line == 0 {
            return 0;
        }
        let start = queue.free_at.max(now);
        queue.free_at = start + line;
        start + line - now
    }

    /// To bring home what another has written; nothing from oneself. Who is outside is on the first
    /// node.
    pub(super) fn line_between(&self, from: Option<usize>, to: Option<usize>) -> u64 {
        if from == to {
            return 0;
        }
        let node = |who: Option<usize>| who.map_or(0, |who| self.workers[who].node);
        let distance = self.machine.distance(node(from), node(to));
        rounded(self.costs.line_ns(distance))
    }

    fn run(&mut self, who: usize, task: Task, home: usize) -> u64 {
        let step = self.workload.step(&task);
        let worked = self.work(who, step.work_ns, step.home.unwrap_or(home));
        match step.then {
            Then::Done => {
                self.outcome.leaves += 1;
                self.workers[who].phase = Phase::Return;
                worked
            }
            Then::Next(next) => {
                self.workers[who].phase = Phase::Run(next, home);
                worked
            }
            Then::Fork(now, later) => {
                self.outcome.forks += 1;
                let node = self.workers[who].node;
                let fork = self.new_fork(later, Some(who), node);
                let worker = &mut self.workers[who];
                worker.private.push_back(fork);
                worker.frames.push(Frame::Join(fork));
                worker.phase = Phase::Run(now, node);
                worked + self.costs.ns(Constant::Fork) + self.share_if_wanted(who)
            }
        }
    }

    fn work(&mut self, who: usize, ns: u64, home: usize) -> u64 {
        if ns == 0 {
            return 0;
        }
        let node = self.workers[who].node;
        self.outcome.work_ns += ns;
        if home == node {
            self.outcome.local_ns += ns;
        }
        let factor = self.costs.memory_factor(self.machine.distance(node, home));
        rounded(ns as f64 * (1.0 + self.workload.memory * (factor - 1.0)))
    }

    /// Reads the demand, as each fork does, and shares the oldest fork if somebody is idle and there
    /// is none to be had.
    pub(super) fn share_if_wanted(&mut self, who: usize) -> u64 {
        let mut spent = 0;
        let version = self.sleepers.version();
        if self.workers[who].demand_seen != version {
            self.workers[who].demand_seen = version;
            spent += self.line_between(self.sleepers.written_by(), Some(who));
        }
        let is_wanted = self.sleepers.is_any_idle() && self.queues[who].forks.is_empty();
        if is_wanted && let Some(fork) = self.workers[who].private.pop_front() {
            let node = self.workers[who].node;
            self.outcome.shared += 1;
            spent += self.push(who, &[fork], Some(who)) + self.wake_one(node);
        }
        spent
    }

    fn go_back(&mut self, who: usize) -> u64 {
        let worker = &mut self.workers[who];
        let Some(frame) = worker.frames.pop() else {
            worker.phase = Phase::Search;
            worker.search = Search::new(self.now);
            return 0;
        };
        match frame {
            Frame::Join(fork) if worker.private.back() == Some(&fork) => {
                worker.private.pop_back();
                worker.phase = Phase::Run(self.forks[fork].task, worker.node);
                self.free.push(fork);
                0
            }
            Frame::Join(fork) => {
                worker.frames.push(Frame::Wait(fork));
                worker.phase = Phase::Search;
                worker.search = Search::new(self.now);
                0
            }
            Frame::Wait(_) => {
                worker.frames.push(frame);
                worker.phase = Phase::Search;
                worker.search = Search::new(self.now);
                0
            }
            Frame::Latch(fork) => self.finish(who, fork),
        }
    }

    /// A fork that was taken from a queue is done.
    fn finish(&mut self, who: usize, fork: ForkId) -> u64 {
        let Some(owner) = self.forks[fork].owner else {
            self.unfinished -= 1;
            self.free.push(fork);
            return 0;
        };
        self.forks[fork].is_done = true;
        if owner == who {
            return 0;
        }
        let distance = self
            .machine
            .distance(self.workers[owner].node, self.workers[who].node);
        let mut spent = rounded(LINES_A_RETURN * self.costs.line_ns(distance));
        let waits = self.workers[owner].frames.last() == Some(&Frame::Wait(fork));
        if waits && matches!(self.workers[owner].phase, Phase::Asleep) {
            spent += self.wake(owner);
        }
        spent
    }

    /// True if what it waits for is done; then it waits no more.
    pub(super) fn waits_no_more(&mut self, who: usize) -> bool {
        let worker = &mut self.workers[who];
        let Some(&Frame::Wait(fork)) = worker.frames.last() else {
            return false;
        };
        let is_done = self.forks[fork].is_done;
        if is_done {
            worker.frames.pop();
            worker.phase = Phase::Return;
            self.free.push(fork);
        }
        is_done
    }

    /// True if its data lies on a node by choice.
    pub(super) fn is_placed(&self, fork: ForkId) -> bool {
        self.workload.is_placed(&self.forks[fork].task)
    }

    /// It begins what it has found.
    pub(super) fn begin(&mut self, who: usize, fork: ForkId) {
        let worker = &mut self.workers[who];
        if worker.frames.last() == Some(&Frame::Wait(fork)) {
            // Its own, which nobody has taken.
            worker.frames.pop();
            worker.phase = Phase::Run(self.forks[fork].task, worker.node);
            self.free.push(fork);
        } else {
            worker.frames.push(Frame::Latch(fork));
            let home = self.forks[fork].node;
            worker.phase = Phase::Run(self.forks[fork].task, home);
        }
        self.note_busy(who, true);
    }

    pub(super) fn note_busy(&mut self, who: usize, is_busy: bool) {
        let before = std::mem::replace(&mut self.workers[who].is_busy, is_busy);
        match (before, is_busy) {
            (false, true) => self.busy += 1,
            (true, false) => self.busy -= 1,
            _ => {}
        }
        if self.busy * 10 >= self.workers.len() * 9 {
            self.outcome.spread_ns.get_or_insert(self.now);
        }
    }
}
