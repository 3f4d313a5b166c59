//! Limits of classes and names hold for whatever the jobs do, and are given back when these end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use reiver::limit::{HybridLimiter, Refused};
use reiver::{
    CancellationToken, Class, Engine, JobContext, JobError, Priority, Rejections, SubmitError,
    WhenFull,
};

use crate::watchdog::watched;
use crate::{Held, engine};

/// A limiter of concurrency alone.
fn at_once(jobs: u32) -> Arc<HybridLimiter> {
    Arc::new(HybridLimiter::new(u32::MAX, u32::MAX, jobs))
}

fn limited(limiter: &Arc<HybridLimiter>, when_full: WhenFull) -> Engine {
    watched();
    let builder = Engine::builder().cpu_workers(4);
    let builder = builder.limit(Class::Cpu, Arc::clone(limiter));
    let builder = builder.limit(Class::Io, Arc::clone(limiter));
    let builder = builder.when_full(Class::Cpu, when_full);
    builder.when_full(Class::Io, when_full).build().unwrap()
}

#[test]
fn a_refusal_says_which_limit_it_was_and_is_counted() {
    let limiter = Arc::new(HybridLimiter::new(0, 2, 1));
    let engine = limited(&limiter, WhenFull::Reject);
    let held = Held::new(&engine);
    let refused = engine.job().submit(|_| ()).unwrap_err();
    assert_eq!(refused, SubmitError::Limited(Refused::Concurrency));
    held.let_go();
    // Whoever has joined a job finds its permit given back.
    engine.submit(|_| ()).join().unwrap();
    let refused = engine.submit(|_| ()).join().unwrap_err();
    assert!(matches!(
        refused,
        JobError::Rejected(SubmitError::Limited(Refused::Rate))
    ));
    let metrics = engine.metrics();
    let rejections = metrics.rejections(Class::Cpu, Priority::P1);
    assert_eq!((rejections.rate, rejections.concurrency), (1, 1));
    assert_eq!(rejections.total(), 2);
    assert_eq!(metrics.total().rejected, 2);
    assert_eq!(metrics.total().submitted, 2);
}

#[test]
fn a_name_has_a_limit_of_its_own() {
    watched();
    let limiter = at_once(1);
    let engine = Engine::builder()
        .cpu_workers(1)
        .limit_name("rare", Arc::clone(&limiter))
        .build()
        .unwrap();
    let held = Held::new(&engine);
    let rare = || engine.job().name("rare").submit(|_| ());
    let first = rare().unwrap();
    assert_eq!(limiter.in_use(), 1);
    assert_eq!(
        rare().unwrap_err(),
        SubmitError::Limited(Refused::Concurrency)
    );
    let other = engine.job().name("other").submit(|_| ()).unwrap();
    held.let_go();
    first.join().unwrap();
    other.join().unwrap();
    rare().unwrap().join().unwrap();
    assert_eq!(limiter.in_use(), 0);
}

#[test]
fn a_limiter_of_both_its_class_and_its_name_counts_a_job_once() {
    watched();
    let limiter = at_once(3);
    let engine = Engine::builder()
        .cpu_workers(1)
        .limit(Class::Cpu, Arc::clone(&limiter))
        .limit_name("both", Arc::clone(&limiter))
        .build()
        .unwrap();
    let held = Held::new(&engine);
    let both = engine.job().name("both").weight(2).submit(|_| ()).unwrap();
    assert_eq!(limiter.in_use(), 3);
    held.let_go();
    both.join().unwrap();
}

/// The limit of the name of each is that of the class of the other.
#[test]
fn jobs_whose_two_limits_cross_do_not_wait_for_each_other() {
    watched();
    let (one, other) = (at_once(1), at_once(1));
    let builder = Engine::builder().cpu_workers(2);
    let builder = builder.limit(Class::Cpu, Arc::clone(&one));
    let builder = builder.limit_name("io", Arc::clone(&one));
    let builder = builder.limit(Class::Io, Arc::clone(&other));
    let builder = builder.limit_name("cpu", Arc::clone(&other));
    let builder = builder.when_full(Class::Cpu, WhenFull::Block);
    let engine = builder
        .when_full(Class::Io, WhenFull::Block)
        .build()
        .unwrap();
    thread::scope(|scope| {
        for (class, name) in [(Class::Cpu, "cpu"), (Class::Io, "io")].repeat(2) {
            let engine = &engine;
            scope.spawn(move || {
                for _ in 0..2_000 {
                    let job = engine.job().class(class).name(name);
                    drop(job.submit(|_| ()).unwrap());
                }
            });
        }
    });
    assert!(engine.shutdown(Duration::MAX).is_clean());
    assert_eq!((one.in_use(), other.in_use()), (0, 0));
    assert_eq!(engine.metrics().total().completed, 8_000);
}

