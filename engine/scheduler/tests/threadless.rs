//! The global engine where the system gives few threads, or none at all: limits hold for a whole
//! process, so each case is one of its own.

use std::process::{Command, ExitCode};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use reiver::{
    CancellationToken, Class, Engine, EngineBuilder, JobContext, JobError, NodeId, Priority,
    Topology,
};

const CASES: [(&str, u64, fn()); 8] = [
    ("no_threads_at_all", 1, global_engine),
    ("fewer_than_wanted", 3, global_engine),
    ("one_worker_and_no_more", 3, waits_of_a_worker),
    ("no_threads_for_priorities", 3, priorities_of_a_worker),
    (
        "no_threads_while_one_is_waited_for",
        3,
        crews_of_one_that_stands_in,
    ),
    (
        "one_background_thread_and_no_more",
        4,
        brought_beside_one_that_stands_in,
    ),
    (
        "an_engine_without_threads_inside_of_the_background",
        4,
        threadless_in_the_background,
    ),
    (
        "threads_for_one_of_two_nodes",
        5,
        strict_jobs_of_half_a_crew,
    ),
];

/// Nobody's, so that nothing else counts against its limit.
const USER: u32 = 54_321;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if let (Some("--case"), Some(named)) = (arguments.next().as_deref(), arguments.next()) {
        let case = CASES.iter().find(|(name, ..)| *name == named);
        let (_, limit, case) = case.expect("the parent gives a name");
        confine(*limit);
        case();
        return ExitCode::SUCCESS;
    }
    let me = std::env::current_exe().expect("a program knows itself");
    let mut failed = false;
    for (name, ..) in CASES {
        let status = Command::new(&me).args(["--case", name]).status();
        let ok = status.is_ok_and(|status| status.success());
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        failed |= !ok;
    }
    ExitCode::from(u8::from(failed))
}

/// To so many threads, this one among them.
fn confine(limit: u64) {
    let limit = libc::rlimit {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: a call with a valid argument.
    let refused = unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) };
    assert_eq!(refused, 0);
    // Root is above the limit. Where this is refused we are an ordinary user already.
    // SAFETY: a call without pointers.
    unsafe { libc::setuid(USER) };
    // SAFETY: a call without pointers; the watchdog of a process that may have no threads.
    unsafe { libc::alarm(300) };
}

fn global_engine() {
    let engine = Engine::global();
    assert_eq!(reiver::join(|| fib(12), || 2), (144, 2));
    let mut parts = [0; 64];
    reiver::scope(|scope| {
        for (number, part) in parts.iter_mut().enumerate() {
            scope.spawn_on(NodeId(0), move |scope| scope.spawn(move |_| *part = number));
        }
    });
    assert!(parts.into_iter().eq(0..64));
    for class in [Class::Cpu, Class::Io] {
        let job = engine.job().class(class).priority(Priority::P2);
        let job = job.submit(|ctx| ctx.engine().submit(|_| 4).join().map(|four| four + 1));
        assert_eq!(job.unwrap().join().unwrap().unwrap(), 5);
    }
    let token = CancellationToken::new();
    token.cancel();
    let cancelled = engine.job().cancel_with(&token).submit(|_| ()).unwrap();
    assert!(matches!(cancelled.join(), Err(JobError::Cancelled)));
    let panics: Result<(), JobError> = engine.submit(|_| panic!("as it should")).join();
    assert!(matches!(panics, Err(JobError::Panicked(_))));
    let other = Engine::builder().cpu_workers(100).build();
    assert!(
        other
            .unwrap_err()
            .to_string()
            .contains("of 100 worker threads")
    );
    let total = engine.metrics().total();
    assert_eq!(
        (total.completed, total.cancelled, total.panicked),
        (4, 1, 1)
    );
    // One of many waits for the others, on whatever thread.
    let many = engine.submit_many((0..40).map(|number| {
        move |ctx: &JobContext| match number {
            7 => ctx.engine().shutdown(Duration::MAX).is_clean(),
            _ => true,
        }
    }));
    for job in many {
        assert!(matches!(job.join(), Ok(true)));
    }
}

/// False where the limit does not hold for just this process: what else its user runs counts against it,
/// and an engine may not be to be had at all.
fn is_limited() -> bool {
    // SAFETY: a call without pointers.
    let is_limited = unsafe { libc::geteuid() } == USER;
    if !is_limited {
        eprintln!("skipped: a limit of threads that only root can set for somebody else");
    }
    is_limited
}

/// An engine, once the threads of the last one are quite gone.
fn built(builder: impl Fn() -> EngineBuilder) -> Engine {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    while threads() > 1 {
        thread::sleep(Duration::from_millis(1));
    }
    builder().build().unwrap()
}

/// The thread that would start another one runs an I/O job, which waits for what a worker does that asks
/// for a thread.
fn waits_of_a_worker() {
    if !is_limited() {
        return;
    }
    for _ in 0..50 {
        let engine = built(|| Engine::builder().cpu_workers(1));
        let joins = engine.submit(|ctx| {
            let other = ctx.engine().submit(|_| 1);
            let io = ctx.engine().job().class(Class::Io);
            let io = io.submit(move |_| other.join().unwrap()).unwrap();
            io.join().unwrap()
        });
        assert_eq!(joins.join().unwrap(), 1);
        let blocks = engine.submit(|ctx| {
            let (says, hears) = channel();
            let io = ctx.engine().job().class(Class::Io);
            let io = io.submit(move |_| hears.recv().unwrap()).unwrap();
            ctx.engine().blocking(|| says.send(2).unwrap());
            io.join().unwrap()
        });
        assert_eq!(blocks.join().unwrap(), 2);
    }
}

