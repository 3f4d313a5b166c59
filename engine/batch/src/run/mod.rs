//! A plan carried out.
//!
//! An attempt is carried out by a thread of the engine, of class Io, that asks itself what to go on with
//! (`dispatch`); the calling thread waits for all else that matters. Events go to the journal first, where
//! there is one (`recorder`), and from there to a thread that hands them to the sinks (`reporter`).
//!
//! The engine's threads are not pinned here: they only wait, and what they start inherits the
//! affinity and memory policy that this process was started with. Jobs that are functions of the
//! program have an engine of their own (`tasks`), whose workers are where engines have them.

mod attempt;
mod brand;
mod cgroups;
mod control;
mod coordinator;
mod descriptors;
mod dispatch;
mod heads;
mod launch;
mod leftovers;
mod load;
mod memory;
mod pause;
mod placed;
mod places;
mod process;
mod recorder;
mod rehearsal;
mod reporter;
mod spawn;
mod stock;
mod streams;
mod tasks;
mod tokens;
mod trace;
mod watch;
mod zygote;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use reiver::{Class, Engine, Pinning};

use crate::Plan;
use crate::event::{EventKind, Sink, Summary};
use crate::journal::Journal;
use crate::plan::{JobIndex, Settings};
use attempt::Attempts;
use cgroups::Groups;
pub use control::Control;
use coordinator::Coordinator;
use descriptors::Room;
pub(crate) use descriptors::check_room;
use dispatch::{Dispatch, Run};
pub use launch::close_inherited_descriptors;
pub use leftovers::{Leftovers, boot_id, end_leftovers};
use load::Load;
pub use memory::available_memory;
use recorder::{Recorder, Settled};
pub use rehearsal::rehearse;
use reporter::Reporter;
use tasks::{TaskNews, Tasks};
use tokens::{Offer, Tokens};
pub use zygote::serve_if_zygote;

/// What a run needs besides its plan.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names the run in events and in the environment of its jobs.
    pub run_id: String,
    /// Where output of failed jobs is kept, made when first needed.
    pub state_folder: PathBuf,
    /// Jobs that have succeeded before, one mark a job: they are not run again. Empty for none.
    pub done: Vec<bool>,
    /// The exit code counts failed jobs instead of saying that there are some: 101 is more than 100.
    pub exit_counts: bool,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// How many jobs ended how.
    pub summary: Summary,
    /// The exit code that says so: 0, 1 (or how many failed), 3 where output of jobs was lost, their ends
    /// could not be recorded, a sink had trouble or the engine panicked, or 128 and the number of the signal
    /// that ended it: of SIGPIPE, where what a sink writes to is gone.
    pub exit: u8,
    /// The first sink's trouble, where one had any.
    pub trouble: Option<io::Error>,
    /// Jobs that had an end which the journal could not take: they count as cancelled.
    pub unrecorded: usize,
    /// What the engine itself has panicked with: a bug. What ran then was ended, and whatever has not been told
    /// to have ended counts as cancelled.
    pub panic: Option<String>,
}

/// What the coordinating thread is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// More is to be done, or sooner, than was known.
    Look,
    /// It is time to look for orphans that have ended.
    Reap,
    Cancel,
    Kill,
    /// Of a job that is a function of the program.
    Task {
        job: JobIndex,
        number: u32,
        news: TaskNews,
    },
    /// The jobserver's pipe may hold something.
    TokensCame,
    /// The reporter, or the journal, has caught up.
    Reported,
    JournalFailed,
    SinkFailed(io::Error),
    /// Something of the engine, on another thread, with this.
    Panicked(String),
}

/// The exit code of a run that lost what jobs printed, or could not record how they ended: reiver
/// failed, whatever they did.
const REIVER_FAILED: u8 = 3;
/// The exit code that means more failed jobs than it can count, as GNU parallel's.
const MOST_COUNTED: usize = 101;
/// With room for fewer attempts than this there is no jobserver.
const ROOM_FOR_TOKENS: usize = 8;

