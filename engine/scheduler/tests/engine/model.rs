//! Engines against models, with random jobs: in which order they begin, that no limit is ever exceeded, and
//! that each ends in one way and is counted as that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reiver::limit::{HybridLimiter, Refused};
use reiver::{
    CancellationToken, Class, Engine, EngineBuilder, JobCounts, JobError, JobHandle, Phase,
    Priority, SubmitError,
};

use crate::watchdog::watched;

const CLASSES: [Class; 4] = [Class::Cpu, Class::Io, Class::Hybrid, Class::Auto];
const PRIORITIES: [Priority; 3] = [Priority::P0, Priority::P1, Priority::P2];
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

fn check<S: Strategy>(
    cases: u32,
    strategy: &S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    watched();
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config).run(strategy, test).unwrap();
}

/// An engine of which one thread takes all jobs of class Io, one those of class Cpu that are not of the
/// background, and one those of class Hybrid of P0, and of P1.
fn single() -> EngineBuilder {
    let builder = Engine::builder().cpu_workers(1).io_workers(1..=1);
    builder.yield_to_urgent(false)
}

/// One thread: jobs begin by priority, and among equals in the order in which they came; but that those
/// which are cancelled meanwhile do not. What ages is at its extremes: never, and at once.
fn order(
    class: Class,
    patience: Duration,
    priorities: &'static [Priority],
    is_background_held: bool,
) {
    let job = (0..priorities.len(), prop::bool::weighted(0.2));
    check(30, &vec(job, 1..60), |wanted| {
        let engine = single().background_patience(patience).build().unwrap();
        // It computes, so that nobody takes its place.
        let (go, wait) = channel::<()>();
        let first = engine.job().class(class).priority(priorities[0]);
        let held = first.submit(move |_| {
            while wait.try_recv() == Err(TryRecvError::Empty) {
                thread::yield_now();
            }
        });
        while engine.metrics().jobs(class, priorities[0]).running == 0 {
            thread::yield_now();
        }
        let (goes_on, wait) = channel::<()>();
        let background = is_background_held.then(|| {
            let job = engine.job().class(class).priority(Priority::P2);
            let job = job.submit(move |_| wait.recv().is_err());
            while engine.metrics().jobs(class, Priority::P2).running == 0 {
                thread::yield_now();
            }
            job.unwrap()
        });
        let begun = Arc::new(Mutex::new(Vec::new()));
        let (stays, goes) = (CancellationToken::new(), CancellationToken::new());
        let submit = |number: usize, (priority, is_cancelled): (usize, bool)| {
            let begun = Arc::clone(&begun);
            let token = if is_cancelled { &goes } else { &stays };
            let job = engine.job().class(class).priority(priorities[priority]);
            let job = job.cancel_with(token);
            job.submit(move |_| begun.lock().unwrap().push(number))
                .unwrap()
        };
        let jobs = wanted.iter().enumerate();
        let jobs: Vec<_> = jobs.map(|(number, &job)| submit(number, job)).collect();
        goes.cancel();
        drop(go);
        held.unwrap().join().unwrap();
        for (job, &(_, is_cancelled)) in jobs.into_iter().zip(&wanted) {
            let is_as_meant = match job.join() {
                Ok(()) => !is_cancelled,
                Err(JobError::Cancelled) => is_cancelled,
                Err(_) => false,
            };
            prop_assert!(is_as_meant);
        }
        drop(goes_on);
        if let Some(background) = background {
            prop_assert!(background.join().unwrap());
        }
        let mut model: Vec<usize> = (0..wanted.len()).filter(|&job| !wanted[job].1).collect();
        model.sort_by_key(|&job| {
            let priority = priorities[wanted[job].0];
            (
                patience != NEVER && priority != Priority::P2,
                priority as usize,
            )
        });
        prop_assert_eq!(&*begun.lock().unwrap(), &model);
        Ok(())
    });
}

#[test]
fn io_jobs_begin_by_priority() {
    order(Class::Io, NEVER, &PRIORITIES, false);
}

#[test]
fn io_jobs_that_have_waited_for_long_enough_begin_first() {
    order(Class::Io, Duration::ZERO, &PRIORITIES, false);
}

