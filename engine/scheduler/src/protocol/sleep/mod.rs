//! Who is idle, who sleeps, and who is woken: see `sleep/README.md` for the protocol and why no wake
//! is lost.
//!
//! One bit a worker says that it sleeps, or is about to; the bits of a node stand together. One word
//! for the whole engine, the [`Demand`], says how many are idle, and is all that a fork reads of
//! this. Parking itself is [`Parker`](crossbeam_utils::sync::Parker)'s affair, whose token makes an
//! unpark before a park count.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use reiver_topology::{CpuId, place};

use crate::protocol::barrier;
use crate::protocol::sync::{AtomicU64, Ordering, fence_needed};

/// The sleeping workers, by node.
#[derive(Debug)]
pub struct Sleepers {
    nodes: Box<[Node]>,
    demand: Demand,
    /// Seats are known: see [`Sleepers::apart`].
    is_apart: bool,
}

/// How many workers have nothing to do, and how many of them are awake and searching. In a block of
/// its own: read at every fork, written when somebody runs out of work or finds some.
#[derive(Debug, Clone)]
pub struct Demand(Arc<CachePadded<AtomicU64>>);

/// In the demand: one idle worker, searching or asleep.
const IDLE: u64 = 1;
/// One that is awake, and takes whatever it finds.
const SEARCHING: u64 = 1 << 32;
/// Cheap fences have nobody who makes them count: forks are to be shared at once, see
/// [`Sleepers::is_eager`].
const EAGER: u64 = 1 << 63;

/// Padded, so that nodes that put workers to sleep do not disturb each other.
#[derive(Debug)]
#[repr(align(128))]
struct Node {
    /// The numbers of its workers; bit `b` of word `w` is that of worker `workers[64 w + b]`.
    workers: Box<[usize]>,
    /// The CPU of each of their seats, where that matters.
    cpus: Box<[CpuId]>,
    /// By [`Sleep`].
    words: [Box<[AtomicU64]>; 2],
}

/// What a worker has to do that sleeps, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// Nothing.
    Idle,
    /// It waits inside work of its own, and does not take everything.
    Waiting,
}

/// Where the bit of a worker is.
#[derive(Debug, Clone, Copy)]
pub struct Bit {
    node: usize,
    word: usize,
    mask: u64,
}

impl Demand {
    /// True if somebody may be idle, for whoever has just pushed a fork of its own: it is worth
    /// sharing. Costs a load.
    #[inline]
    pub fn is_any(&self) -> bool {
        // ORDERING: with the dear fence in `announce`: it sees the fork, or this sees it.
        barrier::light("demand fence");
        self.0.load(Ordering::Relaxed) != 0
    }

    fn now(&self) -> u64 {
        // ORDERING: relaxed: a fence stands before where it matters.
        self.0.load(Ordering::Relaxed)
    }

    fn change(&self, more: u64, less: u64) {
        // ORDERING: relaxed: the fences order it where it matters.
        self.0.fetch_add(more.wrapping_sub(less), Ordering::Relaxed);
    }
}

impl Sleepers {
    /// For nodes with these workers. `eager` where the kernel has no barrier for us.
    pub fn new(workers_of_node: Vec<Vec<usize>>, eager: bool) -> Sleepers {
        let node = |workers: Vec<usize>| {
            let words = || {
                (0..workers.len().div_ceil(64))
                    .map(|_| AtomicU64::new(0))
                    .collect()
            };
            Node {
                words: [words(), words()],
                cpus: Box::default(),
                workers: workers.into(),
            }
        };
        let demand = AtomicU64::new(if eager { EAGER } else { 0 });
        Sleepers {
            nodes: workers_of_node.into_iter().map(node).collect(),
            demand: Demand(Arc::new(CachePadded::new(demand))),
            is_apart: false,
        }
    }

    /// Whoever wakes takes a worker with a seat at its own CPU last among those of a node.
    pub fn apart(mut self, cpu_of: impl Fn(usize) -> CpuId) -> Sleepers {
        self.is_apart = true;
        for node in &mut self.nodes {
            node.cpus = node.workers.iter().map(|&worker| cpu_of(worker)).collect();
        }
        self
    }

    /// What forks read.
    pub fn demand(&self) -> Demand {
        self.demand.clone()
    }

    /// True if the kernel refuses the barrier: cheap fences are none, so whoever pushes a fork shares
    /// it at once, behind a full fence.
    pub fn is_eager(&self) -> bool {
        self.demand.now() & EAGER != 0
    }

