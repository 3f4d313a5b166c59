//! Jobs that wait for jobs: whatever waits for whatever, as long as it goes round in no circle.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::time::Duration;

use reiver::limit::HybridLimiter;
use reiver::{Class, Engine, JobContext, NodeId, Priority, Topology};

use crate::engine;
use crate::watchdog::watched;

/// Waits on an I/O thread until it is told.
fn io_wait(ctx: &JobContext, wait: Receiver<()>) {
    let io = ctx.engine().job().class(Class::Io);
    let io = io.submit(move |_| wait.recv().unwrap()).unwrap();
    io.join().unwrap();
}

#[test]
fn a_job_may_wait_for_one_that_waits_on_the_same_worker() {
    for workers in [1, 2] {
        for _ in 0..50 {
            let engine = engine(workers);
            let (go, wait) = sync_channel::<()>(1);
            let waits = engine.submit(move |ctx| {
                io_wait(ctx, wait);
                1
            });
            let mut last = waits;
            for _ in 0..4 {
                last = engine.submit(move |_| last.join().unwrap() + 1);
            }
            // Time for a worker to begin them all on top of each other, if it did that.
            assert_eq!(engine.submit(|_| 0).join().unwrap(), 0);
            go.send(()).unwrap();
            assert_eq!(last.join().unwrap(), 5);
        }
    }
}

#[test]
fn thousands_of_jobs_wait_at_once() {
    let engine = engine(2);
    let (go, wait) = channel::<()>();
    let gate = engine.job().class(Class::Io).submit(move |_| {
        let _ = wait.recv();
    });
    let gate = Arc::new(std::sync::Mutex::new(gate.ok()));
    let jobs: Vec<_> = (0..5_000)
        .map(|number| {
            let gate = Arc::clone(&gate);
            engine.submit(move |ctx| {
                // The first waits for the gate, the others for somebody who blocks for a moment.
                let first = gate.lock().unwrap().take();
                match first {
                    Some(gate) => gate.join().unwrap(),
                    None => {
                        let io = ctx.engine().job().class(Class::Io);
                        io.submit(|_| std::thread::yield_now())
                            .unwrap()
                            .join()
                            .unwrap();
                    }
                }
                number
            })
        })
        .collect();
    drop(go);
    for (number, job) in jobs.into_iter().enumerate() {
        assert_eq!(job.join().unwrap(), number);
    }
}

#[test]
fn a_join_lets_the_job_run_that_its_other_side_waits_for() {
    watched();
    let topology = Topology::synthetic("NUMANode:2 Core:1").unwrap();
    let engine = Engine::builder().topology(topology).build().unwrap();
    for _ in 0..20 {
        let job = engine.job().node(NodeId(0)).submit(|ctx| {
            let both = std::sync::Barrier::new(2);
            let strict = || {
                both.wait();
                // On the worker of node 1, which waits for a job of the node that waits for it.
                let job = ctx.engine().job().node(NodeId(0));
                job.submit(|ctx| ctx.node()).unwrap().join().unwrap()
            };
            ctx.engine().join(|| both.wait(), strict).1
        });
        assert_eq!(job.unwrap().join().unwrap(), NodeId(0));
    }
}

#[test]
fn the_urgent_may_wait_for_what_is_not() {
    let engine = engine(1);
    let urgent = engine.job().priority(Priority::P0).submit(|ctx| {
        let io = ctx.engine().job().class(Class::Io);
        let io = io.submit(|ctx| {
            let last = ctx.engine().job().priority(Priority::P2);
            last.submit(|_| 5).unwrap().join().unwrap()
        });
        io.unwrap().join().unwrap()
    });
    assert_eq!(urgent.unwrap().join().unwrap(), 5);
}

#[test]
fn one_io_thread_runs_what_it_waits_for_on_any_node() {
    watched();
    let topology = Topology::synthetic("NUMANode:2 Core:1").unwrap();
    let engine = Engine::builder()
        .topology(topology)
        .io_workers(0..=1)
        .build()
        .unwrap();
    let outer = engine.job().class(Class::Io).node(NodeId(0));
    let nodes = outer.submit(|ctx| {
        let inner = ctx.engine().job().class(Class::Io).node(NodeId(1));
        let inner = inner.submit(|ctx| ctx.node()).unwrap();
        (ctx.node(), inner.join().unwrap())
    });
    assert_eq!(nodes.unwrap().join().unwrap(), (NodeId(0), NodeId(1)));
}

