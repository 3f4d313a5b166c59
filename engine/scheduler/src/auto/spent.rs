//! What a thread has done with its time: computed, waited for a CPU, or waited for something else.
//!
//! The kernel says how long a thread has run (its CPU clock) and how long it was able to run and had no
//! CPU (the second field of `schedstat`, in nanoseconds; `proc(5)`, Documentation/scheduler/sched-stats).
//! What is left of the time that has passed is what it waited for something else, if it gave up its CPU of
//! its own accord at all (`getrusage(2)`): else a hypervisor had that for others. Without the second a thread that
//! computes on a full machine would seem to wait, and without the last on a machine that shares its CPUs.
//!
//! Where there is no such file (no `/proc`, a kernel without `CONFIG_SCHED_INFO`) or it says zeros (nobody
//! counts, see `delayacct` in the kernel's parameters), it goes by how often the thread has given up its CPU
//! and how often it was taken from it: one that never gave it up has not waited, and else what is left
//! is divided as these two are.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use super::profile::Sample;
use crate::clock::Stamp;
use crate::cpu_time::{self, Switches};
use crate::protocol::sync::{AtomicBool, Ordering};

/// A reading of one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) at: Stamp,
    pub(crate) cpu: Duration,
    pub(crate) switches: Switches,
    pub(crate) queued: Queued,
}

/// Reads the threads of an engine.
#[derive(Debug)]
pub(crate) struct Gauge {
    /// Of the thread that reads it.
    schedstat: Box<Path>,
    /// The kernel does not say how long threads wait for CPUs, and that was said.
    lacks: AtomicBool,
}

impl Gauge {
    pub(crate) fn new() -> Gauge {
        Gauge::reading("/proc/thread-self/schedstat".as_ref())
    }

    fn reading(schedstat: &Path) -> Gauge {
        Gauge {
            schedstat: schedstat.into(),
            lacks: AtomicBool::new(false),
        }
    }

    /// What the current thread is about to spend begins. What the reading itself takes counts as computing,
    /// so that the shortest jobs do not seem to wait.
    pub(crate) fn begin(&self) -> Spent {
        let cpu = cpu_time::of_thread();
        let queued = self.queued();
        // After the file, which the thread may have to wait for; in `end` before it.
        let switches = cpu_time::switches_of_thread();
        let at = Stamp::now();
        Spent {
            at,
            cpu,
            switches,
            queued,
        }
    }

    /// What the current thread has spent since; `None` where that cannot be said.
    pub(crate) fn end(&self, before: Spent) -> Option<Sample> {
        let at = Stamp::now();
        let switches = cpu_time::switches_of_thread();
        let queued = self.queued();
        let cpu = cpu_time::of_thread();
        let now = Spent {
            at,
            cpu,
            switches,
            queued,
        };
        now.since(before)
    }

    fn queued(&self) -> Queued {
        // ORDERING: relaxed, here and below: a flag of its own.
        if self.lacks.load(Ordering::Relaxed) {
            return Queued::Uncounted;
        }
        let queued = queued(&self.schedstat);
        if queued == Queued::Uncounted && !self.lacks.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{} does not say how long threads wait for CPUs; jobs of class Auto are judged by how \
                 often they give up theirs",
                self.schedstat.display()
            );
        }
        queued
    }
}

impl Spent {
    fn since(&self, before: Spent) -> Option<Sample> {
        let computed = self.cpu.saturating_sub(before.cpu);
        let idle = self.at.since(before.at).saturating_sub(computed);
        let gave_up = self.switches.gave_up - before.switches.gave_up;
        let taken = self.switches.taken - before.switches.taken;
        let waited = match (before.queued, self.queued) {
            (Queued::Unread, _) | (_, Queued::Unread) => return None,
            _ if gave_up == 0 => Duration::ZERO,
            (Queued::For(before), Queued::For(now)) => {
                idle.saturating_sub(now.saturating_sub(before))
            }
            _ => idle.mul_f64(gave_up as f64 / (gave_up + taken) as f64),
        };
        Some(Sample { computed, waited })
    }
}

/// What a file `schedstat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queued {
    For(Duration),
    /// This time it could not be read, say for want of a file descriptor.
    Unread,
    /// Nobody counts it here.
    Uncounted,
}

/// How long a thread was able to run and had no CPU.
pub(crate) fn queued(schedstat: &Path) -> Queued {
    let mut text = [0; 96];
    let read = File::open(schedstat).and_then(|mut file| file.read(&mut text));
    match read {
        Ok(read) => parse(&text[..read]),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => Queued::Uncounted,
            _ => Queued::Unread,
        },
    }
}

