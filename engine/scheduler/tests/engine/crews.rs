//! Who does the work of each priority, and how the kernel schedules them; that background work moves
//! beside any other.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use reiver::{Class, Engine, EngineBuilder, JobContext, NodeId, Priority, Topology};

use crate::engine;
use crate::size::sized;
use crate::watchdog::watched;

/// Engines whose ordinary workers never do what the background is slow to come to: it may be slow for
/// longer than others wait.
fn patient() -> EngineBuilder {
    watched();
    Engine::builder().background_patience(Duration::from_secs(3600))
}

/// The kind of thread: its name without its number.
fn kind() -> String {
    let name = thread::current().name().unwrap_or_default().to_owned();
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-')
        .to_owned()
}

/// How long the kernel lets the current thread run at a time, in nanoseconds: what was asked for, since Linux
/// 6.12; 0 before.
fn slice() -> u64 {
    // `sched_setattr(2)`: 48 bytes, of which the runtime is at 24.
    let mut attributes = [0_u64; 6];
    // SAFETY: so many bytes are written at the most; 0 is the current thread.
    let error = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, 48, 0) };
    assert_eq!(error, 0);
    attributes[3]
}

/// Policy and nice value of the current thread.
fn scheduling() -> (i32, i32) {
    // SAFETY: asks for a number.
    let policy = unsafe { libc::sched_getscheduler(0) };
    // SAFETY: as above; 0 is the current thread.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    (policy, nice)
}

/// True for what a background thread may have.
fn is_background((policy, nice): (i32, i32)) -> bool {
    policy == libc::SCHED_IDLE || nice == 19
}

#[test]
fn each_priority_has_threads_of_its_own() {
    let engine = patient().cpu_workers(2).build().unwrap();
    for (priority, expected) in [
        (Priority::P0, "reiver-p"),
        (Priority::P1, "reiver-cpu"),
        (Priority::P2, "reiver-p"),
    ] {
        let job = engine.job().priority(priority);
        let name = job.submit(|_| kind()).unwrap().join().unwrap();
        assert_eq!(name, expected, "{priority:?}");
    }
    let number = |priority| {
        let job = engine.job().priority(priority);
        let name = job.submit(|_| thread::current().name().map(str::to_owned));
        name.unwrap().join().unwrap().unwrap()
    };
    assert!(number(Priority::P0).starts_with("reiver-p0-"));
    assert!(number(Priority::P2).starts_with("reiver-p2-"));
}

/// Runs `body` on a thread that is an ordinary user's, whatever this process is: in Linux a thread has
/// its own credentials, and those that it creates have them too.
fn as_ordinary_user<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    const NOBODY: libc::c_long = 65_534;
    thread::scope(|threads| {
        let user = threads.spawn(|| {
            // SAFETY: numbers only.
            if unsafe { libc::getuid() } == 0 {
                // SAFETY: numbers only; the system calls themselves, for libc's change all threads.
                let group = unsafe { libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) };
                // SAFETY: as above.
                let user = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
                assert_eq!((group, user), (0, 0));
            }
            body()
        });
        user.join().unwrap()
    })
}

/// What a thread inherits from its creator it cannot give back without privilege: so none is created by
/// a worker.
#[test]
fn what_a_background_job_begins_does_not_run_in_the_background() {
    as_ordinary_user(|| {
        let before = scheduling();
        for class in [Class::Cpu, Class::Hybrid] {
            let engine = patient().cpu_workers(2).build().unwrap();
            let background = engine.job().class(class).priority(Priority::P2);
            let background = background.submit(|ctx| {
                let job = |class, priority| {
                    let job = ctx.engine().job().class(class).priority(priority);
                    job.submit(|_| scheduling()).unwrap().join().unwrap()
                };
                // The first of their kind: their threads are started for them. A wait in between is done by
                // a spare.
                let others = [
                    job(Class::Io, Priority::P1),
                    job(Class::Io, Priority::P2),
                    job(Class::Cpu, Priority::P1),
                    job(Class::Cpu, Priority::P0),
                    job(Class::Hybrid, Priority::P0),
                ];
                let background = [Class::Cpu, Class::Hybrid].map(|class| job(class, Priority::P2));
                (scheduling(), others, background)
            });
            let (own, others, background) = background.unwrap().join().unwrap();
            assert!(is_background(own), "{own:?}");
            assert!(background.into_iter().all(is_background), "{background:?}");
            assert_eq!(others, [before; 5]);
        }
    });
}