/// One that may be stopped: others would wait for what it holds.
#[test]
fn a_background_job_that_waits_at_one_limit_holds_nothing_of_another() {
    let (of_name, of_class) = (at_once(1), at_once(2));
    let builder = Engine::builder().cpu_workers(2);
    let builder = builder.limit(Class::Cpu, Arc::clone(&of_class));
    let builder = builder.limit_name("named", Arc::clone(&of_name));
    let builder = builder.when_full(Class::Cpu, WhenFull::Block);
    let builder = builder.when_full(Class::Io, WhenFull::Block);
    let engine = builder.build().unwrap();
    let held = of_class.acquire(1).unwrap();
    // It has the other one itself.
    let background = engine.job().priority(Priority::P2).submit(|ctx| {
        let named = ctx.engine().job().name("named");
        named.submit(|_| ()).unwrap()
    });
    let background = background.unwrap();
    while engine.metrics().jobs(Class::Cpu, Priority::P2).running == 0 {
        thread::yield_now();
    }
    for _ in 0..20 {
        let other = engine.job().name("named").class(Class::Io);
        other.submit(|_| ()).unwrap().join().unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    drop(held);
    background.join().unwrap().join().unwrap();
    assert_eq!((of_name.in_use(), of_class.in_use()), (0, 0));
}

#[test]
fn what_a_job_has_of_one_limit_it_gives_back_where_the_other_refuses() {
    watched();
    let (name, class) = (at_once(5), at_once(1));
    let engine = Engine::builder()
        .cpu_workers(1)
        .limit_name("name", Arc::clone(&name))
        .limit(Class::Cpu, Arc::clone(&class))
        .build()
        .unwrap();
    let held = Held::new(&engine);
    let job = engine.job().name("name").submit(|_| ());
    assert_eq!(job.unwrap_err(), SubmitError::Limited(Refused::Concurrency));
    assert_eq!((name.in_use(), class.in_use()), (0, 1));
    held.let_go();
}

#[test]
fn weights_count_and_none_passes() {
    watched();
    let limiter = at_once(4);
    let engine = limited(&limiter, WhenFull::Block);
    let weighs = |weight| engine.job().weight(weight).submit(|_| ());
    // It would wait for ever, so it is refused though the submitter would wait.
    assert_eq!(
        weighs(5).unwrap_err(),
        SubmitError::Limited(Refused::Concurrency)
    );
    weighs(4).unwrap().join().unwrap();
    let all = limiter.acquire(4).unwrap();
    weighs(0).unwrap().join().unwrap();
    drop(all);
}

/// Jobs that end in every way, brought by several threads at once: no more than so many at once, and
/// each has one outcome.
fn never_exceeded(when_full: WhenFull) {
    const MOST: u32 = 3;
    const SUBMITTERS: usize = 3;
    let jobs = crate::size::sized(2_000);
    let limiter = at_once(MOST);
    let engine = limited(&limiter, when_full);
    let under_way = Arc::new(AtomicU32::new(0));
    let (mut taken, mut refused) = (0, 0);
    let counts = thread::scope(|scope| {
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|number| {
                let (engine, under_way) = (&engine, &under_way);
                scope.spawn(move || {
                    let (mut handles, mut refused) = (Vec::new(), 0);
                    for job in 0..jobs {
                        let kind = (job + number) % 5;
                        let token = CancellationToken::new();
                        let under_way = Arc::clone(under_way);
                        let body = move |_: &JobContext| {
                            let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now <= MOST, "{now} at once");
                            thread::yield_now();
                            under_way.fetch_sub(1, Ordering::SeqCst);
                            if kind == 3 {
                                std::panic::resume_unwind(Box::new("meant"));
                            }
                        };
                        let builder = engine.job().cancel_with(&token);
                        let builder = match kind {
                            0 => builder.class(Class::Io),
                            1 => builder.deadline(Duration::from_nanos(1)),
                            2 => builder.weight(2),
                            _ => builder,
                        };
                        match builder.submit(body) {
                            Ok(handle) => handles.push(handle),
                            Err(SubmitError::Limited(Refused::Concurrency)) => refused += 1,
                            Err(other) => panic!("{other}"),
                        }
                        if kind == 4 {
                            token.cancel();
                        }
                    }
                    let taken = handles.len() as u64;
                    for handle in handles {
                        match handle.join() {
                            Err(JobError::Panicked(panic)) => {
                                assert_eq!(panic.message().as_deref(), Some("meant"));
                            }
                            Ok(())
                            | Err(JobError::Cancelled | JobError::DeadlineExceeded { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    (taken, refused)
                })
            })
            .collect();
        let counts = submitters.into_iter().map(|thread| thread.join().unwrap());
        counts.collect::<Vec<_>>()
    });
    for (more, others) in counts {
        taken += more;
        refused += others;
    }
    assert_eq!(limiter.in_use(), 0);
    let total = engine.metrics().total();
    assert_eq!((total.submitted, total.rejected), (taken, refused));
    let ended = total.completed + total.panicked + total.cancelled + total.deadline_exceeded;
    assert_eq!(ended, taken, "{total:?}");
    if when_full != WhenFull::Reject {
        assert_eq!(refused, 0);
    }
}

#[test]
fn no_more_than_so_many_are_under_way_where_others_are_refused() {
    never_exceeded(WhenFull::Reject);
}

#[test]
fn no_more_than_so_many_are_under_way_where_submitters_wait() {
    never_exceeded(WhenFull::Block);
}

#[test]
fn no_more_than_so_many_are_under_way_where_submitters_run_what_has_no_room() {
    never_exceeded(WhenFull::CallerRuns);
}

#[test]
fn who_waits_for_a_limit_is_told_that_the_engine_ends() {
    let limiter = at_once(1);
    let engine = limited(&limiter, WhenFull::Block);
    let all = limiter.acquire(1).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| engine.job().submit(|_| ()).unwrap_err());
        let report = engine.shutdown(Duration::ZERO);
        assert!(report.is_clean());
        assert_eq!(waits.join().unwrap(), SubmitError::ShutDown);
    });
    drop(all);
    let counted = engine.metrics().rejections(Class::Cpu, Priority::P1);
    let expected = {
        let mut expected = Rejections::default();
        expected.shut_down = 1;
        expected
    };
    assert_eq!(counted, expected);
}

