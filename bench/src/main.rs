//! Measured comparisons of reiver with its peers: `just bench`.
//!
//! The runner starts this same binary again for every case, contender and number of threads, round by
//! round and in an order shuffled anew each round, so that whatever the machine does meanwhile hits all
//! contenders alike. A child measures one contender and prints its samples. The runner tells medians
//! with their spread: a table here, `summary.json` and `report.html` in `target/bench`.
//!
//! A suite is a folder (`forkjoin/`), a case a file in it. It never judges: it exits with 0 whoever
//! won, and with 1 only if a contender failed.

mod args;
mod case;
mod child;
mod costs;
mod counters;
mod crew;
mod forkjoin;
mod forks;
mod hold;
mod machine;
mod outside;
mod plot;
mod pools;
mod report;
mod runner;
mod simulation;
mod stats;
mod summary;
mod table;
mod thread_pools;
mod verdict;
mod versions;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let cases = [
        forkjoin::cases(),
        pools::cases(),
        counters::cases(),
        simulation::cases(),
    ]
    .concat();
    let done = match &args.child {
        Some(who) => child::run(&cases, who, &args),
        None => runner::run(&cases, &args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("reiver-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
