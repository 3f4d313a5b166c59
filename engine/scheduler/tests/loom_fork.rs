//! A join from end to end, in every interleaving: its fork lies in the private list, may go to the
//! deque, may be robbed or stolen, and its owner takes it back or waits for its latch.
//!
//! List and latch are the real ones; what stands in for the deque and the parker is in `stand_ins`.
//! That somebody is idle is a flag here; the sleep protocol has models of its own.
#![cfg(reiver_loom)]

#[path = "stand_ins/deque.rs"]
mod deque;
#[path = "stand_ins/parker.rs"]
mod parker;

use std::sync::Arc;

use deque::Deque;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};
use parker::Parker;
use reiver::model::{Latch, PrivateList, Robber, Waits, fails_without};

struct Unparks(Arc<Parker>);

impl Waits for Unparks {
    fn wake_later(&self) -> impl FnOnce() + use<> {
        let parker = Arc::clone(&self.0);
        move || parker.unpark()
    }
}

/// In the frame of the owner, who sees to it that it outlives its execution.
struct Fork {
    runs: UnsafeCell<u32>,
    latch: Latch<Unparks>,
}

struct Machine {
    forks: Vec<Fork>,
    deque: Deque,
    robber: Robber<usize>,
    is_somebody_idle: AtomicBool,
}

// SAFETY: loom watches the cells.
unsafe impl Sync for Machine {}
// SAFETY: as above.
unsafe impl Send for Machine {}

struct Owner {
    machine: Arc<Machine>,
    list: PrivateList<usize>,
    parker: Arc<Parker>,
}

impl Machine {
    fn run(&self, fork: usize) {
        // SAFETY: loom watches it.
        self.forks[fork].runs.with_mut(|runs| unsafe { *runs += 1 });
    }

    /// By who is not its owner.
    fn execute(&self, fork: usize) {
        self.run(fork);
        // SAFETY: the machine is alive.
        unsafe { Latch::set(&raw const self.forks[fork].latch) };
    }
}

impl Owner {
    fn new(forks: usize, is_fenced: bool) -> Owner {
        let parker = Arc::new(Parker::new());
        let (list, robber) = PrivateList::new(usize::MAX);
        let fork = |_| Fork {
            runs: UnsafeCell::new(0),
            latch: Latch::new(Unparks(Arc::clone(&parker))),
        };
        let machine = Machine {
            forks: (0..forks).map(fork).collect(),
            deque: Deque::new(is_fenced),
            robber,
            is_somebody_idle: AtomicBool::new(false),
        };
        Owner {
            machine: Arc::new(machine),
            list,
            parker,
        }
    }

    /// As `Worker::push`.
    fn push(&self, fork: usize) {
        self.list.push(fork);
        if self.machine.is_somebody_idle.load(Ordering::Relaxed) {
            self.share();
        }
    }

    fn share(&self) {
        self.list.take_oldest(1, |fork| {
            self.machine.deque.push(fork);
            true
        });
    }

    /// As `join_here` once the first half has run.
    fn join(&self, fork: usize) {
        let machine = &*self.machine;
        if self.list.take_back(&fork) {
            return machine.run(fork);
        }
        loop {
            match self.list.pop().or_else(|| machine.deque.pop()) {
                Some(own) if own == fork => return machine.run(fork),
                Some(other) => machine.execute(other),
                None => break,
            }
        }
        while !machine.forks[fork].latch.is_set() {
            self.parker.park();
        }
    }

    fn check(&self) {
        for (fork, made) in self.machine.forks.iter().enumerate() {
            // SAFETY: loom watches it.
            let runs = made.runs.with(|runs| unsafe { *runs });
            assert_eq!(runs, 1, "fork {fork} is run once");
        }
    }

    fn thief(&self, body: impl FnOnce(&Machine) + 'static) -> JoinHandle<()> {
        let machine = Arc::clone(&self.machine);
        thread::spawn(move || body(&machine))
    }
}

fn steal(machine: &Machine) {
    if let Some(fork) = machine.deque.steal() {
        machine.execute(fork);
    }
}

fn rob(machine: &Machine) {
    machine.robber.rob(|fork| machine.execute(fork));
}

fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Its owner and a thief want the last fork of the deque.
#[test]
fn a_shared_fork_is_run_by_its_owner_or_a_thief_and_its_owner_finds_out() {
    loom::model(|| {
        let owner = Owner::new(1, true);
        owner.push(0);
        owner.share();
        let thief = owner.thief(steal);
        owner.join(0);
        thief.join().unwrap();
        owner.check();
    });
}

/// It is on its way from the list to the deque while a thief robs the one and looks into the other.
#[test]
fn a_fork_that_is_shared_while_a_thief_comes_is_run_once() {
    loom::model(|| {
        let owner = Owner::new(1, true);
        let thief = owner.thief(|machine| {
            machine.is_somebody_idle.store(true, Ordering::Relaxed);
            steal(machine);
            rob(machine);
        });
        owner.push(0);
        owner.join(0);
        thief.join().unwrap();
        owner.check();
    });
}

/// The older half is where thieves look, the newer in the private list.
#[test]
fn joins_within_each_other_end_when_one_is_shared_and_one_is_not() {
    bounded(3, || {
        let owner = Owner::new(2, true);
        owner.push(0);
        owner.share();
        owner.push(1);
        let thieves = [owner.thief(steal), owner.thief(rob)];
        owner.join(1);
        owner.join(0);
        thieves.into_iter().for_each(|thief| thief.join().unwrap());
        owner.check();
    });
}

#[test]
fn two_thieves_at_the_deque_do_not_both_run_a_fork() {
    bounded(3, || {
        let owner = Owner::new(2, true);
        (0..2).for_each(|fork| {
            owner.push(fork);
            owner.share();
        });
        let thieves = [owner.thief(steal), owner.thief(steal)];
        owner.join(1);
        owner.join(0);
        thieves.into_iter().for_each(|thief| thief.join().unwrap());
        owner.check();
    });
}

/// The owner's list is empty, and not by its own doing: whoever robbed the fork is at work on it.
#[test]
fn a_robbed_fork_is_waited_for() {
    loom::model(|| {
        let owner = Owner::new(1, true);
        owner.push(0);
        let thief = owner.thief(rob);
        owner.join(0);
        thief.join().unwrap();
        owner.check();
    });
}

/// The stand-in is one: without the fence of its owner the models fail.
#[test]
fn a_deque_without_its_fence_is_caught() {
    let broken = || {
        loom::model(|| {
            let owner = Owner::new(2, false);
            (0..2).for_each(|fork| {
                owner.push(fork);
                owner.share();
            });
            let thief = owner.thief(|machine| {
                steal(machine);
                steal(machine);
            });
            owner.join(1);
            owner.join(0);
            thief.join().unwrap();
            owner.check();
        });
    };
    assert!(std::panic::catch_unwind(broken).is_err());
}

#[test]
fn a_join_needs_the_fences_of_its_list() {
    for name in ["private take fence", "private rob fence"] {
        fails_without(name, || {
            loom::model(|| {
                let owner = Owner::new(1, true);
                owner.push(0);
                let thief = owner.thief(rob);
                owner.join(0);
                thief.join().unwrap();
                owner.check();
            });
        });
    }
}
