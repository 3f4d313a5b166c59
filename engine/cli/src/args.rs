//! The command line: every option stands here once, and its help is what it means.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};
use reiver_batch::Form;
use reiver_batch::plan::check_set_key;

/// Runs files of jobs on the cores and nodes of this machine.
#[derive(Debug, Parser)]
#[command(
    name = "reiver",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
        reiver run jobs.toml              run the jobs of a file\n  \
        reiver run commands.txt -j 4      one command a line, four at a time\n  \
        seq 9 | sed 's/^/sleep /' | reiver run -\n  \
        reiver run jobs.toml --resume     run what did not succeed the last time\n  \
        reiver check jobs.toml            say what is wrong, run nothing\n  \
        reiver help FORMAT                what may stand in a job file"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the jobs of files
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Say what is wrong with files of jobs, and run nothing
    #[command(after_help = "Exit codes: 0 nothing, or only warnings; 2 mistakes")]
    Check(CheckArgs),
    /// Show what the journal of a run holds, or salvage a damaged one
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Draw the machine: nodes, caches and cores
    Topology(TopologyArgs),
    /// Print what shells need to complete this command's words
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands into a folder
    Man {
        /// The folder, made if need be
        #[arg(value_name = "DIR")]
        folder: Option<OsString>,
    },
    /// Print this help, or that of a command; `help FORMAT` is the reference of job files
    Help {
        /// A command, or FORMAT
        #[arg(value_name = "COMMAND")]
        words: Vec<String>,
    },
}

const EXIT_CODES: &str = "Exit codes:\n  \
    0      every job succeeded\n  \
    1      a job failed, or was cancelled or skipped for it (--exit-count: how many)\n  \
    2      the command line, a file or a journal was refused; nothing ran\n  \
    3      reiver itself failed\n  \
    128+n  ended by signal n (a second Ctrl-C kills at once)";

/// Which files, and how to read them.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Files of jobs: .toml, .jsonl, else one command a line; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<OsString>,

    /// Read every file as this form, whatever its name
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) format: Option<Format>,

    /// Give the placeholder {KEY} of the files this value
    #[arg(long, value_name = "KEY=VALUE", value_parser = set_key)]
    pub(crate) set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) files: Files,

    /// Run at most N cpu jobs at once; the same as --limit cpus=N [default: the machine's CPUs]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs: Option<u32>,

    /// Slots that jobs share: cpus=N or io=N [default of io: 16 a CPU]
    #[arg(long, value_name = "NAME=N", value_parser = limit)]
    pub(crate) limit: Vec<Limit>,

    /// Start nothing more once N jobs have failed
    #[arg(long, value_name = "N")]
    pub(crate) max_fails: Option<u32>,

    /// Run the job of this name, or those that match it as a glob, and no other
    #[arg(long, value_name = "GLOB", allow_hyphen_values = true)]
    pub(crate) filter: Option<String>,

    /// Run what has not succeeded yet, by the journal of the runs before
    #[arg(long, conflicts_with_all = ["resume_failed", "no_journal"])]
    pub(crate) resume: bool,

    /// Run only what has failed, by the journal of the runs before
    #[arg(long, conflicts_with = "no_journal")]
    pub(crate) resume_failed: bool,

    /// Keep the journal in this folder [default: .reiver/NAME/journal beside the first file]
    #[arg(long, value_name = "DIR", conflicts_with = "no_journal")]
    pub(crate) journal: Option<OsString>,

    /// Keep no journal; the run cannot be resumed
    #[arg(long)]
    pub(crate) no_journal: bool,

    /// Say what would run, and run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print what jobs print in the order of the files, not as they end
    #[arg(long)]
    pub(crate) keep_order: bool,

    /// Print events to standard output instead of what jobs print
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) output: Option<Output>,

    /// Write a row for each job that started, in the columns of GNU parallel
    #[arg(long, value_name = "FILE")]
    pub(crate) joblog: Option<OsString>,

    /// Write a page for browsers: a timeline, the longest jobs, failures with their output
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<OsString>,

    /// Write Chrome trace events, for Perfetto and its like
    #[arg(long, value_name = "FILE.json")]
    pub(crate) trace: Option<OsString>,

    /// End with the number of failed jobs, 101 for more than 100, instead of 1
    #[arg(long)]
    pub(crate) exit_count: bool,

    #[command(flatten)]
    pub(crate) look: Look,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Say what a journal holds, and whether it is whole
    #[command(after_help = "Exit codes: 0 whole, but for a torn end perhaps; 2 damaged, or none")]
    Show(JournalFile),
    /// Keep what can be read of a damaged journal; the damaged one is kept beside it
    Salvage(JournalFile),
}

#[derive(Debug, Args)]
pub(crate) struct JournalFile {
    /// The first file of jobs of the run, or the folder of its journal
    #[arg(value_name = "FILE")]
    pub(crate) file: OsString,

    /// Read the file as this form, whatever its name
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) files: Files,

    #[command(flatten)]
    pub(crate) look: Look,
}

#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    /// Who reads the machine: sysfs; hwloc (where built in); or which machine: a file of lstopo
    /// (FILE.xml), or a description in hwloc's words, like "NUMANode:4 Core:8 PU:2"
    #[arg(long, value_name = "READER")]
    pub(crate) reader: Option<OsString>,

    /// Print all that is known, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How things look.
#[derive(Debug, Args)]
pub(crate) struct Look {
    /// Whether to use colours; wins over NO_COLOR
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Always,
    Never,
    Auto,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    Toml,
    Jsonl,
    Text,
}

impl From<Format> for Form {
    fn from(format: Format) -> Form {
        match format {
            Format::Toml => Form::Toml,
            Format::Jsonl => Form::JsonLines,
            Format::Text => Form::Text,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// One event a line
    Json,
}

/// One `--limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Cpus(u32),
    Io(u32),
}

fn limit(text: &str) -> Result<Limit, String> {
    let (name, number) = text
        .split_once('=')
        .ok_or("write it as cpus=N or io=N, with no blank around `=`")?;
    let number = match number.parse::<u32>() {
        Ok(number) if number >= 1 => number,
        _ => return Err(format!("`{number}` is no number of slots; it is 1 or more")),
    };
    match name {
        "cpus" => Ok(Limit::Cpus(number)),
        "io" => Ok(Limit::Io(number)),
        _ => Err(format!("there is no limit `{name}`; there are cpus and io")),
    }
}

/// The key and the value of one `--set`.
fn set_key(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write it as KEY=VALUE, with no blank before `=`")?;
    check_set_key(key)?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn a_set_key_is_a_word_and_its_value_is_all_that_follows() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(set_key("a-b_1=x=y"), pair("a-b_1", "x=y"));
        assert_eq!(set_key("a="), pair("a", ""));
        for wrong in ["a", "=x", "a b=x", "name=x", "attempt=1", "cpus=1", "ä=x"] {
            assert!(set_key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_limit_is_a_name_and_a_number() {
        assert_eq!(limit("cpus=4"), Ok(Limit::Cpus(4)));
        assert_eq!(limit("io=1"), Ok(Limit::Io(1)));
        for wrong in ["cpus", "cpus=0", "cpus=-1", "memory=3", "io=", "=3"] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }
}