    /// The bit of a worker of a node.
    ///
    /// # Panics
    /// If the node does not have that worker.
    pub fn bit(&self, node: usize, worker: usize) -> Bit {
        let workers = &self.nodes[node].workers;
        let index = workers.iter().position(|&known| known == worker);
        let index = index.expect("a node's workers are known from the start");
        Bit {
            node,
            word: index / 64,
            mask: 1 << (index % 64),
        }
    }

    /// A worker has found nothing, and searches on.
    pub fn seek(&self, sleep: Sleep) {
        self.demand.change(IDLE + searching(sleep), 0);
    }

    /// A worker that searched has found something. Whoever pushed other work meanwhile may have
    /// relied on it: it must look for more than it has found, see `sleep/README.md`.
    pub fn leave(&self, sleep: Sleep) {
        self.demand.change(0, IDLE + searching(sleep));
    }

    /// A worker that searched is about to sleep. It must search once more before it parks.
    pub fn announce(&self, bit: Bit, sleep: Sleep) {
        // ORDERING: relaxed, for the fence orders it; the word publishes nothing but itself.
        self.word(bit, sleep).fetch_or(bit.mask, Ordering::Relaxed);
        self.demand.change(0, searching(sleep));
        // ORDERING: with the fences in `claim` and in `Demand::is_any`: bit and demand are visible
        // there, or what was pushed before it is visible to the search that follows.
        if self.is_eager() || !barrier::heavy("announce fence") {
            self.be_eager();
            fence_needed("announce eager fence");
        }
    }

    fn be_eager(&self) {
        // ORDERING: relaxed: time makes it seen. Until then forks stay with who has begun them.
        self.demand.0.fetch_or(EAGER, Ordering::Relaxed);
    }

    /// A worker that slept, or was about to, searches again.
    pub fn retract(&self, bit: Bit, sleep: Sleep) {
        // ORDERING: relaxed: whoever still reads the bit as set fails to clear it, or unparks a
        // worker that is awake, which costs it one search.
        self.word(bit, sleep)
            .fetch_and(!bit.mask, Ordering::Relaxed);
        self.demand.change(searching(sleep), 0);
    }

    /// How many have nothing to do: a hint.
    pub fn idle(&self) -> usize {
        let idle = self.demand.now() & (SEARCHING - 1);
        usize::try_from(idle).unwrap_or(usize::MAX)
    }

    /// After a fence.
    fn anybody_sleeps(&self) -> bool {
        let demand = self.demand.now() & !EAGER;
        demand & (SEARCHING - 1) > demand / SEARCHING
    }

    /// Takes the sleeper to wake in the place of a worker of `node` that has left its search: others
    /// may have relied on it, or woken it, for work that it now leaves. One of its own node for what
    /// only those may do (`has_strict`), else one of those `near` for what anybody may (`has_work`).
    pub fn pass_on(
        &self,
        node: usize,
        near: impl Iterator<Item = usize> + Clone,
        has_strict: impl FnOnce() -> bool,
        has_work: impl FnOnce() -> bool,
    ) -> Option<usize> {
        // ORDERING: with the fence in `claim_for_any`: whoever relied on this worker's search pushed
        // before, and this sees it.
        fence_needed("pass on fence");
        if !self.anybody_sleeps() {
            return None;
        }
        // Where nobody of the node sleeps, those who are awake find what is theirs alone; but others
        // may sleep beside the rest.
        let own = has_strict().then(|| self.claim(std::iter::once(node)));
        own.flatten()
            .or_else(|| has_work().then(|| self.claim_for_any(near)).flatten())
    }

    fn word(&self, bit: Bit, sleep: Sleep) -> &AtomicU64 {
        &self.nodes[bit.node].words[sleep as usize][bit.word]
    }

    /// Takes the sleeper to wake for work that anybody may do and that has been pushed: as
    /// [`claim`](Sleepers::claim), but nobody while somebody searches, who will find it.
    pub fn claim_for_any(&self, nodes: impl Iterator<Item = usize> + Clone) -> Option<usize> {
        // ORDERING: with the fence in `announce`, see there; and with that of a worker that leaves
        // its search, which looks for what was pushed before it left.
        fence_needed("claim any fence");
        let demand = self.demand.now() & !EAGER;
        let nobody_to_wake = demand == 0 || demand >= SEARCHING;
        (!nobody_to_wake).then(|| self.nearest(nodes)).flatten()
    }

    /// Takes one sleeper, an idle one before one that waits, from the first of these nodes that has
    /// one; the caller unparks it. The work must be pushed before.
    pub fn claim(&self, nodes: impl Iterator<Item = usize> + Clone) -> Option<usize> {
        // ORDERING: with the fence in `announce`, see there.
        fence_needed("claim fence");
        self.nearest(nodes)
    }