/// Whatever it is that an I/O thread waits for in the engine, somebody else takes its place meanwhile.
#[test]
fn what_io_threads_wait_for_may_want_io_threads() {
    watched();
    fn in_io(engine: &Engine, body: impl FnOnce(&Engine) + Send + 'static) {
        let io = engine.job().class(Class::Io);
        io.submit(move |ctx| body(ctx.engine()))
            .unwrap()
            .join()
            .unwrap();
    }
    for threads in [1, 4] {
        for priority in [Priority::P0, Priority::P1, Priority::P2] {
            let engine = Engine::builder().io_workers(0..=threads);
            let engine = Arc::new(engine.cpu_workers(2).build().unwrap());
            let limiter = Arc::new(HybridLimiter::new(u32::MAX, u32::MAX, 1));
            let jobs = (0..4 * threads).map(|_| {
                let limiter = Arc::clone(&limiter);
                let io = engine.job().class(Class::Io);
                let job = io.submit(move |ctx| {
                    let compute = ctx.engine().job().priority(priority);
                    let compute = compute.submit(|ctx| in_io(ctx.engine(), |_| ()));
                    compute.unwrap().join().unwrap();
                    ctx.engine().install(|| {
                        reiver::join(|| in_io(ctx.engine(), |_| ()), || ());
                    });
                    // Whoever has the permit wants a thread.
                    let permit = limiter.acquire_timeout(1, Duration::from_secs(200));
                    let permit = permit.unwrap();
                    ctx.engine()
                        .install_at(priority, || in_io(ctx.engine(), |_| ()));
                    drop(permit);
                });
                job.unwrap()
            });
            let jobs: Vec<_> = jobs.collect();
            jobs.into_iter().for_each(|job| job.join().unwrap());
        }
    }
}

/// Runs some jobs, and gives how many of them were run by spare threads.
fn run_by_spares(engine: &Engine) -> usize {
    let workers = engine.metrics().workers();
    let jobs: Vec<_> = (0..200)
        .map(|_| {
            engine.submit(move |_| {
                std::thread::yield_now();
                let name = std::thread::current().name().unwrap().to_owned();
                let number: usize = name.rsplit('-').next().unwrap().parse().unwrap();
                number >= workers
            })
        })
        .collect();
    let jobs = jobs.into_iter();
    jobs.map(|job| usize::from(job.join().unwrap())).sum()
}

#[test]
fn an_engine_that_waited_a_lot_has_no_more_workers_than_before() {
    let engine = engine(2);
    for _ in 0..200 {
        let job = engine.submit(|ctx| {
            let io = ctx.engine().job().class(Class::Io).submit(|_| ());
            io.unwrap().join().unwrap();
        });
        job.join().unwrap();
    }
    // Nobody waits any more: each spare that has not come to rest yet may take one job, and no more.
    assert!(run_by_spares(&engine) <= 2);
    assert_eq!(engine.metrics().workers(), 2);
}

#[test]
fn what_blocks_inside_a_cpu_job_holds_up_nobody() {
    let engine = engine(1);
    let (go, wait) = channel::<u32>();
    let blocks = engine.submit(move |ctx| {
        let engine = ctx.engine();
        // Once within the other is as once; joins inside work on.
        let heard = engine.blocking(|| engine.blocking(|| wait.recv().unwrap()));
        engine.blocking(|| engine.join(|| heard, || heard + 1))
    });
    for number in 0..20 {
        assert_eq!(engine.submit(move |_| number).join().unwrap(), number);
    }
    go.send(3).unwrap();
    assert_eq!(blocks.join().unwrap(), (3, 4));
    // Anywhere else it is a call.
    assert_eq!(engine.blocking(|| 5), 5);
    let io = engine
        .job()
        .class(Class::Io)
        .submit(|ctx| ctx.engine().blocking(|| 6));
    assert_eq!(io.unwrap().join().unwrap(), 6);
}

#[test]
fn a_panic_in_what_blocks_gives_the_place_back() {
    let engine = engine(1);
    for _ in 0..100 {
        let job = engine.submit(|ctx| ctx.engine().blocking(|| std::panic::panic_any(1)));
        let outcome: Result<(), reiver::JobError> = job.join();
        assert!(outcome.is_err());
    }
    // As above.
    assert!(run_by_spares(&engine) <= 1);
}

#[test]
fn a_lock_held_across_a_join_is_waited_for_and_not_for_ever() {
    let engine = engine(2);
    let lock = std::sync::Mutex::new(0_u64);
    engine.par_for(0..2_000, 1, |_| {
        let mut held = engine.blocking(|| lock.lock().unwrap());
        *held += 1;
    });
    assert_eq!(lock.into_inner().unwrap(), 2_000);
}

#[test]
fn a_job_is_not_left_to_a_spare_that_waits_itself() {
    for _ in 0..50 {
        let engine = engine(1);
        let pairs: [_; 3] = std::array::from_fn(|_| channel());
        let [(go_first, first), (go_second, second), (go_third, third)] = pairs;
        let (says, hears) = channel();
        // Waits twice; a spare has taken its place for the first time only.
        let said = says.clone();
        let twice = engine.submit(move |ctx| {
            io_wait(ctx, first);
            said.send(()).unwrap();
            io_wait(ctx, second);
        });
        // What the spare does, which waits for longer.
        let other = engine.submit(move |ctx| {
            says.send(()).unwrap();
            io_wait(ctx, third);
        });
        hears.recv().unwrap();
        go_first.send(()).unwrap();
        hears.recv().unwrap();
        // Time for both to fall asleep.
        (0..100).for_each(|_| std::thread::yield_now());
        assert_eq!(engine.submit(|_| 7).join().unwrap(), 7);
        go_second.send(()).unwrap();
        go_third.send(()).unwrap();
        twice.join().unwrap();
        other.join().unwrap();
    }
}
