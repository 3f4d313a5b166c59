//! What has ended is forgotten, even where no worker comes to its place in the queue. In a process of
//! its own, so that nobody else's memory is measured.

#[path = "engine/watchdog.rs"]
mod watchdog;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use reiver::{CancellationToken, Class, Engine, Priority};
use watchdog::watched;

/// One test at a time: the memory is that of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Resident bytes of the process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn jobs_that_were_cancelled_or_have_ended_leave_nothing_in_queues_and_lists() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    // Four times what is held to be too much.
    const JOBS: usize = 200_000;
    let payload = [1_u8; 1024];
    let engine = Engine::builder()
        .cpu_workers(1)
        .io_workers(0..=1)
        .build()
        .unwrap();
    let before = resident();
    for class in [Class::Cpu, Class::Io] {
        let (go, wait) = sync_channel::<()>(0);
        let (says, begun) = sync_channel(0);
        let held = engine.job().class(class).submit(move |_| {
            says.send(()).unwrap();
            wait.recv().unwrap();
        });
        begun.recv().unwrap();
        for _ in 0..JOBS {
            let token = CancellationToken::new();
            let job = engine.job().class(class).cancel_with(&token);
            drop(job.submit(move |_| payload).unwrap());
            token.cancel();
        }
        assert!(resident() < before + JOBS * payload.len() / 4, "{class:?}");
        go.send(()).unwrap();
        held.unwrap().join().unwrap();
    }
    // Deadlines of jobs that have ended long before, and children of one token.
    let root = CancellationToken::new();
    for _ in 0..JOBS {
        let job = engine.job().deadline(Duration::from_secs(3600));
        let job = job.cancel_with(&root.child()).submit(move |_| payload[0]);
        job.unwrap().join().unwrap();
    }
    assert!(resident() < before + JOBS * payload.len() / 4);
}

/// Nobody else comes to its queue, and it comes to it only once it has ended.
#[test]
fn a_background_job_that_runs_its_own_jobs_leaves_none_of_them_in_its_queue() {
    const JOBS: usize = 500_000;
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    watched();
    let engine = Engine::builder().cpu_workers(1).build().unwrap();
    let job = engine.job().priority(Priority::P2).submit(|ctx| {
        let before = resident();
        for number in 0..JOBS {
            let job = ctx.engine().job().priority(Priority::P2);
            assert_eq!(job.submit(move |_| number).unwrap().join().unwrap(), number);
        }
        resident().saturating_sub(before)
    });
    let more = job.unwrap().join().unwrap();
    println!("{more} bytes more");
    // A cache line and an entry for each are 40 MiB and more.
    assert!(more < 16 << 20, "{more} bytes more");
}

#[test]
fn a_million_inputs_take_the_memory_of_those_in_flight() {
    const INPUTS: usize = 1_000_000;
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let engine = Engine::builder().cpu_workers(2).build().unwrap();
    let before = resident();
    // A hundred bytes for each would be too much.
    let inputs = (0..INPUTS).map(|number| [number; 32]);
    let run = engine.batch(inputs).map(|_, input| input[31]);
    let sum: usize = run.unordered().map(Result::unwrap).sum();
    assert_eq!(sum, INPUTS * (INPUTS - 1) / 2);
    assert!(resident() < before + INPUTS * 100);
}

#[test]
fn a_million_spawns_give_their_memory_back_once_the_worker_has_slept() {
    const SPAWNS: usize = 1_000_000;
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    watched();
    for workers in [1, 4] {
        let engine = Engine::builder().cpu_workers(workers).build().unwrap();
        engine.scope(|scope| (0..1000).for_each(|_| scope.spawn(|_| ())));
        let before = resident();
        let (ran, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        for _ in 0..3 {
            engine.scope(|scope| {
                let (payload, ran) = ([1_usize; 8], &ran);
                for _ in 0..SPAWNS {
                    scope.spawn(move |_| {
                        ran.fetch_add(payload[7], Ordering::Relaxed);
                    });
                }
                most.fetch_max(resident(), Ordering::Relaxed);
            });
        }
        assert_eq!(ran.into_inner(), 3 * SPAWNS);
        println!("{workers} workers: from {before} to {most:?} bytes");
        // A quarter of what lay there at once, if by one worker.
        while resident() > before + SPAWNS * 100 / 4 {
            std::thread::sleep(Duration::from_millis(10));
            // What the engine has freed the C library keeps until it is asked.
            // SAFETY: a call without pointers.
            unsafe { libc::malloc_trim(0) };
        }
    }
}