/// `<ns on CPUs> <ns waiting for them> <times put on one>`. A thread that reads has been put on one.
fn parse(text: &[u8]) -> Queued {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
    match (fields.next(), fields.next(), fields.next()) {
        (Some(Ok(_)), Some(Ok(waiting)), Some(Ok(1..))) => {
            Queued::For(Duration::from_nanos(waiting))
        }
        _ => Queued::Uncounted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;
    use std::time::Instant;

    use reiver_topology::Topology;

    fn file(name: &str, text: &str) -> std::path::PathBuf {
        let unique = format!("reiver-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn share(sample: Sample) -> f64 {
        let all = sample.computed + sample.waited;
        sample.waited.as_secs_f64() / all.as_secs_f64().max(1e-9)
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let second = Queued::For(Duration::from_nanos(34));
        assert_eq!(parse(b"12 34 5\n"), second);
        for text in [
            "0 0 0\n", "", "12", "12 34", "x y z", "12 34 0", "-1 -2 -3", "\u{ff}",
        ] {
            assert_eq!(parse(text.as_bytes()), Queued::Uncounted, "{text:?}");
        }
        let none = "/nowhere/at/all/schedstat".as_ref();
        assert_eq!(queued(none), Queued::Uncounted);
    }

    #[test]
    fn without_the_file_or_with_zeros_in_it_switches_are_counted() {
        let zeros = file("zeros", "0 0 0\n");
        for path in [&*zeros, "/nowhere/schedstat".as_ref()] {
            let gauge = Gauge::reading(path);
            assert_eq!(gauge.queued(), Queued::Uncounted);
            assert!(gauge.lacks.load(Ordering::Relaxed), "and is not read again");
        }
        std::fs::remove_file(zeros).unwrap();
    }

    fn spent(ticks: u64, gave_up: u64, queued: Queued) -> Spent {
        Spent {
            at: Stamp::from_ticks(ticks),
            cpu: Duration::ZERO,
            switches: Switches { gave_up, taken: 0 },
            queued,
        }
    }

    fn queued_for(millis: u64) -> Queued {
        Queued::For(Duration::from_millis(millis))
    }

    #[test]
    fn a_reading_that_fails_once_says_nothing() {
        let known = spent(0, 0, queued_for(0));
        let unknown = spent(0, 0, Queued::Unread);
        assert_eq!(unknown.since(known), None);
        assert_eq!(known.since(unknown), None);
    }

    #[test]
    fn who_never_gave_up_its_cpu_has_not_waited_though_a_hypervisor_took_it() {
        let waited = |gave_up: u64, queued: Queued| {
            let before = spent(0, 7, queued_for(0));
            let sample = spent(1 << 40, gave_up, queued).since(before);
            sample.expect("both were read").waited
        };
        assert_eq!(waited(7, queued_for(1)), Duration::ZERO);
        let all = waited(8, queued_for(0));
        assert_eq!(waited(8, queued_for(1)), all - Duration::from_millis(1));
    }

    /// How long a hypervisor has had CPUs of this machine for others, up to a tick of each CPU.
    fn stolen() -> Duration {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let steal = stat.split_ascii_whitespace().nth(8);
        let ticks: u64 = steal.and_then(|ticks| ticks.parse().ok()).unwrap_or(0);
        Duration::from_millis(10) * u32::try_from(ticks).unwrap()
    }

    /// Both ways of judging, of a thread that computes while twice as many as there are CPUs do, and of one
    /// that sleeps among them.
    #[test]
    fn who_waits_for_a_cpu_does_not_wait() {
        let machine = Topology::detect().unwrap();
        if machine.cpu_quota().is_some() {
            eprintln!("skipped: a quota takes CPUs away that nobody waits for");
            return;
        }
        let threads = 2 * machine.cpus().len();
        let tick_of_each_cpu = Duration::from_millis(5) * u32::try_from(threads).unwrap();
        for gauge in [Gauge::new(), Gauge::reading("/nowhere".as_ref())] {
            let barrier = Barrier::new(threads + 1);
            let (gauge, barrier) = (&gauge, &barrier);
            let (begun, stolen_before) = (Instant::now(), stolen());
            let by_wall = |before: Spent| {
                let wall = before.at.elapsed();
                let cpu = cpu_time::of_thread() - before.cpu;
                1.0 - cpu.as_secs_f64() / wall.as_secs_f64()
            };
            thread::scope(|scope| {
                let computing: Vec<_> = (0..threads)
                    .map(|_| {
                        scope.spawn(move || {
                            barrier.wait();
                            let before = gauge.begin();
                            let cpu = Duration::from_millis(60);
                            let begun = Instant::now();
                            while cpu_time::of_thread() - before.cpu < cpu {
                                assert!(begun.elapsed() < Duration::from_secs(200));
                            }
                            let sample = gauge.end(before);
                            (share(sample.unwrap()), by_wall(before))
                        })
                    })
                    .collect();
                let sleeping = scope.spawn(move || {
                    barrier.wait();
                    let before = gauge.begin();
                    thread::sleep(Duration::from_millis(100));
                    share(gauge.end(before).unwrap())
                });
                let computing: Vec<_> = computing
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect();
                let sleeping = sleeping.join().unwrap();
                // Who waits a moment, for the map of the memory say, and is robbed meanwhile seems to wait.
                let robbed = match stolen() - stolen_before {
                    Duration::ZERO => 0.0,
                    stolen => (stolen + tick_of_each_cpu).div_duration_f64(begun.elapsed()),
                };
                assert!(
                    computing.iter().all(|&(share, _)| share < 0.1 + robbed),
                    "{computing:?}, robbed of {robbed}"
                );
                // So the machine was full, and the clock on the wall alone would be wrong.
                assert!(
                    computing.iter().any(|&(_, by_wall)| by_wall > 0.25),
                    "{computing:?}"
                );
                assert!(sleeping > 0.6 - robbed, "{sleeping}, robbed of {robbed}");
            });
        }
    }
}
