//! Stands in for `crossbeam_deque::Worker` (last in, first out) and its `Stealer`, which do not run
//! under loom: the steps, fences and orderings of its 0.8 (Chase and Lev 2005; Lê, Pop, Cohen,
//! Zappa Nardelli 2013), without growth, and with atomic slots where it reads and writes volatile. A
//! lock in their place would prove nothing about fences.

use loom::sync::atomic::{AtomicIsize, AtomicUsize, Ordering, fence};

const SLOTS: usize = 4;

pub(crate) struct Deque {
    front: AtomicIsize,
    back: AtomicIsize,
    slots: [AtomicUsize; SLOTS],
    /// False to show that a model fails then.
    is_fenced: bool,
}

impl Deque {
    pub(crate) fn new(is_fenced: bool) -> Deque {
        Deque {
            front: AtomicIsize::new(0),
            back: AtomicIsize::new(0),
            slots: std::array::from_fn(|_| AtomicUsize::new(usize::MAX)),
            is_fenced,
        }
    }

    fn slot(&self, at: isize) -> &AtomicUsize {
        &self.slots[at.cast_unsigned() % SLOTS]
    }

    /// By its owner.
    pub(crate) fn push(&self, value: usize) {
        let back = self.back.load(Ordering::Relaxed);
        self.slot(back).store(value, Ordering::Relaxed);
        fence(Ordering::Release);
        self.back.store(back + 1, Ordering::Release);
    }

    /// By its owner.
    pub(crate) fn pop(&self) -> Option<usize> {
        let back = self.back.load(Ordering::Relaxed);
        if back - self.front.load(Ordering::Relaxed) <= 0 {
            return None;
        }
        let back = back - 1;
        self.back.store(back, Ordering::Relaxed);
        if self.is_fenced {
            fence(Ordering::SeqCst);
        }
        let front = self.front.load(Ordering::Relaxed);
        if back < front {
            self.back.store(back + 1, Ordering::Relaxed);
            return None;
        }
        let value = self.slot(back).load(Ordering::Relaxed);
        let is_last = back == front;
        let is_own = !is_last || self.move_front(front);
        if is_last {
            self.back.store(back + 1, Ordering::Relaxed);
        }
        is_own.then_some(value)
    }

    /// By anybody; nothing too where somebody else makes progress.
    pub(crate) fn steal(&self) -> Option<usize> {
        let front = self.front.load(Ordering::Acquire);
        fence(Ordering::SeqCst);
        let back = self.back.load(Ordering::Acquire);
        if back <= front {
            return None;
        }
        let value = self.slot(front).load(Ordering::Relaxed);
        self.move_front(front).then_some(value)
    }

    fn move_front(&self, front: isize) -> bool {
        let moved =
            self.front
                .compare_exchange(front, front + 1, Ordering::SeqCst, Ordering::Relaxed);
        moved.is_ok()
    }
}
