//! The closure of a job, and later, in its place, the outcome.
//!
//! Whoever claims the job (see [`state`](crate::protocol::state)) owns what follows: the worker runs the
//! closure, the canceller drops it. So a job ends exactly once, and nothing but one word is shared.
//! Who waits for the end leaves word elsewhere, and the state says that somebody has.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::ManuallyDrop;

use crate::error::JobError;
use crate::panics::contain;
use crate::protocol::state::State;

/// How a job has ended. The error apart, for it is large and rare, and all ends are moved.
pub(crate) type Ended<T> = Result<T, Box<JobError>>;

/// The error of a job that has one.
pub(crate) fn error_of<T>(ended: &Ended<T>) -> Option<&JobError> {
    ended.as_ref().err().map(|error| &**error)
}

pub(crate) struct Slot<T, F> {
    state: State,
    content: UnsafeCell<Content<T, F>>,
}

union Content<T, F> {
    /// Until the job is claimed.
    body: ManuallyDrop<F>,
    /// From when it has ended until it is taken.
    outcome: ManuallyDrop<Ended<T>>,
}

// SAFETY: the closure and the outcome are only touched by whoever the state says owns them; they move
// between threads, and are used by one at a time.
unsafe impl<T: Send, F: Send> Sync for Slot<T, F> {}

impl<T, F> Slot<T, F> {
    pub(crate) fn new(body: F) -> Slot<T, F> {
        let body = ManuallyDrop::new(body);
        Slot {
            state: State::queued(),
            content: UnsafeCell::new(Content { body }),
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
        // SAFETY: whoever has claimed it alone touches the content, and takes the closure once.
        self.state.claim().then(|| unsafe { self.body() })
    }

    /// As [`claim`](Slot::claim), of a job that nobody else can reach.
    pub(crate) fn claim_alone(&self) -> Option<F> {
        // SAFETY: as above.
        self.state.claim_alone().then(|| unsafe { self.body() })
    }

    /// As [`end`](Slot::end), of a job that nobody else can reach.
    pub(crate) fn end_alone(&self, outcome: Ended<T>, gone: impl FnOnce()) {
        self.put(outcome);
        self.state.end_alone();
        gone();
    }

    /// In the place of the closure, by whoever has claimed the job.
    fn put(&self, outcome: Ended<T>) {
        let outcome = ManuallyDrop::new(outcome);
        // SAFETY: whoever has claimed it alone touches the content until it has ended.
        unsafe { self.content.get().write(Content { outcome }) };
    }

    /// # Safety
    /// Nobody else touches the content, which is still the closure, and never is again.
    unsafe fn body(&self) -> F {
        // SAFETY: as the caller says.
        let content = unsafe { &mut *self.content.get() };
        // SAFETY: as the caller says.
        let body = unsafe { &mut content.body };
        // SAFETY: as the caller says.
        unsafe { ManuallyDrop::take(body) }
    }

    /// # Safety
    /// Nobody else touches the content, which is the outcome, and never is again.
    unsafe fn outcome(&self) -> Result<T, JobError> {
        // SAFETY: as the caller says.
        let content = unsafe { &mut *self.content.get() };
        // SAFETY: as the caller says.
        let outcome = unsafe { &mut content.outcome };
        // SAFETY: as the caller says.
        unsafe { ManuallyDrop::take(outcome) }.map_err(|error| *error)
    }

    /// Makes the outcome of a job known that the caller has claimed; then it is `gone`, so that the
    /// engine no longer waits for it when who waits is told by `wake`: that is somebody else's code,
    /// and may end the engine.
    pub(crate) fn end(&self, outcome: Ended<T>, gone: impl FnOnce(), wake: impl FnOnce()) {
        self.put(outcome);
        let is_waited_for = self.state.end();
        gone();
        if is_waited_for {
            contain(wake);
        }
    }

    /// As [`end`](Slot::end), for one whose closure is dropped instead. That is somebody else's code too,
    /// which may take long, or end the engine: so it comes last.
    pub(crate) fn end_unrun(
        &self,
        error: JobError,
        body: F,
        gone: impl FnOnce(),
        wake: impl FnOnce(),
    ) {
        self.end(Err(Box::new(error)), gone, wake);
        contain(|| drop(body));
    }

    /// The outcome, once; or, if it has not ended and there is something to `leave` word with, does so,
    /// and whoever ends it wakes.
    pub(crate) fn take(&self, leave: Option<impl FnOnce()>) -> Option<Result<T, JobError>> {
        if let Some(leave) = leave
            && !self.state.is_ended()
        {
            leave();
            if !self.state.wait() {
                // Whoever ends it comes, be that just now.
                return None;
            }
        }
        // SAFETY: it has ended, and this is the one who takes the outcome.
        self.state.take().then(|| unsafe { self.outcome() })
    }
}

impl<T, F> Drop for Slot<T, F> {
    fn drop(&mut self) {
        if self.state.is_queued() {
            // SAFETY: nobody else has it, nobody has claimed it, and it goes.
            drop(unsafe { self.body() });
        } else if self.state.has_outcome() {
            // SAFETY: nobody else has it, nobody has taken the outcome, and it goes.
            drop(unsafe { self.outcome() });
        }
    }
}

impl<T, F> fmt::Debug for Slot<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
