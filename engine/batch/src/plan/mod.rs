//! What will run: matrix unfolded, defaults merged, needs as indices, limits checked.
//!
//! A [`Plan`] cannot be wrong any more: every name is unique, every need exists, there is no
//! cycle, every placeholder has a value and every job fits the limits. What is left open until an
//! attempt starts is its number, and what the system then says.

mod build;
mod cycles;
mod dependents;
mod draft;
mod filter;
mod findings;
mod identity;
mod known;
mod limits;
mod lists;
mod machine;
mod matrix;
mod merged;
mod names;
mod needs;
mod set;
mod table;
mod tasks;
mod texts;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reiver::{Class, NodeId, Priority, Topology};

use self::identity::KnownBy;
use self::lists::Lists;
use self::names::NameIndex;
use self::set::SetKeys;
use self::table::{Action, Job, Join, Key, Offset, Table, TableName};
use crate::job_file::{Affinity, Arg, Backoff, MemoryPolicy, When};
use crate::shell;
use crate::source::{Source, SourceId};
use crate::task::{Args, Task};

pub(crate) use self::dependents::Dependents;

pub use self::build::state_folder;
pub use self::build::{plan, plan_with, read_and_plan};
pub use self::filter::{Filtered, NothingMatches, Outside};
pub use self::identity::Identity;
pub use self::limits::variable_of;
pub use self::machine::Machine;
pub use self::set::check_set_key;

/// The place of a job in [`Plan::jobs`], from 0; `Seq` of a job log is one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobIndex(pub u32);

/// All jobs of a run, in the order of the files.
///
/// A job costs 24 bytes, a list of needs four and eight for each: what jobs of one table or `#JOB` state in
/// common is kept once, and names, attempts and identities are made when asked for. A table costs 56 and its
/// texts, and 64 more with an `env`, needs or files of its own; what it has in common with the one before is
/// kept once.
#[derive(Debug)]
pub struct Plan {
    sources: Vec<Arc<Source>>,
    /// For each source what stands before a name that was left out, with its `:`.
    labels: Vec<Box<str>>,
    tables: Vec<Table>,
    jobs: Vec<Job>,
    /// Lists of needs. Jobs with the same needs share one.
    needs: Lists,
    names: NameIndex,
    limits: Limits,
    pools: Vec<(String, u32)>,
    resources: Vec<(String, u32)>,
    /// The affinity of jobs that state none.
    affinity: Affinity,
    topology: Arc<Topology>,
    max_fails: Option<u32>,
    name_of_run: OsString,
    /// What the command line gives to placeholders.
    set: SetKeys,
    /// What jobs are known by; unset until somebody asks.
    known_by: Option<KnownBy>,
}

/// What of a job its placeholders do not touch. Jobs of one table share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// It is a function of the program: no process, and no place of its own.
    pub is_task: bool,
    /// The slots it waits for.
    pub class: Class,
    /// Its place among the ready jobs.
    pub priority: Priority,
    /// Slots taken; unset: one.
    pub cpus: Option<u32>,
    /// The longest that one attempt may take.
    pub timeout: Option<Duration>,
    /// How long after TERM comes KILL.
    pub kill_after: Duration,
    /// Whether and when it is tried again.
    pub retries: Retries,
    /// Exit codes that count as success.
    pub success_codes: Vec<u8>,
    /// Bytes of the budget that it takes, and that it is limited to.
    pub memory: Option<u64>,
    /// Where its processes and their memory are to be.
    pub numa: Numa,
    /// The pool whose limit it shares.
    pub pool: Option<String>,
    /// How many it takes of which resources, by name; each 1 or more.
    pub resources: Vec<(String, u32)>,
    /// The longest that it may take with all its attempts, from the start of the run.
    pub deadline: Option<Duration>,
}

/// Where a job's processes and their memory are to be, as it states it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Numa {
    /// Whether it is confined to nodes; unset: as the run says.
    pub affinity: Option<Affinity>,
    /// Where its memory comes from; unset: preferably from the node that it is confined to, if it
    /// is.
    pub policy: Option<MemoryPolicy>,
    /// The nodes that this is about, ascending; empty for any.
    pub nodes: Vec<NodeId>,
}

/// Whether and when a failed job is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How often, 0 for never.
    pub count: u32,
    /// How the waits grow.
    pub backoff: Backoff,
    /// The wait before the second attempt.
    pub delay: Duration,
    /// The longest wait.
    pub max_delay: Option<Duration>,
    /// Whether a wait is a random part of itself.
    pub jitter: bool,
}

