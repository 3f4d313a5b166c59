//! What a person sees of a run: what jobs print, failures as they happen, a bar, and the sum.
//!
//! Standard output is the jobs'; everything that is reiver's own goes to standard error.

use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bar::Bar;
use super::console::{
    Console, Pretty, Tone, beginning, count, plain, say, shown_command, to_paste,
};
use super::in_order::{InOrder, Output, Part};
use super::progress::Progress;
use super::{signals, streams};
use crate::Plan;
use crate::capture::Captured;
use crate::event::{AttemptEnd, Event, EventKind, LeaderEnd, Reason, Sink, Status, Summary};
use crate::learnt::Learnt;
use crate::plan::{JobIndex, Stderr, Stdout};

/// Where there is no terminal, how often the state is said.
const STATE: Duration = Duration::from_secs(10);
/// Lines of each stream that a failure shows.
const TAIL_LINES: usize = 20;
/// Failures that the end repeats; a million would bury the sum.
const MOST_REPEATED: usize = 50;
/// Names that are said to have been moved to io slots.
const MOST_MOVED: usize = 10;

pub(crate) struct Terminal {
    console: Console,
    /// The command that runs one job alone, but for its name.
    alone: Option<String>,
    /// Standard output belongs to events, so what jobs print goes to standard error.
    is_json: bool,
    /// Both streams end in one place, so that what was printed to one is seen beside the other.
    one_place: bool,
    /// Output that waits for that of jobs before it.
    in_order: Option<InOrder>,
    bar: Option<Bar>,
    /// What is told to others, too.
    progress: Arc<Progress>,
    /// What jobs of class auto turned out to be.
    learnt: Learnt,
    /// Failures, for the end.
    failures: Vec<String>,
    said: Instant,
}

impl Terminal {
    pub(crate) fn new(
        console: Console,
        is_json: bool,
        alone: Option<String>,
        in_order: Option<InOrder>,
        progress: Arc<Progress>,
    ) -> Terminal {
        let one_place = is_json || same_place();
        Terminal {
            console,
            alone,
            is_json,
            one_place,
            in_order,
            bar: None,
            progress,
            learnt: Learnt::default(),
            failures: Vec::new(),
            said: Instant::now(),
        }
    }

