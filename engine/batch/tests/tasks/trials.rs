//! Tasks that do what users' do, and should not.

use std::convert::Infallible;
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use reiver_batch::{Registry, TaskContext};
use serde::Deserialize;
use serde_json::Value;

static AT_ONCE: AtomicU32 = AtomicU32::new(0);

pub(crate) fn add(registry: &mut Registry) {
    registry
        .task("stubborn", stubborn)
        .task("echo", echo)
        .task("tell", tell)
        .task("alone", alone)
        .task("starts", starts)
        .task("idle", idle)
        .task("fails", |message: Message, _| Err(message.text))
        .task("grumbles", grumbles)
        .task("late", late)
        .task("prints", prints)
        .task(
            "bomb",
            |_: (), _: &TaskContext<'_>| -> Result<(), Infallible> { std::panic::panic_any(Bomb) },
        );
}

/// Looks at no checkpoint, and never returns.
fn stubborn(_: (), context: &TaskContext<'_>) -> Result<(), Infallible> {
    // A write to memory is not refused.
    let _ = writeln!(context.stdout(), "here to stay");
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

/// Prints what it was given.
fn echo(args: Value, context: &TaskContext<'_>) -> std::io::Result<()> {
    writeln!(context.stdout(), "{args}")?;
    writeln!(context.stderr(), "aside")
}

/// Prints what it knows.
fn tell(_: (), context: &TaskContext<'_>) -> std::io::Result<()> {
    let thread = thread::current();
    let (left, right) = reiver::join(|| 1, || 2);
    // SAFETY: no pointers; 0 is this thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    writeln!(
        context.stdout(),
        "{} {} {} cpus={} gpu={:?} forks={} thread={} policy={policy} limited={} run={} folder={}",
        context.name(),
        context.task(),
        context.attempt(),
        context.cpus(),
        context.resource("gpu"),
        left + right,
        thread.name().unwrap_or_default(),
        context.deadline().is_some(),
        context.run_id(),
        context.folder().display(),
    )
}

/// Fails where another of it runs at the same time.
fn alone(_: (), _: &TaskContext<'_>) -> Result<(), String> {
    let others = AT_ONCE.fetch_add(1, Ordering::SeqCst);
    thread::sleep(Duration::from_millis(5));
    AT_ONCE.fetch_sub(1, Ordering::SeqCst);
    match others {
        0 => Ok(()),
        others => Err(format!("beside {others} others")),
    }
}

/// Sleeps until its thread has spent at most a tenth of its time on a CPU or in want of one, however full the
/// machine is.
fn idle(_: (), _: &TaskContext<'_>) -> std::io::Result<()> {
    let spent = || -> std::io::Result<Duration> {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat")?;
        let times = told.split_ascii_whitespace().take(2);
        let times = times.map(|nanos| nanos.parse::<u64>().expect("a number"));
        Ok(Duration::from_nanos(times.sum()))
    };
    let before = spent()?;
    let (mut pause, mut slept) = (Duration::from_millis(50), Duration::ZERO);
    while slept < (spent()? - before) * 10 || slept.is_zero() {
        thread::sleep(pause);
        slept += pause;
        pause *= 2;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Starts {
    seconds: f64,
}

/// Starts a process that has long ended when it is waited for.
fn starts(args: Starts, _: &TaskContext<'_>) -> std::io::Result<()> {
    let mut child = Command::new("true").spawn()?;
    thread::sleep(Duration::from_secs_f64(args.seconds));
    let status = child.wait()?;
    assert!(status.success());
    Ok(())
}

/// Prints more than memory is to hold, and fails.
fn grumbles(_: (), context: &TaskContext<'_>) -> std::io::Result<()> {
    for line in 0..20_000 {
        writeln!(context.stdout(), "line {line}")?;
    }
    writeln!(context.stderr(), "aside")?;
    Err(std::io::Error::other("no more"))
}

/// Prints past its context, and has a process print.
fn prints(_: (), context: &TaskContext<'_>) -> std::io::Result<()> {
    println!("past it");
    let status = Command::new("sh")
        .args(["-c", "echo of a process $TRACEPARENT"])
        .env("TRACEPARENT", context.traceparent())
        .status()?;
    assert!(status.success());
    writeln!(context.stdout(), "trace {}", context.traceparent())
}

#[derive(Deserialize)]
struct Message {
    text: String,
}

/// Returns well, but only once it was asked to end.
fn late(_: (), context: &TaskContext<'_>) -> Result<(), Infallible> {
    while !context.is_cancelled() {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("dropped");
        }
    }
}