/// An id for a run, not to be guessed from another: 16 hexadecimal digits.
pub fn new_run_id() -> String {
    // std's hasher is seeded by the system.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Carries out a plan, keeps the journal if one is given, and tells the sinks what happens. Returns when
/// every job is over and every sink has been told. With a journal the plan must know what its jobs [are
/// known by](Plan::identify).
///
/// # Errors
/// Where it cannot begin: no descriptors, no threads. Trouble later is in the [`Outcome`].
pub fn run(
    plan: &Arc<Plan>,
    options: Options,
    control: &Control,
    journal: Option<Journal>,
    sinks: Vec<Box<dyn Sink>>,
) -> io::Result<Outcome> {
    let begin = Instant::now();
    process::adopt_orphans();
    let limits = plan.limits();
    let (sender, receiver) = channel();
    // Few descriptors are for jobs rather than for their makes.
    let (tokens, mut offer) = match Room::of_process() {
        Ok(room) if room.attempts >= ROOM_FOR_TOKENS => Tokens::open(limits.cpus, sender.clone()),
        _ => (None, Offer::default()),
    };
    offer.withhold(plan.resources());
    let slots = limits.cpus.saturating_add(limits.io) as usize;
    let slots = slots.min(plan.len()).max(1);
    let (done, exit_counts) = (options.done, options.exit_counts);
    let (run_id, state_folder) = (options.run_id, options.state_folder);
    let ready = || -> io::Result<_> {
        let room = Room::of_process()?;
        if room.attempts < slots {
            let Room {
                attempts, limit, ..
            } = room;
            tracing::warn!(
                "jobs at once: {attempts} at the most, for the limit on open files is {limit}; \
                 raise it with `ulimit -n`"
            );
        }
        // What is over that waits in the engine's queue, its slots taken.
        let engine = Engine::builder()
            .cpu_workers(1)
            .io_workers(0..=slots.min(room.attempts))
            .pinning(Pinning::None)
            .queue_capacity(Class::Io, slots)
            .build()
            .map_err(io::Error::other)?;
        let tasks = Tasks::open(plan, &run_id, &state_folder, control, begin)?;
        let attempts = Attempts::new(
            run_id.clone(),
            state_folder,
            control.clone(),
            room,
            begin,
            groups_for(plan, &run_id),
            offer,
        )?;
        let reporter = Reporter::start(Arc::clone(plan), sinks, sender.clone())?;
        Ok((room, engine, tasks, attempts, reporter))
    };
    let (room, engine, tasks, attempts, reporter) = match ready() {
        Ok(ready) => ready,
        Err(error) => {
            // Not that of a run that was killed.
            if let Some(journal) = journal {
                journal.close();
            }
            return Err(error);
        }
    };
    let recorder = journal
        .map(|journal| {
            let (plan, report) = (Arc::clone(plan), reporter.report.clone());
            Recorder::start(journal, plan, report, sender.clone())
        })
        .transpose()?;
    control.connect(sender.clone());

    let attempts = Arc::new(attempts);
    let succeeded_before = done.iter().filter(|&&done| done).count();
    let mut run = Run {
        plan: Arc::clone(plan),
        control: control.clone(),
        attempts: Arc::clone(&attempts),
        tasks,
        coordinator: Coordinator::new(Arc::clone(plan), RandomState::new().hash_one(begin), &done),
        tokens,
        sender: sender.clone(),
        report: reporter.report.clone(),
        recorder,
        last_ends: HashMap::new(),
        summary: Summary {
            succeeded: succeeded_before,
            ..Summary::default()
        },
        lost: false,
        trouble: None,
        begin,
        load: Load::new(plan.limits().load),
        next_reaping: begin,
        looks_at: None,
        sleeps_until: None,
    };
    if let Some(tokens) = &mut run.tokens {
        tokens.begin(&mut run.coordinator);
    }
    run.report(EventKind::RunStarted {
        jobs: plan.len(),
        succeeded_before,
    });
    let dispatch = Arc::new(Dispatch {
        run: Mutex::new(Some(run)),
        plan: Arc::clone(plan),
        attempts: Arc::clone(&attempts),
        sender,
        goes_on: room.attempts >= slots.saturating_mul(2),
    });
    let (run, mut panic) = dispatch.coordinate(&engine, &receiver);

    let Run {
        tasks,
        mut summary,
        lost,
        report,
        recorder,
        mut trouble,
        tokens: _tokens,
        ..
    } = run;
    // The reporter ends with the last one.
    drop(report);
    // Threads of attempts have something to do after they have told how these ended: a panic there is told
    // in time, too.
    drop(engine);
    if tasks.as_ref().is_none_or(Tasks::are_over) {
        attempts.reap_orphans();
    }
    if let Some(tasks) = tasks {
        tasks.close();
    }
    attempts.close_groups();
    summary.duration = begin.elapsed();
    if panic.is_some() {
        let over = summary.succeeded + summary.failed + summary.cancelled + summary.skipped;
        summary.cancelled += plan.len().saturating_sub(over);
    }
    let signal = control.signal();
    let mut settled = match recorder {
        Some(recorder) => recorder.settle(summary),
        None => Settled::without(summary),
    };
    let summary = settled.summary;
    let exit_of = |settled: &Settled, trouble: &Option<io::Error>, panic: &Option<String>| match (
        trouble, signal,
    ) {
        _ if panic.is_some() => REIVER_FAILED,
        (Some(error), _) if error.kind() == io::ErrorKind::BrokenPipe => by_signal(libc::SIGPIPE),
        (Some(_), _) => REIVER_FAILED,
        (None, Some(signal)) => by_signal(signal),
        (None, None) if lost || settled.has_failed => REIVER_FAILED,
        (None, None) if exit_counts => {
            u8::try_from(summary.failed.min(MOST_COUNTED)).expect("it is small")
        }
        (None, None) => u8::from(summary.failed > 0 || summary.cancelled > 0),
    };
    // What the journal and the sinks are told of the code is what it is, as far as anybody can know.
    reporter.catch_up();
    note_trouble(&receiver, &mut trouble, &mut panic);
    settled.record(exit_of(&settled, &trouble, &panic));
    let told = exit_of(&settled, &trouble, &panic);
    reporter.report.kind(EventKind::RunFinished {
        summary,
        exit: told,
    });
    reporter.finish();
    note_trouble(&receiver, &mut trouble, &mut panic);
    if exit_of(&settled, &trouble, &panic) != told {
        settled.record(exit_of(&settled, &trouble, &panic));
    }
    let (exit, unrecorded) = (exit_of(&settled, &trouble, &panic), settled.unrecorded);
    settled.close();
    Ok(Outcome {
        summary,
        exit,
        trouble,
        unrecorded,
        panic,
    })
}

/// The exit code of a run that a signal has ended.
fn by_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).expect("signals are small numbers")
}

/// The first trouble of a sink, and the first panic, that there has been word of.
fn note_trouble(
    messages: &Receiver<Message>,
    trouble: &mut Option<io::Error>,
    panic: &mut Option<String>,
) {
    for message in messages.try_iter() {
        match message {
            Message::SinkFailed(error) => {
                trouble.get_or_insert(error);
            }
            Message::Panicked(message) => {
                panic.get_or_insert(message);
            }
            _ => {}
        }
    }
}

/// The cgroups for a run some of whose jobs state memory. What killed runs have left of theirs is removed
/// in any case.
fn groups_for(plan: &Plan, run_id: &str) -> Option<Groups> {
    cgroups::sweep();
    // What a task takes cannot be told from what the run takes.
    let is_limited = |settings: &Settings| settings.memory.is_some() && !settings.is_task;
    if !plan.tables().any(is_limited) {
        return None;
    }
    match Groups::make(run_id) {
        Ok(groups) => Some(groups),
        Err(error) => {
            tracing::warn!(
                "cgroups cannot be used here ({error}): the memory that jobs state decides when they \
                 start, and does not limit them"
            );
            None
        }
    }
}
