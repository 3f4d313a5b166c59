//! How an engine ends: nobody is let in any more, all jobs are waited for or ended, and the threads go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use crate::cell::AnyJob;
use crate::current::{Current, block_until, unstopped};
use crate::error::Interrupted;
use crate::io::Io;
use crate::panics::contain;
use crate::protocol::refs::Ref;
use crate::protocol::sync::Ordering;
use crate::queues::{NodeQueues, PRIORITIES, Task};
use crate::room::Room;
use crate::spawner::Request;
use crate::watchdog::Watchdog;
use crate::worker::run;

/// How often who waits for the end of all jobs looks whether they have, where nobody may tell it.
const LOOKS_AGAIN: Duration = Duration::from_millis(1);

impl Shared {
    pub(crate) fn close(&self) {
        self.drain.close();
        let itself = self.weak();
        unstopped(move || {
            let shared = itself.upgrade();
            let rooms = shared.iter().flat_map(|shared| &shared.rooms);
            rooms.for_each(Room::wake_all);
        });
        self.closing.tell();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.drain.is_closed()
    }

    /// Waits until no job is left but those that wait for this too; false at the limit. A CPU
    /// worker does other work meanwhile, so that one in a job of its own drains what is queued.
    pub(crate) fn wait_drained(&self, until: Option<Instant>) -> bool {
        let own = self.jobs_of_thread();
        self.drain.wait(&own, |is_drained| {
            while self.drain.may_miss() {
                let next = Instant::now() + LOOKS_AGAIN;
                if until.is_some_and(|until| until < next) {
                    break;
                }
                if block_until(Some(next), &mut *is_drained) {
                    return true;
                }
            }
            block_until(until, is_drained)
        })
    }

    /// The addresses of the engine's jobs that the current thread is in.
    pub(crate) fn jobs_of_thread(&self) -> Vec<usize> {
        Current::with(|current| current.map_or(Vec::new(), |current| current.jobs_of(self)))
    }

    /// From now on checkpoints tell running jobs to end.
    pub(crate) fn hurry(&self) {
        // ORDERING: relaxed: a wish; nothing is published by it.
        self.hurrying.store(true, Ordering::Relaxed);
        #[cfg(feature = "tokio")]
        self.asyncs.wake_all();
    }

    pub(crate) fn is_hurrying(&self) -> bool {
        // ORDERING: relaxed, see `hurry`.
        self.hurrying.load(Ordering::Relaxed)
    }

    /// Ends all jobs that are queued, and from now on whatever still comes.
    pub(crate) fn end_queued(&self) -> usize {
        self.drain.end_queued();
        let mut jobs: Vec<_> = self.pools().flat_map(Io::drain).collect();
        for queues in self.crews().flat_map(|crew| &crew.queues) {
            for priority in PRIORITIES {
                let taken = std::iter::from_fn(|| queues.take(priority, true));
                jobs.extend(taken.map(|taken| taken.value));
            }
        }
        let workers = self.crews().flat_map(|crew| &crew.workers);
        jobs.extend(workers.flat_map(|worker| worker.holding.all()));
        let ended = self.end_unbegun(jobs);
        #[cfg(feature = "tokio")]
        let ended = ended + self.asyncs.end_queued(self);
        ended
    }

    /// Ends those of the jobs that have not begun; gives how many they were. What drops with one may panic.
    pub(crate) fn end_unbegun(&self, jobs: Vec<Ref<dyn AnyJob>>) -> usize {
        let ended = jobs.into_iter().map(|job| {
            let mut ended = 0;
            contain(|| {
                ended = job.end_queued(Interrupted::ShutDown, Some(self));
                drop(job);
            });
            ended
        });
        ended.sum()
    }

    /// For who has shown queued jobs where they may have been looked for in vain.
    pub(crate) fn end_queued_if_ending(&self) {
        if self.drain.ends_queued() {
            self.end_queued();
        }
    }

    /// Ends the threads once they have nothing to do.
    pub(crate) fn stop(&self) {
        self.stop.say();
        self.crews()
            .flat_map(|crew| &crew.workers)
            .for_each(|worker| worker.unparker.unpark());
        self.pools().for_each(Io::stop);
        self.timer.stop();
        self.watchdog.iter().for_each(Watchdog::wake);
        self.spawner.ask(Request::Stop);
    }

    /// After a push: runs forks that nobody may look for any more.
    pub(crate) fn finish_if_stopped(self: &Arc<Self>) {
        if self.stop.after_push() {
            Current::as_worker(self, |current, _| self.finish_forks(current));
        }
    }

    /// Runs the forks that came from outside, whatever they wait for, and those that they begin: the
    /// engine has stopped, or the thread is about to leave it, and nobody else may come to them.
    pub(crate) fn finish_forks(&self, current: &Current) {
        let own = || current.worker()?.pop(self);
        let queues = || self.crews().flat_map(|crew| &crew.queues);
        let from_outside = || queues().find_map(NodeQueues::take_fork);
        let from_outside = || from_outside().map(|taken| taken.value);
        while let Some(fork) = own().or_else(from_outside) {
            run(Task::Fork(fork), current);
        }
    }
}
