use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use reiver::{Class, Engine, NodeId, Topology};

use crate::{Held, engine};

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (left, right) = reiver::join(|| fib(n - 1), || fib(n - 2));
    left + right
}

/// Engines as unlike each other as may be.
fn engines() -> Vec<Engine> {
    let mut engines: Vec<Engine> = [1, 2, 7].map(engine).into();
    for described in ["NUMANode:4 Core:4", "NUMANode:8 Core:4 PU:2"] {
        let topology = Topology::synthetic(described).unwrap();
        engines.push(Engine::builder().topology(topology).build().unwrap());
    }
    engines
}

#[test]
fn joins_within_joins_give_both_results() {
    for engine in engines() {
        assert_eq!(engine.install(|| fib(20)), 6765);
        assert_eq!(engine.join(|| fib(15), || fib(16)), (610, 987));
    }
    assert_eq!(fib(18), 2584, "the free function, from outside");
}

#[test]
fn forks_borrow_what_they_need() {
    for engine in engines() {
        let mut values: Vec<u64> = (0..10_000).collect();
        fn double(values: &mut [u64]) {
            if values.len() <= 16 {
                values.iter_mut().for_each(|value| *value *= 2);
                return;
            }
            let (left, right) = values.split_at_mut(values.len() / 2);
            reiver::join(|| double(left), || double(right));
        }
        engine.install(|| double(&mut values));
        assert!(values.iter().enumerate().all(|(i, &v)| v == 2 * i as u64));
    }
}

#[test]
fn a_scope_ends_after_all_that_was_spawned_on_it() {
    fn spawn_tree<'s>(scope: &reiver::Scope<'s>, depth: u32, count: &'s AtomicUsize) {
        count.fetch_add(1, Ordering::Relaxed);
        if depth > 0 {
            for _ in 0..3 {
                scope.spawn(move |scope| spawn_tree(scope, depth - 1, count));
            }
        }
    }
    for engine in engines() {
        let count = AtomicUsize::new(0);
        let value = engine.scope(|scope| {
            spawn_tree(scope, 7, &count);
            "value"
        });
        assert_eq!(value, "value");
        assert_eq!(count.into_inner(), (3_usize.pow(8) - 1) / 2);
    }
}

#[test]
fn what_is_spawned_on_a_node_runs_whatever_the_node() {
    let topology = Topology::synthetic("NUMANode:2 Core:2").unwrap();
    let engine = Engine::builder().topology(topology).build().unwrap();
    let count = AtomicUsize::new(0);
    engine.scope(|scope| {
        for node in [0, 1, 99] {
            for _ in 0..100 {
                scope.spawn_on(NodeId(node), |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
        }
    });
    assert_eq!(count.into_inner(), 300);
}

fn message(panic: Box<dyn std::any::Any + Send>) -> &'static str {
    panic.downcast_ref::<&'static str>().copied().unwrap()
}

#[test]
fn a_panic_comes_out_of_a_join_once_both_sides_have_ended() {
    for engine in engines() {
        for (left, right, first) in [
            (true, false, "left"),
            (false, true, "right"),
            (true, true, "left"),
        ] {
            let ended = AtomicUsize::new(0);
            let side = |panics: bool, name: &'static str| {
                fib(5);
                ended.fetch_add(1, Ordering::Relaxed);
                if panics {
                    std::panic::panic_any(name);
                }
            };
            let joined = AssertUnwindSafe(|| {
                engine.join(|| side(left, "left"), || side(right, "right"));
            });
            assert_eq!(message(catch_unwind(joined).unwrap_err()), first);
            assert_eq!(ended.into_inner(), 2);
        }
        assert_eq!(engine.join(|| 1, || 2), (1, 2));
    }
}

#[test]
fn a_panic_comes_out_of_a_scope_once_everything_has_ended() {
    for engine in engines() {
        let ended = AtomicUsize::new(0);
        let scoped = AssertUnwindSafe(|| {
            engine.scope(|scope| {
                for number in 0..100 {
                    let ended = &ended;
                    scope.spawn(move |_| {
                        ended.fetch_add(1, Ordering::Relaxed);
                        if number == 50 {
                            std::panic::panic_any("spawned");
                        }
                    });
                }
            });
        });
        assert_eq!(message(catch_unwind(scoped).unwrap_err()), "spawned");
        assert_eq!(ended.into_inner(), 100);
        let body = AssertUnwindSafe(|| engine.scope(|_| std::panic::panic_any("body")));
        let panic: Box<dyn std::any::Any + Send> = catch_unwind(body).unwrap_err();
        assert_eq!(message(panic), "body");
        let installed = AssertUnwindSafe(|| engine.install(|| std::panic::panic_any("installed")));
        let panic = catch_unwind(installed).unwrap_err();
        assert_eq!(message(panic), "installed");
    }
}

