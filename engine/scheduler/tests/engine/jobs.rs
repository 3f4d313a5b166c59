use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use reiver::{
    BuildError, Class, Engine, JobContext, JobError, JobHandle, NodeId, Priority, SubmitError,
    Topology,
};

use crate::size::sized;
use crate::{Held, engine};

#[test]
fn a_job_gives_its_value() {
    let engine = engine(2);
    assert_eq!(engine.submit(|_| 6 * 7).join().unwrap(), 42);
    let text = engine.job().class(Class::Io).submit(|_| "read".to_owned());
    assert_eq!(text.unwrap().join().unwrap(), "read");
}

#[test]
fn a_panic_comes_back_to_whoever_joins_and_harms_nobody_else() {
    let engine = engine(1);
    let number = 7;
    for class in [Class::Cpu, Class::Io] {
        let job = engine
            .job()
            .class(class)
            .submit(move |_| -> u32 { panic!("no {number} here") });
        match job.unwrap().join() {
            Err(JobError::Panicked(payload)) => {
                assert_eq!(payload.message().as_deref(), Some("no 7 here"));
                assert!(payload.into_inner().is::<String>());
            }
            other => panic!("{other:?}"),
        }
        let after = engine.job().class(class).submit(|_| 1).unwrap();
        assert_eq!(after.join().unwrap(), 1);
    }
    let odd = engine.submit(|_| std::panic::panic_any(5_u8));
    let error = odd.join().unwrap_err();
    assert!(error.to_string().contains("no text"), "{error}");
}

#[test]
fn an_error_of_a_job_fits_where_errors_cross_threads() {
    fn fits<E: std::error::Error + Send + Sync + 'static>() {}
    fits::<JobError>();
    fits::<SubmitError>();
    fits::<BuildError>();
}

#[test]
fn what_crosses_threads_can() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    fn unpin<T: Unpin>() {}
    send::<Engine>();
    sync::<Engine>();
    sync::<JobContext>();
    send::<JobHandle<std::cell::Cell<u8>>>();
    unpin::<JobHandle<std::marker::PhantomPinned>>();
    send::<reiver::RunningJob>();
}

#[test]
fn many_are_submitted_in_one_go_and_keep_their_order() {
    let engine = engine(2);
    let handles = engine.submit_many((0..1000).map(|i| move |_: &JobContext| i * 2));
    let values: Vec<i32> = handles.into_iter().map(|job| job.join().unwrap()).collect();
    assert!(values.into_iter().eq((0..1000).map(|i| i * 2)));
}

#[test]
fn a_job_whose_handle_is_dropped_runs() {
    let engine = engine(2);
    let (says, ran) = channel();
    for number in 0..100 {
        let says = says.clone();
        drop(engine.submit(move |_| says.send(number).unwrap()));
    }
    drop(says);
    let mut numbers: Vec<i32> = ran.iter().collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..100));
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_handle_is_a_future_in_any_executor() {
    let engine = engine(2);
    for round in 0..500 {
        let job = engine.submit(move |_| round);
        assert_eq!(block_on(job).unwrap(), round);
    }
    let panics = engine.submit(|_| panic!("as it should"));
    assert!(matches!(block_on(panics), Err(JobError::Panicked(_))));
}

#[test]
fn the_last_waker_is_the_one_that_is_woken() {
    let engine = engine(1);
    let held = Held::new(&engine);
    let mut job = engine.submit(|_| 3);
    let first = Context::from_waker(Waker::noop());
    let mut first = first;
    assert!(pin!(&mut job).poll(&mut first).is_pending());
    held.let_go();
    assert_eq!(block_on(job).unwrap(), 3);
}

#[test]
fn jobs_that_run_are_listed_with_their_names() {
    let engine = engine(2);
    let (go, wait) = sync_channel::<()>(0);
    let (says, begun) = sync_channel(0);
    let job = engine
        .job()
        .name("thumbnail")
        .class(Class::Io)
        .submit(move |ctx| {
            says.send(ctx.node()).unwrap();
            wait.recv().unwrap();
        })
        .unwrap();
    let node = begun.recv().unwrap();
    let running = engine.running();
    let [only] = running.as_slice() else {
        panic!("{running:?}");
    };
    assert_eq!(only.name(), Some("thumbnail"));
    assert_eq!((only.class(), only.node()), (Class::Io, node));
    assert!(only.age() > std::time::Duration::ZERO);
    assert!(!job.is_finished());
    go.send(()).unwrap();
    job.join().unwrap();
    assert!(engine.running().is_empty());
}