/// Those of each priority have threads of their own. Of P2 two may run at once where jobs are this short: a
/// thread that asks the spawner for the next one is blocked as long.
#[test]
fn hybrid_jobs_of_a_priority_begin_in_order() {
    order(Class::Hybrid, NEVER, &[Priority::P0], false);
    order(Class::Hybrid, NEVER, &[Priority::P1], false);
}

/// Those of P2 have threads of their own.
#[test]
fn cpu_jobs_begin_by_priority_where_they_share_workers() {
    order(Class::Cpu, NEVER, &[Priority::P0, Priority::P1], false);
}

/// Nobody of the background comes to them, so who shares the worker does it in the order of that one.
#[test]
fn cpu_jobs_of_the_background_that_have_waited_for_long_enough_begin_first() {
    order(Class::Cpu, Duration::ZERO, &PRIORITIES, true);
}

/// How a job of a random load comes and goes.
#[derive(Debug, Clone, Copy)]
enum Way {
    Computes,
    Blocks,
    Panics,
    /// Sees at a checkpoint that it was cancelled.
    Cancelled,
    /// Before it could begin.
    CancelledAtOnce,
    Late,
    /// It sees a deadline that passes while it runs.
    LateWhileRunning,
    /// Its handle is dropped.
    Forgotten,
    /// Submits another one, and waits for it.
    Asks,
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        4 => Just(Way::Computes),
        2 => Just(Way::Blocks),
        1 => Just(Way::Panics),
        1 => Just(Way::Cancelled),
        1 => Just(Way::CancelledAtOnce),
        1 => Just(Way::Late),
        1 => Just(Way::LateWhileRunning),
        1 => Just(Way::Forgotten),
        1 => Just(Way::Asks),
    ]
}

fn submit(
    engine: &Engine,
    class: Class,
    priority: Priority,
    way: Way,
) -> Result<JobHandle<()>, SubmitError> {
    let job = engine.job().class(class).priority(priority);
    let token = CancellationToken::new();
    match way {
        Way::Computes | Way::Forgotten => job.submit(|_| ()),
        Way::Blocks => job.submit(|_| thread::sleep(Duration::from_micros(300))),
        Way::Panics => job.submit(|_| std::panic::resume_unwind(Box::new("meant"))),
        Way::Cancelled => {
            let own = token.clone();
            job.cancel_with(&token).submit(move |ctx| {
                own.cancel();
                assert!(ctx.checkpoint().is_err());
            })
        }
        Way::CancelledAtOnce => {
            token.cancel();
            job.cancel_with(&token)
                .submit(|_| unreachable!("it was cancelled"))
        }
        Way::Late => {
            let job = job.deadline(Duration::ZERO);
            job.submit(|_| unreachable!("it was late"))
        }
        Way::LateWhileRunning => {
            let job = job.deadline(Duration::from_millis(1));
            job.submit(|ctx| while ctx.checkpoint().is_ok() {})
        }
        Way::Asks => job.submit(move |ctx| {
            let inner = ctx.engine().job().class(class).priority(priority);
            inner.submit(|_| ()).unwrap().join().unwrap();
        }),
    }
}

/// The one way in which it ended, if it may have ended so.
fn ended(way: Way, outcome: &Result<(), JobError>) -> Option<&'static str> {
    match (way, outcome) {
        (Way::Computes | Way::Blocks | Way::Asks, Ok(())) => Some("completed"),
        (Way::Panics, Err(JobError::Panicked(_))) => Some("panicked"),
        (Way::Cancelled | Way::CancelledAtOnce, Err(JobError::Cancelled)) => Some("cancelled"),
        (
            Way::Late,
            Err(JobError::DeadlineExceeded {
                phase: Phase::Queued,
            }),
        ) => Some("late"),
        (Way::LateWhileRunning, Err(JobError::DeadlineExceeded { .. })) => Some("late"),
        _ => None,
    }
}

