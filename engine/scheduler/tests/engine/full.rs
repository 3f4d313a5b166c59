//! Queues that are full, and what becomes of those who submit to them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use reiver::{
    CancellationToken, Class, Engine, EngineBuilder, JobContext, JobError, NodeId, Phase, Priority,
    SubmitError, Topology, WhenFull,
};

use crate::Held;
use crate::watchdog::watched;

fn small(class: Class, capacity: usize, when_full: WhenFull) -> EngineBuilder {
    watched();
    Engine::builder()
        .cpu_workers(1)
        .io_workers(0..=1)
        .queue_capacity(class, capacity)
        .when_full(class, when_full)
}

/// Holds the only thread of a class.
fn hold(engine: &Engine, class: Class) -> Held {
    let (go, wait) = sync_channel::<()>(1);
    let (says, begun) = sync_channel(1);
    let job = engine.job().class(class).submit(move |_| {
        says.send(()).unwrap();
        wait.recv().unwrap();
    });
    begun.recv().unwrap();
    Held {
        go,
        job: job.unwrap(),
    }
}

#[test]
fn exactly_as_many_wait_as_may_however_many_submit() {
    for class in [Class::Cpu, Class::Io] {
        let engine = small(class, 100, WhenFull::Reject).build().unwrap();
        let held = hold(&engine, class);
        let (taken, together) = (AtomicUsize::new(0), Barrier::new(4));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    together.wait();
                    for _ in 0..200 {
                        match engine.job().class(class).submit(|_| ()) {
                            Ok(job) => {
                                drop(job);
                                taken.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => assert_eq!(error, SubmitError::QueueFull),
                        }
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 100, "{class:?}");
        assert_eq!(engine.metrics().total().queued, 100);
        held.let_go();
    }
}

#[test]
fn whoever_submits_to_a_full_queue_waits_for_room() {
    for class in [Class::Cpu, Class::Io] {
        let engine = small(class, 2, WhenFull::Block).build().unwrap();
        let held = hold(&engine, class);
        let done = Arc::new(AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let done = Arc::clone(&done);
                        let job = engine.job().class(class).submit(move |_| {
                            done.fetch_add(1, Ordering::Relaxed);
                        });
                        drop(job.unwrap());
                    }
                });
            }
            held.let_go_alone();
        });
        let _ = engine.shutdown(Duration::from_secs(200));
        assert_eq!(done.load(Ordering::Relaxed), 2000);
        assert_eq!(engine.metrics().total().rejected, 0);
    }
}

#[test]
fn a_job_that_submits_to_a_queue_that_only_its_own_worker_empties_waits_and_gets_room() {
    for (class, capacity) in [(Class::Cpu, 1), (Class::Io, 1), (Class::Cpu, 3)] {
        let engine = small(class, capacity, WhenFull::Block).build().unwrap();
        for _ in 0..20 {
            let outer = engine.job().class(class).submit(move |ctx| {
                let jobs: Vec<_> = (0..50)
                    .map(|number| {
                        let job = ctx.engine().job().class(class);
                        job.submit(move |_| number).unwrap()
                    })
                    .collect();
                jobs.into_iter().map(|job| job.join().unwrap()).sum::<u64>()
            });
            assert_eq!(outer.unwrap().join().unwrap(), 49 * 50 / 2);
        }
    }
}

/// A tree of jobs, each of which says that it ran, submits its children, and waits for none of them.
fn tree(ctx: &JobContext, classes: [Class; 2], depth: u32, says: &Sender<()>) {
    says.send(()).unwrap();
    for class in classes {
        if depth > 0 {
            let says = says.clone();
            let job = ctx.engine().job().class(class);
            drop(
                job.submit(move |ctx| tree(ctx, classes, depth - 1, &says))
                    .unwrap(),
            );
        }
    }
}

/// How many jobs ran.
fn grow(engine: &Engine, classes: [Class; 2], depth: u32) -> usize {
    let (says, ran) = channel();
    let root = engine.job().class(classes[0]);
    let root = root.submit(move |ctx| tree(ctx, classes, depth, &says));
    root.unwrap().join().unwrap();
    ran.iter().count()
}

#[test]
fn more_jobs_than_there_can_be_threads_submit_to_a_full_queue_at_once() {
    for class in [Class::Cpu, Class::Io] {
        for when_full in [WhenFull::Block, WhenFull::CallerRuns] {
            let engine = small(class, 1, when_full).build().unwrap();
            assert_eq!(grow(&engine, [class; 2], 11), (1 << 12) - 1);
        }
    }
}

