//! Engines within engines: who waits for whom, panics on their way out, and ends in each other's jobs.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use reiver::{Class, Engine, JobError, NodeId, WhenFull};

use crate::size::sized;
use crate::{Held, engine};

const LONG: Duration = Duration::from_secs(200);

fn message(panic: Box<dyn Any + Send>) -> &'static str {
    panic.downcast_ref::<&'static str>().copied().unwrap()
}

#[test]
fn two_engines_of_one_worker_install_into_each_other_a_hundred_deep() {
    fn ping(here: &Engine, there: &Engine, depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        1 + here.install(|| ping(there, here, depth - 1))
    }
    let (a, b) = (engine(1), engine(1));
    for depth in [2, 3, 10, 100] {
        assert_eq!(ping(&a, &b, depth), depth);
        assert_eq!(ping(&b, &a, depth), depth);
    }
}

#[test]
fn two_engines_of_one_worker_install_into_each_other_from_many_threads() {
    let (a, b) = (engine(1), engine(1));
    thread::scope(|threads| {
        for number in 0..4 {
            let (here, there) = if number % 2 == 0 { (&a, &b) } else { (&b, &a) };
            threads.spawn(move || {
                for round in 0..sized(500) {
                    let value = here.install(|| there.install(|| here.join(|| round, || 1)));
                    assert_eq!(value, (round, 1));
                }
            });
        }
    });
}

