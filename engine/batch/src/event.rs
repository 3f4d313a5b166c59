//! What happens in a run, told once: terminal, JSON and whatever else reports are sinks of these.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use reiver::{Class, NodeId};
use reiver_topology::CpuSet;

use crate::Plan;
use crate::capture::Captured;
use crate::job_file::MemoryPolicy;
use crate::plan::JobIndex;

/// One thing that happened, and when.
#[derive(Debug, Clone)]
pub struct Event {
    /// When it happened.
    pub time: Moment,
    /// What happened.
    pub kind: EventKind,
}

/// A moment by two clocks: by one it is told, by the other measured.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the one on the wall, which somebody may set at any time.
    pub wall: SystemTime,
    /// By one that only goes on: how long it is between two moments.
    pub steady: Instant,
}

impl Moment {
    pub(crate) fn now() -> Moment {
        Moment {
            wall: SystemTime::now(),
            steady: Instant::now(),
        }
    }
}

/// What happened.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// The run begins. Always first.
    RunStarted {
        /// How many jobs it has.
        jobs: usize,
        /// How many of them succeeded in a run before; there is no event of those.
        succeeded_before: usize,
    },
    /// An attempt got a process, or, of a task, a thread. Told some milliseconds later, or just before its
    /// end if that comes sooner; its time is when it did.
    JobStarted {
        /// The job.
        job: JobIndex,
        /// The attempt, from 1.
        attempt: u32,
        /// The process, leader of the attempt; of a task, the one that it runs in.
        pid: u32,
        /// The slots that it holds: `Cpu` or `Io`.
        class: Class,
        /// Where it was placed, if it was.
        placement: Option<Arc<Placement>>,
    },
    /// An attempt failed, and the job will be tried again.
    JobRetried {
        /// The job.
        job: JobIndex,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// How it ended.
        end: Arc<AttemptEnd>,
        /// How long the job waits.
        delay: Duration,
    },
    /// A job ended otherwise than by being skipped. Once a job, but for those that are unrecorded.
    JobFinished {
        /// The job.
        job: JobIndex,
        /// Its last attempt; 0 where none was started.
        attempt: u32,
        /// How the job ended.
        status: Status,
        /// How its last attempt ended; `None` where none was started.
        end: Option<Arc<AttemptEnd>>,
    },
    /// A job ended, and the journal could not take that: it counts as cancelled, and runs again on resume.
    /// Nobody may take it for an end; it is told for what the job has printed.
    JobUnrecorded {
        /// The job.
        job: JobIndex,
        /// Its last attempt; 0 where none was started.
        attempt: u32,
        /// How the job ended.
        status: Status,
        /// How its last attempt ended; `None` where none was started.
        end: Option<Arc<AttemptEnd>>,
    },
    /// A job will not run, for a need that did not end as asked.
    JobSkipped {
        /// The job.
        job: JobIndex,
        /// The first such need.
        because: JobIndex,
    },
    /// The run is over. Always last.
    RunFinished {
        /// How many jobs ended how.
        summary: Summary,
        /// The exit code that says so.
        exit: u8,
    },
}

/// How a job or an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// With a success code.
    Success,
    /// Otherwise.
    Failed(Reason),
    /// It was ended, or never started, for something outside it.
    Cancelled,
}

/// Why a job, or an attempt, failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An exit code that is no success code.
    Exit,
    /// A signal that reiver did not send.
    Signal,
    /// `timeout` passed.
    Timeout,
    /// No process could be started.
    Spawn,
    /// A task gave an error back.
    Error,
    /// A task panicked.
    Panic,
    /// The kernel ended it for more memory than it may have.
    OutOfMemory,
    /// `deadline` passed.
    Deadline,
}

/// Where a job was placed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The CPUs that it may run on; empty for all that reiver may.
    pub cpus: CpuSet,
    /// The node that all of them lie on, if they do.
    pub node: Option<NodeId>,
    /// Where its memory comes from, and which nodes that is about, if it is not the system's default.
    pub memory: Option<(MemoryPolicy, Vec<NodeId>)>,
}

/// How one attempt ended.
#[derive(Debug)]
pub struct AttemptEnd {
    /// What that makes of it. One that was asked to end is cancelled or has timed out, however its
    /// leader then ended.
    pub status: Status,
    /// How its leader ended.
    pub leader: LeaderEnd,
    /// From its start to its end.
    pub duration: Duration,
    /// Captured standard output.
    pub stdout: Captured,
    /// Captured standard error.
    pub stderr: Captured,
    /// Where it was placed, if it was.
    pub placement: Option<Arc<Placement>>,
    /// What it did with its time; of jobs of class auto that got a process, or a thread, alone.
    pub usage: Option<Usage>,
}

/// What an attempt did with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What its leader computed, with all its children that it, or they, waited for; of a task, the
    /// thread that ran it.
    pub cpu: Duration,
    /// How long the first thread of its leader could have run and had no CPU; `None` where the system
    /// does not tell.
    pub queued: Option<Duration>,
    /// From its start to the end of its leader, but for what the run was stopped.
    pub wall: Duration,
}

/// How the first process of an attempt ended, or its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaderEnd {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// There never was one: the system's reason, with what it was about.
    NotStarted(String),
    /// It was no process but a task, which came back; where it failed, with this error.
    Returned(Result<(), String>),
    /// It was a task, which panicked, and said this.
    Panicked(String),
    /// It was a task that did not come back when nothing more was waited for.
    Abandoned,
}

/// How many jobs ended how; together they are all jobs of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Jobs that succeeded.
    pub succeeded: usize,
    /// Jobs that failed.
    pub failed: usize,
    /// Jobs that were cancelled.
    pub cancelled: usize,
    /// Jobs that were skipped for a need.
    pub skipped: usize,
    /// From the start of the run to its end.
    pub duration: Duration,
}

/// Something that wants to know what happens: the terminal, a file, a test.
///
/// Called from one thread, in the order in which things happened.
pub trait Sink: Send {
    /// Takes note of one event.
    ///
    /// # Errors
    /// Where it cannot. It is not called again, and the run ends: at once where what it writes to
    /// is gone (a broken pipe), else once what runs has finished.
    fn event(&mut self, plan: &Plan, event: &Event) -> io::Result<()>;
}