#[test]
fn classes_that_submit_to_each_other_fill_both_queues_and_get_on() {
    let engine = small(Class::Cpu, 1, WhenFull::Block)
        .queue_capacity(Class::Io, 1)
        .when_full(Class::Io, WhenFull::Block)
        .build()
        .unwrap();
    assert_eq!(grow(&engine, [Class::Cpu, Class::Io], 11), (1 << 12) - 1);
}

#[test]
fn one_io_thread_is_one_again_after_it_waited_for_room() {
    let engine = small(Class::Io, 1, WhenFull::Block).build().unwrap();
    let outer = engine.job().class(Class::Io).submit(|ctx| {
        let inner = |_| ctx.engine().job().class(Class::Io).submit(|_| ()).unwrap();
        let jobs: Vec<_> = (0..50).map(inner).collect();
        jobs.into_iter().for_each(|job| job.join().unwrap());
    });
    outer.unwrap().join().unwrap();
    // One that took its place meanwhile may run one more job, and no more.
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let jobs: Vec<_> = (0..200)
        .map(|number| {
            let (at_once, most) = (Arc::clone(&at_once), Arc::clone(&most));
            let job = engine.job().class(Class::Io).submit(move |_| {
                let now = at_once.fetch_add(1, Ordering::Relaxed) + 1;
                if number >= 20 {
                    most.fetch_max(now, Ordering::Relaxed);
                }
                thread::yield_now();
                at_once.fetch_sub(1, Ordering::Relaxed);
            });
            job.unwrap()
        })
        .collect();
    jobs.into_iter().for_each(|job| job.join().unwrap());
    assert_eq!(most.load(Ordering::Relaxed), 1);
}

#[test]
fn shutdown_ends_the_wait_for_room() {
    let engine = small(Class::Cpu, 1, WhenFull::Block).build().unwrap();
    let held = Held::new(&engine);
    let queued = engine.submit(|_| 1);
    thread::scope(|scope| {
        let blocked = scope.spawn(|| engine.job().submit(|_| 2).map(drop));
        let inside = scope.spawn(|| {
            let _ = engine.shutdown(Duration::ZERO);
        });
        assert_eq!(blocked.join().unwrap(), Err(SubmitError::ShutDown));
        inside.join().unwrap();
    });
    assert!(matches!(queued.join(), Err(JobError::ShutDown)));
    assert_eq!(engine.metrics().total().rejected, 1);
    held.let_go();
}

#[test]
fn a_background_job_waits_for_room_no_longer_than_its_deadline() {
    let engine = small(Class::Io, 1, WhenFull::Block).build().unwrap();
    let held = hold(&engine, Class::Io);
    let queued = engine.job().class(Class::Io).submit(|_| 1).unwrap();
    let background = engine.job().priority(Priority::P2).submit(|ctx| {
        let job = ctx.engine().job().class(Class::Io);
        let late = job.deadline(Duration::from_millis(20)).submit(|_| 2);
        late.unwrap().join()
    });
    let late = background.unwrap().join().unwrap();
    let phase = Phase::Queued;
    assert!(matches!(late, Err(JobError::DeadlineExceeded { phase: at }) if at == phase));
    held.let_go();
    assert_eq!(queued.join().unwrap(), 1);
}

#[test]
fn a_job_that_is_cancelled_in_the_queue_makes_room() {
    let engine = small(Class::Cpu, 1, WhenFull::Block).build().unwrap();
    let held = Held::new(&engine);
    let token = CancellationToken::new();
    let queued = engine.job().cancel_with(&token).submit(|_| 1).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| engine.job().submit(|_| 2).unwrap());
        token.cancel();
        let last = blocked.join().unwrap();
        held.let_go();
        assert_eq!(last.join().unwrap(), 2);
    });
    assert!(matches!(queued.join(), Err(JobError::Cancelled)));
}

