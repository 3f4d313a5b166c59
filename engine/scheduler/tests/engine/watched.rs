//! The watchdog reports what runs for too long, and each of it once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use reiver::{Class, Engine, JobContext, Priority};

use crate::watchdog::watched;

type Report = (Option<String>, Class, Priority, Duration);

fn reporting(age: Duration, says: Sender<Report>) -> Engine {
    watched();
    let builder = Engine::builder().cpu_workers(2);
    let builder = builder.watchdog(age, move |job| {
        let name = job.name().map(str::to_owned);
        let _ = says.send((name, job.class(), job.priority(), job.age()));
    });
    builder.build().unwrap()
}

#[test]
fn a_job_that_is_too_old_is_reported_once_with_what_it_is() {
    const AGE: Duration = Duration::from_millis(20);
    let (says, hears) = channel();
    let engine = reporting(AGE, says);
    let (go, wait) = channel::<()>();
    let job = engine.job().name("long").class(Class::Io);
    let job = job.priority(Priority::P0).submit(move |_| wait.recv());
    let (name, class, priority, age) = hears.recv().unwrap();
    assert_eq!(name.as_deref(), Some("long"));
    assert_eq!((class, priority), (Class::Io, Priority::P0));
    assert!(age >= AGE, "{age:?}");
    // Others that grow too old show that the watchdog has looked again, several times.
    for _ in 0..3 {
        let (go, wait) = channel::<()>();
        let other = engine.submit(move |_| wait.recv());
        assert_eq!(hears.recv().unwrap().1, Class::Cpu);
        go.send(()).unwrap();
        other.join().unwrap().unwrap();
    }
    go.send(()).unwrap();
    job.unwrap().join().unwrap().unwrap();
    drop(engine);
    assert!(hears.try_recv().is_err(), "none is reported twice");
}

#[test]
fn jobs_that_end_in_time_are_not_reported() {
    let (says, hears) = channel();
    let engine = reporting(Duration::from_secs(300), says);
    let jobs: Vec<_> = (0..100).map(|_| engine.submit(|_| ())).collect();
    jobs.into_iter().for_each(|job| job.join().unwrap());
    drop(engine);
    assert!(hears.recv().is_err());
}

#[test]
fn no_age_and_every_age_are_ages() {
    let (says, hears) = channel();
    let engine = reporting(Duration::ZERO, says);
    let (go, wait) = channel::<()>();
    let job = engine.submit(move |_| wait.recv());
    hears.recv().unwrap();
    go.send(()).unwrap();
    job.join().unwrap().unwrap();
    let (says, hears) = channel();
    let engine = reporting(Duration::MAX, says);
    engine.submit(|_| ()).join().unwrap();
    drop(engine);
    assert!(hears.recv().is_err());
}

/// One that stands behind others of a burst is as old as it is, not as they are.
#[test]
fn jobs_submitted_together_have_ages_of_their_own() {
    watched();
    let engine = Engine::builder().cpu_workers(1);
    let engine = engine.watchdog(Duration::MAX, |_| ()).build().unwrap();
    let last_end = Arc::new(Mutex::new(Instant::now()));
    let job = |last_end: &Arc<Mutex<Instant>>| {
        let last_end = Arc::clone(last_end);
        move |ctx: &JobContext| {
            let running = ctx.engine().running();
            let [job] = running.as_slice() else {
                panic!("one runs at a time: {running:?}");
            };
            let (age, since) = (job.age(), last_end.lock().unwrap().elapsed());
            // The two clocks differ by a percent.
            assert!(
                age <= since.mul_f64(1.02),
                "{age:?}, {since:?} after the last one"
            );
            thread::sleep(Duration::from_millis(1));
            *last_end.lock().unwrap() = Instant::now();
        }
    };
    let jobs = engine.submit_many((0..64).map(|_| job(&last_end)));
    jobs.into_iter().for_each(|job| job.join().unwrap());
}

#[test]
fn a_report_that_panics_harms_nobody() {
    watched();
    let reports = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&reports);
    let engine = Engine::builder().cpu_workers(2);
    let engine = engine.watchdog(Duration::ZERO, move |_| {
        counts.fetch_add(1, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new("meant"));
    });
    let engine = engine.build().unwrap();
    for expected in 1..=3 {
        let (go, wait) = channel::<()>();
        let job = engine.submit(move |_| wait.recv());
        while reports.load(Ordering::Relaxed) < expected {
            thread::yield_now();
        }
        go.send(()).unwrap();
        job.join().unwrap().unwrap();
    }
}

#[test]
fn a_report_may_end_the_job_by_its_token() {
    watched();
    let token = reiver::CancellationToken::new();
    let cancels = token.clone();
    let engine = Engine::builder().cpu_workers(1);
    let engine = engine.watchdog(Duration::from_millis(1), move |_| cancels.cancel());
    let engine = engine.build().unwrap();
    let job = engine.job().cancel_with(&token).submit(|ctx| {
        while ctx.checkpoint().is_ok() {
            thread::yield_now();
        }
    });
    assert!(matches!(
        job.unwrap().join(),
        Err(reiver::JobError::Cancelled)
    ));
}
