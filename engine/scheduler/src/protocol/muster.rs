//! How many workers of a crew have no thread, at which nodes there are any, and whether one was asked
//! for: see [`crew`](crate::crew) for the protocol.

use crate::protocol::sync::{AtomicBool, AtomicUsize, Ordering, fence_needed};

/// Who is there, of a crew.
#[derive(Debug)]
pub struct Muster {
    /// Those for whom it is worth asking.
    absent: AtomicUsize,
    /// By node: those who have a thread and look for work, or are about to.
    present: Box<[AtomicUsize]>,
    /// The last thread that was wanted was refused.
    is_refused: AtomicBool,
    is_called: AtomicBool,
}

impl Muster {
    /// So many at so many nodes, and none has a thread.
    pub fn new(workers: usize, nodes: usize) -> Muster {
        Muster {
            absent: AtomicUsize::new(workers),
            present: (0..nodes).map(|_| AtomicUsize::new(0)).collect(),
            is_refused: AtomicBool::new(false),
            is_called: AtomicBool::new(false),
        }
    }

    /// For who has pushed work: true if it is to ask the spawner for a thread.
    pub fn calls(&self) -> bool {
        // ORDERING: with the fences in `leaves`, `left` and `refuses`, and with that of a spawner that
        // goes away.
        fence_needed("muster call fence");
        // ORDERING: relaxed: the fence orders it.
        if self.absent.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // ORDERING: relaxed: the spawner hears of a worker that leaves, and passes a fence before it looks
        // for what others who relied on this call have pushed.
        !self.is_called.swap(true, Ordering::Relaxed)
    }

    /// The spawner sees to a call: from now on another one counts.
    pub fn answers(&self) {
        // ORDERING: relaxed, see `calls`.
        self.is_called.swap(false, Ordering::Relaxed);
    }

    /// A worker of this node is about to have a thread, says the spawner.
    pub fn comes(&self, node: usize) {
        self.count_in(node);
        // ORDERING: relaxed: if it is refused after all, that is said once more.
        self.is_refused.store(false, Ordering::Relaxed);
    }

    fn count_in(&self, node: usize) {
        // Those for whom none was to be had are not counted.
        let less = |absent: usize| Some(absent.saturating_sub(1));
        // ORDERING: relaxed: who still counts it absent asks in vain.
        let _ = self
            .absent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.present[node].fetch_add(1, Ordering::Relaxed);
    }

    /// A worker that was said to come has got no thread: none is asked for until one that there is
    /// leaves. What lies where nobody is present is taken elsewhere, now by the spawner, and then by who
    /// pushes more.
    pub fn refuses(&self, node: usize) {
        // ORDERING: relaxed: the fence orders them.
        self.absent.store(0, Ordering::Relaxed);
        self.present[node].fetch_sub(1, Ordering::Relaxed);
        self.is_refused.store(true, Ordering::Relaxed);
        // ORDERING: with the fence in `calls`: who has pushed sees it, or what was pushed is seen.
        fence_needed("muster refuse fence");
    }

    /// After `calls`: true if a thread was refused, so that there may be nodes where nobody is present.
    pub fn is_refused(&self) -> bool {
        // ORDERING: relaxed, here and below: the fences order it.
        self.is_refused.load(Ordering::Relaxed)
    }

    /// True if threads are refused, nobody is there, and it is not worth asking again.
    pub fn is_given_up(&self) -> bool {
        self.is_refused() && self.absent.load(Ordering::Relaxed) == 0 && self.present() == 0
    }

    /// How many have a thread and look for work, or are about to.
    pub fn present(&self) -> usize {
        let nodes = self.present.iter();
        nodes.map(|node| node.load(Ordering::Relaxed)).sum()
    }

    /// As [`present`](Muster::present), of a node.
    pub fn present_at(&self, node: usize) -> usize {
        self.present[node].load(Ordering::Relaxed)
    }

    /// A worker of this node is about to lose its thread. It looks for work once more after that.
    pub fn leaves(&self, node: usize) {
        // ORDERING: relaxed: the fence orders them.
        self.present[node].fetch_sub(1, Ordering::Relaxed);
        self.absent.fetch_add(1, Ordering::Relaxed);
        // ORDERING: with the fence in `calls`.
        fence_needed("muster leave fence");
    }

    /// One that was about to leave has found work.
    pub fn stays(&self, node: usize) {
        self.count_in(node);
    }

    /// One has left, says the spawner, which looks for work once more after that: a refusal may have come
    /// since, after which none was counted absent.
    pub fn left(&self) {
        // ORDERING: relaxed: the fence orders it.
        self.absent.fetch_max(1, Ordering::Relaxed);
        // ORDERING: with the fence in `calls`.
        fence_needed("muster left fence");
    }
}

#[cfg(all(test, not(reiver_loom)))]
mod tests {
    use super::*;

    /// All were there, one is about to leave, and one that was to come again is refused.
    #[test]
    fn one_that_stays_after_a_refusal_is_not_counted_absent() {
        let muster = Muster::new(2, 1);
        muster.comes(0);
        muster.comes(0);
        muster.leaves(0);
        muster.left();
        muster.leaves(0);
        muster.comes(0);
        muster.refuses(0);
        muster.stays(0);
        assert_eq!((muster.present(), muster.is_given_up()), (1, false));
        assert!(!muster.calls(), "it is not worth asking");
        muster.leaves(0);
        assert!(muster.calls());
    }
}