    /// Writes where the bar is not.
    fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.bar {
            Some(bar) => bar.aside(write),
            None => write(),
        }
    }

    fn say(&self, line: &str) {
        self.aside(|| say(line));
    }

    /// Prints what a job's last attempt wrote, whole, or holds it until its turn; whether it was printed.
    fn print_or_hold(&mut self, job: JobIndex, end: Option<&Arc<AttemptEnd>>) -> io::Result<bool> {
        let Some(mut in_order) = self.in_order.take() else {
            if let Some(end) = end {
                self.print([&end.stdout, &end.stderr].map(Stream::Captured))?;
            }
            return Ok(true);
        };
        let is_next = in_order.is_next(job);
        in_order.over(job, end);
        let printed = self.print_all(&mut in_order, InOrder::due);
        self.in_order = Some(in_order);
        printed.map(|()| is_next)
    }

    fn print_all(
        &self,
        in_order: &mut InOrder,
        next: fn(&mut InOrder) -> Option<Output>,
    ) -> io::Result<()> {
        while let Some(output) = next(in_order) {
            match output {
                Output::Nothing => {}
                Output::InMemory(end) => {
                    self.print([&end.stdout, &end.stderr].map(Stream::Captured))?;
                }
                Output::Spooled(parts) => {
                    self.print(parts.map(|part| Stream::Spooled(in_order, part)))?;
                }
            }
        }
        in_order.written();
        Ok(())
    }

    fn print(&self, [stdout, stderr]: [Stream<'_>; 2]) -> io::Result<()> {
        if stdout.is_empty() && stderr.is_empty() {
            return Ok(());
        }
        self.aside(|| {
            if self.is_json {
                print_error(&stdout)?;
            } else if !stdout.is_empty() {
                let mut out = streams::stdout();
                stdout.write_to(&mut out)?;
                out.flush()?;
                if self.bar.is_some() && self.one_place && stdout.ends_within_a_line() {
                    // What is drawn next would be drawn over it.
                    say("");
                }
            }
            print_error(&stderr)?;
            for (what, stream) in [("stdout", &stdout), ("stderr", &stderr)] {
                if stream.lost_bytes() > 0 {
                    let lost = stream.lost_bytes();
                    say(&format!(
                        "reiver: {lost} bytes of {what} were lost: no room to keep them"
                    ));
                }
            }
            Ok(())
        })
    }

    /// What a job came to, in one line.
    fn what_follows(&self, headline: &str, follows: Follows) -> String {
        let (tone, word, then) = match follows {
            Follows::Retry(delay) => {
                let then = format!("; again in {}", Pretty(delay));
                (Tone::Note, "retrying", then)
            }
            Follows::Nothing => (Tone::Bad, "failed", String::new()),
            Follows::Resume => {
                let then = "; it counts as cancelled, and runs again with --resume";
                (Tone::Bad, "not recorded", then.to_owned())
            }
        };
        format!("{}: {headline}{then}", self.console.paint(tone, word))
    }

    /// What went wrong, with what helps to see why.
    fn failure(
        &self,
        plan: &Plan,
        (job, attempt): (JobIndex, u32),
        headline: &str,
        end: &AttemptEnd,
        follows: Follows,
        was_printed: bool,
    ) -> String {
        let mut text = self.what_follows(headline, follows);
        text += &format!("\n  command: {}", shown_command(plan, job));
        // What was just printed whole to the same place is not shown twice.
        if let LeaderEnd::Returned(Err(message)) | LeaderEnd::Panicked(message) = &end.leader
            && message.trim_end().contains('\n')
        {
            text += &lines("all that it says", message);
        }
        for (what, stream, shows) in [
            ("stdout", &end.stdout, !was_printed || !self.one_place),
            ("stderr", &end.stderr, !was_printed),
        ] {
            if shows && !stream.is_empty() {
                text += &tail(what, stream);
            }
            if let Some(log) = stream.log() {
                text += &kept_in(what, log);
            }
        }
        if !matches!(end.leader, LeaderEnd::NotStarted(_)) {
            let started = plan.attempt(job, attempt);
            if let Stdout::File(path) = &started.stdout {
                text += &kept_in("stdout", path);
            }
            if let Stderr::File(path) = &started.stderr {
                text += &kept_in("stderr", path);
            }
        }
        if let Some(alone) = &self.alone {
            text += &format!("\n  alone: {alone} {}", to_paste(plan.name(job).as_bytes()));
        }
        text
    }

    /// Says what a job came to, with what helps to see why of an attempt that failed.
    fn say_failure(
        &self,
        plan: &Plan,
        attempt: (JobIndex, u32),
        headline: &str,
        end: Option<&AttemptEnd>,
        follows: Follows,
        was_printed: bool,
    ) {
        let said = match end {
            Some(end) => self.failure(plan, attempt, headline, end, follows, was_printed),
            None => self.what_follows(headline, follows),
        };
        self.say(&said);
    }

    /// Counts a job that is over, for others who ask.
    fn count(&self, job: JobIndex, has_failed: bool) {
        let mut state = self.progress.state();
        state.ended(job);
        state.done += 1;
        state.failed += usize::from(has_failed);
    }

    /// Shows that a job is over.
    fn ended(&mut self, job: JobIndex) {
        let (total, done, failed) = {
            let state = self.progress.state();
            (state.total, state.done, state.failed)
        };
        if let Some(bar) = &self.bar {
            bar.ended(job);
            bar.set(
                done,
                match failed {
                    0 => String::new(),
                    failed => self.console.paint(Tone::Bad, &format!("{failed} failed")),
                },
            );
        } else if self.said.elapsed() >= STATE {
            self.said = Instant::now();
            self.say(&format!("reiver: {done} of {total} done, {failed} failed"));
        }
    }

    /// Says which jobs of class auto were moved.
    fn say_what_was_learnt(&self, plan: &Plan) {
        let lessons = self.learnt.lessons(plan);
        let moved = lessons.filter(|(_, lesson)| lesson.on_io > 0);
        for (name, lesson) in moved.take(MOST_MOVED) {
            say(&format!(
                "reiver: {} waited for {:.0} % of the time, so {} took io slots",
                plain(&name),
                lesson.profile.waiting() * 100.0,
                count(lesson.on_io as usize, "attempt"),
            ));
        }
    }

    fn sum(&mut self, plan: &Plan, summary: &Summary) {
        self.progress.state().bar = None;
        if let Some(bar) = self.bar.take() {
            bar.clear();
        }
        if !self.failures.is_empty() {
            say("");
            for failure in self.failures.iter().take(MOST_REPEATED) {
                say(&format!(
                    "{}: {failure}",
                    self.console.paint(Tone::Bad, "failed")
                ));
            }
            let more = self.failures.len().saturating_sub(MOST_REPEATED);
            if more > 0 {
                say(&format!("... and {more} more"));
            }
        }
        self.say_what_was_learnt(plan);
        let mut parts = vec![format!("{} succeeded", summary.succeeded)];
        for (number, what) in [
            (summary.failed, "failed"),
            (summary.cancelled, "cancelled"),
            (summary.skipped, "skipped"),
        ] {
            if number > 0 {
                parts.push(format!("{number} {what}"));
            }
        }
        let well = summary.failed == 0 && summary.cancelled == 0;
        let tone = if well { Tone::Good } else { Tone::Bad };
        say(&format!(
            "reiver: {}: {} in {}",
            count(self.progress.state().total, "job"),
            self.console.paint(tone, &parts.join(", ")),
            Pretty(summary.duration)
        ));
    }
}

