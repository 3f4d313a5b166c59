//! Which jobs run just now, for whoever asks: each thread shows its own, see [`shown`](crate::protocol::shown).

use std::borrow::Cow;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reiver_topology::NodeId;

use crate::cell::Meta;
use crate::clock::Stamp;
use crate::protocol::shown::Shown;
use crate::schedule::note_lock_of_all;
use crate::{Class, Priority};

/// A job that was running when it was asked for.
#[derive(Debug, Clone)]
pub struct RunningJob {
    /// The address of what is known of it.
    pub(crate) job: usize,
    name: Option<Cow<'static, str>>,
    class: Class,
    priority: Priority,
    node: NodeId,
    pub(crate) started: Stamp,
}

impl RunningJob {
    pub(crate) fn of(meta: &Meta, node: NodeId, started: Stamp) -> RunningJob {
        RunningJob {
            job: ptr::from_ref(meta).addr(),
            name: meta.name().cloned(),
            class: meta.class,
            priority: meta.priority,
            node,
            started,
        }
    }

    /// Its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Its priority.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The node of the thread that runs it.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How long ago it began.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What a thread shows of a job.
#[derive(Debug)]
struct Running {
    job: *const Meta,
    node: NodeId,
    started: Stamp,
}

/// The jobs that one thread is in.
#[derive(Debug, Default)]
pub(crate) struct Own(Shown<Running>);

// SAFETY: what is shown may be read by any thread.
unsafe impl Send for Own {}
// SAFETY: as above.
unsafe impl Sync for Own {}

impl Own {
    /// Runs `body`, which does not unwind, as `job`, on the thread whose list this is. `is_eager` where
    /// the kernel has no barrier for us.
    pub(crate) fn during<R>(
        &self,
        job: &Meta,
        (node, started): (NodeId, Stamp),
        is_eager: bool,
        body: impl FnOnce() -> R,
    ) -> R {
        let running = Running { job, node, started };
        // SAFETY: each thread has its own, and the job is borrowed for as long as this takes.
        unsafe { self.0.during(running, is_eager, body) }
    }
}

/// Those of all threads of an engine.
#[derive(Debug, Default)]
pub(crate) struct AllRunning(Mutex<Vec<Arc<Own>>>);

impl AllRunning {
    fn threads(&self) -> MutexGuard<'_, Vec<Arc<Own>>> {
        note_lock_of_all();
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A list for the current thread.
    pub(crate) fn enter(&self) -> Arc<Own> {
        let own = Arc::new(Own::default());
        self.threads().push(Arc::clone(&own));
        own
    }

    /// The thread is none of the engine any more.
    pub(crate) fn leave(&self, own: &Arc<Own>) {
        self.threads().retain(|known| !Arc::ptr_eq(known, own));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.threads().len()
    }

    pub(crate) fn jobs(&self) -> Vec<RunningJob> {
        let mut jobs = Vec::new();
        let see = |running: &Running| {
            // SAFETY: it is shown as long as it lives.
            let meta = unsafe { &*running.job };
            jobs.push(RunningJob::of(meta, running.node, running.started));
        };
        let mut see = see;
        self.threads().iter().for_each(|own| own.0.read(&mut see));
        jobs
    }
}
