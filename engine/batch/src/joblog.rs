//! A log with a row for each job that started, in the nine columns of GNU parallel's `--joblog`.
//!
//! Rows stand in the order in which jobs ended. Host is `:`, as for jobs of this machine; Send is 0,
//! and Receive counts the bytes of captured standard output.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Plan;
use crate::event::{AttemptEnd, Event, EventKind, LeaderEnd, Reason, Sink, Status};
use crate::plan::JobIndex;

const HEADER: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

/// Writes each row as its job ends.
pub struct JobLog<W> {
    target: W,
    /// Of jobs that are not over, the last attempt and when it started.
    started: HashMap<JobIndex, (u32, SystemTime)>,
}

impl<W: Write + Send> JobLog<W> {
    /// Writes to `target`, the names of the columns at once.
    ///
    /// # Errors
    /// Those of `target`.
    pub fn new(mut target: W) -> io::Result<JobLog<W>> {
        target.write_all(HEADER.as_bytes())?;
        let started = HashMap::new();
        Ok(JobLog { target, started })
    }
}

impl<W: Write + Send> Sink for JobLog<W> {
    fn event(&mut self, plan: &Plan, event: &Event) -> io::Result<()> {
        let (job, attempt, status, end) = match &event.kind {
            EventKind::JobStarted { job, attempt, .. } => {
                self.started.insert(*job, (*attempt, event.time.wall));
                return Ok(());
            }
            EventKind::JobRetried {
                job, attempt, end, ..
            } => {
                let started = self.started(*job, *attempt, end, event);
                self.started.insert(*job, (*attempt, started));
                return Ok(());
            }
            EventKind::JobFinished {
                job,
                attempt,
                status,
                end: Some(end),
            } => (job, attempt, *status, end),
            EventKind::JobUnrecorded {
                job,
                attempt,
                end: Some(end),
                ..
            } => (job, attempt, Status::Cancelled, end),
            _ => return Ok(()),
        };
        let started = self.started(*job, *attempt, end, event);
        let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = started.as_secs_f64();
        let (runtime, received) = (end.duration.as_secs_f64(), end.stdout.len());
        let (exit, signal) = exit_and_signal(status, end);
        let number = u64::from(job.0) + 1;
        let mut row =
            format!("{number}\t:\t{started:.3}\t{runtime:10.3}\t0\t{received}\t{exit}\t{signal}\t")
                .into_bytes();
        for &byte in plan.command_text(*job).as_bytes() {
            match byte {
                b'\t' => row.extend(b"\\t"),
                b'\n' => row.extend(b"\\n"),
                b'\\' => row.extend(b"\\\\"),
                byte => row.push(byte),
            }
        }
        row.push(b'\n');
        self.target.write_all(&row)?;
        self.target.flush()
    }
}

impl<W> JobLog<W> {
    /// When an attempt that has ended started. One that got no process has never been told to.
    fn started(
        &mut self,
        job: JobIndex,
        attempt: u32,
        end: &AttemptEnd,
        told: &Event,
    ) -> SystemTime {
        match self.started.remove(&job) {
            Some((last, at)) if last == attempt => at,
            _ => told
                .time
                .wall
                .checked_sub(end.duration)
                .unwrap_or(UNIX_EPOCH),
        }
    }
}

fn exit_and_signal(status: Status, end: &AttemptEnd) -> (i32, i32) {
    let (exit, signal) = match end.leader {
        LeaderEnd::Exited(code) => (code, 0),
        LeaderEnd::Signalled(signal) => (0, signal),
        LeaderEnd::Returned(Ok(())) => (0, 0),
        LeaderEnd::Returned(Err(_)) | LeaderEnd::Panicked(_) => (1, 0),
        LeaderEnd::NotStarted(_) | LeaderEnd::Abandoned => (-1, 0),
    };
    match status {
        // Whatever it made of being asked to end, it did not do what it was to.
        Status::Cancelled if (exit, signal) == (0, 0) => (-1, 0),
        Status::Failed(Reason::Timeout | Reason::Spawn | Reason::Deadline) => (-1, signal),
        Status::Failed(
            Reason::Exit | Reason::Signal | Reason::OutOfMemory | Reason::Error | Reason::Panic,
        )
        | Status::Success
        | Status::Cancelled => (exit, signal),
    }
}

impl<W> fmt::Debug for JobLog<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobLog").finish_non_exhaustive()
    }
}