#[test]
fn one_worker_joins_jobs_of_jobs_of_jobs() {
    fn fib(ctx: &JobContext, n: u64) -> u64 {
        if n < 2 {
            return n;
        }
        let left = ctx.engine().submit(move |ctx| fib(ctx, n - 1));
        let right = ctx.engine().submit(move |ctx| fib(ctx, n - 2));
        left.join().unwrap() + right.join().unwrap()
    }
    for workers in [1, 2, 5] {
        let engine = engine(workers);
        let fib = engine.submit(|ctx| fib(ctx, 12));
        assert_eq!(fib.join().unwrap(), 144);
    }
}

#[test]
fn a_worker_that_joins_a_foreign_job_does_other_work_meanwhile() {
    let engine = engine(1);
    let (go, wait) = sync_channel::<()>(0);
    let blocked = engine
        .job()
        .class(Class::Io)
        .submit(move |_| wait.recv().unwrap())
        .unwrap();
    let (says, begun) = sync_channel(0);
    let joins = engine.submit(move |_| {
        says.send(()).unwrap();
        blocked.join().unwrap();
        1
    });
    begun.recv().unwrap();
    // The only worker is inside `joins`.
    assert_eq!(engine.submit(|_| 2).join().unwrap(), 2);
    assert_eq!(engine.join(|| 3, || 4), (3, 4));
    go.send(()).unwrap();
    assert_eq!(joins.join().unwrap(), 1);
}

#[test]
fn a_p0_waiter_is_not_woken_for_what_it_leaves_to_others() {
    // One worker sleeps inside a P0 job, the other has nothing to do: work of P1 must reach that.
    let engine = engine(2);
    for _ in 0..200 {
        let (go, wait) = sync_channel::<()>(0);
        let blocked = engine
            .job()
            .class(Class::Io)
            .priority(Priority::P0)
            .submit(move |_| wait.recv().unwrap())
            .unwrap();
        let urgent = engine.job().priority(Priority::P0);
        let joins = urgent.submit(move |_| blocked.join().unwrap()).unwrap();
        for _ in 0..5 {
            assert_eq!(engine.submit(|_| 2).join().unwrap(), 2);
        }
        go.send(()).unwrap();
        joins.join().unwrap();
    }
}

#[test]
fn blocking_jobs_run_at_once_up_to_the_limit() {
    let engine = Engine::builder()
        .cpu_workers(1)
        .io_workers(0..=20)
        .build()
        .unwrap();
    let all = Arc::new(Barrier::new(20));
    let jobs: Vec<_> = (0..20)
        .map(|_| {
            let all = Arc::clone(&all);
            let job = engine.job().class(Class::Io).submit(move |_| {
                all.wait();
            });
            job.unwrap()
        })
        .collect();
    jobs.into_iter().for_each(|job| job.join().unwrap());

    let most = Arc::new(Mutex::new((0_u32, 0)));
    let few = Engine::builder().io_workers(1..=3).build().unwrap();
    let jobs: Vec<_> = (0..60)
        .map(|_| {
            let most = Arc::clone(&most);
            let job = few.job().class(Class::Io).submit(move |_| {
                let mut count = most.lock().unwrap();
                count.0 += 1;
                count.1 = count.0.max(count.1);
                drop(count);
                thread::yield_now();
                most.lock().unwrap().0 -= 1;
            });
            job.unwrap()
        })
        .collect();
    jobs.into_iter().for_each(|job| job.join().unwrap());
    assert!(most.lock().unwrap().1 <= 3);
}

/// In which order jobs of these priorities run when all are queued before the first begins.
fn order_of(engine: &Engine, class: Class, priorities: &[Priority]) -> Vec<Priority> {
    let (go, wait) = sync_channel::<()>(0);
    let (says, begun) = sync_channel(0);
    let first = engine
        .job()
        .class(class)
        .submit(move |_| {
            says.send(()).unwrap();
            wait.recv().unwrap();
        })
        .unwrap();
    begun.recv().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let jobs: Vec<_> = priorities
        .iter()
        .map(|&priority| {
            let order = Arc::clone(&order);
            let job = engine.job().class(class).priority(priority);
            job.submit(move |_| order.lock().unwrap().push(priority))
                .unwrap()
        })
        .collect();
    go.send(()).unwrap();
    first.join().unwrap();
    jobs.into_iter().for_each(|job| job.join().unwrap());

    order.lock().unwrap().clone()
}

#[test]
fn of_jobs_that_block_the_urgent_run_first() {
    use Priority::{P0, P1, P2};
    let engine = Engine::builder()
        .cpu_workers(1)
        .io_workers(1..=1)
        .background_patience(Duration::from_secs(3600))
        .build()
        .unwrap();
    let mixed = [P2, P1, P0, P2, P0, P1, P1, P0, P2];
    let order = order_of(&engine, Class::Io, &mixed);
    assert_eq!(order, [P0, P0, P0, P1, P1, P1, P2, P2, P2]);
}