fn ends(counts: JobCounts) -> [(&'static str, u64); 5] {
    [
        ("completed", counts.completed),
        ("panicked", counts.panicked),
        ("cancelled", counts.cancelled),
        ("late", counts.deadline_exceeded),
        ("shut down", counts.shut_down),
    ]
}

/// Of each class and priority: what handles say is what the metrics count, job by job.
#[test]
fn each_job_ends_in_one_way_and_is_counted_as_that() {
    let job = (0..CLASSES.len(), 0..PRIORITIES.len(), way());
    check(60, &vec(job, 1..80), |wanted| {
        let engine = Engine::builder()
            .cpu_workers(2)
            .io_workers(0..=3)
            .build()
            .unwrap();
        let mut model: BTreeMap<(usize, usize, &str), u64> = BTreeMap::new();
        let mut jobs = Vec::new();
        for (class, priority, way) in wanted {
            let job = submit(&engine, CLASSES[class], PRIORITIES[priority], way).unwrap();
            match way {
                Way::Forgotten => {
                    drop(job);
                    *model.entry((class, priority, "completed")).or_default() += 1;
                }
                _ => jobs.push((class, priority, way, job)),
            }
            if matches!(way, Way::Asks) {
                *model.entry((class, priority, "completed")).or_default() += 1;
            }
        }
        for (class, priority, way, job) in jobs {
            let outcome = job.join();
            let Some(end) = ended(way, &outcome) else {
                return Err(TestCaseError::fail(format!("{way:?} ended as {outcome:?}")));
            };
            *model.entry((class, priority, end)).or_default() += 1;
        }
        prop_assert!(engine.shutdown(NEVER).is_clean());
        let metrics = engine.metrics();
        for (class, &of_class) in CLASSES.iter().enumerate() {
            for (priority, &of_priority) in PRIORITIES.iter().enumerate() {
                let counts = metrics.jobs(of_class, of_priority);
                for (end, counted) in ends(counts) {
                    let meant = model.get(&(class, priority, end)).copied();
                    prop_assert_eq!(counted, meant.unwrap_or(0), "{:?} {}", of_class, end);
                }
                let sum: u64 = ends(counts).iter().map(|end| end.1).sum();
                prop_assert_eq!(counts.submitted, sum);
                prop_assert_eq!((counts.queued, counts.running, counts.rejected), (0, 0, 0));
            }
        }
        Ok(())
    });
}

/// An engine that ends in the midst of it: what handles say, and what is counted, is the same still.
#[test]
fn each_job_ends_in_one_way_when_the_engine_does() {
    let job = (0..CLASSES.len(), 0..PRIORITIES.len(), any::<bool>());
    check(40, &vec(job, 1..60), |wanted| {
        let engine = Engine::builder().cpu_workers(1).io_workers(0..=1);
        let engine = engine.build().unwrap();
        let jobs: Vec<_> = wanted
            .iter()
            .map(|&(class, priority, looks)| {
                let job = engine.job().class(CLASSES[class]);
                let job = job.priority(PRIORITIES[priority]);
                let job = job.submit(move |ctx| {
                    while looks && ctx.checkpoint().is_ok() {
                        thread::yield_now();
                    }
                });
                job.unwrap()
            })
            .collect();
        let report = engine.shutdown(Duration::from_millis(1));
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        for (job, (.., looks)) in jobs.into_iter().zip(wanted) {
            let end = match job.join() {
                Ok(()) if !looks => "completed",
                Err(JobError::ShutDown) => "shut down",
                outcome => return Err(TestCaseError::fail(format!("{looks}: {outcome:?}"))),
            };
            *seen.entry(end).or_default() += 1;
        }
        let counts = engine.metrics().total();
        for (end, counted) in ends(counts) {
            prop_assert_eq!(counted, seen.get(end).copied().unwrap_or(0), "{}", end);
        }
        prop_assert!(report.queued as u64 <= counts.shut_down);
        prop_assert_eq!(counts.queued + counts.running, 0);
        Ok(())
    });
}

/// Random weights, from several threads, against limits of a class and of a name: what is under way is
/// never more than both grant, and all that is refused is refused by one of them and counted.
#[test]
fn limits_are_never_exceeded() {
    let limits = (1..6_u32, 1..6_u32, 0..CLASSES.len());
    let jobs = vec((1..4_u32, any::<bool>(), 0..PRIORITIES.len()), 1..60);
    check(
        40,
        &(limits, jobs),
        |((of_class, of_name, class), wanted)| {
            let class = CLASSES[class];
            let builder = Engine::builder().cpu_workers(2);
            let limiter = |most| Arc::new(HybridLimiter::new(1_000_000, 1_000_000, most));
            let builder = builder.limit(class, limiter(of_class));
            let engine = builder.limit_name("named", limiter(of_name)).build();
            let engine = engine.unwrap();
            let under_way = [AtomicU32::new(0), AtomicU32::new(0)].map(Arc::new);
            let exceeded = Arc::new(AtomicU32::new(0));
            let run = |&(weight, is_named, priority): &(u32, bool, usize)| {
                let job = engine.job().class(class).weight(weight);
                let mut job = job.priority(PRIORITIES[priority]);
                if is_named {
                    job = job.name("named");
                }
                let (under_way, exceeded) = (under_way.clone(), Arc::clone(&exceeded));
                let job = job.submit(move |_| {
                    let limits = [(true, of_class), (is_named, of_name)];
                    for ((counts, most), now) in limits.into_iter().zip(&under_way) {
                        let weight = if counts { weight } else { 0 };
                        if now.fetch_add(weight, Ordering::SeqCst) + weight > most {
                            exceeded.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    thread::yield_now();
                    for ((counts, _), now) in limits.into_iter().zip(&under_way) {
                        now.fetch_sub(if counts { weight } else { 0 }, Ordering::SeqCst);
                    }
                });
                match job {
                    Ok(job) => {
                        job.join().unwrap();
                        Ok(true)
                    }
                    Err(SubmitError::Limited(Refused::Concurrency)) => Ok(false),
                    Err(other) => Err(other),
                }
            };
            let run_all = |jobs: &[(u32, bool, usize)]| -> Result<Vec<bool>, SubmitError> {
                jobs.iter().map(run).collect()
            };
            let run_all = &run_all;
            let (left, right) = wanted.split_at(wanted.len() / 2);
            let ran = thread::scope(|scope| {
                let threads = [left, right].map(|jobs| scope.spawn(move || run_all(jobs)));
                threads.map(|thread| thread.join().unwrap())
            });
            let [left, right] = ran;
            let ran = [left.unwrap(), right.unwrap()].concat();
            prop_assert_eq!(exceeded.load(Ordering::SeqCst), 0);
            // One that never fits is always refused, and only one that others leave no room may be.
            for (&ran, &(weight, is_named, _)) in ran.iter().zip(&wanted) {
                let fits = weight <= of_class && (!is_named || weight <= of_name);
                prop_assert!(fits || !ran);
            }
            let counts = engine.metrics().total();
            let taken = ran.iter().filter(|&&ran| ran).count() as u64;
            prop_assert_eq!((counts.submitted, counts.completed), (taken, taken));
            prop_assert_eq!(counts.rejected, ran.len() as u64 - taken);
            Ok(())
        },
    );
}

/// Of jobs that come while nobody takes any, exactly as many are taken as may wait.
#[test]
fn queues_take_exactly_what_they_may() {
    let of_class = (1..20_usize, 0..40_usize, 0..3_usize);
    check(40, &of_class, |(capacity, more, class)| {
        let class = [Class::Cpu, Class::Io, Class::Hybrid][class];
        let builder = single().queue_capacity(class, capacity);
        let engine = builder.build().unwrap();
        let (go, wait) = sync_channel::<()>(0);
        let held = engine.job().class(class).submit(move |_| {
            while wait.try_recv() == Err(TryRecvError::Empty) {
                thread::yield_now();
            }
        });
        while engine.metrics().jobs(class, Priority::P1).running == 0 {
            thread::yield_now();
        }
        let jobs: Vec<_> = (0..more)
            .map(|_| engine.job().class(class).submit(|_| ()))
            .collect();
        let taken = jobs.iter().filter(|job| job.is_ok()).count();
        prop_assert_eq!(taken, more.min(capacity));
        let refused = jobs
            .iter()
            .filter(|job| matches!(job, Err(SubmitError::QueueFull)));
        prop_assert_eq!(refused.count(), more - taken);
        drop(go);
        held.unwrap().join().unwrap();
        jobs.into_iter()
            .flatten()
            .for_each(|job| job.join().unwrap());
        Ok(())
    });
}
