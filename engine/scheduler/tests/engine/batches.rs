//! Many inputs, one closure: what comes out, what is in flight, and how it ends early.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use reiver::{
    BatchError, Class, Engine, Interrupted, JobContext, JobError, NodeId, Priority, SubmitError,
    Topology, WhenFull,
};

use crate::watchdog::watched;
use crate::{Held, engine};

/// Waits until it is told to end.
fn until_told(ctx: &JobContext) -> Interrupted {
    loop {
        if let Err(interrupted) = ctx.checkpoint() {
            return interrupted;
        }
        thread::yield_now();
    }
}

fn values<U>(results: Vec<Result<U, JobError>>) -> Vec<U> {
    results.into_iter().map(Result::unwrap).collect()
}

#[test]
fn results_come_in_the_order_of_the_inputs() {
    for class in [Class::Cpu, Class::Io] {
        for most in [0, 1, 7, 5000] {
            let engine = engine(2);
            let batch = engine.batch(0..1000_usize).class(class).max_in_flight(most);
            let results = batch.map(|_, input| input * 2).collect();
            assert!(values(results).into_iter().eq((0..1000).map(|i| i * 2)));
            assert_eq!(engine.metrics().jobs(class, Priority::P1).completed, 1000);
        }
    }
    let none = engine(1).batch(Vec::<u8>::new()).map(|_, input| input);
    assert!(none.collect().is_empty());
}

#[test]
fn results_come_as_they_end() {
    let engine = engine(2);
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    // The first input ends last: it waits for somebody who has seen all others.
    let batch = engine.batch(0..100).priority(Priority::P0);
    let run = batch.map(move |ctx, input| {
        if input == 0 {
            ctx.engine()
                .blocking(|| wait.lock().unwrap().recv().unwrap());
        }
        input
    });
    let mut seen = Vec::new();
    for result in run.unordered() {
        seen.push(result.unwrap());
        if seen.len() == 99 {
            go.send(()).unwrap();
        }
    }
    assert_eq!(seen.pop(), Some(0));
    assert!(
        seen.into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .eq(1..100)
    );
    assert_eq!(
        engine.metrics().jobs(Class::Cpu, Priority::P0).completed,
        100
    );
}

