//! Ends queued jobs when their deadline passes.
//!
//! A thread, started with the first deadline, sleeps until the next one. What a late job owns it drops
//! itself, and that is somebody else's code, which may take long, or wait for another job's end. So where
//! nobody waits for the next deadline any more another thread is started, up to a number; of those
//! that are not needed all but two end after a while.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cell::AnyJob;
use crate::error::Interrupted;
use crate::panics::contain;
use crate::protocol::refs::{Ref, Watch};
use crate::schedule::note_lock_of_all;
use crate::shared::Shared;
use crate::spawner::Request;

/// So many threads there are at the most. Where each drops something, deadlines wait.
const MOST_THREADS: usize = 64;
/// So many stay once they are there.
const STAY: usize = 2;
/// The others stay for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Where the system has refused a thread it is asked again after so long.
const ASKS_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Timer {
    state: Mutex<Deadlines>,
    earlier: Condvar,
}

#[derive(Debug, Default)]
struct Deadlines {
    /// Threads that live, or have been asked for.
    threads: usize,
    /// Those that are not in somebody's destructor.
    at_hand: usize,
    /// One has been asked for, and is not there yet.
    asked: bool,
    /// When the system last refused one.
    refused: Option<Instant>,
    next: BinaryHeap<Reverse<Deadline>>,
    /// Tells apart deadlines of one instant.
    count: u64,
}

#[derive(Debug)]
struct Deadline {
    at: Instant,
    number: u64,
    job: Watch<dyn AnyJob>,
}

impl Timer {
    /// Watches the deadline of a job. True if the thread that does it must be started.
    pub(crate) fn watch(&self, at: Instant, job: &Ref<dyn AnyJob>) -> bool {
        note_lock_of_all();
        let mut state = self.state();
        state.count += 1;
        let number = state.count;
        let is_next = state.next.peek().is_none_or(|Reverse(next)| at < next.at);
        if state.next.len() == state.next.capacity() {
            // Those of jobs that have ended, before it would grow.
            state.next.retain(|Reverse(due)| due.job.is_alive());
            let left = state.next.len();
            state.next.reserve(left + 1);
        }
        state.next.push(Reverse(Deadline {
            at,
            number,
            job: Ref::watched(job),
        }));
        if is_next {
            self.earlier.notify_one();
        }
        state.wants_thread()
    }

    /// Wakes all threads, to see that the engine has stopped.
    pub(crate) fn stop(&self) {
        let _state = self.state();
        self.earlier.notify_all();
    }

    /// The system has refused the thread that was asked for; true for the first time.
    pub(crate) fn note_refused(&self) -> bool {
        let mut state = self.state();
        state.asked = false;
        state.threads -= 1;
        state.refused.replace(Instant::now()).is_none()
    }

    fn state(&self) -> MutexGuard<'_, Deadlines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread that was asked for.
    pub(crate) fn live(&self, engine: &Arc<Shared>) {
        let mut state = self.state();
        state.asked = false;
        state.at_hand += 1;
        let mut idle_since = Instant::now();
        while !engine.stop.is_said() {
            let now = Instant::now();
            let left = state
                .next
                .peek()
                .map(|Reverse(next)| next.at.saturating_duration_since(now));
            if left == Some(Duration::ZERO) {
                state = self.end_next(engine, state);
                idle_since = Instant::now();
                continue;
            }
            let is_surplus = state.at_hand > STAY;
            if is_surplus && idle_since.elapsed() >= KEEP_ALIVE {
                // It may have been woken for a deadline that the others do not know of.
                self.earlier.notify_one();
                break;
            }
            let limit = is_surplus.then_some(KEEP_ALIVE);
            state = match left.into_iter().chain(limit).min() {
                None => self
                    .earlier
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    let waited = self.earlier.wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.at_hand -= 1;
        state.threads -= 1;
    }

    /// Ends the job whose deadline is next.
    fn end_next<'t>(
        &'t self,
        engine: &Arc<Shared>,
        mut state: MutexGuard<'t, Deadlines>,
    ) -> MutexGuard<'t, Deadlines> {
        let due = state.next.pop().and_then(|Reverse(due)| due.job.upgrade());
        let Some(job) = due else {
            return state;
        };
        state.at_hand -= 1;
        let wants_thread = state.wants_thread();
        drop(state);
        if wants_thread {
            engine.spawner.ask(Request::Timer(Arc::downgrade(engine)));
        } else {
            // Who waits may wait for a later one than is next now.
            self.earlier.notify_one();
        }
        // It may be the last to hold the job, and its value.
        contain(move || {
            job.end_queued(Interrupted::DeadlineExceeded, None);
            drop(job);
        });
        let mut state = self.state();
        state.at_hand += 1;
        state
    }
}

impl Deadlines {
    /// True if there are deadlines and nobody to wait for the next one: whoever asks is to ask for a thread.
    fn wants_thread(&mut self) -> bool {
        let is_alone = self.at_hand == 0 && !self.asked && !self.next.is_empty();
        let may_ask =
            self.threads < MOST_THREADS && self.refused.is_none_or(|at| at.elapsed() >= ASKS_AGAIN);
        self.asked |= is_alone && may_ask;
        self.threads += usize::from(is_alone && may_ask);
        is_alone && may_ask
    }
}

impl PartialEq for Deadline {
    fn eq(&self, other: &Deadline) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Deadline {}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Deadline) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Deadline {
    fn cmp(&self, other: &Deadline) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;

    #[test]
    fn one_thread_is_asked_for_where_nobody_waits_and_again_once_it_was_refused_for_a_while() {
        let engine = Engine::builder().cpu_workers(1).build().unwrap();
        let job = engine
            .job()
            .deadline(Duration::from_secs(3600))
            .into_cell(|_| ())
            .unwrap();
        let (job, _handle) = job.split();
        let timer = Timer::default();
        let asks = || timer.watch(Instant::now(), &job);
        assert!(asks());
        assert!(!asks(), "one is on its way");
        assert!(timer.note_refused());
        assert!(!asks(), "it was just refused");
        let long_ago = Instant::now().checked_sub(ASKS_AGAIN);
        timer.state().refused = long_ago;
        assert!(asks());
        assert!(!timer.note_refused(), "that was said");
        timer.state().refused = None;
        timer.state().threads = MOST_THREADS;
        assert!(!asks());
        assert_eq!(timer.state().at_hand, 0);
    }
}
