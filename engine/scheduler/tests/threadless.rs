//! The global engine where the system gives few threads, or none at all: limits hold for a whole
//! process, so each case is one of its own.

use std::process::{Command, ExitCode};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use reiver::{CancellationToken, Class, Engine, JobContext, JobError, NodeId, Priority};

const CASES: [(&str, u64, fn()); 4] = [
    ("no_threads_at_all", 1, global_engine),
    ("fewer_than_wanted", 3, global_engine),
    ("one_worker_and_no_more", 3, waits_of_a_worker),
    ("no_threads_for_priorities", 3, priorities_of_a_worker),
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

/// The thread that would start another one runs an I/O job, which waits for what a worker does that asks
/// for a thread.
fn waits_of_a_worker() {
    // SAFETY: a call without pointers.
    if unsafe { libc::geteuid() } != USER {
        // What else they run counts against the limit, and an engine is not to be had at all.
        eprintln!("skipped: a limit of threads that only root can set for somebody else");
        return;
    }
    for _ in 0..50 {
        let engine = loop {
            // Threads of the last one may not be quite gone.
            match Engine::builder().cpu_workers(1).build() {
                Ok(engine) => break engine,
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        };
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
    // SAFETY: a call without pointers.
    if unsafe { libc::geteuid() } != USER {
        eprintln!("skipped: a limit of threads that only root can set for somebody else");
        return;
    }
    for _ in 0..20 {
        let engine = loop {
            // Threads of the last one may not be quite gone.
            match Engine::builder().cpu_workers(1).build() {
                Ok(engine) => break engine,
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        };
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

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (left, right) = reiver::join(|| fib(n - 1), || fib(n - 2));
    left + right
}