/// While all ordinary workers are in jobs that wait, too.
#[test]
fn urgent_and_background_jobs_do_not_wait_for_ordinary_workers() {
    let engine = engine(1);
    for _ in 0..sized(100) {
        let held = Held::new(&engine);
        for priority in [Priority::P0, Priority::P2] {
            let job = engine.job().priority(priority).submit(|_| ());
            job.unwrap().join().unwrap();
        }
        held.let_go();
    }
}

#[test]
fn jobs_of_one_priority_run_in_order() {
    let engine = engine(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let held = Held::new(&engine);
    for number in 0..500 {
        let order = Arc::clone(&order);
        drop(engine.submit(move |_| order.lock().unwrap().push(number)));
    }
    let last = engine.submit(|_| ());
    held.let_go();
    last.join().unwrap();
    assert!(order.lock().unwrap().iter().copied().eq(0..500));
}

#[test]
fn a_full_queue_refuses_and_has_room_again_once_a_job_is_taken() {
    let engine = Engine::builder()
        .cpu_workers(1)
        .queue_capacity(Class::Cpu, 2)
        .build()
        .unwrap();
    let held = Held::new(&engine);
    let token = reiver::CancellationToken::new();
    let job = || engine.job().cancel_with(&token);
    let taken = [job().submit(|_| 1).unwrap(), job().submit(|_| 2).unwrap()];
    assert!(matches!(job().submit(|_| 3), Err(SubmitError::QueueFull)));
    let refused = engine.submit(|_| 4);
    assert!(refused.is_finished());
    assert!(matches!(
        refused.join(),
        Err(JobError::Rejected(SubmitError::QueueFull))
    ));
    // A queued job that is cancelled gives its place back at once.
    token.cancel();
    for job in taken {
        assert!(matches!(job.join(), Err(JobError::Cancelled)));
    }
    let again = engine.job().submit(|_| 5).unwrap();
    held.let_go();
    assert_eq!(again.join().unwrap(), 5);
    assert_eq!(engine.metrics().total().rejected, 2);
}

#[test]
fn settings_that_no_engine_can_have_are_refused_with_a_remedy() {
    let refusal = |builder: reiver::EngineBuilder| match builder.build() {
        Err(error @ BuildError::Setting { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let text = refusal(Engine::builder().cpu_workers(0));
    assert_eq!(text, "cpu_workers is 0; it must be 1 or more");
    #[expect(clippy::reversed_empty_ranges, reason = "that is the mistake")]
    let empty = refusal(Engine::builder().io_workers(2..=1));
    assert!(empty.contains("io_workers is 2..=1"), "{empty}");
    assert!(refusal(Engine::builder().io_workers(0..=0)).contains("ends at 1"));
    let queue = refusal(Engine::builder().queue_capacity(Class::Io, 0));
    assert!(queue.contains("queue_capacity is 0"), "{queue}");
}

#[test]
fn a_node_that_the_machine_lacks_is_unknown_to_jobs() {
    let topology = Topology::synthetic("NUMANode:2 Core:1").unwrap();
    let engine = Engine::builder().topology(topology).build().unwrap();
    let job = engine.job().node(NodeId(2)).submit(|_| ());
    assert!(matches!(job, Err(SubmitError::UnknownNode)));
    assert_eq!(engine.metrics().total().submitted, 0);
}

#[test]
fn a_million_jobs_leave_nothing_behind() {
    let engine = engine(2);
    let count = Arc::new(AtomicUsize::new(0));
    let jobs = (0..1_000_000).map(|_| {
        let count = Arc::clone(&count);
        move |_: &JobContext| {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let handles: Vec<JobHandle<()>> = engine.submit_many(jobs);
    handles.into_iter().for_each(|job| job.join().unwrap());
    assert_eq!(count.load(Ordering::Relaxed), 1_000_000);
    assert_eq!(Arc::strong_count(&count), 1);
    let total = engine.metrics().total();
    assert_eq!((total.submitted, total.completed), (1_000_000, 1_000_000));
    assert_eq!((total.queued, total.running), (0, 0));
}

#[test]
fn many_threads_submit_and_join_at_once() {
    let engine = engine(2);
    thread::scope(|scope| {
        for thread in 0..8_u64 {
            let engine = &engine;
            scope.spawn(move || {
                for round in 0..2_000 {
                    let class = [Class::Cpu, Class::Io][usize::from(round % 50 == 0)];
                    let job = engine.job().class(class).submit(move |_| thread + round);
                    assert_eq!(job.unwrap().join().unwrap(), thread + round);
                }
            });
        }
    });
    assert_eq!(engine.metrics().total().completed, 16_000);
}
