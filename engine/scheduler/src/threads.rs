//! The threads of an engine that were created and may still run, and who joins them: none outlives its
//! engine.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::protocol::hand_over::HandOver;

/// All threads that were created and may still run.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    ordinary: Mutex<Vec<JoinHandle<()>>>,
    /// Those that the kernel may stop at their last steps: nobody waits for them but the engine's end. As
    /// the spawner has created them.
    created: HandOver<JoinHandle<()>>,
    /// As one of them has found them there, which locks this; nobody else does before the engine's end.
    stoppable: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    pub(crate) fn create(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let thread = Builder::new().name(name).spawn(body)?;
        self.keep(thread);
        Ok(())
    }

    /// As [`create`](Threads::create), one that the kernel may stop for long: it joins those before it that
    /// have ended.
    pub(crate) fn create_stoppable(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let threads = Arc::clone(self);
        let thread = Builder::new().name(name).spawn(move || {
            threads.join_stoppable();
            body();
        })?;
        self.created.put(thread);
        Ok(())
    }

    /// Joins those that the kernel may stop and that have ended; called by one of them.
    fn join_stoppable(&self) {
        let ended: Vec<_> = match self.stoppable.try_lock() {
            Ok(mut threads) => {
                threads.extend(self.created.take_all());
                threads
                    .extract_if(.., |thread| thread.is_finished())
                    .collect()
            }
            Err(_) => return,
        };
        for thread in ended {
            let _ = thread.join();
        }
    }

    fn lock(threads: &Mutex<Vec<JoinHandle<()>>>) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = Threads::lock(&self.ordinary);
        threads.push(thread);
        let ended: Vec<_> = threads
            .extract_if(.., |thread| thread.is_finished())
            .collect();
        drop(threads);
        // Joined and not dropped: none outlives its engine, not even on its last steps, on which it may
        // end another.
        for thread in ended {
            let _ = thread.join();
        }
    }

    pub(crate) fn take(&self) -> Vec<JoinHandle<()>> {
        let mut threads = std::mem::take(&mut *Threads::lock(&self.ordinary));
        let mut stoppable = Threads::lock(&self.stoppable);
        threads.append(&mut stoppable);
        threads.extend(self.created.take_all());
        threads
    }
}
