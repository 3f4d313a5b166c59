//! The closure of a job, and later its outcome.
//!
//! Whoever claims the job (see [`state`](crate::state)) owns what follows: the worker runs the
//! closure, the canceller drops it. So a job ends exactly once, and nothing but one word is shared;
//! a lock is taken by those alone who wait, and whoever wakes them.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::error::JobError;
use crate::panics::contain;
use crate::state::State;

pub(crate) struct Slot<T, F> {
    state: State,
    /// There until the job is claimed.
    body: UnsafeCell<MaybeUninit<F>>,
    /// There from when it has ended until it is taken.
    outcome: UnsafeCell<MaybeUninit<Result<T, Box<JobError>>>>,
    waker: Mutex<Option<Waker>>,
}

// SAFETY: the closure and the outcome are only touched by whoever the state says owns them; they move
// between threads, and are used by one at a time.
unsafe impl<T: Send, F: Send> Sync for Slot<T, F> {}

impl<T, F> Slot<T, F> {
    pub(crate) fn new(body: F) -> Slot<T, F> {
        Slot {
            state: State::queued(),
            body: UnsafeCell::new(MaybeUninit::new(body)),
            outcome: UnsafeCell::new(MaybeUninit::uninit()),
            waker: Mutex::new(None),
        }
    }

    /// A hint: false once somebody has claimed it.
    pub(crate) fn is_queued(&self) -> bool {
        self.state.is_queued()
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.state.is_ended()
    }

    /// Takes the job out of the queue, with its closure.
    pub(crate) fn claim(&self) -> Option<F> {
        self.state.claim().then(|| {
            // SAFETY: whoever has claimed it alone touches the closure.
            let body = unsafe { &*self.body.get() };
            // SAFETY: it is there until it is claimed, which was just now.
            unsafe { body.assume_init_read() }
        })
    }

    /// Makes the outcome of a job known that the caller has claimed; then it is `gone`, so that the
    /// engine no longer waits for it when somebody else's code is called, a waker: that may end the
    /// engine.
    pub(crate) fn end(&self, outcome: Result<T, JobError>, gone: impl FnOnce()) {
        let outcome = outcome.map_err(Box::new);
        // SAFETY: whoever has claimed it alone touches the outcome until it has ended.
        unsafe { (*self.outcome.get()).write(outcome) };
        let is_waited_for = self.state.end();
        gone();
        if is_waited_for {
            let waker = self.waker().take();
            contain(|| waker.into_iter().for_each(Waker::wake));
        }
    }

    /// As [`end`](Slot::end), for one whose closure is dropped instead, which is somebody else's code
    /// too.
    pub(crate) fn end_unrun(&self, error: JobError, body: F, gone: impl FnOnce()) {
        gone();
        contain(|| drop(body));
        self.end(Err(error), || ());
    }

    /// The outcome, once; or leaves the waker to be woken when there is one.
    pub(crate) fn take(&self, waker: Option<&Waker>) -> Option<Result<T, JobError>> {
        if let Some(waker) = waker
            && !self.state.is_ended()
        {
            // A waker is somebody else's code: cloned and dropped outside of the lock.
            let mut waker = Some(waker.clone());
            std::mem::swap(&mut *self.waker(), &mut waker);
            drop(waker);
            if !self.state.wait() {
                // Whoever ends it wakes the waker, be that just now.
                return None;
            }
        }
        self.state.take().then(|| {
            // SAFETY: it has ended, and this is the one who takes the outcome.
            let outcome = unsafe { &*self.outcome.get() };
            // SAFETY: it was written before the job ended, and is taken once.
            unsafe { outcome.assume_init_read() }.map_err(|error| *error)
        })
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, F> Drop for Slot<T, F> {
    fn drop(&mut self) {
        // What nobody has run or ended, and what nobody has asked for.
        drop(self.claim());
        drop(self.take(None));
    }
}

impl<T, F> fmt::Debug for Slot<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