/// What all jobs share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Slots for jobs of class cpu.
    pub cpus: u32,
    /// Slots for jobs of class io.
    pub io: u32,
    /// Bytes for jobs that state memory; `None` where nobody knows how many there are.
    pub memory: Option<u64>,
    /// The load of the last minute above which nothing is started.
    pub load: Option<f64>,
}

/// A job that another one waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The job waited for.
    pub job: JobIndex,
    /// How it must end.
    pub when: When,
}

/// Everything that one attempt of a job is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What is executed.
    pub command: Command,
    /// Where, absolute.
    pub cwd: PathBuf,
    /// The job's own environment, over reiver's; `REIVER_*` is not in it.
    pub env: Vec<(OsString, OsString)>,
    /// Standard input, absolute; `None` is `/dev/null`.
    pub stdin: Option<PathBuf>,
    /// Standard output.
    pub stdout: Stdout,
    /// Standard error.
    pub stderr: Stderr,
}

impl Attempt {
    /// True if some stream of it is a file.
    pub(crate) fn opens_files(&self) -> bool {
        self.stdin.is_some()
            || matches!(self.stdout, Stdout::File(_))
            || matches!(self.stderr, Stderr::File(_))
    }
}

/// What an attempt executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A line for `/bin/sh -c`.
    Shell(OsString),
    /// A program and its arguments.
    Argv(Vec<OsString>),
    /// A function of this program, by its name in the [registry](crate::Registry).
    Task(String),
}

/// Where an attempt's standard output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stdout {
    /// To reiver, which prints it whole as the job ends.
    Captured,
    /// To a file, absolute, made anew.
    File(PathBuf),
}

/// Where an attempt's standard error goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stderr {
    /// To reiver, which prints it whole as the job ends.
    Captured,
    /// To a file, absolute, made anew.
    File(PathBuf),
    /// To wherever standard output goes.
    Stdout,
}

/// What the command line says over the files.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `-j`, `--limit cpus=N`.
    pub cpus: Option<u32>,
    /// `--limit io=N`.
    pub io: Option<u32>,
    /// `--limit memory=SIZE`.
    pub memory: Option<u64>,
    /// `--limit load=X`.
    pub load: Option<f64>,
    /// `--max-fails`.
    pub max_fails: Option<u32>,
    /// `--pool NAME=N`.
    pub pools: Vec<(String, u32)>,
    /// `--resource NAME=N`, each a name that [can be one](variable_of).
    pub resources: Vec<(String, u32)>,
    /// `--numa`: the affinity of jobs that state none.
    pub affinity: Option<Affinity>,
    /// `--set key=value`; each [is a key](check_set_key), and given once.
    pub set: Vec<(String, String)>,
}

impl Plan {
    /// How many jobs there are.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// True if there is no job.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// All jobs, in the order of the files.
    pub fn jobs(&self) -> impl Iterator<Item = JobIndex> + use<> {
        let end = u32::try_from(self.len()).expect("a plan holds no more jobs than that");
        (0..end).map(JobIndex)
    }

