//! Ends queued jobs when their deadline passes.
//!
//! A thread, started with the first deadline, sleeps until the next one. What a late job owns it drops
//! itself, and that is somebody else's code, which may take long, or wait for another job's end. So before
//! that it sees to it that another thread waits for the next deadline; two stay.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::cell::AnyJob;
use crate::error::Interrupted;
use crate::panics::contain;
use crate::protocol::refs::{Ref, Watch};
use crate::schedule::note_lock_of_all;
use crate::shared::Shared;
use crate::spawner::Request;

/// So many threads wait for deadlines at the most.
const MOST_WAITING: usize = 2;

#[derive(Debug, Default)]
pub(crate) struct Timer {
    state: Mutex<Deadlines>,
    earlier: Condvar,
}

#[derive(Debug, Default)]
struct Deadlines {
    /// Threads that wait for the next one, or have been asked for.
    waiting: usize,
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
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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
        let _state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.earlier.notify_all();
    }

    /// The life of a thread that was asked for.
    pub(crate) fn live(&self, engine: &Arc<Shared>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !engine.stop.is_said() {
            let now = Instant::now();
            match state.next.peek() {
                None => {
                    state = self
                        .earlier
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner)
                }
                Some(Reverse(next)) if next.at > now => {
                    let wait = next.at - now;
                    let waited = self.earlier.wait_timeout(state, wait);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    let due = state.next.pop().and_then(|Reverse(due)| due.job.upgrade());
                    let Some(job) = due else {
                        continue;
                    };
                    state.waiting -= 1;
                    let wants_thread = state.wants_thread();
                    drop(state);
                    match wants_thread {
                        true => engine.spawner.ask(Request::Timer(Arc::downgrade(engine))),
                        // It may wait for a later one than is next now.
                        false => self.earlier.notify_one(),
                    }
                    // It may be the last to hold the job, and its value.
                    contain(move || {
                        job.end_queued(Interrupted::DeadlineExceeded, None);
                        drop(job);
                    });
                    state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    if state.waiting >= MOST_WAITING {
                        return;
                    }
                    state.waiting += 1;
                }
            }
        }
    }
}

impl Deadlines {
    /// True if there are deadlines and nobody waits for the next one: whoever asks is to ask for a thread, and
    /// counts it here.
    fn wants_thread(&mut self) -> bool {
        let wants = self.waiting == 0 && !self.next.is_empty();
        self.waiting += usize::from(wants);
        wants
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
