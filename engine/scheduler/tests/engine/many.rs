//! Jobs that are submitted together.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use reiver::{Engine, JobContext, JobError, JobHandle, Phase, Priority, SubmitError};

use crate::engine;

#[test]
fn each_runs_once_and_its_handle_has_its_value() {
    for jobs in [0, 1, 2, 31, 32, 33, 10_000] {
        let engine = engine(3);
        let runs = Arc::new(AtomicUsize::new(0));
        let handles = engine.submit_many((0..jobs).map(|number| {
            let runs = Arc::clone(&runs);
            move |_: &JobContext| {
                runs.fetch_add(1, Ordering::Relaxed);
                number
            }
        }));
        assert_eq!(handles.len(), jobs);
        for (number, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), number);
        }
        assert_eq!(runs.load(Ordering::Relaxed), jobs);
        let total = engine.metrics().total();
        assert_eq!(
            (total.submitted, total.completed),
            (jobs as u64, jobs as u64)
        );
    }
}

#[test]
fn handles_that_are_dropped_let_their_jobs_run() {
    let engine = engine(2);
    let runs = Arc::new(AtomicUsize::new(0));
    drop(engine.submit_many((0..1000).map(|_| {
        let runs = Arc::clone(&runs);
        move |_: &JobContext| runs.fetch_add(1, Ordering::Relaxed)
    })));
    assert!(engine.shutdown(Duration::MAX).is_clean());
    assert_eq!(runs.load(Ordering::Relaxed), 1000);
}

#[test]
fn none_waits_behind_one_that_waits_for_it() {
    let engine = engine(2);
    // All jobs of a chunk but its first one wait behind that one, which waits for the last of all.
    for jobs in [2, 8, 64, 1000] {
        let (says, hears) = channel();
        let hears = Mutex::new(hears);
        let hears = Arc::new(hears);
        let handles = engine.submit_many((0..jobs).map(|number| {
            let (says, hears) = (says.clone(), Arc::clone(&hears));
            move |_: &JobContext| match number {
                0 => hears.lock().unwrap().recv().unwrap(),
                _ if number == jobs - 1 => says.send(()).unwrap(),
                _ => {}
            }
        }));
        handles.into_iter().for_each(|job| job.join().unwrap());
    }
}

#[test]
fn the_rest_of_a_chunk_is_done_by_others_while_one_of_it_takes_long() {
    let engine = engine(2);
    let jobs = 256;
    let others = Arc::new(Barrier::new(2));
    let left = Arc::new(AtomicUsize::new(jobs - 1));
    let handles = engine.submit_many((0..jobs).map(|number| {
        let (others, left) = (Arc::clone(&others), Arc::clone(&left));
        move |_: &JobContext| {
            if number == 0 || left.fetch_sub(1, Ordering::Relaxed) == 1 {
                // The first one holds its worker until all the others have run.
                others.wait();
            }
        }
    }));
    handles.into_iter().for_each(|job| job.join().unwrap());
}

#[test]
fn one_may_wait_for_another_on_one_worker() {
    let engine = engine(1);
    let later: Arc<Mutex<Option<JobHandle<usize>>>> = Arc::default();
    let go = Arc::new(Barrier::new(2));
    let mut handles = engine.submit_many((0..40).map(|number| {
        let (later, go) = (Arc::clone(&later), Arc::clone(&go));
        move |_: &JobContext| match number {
            0 => {
                go.wait();
                let other = later.lock().unwrap().take().unwrap();
                other.join().unwrap() + 1
            }
            _ => number,
        }
    }));
    *later.lock().unwrap() = Some(handles.remove(7));
    go.wait();
    let sum: usize = handles.into_iter().map(|job| job.join().unwrap()).sum();
    assert_eq!(sum, (0..40).sum::<usize>() - 7 + 8);
}

