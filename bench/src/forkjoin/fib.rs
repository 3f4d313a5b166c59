//! Fibonacci numbers, where a join is all there is: what a fork costs.
//!
//! Every contender's recursion is written as its own documentation would write it. `fib` is the time a
//! join takes on one worker while the others are there but held, less what the bare calls take;
//! `fib-t2` the time with all threads at it; `overhead` the first again, with more and more workers.

use std::hint::black_box;
use std::time::Instant;

use crate::case::{Case, Outcome, Task};
use crate::forkjoin::case;
use crate::forks::{self, Chili, Forks, Forte, Rayon, Reiver, Serial, forkers, forkers_and_serial};
use crate::hold::{Hold, held};
use crate::onetbb::OneTbb;
use crate::stats;

pub(super) fn cases() -> Vec<Case> {
    let chain = "ns a join over serial";
    vec![
        case(
            "fib",
            chain,
            "fib(38) (quick 30) on one worker, the others present and held busy, less bare calls",
            forkers!(alone),
        )
        .no_rate(),
        case(
            "fib-t2",
            "ms",
            "fib(38) (quick 30) with all threads at it",
            forkers_and_serial!(together),
        ),
        case(
            "overhead",
            chain,
            "as fib, with a growing number of workers, which are held in jobs",
            forkers!(alone),
        )
        .at(&[1, 2, 4, 8, 16])
        .no_rate(),
    ]
}

/// Who computes Fibonacci numbers.
pub(super) trait Fib: Forks {
    fn fib(here: &mut Self::Here<'_>, n: u64) -> u64;
}

impl Fib for Reiver {
    fn fib(_: &mut (), n: u64) -> u64 {
        fn fib(n: u64) -> u64 {
            if n < 2 {
                return n;
            }
            let (left, right) = reiver::join(|| fib(n - 1), || fib(n - 2));
            left + right
        }
        fib(n)
    }
}

impl Fib for Rayon {
    fn fib(_: &mut (), n: u64) -> u64 {
        fn fib(n: u64) -> u64 {
            if n < 2 {
                return n;
            }
            let (left, right) = rayon::join(|| fib(n - 1), || fib(n - 2));
            left + right
        }
        fib(n)
    }
}

impl Fib for Chili {
    fn fib(here: &mut chili::Scope<'_>, n: u64) -> u64 {
        if n < 2 {
            return n;
        }
        let (left, right) = here.join(|s| Chili::fib(s, n - 1), |s| Chili::fib(s, n - 2));
        left + right
    }
}

impl Fib for Forte {
    fn fib(here: &mut &forte::Worker, n: u64) -> u64 {
        fn fib(worker: &forte::Worker, n: u64) -> u64 {
            if n < 2 {
                return n;
            }
            let (left, right) = worker.join(|w| fib(w, n - 1), |w| fib(w, n - 2));
            left + right
        }
        fib(here, n)
    }
}

impl Fib for OneTbb {
    fn fib(_: &mut (), n: u64) -> u64 {
        fn fib(n: u64) -> u64 {
            if n < 2 {
                return n;
            }
            let (left, right) = OneTbb::join(&mut (), |_| fib(n - 1), |_| fib(n - 2));
            left + right
        }
        fib(n)
    }
}

impl Fib for Serial {
    fn fib(_: &mut (), n: u64) -> u64 {
        bare(n)
    }
}

/// The same without any engine, as the compiler likes it.
fn bare(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    bare(n - 1) + bare(n - 2)
}

/// What the recursion must give, and with it the number of its joins.
pub(super) fn fibonacci(n: u64) -> u64 {
    (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0
}

/// One join for each call that is no leaf.
pub(super) fn joins(n: u64) -> u64 {
    fibonacci(n + 1) - 1
}

fn alone<F: Fib>(task: &Task) -> Outcome {
    let n = task.size(38, 30);
    let engine = F::start(task.threads);
    let hold = Hold::new(task.threads);
    let timed = |fib: &mut dyn FnMut(u64) -> u64| {
        let start = Instant::now();
        assert_eq!(fib(black_box(n)), fibonacci(n), "a Fibonacci number");
        start.elapsed().as_secs_f64() * 1e9 / joins(n) as f64
    };
    let mut serial = Vec::new();
    let forked = held(&engine, task.threads - 1, &hold, |here| {
        task.sample(|| {
            serial.push(timed(&mut bare));
            timed(&mut |n| F::fib(here, n))
        })
    });
    // The median, so that a stumble of the one does not become a feat of the other.
    let serial = stats::median(&serial).unwrap_or_default();
    Ok(forked.into_iter().map(|forked| forked - serial).collect())
}

fn together<F: Fib>(task: &Task) -> Outcome {
    let n = task.size(38, 30);
    forks::sample_ms(task, |engine: &F| {
        let value = engine.enter(|here| F::fib(here, black_box(n)));
        assert_eq!(value, fibonacci(n), "a Fibonacci number");
    })
}