#[test]
fn free_functions_use_the_engine_they_are_called_in() {
    let engine = engine(2);
    let before = engine.metrics();
    let inside = |class| {
        engine
            .job()
            .class(class)
            .submit(|_| {
                let here = || std::thread::current().name().map(str::to_owned);
                let (left, right) = reiver::join(here, here);
                [left.unwrap(), right.unwrap()]
            })
            .unwrap()
            .join()
            .unwrap()
    };
    // Forks of a blocking job run on the workers that compute, never on threads that block.
    for class in [Class::Cpu, Class::Io] {
        for name in inside(class) {
            assert!(name.starts_with("reiver-cpu-"), "{name}");
        }
    }
    assert_eq!(before.workers(), 2);
}

#[test]
fn engines_within_engines_wait_for_each_other() {
    let outer = engine(1);
    let inner = engine(1);
    let value = outer.install(|| inner.install(|| outer.install(|| inner.join(|| 1, || 2))));
    assert_eq!(value, (1, 2));
    let job = outer.install(|| inner.submit(|_| fib(10)).join().unwrap());
    assert_eq!(job, 55);
}

#[test]
fn installs_from_many_threads_meet_in_one_worker() {
    let engine = engine(1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert_eq!(engine.install(|| fib(6)), 8);
                }
            });
        }
    });
}

#[test]
fn a_scope_takes_work_from_threads_that_are_no_workers() {
    let engine = engine(2);
    let seen = Mutex::new(Vec::new());
    engine.scope(|scope| {
        std::thread::scope(|threads| {
            for number in 0..4 {
                let seen = &seen;
                threads.spawn(move || {
                    for _ in 0..100 {
                        scope.spawn(move |_| seen.lock().unwrap().push(number));
                    }
                });
            }
        });
    });
    assert_eq!(seen.into_inner().unwrap().len(), 400);
}

#[test]
fn a_fork_is_stolen_while_its_owner_is_busy() {
    let engine = engine(2);
    // Both sides wait for the other: one thread alone would hang.
    let barrier = std::sync::Barrier::new(2);
    for _ in 0..200 {
        engine.join(|| barrier.wait(), || barrier.wait());
    }
    let steals = engine.metrics().steals();
    let all = steals.same_cache + steals.same_node + steals.remote;
    assert!(all >= 200, "{steals:?}");
}

#[test]
fn jobs_are_taken_by_the_worker_that_is_free() {
    let engine = engine(2);
    let held = Held::new(&engine);
    for _ in 0..100 {
        assert_eq!(engine.submit(|_| fib(8)).join().unwrap(), 21);
    }
    held.let_go();
}

/// Panics again when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload's destructor panics");
    }
}

#[test]
fn payloads_that_panic_when_they_are_dropped_unwind_through_nothing() {
    for engine in engines() {
        let ended = AtomicUsize::new(0);
        let scoped = AssertUnwindSafe(|| {
            engine.scope(|scope| {
                for _ in 0..50 {
                    scope.spawn(|_| {
                        ended.fetch_add(1, Ordering::Relaxed);
                        std::panic::panic_any(Bomb);
                    });
                }
            });
        });
        std::mem::forget(catch_unwind(scoped).unwrap_err());
        assert_eq!(ended.into_inner(), 50);
        let side = || std::panic::panic_any(Bomb);
        let joined = AssertUnwindSafe(|| engine.join(side, side));
        std::mem::forget(catch_unwind(joined).map(|((), ())| ()).unwrap_err());
        let job = engine.submit(|_| std::panic::panic_any(Bomb));
        std::mem::forget(job.join().unwrap_err());
        assert_eq!(engine.join(|| 1, || 2), (1, 2));
    }
}

#[test]
fn a_fork_is_a_part_of_the_job_that_made_it_whoever_runs_it() {
    let engine = engine(2);
    let far = std::time::Duration::from_secs(1000);
    let both = std::sync::Arc::new(std::sync::Barrier::new(2));
    for has_deadline in [true, false] {
        let both = std::sync::Arc::clone(&both);
        let job = engine.job();
        let job = if has_deadline { job.deadline(far) } else { job };
        let job = job.submit(move |ctx| {
            let stolen = || {
                both.wait();
                let inner = ctx.engine().submit(|ctx| ctx.deadline());
                inner.join().unwrap()
            };
            let (_, inner) = reiver::join(|| both.wait(), stolen);
            (ctx.deadline(), inner)
        });
        let (own, inner) = job.unwrap().join().unwrap();
        assert_eq!(own.is_some(), has_deadline);
        assert_eq!(inner, own);
    }
}
