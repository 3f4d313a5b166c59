//! Where CPU work waits that is in no worker's deque: per node and priority two injectors of jobs,
//! one that other nodes may take from once they have nothing of their own and one that they may
//! not; and one of forks that come from outside, which everybody who waits may run.
//!
//! Workers' own deques hold forks only, never jobs: so a job that waits is seen by every worker at
//! every search, and priorities hold over the whole machine.

use std::cell::UnsafeCell;

use crossbeam_deque::{self as deque, Injector, Steal, Stealer};

use crate::Priority;
use crate::cell::{AnyJob, Place};
use crate::fork::Fork;
use crate::panics::contain;
use crate::protocol::hand_over::{HandOver, Mover};
use crate::protocol::refs::Ref;
use crate::protocol::sync::{AtomicUsize, Ordering};

/// Something for a CPU worker to do.
#[derive(Debug)]
pub(crate) enum Task {
    /// A submitted job, or several.
    Job(Ref<dyn AnyJob>),
    /// Jobs that another worker has taken and not begun.
    Help(Ref<dyn AnyJob>),
    /// A part of a join, scope or install.
    Fork(Fork),
}

/// What waits of one kind, the oldest first.
#[derive(Debug)]
enum Queue<T> {
    /// Where no thread brings anything that the kernel may stop for long: who takes waits for who is
    /// just bringing something.
    Injector(Injector<T>),
    /// Where some may. Who takes waits for nobody.
    HandOver {
        brought: HandOver<T>,
        /// How many those are.
        count: AtomicUsize,
        mover: Mover,
        /// The owner's side of where it is moved to.
        own: MovedTo<T>,
        moved: Stealer<T>,
    },
}

/// The owner's side of a deque, which one thread at a time uses.
#[derive(Debug)]
struct MovedTo<T>(UnsafeCell<deque::Worker<T>>);

// SAFETY: who has the mark of the mover alone uses it, and the mark orders one after the other.
unsafe impl<T: Send> Sync for MovedTo<T> {}

/// What was taken from a queue.
#[derive(Debug)]
pub(crate) struct Taken<T> {
    pub(crate) value: T,
    /// Others were moved meanwhile, and not seen by who looked: somebody is to be woken, and who empties
    /// queues is to look again.
    pub(crate) moved: bool,
}

impl<T> Taken<T> {
    fn single(value: T) -> Taken<T> {
        Taken {
            value,
            moved: false,
        }
    }
}

impl<T> Queue<T> {
    fn new(is_handed_over: bool) -> Queue<T> {
        if !is_handed_over {
            return Queue::Injector(Injector::new());
        }
        let own = deque::Worker::new_fifo();
        Queue::HandOver {
            brought: HandOver::default(),
            count: AtomicUsize::new(0),
            mover: Mover::default(),
            moved: own.stealer(),
            own: MovedTo(UnsafeCell::new(own)),
        }
    }

    fn push(&self, value: T) {
        match self {
            Queue::Injector(injector) => injector.push(value),
            Queue::HandOver { brought, count, .. } => {
                // ORDERING: relaxed, as all of it: a number that publishes nothing. Before it is there,
                // so that it is never less than nothing.
                count.fetch_add(1, Ordering::Relaxed);
                brought.put(value);
            }
        }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        match self {
            Queue::Injector(injector) => injector.is_empty(),
            Queue::HandOver { brought, moved, .. } => brought.is_empty() && moved.is_empty(),
        }
    }

    /// About how many.
    fn len(&self) -> usize {
        match self {
            Queue::Injector(injector) => injector.len(),
            Queue::HandOver { count, moved, .. } => moved.len() + count.load(Ordering::Relaxed),
        }
    }

    /// See [`NodeQueues::sweep`].
    fn sweep(&self, is_live: impl Fn(&T) -> bool) -> usize {
        let mut left = 0;
        for _ in 0..self.len() {
            match self.take() {
                Some(Taken { value, .. }) if !is_live(&value) => contain(|| drop(value)),
                Some(Taken { value, .. }) => {
                    left += 1;
                    self.push(value);
                }
                None => break,
            }
        }
        left
    }

    fn take(&self) -> Option<Taken<T>> {
        match self {
            Queue::Injector(injector) => {
                // Cheaper than to steal in vain, and most are empty at most searches.
                if injector.is_empty() {
                    return None;
                }
                steal(|| injector.steal()).map(Taken::single)
            }
            Queue::HandOver {
                brought,
                count,
                mover,
                own,
                moved,
            } => loop {
                if let Some(value) = steal(|| moved.steal()) {
                    return Some(Taken::single(value));
                }
                if brought.is_empty() {
                    return None;
                }
                // Who moves takes the first, and wakes somebody for the others.
                let first = mover.alone(|| {
                    let mut all = brought.take_all().into_iter();
                    count.fetch_sub(all.len(), Ordering::Relaxed);
                    let first = all.next();
                    // SAFETY: this thread has the mark.
                    let own = unsafe { &*own.0.get() };
                    // Who moved before may have left some, which are older.
                    let first = match steal(|| moved.steal()) {
                        Some(older) => {
                            first.into_iter().for_each(|value| own.push(value));
                            Some(older)
                        }
                        None => first,
                    };
                    all.for_each(|value| own.push(value));
                    first
                })?;
                if let Some(value) = first {
                    return Some(Taken { value, moved: true });
                }
            },
        }
    }
}

/// Anybody's progress but nobody's wait.
fn steal<T>(steal: impl Fn() -> Steal<T>) -> Option<T> {
    loop {
        match steal() {
            Steal::Success(taken) => return Some(taken),
            Steal::Empty => return None,
            // Somebody else made progress.
            Steal::Retry => {}
        }
    }
}

