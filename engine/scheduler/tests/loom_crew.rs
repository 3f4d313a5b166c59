//! Who of a crew has a thread, in every interleaving: no work is left to a worker that leaves, to a call
//! that was answered before, or to threads that the system refuses. `src/crew.rs` has the protocol.
//!
//! The spawner runs what it starts to its end at once; that workers wake each other is in
//! `loom_sleep.rs`.
#![cfg(reiver_loom)]

use std::sync::Arc;

use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use reiver::model::{HandOver, Muster, fails_without};

/// What the spawner is asked.
enum Request {
    Call,
    Left,
}

struct Crew {
    muster: Muster,
    /// How much lies there, by relaxed operations, so that only the fences order it.
    work: AtomicUsize,
    requests: HandOver<Request>,
}

impl Crew {
    /// A crew of one, without a thread.
    fn new() -> Arc<Crew> {
        Arc::new(Crew {
            muster: Muster::new(1),
            work: AtomicUsize::new(0),
            requests: HandOver::default(),
        })
    }

    fn push(&self) {
        self.work.fetch_add(1, Ordering::Relaxed);
        if self.muster.calls() {
            self.requests.put(Request::Call);
        }
        if self.muster.is_refused() {
            self.take_all();
        }
    }

    fn has_work(&self) -> bool {
        self.work.load(Ordering::Relaxed) > 0
    }

    fn take_all(&self) {
        if self.has_work() {
            self.work.swap(0, Ordering::Relaxed);
        }
    }

    /// A worker without work: true if it leaves.
    fn leaves(&self) -> bool {
        self.muster.leaves();
        let leaves = !self.has_work();
        if !leaves {
            self.muster.stays();
        }
        leaves
    }

    /// Works until there is nothing left.
    fn live(&self) {
        loop {
            self.take_all();
            if self.leaves() {
                self.requests.put(Request::Left);
                return;
            }
        }
    }

    /// The spawner does what it was asked, with so many workers that have no thread.
    fn serve(&self, unstarted: &mut usize) {
        for request in self.requests.take_all() {
            let starts = match request {
                Request::Call => true,
                Request::Left => {
                    *unstarted += 1;
                    self.muster.left();
                    self.has_work()
                }
            };
            if starts {
                self.muster.answers();
                if *unstarted > 0 {
                    *unstarted -= 1;
                    self.muster.comes();
                    self.live();
                }
            }
        }
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// The spawner hears of it that it has left before or after the push.
fn a_push_beside_one_that_leaves() {
    check(|| {
        let crew = Crew::new();
        crew.muster.comes();
        let worker = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || {
                crew.live();
                let mut unstarted = 0;
                crew.serve(&mut unstarted);
                unstarted
            })
        };
        crew.push();
        let mut unstarted = worker.join().unwrap();
        while !crew.requests.is_empty() {
            crew.serve(&mut unstarted);
        }
        assert!(!crew.has_work());
    });
}

#[test]
fn work_that_comes_while_a_worker_leaves_is_done() {
    a_push_beside_one_that_leaves();
}

fn two_pushes_beside_the_spawner() {
    check(|| {
        let crew = Crew::new();
        let pusher = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || crew.push())
        };
        let spawner = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || {
                let mut unstarted = 1;
                crew.serve(&mut unstarted);
                unstarted
            })
        };
        crew.push();
        pusher.join().unwrap();
        let mut unstarted = spawner.join().unwrap();
        while !crew.requests.is_empty() {
            crew.serve(&mut unstarted);
        }
        assert!(!crew.has_work());
    });
}

#[test]
fn who_relies_on_anothers_call_is_not_let_down() {
    two_pushes_beside_the_spawner();
}

fn a_push_beside_a_refusal() {
    check(|| {
        let crew = Crew::new();
        let spawner = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || {
                crew.muster.answers();
                crew.muster.comes();
                if crew.muster.refuses() {
                    crew.take_all();
                }
            })
        };
        crew.push();
        spawner.join().unwrap();
        assert!(!crew.has_work());
    });
}

#[test]
fn work_for_which_threads_are_refused_is_taken_elsewhere() {
    a_push_beside_a_refusal();
}

#[test]
fn each_order_is_needed() {
    fails_without("muster call fence", a_push_beside_one_that_leaves);
    fails_without("muster leave fence", a_push_beside_one_that_leaves);
    fails_without("muster refuse fence", a_push_beside_a_refusal);
}
