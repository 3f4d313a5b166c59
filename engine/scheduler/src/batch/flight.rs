//! A batch under way: which of its inputs are jobs, which have ended, and how its consumer waits.
//!
//! Each place in flight has a waker of its own that says which job has ended. Who waits for all, once
//! all inputs are pulled, runs queued jobs of the batch itself, as `JobHandle::join` does. Else a
//! thread of an engine hands its place on: a job may need what its consumer does next, if only to be
//! cancelled. Where many have done that already it runs jobs of its own all the same.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use super::Batch;
use crate::admission::{Entering, Step};
use crate::cell::{Outcome, any};
use crate::current::{Current, block_until, unstopped, unstopped_later};
use crate::engine::Engine;
use crate::error::JobError;
use crate::job::JobContext;
use crate::protocol::refs::Ref;
use crate::room::{Entry, Stands};
use crate::schedule::note_lock_of_all;
use crate::token::CancellationToken;
use crate::worker::MOST_NESTED;
use crate::{Class, Priority};

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Whatever ends next, which decides what is done then.
    Next,
    /// All; nothing is done before that.
    All,
}

/// A batch under way.
pub(super) struct Flight<I: Iterator, F, U> {
    engine: Engine,
    /// `None` once they have ended.
    inputs: Option<I>,
    body: Arc<F>,
    class: Class,
    priority: Priority,
    most: usize,
    token: CancellationToken,
    /// How many inputs have been pulled.
    pulled: usize,
    /// Pulled, made a job, and without room in the queue.
    stuck: Option<(usize, Ref<dyn Outcome<U>>)>,
    places: Vec<Place<U>>,
    /// Places that are free.
    free: Vec<usize>,
    /// Have ended, and are not given out yet.
    ready: VecDeque<(usize, Result<U, JobError>)>,
    /// Where to look next for a queued job of one's own; `None` when there was none.
    next_own: Option<usize>,
    ended: Arc<Ended>,
}

/// A job in flight, and how its end is told.
struct Place<U> {
    job: Option<(usize, Ref<dyn Outcome<U>>)>,
    waker: Waker,
}

/// Which places' jobs have ended, and who is waiting for that.
#[derive(Debug, Default)]
struct Ended {
    state: Mutex<EndedState>,
}

#[derive(Debug, Default)]
struct EndedState {
    places: Vec<usize>,
    /// Who waits, and for how many.
    waits: Option<(Waker, usize)>,
}

impl Ended {
    fn state(&self) -> MutexGuard<'_, EndedState> {
        note_lock_of_all();
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, place: usize) {
        let mut state = self.state();
        state.places.push(place);
        let told = state.places.len();
        let waker = state.waits.take_if(|&mut (_, wanted)| told >= wanted);
        drop(state);
        if let Some((waker, _)) = waker {
            waker.wake();
        }
    }

    /// True if so many have ended; else the waker is woken when they have.
    fn is_told(&self, waker: &Waker, wanted: usize) -> bool {
        let mut state = self.state();
        if state.places.len() >= wanted {
            return true;
        }
        match &mut state.waits {
            Some((known, for_how_many)) => {
                known.clone_from(waker);
                *for_how_many = wanted;
            }
            none => *none = Some((waker.clone(), wanted)),
        }
        false
    }
}

/// The waker of one place.
struct Tell {
    place: usize,
    ended: Arc<Ended>,
}

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        unstopped_later(move || self.ended.tell(self.place));
    }
}

impl<I: Iterator, F, U> Flight<I, F, U> {
    pub(super) fn new(batch: Batch<I>, body: F) -> Flight<I, F, U> {
        Flight {
            engine: batch.engine,
            inputs: Some(batch.inputs),
            body: Arc::new(body),
            class: batch.class,
            priority: batch.priority,
            most: batch.most,
            token: CancellationToken::new(),
            pulled: 0,
            stuck: None,
            places: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            next_own: None,
            ended: Arc::default(),
        }
    }

