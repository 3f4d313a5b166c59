//! The command line: every option stands here once, and its help is what it means.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::Form;
use crate::job_file::Affinity;
use crate::plan::{check_set_key, variable_of};
use crate::read::parse_size;

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
    Run(Box<RunArgs>),
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

/// What the run has for its jobs, over what files say.
#[derive(Debug, Args)]
pub(crate) struct Shares {
    /// Run at most N cpu jobs at once; the same as --limit cpus=N [default: the machine's CPUs]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs: Option<u32>,

    /// What jobs share: cpus=N, io=N [default: 16 a CPU], memory=SIZE [default: 90 % of what is
    /// available]; load=X starts nothing above it
    #[arg(long, value_name = "NAME=N", value_parser = limit)]
    pub(crate) limit: Vec<Limit>,

    /// A pool, and how many of its jobs run at once
    #[arg(long, value_name = "NAME=N", value_parser = pool)]
    pub(crate) pool: Vec<(String, u32)>,

    /// A resource, and how many there are; jobs get the indices that they hold in REIVER_<NAME>
    #[arg(long, value_name = "NAME=N", value_parser = resource)]
    pub(crate) resource: Vec<(String, u32)>,

    /// Confine jobs that do not say otherwise to one node each: to one that has room, or always
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) numa: Option<NumaAffinity>,

    /// Start nothing more once N jobs have failed
    #[arg(long, value_name = "N")]
    pub(crate) max_fails: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) files: Files,

    #[command(flatten)]
    pub(crate) shares: Shares,

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

    /// Say what would run and where, and run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Plan for another machine, as `reiver topology --reader` reads it
    #[arg(long, value_name = "READER", requires = "dry_run")]
    pub(crate) reader: Option<OsString>,

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
    pub(crate) shares: Shares,

    /// Count the job of this name, or those that match it as a glob; mistakes of all are said
    #[arg(long, value_name = "GLOB", allow_hyphen_values = true)]
    pub(crate) filter: Option<String>,

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
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    Cpus(u32),
    Io(u32),
    Memory(u64),
    Load(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NumaAffinity {
    /// One that has room just now
    Prefer,
    /// Always, and jobs wait for it
    Require,
}

impl From<NumaAffinity> for Affinity {
    fn from(affinity: NumaAffinity) -> Affinity {
        match affinity {
            NumaAffinity::Prefer => Affinity::Prefer,
            NumaAffinity::Require => Affinity::Require,
        }
    }
}

fn limit(text: &str) -> Result<Limit, String> {
    let (name, number) = text
        .split_once('=')
        .ok_or("write it as cpus=N, io=N, memory=SIZE or load=X, with no blank around `=`")?;
    let slots = || match number.parse::<u32>() {
        Ok(number) if number >= 1 => Ok(number),
        _ => Err(format!("`{number}` is no number of slots; it is 1 or more")),
    };
    match name {
        "cpus" => slots().map(Limit::Cpus),
        "io" => slots().map(Limit::Io),
        "memory" => match parse_size(number) {
            Some(bytes) if bytes > 0 => Ok(Limit::Memory(bytes)),
            _ => Err(format!(
                "`{number}` is no size; write it like 200GiB or 1.5GB"
            )),
        },
        "load" => match number.parse::<f64>() {
            Ok(load) if load > 0.0 && load.is_finite() => Ok(Limit::Load(load)),
            _ => Err(format!("`{number}` is no load; it is a number above 0")),
        },
        _ => Err(format!(
            "there is no limit `{name}`; there are cpus, io, memory and load"
        )),
    }
}

fn pool(text: &str) -> Result<(String, u32), String> {
    match named(text)? {
        (name, _) if name.is_empty() => Err("the pool has no name; write it as NAME=N".into()),
        named => Ok(named),
    }
}

fn resource(text: &str) -> Result<(String, u32), String> {
    let (name, count) = named(text)?;
    if variable_of(&name).is_none() {
        return Err(format!(
            "`{name}` cannot name a resource; use letters, digits, `_` and `-`, and none of job, \
             attempt, run-id and node"
        ));
    }
    Ok((name, count))
}

fn named(text: &str) -> Result<(String, u32), String> {
    let (name, number) = text
        .rsplit_once('=')
        .ok_or("write it as NAME=N, with no blank around `=`")?;
    match number.parse::<u32>() {
        Ok(number) if number >= 1 => Ok((name.to_owned(), number)),
        _ => Err(format!("`{number}` is no number of them; it is 1 or more")),
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
    fn pools_and_resources_are_names_and_numbers() {
        assert_eq!(pool("a=b=4"), Ok(("a=b".to_owned(), 4)));
        assert_eq!(resource("gpu=4"), Ok(("gpu".to_owned(), 4)));
        for wrong in [
            "gpu", "gpu=0", "gpu=x", "=4", "g u=1", "node=1", "Run-Id=1", "\u{e4}=1",
        ] {
            assert!(resource(wrong).is_err(), "{wrong}");
        }
        for wrong in ["db", "db=0", "=4"] {
            assert!(pool(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_a_name_and_a_number() {
        assert_eq!(limit("cpus=4"), Ok(Limit::Cpus(4)));
        assert_eq!(limit("io=1"), Ok(Limit::Io(1)));
        assert_eq!(limit("memory=1.5KiB"), Ok(Limit::Memory(1536)));
        assert_eq!(limit("memory=3"), Ok(Limit::Memory(3)));
        assert_eq!(limit("load=0.5"), Ok(Limit::Load(0.5)));
        for wrong in [
            "cpus",
            "cpus=0",
            "cpus=-1",
            "memory=0",
            "memory=3G",
            "load=0",
            "load=nan",
            "load=inf",
            "io=",
            "=3",
        ] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }
}
