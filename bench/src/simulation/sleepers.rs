//! Who is idle, who sleeps, and who is woken for what was pushed: as the engine's `sleep`, without its
//! fences.

use super::costs::{Constant, rounded};
use super::world::{Phase, World};

#[derive(Debug)]
pub(super) struct Sleepers {
    sleeps: Vec<bool>,
    idle: usize,
    searching: usize,
    version: u32,
    written_by: Option<usize>,
}

impl Sleepers {
    /// All of so many workers sleep.
    pub(super) fn all(workers: usize) -> Sleepers {
        Sleepers {
            sleeps: vec![true; workers],
            idle: workers,
            searching: 0,
            version: 1,
            written_by: None,
        }
    }

    pub(super) fn is_any_idle(&self) -> bool {
        self.idle > 0
    }

    /// Changes whenever the word does that forks read.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Who has changed it last.
    pub(super) fn written_by(&self) -> Option<usize> {
        self.written_by
    }
}

impl World<'_> {
    /// Who waits inside a join is not relied upon.
    fn is_waiting(&self, who: usize) -> bool {
        self.workers[who].search.waits
    }

    /// The cost of changing the word that says how many are idle.
    fn write_demand(&mut self, who: usize) -> u64 {
        let spent = self.line_between(self.sleepers.written_by, Some(who));
        self.sleepers.version += 1;
        self.sleepers.written_by = Some(who);
        spent
    }

    /// It has found nothing, and searches on.
    pub(super) fn seek(&mut self, who: usize) -> u64 {
        self.sleepers.idle += 1;
        self.sleepers.searching += usize::from(!self.is_waiting(who));
        self.write_demand(who)
    }

    /// It has found something, or waits no more.
    pub(super) fn leave(&mut self, who: usize) -> u64 {
        self.sleepers.idle -= 1;
        self.sleepers.searching -= usize::from(!self.is_waiting(who));
        self.write_demand(who)
    }

    /// It is about to sleep: all others pass a fence.
    pub(super) fn announce(&mut self, who: usize) -> u64 {
        self.sleepers.sleeps[who] = true;
        self.sleepers.searching -= usize::from(!self.is_waiting(who));
        self.write_demand(who) + self.barrier(who)
    }

    /// It slept, or was about to, and searches again.
    pub(super) fn retract(&mut self, who: usize) -> u64 {
        self.sleepers.sleeps[who] = false;
        self.sleepers.searching += usize::from(!self.is_waiting(who));
        self.write_demand(who)
    }

    /// Interrupts whoever runs.
    pub(super) fn barrier(&mut self, who: usize) -> u64 {
        let interrupt = self.costs.ns(Constant::Interrupt);
        let others = self.workers.iter_mut().enumerate();
        for (other, worker) in others {
            if other != who && !matches!(worker.phase, Phase::Asleep) {
                worker.debt_ns += interrupt;
            }
        }
        self.costs.ns(Constant::Barrier)
    }

    /// Something that anybody may take was pushed at a node: wakes the nearest sleeper, unless somebody
    /// searches and will find it.
    pub(super) fn wake_one(&mut self, node: usize) -> u64 {
        if self.sleepers.idle == 0 || self.sleepers.searching > 0 {
            return 0;
        }
        let machine = self.machine;
        let mut nearest = [false, true].into_iter().flat_map(|waiting| {
            let nodes = machine.near[node].iter();
            let workers = nodes.flat_map(|&near| &machine.workers_of[near]);
            workers.map(move |&worker| (waiting, worker))
        });
        let claimed = nearest.find(|&(waiting, worker)| {
            self.sleepers.sleeps[worker] && self.is_waiting(worker) == waiting
        });
        claimed.map_or(0, |(_, worker)| {
            self.outcome.wakes += 1;
            self.wake(worker)
        })
    }

    /// Wakes one, wherever it is on its way to sleep; what that costs who does it.
    pub(super) fn wake(&mut self, who: usize) -> u64 {
        self.sleepers.sleeps[who] = false;
        if !matches!(self.workers[who].phase, Phase::Asleep) {
            self.workers[who].search.is_woken = true;
            return rounded(self.costs.of(Constant::LineNear));
        }
        self.workers[who].phase = Phase::Awake;
        self.plan(who, self.costs.ns(Constant::WakeTurn));
        self.costs.ns(Constant::WakeCall)
    }

    /// It is awake again, and searches from the start.
    pub(super) fn awake(&mut self, who: usize) -> u64 {
        let spent = self.retract(who);
        let now = self.now;
        let worker = &mut self.workers[who];
        worker.phase = Phase::Search;
        worker.search = worker.search.again(now);
        spent
    }

    /// It has searched and leaves work to others, who may have relied on it: wakes one for what there
    /// is. Looks at the injectors, then at each worker in turn.
    pub(super) fn pass_on(&mut self, who: usize) -> u64 {
        if self.sleepers.idle <= self.sleepers.searching {
            return 0;
        }
        let workers = self.workers.len();
        let order = (workers..self.queues.len()).chain(0..workers);
        let mut spent = 0;
        for queue in order {
            spent += self.look_at(who, queue);
            if !self.queues[queue].forks.is_empty() {
                return spent + self.wake_one(self.workers[who].node);
            }
        }
        for other in 0..workers {
            spent += self.look_into(who, other);
            if !self.workers[other].private.is_empty() {
                return spent + self.wake_one(self.workers[who].node);
            }
        }
        spent
    }
}
