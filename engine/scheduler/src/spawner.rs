//! The threads of an engine, and the one that creates those that come later.
//!
//! A thread inherits scheduling policy, nice value, affinity and memory policy from its creator, so
//! whoever builds the engine creates the threads of its workers, and the spawner, which never changes;
//! that one creates all others. They are never created by a worker or by whoever submits.
//!
//! The thread of the first worker is created before anything is known of the machine: to start the
//! first thread of a process takes as long as to read the whole machine.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};

use crate::shared::Shared;
use crate::worker::Worker;

/// Asks the spawner for threads.
#[derive(Debug)]
pub(crate) struct Spawner {
    requests: Mutex<Requests>,
    threads: Threads,
}

#[derive(Debug)]
struct Requests {
    sender: Sender<Request>,
    /// The spawner runs jobs itself, and gives no spares meanwhile: whoever waits for one may be who a
    /// job waits for.
    stands_in: bool,
}

impl Requests {
    fn new(sender: Sender<Request>) -> Mutex<Requests> {
        Mutex::new(Requests {
            sender,
            stands_in: false,
        })
    }
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
    requests: Receiver<Request>,
    /// Why the first worker has no thread.
    refused: Option<io::Error>,
}

#[derive(Debug)]
pub(crate) enum Request {
    /// The thread of a spare; answers with the spare itself where there is none to be had.
    Spare(Arc<Shared>, Worker, Sender<Option<Worker>>),
    /// An I/O thread at this node.
    Io(Weak<Shared>, usize),
    /// The thread that watches deadlines.
    Timer(Weak<Shared>),
    /// The runtime for futures of this node; answers whether there is one.
    #[cfg(feature = "tokio")]
    Runtime(Weak<Shared>, usize, Sender<bool>),
    /// The thread that looks for jobs that run for too long.
    Watchdog(Weak<Shared>),
    Stop,
}

impl Spawner {
    /// Creates the thread of the first worker.
    pub(crate) fn begin() -> (Spawner, Begun) {
        let (sender, requests) = channel();
        let (first, taken) = channel::<Life>();
        let spawner = Spawner {
            requests: Requests::new(sender),
            threads: Threads::default(),
        };
        let created = spawner.threads.create(worker_name(0), move || {
            if let Ok((shared, worker)) = taken.recv() {
                worker.live(shared);
            }
        });
        let begun = Begun {
            first,
            requests,
            refused: created.err(),
        };
        (spawner, begun)
    }

    /// A spawner that will never be asked.
    pub(crate) fn none() -> Spawner {
        let (sender, _) = channel();
        Spawner {
            requests: Requests::new(sender),
            threads: Threads::default(),
        }
    }

    /// Ends what was begun, where no engine comes of it.
    pub(crate) fn abandon(self, begun: Begun) {
        drop(begun);
        for thread in self.threads.take() {
            let _ = thread.join();
        }
    }

    /// Creates the threads of the other workers, and the spawner's own; where not all have one, says
    /// how many workers do, and why.
    pub(crate) fn start(
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
        // It waits for nothing else.
        let _ = begun.first.send((Arc::clone(shared), first));
        let requests = begun.requests;
        self.threads
            .create("reiver-spawner".into(), move || serve(&requests))
            .map_err(|error| (0, error))?;
        for (started, worker) in (1..).zip(workers) {
            let engine = Arc::clone(shared);
            self.threads
                .create(worker_name(worker.index()), move || worker.live(engine))
                .map_err(|error| (started, error))?;
        }
        Ok(())
    }

    /// Asks for a thread, and does not wait for it.
    pub(crate) fn ask(&self, request: Request) {
        // Refused only once the engine has ended, when nobody needs a thread any more.
        let _ = self.requests().sender.send(request);
    }

    /// Asks for what whoever asks waits for; false while the spawner runs jobs itself.
    #[cfg(feature = "tokio")]
    pub(crate) fn ask_unless_busy(&self, request: Request) -> bool {
        let requests = self.requests();
        // Refused only once the engine has ended, as whoever waits for the answer learns.
        !requests.stands_in && {
            let _ = requests.sender.send(request);
            true
        }
    }

