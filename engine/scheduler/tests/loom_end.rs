//! How an engine and its jobs end, in every interleaving: no job is lost while intake closes, no fork
//! while the workers leave, nobody waits for an end that has been, and who is cancelled is told.
//!
//! [`Queue`] stands in for an injector: it says how many lie there, and no more. `crossbeam`'s steps are
//! sequentially consistent, which loom does not know of accesses: the fence that stands for it on the
//! side of who empties the queue is here, that of who has pushed in `Drain::ends_queued` (see
//! `sync::total`). So these models do not check that the injector has that order.
#![cfg(reiver_loom)]

#[path = "stand_ins/parker.rs"]
mod parker;

use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
use loom::thread;
use parker::Parker;
use reiver::model::{Drain, Notice, State, Stop, fails_without, without};

/// The number of whoever does not count alone.
const STRANGER: usize = 2;

struct Queue(AtomicUsize);

impl Queue {
    fn new() -> Queue {
        Queue(AtomicUsize::new(0))
    }

    fn push(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// As far as the caller sees.
    fn take_all(&self) -> usize {
        match self.0.load(Ordering::Acquire) {
            0 => 0,
            _ => self.0.swap(0, Ordering::AcqRel),
        }
    }
}

struct Wakes(Parker);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Engine {
    drain: Drain,
    queue: Queue,
    /// What a job does.
    done: UnsafeCell<bool>,
}

// SAFETY: loom watches the cell.
unsafe impl Sync for Engine {}
// SAFETY: as above.
unsafe impl Send for Engine {}

impl Engine {
    fn new() -> Arc<Engine> {
        Arc::new(Engine {
            drain: Drain::new(2),
            queue: Queue::new(),
            done: UnsafeCell::new(false),
        })
    }

    /// A job that runs on a worker of this number ends.
    fn run(&self, lane: usize) {
        // SAFETY: loom watches it.
        self.done.with_mut(|done| unsafe { *done = true });
        self.drain.note_gone(lane);
    }

    fn is_done(&self) -> bool {
        // SAFETY: loom watches it.
        self.done.with(|done| unsafe { *done })
    }

    fn wait(&self, own: &[usize]) {
        let wakes = Arc::new(Wakes(Parker::new()));
        let waker = Waker::from(Arc::clone(&wakes));
        self.drain.wait(own, |is_drained| {
            while !is_drained(&waker) {
                wakes.0.park();
            }
            true
        });
    }

    fn end_queued(&self) {
        self.drain.end_queued();
        // What the injector's own order is.
        fence(Ordering::SeqCst);
        self.empty();
    }

    fn empty(&self) {
        (0..self.queue.take_all()).for_each(|_| self.drain.note_gone(STRANGER));
    }
}

fn submit_beside_an_end() {
    loom::model(|| {
        let engine = Engine::new();
        let submitter = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                if engine.drain.admit(1) {
                    engine.queue.push();
                    if engine.drain.ends_queued() {
                        engine.empty();
                    }
                }
            })
        };
        engine.drain.close();
        engine.end_queued();
        engine.wait(&[]);
        submitter.join().unwrap();
        assert_eq!(engine.queue.take_all(), 0);
    });
}

/// It is pushed just after the queues were emptied: then whoever waits would wait for ever.
#[test]
fn a_job_that_comes_while_intake_closes_is_ended_or_refused() {
    submit_beside_an_end();
}

fn one_job(lane: usize) {
    loom::model(move || {
        let engine = Engine::new();
        assert!(engine.drain.admit(1));
        let job = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || engine.run(lane))
        };
        engine.drain.close();
        engine.wait(&[]);
        assert!(engine.is_done());
        job.join().unwrap();
    });
}

#[test]
fn who_waits_for_the_end_is_woken_and_sees_what_was_done() {
    one_job(0);
    one_job(STRANGER);
}

/// After the close, so that the fence beside which the barrier stands is none.
fn two_jobs(lanes: [usize; 2]) {
    let mut builder = Builder::new();
    // All of it takes minutes.
    builder.preemption_bound = Some(3);
    let model = move || {
        let engine = Engine::new();
        assert!(engine.drain.admit(2));
        engine.drain.close();
        let jobs = lanes.map(|lane| {
            let engine = Arc::clone(&engine);
            thread::spawn(move || engine.drain.note_gone(lane))
        });
        engine.wait(&[]);
        jobs.into_iter().for_each(|job| job.join().unwrap());
    };
    without(&["drain gone fence"], || builder.check(model));
}