/// What comes after an attempt that is told of.
#[derive(Debug, Clone, Copy)]
enum Follows {
    Nothing,
    /// Another one, after this.
    Retry(Duration),
    /// Another one in a run that resumes this one.
    Resume,
}

/// One stream of what a job has printed, wherever it lies.
enum Stream<'a> {
    Captured(&'a Captured),
    Spooled(&'a InOrder, Part),
}

impl Stream<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Stream::Captured(captured) => captured.is_empty(),
            Stream::Spooled(_, part) => part.is_empty(),
        }
    }

    fn ends_within_a_line(&self) -> bool {
        match self {
            Stream::Captured(captured) => captured.ends_within_a_line(),
            Stream::Spooled(_, part) => part.ends_within_a_line,
        }
    }

    fn lost_bytes(&self) -> u64 {
        match self {
            Stream::Captured(captured) => captured.lost_bytes(),
            Stream::Spooled(_, part) => part.lost_bytes,
        }
    }

    fn write_to(&self, target: &mut dyn Write) -> io::Result<()> {
        match self {
            Stream::Captured(captured) => captured.write_to(target),
            Stream::Spooled(in_order, part) => in_order.write(*part, target),
        }
    }
}

/// Prints a stream to standard error, where our own lines come after it. A reader of it that has gone
/// away wants no more.
fn print_error(stream: &Stream<'_>) -> io::Result<()> {
    match stream.write_to(&mut streams::stderr()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        Ok(()) | Err(_) => {}
    }
    if stream.ends_within_a_line() {
        say("");
    }
    Ok(())
}

impl Sink for Terminal {
    fn event(&mut self, plan: &Plan, event: &Event) -> io::Result<()> {
        self.learnt.event(plan, event);
        match &event.kind {
            EventKind::RunStarted {
                jobs,
                succeeded_before,
            } => {
                let mut state = self.progress.state();
                state.total = *jobs;
                state.done = *succeeded_before;
                if self.console.is_terminal && !self.is_json && *jobs > 0 {
                    let bar = Bar::new(*jobs);
                    bar.set(*succeeded_before, String::new());
                    state.bar = Some(bar.handle());
                    self.bar = Some(bar);
                }
            }
            EventKind::JobStarted {
                job, attempt, pid, ..
            } => {
                let mut state = self.progress.state();
                state.started(*job, *attempt, *pid, event.time.steady);
                drop(state);
                if let Some(bar) = &self.bar {
                    bar.started(*job, &plan.name(*job));
                }
            }
            EventKind::JobRetried {
                job,
                attempt,
                end,
                delay,
            } => {
                self.progress.state().ended(*job);
                if let Some(bar) = &self.bar {
                    bar.ended(*job);
                }
                if let Status::Failed(reason) = end.status {
                    let headline = headline(plan, *job, *attempt, reason, Some(end));
                    let follows = Follows::Retry(*delay);
                    let attempt = (*job, *attempt);
                    self.say_failure(plan, attempt, &headline, Some(end), follows, false);
                }
            }
            EventKind::JobFinished {
                job,
                attempt,
                status,
                end,
            } => {
                self.count(*job, matches!(status, Status::Failed(_)));
                let was_printed = self.print_or_hold(*job, end.as_ref())?;
                if let Status::Failed(reason) = *status {
                    let headline = headline(plan, *job, *attempt, reason, end.as_deref());
                    self.say_failure(
                        plan,
                        (*job, *attempt),
                        &headline,
                        end.as_deref(),
                        Follows::Nothing,
                        was_printed,
                    );
                    self.failures.push(headline);
                }
                self.ended(*job);
            }
            EventKind::JobUnrecorded {
                job,
                attempt,
                status,
                end,
            } => {
                self.count(*job, false);
                let was_printed = self.print_or_hold(*job, end.as_ref())?;
                let end = end.as_deref();
                let (reason, shown) = match *status {
                    Status::Failed(reason) => (reason, end),
                    // There is nothing to see why of.
                    Status::Success | Status::Cancelled => (Reason::Exit, None),
                };
                let headline = headline(plan, *job, *attempt, reason, end);
                let attempt = (*job, *attempt);
                self.say_failure(
                    plan,
                    attempt,
                    &headline,
                    shown,
                    Follows::Resume,
                    was_printed,
                );
                self.ended(*job);
            }
            EventKind::JobSkipped { job, because } => {
                self.count(*job, false);
                self.print_or_hold(*job, None)?;
                let (name, because) = (plan.name(*job), plan.name(*because));
                let word = self.console.paint(Tone::Note, "skipped");
                self.say(&format!("{word}: {} for {}", plain(&name), plain(&because)));
                self.ended(*job);
            }
            EventKind::RunFinished { summary, .. } => {
                if let Some(mut in_order) = self.in_order.take() {
                    self.print_all(&mut in_order, InOrder::rest)?;
                }
                self.sum(plan, summary);
            }
        }
        Ok(())
    }
}

