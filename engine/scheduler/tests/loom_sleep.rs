//! The sleep protocol and the claim of a job in every interleaving.
//!
//!     RUSTFLAGS="--cfg reiver_loom" cargo test -p reiver --release --target-dir target/loom --test loom_sleep
//!
//! The models have been seen to fail: without the fence in `Sleepers::announce`, and without the one
//! in `Sleepers::claim`, `no_work_is_slept_through` ends with a worker asleep beside work; without
//! the wake that a worker passes on when it has been claimed and found other work,
//! `a_wake_is_not_swallowed` does.
#![cfg(reiver_loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use reiver::model::{Sleep::Idle, Sleepers, State};

/// A queue of which only the length matters.
struct Machine {
    sleepers: Sleepers,
    work: AtomicUsize,
    /// The tokens of the workers' parkers.
    unparked: [AtomicBool; 2],
}

impl Machine {
    fn new(workers: usize) -> Machine {
        Machine {
            sleepers: Sleepers::new(vec![(0..workers).collect()], false),
            work: AtomicUsize::new(0),
            unparked: [AtomicBool::new(false), AtomicBool::new(false)],
        }
    }

    fn wake_one(&self) {
        if let Some(worker) = self.sleepers.claim([0].into_iter()) {
            self.unparked[worker].swap(true, Ordering::SeqCst);
        }
    }

    fn push(&self) {
        self.work.fetch_add(1, Ordering::Relaxed);
        self.wake_one();
    }

    fn find(&self) -> bool {
        let took = |work: usize| work.checked_sub(1);
        self.work
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, took)
            .is_ok()
    }

    /// A worker whose search has found nothing: true once it works, for as long as may be; false
    /// when it has parked and nobody has woken it so far.
    fn idle(&self, worker: usize) -> bool {
        let bit = self.sleepers.bit(0, worker);
        loop {
            self.sleepers.announce(bit, Idle);
            let found = self.find();
            if !found && !self.unparked[worker].swap(false, Ordering::SeqCst) {
                return false;
            }
            self.sleepers.retract(bit, Idle);
            if found || self.find() {
                self.wake_one();
                return true;
            }
        }
    }

    /// What must hold once everybody works or is parked: no work beside a sleeper nobody wakes.
    fn check(&self, works: &[bool]) {
        let left = self.work.load(Ordering::SeqCst);
        let mut sleepers = (0..works.len()).filter(|&worker| !works[worker]).peekable();
        let woken = |worker: usize| self.unparked[worker].load(Ordering::SeqCst);
        assert!(
            left == 0 || sleepers.peek().is_none() || sleepers.any(woken),
            "work is left beside sleepers that nobody wakes"
        );
    }
}

#[test]
fn no_work_is_slept_through() {
    loom::model(|| {
        let machine = Arc::new(Machine::new(1));
        let pusher = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.push())
        };
        let works = machine.idle(0);
        pusher.join().unwrap();
        machine.check(&[works]);
    });
}

/// Worker 1 is woken for work that worker 0 takes, finds none, and sleeps again; the next push
/// claims worker 0, which has not retracted its bit yet. Only worker 0 can know of it then.
#[test]
fn a_wake_is_not_swallowed() {
    let mut model = loom::model::Builder::new();
    // Three threads take hours without a bound.
    model.preemption_bound = Some(4);
    model.check(|| {
        let machine = Arc::new(Machine::new(2));
        machine.sleepers.announce(machine.sleepers.bit(0, 1), Idle);
        machine.push();
        let pusher = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.push())
        };
        let other = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.idle(1))
        };
        let works = [machine.idle(0), other.join().unwrap()];
        pusher.join().unwrap();
        machine.check(&works);
    });
}

#[test]
fn a_job_is_run_or_ended_by_one_alone() {
    loom::model(|| {
        let state = Arc::new(State::queued());
        let claim = |state: &Arc<State>| {
            let state = Arc::clone(state);
            thread::spawn(move || state.claim())
        };
        let (worker, canceller) = (claim(&state), claim(&state));
        let helper = state.claim();
        let claims = [worker.join().unwrap(), canceller.join().unwrap(), helper];
        assert_eq!(claims.iter().filter(|&&claimed| claimed).count(), 1);
        assert!(!state.is_queued());
    });
}
