//! Futures as jobs: one outcome each, on threads of the engine, with all that other jobs have.

#[path = "engine/size.rs"]
mod size;
#[path = "engine/watchdog.rs"]
mod watchdog;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use reiver::limit::{HybridLimiter, Refused};
use reiver::pool::{Pool, PooledArc};
use reiver::{
    Breaker, CancellationToken, Class, Engine, JobError, NodeId, Phase, Priority, SubmitError,
    Topology, WhenFull,
};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use watchdog::watched;

fn engine() -> Engine {
    watched();
    Engine::builder().cpu_workers(1).build().unwrap()
}

/// Says when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A future that never ends, that says when it has begun, and whether it has been dropped.
fn endless() -> (
    impl Future<Output = ()> + Send + 'static,
    oneshot::Receiver<()>,
    Arc<AtomicBool>,
) {
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = Dropped(Arc::clone(&dropped));
    let (says, begun) = oneshot::channel();
    let future = async move {
        let _guard = guard;
        let _ = says.send(());
        pending::<()>().await;
    };
    (future, begun, dropped)
}

/// As other threads of an engine do.
#[test]
fn runtimes_that_sleep_keep_nothing_of_other_nodes() {
    watched();
    let machine = || Topology::synthetic("NUMANode:2 PU:1").unwrap();
    let engine = Engine::builder().topology(machine()).build().unwrap();
    // Nothing comes home because an epoch has ended.
    let pool = Pool::builder(|| 0_u64).topology(machine());
    let pool = pool.epoch(Duration::MAX).build();
    let take = |count: usize| {
        let pool = pool.clone();
        let job = engine.job().node(NodeId(0));
        let job = job.submit(move |_| (0..count).map(|_| pool.get_owned()).collect());
        let taken: Vec<PooledArc<u64>> = job.unwrap().join().unwrap();
        taken
    };
    let address = |object: &PooledArc<u64>| (&raw const **object).addr();
    let taken = take(10);
    let own: Vec<usize> = taken.iter().map(address).collect();
    let returned = engine.job().node(NodeId(1));
    let returned = returned.spawn_future(async move { drop(taken) });
    returned.unwrap().join().unwrap();
    assert_eq!(pool.stats().remote_returns, 10);
    let mut taken = Vec::new();
    let is_own = |object: &&PooledArc<u64>| own.contains(&address(object));
    while taken.iter().filter(is_own).count() < 10 {
        taken.extend(take(1));
    }
}

#[test]
fn a_future_gives_its_value_and_is_counted_as_io() {
    let engine = engine();
    let job = engine.spawn_future(async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        7
    });
    assert_eq!(job.join().unwrap(), 7);
    let metrics = engine.metrics();
    let jobs = metrics.jobs(Class::Io, Priority::P1);
    assert_eq!((jobs.submitted, jobs.completed), (1, 1));
    let ran = metrics.run_time(Class::Io, Priority::P1);
    assert!(ran.count() == 1 && ran.max() >= Duration::from_millis(5));
}

