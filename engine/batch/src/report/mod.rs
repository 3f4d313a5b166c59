//! A run as one page of HTML that needs nothing else: `--report`.
//!
//! It is gathered as events come, some sixty bytes an attempt, and written when the run is over: the sum,
//! a timeline with a row a slot, grouped by node, the longest jobs, the path of needs that the end waited
//! for, what jobs of class auto turned out to be, and the failures with what they printed.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::Plan;
use crate::event::{AttemptEnd, Event, EventKind, LeaderEnd, Sink, Status, Summary};
use crate::learnt::Learnt;
use crate::plan::JobIndex;
use crate::timeline::{Bar, Timeline, arrange};
use crate::trace::word;

/// The page, but for what the run was.
const PAGE: &str = include_str!("page.html");
/// Where that goes.
const PLACE: &str = "@RUN@";

const MOST_LONGEST: usize = 20;
const MOST_LEARNT: usize = 200;
const MOST_FAILURES: usize = 200;
/// Lines of each stream that a failure shows.
const LINES: usize = 100;

/// Gathers what the page tells.
pub struct Report<W> {
    target: W,
    run_id: String,
    timeline: Timeline,
    bars: Vec<Bar>,
    learnt: Learnt,
    failures: Vec<Value>,
    failed: usize,
    started: Duration,
    succeeded_before: usize,
}

impl<W: Write + Send> Report<W> {
    /// Writes to `target` once the run is over.
    pub fn new(target: W, run_id: String) -> Report<W> {
        Report {
            target,
            run_id,
            timeline: Timeline::default(),
            bars: Vec::new(),
            learnt: Learnt::default(),
            failures: Vec::new(),
            failed: 0,
            started: Duration::ZERO,
            succeeded_before: 0,
        }
    }

    fn note_failure(&mut self, plan: &Plan, job: JobIndex, attempt: u32, end: &AttemptEnd) {
        self.failed += 1;
        if self.failures.len() == MOST_FAILURES {
            return;
        }
        let tail = |stream: &crate::capture::Captured| {
            String::from_utf8_lossy(&stream.last_lines(LINES)).into_owned()
        };
        let log = |stream: &crate::capture::Captured| {
            stream.log().map(|path| path.to_string_lossy().into_owned())
        };
        self.failures.push(json!({
            "job": job.0,
            "name": plan.name(job),
            "attempt": attempt,
            "attempts": plan.settings(job).retries.count.saturating_add(1),
            "why": why(end),
            "seconds": end.duration.as_secs_f64(),
            "command": plan.command_text(job).to_string_lossy(),
            "stdout": tail(&end.stdout),
            "stderr": tail(&end.stderr),
            "logs": [log(&end.stdout), log(&end.stderr)],
        }));
    }

    fn write(&mut self, plan: &Plan, summary: &Summary, exit: u8) -> io::Result<()> {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if plan.topology().nodes().count() == 1 {
            // Then it is everybody's.
            self.bars.iter_mut().for_each(|bar| bar.node = None);
        }
        let groups = arrange(&mut self.bars);
        let groups: Vec<Value> = groups
            .into_iter()
            .map(|((lane, node), rows)| {
                let node = node.map_or(String::new(), |node| format!(", node {node}"));
                json!([format!("{} slots{node}", lane.name()), rows])
            })
            .collect();
        let mut shown = HashMap::new();
        let mut names = Vec::new();
        let bars: Vec<Value> = self
            .bars
            .iter()
            .map(|bar| {
                let name = *shown.entry(bar.job).or_insert_with(|| {
                    names.push(plan.name(bar.job));
                    names.len() - 1
                });
                let (start, duration) = (micros(bar.start), micros(bar.duration()));
                json!([
                    name,
                    bar.attempt,
                    bar.row,
                    start,
                    duration,
                    kind(bar.status)
                ])
            })
            .collect();
        let run = json!({
            "run": self.run_id,
            "name": plan.name_of_run().to_string_lossy(),
            "files": plan.sources().iter().map(|source| source.given.to_string_lossy()).collect::<Vec<_>>(),
            "started": self.started.as_secs_f64(),
            "seconds": summary.duration.as_secs_f64(),
            "exit": exit,
            "jobs": [summary.succeeded, summary.failed, summary.cancelled, summary.skipped],
            "before": self.succeeded_before,
            "lanes": groups,
            "names": names,
            "bars": bars,
            "auto": self.auto(plan),
            "longest": self.longest(plan),
            "path": self.path(plan),
            "failures": self.failures,
            "more": self.failed - self.failures.len(),
        });
        // Nothing in it may end the element that it stands in.
        let run = run.to_string().replace('<', "\\u003c");
        let (before, after) = PAGE.split_once(PLACE).expect("the page has a place for it");
        for part in [before, &run, after] {
            self.target.write_all(part.as_bytes())?;
        }
        self.target.flush()
    }

