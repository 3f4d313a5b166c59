//! Where CPU work waits that is in no worker's deque: per node and priority two injectors of jobs,
//! one that other nodes may take from once they have nothing of their own and one that they may
//! not; and one of forks that come from outside, which everybody who waits may run.
//!
//! Workers' own deques hold forks only, never jobs: so a job that waits is seen by every worker at
//! every search, and priorities hold over the whole machine.

use crossbeam_deque::{Injector, Steal};

use crate::Priority;
use crate::cell::{AnyJob, Place};
use crate::fork::Fork;
use crate::panics::contain;
use crate::protocol::refs::Ref;

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

/// The injectors of one node.
#[derive(Debug, Default)]
pub(crate) struct NodeQueues {
    forks: Injector<Fork>,
    shared: [Injector<Ref<dyn AnyJob>>; 3],
    strict: [Injector<Ref<dyn AnyJob>>; 3],
}

pub(crate) const PRIORITIES: [Priority; 3] = [Priority::P0, Priority::P1, Priority::P2];

impl NodeQueues {
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

    /// How many jobs there are.
    pub(crate) fn len(&self) -> usize {
        let queues = self.shared.iter().chain(&self.strict);
        queues.map(Injector::len).sum()
    }

    /// True if there are jobs of a priority, of the node's own too if those count.
    pub(crate) fn has(&self, priority: Priority, strict_too: bool) -> bool {
        let priority = priority as usize;
        !self.shared[priority].is_empty() || (strict_too && !self.strict[priority].is_empty())
    }

    /// True if there are jobs that only the node's own workers may do.
    pub(crate) fn has_strict_jobs(&self) -> bool {
        self.strict.iter().any(|queue| !queue.is_empty())
    }

    pub(crate) fn has_jobs(&self, strict_too: bool) -> bool {
        let has = |queues: &[Injector<_>; 3]| queues.iter().any(|queue| !queue.is_empty());
        has(&self.shared) || (strict_too && has(&self.strict))
    }

    /// Takes out what `is_live` is not, and gives how many are left. The order stays, but for jobs
    /// that come or are taken meanwhile.
    pub(crate) fn sweep(&self, is_live: impl Fn(&Ref<dyn AnyJob>) -> bool) -> usize {
        let mut left = 0;
        for queue in self.shared.iter().chain(&self.strict) {
            for _ in 0..queue.len() {
                match take(queue) {
                    Some(job) if !is_live(&job) => contain(|| drop(job)),
                    Some(job) => {
                        queue.push(job);
                        left += 1;
                    }
                    None => break,
                }
            }
        }
        left
    }

    pub(crate) fn take_fork(&self) -> Option<Fork> {
        take(&self.forks)
    }

    /// Moves half of the jobs of a priority that others may take to another node's queue, in order, but
    /// few enough that who moves them is not long about it. True if there were any.
    pub(crate) fn move_half(&self, priority: Priority, to: &NodeQueues) -> bool {
        const MOST: usize = 32;
        let from = &self.shared[priority as usize];
        let to = &to.shared[priority as usize];
        let mut moved = false;
        for _ in 0..(from.len() / 2).min(MOST) {
            match take(from) {
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

    /// The next job of a priority; of the node's own only for its own workers.
    pub(crate) fn take(&self, priority: Priority, strict_too: bool) -> Option<Ref<dyn AnyJob>> {
        let strict = strict_too
            .then(|| take(&self.strict[priority as usize]))
            .flatten();
        strict.or_else(|| take(&self.shared[priority as usize]))
    }

    /// As [`take`](NodeQueues::take) of P1, by one of the node's own workers that has just found a job
    /// there: to look first whether there is another costs more than the job, for whoever brings jobs
    /// writes what that looks at.
    pub(crate) fn take_next(&self) -> Option<Ref<dyn AnyJob>> {
        let priority = Priority::P1 as usize;
        take(&self.strict[priority]).or_else(|| steal(&self.shared[priority]))
    }
}

fn take<T>(injector: &Injector<T>) -> Option<T> {
    // Cheaper than to steal in vain, and most are empty at most searches.
    if injector.is_empty() {
        return None;
    }
    steal(injector)
}

fn steal<T>(injector: &Injector<T>) -> Option<T> {
    loop {
        match injector.steal() {
            Steal::Success(taken) => return Some(taken),
            Steal::Empty => return None,
            // Somebody else made progress.
            Steal::Retry => {}
        }
    }
}
