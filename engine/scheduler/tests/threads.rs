//! Engines that have ended leave no thread and no memory behind. In a process of its own, so that nobody
//! else's are counted.

#[path = "engine/size.rs"]
mod size;
#[path = "engine/watchdog.rs"]
mod watchdog;

use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use reiver::{Class, Engine, Priority, Topology};
use size::sized;
use watchdog::watched;

/// One test at a time: threads and memory are those of the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    watched();
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The threads of engines.
fn threads() -> usize {
    threads_called("reiver-")
}

/// Those whose names begin so.
fn threads_called(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| {
        // One that ends meanwhile has no name any more.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    names.filter(|name| name.starts_with(prefix)).count()
}

/// A thread that was joined may be listed for a moment.
fn wait_until_all_have_left() {
    while threads() > 0 {
        thread::yield_now();
    }
}

/// Resident bytes of the process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Builds an engine, has it do something of each kind, and ends it.
fn live(number: usize) {
    let topology = Topology::synthetic("NUMANode:2 Core:1 PU:1").unwrap();
    let engine = Engine::builder().topology(topology).build().unwrap();
    assert_eq!(engine.join(|| number, || 1), (number, 1));
    let job = engine.submit(move |ctx| {
        let io = ctx.engine().job().class(Class::Io).submit(move |_| number);
        io.unwrap().join().unwrap()
    });
    let late = engine.job().deadline(Duration::from_secs(200));
    let late = late.submit(|_| ()).unwrap();
    engine.scope(|scope| (0..100).for_each(|_| scope.spawn(|_| ())));
    assert_eq!(job.join().unwrap(), number);
    if number.is_multiple_of(2) {
        late.join().unwrap();
    }
}

#[test]
fn a_thousand_engines_one_after_another_leave_no_thread_and_no_memory() {
    let _alone = alone();
    // As much as the allocator keeps anyway.
    (0..sized(50)).for_each(live);
    let memory = resident();
    for number in 0..sized(1000) {
        live(number);
        wait_until_all_have_left();
    }
    // An engine takes some hundred KiB: one kept in ten would be 10 MiB and more.
    let more = resident().saturating_sub(memory);
    println!("{more} bytes more");
    // A tool that makes everything slower keeps more itself.
    let is_measured = sized(1000) == 1000;
    assert!(!is_measured || more < 10 << 20, "{more} bytes more");
}

#[test]
fn a_hundred_engines_at_once_all_leave() {
    let _alone = alone();
    let engines: Vec<Engine> = (0..sized(100))
        .map(|_| Engine::builder().cpu_workers(2).build().unwrap())
        .collect();
    // They name themselves once they run.
    while threads() < 2 * engines.len() {
        thread::yield_now();
    }
    for engine in &engines {
        engine.install(|| reiver::join(|| (), || ()));
    }
    drop(engines);
    wait_until_all_have_left();
}

/// They come with the first job, leave once there was none for long, and come again.
#[test]
fn background_threads_are_there_only_as_long_as_they_are_needed() {
    let _alone = alone();
    let engine = Engine::builder().cpu_workers(2).build().unwrap();
    engine.submit(|_| ()).join().unwrap();
    assert_eq!(threads_called("reiver-p"), 0);
    let background = || {
        let job = engine.job().priority(Priority::P2);
        job.submit(|_| ()).unwrap().join().unwrap();
        assert!(threads_called("reiver-p2") > 0);
    };
    background();
    while threads_called("reiver-p2") > 0 {
        thread::sleep(Duration::from_millis(100));
    }
    background();
    let urgent = engine.job().priority(Priority::P0);
    urgent.submit(|_| ()).unwrap().join().unwrap();
    background();
    drop(engine);
    wait_until_all_have_left();
}

/// Jobs that come one by one are done by who was last at work; the others, who rest, end.
#[test]
fn threads_that_a_burst_needed_end_beside_a_trickle() {
    let _alone = alone();
    let engine = Engine::builder().cpu_workers(1).build().unwrap();
    let all_of = [(Class::Io, "reiver-io"), (Class::Hybrid, "reiver-hybrid")];
    for (class, name) in all_of {
        let all = Arc::new(Barrier::new(20));
        let burst: Vec<_> = (0..20)
            .map(|_| {
                let all = Arc::clone(&all);
                let job = engine.job().class(class);
                job.submit(move |_| all.wait().is_leader()).unwrap()
            })
            .collect();
        let leaders = burst.into_iter().map(|job| job.join().unwrap());
        assert_eq!(leaders.filter(|&is_leader| is_leader).count(), 1);
        assert!(threads_called(name) >= 20);
    }
    while all_of.iter().any(|(_, name)| threads_called(name) > 5) {
        for (class, _) in all_of {
            let job = engine.job().class(class).submit(|_| ());
            job.unwrap().join().unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    }
    drop(engine);
    wait_until_all_have_left();
}