/// Each of them sees that one is left.
#[test]
fn of_two_jobs_that_end_at_once_one_wakes() {
    two_jobs([0, 1]);
    two_jobs([0, STRANGER]);
}

/// The limit of one is not the end of the other.
#[test]
fn all_who_wait_for_the_end_are_woken() {
    let mut builder = Builder::new();
    // All of it takes a minute.
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let engine = Engine::new();
        assert!(engine.drain.admit(1));
        engine.drain.close();
        let job = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || engine.drain.note_gone(0))
        };
        let other = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || engine.wait(&[]))
        };
        engine.wait(&[]);
        job.join().unwrap();
        other.join().unwrap();
    });
}

/// A job shuts the engine down while somebody outside does.
#[test]
fn a_job_that_waits_for_the_end_is_not_waited_for_by_itself() {
    loom::model(|| {
        let engine = Engine::new();
        assert!(engine.drain.admit(1));
        let job = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                engine.drain.close();
                engine.wait(&[1]);
                engine.run(0);
            })
        };
        engine.drain.close();
        engine.wait(&[]);
        assert!(engine.is_done());
        job.join().unwrap();
    });
}

/// It ends while the other says that it need not be waited for.
#[test]
fn a_job_that_waits_for_the_end_is_woken_by_the_last_one_beside_it() {
    loom::model(|| {
        let engine = Engine::new();
        assert!(engine.drain.admit(2));
        let other = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || engine.drain.note_gone(1))
        };
        engine.drain.close();
        engine.wait(&[1]);
        engine.drain.note_gone(0);
        other.join().unwrap();
    });
}

/// Two jobs shut the engine down, each while the other runs.
#[test]
fn jobs_that_wait_for_the_end_do_not_wait_for_each_other() {
    loom::model(|| {
        let engine = Engine::new();
        assert!(engine.drain.admit(1));
        assert!(engine.drain.admit(1));
        engine.drain.close();
        let job = |name: usize| {
            let engine = Arc::clone(&engine);
            move || {
                engine.wait(&[name]);
                engine.drain.note_gone(name - 1);
            }
        };
        let other = thread::spawn(job(1));
        job(2)();
        other.join().unwrap();
    });
}

fn a_fork_beside_a_stop() {
    loom::model(|| {
        let engine = Arc::new((Stop::default(), Queue::new(), Parker::new()));
        let worker = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                let (stop, queue, parker) = &*engine;
                while !stop.is_said() {
                    queue.take_all();
                    parker.park();
                }
                stop.before_last_look();
                queue.take_all();
            })
        };
        let bringer = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                let (stop, queue, _) = &*engine;
                queue.push();
                if stop.after_push() {
                    queue.take_all();
                }
            })
        };
        let (stop, queue, parker) = &*engine;
        stop.say();
        parker.unpark();
        worker.join().unwrap();
        bringer.join().unwrap();
        assert_eq!(queue.take_all(), 0, "a fork is left that nobody runs");
    });
}

/// The bringer's own wake of a worker is left out, as if all were awake and leaving.
#[test]
fn a_fork_that_comes_while_the_workers_leave_is_run_by_one_of_them_or_its_bringer() {
    a_fork_beside_a_stop();
}

fn a_wish_beside_its_reader() {
    loom::model(|| {
        let notice = Arc::new(Notice::<Vec<u8>>::default());
        let cell = loom::sync::Arc::new(Watched(UnsafeCell::new(0)));
        let canceller = {
            let (notice, cell) = (Arc::clone(&notice), loom::sync::Arc::clone(&cell));
            thread::spawn(move || {
                // SAFETY: loom watches it.
                cell.0.with_mut(|value| unsafe { *value = 7 });
                notice.say();
            })
        };
        if notice.is_said() {
            // SAFETY: loom watches it.
            assert_eq!(cell.0.with(|value| unsafe { *value }), 7);
        }
        canceller.join().unwrap();
    });
}

struct Watched(UnsafeCell<u32>);

// SAFETY: loom watches it.
unsafe impl Sync for Watched {}
// SAFETY: as above.
unsafe impl Send for Watched {}

#[test]
fn what_was_done_before_a_token_was_cancelled_is_visible_to_who_sees_it_cancelled() {
    a_wish_beside_its_reader();
}