#[test]
fn futures_and_jobs_wait_for_each_other() {
    let engine = engine();
    let inner = engine.submit(|_| 3);
    let outer = engine.spawn_future(async move { inner.await.unwrap() + 1 });
    let last = engine.submit(move |_| outer.join().unwrap() + 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    assert_eq!(runtime.unwrap().block_on(last).unwrap(), 5);
}

/// With one thread for futures: while one blocks, another is polled.
#[test]
fn a_future_that_joins_a_job_holds_no_other_future_up() {
    let engine = engine();
    let (says, hears) = oneshot::channel::<u32>();
    let other = engine.spawn_future(async move { hears.await.unwrap() });
    let blocks = engine.spawn_future(async move { other.join().unwrap() });
    let tells = engine.spawn_future(async move { says.send(5).unwrap() });
    tells.join().unwrap();
    assert_eq!(blocks.join().unwrap(), 5);
}

#[test]
fn inside_of_a_future_the_engine_is_this_one() {
    let engine = engine();
    let before = engine.metrics().total().submitted;
    let nodes = engine.spawn_future(async {
        let (one, two) = reiver::join(|| 1, || 2);
        assert_eq!(one + two, 3);
        thread::current().name().map(str::to_owned)
    });
    assert_eq!(nodes.join().unwrap().as_deref(), Some("reiver-async"));
    assert_eq!(engine.metrics().total().submitted, before + 1);
}

#[test]
fn a_panic_is_its_own() {
    let engine = engine();
    let panics = engine.spawn_future(async {
        yield_now().await;
        std::panic::resume_unwind(Box::new("meant"));
    });
    let error: Result<(), _> = panics.join();
    match error.unwrap_err() {
        JobError::Panicked(panic) => assert_eq!(panic.message().as_deref(), Some("meant")),
        other => panic!("{other}"),
    }
    assert_eq!(engine.spawn_future(async { 1 }).join().unwrap(), 1);
    assert_eq!(engine.metrics().total().panicked, 1);
}

#[test]
fn one_that_is_cancelled_is_dropped_where_it_waits() {
    let engine = engine();
    let token = CancellationToken::new();
    let (future, begun, dropped) = endless();
    let job = engine
        .job()
        .cancel_with(&token.child())
        .spawn_future(future);
    begun.blocking_recv().unwrap();
    token.cancel();
    assert!(matches!(job.unwrap().join(), Err(JobError::Cancelled)));
    assert!(dropped.load(Ordering::SeqCst), "before its end is known");
    let late = engine.job().cancel_with(&token).spawn_future(async { 1 });
    assert!(matches!(late.unwrap().join(), Err(JobError::Cancelled)));
    assert_eq!(engine.metrics().total().cancelled, 2);
}

#[test]
fn a_deadline_ends_it_queued_or_running() {
    let engine = engine();
    let queued = engine
        .job()
        .deadline(Duration::ZERO)
        .spawn_future(async { 1 });
    assert!(matches!(
        queued.unwrap().join(),
        Err(JobError::DeadlineExceeded {
            phase: Phase::Queued
        })
    ));
    let (future, begun, dropped) = endless();
    let job = engine
        .job()
        .deadline(Duration::from_millis(30))
        .spawn_future(future);
    let outcome = job.unwrap().join();
    let ran = begun.blocking_recv().is_ok();
    match outcome {
        Err(JobError::DeadlineExceeded { phase }) => {
            // It may have been late on its way to the first poll.
            assert!(!ran || phase == Phase::Running);
        }
        other => panic!("{other:?}"),
    }
    assert!(!ran || dropped.load(Ordering::SeqCst));
    assert_eq!(engine.metrics().total().deadline_exceeded, 2);
}

#[test]
fn jobs_that_a_future_submits_inherit_its_deadline() {
    let engine = Arc::new(engine());
    let submits = Arc::downgrade(&engine);
    let future = async move {
        yield_now().await;
        let engine = submits.upgrade().unwrap();
        let job = engine.submit(|ctx| ctx.deadline().is_some());
        let future = engine.spawn_future(pending::<()>());
        (job, future)
    };
    let deadline = Duration::from_millis(200);
    let job = engine
        .job()
        .deadline(deadline)
        .spawn_future(future)
        .unwrap();
    // Where this machine holds all of it up for so long there is nothing to see.
    if let Ok((job, future)) = job.join() {
        assert!(job.join().unwrap_or(true));
        assert!(matches!(
            future.join(),
            Err(JobError::DeadlineExceeded { .. })
        ));
    }
    let none = engine.submit(|ctx| ctx.deadline().is_some());
    assert!(!none.join().unwrap());
}

#[test]
fn a_handle_that_is_dropped_lets_it_run() {
    let engine = engine();
    let (says, hears) = channel();
    drop(engine.spawn_future(async move {
        yield_now().await;
        says.send(1).unwrap();
    }));
    assert_eq!(hears.recv().unwrap(), 1);
}

#[test]
fn limits_breakers_and_queues_hold_for_futures_too() {
    watched();
    let limiter = Arc::new(HybridLimiter::new(u32::MAX, u32::MAX, 2));
    let breaker = Breaker {
        failures: 1.0,
        window: 1,
        open_for: Duration::MAX,
    };
    let engine = Engine::builder()
        .cpu_workers(1)
        .limit(Class::Io, Arc::clone(&limiter))
        .breaker("fails", breaker)
        .build()
        .unwrap();
    let token = CancellationToken::new();
    let held: Vec<_> = (0..2)
        .map(|_| {
            engine
                .job()
                .cancel_with(&token)
                .spawn_future(pending::<()>())
                .unwrap()
        })
        .collect();
    let third = engine.job().spawn_future(async {}).unwrap_err();
    assert_eq!(third, SubmitError::Limited(Refused::Concurrency));
    let blocking = engine.job().class(Class::Io).submit(|_| ()).unwrap_err();
    assert_eq!(blocking, SubmitError::Limited(Refused::Concurrency));
    token.cancel();
    for job in held {
        assert!(matches!(job.join(), Err(JobError::Cancelled)));
    }
    assert_eq!(limiter.in_use(), 0);
    let fails = || {
        engine
            .job()
            .name("fails")
            .spawn_future(async { panic!("meant") })
    };
    let panicked: Result<(), _> = fails().unwrap().join();
    assert!(matches!(panicked, Err(JobError::Panicked(_))));
    assert_eq!(fails().unwrap_err(), SubmitError::BreakerOpen);
}

#[test]
fn a_full_queue_refuses_futures_or_makes_submitters_wait() {
    for when_full in [WhenFull::Reject, WhenFull::Block, WhenFull::CallerRuns] {
        watched();
        let engine = Engine::builder()
            .cpu_workers(1)
            .queue_capacity(Class::Io, 1)
            .when_full(Class::Io, when_full)
            .build()
            .unwrap();
        let (mut taken, mut refused) = (0, 0);
        let jobs: Vec<_> = (0..200)
            .filter_map(
                |number| match engine.job().spawn_future(async move { number }) {
                    Ok(job) => {
                        taken += 1;
                        Some((number, job))
                    }
                    Err(SubmitError::QueueFull) => {
                        refused += 1;
                        None
                    }
                    Err(other) => panic!("{other}"),
                },
            )
            .collect();
        for (number, job) in jobs {
            assert_eq!(job.join().unwrap(), number);
        }
        assert!(taken + refused == 200 && (when_full == WhenFull::Reject || refused == 0));
    }
}

#[test]
fn running_futures_are_listed_and_watched() {
    watched();
    let (says, hears) = channel();
    let engine = Engine::builder().cpu_workers(1);
    let engine = engine.watchdog(Duration::from_millis(5), move |job| {
        let _ = says.send(job.name().map(str::to_owned));
    });
    let engine = engine.build().unwrap();
    let token = CancellationToken::new();
    let (future, begun, _) = endless();
    let job = engine
        .job()
        .name("waits")
        .cancel_with(&token)
        .spawn_future(future);
    begun.blocking_recv().unwrap();
    let running = engine.running();
    assert_eq!(running.len(), 1);
    assert_eq!(
        (running[0].name(), running[0].class()),
        (Some("waits"), Class::Io)
    );
    assert_eq!(hears.recv().unwrap().as_deref(), Some("waits"));
    token.cancel();
    assert!(job.unwrap().join().is_err());
    assert!(engine.running().is_empty());
}

#[test]
fn shutdown_waits_for_futures_and_tells_those_that_do_not_end() {
    let engine = engine();
    let (go, wait) = oneshot::channel::<()>();
    let ends = engine.spawn_future(async move { wait.await.is_ok() });
    let (future, begun, dropped) = endless();
    let endless = engine.job().name("endless").spawn_future(future).unwrap();
    begun.blocking_recv().unwrap();
    go.send(()).unwrap();
    assert!(ends.join().unwrap());
    let report = engine.shutdown(Duration::from_millis(5));
    assert_eq!(report.running.len(), 1);
    assert_eq!(report.running[0].name(), Some("endless"));
    assert!(matches!(endless.join(), Err(JobError::ShutDown)));
    assert!(dropped.load(Ordering::SeqCst));
    let refused = engine.job().spawn_future(async {}).unwrap_err();
    assert_eq!(refused, SubmitError::ShutDown);
}

#[test]
fn an_engine_that_is_dropped_ends_its_futures() {
    let engine = engine();
    let jobs: Vec<_> = (0..100)
        .map(|_| engine.spawn_future(pending::<()>()))
        .collect();
    drop(engine);
    for job in jobs {
        assert!(matches!(job.join(), Err(JobError::ShutDown)));
    }
}

#[test]
fn an_engine_may_be_dropped_inside_of_futures() {
    // Of somebody else's runtime.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let engine = engine();
        assert_eq!(engine.spawn_future(async { 1 }).await.unwrap(), 1);
    });
    // Of its own, beside one that does not end.
    let engine = engine();
    let endless = engine.spawn_future(pending::<()>());
    let (gives, takes) = oneshot::channel::<Engine>();
    let drops = engine.spawn_future(async move { drop(takes.await) });
    gives.send(engine).unwrap();
    drops.join().unwrap();
    assert!(matches!(endless.join(), Err(JobError::ShutDown)));
}

