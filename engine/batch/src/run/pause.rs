//! A run that is stopped and goes on, as by Ctrl-Z and `fg`.
//!
//! What jobs have started is no part of the terminal's foreground, so nobody stops it but us. It is
//! stopped by `SIGSTOP`: a `SIGTSTP` that nobody catches does nothing to a session without a terminal.
//! Whoever catches that (another reiver, say) is told by it first. Everything that a run has started
//! descends from this process, for it adopts orphans.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::process::{self, Pid, Snapshot};

/// The time of a run: it stands still while the run is stopped.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Stopped>);

#[derive(Debug, Default)]
struct Stopped {
    total: Duration,
    since: Option<Instant>,
}

impl Clock {
    /// So much earlier than the system's time as the run was stopped.
    pub(super) fn now(&self) -> Instant {
        let stopped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stopped.since.unwrap_or_else(Instant::now);
        now.checked_sub(stopped.total).unwrap_or(now)
    }

    /// Stops the clock while `body` runs.
    pub(super) fn stopped_for<R>(&self, body: impl FnOnce() -> R) -> R {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = Instant::now();
        lock().since = Some(since);
        let result = body();
        let mut stopped = lock();
        stopped.since = None;
        stopped.total += since.elapsed();
        result
    }
}

/// Looks, and looks again, for the kernel tells nobody but a parent that a process has stopped, and nobody
/// at all of what is forked meanwhile. What the kernel holds for long in a
/// call is stopped when that returns.
const LOOKS: u32 = 25;
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// So often for those that stop by themselves, which have their own to stop first.
const LOOKS_FOR_OTHERS: u32 = 500;

/// Processes that were stopped, with when they were started: a number may become another's.
#[derive(Debug, Default)]
pub(super) struct Halted(HashMap<Pid, u64>);

impl Halted {
    /// Stops all that descends from this process and is not stopped.
    ///
    /// # Errors
    /// Where `/proc` cannot be read.
    pub(super) fn descendants() -> io::Result<Halted> {
        let mut halted = Halted::default();
        let catches = |pid| process::catches(pid, libc::SIGTSTP);
        halted.send_until_stopped(libc::SIGTSTP, LOOKS_FOR_OTHERS, catches)?;
        halted.send_until_stopped(libc::SIGSTOP, LOOKS, |_| true)?;
        Ok(halted)
    }

    fn send_until_stopped(
        &mut self,
        signal: libc::c_int,
        looks: u32,
        is_meant: impl Fn(Pid) -> bool,
    ) -> io::Result<()> {
        let mut asked: HashMap<Pid, u64> = HashMap::new();
        for _ in 0..looks {
            let mut running = Snapshot::take()?.running_descendants();
            running.retain(|&(pid, _)| is_meant(pid));
            if running.is_empty() {
                break;
            }
            for (pid, born) in running {
                if asked.insert(pid, born) != Some(born) {
                    match process::signal(pid, signal) {
                        Ok(()) => drop(self.0.insert(pid, born)),
                        Err(error) => tracing::warn!("cannot stop process {pid} of a job: {error}"),
                    }
                }
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        Ok(())
    }

    /// Lets them go on.
    pub(super) fn go_on(self) {
        let Ok(snapshot) = Snapshot::take() else {
            return;
        };
        for (pid, born) in self.0 {
            if snapshot.is(pid, born) {
                // It was stopped, so it can be continued.
                let _ = process::signal(pid, libc::SIGCONT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_stands_still_while_it_is_stopped() {
        let clock = Clock::default();
        let before = clock.now();
        let (first, second) = clock.stopped_for(|| {
            let first = clock.now();
            // It is time itself that has to pass.
            thread::sleep(Duration::from_millis(30));
            (first, clock.now())
        });
        assert_eq!(first, second);
        assert!(before <= first && first <= clock.now());
        assert!(Instant::now() - clock.now() >= Duration::from_millis(30));
    }
}
