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
use reiver::model::{Away, HandOver, Muster, fails_without};

/// What the spawner is asked.
enum Request {
    Call,
    /// By a worker of this node.
    Left(usize),
}

struct Crew {
    muster: Muster,
    /// By node: how much lies there that only its own workers do, by relaxed operations, so that only the
    /// fences order it.
    work: Vec<AtomicUsize>,
    requests: HandOver<Request>,
    away: Away,
}

impl Crew {
    /// A crew of one at each of so many nodes, none of whom has a thread.
    fn new(nodes: usize) -> Arc<Crew> {
        Arc::new(Crew {
            muster: Muster::new(nodes, nodes),
            work: (0..nodes).map(|_| AtomicUsize::new(0)).collect(),
            requests: HandOver::default(),
            away: Away::default(),
        })
    }

    fn push(&self, node: usize) {
        self.work[node].fetch_add(1, Ordering::Relaxed);
        self.call_for_more();
    }

    fn call_for_more(&self) {
        if self.muster.calls() {
            self.requests.put(Request::Call);
        }
        self.leave_to_others();
    }

    fn leave_to_others(&self) {
        if self.muster.is_refused() || self.away.is_so() {
            let nodes = 0..self.work.len();
            let left = nodes.filter(|&node| self.muster.present_at(node) == 0);
            left.for_each(|node| self.take_all(node));
        }
    }

    fn has_work(&self) -> bool {
        self.work
            .iter()
            .any(|work| work.load(Ordering::Relaxed) > 0)
    }

    fn take_all(&self, node: usize) {
        if self.work[node].load(Ordering::Relaxed) > 0 {
            self.work[node].swap(0, Ordering::Relaxed);
        }
    }

    /// A worker without work: true if it leaves.
    fn leaves(&self, node: usize) -> bool {
        self.muster.leaves(node);
        let leaves = !self.has_work();
        if !leaves {
            self.muster.stays(node);
        }
        leaves
    }

    /// Works until there is nothing left.
    fn live(&self, node: usize) {
        loop {
            self.take_all(node);
            if self.leaves(node) {
                self.requests.put(Request::Left(node));
                return;
            }
        }
    }

    /// The spawner does what it was asked, with workers of these nodes that have no thread.
    fn serve(&self, unstarted: &mut Vec<usize>) {
        for request in self.requests.take_all() {
            let starts = match request {
                Request::Call => true,
                Request::Left(node) => {
                    unstarted.push(node);
                    self.muster.left();
                    self.has_work()
                }
            };
            if starts {
                self.muster.answers();
                while let Some(node) = unstarted.pop() {
                    self.muster.comes(node);
                    self.live(node);
                }
            }
        }
    }

    fn serve_all(&self, mut unstarted: Vec<usize>) {
        while !self.requests.is_empty() {
            self.serve(&mut unstarted);
        }
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Runs `spawner` beside a push for a node; gives what that gives.
fn beside_a_push<T: Send + 'static>(
    crew: &Arc<Crew>,
    node: usize,
    spawner: impl FnOnce(&Crew) -> T + Send + 'static,
) -> T {
    let other = {
        let crew = Arc::clone(crew);
        thread::spawn(move || spawner(&crew))
    };
    crew.push(node);
    other.join().unwrap()
}

/// The spawner hears of it that it has left before or after the push.
fn a_push_beside_one_that_leaves() {
    check(|| {
        let crew = Crew::new(1);
        crew.muster.comes(0);
        let unstarted = beside_a_push(&crew, 0, |crew| {
            crew.live(0);
            let mut unstarted = Vec::new();
            crew.serve(&mut unstarted);
            unstarted
        });
        crew.serve_all(unstarted);
        assert!(!crew.has_work());
    });
}

#[test]
fn work_that_comes_while_a_worker_leaves_is_done() {
    a_push_beside_one_that_leaves();
}

/// It has left when another one is started, which is taken for it; the spawner hears of that later.
fn a_push_beside_one_that_is_not_counted_absent() {
    check(|| {
        let crew = Crew::new(2);
        crew.muster.comes(0);
        crew.muster.comes(1);
        // Of none is it worth asking.
        crew.muster.refuses(0);
        beside_a_push(&crew, 1, |crew| {
            if crew.leaves(1) {
                crew.muster.comes(0);
                crew.muster.left();
            }
            crew.take_all(1);
        });
        crew.serve_all(vec![1]);
        assert!(!crew.has_work());
    });
}

#[test]
fn who_has_left_is_counted_absent_once_the_spawner_hears_of_it() {
    a_push_beside_one_that_is_not_counted_absent();
}

fn two_pushes_beside_the_spawner() {
    check(|| {
        let crew = Crew::new(1);
        let pusher = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || crew.push(0))
        };
        let unstarted = beside_a_push(&crew, 0, |crew| {
            let mut unstarted = vec![0];
            crew.serve(&mut unstarted);
            unstarted
        });
        pusher.join().unwrap();
        crew.serve_all(unstarted);
        assert!(!crew.has_work());
    });
}