    /// After a fence.
    fn nearest(&self, nodes: impl Iterator<Item = usize> + Clone) -> Option<usize> {
        let here = self.is_apart.then(place::current_cpu).flatten();
        [Sleep::Idle, Sleep::Waiting]
            .into_iter()
            .flat_map(|sleep| nodes.clone().map(move |node| (sleep, node)))
            .find_map(|(sleep, node)| self.nodes[node].claim(sleep, here))
    }
}

/// What a worker adds to the demand beyond being idle while it searches. One that waits inside work
/// of its own does not take everything, so nobody may rely on its search.
fn searching(sleep: Sleep) -> u64 {
    match sleep {
        Sleep::Idle => SEARCHING,
        Sleep::Waiting => 0,
    }
}

impl Node {
    /// One of those asleep, one with a seat `here` last.
    fn claim(&self, sleep: Sleep, here: Option<CpuId>) -> Option<usize> {
        let apart = here.and_then(|cpu| self.claim_of(sleep, |word| !self.seated_at(cpu, word)));
        apart.or_else(|| self.claim_of(sleep, |_| u64::MAX))
    }

    /// One of those asleep whose bits are `among` those of a word.
    fn claim_of(&self, sleep: Sleep, among: impl Fn(usize) -> u64) -> Option<usize> {
        for (index, word) in self.words[sleep as usize].iter().enumerate() {
            // ORDERING: relaxed: the fence of the caller orders it after the push, and the
            // read-modify-write below decides who takes the worker.
            let mut sleeping = word.load(Ordering::Relaxed);
            if sleeping == 0 {
                continue;
            }
            let among = among(index);
            while sleeping & among != 0 {
                let lowest = 1 << (sleeping & among).trailing_zeros();
                sleeping = word.fetch_and(!lowest, Ordering::Relaxed);
                if sleeping & lowest != 0 {
                    let bit = lowest.trailing_zeros() as usize;
                    return Some(self.workers[index * 64 + bit]);
                }
            }
        }
        None
    }

    /// The bits in a word of the workers with a seat at that CPU.
    fn seated_at(&self, cpu: CpuId, word: usize) -> u64 {
        let seats = self.cpus.iter().skip(word * 64).take(64).enumerate();
        seats
            .filter(|(_, seat)| **seat == cpu)
            .fold(0, |bits, (bit, _)| bits | 1 << bit)
    }
}

#[cfg(all(test, not(reiver_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_sleeper_is_claimed_once() {
        let sleepers = Sleepers::new(vec![vec![0, 1], (2..72).collect(), vec![72]], false);
        let bit = |node, worker| sleepers.bit(node, worker);
        for (node, worker) in [(0, 1), (1, 71), (2, 72)] {
            sleepers.announce(bit(node, worker), Sleep::Idle);
        }
        let claim = |nodes: &[usize]| sleepers.claim(nodes.iter().copied());
        assert_eq!(claim(&[1, 2, 0]), Some(71));
        assert_eq!(claim(&[1, 2, 0]), Some(72));
        assert_eq!(claim(&[1, 2]), None);
        sleepers.retract(bit(0, 1), Sleep::Idle);
        assert_eq!(claim(&[0]), None);
    }

    #[test]
    fn who_has_a_seat_here_is_claimed_last() {
        let sleepers = Sleepers::new(vec![(0..70).collect()], false);
        // Two of them, as of a worker and its spare.
        let mut seats: Vec<CpuId> = (0..70).map(CpuId).collect();
        seats[66] = CpuId(3);
        let sleepers = sleepers.apart(|worker| seats[worker]);
        for worker in [3, 5, 66, 69] {
            sleepers.announce(sleepers.bit(0, worker), Sleep::Idle);
        }
        let claim = || sleepers.nodes[0].claim(Sleep::Idle, Some(CpuId(3)));
        let claimed = [claim(), claim(), claim(), claim(), claim()];
        assert_eq!(claimed, [Some(5), Some(69), Some(3), Some(66), None]);
    }

    #[test]
    fn who_waits_inside_work_is_claimed_last() {
        let sleepers = Sleepers::new(vec![vec![0], vec![1]], false);
        sleepers.announce(sleepers.bit(0, 0), Sleep::Waiting);
        sleepers.announce(sleepers.bit(1, 1), Sleep::Idle);
        let claim = || sleepers.claim([0, 1].into_iter());
        assert_eq!([claim(), claim(), claim()], [Some(1), Some(0), None]);
    }
}
