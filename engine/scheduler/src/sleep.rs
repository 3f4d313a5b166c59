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
//! *No lost wake-up.* Of the two fences one comes first. If it is the worker's, the pusher reads the
//! bit and unparks the worker. If it is the pusher's, the worker's second search finds the work.
//!
//! *No swallowed one.* A worker may be claimed for one piece of work and find another in its second
//! search. So every worker that had announced itself and found work claims one more sleeper before
//! it begins; that also spreads a burst, one worker waking one more. Somebody who is claimed and
//! finds nothing swallows nothing: the work was taken by a worker that was awake.
//!
//! *Who can be woken for what.* A worker that waits for a job of its own takes nothing less urgent
//! than that, so it announces the least it takes, and is not claimed for less: it could only leave
//! that work lying. Whoever takes anything is claimed first. A worker that stops waiting passes on
//! a wake that it may have got meanwhile.
//!
//! `tests/loom_sleep.rs` checks this; with either fence taken out the model fails.

use crate::Priority;
use crate::sync::{AtomicU64, Ordering, fence};

/// The sleeping workers, by node.
#[derive(Debug)]
pub struct Sleepers {
    nodes: Box<[Node]>,
}

/// Padded, so that nodes that put workers to sleep do not disturb each other.
#[derive(Debug)]
#[repr(align(128))]
struct Node {
    first_worker: usize,
    /// By the least urgent that they take; bit `b` of word `w` is the node's worker `64 w + b`.
    words: [Box<[AtomicU64]>; 3],
}

/// Where the bit of a worker is.
#[derive(Debug, Clone, Copy)]
pub struct Bit {
    node: usize,
    word: usize,
    mask: u64,
}

impl Sleepers {
    /// For nodes with these numbers of workers, which are numbered through.
    pub fn new(workers_of_node: &[usize]) -> Sleepers {
        let mut first_worker = 0;
        let node = |&workers: &usize| {
            let words = || {
                (0..workers.div_ceil(64))
                    .map(|_| AtomicU64::new(0))
                    .collect()
            };
            let node = Node {
                first_worker,
                words: [words(), words(), words()],
            };
            first_worker += workers;
            node
        };
        Sleepers {
            nodes: workers_of_node.iter().map(node).collect(),
        }
    }

    /// The bit of a worker of a node.
    pub fn bit(&self, node: usize, worker: usize) -> Bit {
        let index = worker - self.nodes[node].first_worker;
        Bit {
            node,
            word: index / 64,
            mask: 1 << (index % 64),
        }
    }

    /// Says that the worker is about to sleep, and would take forks and jobs as urgent as `least`.
    /// It must search once more before it parks.
    pub fn announce(&self, bit: Bit, least: Priority) {
        // ORDERING: relaxed, for the fence orders it; the word publishes nothing but itself.
        self.word(bit, least).fetch_or(bit.mask, Ordering::Relaxed);
        // ORDERING: with the fence in `claim`: the bit is visible there, or what was pushed before
        // it is visible to the search that follows.
        fence(Ordering::SeqCst);
    }

    /// Says that the worker is awake.
    pub fn retract(&self, bit: Bit, least: Priority) {
        // ORDERING: relaxed: whoever still reads the bit as set fails to clear it, or unparks a
        // worker that is awake, which costs it one search.
        self.word(bit, least)
            .fetch_and(!bit.mask, Ordering::Relaxed);
    }

    fn word(&self, bit: Bit, least: Priority) -> &AtomicU64 {
        &self.nodes[bit.node].words[least as usize][bit.word]
    }

    /// Takes one sleeper for work of this urgency, forks being as P0, from the first of these nodes
    /// that has one; the caller unparks it. The work must be pushed before.
    pub fn claim(
        &self,
        urgency: Priority,
        nodes: impl Iterator<Item = usize> + Clone,
    ) -> Option<usize> {
        // ORDERING: with the fence in `announce`, see there.
        fence(Ordering::SeqCst);
        let levels = (urgency as usize..3).rev();
        levels
            .flat_map(|least| nodes.clone().map(move |node| (least, node)))
            .find_map(|(least, node)| self.nodes[node].claim(least))
    }
}

impl Node {
    fn claim(&self, least: usize) -> Option<usize> {
        for (index, word) in self.words[least].iter().enumerate() {
            // ORDERING: relaxed: the fence of the caller orders it after the push, and the
            // read-modify-write below decides who takes the worker.
            let mut sleeping = word.load(Ordering::Relaxed);
            while sleeping != 0 {
                let lowest = sleeping & sleeping.wrapping_neg();
                sleeping = word.fetch_and(!lowest, Ordering::Relaxed);
                if sleeping & lowest != 0 {
                    let bit = lowest.trailing_zeros() as usize;
                    return Some(self.first_worker + index * 64 + bit);
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
        let sleepers = Sleepers::new(&[2, 70, 1]);
        let bit = |node, worker| sleepers.bit(node, worker);
        for (node, worker) in [(0, 1), (1, 69), (2, 72)] {
            sleepers.announce(bit(node, worker), Priority::P2);
        }
        let claim = |nodes: &[usize]| sleepers.claim(Priority::P1, nodes.iter().copied());
        assert_eq!(claim(&[1, 2, 0]), Some(69));
        assert_eq!(claim(&[1, 2, 0]), Some(72));
        assert_eq!(claim(&[1, 2]), None);
        sleepers.retract(bit(0, 1), Priority::P2);
        assert_eq!(claim(&[0]), None);
    }

    #[test]
    fn nobody_is_claimed_for_what_it_does_not_take() {
        let sleepers = Sleepers::new(&[3]);
        sleepers.announce(sleepers.bit(0, 0), Priority::P0);
        sleepers.announce(sleepers.bit(0, 1), Priority::P1);
        let claim = |urgency| sleepers.claim(urgency, std::iter::once(0));
        assert_eq!(claim(Priority::P2), None);
        sleepers.announce(sleepers.bit(0, 2), Priority::P2);
        assert_eq!(claim(Priority::P0), Some(2), "who takes anything is first");
        assert_eq!(claim(Priority::P1), Some(1));
        assert_eq!(claim(Priority::P1), None);
        assert_eq!(claim(Priority::P0), Some(0));
    }
}