    /// Jobs that were taken and are not known to have ended.
    fn in_flight(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Jobs that have ended give their results.
    fn gather(&mut self) {
        let ended = Arc::clone(&self.ended);
        let ended = unstopped(move || std::mem::take(&mut ended.state().places));
        for place in ended {
            let job = self.places[place].job.take();
            let (index, job) = job.expect("a place is told of once a job");
            let result = job
                .take(None)
                .expect("who tells of its end leaves a result");
            self.free.push(place);
            self.ready.push_back((index, result));
        }
    }
}

impl<I, F, U> Flight<I, F, U>
where
    I: Iterator<Item: Send + 'static>,
    F: Fn(&JobContext, I::Item) -> U + Send + Sync + 'static,
    U: Send + 'static,
{
    /// The next result, with the number of its input.
    pub(super) fn next(&mut self, goal: Goal) -> Option<(usize, Result<U, JobError>)> {
        loop {
            if self.ready.is_empty() {
                self.gather();
            }
            self.pull();
            if let Some(result) = self.ready.pop_front() {
                return Some(result);
            }
            if self.in_flight() == 0 && self.stuck.is_none() {
                return None;
            }
            self.wait(goal);
        }
    }

    /// All results, in the order of their inputs.
    pub(super) fn all(&mut self) -> Vec<Result<U, JobError>> {
        let mut results: Vec<Option<Result<U, JobError>>> = Vec::new();
        while let Some((index, result)) = self.next(Goal::All) {
            put(&mut results, index, result);
        }
        all(results)
    }

    /// The values that `judge` makes of the results, in the order of their inputs, or the failure of
    /// the first input that is known to have failed.
    pub(super) fn until_failure<V, E>(
        mut self,
        judge: impl Fn(usize, Result<U, JobError>) -> Result<V, E>,
    ) -> Result<Vec<V>, E> {
        let mut values: Vec<Option<V>> = Vec::new();
        while let Some((index, result)) = self.next(Goal::Next) {
            match judge(index, result) {
                Ok(value) => put(&mut values, index, value),
                Err(error) => {
                    self.gather();
                    let others = self.ready.drain(..);
                    let others = others.filter_map(|(index, result)| {
                        judge(index, result).err().map(|error| (index, error))
                    });
                    let first = std::iter::once((index, error)).chain(others);
                    let (_, error) = first
                        .min_by_key(|&(index, _)| index)
                        .expect("there is one at least");
                    return Err(error);
                }
            }
        }
        Ok(all(values))
    }

    /// Pulls inputs and hands them over while there is room.
    fn pull(&mut self) {
        let shared = Arc::clone(self.engine.shared());
        while self.stuck.is_some() || self.in_flight() + self.ready.len() < self.most {
            let stuck = self.stuck.take();
            let Some((index, job)) = stuck.or_else(|| self.next_job()) else {
                return;
            };
            match shared.try_enter(job.meta()) {
                Ok(true) => self.hand_over(index, job),
                Ok(false) => {
                    self.stuck = Some((index, job));
                    return;
                }
                Err(error) => self.ready.push_back((index, Err(JobError::untaken(error)))),
            }
        }
    }

    /// Makes a job of the next input.
    fn next_job(&mut self) -> Option<(usize, Ref<dyn Outcome<U>>)> {
        // Somebody else's code: if it panics there are no more inputs.
        let mut inputs = self.inputs.take()?;
        let input = inputs.next()?;
        self.inputs = Some(inputs);
        let index = self.pulled;
        self.pulled += 1;
        let body = Arc::clone(&self.body);
        let job = self.engine.job().class(self.class).priority(self.priority);
        let job = job.cancel_with(&self.token);
        let cell = job.into_cell(move |ctx: &JobContext| body(ctx, input));
        let (_, job) = cell.expect("it asks for no node").split();
        Some((index, job))
    }

    /// Submits a job for which the room of its class was entered, if the engine takes any.
    fn hand_over(&mut self, index: usize, job: Ref<dyn Outcome<U>>) {
        let shared = self.engine.shared();
        let taken = any(&job);
        match shared.submit_entered(taken) {
            Ok(()) => self.watch(index, job),
            Err(error) => self.ready.push_back((index, Err(JobError::untaken(error)))),
        }
    }

    /// Sees to it that the end of a job is told.
    fn watch(&mut self, index: usize, job: Ref<dyn Outcome<U>>) {
        let place = self.free.pop().unwrap_or_else(|| {
            let place = self.places.len();
            let ended = Arc::clone(&self.ended);
            let waker = Waker::from(Arc::new(Tell { place, ended }));
            self.places.push(Place { job: None, waker });
            place
        });
        match job.take(Some(&self.places[place].waker)) {
            Some(result) => {
                self.free.push(place);
                self.ready.push_back((index, result));
            }
            None => {
                self.places[place].job = Some((index, job));
                self.next_own = self.next_own.or(Some(place));
            }
        }
    }

    /// Waits until jobs have ended, or there is room for the one that has none.
    fn wait(&mut self, goal: Goal) {
        let waits_for_each = goal == Goal::All && self.inputs.is_none() && self.stuck.is_none();
        if (waits_for_each || Stands::are_few()) && self.run_own() {
            return;
        }
        let shared = Arc::clone(self.engine.shared());
        let stands = Stands::by();
        if stands.is_none() {
            // Nobody else may be left to do it.
            if self.run_own() {
                return;
            }
            let may_pass = |job: &mut (usize, Ref<dyn Outcome<U>>)| job.1.meta().may_pass();
            if let Some((index, job)) = self.stuck.take_if(may_pass) {
                let taken = any(&job);
                match shared.admit(self.class, Entry::Caller) {
                    Ok(()) => {
                        shared.run_on_caller(taken);
                        self.watch(index, job);
                    }
                    Err(error) => self.ready.push_back((index, Err(JobError::untaken(error)))),
                }
                return;
            }
            if run_any_io() {
                return;
            }
        }
        let stuck = self.stuck.as_ref().map(|(_, job)| job.clone());
        let mut entering = stuck.as_ref().map(|job| shared.entering(job.meta()));
        let until = entering.as_ref().and_then(Entering::until);
        let wanted = self.wanted(goal);
        let mut entered = false;
        block_until(until, |waker| {
            let (ended, told) = (Arc::clone(&self.ended), waker.clone());
            if entered || unstopped(move || ended.is_told(&told, wanted)) {
                return true;
            }
            let Some(entering) = &mut entering else {
                return false;
            };
            let step = entering.poll(waker);
            entered = step == Step::Entered;
            step != Step::Waits
        });
        drop(entering);
        if entered && let Some((index, job)) = self.stuck.take() {
            self.hand_over(index, job);
        }
    }

    /// How many ends to wait for: where nothing hangs on the single one, so many that the workers
    /// still have enough, so that a waiting thread is not woken for each.
    fn wanted(&self, goal: Goal) -> usize {
        let workers = self.engine.shared().machine.nodes.iter();
        let workers: usize = workers.map(|node| node.workers).sum();
        match (goal, self.class) {
            (Goal::All, Class::Cpu) => (self.in_flight().saturating_sub(2 * workers) / 2).max(1),
            _ => 1,
        }
    }

    /// Runs a job of the batch that is still queued, if this thread may.
    fn run_own(&mut self) -> bool {
        let on_engine = Current::with(|current| current.is_some());
        let Some(start) = self.next_own.filter(|_| on_engine) else {
            return false;
        };
        let count = self.places.len();
        let round = (start..count).chain(0..start);
        let mut is_left = false;
        for place in round {
            let job = self.places[place].job.as_ref();
            let queued = job.filter(|(_, job)| job.is_queued());
            let Some(job) = queued.map(|(_, job)| any(job)) else {
                continue;
            };
            is_left = true;
            Current::with(|current| {
                if let Some(current) = current {
                    current.run_if_queued(&job);
                }
            });
            if job.is_queued() {
                // Not for threads like this one.
                break;
            }
            self.next_own = Some((place + 1) % count);
            return true;
        }
        if !is_left {
            self.next_own = None;
        }
        false
    }
}

impl<I: Iterator, F, U> Drop for Flight<I, F, U> {
    fn drop(&mut self) {
        if self.in_flight() > 0 {
            self.token.cancel();
        }
    }
}

/// What is waited for runs on a thread that waits itself, for one of those that are queued: on an I/O
/// thread runs one of them.
fn run_any_io() -> bool {
    Current::with(|current| {
        let current = current.filter(|current| current.worker().is_none());
        let Some(current) = current.filter(|current| current.depth() < MOST_NESTED) else {
            return false;
        };
        let shared = current.engine().shared();
        let node = current.node_index();
        let job = shared.with_pool(current.pool(), move |io, machine| {
            io.take(&machine.near[node])
        });
        let is_some = job.is_some();
        if let Some(job) = job {
            current.run_if_queued(&job);
        }
        is_some
    })
}

impl<I: Iterator, F, U> fmt::Debug for Flight<I, F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("pulled", &self.pulled)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// Puts a value in its place in a list that is not full yet.
fn put<V>(values: &mut Vec<Option<V>>, index: usize, value: V) {
    if values.len() <= index {
        values.resize_with(index + 1, || None);
    }
    values[index] = Some(value);
}

/// A full list.
fn all<V>(values: Vec<Option<V>>) -> Vec<V> {
    let values = values.into_iter();
    let given = values.map(|value| value.expect("every input has a result"));
    given.collect()
}
