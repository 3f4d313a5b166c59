//! How much of the CPUs threads have used, as the kernel counts it: read by whoever asks, so that it
//! costs those threads nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::current::unstopped;
use crate::schedule::note_lock_of_all;

/// The CPU time of some threads, of those that have ended too.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuTimes(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    next: u64,
    living: HashMap<u64, libc::clockid_t>,
    ended: Duration,
}

/// A thread that is counted, until it is dropped on that thread.
#[derive(Debug)]
pub(crate) struct Counted {
    times: CpuTimes,
    number: u64,
}

impl CpuTimes {
    fn times(&self) -> MutexGuard<'_, Times> {
        note_lock_of_all();
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `what` makes of them; a background thread has that done for it.
    fn change<T: Send + Sync + 'static>(
        &self,
        what: impl FnOnce(&mut Times) -> T + Send + 'static,
    ) -> T {
        let times = self.clone();
        unstopped(move || what(&mut times.times()))
    }

    /// Counts the current thread from its beginning to its end.
    pub(crate) fn count(&self) -> Counted {
        let clock = own_clock();
        let number = self.change(move |times| {
            times.next += 1;
            let number = times.next;
            times.living.extend(clock.map(|clock| (number, clock)));
            number
        });
        Counted {
            times: self.clone(),
            number,
        }
    }

    pub(crate) fn sum(&self) -> Duration {
        self.change(|times| {
            // Nobody leaves while the lock is held, so each clock is that of a living thread.
            let living = times.living.values().filter_map(|&clock| read(clock));
            times.ended + living.sum::<Duration>()
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let number = self.number;
        self.times.change(move |times| {
            let clock = times.living.remove(&number);
            times.ended += clock.and_then(read).unwrap_or_default();
        });
    }
}

/// The clock of the current thread, for others to read.
pub(crate) fn own_clock() -> Option<libc::clockid_t> {
    let mut clock = 0;
    // SAFETY: it takes nothing, and says who is asking.
    let thread = unsafe { libc::pthread_self() };
    // SAFETY: the thread is the current one; the clock is written to.
    let error = unsafe { libc::pthread_getcpuclockid(thread, &raw mut clock) };
    (error == 0).then_some(clock)
}

/// The CPU time of the current thread.
pub(crate) fn of_thread() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// The CPU time of the process. The kernel sums up its threads.
pub(crate) fn of_process() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or_default()
}

/// How often a thread has given up its CPU to wait for something, and how often that was taken from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Switches {
    pub(crate) gave_up: u64,
    pub(crate) taken: u64,
}

/// Of the current thread (`getrusage(2)`).
pub(crate) fn switches_of_thread() -> Switches {
    // SAFETY: all zeros are such a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it is written to.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    Switches {
        gave_up: usage.ru_nvcsw.cast_unsigned(),
        taken: usage.ru_nivcsw.cast_unsigned(),
    }
}

pub(crate) fn read(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is written to.
    let outcome = unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    (outcome == 0).then(|| Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_is_counted_while_it_lives_and_afterwards() {
        let times = CpuTimes::default();
        let work = || {
            let begun = Instant::now();
            let clock = own_clock().unwrap();
            let before = read(clock).unwrap();
            while read(clock).unwrap() - before < Duration::from_millis(5) {
                assert!(begun.elapsed() < Duration::from_secs(200));
            }
        };
        std::thread::scope(|scope| {
            let (says, hears) = channel();
            let (go, wait) = channel::<()>();
            let times = &times;
            let thread = scope.spawn(move || {
                let _counted = times.count();
                work();
                says.send(()).unwrap();
                wait.recv().unwrap();
            });
            hears.recv().unwrap();
            let while_it_lives = times.sum();
            assert!(while_it_lives >= Duration::from_millis(5));
            go.send(()).unwrap();
            thread.join().unwrap();
            assert!(times.sum() >= while_it_lives);
        });
    }
}
