//! A run as Chrome's trace events, which Perfetto and others show: `--trace`.
//!
//! An array of objects in JSON, written as attempts end, so that what a killed run has left can be read
//! too. A class of slots is a process in it, a row of attempts a thread. Times are microseconds since the start of
//! the run.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Plan;
use crate::event::{AttemptEnd, Event, EventKind, LeaderEnd, Reason, Sink, Status};
use crate::timeline::{Bar, Lane, Timeline};

/// Writes each attempt as it ends.
pub struct Trace<W> {
    target: W,
    timeline: Timeline,
    /// Rows of each lane that have been given a name.
    named: [u32; 2],
    is_begun: bool,
}

impl<W: Write + Send> Trace<W> {
    /// Writes to `target`; it is flushed when the run is over.
    pub fn new(target: W) -> Trace<W> {
        Trace {
            target,
            timeline: Timeline::default(),
            named: [0; 2],
            is_begun: false,
        }
    }

    fn put(&mut self, event: &Value) -> io::Result<()> {
        let before = if self.is_begun { ",\n" } else { "[\n" };
        self.is_begun = true;
        write!(self.target, "{before}{event}")
    }

    fn name_rows(&mut self) -> io::Result<()> {
        for lane in Lane::ALL {
            while self.named[lane as usize] < self.timeline.rows(lane) {
                let row = self.named[lane as usize];
                let name = |what: &str, name: String| {
                    let args = json!({ "name": name });
                    json!({ "ph": "M", "name": what, "pid": pid(lane), "tid": row + 1, "args": args })
                };
                if row == 0 {
                    self.put(&name("process_name", format!("{} jobs", lane.name())))?;
                }
                let row = format!("{} row {}", lane.name(), row + 1);
                self.put(&name("thread_name", row))?;
                self.named[lane as usize] += 1;
            }
        }
        Ok(())
    }

    fn attempt(&mut self, plan: &Plan, bar: &Bar, end: &AttemptEnd) -> io::Result<()> {
        let (code, signal) = match &end.leader {
            LeaderEnd::Exited(code) => (Some(*code), None),
            LeaderEnd::Signalled(signal) => (None, Some(*signal)),
            _ => (None, None),
        };
        self.put(&json!({
            "ph": "X",
            "name": plan.name(bar.job),
            "cat": word(bar.status),
            "pid": pid(bar.lane),
            "tid": bar.row + 1,
            "ts": micros(bar.start),
            "dur": micros(bar.duration()),
            "args": {
                "attempt": bar.attempt,
                "status": word(bar.status),
                "code": code,
                "signal": signal,
                "process": bar.pid,
                "command": plan.command_text(bar.job).to_string_lossy(),
            },
        }))
    }
}

/// The process that a lane is in the trace.
fn pid(lane: Lane) -> u32 {
    lane as u32 + 1
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A status in a word.
pub(crate) fn word(status: Status) -> &'static str {
    match status {
        Status::Success => "success",
        Status::Cancelled => "cancelled",
        Status::Failed(Reason::Timeout) => "timeout",
        Status::Failed(_) => "failed",
    }
}

impl<W: Write + Send> Sink for Trace<W> {
    fn event(&mut self, plan: &Plan, event: &Event) -> io::Result<()> {
        let bar = self.timeline.event(event);
        self.name_rows()?;
        match &event.kind {
            EventKind::JobRetried { end, .. }
            | EventKind::JobFinished { end: Some(end), .. }
            | EventKind::JobUnrecorded { end: Some(end), .. } => {
                if let Some(bar) = bar {
                    self.attempt(plan, &bar, end)?;
                }
            }
            EventKind::RunFinished { .. } => {
                let begin = if self.is_begun { "" } else { "[" };
                writeln!(self.target, "{begin}\n]")?;
                self.target.flush()?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl<W> fmt::Debug for Trace<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}
