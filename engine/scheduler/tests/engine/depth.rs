//! How deep joins and scopes go within each other, on a stack of 2 MiB, and how long chains are that
//! do not lie within each other at all.

use std::sync::atomic::{AtomicUsize, Ordering};

use reiver::Scope;

use crate::engine;
use crate::size::sized;

#[test]
fn joins_nest_two_thousand_deep_even_without_optimisation() {
    fn left(depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        let (below, one) = reiver::join(|| left(depth - 1), || 1);
        below + one
    }
    fn right(depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        let (one, below) = reiver::join(|| 1, || right(depth - 1));
        below + one
    }
    for workers in [1, 2, 4] {
        let engine = engine(workers);
        for _ in 0..10 {
            assert_eq!(engine.install(|| left(2000)), 2000);
        }
        // What is stolen goes on on another stack, so several levels may lie on top of each other.
        assert_eq!(engine.install(|| right(1000)), 1000);
    }
}

#[test]
fn scopes_nest_a_thousand_deep() {
    fn nest(depth: usize, ended: &AtomicUsize) {
        if depth > 0 {
            reiver::scope(|scope| {
                scope.spawn(|_| {
                    ended.fetch_add(1, Ordering::Relaxed);
                });
                nest(depth - 1, ended);
            });
        }
    }
    for workers in [1, 2, 4] {
        let engine = engine(workers);
        let ended = AtomicUsize::new(0);
        engine.install(|| nest(1000, &ended));
        assert_eq!(ended.into_inner(), 1000);
    }
}

#[test]
fn a_recurrence_of_a_million_steps_goes_by_joins_in_a_loop_of_scopes() {
    /// The Fibonacci numbers `n` and `n + 1` after `steps` more, modulo a prime, each step a join.
    fn steps(pair: (u64, u64), left: usize) -> (u64, u64) {
        if left == 0 {
            return pair;
        }
        let (a, b) = pair;
        let (sum, b) = reiver::join(|| (a + b) % PRIME, || b);
        steps((b, sum), left - 1)
    }
    const PRIME: u64 = 1_000_000_007;
    let engine = engine(2);
    let (deep, wide) = (500, sized(2000));
    let pair = engine.install(|| {
        (0..wide).fold((0, 1), |pair, _| {
            let mut next = (0, 0);
            reiver::scope(|scope| scope.spawn(|_| next = steps(pair, deep)));
            next
        })
    });
    let plain = (0..deep * wide).fold((0, 1), |(a, b), _| (b, (a + b) % PRIME));
    assert_eq!(pair, plain);
}

#[test]
fn a_million_spawns_each_by_the_one_before_take_no_stack() {
    fn next<'s>(scope: &Scope<'s>, left: usize, ran: &'s AtomicUsize) {
        ran.fetch_add(1, Ordering::Relaxed);
        if left > 1 {
            scope.spawn(move |scope| next(scope, left - 1, ran));
        }
    }
    for workers in [1, 2, 4] {
        let (engine, ran) = (engine(workers), AtomicUsize::new(0));
        let spawns = sized(1_000_000);
        engine.scope(|scope| next(scope, spawns, &ran));
        assert_eq!(ran.into_inner(), spawns);
    }
}