    /// The name of a job; no other has it.
    pub fn name(&self, job: JobIndex) -> Cow<'_, str> {
        let table = self.table(job);
        let label = &self.labels[table.common.base.source.0 as usize];
        match (&table.name, self.job(job)) {
            (_, Job::Line { line, .. }) => format!("{label}line-{line}").into(),
            (TableName::Given(template), Job::Cell { cell, .. }) => match template.constant() {
                Some(name) => name.into(),
                None => template
                    .render(|key| match key {
                        Key::Column(column) => table.value(*cell, column),
                        Key::Set(place) => self.set.value(place).into(),
                        // No others are known in a name.
                        Key::Name | Key::Attempt | Key::Cpus => Cow::Borrowed(""),
                    })
                    .into(),
            },
            (TableName::Place(place), Job::Cell { cell, .. }) => {
                let mut name = format!("{label}job-{place}");
                for (_, value) in table.common.base.matrix.pairs(*cell) {
                    name.extend(["-", value]);
                }
                name.into()
            }
        }
    }

    /// True if it was given a name; what was not goes by its place in the file.
    pub fn is_named(&self, job: JobIndex) -> bool {
        matches!(
            (&self.table(job).name, self.job(job)),
            (TableName::Given(_), Job::Cell { .. })
        )
    }

    /// The job of that name.
    pub fn find(&self, name: &str) -> Option<JobIndex> {
        self.names
            .candidates(name)
            .find(|job| self.name(*job) == name)
    }

    /// What its placeholders do not touch.
    pub fn settings(&self, job: JobIndex) -> &Settings {
        &self.table(job).common.base.settings
    }

    /// The jobs it waits for: those that its `needs` name, and then those that globs in it match, each in
    /// their order. One that must end in two ways is there twice. To count them costs nothing.
    pub fn needs(&self, job: JobIndex) -> impl Iterator<Item = Need> + Clone {
        self.needs.all(self.job(job).needs())
    }

    /// What an attempt is started with; the first has number 1.
    pub fn attempt(&self, job: JobIndex, number: u32) -> Attempt {
        let table = self.table(job);
        let value_of = |key| self.value_of(job, number, key);
        let around = &table.common.around;
        let files = around.files();
        let cwd = match &files.cwd {
            Some(cwd) => self.source(job).folder.join(cwd.render(value_of)),
            None => self.source(job).folder.clone(),
        };
        Attempt {
            command: self.command(job, number),
            env: around
                .env
                .iter()
                .map(|(key, value)| (OsString::from(&**key), value.render(value_of).into()))
                .collect(),
            stdin: files
                .stdin
                .as_ref()
                .map(|file| cwd.join(file.render(value_of))),
            stdout: match &files.stdout {
                Some(file) => Stdout::File(cwd.join(file.render(value_of))),
                None => Stdout::Captured,
            },
            stderr: match &files.stderr {
                Some(Join::File(file)) => Stderr::File(cwd.join(file.render(value_of))),
                Some(Join::Stdout) => Stderr::Stdout,
                None => Stderr::Captured,
            },
            cwd,
        }
    }

    /// The command of the first attempt, for people and job logs: the line, or the arguments as
    /// one would type them into a shell; of a task its name and its arguments as JSON.
    pub fn command_text(&self, job: JobIndex) -> OsString {
        match self.command(job, 1) {
            Command::Shell(line) => line,
            Command::Argv(arguments) => {
                let quoted: Vec<Cow<'_, str>> = arguments
                    .iter()
                    .map(|argument| shell::quote(argument.to_str().expect("templates are UTF-8")))
                    .collect();
                quoted.join(" ").into()
            }
            Command::Task(name) => match self.args(job, 1) {
                Some(args) if args.value != Arg::Table(Vec::new()) => {
                    format!("{name} {}", tasks::text_of(&args.value)).into()
                }
                _ => name.into(),
            },
        }
    }

    /// The task that it is, if it is one.
    pub fn task_name(&self, job: JobIndex) -> Option<&str> {
        match &self.table(job).action {
            Action::Task(call) => Some(&call.name),
            Action::Shell(_) | Action::Words(_) | Action::Argv(_) => None,
        }
    }

    /// The task that it is, and what an attempt gives it.
    pub(crate) fn task(&self, job: JobIndex, number: u32) -> Option<(Arc<dyn Task>, Args)> {
        let Action::Task(call) = &self.table(job).action else {
            return None;
        };
        Some((Arc::clone(&call.task), self.args(job, number)?))
    }

    fn args(&self, job: JobIndex, number: u32) -> Option<Args> {
        let Action::Task(call) = &self.table(job).action else {
            return None;
        };
        let value_of = |key| self.value_of(job, number, key);
        Some(tasks::filled(&call.args, value_of))
    }

    /// The folder of its file.
    pub(crate) fn folder(&self, job: JobIndex) -> &Path {
        &self.source(job).folder
    }

    /// The file it stands in.
    pub fn source_of(&self, job: JobIndex) -> SourceId {
        self.table(job).common.base.source
    }

    /// The files of the run, as the user named them.
    pub fn sources(&self) -> &[Arc<Source>] {
        &self.sources
    }

    /// What all jobs share.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The pools, and how many jobs each holds at once.
    pub fn pools(&self) -> &[(String, u32)] {
        &self.pools
    }

    /// The resources, and how many there are of each.
    pub fn resources(&self) -> &[(String, u32)] {
        &self.resources
    }

    /// The machine that it is planned for.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Whether jobs are confined to nodes that do not say so themselves.
    pub fn affinity(&self) -> Affinity {
        self.affinity
    }

    /// Which of the tables a job is of, from 0 to [`tables`](Plan::tables): jobs of one have the same
    /// settings.
    pub(crate) fn table_of(&self, job: JobIndex) -> u32 {
        self.job(job).table()
    }

    /// The jobs of a table.
    pub(crate) fn jobs_of(&self, table: u32) -> impl Iterator<Item = JobIndex> + use<> {
        // Jobs stand in the order of their tables.
        let begin = self.jobs.partition_point(|job| job.table() < table);
        let end = self.jobs.partition_point(|job| job.table() <= table);
        let number = |job| u32::try_from(job).expect("a plan holds no more jobs than that");
        (number(begin)..number(end)).map(JobIndex)
    }

    /// What the jobs of a table are called before their matrix, with its axes as placeholders; lines by
    /// the first and the last of them.
    pub(crate) fn name_of_table(&self, table: u32) -> String {
        let mut jobs = self.jobs_of(table);
        let own = &self.tables[table as usize];
        let label = &self.labels[own.common.base.source.0 as usize];
        match (&own.name, jobs.next()) {
            (TableName::Given(template), _) => template.render(|key| match key {
                Key::Column(column) => {
                    let axis = own
                        .common
                        .base
                        .matrix
                        .keys()
                        .nth(column)
                        .unwrap_or_default();
                    format!("{{{axis}}}").into()
                }
                Key::Set(place) => self.set.value(place).into(),
                Key::Name | Key::Attempt | Key::Cpus => Cow::Borrowed(""),
            }),
            (TableName::Place(_), Some(first)) if matches!(self.job(first), Job::Line { .. }) => {
                match jobs.last() {
                    Some(last) => format!("{} to {}", self.name(first), self.name(last)),
                    None => self.name(first).into_owned(),
                }
            }
            (TableName::Place(place), _) => format!("{label}job-{place}"),
        }
    }

    /// How many tables there are, and the settings of each.
    pub(crate) fn tables(&self) -> impl ExactSizeIterator<Item = &Settings> {
        self.tables.iter().map(|table| &*table.common.base.settings)
    }

    /// Keys that the command line sets, and that no job of any file uses.
    pub fn unused_set_keys(&self) -> impl Iterator<Item = &str> {
        self.set.unused()
    }

    /// After how many failed jobs nothing more is started, 1 or more; `None` is never.
    pub fn max_fails(&self) -> Option<u32> {
        self.max_fails
    }

    /// The folder of the run's state is named after this: the first file's `name`, else its file
    /// name, `stdin` for standard input and pipes.
    pub fn name_of_run(&self) -> &OsStr {
        &self.name_of_run
    }

    /// Where the run's state lives: `.reiver/<name>` beside the first file, absolute. It is not
    /// made here.
    pub fn state_folder(&self) -> PathBuf {
        build::state_folder_of(&self.sources, &self.name_of_run)
    }

    fn job(&self, job: JobIndex) -> &Job {
        &self.jobs[job.0 as usize]
    }

    fn table(&self, job: JobIndex) -> &Table {
        &self.tables[self.job(job).table() as usize]
    }

    fn source(&self, job: JobIndex) -> &Source {
        &self.sources[self.source_of(job).0 as usize]
    }

    /// The text of a job that is a line and begins here.
    fn line(&self, job: JobIndex, begin: Offset) -> &[u8] {
        let source = self.source(job);
        &source.text[source.line_from(begin.get())]
    }

    fn command(&self, job: JobIndex, number: u32) -> Command {
        let value_of = |key| self.value_of(job, number, key);
        match (&self.table(job).action, self.job(job)) {
            (_, Job::Line { begin, .. }) => {
                Command::Shell(OsString::from_vec(self.line(job, *begin).to_vec()))
            }
            (Action::Shell(line), _) => Command::Shell(line.render(value_of).into()),
            (action @ (Action::Words(_) | Action::Argv(_)), _) => {
                Command::Argv(action.words(value_of).map(OsString::from).collect())
            }
            (Action::Task(call), _) => Command::Task(call.name.to_string()),
        }
    }

    fn value_of(&self, job: JobIndex, number: u32, key: Key) -> Cow<'_, str> {
        let table = self.table(job);
        match (key, self.job(job)) {
            (Key::Name, _) => self.name(job),
            (Key::Attempt, _) => number.to_string().into(),
            (Key::Set(place), _) => self.set.value(place).into(),
            (Key::Cpus, _) => table
                .common
                .base
                .settings
                .cpus
                .unwrap_or(1)
                .to_string()
                .into(),
            (Key::Column(column), Job::Cell { cell, .. }) => table.value(*cell, column),
            // Lines have no matrix, so no template of theirs has a column.
            (Key::Column(_), Job::Line { .. }) => Cow::Borrowed(""),
        }
    }
}