#[test]
fn one_that_waits_for_the_end_of_all_has_the_rest_done() {
    let engine = Arc::new(engine(1));
    let runs = Arc::new(AtomicUsize::new(0));
    let handles = engine.submit_many((0..100).map(|number| {
        let (inside, runs) = (Arc::downgrade(&engine), Arc::clone(&runs));
        move |_: &JobContext| {
            if number == 3 {
                let engine = inside.upgrade().unwrap();
                assert!(engine.shutdown(Duration::MAX).is_clean());
                assert_eq!(runs.load(Ordering::Relaxed), 99);
            } else {
                runs.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    handles.into_iter().for_each(|job| job.join().unwrap());
}

#[test]
fn an_engine_that_is_dropped_by_one_ends_the_rest() {
    let owned = Arc::new(Mutex::new(None));
    let engine = engine(1);
    let go = Arc::new(Barrier::new(2));
    let handles = engine.submit_many((0..200).map(|number| {
        let (owned, go) = (Arc::clone(&owned), Arc::clone(&go));
        move |_: &JobContext| {
            if number == 2 {
                go.wait();
                drop(owned.lock().unwrap().take());
            }
        }
    }));
    *owned.lock().unwrap() = Some(engine);
    go.wait();
    for (number, handle) in handles.into_iter().enumerate() {
        match handle.join() {
            Ok(()) => assert!(number <= 2),
            Err(JobError::ShutDown) => assert!(number > 2),
            Err(other) => panic!("{number}: {other}"),
        }
    }
}

#[test]
fn one_that_panics_is_alone_in_it() {
    let engine = engine(2);
    let handles = engine.submit_many((0..100).map(|number| {
        move |_: &JobContext| {
            assert_ne!(number, 50, "as it should");
            number
        }
    }));
    for (number, handle) in handles.into_iter().enumerate() {
        match handle.join() {
            Ok(value) => assert_eq!(value, number),
            Err(JobError::Panicked(_)) => assert_eq!(number, 50),
            Err(other) => panic!("{other}"),
        }
    }
    let total = engine.metrics().total();
    assert_eq!((total.completed, total.panicked), (99, 1));
}

#[test]
fn they_inherit_the_deadline_of_the_job_that_submits_them() {
    let in_time = |deadline| {
        let engine = engine(1);
        let outer = engine.job().deadline(deadline).submit(move |ctx| {
            let handles = ctx
                .engine()
                .submit_many((0..100).map(|_| |_: &JobContext| ()));
            while ctx.checkpoint().is_ok() {}
            handles
        });
        let Err(JobError::DeadlineExceeded { phase }) = outer.unwrap().join() else {
            panic!("it goes on until then");
        };
        assert!(engine.shutdown(Duration::MAX).is_clean());
        // The value of a job that is late is lost, and so the metrics tell of the others.
        let late = engine.metrics().total().deadline_exceeded;
        assert_eq!(late, if phase == Phase::Running { 101 } else { 1 });
        phase == Phase::Running
    };
    // However long it takes to begin here.
    let mut deadlines = [20, 200, 2_000, 20_000]
        .map(Duration::from_millis)
        .into_iter();
    assert!(deadlines.any(in_time));
}

#[test]
fn an_engine_that_is_shut_down_takes_none() {
    let engine = engine(1);
    assert!(engine.shutdown(Duration::MAX).is_clean());
    let handles = engine.submit_many((0..10).map(|_| |_: &JobContext| ()));
    assert_eq!(handles.len(), 10);
    assert!(handles.iter().all(JobHandle::is_finished));
    let shut_down = |job: JobHandle<()>| matches!(job.join(), Err(JobError::ShutDown));
    assert!(handles.into_iter().all(shut_down));
    assert_eq!(engine.metrics().total().rejected, 10);
}

#[test]
fn a_bounded_queue_takes_as_many_as_it_has_room_for() {
    let engine = Engine::builder()
        .cpu_workers(1)
        .queue_capacity(reiver::Class::Cpu, 5)
        .build()
        .unwrap();
    let (says, begun) = channel();
    let (go, wait) = channel();
    let first = engine.submit(move |_| {
        says.send(()).unwrap();
        wait.recv().unwrap();
    });
    begun.recv().unwrap();
    let handles = engine.submit_many((0..10).map(|number| move |_: &JobContext| number));
    go.send(()).unwrap();
    first.join().unwrap();
    for (number, handle) in handles.into_iter().enumerate() {
        match handle.join() {
            Ok(value) => assert!(value == number && number < 5),
            Err(JobError::Rejected(SubmitError::QueueFull)) => assert!(number >= 5),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn they_are_seen_while_they_run() {
    let engine = engine(1);
    let (says, begun) = channel();
    let both = Arc::new(Barrier::new(2));
    let handles = engine.submit_many((0..40).map(|number| {
        let (says, both) = (says.clone(), Arc::clone(&both));
        move |_: &JobContext| {
            if number == 1 {
                says.send(()).unwrap();
                both.wait();
            }
        }
    }));
    begun.recv().unwrap();
    assert_eq!(engine.running().len(), 1);
    both.wait();
    handles.into_iter().for_each(|job| job.join().unwrap());
    assert!(engine.running().is_empty());
}

#[test]
fn a_fork_of_one_may_wait_for_the_end_of_all() {
    let engine = Arc::new(engine(2));
    let handles = engine.submit_many((0..16).map(|number| {
        let engine = Arc::downgrade(&engine);
        move |_: &JobContext| {
            if number != 15 {
                return;
            }
            let stolen = AtomicBool::new(false);
            reiver::join(
                || {
                    while !stolen.load(Ordering::Relaxed) {
                        reiver::join(|| (), || ());
                        std::thread::yield_now();
                    }
                },
                || {
                    stolen.store(true, Ordering::Relaxed);
                    let engine = engine.upgrade().unwrap();
                    assert!(engine.shutdown(Duration::MAX).is_clean());
                },
            );
        }
    }));
    handles.into_iter().for_each(|job| job.join().unwrap());
}

#[test]
fn an_urgent_job_does_not_wait_for_the_rest() {
    let engine = engine(1);
    let (says, begun) = channel();
    let (go, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let ran = Arc::new(AtomicUsize::new(0));
    let handles = engine.submit_many((0..128).map(|number| {
        let (says, wait, ran) = (says.clone(), Arc::clone(&wait), Arc::clone(&ran));
        move |_: &JobContext| {
            if number == 3 {
                says.send(()).unwrap();
                wait.lock().unwrap().recv().unwrap();
            }
            ran.fetch_add(1, Ordering::Relaxed);
        }
    }));
    begun.recv().unwrap();
    let seen = Arc::clone(&ran);
    let urgent = engine.job().priority(Priority::P0);
    let urgent = urgent.submit(move |_| seen.load(Ordering::Relaxed));
    assert_eq!(urgent.unwrap().join().unwrap(), 3);
    go.send(()).unwrap();
    handles.into_iter().for_each(|job| job.join().unwrap());
    assert_eq!(ran.load(Ordering::Relaxed), 128);
}
