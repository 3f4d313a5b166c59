//! Keeps all workers of an engine but one in a job, so that a chain of forks on the last one is
//! measured with the others present, yet without a thief.
//!
//! Works for whoever forks and joins: the holding jobs are forks, and whoever waits for them to be
//! taken goes on forking, since chili and forte give work away only there.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::forks::Forks;

/// What the others are held by.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    asleep: bool,
    entered: CachePadded<AtomicUsize>,
    free: CachePadded<AtomicBool>,
    left: CachePadded<Mutex<Option<Instant>>>,
    /// For those who sleep; guards nothing but `free`.
    lock: Mutex<()>,
    freed: Condvar,
}

const UNPOISONED: &str = "nobody panics while holding it";

impl Hold {
    /// They spin if there is a core for each, else they sleep.
    pub(crate) fn new(threads: usize) -> Hold {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Hold {
            asleep: threads > cores,
            ..Hold::default()
        }
    }

    /// They sleep, so that whoever counts instructions does not count theirs.
    pub(crate) fn asleep() -> Hold {
        Hold {
            asleep: true,
            ..Hold::default()
        }
    }

    /// Nobody is held yet.
    fn begin(&self) {
        // ORDERING: relaxed, as all here: nothing but the words themselves is passed on.
        self.entered.store(0, Ordering::Relaxed);
        self.free.store(false, Ordering::Relaxed);
    }

    /// Lets them go.
    pub(crate) fn release(&self) {
        let guard = self.lock.lock().expect(UNPOISONED);
        self.free.store(true, Ordering::Relaxed);
        drop(guard);
        self.freed.notify_all();
    }

    /// When the last of them left.
    pub(crate) fn left(&self) -> Option<Instant> {
        *self.left.lock().expect(UNPOISONED)
    }

    /// Unless the owner of the fork has to run it itself.
    fn stay(&self, owner: ThreadId) {
        if thread::current().id() == owner {
            return;
        }
        self.entered.fetch_add(1, Ordering::Relaxed);
        if self.asleep {
            let guard = self.lock.lock().expect(UNPOISONED);
            let held = |(): &mut ()| !self.free.load(Ordering::Relaxed);
            drop(self.freed.wait_while(guard, held).expect(UNPOISONED));
        }
        while !self.free.load(Ordering::Relaxed) {
            spin_loop();
        }
        *self.left.lock().expect(UNPOISONED) = Some(Instant::now());
    }
}

/// For how long the others may take to come, at first; twice as long each time, for so many times.
const PATIENCE: Duration = Duration::from_millis(50);
const ATTEMPTS: u32 = 8;

/// Runs `body` on one worker while the other `others` are held; lets them go when it is done.
///
/// Begins anew where they do not come: a worker of chili that is about to sleep misses the one fork that
/// is offered to it, and its owner offers no other before it has that one back.
pub(crate) fn held<F: Forks, R: Send>(
    engine: &F,
    others: usize,
    hold: &Hold,
    body: impl FnOnce(&mut F::Here<'_>) -> R + Send,
) -> R {
    let mut body = Some(body);
    let mut result = None;
    for attempt in 0..ATTEMPTS {
        let patience = PATIENCE * 2_u32.pow(attempt);
        hold.begin();
        let mut once = |here: &mut F::Here<'_>| {
            result = body.take().map(|body| body(here));
        };
        engine.enter(|here| {
            occupy::<F>(here, 0, others, patience, hold, &mut once);
            hold.release();
        });
        if let Some(result) = result {
            return result;
        }
    }
    panic!("of {others} workers, some never took a fork that was offered to them");
}

/// A trait object, or each level would be a type of its own, without end.
type Body<'b, F> = dyn for<'h> FnMut(&mut <F as Forks>::Here<'h>) + Send + 'b;

/// One after the other is held, so that never more than one fork waits: chili makes plain calls of most
/// others.
fn occupy<F: Forks>(
    here: &mut F::Here<'_>,
    held: usize,
    others: usize,
    patience: Duration,
    hold: &Hold,
    body: &mut Body<'_, F>,
) {
    if held == others {
        body(here);
        return hold.release();
    }
    let owner = thread::current().id();
    F::join(
        here,
        |here| {
            let since = Instant::now();
            while hold.entered.load(Ordering::Relaxed) <= held && since.elapsed() < patience {
                F::join(here, |_| (), |_| ());
            }
            if hold.entered.load(Ordering::Relaxed) > held {
                occupy::<F>(here, held + 1, others, patience, hold, body);
            }
            hold.release();
        },
        |_| hold.stay(owner),
    );
}
