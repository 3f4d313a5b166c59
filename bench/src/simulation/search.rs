//! What an idle worker does, as the engine's `worker`: it looks for work of its own, then of others in
//! the order of the policy; spins, robs private lists, yields, and at last sleeps.
//!
//! A search takes time, so it is done in stretches, and others act between them.

use super::costs::{Constant, rounded};
use super::policy::{Take, Target};
use super::world::{ForkId, Frame, LINES_A_STEAL, Phase, World};

/// Searches between which it spins, twice as long each time; after the last it robs.
const SPINNING: u32 = 7;
/// Searches after that, between which it yields.
const YIELDING: u32 = 4;
/// So many mates are asked whether they hold forks.
const MATES_ASKED: usize = 4;
/// So many places are looked at in one stretch.
const STRETCH: usize = 32;
/// At most so many are taken at once.
const MOST_AT_ONCE: usize = 256;

/// How far an idle worker has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// When this search began.
    began_at: u64,
    /// Where in its order it looks next; none before the first look.
    next: Option<usize>,
    /// Searches since there was something to do.
    searches: u32,
    /// It is counted among the idle.
    pub(super) seeks: bool,
    /// It waits inside work of its own, so nobody counts on it.
    pub(super) waits: bool,
    /// It is about to sleep, and looks for the last time.
    is_last: bool,
    /// Somebody has woken it before it slept.
    pub(super) is_woken: bool,
}

impl Search {
    /// One that begins now.
    pub(super) fn new(now: u64) -> Search {
        Search {
            began_at: now,
            next: None,
            searches: 0,
            seeks: false,
            waits: false,
            is_last: false,
            is_woken: false,
        }
    }

    /// From the start, by who is counted among the idle.
    pub(super) fn again(self, now: u64) -> Search {
        Search {
            seeks: true,
            waits: self.waits,
            ..Search::new(now)
        }
    }

    /// That of a worker that sleeps.
    pub(super) fn asleep() -> Search {
        Search {
            seeks: true,
            ..Search::new(0)
        }
    }
}