    /// What was learnt of jobs of class auto.
    fn auto(&self, plan: &Plan) -> Vec<Value> {
        let lessons = self.learnt.lessons(plan).take(MOST_LEARNT);
        lessons
            .map(|(name, lesson)| {
                json!({
                    "name": name,
                    "measured": lesson.profile.attempts(),
                    "waiting": lesson.profile.waiting(),
                    "atMost": lesson.profile.lacks_queued(),
                    "cpu": lesson.on_cpu,
                    "io": lesson.on_io,
                })
            })
            .collect()
    }

    fn longest(&self, plan: &Plan) -> Vec<Value> {
        let mut bars: Vec<&Bar> = self.bars.iter().collect();
        bars.sort_by_key(|bar| (std::cmp::Reverse(bar.duration()), bar.job));
        let told = bars.into_iter().take(MOST_LONGEST);
        told.map(|bar| {
            json!({
                "name": plan.name(bar.job),
                "attempt": bar.attempt,
                "seconds": bar.duration().as_secs_f64(),
                "status": word(bar.status),
                "command": plan.command_text(bar.job).to_string_lossy(),
            })
        })
        .collect()
    }

    /// From the job that ended last back over the need that each had to wait for longest, in the order in
    /// which they ran.
    fn path(&self, plan: &Plan) -> Vec<Value> {
        let mut spans: HashMap<JobIndex, (Duration, Duration)> = HashMap::new();
        for bar in &self.bars {
            let span = spans.entry(bar.job).or_insert((bar.start, bar.end));
            *span = (span.0.min(bar.start), span.1.max(bar.end));
        }
        let end_of = |job: &JobIndex| spans.get(job).map(|(_, end)| *end);
        let mut path = Vec::new();
        let mut at = spans.keys().copied().max_by_key(|job| (end_of(job), *job));
        while let Some(job) = at {
            path.push(job);
            let needs = plan.needs(job).map(|need| need.job);
            at = needs
                .filter(|need| spans.contains_key(need))
                .max_by_key(|job| (end_of(job), *job));
        }
        path.reverse();
        let mut free = Duration::ZERO;
        path.into_iter()
            .map(|job| {
                let (start, end) = spans[&job];
                let waited = start.saturating_sub(free);
                free = end;
                json!({
                    "name": plan.name(job),
                    "seconds": (end - start).as_secs_f64(),
                    "waited": waited.as_secs_f64(),
                    "ended": end.as_secs_f64(),
                })
            })
            .collect()
    }
}

/// A colour of the timeline.
fn kind(status: Status) -> u8 {
    match status {
        Status::Success => 0,
        Status::Failed(_) => 1,
        Status::Cancelled => 2,
    }
}

fn why(end: &AttemptEnd) -> String {
    let leader = match &end.leader {
        LeaderEnd::Exited(code) => format!("exit code {code}"),
        LeaderEnd::Signalled(signal) => format!("signal {signal}"),
        LeaderEnd::NotStarted(reason) => format!("not started: {reason}"),
        LeaderEnd::Returned(Ok(())) => "returned".to_owned(),
        LeaderEnd::Returned(Err(message)) => format!("error: {message}"),
        LeaderEnd::Panicked(message) => format!("panicked: {message}"),
        LeaderEnd::Abandoned => "did not return".to_owned(),
    };
    match word(end.status) {
        "timeout" => format!("timeout, {leader}"),
        _ => leader,
    }
}

impl<W: Write + Send> Sink for Report<W> {
    fn event(&mut self, plan: &Plan, event: &Event) -> io::Result<()> {
        self.learnt.event(plan, event);
        self.bars.extend(self.timeline.event(event));
        match &event.kind {
            EventKind::RunStarted {
                succeeded_before, ..
            } => {
                self.started = event
                    .time
                    .wall
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                self.succeeded_before = *succeeded_before;
            }
            EventKind::JobFinished {
                job,
                attempt,
                status: Status::Failed(_),
                end: Some(end),
            } => self.note_failure(plan, *job, *attempt, Arc::as_ref(end)),
            EventKind::RunFinished { summary, exit } => self.write(plan, summary, *exit)?,
            _ => {}
        }
        Ok(())
    }
}

impl<W> fmt::Debug for Report<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").finish_non_exhaustive()
    }
}
