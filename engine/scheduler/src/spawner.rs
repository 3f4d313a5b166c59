//! The threads of an engine, and the one that creates those that come later.
//!
//! A thread inherits scheduling policy, nice value, affinity and memory policy from its creator, so
//! whoever builds the engine creates the threads of its workers, and the spawner, which never changes;
//! that one creates all others. They are never created by a worker or by whoever submits.
//!
//! It also brings to others what threads submit that the kernel may stop at any step: those only put it
//! on the list of requests, which nobody holds.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ptr;
#[cfg(feature = "tokio")]
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, Builder, JoinHandle, Thread};

use crate::crew::Rank;
use crate::hybrid;
use crate::io::Pool;
use crate::parker::{Parker, Unparker};
use crate::protocol::hand_over::HandOver;
use crate::protocol::sync::{AtomicBool, AtomicPtr, AtomicU8, Ordering, fence};
use crate::running::Own;
use crate::shared::Shared;
use crate::worker::Worker;

/// Asks the spawner for threads.
#[derive(Debug)]
pub(crate) struct Spawner {
    requests: Arc<Requests>,
    threads: Arc<Threads>,
}

#[derive(Debug)]
struct Requests {
    list: HandOver<Request>,
    unparker: Unparker,
    /// The spawner runs jobs itself, and gives no spares meanwhile: whoever waits for one may be who a
    /// job waits for.
    stands_in: AtomicBool,
    /// It has ended: whoever asks does without, or does it itself.
    is_over: AtomicBool,
}

/// All threads that were created and may still run.
#[derive(Debug, Default)]
struct Threads {
    ordinary: Mutex<Vec<JoinHandle<()>>>,
    /// Those that the kernel may stop at their last steps: nobody waits for them but the engine's end.
    stoppable: Mutex<Vec<JoinHandle<()>>>,
}

pub(crate) enum Request {
    /// The thread of a spare; answers with the spare itself where there is none to be had.
    Spare(Weak<Shared>, SpareRequest),
    /// Threads for those of a crew who have none.
    Crew(Weak<Shared>, Rank),
    /// A worker has no thread any more, and shows no jobs.
    Left(Weak<Shared>, Worker, Arc<Own>),
    /// A thread of a pool at this node.
    Io(Weak<Shared>, Pool, usize),
    /// The regulator of a pool.
    Regulator(Weak<Shared>, Pool),
    /// The thread that watches deadlines.
    Timer(Weak<Shared>),
    /// What a thread has for others that must not touch what they wait for.
    Bring(Box<dyn FnOnce() + Send>),
    /// The runtime for futures of this node; answers whether there is one.
    #[cfg(feature = "tokio")]
    Runtime(Weak<Shared>, usize, Sender<bool>),
    /// The thread that looks for jobs that run for too long.
    Watchdog(Weak<Shared>),
    Stop,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Request::Spare(..) => "Spare",
            Request::Crew(..) => "Crew",
            Request::Left(..) => "Left",
            Request::Io(..) => "Io",
            Request::Regulator(..) => "Regulator",
            Request::Timer(_) => "Timer",
            Request::Bring(_) => "Bring",
            #[cfg(feature = "tokio")]
            Request::Runtime(..) => "Runtime",
            Request::Watchdog(_) => "Watchdog",
            Request::Stop => "Stop",
        };
        f.write_str(name)
    }
}

/// What a worker asks for that waits for the answer, without a lock: the spawner may not wait for it.
#[derive(Debug)]
struct SpareAsked {
    /// The spare; null once somebody has taken it.
    spare: AtomicPtr<Worker>,
    answer: AtomicU8,
    asker: Thread,
}

const STARTED: u8 = 1;
const REFUSED: u8 = 2;
/// The engine has ended.
const GONE: u8 = 3;

impl SpareAsked {
    fn take(&self) -> Option<Box<Worker>> {
        // ORDERING: acquire and release: who takes it has it alone, and sees it.
        let spare = self.spare.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: it was leaked by whoever put it there, and the swap gave it to this thread alone.
        (!spare.is_null()).then(|| unsafe { Box::from_raw(spare) })
    }

    fn say(&self, answer: u8) {
        // ORDERING: release, with the acquire in `start_spare`; the first answer counts.
        let first = self
            .answer
            .compare_exchange(0, answer, Ordering::Release, Ordering::Relaxed);
        if first.is_ok() {
            self.asker.unpark();
        }
    }
}