/// `solve-3 (attempt 2 of 3): exit code 1 after 1.2 s`.
fn headline(
    plan: &Plan,
    job: JobIndex,
    attempt: u32,
    reason: Reason,
    end: Option<&AttemptEnd>,
) -> String {
    let name = plain(&plan.name(job));
    let Some(end) = end else {
        return format!("{name}: its deadline passed before it could start");
    };
    let attempts = plan.settings(job).retries.count.saturating_add(1);
    let leader = match &end.leader {
        LeaderEnd::Exited(code) => format!("exit code {code}"),
        LeaderEnd::Signalled(signal) => format!("ended by {}", signals::name(*signal)),
        LeaderEnd::NotStarted(reason) => format!("not started: {}", plain(reason)),
        LeaderEnd::Returned(Ok(())) => "returned".to_owned(),
        LeaderEnd::Returned(Err(_)) => "error".to_owned(),
        LeaderEnd::Panicked(_) => "panicked".to_owned(),
        LeaderEnd::Abandoned => "did not return".to_owned(),
    };
    let says = match &end.leader {
        LeaderEnd::Returned(Err(message)) | LeaderEnd::Panicked(message) => {
            let first = message.lines().next().unwrap_or_default();
            format!(": {}", plain(first))
        }
        _ => String::new(),
    };
    let why = match reason {
        Reason::Timeout => format!("timeout, {leader}"),
        Reason::Deadline => format!("deadline, {leader}"),
        Reason::OutOfMemory => format!("out of memory, {leader}"),
        Reason::Exit | Reason::Signal | Reason::Spawn | Reason::Error | Reason::Panic => leader,
    };
    let node = end.placement.as_ref().and_then(|placement| placement.node);
    let node = node.map_or(String::new(), |node| format!(" on node {node}"));
    format!(
        "{name} (attempt {attempt} of {attempts}): {why} after {}{node}{says}",
        Pretty(end.duration)
    )
}

fn kept_in(what: &str, path: &Path) -> String {
    format!("\n  {what} kept in: {}", plain(&path.to_string_lossy()))
}

fn tail(what: &str, stream: &Captured) -> String {
    let tail = stream.last_lines(TAIL_LINES);
    lines(
        &format!("the end of {what}"),
        &String::from_utf8_lossy(&tail),
    )
}

fn lines(what: &str, said: &str) -> String {
    let mut text = format!("\n  {what}:");
    for line in said.lines() {
        let (line, more) = beginning(line);
        // Tabs are layout, not control.
        let line: Vec<String> = line.split('\t').map(plain).collect();
        text += &format!("\n  | {}{more}", line.join("\t"));
    }
    text
}

/// True if standard output and standard error are one terminal, or one file.
fn same_place() -> bool {
    let identity = |fd: i32| {
        // SAFETY: a descriptor of ours for as long as the process lives, and `ManuallyDrop` leaves
        // it open.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        file.metadata()
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino(), metadata.rdev()))
    };
    identity(1).is_some_and(|stdout| identity(2) == Some(stdout))
}
