//! Who sleeps, and who is woken: no busy wait, and no job that everybody sleeps through.
//!
//! One bit a worker says that it sleeps, or is about to; the bits of a node stand together. Parking
//! itself is [`Parker`]'s affair, whose token makes an unpark before a park count.
//!
//! The protocol:
//!
//! | idle worker | whoever has work |
//! | --- | --- |
//! | 1. searches, finds nothing | 1. pushes the work |
//! | 2. [`announce`](Sleepers::announce)s: sets its bit, fence | 2. [`claim`](Sleepers::claim)s: fence, reads the bits, |
//! | 3. searches again; found: [`retract`](Sleepers::retract)s and goes to work | clears the nearest that is set |
//! | 4. parks; afterwards retracts | 3. unparks the worker whose bit *it* cleared |
//!
//! Whoever pushes a fork does so often, and first asks with a load whether [`anybody`](Sleepers::anybody)
//! sleeps at all; its fence is the cheap side of [`barrier`](crate::barrier), the idle worker's the
//! dear one.
//!
//! *No lost wake-up.* Of the two fences one comes first. If it is the worker's, the pusher reads the
//! bit and unparks the worker. If it is the pusher's, the worker's second search finds the work.
//!
//! *No swallowed one.* A worker may be claimed for one piece of work and find another in its second
//! search. So every worker that had announced itself and found work claims one more sleeper before
//! it begins; that also spreads a burst, one worker waking one more. Somebody who is claimed and
//! finds nothing swallows nothing: the work was taken by a worker that was awake.
//!
//! *Who is woken.* Workers with nothing to do before those that wait inside work of their own: those
//! do not take everything, and hand their place to a spare thread where they are woken for what they
//! leave (see [`spares`](crate::spares)). A worker that stops waiting passes on a wake that it may
//! have got meanwhile, to its own node first: the work may be for that node alone.
//!
//! `tests/loom_sleep.rs` checks this; with either fence taken out the model fails.

use crossbeam_utils::CachePadded;

use crate::barrier;
use crate::sync::{AtomicU64, AtomicUsize, Ordering, fence};

/// The sleeping workers, by node.
#[derive(Debug)]
pub struct Sleepers {
    nodes: Box<[Node]>,
    /// How many bits are set. In a block of its own: read at every fork, written when somebody falls
    /// asleep or wakes.
    count: CachePadded<AtomicUsize>,
}

/// Padded, so that nodes that put workers to sleep do not disturb each other.
#[derive(Debug)]
#[repr(align(128))]
struct Node {
    /// The numbers of its workers; bit `b` of word `w` is that of worker `workers[64 w + b]`.
    workers: Box<[usize]>,
    /// By [`Sleep`].
    words: [Box<[AtomicU64]>; 2],
}

/// Why a worker sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// It has nothing to do.
    Idle,
    /// It waits inside work of its own.
    Waiting,
}

/// Where the bit of a worker is.
#[derive(Debug, Clone, Copy)]
pub struct Bit {
    node: usize,
    word: usize,
    mask: u64,
}

impl Sleepers {
    /// For nodes with these workers.
    pub fn new(workers_of_node: Vec<Vec<usize>>) -> Sleepers {
        let node = |workers: Vec<usize>| {
            let words = || {
                (0..workers.len().div_ceil(64))
                    .map(|_| AtomicU64::new(0))
                    .collect()
            };
            Node {
                words: [words(), words()],
                workers: workers.into(),
            }
        };
        Sleepers {
            nodes: workers_of_node.into_iter().map(node).collect(),
            count: CachePadded::new(AtomicUsize::new(0)),
        }
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

    /// Says that the worker is about to sleep. It must search once more before it parks.
    pub fn announce(&self, bit: Bit, sleep: Sleep) {
        // ORDERING: relaxed, for the fence orders it; the word publishes nothing but itself.
        let before = self.word(bit, sleep).fetch_or(bit.mask, Ordering::Relaxed);
        if before & bit.mask == 0 {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        // ORDERING: with the fences in `claim` and in `anybody`: the bit and the count are visible
        // there, or what was pushed before it is visible to the search that follows.
        barrier::heavy();
    }

    /// Says that the worker is awake.
    pub fn retract(&self, bit: Bit, sleep: Sleep) {
        // ORDERING: relaxed: whoever still reads the bit as set fails to clear it, or unparks a
        // worker that is awake, which costs it one search.
        let before = self
            .word(bit, sleep)
            .fetch_and(!bit.mask, Ordering::Relaxed);
        if before & bit.mask != 0 {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// True if anybody may sleep, for whoever has just pushed a fork of its own: it is worth a
    /// [`claim`](Sleepers::claim). Costs a load.
    #[inline]
    pub fn anybody(&self) -> bool {
        // ORDERING: with the fence in `announce`, see there.
        barrier::light();
        self.count.load(Ordering::Relaxed) != 0
    }

    fn word(&self, bit: Bit, sleep: Sleep) -> &AtomicU64 {
        &self.nodes[bit.node].words[sleep as usize][bit.word]
    }

    /// Takes one sleeper, an idle one before one that waits, from the first of these nodes that has
    /// one; the caller unparks it. The work must be pushed before.
    pub fn claim(&self, nodes: impl Iterator<Item = usize> + Clone) -> Option<usize> {
        // ORDERING: with the fence in `announce`, see there.
        fence(Ordering::SeqCst);
        [Sleep::Idle, Sleep::Waiting]
            .into_iter()
            .flat_map(|sleep| nodes.clone().map(move |node| (sleep, node)))
            .find_map(|(sleep, node)| self.nodes[node].claim(sleep))
            .inspect(|_| {
                // Nobody is harmed if this comes before the other's addition.
                self.count.fetch_sub(1, Ordering::Relaxed);
            })
    }
}

impl Node {
    fn claim(&self, sleep: Sleep) -> Option<usize> {
        for (index, word) in self.words[sleep as usize].iter().enumerate() {
            // ORDERING: relaxed: the fence of the caller orders it after the push, and the
            // read-modify-write below decides who takes the worker.
            let mut sleeping = word.load(Ordering::Relaxed);
            while sleeping != 0 {
                let lowest = sleeping & sleeping.wrapping_neg();
                sleeping = word.fetch_and(!lowest, Ordering::Relaxed);
                if sleeping & lowest != 0 {
                    let bit = lowest.trailing_zeros() as usize;
                    return Some(self.workers[index * 64 + bit]);
                }
            }
        }
        None
    }
}

#[cfg(all(test, not(reiver_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_sleeper_is_claimed_once() {
        let sleepers = Sleepers::new(vec![vec![0, 1], (2..72).collect(), vec![72]]);
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
    fn who_waits_inside_work_is_claimed_last() {
        let sleepers = Sleepers::new(vec![vec![0], vec![1]]);
        sleepers.announce(sleepers.bit(0, 0), Sleep::Waiting);
        sleepers.announce(sleepers.bit(1, 1), Sleep::Idle);
        let claim = || sleepers.claim([0, 1].into_iter());
        assert_eq!([claim(), claim(), claim()], [Some(1), Some(0), None]);
    }
}
