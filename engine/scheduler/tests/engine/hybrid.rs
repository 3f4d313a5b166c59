//! Jobs of class Hybrid, and of class Auto.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use reiver::{Class, Engine, JobContext, JobHandle, Priority, SubmitError, WhenFull};

use crate::size::sized;
use crate::watchdog::watched;

fn engine(workers: usize) -> Engine {
    Engine::builder().cpu_workers(workers).build().unwrap()
}

fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {}
}

/// Waits until something is so; the watchdog ends what never is.
fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A job that is blocked until the sender is dropped.
fn blocked(engine: &Engine, class: Class) -> (Sender<()>, JobHandle<()>) {
    let (go, wait) = channel::<()>();
    let job = engine.job().class(class).submit(move |_| {
        let _ = wait.recv();
    });
    (go, job.unwrap())
}

#[test]
fn those_that_block_make_place_for_others() {
    watched();
    let engine = engine(2);
    // Each waits for all: none ends before the last has begun.
    const JOBS: usize = 12;
    let barrier = Arc::new(Barrier::new(JOBS));
    let jobs: Vec<_> = (0..JOBS)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            let job = engine.job().class(Class::Hybrid);
            job.submit(move |_| barrier.wait().is_leader()).unwrap()
        })
        .collect();
    let leaders = jobs.into_iter().map(|job| job.join().unwrap());
    assert_eq!(leaders.filter(|&is_leader| is_leader).count(), 1);
    let counts = engine.metrics().jobs(Class::Hybrid, Priority::P1);
    assert_eq!((counts.submitted, counts.completed), (12, 12));
}

#[test]
fn blocked_ones_are_counted() {
    watched();
    let engine = engine(1);
    assert_eq!(engine.metrics().hybrid_threads().threads, 0);
    let blocked: Vec<_> = (0..5).map(|_| blocked(&engine, Class::Hybrid)).collect();
    until(|| engine.metrics().hybrid_threads().blocked == 5);
    assert!(engine.metrics().hybrid_threads().threads >= 5);
    for (go, job) in blocked {
        drop(go);
        job.join().unwrap();
    }
    until(|| engine.metrics().hybrid_threads().blocked == 0);
}