#[test]
fn what_the_caller_runs_is_a_job_like_any_other() {
    for class in [Class::Cpu, Class::Io] {
        let engine = small(class, 1, WhenFull::CallerRuns).build().unwrap();
        let held = hold(&engine, class);
        let queued = engine.job().class(class).submit(|_| 1).unwrap();
        let me = thread::current().id();

        let job = engine.job().class(class).name("mine");
        let ran = job.submit(move |ctx| {
            let running = ctx.engine().running();
            assert!(running.iter().any(|job| job.name() == Some("mine")));
            assert_eq!(
                ctx.node(),
                Topology::detect().unwrap().nodes().next().unwrap()
            );
            // What it forks and submits goes to its engine.
            let doubled = ctx.engine().job().class(class).submit(|_| 2).unwrap();
            assert!(doubled.is_finished());
            thread::current().id()
        });
        assert_eq!(ran.unwrap().join().unwrap(), me);

        let panics = engine.job().class(class).submit(|_| panic!("as it should"));
        let panics: Result<(), JobError> = panics.unwrap().join();
        assert!(matches!(panics, Err(JobError::Panicked(_))));

        let token = CancellationToken::new();
        let own = token.clone();
        let job = engine.job().class(class).cancel_with(&token);
        let told = job.submit(move |ctx| {
            own.cancel();
            ctx.checkpoint().unwrap_err()
        });
        assert!(matches!(told.unwrap().join(), Err(JobError::Cancelled)));
        let job = engine.job().class(class).cancel_with(&token);
        let never = job.submit(|_| unreachable!()).unwrap();
        assert!(matches!(never.join(), Err::<(), _>(JobError::Cancelled)));
        let late = engine.job().class(class).deadline(Duration::ZERO);
        let late = late.submit(|_| unreachable!()).unwrap().join();
        assert!(matches!(
            late,
            Err::<(), _>(JobError::DeadlineExceeded { .. })
        ));

        let jobs = engine.metrics().total();
        assert_eq!((jobs.completed, jobs.panicked), (2, 1));
        assert_eq!((jobs.cancelled, jobs.deadline_exceeded), (2, 1));
        assert_eq!((jobs.queued, jobs.running, jobs.rejected), (1, 1, 0));
        held.let_go();
        assert_eq!(queued.join().unwrap(), 1);
    }
}

#[test]
fn a_job_that_its_caller_runs_forks_on_the_engine_and_finds_it() {
    let engine = small(Class::Cpu, 1, WhenFull::CallerRuns)
        .cpu_workers(2)
        .build()
        .unwrap();
    let (first, second) = (Held::new(&engine), Held::new(&engine));
    let queued = engine.submit(|_| 1);
    thread::scope(|scope| {
        let (says, begun) = channel();
        let caller = scope.spawn(|| {
            let job = engine.submit(move |_| {
                says.send(()).unwrap();
                reiver::join(|| thread::current().id(), || 5)
            });
            job.join().unwrap()
        });
        begun.recv().unwrap();
        first.let_go();
        assert_ne!(caller.join().unwrap().0, thread::current().id());
    });
    second.let_go();
    assert_eq!(queued.join().unwrap(), 1);
}

#[test]
fn what_the_worker_of_another_engine_runs_for_it_may_wait_for_that_engine() {
    let outer = small(Class::Cpu, 1, WhenFull::CallerRuns).build().unwrap();
    let inner = Arc::new(small(Class::Cpu, 1, WhenFull::CallerRuns).build().unwrap());
    let held = Held::new(&inner);
    let queued = inner.submit(|_| 1);
    let of_inner = Arc::clone(&inner);
    let job = outer.submit(move |ctx| {
        // Runs here, and waits for a job that only this worker's engine can run.
        let (says, hears) = channel();
        let last = ctx.engine().submit(move |_| says.send(7).unwrap());
        let job = of_inner.submit(move |_| hears.recv().unwrap());
        (job.join().unwrap(), last.join().unwrap())
    });
    assert_eq!(job.join().unwrap(), (7, ()));
    held.let_go();
    assert_eq!(queued.join().unwrap(), 1);
}

#[test]
fn an_io_job_that_a_worker_runs_for_want_of_room_holds_up_no_other() {
    let engine = small(Class::Io, 1, WhenFull::CallerRuns).build().unwrap();
    let held = hold(&engine, Class::Io);
    let queued = engine.job().class(Class::Io).submit(|_| 1).unwrap();
    let (go, wait) = channel::<()>();
    let waits = engine.submit(move |ctx| {
        let io = ctx.engine().job().class(Class::Io);
        io.submit(move |_| wait.recv().unwrap()).unwrap().join()
    });
    assert_eq!(engine.submit(|_| 3).join().unwrap(), 3);
    go.send(()).unwrap();
    waits.join().unwrap().unwrap();
    held.let_go();
    assert_eq!(queued.join().unwrap(), 1);
}

#[test]
fn what_waits_for_room_on_one_node_is_let_in_by_another() {
    watched();
    let topology = Topology::synthetic("NUMANode:2 Core:1").unwrap();
    let engine = Engine::builder()
        .topology(topology)
        .queue_capacity(Class::Cpu, 1)
        .when_full(Class::Cpu, WhenFull::Block)
        .build()
        .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    for node in [0, 1, 0, 1] {
        let over = Arc::clone(&over);
        let job = engine.job().node(NodeId(node)).submit(move |ctx| {
            for _ in 0..100 {
                let other = ctx.engine().job().node(NodeId(1 - node));
                drop(other.submit(|_| ()).unwrap());
            }
            over.store(true, Ordering::Relaxed);
        });
        job.unwrap().join().unwrap();
    }
    assert!(over.load(Ordering::Relaxed));
}
