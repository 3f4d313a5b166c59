//! The command `reiver` as a library, so that others can start it.
//!
//! It reads the command line, shows people what `reiver-batch` and `reiver-topology` find, and
//! decides on the exit code. It runs nothing itself.

mod args;
mod bar;
mod console;
mod dry_run;
pub mod exit;
mod files;
mod help;
mod in_order;
mod journal;
mod machine;
mod mistakes;
mod overrides;
mod progress;
mod resume;
mod run;
mod signals;
mod terminal;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use reiver_batch::plan::{Machine, Overrides};
use reiver_batch::{Plan, Source};
use reiver_topology::Topology;

use args::{Cli, Command, JournalCommand};
use console::Console;

/// Runs the command with this process's arguments.
pub fn main() -> ExitCode {
    reiver_batch::run::serve_if_zygote();
    reiver_batch::run::close_inherited_descriptors();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(io::stderr)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        // Where standard error takes nothing, a full disk say, nobody is left to be told of that.
        .log_internal_errors(false)
        .init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where it goes is clap's to say: help to standard output, mistakes to the other. A
            // reader that has gone away is none of its business.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                exit::REFUSED
            } else {
                exit::OK
            });
        }
    };
    let code = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => {
            let color = args.look.color;
            answer(|out| files::check(&args, &Console::new(color, io::stdout().is_terminal()), out))
        }
        Command::Journal(JournalCommand::Show(file)) => answer(|out| journal::show(&file, out)),
        Command::Journal(JournalCommand::Salvage(file)) => {
            answer(|out| journal::salvage(&file, out))
        }
        Command::Completions { shell } => answer(|out| help::completions(shell, out)),
        Command::Man { folder } => answer(|out| help::man(folder.as_deref(), out)),
        Command::Help { words } => answer(|out| help::help(&words, out)),
        Command::Topology(args) => answer(|out| machine::show(&args, out)),
    };
    ExitCode::from(code)
}

/// What `reiver check` says of a job file that is in memory, as to a terminal with colours, and the
/// plan where nothing is wrong.
pub fn check(source: Source) -> (String, Option<Plan>) {
    let topology = Topology::synthetic("Core:2").expect("it is a machine");
    let machine = Machine::new(topology, Some(1 << 30));
    let console = Console::new(args::Color::Always, true);
    let planned = files::planned_from(vec![source], &Overrides::default(), &machine, &console);
    (planned.shown, planned.plan)
}

/// A machine as `reiver topology` draws it.
pub fn drawing(machine: &Topology) -> String {
    let mut drawing = Vec::new();
    machine::draw(machine, &mut drawing).expect("memory takes what is written to it");
    String::from_utf8(drawing).expect("what is drawn is text")
}

/// Writes what a command was asked for to standard output; the reader may go away in the middle.
fn answer(write: impl FnOnce(&mut dyn Write) -> io::Result<u8>) -> u8 {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => code,
        Err(error) => trouble(&error),
    }
}

/// Says what went wrong with the output, and with which code the process ends.
fn trouble(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        let sigpipe = u8::try_from(libc::SIGPIPE).expect("signals are small numbers");
        return exit::BY_SIGNAL + sigpipe;
    }
    console::say(&format!("reiver: cannot write the output: {error}"));
    exit::ENGINE_FAILED
}
