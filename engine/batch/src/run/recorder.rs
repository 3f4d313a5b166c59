//! The journal's place in a run: events go through it before anybody else is told of them, and the
//! end of a job goes on only once it is durable.
//!
//! A thread of its own writes what has come meanwhile in one go and makes that durable in one sync
//! (group commit), at most one in so many milliseconds; an end that comes after a while without any
//! is made durable at once. Meanwhile the coordinating thread goes on: slots do not wait for disks.
//!
//! Where it cannot write, nobody is told of the ends that wait; it says so once, and tries again as
//! more ends come, and when the run is over. What then is still not recorded is told as that.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::Message;
use super::reporter::Report;
use crate::Plan;
use crate::event::{Event, EventKind, Status, Summary};
use crate::journal::{Born, JobEnd, Journal, Record, RunFinished};
use crate::plan::JobIndex;

/// Ends wait at most about this long for others to be made durable with them.
const INTERVAL: Duration = Duration::from_millis(10);
/// Events that wait for the disk before no more attempts are started. Each may hold output.
const MOST_UNRECORDED: usize = 1024;

/// Writes the journal, and hands on what it has written.
#[derive(Debug)]
pub(super) struct Recorder {
    inbox: Sender<Letter>,
    waiting: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

#[derive(Debug)]
enum Letter {
    Event(Event, Born),
    /// All jobs are over. Answered once all that can be is durable.
    Settle {
        summary: Summary,
        answer: Sender<Settled>,
    },
}

/// How a run ended, by the journal.
#[derive(Debug)]
pub(super) struct Settled {
    /// Jobs whose ends were not recorded count as cancelled.
    pub(super) summary: Summary,
    /// How many those are.
    pub(super) unrecorded: usize,
    /// True where it could not be written at some time.
    pub(super) has_failed: bool,
    /// The end of the run is still to be recorded; none where nobody is left who could.
    pub(super) journal: Option<Journal>,
}

impl Recorder {
    pub(super) fn start(
        journal: Journal,
        plan: Arc<Plan>,
        report: Report,
        coordinator: Sender<Message>,
    ) -> io::Result<Recorder> {
        let (inbox, letters) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let desk = Desk {
            journal,
            is_declared: vec![false; plan.len()],
            plan,
            report,
            coordinator,
            waiting: Arc::clone(&waiting),
            held: Vec::new(),
            records: Vec::new(),
            needs_sync: false,
            next_sync: Instant::now(),
            has_failed: false,
        };
        let thread = thread::Builder::new()
            .name("reiver-journal".into())
            .spawn(move || {
                let _guard = Guard(desk.coordinator.clone());
                desk.work(&letters);
            })?;
        Ok(Recorder {
            inbox,
            waiting,
            thread,
        })
    }

    /// Records an event, and then reports it; `born` is of a process that it tells of.
    pub(super) fn record(&self, event: Event, born: Born) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Refused only if the thread has panicked, which has been reported.
        let _ = self.inbox.send(Letter::Event(event, born));
    }

    /// True while the disk keeps up.
    pub(super) fn is_abreast(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < MOST_UNRECORDED
    }

    /// Waits until all that can be is durable and reported, but for the end of the run.
    pub(super) fn settle(self, summary: Summary) -> Settled {
        let (answer, settled) = channel();
        let _ = self.inbox.send(Letter::Settle { summary, answer });
        self.thread.thread().unpark();
        let settled = settled.recv();
        let _ = self.thread.join();
        settled.unwrap_or_else(|_| Settled {
            summary,
            unrecorded: 0,
            has_failed: true,
            journal: None,
        })
    }
}

impl Settled {
    /// Of a run that keeps no journal.
    pub(super) fn without(summary: Summary) -> Settled {
        Settled {
            summary,
            unrecorded: 0,
            has_failed: false,
            journal: None,
        }
    }

    /// Records how the run ended; once more where that was not the end after all: the last one holds.
    /// Where the journal has failed before, it knows of no end.
    pub(super) fn record(&mut self, exit: u8) {
        let Some(journal) = self.journal.as_mut().filter(|_| !self.has_failed) else {
            return;
        };
        let end = Record::RunFinished(RunFinished {
            time: SystemTime::now(),
            summary: self.summary,
            exit,
        });
        if let Err(error) = journal.append(&[end]).and_then(|()| journal.sync()) {
            let folder = journal.folder().display();
            tracing::error!(
                "cannot write the journal {folder}: {error}; it does not know that the run ended with {exit}"
            );
            self.has_failed = true;
        } else if !journal.is_there() {
            let folder = journal.folder().display();
            tracing::error!(
                "somebody has removed the journal {folder} while the run went on: --resume knows nothing of it"
            );
            self.has_failed = true;
        }
    }

    /// Lets go of the journal: nothing of the run is left.
    pub(super) fn close(self) {
        if let Some(journal) = self.journal {
            journal.close();
        }
    }
}

/// Ends the run if the thread panics, which is a bug: nobody would record anything any more.
struct Guard(Sender<Message>);

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            // Refused only once the run is over.
            let panic = "the thread that writes the journal has panicked";
            let _ = self.0.send(Message::Panicked(panic.to_owned()));
        }
    }
}

/// True to an end that the journal takes note of.
fn is_recorded(event: &Event) -> bool {
    match &event.kind {
        EventKind::JobFinished { status, end, .. } => {
            end.is_some() || matches!(status, Status::Failed(_))
        }
        _ => false,
    }
}

struct Desk {
    journal: Journal,
    plan: Arc<Plan>,
    /// Which jobs the journal knows by their numbers.
    is_declared: Vec<bool>,
    report: Report,
    coordinator: Sender<Message>,
    waiting: Arc<AtomicUsize>,
    /// What nobody was told of yet, in order.
    held: Vec<Event>,
    /// What is still to be written of it.
    records: Vec<Record>,
    /// Some of what is held may only be told once it is durable.
    needs_sync: bool,
    next_sync: Instant,
    has_failed: bool,
}

