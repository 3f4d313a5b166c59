//! The one thread that creates every thread of an engine.
//!
//! A thread inherits scheduling policy, nice value, affinity and memory policy from its creator, so
//! threads are never created by a worker or by whoever submits: the spawner is started when the
//! engine is built, and never changes.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};

use crate::shared::Shared;
use crate::worker::Worker;

/// Asks the spawner for threads.
#[derive(Debug)]
pub(crate) struct Spawner {
    requests: Mutex<Sender<Request>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

pub(crate) enum Request {
    /// CPU workers; answers with how many were started, and why not all.
    Workers(
        Arc<Shared>,
        Vec<Worker>,
        Sender<Result<(), (usize, io::Error)>>,
    ),
    /// The thread of a spare; answers with the spare itself where there is none to be had.
    Spare(Arc<Shared>, Worker, Sender<Option<Worker>>),
    /// An I/O thread at this node.
    Io(Weak<Shared>, usize),
    /// The thread that watches deadlines.
    Timer(Weak<Shared>),
    Stop,
}

impl Spawner {
    pub(crate) fn new() -> (Spawner, Receiver<Request>) {
        let (sender, requests) = channel();
        (
            Spawner {
                requests: Mutex::new(sender),
                threads: Mutex::default(),
            },
            requests,
        )
    }

    /// Starts the spawner's own thread.
    pub(crate) fn start(shared: &Shared, requests: Receiver<Request>) -> io::Result<()> {
        let thread = Builder::new()
            .name("reiver-spawner".into())
            .spawn(move || serve(&requests))?;
        shared.spawner.keep(thread);
        Ok(())
    }

    pub(crate) fn workers(
        &self,
        shared: &Arc<Shared>,
        workers: Vec<Worker>,
    ) -> Result<(), (usize, io::Error)> {
        let (answer, answers) = channel();
        self.ask(Request::Workers(Arc::clone(shared), workers, answer));
        answers.recv().expect("the spawner answers")
    }

    /// Asks for a thread, and does not wait for it.
    pub(crate) fn ask(&self, request: Request) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        // Refused only once the engine has ended, when nobody needs a thread any more.
        let _ = requests.send(request);
    }

    fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        // Joined and not dropped: none outlives its engine, not even on its last steps.
        for ended in threads.extract_if(.., |thread| thread.is_finished()) {
            let _ = ended.join();
        }
        threads.push(thread);
    }

    /// All threads that were created and may still run.
    pub(crate) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(requests: &Receiver<Request>) {
    while let Ok(request) = requests.recv() {
        match request {
            Request::Stop => return,
            Request::Workers(shared, workers, answer) => {
                let _ = answer.send(start_workers(&shared, workers));
            }
            Request::Spare(shared, worker, answer) => {
                let _ = answer.send(start_spare(&shared, worker));
            }
            Request::Io(engine, node) => start_io(&engine, node),
            Request::Timer(engine) => {
                let Some(shared) = engine.upgrade() else {
                    continue;
                };
                let timer = Arc::clone(&shared);
                match thread("reiver-timer".into(), &shared, move || {
                    timer.timer.live(&timer)
                }) {
                    Ok(()) => {}
                    Err(error) => tracing::warn!(
                        "the system refuses a thread ({error}); queued jobs whose deadline passes \
                         end when a worker comes to them"
                    ),
                }
            }
        }
    }
}

fn start_workers(shared: &Arc<Shared>, workers: Vec<Worker>) -> Result<(), (usize, io::Error)> {
    for (started, worker) in workers.into_iter().enumerate() {
        let engine = Arc::clone(shared);
        let name = format!("reiver-cpu-{}", worker.index());
        thread(name, shared, move || worker.live(engine)).map_err(|error| (started, error))?;
    }
    Ok(())
}

/// Gives the spare back where the system refuses a thread for it.
fn start_spare(shared: &Arc<Shared>, spare: Worker) -> Option<Worker> {
    let engine = Arc::clone(shared);
    let name = format!("reiver-cpu-{}", spare.index());
    // A thread that cannot be started drops what it was given.
    let held = Arc::new(Mutex::new(Some(spare)));
    let spare = Arc::clone(&held);
    let take =
        |held: &Mutex<Option<Worker>>| held.lock().unwrap_or_else(PoisonError::into_inner).take();
    let started = thread(name, shared, move || {
        if let Some(spare) = take(&spare) {
            spare.live_as_spare(engine);
        }
    });
    started.err().and_then(|_| take(&held))
}

fn start_io(engine: &Weak<Shared>, node: usize) {
    let Some(shared) = engine.upgrade() else {
        return;
    };
    let io = Arc::clone(&shared);
    let thread = thread("reiver-io".into(), &shared, move || {
        crate::io::live(io, node)
    });
    if let Err(error) = thread {
        if shared.io.note_refused() {
            tracing::warn!(
                "the system refuses an I/O thread ({error}); its jobs wait for others, or run one \
                 after the other where there are none"
            );
        }
        crate::io::stand_in(&shared);
    }
}

fn thread(name: String, shared: &Shared, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = Builder::new().name(name).spawn(body)?;
    shared.spawner.keep(thread);
    Ok(())
}