#[test]
fn a_join_within_an_install_within_a_scope_of_another_engine() {
    // A worker that waits runs what it has spawned itself, on the same stack: so only few at once.
    const AT_ONCE: usize = 20;
    for workers in [1, 2] {
        let (a, b) = (engine(workers), engine(workers));
        for _ in 0..sized(100) {
            let sum = AtomicUsize::new(0);
            a.scope(|outer| {
                for number in 0..AT_ONCE {
                    let (a, b, sum) = (&a, &b, &sum);
                    outer.spawn(move |outer| {
                        let sides = b.install(|| {
                            // On a worker of the other engine, for the scope of the first.
                            outer.spawn(move |_| {
                                sum.fetch_add(1, Ordering::Relaxed);
                            });
                            reiver::join(|| a.install(|| number), || number)
                        });
                        assert_eq!(sides, (number, number));
                        sum.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
            assert_eq!(sum.into_inner(), 2 * AT_ONCE);
        }
    }
}

#[test]
fn jobs_of_two_engines_wait_for_each_other() {
    let (a, b) = (Arc::new(engine(1)), Arc::new(engine(1)));
    for round in 0..sized(500) {
        let there = Arc::clone(&b);
        let value = a.submit(move |here| {
            let there_job = there.submit(move |there| {
                let io = there.engine().job().class(Class::Io).submit(move |_| round);
                io.unwrap().join().unwrap()
            });
            here.engine()
                .submit(move |_| there_job.join().unwrap())
                .join()
                .unwrap()
        });
        assert_eq!(value.join().unwrap(), round);
    }
    // Or the jobs would be the last to hold it, and end it.
    while Arc::strong_count(&b) > 1 {
        thread::yield_now();
    }
}

#[test]
fn an_engine_ends_inside_what_another_one_does() {
    let outer = engine(2);
    for _ in 0..sized(50) {
        let ends = || {
            let inner = engine(2);
            let queued: Vec<_> = (0..100)
                .map(|number| inner.submit(move |_| number))
                .collect();
            inner.join(|| (), || ());
            drop(inner);
            for (number, job) in queued.into_iter().enumerate() {
                match job.join() {
                    Ok(value) => assert_eq!(value, number),
                    Err(error) => assert!(matches!(error, JobError::ShutDown), "{error:?}"),
                }
            }
        };
        outer.submit(move |_| ends()).join().unwrap();
        let io = outer.job().class(Class::Io).submit(move |_| ends());
        io.unwrap().join().unwrap();
        outer.join(ends, ends);
        outer.scope(|scope| (0..3).for_each(|_| scope.spawn(move |_| ends())));
        let inner = engine(1);
        let held = inner.submit(|_| LONG);
        // The job that ends it is one that it waits for itself, by way of the other.
        outer.install(move || drop(inner));
        assert!(matches!(held.join(), Ok(LONG) | Err(JobError::ShutDown)));
    }
}

#[test]
fn a_hundred_engines_at_once() {
    let engines: Vec<Engine> = (0..sized(100).max(2)).map(|_| engine(2)).collect();
    let sum = AtomicUsize::new(0);
    fn through(engines: &[Engine], sum: &AtomicUsize) {
        let Some((first, others)) = engines.split_first() else {
            return;
        };
        first.join(
            || through(others, sum),
            || sum.fetch_add(1, Ordering::Relaxed),
        );
    }
    through(&engines, &sum);
    assert_eq!(sum.load(Ordering::Relaxed), engines.len());
    thread::scope(|threads| {
        for engine in &engines {
            let sum = &sum;
            threads.spawn(move || {
                engine.par_for(0..100, 1, |_| {
                    sum.fetch_add(1, Ordering::Relaxed);
                });
            });
        }
    });
    assert_eq!(sum.into_inner(), 101 * engines.len());
}

#[test]
fn a_panic_comes_out_of_engines_within_engines() {
    let [a, b, c] = [1, 2, 1].map(engine);
    let bomb = || -> usize { std::panic::panic_any("deep inside") };
    let in_join = || c.join(|| 1, bomb).0;
    let in_scope = || {
        b.scope(|scope| {
            scope.spawn(|_| {
                in_join();
            });
            1
        })
    };
    let in_install = || a.install(|| b.install(|| a.install(bomb)));
    let in_loop = || {
        a.par_for(0..100, 1, |i| {
            if i == 50 {
                b.install(|| c.join(bomb, || 1));
            }
        });
        1
    };
    let ways: [&(dyn Fn() -> usize + Sync); 4] = [&in_join, &in_scope, &in_install, &in_loop];
    for _ in 0..sized(50) {
        for way in ways {
            for outer in [&a, &b] {
                let panic = catch_unwind(AssertUnwindSafe(|| outer.install(way)));
                assert_eq!(message(panic.unwrap_err()), "deep inside");
            }
        }
    }
    let there = Arc::new(c);
    let of_job = Arc::clone(&there);
    let job = a.submit(move |_| {
        let job = of_job.submit(|_| -> usize { std::panic::panic_any("deep inside") });
        match job.join().unwrap_err() {
            JobError::Panicked(panic) => std::panic::resume_unwind(panic.into_inner()),
            other => panic!("{other:?}"),
        }
    });
    let outcome: Result<usize, JobError> = job.join();
    let Err(JobError::Panicked(panic)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(panic.message().as_deref(), Some("deep inside"));
    while Arc::strong_count(&there) > 1 {
        thread::yield_now();
    }
}

/// An engine whose threads have been told to stop, while one of its jobs goes on.
fn stopped<R: Send + 'static>(
    class: Class,
    after: impl FnOnce(&Engine) -> R + Send + 'static,
) -> R {
    let (gives, takes) = channel::<Engine>();
    let engine = engine(2);
    let job = engine.job().class(class).submit(move |ctx| {
        drop(takes.recv().unwrap());
        after(ctx.engine())
    });
    gives.send(engine).unwrap();
    job.unwrap().join().unwrap()
}

#[test]
fn forks_of_a_job_that_has_ended_its_engine_are_all_done() {
    for class in [Class::Cpu, Class::Io] {
        for _ in 0..sized(200) {
            let count = stopped(class, |engine| {
                let count = AtomicUsize::new(0);
                let one = || {
                    count.fetch_add(1, Ordering::Relaxed);
                };
                engine.scope(|scope| {
                    for node in [0, 1, u32::MAX] {
                        scope.spawn_on(NodeId(node), |scope| {
                            one();
                            scope.spawn(|_| one());
                        });
                        scope.spawn(|scope| {
                            one();
                            scope.spawn_on(NodeId(0), |_| one());
                        });
                    }
                    thread::scope(|threads| {
                        threads.spawn(|| {
                            scope.spawn(|scope| {
                                one();
                                scope.spawn(|_| one());
                            });
                        });
                    });
                });
                engine.join(one, || engine.join(one, one));
                engine.par_for(0..10, 1, |_| one());
                assert!(matches!(
                    engine.submit(|_| ()).join(),
                    Err(JobError::ShutDown)
                ));
                count.into_inner()
            });
            assert_eq!(count, 12 + 2 + 3 + 10);
        }
    }
}

#[test]
fn who_comes_to_a_stopped_engine_leaves_no_fork_of_others_undone() {
    for _ in 0..sized(200) {
        let ran = stopped(Class::Io, |engine| {
            let ran = AtomicUsize::new(0);
            let (says, hears) = channel();
            let (ran_in, hears) = (&ran, Mutex::new(hears));
            thread::scope(|threads| {
                engine.scope(|scope| {
                    // Done by who comes, while the owner is here.
                    scope.spawn_on(NodeId(0), move |scope| {
                        scope.spawn(move |_| {
                            ran_in.fetch_add(1, Ordering::Relaxed);
                        });
                        says.send(()).unwrap();
                    });
                    threads.spawn(|| engine.install(|| ()));
                    hears.lock().unwrap().recv().unwrap();
                });
            });
            ran.into_inner()
        });
        assert_eq!(ran, 1);
    }
}

#[test]
fn a_job_that_another_engines_job_runs_itself_may_end_that_engine() {
    let outer = Arc::new(engine(1));
    let inner = Engine::builder()
        .cpu_workers(1)
        .queue_capacity(Class::Cpu, 1)
        .when_full(Class::Cpu, WhenFull::CallerRuns)
        .build()
        .unwrap();
    let inner = Arc::new(inner);
    let held = Held::new(&inner);
    let queued = inner.submit(|_| ());
    let (ends, runs) = (Arc::clone(&outer), Arc::clone(&inner));
    let job = outer.submit(move |_| {
        let inside = runs.submit(move |_| ends.shutdown(Duration::MAX).is_clean());
        inside.join().unwrap()
    });
    assert!(job.join().unwrap());
    held.let_go();
    queued.join().unwrap();
}
