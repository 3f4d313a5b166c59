//! How far a run is, for whoever asks in the middle: `SIGUSR1` prints it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use indicatif::ProgressBar;

use super::console::{Pretty, plain, shown_command};
use crate::Plan;
use crate::plan::JobIndex;

/// Running jobs that are listed at the most.
const MOST_LISTED: usize = 100;

/// What the terminal knows, and others may ask for.
#[derive(Default)]
pub(crate) struct Progress {
    plan: OnceLock<Arc<Plan>>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) total: usize,
    pub(crate) done: usize,
    pub(crate) failed: usize,
    running: BTreeMap<JobIndex, Running>,
    /// What is drawn at the moment.
    pub(crate) bar: Option<ProgressBar>,
}

struct Running {
    attempt: u32,
    pid: u32,
    since: Instant,
}

impl State {
    pub(crate) fn started(&mut self, job: JobIndex, attempt: u32, pid: u32, since: Instant) {
        let running = Running {
            attempt,
            pid,
            since,
        };
        self.running.insert(job, running);
    }

    /// An attempt has ended; its job may be tried again.
    pub(crate) fn ended(&mut self, job: JobIndex) {
        self.running.remove(&job);
    }
}

impl Progress {
    /// Says what runs.
    pub(crate) fn of(&self, plan: &Arc<Plan>) {
        // It is said once.
        let _ = self.plan.set(Arc::clone(plan));
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something while nothing is drawn.
    pub(crate) fn aside<R>(&self, body: impl FnOnce() -> R) -> R {
        let bar = self.state().bar.clone();
        match bar {
            Some(bar) => bar.suspend(body),
            None => body(),
        }
    }

    /// How far it is, and what runs now.
    pub(crate) fn text(&self) -> String {
        let Some(plan) = self.plan.get() else {
            return "reiver: nothing has started yet".to_owned();
        };
        let state = self.state();
        let State {
            total,
            done,
            failed,
            running,
            ..
        } = &*state;
        let mut text = format!(
            "reiver: {done} of {total} done, {failed} failed, {} running",
            running.len()
        );
        for (&job, now) in running.iter().take(MOST_LISTED) {
            let attempts = plan.settings(job).retries.count.saturating_add(1);
            let age = now.since.elapsed();
            // Text in memory takes all that is written.
            let _ = write!(
                text,
                "\n  {} (attempt {} of {attempts}, process {}) for {}: {}",
                plain(&plan.name(job)),
                now.attempt,
                now.pid,
                Pretty(age),
                shown_command(plan, job),
            );
        }
        match running.len().saturating_sub(MOST_LISTED) {
            0 => text,
            more => format!("{text}\n  and {more} more"),
        }
    }
}