#[test]
fn ordinary_workers_yield_from_the_first_urgent_job_on_unless_told_not_to() {
    watched();
    as_ordinary_user(|| {
        let (_, before) = scheduling();
        for (yields, more) in [(true, 10), (false, 0)] {
            let builder = Engine::builder().cpu_workers(2).yield_to_urgent(yields);
            let engine = builder.build().unwrap();
            let ordinary = || engine.submit(|_| scheduling().1).join().unwrap();
            assert_eq!(ordinary(), before);
            let slice = || engine.submit(|_| slice()).join().unwrap();
            let usual = slice();
            let urgent = engine.job().priority(Priority::P0);
            let urgent = urgent.submit(|_| (scheduling(), kind())).unwrap();
            let (urgent, kind) = urgent.join().unwrap();
            assert_eq!(urgent, (libc::SCHED_OTHER, before));
            assert_eq!(kind == "reiver-cpu", !yields);
            assert_eq!(ordinary(), (before + more).min(19));
            // Where the kernel knows of it.
            let is_short = slice() == 100_000;
            assert_eq!(is_short, yields && usual > 0, "{usual}");
            let blocking = engine.job().class(Class::Io);
            let blocking = blocking.submit(|_| scheduling().1);
            assert_eq!(blocking.unwrap().join().unwrap(), before);
        }
    });
}

#[test]
fn they_yield_to_urgent_jobs_of_other_classes_that_compute_too() {
    watched();
    as_ordinary_user(|| {
        let (_, before) = scheduling();
        for class in [Class::Hybrid, Class::Auto] {
            let engine = engine(1);
            let urgent = engine.job().class(class).priority(Priority::P0);
            let urgent = urgent.submit(|_| (scheduling(), kind())).unwrap();
            let (urgent, kind) = urgent.join().unwrap();
            assert_eq!(urgent, (libc::SCHED_OTHER, before));
            assert_eq!(kind, "reiver-hyb-p");
            let ordinary = engine.submit(|_| scheduling().1).join().unwrap();
            assert_eq!(ordinary, (before + 10).min(19));
        }
    });
}

/// Where ordinary workers do not yield they do urgent work themselves: first, and inside of other jobs
/// where those let them.
#[test]
fn checkpoints_let_urgent_jobs_in_that_have_no_threads_of_their_own() {
    watched();
    let builder = Engine::builder().cpu_workers(1).yield_to_urgent(false);
    let engine = builder.build().unwrap();
    for _ in 0..sized(100) {
        let (says, begun) = channel();
        let (go, wait) = sync_channel::<()>(0);
        let long = engine.submit(move |ctx| {
            says.send(()).unwrap();
            wait.recv().unwrap();
            let thread = thread::current().id();
            let before = ctx.engine().metrics().jobs(Class::Cpu, Priority::P0);
            ctx.checkpoint().unwrap();
            let after = ctx.engine().metrics().jobs(Class::Cpu, Priority::P0);
            assert_eq!(thread, thread::current().id());
            after.completed - before.completed
        });
        begun.recv().unwrap();
        let jobs = [(); 3].map(|()| {
            let urgent = engine.job().priority(Priority::P0);
            urgent.submit(|_| kind()).unwrap()
        });
        go.send(()).unwrap();
        assert_eq!(long.join().unwrap(), 3);
        for job in jobs {
            assert_eq!(job.join().unwrap(), "reiver-cpu");
        }
    }
}

