//! `reiver journal`: what a journal holds, whether it is whole, and what of a damaged one can be kept.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::JournalFile;
use super::console::{Pretty, count, plain, say};
use super::{exit, signals};
use crate::event::{Reason, Status};
use crate::journal::{self, Job, JournalError, Known, Locked, Run};
use crate::plan::state_folder;
use crate::{SourceId, read};

/// Jobs that a list shows.
const MOST_LISTED: usize = 50;

/// `reiver journal show`.
pub(crate) fn show(args: &JournalFile, out: &mut dyn Write) -> io::Result<u8> {
    let folder = match folder(args) {
        Ok(folder) => folder,
        Err(code) => return Ok(code),
    };
    let (known, code) = match journal::look(&folder, false) {
        Ok(Some(known)) => (known, exit::OK),
        Ok(None) => {
            say(&format!(
                "reiver: there is no journal at {}",
                folder.display()
            ));
            return Ok(exit::REFUSED);
        }
        Err(JournalError::Damaged { .. }) => match journal::look(&folder, true) {
            Ok(Some(known)) => (known, exit::REFUSED),
            // It was there a moment ago.
            Ok(None) => return Ok(exit::REFUSED),
            Err(error) => return Ok(refused(&error)),
        },
        Err(error) => return Ok(refused(&error)),
    };
    let holder = journal::held_by(&folder);
    writeln!(out, "{}", plain(&folder.to_string_lossy()))?;
    writeln!(out, "{}", soundness(&known, holder.is_some()))?;
    for damage in &known.damage {
        let what = plain(&damage.what);
        writeln!(out, "  {}, byte {}: {what}", damage.file, damage.offset)?;
    }
    if let Some(pid) = holder {
        writeln!(out, "in use: process {pid} is writing it")?;
    }
    runs(&known.state.runs, holder.is_some(), out)?;
    jobs(&known, holder.is_some(), out)?;
    Ok(code)
}

/// `reiver journal salvage`.
pub(crate) fn salvage(args: &JournalFile, out: &mut dyn Write) -> io::Result<u8> {
    let folder = match folder(args) {
        Ok(folder) => folder,
        Err(code) => return Ok(code),
    };
    match journal::look(&folder, false) {
        Ok(Some(_)) => {
            writeln!(out, "{}: whole; nothing to salvage", folder.display())?;
            return Ok(exit::OK);
        }
        Ok(None) => {
            say(&format!(
                "reiver: there is no journal at {}",
                folder.display()
            ));
            return Ok(exit::REFUSED);
        }
        Err(JournalError::Damaged { .. }) => {}
        Err(error) => return Ok(refused(&error)),
    }
    match Locked::take(&folder).and_then(Locked::salvage) {
        Ok(known) => {
            let kept = known.map_or(0, |known| {
                known.state.jobs().filter(|j| j.end.is_some()).count()
            });
            let kept = count(kept, "job");
            let folder = folder.display();
            writeln!(
                out,
                "{folder}: the ends of {kept} kept; what it was is at {folder}.old"
            )?;
            Ok(exit::OK)
        }
        Err(error) => Ok(refused(&error)),
    }
}

fn refused(error: &JournalError) -> u8 {
    say(&format!("reiver: {error}"));
    exit::REFUSED
}

/// The folder of the journal that is meant; the error is the exit code, and has been said.
fn folder(args: &JournalFile) -> Result<PathBuf, u8> {
    let path = Path::new(&args.file);
    if path.is_dir() {
        // The folder of all that a run keeps has it in it.
        let within = path.join("journal");
        return Ok(if within.is_dir() {
            within
        } else {
            path.to_owned()
        });
    }
    let given: &OsStr = args.file.as_ref();
    if given == "-" {
        // What it is called does not hang on what is read.
        let here = std::env::current_dir().map_err(|error| {
            say(&format!("reiver: {error}"));
            exit::REFUSED
        })?;
        return Ok(here.join(".reiver/stdin/journal"));
    }
    let format = args.format.map(Into::into);
    let (sources, unreadable) = read::open_all(std::slice::from_ref(&args.file), format);
    for error in &unreadable {
        say(&format!("reiver: {error}"));
    }
    let [source] = sources.try_into().map_err(|_| exit::REFUSED)?;
    // Whatever is wrong with it, all that matters is its name.
    let (file, _) = read::read(SourceId(0), &source);
    Ok(state_folder(&[Arc::new(source)], &[file]).join("journal"))
}

