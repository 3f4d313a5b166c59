//! How a worker sleeps: on one word, in the kernel (`futex(2)`).
//!
//! It has a token, which makes an unpark before a park count. There is no lock in it, so that whoever
//! wakes a thread that the kernel has stopped on its way to sleep does not wait for it. The steps are
//! those of std's parker; unlike std's it is there before its thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const EMPTY: u32 = 0;
const TOKEN: u32 = 1;
const PARKED: u32 = 2;

/// The side of the thread that sleeps.
#[derive(Debug)]
pub(crate) struct Parker(Unparker);

/// The side of those who wake it.
#[derive(Clone)]
pub(crate) struct Unparker(Arc<AtomicU32>);

impl Parker {
    pub(crate) fn new() -> Parker {
        Parker(Unparker(Arc::new(AtomicU32::new(EMPTY))))
    }

    pub(crate) fn unparker(&self) -> &Unparker {
        &self.0
    }

    /// Sleeps until there is a token, and takes it.
    pub(crate) fn park(&self) {
        self.park_until(None);
    }

    pub(crate) fn park_timeout(&self, limit: Duration) {
        self.park_until(Instant::now().checked_add(limit));
    }

    /// As [`park`](Parker::park), but no longer than until then.
    pub(crate) fn park_until(&self, until: Option<Instant>) {
        let word = &*self.0.0;
        // ORDERING: acquire, with the release in `unpark`, here and below: what was done before it is
        // visible.
        let parked = word.compare_exchange(EMPTY, PARKED, Ordering::Acquire, Ordering::Acquire);
        if parked.is_ok() {
            loop {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                if left.is_some_and(|left| left.is_zero()) {
                    break;
                }
                wait(word, left);
                if word.load(Ordering::Acquire) == TOKEN {
                    break;
                }
            }
        }
        word.swap(EMPTY, Ordering::Acquire);
    }
}

impl Unparker {
    /// Gives the token, and wakes the thread if it sleeps.
    pub(crate) fn unpark(&self) {
        // ORDERING: release, see above.
        if self.0.swap(TOKEN, Ordering::Release) == PARKED {
            wake(&self.0);
        }
    }
}

impl fmt::Debug for Unparker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unparker").finish_non_exhaustive()
    }
}

/// Sleeps while the word says that it is to; may wake for nothing.
fn wait(word: &AtomicU32, limit: Option<Duration>) {
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(limit.subsec_nanos()),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word lives as long as this takes, and the limit is null or lives so too.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, PARKED, limit) };
}

fn wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: only the address counts.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    #[test]
    fn an_unpark_before_a_park_counts_once() {
        let parker = Parker::new();
        parker.unparker().unpark();
        parker.unparker().unpark();
        parker.park();
        let start = Instant::now();
        parker.park_timeout(Duration::from_millis(20));
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn no_wake_is_lost_between_two_that_take_turns() {
        const TURNS: usize = 20_000;
        let (here, there) = (Parker::new(), Parker::new());
        let (wakes_here, wakes_there) = (here.unparker().clone(), there.unparker().clone());
        let turn = Arc::new(AtomicUsize::new(0));
        let other = {
            let turn = Arc::clone(&turn);
            thread::spawn(move || {
                for number in (1..TURNS).step_by(2) {
                    while turn.load(Ordering::Relaxed) != number {
                        there.park();
                    }
                    turn.store(number + 1, Ordering::Relaxed);
                    wakes_here.unpark();
                }
            })
        };
        for number in (0..TURNS).step_by(2) {
            while turn.load(Ordering::Relaxed) != number {
                here.park();
            }
            turn.store(number + 1, Ordering::Relaxed);
            wakes_there.unpark();
        }
        other.join().unwrap();
    }
}
