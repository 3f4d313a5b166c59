//! Async and blocking work on one engine: futures have the deadlines, tokens, limits and metrics of
//! jobs, and each waits for the other.
//!
//!     cargo run --release -p reiver --features tokio --example futures

use std::error::Error;
use std::time::Duration;

use reiver::{CancellationToken, Class, Engine, JobError, Priority};
use tokio::time::sleep;

fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::builder().build()?;

    // A hundred that wait at once, and a compute job that each waits for.
    let waits: Vec<_> = (0..100_u64)
        .map(|number| {
            let squared = engine.submit(move |_| number * number);
            engine.spawn_future(async move {
                sleep(Duration::from_millis(10)).await;
                squared.await
            })
        })
        .collect();
    let mut sum = 0;
    for job in waits {
        sum += job.join()??;
    }
    println!("the squares below 100 add up to {sum}");

    let late = engine.job().deadline(Duration::from_millis(200));
    let late = late.spawn_future(async { sleep(Duration::from_secs(3600)).await })?;
    println!(
        "an hour of sleep: {}",
        late.join().err().ok_or("it is over")?
    );

    let token = CancellationToken::new();
    let cancelled = engine.job().cancel_with(&token);
    let cancelled = cancelled.spawn_future(std::future::pending::<()>())?;
    token.cancel();
    assert!(matches!(cancelled.join(), Err(JobError::Cancelled)));

    let waited = engine.metrics().run_time(Class::Io, Priority::P1);
    println!(
        "{} futures, {:?} at the median",
        waited.count(),
        waited.quantile(0.5)
    );
    Ok(())
}
