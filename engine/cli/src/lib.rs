//! The command `reiver` as a library, so that others can start it.
//!
//! What it does is `reiver_batch::command`, which a program with tasks of its own starts by
//! `reiver_batch::main`; this is the one that has none.

pub use reiver_batch::command::{check, drawing, exit};

/// Runs the command with this process's arguments.
pub fn main() -> std::process::ExitCode {
    reiver_batch::command::reiver()
}