impl Drop for SpareAsked {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// The spawner's side; dropped without an answer, it says that the engine has ended.
#[derive(Debug)]
pub(crate) struct SpareRequest(Arc<SpareAsked>);

impl Drop for SpareRequest {
    fn drop(&mut self) {
        self.0.say(GONE);
    }
}

impl Spawner {
    /// A spawner that has no thread yet, and what it is to park with.
    pub(crate) fn new() -> (Spawner, Parker) {
        let parker = Parker::new();
        let requests = Requests {
            list: HandOver::default(),
            unparker: parker.unparker().clone(),
            stands_in: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        };
        let spawner = Spawner {
            requests: Arc::new(requests),
            threads: Arc::default(),
        };
        (spawner, parker)
    }

    /// Creates the threads of the workers, and the spawner's own; where not all have one, says how
    /// many workers do, and why.
    pub(crate) fn start(
        &self,
        shared: &Arc<Shared>,
        parker: Parker,
        workers: Vec<Worker>,
    ) -> Result<(), (usize, io::Error)> {
        let requests = Arc::clone(&self.requests);
        let mut serves = Some(move || serve(&requests, &parker));
        for (started, worker) in workers.into_iter().enumerate() {
            let engine = Arc::clone(shared);
            let name = worker_name(Rank::Ordinary, worker.index());
            self.threads
                .create(name, move || worker.live(engine))
                .map_err(|error| (started, error))?;
            // The first worker is awake the sooner.
            if let Some(serves) = serves.take() {
                self.threads
                    .create("reiver-spawner".into(), serves)
                    .map_err(|error| (0, error))?;
            }
        }
        Ok(())
    }

    /// Asks for a thread, and does not wait for it.
    pub(crate) fn ask(&self, request: Request) {
        self.requests.list.put(request);
        self.requests.unparker.unpark();
    }

    /// Asks for threads for those of a crew who have none.
    pub(crate) fn call(&self, shared: &Arc<Shared>, rank: Rank) {
        self.ask(Request::Crew(Arc::downgrade(shared), rank));
    }

    /// Has `what` done by a thread that the kernel does not stop for long.
    pub(crate) fn bring(&self, what: impl FnOnce() + Send + 'static) {
        self.ask(Request::Bring(Box::new(what)));
        // ORDERING: with the fence in `end`: this sees that the spawner has ended, or that finds the
        // request.
        fence(Ordering::SeqCst);
        if self.requests.is_over.load(Ordering::Relaxed) {
            bring_all(self.requests.list.take_all());
        }
    }

    /// What `what` gives, called by such a thread; waits for it without a lock.
    pub(crate) fn on_behalf<T: Send + Sync + 'static>(
        &self,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let answer = Arc::new(OnceLock::new());
        let (given, asker) = (Arc::clone(&answer), thread::current());
        self.bring(move || {
            let _ = given.set(what());
            // Before who asked may go.
            drop(given);
            asker.unpark();
        });
        let mut answer = answer;
        loop {
            match Arc::try_unwrap(answer).map(OnceLock::into_inner) {
                Ok(Some(value)) => return value,
                Ok(None) => unreachable!("the engine's spawner outlives its jobs"),
                Err(shared) => answer = shared,
            }
            thread::park();
        }
    }

    /// Asks for what whoever asks waits for; false while the spawner runs jobs itself.
    #[cfg(feature = "tokio")]
    pub(crate) fn ask_unless_busy(&self, request: Request) -> bool {
        self.ask(request);
        // ORDERING: as in `start_spare`. Where the spawner gives none it answers nobody who waits.
        fence(Ordering::SeqCst);
        // ORDERING: relaxed: the fence orders them.
        !self.requests.stands_in.load(Ordering::Relaxed)
            && !self.requests.is_over.load(Ordering::Relaxed)
    }

