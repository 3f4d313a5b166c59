//! The one thread that creates every thread of an engine.
//!
//! A thread inherits scheduling policy, nice value, affinity and memory policy from its creator, so
//! threads are never created by a worker or by whoever submits: the spawner is started when the
//! engine is built, and never changes.
//!
//! It is started before anything is known of the machine, and creates threads of workers ahead, so
//! that they come to life while somebody else reads files and makes the workers: to start the first
//! thread of a process takes as long as to read the whole machine.

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle, available_parallelism};

use crate::shared::Shared;
use crate::worker::Worker;

/// Asks the spawner for threads.
#[derive(Debug)]
pub(crate) struct Spawner {
    requests: Mutex<Sender<Request>>,
    threads: Arc<Threads>,
}

/// All threads that were created and may still run.
#[derive(Debug, Default)]
struct Threads(Mutex<Vec<JoinHandle<()>>>);

/// What the thread of a worker needs to live.
type Life = (Arc<Shared>, Worker);

/// What was begun before there is an engine. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Begun {
    first: Sender<Life>,
    granted: Receiver<Option<usize>>,
    /// Why there is no spawner.
    refused: Option<io::Error>,
}

/// The workers' threads that were created before there were workers.
struct Ahead {
    /// What became of that of the first.
    first: io::Result<()>,
    /// What those after the first wait for, in order. Dropped, they end.
    others: VecDeque<Sender<Life>>,
    /// Why there are no more.
    refused: Option<io::Error>,
}

impl Begun {
    /// How many threads at once the system grants this process, where it says so.
    pub(crate) fn granted(&self) -> Option<usize> {
        // No answer: there is no spawner that could have looked.
        self.granted.recv().unwrap_or_else(|_| granted())
    }
}

fn granted() -> Option<usize> {
    available_parallelism().ok().map(NonZero::get)
}

pub(crate) enum Request {
    /// CPU workers but for the first; answers with how many were started with it, and why not all.
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
    /// Starts the spawner's own thread, which creates that of the first worker; and, if the engine
    /// is to have as many workers as are granted, looks how many those are, and creates theirs.
    pub(crate) fn begin(is_counted: bool) -> (Spawner, Begun) {
        let (sender, requests) = channel();
        let (first, taken) = channel();
        let (grants, granted) = channel();
        let spawner = Spawner {
            requests: Mutex::new(sender),
            threads: Arc::default(),
        };
        let threads = Arc::clone(&spawner.threads);
        let started = Builder::new().name("reiver-spawner".into()).spawn(move || {
            let mut ahead = Ahead {
                first: threads.create_ahead(0, taken),
                others: VecDeque::new(),
                refused: None,
            };
            if is_counted {
                let granted = self::granted();
                // Nobody listens if the machine cannot be read.
                let _ = grants.send(granted);
                ahead.create(granted.unwrap_or(1), &threads);
            }
            drop(grants);
            serve(ahead, &requests);
        });
        let refused = started.map(|thread| spawner.threads.keep(thread)).err();
        let begun = Begun {
            first,
            granted,
            refused,
        };
        (spawner, begun)
    }

    /// A spawner that will never be asked.
    pub(crate) fn none() -> Spawner {
        let (sender, _) = channel();
        Spawner {
            requests: Mutex::new(sender),
            threads: Arc::default(),
        }
    }

    /// Ends what was begun, where no engine comes of it.
    pub(crate) fn abandon(self, begun: Begun) {
        let Spawner { requests, threads } = self;
        drop((requests, begun));
        // The spawner first, which may yet create the other.
        loop {
            let left = threads.take();
            if left.is_empty() {
                return;
            }
            for thread in left {
                let _ = thread.join();
            }
        }
    }

    /// Gives the workers to threads; where not all have one, says how many do, and why.
    pub(crate) fn workers(
        &self,
        shared: &Arc<Shared>,
        begun: Begun,
        workers: Vec<Worker>,
    ) -> Result<(), (usize, io::Error)> {
        if let Some(refused) = begun.refused {
            return Err((0, refused));
        }
        let mut workers = workers.into_iter();
        let first = workers.next().expect("an engine has workers");
        // Where there is no thread for it the answer says why.
        let _ = begun.first.send((Arc::clone(shared), first));
        let (answer, answers) = channel();
        self.ask(Request::Workers(
            Arc::clone(shared),
            workers.collect(),
            answer,
        ));
        answers.recv().expect("the spawner answers")
    }

    /// Asks for a thread, and does not wait for it.
    pub(crate) fn ask(&self, request: Request) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        // Refused only once the engine has ended, when nobody needs a thread any more.
        let _ = requests.send(request);
    }

    /// All threads that were created and may still run.
    pub(crate) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        self.threads.take()
    }
}

impl Ahead {
    /// Creates threads until there are so many with the first, or the system refuses one.
    fn create(&mut self, count: usize, threads: &Threads) {
        for number in 1..count {
            let (life, taken) = channel();
            match threads.create_ahead(number, taken) {
                Ok(()) => self.others.push_back(life),
                Err(error) => {
                    self.refused = Some(error);
                    return;
                }
            }
        }
    }
}

impl Threads {
    /// The thread of a worker that is still to be made.
    fn create_ahead(&self, number: usize, taken: Receiver<Life>) -> io::Result<()> {
        self.create(worker_name(number), move || {
            if let Ok((shared, worker)) = taken.recv() {
                worker.live(shared);
            }
        })
    }

    fn create(&self, name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = Builder::new().name(name).spawn(body)?;
        self.keep(thread);
        Ok(())
    }

    fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Joined and not dropped: none outlives its engine, not even on its last steps.
        for ended in threads.extract_if(.., |thread| thread.is_finished()) {
            let _ = ended.join();
        }
        threads.push(thread);
    }

    fn take(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn worker_name(number: usize) -> String {
    format!("reiver-cpu-{number}")
}

fn serve(mut ahead: Ahead, requests: &Receiver<Request>) {
    while let Ok(request) = requests.recv() {
        match request {
            Request::Stop => return,
            Request::Workers(shared, others, answer) => {
                let _ = answer.send(start_workers(&shared, &mut ahead, others));
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

fn start_workers(
    shared: &Arc<Shared>,
    ahead: &mut Ahead,
    others: Vec<Worker>,
) -> Result<(), (usize, io::Error)> {
    std::mem::replace(&mut ahead.first, Ok(())).map_err(|error| (0, error))?;
    for (started, worker) in (1..).zip(others) {
        let engine = Arc::clone(shared);
        if let Some(life) = ahead.others.pop_front() {
            // It waits for nothing else.
            let _ = life.send((engine, worker));
            continue;
        }
        let name = worker_name(worker.index());
        let created = match ahead.refused.take() {
            Some(error) => Err(error),
            None => thread(name, shared, move || worker.live(engine)),
        };
        created.map_err(|error| (started, error))?;
    }
    // Those for which there is no worker end.
    ahead.others.clear();
    Ok(())
}

/// Gives the spare back where the system refuses a thread for it.
fn start_spare(shared: &Arc<Shared>, spare: Worker) -> Option<Worker> {
    let engine = Arc::clone(shared);
    let name = worker_name(spare.index());
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
    shared.spawner.threads.create(name, body)
}