#[test]
fn no_more_are_pulled_than_may_be_in_flight() {
    for most in [1, 3] {
        let engine = engine(2);
        let pulled = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&pulled);
        let inputs = (0..100).inspect(move |_| {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        let run = engine.batch(inputs).max_in_flight(most).map(|_, i| i);
        assert_eq!(
            pulled.load(Ordering::Relaxed),
            0,
            "nothing is asked for yet"
        );
        for (given, result) in run.unordered().enumerate() {
            result.unwrap();
            assert!(pulled.load(Ordering::Relaxed) <= given + most);
        }
        assert_eq!(pulled.load(Ordering::Relaxed), 100);
    }
}

#[test]
fn a_full_queue_makes_a_batch_wait() {
    for when_full in [WhenFull::Reject, WhenFull::Block, WhenFull::CallerRuns] {
        for class in [Class::Cpu, Class::Io] {
            watched();
            let engine = Engine::builder()
                .cpu_workers(2)
                .io_workers(0..=2)
                .queue_capacity(class, 1)
                .when_full(class, when_full)
                .build()
                .unwrap();
            let me = thread::current().id();
            let batch = engine.batch(0..2000).class(class);
            let results = batch.map(move |_, input| {
                assert_ne!(thread::current().id(), me);
                input
            });
            assert!(values(results.collect()).into_iter().eq(0..2000));
            let jobs = engine.metrics().total();
            assert_eq!((jobs.completed, jobs.rejected), (2000, 0));
        }
    }
}

#[test]
fn a_panic_stands_in_the_place_of_its_result() {
    let engine = engine(2);
    let results = engine.batch(0..100).map(|_, input| {
        assert_ne!(input, 40, "as it should");
        input
    });
    for (input, result) in results.collect().into_iter().enumerate() {
        match result {
            Ok(value) => assert_eq!(value, input),
            Err(JobError::Panicked(_)) => assert_eq!(input, 40),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn an_iterator_that_panics_panics_where_results_are_asked_for() {
    let engine = engine(2);
    let inputs = || (0..100).inspect(|&input| assert!(input < 50, "as it should"));
    let run = engine
        .batch(inputs())
        .max_in_flight(10)
        .map(|_, input| input);
    assert!(catch_unwind(AssertUnwindSafe(|| run.collect())).is_err());
    // What was in flight can still be had.
    let mut run = engine
        .batch(inputs())
        .max_in_flight(10)
        .map(|_, input| input)
        .unordered();
    let mut panics = 0;
    let mut seen = BTreeSet::new();
    loop {
        match catch_unwind(AssertUnwindSafe(|| run.next())) {
            Ok(Some(result)) => assert!(seen.insert(result.unwrap())),
            Ok(None) => break,
            Err(_) => panics += 1,
        }
    }
    assert_eq!(panics, 1);
    assert!(seen.into_iter().eq(0..50));
}

#[test]
fn dropping_what_gives_the_results_cancels_what_is_in_flight() {
    let engine = engine(1);
    let (says, told) = channel();
    let run = engine.batch(0..1_000_000).max_in_flight(100);
    let mut run = run
        .map(move |ctx, input| {
            if input > 0 {
                says.send(until_told(ctx)).unwrap();
            }
            input
        })
        .unordered();
    assert_eq!(run.next().unwrap().unwrap(), 0);
    drop(run);
    // The closure is gone once all its jobs are; those that had begun were told.
    assert!(told.iter().count() < 100);
    let _ = engine.shutdown(Duration::from_secs(200));
    let jobs = engine.metrics().total();
    assert_eq!(jobs.completed + jobs.cancelled, jobs.submitted);
    assert!(jobs.submitted <= 101 && jobs.completed == 1, "{jobs:?}");
}

#[test]
fn the_first_failure_stops_the_rest() {
    for class in [Class::Cpu, Class::Io] {
        let engine = engine(2);
        let (says, ends) = channel();
        let pulled = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&pulled);
        let inputs = (0..).inspect(move |_| {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        let batch = engine.batch(inputs).class(class).max_in_flight(50);
        let run = batch.try_map(move |ctx, input: usize| {
            let _says = says.clone();
            match input {
                20 => Err("as it should"),
                0..20 => Ok(input),
                _ => {
                    until_told(ctx);
                    Ok(input)
                }
            }
        });
        match run.fail_fast() {
            Err(BatchError::Failed { index, error }) => {
                assert_eq!((index, error), (20, "as it should"));
            }
            other => panic!("{other:?}"),
        }
        assert!(pulled.load(Ordering::Relaxed) <= 71);
        // They all end, and let go of the closure.
        let ends: std::sync::mpsc::Receiver<()> = ends;
        assert_eq!(ends.iter().count(), 0);
    }
}

#[test]
fn a_job_waits_for_a_batch_whose_first_failure_ends_the_rest() {
    // The only worker waits; the others of the batch end only once it has seen the failure.
    let engine = engine(1);
    let job = engine.submit(|ctx| {
        let run = ctx.engine().batch(0..10).map(|ctx, input| {
            assert_ne!(input, 3, "as it should");
            if input > 3 {
                until_told(ctx);
            }
        });
        run.fail_fast()
    });
    assert!(matches!(job.join().unwrap(), Err(JobError::Panicked(_))));
}

#[test]
fn of_several_failures_the_first_input_is_named() {
    let engine = engine(1);
    let held = Held::new(&engine);
    // Taken from the queue in order, so the first fails first.
    let run = engine
        .batch(0..100)
        .try_map(|_, input| if input % 2 == 1 { Err(input) } else { Ok(()) });
    let error = thread::scope(|scope| {
        let failed = scope.spawn(|| run.fail_fast().unwrap_err());
        held.let_go();
        failed.join().unwrap()
    });
    assert!(matches!(error, BatchError::Failed { index: 1, error: 1 }));

    let panics = engine.batch(0..100).try_map(|_, input| {
        assert_ne!(input, 5, "as it should");
        Ok::<_, std::io::Error>(input)
    });
    let error = panics.fail_fast().unwrap_err();
    assert!(matches!(
        &error,
        BatchError::Job {
            index: 5,
            error: JobError::Panicked(_)
        }
    ));
    let error: Box<dyn std::error::Error + Send + Sync> = error.into();
    assert!(error.to_string().contains("input 5") && error.source().is_some());

    let all = engine.batch(0..100).try_map(|_, input| Ok::<_, ()>(input));
    assert!(all.fail_fast().unwrap().into_iter().eq(0..100));
    let all = engine.batch(0..100).map(|_, input| input);
    assert!(all.fail_fast().unwrap().into_iter().eq(0..100));
}

#[test]
fn an_engine_that_is_shut_down_in_the_middle_takes_no_more() {
    let engine = engine(2);
    let half = Arc::new(AtomicBool::new(false));
    let results = thread::scope(|scope| {
        let reached = Arc::clone(&half);
        let run = engine
            .batch(0..1000)
            .max_in_flight(10)
            .map(move |_, input| {
                if input == 500 {
                    reached.store(true, Ordering::Relaxed);
                }
                input
            });
        let run = scope.spawn(|| run.collect());
        while !half.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let _ = engine.shutdown(Duration::from_secs(200));
        run.join().unwrap()
    });
    assert_eq!(results.len(), 1000);
    for (input, result) in results.into_iter().enumerate() {
        match result {
            Ok(value) => assert_eq!(value, input),
            Err(error) => assert!(
                matches!(error, JobError::ShutDown) && input > 500,
                "{error}"
            ),
        }
    }
    let none = engine.batch(0..3).map(|_, input| input).fail_fast();
    assert!(matches!(none, Err(JobError::ShutDown)));
    assert_eq!(
        engine.job().submit(|_| ()).map(drop),
        Err(SubmitError::ShutDown)
    );
}

#[test]
fn a_batch_may_outlive_its_engine() {
    let engine = engine(1);
    let held = Held::new(&engine);
    let mut run = engine
        .batch(0..5)
        .max_in_flight(2)
        .map(|_, input| input)
        .unordered();
    let first = thread::scope(|scope| {
        let first = scope.spawn(|| run.next());
        while engine.metrics().total().queued < 2 {
            thread::yield_now();
        }
        held.let_go_alone();
        drop(engine);
        first.join().unwrap()
    });
    let rest: Vec<_> = first.into_iter().chain(run).collect();
    assert_eq!(rest.len(), 5);
    assert!(matches!(rest.last(), Some(Err(JobError::ShutDown))));
}

#[test]
fn batches_within_jobs_of_batches_on_one_worker() {
    for class in [Class::Cpu, Class::Io] {
        for most in [1, 2, 100] {
            watched();
            let engine = Engine::builder().cpu_workers(1).io_workers(0..=1);
            let engine = engine.build().unwrap();
            let sums = engine.batch(0..20_u64).class(class).max_in_flight(most);
            let sums = sums.map(move |ctx, outer| {
                let inner = ctx
                    .engine()
                    .batch(0..20_u64)
                    .class(class)
                    .max_in_flight(most);
                let inner = inner.map(move |ctx, inner| {
                    let last = ctx
                        .engine()
                        .batch(0..3_u64)
                        .class(class)
                        .max_in_flight(most);
                    let last = last.map(move |_, last| outer * inner + last);
                    last.unordered().map(Result::unwrap).sum::<u64>()
                });
                inner.fail_fast().unwrap().into_iter().sum::<u64>()
            });
            let expected = |outer: u64| (0..20).map(|inner| 3 * outer * inner + 3).sum::<u64>();
            assert!(values(sums.collect()).into_iter().eq((0..20).map(expected)));
        }
    }
}

#[test]
fn batches_within_batches_with_hardly_any_room() {
    watched();
    let engine = Engine::builder()
        .cpu_workers(1)
        .io_workers(0..=1)
        .queue_capacity(Class::Cpu, 1)
        .queue_capacity(Class::Io, 1)
        .build()
        .unwrap();
    let other = |class| {
        if class == Class::Cpu {
            Class::Io
        } else {
            Class::Cpu
        }
    };
    for class in [Class::Cpu, Class::Io] {
        let sums = engine
            .batch(0..100_u64)
            .class(class)
            // Fewer than there are spare threads: each waits for the other class, which waits for its.
            .max_in_flight(8)
            .map(move |ctx, outer| {
                let inner = ctx.engine().batch(0..20).class(other(class));
                let inner = inner.map(move |ctx, inner| {
                    let last = ctx.engine().batch(0..3).class(class);
                    last.map(move |_, last| outer + inner + last)
                        .collect()
                        .len()
                });
                values(inner.collect()).into_iter().sum::<usize>()
            });
        assert_eq!(values(sums.collect()), [60; 100]);
    }
}

#[test]
fn many_batches_at_once_from_many_threads_and_jobs() {
    watched();
    let topology = Topology::synthetic("NUMANode:2 Core:1").unwrap();
    let engine = Engine::builder().topology(topology).build().unwrap();
    let run = |engine: &Engine| {
        let squares = engine.batch(0..300_u64).max_in_flight(8).map(|_, n| n * n);
        values(squares.collect()).into_iter().sum::<u64>()
    };
    let expected = (0..300).map(|n| n * n).sum::<u64>();
    thread::scope(|scope| {
        for node in [0, 1, 0, 1] {
            let engine = &engine;
            scope.spawn(move || {
                assert_eq!(run(engine), expected);
                let inside = engine
                    .job()
                    .node(NodeId(node))
                    .submit(move |ctx| run(ctx.engine()));
                assert_eq!(inside.unwrap().join().unwrap(), expected);
                let inside = engine
                    .job()
                    .class(Class::Io)
                    .submit(move |ctx| run(ctx.engine()));
                assert_eq!(inside.unwrap().join().unwrap(), expected);
            });
        }
    });
}
