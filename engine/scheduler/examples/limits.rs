//! A service that takes no more than it can do: so many requests a second, so many downloads at once,
//! and none for a while from a mirror that fails.
//!
//!     cargo run --release -p reiver --example limits

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reiver::limit::{HybridLimiter, Refused};
use reiver::{Breaker, Class, Engine, SubmitError, WhenFull};

fn main() -> Result<(), Box<dyn Error>> {
    // 100 a second, 20 of them at once; and downloads, four at a time, however many there are.
    let requests = Arc::new(HybridLimiter::new(100, 20, 1000));
    let downloads = Arc::new(HybridLimiter::new(u32::MAX, u32::MAX, 4));
    let engine = Engine::builder()
        .limit(Class::Cpu, Arc::clone(&requests))
        .limit(Class::Io, Arc::clone(&downloads))
        .when_full(Class::Io, WhenFull::Block)
        .breaker(
            "mirror",
            Breaker {
                failures: 0.5,
                window: 4,
                open_for: Duration::from_secs(60),
            },
        )
        .build()?;

    let (mut taken, mut turned_away) = (Vec::new(), 0);
    for number in 0..50_u64 {
        match engine.job().submit(move |_| number * number) {
            Ok(job) => taken.push(job),
            Err(SubmitError::Limited(Refused::Rate)) => turned_away += 1,
            Err(other) => return Err(other.into()),
        }
    }
    println!("took {} requests at first", taken.len().min(20));
    assert_eq!(taken.len() + turned_away, 50);

    // Whoever brings more waits.
    let mut most = 0;
    let mut files = Vec::new();
    for _ in 0..12 {
        let job = engine.job().class(Class::Io).submit(|_| {
            std::thread::sleep(Duration::from_millis(2));
        })?;
        most = most.max(downloads.in_use());
        files.push(job);
    }
    for file in files {
        file.join()?;
    }
    println!("downloaded 12 files, never more than 4 at once");
    assert!(most <= 4);
    for job in taken {
        job.join()?;
    }

    // A mirror that answers nothing: after four attempts it is left in peace.
    let mut attempts = 0;
    let refused = loop {
        let fetch = engine.job().class(Class::Io).name("mirror");
        match fetch.submit(|ctx| ctx.report_failure()) {
            Ok(attempt) => attempt.join()?,
            Err(refused) => break refused,
        }
        attempts += 1;
    };
    println!("after {attempts} attempts: {refused}");
    assert_eq!(refused, SubmitError::BreakerOpen);
    println!("{:?}", engine.metrics().breakers());
    Ok(())
}
