//! Which jobs run just now, for whoever asks: each thread keeps a list of its own, which lies in the
//! frames of the jobs themselves and costs two stores a job.
//!
//! A thread takes a job off its list before the job's frame is gone. Whoever reads a list must not be
//! in it then:
//!
//! | thread | reader, under the list's lock |
//! | --- | --- |
//! | 1. takes the job off | 1. says that it reads, dear fence |
//! | 2. cheap fence | 2. reads |
//! | 3. waits for the lock, if somebody reads | 3. says that it no longer does |
//!
//! Of the two fences one comes first: either the reader no longer finds the job, or the thread waits
//! for it.

use std::borrow::Cow;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reiver_topology::NodeId;

use crate::Class;
use crate::barrier;
use crate::cell::Meta;
use crate::clock::Stamp;
use crate::sync::{AtomicBool, AtomicPtr, Ordering, fence};

/// A job that was running when it was asked for.
#[derive(Debug, Clone)]
pub struct RunningJob {
    /// The address of what is known of it.
    pub(crate) job: usize,
    name: Option<Cow<'static, str>>,
    class: Class,
    node: NodeId,
    started: Stamp,
}

impl RunningJob {
    /// Its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.class
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

/// The jobs that one thread is in.
#[derive(Debug, Default)]
pub(crate) struct Running {
    innermost: AtomicPtr<Entry>,
    is_read: AtomicBool,
    lock: Mutex<()>,
}

/// One of them; lies in a frame of its thread.
#[derive(Debug)]
struct Entry {
    job: *const Meta,
    node: NodeId,
    started: Stamp,
    below: *mut Entry,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `body`, which does not unwind, as `job`, on the thread whose list this is.
    pub(crate) fn during<R>(
        &self,
        job: &Meta,
        (node, started, is_eager): (NodeId, Stamp, bool),
        body: impl FnOnce() -> R,
    ) -> R {
        // ORDERING: relaxed: only this thread writes it.
        let below = self.innermost.load(Ordering::Relaxed);
        let entry = Entry {
            job,
            node,
            started,
            below,
        };
        // ORDERING: release, with the acquire in `read`: the entry is visible.
        self.innermost
            .store(ptr::from_ref(&entry).cast_mut(), Ordering::Release);
        let result = body();
        self.innermost.store(below, Ordering::Release);
        // ORDERING: with the dear fence in `read`, see the module.
        barrier::light("running off fence");
        if is_eager {
            fence(Ordering::SeqCst);
        }
        if self.is_read.load(Ordering::Relaxed) {
            drop(self.lock());
        }
        result
    }

    /// Adds the jobs of this list to `jobs`.
    pub(crate) fn read(&self, jobs: &mut Vec<RunningJob>) {
        let _lock = self.lock();
        // ORDERING: relaxed, for the fence orders it.
        self.is_read.store(true, Ordering::Relaxed);
        // ORDERING: with the cheap fence in `during`.
        if !barrier::heavy("running read fence") {
            barrier::outwait();
            fence(Ordering::SeqCst);
        }
        let mut next = self.innermost.load(Ordering::Acquire).cast_const();
        // SAFETY: whatever is on the list stays until its thread has seen that nobody reads.
        while let Some(entry) = unsafe { next.as_ref() } {
            // SAFETY: the job runs.
            let meta = unsafe { &*entry.job };
            jobs.push(RunningJob {
                job: entry.job.addr(),
                name: meta.name().cloned(),
                class: meta.class,
                node: entry.node,
                started: entry.started,
            });
            next = entry.below;
        }
        // ORDERING: relaxed: a thread that still reads true waits for the lock in vain.
        self.is_read.store(false, Ordering::Relaxed);
    }
}

/// The lists of the threads of an engine.
#[derive(Debug, Default)]
pub(crate) struct AllRunning(Mutex<Vec<Arc<Running>>>);

impl AllRunning {
    fn lists(&self) -> MutexGuard<'_, Vec<Arc<Running>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A list for the current thread.
    pub(crate) fn enter(&self) -> Arc<Running> {
        let list = Arc::new(Running::default());
        self.lists().push(Arc::clone(&list));
        list
    }

    /// The thread is none of the engine any more.
    pub(crate) fn leave(&self, list: &Arc<Running>) {
        self.lists().retain(|known| !Arc::ptr_eq(known, list));
    }

    pub(crate) fn jobs(&self) -> Vec<RunningJob> {
        let mut jobs = Vec::new();
        self.lists().iter().for_each(|list| list.read(&mut jobs));
        jobs
    }
}