/// What waits at one node for one crew.
#[derive(Debug)]
pub(crate) struct NodeQueues {
    forks: Queue<Fork>,
    shared: [Queue<Ref<dyn AnyJob>>; 3],
    strict: [Queue<Ref<dyn AnyJob>>; 3],
}

pub(crate) const PRIORITIES: [Priority; 3] = [Priority::P0, Priority::P1, Priority::P2];

impl NodeQueues {
    /// `are_handed_over` where threads bring work that the kernel may stop for long.
    pub(crate) fn new(are_handed_over: bool) -> NodeQueues {
        let jobs = || std::array::from_fn(|_| Queue::new(are_handed_over));
        NodeQueues {
            forks: Queue::new(are_handed_over),
            shared: jobs(),
            strict: jobs(),
        }
    }

    pub(crate) fn push(&self, priority: Priority, strict: bool, job: Ref<dyn AnyJob>) {
        let queues = if strict { &self.strict } else { &self.shared };
        queues[priority as usize].push(job);
    }

    pub(crate) fn push_fork(&self, fork: Fork) {
        self.forks.push(fork);
    }

    pub(crate) fn has_forks(&self) -> bool {
        !self.forks.is_empty()
    }

    /// About how many jobs there are.
    pub(crate) fn len(&self) -> usize {
        let queues = self.shared.iter().chain(&self.strict);
        queues.map(Queue::len).sum()
    }

    /// True if there are jobs of a priority, of the node's own too if those count.
    #[inline]
    pub(crate) fn has(&self, priority: Priority, strict_too: bool) -> bool {
        let priority = priority as usize;
        !self.shared[priority].is_empty() || (strict_too && !self.strict[priority].is_empty())
    }

    /// True if there are jobs that only the node's own workers may do.
    pub(crate) fn has_strict_jobs(&self) -> bool {
        self.strict.iter().any(|queue| !queue.is_empty())
    }

    pub(crate) fn has_jobs(&self, strict_too: bool) -> bool {
        let has = |queues: &[Queue<_>; 3]| queues.iter().any(|queue| !queue.is_empty());
        has(&self.shared) || (strict_too && has(&self.strict))
    }

    /// Takes out what `is_live` is not, and gives how many are left. The order stays, but for jobs
    /// that come or are taken meanwhile.
    pub(crate) fn sweep(&self, is_live: impl Fn(&Ref<dyn AnyJob>) -> bool) -> usize {
        let queues = self.shared.iter().chain(&self.strict);
        queues.map(|queue| queue.sweep(&is_live)).sum()
    }

    pub(crate) fn take_fork(&self) -> Option<Taken<Fork>> {
        self.forks.take()
    }

    /// Moves half of the jobs of a priority that others may take to another node's queue, in order, but
    /// few enough that who moves them is not long about it. True if there were any.
    pub(crate) fn move_half(&self, priority: Priority, to: &NodeQueues) -> bool {
        const MOST: usize = 32;
        let from = &self.shared[priority as usize];
        let to = &to.shared[priority as usize];
        let mut moved = false;
        for _ in 0..(from.len() / 2).min(MOST) {
            match from.take().map(|taken| taken.value) {
                Some(job) if job.meta().place == Place::Any => to.push(job),
                // It would rather be done where it is.
                Some(job) => {
                    from.push(job);
                    break;
                }
                None => break,
            }
            moved = true;
        }
        moved
    }

    /// A job that only the node's own workers may do, the most urgent first.
    pub(crate) fn take_strict(&self) -> Option<Ref<dyn AnyJob>> {
        let taken = self.strict.iter().find_map(Queue::take);
        taken.map(|taken| taken.value)
    }

    /// The next job of a priority; of the node's own only for its own workers.
    pub(crate) fn take(
        &self,
        priority: Priority,
        strict_too: bool,
    ) -> Option<Taken<Ref<dyn AnyJob>>> {
        let strict = strict_too
            .then(|| self.strict[priority as usize].take())
            .flatten();
        strict.or_else(|| self.shared[priority as usize].take())
    }

    /// As [`take`](NodeQueues::take) of P1, by one of the node's own workers that has just found a job
    /// there: to look first whether there is another costs more than the job, for whoever brings jobs
    /// writes what that looks at.
    pub(crate) fn take_next(&self) -> Option<Taken<Ref<dyn AnyJob>>> {
        let priority = Priority::P1 as usize;
        let next = || match &self.shared[priority] {
            Queue::Injector(injector) => steal(|| injector.steal()).map(Taken::single),
            shared @ Queue::HandOver { .. } => shared.take(),
        };
        self.strict[priority].take().or_else(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of both kinds: before anything was moved, where some was, and where all was.
    #[test]
    fn a_sweep_takes_out_what_is_dead_and_keeps_the_order() {
        for (is_handed_over, moved_at) in [(false, 0), (true, 0), (true, 1), (true, 3)] {
            let queue = Queue::new(is_handed_over);
            for number in -1..10 {
                if number == moved_at {
                    assert_eq!(queue.take().map(|taken| taken.value), Some(-1));
                }
                queue.push(number);
            }
            assert_eq!(queue.len(), 10, "{is_handed_over} {moved_at}");
            assert_eq!(queue.sweep(|number| number % 2 == 0), 5);
            assert_eq!(queue.len(), 5);
            let left = std::iter::from_fn(|| queue.take().map(|taken| taken.value));
            assert!(left.eq([0, 2, 4, 6, 8]));
            assert!(queue.is_empty());
        }
    }
}
