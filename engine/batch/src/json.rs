//! Events as JSON, one object a line, for programs that follow a run.
//!
//! What stands in each is settled by the format's version, `schema` 1: keys may be added.

use std::fmt;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use reiver::Class;
use serde_json::{Map, Value, json};

use crate::Plan;
use crate::event::{AttemptEnd, Event, EventKind, LeaderEnd, Reason, Sink, Status};
use crate::plan::JobIndex;

/// Writes each event as a line.
pub struct JsonLines<W> {
    target: W,
    run_id: String,
}

impl<W: Write + Send> JsonLines<W> {
    /// Writes to `target`, and flushes it after each event.
    pub fn new(target: W, run_id: String) -> JsonLines<W> {
        JsonLines { target, run_id }
    }
}

impl<W: Write + Send> Sink for JsonLines<W> {
    fn event(&mut self, plan: &Plan, event: &Event) -> io::Result<()> {
        let Some(kind) = kind(&event.kind) else {
            return Ok(());
        };
        let mut line = Map::new();
        let mut set = |key: &str, value: Value| line.insert(key.to_owned(), value);
        let name = |job: JobIndex| Value::from(plan.name(job));
        set("event", kind.into());
        set("time", rfc3339(event.time.wall).into());
        set("run", self.run_id.as_str().into());
        match &event.kind {
            EventKind::RunStarted { jobs, .. } => {
                set("schema", 1.into());
                set("jobs", (*jobs).into());
                let files = plan
                    .sources()
                    .iter()
                    .map(|source| source.given.to_string_lossy());
                set("files", files.collect());
            }
            EventKind::JobStarted {
                job,
                attempt,
                pid,
                class,
                placement,
            } => {
                set("job", name(*job));
                set("attempt", (*attempt).into());
                set("pid", (*pid).into());
                if plan.settings(*job).class == Class::Auto {
                    let class = match class {
                        Class::Io => "io",
                        _ => "cpu",
                    };
                    set("class", class.into());
                }
                if let Some(task) = plan.task_name(*job) {
                    set("task", task.into());
                }
                if let Some(placement) = placement {
                    if let Some(node) = placement.node {
                        set("node", node.0.into());
                    }
                    if !placement.cpus.is_empty() {
                        set("cpus", placement.cpus.iter().map(|cpu| cpu.0).collect());
                    }
                }
            }
            EventKind::JobRetried {
                job,
                attempt,
                end,
                delay,
            } => {
                set("job", name(*job));
                set("attempt", (*attempt).into());
                line.extend(end_of(end.status, Some(end)));
                line.insert("delay".to_owned(), delay.as_secs_f64().into());
            }
            EventKind::JobFinished {
                job,
                attempt,
                status,
                end,
            } => {
                set("job", name(*job));
                set("attempt", (*attempt).into());
                line.extend(end_of(*status, end.as_deref()));
            }
            EventKind::JobUnrecorded { .. } => {}
            EventKind::JobSkipped { job, because } => {
                set("job", name(*job));
                set("attempt", 0.into());
                set("because", name(*because));
            }
            EventKind::RunFinished { summary, exit } => {
                set("succeeded", summary.succeeded.into());
                set("failed", summary.failed.into());
                set("cancelled", summary.cancelled.into());
                set("skipped", summary.skipped.into());
                set("seconds", summary.duration.as_secs_f64().into());
                set("exit", (*exit).into());
            }
        }
        let mut line = serde_json::to_vec(&Value::Object(line))?;
        line.push(b'\n');
        self.target.write_all(&line)?;
        self.target.flush()
    }
}

/// None for what has no line: a job whose end is not recorded runs again, and has no end yet.
fn kind(kind: &EventKind) -> Option<&'static str> {
    Some(match kind {
        EventKind::RunStarted { .. } => "run-started",
        EventKind::JobStarted { .. } => "job-started",
        EventKind::JobRetried { .. } => "job-retried",
        EventKind::JobFinished { .. } => "job-finished",
        EventKind::JobUnrecorded { .. } => return None,
        EventKind::JobSkipped { .. } => "job-skipped",
        EventKind::RunFinished { .. } => "run-finished",
    })
}

fn end_of(status: Status, end: Option<&AttemptEnd>) -> Map<String, Value> {
    let (code, signal) = match end.map(|end| &end.leader) {
        Some(LeaderEnd::Exited(code)) => (Some(*code), None),
        Some(LeaderEnd::Signalled(signal)) => (None, Some(*signal)),
        Some(
            LeaderEnd::NotStarted(_)
            | LeaderEnd::Returned(_)
            | LeaderEnd::Panicked(_)
            | LeaderEnd::Abandoned,
        )
        | None => (None, None),
    };
    let mut object = Map::new();
    let status_word = match status {
        Status::Success => "success",
        Status::Failed(_) => "failed",
        Status::Cancelled => "cancelled",
    };
    object.insert("status".into(), status_word.into());
    if let Status::Failed(reason) = status {
        let reason = match reason {
            Reason::Exit => "exit",
            Reason::Signal => "signal",
            Reason::Timeout => "timeout",
            Reason::Spawn => "spawn",
            Reason::OutOfMemory => "oom",
            Reason::Deadline => "deadline",
            Reason::Error => "error",
            Reason::Panic => "panic",
        };
        object.insert("reason".into(), reason.into());
    }
    object.insert("code".into(), json!(code));
    object.insert("signal".into(), json!(signal));
    if let Some(LeaderEnd::Returned(Err(message)) | LeaderEnd::Panicked(message)) =
        end.map(|end| &end.leader)
    {
        object.insert("message".into(), message.as_str().into());
    }
    object.insert(
        "seconds".into(),
        json!(end.map(|end| end.duration.as_secs_f64())),
    );
    object
}

/// A moment as `2026-11-20T22:58:00.123456Z`.
fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time.max(UNIX_EPOCH)).to_string()
}

impl<W> fmt::Debug for JsonLines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines")
            .field("run_id", &self.run_id)
            .finish_non_exhaustive()
    }
}
