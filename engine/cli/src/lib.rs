//! The command `reiver` as a library, so that others can start it.

use std::process::ExitCode;

/// Runs the command with this process's arguments.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
