//! What an engine says of itself: which jobs run for too long, how long others wait, how much of the
//! machine is used. With the feature `metrics` also as Prometheus is told.
//!
//!     cargo run --release -p reiver --features metrics --example watching

use std::error::Error;
use std::sync::mpsc::channel;
use std::time::Duration;

use reiver::{CancellationToken, Class, Engine, JobError, Priority};

fn main() -> Result<(), Box<dyn Error>> {
    let (says, hears) = channel();
    let engine = Engine::builder()
        .watchdog(Duration::from_millis(20), move |job| {
            let name = job.name().unwrap_or("a job without a name").to_owned();
            let _ = says.send(format!("{name} still runs, on {:?}", job.node()));
        })
        .build()?;

    let before = engine.metrics();
    let token = CancellationToken::new();
    let stuck = engine.job().name("stuck").cancel_with(&token);
    let stuck = stuck.submit(|job| {
        while job.checkpoint().is_ok() {
            std::hint::spin_loop();
        }
    })?;
    println!("watchdog: {}", hears.recv()?);
    for job in engine.running() {
        println!("running: {:?}, for {:?}", job.name(), job.age());
    }
    token.cancel();
    assert!(matches!(stuck.join(), Err(JobError::Cancelled)));

    for number in 0..1000_u64 {
        engine.submit(move |_| number.pow(2)).join()?;
    }
    let metrics = engine.metrics();
    let waits = metrics.queue_wait(Class::Cpu, Priority::P1);
    println!(
        "{} jobs waited {:?} at the median, {:?} at p99, {:?} at p99.9",
        waits.count(),
        waits.quantile(0.5),
        waits.quantile(0.99),
        waits.quantile(0.999)
    );
    println!(
        "{:.0} % of the CPUs used",
        100.0 * metrics.utilisation_since(&before)
    );

    #[cfg(feature = "metrics")]
    for line in engine
        .prometheus_text()
        .lines()
        .filter(|line| line.contains("_ended_"))
    {
        println!("prometheus: {line}");
    }
    Ok(())
}
