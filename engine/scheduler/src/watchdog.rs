//! Reports jobs that run for longer than they should, each once.
//!
//! One thread, which looks at what runs when the first of them may be too old, and rests while there is
//! no job at all (see [`doze`](crate::protocol::doze)). Jobs pay for it when they are submitted, by a
//! fence; running ones do not.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_utils::sync::{Parker, Unparker};

use crate::panics::contain;
use crate::protocol::doze::Doze;
use crate::running::RunningJob;
use crate::shared::Shared;

/// It does not look more often.
const OFTEN: Duration = Duration::from_millis(1);

/// What is too old, and who is told.
#[derive(Clone)]
pub(crate) struct Limit {
    pub(crate) age: Duration,
    pub(crate) report: Arc<dyn Fn(&RunningJob) + Send + Sync>,
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("age", &self.age)
            .finish_non_exhaustive()
    }
}

/// The watchdog of an engine.
#[derive(Debug)]
pub(crate) struct Watchdog {
    limit: Limit,
    doze: Doze,
    parker: std::sync::Mutex<Option<Parker>>,
    unparker: Unparker,
}

impl Watchdog {
    pub(crate) fn new(limit: Limit) -> Watchdog {
        let parker = Parker::new();
        Watchdog {
            limit,
            doze: Doze::default(),
            unparker: parker.unparker().clone(),
            parker: std::sync::Mutex::new(Some(parker)),
        }
    }

    /// A job was counted in.
    pub(crate) fn note_job(&self) {
        if self.doze.must_wake() {
            self.wake();
        }
    }

    /// There is something to see: a job, or that the engine has stopped.
    pub(crate) fn wake(&self) {
        self.unparker.unpark();
    }

    /// The life of the thread.
    pub(crate) fn live(&self, engine: &Shared) {
        let parker = self.parker.lock().ok().and_then(|mut parker| parker.take());
        let parker = parker.expect("it has one thread");
        let mut reported = HashSet::new();
        while !engine.stop.is_said() {
            let next = self.look(engine, &mut reported);
            if self.doze.may_rest(|| engine.is_idle()) {
                if !engine.stop.is_said() {
                    parker.park();
                }
                continue;
            }
            match Instant::now().checked_add(next.max(OFTEN)) {
                Some(next) => parker.park_deadline(next),
                None => parker.park(),
            }
        }
    }

    /// Reports what is too old; gives when something else may be.
    fn look(&self, engine: &Shared, reported: &mut HashSet<Seen>) -> Duration {
        let running = engine.running_now();
        reported.retain(|seen| running.iter().any(|job| Seen::of(job) == *seen));
        let mut next = self.limit.age;
        for job in &running {
            let seen = Seen::of(job);
            if reported.contains(&seen) {
                continue;
            }
            match self.limit.age.checked_sub(job.age()) {
                Some(left) if !left.is_zero() => next = next.min(left),
                _ => {
                    reported.insert(seen);
                    contain(|| (self.limit.report)(job));
                }
            }
        }
        next
    }
}

/// What tells a job from all others: where it lies, and since when it runs.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Seen(usize, crate::clock::Stamp);

impl Seen {
    fn of(job: &RunningJob) -> Seen {
        Seen(job.job, job.started)
    }
}
