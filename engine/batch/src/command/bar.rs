//! The bar that a terminal shows during a run: how far it is, and what runs just now. It is drawn
//! anew by the clock, so that what runs long is seen to run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::console::{Pretty, plain};
use crate::plan::JobIndex;

/// Running jobs that are shown at the most.
const MOST_SHOWN: usize = 8;
/// Of a name so many letters: a line that wraps cannot be cleared again.
const MOST_OF_A_NAME: usize = 50;
/// Often enough that seconds are seen to pass.
const TICK: Duration = Duration::from_millis(200);

pub(crate) struct Bar {
    bar: ProgressBar,
    running: Arc<Mutex<Running>>,
}

type Running = BTreeMap<JobIndex, (String, Instant)>;

impl Bar {
    pub(crate) fn new(jobs: usize) -> Bar {
        let running = Arc::new(Mutex::new(Running::new()));
        let shown = Arc::clone(&running);
        let template = "{bar:30} {pos}/{len} {msg} {elapsed_precise} ETA {eta_precise}{running}";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("running", move |_: &ProgressState, out: &mut dyn Write| {
                // Text in memory takes all that is written.
                let _ = write_running(&lock(&shown), out);
            });
        let bar = ProgressBar::new(jobs as u64).with_style(style);
        bar.enable_steady_tick(TICK);
        Bar { bar, running }
    }

    pub(crate) fn started(&self, job: JobIndex, name: &str) {
        let name = plain(name).chars().take(MOST_OF_A_NAME).collect();
        lock(&self.running).insert(job, (name, Instant::now()));
    }

    /// An attempt has ended; its job may be tried again.
    pub(crate) fn ended(&self, job: JobIndex) {
        lock(&self.running).remove(&job);
    }

    /// So many jobs are over; `failures` is said of them.
    pub(crate) fn set(&self, done: usize, failures: String) {
        self.bar.set_position(done as u64);
        self.bar.set_message(failures);
    }

    /// Writes where the bar is not.
    pub(crate) fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        self.bar.suspend(write)
    }

    /// What draws, for others to draw beside.
    pub(crate) fn handle(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// Takes it away.
    pub(crate) fn clear(self) {
        self.bar.finish_and_clear();
    }
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each on a line of its own, after the one before it.
fn write_running(running: &Running, out: &mut dyn Write) -> std::fmt::Result {
    for (name, since) in running.values().take(MOST_SHOWN) {
        write!(out, "\n  {name} {}", Pretty(since.elapsed()))?;
    }
    match running.len().saturating_sub(MOST_SHOWN) {
        0 => Ok(()),
        more => write!(out, " and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_eight_of_those_that_run_are_shown() {
        let mut running = Running::new();
        for job in 0..11 {
            running.insert(JobIndex(job), (format!("job-{job}"), Instant::now()));
        }
        let mut text = String::new();
        write_running(&running, &mut text).unwrap();
        assert_eq!(text.lines().count(), 1 + MOST_SHOWN);
        assert!(text.contains("job-7") && !text.contains("job-8"));
        assert!(text.ends_with(" and 3 more"), "{text}");
    }
}
