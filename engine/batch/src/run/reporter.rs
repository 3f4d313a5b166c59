//! Tells the sinks of a run what happens, on a thread of its own: one that blocks holds up new attempts, and
//! never the end of running ones.

use std::io;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use super::Message;
use crate::Plan;
use crate::event::{Event, EventKind, Moment, Sink};

/// Events that wait for slow sinks before no more attempts are started.
const MOST_UNREPORTED: usize = 256;
/// Events that follow each other are told together, this late at most: being woken for each costs more
/// than telling it.
const PAUSE: Duration = Duration::from_millis(5);

/// Where events go that the sinks are to be told of.
#[derive(Debug, Clone)]
pub(super) struct Report {
    events: Sender<News>,
    unreported: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum News {
    Event(Event),
    /// Somebody waits until all before it has been told.
    CaughtUp(Sender<()>),
}

/// Hands events to the sinks, on a thread of its own.
pub(super) struct Reporter {
    pub(super) report: Report,
    thread: thread::JoinHandle<()>,
}

impl Reporter {
    pub(super) fn start(
        plan: Arc<Plan>,
        mut sinks: Vec<Box<dyn Sink>>,
        coordinator: Sender<Message>,
    ) -> io::Result<Reporter> {
        let (events, receiver) = channel();
        let unreported = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&unreported);
        let thread = thread::Builder::new()
            .name("reiver-report".into())
            .spawn(move || {
                while let Ok(news) = receiver.recv() {
                    for news in iter::once(news).chain(receiver.try_iter()) {
                        let event = match news {
                            News::Event(event) => event,
                            News::CaughtUp(waits) => {
                                let _ = waits.send(());
                                continue;
                            }
                        };
                        sinks.retain_mut(|sink| match told(&mut **sink, &plan, &event) {
                            Ok(()) => true,
                            Err(error) => {
                                let _ = coordinator.send(Message::SinkFailed(error));
                                false
                            }
                        });
                        if count.fetch_sub(1, Ordering::Relaxed) == MOST_UNREPORTED / 2 {
                            let _ = coordinator.send(Message::Reported);
                        }
                    }
                    thread::park_timeout(PAUSE);
                }
            })?;
        let report = Report { events, unreported };
        Ok(Reporter { report, thread })
    }

    /// Waits until every sink has been told what there is so far.
    pub(super) fn catch_up(&self) {
        let (waits, told) = channel();
        // Refused only if the reporter has panicked, and then nobody answers.
        let _ = self.report.events.send(News::CaughtUp(waits));
        self.thread.thread().unpark();
        let _ = told.recv();
    }

    /// Waits until every sink has been told everything.
    pub(super) fn finish(self) {
        drop(self.report);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}

impl Report {
    pub(super) fn report(&self, event: Event) {
        self.unreported.fetch_add(1, Ordering::Relaxed);
        // Refused only if the reporter has panicked, which has been reported.
        let _ = self.events.send(News::Event(event));
    }

    pub(super) fn kind(&self, kind: EventKind) {
        let time = Moment::now();
        self.report(Event { time, kind });
    }

    /// True while the sinks keep up.
    pub(super) fn is_abreast(&self) -> bool {
        self.unreported.load(Ordering::Relaxed) < MOST_UNREPORTED
    }
}

/// Tells a sink, which is somebody else's code: a panic is an error of it, and stops no other.
fn told(sink: &mut dyn Sink, plan: &Plan, event: &Event) -> io::Result<()> {
    let told = catch_unwind(AssertUnwindSafe(|| sink.event(plan, event)));
    told.unwrap_or_else(|_| Err(io::Error::other("whoever is told of the run has panicked")))
}
