//! The command: it reads the command line, shows people what the rest of this crate and
//! `reiver-topology` find, and decides on the exit code. It runs nothing itself.
//!
//! It stands on all of the crate, and nothing in the crate stands on it but [`main`](crate::main()), which
//! starts it for a program with tasks of its own. The program `reiver`, which has none, is `reiver-cli`.

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
mod program;
mod progress;
mod resume;
mod run;
mod signals;
mod streams;
mod terminal;
mod warnings;

use std::io::{self, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use args::{Cli, Command, JournalCommand};
use clap::FromArgMatches;
use clap::error::{ContextKind, ContextValue};
use console::{Console, say, to_paste};
use program::Program;
use reiver_topology::Topology;

use crate::plan::{Machine, Overrides};
use crate::{Plan, Registry, Source};

/// Runs this process's arguments as the command `reiver` does, with these tasks besides: its options, its
/// exit codes, its journal, its signals. Files need no `run` before them: `PROGRAM jobs.toml` is
/// `PROGRAM run jobs.toml`.
///
/// It is to be all that `main` does after the registry is made: it may start this program again, to put
/// a process in a cgroup or in the background, and what stands before it in `main` is done there too.
/// It closes the descriptors that the process was given besides its three streams, and writes
/// warnings to standard error where the program has set no `tracing` subscriber.
///
/// The exit code: 0 where all jobs succeeded, 1 where some did not (or with `--exit-count` how many
/// failed), 2 where the command line, a file or a journal was refused and nothing ran, 3 where the engine
/// itself failed, 128 and the number of the signal that ended it. What a task is, and how it is named in
/// a file, is told at [`Registry`].
pub fn main(registry: Registry) -> ExitCode {
    started(&Program::own(registry))
}

/// Runs this process's arguments as the command `reiver`, which has no tasks.
pub fn reiver() -> ExitCode {
    started(&Program::reiver())
}

fn started(program: &Program) -> ExitCode {
    let code = started_with_warnings(program);
    warnings::finish();
    code
}

fn started_with_warnings(program: &Program) -> ExitCode {
    crate::run::serve_if_zygote();
    crate::run::close_inherited_descriptors();
    let warnings = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(warnings::line)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        // Where standard error takes nothing, a full disk say, nobody is left to be told of that.
        .log_internal_errors(false)
        .finish();
    // Where the program has a subscriber of its own, that is told.
    let _ = tracing::subscriber::set_global_default(warnings);
    let matches = program.command().try_get_matches_from(program.words());
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Where it goes is clap's to say: help to standard output, mistakes to the other.
            let printed = error.print().and_then(|()| io::stdout().flush());
            if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
                && Path::new(word).is_file()
            {
                let file = to_paste(word.as_bytes());
                say(&format!(
                    "\nTo run this file: {} run {file}",
                    program.to_paste()
                ));
            }
            return ExitCode::from(match printed {
                _ if error.use_stderr() => exit::REFUSED,
                Ok(()) => exit::OK,
                Err(error) => trouble(&error),
            });
        }
    };
    let code = match cli.command {
        Command::Run(args) => {
            // What a panic is about has been said.
            let ran = catch_unwind(AssertUnwindSafe(|| run::run(&args, program)));
            ran.unwrap_or(exit::ENGINE_FAILED)
        }
        Command::Check(args) => {
            let color = args.look.color;
            answer(|out| {
                files::check(
                    &args,
                    &program.registry,
                    &Console::new(color, io::stdout().is_terminal()),
                    out,
                )
            })
        }
        Command::Journal(JournalCommand::Show(file)) => answer(|out| journal::show(&file, out)),
        Command::Journal(JournalCommand::Salvage(file)) => {
            answer(|out| journal::salvage(&file, out))
        }
        Command::Completions { shell } => answer(|out| help::completions(program, shell, out)),
        Command::Man { folder } => answer(|out| help::man(program, folder.as_deref(), out)),
        Command::Help { words } => answer(|out| help::help(program, &words, out)),
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
    let registry = Registry::new();
    let planned = files::planned_from(
        vec![source],
        Vec::new(),
        &Overrides::default(),
        &machine,
        &registry,
        &console,
    );
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
    let mut out = io::BufWriter::new(streams::stdout());
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => sources(&path, found),
                path => found.push(path),
            }
        }
    }

    #[test]
    fn nothing_in_the_crate_stands_on_the_command() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        sources(&source, &mut found);
        let mut others = 0;
        for path in found {
            if !path.starts_with(source.join("command")) && path != source.join("lib.rs") {
                let text = fs::read_to_string(&path).expect("its source");
                assert!(!text.contains("crate::command"), "{}", path.display());
                others += 1;
            }
        }
        assert!(others > 50, "{others}");
    }
}
