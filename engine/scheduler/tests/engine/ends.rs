use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use reiver::limit::HybridLimiter;
use reiver::{
    CancellationToken, Class, Engine, Interrupted, JobContext, JobError, JobHandle, Phase,
    Priority, SubmitError, WhenFull,
};

use crate::size::sized;
use crate::{Held, engine};

const LONG: Duration = Duration::from_secs(200);

/// Calls checkpoints until one says that it should end.
fn until_told(ctx: &JobContext) -> Interrupted {
    loop {
        if let Err(interrupted) = ctx.checkpoint() {
            return interrupted;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_queued_job_that_is_cancelled_ends_before_a_worker_comes_to_it() {
    let engine = engine(1);
    let held = Held::new(&engine);
    let token = CancellationToken::new();
    let ran = Arc::new(AtomicBool::new(false));
    let witness = Arc::clone(&ran);
    let job = engine
        .job()
        .cancel_with(&token)
        .submit(move |_| witness.store(true, Ordering::Relaxed))
        .unwrap();
    token.cancel();
    assert!(matches!(job.join(), Err(JobError::Cancelled)));
    assert_eq!(Arc::strong_count(&ran), 1, "the closure is dropped too");
    held.let_go();
    assert!(!ran.load(Ordering::Relaxed));
}

#[test]
fn a_queued_job_that_is_late_ends_before_a_worker_comes_to_it() {
    let engine = engine(1);
    let held = Held::new(&engine);
    let late = |class: Class| {
        let job = engine.job().class(class).deadline(Duration::from_millis(5));
        job.submit(|_| ()).unwrap().join()
    };
    let queued = JobError::DeadlineExceeded {
        phase: Phase::Queued,
    };
    assert_eq!(
        format!("{:?}", late(Class::Cpu)),
        format!("{:?}", Err::<(), _>(queued))
    );
    let never = engine
        .job()
        .deadline(Duration::ZERO)
        .submit(|_| ())
        .unwrap();
    assert!(matches!(
        never.join(),
        Err(JobError::DeadlineExceeded { .. })
    ));
    let far = engine.job().deadline(Duration::MAX).submit(|_| 1).unwrap();
    held.let_go();
    assert_eq!(far.join().unwrap(), 1);
}

/// Who brings it waits for room, or for a limit; not for longer than it makes sense.
#[test]
fn a_job_whose_submitter_waits_is_late_at_its_deadline() {
    crate::watchdog::watched();
    let limiter = Arc::new(HybridLimiter::new(100, 10, 1));
    let engine = Engine::builder()
        .cpu_workers(1)
        .queue_capacity(Class::Cpu, 1)
        .when_full(Class::Cpu, WhenFull::Block)
        .when_full(Class::Io, WhenFull::Block)
        .limit(Class::Io, Arc::clone(&limiter))
        .build()
        .unwrap();
    let held = Held::new(&engine);
    let queued = engine.submit(|_| ());
    let permit = limiter.acquire(1).unwrap();
    let late = |class: Class| {
        let job = engine
            .job()
            .class(class)
            .deadline(Duration::from_millis(20));
        let outcome = job.submit(|_| ()).unwrap().join();
        let phase = Phase::Queued;
        let expected: Result<(), _> = Err(JobError::DeadlineExceeded { phase });
        assert_eq!(format!("{outcome:?}"), format!("{expected:?}"));
    };
    late(Class::Cpu);
    late(Class::Io);
    drop(permit);
    held.let_go();
    queued.join().unwrap();
    let total = engine.metrics().total();
    assert_eq!((total.deadline_exceeded, total.rejected), (2, 0));
    assert_eq!((total.queued, total.running), (0, 0));
    assert_eq!(limiter.in_use(), 0);
    engine
        .job()
        .class(Class::Cpu)
        .submit(|_| ())
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn a_running_job_learns_at_a_checkpoint_and_ends_as_that() {
    let engine = engine(1);
    let token = CancellationToken::new();
    let (says, begun) = sync_channel(0);
    let job = engine
        .job()
        .cancel_with(&token)
        .submit(move |ctx| {
            says.send(()).unwrap();
            until_told(ctx)
        })
        .unwrap();
    begun.recv().unwrap();
    token.cancel();
    assert!(matches!(job.join(), Err(JobError::Cancelled)));

    let job = engine
        .job()
        .deadline(Duration::from_millis(30))
        .submit(until_told)
        .unwrap();
    // Whether it had begun by then is the machine's affair.
    assert!(matches!(job.join(), Err(JobError::DeadlineExceeded { .. })));
}

#[test]
fn a_job_that_never_saw_the_interrupt_keeps_its_value() {
    let engine = engine(1);
    let token = CancellationToken::new();
    let cancel = token.clone();
    let asks = engine
        .job()
        .cancel_with(&token)
        .submit(move |ctx| {
            cancel.cancel();
            // Asking is not being told.
            assert!(ctx.is_cancelled());
            5
        })
        .unwrap();
    assert_eq!(asks.join().unwrap(), 5);

    let token = CancellationToken::new();
    let cancel = token.clone();
    let panics = engine
        .job()
        .cancel_with(&token)
        .submit(move |ctx| {
            cancel.cancel();
            assert_eq!(ctx.checkpoint(), Err(Interrupted::Cancelled));
            panic!("a panic is a panic in any case");
        })
        .unwrap();
    let outcome: Result<(), JobError> = panics.join();
    assert!(matches!(outcome, Err(JobError::Panicked(_))));
}

#[test]
fn cancelling_a_token_cancels_its_children_and_nobody_above() {
    let engine = engine(1);
    let held = Held::new(&engine);
    let root = CancellationToken::new();
    let (left, right) = (root.child(), root.child());
    let leaf = left.child();
    let job = |token: &CancellationToken| {
        let job = engine.job().cancel_with(token);
        job.submit(|_| ()).unwrap()
    };
    let (of_root, of_leaf, of_right) = (job(&root), job(&leaf), job(&right));
    left.cancel();
    assert!(leaf.is_cancelled() && !root.is_cancelled() && !right.is_cancelled());
    assert!(matches!(of_leaf.join(), Err(JobError::Cancelled)));
    root.cancel();
    assert!(right.is_cancelled());
    assert!(matches!(of_right.join(), Err(JobError::Cancelled)));
    assert!(matches!(of_root.join(), Err(JobError::Cancelled)));
    assert!(root.child().is_cancelled(), "a child of what is cancelled");
    held.let_go();
}

#[test]
fn a_long_chain_of_tokens_is_cancelled_and_dropped_without_recursion() {
    let root = CancellationToken::new();
    let mut chain = vec![root.clone()];
    for _ in 0..200_000 {
        chain.push(chain.last().unwrap().child());
    }
    root.cancel();
    assert!(chain.last().unwrap().is_cancelled());
}

#[test]
fn a_job_inherits_the_earlier_deadline() {
    let engine = engine(1);
    let deadlines = engine
        .job()
        .deadline(LONG)
        .submit(|ctx| {
            let own = ctx.deadline().unwrap();
            let deadline = |limit| {
                let job = ctx.engine().job().deadline(limit);
                job.submit(|ctx| ctx.deadline().unwrap()).unwrap().join()
            };
            let none = ctx.engine().submit(|ctx| ctx.deadline().unwrap());
            (
                own,
                deadline(LONG * 2).unwrap(),
                deadline(LONG / 2).unwrap(),
                none.join().unwrap(),
            )
        })
        .unwrap();
    let (own, longer, shorter, none) = deadlines.join().unwrap();
    assert_eq!((longer, none), (own, own));
    assert!(shorter < own);
}

#[test]
fn shutdown_drains_what_was_taken_and_takes_no_more() {
    let engine = engine(2);
    let count = Arc::new(AtomicUsize::new(0));
    for number in 0..1000 {
        let count = Arc::clone(&count);
        let class = [Class::Cpu, Class::Io][number % 2];
        let job = engine.job().class(class).submit(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        drop(job.unwrap());
    }
    let report = engine.shutdown(LONG);
    assert!(report.is_clean());
    assert_eq!(count.load(Ordering::Relaxed), 1000);
    assert!(matches!(
        engine.job().submit(|_| ()),
        Err(SubmitError::ShutDown)
    ));
    assert!(matches!(
        engine.submit(|_| ()).join(),
        Err(JobError::ShutDown)
    ));
    // Jobs end, threads do not.
    assert_eq!(engine.join(|| 1, || 2), (1, 2));
    assert_eq!(engine.install(|| 3), 3);
    assert!(engine.shutdown(Duration::ZERO).is_clean(), "once more");
}

#[test]
fn shutdown_at_its_limit_ends_the_queued_and_tells_the_running() {
    let engine = engine(1);
    let (says, begun) = sync_channel(0);
    let running = engine
        .job()
        .name("long")
        .submit(move |ctx| {
            says.send(()).unwrap();
            until_told(ctx)
        })
        .unwrap();
    begun.recv().unwrap();
    let queued: Vec<_> = (0..3).map(|_| engine.submit(|_| ())).collect();
    let report = engine.shutdown(Duration::from_millis(20));
    assert!(!report.is_clean());
    assert_eq!(report.queued, 3);
    assert_eq!(report.running.len(), 1);
    assert_eq!(report.running[0].name(), Some("long"));
    for job in queued {
        assert!(matches!(job.join(), Err(JobError::ShutDown)));
    }
    assert!(matches!(running.join(), Err(JobError::ShutDown)));
    assert!(engine.shutdown(LONG).is_clean());
}

#[test]
fn a_job_that_shuts_its_engine_down_is_not_waited_for() {
    for class in [Class::Cpu, Class::Io] {
        let engine = engine(1);
        let done = Arc::new(AtomicUsize::new(0));
        let (go, wait) = sync_channel::<()>(0);
        let ends = engine
            .job()
            .class(class)
            .submit(move |ctx| {
                wait.recv().unwrap();
                ctx.engine().shutdown(LONG).is_clean()
            })
            .unwrap();
        for _ in 0..50 {
            let done = Arc::clone(&done);
            drop(engine.submit(move |_| done.fetch_add(1, Ordering::Relaxed)));
        }
        go.send(()).unwrap();
        assert!(ends.join().unwrap(), "{class:?}");
        assert_eq!(done.load(Ordering::Relaxed), 50);
    }
}

#[test]
fn two_jobs_that_shut_down_at_once_do_not_wait_for_each_other() {
    let engine = engine(2);
    let both = Arc::new(std::sync::Barrier::new(2));
    let ends: Vec<_> = (0..2)
        .map(|_| {
            let both = Arc::clone(&both);
            let job = engine.job().class(Class::Io).submit(move |ctx| {
                both.wait();
                ctx.engine().shutdown(LONG).is_clean()
            });
            job.unwrap()
        })
        .collect();
    for job in ends {
        assert!(job.join().unwrap());
    }
    assert!(engine.shutdown(LONG).is_clean());
}

#[test]
fn dropping_ends_the_queued_and_waits_for_the_running() {
    let engine = engine(1);
    let ended = Arc::new(AtomicBool::new(false));
    let witness = Arc::clone(&ended);
    let (says, begun) = sync_channel(0);
    let running = engine.submit(move |ctx| {
        says.send(()).unwrap();
        until_told(ctx);
        witness.store(true, Ordering::Relaxed);
    });
    begun.recv().unwrap();
    let queued = engine.submit(|_| ());
    drop(engine);
    assert!(ended.load(Ordering::Relaxed));
    assert!(matches!(running.join(), Err(JobError::ShutDown)));
    assert!(matches!(queued.join(), Err(JobError::ShutDown)));
}

#[test]
fn an_engine_can_be_dropped_by_one_of_its_own_jobs() {
    for class in [Class::Cpu, Class::Io] {
        let engine = Arc::new(Mutex::new(None));
        let inside = Arc::clone(&engine);
        let (go, wait) = sync_channel::<()>(0);
        let built = crate::engine(1);
        let job = built
            .job()
            .class(class)
            .submit(move |_| {
                wait.recv().unwrap();
                drop::<Option<Engine>>(inside.lock().unwrap().take());
                7
            })
            .unwrap();
        *engine.lock().unwrap() = Some(built);
        go.send(()).unwrap();
        assert_eq!(job.join().unwrap(), 7);
    }
}

#[test]
fn a_job_that_is_cancelled_over_and_over_ends_once() {
    let engine = engine(2);
    for _ in 0..2_000 {
        let token = CancellationToken::new();
        let job = engine.job().cancel_with(&token).submit(|_| 1).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| token.cancel());
            match job.join() {
                Ok(1) | Err(JobError::Cancelled) => {}
                other => panic!("{other:?}"),
            }
        });
    }
    let total = engine.metrics().total();
    assert_eq!(total.submitted, total.completed + total.cancelled);
}

#[test]
fn intake_that_races_with_shutdown_loses_no_job() {
    for _ in 0..200 {
        let engine = engine(2);
        std::thread::scope(|scope| {
            let submits = || {
                let mut ends = [0; 2];
                loop {
                    match engine.job().submit(|_| ()) {
                        Ok(job) => ends[usize::from(job.join().is_err())] += 1,
                        Err(SubmitError::ShutDown) => return ends,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            };
            let threads = [scope.spawn(submits), scope.spawn(submits)];
            let started = Instant::now();
            while started.elapsed() < Duration::from_micros(300) {
                std::hint::spin_loop();
            }
            let _ = engine.shutdown(Duration::ZERO);
            let mut total = 0;
            for thread in threads {
                total += thread.join().unwrap().iter().sum::<u64>();
            }
            assert_eq!(engine.metrics().total().submitted, total);
        });
    }
}

#[test]
fn a_token_reaches_those_below_one_that_nobody_holds() {
    let root = CancellationToken::new();
    let leaf = {
        let middle = root.child();
        middle.child()
    };
    root.cancel();
    assert!(leaf.is_cancelled());
}

#[test]
fn an_engine_can_be_ended_by_what_a_cancelled_job_held() {
    for _ in 0..50 {
        let engine = Arc::new(engine(1));
        let held = Held::new(&engine);
        let token = CancellationToken::new();
        let holds = Arc::clone(&engine);
        let job = engine.job().cancel_with(&token);
        let job = job.submit(move |_| drop(holds)).unwrap();
        held.let_go_alone();
        drop(engine);
        // Whether it has run by now or not, the last to hold the engine is dropped somewhere.
        token.cancel();
        let _ = job.join();
    }
}

#[test]
fn an_engine_can_be_ended_by_a_waker() {
    struct Ends(Mutex<Option<Engine>>);
    impl std::task::Wake for Ends {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    let engine = engine(1);
    let (go, wait) = sync_channel::<()>(0);
    let mut job = engine.submit(move |_| wait.recv().unwrap());
    let ends = Arc::new(Ends(Mutex::new(Some(engine))));
    let waker = std::task::Waker::from(Arc::clone(&ends));
    let mut context = std::task::Context::from_waker(&waker);
    assert!(std::pin::pin!(&mut job).poll(&mut context).is_pending());
    go.send(()).unwrap();
    // Joining would put another waker in its place.
    while ends.0.lock().unwrap().is_some() {
        std::thread::yield_now();
    }
    assert!(job.is_finished());
}

#[test]
fn a_shutdown_by_a_part_of_a_job_does_not_count_that_job() {
    let engine = engine(1);
    let job = engine.job().class(Class::Io).submit(|ctx| {
        let engine = ctx.engine();
        engine.install(|| engine.shutdown(LONG).is_clean())
    });
    assert!(job.unwrap().join().unwrap());
}

#[test]
fn a_job_that_drops_its_engine_can_still_fork() {
    let engine = Arc::new(Mutex::new(Some(engine(1))));
    let inside = Arc::clone(&engine);
    let (go, wait) = sync_channel::<()>(0);
    let job = engine.lock().unwrap().as_ref().map(|engine| {
        engine.job().class(Class::Io).submit(move |_| {
            wait.recv().unwrap();
            drop(inside.lock().unwrap().take());
            reiver::join(|| 1, || 2)
        })
    });
    go.send(()).unwrap();
    assert_eq!(job.unwrap().unwrap().join().unwrap(), (1, 2));
}

/// A destructor of somebody else's may take long, or wait for who waits for the job.
#[test]
fn a_job_that_is_cancelled_is_over_before_what_it_owns_is_dropped() {
    struct Waits(Receiver<()>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.recv().unwrap();
        }
    }
    let engine = engine(1);
    let held = Held::new(&engine);
    let (says, hears) = channel();
    let owned = Waits(hears);
    let token = CancellationToken::new();
    let job = engine.job().cancel_with(&token);
    let job = job.submit(move |_| drop(owned)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| token.cancel());
        assert!(matches!(job.join(), Err(JobError::Cancelled)));
        held.let_go();
        assert!(engine.shutdown(Duration::MAX).is_clean());
        says.send(()).unwrap();
    });
}

/// What a late job owns may take long to drop, or wait for who waits for another late one.
#[test]
fn jobs_are_late_in_time_whatever_late_ones_own() {
    struct Waits(Receiver<()>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.recv().unwrap();
        }
    }
    let engine = engine(1);
    let held = Held::new(&engine);
    let mut waiting = Vec::new();
    let mut submit = |deadline: Duration| {
        let (says, hears) = channel();
        waiting.push(says);
        let owned = Waits(hears);
        let job = engine.job().deadline(deadline);
        job.submit(move |_| drop(owned)).unwrap()
    };
    let is_late = |job: JobHandle<()>| {
        let expected = JobError::DeadlineExceeded {
            phase: Phase::Queued,
        };
        assert_eq!(job.join().unwrap_err().to_string(), expected.to_string());
    };
    // Those that are watched already when the first is late, and those that come then.
    let both = [20, 40].map(|ms| submit(Duration::from_millis(ms)));
    both.into_iter().for_each(is_late);
    (0..3).for_each(|_| is_late(submit(Duration::from_millis(5))));
    for says in waiting {
        says.send(()).unwrap();
    }
    held.let_go();
}

/// What a background job submits is brought by another thread. With a job that was cancelled before it came
/// that one ends the engine, and waits for what it would have brought next.
#[test]
fn an_engine_can_be_ended_by_who_brings_jobs_to_it() {
    struct Waits(Receiver<()>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.recv().unwrap();
        }
    }
    for _ in 0..sized(20) {
        let engine = engine(2);
        let (owner, owned) = channel();
        let job = engine.job().priority(Priority::P2).submit(move |ctx| {
            let token = CancellationToken::new();
            token.cancel();
            let cancelled = || ctx.engine().job().cancel_with(&token);
            let owned: Engine = owned.recv().unwrap();
            // Until the others are to be brought too.
            let (go, wait) = channel();
            let held = Waits(wait);
            drop(cancelled().submit(move |_| drop(held)).unwrap());
            drop(cancelled().submit(move |_| drop(owned)).unwrap());
            let late = ctx.engine().submit(|_| ());
            go.send(()).unwrap();
            late
        });
        owner.send(engine).unwrap();
        let late = job.unwrap().join().unwrap();
        assert!(matches!(late.join(), Ok(()) | Err(JobError::ShutDown)));
    }
}
