//! Measured comparisons of reiver with its peers: `just bench`.
//!
//! The runner starts this same binary again for every case, contender and number of threads, round by
//! round and in an order shuffled anew each round, so that whatever the machine does meanwhile hits all
//! contenders alike. A child measures one contender and prints its samples. The runner tells medians
//! with their spread: a table here, `summary.json` and `report.html` in `target/bench`.
//!
//! A suite is a folder (`forkjoin/`, `pools/`), a case a file in it or some lines of one. It never judges:
//! it exits with 0 whoever won, and with 1 only if a contender failed.

mod args;
mod case;
mod child;
mod costs;
mod counters;
mod crew;
mod figures;
mod forkjoin;
mod forks;
mod hold;
mod launch;
mod machine;
mod mixed;
mod numa;
mod onetbb;
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
mod threads;
mod verdict;
mod versions;

use std::process::ExitCode;

use clap::Parser;

use case::Case;

/// A name, and what makes its cases.
type Suite = (&'static str, fn() -> Vec<Case>);

/// The suites, in the order in which they are told. A child makes the cases of its own only.
const SUITES: [Suite; 7] = [
    ("forkjoin", forkjoin::cases),
    ("pools", pools::cases),
    ("counters", counters::cases),
    ("mixed", mixed::cases),
    ("launch", launch::cases),
    ("numa", numa::cases),
    ("simulation", simulation::cases),
];

fn main() -> ExitCode {
    // SAFETY: no handler is set. Whoever reads only the head of a table ends this, and that is no error.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let args = args::Args::parse();
    let of = |wanted: &dyn Fn(&str) -> bool| -> Vec<Case> {
        let suites = SUITES.iter().filter(|(name, _)| wanted(name));
        suites.flat_map(|(_, cases)| cases()).collect()
    };
    let done = match &args.child {
        Some(who) => child::run(
            &of(&|name| who.first().is_some_and(|suite| suite == name)),
            who,
            &args,
        ),
        None => runner::run(&of(&|_| true), &args),
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