#[test]
fn whatever_becomes_of_futures_each_has_one_outcome() {
    let engine = engine();
    let jobs = size::sized(3_000);
    let ended = Arc::new(AtomicU32::new(0));
    let (mut handles, mut tokens) = (Vec::new(), Vec::new());
    for number in 0..jobs {
        let token = CancellationToken::new();
        let guard = ended.clone();
        let future = async move {
            for _ in 0..number % 4 {
                yield_now().await;
            }
            guard.fetch_add(1, Ordering::Relaxed);
            match number % 7 {
                0 => std::panic::resume_unwind(Box::new("meant")),
                1 => pending::<()>().await,
                2 => tokio::time::sleep(Duration::from_millis(1)).await,
                _ => (),
            }
        };
        let job = engine.job().cancel_with(&token);
        let job = match number % 5 {
            0 => job.deadline(Duration::from_micros(300)),
            _ => job,
        };
        handles.push(job.spawn_future(future).unwrap());
        tokens.push((number, token));
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            for (number, token) in tokens {
                if number % 7 == 1 || number % 3 == 0 {
                    token.cancel();
                }
            }
        });
        let mut counts = [0; 4];
        for handle in handles {
            let outcome = match handle.join() {
                Ok(()) => 0,
                Err(JobError::Panicked(_)) => 1,
                Err(JobError::Cancelled) => 2,
                Err(JobError::DeadlineExceeded { .. }) => 3,
                Err(other) => panic!("{other}"),
            };
            counts[outcome] += 1;
        }
        let total = engine.metrics().total();
        let counted = [
            total.completed,
            total.panicked,
            total.cancelled,
            total.deadline_exceeded,
        ];
        assert_eq!(counted, counts);
        assert_eq!(counted.iter().sum::<u64>(), jobs as u64);
        assert_eq!((total.queued, total.running), (0, 0));
    });
}