/// Where the forks of a job run.
fn threads_of_forks(engine: &Engine, priority: Priority) -> BTreeSet<String> {
    let threads = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&threads);
    let job = engine.job().priority(priority).submit(move |_| {
        let note = || {
            let name = thread::current().name().unwrap_or_default().to_owned();
            seen.lock().unwrap().insert(name);
            thread::yield_now();
        };
        reiver::par_for(0..sized(2000), 1, |_| note());
        reiver::scope(|scope| {
            for node in [NodeId(0), NodeId(1)] {
                scope.spawn_on(node, |_| note());
            }
            (0..100).for_each(|_| scope.spawn(|_| note()));
        });
        reiver::join(note, note);
    });
    job.unwrap().join().unwrap();
    let threads = threads.lock().unwrap();
    threads.clone()
}

#[test]
fn forks_stay_with_the_threads_of_their_jobs_priority() {
    let topology = Topology::synthetic("NUMANode:2 Core:2 PU:1").unwrap();
    let engine = patient().topology(topology).build().unwrap();
    for (priority, prefix) in [
        (Priority::P0, "reiver-p0-"),
        (Priority::P1, "reiver-cpu-"),
        (Priority::P2, "reiver-p2-"),
    ] {
        for _ in 0..sized(20) {
            let threads = threads_of_forks(&engine, priority);
            let is_own = |name: &String| name.starts_with(prefix);
            assert!(threads.iter().all(is_own), "{priority:?}: {threads:?}");
        }
    }
}

/// An I/O thread that enters the engine inside a P2 job does so in the background.
#[test]
fn what_enters_from_a_job_runs_at_its_priority() {
    let engine = patient().cpu_workers(2).build().unwrap();
    for (priority, prefix) in [
        (Priority::P0, "reiver-p0-"),
        (Priority::P1, "reiver-cpu-"),
        (Priority::P2, "reiver-p2-"),
    ] {
        let job = engine.job().class(Class::Io).priority(priority);
        let job = job.submit(|ctx| {
            let name = || thread::current().name().unwrap_or_default().to_owned();
            ctx.engine().install(name)
        });
        let name = job.unwrap().join().unwrap();
        assert!(name.starts_with(prefix), "{priority:?}: {name}");
    }
}

/// Keeps all background workers in jobs until it is dropped.
struct Occupied {
    held: Vec<SyncSender<()>>,
}

impl Occupied {
    fn new(engine: &Engine, workers: usize) -> Occupied {
        let mut held = Vec::new();
        while held.len() < workers {
            let (go, wait) = sync_channel::<()>(0);
            let (says, begun) = channel();
            let job = engine.job().priority(Priority::P2).submit(move |_| {
                // Where they are slow to come, an ordinary one does it.
                let is_background = kind() != "reiver-cpu";
                says.send(is_background).unwrap();
                if is_background {
                    let _ = wait.recv();
                }
            });
            drop(job.unwrap());
            held.extend(begun.recv().unwrap().then_some(go));
        }
        Occupied { held }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.held.clear();
    }
}

/// Ordinary jobs without end, each of which submits the next, until this is dropped.
struct Saturated {
    is_over: Arc<AtomicBool>,
    ran: Arc<AtomicUsize>,
}

impl Saturated {
    fn new(engine: &Engine, jobs: usize) -> Saturated {
        fn next(ctx: &JobContext, is_over: Arc<AtomicBool>, ran: Arc<AtomicUsize>) {
            if !is_over.load(Ordering::Relaxed) {
                ran.fetch_add(1, Ordering::Relaxed);
                drop(ctx.engine().submit(move |ctx| next(ctx, is_over, ran)));
            }
        }
        let saturated = Saturated {
            is_over: Arc::default(),
            ran: Arc::default(),
        };
        for _ in 0..jobs {
            let (is_over, ran) = (Arc::clone(&saturated.is_over), Arc::clone(&saturated.ran));
            drop(engine.submit(move |ctx| next(ctx, is_over, ran)));
        }
        saturated
    }
}

