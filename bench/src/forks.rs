//! Fork and join as each contender spells it, behind one trait, so that a case is written once.
//!
//! `fib.rs` does without it: there, at a nanosecond or two a join, forte would pay for the reference to
//! a reference that the trait makes of its worker.

use std::num::NonZero;

use crate::case::{Outcome, Task};

/// Who can fork and join.
pub(crate) trait Forks: Sync + 'static {
    /// What a fork is handed, to fork again: chili's scope, forte's worker, nothing for others.
    type Here<'h>;

    /// With so many threads in all, whoever enters included if it works too.
    fn start(threads: usize) -> Self;

    /// Runs `body` where it can fork.
    fn enter<R: Send>(&self, body: impl FnOnce(&mut Self::Here<'_>) -> R + Send) -> R;

    /// Runs `now` at once; `later` waits for a thief, or for its owner to come back.
    fn join<A: Send, B: Send>(
        here: &mut Self::Here<'_>,
        now: impl FnOnce(&mut Self::Here<'_>) -> A + Send,
        later: impl FnOnce(&mut Self::Here<'_>) -> B + Send,
    ) -> (A, B);
}

/// The contenders that fork and join, for a function that is generic over [`Forks`].
macro_rules! forkers {
    ($run:ident) => {
        vec![
            $crate::case::ours("reiver", $run::<$crate::forks::Reiver>),
            $crate::case::peer("rayon", $run::<$crate::forks::Rayon>),
            $crate::case::peer("chili", $run::<$crate::forks::Chili>),
            $crate::case::peer("forte", $run::<$crate::forks::Forte>),
            $crate::case::peer("onetbb", |task| {
                $crate::onetbb::OneTbb::load(task)?;
                $run::<$crate::onetbb::OneTbb>(task)
            }),
        ]
    };
}
pub(crate) use forkers;

/// As [`forkers`], with one plain thread beside them.
macro_rules! forkers_and_serial {
    ($run:ident) => {{
        let mut contenders = $crate::forks::forkers!($run);
        contenders.push($crate::case::floor("serial", $run::<$crate::forks::Serial>));
        contenders
    }};
}
pub(crate) use forkers_and_serial;

#[derive(Debug)]
pub(crate) struct Reiver(reiver::Engine);

impl Reiver {
    pub(crate) fn metrics(&self) -> reiver::Metrics {
        self.0.metrics()
    }

    /// With an engine that is not built as `start` does it.
    pub(crate) fn of(engine: reiver::Engine) -> Reiver {
        Reiver(engine)
    }
}

impl Forks for Reiver {
    type Here<'h> = ();

    fn start(threads: usize) -> Reiver {
        Reiver(reiver_engine(threads))
    }

    fn enter<R: Send>(&self, body: impl FnOnce(&mut ()) -> R + Send) -> R {
        self.0.install(|| body(&mut ()))
    }

    #[inline]
    fn join<A: Send, B: Send>(
        _: &mut (),
        now: impl FnOnce(&mut ()) -> A + Send,
        later: impl FnOnce(&mut ()) -> B + Send,
    ) -> (A, B) {
        reiver::join(|| now(&mut ()), || later(&mut ()))
    }
}

#[derive(Debug)]
pub(crate) struct Rayon(rayon::ThreadPool);

impl Forks for Rayon {
    type Here<'h> = ();

    fn start(threads: usize) -> Rayon {
        Rayon(rayon_pool(threads))
    }

    fn enter<R: Send>(&self, body: impl FnOnce(&mut ()) -> R + Send) -> R {
        self.0.install(|| body(&mut ()))
    }

    #[inline]
    fn join<A: Send, B: Send>(
        _: &mut (),
        now: impl FnOnce(&mut ()) -> A + Send,
        later: impl FnOnce(&mut ()) -> B + Send,
    ) -> (A, B) {
        rayon::join(|| now(&mut ()), || later(&mut ()))
    }
}

#[derive(Debug)]
pub(crate) struct Chili(chili::ThreadPool);

impl Forks for Chili {
    type Here<'h> = chili::Scope<'h>;

    /// Whoever enters is one of the threads.
    fn start(threads: usize) -> Chili {
        Chili(chili_pool(threads))
    }

    fn enter<R: Send>(&self, body: impl FnOnce(&mut chili::Scope<'_>) -> R + Send) -> R {
        body(&mut self.0.scope())
    }

    #[inline]
    fn join<A: Send, B: Send>(
        here: &mut chili::Scope<'_>,
        now: impl FnOnce(&mut chili::Scope<'_>) -> A + Send,
        later: impl FnOnce(&mut chili::Scope<'_>) -> B + Send,
    ) -> (A, B) {
        let (later, now) = here.join(later, now);
        (now, later)
    }
}

#[derive(Debug)]
pub(crate) struct Forte;

/// Forte wants its pools to be statics.
pub(crate) static FORTE: forte::ThreadPool = forte::ThreadPool::new();

impl Forks for Forte {
    type Here<'h> = &'h forte::Worker;

    /// Whoever enters is one of the threads.
    fn start(threads: usize) -> Forte {
        FORTE.resize_to(threads - 1);
        Forte
    }

    fn enter<R: Send>(&self, body: impl FnOnce(&mut &forte::Worker) -> R + Send) -> R {
        FORTE.with_worker(|mut worker| body(&mut worker))
    }

    #[inline]
    fn join<A: Send, B: Send>(
        here: &mut &forte::Worker,
        now: impl FnOnce(&mut &forte::Worker) -> A + Send,
        later: impl FnOnce(&mut &forte::Worker) -> B + Send,
    ) -> (A, B) {
        let (later, now) = here.join(
            |mut worker: &forte::Worker| later(&mut worker),
            |mut worker: &forte::Worker| now(&mut worker),
        );
        (now, later)
    }
}

/// One thread, one call after the other.
#[derive(Debug)]
pub(crate) struct Serial;

impl Forks for Serial {
    type Here<'h> = ();

    fn start(_: usize) -> Serial {
        Serial
    }

    fn enter<R: Send>(&self, body: impl FnOnce(&mut ()) -> R + Send) -> R {
        body(&mut ())
    }

    #[inline]
    fn join<A: Send, B: Send>(
        _: &mut (),
        now: impl FnOnce(&mut ()) -> A + Send,
        later: impl FnOnce(&mut ()) -> B + Send,
    ) -> (A, B) {
        (now(&mut ()), later(&mut ()))
    }
}

pub(crate) fn reiver_engine(threads: usize) -> reiver::Engine {
    let engine = reiver::Engine::builder().cpu_workers(threads).build();
    engine.expect("one worker or more is asked for")
}

pub(crate) fn rayon_pool(threads: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("the system gives threads")
}

pub(crate) fn chili_pool(threads: usize) -> chili::ThreadPool {
    chili::ThreadPool::with_config(chili::Config {
        thread_count: NonZero::new(threads),
        ..chili::Config::default()
    })
}

/// Times `body`, which checks its own result, in milliseconds.
pub(crate) fn sample_ms<F: Forks>(task: &Task, mut body: impl FnMut(&F)) -> Outcome {
    let engine = F::start(task.threads);
    Ok(task.sample_ms(|| body(&engine)))
}