    /// Starts the thread of a spare; gives the spare back where there is no thread to be had, nothing
    /// where the engine ends.
    pub(crate) fn start_spare(
        &self,
        shared: &Arc<Shared>,
        spare: Worker,
    ) -> Result<(), Option<Box<Worker>>> {
        let (answer, answers) = channel();
        {
            let requests = self.requests();
            if requests.stands_in {
                return Err(Some(Box::new(spare)));
            }
            let request = Request::Spare(Arc::clone(shared), spare, answer);
            let _ = requests.sender.send(request);
        }
        match answers.recv() {
            Ok(None) => Ok(()),
            Ok(Some(spare)) => Err(Some(Box::new(spare))),
            // No answer at all.
            Err(_) => Err(None),
        }
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All threads that were created and may still run.
    pub(crate) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        self.threads.take()
    }
}

impl Threads {
    fn create(&self, name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = Builder::new().name(name).spawn(body)?;
        self.keep(thread);
        Ok(())
    }

    fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(thread);
        let ended: Vec<_> = threads
            .extract_if(.., |thread| thread.is_finished())
            .collect();
        drop(threads);
        // Joined and not dropped: none outlives its engine, not even on its last steps, on which it may
        // end another.
        for thread in ended {
            let _ = thread.join();
        }
    }

    fn take(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn worker_name(number: usize) -> String {
    format!("reiver-cpu-{number}")
}

fn serve(requests: &Receiver<Request>) {
    let mut put_off = VecDeque::new();
    loop {
        let Some(request) = put_off.pop_front().or_else(|| requests.recv().ok()) else {
            return;
        };
        match request {
            Request::Stop => return,
            Request::Spare(shared, worker, answer) => {
                let _ = answer.send(start_spare(&shared, worker));
            }
            Request::Io(engine, node) => {
                let Some(shared) = engine.upgrade() else {
                    continue;
                };
                if !start_io(&shared, node) {
                    stand_in(&shared, requests, &mut put_off);
                }
            }
            #[cfg(feature = "tokio")]
            Request::Runtime(engine, node, answer) => crate::asyncs::start(&engine, node, &answer),
            Request::Watchdog(engine) => {
                let Some(shared) = engine.upgrade() else {
                    continue;
                };
                let watched = Arc::clone(&shared);
                let started = thread("reiver-watchdog".into(), &shared, move || {
                    if let Some(watchdog) = &watched.watchdog {
                        watchdog.live(&watched);
                    }
                });
                if let Err(error) = started {
                    tracing::warn!(
                        "the system refuses a thread ({error}); the watchdog reports nothing"
                    );
                }
            }
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

/// False where the system refuses a thread.
fn start_io(shared: &Arc<Shared>, node: usize) -> bool {
    let io = Arc::clone(shared);
    let thread = thread("reiver-io".into(), shared, move || {
        crate::io::live(io, node)
    });
    if let Err(error) = &thread
        && shared.io.note_refused()
    {
        tracing::warn!(
            "the system refuses an I/O thread ({error}); its jobs wait for others, or run one after \
             the other where there are none"
        );
    }
    thread.is_ok()
}

/// Runs the I/O jobs for which there is no thread. Who asks for a spare meanwhile does not get one, and
/// who has asked before is told so; all else is put off.
fn stand_in(shared: &Arc<Shared>, requests: &Receiver<Request>, put_off: &mut VecDeque<Request>) {
    let spawner = &shared.spawner;
    spawner.requests().stands_in = true;
    for request in requests.try_iter() {
        match request {
            Request::Spare(_, worker, answer) => drop(answer.send(Some(worker))),
            #[cfg(feature = "tokio")]
            Request::Runtime(.., answer) => drop(answer.send(false)),
            other => put_off.push_back(other),
        }
    }
    crate::io::stand_in(shared);
    spawner.requests().stands_in = false;
}

fn thread(name: String, shared: &Shared, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    shared.spawner.threads.create(name, body)
}