impl Drop for Saturated {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Nobody of the background can come to it, and ordinary work never ends.
#[test]
fn background_work_that_stands_still_is_done_by_an_ordinary_worker_one_job_each_time() {
    const PATIENCE: Duration = Duration::from_millis(50);
    watched();
    let builder = Engine::builder().cpu_workers(2);
    let engine = builder.background_patience(PATIENCE).build().unwrap();
    let _occupied = Occupied::new(&engine, 2);
    let saturated = Saturated::new(&engine, 4);
    let start = Instant::now();
    let jobs: Vec<_> = (0..5)
        .map(|_| {
            let job = engine.job().priority(Priority::P2);
            job.submit(|_| (kind(), Instant::now())).unwrap()
        })
        .collect();
    let mut ended = Vec::new();
    for job in jobs {
        let (kind, at) = job.join().unwrap();
        assert_eq!(kind, "reiver-cpu");
        ended.push(at);
    }
    ended.sort_unstable();
    // None before its time, whatever else the machine does.
    for (number, at) in (1..).zip(ended) {
        assert!(at - start >= PATIENCE * number, "job {number}");
    }
    assert!(saturated.ran.load(Ordering::Relaxed) > 0);
}

/// Nobody of the background can come to it, and nobody else is awake.
#[test]
fn an_ordinary_worker_is_woken_for_background_work_that_stands_still() {
    const PATIENCE: Duration = Duration::from_millis(50);
    watched();
    let builder = Engine::builder().cpu_workers(2);
    let engine = builder.background_patience(PATIENCE).build().unwrap();
    let _occupied = Occupied::new(&engine, 2);
    for _ in 0..3 {
        let start = Instant::now();
        let job = engine.job().priority(Priority::P2);
        let kind = job.submit(|_| kind()).unwrap().join().unwrap();
        assert_eq!(kind, "reiver-cpu");
        assert!(start.elapsed() >= PATIENCE);
    }
}

/// Nor has anybody who is ordinary anything to do but to wait.
#[test]
fn a_spare_does_background_work_that_stands_still_where_workers_wait() {
    const PATIENCE: Duration = Duration::from_millis(50);
    watched();
    let builder = Engine::builder().cpu_workers(1);
    let engine = builder.background_patience(PATIENCE).build().unwrap();
    let _occupied = Occupied::new(&engine, 1);
    let (go, wait) = channel::<()>();
    let waits = engine.submit(move |ctx| {
        let blocks = ctx.engine().job().class(Class::Io);
        blocks
            .submit(move |_| wait.recv().is_err())
            .unwrap()
            .join()
            .unwrap()
    });
    while engine.metrics().jobs(Class::Io, Priority::P1).running == 0 {
        thread::yield_now();
    }
    for _ in 0..3 {
        let job = engine.job().priority(Priority::P2);
        assert_eq!(
            job.submit(|_| kind()).unwrap().join().unwrap(),
            "reiver-cpu"
        );
    }
    drop(go);
    assert!(waits.join().unwrap());
}

/// Each is done where such work is done, whoever wants it.
#[test]
fn what_is_installed_at_a_priority_runs_on_its_threads() {
    let engine = patient().cpu_workers(1).build().unwrap();
    let ranks = [
        (Priority::P0, "reiver-p"),
        (Priority::P1, "reiver-cpu"),
        (Priority::P2, "reiver-p"),
    ];
    for (outer, _) in ranks {
        for (inner, expected) in ranks {
            let job = engine.job().priority(outer);
            let job = job.submit(move |ctx| {
                let name = || thread::current().name().map(str::to_owned);
                ctx.engine().install_at(inner, || (kind(), name()))
            });
            let (kind, name) = job.unwrap().join().unwrap();
            let name = name.unwrap();
            assert_eq!(kind, expected, "{outer:?}, {inner:?}: {name}");
            let number = format!("-{inner:?}-").to_lowercase();
            assert!(inner == Priority::P1 || name.contains(&number), "{name}");
        }
        // Nor does a thread that blocks compute for others.
        let blocks = engine.job().class(Class::Io).priority(outer);
        let computes = blocks.submit(|ctx| ctx.engine().submit(|_| kind()).join().unwrap());
        assert_eq!(computes.unwrap().join().unwrap(), "reiver-cpu");
    }
}

#[test]
fn all_work_is_done_whoever_submits_it() {
    let engine = engine(2);
    let done = Arc::new(AtomicUsize::new(0));
    let priorities = [Priority::P0, Priority::P1, Priority::P2];
    let classes = [Class::Cpu, Class::Io];
    let rounds = sized(200);
    for outer in priorities {
        let jobs: Vec<_> = (0..rounds)
            .map(|number| {
                let done = Arc::clone(&done);
                let job = engine.job().priority(outer);
                let job = job.submit(move |ctx| {
                    for priority in priorities {
                        for class in classes {
                            let done = Arc::clone(&done);
                            let job = ctx.engine().job().class(class).priority(priority);
                            let job = if number % 2 == 0 {
                                job
                            } else {
                                job.deadline(Duration::from_secs(250))
                            };
                            let job = job.submit(move |_| done.fetch_add(1, Ordering::Relaxed));
                            drop(job.unwrap());
                        }
                    }
                    let many = (0..10).map(|_| {
                        let done = Arc::clone(&done);
                        move |_: &JobContext| done.fetch_add(1, Ordering::Relaxed)
                    });
                    ctx.engine().submit_many(many)
                });
                job.unwrap()
            })
            .collect();
        for job in jobs {
            for inner in job.join().unwrap() {
                inner.join().unwrap();
            }
        }
    }
    assert!(engine.shutdown(Duration::from_secs(250)).is_clean());
    assert_eq!(done.load(Ordering::Relaxed), 3 * rounds * (6 + 10));
    let total = engine.metrics().total();
    assert_eq!(total.submitted, total.completed);
}

/// A background job waits for others that wait in turn: each hands its place on to a spare.
#[test]
fn background_jobs_may_wait_for_jobs_of_any_priority() {
    let engine = engine(1);
    for priority in [Priority::P0, Priority::P1, Priority::P2] {
        let jobs: Vec<_> = (0..sized(8))
            .map(|_| {
                let job = engine.job().priority(Priority::P2);
                let job = job.submit(move |ctx| {
                    let inner = ctx.engine().job().priority(priority);
                    inner.submit(|_| 7).unwrap().join().unwrap()
                });
                job.unwrap()
            })
            .collect();
        assert!(jobs.into_iter().all(|job| job.join().unwrap() == 7));
    }
}

#[test]
fn an_engine_ends_with_work_of_each_priority_queued_and_running() {
    for _ in 0..sized(100) {
        let engine = engine(2);
        for priority in [Priority::P0, Priority::P1, Priority::P2] {
            for _ in 0..20 {
                let job = engine.job().priority(priority);
                drop(job.submit(|_| thread::yield_now()).unwrap());
            }
        }
    }
}

/// One I/O thread: what waits is taken by priority, and among equals in order, whatever came when.
#[test]
fn jobs_that_block_are_taken_by_priority_then_in_order() {
    use proptest::collection::vec;
    use proptest::test_runner::{Config, TestRunner};

    let engine = patient().cpu_workers(1).io_workers(1..=1).build();
    let engine = engine.unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 50,
        failure_persistence: None,
        ..Config::default()
    });
    let ran = runner.run(&vec(0_usize..3, 1..60), |priorities| {
        let (go, wait) = sync_channel::<()>(0);
        let held = engine.job().class(Class::Io).submit(move |_| {
            let _ = wait.recv();
        });
        // The only thread is in that job, or will be before all others: it came first, at P1.
        while engine.metrics().jobs(Class::Io, Priority::P1).running == 0 {
            thread::yield_now();
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let jobs: Vec<_> = priorities
            .iter()
            .enumerate()
            .map(|(number, &priority)| {
                let order = Arc::clone(&order);
                let priority = [Priority::P0, Priority::P1, Priority::P2][priority];
                let job = engine.job().class(Class::Io).priority(priority);
                let job = job.submit(move |_| order.lock().unwrap().push(number));
                job.unwrap()
            })
            .collect();
        drop(go);
        held.unwrap().join().unwrap();
        jobs.into_iter().for_each(|job| job.join().unwrap());
        let mut model: Vec<usize> = (0..priorities.len()).collect();
        model.sort_by_key(|&number| priorities[number]);
        proptest::prop_assert_eq!(&*order.lock().unwrap(), &model);
        Ok(())
    });
    ran.unwrap();
}