/// The job is pushed on the list of a token that has just been emptied.
#[test]
fn a_job_that_registers_while_its_token_is_cancelled_is_told_once() {
    loom::model(|| {
        let notice = Arc::new(Notice::<Vec<Arc<AtomicUsize>>>::default());
        let told = Arc::new(AtomicUsize::new(0));
        let tell = |job: &AtomicUsize| job.fetch_add(1, Ordering::Relaxed);
        let canceller = {
            let notice = Arc::clone(&notice);
            thread::spawn(move || {
                for job in notice.say() {
                    tell(&job);
                }
            })
        };
        if !notice.listen(|jobs| jobs.push(Arc::clone(&told))) {
            tell(&told);
        }
        canceller.join().unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_child_that_is_made_while_its_token_is_cancelled_is_cancelled() {
    loom::model(|| {
        let parent = Arc::new(Notice::<Vec<Arc<Notice<Vec<()>>>>>::default());
        let canceller = {
            let parent = Arc::clone(&parent);
            thread::spawn(move || {
                for child in parent.say() {
                    child.say();
                }
            })
        };
        let child = Arc::new(Notice::default());
        if !parent.listen(|children| children.push(Arc::clone(&child))) {
            child.say();
        }
        canceller.join().unwrap();
        assert!(child.is_said());
    });
}

/// A worker, a canceller and the timer come to it at once, while somebody waits for its end.
#[test]
fn a_job_that_is_run_cancelled_and_late_at_once_has_one_outcome_and_tells_it() {
    let mut builder = Builder::new();
    // All of it takes minutes.
    builder.preemption_bound = Some(2);
    builder.check(|| {
        struct Job {
            state: State,
            outcome: UnsafeCell<usize>,
            waiter: loom::sync::Mutex<Option<Arc<Parker>>>,
            ends: AtomicUsize,
        }
        // SAFETY: loom watches the cell.
        unsafe impl Sync for Job {}
        // SAFETY: as above.
        unsafe impl Send for Job {}

        let job = Arc::new(Job {
            state: State::queued(),
            outcome: UnsafeCell::new(0),
            waiter: loom::sync::Mutex::new(None),
            ends: AtomicUsize::new(0),
        });
        let end = |by: usize| {
            let job = Arc::clone(&job);
            thread::spawn(move || {
                if !job.state.claim() {
                    return;
                }
                job.ends.fetch_add(1, Ordering::Relaxed);
                // SAFETY: loom watches it.
                job.outcome.with_mut(|outcome| unsafe { *outcome = by });
                if job.state.end() {
                    let waiter = job.waiter.lock().unwrap().take();
                    waiter.into_iter().for_each(|waiter| waiter.unpark());
                }
            })
        };
        let ends = [1, 2, 3].map(end);
        let parker = Arc::new(Parker::new());
        *job.waiter.lock().unwrap() = Some(Arc::clone(&parker));
        if !job.state.wait() {
            parker.park();
        }
        assert!(job.state.take() && !job.state.take());
        // SAFETY: loom watches it.
        let outcome = job.outcome.with(|outcome| unsafe { *outcome });
        assert!((1..=3).contains(&outcome));
        ends.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(job.ends.load(Ordering::Relaxed), 1);
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
        let waiter = state.claim();
        let claims = [worker.join().unwrap(), canceller.join().unwrap(), waiter];
        assert_eq!(claims.iter().filter(|&&claimed| claimed).count(), 1);
        assert!(!state.is_queued());
    });
}

#[test]
fn who_has_pushed_a_job_needs_the_order_with_the_close() {
    fails_without("drain ends queued", submit_beside_an_end);
}

#[test]
fn a_job_that_ends_has_to_release() {
    fails_without("drain gone", || one_job(0));
}

#[test]
fn who_waits_for_the_end_has_to_acquire() {
    fails_without("drain left", || one_job(0));
}

#[test]
fn a_worker_that_ends_a_job_needs_its_fence() {
    fails_without("drain gone fence", || one_job(0));
}

#[test]
fn who_ends_a_job_elsewhere_needs_its_fence() {
    fails_without("drain gone together fence", || one_job(STRANGER));
}

#[test]
fn who_waits_for_the_end_needs_its_barrier() {
    fails_without("drain wait fence", || one_job(0));
}

#[test]
fn who_looks_whether_all_have_ended_needs_its_fence() {
    fails_without("drain look fence", || two_jobs([0, 1]));
}

#[test]
fn a_worker_that_leaves_needs_its_fence() {
    fails_without("stop look fence", a_fork_beside_a_stop);
}

#[test]
fn who_brings_a_fork_needs_its_fence() {
    fails_without("stop push fence", a_fork_beside_a_stop);
}

#[test]
fn who_cancels_has_to_release() {
    fails_without("notice say", a_wish_beside_its_reader);
}

#[test]
fn who_sees_it_cancelled_has_to_acquire() {
    fails_without("notice is said", a_wish_beside_its_reader);
}