/// Those that compute do not seem to wait for each other: no more of them run at once than CPUs may be
/// used, however long others wait. One look of the regulator that comes while a thread has just been put
/// to sleep by something of the kernel's own may be wrong, and no more.
#[test]
fn those_that_compute_are_no_more_than_cpus() {
    watched();
    let cpus = 2 * thread::available_parallelism().unwrap().get();
    let engine = engine(cpus);
    let now = Arc::new(AtomicUsize::new(0));
    let jobs: Vec<_> = (0..20 * cpus)
        .map(|_| {
            let now = Arc::clone(&now);
            let job = engine.job().class(Class::Hybrid);
            // None takes a lock, for whose holder others would wait.
            let job = job.submit(move |_| {
                let running = now.fetch_add(1, Ordering::SeqCst) + 1;
                spin(Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
                running
            });
            job.unwrap()
        })
        .collect();
    let mut most: Vec<usize> = jobs.into_iter().map(|job| job.join().unwrap()).collect();
    most.sort_unstable();
    let usual = most[most.len() * 9 / 10];
    assert!(usual <= cpus, "{most:?} on {cpus} CPUs");
    assert!(most[most.len() - 1] <= cpus + 2, "{most:?} on {cpus} CPUs");
}

/// Nor where one waits for jobs of a batch, which makes place for one other and no more.
#[test]
fn who_waits_for_a_batch_makes_place_once() {
    watched();
    let engine = engine(1);
    let (go, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let waits = engine.job().class(Class::Hybrid).submit(move |ctx| {
        let batch = ctx.engine().batch(0..1).class(Class::Io);
        let batch = batch.map(move |_, _| wait.lock().unwrap().recv().is_err());
        batch.unordered().map(Result::unwrap).count()
    });
    until(|| engine.metrics().hybrid_threads().blocked == 1);
    let now = Arc::new(AtomicUsize::new(0));
    let jobs: Vec<_> = (0..40)
        .map(|_| {
            let now = Arc::clone(&now);
            let job = engine.job().class(Class::Hybrid);
            let job = job.submit(move |_| {
                let running = now.fetch_add(1, Ordering::SeqCst) + 1;
                spin(Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
                running
            });
            job.unwrap()
        })
        .collect();
    let mut most: Vec<usize> = jobs.into_iter().map(|job| job.join().unwrap()).collect();
    drop(go);
    assert_eq!(waits.unwrap().join().unwrap(), 1);
    most.sort_unstable();
    // A look of the regulator may be wrong, as above.
    assert_eq!(most[most.len() * 9 / 10], 1, "{most:?}");
}

/// Who waits for a batch does not count among those that may block.
#[test]
fn those_that_wait_and_those_that_block_both_make_place() {
    watched();
    let builder = Engine::builder().cpu_workers(1).io_workers(0..=1);
    let engine = builder.build().unwrap();
    let (go, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let waits = engine.job().class(Class::Hybrid).submit(move |ctx| {
        let batch = ctx.engine().batch(0..1).class(Class::Io);
        let batch = batch.map(move |_, _| wait.lock().unwrap().recv().is_err());
        batch.unordered().map(Result::unwrap).count()
    });
    until(|| engine.metrics().hybrid_threads().blocked == 1);
    let (also_goes, blocks) = blocked(&engine, Class::Hybrid);
    let frees = engine.job().class(Class::Hybrid);
    let frees = frees.submit(move |_| drop((go, also_goes))).unwrap();
    frees.join().unwrap();
    blocks.join().unwrap();
    assert_eq!(waits.unwrap().join().unwrap(), 1);
}

/// A job that computes until the sender is dropped, once it has begun.
fn computing(engine: &Engine, priority: Priority) -> (Sender<()>, JobHandle<()>) {
    let (go, wait) = channel::<()>();
    let (says, begun) = channel();
    let job = engine.job().class(Class::Hybrid).priority(priority);
    let job = job.submit(move |_| {
        says.send(()).unwrap();
        while wait.try_recv() == Err(TryRecvError::Empty) {}
    });
    begun.recv().unwrap();
    (go, job.unwrap())
}

fn is_of_the_background() -> bool {
    thread::current().name() == Some("reiver-hyb-p2")
}

#[test]
fn those_of_each_priority_have_threads_of_their_own() {
    watched();
    let builder = Engine::builder().cpu_workers(1);
    let builder = builder.background_patience(Duration::from_secs(3600));
    let engine = builder.build().unwrap();
    let submit = |priority| {
        let job = engine.job().class(Class::Hybrid).priority(priority);
        job.submit(|_| is_of_the_background()).unwrap()
    };
    for busy in [Priority::P0, Priority::P1, Priority::P2] {
        // Nobody has a place beside it.
        let (go, first) = computing(&engine, busy);
        let waits = submit(busy);
        for other in [Priority::P0, Priority::P1, Priority::P2] {
            if other != busy {
                assert_eq!(submit(other).join().unwrap(), other == Priority::P2);
            }
        }
        drop(go);
        first.join().unwrap();
        assert_eq!(waits.join().unwrap(), busy == Priority::P2);
    }
}

/// However little of a CPU the background gets.
#[test]
fn background_ones_that_wait_for_too_long_are_done_by_ordinary_threads() {
    watched();
    let builder = Engine::builder().cpu_workers(1);
    let builder = builder.background_patience(Duration::from_millis(20));
    let engine = builder.build().unwrap();
    let (go, first) = computing(&engine, Priority::P2);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let job = engine.job().class(Class::Hybrid).priority(Priority::P2);
            job.submit(|_| is_of_the_background()).unwrap()
        })
        .collect();
    let mut by_background = waiting.into_iter().map(|job| job.join().unwrap());
    // The regulator may err once, and have another thread of the background begin.
    assert!(by_background.by_ref().any(|is| !is));
    by_background.for_each(drop);
    drop(go);
    first.join().unwrap();
}

#[test]
fn background_ones_move_beside_others_that_never_end() {
    watched();
    let engine = Engine::builder()
        .cpu_workers(1)
        .background_patience(Duration::from_millis(20));
    for class in [Class::Hybrid, Class::Io] {
        let engine = engine.clone().io_workers(0..=1).build().unwrap();
        let job = |priority| engine.job().class(class).priority(priority);
        let background = job(Priority::P2).submit(|_| ());
        // There is always one of these queued before any has ended.
        let mut others: std::collections::VecDeque<_> = Default::default();
        let background = background.unwrap();
        while !background.is_finished() {
            let other = job(Priority::P1).submit(|_| spin(Duration::from_micros(200)));
            others.push_back(other.unwrap());
            if others.len() > 64 {
                others.pop_front().unwrap().join().unwrap();
            }
        }
        background.join().unwrap();
    }
}

/// The only thread of each pool waits for what it has submitted, which others are to come to at last.
#[test]
fn background_ones_that_wait_for_each_other_do_not_run_out_of_threads() {
    fn nest(ctx: &JobContext, levels: usize) -> usize {
        if levels == 0 {
            return 0;
        }
        let job = ctx
            .engine()
            .job()
            .class(Class::Hybrid)
            .priority(Priority::P2);
        let below = job.submit(move |ctx| nest(ctx, levels - 1)).unwrap();
        // Another one takes it meanwhile, if there is any.
        thread::sleep(Duration::from_millis(20));
        below.join().unwrap() + 1
    }
    watched();
    let builder = Engine::builder().cpu_workers(1).io_workers(1..=1);
    let builder = builder.background_patience(Duration::from_millis(5));
    let engine = builder.build().unwrap();
    let job = engine.job().class(Class::Hybrid).priority(Priority::P2);
    let levels = job.submit(|ctx| nest(ctx, 30)).unwrap().join().unwrap();
    assert_eq!(levels, 30);
}

/// Others wake it while the spawner does something for it, and where that is looked for what it waits for.
#[test]
fn a_background_one_that_waits_for_many_is_woken_for_each() {
    watched();
    let engine = engine(1);
    let job = engine.job().class(Class::Hybrid).priority(Priority::P2);
    let job = job.submit(|ctx| {
        for round in 0..sized(10_000) {
            let batch = ctx.engine().batch(0..1).class(Class::Io);
            let begun = Duration::from_micros(round as u64 * 7 % 200);
            assert_eq!(batch.map(move |_, _| spin(begun)).unordered().count(), 1);
        }
    });
    job.unwrap().join().unwrap();
}

#[test]
fn they_have_a_queue_of_their_own() {
    watched();
    for class in [Class::Hybrid, Class::Auto] {
        let builder = Engine::builder().cpu_workers(1).io_workers(0..=1);
        let engine = builder.queue_capacity(class, 1).build().unwrap();
        // They block, but are not seen to at once; so some may begin.
        let mut blocked = Vec::new();
        let refused = loop {
            let (go, wait) = channel::<()>();
            let job = engine.job().class(class).submit(move |_| {
                let _ = wait.recv();
            });
            match job {
                Ok(job) => blocked.push((go, job)),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, SubmitError::QueueFull);
        let counts = engine.metrics().jobs(class, Priority::P1);
        assert_eq!(counts.rejected, 1);
        engine.submit(|_| ()).join().unwrap();
        for (go, job) in blocked {
            drop(go);
            job.join().unwrap();
        }
        let builder = Engine::builder().cpu_workers(1).queue_capacity(class, 1);
        let engine = builder.when_full(class, WhenFull::Block).build().unwrap();
        let jobs = (0..100).map(|_| engine.job().class(class).submit(|_| ()).unwrap());
        jobs.for_each(|job| job.join().unwrap());
    }
}

#[test]
fn one_that_waits_for_another_does_not_wait_for_ever() {
    watched();
    let engine = Arc::new(engine(1));
    for (outer, inner) in [
        (Class::Hybrid, Class::Hybrid),
        (Class::Hybrid, Class::Io),
        (Class::Io, Class::Hybrid),
        (Class::Cpu, Class::Hybrid),
        (Class::Hybrid, Class::Cpu),
        (Class::Auto, Class::Auto),
    ] {
        for (above, below) in [
            (Priority::P1, Priority::P0),
            (Priority::P0, Priority::P2),
            (Priority::P2, Priority::P1),
        ] {
            let job = engine.job().class(outer).priority(above);
            let job = job.submit(move |ctx| {
                let job = ctx.engine().job().class(inner).priority(below);
                let job = job.submit(|_| 7).unwrap();
                let sum = reiver::join(|| 1, || 2);
                job.join().unwrap() + sum.0 + sum.1
            });
            assert_eq!(job.unwrap().join().unwrap(), 10);
        }
    }
}

#[test]
fn an_engine_that_ends_tells_those_that_wait() {
    watched();
    let engine = engine(1);
    let begun: Vec<_> = (0..2).map(|_| blocked(&engine, Class::Hybrid)).collect();
    until(|| engine.metrics().jobs(Class::Hybrid, Priority::P1).running == 2);
    // No place is left that would be seen in time.
    let spinning = engine.job().class(Class::Hybrid).submit(|ctx| {
        while !ctx.is_cancelled() && ctx.checkpoint().is_ok() {}
    });
    let late: Vec<_> = (0..100)
        .map(|_| engine.job().class(Class::Hybrid).submit(|_| ()).unwrap())
        .collect();
    let helper = thread::spawn(move || {
        let (go, jobs): (Vec<_>, Vec<_>) = begun.into_iter().unzip();
        drop(go);
        jobs.into_iter().for_each(|job| job.join().unwrap());
    });
    let report = engine.shutdown(Duration::ZERO);
    let ended = late.into_iter().filter(|job| job.is_finished()).count();
    assert!(ended >= report.queued.saturating_sub(1), "{report:?}");
    drop(engine);
    helper.join().unwrap();
    assert!(spinning.unwrap().is_finished());
}

/// Submits jobs of a name until the engine has found out what they are.
fn settle(engine: &Engine, name: &'static str, body: fn(), class: Class) {
    let mut seen = Vec::new();
    while engine.auto_class(name) != Some(class) {
        let jobs: Vec<_> = (0..4)
            .map(|_| {
                let job = engine.job().class(Class::Auto).name(name);
                job.submit(move |_| body()).unwrap()
            })
            .collect();
        jobs.into_iter().for_each(|job| job.join().unwrap());
        seen.extend(engine.auto_class(name));
    }
    assert_eq!(seen.first(), Some(&Class::Hybrid));
}

#[test]
fn auto_finds_out_what_jobs_do() {
    watched();
    let engine = engine(2);
    assert_eq!(engine.auto_class("computes"), None);
    settle(
        &engine,
        "computes",
        || spin(Duration::from_millis(2)),
        Class::Cpu,
    );
    settle(
        &engine,
        "blocks",
        || thread::sleep(Duration::from_millis(2)),
        Class::Io,
    );
    let placed = engine.metrics().placed();
    let jobs = engine.metrics().jobs(Class::Auto, Priority::P1);
    assert_eq!(jobs.submitted, placed.cpu + placed.io + placed.hybrid);
    assert_eq!(jobs.completed, jobs.submitted);
    // They run where they belong.
    let on = |name: &'static str| {
        let job = engine.job().class(Class::Auto).name(name);
        let job = job.submit(|_| thread::current().name().map(str::to_owned));
        job.unwrap().join().unwrap().unwrap()
    };
    assert!(
        on("computes").starts_with("reiver-cpu"),
        "{}",
        on("computes")
    );
    assert!(on("blocks").starts_with("reiver-io"), "{}", on("blocks"));
    assert!(on("unknown").starts_with("reiver-hybrid"));
}

/// Twice as many threads as cores compute, so each waits for a CPU half of the time; by the clock on the
/// wall alone they would be Hybrid.
#[test]
fn compute_on_a_full_machine_does_not_look_like_waiting() {
    watched();
    let threads = 2 * thread::available_parallelism().unwrap().get();
    let engine = engine(threads);
    let round = |jobs: usize| {
        let jobs: Vec<_> = (0..jobs)
            .map(|_| {
                let job = engine.job().class(Class::Auto).name("computes");
                let job = job.submit(|_| {
                    let (begun, before) = (Instant::now(), cpu_time());
                    while cpu_time() - before < Duration::from_millis(20) {}
                    (cpu_time() - before, begun.elapsed())
                });
                job.unwrap()
            })
            .collect();
        let times = jobs.into_iter().map(|job| job.join().unwrap());
        times.collect::<Vec<(Duration, Duration)>>()
    };
    let mut times = round(4 * threads);
    times.extend(round(8 * threads));
    // All together, for a thread that has a CPU to itself does most of the jobs.
    let computed: Duration = times.iter().map(|(computed, _)| *computed).sum();
    let took: Duration = times.iter().map(|(_, took)| *took).sum();
    assert!(
        computed.as_secs_f64() < 0.8 * took.as_secs_f64(),
        "the machine was not full: {times:?}"
    );
    assert_eq!(engine.auto_class("computes"), Some(Class::Cpu));
}

/// Of the current thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is written to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

#[test]
fn without_a_name_closures_tell_jobs_apart() {
    watched();
    let engine = engine(2);
    fn submit<T: Send + 'static>(engine: &Engine, body: impl FnOnce() -> T + Send + 'static) -> T {
        let job = engine.job().class(Class::Auto).submit(move |_| body());
        job.unwrap().join().unwrap()
    }
    let name = || thread::current().name().unwrap_or_default().to_owned();
    let compute = || {
        submit(&engine, move || {
            spin(Duration::from_millis(1));
            name()
        })
    };
    let block = || {
        submit(&engine, move || {
            thread::sleep(Duration::from_millis(1));
            name()
        })
    };
    until(|| compute().starts_with("reiver-cpu"));
    until(|| block().starts_with("reiver-io"));
    until(|| compute().starts_with("reiver-cpu"));
}

#[test]
fn of_each_priority_auto_jobs_run_and_are_counted() {
    watched();
    let engine = engine(1);
    for priority in [Priority::P0, Priority::P1, Priority::P2] {
        let submit = |n: u32| {
            let job = engine.job().class(Class::Auto).priority(priority);
            job.submit(move |ctx| {
                // From any thread, those that may be stopped too.
                let inner = ctx.engine().job().class(Class::Auto).name(format!("{n}"));
                assert!(n != 3, "a panic is one here too");
                inner.submit(move |_| n).unwrap().join().unwrap()
            })
            .unwrap()
        };
        let jobs: Vec<_> = (0..100).map(submit).collect();
        let ended = jobs.into_iter().map(JobHandle::join);
        assert_eq!(ended.filter(Result::is_ok).count(), 99);
        let counts = engine.metrics().jobs(Class::Auto, priority);
        assert_eq!(counts.panicked, 1);
        assert_eq!(counts.queued + counts.running, 0);
    }
    assert_eq!(engine.running().len(), 0);
    let total = engine.metrics().total();
    assert_eq!((total.submitted, total.completed), (597, 594));
}
