//! What will run: matrix unfolded, defaults merged, needs as indices, limits checked.
//!
//! A [`Plan`] cannot be wrong any more: every name is unique, every need exists, there is no
//! cycle, every placeholder has a value and every job fits the limits. What is left open until an
//! attempt starts is its number, and what the system then says.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reiver::{Class, Priority};

use crate::job_file::{Backoff, When};
use crate::source::{Source, SourceId};

/// The place of a job in [`Plan::jobs`], from 0; `Seq` of a job log is one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobIndex(pub u32);

/// All jobs of a run, in the order of the files.
#[derive(Debug)]
pub struct Plan {
    // The fields are this room's own.
}

/// What of a job its placeholders do not touch. Jobs of one table share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
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

/// Slots that jobs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For jobs of class cpu.
    pub cpus: u32,
    /// For jobs of class io.
    pub io: u32,
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

/// What an attempt executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A line for `/bin/sh -c`.
    Shell(OsString),
    /// A program and its arguments.
    Argv(Vec<OsString>),
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
    /// `--max-fails`.
    pub max_fails: Option<u32>,
}

// The methods by which the rest of the crate and the command know a plan. Their signatures are
// settled; their bodies are this room's work.
//
// pub fn plan(sources: Vec<Arc<Source>>, files: Vec<JobFile>, overrides: &Overrides, machine: Limits)
//     -> (Option<Plan>, Vec<Diagnostic>)         // None where there is an error; warnings come along
// impl Plan {
//     pub fn len(&self) -> usize;  pub fn is_empty(&self) -> bool
//     pub fn jobs(&self) -> impl Iterator<Item = JobIndex>
//     pub fn name(&self, job: JobIndex) -> Cow<'_, str>
//     pub fn find(&self, name: &str) -> Option<JobIndex>
//     pub fn settings(&self, job: JobIndex) -> &Settings
//     pub fn needs(&self, job: JobIndex) -> &[Need]
//     pub fn attempt(&self, job: JobIndex, number: u32) -> Attempt       // number from 1
//     pub fn command_text(&self, job: JobIndex) -> OsString              // for people and job logs: the line, or argv quoted for a shell
//     pub fn source_of(&self, job: JobIndex) -> SourceId
//     pub fn sources(&self) -> &[Arc<Source>]
//     pub fn limits(&self) -> Limits
//     pub fn max_fails(&self) -> Option<u32>                             // 1 or more
//     pub fn name_of_run(&self) -> &OsStr                                // <name> of `.reiver/<name>`: the first file's `name`, else its file name, `stdin` for streams
//     pub fn state_folder(&self) -> PathBuf                              // `.reiver/<name>` beside the first file, absolute; not made here
// }
