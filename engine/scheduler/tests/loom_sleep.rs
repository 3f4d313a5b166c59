//! The sleep protocol in every interleaving: nobody sleeps beside work that he could do, unless he has
//! been woken. `src/protocol/sleep/README.md` says which claim each model checks.
//!
//! A [`Machine`] does what `worker/` and `shared/` do around the protocol. Its queues stand in for
//! injectors and deques: they say how much lies there, by relaxed operations, so that only the fences
//! of the protocol order them; what `crossbeam` orders on its own is not relied on. A parker is its
//! token. A worker that has found something works to the end of the model, as in a long leaf; one whose
//! token is not set has parked. The private list is the real one.
//!
//! The kernel's barrier is the fence that it implies, and the cheap side a whole one (`barrier.rs`);
//! where the kernel refuses, the cheap side is taken away.
#![cfg(reiver_loom)]

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};
use reiver::model::Sleep::{Idle, Waiting};
use reiver::model::{PrivateList, Robber, Sleepers, fails_without, refused, without};

/// How much lies there.
struct Queue(AtomicUsize);

impl Queue {
    fn new() -> Queue {
        Queue(AtomicUsize::new(0))
    }

    fn push(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn has(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn take(&self) -> bool {
        let took = |held: usize| held.checked_sub(1);
        let taken = self.has().then(|| {
            self.0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, took)
        });
        taken.is_some_and(|taken| taken.is_ok())
    }

    fn left(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

struct Machine {
    sleepers: Sleepers,
    /// The node of each worker.
    nodes: Vec<usize>,
    /// What anybody may do.
    work: Queue,
    /// By node: what its own workers may do.
    strict: [Queue; 2],
    /// Of a worker that is busy.
    robber: Option<Robber<usize>>,
    /// The tokens of the workers' parkers.
    unparked: Vec<AtomicBool>,
}

impl Machine {
    /// Workers on these nodes.
    fn new(nodes: &[usize]) -> Machine {
        Machine::with(nodes, false)
    }

    fn with(nodes: &[usize], eager: bool) -> Machine {
        let of = |node: usize| (0..nodes.len()).filter(move |&worker| nodes[worker] == node);
        Machine {
            sleepers: Sleepers::new(vec![of(0).collect(), of(1).collect()], eager),
            nodes: nodes.to_vec(),
            work: Queue::new(),
            strict: [Queue::new(), Queue::new()],
            robber: None,
            unparked: nodes.iter().map(|_| AtomicBool::new(false)).collect(),
        }
    }

    fn wake(&self, worker: Option<usize>) {
        if let Some(worker) = worker {
            self.unparked[worker].swap(true, Ordering::SeqCst);
        }
    }

    fn near(node: usize) -> impl Iterator<Item = usize> + Clone {
        [node, 1 - node].into_iter()
    }

    fn wake_one(&self) {
        self.wake(self.sleepers.claim_for_any(Machine::near(0)));
    }

    fn push(&self) {
        self.work.push();
        self.wake_one();
    }

    fn push_strict(&self, node: usize) {
        self.strict[node].push();
        self.wake(self.sleepers.claim(std::iter::once(node)));
    }

    fn find(&self, worker: usize) -> bool {
        self.strict[self.nodes[worker]].take() || self.work.take()
    }

    fn rob(&self) -> bool {
        let robbed = |robber: &Robber<usize>| {
            let mut taken = 0;
            if robber.is_worth_it() {
                robber.rob(|_| taken += 1);
            }
            // The rest lies where others can steal it.
            (1..taken).for_each(|_| self.work.push());
            taken > 0
        };
        self.robber.as_ref().is_some_and(robbed)
    }

    /// As `Worker::push` and `Worker::share`.
    fn fork(&self, list: &PrivateList<usize>, fork: usize) {
        list.push(fork);
        if !self.sleepers.demand().is_any() {
            return;
        }
        let is_eager = self.sleepers.is_eager();
        if is_eager || !self.work.has() {
            let most = if is_eager { usize::MAX } else { 1 };
            list.take_oldest(most, |_| {
                self.work.push();
                true
            });
            self.wake_one();
        }
    }

    fn sleeps(&self, worker: usize) {
        self.sleepers.seek(Idle);
        let bit = self.sleepers.bit(self.nodes[worker], worker);
        self.sleepers.announce(bit, Idle);
    }

    fn stop_seeking(&self, worker: usize) {
        self.sleepers.leave(Idle);
        let node = self.nodes[worker];
        let has_strict = || self.strict[node].has();
        let has_work = || self.work.has() || self.robber.as_ref().is_some_and(Robber::is_worth_it);
        let near = Machine::near(node);
        self.wake(self.sleepers.pass_on(node, near, has_strict, has_work));
    }

    /// A worker that has nothing to do: true once it works, false once it has parked and nobody has
    /// woken it so far.
    fn idle(&self, worker: usize) -> bool {
        self.sleepers.seek(Idle);
        self.search(worker)
    }

    /// One that has slept, and is woken if it is ever to be.
    fn woken(&self, worker: usize) -> bool {
        if !self.unparked[worker].swap(false, Ordering::SeqCst) {
            return false;
        }
        let bit = self.sleepers.bit(self.nodes[worker], worker);
        self.sleepers.retract(bit, Idle);
        self.search(worker)
    }

    fn search(&self, worker: usize) -> bool {
        let bit = self.sleepers.bit(self.nodes[worker], worker);
        loop {
            if self.find(worker) {
                self.stop_seeking(worker);
                return true;
            }
            self.sleepers.announce(bit, Idle);
            if self.find(worker) || self.rob() {
                self.sleepers.retract(bit, Idle);
                self.stop_seeking(worker);
                return true;
            }
            if !self.unparked[worker].swap(false, Ordering::SeqCst) {
                return false;
            }
            self.sleepers.retract(bit, Idle);
        }
    }

    /// What must hold once everybody works or is parked: nothing that somebody could do who sleeps and
    /// is not woken, unless another one is, who will see to it.
    fn check(&self, works: &[bool]) {
        let sleeps = |worker: usize| !works[worker];
        let woken = |worker: usize| self.unparked[worker].load(Ordering::SeqCst);
        let any_beside = |could: &dyn Fn(usize) -> bool| {
            let mut sleepers = (0..works.len()).filter(|&worker| sleeps(worker) && could(worker));
            let (mut sleepers, woken) = (sleepers.clone(), sleepers.any(woken));
            sleepers.next().is_some() && !woken
        };
        let private = self.robber.as_ref().is_some_and(Robber::is_worth_it);
        let left = self.work.left() > 0 || private;
        assert!(!(left && any_beside(&|_| true)), "work beside a sleeper");
        for (node, strict) in self.strict.iter().enumerate() {
            let of_node = |worker: usize| self.nodes[worker] == node;
            assert!(
                !(strict.left() > 0 && any_beside(&of_node)),
                "strict work beside a sleeper of its node"
            );
        }
    }
}

trait Running {
    fn run<R: 'static>(&self, body: impl FnOnce(&Machine) -> R + 'static) -> JoinHandle<R>;
}

impl Running for Arc<Machine> {
    fn run<R: 'static>(&self, body: impl FnOnce(&Machine) -> R + 'static) -> JoinHandle<R> {
        let machine = Arc::clone(self);
        thread::spawn(move || body(&machine))
    }
}

/// Three threads take hours without a bound, two with a private list minutes.
fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn a_push_beside_who_goes_to_sleep() {
    loom::model(|| {
        let machine = Arc::new(Machine::new(&[0]));
        let pusher = machine.run(Machine::push);
        let works = machine.idle(0);
        pusher.join().unwrap();
        machine.check(&[works]);
    });
}

/// Work comes from outside while the only worker falls asleep.
#[test]
fn no_work_is_slept_through() {
    a_push_beside_who_goes_to_sleep();
}

/// Worker 1 is woken for work that worker 0 takes, finds none, and sleeps again; the next push claims
/// worker 0, which has not retracted its bit yet. Only worker 0 can know of it then.
#[test]
fn a_wake_is_not_swallowed() {
    bounded(3, || {
        let machine = Arc::new(Machine::new(&[0, 0]));
        machine.sleeps(1);
        machine.push();
        let pusher = machine.run(Machine::push);
        let other = machine.run(|machine| machine.woken(1));
        let works = [machine.idle(0), other.join().unwrap()];
        pusher.join().unwrap();
        machine.check(&works);
    });
}

fn a_push_that_relies_on_a_search() {
    loom::model(|| {
        let machine = Arc::new(Machine::new(&[0, 0]));
        machine.sleeps(1);
        machine.sleepers.seek(Idle);
        machine.work.push();
        let pusher = machine.run(Machine::push);
        let works = machine.search(0);
        pusher.join().unwrap();
        machine.check(&[works, false]);
    });
}

/// Who has pushed wakes nobody, because a worker searches; that one finds something else.
#[test]
fn who_relies_on_a_search_is_not_let_down_when_it_ends_with_other_work() {
    a_push_that_relies_on_a_search();
}

/// As above, with two that search: the one that leaves relies on the other, which falls asleep.
#[test]
fn who_leaves_its_search_may_rely_on_another_that_searches() {
    bounded(4, || {
        let machine = Arc::new(Machine::new(&[0, 0]));
        machine.sleepers.seek(Idle);
        machine.sleepers.seek(Idle);
        machine.work.push();
        let pusher = machine.run(Machine::push);
        let other = machine.run(|machine| machine.search(1));
        let works = [machine.search(0), other.join().unwrap()];
        pusher.join().unwrap();
        machine.check(&works);
    });
}

/// One that waits in a join and looks for forks does not take a job: nobody may rely on it.
#[test]
fn who_waits_inside_work_is_not_relied_on_for_all_work() {
    loom::model(|| {
        let machine = Arc::new(Machine::new(&[0, 0]));
        machine.sleeps(1);
        let waits = machine.run(|machine| {
            machine.sleepers.seek(Waiting);
            machine.sleepers.leave(Waiting);
        });
        machine.push();
        waits.join().unwrap();
        // Worker 0 works; it was in a join.
        machine.check(&[true, false]);
    });
}

fn a_strict_push_beside_who_goes_to_sleep() {
    loom::model(|| {
        let machine = Arc::new(Machine::new(&[0, 1]));
        machine.sleepers.seek(Idle);
        let pusher = machine.run(|machine| machine.push_strict(0));
        let works = machine.idle(0);
        pusher.join().unwrap();
        machine.check(&[works, true]);
    });
}

/// Worker 1, of another node, searches all the while.
#[test]
fn strict_work_is_not_left_to_who_searches_on_another_node() {
    a_strict_push_beside_who_goes_to_sleep();
}

/// Worker 0 takes one of two jobs that only its node may do; a job for all was left to its search.
#[test]
fn what_all_may_do_is_passed_on_beside_what_only_one_node_may() {
    loom::model(|| {
        let machine = Arc::new(Machine::new(&[0, 1]));
        machine.sleeps(1);
        machine.sleepers.seek(Idle);
        machine.push_strict(0);
        machine.push_strict(0);
        let pusher = machine.run(Machine::push);
        let works = machine.search(0);
        pusher.join().unwrap();
        machine.check(&[works, false]);
    });
}

/// A worker of the node, woken for strict work, finds other work before it.
#[test]
fn strict_work_is_passed_on_within_its_node() {
    loom::model(|| {
        let machine = Arc::new(Machine::new(&[0, 0]));
        machine.sleeps(1);
        let pusher = machine.run(|machine| {
            machine.push_strict(0);
            machine.push_strict(0);
        });
        let works = machine.idle(0);
        pusher.join().unwrap();
        machine.check(&[works, false]);
    });
}

#[test]
fn two_pushes_wake_two_sleepers() {
    loom::model(|| {
        let machine = Arc::new(Machine::new(&[0, 1]));
        machine.sleeps(0);
        machine.sleeps(1);
        let pusher = machine.run(Machine::push);
        machine.push();
        pusher.join().unwrap();
        for token in &machine.unparked {
            assert!(token.load(Ordering::SeqCst), "both wake the same sleeper");
        }
    });
}

/// Two have work for one sleeper: one of them wakes it, the other knows that it has not.
#[test]
fn a_sleeper_is_claimed_once() {
    loom::model(|| {
        let machine = Arc::new(Machine::new(&[0]));
        machine.sleeps(0);
        let claim = |machine: &Machine| machine.sleepers.claim(std::iter::once(0));
        let other = machine.run(claim);
        let claims = [claim(&machine), other.join().unwrap()];
        assert_eq!(claims.iter().flatten().count(), 1);
    });
}

/// Worker 0 is busy, and begins so many forks; the others are idle.
fn forks_beside(machine: impl FnOnce() -> Machine, forks: usize) {
    let mut machine = machine();
    let idle = machine.nodes.len() - 1;
    let (list, robber) = PrivateList::new(usize::MAX);
    machine.robber = Some(robber);
    let machine = Arc::new(machine);
    let idlers: Vec<_> = (1..=idle)
        .map(|worker| machine.run(move |machine| machine.idle(worker)))
        .collect();
    (0..forks).for_each(|fork| machine.fork(&list, fork));
    let works = idlers.into_iter().map(|idler| idler.join().unwrap());
    let works: Vec<bool> = std::iter::once(true).chain(works).collect();
    machine.check(&works);
}

fn a_fork_beside_who_goes_to_sleep() {
    loom::model(|| forks_beside(|| Machine::new(&[0, 0]), 1));
}

/// Whoever forks sees that somebody is idle, or that one sees the fork: then both work.
#[test]
fn no_private_fork_is_slept_through() {
    a_fork_beside_who_goes_to_sleep();
}

#[test]
fn what_is_left_of_two_private_forks_is_not_slept_through() {
    bounded(3, || forks_beside(|| Machine::new(&[0, 0]), 2));
}

/// Each finds the other at the list and goes away.
#[test]
fn two_thieves_do_not_leave_a_fork_to_each_other() {
    bounded(3, || forks_beside(|| Machine::new(&[0, 0, 0]), 2));
}

fn an_eager_fork_beside_who_goes_to_sleep() {
    bounded(3, || forks_beside(|| Machine::with(&[0, 0], true), 1));
}

/// The kernel refuses the barrier from the start: the cheap fence is none, and nobody needs it.
#[test]
fn forks_are_shared_at_once_where_there_is_no_barrier() {
    refused(|| without(&["demand fence"], an_eager_fork_beside_who_goes_to_sleep));
}

/// The kernel has granted the barrier, and refuses it now, when a worker is about to sleep: a fork that
/// lies private then cannot be robbed, and is its owner's unless that one sees that it is to share.
#[test]
fn a_fork_is_run_once_when_the_barrier_is_lost() {
    let none = ["demand fence", "private take fence"];
    let model = || {
        bounded(3, || {
            let mut machine = Machine::new(&[0, 0]);
            let (list, robber) = PrivateList::new(usize::MAX);
            machine.robber = Some(robber);
            let machine = Arc::new(machine);
            let idler = machine.run(|machine| machine.idle(1));
            machine.fork(&list, 0);
            let own = list.take_back(&0) || machine.work.take();
            let stolen = idler.join().unwrap();
            assert!(machine.sleepers.is_eager() || stolen);
            assert_eq!(usize::from(own) + usize::from(stolen), 1);
        });
    };
    refused(|| without(&none, model));
}

#[test]
fn who_goes_to_sleep_needs_its_fence() {
    fails_without("announce fence", a_push_beside_who_goes_to_sleep);
    fails_without("announce fence", a_fork_beside_who_goes_to_sleep);
}

#[test]
fn who_pushes_for_all_needs_its_fence() {
    fails_without("claim any fence", a_push_beside_who_goes_to_sleep);
    fails_without("claim any fence", a_push_that_relies_on_a_search);
}

#[test]
fn who_pushes_for_a_node_needs_its_fence() {
    fails_without("claim fence", a_strict_push_beside_who_goes_to_sleep);
}

#[test]
fn who_leaves_a_search_needs_its_fence() {
    fails_without("pass on fence", a_push_that_relies_on_a_search);
}

#[test]
fn who_forks_needs_the_cheap_fence() {
    fails_without("demand fence", a_fork_beside_who_goes_to_sleep);
}

#[test]
fn who_goes_to_sleep_without_a_barrier_needs_a_whole_fence() {
    fails_without("announce eager fence", || {
        refused(an_eager_fork_beside_who_goes_to_sleep);
    });
}