#[test]
fn what_is_queued_when_the_engine_ends_gives_its_permits_back() {
    let limiter = at_once(8);
    let engine = limited(&limiter, WhenFull::Reject);
    let held: Vec<_> = (0..4).map(|_| Held::new(&engine)).collect();
    let queued: Vec<_> = (0..4).map(|_| engine.submit(|_| ())).collect();
    assert_eq!(limiter.in_use(), 8);
    assert_eq!(engine.shutdown(Duration::ZERO).queued, 4);
    for job in queued {
        assert!(matches!(job.join(), Err(JobError::ShutDown)));
    }
    assert_eq!(limiter.in_use(), 4);
    held.into_iter().for_each(Held::let_go);
    drop(engine);
    assert_eq!(limiter.in_use(), 0);
}

#[test]
fn jobs_submitted_together_pass_the_limit_one_by_one() {
    let limiter = Arc::new(HybridLimiter::new(0, 10, 100));
    let engine = limited(&limiter, WhenFull::Reject);
    let jobs = engine.submit_many((0..15).map(|number| move |_: &JobContext| number));
    let outcomes: Vec<_> = jobs.into_iter().map(|job| job.join()).collect();
    assert!(outcomes[..10].iter().all(Result::is_ok));
    assert!(outcomes[10..].iter().all(|outcome| matches!(
        outcome,
        Err(JobError::Rejected(SubmitError::Limited(Refused::Rate)))
    )));
}

#[test]
fn a_batch_waits_for_limits() {
    for class in [Class::Cpu, Class::Io] {
        let limiter = Arc::new(HybridLimiter::new(2_000, 3, 2));
        let engine = limited(&limiter, WhenFull::Reject);
        let out = engine.batch(0..60).class(class).map(|_, number| number * 2);
        let out: Result<Vec<_>, _> = out.collect().into_iter().collect();
        assert_eq!(out.unwrap(), (0..60).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(limiter.in_use(), 0);
        // From inside of a job too, whose own permit is one of the two.
        let engine = limited(&at_once(2), WhenFull::Reject);
        let sum = engine.job().class(class).submit(|ctx| {
            let out = ctx.engine().batch(0..20).map(|_, number| number);
            out.collect().into_iter().flatten().sum::<i32>()
        });
        assert_eq!(sum.unwrap().join().unwrap(), 190);
        assert_eq!(engine.metrics().total().rejected, 0, "{class:?}");
    }
}

#[test]
fn a_batch_that_can_never_pass_is_refused_input_by_input() {
    let engine = limited(&at_once(0), WhenFull::Reject);
    let out = engine.batch(0..5).map(|_, number| number).collect();
    assert!(out.iter().all(|outcome| matches!(
        outcome,
        Err(JobError::Rejected(SubmitError::Limited(
            Refused::Concurrency
        )))
    )));
    assert_eq!(engine.metrics().total().rejected, 5);
}

#[test]
fn a_limiter_outlives_its_engine_and_serves_others() {
    let limiter = at_once(1);
    for _ in 0..3 {
        let engine = limited(&limiter, WhenFull::Reject);
        engine.submit(|_| ()).join().unwrap();
        let other = limited(&limiter, WhenFull::Reject);
        let held = Held::new(&other);
        assert!(engine.job().submit(|_| ()).is_err());
        held.let_go();
    }
    assert_eq!(limiter.in_use(), 0);
}

/// A worker that waits hands its place on, so that what it waits for is done.
#[test]
fn a_job_that_waits_for_a_limiter_holds_nobody_up() {
    let engine = engine(1);
    let limiter = at_once(1);
    let held = limiter.acquire_owned(1).unwrap();
    let waits = engine.submit({
        let limiter = Arc::clone(&limiter);
        move |_| limiter.acquire_timeout(1, Duration::from_secs(200)).is_ok()
    });
    let frees = engine.submit(move |_| drop(held));
    frees.join().unwrap();
    assert!(waits.join().unwrap());
}
