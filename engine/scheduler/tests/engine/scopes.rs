//! What is spawned: from where, of what size, and what it leaves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use reiver::{Class, Engine, NodeId, Scope, Topology};

use crate::engine;
use crate::size::sized;
use crate::watchdog::watched;

/// Engines as unlike each other as may be.
fn engines() -> Vec<Engine> {
    watched();
    let mut engines: Vec<Engine> = [1, 2, 5].map(engine).into();
    let topology = Topology::synthetic("NUMANode:3 Core:1 PU:1").unwrap();
    engines.push(Engine::builder().topology(topology).build().unwrap());
    engines
}

#[test]
fn a_scope_takes_work_from_threads_of_every_kind() {
    for engine in engines() {
        let other = crate::engine(2);
        let count = AtomicUsize::new(0);
        let rounds = sized(200);
        engine.scope(|scope| {
            let spawn_all = |from: &'static str| {
                let count = &count;
                for number in 0..100 {
                    let node = [NodeId(number % 4), NodeId(u32::MAX)][number as usize % 2];
                    scope.spawn_on(node, move |scope| {
                        assert!(!from.is_empty());
                        scope.spawn(move |_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                    scope.spawn(move |_| {
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                }
            };
            for _ in 0..rounds {
                thread::scope(|threads| {
                    threads.spawn(move || spawn_all("a thread that is nobody's"));
                    spawn_all("its owner");
                    other.join(
                        || spawn_all("a worker of another engine"),
                        || spawn_all("a worker of another engine"),
                    );
                });
            }
        });
        assert_eq!(count.into_inner(), 4 * 200 * rounds);
    }
}

#[test]
fn scopes_of_jobs_that_block_are_done_by_workers() {
    for engine in engines() {
        let jobs = (0..sized(200)).map(|_| {
            let job = engine.job().class(Class::Io);
            let job = job.submit(|ctx| {
                let count = AtomicUsize::new(0);
                ctx.engine().scope(|scope| {
                    for _ in 0..100 {
                        scope.spawn(|_| {
                            let name = thread::current().name().map(str::to_owned);
                            assert!(name.unwrap().starts_with("reiver-cpu-"));
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
                count.into_inner()
            });
            job.unwrap()
        });
        let jobs: Vec<_> = jobs.collect();
        assert!(jobs.into_iter().all(|job| job.join().unwrap() == 100));
    }
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

#[derive(Clone, Copy)]
#[repr(align(128))]
struct Lines([u8; 4096]);

/// Gives how often `body` is run in all by everything that runs closures; each time what it holds must
/// have come over whole, to where it may lie.
fn everywhere<F: FnOnce() + Copy + Send + Sync + 'static>(engine: &Engine, body: F) -> usize {
    engine.scope(|scope| {
        for _ in 0..100 {
            scope.spawn(move |scope| {
                body();
                scope.spawn(move |_| body());
            });
            scope.spawn_on(NodeId(0), move |_| body());
        }
        thread::scope(|threads| {
            threads.spawn(|| scope.spawn(move |_| body()));
        });
        for _ in 0..10 {
            reiver::join(body, body);
        }
    });
    engine.install(body);
    engine.join(body, body);
    engine.submit(move |_| body()).join().unwrap();
    300 + 1 + 20 + 1 + 2 + 1
}

#[test]
fn closures_of_every_size_and_alignment_come_over_whole() {
    static RAN: AtomicUsize = AtomicUsize::new(0);

    fn holds<T: Copy + Send + Sync + 'static>(
        value: T,
        check: fn(&T) -> bool,
    ) -> impl FnOnce() + Copy + Send + Sync {
        move || {
            let value = value;
            assert!((&raw const value).is_aligned());
            assert!(check(&value));
            RAN.fetch_add(1, Ordering::Relaxed);
        }
    }

    for engine in engines() {
        let mut expected = RAN.load(Ordering::Relaxed);
        for _ in 0..sized(20) {
            expected += everywhere(&engine, || {
                RAN.fetch_add(1, Ordering::Relaxed);
            });
            expected += everywhere(&engine, holds(7_u8, |&byte| byte == 7));
            // Around the most that an arena takes, with what stands before it.
            expected += everywhere(&engine, holds([3_u8; 976], |bytes| *bytes == [3; 976]));
            expected += everywhere(&engine, holds([3_u8; 1000], |bytes| *bytes == [3; 1000]));
            expected += everywhere(&engine, holds([3_u8; 1025], |bytes| *bytes == [3; 1025]));
            expected += everywhere(&engine, holds([5_u8; 5000], |bytes| *bytes == [5; 5000]));
            expected += everywhere(&engine, holds(1_u128, |&number| number == 1));
            expected += everywhere(&engine, holds(Line([9; 64]), |line| line.0 == [9; 64]));
            let lines = holds(Lines([9; 4096]), |lines| lines.0 == [9; 4096]);
            expected += everywhere(&engine, lines);
        }
        assert_eq!(RAN.load(Ordering::Relaxed), expected);
    }
}

/// Panics when it is dropped.
struct Bomb<'c>(&'c AtomicUsize);

impl Drop for Bomb<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new("a destructor panics"));
    }
}

#[test]
fn a_panic_in_the_destructor_of_what_a_closure_holds_is_one_of_the_closure() {
    let dropped = AtomicUsize::new(0);
    let mut bombs = 0;
    for engine in engines() {
        for _ in 0..sized(20) {
            let scoped = AssertUnwindSafe(|| {
                engine.scope(|scope| {
                    for _ in 0..100 {
                        let (here, there) = (Bomb(&dropped), Bomb(&dropped));
                        // Ended with the call; never called by name.
                        scope.spawn(move |_| drop(here));
                        scope.spawn_on(NodeId(0), move |_| {
                            let _held = &there;
                        });
                    }
                });
            });
            let panic = catch_unwind(scoped).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"a destructor panics"));
            let (left, right) = (Bomb(&dropped), Bomb(&dropped));
            let joined = AssertUnwindSafe(|| engine.join(move || drop(left), move || drop(right)));
            assert!(catch_unwind(joined).is_err());
            let held = Bomb(&dropped);
            let installed = AssertUnwindSafe(|| {
                engine.install(move || {
                    let _held = &held;
                });
            });
            assert!(catch_unwind(installed).is_err());
            bombs += 203;
        }
        assert_eq!(engine.join(|| 1, || 2), (1, 2));
    }
    assert_eq!(dropped.into_inner(), bombs);
}

#[test]
fn spawning_goes_on_while_others_take_what_was_spawned() {
    fn spawn_tree<'s>(scope: &Scope<'s>, depth: usize, ran: &'s AtomicUsize) {
        ran.fetch_add(1, Ordering::Relaxed);
        for _ in 0..if depth > 0 { 4 } else { 0 } {
            scope.spawn(move |scope| spawn_tree(scope, depth - 1, ran));
        }
    }
    for engine in engines() {
        for _ in 0..sized(10) {
            let ran = AtomicUsize::new(0);
            engine.scope(|scope| {
                let ran = &ran;
                for number in 0..5000 {
                    // So that thieves have time to come in between.
                    if number % 500 == 0 {
                        thread::yield_now();
                    }
                    scope.spawn(move |scope| spawn_tree(scope, number % 3, ran));
                }
            });
            // 5000 in thirds of trees of 1, 5 and 21.
            assert_eq!(ran.into_inner(), 1667 + 1667 * 5 + 1666 * 21);
        }
    }
}

#[test]
fn what_is_spawned_by_a_worker_that_then_ends_its_job_is_freed_by_others() {
    let engine = engine(4);
    // The blocks that a thief has spawned are run, and given back, by other threads than its own.
    for _ in 0..sized(200) {
        let sum = AtomicUsize::new(0);
        engine.scope(|outer| {
            for _ in 0..8 {
                let sum = &sum;
                outer.spawn(move |outer| {
                    for number in 0..200 {
                        let boxed = Box::new(number);
                        outer.spawn(move |_| {
                            sum.fetch_add(*boxed, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 8 * 199 * 100);
    }
}

/// A spare thread that had taken a worker's place went to rest as soon as it was one too many, with
/// forks in its list that nobody looked at any more.
#[test]
fn a_spare_does_not_rest_while_it_holds_what_was_spawned_on_it() {
    let (engine, other) = (engine(1), crate::engine(1));
    for _ in 0..sized(200) {
        let (begun, ran) = (Barrier::new(2), AtomicUsize::new(0));
        let is_back = AtomicBool::new(false);
        engine.scope(|scope| {
            let (begun, is_back, ran) = (&begun, &is_back, &ran);
            // On the spare, for the worker waits until it has begun; it ends when the worker is back,
            // and the spare one too many.
            scope.spawn_on(NodeId(0), move |scope| {
                begun.wait();
                while !is_back.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                scope.spawn(move |_| {
                    ran.fetch_add(1, Ordering::Relaxed);
                });
            });
            other.install(|| begun.wait());
            is_back.store(true, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 1);
    }
}