    /// Starts the thread of a spare; gives the spare back where there is no thread to be had, nothing
    /// where the engine ends.
    pub(crate) fn start_spare(
        &self,
        shared: &Arc<Shared>,
        spare: Worker,
    ) -> Result<(), Option<Box<Worker>>> {
        let asked = Arc::new(SpareAsked {
            spare: AtomicPtr::new(Box::into_raw(Box::new(spare))),
            answer: AtomicU8::new(0),
            asker: thread::current(),
        });
        let request = SpareRequest(Arc::clone(&asked));
        self.ask(Request::Spare(Arc::downgrade(shared), request));
        // ORDERING: with the fences in `stand_in` and `end`: this sees that the spawner gives none, or
        // that finds the request.
        fence(Ordering::SeqCst);
        // ORDERING: relaxed: the fence orders them.
        let gives_none = self.requests.stands_in.load(Ordering::Relaxed)
            || self.requests.is_over.load(Ordering::Relaxed);
        if gives_none && let Some(spare) = asked.take() {
            return Err(Some(spare));
        }
        loop {
            // ORDERING: acquire, with the release in `say`.
            match asked.answer.load(Ordering::Acquire) {
                0 => thread::park(),
                STARTED => return Ok(()),
                // Where it is not there any more the engine ends.
                _ => return Err(asked.take()),
            }
        }
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

    /// As [`create`](Threads::create), one that the kernel may stop for long.
    fn create_stoppable(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let thread = Builder::new().name(name).spawn(body)?;
        let mut threads = Threads::lock(&self.stoppable);
        threads.push(thread);
        Ok(())
    }

    /// Joins those that the kernel may stop and that have ended; called by one of them.
    fn join_stoppable(&self) {
        let ended: Vec<_> = match self.stoppable.try_lock() {
            Ok(mut threads) => threads
                .extract_if(.., |thread| thread.is_finished())
                .collect(),
            Err(_) => return,
        };
        for thread in ended {
            let _ = thread.join();
        }
    }

    fn lock(
        threads: &Mutex<Vec<JoinHandle<()>>>,
    ) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = Threads::lock(&self.ordinary);
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
        let mut threads = std::mem::take(&mut *Threads::lock(&self.ordinary));
        threads.append(&mut Threads::lock(&self.stoppable));
        threads
    }
}

fn worker_name(rank: Rank, number: usize) -> String {
    format!("{}-{number}", rank.thread_name())
}

