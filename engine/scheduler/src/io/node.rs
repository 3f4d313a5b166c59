//! What waits at a node for the threads of a pool, and who of them rests there.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Priority;
use crate::cell::AnyJob;
use crate::clock::Stamp;
use crate::parker::Unparker;
use crate::protocol::refs::Ref;
use crate::protocol::resting::Resting;

#[derive(Debug)]
pub(super) struct Node {
    /// By priority.
    pub(super) jobs: [VecDeque<Ref<dyn AnyJob>>; 3],
    /// When a P2 job was last taken, or came where none waited.
    moved: Stamp,
    /// Threads that rest here.
    pub(super) idle: Resting<Unparker>,
}

impl Node {
    pub(super) fn new() -> Node {
        Node {
            jobs: Default::default(),
            moved: Stamp::now(),
            idle: Resting::default(),
        }
    }

    pub(super) fn has_jobs(&self) -> bool {
        self.jobs.iter().any(|jobs| !jobs.is_empty())
    }

    /// Puts a job first that has waited for too long, whatever it is.
    pub(super) fn push_overdue(&mut self, job: Ref<dyn AnyJob>) {
        self.jobs[Priority::P0 as usize].push_front(job);
    }

    pub(super) fn push(&mut self, job: Ref<dyn AnyJob>) {
        let priority = job.meta().priority;
        let jobs = &mut self.jobs[priority as usize];
        if priority == Priority::P2 && jobs.is_empty() {
            self.moved = Stamp::now();
        }
        jobs.push_back(job);
    }

    /// Takes a P2 job if none was for so long.
    pub(super) fn pop_overdue(&mut self, patience: Duration) -> Option<Ref<dyn AnyJob>> {
        let background = Priority::P2 as usize;
        if self.jobs[background].is_empty() || self.moved.elapsed() < patience {
            return None;
        }
        self.pop(background)
    }

    pub(super) fn pop(&mut self, priority: usize) -> Option<Ref<dyn AnyJob>> {
        let job = self.jobs[priority].pop_front()?;
        if priority == Priority::P2 as usize {
            self.moved = Stamp::now();
        }
        Some(job)
    }
}