#[test]
fn who_relies_on_anothers_call_is_not_let_down() {
    two_pushes_beside_the_spawner();
}

/// The first node has its thread, the second gets none.
fn a_push_beside_a_refusal() {
    check(|| {
        let crew = Crew::new(2);
        beside_a_push(&crew, 1, |crew| {
            crew.muster.answers();
            crew.muster.comes(0);
            crew.muster.comes(1);
            crew.muster.refuses(1);
            crew.leave_to_others();
        });
        assert!(!crew.has_work());
    });
}

#[test]
fn work_for_which_threads_are_refused_is_taken_elsewhere() {
    a_push_beside_a_refusal();
}

/// The spawner is in somebody else's code, which waits for the work: it serves nobody.
fn a_push_beside_a_spawner_that_goes_away() {
    check(|| {
        let crew = Crew::new(1);
        beside_a_push(&crew, 0, |crew| {
            crew.away.goes();
            crew.leave_to_others();
        });
        assert!(!crew.has_work());
    });
}

/// It is away when the last worker leaves, and does not hear of it.
fn a_push_beside_one_that_leaves_unheard() {
    check(|| {
        let crew = Crew::new(1);
        crew.muster.comes(0);
        crew.away.goes();
        beside_a_push(&crew, 0, |crew| crew.live(0));
        assert!(!crew.has_work());
    });
}

fn a_request_beside_one_who_goes_away() {
    check(|| {
        let brought = Arc::new((HandOver::default(), Away::default()));
        let spawner = {
            let brought = Arc::clone(&brought);
            thread::spawn(move || {
                brought.1.goes();
                brought.0.take_all().len()
            })
        };
        brought.0.put(());
        let mut done = 0;
        if brought.1.after_asking() {
            done += brought.0.take_all().len();
        }
        assert_eq!(done + spawner.join().unwrap(), 1);
    });
}

#[test]
fn nothing_is_left_to_a_spawner_that_is_away() {
    a_push_beside_a_spawner_that_goes_away();
    a_push_beside_one_that_leaves_unheard();
    a_request_beside_one_who_goes_away();
}

/// Somebody of another crew takes all into its hands, as who moves it or sweeps it does, and keeps one: the
/// worker finds nothing meanwhile.
fn work_in_hand_beside_one_that_leaves(calls: bool) {
    check(move || {
        let crew = Crew::new(1);
        crew.muster.comes(0);
        crew.work[0].store(2, Ordering::Relaxed);
        let other = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || {
                let taken = crew.work[0].swap(0, Ordering::Relaxed);
                if taken == 2 {
                    crew.work[0].fetch_add(1, Ordering::Relaxed);
                    if calls {
                        crew.call_for_more();
                    }
                }
            })
        };
        crew.live(0);
        let mut unstarted = Vec::new();
        crew.serve(&mut unstarted);
        other.join().unwrap();
        crew.serve_all(unstarted);
        assert!(!crew.has_work());
    });
}

#[test]
fn who_has_had_work_in_hand_calls_for_who_has_left_meanwhile() {
    work_in_hand_beside_one_that_leaves(true);
}

#[test]
#[should_panic]
fn who_has_had_work_in_hand_has_to_call() {
    work_in_hand_beside_one_that_leaves(false);
}

#[test]
fn each_order_is_needed() {
    fails_without("muster call fence", a_push_beside_one_that_leaves);
    fails_without("muster leave fence", a_push_beside_one_that_leaves_unheard);
    fails_without(
        "muster left fence",
        a_push_beside_one_that_is_not_counted_absent,
    );
    fails_without("muster refuse fence", a_push_beside_a_refusal);
    fails_without("away fence", a_push_beside_a_spawner_that_goes_away);
    fails_without("away fence", a_request_beside_one_who_goes_away);
    fails_without("away ask fence", a_request_beside_one_who_goes_away);
}