fn soundness(known: &Known, is_in_use: bool) -> String {
    if !known.damage.is_empty() {
        return "damaged; what follows is what can be read of it".to_owned();
    }
    match &known.torn {
        Some(_) if is_in_use => "whole, its end is being written".to_owned(),
        Some(torn) => format!(
            "whole, but for its end: {} of {} from byte {} on were not written whole, and count as \
             not written",
            count(usize::try_from(torn.bytes).unwrap_or(usize::MAX), "byte"),
            torn.file,
            torn.offset
        ),
        None => "whole".to_owned(),
    }
}

fn runs(runs: &[Run], is_in_use: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}:", count(runs.len(), "run"))?;
    for (place, run) in (1..).zip(runs) {
        let started = &run.started;
        let time = humantime::format_rfc3339_seconds(started.time);
        let jobs = usize::try_from(started.jobs).unwrap_or(usize::MAX);
        write!(
            out,
            "  {time} {} {}: ",
            plain(&started.run_id),
            count(jobs, "job")
        )?;
        match &run.finished {
            Some(finished) => {
                let summary = &finished.summary;
                writeln!(
                    out,
                    "{} succeeded, {} failed, {} cancelled, {} skipped in {}; exit code {}",
                    summary.succeeded,
                    summary.failed,
                    summary.cancelled,
                    summary.skipped,
                    Pretty(summary.duration),
                    finished.exit
                )?;
            }
            None if is_in_use && place == runs.len() => writeln!(out, "it is at work")?,
            None => writeln!(out, "no end is recorded: it was killed, or in trouble")?,
        }
    }
    Ok(())
}

fn jobs(known: &Known, is_in_use: bool, out: &mut dyn Write) -> io::Result<()> {
    let of = |wanted: fn(Status) -> bool| {
        let jobs = known.state.jobs();
        jobs.filter(move |job| job.end.is_some_and(|(_, end)| wanted(end.status)))
    };
    let failed = || of(|status| matches!(status, Status::Failed(_)));
    writeln!(
        out,
        "{} that ran: {} succeeded, {} failed, {} cancelled",
        count(known.state.jobs().count(), "job"),
        of(|status| status == Status::Success).count(),
        failed().count(),
        of(|status| status == Status::Cancelled).count(),
    )?;
    list("failed", failed(), out)?;
    let open = known.state.jobs().filter(|job| job.open.is_some());
    let what = if is_in_use {
        "running"
    } else {
        "started, with no end recorded"
    };
    list(what, open, out)
}

fn list<'j>(
    what: &str,
    jobs: impl Iterator<Item = &'j Job>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut jobs: Vec<&Job> = jobs.collect();
    if jobs.is_empty() {
        return Ok(());
    }
    jobs.sort_by(|a, b| a.name.cmp(&b.name));
    writeln!(out, "{what}:")?;
    for job in jobs.iter().take(MOST_LISTED) {
        writeln!(out, "  {}{}", plain(&job.name), how(job))?;
    }
    match jobs.len().saturating_sub(MOST_LISTED) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}

fn how(job: &Job) -> String {
    if let Some(open) = &job.open {
        return format!(" (attempt {}): process {}", open.attempt, open.pid);
    }
    let Some((_, end)) = job.end else {
        return String::new();
    };
    let leader = match (end.code, end.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by {}", signals::name(signal)),
        (None, None) if end.attempt == 0 => "not started".to_owned(),
        (None, None) => match end.status {
            Status::Failed(Reason::Spawn) | Status::Cancelled => "not started".to_owned(),
            _ => "a task".to_owned(),
        },
    };
    let why = match end.status {
        Status::Failed(Reason::Timeout) => format!("timeout, {leader}"),
        Status::Failed(Reason::Deadline) => format!("deadline, {leader}"),
        Status::Failed(Reason::OutOfMemory) => format!("out of memory, {leader}"),
        _ => leader,
    };
    format!(
        " (attempt {}): {why} after {}",
        end.attempt,
        Pretty(end.duration)
    )
}