impl Desk {
    fn work(mut self, letters: &Receiver<Letter>) {
        while let Ok(first) = letters.recv() {
            let mut end = self.open(first);
            while end.is_none()
                && let Ok(letter) = letters.try_recv()
            {
                end = self.open(letter);
            }
            if end.is_none() && self.needs_sync {
                // More may come to go with it; whoever settles cuts the wait short.
                thread::park_timeout(self.next_sync.saturating_duration_since(Instant::now()));
                while end.is_none()
                    && let Ok(letter) = letters.try_recv()
                {
                    end = self.open(letter);
                }
            }
            self.commit();
            if let Some((summary, answer)) = end {
                let settled = self.settle(summary);
                // Whoever asked waits.
                let _ = answer.send(settled);
                return;
            }
        }
    }

    fn open(&mut self, letter: Letter) -> Option<(Summary, Sender<Settled>)> {
        match letter {
            Letter::Event(event, born) => {
                self.note(&event, born);
                self.held.push(event);
                None
            }
            Letter::Settle { summary, answer } => Some((summary, answer)),
        }
    }

    /// What the journal says of an event. What never had an attempt, and did not fail for that, is as
    /// if nobody had tried, and takes up no room.
    fn note(&mut self, event: &Event, born: Born) {
        match &event.kind {
            EventKind::JobStarted {
                job, attempt, pid, ..
            } => {
                self.declare(*job);
                self.records.push(Record::Started {
                    number: job.0,
                    attempt: *attempt,
                    pid: *pid,
                    born,
                });
            }
            EventKind::JobRetried {
                job, attempt, end, ..
            } => {
                self.declare(*job);
                if let Status::Failed(reason) = end.status {
                    self.records.push(Record::Retried {
                        number: job.0,
                        attempt: *attempt,
                        reason,
                    });
                }
            }
            EventKind::JobFinished {
                job,
                attempt,
                status,
                end: Some(end),
            } => {
                self.declare(*job);
                let (code, signal) = JobEnd::of_leader(&end.leader);
                self.records.push(Record::Finished {
                    number: job.0,
                    end: JobEnd {
                        status: *status,
                        attempt: *attempt,
                        code,
                        signal,
                        duration: end.duration,
                        time: event.time.wall,
                    },
                });
                self.needs_sync = true;
            }
            EventKind::JobFinished {
                job,
                attempt,
                status: status @ Status::Failed(_),
                end: None,
            } => {
                self.declare(*job);
                self.records.push(Record::Finished {
                    number: job.0,
                    end: JobEnd {
                        status: *status,
                        attempt: *attempt,
                        code: None,
                        signal: None,
                        duration: Duration::ZERO,
                        time: event.time.wall,
                    },
                });
                self.needs_sync = true;
            }
            EventKind::RunStarted { .. }
            | EventKind::JobFinished { end: None, .. }
            | EventKind::JobUnrecorded { .. }
            | EventKind::JobSkipped { .. }
            | EventKind::RunFinished { .. } => {}
        }
    }

    fn declare(&mut self, job: JobIndex) {
        let is_declared = &mut self.is_declared[job.0 as usize];
        if !std::mem::replace(is_declared, true) {
            let identity = self.plan.identity(job);
            self.records.push(Record::Job {
                number: job.0,
                key: identity.key,
                definition: identity.definition,
                name: self.plan.name(job).into_owned(),
                is_named: self.plan.is_named(job),
            });
        }
    }

    /// Writes what is to be written, makes it durable where that is needed, and tells what may be
    /// told.
    fn commit(&mut self) {
        let mut done = Ok(());
        if !self.records.is_empty() {
            done = self.journal.append(&self.records);
        }
        if done.is_ok() {
            self.records.clear();
            if self.needs_sync {
                done = self.journal.sync();
                self.next_sync = Instant::now() + INTERVAL;
            }
        }
        match done {
            Ok(()) => {
                self.needs_sync = false;
                self.tell();
            }
            Err(error) if !self.has_failed => {
                let folder = self.journal.folder().display();
                tracing::error!(
                    "cannot write the journal {folder}: {error}; nothing more is started, and what \
                     cannot be recorded runs again with --resume"
                );
                self.has_failed = true;
                // Refused only once the run is over.
                let _ = self.coordinator.send(Message::JournalFailed);
            }
            Err(_) => {}
        }
    }

    fn tell(&mut self) {
        for event in self.held.drain(..) {
            self.report.report(event);
            if self.waiting.fetch_sub(1, Ordering::Relaxed) == MOST_UNRECORDED / 2 {
                let _ = self.coordinator.send(Message::Reported);
            }
        }
    }

    fn settle(mut self, mut summary: Summary) -> Settled {
        let mut unrecorded = 0;
        for event in self.held.iter_mut().filter(|event| is_recorded(event)) {
            let EventKind::JobFinished {
                job,
                attempt,
                status,
                end,
            } = &mut event.kind
            else {
                continue;
            };
            let (job, attempt, status, end) = (*job, *attempt, *status, end.take());
            event.kind = EventKind::JobUnrecorded {
                job,
                attempt,
                status,
                end,
            };
            unrecorded += 1;
            match status {
                Status::Success => summary.succeeded -= 1,
                Status::Failed(_) => summary.failed -= 1,
                Status::Cancelled => summary.cancelled -= 1,
            }
            summary.cancelled += 1;
        }
        self.tell();
        Settled {
            summary,
            unrecorded,
            has_failed: self.has_failed,
            journal: Some(self.journal),
        }
    }
}
