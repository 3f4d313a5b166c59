//! The load: what comes when, and what became of it.
//!
//! One thread hands over all work at the times that were meant for it, whether what came before has
//! ended or not, and each time is taken from then on: a generator that comes late, or waits, hides
//! nothing (no coordinated omission). Each time is written to a place of its own, without a lock.
//!
//! The first fifth warms up and does not count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::hosts::Host;
use super::kernel;
use super::work::{calibrate, compute, compute_us, thread_cpu};
use crate::figures;
use crate::stats::quantile;

/// What comes, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) urgent_per_s: u32,
    pub(super) urgent: Duration,
    pub(super) blocking_per_s: u32,
    pub(super) blocking: Duration,
    pub(super) bulk: Bulk,
    pub(super) bulk_job: Duration,
    pub(super) beside: Beside,
}

/// How the bulk comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bulk {
    /// So many outstanding: each that ends submits the next.
    Outstanding(usize),
    /// At random, so that all that computes takes this part of the machine.
    Poisson { total: f64 },
    /// So many at the start, and one more for each that ends.
    Backlog(usize),
    /// A loop over so many bodies of a microsecond, again and again.
    Loops(usize),
}

/// What each job does besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Nothing,
    /// Takes and gives back a hundred pieces of memory.
    Allocates(Allocator),
    /// Holds a lock for this long, which all share.
    Locks(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allocator {
    System,
    Mimalloc,
}

impl Load {
    /// The load of the headline: on two CPUs 40 % urgent, and as much bulk as there is room for.
    pub(super) const HEADLINE: Load = Load {
        urgent_per_s: 4000,
        urgent: Duration::from_micros(200),
        blocking_per_s: 500,
        blocking: Duration::from_millis(10),
        bulk: Bulk::Outstanding(4),
        bulk_job: Duration::from_millis(5),
        beside: Beside::Nothing,
    };
}

/// What became of it.
#[derive(Debug, Clone)]
pub(super) struct Report {
    /// Of each urgent job, in microseconds, from when it was meant to come.
    pub(super) urgent_us: Vec<f64>,
    /// Of each job that blocks.
    blocking_us: Vec<f64>,
    /// Of those that came, how many have ended.
    blocking_done: f64,
    useful: f64,
    bulk_per_s: f64,
    /// What part of the machine other programs had.
    others: f64,
}

impl Report {
    /// By name, for the table.
    pub(super) fn figures(&self) -> Vec<(String, f64)> {
        let urgent = |q| quantile(&self.urgent_us, q).unwrap_or(f64::NAN);
        let blocking = |q| quantile(&self.blocking_us, q).unwrap_or(f64::NAN);
        let named = [
            ("p50", urgent(0.5)),
            ("p99", urgent(0.99)),
            ("p99.9", urgent(0.999)),
            ("useful %", 100.0 * self.useful),
            ("bulk/s", self.bulk_per_s),
            ("blocked %", 100.0 * self.blocking_done),
            ("blocked p99", blocking(0.99)),
            (figures::OTHERS, 100.0 * self.others),
        ];
        named.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

/// What all jobs of a run share.
struct Run {
    load: Load,
    host: Arc<dyn Host>,
    /// From here to there it counts.
    counts: (Instant, Instant),
    is_over: Arc<AtomicBool>,
    useful_nanos: AtomicU64,
    bulk_ended: AtomicUsize,
    /// As above, from the start.
    ended: AtomicUsize,
    feeder: OnceLock<Thread>,
    lock: Mutex<()>,
}

/// When each of some jobs ended, in nanoseconds after it was meant to come; 0 for those that have not.
type Times = Arc<[AtomicU64]>;

fn times(jobs: usize) -> Times {
    (0..jobs).map(|_| AtomicU64::new(0)).collect()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Run {
    fn counts_now(&self) -> bool {
        let (from, until) = self.counts;
        let now = Instant::now();
        from <= now && now < until
    }

    fn note_useful(&self, cpu: Duration) {
        if self.counts_now() {
            self.useful_nanos.fetch_add(nanos(cpu), Ordering::Relaxed);
        }
    }

    /// Does what each job does, for so much CPU time in all.
    fn work(&self, cpu: Duration, is_bulk: bool, checkpoint: &dyn Fn()) {
        let done = match self.load.beside {
            Beside::Nothing => compute(cpu, checkpoint),
            Beside::Allocates(allocator) => {
                let start = thread_cpu();
                allocate(allocator);
                let taken = thread_cpu() - start;
                taken + compute(cpu.saturating_sub(taken), checkpoint)
            }
            Beside::Locks(held) => {
                let mut done = compute(cpu.saturating_sub(held), checkpoint);
                let mut hold = || {
                    let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
                    done += compute(held, || ());
                };
                if is_bulk {
                    self.host.holds_lock(&mut hold);
                } else {
                    hold();
                }
                done
            }
        };
        self.note_useful(done);
    }

    fn give_urgent(self: &Arc<Self>, at: Instant, times: &Times, number: usize) {
        let (run, times) = (Arc::clone(self), Arc::clone(times));
        self.host.urgent(Box::new(move || {
            run.work(run.load.urgent, false, &|| ());
            times[number].store(nanos(at.elapsed()).max(1), Ordering::Relaxed);
        }));
    }

    fn give_blocking(self: &Arc<Self>, at: Instant, times: &Times, number: usize) {
        let (blocking, times) = (self.load.blocking, Arc::clone(times));
        let beside = self.load.beside;
        self.host.blocking(Box::new(move || {
            if let Beside::Allocates(allocator) = beside {
                allocate(allocator);
            }
            thread::sleep(blocking);
            times[number].store(nanos(at.elapsed()).max(1), Ordering::Relaxed);
        }));
    }

    fn give_bulk(self: &Arc<Self>) {
        let run = Arc::clone(self);
        self.host.bulk(Box::new(move |checkpoint| {
            if run.is_over.load(Ordering::Relaxed) {
                return;
            }
            run.work(run.load.bulk_job, true, checkpoint);
            if run.counts_now() {
                run.bulk_ended.fetch_add(1, Ordering::Relaxed);
            }
            if !matches!(run.load.bulk, Bulk::Poisson { .. }) {
                run.ended.fetch_add(1, Ordering::Relaxed);
                run.feeder.get().expect("it has submitted this").unpark();
            }
        }));
    }

    /// Submits one for each that has ended: from outside, so that no pool takes what its own thread
    /// submits before all else.
    fn feed(self: &Arc<Self>, first: usize) {
        let run = Arc::clone(self);
        thread::spawn(move || {
            let known = run.feeder.set(thread::current());
            known.expect("there is one");
            (0..first).for_each(|_| run.give_bulk());
            let mut fed = 0;
            while !run.is_over.load(Ordering::Relaxed) {
                while fed < run.ended.load(Ordering::Relaxed) {
                    fed += 1;
                    run.give_bulk();
                }
                thread::park();
            }
        });
    }
}

/// A hundred pieces of different sizes.
fn allocate(allocator: Allocator) {
    let allocator: &dyn GlobalAlloc = match allocator {
        Allocator::System => &System,
        Allocator::Mimalloc => &mimalloc::MiMalloc,
    };
    let layout = |piece: usize| Layout::from_size_align(64 + 40 * piece, 8).expect("it is small");
    let pieces: Vec<*mut u8> = (0..100)
        // SAFETY: none is empty.
        .map(|piece| unsafe { allocator.alloc(layout(piece)) })
        .collect();
    for (piece, memory) in black_box(pieces).into_iter().enumerate() {
        // SAFETY: it was taken from there so.
        unsafe { allocator.dealloc(memory, layout(piece)) };
    }
}

/// The numbers are splitmix64's.
struct Random(u64);

impl Random {
    /// Between two that come at random, so many a second.
    fn pause(&mut self, per_s: f64) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let uniform = ((mixed >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-uniform.ln() / per_s)
    }
}

/// Who comes next.
enum Next {
    Urgent,
    Blocking,
    Bulk,
}

/// Puts the load on `host` for so long, and for as long as a second more waits for what is late.
pub(super) fn run(host: Arc<dyn Host>, load: Load, lasts: Duration, seed: u64) -> Report {
    const GRACE: Duration = Duration::from_secs(1);
    kernel::sleeps_exactly();
    calibrate();
    let per_s = |per_s: u32| Duration::from_secs(1) / per_s;
    let jobs = |per_s: u32| {
        let jobs = (nanos(lasts) * u64::from(per_s)).div_ceil(1_000_000_000);
        usize::try_from(jobs).expect("memory holds a time for each")
    };
    let (urgent, blocking) = (
        times(jobs(load.urgent_per_s)),
        times(jobs(load.blocking_per_s)),
    );
    let start = Instant::now() + Duration::from_millis(20);
    let run = Arc::new(Run {
        load,
        host,
        counts: (start + lasts / 5, start + lasts),
        is_over: Arc::default(),
        useful_nanos: AtomicU64::new(0),
        bulk_ended: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        feeder: OnceLock::new(),
        lock: Mutex::default(),
    });
    let cpus = thread::available_parallelism().map_or(1, usize::from) as f64;
    let bulk_per_s = match load.bulk {
        Bulk::Outstanding(many) | Bulk::Backlog(many) => {
            run.feed(many);
            0.0
        }
        Bulk::Loops(len) => {
            run.host
                .loops(len, || compute_us(1), Arc::clone(&run.is_over));
            0.0
        }
        Bulk::Poisson { total } => {
            let urgent = f64::from(load.urgent_per_s) * load.urgent.as_secs_f64();
            (total * cpus - urgent) / load.bulk_job.as_secs_f64()
        }
    };
    let before = kernel::Busy::now();
    let mut random = Random(seed);
    let (mut urgents, mut blocked) = (0, 0);
    let mut next_bulk = (bulk_per_s > 0.0).then(|| random.pause(bulk_per_s));
    loop {
        let next_urgent = per_s(load.urgent_per_s) * u32::try_from(urgents).expect("not so many");
        // Between two urgent ones.
        let next_blocking = per_s(load.blocking_per_s)
            * u32::try_from(blocked).expect("not so many")
            + per_s(load.urgent_per_s) / 2;
        let (at, next) = [
            (Some(next_urgent), Next::Urgent),
            (Some(next_blocking), Next::Blocking),
            (next_bulk, Next::Bulk),
        ]
        .into_iter()
        .filter_map(|(at, next)| Some((at?, next)))
        .min_by_key(|(at, _)| *at)
        .expect("urgent ones come without end");
        if at >= lasts {
            break;
        }
        let at = start + at;
        let left = at.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            thread::sleep(left);
        }
        match next {
            Next::Urgent => {
                run.give_urgent(at, &urgent, urgents);
                urgents += 1;
            }
            Next::Blocking => {
                run.give_blocking(at, &blocking, blocked);
                blocked += 1;
            }
            Next::Bulk => {
                run.give_bulk();
                next_bulk = next_bulk.map(|at| at + random.pause(bulk_per_s));
            }
        }
    }
    let others = before.zip(kernel::Busy::now());
    let others = others.map_or(0.0, |(before, now)| now.of_others(before).as_secs_f64());
    let end = Instant::now();
    run.is_over.store(true, Ordering::Relaxed);
    let has_ended = |times: &Times, jobs: usize| {
        let times = times[..jobs].iter();
        times
            .filter(|time| time.load(Ordering::Relaxed) > 0)
            .count()
    };
    while end.elapsed() < GRACE
        && (has_ended(&urgent, urgents) < urgents || has_ended(&blocking, blocked) < blocked)
    {
        thread::sleep(Duration::from_millis(5));
    }
    let counted = lasts * 4 / 5;
    // Those that have not ended have taken at least so long.
    let told = |times: &Times, jobs: usize, per_s: u32| -> Vec<f64> {
        let every = Duration::from_secs(1) / per_s;
        (0..jobs)
            .map(|number| {
                (
                    start + every * u32::try_from(number).expect("not so many"),
                    number,
                )
            })
            .filter(|(at, _)| *at >= run.counts.0)
            .map(|(at, number)| match times[number].load(Ordering::Relaxed) {
                0 => at.elapsed().as_secs_f64() * 1e6,
                nanos => nanos as f64 / 1e3,
            })
            .collect()
    };
    Report {
        urgent_us: told(&urgent, urgents, load.urgent_per_s),
        blocking_us: told(&blocking, blocked, load.blocking_per_s),
        blocking_done: has_ended(&blocking, blocked) as f64 / blocked.max(1) as f64,
        useful: run.useful_nanos.load(Ordering::Relaxed) as f64 / (nanos(counted) as f64 * cpus),
        others: others / (lasts.as_secs_f64() * cpus),
        bulk_per_s: run.bulk_ended.load(Ordering::Relaxed) as f64 / counted.as_secs_f64(),
    }
}
