//! A program with tasks of its own, as its users meet it: a real process, real files, real signals.
//!
//! This program is that one too, where its environment says so: the example's, and the tasks of
//! `trials.rs`.

mod case;
mod ends;
#[path = "../../examples/tasks.rs"]
#[expect(dead_code, reason = "its own `main` is not this program's")]
mod example;
mod mistakes;
mod outputs;
mod resume;
mod rules;
mod trials;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Says that this is to be the program with tasks.
const PROGRAM: &str = "REIVER_TEST_PROGRAM";

/// Says that it is to panic where it would warn.
const PANICS: &str = "REIVER_TEST_PANICS";

fn main() -> ExitCode {
    if std::env::var_os(PROGRAM).is_some() {
        if std::env::var_os(PANICS).is_some() {
            let panics = || -> std::io::Stderr { panic!("a bug") };
            tracing_subscriber::fmt().with_writer(panics).init();
        }
        let mut registry = example::registry();
        trials::add(&mut registry);
        return reiver_batch::main(registry);
    }
    case::prepare();
    let trials = [
        ends::TRIALS,
        mistakes::TRIALS,
        outputs::TRIALS,
        resume::TRIALS,
        rules::TRIALS,
    ];
    let trials = trials.concat().into_iter();
    let trials = trials.map(|(name, trial)| {
        Trial::test(name, move || {
            trial();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
