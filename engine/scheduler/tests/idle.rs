//! An engine with nothing to do uses no CPU. In a process of its own, so that nobody else's work is
//! measured.

use std::time::Duration;

use reiver::{Class, Engine};

/// CPU time of the process so far.
fn cpu_time() -> Duration {
    // SAFETY: all zero is a valid `timespec`.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: a call with a valid argument.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(
        time.tv_sec.try_into().unwrap(),
        time.tv_nsec.try_into().unwrap(),
    )
}

#[test]
fn an_engine_that_has_nothing_to_do_sleeps() {
    let engine = Engine::builder().cpu_workers(8).build().unwrap();
    let work = || {
        let io = engine.job().class(Class::Io).submit(|_| ()).unwrap();
        engine.join(|| (), || ());
        io.join().unwrap();
    };
    work();
    while engine.metrics().parks() < 8 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (before, parks) = (cpu_time(), engine.metrics().parks());
    std::thread::sleep(Duration::from_secs(2));
    // Eight workers that polled every 10 ms would use more; a search is microseconds.
    assert!(cpu_time() - before < Duration::from_millis(20));
    assert!(
        engine.metrics().parks() - parks <= 8,
        "they sleep and stay asleep"
    );
    work();
}
