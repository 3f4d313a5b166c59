//! The threads of an engine, and the one that creates those that come later.
//!
//! A thread inherits scheduling policy, nice value, affinity and memory policy from its creator, so
//! whoever builds the engine creates the threads of its workers, and the spawner, which never changes;
//! that one creates all others. They are never created by a worker or by whoever submits.
//!
//! It also brings to others what threads submit that the kernel may stop at any step: those only put it
//! on a list, which nobody holds.
//!
//! Somebody else's code may run on it: an I/O job for which there is no thread, or what a job owns that
//! ends before it was brought. That may take long, and wait for whoever asks for something: so before it
//! waits, or runs such a job, it goes [`away`](crate::protocol::away). Nobody gets a spare then, ordinary
//! workers do what crews without workers would, and who brings something does that itself. A background
//! thread may then be stopped with what others wait for in its hands, rather than all wait for ever.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ptr;
#[cfg(feature = "tokio")]
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use crate::crew::Rank;
use crate::hybrid;
use crate::io::Pool;
use crate::parker::{Parker, Unparker};
use crate::protocol::away::Away;
use crate::protocol::hand_over::HandOver;
use crate::protocol::sync::{AtomicPtr, AtomicU8, Ordering};
use crate::running::Own;
use crate::schedule::in_place_of_another;
use crate::shared::Shared;
use crate::threads::Threads;
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
    /// What is to be brought. Apart from the others, for anybody may take it while the spawner is away.
    brought: HandOver<Brought>,
    /// What the spawner has taken and not begun. It alone locks this.
    in_hand: Mutex<VecDeque<Request>>,
    unparker: Unparker,
    /// For good once it has ended.
    away: Away,
    engine: OnceLock<Weak<Shared>>,
}

/// What a thread has for others that must not touch what they wait for.
pub(crate) struct Brought(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Brought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Brought")
    }
}

thread_local! {
    /// What the current thread serves, if it is a spawner.
    static SERVED: RefCell<Option<Arc<Requests>>> = const { RefCell::new(None) };
}

/// That a spawner is away, until this is dropped.
#[derive(Debug)]
pub(crate) struct Absence(Option<Arc<Requests>>);

impl Absence {
    /// Of the current thread, which is about to wait for others, or to run what may; nothing if it is no
    /// spawner.
    pub(crate) fn begin() -> Absence {
        // A thread whose own values are gone already is none.
        let served = SERVED.try_with(|served| served.borrow().clone());
        let served = served.ok().flatten();
        let was_away = served.as_ref().is_some_and(|requests| requests.go_away());
        Absence(served.filter(|_| !was_away))
    }
}

impl Drop for Absence {
    fn drop(&mut self) {
        if let Some(requests) = &self.0 {
            requests.away.returns();
        }
    }
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
    /// A thread that watches deadlines.
    Timer(Weak<Shared>),
    /// Background jobs wait, see [`ageing`](crate::ageing).
    LookAfter(Weak<Shared>),
    Bring(Brought),
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
            Request::LookAfter(_) => "LookAfter",
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
            brought: HandOver::default(),
            in_hand: Mutex::default(),
            unparker: parker.unparker().clone(),
            away: Away::default(),
            engine: OnceLock::new(),
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
        let engine = requests.engine.set(Arc::downgrade(shared));
        engine.expect("an engine is started once");
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
    pub(crate) fn call(&self, engine: Weak<Shared>, rank: Rank) {
        self.ask(Request::Crew(engine, rank));
    }

    /// Has `what` done by a thread that the kernel does not stop for long.
    pub(crate) fn bring(&self, what: impl FnOnce() + Send + 'static) {
        self.requests.brought.put(Brought(Box::new(what)));
        self.requests.unparker.unpark();
        if self.requests.away.after_asking() {
            for Brought(what) in self.requests.brought.take_all() {
                in_place_of_another(what);
            }
        }
    }

    /// After a fence: true if nobody may come to what is asked for.
    pub(crate) fn is_away(&self) -> bool {
        self.requests.away.is_so()
    }

