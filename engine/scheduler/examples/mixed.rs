//! Urgent work, bulk work and blocking work on one engine, and what it says of them afterwards.
//!
//!     cargo run --release -p reiver --example mixed

use std::error::Error;
use std::time::Duration;

use reiver::{Class, Engine, Priority};

/// Counts primes below a number, slowly: forks until a part is small.
fn primes(from: u64, to: u64) -> u64 {
    if to - from <= 10_000 {
        let is_prime = |n: &u64| {
            *n > 1
                && (2..)
                    .take_while(|d| d * d <= *n)
                    .all(|d| !n.is_multiple_of(d))
        };
        return (from..to).filter(is_prime).count() as u64;
    }
    let middle = from + (to - from) / 2;
    let (left, right) = reiver::join(|| primes(from, middle), || primes(middle, to));
    left + right
}

fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::builder().build()?;

    let bulk: Vec<_> = engine.submit_many((0..32).map(|_| |_: &_| primes(0, 100_000)));
    let reads: Vec<_> = (0..8)
        .map(|_| {
            engine
                .job()
                .class(Class::Io)
                .submit(|_| std::fs::read("/proc/stat"))
        })
        .collect::<Result<_, _>>()?;
    let urgent = engine
        .job()
        .name("urgent")
        .priority(Priority::P0)
        .deadline(Duration::from_secs(30))
        .submit(|job| (job.node(), primes(0, 1000)))?;

    let (node, found) = urgent.join()?;
    println!("urgent: {found} primes, found on node {node}");
    for read in reads {
        read.join()??;
    }
    let found: u64 = bulk.into_iter().map(|job| job.join().unwrap_or(0)).sum();
    println!("bulk: {found} primes");

    let metrics = engine.metrics();
    for (class, priority) in [
        (Class::Cpu, Priority::P0),
        (Class::Cpu, Priority::P1),
        (Class::Io, Priority::P1),
    ] {
        println!(
            "{class:?} {priority:?}: {} jobs, waited {:?}, ran {:?} (medians)",
            metrics.jobs(class, priority).completed,
            metrics.queue_wait(class, priority).quantile(0.5),
            metrics.run_time(class, priority).quantile(0.5),
        );
    }
    println!("steals: {:?}", metrics.steals());
    assert!(engine.shutdown(Duration::from_secs(5)).is_clean());
    Ok(())
}