fn serve(requests: &Requests, parker: &Parker) {
    let mut next = VecDeque::new();
    loop {
        next.extend(requests.list.take_all());
        let Some(request) = next.pop_front() else {
            parker.park();
            continue;
        };
        match request {
            Request::Stop => return end(requests, next),
            Request::Bring(what) => what(),
            Request::Spare(shared, request) => {
                let asked = &request.0;
                // Whoever asks has the engine, until it has an answer.
                if let Some(shared) = shared.upgrade()
                    && let Some(spare) = asked.take()
                {
                    match start_spare(&shared, *spare) {
                        None => asked.say(STARTED),
                        Some(spare) => {
                            let spare = Box::into_raw(Box::new(spare));
                            // ORDERING: release: whoever takes it sees it.
                            asked.spare.store(spare, Ordering::Release);
                            asked.say(REFUSED);
                        }
                    }
                }
            }
            Request::Crew(engine, rank) => {
                if let Some(shared) = engine.upgrade() {
                    start_crew(&shared, rank);
                }
            }
            Request::Left(engine, worker, own) => {
                if let Some(shared) = engine.upgrade() {
                    shared.running.leave(&own);
                    let rank = worker.rank();
                    let crew = shared.crew(rank);
                    crew.keep_unstarted(worker);
                    crew.muster.left();
                    if crew.has_queued() {
                        start_crew(&shared, rank);
                    }
                }
            }
            Request::Io(engine, pool, node) => {
                let Some(shared) = engine.upgrade() else {
                    continue;
                };
                if !start_io(&shared, pool, node) {
                    stand_in(&shared, pool, requests, &mut next);
                }
            }
            Request::Regulator(engine, pool) => {
                let Some(shared) = engine.upgrade() else {
                    continue;
                };
                let regulated = Arc::clone(&shared);
                let started = thread("reiver-regulator".into(), &shared, move || {
                    hybrid::regulate(&regulated, pool);
                });
                if let Err(error) = started {
                    tracing::warn!(
                        "the system refuses a thread ({error}); more jobs of class Hybrid may compute at \
                         once than there are CPUs"
                    );
                    hybrid::do_without(&shared, pool);
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

/// The spawner ends: what was to be brought is, and who waits for a spare is told.
fn end(requests: &Requests, next: VecDeque<Request>) {
    // ORDERING: relaxed: the fence orders it.
    requests.is_over.store(true, Ordering::Relaxed);
    // ORDERING: with the fences of who asks, see there.
    fence(Ordering::SeqCst);
    bring_all(next.into_iter().chain(requests.list.take_all()));
}

/// Brings what was to be brought. Who has asked for a spare is told as its request goes.
fn bring_all(requests: impl IntoIterator<Item = Request>) {
    for request in requests {
        if let Request::Bring(what) = request {
            what();
        }
    }
}

/// Starts the threads of those of a crew who have none.
fn start_crew(shared: &Arc<Shared>, rank: Rank) {
    let crew = shared.crew(rank);
    crew.muster.answers();
    if shared.stop.is_said() {
        return;
    }
    match rank {
        Rank::Urgent => shared.yield_to_urgent(),
        // It is read when first needed, and others would wait for who is stopped then.
        Rank::Background => drop(shared.machine.topology.caches()),
        Rank::Ordinary => {}
    }
    while let Some(worker) = crew.next_unstarted() {
        crew.muster.comes();
        if let Err(refused) = start(shared, worker, Worker::live_in_crew) {
            let (worker, error) = *refused;
            crew.keep_unstarted(worker);
            let is_none = crew.muster.refuses();
            tracing::warn!(
                "the system refuses a thread for {rank:?} work ({error}); {}",
                if is_none {
                    "ordinary workers do it, in the order of priorities and without preemption"
                } else {
                    "those that there are do it"
                }
            );
            shared.dissolve_if_refused(crew);
            return;
        }
    }
}

/// Starts the thread of a worker; gives the worker back where the system refuses one.
fn start(
    shared: &Arc<Shared>,
    worker: Worker,
    life: fn(Worker, Arc<Shared>, Arc<Own>),
) -> Result<(), Box<(Worker, io::Error)>> {
    let (engine, rank) = (Arc::clone(shared), worker.rank());
    let name = worker_name(rank, worker.index());
    // What all threads are listed in is no business of one that may be stopped.
    let own = shared.running.enter();
    let shown = Arc::clone(&own);
    // A thread that cannot be started drops what it was given.
    let held = Arc::new(Mutex::new(Some(worker)));
    let taken = Arc::clone(&held);
    let take =
        |held: &Mutex<Option<Worker>>| held.lock().unwrap_or_else(PoisonError::into_inner).take();
    let threads = &shared.spawner.threads;
    let started = if rank == Rank::Background {
        let known = Arc::clone(threads);
        threads.create_stoppable(name, move || {
            known.join_stoppable();
            if let Some(worker) = take(&taken) {
                life(worker, engine, shown);
            }
        })
    } else {
        threads.create(name, move || {
            if let Some(worker) = take(&taken) {
                life(worker, engine, shown);
            }
        })
    };
    started.map_err(|error| {
        shared.running.leave(&own);
        Box::new((take(&held).expect("no thread has taken it"), error))
    })
}

/// Gives the spare back where the system refuses a thread for it.
fn start_spare(shared: &Arc<Shared>, spare: Worker) -> Option<Worker> {
    let started = start(shared, spare, Worker::live_as_spare);
    started.err().map(|refused| refused.0)
}

/// False where the system refuses a thread.
fn start_io(shared: &Arc<Shared>, pool: Pool, node: usize) -> bool {
    let io = Arc::clone(shared);
    let thread = thread(crate::io::thread_name(pool), shared, move || {
        crate::io::live(io, pool, node)
    });
    if let Err(error) = &thread
        && shared.pool(pool).note_refused()
    {
        tracing::warn!(
            "the system refuses a thread of {pool:?} ({error}); its jobs wait for others, or run one after \
             the other where there are none"
        );
    }
    thread.is_ok()
}

/// Runs the jobs of a pool for which there is no thread. Who asks for a spare meanwhile does not get one, and
/// who has asked before is told so; all else is put off.
fn stand_in(shared: &Arc<Shared>, pool: Pool, requests: &Requests, next: &mut VecDeque<Request>) {
    // ORDERING: relaxed: the fence orders it.
    requests.stands_in.store(true, Ordering::Relaxed);
    // ORDERING: with the fence in `start_spare`.
    fence(Ordering::SeqCst);
    next.extend(requests.list.take_all());
    next.retain(|request| match request {
        Request::Spare(_, request) => {
            request.0.say(REFUSED);
            false
        }
        #[cfg(feature = "tokio")]
        Request::Runtime(.., answer) => {
            let _ = answer.send(false);
            false
        }
        _ => true,
    });
    crate::io::stand_in(shared, pool);
    requests.stands_in.store(false, Ordering::Relaxed);
}

fn thread(name: String, shared: &Shared, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    shared.spawner.threads.create(name, body)
}
