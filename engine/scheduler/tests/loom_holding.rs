//! A chunk of jobs that a worker is in, in every interleaving: whoever has nothing else takes jobs of it,
//! or is woken for it; each job runs once, and what is left when its worker must leave it runs too.
#![cfg(reiver_loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use reiver::model::Sleep::Idle;
use reiver::model::{Holding, Sleepers, State, fails_without};

const JOBS: usize = 2;

struct Machine {
    sleepers: Sleepers,
    /// Of the worker that has the chunk.
    holding: Holding<Arc<Chunk>>,
    unparked: AtomicBool,
}

struct Chunk([State; JOBS]);

impl Chunk {
    fn is_queued(&self) -> bool {
        self.0.iter().any(State::is_queued)
    }

    /// Runs those of these that nobody else does; gives how many.
    fn run(&self, jobs: impl Iterator<Item = usize>) -> usize {
        jobs.filter(|&job| self.0[job].claim()).count()
    }
}

/// A worker shows a chunk, runs its first `runs` jobs and hides it, while another one goes to sleep.
fn a_worker_goes_to_sleep_beside_a_chunk(runs: usize) {
    loom::model(move || {
        let machine = Arc::new(Machine {
            sleepers: Sleepers::new(vec![vec![0, 1], vec![]], false),
            holding: Holding::default(),
            unparked: AtomicBool::new(false),
        });
        let helper = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                let Machine {
                    sleepers, holding, ..
                } = &*machine;
                let bit = sleepers.bit(0, 1);
                sleepers.seek(Idle);
                sleepers.announce(bit, Idle);
                if !holding.is_any() {
                    return None;
                }
                let found = holding.get(|chunk| chunk.is_queued());
                found.map(|chunk| chunk.run((0..JOBS).rev()))
            })
        };
        let chunk = Arc::new(Chunk([const { () }; JOBS].map(|()| State::queued())));
        machine.holding.push(Arc::clone(&chunk));
        let woken = machine.sleepers.claim_for_any([0].into_iter());
        machine.unparked.store(woken.is_some(), Ordering::Relaxed);
        // A long job is the first, so whoever sleeps beside the others has missed them.
        let own = chunk.run(0..runs);
        let left = chunk.is_queued();
        let helped = helper.join().unwrap();
        let is_woken = machine.unparked.load(Ordering::Relaxed);
        assert!(
            !left || helped.is_some() || is_woken,
            "jobs that nobody comes to"
        );
        machine.holding.pop();
        let rest = chunk.run(0..JOBS);
        assert_eq!(own + helped.unwrap_or(0) + rest, JOBS, "each runs once");
        assert!(machine.holding.all().is_empty() && !machine.holding.is_any());
    });
}

#[test]
fn who_has_nothing_takes_part_or_is_woken() {
    a_worker_goes_to_sleep_beside_a_chunk(0);
    a_worker_goes_to_sleep_beside_a_chunk(1);
    a_worker_goes_to_sleep_beside_a_chunk(JOBS);
}

#[test]
fn it_needs_the_fences_of_the_sleep() {
    fails_without("announce fence", || {
        a_worker_goes_to_sleep_beside_a_chunk(1)
    });
    fails_without("claim any fence", || {
        a_worker_goes_to_sleep_beside_a_chunk(1)
    });
}

/// Two chunks within each other, of which the inner one goes, while somebody looks.
#[test]
fn a_chunk_is_found_while_it_is_shown_and_only_then() {
    loom::model(|| {
        let holding = Arc::new(Holding::default());
        holding.push(1);
        let other = {
            let holding = Arc::clone(&holding);
            thread::spawn(move || holding.get(|_| true))
        };
        holding.push(2);
        holding.pop();
        assert!(holding.is_any());
        assert_eq!(other.join().unwrap(), Some(1), "the outer one is there");
        holding.pop();
        assert_eq!(holding.get(|_| true), None);
    });
}
