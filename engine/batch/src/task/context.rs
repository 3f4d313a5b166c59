//! What a task is told of the job that it is.

use std::fmt;
use std::io::{self, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use reiver::JobContext;

use crate::capture::Captured;

/// What an attempt of a task knows, and what is kept of what it prints.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) task: String,
    pub(crate) attempt: u32,
    pub(crate) run_id: String,
    pub(crate) trace_parent: String,
    pub(crate) cpus: u32,
    pub(crate) folder: PathBuf,
    /// Names of resources with the indices that it holds.
    pub(crate) resources: Vec<(String, Vec<u32>)>,
    /// Where output goes that is too much for memory.
    pub(crate) state_folder: PathBuf,
    pub(crate) output: Mutex<[Captured; 2]>,
}

impl Told {
    /// What it has printed so far.
    pub(crate) fn take_output(&self) -> [Captured; 2] {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *output)
    }
}

/// The job that a task is, and the engine that it runs on: this is the engine's
/// [`JobContext`] too, with `checkpoint()`, `is_cancelled()`, `node()` and `engine()`.
pub struct TaskContext<'a> {
    pub(crate) job: &'a JobContext,
    pub(crate) told: &'a Told,
    pub(crate) deadline: Option<Instant>,
}

impl TaskContext<'_> {
    /// What the engine tells its jobs, for code that asks for that.
    pub fn job(&self) -> &JobContext {
        self.job
    }

    /// The job's name; a command finds it as `REIVER_JOB`.
    pub fn name(&self) -> &str {
        &self.told.name
    }

    /// The name that the task goes by in the [`Registry`](crate::Registry).
    pub fn task(&self) -> &str {
        &self.told.task
    }

    /// The attempt, from 1; a command finds it as `REIVER_ATTEMPT`.
    pub fn attempt(&self) -> u32 {
        self.told.attempt
    }

    /// What the run is called in events; a command finds it as `REIVER_RUN_ID`.
    pub fn run_id(&self) -> &str {
        &self.told.run_id
    }

    /// The job's place in the run's trace (W3C Trace Context), for a request that it sends or a process that
    /// it starts; a command finds it as `TRACEPARENT`. All attempts of a job have the same.
    pub fn traceparent(&self) -> &str {
        &self.told.trace_parent
    }

    /// The slots that the job has asked for, 1 where it has not.
    pub fn cpus(&self) -> u32 {
        self.told.cpus
    }

    /// The folder of the job file: a command would start there. The program itself is where it was
    /// started.
    pub fn folder(&self) -> &Path {
        &self.told.folder
    }

    /// The indices, from 0, that the job holds of a resource; none of one that it has not asked for.
    pub fn resource(&self, name: &str) -> &[u32] {
        let held = self.told.resources.iter().find(|(held, _)| held == name);
        held.map_or(&[], |(_, indices)| indices)
    }

    /// When its timeout or its deadline passes, the earlier of the two. The run's clocks stand still
    /// while it is stopped (Ctrl-Z), and then it is later than this.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes what the job prints: as a command's standard output it is printed whole when the job ends.
    pub fn stdout(&self) -> TaskOutput<'_> {
        TaskOutput {
            told: self.told,
            stream: 0,
        }
    }

    /// As [`stdout`](TaskContext::stdout), of what is said besides.
    pub fn stderr(&self) -> TaskOutput<'_> {
        TaskOutput {
            told: self.told,
            stream: 1,
        }
    }
}

impl Deref for TaskContext<'_> {
    type Target = JobContext;

    fn deref(&self) -> &JobContext {
        self.job
    }
}

impl fmt::Debug for TaskContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("name", &self.told.name)
            .field("task", &self.told.task)
            .field("attempt", &self.told.attempt)
            .finish_non_exhaustive()
    }
}

/// One stream of what a job prints. Each write is taken whole, and never refused; what is over 64 KiB is
/// kept on disk.
#[derive(Debug, Clone, Copy)]
pub struct TaskOutput<'a> {
    told: &'a Told,
    stream: usize,
}

impl Write for TaskOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let output = &self.told.output;
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output[self.stream].push(bytes, &self.told.state_folder);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