/// Without threads of their own, urgent and background jobs are done by the worker that there is, in
/// order.
fn priorities_of_a_worker() {
    use Priority::{P0, P1, P2};
    if !is_limited() {
        return;
    }
    for _ in 0..20 {
        let engine = built(|| Engine::builder().cpu_workers(1));
        // The first of each is queued before its thread is refused.
        for priority in [P2, P0] {
            let job = engine.job().priority(priority);
            let job = job.submit(|_| reiver::join(|| fib(10), || 1)).unwrap();
            assert_eq!(job.join().unwrap(), (55, 1));
        }
        let (go, wait) = channel::<()>();
        let held = engine.submit(move |_| wait.recv().unwrap());
        while engine.metrics().total().running == 0 {
            thread::yield_now();
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let jobs: Vec<_> = [P2, P1, P0, P2, P0, P1]
            .into_iter()
            .map(|priority| {
                let order = Arc::clone(&order);
                let job = engine.job().priority(priority);
                job.submit(move |_| order.lock().unwrap().push(priority))
                    .unwrap()
            })
            .collect();
        go.send(()).unwrap();
        held.join().unwrap();
        jobs.into_iter().for_each(|job| job.join().unwrap());
        assert_eq!(*order.lock().unwrap(), [P0, P0, P1, P1, P2, P2]);
    }
}

/// The thread that would start others runs an I/O job, which waits for what those are to do: as a handle,
/// or in a way that nobody knows of.
fn crews_of_one_that_stands_in() {
    if !is_limited() {
        return;
    }
    for round in 0..20 {
        let engine = built(|| Engine::builder().cpu_workers(1));
        let io = engine.job().class(Class::Io).submit(move |ctx| {
            for priority in [Priority::P2, Priority::P0] {
                let job = || ctx.engine().job().priority(priority);
                let forks = job().submit(|_| reiver::join(|| fib(10), || 1)).unwrap();
                assert_eq!(forks.join().unwrap(), (55, 1));
                let (says, hears) = channel();
                let strict = job().node(NodeId(0));
                drop(strict.submit(move |_| says.send(round).unwrap()).unwrap());
                assert_eq!(hears.recv().unwrap(), round);
            }
            round
        });
        assert_eq!(io.unwrap().join().unwrap(), round);
    }
}

/// It waits for a background job, whose own jobs it would have to bring to others.
fn brought_beside_one_that_stands_in() {
    if !is_limited() {
        return;
    }
    for _ in 0..20 {
        let engine = built(|| Engine::builder().cpu_workers(1));
        let first = engine.job().priority(Priority::P2);
        let first = first.submit(|_| thread::current().name().map(str::to_owned));
        let name = first.unwrap().join().unwrap().unwrap_or_default();
        assert!(name.starts_with("reiver-p2-"), "{name}");
        let io = engine.job().class(Class::Io).submit(move |ctx| {
            let job = ctx.engine().job().priority(Priority::P2);
            let job = job.submit(|ctx| {
                let many = (0..10).map(|number| move |_: &JobContext| number);
                let many = ctx.engine().submit_many(many);
                let one = ctx.engine().submit(|_| 1).join().unwrap();
                let many = many.into_iter().map(|job| job.join().unwrap());
                assert!(!ctx.engine().running().is_empty());
                one + many.sum::<i32>()
            });
            job.unwrap().join().unwrap()
        });
        assert_eq!(io.unwrap().join().unwrap(), 46);
    }
}

/// The global engine finds that another one has all threads, and is entered by one of these.
fn threadless_in_the_background() {
    if !is_limited() {
        return;
    }
    let engine = built(|| Engine::builder().cpu_workers(1));
    let job = engine.job().priority(Priority::P2).submit(|_| {
        let name = thread::current().name().map(str::to_owned);
        let global = Engine::global();
        let sum = global.install(|| reiver::join(|| 1, || 2));
        let job = global.submit(|_| 3).join().unwrap();
        (name, sum.0 + sum.1 + job)
    });
    let (name, sum) = job.unwrap().join().unwrap();
    assert_eq!(sum, 6);
    assert!(name.unwrap_or_default().starts_with("reiver-p2-"));
}

/// A crew has a thread at the first node and none at the second.
fn strict_jobs_of_half_a_crew() {
    if !is_limited() {
        return;
    }
    for round in 0..20 {
        let topology = || Topology::synthetic("NUMANode:2 Core:1 PU:1").unwrap();
        let engine = built(|| Engine::builder().topology(topology()));
        let priority = [Priority::P0, Priority::P2][round % 2];
        let jobs: Vec<_> = (0..20)
            .map(|number| {
                let job = engine.job().priority(priority).node(NodeId(number % 2));
                let job = job.submit(move |ctx| {
                    assert_eq!(ctx.node(), NodeId(number % 2));
                    thread::current().name().map(str::to_owned)
                });
                job.unwrap()
            })
            .collect();
        let kinds: [&str; 2] = [["reiver-p0-0", "reiver-p2-0"][round % 2], "reiver-cpu-1"];
        for (number, job) in jobs.into_iter().enumerate() {
            let name = job.join().unwrap().unwrap_or_default();
            assert_eq!(name, kinds[number % 2], "job {number}");
        }
    }
}

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (left, right) = reiver::join(|| fib(n - 1), || fib(n - 2));
    left + right
}
