//! Batches: one closure over many inputs, a job each, with a bound on how many are in flight.
//!
//! Whoever asks for results drives it: it pulls inputs while there is room, in the batch and in the
//! queue of its class, then waits for whichever job ends next. A job is in flight from the moment that
//! its input is pulled until its result is given out, so memory is bounded by that and by what is
//! collected.

mod flight;

use std::fmt;
use std::sync::Arc;

use flight::{Flight, Goal};

use crate::engine::Engine;
use crate::error::JobError;
use crate::job::JobContext;
use crate::{Class, Priority};

/// In flight unless set: enough to keep any machine busy, few enough to cancel soon.
const IN_FLIGHT: usize = 1024;

/// Many inputs about to be given to one closure; made by [`Engine::batch`].
#[must_use = "a batch does nothing until it is given a closure and asked for results"]
pub struct Batch<I> {
    engine: Engine,
    inputs: I,
    class: Class,
    priority: Priority,
    most: usize,
}

impl Engine {
    /// A batch over `inputs`, which are pulled on the thread that asks for results, as room allows. A
    /// full queue makes a batch wait, whatever
    /// [`when_full`](crate::EngineBuilder::when_full) says.
    ///
    /// Each input is a job, and costs what [`submit`](Engine::submit) costs and some 100 ns more.
    ///
    /// ```
    /// use reiver::{Class, Engine};
    ///
    /// let engine = Engine::builder().cpu_workers(2).build()?;
    /// let squares = engine.batch(0..1000_u64).map(|_, n| n * n).collect();
    /// assert_eq!(squares.len(), 1000);
    /// assert!(matches!(squares[30], Ok(900)));
    ///
    /// let names = ["/proc/stat", "/proc/uptime"];
    /// let sizes = engine.batch(names).class(Class::Io).max_in_flight(64)
    ///     .try_map(|_, name| std::fs::read(name).map(|text| text.len()))
    ///     .fail_fast()?;
    /// assert!(sizes.iter().all(|&size| size > 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch<I: IntoIterator>(&self, inputs: I) -> Batch<I::IntoIter> {
        Batch {
            engine: Engine::borrowed(Arc::clone(self.shared())),
            inputs: inputs.into_iter(),
            class: Class::default(),
            priority: Priority::default(),
            most: IN_FLIGHT,
        }
    }
}

impl<I: Iterator> Batch<I> {
    /// What its jobs do with their threads. Default [`Class::Cpu`].
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// How urgent its jobs are. Default [`Priority::P1`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// At most so many inputs are pulled whose results have not been given out. 0 is taken for 1.
    /// Default 1024.
    pub fn max_in_flight(mut self, jobs: usize) -> Self {
        self.most = jobs.max(1);
        self
    }

    /// What is done with each input. Nothing begins before results are asked for.
    pub fn map<U, F>(self, body: F) -> BatchRun<I, F, U>
    where
        F: Fn(&JobContext, I::Item) -> U + Send + Sync + 'static,
        I::Item: Send + 'static,
        U: Send + 'static,
    {
        BatchRun {
            flight: Flight::new(self, body),
        }
    }

    /// What is done with each input, where that may fail. Nothing begins before results are asked for.
    pub fn try_map<U, E, F>(self, body: F) -> TryBatchRun<I, F, U, E>
    where
        F: Fn(&JobContext, I::Item) -> Result<U, E> + Send + Sync + 'static,
        I::Item: Send + 'static,
        U: Send + 'static,
        E: Send + 'static,
    {
        TryBatchRun {
            flight: Flight::new(self, body),
        }
    }
}

/// Inputs and what is done with them; made by [`Batch::map`].
///
/// Dropping it, or the iterator made of it, cancels what is in flight: queued jobs end at once,
/// running ones learn of it at their next checkpoint and are not waited for.
#[must_use = "a batch does nothing until results are asked for"]
pub struct BatchRun<I: Iterator, F, U> {
    flight: Flight<I, F, U>,
}

impl<I, F, U> BatchRun<I, F, U>
where
    I: Iterator<Item: Send + 'static>,
    F: Fn(&JobContext, I::Item) -> U + Send + Sync + 'static,
    U: Send + 'static,
{
    /// All results, in the order of the inputs. What the engine no longer takes, because it is shut
    /// down in the middle, is [`JobError::ShutDown`].
    ///
    /// # Panics
    /// If the iterator of the inputs panics; what is in flight is then cancelled.
    pub fn collect(mut self) -> Vec<Result<U, JobError>> {
        self.flight.all()
    }

    /// The results as jobs end, in any order. Inputs are pulled and results waited for inside `next`,
    /// so between two calls at most [`max_in_flight`](Batch::max_in_flight) inputs are worked on. On a
    /// thread of an engine where many wait already, `next` may run jobs of the batch itself.
    ///
    /// # Panics
    /// Its `next` panics if the iterator of the inputs does; what was in flight can still be had.
    pub fn unordered(mut self) -> impl Iterator<Item = Result<U, JobError>> {
        std::iter::from_fn(move || self.flight.next(Goal::Next).map(|(_, result)| result))
    }

    /// All values in the order of the inputs; or, once a job has none, why: the first by the order of
    /// inputs among those that have ended by then. No more inputs are pulled and what is in flight is
    /// cancelled; what runs is not waited for.
    ///
    /// # Errors
    /// Why a job has no value.
    ///
    /// # Panics
    /// As [`collect`](BatchRun::collect).
    pub fn fail_fast(self) -> Result<Vec<U>, JobError> {
        self.flight.until_failure(|_, result| result)
    }
}

/// Inputs and what is done with them, where that may fail; made by [`Batch::try_map`].
///
/// Dropping it cancels what is in flight, as with [`BatchRun`].
#[must_use = "a batch does nothing until results are asked for"]
pub struct TryBatchRun<I: Iterator, F, U, E> {
    flight: Flight<I, F, Result<U, E>>,
}

impl<I, F, U, E> TryBatchRun<I, F, U, E>
where
    I: Iterator<Item: Send + 'static>,
    F: Fn(&JobContext, I::Item) -> Result<U, E> + Send + Sync + 'static,
    U: Send + 'static,
    E: Send + 'static,
{
    /// As [`BatchRun::fail_fast`], an error of the closure being one of the batch.
    ///
    /// # Errors
    /// Why an input has no value, and which.
    ///
    /// # Panics
    /// As [`BatchRun::collect`].
    pub fn fail_fast(self) -> Result<Vec<U>, BatchError<E>> {
        self.flight.until_failure(|index, result| match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(BatchError::Failed { index, error }),
            Err(error) => Err(BatchError::Job { index, error }),
        })
    }
}

/// Why a batch has not all its values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError<E> {
    /// The closure failed.
    #[error("input {index} failed: {error}")]
    Failed {
        /// Which input, from 0.
        index: usize,
        /// What the closure returned.
        #[source]
        error: E,
    },
    /// The job of an input ended without a value.
    #[error("the job of input {index} has no value: {error}")]
    Job {
        /// Which input, from 0.
        index: usize,
        /// Why.
        #[source]
        error: JobError,
    },
}

impl<I> fmt::Debug for Batch<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("class", &self.class)
            .field("priority", &self.priority)
            .field("max_in_flight", &self.most)
            .finish_non_exhaustive()
    }
}

impl<I: Iterator, F, U> fmt::Debug for BatchRun<I, F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BatchRun").field(&self.flight).finish()
    }
}

impl<I: Iterator, F, U, E> fmt::Debug for TryBatchRun<I, F, U, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TryBatchRun").field(&self.flight).finish()
    }
}
