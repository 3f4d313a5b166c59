//! The thread that ends the epochs of all pools of the process, so that idle memory goes back also
//! where nobody does anything any more. It lives while there are pools.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::shared::Core;

#[derive(Debug)]
struct Watched {
    core: Weak<Core>,
    epoch: Duration,
    due: Instant,
    /// One of its epochs ends just now.
    ends: bool,
}

#[derive(Debug)]
struct Watch {
    pools: Vec<Watched>,
    is_running: bool,
    was_refused: bool,
}

static WATCH: Mutex<Watch> = Mutex::new(Watch {
    pools: Vec::new(),
    is_running: false,
    was_refused: false,
});
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Watch> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on the epochs of this pool end.
pub(crate) fn watch(core: &Arc<Core>) {
    let Some(due) = after(core.epoch) else {
        return;
    };
    let mut watch = lock();
    watch.pools.push(Watched {
        core: Arc::downgrade(core),
        epoch: core.epoch,
        due,
        ends: false,
    });
    if watch.is_running {
        CHANGED.notify_one();
        return;
    }
    let started = thread::Builder::new().name("reiver-pool".into()).spawn(run);
    match started {
        Ok(_) => watch.is_running = true,
        Err(error) => {
            watch.pools.clear();
            if !std::mem::replace(&mut watch.was_refused, true) {
                tracing::warn!(
                    "the system refuses a thread to pools ({error}); they keep what is idle until \
                     they are trimmed or dropped"
                );
            }
        }
    }
}

/// `None` if that is never.
fn after(epoch: Duration) -> Option<Instant> {
    Instant::now().checked_add(epoch)
}

fn run() {
    let mut watch = lock();
    loop {
        watch.pools.retain(|pool| pool.core.strong_count() > 0);
        let Some(next) = watch.pools.iter().map(|pool| pool.due).min() else {
            watch.is_running = false;
            return;
        };
        let now = Instant::now();
        if next > now {
            let waited = CHANGED.wait_timeout(watch, next - now);
            watch = waited.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let mut due = Vec::new();
        for pool in watch.pools.iter_mut().filter(|pool| pool.due <= now) {
            pool.ends = true;
            due.push(Weak::clone(&pool.core));
        }
        drop(watch);
        // Objects are dropped here, and maybe whole pools.
        for core in due.iter().filter_map(Weak::upgrade) {
            core.age();
        }
        watch = lock();
        // The next begins now: what was used a moment ago does not age because this thread came late.
        for pool in watch.pools.iter_mut().filter(|pool| pool.ends) {
            pool.ends = false;
            pool.due = after(pool.epoch).unwrap_or(now + Duration::from_secs(3600));
        }
    }
}
