//! What a run that was killed has left behind: ended before its jobs run again, so that none runs
//! twice at once.
//!
//! An attempt is known by its first process, by that one's number and start time, and by the words
//! that it carries in its environment and its [brand](super::brand), for the journal may have been killed
//! before it could note a number. All hold for attempts only whose end is not recorded: what a job left in
//! the background when it ended is nobody's. What descends from any of those, or shares a session with a
//! first process that lives, goes with it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::brand::{Brand, Brands};
use super::control::Control;
use super::process::{self, Pid, Snapshot};
use crate::journal::Unended;
use crate::plan::JobIndex;

/// What was ended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Leftovers {
    /// How many processes.
    pub processes: usize,
    /// Of which jobs, sorted.
    pub jobs: Vec<String>,
}

const LOOK_AGAIN: Duration = Duration::from_millis(2);
const LOOK_AGAIN_MOST: Duration = Duration::from_millis(64);
/// How long something that is just being started may take to show what it is.
const STARTING: Duration = Duration::from_secs(1);

/// Names this start of the machine; empty where the system does not.
pub fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Ends what lives of a run that was killed: TERM, and KILL after as long as `kill_after` says for the
/// job. The run's journal must be locked, which nothing holds any more that the run was just
/// starting. Returns once nothing is left.
///
/// # Errors
/// Where `/proc` cannot be read, where a process may not be signalled, or where `control` is told to
/// end meanwhile (`Interrupted`).
pub fn end_leftovers(
    unended: &Unended,
    kill_after: impl Fn(&str) -> Duration,
    control: &Control,
) -> io::Result<Leftovers> {
    let Some(run) = &unended.run else {
        return Ok(Leftovers::default());
    };
    // After a restart of the machine nothing lives, and numbers are others'.
    if run.boot_id != boot_id() {
        return Ok(Leftovers::default());
    }
    let mark = format!("REIVER_RUN_ID={}", run.run_id);
    let brands = Brands::of_run(&run.run_id);
    let (begin, mut pause) = (Instant::now(), LOOK_AGAIN);
    let mut asked: HashMap<Pid, Instant> = HashMap::new();
    let mut jobs: HashSet<String> = HashSet::new();
    loop {
        let snapshot = Snapshot::take()?;
        let left = left(&snapshot, unended, &mark, brands);
        let may_come = snapshot.has_starting() && begin.elapsed() < STARTING;
        if left.is_empty() && !may_come {
            let mut jobs: Vec<String> = jobs.into_iter().collect();
            jobs.sort();
            return Ok(Leftovers {
                processes: asked.len(),
                jobs,
            });
        }
        if control.is_ending() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let now = Instant::now();
        for (pid, job) in left {
            let signal = |signal| {
                process::signal(pid, signal).map_err(|error| {
                    let kind = error.kind();
                    let text = format!(
                        "process {pid} of `{job}` is left of a run that was killed, and cannot be \
                         ended ({error}); end it first"
                    );
                    io::Error::new(kind, text)
                })
            };
            match asked.get(&pid) {
                None => {
                    signal(libc::SIGTERM)?;
                    // What is stopped takes its TERM only once it goes on.
                    signal(libc::SIGCONT)?;
                    let at = now.checked_add(kill_after(&job));
                    asked.insert(
                        pid,
                        at.unwrap_or(now + Duration::from_secs(u32::MAX.into())),
                    );
                }
                Some(&at) if now >= at => signal(libc::SIGKILL)?,
                Some(_) => {}
            }
            jobs.insert(job);
        }
        // They are another's children: nobody tells us that they end, nor of what they start meanwhile.
        thread::sleep(pause);
        pause = (pause * 2).min(LOOK_AGAIN_MOST);
    }
}

/// The processes that are left, with the names of their jobs.
fn left(
    snapshot: &Snapshot,
    unended: &Unended,
    mark: &str,
    brands: Brands,
) -> HashMap<Pid, String> {
    let mut left: HashMap<Pid, String> = HashMap::new();
    let has_ended = |job: &str, attempt: u32| {
        let last = unended.ended.get(job);
        last.is_some_and(|&last| attempt <= last)
    };
    for (job, open) in &unended.open {
        let Ok(leader) = Pid::try_from(open.pid) else {
            continue;
        };
        if snapshot.was_born(leader, open.born) {
            let session = snapshot.session(leader);
            left.extend(session.into_iter().map(|pid| (pid, job.clone())));
        }
    }
    let most = unended.ended.values().copied().max().unwrap_or(0);
    let attempt_of = |pid| Brand::of(pid).and_then(|brand| brands.attempt_of(brand, most));
    let mut names: HashMap<JobIndex, String> = HashMap::new();
    for (pid, environment) in snapshot.environments() {
        let word = |key: &str| {
            let words = environment.split(|&byte| byte == 0);
            let value = words
                .filter_map(|word| word.strip_prefix(key.as_bytes()))
                .next();
            value.map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let is_of_run = || {
            environment
                .split(|&byte| byte == 0)
                .any(|w| w == mark.as_bytes())
        };
        let (Some(job), Some(attempt)) = (word("REIVER_JOB="), word("REIVER_ATTEMPT=")) else {
            continue;
        };
        let attempt = attempt.parse::<u32>().unwrap_or(u32::MAX);
        if !has_ended(&job, attempt) && is_of_run() {
            if let Some((number, _)) = attempt_of(pid) {
                names.insert(number, job.clone());
            }
            left.insert(pid, job);
        }
    }
    for pid in snapshot.living() {
        let Some((job, attempt)) = attempt_of(pid) else {
            continue;
        };
        // One that the journal could not note yet is called as others of it say.
        let name = unended
            .names
            .get(&job.0)
            .or_else(|| names.get(&job))
            .cloned();
        let name = name.unwrap_or_else(|| format!("job number {}", u64::from(job.0) + 1));
        if !has_ended(&name, attempt) {
            left.entry(pid).or_insert(name);
        }
    }
    snapshot.with_descendants(left)
}
