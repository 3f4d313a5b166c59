//! What a thread asks of the kernel's scheduler: by its rank.
//!
//! What the kernel refuses is said once a process and done without: it is speed, never correctness.
//! See `sched(7)`, `sched_setattr(2)`.

use std::cell::Cell;
use std::io;
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::crew::Rank;

thread_local! {
    /// The kernel may stop this thread at any step, for as long as there is other work.
    static STOPPABLE: Cell<bool> = const { Cell::new(false) };
}

/// How long an ordinary thread asks to run at a time beside urgent ones: the least that the kernel
/// grants (Linux 6.12 and later; before that it means nothing). The kernel lets an urgent thread in at
/// once unless that one has had more than its share of late; then it waits for what it is asked here.
const YIELDING_SLICE_NS: u64 = 100_000;
/// So often who may be stopped looks for what others are told of: it must not hold their list.
pub(crate) const LOOKS_AGAIN: Duration = Duration::from_millis(1);
/// What a background thread asks for where `SCHED_IDLE` is refused.
const MOST_NICE: i32 = 19;

/// A thread, for others that change how it is scheduled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadId(libc::pid_t);

/// As the kernel has it; libc lacks it.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// True on a thread that the kernel may stop at any step: it must hold nothing that others wait for.
#[inline]
pub(crate) fn is_stoppable() -> bool {
    STOPPABLE.get()
}

/// When such a thread looks again, which does not stand in lists of who waits; other threads are told.
pub(crate) fn looks_again() -> Option<Instant> {
    is_stoppable().then(|| Instant::now() + LOOKS_AGAIN)
}

/// What such a thread does after all in the place of one that nobody stops.
pub(crate) fn in_place_of_another(what: impl FnOnce()) {
    struct Again(bool);

    impl Drop for Again {
        fn drop(&mut self) {
            STOPPABLE.set(self.0);
        }
    }

    let _again = Again(STOPPABLE.replace(false));
    what();
}

/// A lock is about to be taken that threads of every rank take.
#[inline]
pub(crate) fn note_lock_of_all() {
    #[cfg(test)]
    tests::note();
}

/// The first act of a worker's thread.
pub(crate) fn settle(rank: Rank) {
    match rank {
        Rank::Urgent | Rank::Ordinary => {}
        Rank::Background => be_background(),
    }
}

fn be_background() {
    STOPPABLE.set(true);
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are there; 0 is the current thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if result == 0 {
        return;
    }
    let refused = io::Error::last_os_error();
    let is_nice = ThreadId::current().set_nice(MOST_NICE).is_ok();
    static REFUSED: Once = Once::new();
    REFUSED.call_once(|| {
        tracing::warn!(
            "the system refuses SCHED_IDLE ({refused}); background threads {}",
            if is_nice {
                "have nice 19 instead, and urgent work waits for them a little longer"
            } else {
                "run like all others, and urgent work waits for them"
            }
        );
    });
}

impl ThreadId {
    pub(crate) fn current() -> ThreadId {
        // SAFETY: asks for a number.
        ThreadId(unsafe { libc::gettid() })
    }

    pub(crate) fn from_raw(id: i32) -> Option<ThreadId> {
        (id > 0).then_some(ThreadId(id))
    }

    pub(crate) fn as_raw(self) -> i32 {
        self.0
    }

    fn nice(self) -> i32 {
        // SAFETY: asks for a number.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, self.0.cast_unsigned()) }
    }