impl World<'_> {
    /// One stretch of a search; none once it sleeps.
    pub(super) fn search(&mut self, who: usize) -> Option<u64> {
        let Some(next) = self.workers[who].search.next else {
            return Some(self.search_begins(who));
        };
        let total = self.workers[who].order.targets.len();
        if next >= total {
            return self.found_nothing(who);
        }
        if !self.may_go_on(who, next) {
            self.workers[who].search.next = Some(total);
            return Some(0);
        }
        Some(self.look_along(who, next))
    }

    /// What it waits for may be done; then its own forks, the newest first.
    fn search_begins(&mut self, who: usize) -> u64 {
        if self.waits_no_more(who) {
            return self.stop_seeking(who);
        }
        if let Some(fork) = self.workers[who].private.pop_back() {
            let shared = self.share_if_wanted(who);
            self.begin(who, fork);
            return shared + self.stop_seeking(who);
        }
        if let Some(fork) = self.queues[who].forks.pop_back() {
            let spent = self.touch(who, Some(who));
            self.begin(who, fork);
            return spent + self.stop_seeking(who);
        }
        self.note_busy(who, false);
        let now = self.now;
        let policy = self.policy;
        let worker = &mut self.workers[who];
        worker.search.next = Some(0);
        worker.search.began_at = now;
        policy.renew(&mut worker.order, &mut worker.random);
        0
    }

    /// Whether it looks at other nodes, if that is what comes next.
    fn may_go_on(&mut self, who: usize, next: usize) -> bool {
        let remote_from = self.workers[who].order.remote_from;
        let search = &self.workers[who].search;
        if next < remote_from || search.is_last {
            return true;
        }
        if search.searches < self.policy.patience {
            return false;
        }
        let waits = self.policy.waits_for_mates && search.searches <= SPINNING;
        if waits && self.mates_may_share(who) {
            return false;
        }
        if !self.policy.one_crosser {
            return true;
        }
        let crosser = &mut self.crossers[self.workers[who].node];
        *crosser.get_or_insert(who) == who
    }

    /// True if half of its nearest mates have forks that they have not shared.
    fn mates_may_share(&mut self, who: usize) -> bool {
        let order = &self.workers[who].order;
        let mates = order.targets[..order.remote_from].iter();
        let mates = mates.filter_map(|target| match target {
            Target::Worker(mate) => Some(*mate),
            Target::Injector(_) => None,
        });
        let mates: Vec<usize> = mates.take(MATES_ASKED).collect();
        let looks: u64 = mates.iter().map(|&mate| self.look_into(who, mate)).sum();
        self.workers[who].debt_ns += looks;
        let holds = |mate: &&usize| !self.workers[**mate].private.is_empty();
        let hold = mates.iter().filter(holds).count();
        hold > 0 && 2 * hold >= mates.len()
    }

    fn stop_crossing(&mut self, who: usize) {
        let crosser = &mut self.crossers[self.workers[who].node];
        if *crosser == Some(who) {
            *crosser = None;
        }
    }

    /// Looks at some of the places, and takes from the first that has something.
    fn look_along(&mut self, who: usize, next: usize) -> u64 {
        let order = &self.workers[who].order;
        let stop = if next < order.remote_from {
            order.remote_from
        } else {
            order.targets.len()
        };
        let stop = stop.min(next + STRETCH);
        let mut spent = 0;
        for place in next..stop {
            let queue = match self.workers[who].order.targets[place] {
                Target::Worker(worker) => worker,
                Target::Injector(node) => self.machine.workers() + node,
            };
            spent += self.look_at(who, queue);
            if self.may_take_from(who, queue) {
                return spent + self.steal(who, queue);
            }
        }
        self.workers[who].search.next = Some(stop);
        spent
    }

    /// True if there is something, and it need not be left to its own node for now.
    fn may_take_from(&self, who: usize, queue: usize) -> bool {
        let Some(&oldest) = self.queues[queue].forks.front() else {
            return false;
        };
        let search = &self.workers[who].search;
        search.is_last
            || search.searches >= self.policy.patience_for_placed
            || self.node_of_queue(queue) == self.workers[who].node
            || !self.is_placed(oldest)
    }

    /// What it costs to see whether a queue holds anything: little if nothing has changed.
    pub(super) fn look_at(&mut self, who: usize, queue: usize) -> u64 {
        let version = self.queues[queue].version;
        let worker = &mut self.workers[who];
        let seen = std::mem::replace(&mut worker.seen[queue], version);
        if seen == version {
            return self.costs.ns(Constant::Probe);
        }
        self.line_between(self.queues[queue].written_by, Some(who))
    }

    /// The same for a private list, which its owner changes all the time.
    pub(super) fn look_into(&mut self, who: usize, other: usize) -> u64 {
        if self.workers[other].private.is_empty() {
            return self.costs.ns(Constant::Probe);
        }
        let (from, to) = (self.workers[other].node, self.workers[who].node);
        rounded(self.costs.line_ns(self.machine.distance(from, to)))
    }

    fn node_of_queue(&self, queue: usize) -> usize {
        let workers = self.workers.len();
        queue
            .checked_sub(workers)
            .unwrap_or_else(|| self.workers[queue].node)
    }

    /// Takes the oldest, from another node perhaps more.
    fn steal(&mut self, who: usize, queue: usize) -> u64 {
        let (own, theirs) = (self.workers[who].node, self.node_of_queue(queue));
        let far = if own == theirs {
            Take::One
        } else {
            self.policy.far
        };
        if queue != self.workers.len() + own {
            self.note_steal(who, theirs);
        }
        let taken = match far {
            Take::One => 1,
            Take::Half | Take::HalfOfAll => half(self.queues[queue].forks.len()),
        };
        let line = self.costs.line_ns(self.machine.distance(own, theirs));
        let mut spent = self.touch(queue, Some(who)) + rounded(line * (LINES_A_STEAL - 1.0));
        let mut forks: Vec<ForkId> = self.queues[queue].forks.drain(..taken).collect();
        if far == Take::HalfOfAll && queue < self.workers.len() {
            spent += self.rob_half(who, queue, &mut forks);
        }
        spent += rounded(line * (forks.len() - 1) as f64);
        spent + self.keep(who, &forks)
    }

    /// Begins the first of what it has taken, the rest lies where others can steal it.
    fn keep(&mut self, who: usize, forks: &[ForkId]) -> u64 {
        let (&first, rest) = forks.split_first().expect("something was taken");
        self.push(who, rest, Some(who)) + self.found(who, first)
    }

    /// Takes the older half of a private list.
    fn rob_half(&mut self, who: usize, other: usize, forks: &mut Vec<ForkId>) -> u64 {
        let held = self.workers[other].private.len();
        if held == 0 {
            return 0;
        }
        self.outcome.robberies += 1;
        forks.extend(self.workers[other].private.drain(..half(held)));
        self.barrier(who)
    }

    fn note_steal(&mut self, who: usize, from: usize) {
        let own = self.workers[who].node;
        if own == from {
            self.outcome.near_steals += 1;
            return;
        }
        self.outcome.far_steals += 1;
        let began_at = self.workers[who].search.began_at;
        let injector = self.machine.workers() + own;
        let mates = self.machine.workers_of[own].iter().copied();
        let mut near = mates.filter(|&mate| mate != who).chain([injector]);
        let passed_over = near.any(|queue| {
            let queue = &self.queues[queue];
            !queue.forks.is_empty() && queue.filled_at < began_at
        });
        self.outcome.passed_over += u64::from(passed_over);
    }

    /// It has something of others to do.
    fn found(&mut self, who: usize, fork: ForkId) -> u64 {
        let mut spent = 0;
        if self.workers[who].search.is_last {
            spent += self.retract(who);
        }
        self.begin(who, fork);
        spent + self.stop_seeking(who)
    }

    /// If it was counted among the idle it is so no more, and others are woken for what it leaves.
    fn stop_seeking(&mut self, who: usize) -> u64 {
        self.stop_crossing(who);
        let was_counted = self.workers[who].search.seeks;
        let left = if was_counted { self.leave(who) } else { 0 };
        self.workers[who].search = Search::new(self.now);
        if was_counted {
            left + self.pass_on(who)
        } else {
            0
        }
    }

    /// Every place was looked at.
    fn found_nothing(&mut self, who: usize) -> Option<u64> {
        let search = self.workers[who].search;
        if search.is_last || search.searches == SPINNING {
            if let Some(spent) = self.rob(who) {
                return Some(spent);
            }
            if search.is_last {
                return self.sleep(who);
            }
        }
        Some(self.goes_on(who))
    }

    fn goes_on(&mut self, who: usize) -> u64 {
        self.stop_crossing(who);
        let mut spent = 0;
        if !self.workers[who].search.seeks {
            let worker = &mut self.workers[who];
            worker.search.seeks = true;
            worker.search.waits = matches!(worker.frames.last(), Some(Frame::Wait(_)));
            spent += self.seek(who);
        }
        let search = &mut self.workers[who].search;
        search.next = None;
        search.searches += 1;
        let searches = search.searches;
        if searches <= SPINNING {
            spent += self.costs.ns(Constant::Spin) << searches;
        } else if searches <= SPINNING + YIELDING {
            spent += self.costs.ns(Constant::Kernel);
        } else {
            search.is_last = true;
            search.next = Some(0);
            search.is_woken = false;
            spent += self.announce(who);
        }
        spent
    }

    /// Takes the older half of the first private list that holds anything, and begins it.
    fn rob(&mut self, who: usize) -> Option<u64> {
        let mut spent = 0;
        for place in 0..self.workers[who].order.targets.len() {
            let Target::Worker(other) = self.workers[who].order.targets[place] else {
                continue;
            };
            if !self.may_go_on(who, place) {
                break;
            }
            spent += self.look_into(who, other);
            let mut forks = Vec::new();
            let robbed = self.rob_half(who, other, &mut forks);
            if forks.is_empty() {
                continue;
            }
            self.note_steal(who, self.workers[other].node);
            return Some(spent + robbed + self.keep(who, &forks));
        }
        self.workers[who].debt_ns += spent;
        None
    }

    /// Sleeps, unless it was woken on the way or what it waits for is done.
    fn sleep(&mut self, who: usize) -> Option<u64> {
        self.stop_crossing(who);
        if self.workers[who].search.is_woken || self.waits_no_more(who) {
            if matches!(self.workers[who].phase, Phase::Return) {
                return Some(self.retract(who) + self.stop_seeking(who));
            }
            return Some(self.awake(who));
        }
        self.outcome.parks += 1;
        self.workers[who].phase = Phase::Asleep;
        None
    }
}

/// Rounded up, and no more than the engine takes at once.
fn half(of: usize) -> usize {
    of.div_ceil(2).min(MOST_AT_ONCE)
}
