//! What a run has to do with its journal before it begins: which jobs are left to run, what has
//! changed since, and what a killed run has left behind.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::args::RunArgs;
use super::console::{count, plain, say};
use super::exit;
use crate::Plan;
use crate::journal::{Job, Journal, JournalError, Known, Locked, RunStarted, State, Unended};
use crate::plan::{Filtered, Outside};
use crate::run::{Control, boot_id, end_leftovers};

/// Names that a line lists.
const MOST_NAMED: usize = 20;
/// How long what is left of a job has that is in no file any more.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// What is to run, and where that is recorded.
pub(crate) struct Prepared {
    pub(crate) plan: Plan,
    /// Which jobs have succeeded before; empty for none.
    pub(crate) done: Vec<bool>,
    pub(crate) journal: Option<Journal>,
}

/// A plan, as far as the command line says what is to run.
pub(crate) struct Wanted {
    pub(crate) plan: Plan,
    /// What all jobs of the files are known by, where that is asked.
    keys: HashSet<u128>,
    outside: Vec<Outside>,
}

/// Whether a run keeps a journal. The command that runs one job alone does not touch the run's own.
pub(crate) fn keeps_journal(args: &RunArgs) -> bool {
    let is_asked_for = args.journal.is_some() || resumes(args);
    !args.no_journal && (args.filter.is_none() || is_asked_for)
}

fn resumes(args: &RunArgs) -> bool {
    args.resume || args.resume_failed
}

fn folder(args: &RunArgs, plan: &Plan) -> PathBuf {
    match &args.journal {
        Some(folder) => folder.into(),
        None => plan.state_folder().join("journal"),
    }
}

/// Applies the filter; the error is what is wrong with it.
pub(crate) fn wanted(mut plan: Plan, args: &RunArgs) -> Result<Wanted, String> {
    let mut keys = HashSet::new();
    if keeps_journal(args) {
        plan.identify();
        if resumes(args) {
            keys = plan.jobs().map(|job| plan.key(job)).collect();
        }
    }
    let mut outside = Vec::new();
    if let Some(filter) = &args.filter {
        let filtered = plan.filter(filter).map_err(|error| error.to_string())?;
        Filtered {
            plan,
            taken_as_met: outside,
        } = filtered;
        if !outside.is_empty() {
            let needs = count(outside.len(), "need");
            say(&format!("reiver: {needs} outside the filter: taken as met"));
        }
    }
    Ok(Wanted {
        plan,
        keys,
        outside,
    })
}

/// What would run, for whoever only asks.
pub(crate) fn left_to_run(wanted: Wanted, args: &RunArgs) -> Result<Plan, JournalError> {
    if !resumes(args) {
        return Ok(wanted.plan);
    }
    let folder = folder(args, &wanted.plan);
    let known = crate::journal::look(&folder, false)?;
    let (plan, done) = decide(wanted, known.as_ref(), &folder, args);
    let left = done.iter().map(|done| !done).collect();
    Ok(plan.keep(left).plan)
}

/// Readies the journal, and ends what a killed run has left behind; the error is the exit code, and
/// has been said.
pub(crate) fn prepare(
    wanted: Wanted,
    args: &RunArgs,
    run_id: &str,
    control: &Control,
) -> Result<Prepared, u8> {
    if !keeps_journal(args) {
        return Ok(Prepared {
            plan: wanted.plan,
            done: Vec::new(),
            journal: None,
        });
    }
    let refused = |error: JournalError| {
        say(&format!("reiver: {error}; nothing was run"));
        exit::REFUSED
    };
    let folder = folder(args, &wanted.plan);
    let locked = Locked::take(&folder).map_err(refused)?;
    let known = match resumes(args) {
        true => locked.read().map_err(refused)?,
        false => None,
    };
    let unended = match &known {
        Some(known) => known.state.unended(),
        None => locked.unended(),
    };
    end_what_is_left(&unended, &wanted.plan, control)?;
    let (plan, done) = if resumes(args) {
        decide(wanted, known.as_ref(), &folder, args)
    } else {
        (wanted.plan, Vec::new())
    };
    let run = RunStarted {
        run_id: run_id.to_owned(),
        time: SystemTime::now(),
        boot_id: boot_id(),
        pid: std::process::id(),
        jobs: plan.len() as u64,
    };
    let journal = match &known {
        Some(known) => locked.resume(known, run),
        None => locked.begin(run),
    };
    let journal = Some(journal.map_err(refused)?);
    Ok(Prepared {
        plan,
        done,
        journal,
    })
}