    /// What `what` gives, called by such a thread; waits for it without a lock.
    pub(crate) fn on_behalf<T: Send + Sync + 'static>(
        &self,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let answer = Arc::new(OnceLock::new());
        // Not the thread's own token: who calls this may be about to sleep until it is given that.
        let parker = Parker::new();
        let (given, asker) = (Arc::clone(&answer), parker.unparker().clone());
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
            parker.park();
        }
    }

    /// Asks for what whoever asks waits for; false while the spawner runs jobs itself.
    #[cfg(feature = "tokio")]
    pub(crate) fn ask_unless_busy(&self, request: Request) -> bool {
        self.ask(request);
        // One that is away answers nobody who waits.
        !self.requests.away.after_asking()
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
        if self.requests.away.after_asking()
            && let Some(spare) = asked.take()
        {
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

fn worker_name(rank: Rank, number: usize) -> String {
    format!("{}-{number}", rank.thread_name())
}

impl Requests {
    fn in_hand(&self) -> MutexGuard<'_, VecDeque<Request>> {
        let mut in_hand = self.in_hand.lock().unwrap_or_else(PoisonError::into_inner);
        in_hand.extend(self.brought.take_all().into_iter().map(Request::Bring));
        in_hand.extend(self.list.take_all());
        in_hand
    }

    /// The spawner goes away: who waits for a spare is told so, what was to be brought is, and others do
    /// what was left to crews without workers. All else is put off. Gives whether it was away already.
    fn go_away(&self) -> bool {
        let was_away = self.away.goes();
        // One by one: each may be somebody else's code, inside of which the spawner goes away once more.
        let next = || {
            let mut in_hand = self.in_hand();
            let waited_for = in_hand.iter().position(Request::is_waited_for);
            waited_for.and_then(|at| in_hand.remove(at))
        };
        while let Some(request) = next() {
            match request {
                Request::Bring(Brought(what)) => what(),
                Request::Spare(_, request) => request.0.say(REFUSED),
                #[cfg(feature = "tokio")]
                Request::Runtime(.., answer) => drop(answer.send(false)),
                _ => unreachable!("nobody waits for others"),
            }
        }
        if let Some(shared) = self.engine.get().and_then(Weak::upgrade) {
            shared
                .crews()
                .for_each(|crew| crew.leave_to_others(&shared));
        }
        was_away
    }
}

impl Request {
    /// True if somebody may wait for it who cannot do anything else.
    fn is_waited_for(&self) -> bool {
        match self {
            Request::Bring(_) | Request::Spare(..) => true,
            #[cfg(feature = "tokio")]
            Request::Runtime(..) => true,
            _ => false,
        }
    }
}

fn serve(requests: &Arc<Requests>, parker: &Parker) {
    SERVED.set(Some(Arc::clone(requests)));
    // When it is to look after the background.
    let mut looks_at: Option<Instant> = None;
    loop {
        if looks_at.is_some_and(|at| at <= Instant::now()) {
            let engine = requests.engine.get().and_then(Weak::upgrade);
            looks_at = engine.and_then(|shared| shared.relieve_background());
        }
        let next = requests.in_hand().pop_front();
        let Some(request) = next else {
            parker.park_until(looks_at);
            continue;
        };
        match request {
            Request::Stop => return end(requests),
            Request::Bring(Brought(what)) => what(),
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
            Request::LookAfter(engine) => {
                let at = engine
                    .upgrade()
                    .map(|shared| shared.looks_after_background());
                looks_at = looks_at.into_iter().chain(at.flatten()).min();
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
                    let _absence = Absence::begin();
                    crate::io::stand_in(&shared, pool);
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
                         once than there are CPUs, and those of P2 move only as the background does"
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
                    Err(error) if shared.timer.note_refused() => tracing::warn!(
                        "the system refuses a thread ({error}); queued jobs whose deadline passes \
                         may not end before a worker comes to them"
                    ),
                    Err(_) => {}
                }
            }
        }
    }
}

/// The spawner ends, and is away for good.
fn end(requests: &Requests) {
    requests.go_away();
    SERVED.take();
    let others = std::mem::take(&mut *requests.in_hand());
    // Outside of the lock: who has asked is told.
    for request in others {
        match request {
            // It came when all was done, and who brought it finds it gone: it is waited for.
            Request::Bring(Brought(what)) => what(),
            other => drop(other),
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
        Rank::Background => shared.prepare_for_background(),
        Rank::Ordinary => {}
    }
    while let Some(worker) = crew.next_unstarted() {
        crew.muster.comes(worker.node());
        if let Err(refused) = start(shared, worker, Worker::live_in_crew) {
            let (worker, error) = *refused;
            crew.muster.refuses(worker.node());
            crew.keep_unstarted(worker);
            tracing::warn!(
                "the system refuses a thread for {rank:?} work ({error}); {}",
                if crew.muster.present() == 0 {
                    "ordinary workers do it, in the order of priorities and without preemption"
                } else {
                    "those that there are do it, and ordinary workers what is for nodes without one"
                }
            );
            crew.leave_to_others(shared);
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
    let live = move || {
        if let Some(worker) = take(&taken) {
            life(worker, engine, shown);
        }
    };
    let started = match rank {
        Rank::Background => threads.create_stoppable(name, live),
        Rank::Urgent | Rank::Ordinary => threads.create(name, live),
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
    let (io, name) = (Arc::clone(shared), pool.thread_name().into());
    let threads = &shared.spawner.threads;
    let live = move || crate::io::live(io, pool, node);
    match pool {
        Pool::UrgentHybrid => shared.yield_to_urgent(),
        Pool::BackgroundHybrid => shared.prepare_for_background(),
        Pool::Io | Pool::Hybrid => {}
    }
    let thread = match pool {
        Pool::BackgroundHybrid => threads.create_stoppable(name, live),
        Pool::Io | Pool::Hybrid | Pool::UrgentHybrid => threads.create(name, live),
    };
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

fn thread(name: String, shared: &Shared, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    shared.spawner.threads.create(name, body)
}
