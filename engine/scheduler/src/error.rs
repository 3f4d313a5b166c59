//! What can go wrong, told apart by what a caller can do about it.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Mutex;

use reiver_topology::TopologyError;

use crate::limit::Refused;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting that no engine can have.
    #[error("{setting} is {value}; it must be {remedy}")]
    Setting {
        /// The method of the builder.
        setting: &'static str,
        /// What it was given.
        value: String,
        /// What it takes.
        remedy: &'static str,
    },
    /// The machine could not be read.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The system gave fewer threads than asked for; those are ended again.
    #[error(
        "the system gave {started} of {wanted} worker threads ({source}); \
         ask for fewer, or raise its limit (`ulimit -u`, `pids.max`)"
    )]
    Threads {
        /// Workers that were started.
        started: usize,
        /// Workers that were asked for.
        wanted: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// There is a global engine already.
    #[error("the global engine is running already; build it before its first use")]
    GlobalExists,
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// As many jobs of its class are queued as the engine was built for.
    #[error("the queue of this class is full; wait for a job to end, or build a larger queue")]
    QueueFull,
    /// The engine takes no jobs any more.
    #[error("the engine is shut down")]
    ShutDown,
    /// The job asks for a node that the machine does not have.
    #[error("the machine has no such node; `Topology::nodes` lists those it has")]
    UnknownNode,
    /// The system refuses the threads that would poll a future (crate feature `tokio`).
    #[error(
        "the system refuses the threads on which futures run; raise its limit (`ulimit -u`, \
         `ulimit -n`, `pids.max`)"
    )]
    NoRuntime,
    /// Jobs of its name have failed too often of late.
    #[error(
        "the breaker of the job's name is open, because too many jobs of it have failed; try again \
         later, see `Breaker::open_for`"
    )]
    BreakerOpen,
    /// A limit of its class or its name refuses it.
    #[error("a limit of the job's class or name refuses it: {0}")]
    Limited(#[source] Refused),
}

/// Why a job has no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// It panicked; this is what it panicked with.
    #[error("the job panicked: {0}")]
    Panicked(PanicPayload),
    /// It was cancelled by its token.
    #[error("the job was cancelled")]
    Cancelled,
    /// Its deadline passed.
    #[error("the job's deadline passed while it was {phase}")]
    DeadlineExceeded {
        /// Whether it had begun.
        phase: Phase,
    },
    /// The engine was shut down before it ended.
    #[error("the engine was shut down before the job ended")]
    ShutDown,
    /// It was never taken.
    #[error("the job was not taken: {0}")]
    Rejected(#[source] SubmitError),
}

impl JobError {
    /// That of a job that was not taken, where nobody asked for the reason at once.
    pub(crate) fn untaken(why: SubmitError) -> JobError {
        match why {
            SubmitError::ShutDown => JobError::ShutDown,
            other => JobError::Rejected(other),
        }
    }

    /// That of a job that was still queued.
    pub(crate) fn unrun(why: Interrupted) -> JobError {
        match why {
            Interrupted::Cancelled => JobError::Cancelled,
            Interrupted::DeadlineExceeded => JobError::DeadlineExceeded {
                phase: Phase::Queued,
            },
            Interrupted::ShutDown => JobError::ShutDown,
        }
    }
}

/// How far a job had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It waited for a worker.
    Queued,
    /// It had begun.
    Running,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Queued => "queued",
            Phase::Running => "running",
        })
    }
}

/// Why a running job should end, as [`checkpoint`](crate::JobContext::checkpoint) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Interrupted {
    /// Its token was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
    /// Its deadline passed.
    #[error("the job's deadline passed")]
    DeadlineExceeded,
    /// The engine is being shut down.
    #[error("the engine is being shut down")]
    ShutDown,
}

impl From<Interrupted> for io::Error {
    /// Of kind `Other`: std tries what is `Interrupted` again for ever.
    fn from(interrupted: Interrupted) -> io::Error {
        io::Error::other(interrupted)
    }
}

impl From<Interrupted> for JobError {
    fn from(interrupted: Interrupted) -> JobError {
        match interrupted {
            Interrupted::Cancelled => JobError::Cancelled,
            Interrupted::DeadlineExceeded => JobError::DeadlineExceeded {
                phase: Phase::Running,
            },
            Interrupted::ShutDown => JobError::ShutDown,
        }
    }
}

/// What a job panicked with.
pub struct PanicPayload(
    /// A payload need not be `Sync`; behind a mutex it is, so that [`JobError`] fits wherever
    /// errors cross threads.
    Mutex<Box<dyn Any + Send>>,
);

impl PanicPayload {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> PanicPayload {
        PanicPayload(Mutex::new(payload))
    }

    /// The text it panicked with, where it was one.
    pub fn message(&self) -> Option<String> {
        let payload = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
    }

    /// The payload itself, for [`std::panic::resume_unwind`].
    pub fn into_inner(self) -> Box<dyn Any + Send> {
        self.0
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Debug for PanicPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PanicPayload")
            .field(&self.message())
            .finish()
    }
}

impl fmt::Display for PanicPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            self.message()
                .as_deref()
                .unwrap_or("(a payload that is no text)"),
        )
    }
}