fn end_what_is_left(unended: &Unended, plan: &Plan, control: &Control) -> Result<(), u8> {
    let kill_after = |name: &str| {
        let job = plan.find(name);
        job.map_or(KILL_AFTER, |job| plan.settings(job).kill_after)
    };
    match end_leftovers(unended, kill_after, control) {
        Ok(left) if left.processes == 0 => Ok(()),
        Ok(left) => {
            let processes = match left.processes {
                1 => "1 process".to_owned(),
                many => format!("{many} processes"),
            };
            say(&format!(
                "reiver: ended {processes} that a run left behind when it was killed: {}",
                names(left.jobs.iter().map(String::as_str))
            ));
            Ok(())
        }
        Err(error) => {
            let signal = control
                .signal()
                .and_then(|signal| u8::try_from(signal).ok());
            if let Some(signal) = signal {
                say("reiver: nothing was run");
                return Err(exit::BY_SIGNAL + signal);
            }
            say(&format!("reiver: {error}; nothing was run"));
            Err(exit::ENGINE_FAILED)
        }
    }
}

/// Which jobs are left to run, by the journal; says what is to be known of that.
fn decide(
    wanted: Wanted,
    known: Option<&Known>,
    folder: &Path,
    args: &RunArgs,
) -> (Plan, Vec<bool>) {
    let empty = State::default();
    let state = known.map_or(&empty, |known| &known.state);
    if known.is_none() {
        let folder = folder.display();
        say(&if args.resume_failed {
            format!("reiver: no journal at {folder}: nothing is known to have failed")
        } else {
            format!("reiver: no journal at {folder}: starting afresh")
        });
    }
    if let Some(torn) = known.and_then(|known| known.torn.as_ref()) {
        say(&format!(
            "reiver: the journal's end was not written whole, {} of {} from byte {} on: cut off",
            count(usize::try_from(torn.bytes).unwrap_or(usize::MAX), "byte"),
            torn.file,
            torn.offset
        ));
    }
    let Wanted {
        mut plan,
        keys,
        outside,
    } = wanted;
    if args.resume_failed {
        let is_left = |job| {
            state.job(plan.key(job)).is_some_and(|known| {
                let now = plan.identity(job).definition;
                known.has_failed_as(now)
                    || known.has_succeeded_as(now)
                    || known.has_changed_from(now)
            })
        };
        let kept = plan.jobs().map(is_left).collect();
        plan = plan.keep(kept).plan;
    }
    let mut done = Vec::with_capacity(plan.len());
    let mut changed = Vec::new();
    for job in plan.jobs() {
        let known = state.job(plan.key(job));
        let known = known.map(|known| (known, plan.identity(job).definition));
        done.push(known.is_some_and(|(known, now)| known.has_succeeded_as(now)));
        if known.is_some_and(|(known, now)| known.has_changed_from(now)) {
            changed.push(plan.name(job).into_owned());
        }
    }
    list("changed since", "and will run again", &changed);
    let gone = state.jobs_by_key().filter(|(key, _)| !keys.contains(key));
    let mut gone: Vec<String> = gone
        .map(|(_, job): (_, &Job)| job.name.to_string())
        .collect();
    gone.sort();
    list("that ran before", "no longer in the file", &gone);
    let is_open = |need: &&Outside| {
        let known = need
            .identity
            .and_then(|i| Some((state.job(i.key)?, i.definition)));
        !known.is_some_and(|(known, definition)| known.has_succeeded_as(definition))
    };
    let open: Vec<String> = outside
        .iter()
        .filter(is_open)
        .map(|need| need.name.clone())
        .collect();
    list("outside the filter", "needed and not succeeded yet", &open);
    if known.is_some() {
        let before = done.iter().filter(|&&done| done).count();
        let jobs = count(plan.len(), "job");
        say(&format!(
            "reiver: resuming: {before} of {jobs} succeeded before"
        ));
    }
    (plan, done)
}

/// `reiver: 2 jobs changed since, and will run again: a, b`.
fn list(which: &str, what: &str, jobs: &[String]) {
    if !jobs.is_empty() {
        let number = count(jobs.len(), "job");
        let names = names(jobs.iter().map(String::as_str));
        say(&format!("reiver: {number} {which}, {what}: {names}"));
    }
}

fn names<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let shown: Vec<String> = names.take(MOST_NAMED).map(plain).collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
