//! A program whose own functions are jobs, beside commands, in one file:
//!
//! ```sh
//! cargo run -p reiver-batch --example tasks -- engine/batch/examples/tasks.toml
//! ```
//!
//! It is the command `reiver` with four tasks more: `--help`, `--resume`, `--report` and all else work
//! as there.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use reiver_batch::{Registry, TaskContext};
use serde::Deserialize;

/// Wrong keys are found before anything runs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Primes {
    below: usize,
    into: PathBuf,
}

/// Computes: of class cpu, the default. Its leaves run on all workers of the engine that have nothing
/// else to do.
fn primes(args: Primes, context: &TaskContext<'_>) -> io::Result<()> {
    let is_prime = |n: usize| {
        n >= 2
            && (2..)
                .take_while(|d| d * d <= n)
                .all(|d| !n.is_multiple_of(d))
    };
    let count = reiver::par_map_reduce(
        0..args.below,
        0,
        // Once the job is to end, what is left of each part goes by.
        |part| {
            let goes_on = |_: &usize| !context.is_cancelled();
            part.take_while(goes_on).filter(|&n| is_prime(n)).count()
        },
        |a, b| a + b,
    );
    context.checkpoint()?;
    writeln!(context.stdout(), "{count} primes below {}", args.below)?;
    fs::write(context.folder().join(args.into), count.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    seconds: f64,
}

/// Waits, as for a server: of class io, so that it takes no CPU's place.
fn wait(args: Wait, context: &TaskContext<'_>) -> io::Result<()> {
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < args.seconds {
        context.checkpoint()?;
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flaky {
    fails: u32,
}

/// Fails so often, and then does not: for `retries`.
fn flaky(args: Flaky, context: &TaskContext<'_>) -> Result<(), String> {
    let attempt = context.attempt();
    match attempt <= args.fails {
        true => Err(format!("the server does not answer, asked {attempt} times")),
        false => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    file: PathBuf,
    holds: usize,
}

/// Panics where a file does not hold a number: that is a failure of the job, and of nothing else.
fn expect(args: Expect, context: &TaskContext<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let text = fs::read_to_string(context.folder().join(&args.file))?;
    assert_eq!(text.parse(), Ok(args.holds), "in {}", args.file.display());
    Ok(())
}

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .task("primes", primes)
        .task("wait", wait)
        .task("flaky", flaky)
        .task("expect", expect);
    registry
}

fn main() -> ExitCode {
    reiver_batch::main(registry())
}