    fn set_nice(self, nice: i32) -> io::Result<()> {
        // SAFETY: numbers only.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, self.0.cast_unsigned(), nice) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Makes it nicer by so much, and lets it run for short times. It cannot come back without privilege.
    pub(crate) fn yield_to_others(self, more: i32) {
        let nice = self.nice().saturating_add(more).min(MOST_NICE);
        if let Err(error) = self.set_nice(nice) {
            static REFUSED: Once = Once::new();
            REFUSED.call_once(|| {
                tracing::warn!(
                    "the system refuses to make a thread nice ({error}); P0 jobs wait for P1 jobs"
                );
            });
        }
        self.ask_for_short_slices(nice);
    }

    /// Where that is refused, or means nothing, slices are those of everybody.
    fn ask_for_short_slices(self, nice: i32) {
        // SAFETY: asks for a number.
        let policy = unsafe { libc::sched_getscheduler(self.0) };
        if policy != libc::SCHED_OTHER {
            // Somebody has said what else it is to be.
            return;
        }
        let attributes = Attributes {
            size: u32::try_from(size_of::<Attributes>()).expect("it is small"),
            policy: policy.cast_unsigned(),
            nice,
            runtime: YIELDING_SLICE_NS,
            ..Attributes::default()
        };
        // SAFETY: the kernel reads as many bytes as `size` says.
        unsafe { libc::syscall(libc::SYS_sched_setattr, self.0, &raw const attributes, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{HybridLimiter, Refused};
    use crate::{
        Breaker, CancellationToken, Class, Engine, JobContext, JobError, Priority, WhenFull,
    };
    use std::cell::RefCell;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::mpsc::{channel, sync_channel};
    use std::task::{Context, Waker};

    thread_local! {
        /// Where this thread has taken a lock that it was not to take.
        static HELD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// If the kernel may stop this thread.
    pub(super) fn note() {
        if is_stoppable() {
            let place = std::backtrace::Backtrace::force_capture().to_string();
            HELD.with_borrow_mut(|held| held.push(place));
        }
    }

    /// Whatever the jobs that it deals with have to pass.
    fn engine(limiter: &Arc<HybridLimiter>) -> Engine {
        let breaker = Breaker {
            failures: 1.0,
            window: 1,
            open_for: Duration::ZERO,
        };
        let builder = Engine::builder().cpu_workers(2);
        let builder = builder.queue_capacity(Class::Io, 4);
        let builder = builder.limit_name("limited", Arc::clone(limiter));
        builder.breaker("fragile", breaker).build().unwrap()
    }

    /// As many as there are leaves.
    fn forks(depth: u32) -> u32 {
        if depth == 0 {
            return 1;
        }
        let (left, right) = crate::join(|| forks(depth - 1), || forks(depth - 1));
        left + right
    }

    fn submits_and_waits(engine: &Engine) {
        let token = CancellationToken::new();
        for priority in [Priority::P0, Priority::P1, Priority::P2] {
            for class in [Class::Cpu, Class::Io, Class::Hybrid, Class::Auto] {
                let job = || engine.job().class(class).priority(priority);
                let tokened = job().cancel_with(&token.child());
                let tokened = tokened.deadline(Duration::from_secs(300));
                let (go, wait) = channel::<()>();
                let mut held = tokened.submit(move |_| wait.recv().unwrap()).unwrap();
                let mut context = Context::from_waker(Waker::noop());
                assert!(pin!(&mut held).poll(&mut context).is_pending());
                go.send(()).unwrap();
                held.join().unwrap();
                job()
                    .name("limited")
                    .submit(|_| ())
                    .unwrap()
                    .join()
                    .unwrap();
                let fragile = job().name("fragile");
                let failed = fragile.submit(|ctx| ctx.report_failure());
                failed.unwrap().join().unwrap();
                job()
                    .name("fragile")
                    .submit(|_| ())
                    .unwrap()
                    .join()
                    .unwrap();
            }
        }
        let late = engine.job().cancel_with(&token);
        token.cancel();
        let late = late.submit(|_| ()).unwrap().join();
        assert!(matches!(late, Err(JobError::Cancelled)));
    }

    fn waits_for_many(engine: &Engine) {
        let (go, wait) = sync_channel::<()>(0);
        let wait = std::sync::Mutex::new(wait);
        let wait = Arc::new(wait);
        let many = (0..2).map(|_| {
            let wait = Arc::clone(&wait);
            move |_: &JobContext| wait.lock().unwrap().recv().unwrap()
        });
        let mut jobs = engine.submit_many(many);
        for job in &mut jobs {
            let mut context = Context::from_waker(Waker::noop());
            assert!(pin!(job).poll(&mut context).is_pending());
        }
        // Whichever of them comes to it.
        jobs.iter().for_each(|_| go.send(()).unwrap());
        jobs.into_iter().for_each(|job| job.join().unwrap());
        for priority in [Priority::P1, Priority::P2] {
            for class in [Class::Cpu, Class::Io, Class::Hybrid] {
                let batch = engine.batch(0..50).class(class).priority(priority);
                let sum = batch.map(|_, input| input).unordered().map(Result::unwrap);
                assert_eq!(sum.sum::<i32>(), 49 * 50 / 2);
                let batch = engine.batch(0..50).class(class).priority(priority);
                assert_eq!(batch.map(|_, input| input).collect().len(), 50);
            }
        }
    }

    fn waits_for_permits(limiter: &Arc<HybridLimiter>) {
        let held = limiter.acquire_owned(1).unwrap();
        let refused = limiter.acquire_timeout(1, Duration::from_millis(3));
        assert_eq!(refused.unwrap_err(), Refused::Concurrency);
        std::thread::scope(|scope| {
            let waits = || {
                drop(
                    limiter
                        .acquire_timeout(1, Duration::from_secs(200))
                        .unwrap(),
                )
            };
            scope.spawn(waits);
            std::thread::sleep(Duration::from_millis(3));
            drop(held);
        });
    }

    /// It is a guest there for as long as each takes.
    #[test]
    fn a_background_job_that_runs_jobs_of_another_engine_is_no_thread_of_that_one_afterwards() {
        let engine = Engine::builder().cpu_workers(1).build().unwrap();
        let other = Engine::builder()
            .cpu_workers(1)
            .queue_capacity(Class::Io, 1);
        let other = other
            .io_workers(0..=1)
            .when_full(Class::Io, WhenFull::CallerRuns);
        let other = other.build().unwrap();
        let io = |body: Box<dyn FnOnce() + Send>| {
            let job = other.job().class(Class::Io).submit(move |_| body());
            job.unwrap()
        };
        let (go, wait) = channel::<()>();
        let (says, begun) = channel();
        let held = io(Box::new(move || {
            says.send(()).unwrap();
            wait.recv().unwrap();
        }));
        begun.recv().unwrap();
        let queued = io(Box::new(|| ()));
        // Its worker is on the list by then.
        other.submit(|_| ()).join().unwrap();
        let before = other.shared().running.len();
        let other = Arc::new(other);
        let full = Arc::clone(&other);
        let job = engine.job().priority(Priority::P2).submit(move |_| {
            let me = std::thread::current().id();
            for _ in 0..10 {
                let job = full.job().class(Class::Io);
                let ran_on = job.submit(|_| std::thread::current().id()).unwrap().join();
                assert_eq!(ran_on.unwrap(), me);
            }
            drop(full);
            HELD.take()
        });
        assert_eq!(job.unwrap().join().unwrap(), [""; 0]);
        // Its spawner takes the thread off the list, a little later.
        while other.shared().running.len() != before {
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        held.join().unwrap();
        queued.join().unwrap();
    }

    /// What it does for others is left to the spawner, so that who comes upon it does not wait for the
    /// kernel to let it run again.
    #[test]
    fn a_background_job_takes_no_lock_that_others_take() {
        let limiter = Arc::new(HybridLimiter::new(u32::MAX, u32::MAX, 1));
        let engine = engine(&limiter);
        for class in [Class::Hybrid, Class::Cpu] {
            let limiter = Arc::clone(&limiter);
            let job = engine.job().class(class).priority(Priority::P2);
            let job = job.submit(move |ctx| {
                assert!(is_stoppable());
                let engine = ctx.engine();
                submits_and_waits(engine);
                waits_for_many(engine);
                waits_for_permits(&limiter);
                assert!(!engine.running().is_empty());
                assert!(engine.metrics().total().completed > 0);
                assert_eq!(forks(3), 8);
                HELD.take()
            });
            let held = job.unwrap().join().unwrap();
            assert!(
                held.is_empty(),
                "{class:?}, {} times: {}",
                held.len(),
                held[0]
            );
        }
        assert!(engine.shutdown(Duration::from_secs(200)).is_clean());
    }
}
