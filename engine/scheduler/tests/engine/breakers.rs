//! A name whose jobs keep failing is refused for a while, and tried again by single jobs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use reiver::{
    Breaker, BreakerState, BuildError, CancellationToken, Class, Engine, JobContext, Priority,
    SubmitError,
};

use crate::Held;
use crate::watchdog::watched;

const NEVER: Duration = Duration::MAX;

fn with(failures: f64, window: usize, open_for: Duration) -> Engine {
    watched();
    let breaker = Breaker {
        failures,
        window,
        open_for,
    };
    let builder = Engine::builder().cpu_workers(2).breaker("b", breaker);
    builder.build().unwrap()
}

fn state(engine: &Engine) -> BreakerState {
    let metrics = engine.metrics();
    let breaker = &metrics.breakers()[0];
    assert_eq!(breaker.name(), "b");
    breaker.state()
}

/// Runs one to its end.
fn run(
    engine: &Engine,
    body: impl FnOnce(&JobContext) + Send + 'static,
) -> Result<(), SubmitError> {
    let job = engine.job().name("b").submit(body)?;
    // It may have panicked.
    let _ = job.join();
    Ok(())
}

fn panics(_: &JobContext) {
    std::panic::resume_unwind(Box::new("meant"));
}

#[test]
fn it_opens_at_its_share_of_failures_of_either_kind() {
    let engine = with(0.5, 4, NEVER);
    run(&engine, |_| ()).unwrap();
    run(&engine, panics).unwrap();
    run(&engine, |_| ()).unwrap();
    assert_eq!(state(&engine), BreakerState::Closed);
    run(&engine, |ctx| ctx.report_failure()).unwrap();
    assert_eq!(state(&engine), BreakerState::Open);
    assert_eq!(run(&engine, |_| ()), Err(SubmitError::BreakerOpen));
    let metrics = engine.metrics();
    let rejections = metrics.rejections(Class::Cpu, Priority::P1);
    assert_eq!((rejections.breaker_open, rejections.total()), (1, 1));
    assert_eq!(metrics.breakers()[0].opened(), 1);
    // Others are no part of it.
    engine
        .job()
        .name("c")
        .submit(|_| ())
        .unwrap()
        .join()
        .unwrap();
    engine.submit(|_| ()).join().unwrap();
}

#[test]
fn a_failure_that_left_the_window_is_forgotten() {
    let engine = with(0.5, 4, NEVER);
    for _ in 0..10 {
        run(&engine, panics).unwrap();
        (0..3).for_each(|_| run(&engine, |_| ()).unwrap());
    }
    assert_eq!(state(&engine), BreakerState::Closed);
}

#[test]
fn a_probe_that_succeeds_closes_it_and_one_that_fails_opens_it() {
    let engine = with(1.0, 2, Duration::ZERO);
    run(&engine, panics).unwrap();
    run(&engine, panics).unwrap();
    assert_eq!(state(&engine), BreakerState::HalfOpen);
    run(&engine, panics).unwrap();
    assert_eq!(engine.metrics().breakers()[0].opened(), 2);
    run(&engine, |_| ()).unwrap();
    assert_eq!(state(&engine), BreakerState::Closed);
    // What was before it opened is forgotten.
    run(&engine, panics).unwrap();
    assert_eq!(state(&engine), BreakerState::Closed);
}

#[test]
fn there_is_one_probe_at_a_time() {
    let engine = with(1.0, 1, Duration::ZERO);
    run(&engine, panics).unwrap();
    let (go, wait) = channel::<()>();
    let probe = engine.job().name("b").submit(move |_| wait.recv()).unwrap();
    assert_eq!(run(&engine, |_| ()), Err(SubmitError::BreakerOpen));
    go.send(()).unwrap();
    probe.join().unwrap().unwrap();
    run(&engine, |_| ()).unwrap();
}

#[test]
fn a_probe_that_is_not_run_makes_way_for_another() {
    let engine = with(1.0, 1, Duration::ZERO);
    run(&engine, panics).unwrap();
    let held = [Held::new(&engine), Held::new(&engine)];
    let token = CancellationToken::new();
    let cancelled = engine.job().name("b").cancel_with(&token).submit(|_| ());
    assert_eq!(run(&engine, |_| ()), Err(SubmitError::BreakerOpen));
    token.cancel();
    assert!(cancelled.unwrap().join().is_err());
    let late = engine.job().name("b").deadline(Duration::ZERO);
    assert!(late.submit(|_| ()).unwrap().join().is_err());
    assert_eq!(state(&engine), BreakerState::HalfOpen);
    held.into_iter().for_each(Held::let_go);
    run(&engine, |_| ()).unwrap();
    assert_eq!(state(&engine), BreakerState::Closed);
}

#[test]
fn what_was_under_way_when_it_opened_decides_nothing() {
    let engine = with(1.0, 1, Duration::ZERO);
    let (go, wait) = channel::<()>();
    let before = engine.job().name("b").submit(move |_| wait.recv()).unwrap();
    run(&engine, panics).unwrap();
    go.send(()).unwrap();
    before.join().unwrap().unwrap();
    assert_eq!(state(&engine), BreakerState::HalfOpen);
}

#[test]
fn a_job_that_is_told_to_end_counts_neither_way_unless_it_says_so() {
    let engine = with(1.0, 1, NEVER);
    let cancelled = |reports: bool| {
        let token = CancellationToken::new();
        let inside = token.clone();
        let job = engine.job().name("b").cancel_with(&token);
        let job = job.submit(move |ctx| {
            inside.cancel();
            if reports {
                ctx.report_failure();
            }
            assert!(ctx.checkpoint().is_err());
        });
        assert!(job.unwrap().join().is_err());
    };
    cancelled(false);
    assert_eq!(state(&engine), BreakerState::Closed);
    cancelled(true);
    assert_eq!(state(&engine), BreakerState::Open);
}

#[test]
fn a_breaker_that_cannot_be_is_refused_by_name_and_value() {
    for (failures, window, shown) in [(f64::NAN, 5, "NaN"), (1.5, 5, "1.5"), (0.5, 0, "window: 0")]
    {
        let breaker = Breaker {
            failures,
            window,
            open_for: NEVER,
        };
        let error = Engine::builder().breaker("b", breaker).build().unwrap_err();
        assert!(matches!(error, BuildError::Setting { .. }));
        let text = error.to_string();
        assert!(text.contains("breaker") && text.contains(shown), "{text}");
    }
}

/// Many threads bring jobs that fail, succeed, are cancelled; whatever the order, the sums hold, and a
/// breaker that only ever saw failures is not closed.
#[test]
fn under_many_threads_each_job_is_taken_or_refused() {
    let engine = with(0.5, 10, Duration::from_micros(50));
    let refused = AtomicU32::new(0);
    thread::scope(|scope| {
        for number in 0..4 {
            let (engine, refused) = (&engine, &refused);
            scope.spawn(move || {
                for job in 0..crate::size::sized(2_000) {
                    let body = move |ctx: &JobContext| match (job + number) % 3 {
                        0 => panics(ctx),
                        1 => ctx.report_failure(),
                        _ => (),
                    };
                    match run(engine, body) {
                        Ok(()) => {}
                        Err(SubmitError::BreakerOpen) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let total = engine.metrics().total();
    assert_eq!(total.rejected, u64::from(refused.into_inner()));
    assert_eq!(total.submitted, total.completed + total.panicked);
    assert_eq!(
        total.submitted + total.rejected,
        4 * crate::size::sized(2_000) as u64
    );
    assert!(engine.metrics().breakers()[0].opened() > 0);
}
