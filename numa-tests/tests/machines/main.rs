//! The promises about nodes, held on real kernels: machines of any shape that QEMU emulates, and with
//! `--here` the machine itself.
//!
//! This one program is all that is needed. On the host it packs itself, with the libraries that it has
//! mapped, into an initial file system ([`initramfs`]), boots each machine once ([`vm`]), and reports
//! each promise as a test ([`host`]). In the machine it is the first process ([`guest`]), the promises
//! ([`promises`]), each held in a process of its own ([`trial`]), and the command `reiver`.
//!
//! To add a promise: a function in a file of `promises/`, and its line in the list in `promises/mod.rs`.
//! To add a machine: `numa-tests/src/machines.rs`.

mod guest;
mod here;
mod host;
mod initramfs;
mod promises;
mod requirements;
mod trial;
mod vm;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// Holds promises on this very machine; parts of their names may follow.
pub(crate) const HERE: &str = "--here";

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let first = arguments.next();
    if Path::new(&name).file_name() == Some(OsStr::new("reiver")) {
        return reiver_cli::main();
    }
    if std::process::id() == 1 {
        // The kernel passes on what it does not know itself, and at the end what it is told to.
        let machine = arguments.next_back().or(first);
        guest::live(&machine.expect("it is told which machine it is"));
    }
    match first.as_deref() {
        Some(trial::TRIAL) => trial::hold(arguments),
        Some(HERE) => here::run(&arguments.collect::<Vec<_>>()),
        _ => host::run(),
    }
}
