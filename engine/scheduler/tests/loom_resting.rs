//! Threads that rest until there is a job, or until their time is up, in every interleaving: no job waits
//! while all of them sleep, or for one that has ended.
#![cfg(reiver_loom)]

#[path = "stand_ins/parker.rs"]
mod parker;

use std::sync::Arc;

use loom::sync::{Mutex, MutexGuard};
use loom::thread;
use parker::Parker;
use reiver::model::Resting;

#[derive(Default)]
struct State {
    jobs: usize,
    done: usize,
    threads: usize,
    resting: Resting<Arc<Parker>>,
    stopped: bool,
}

struct Pool(Mutex<State>);

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The life of a thread. One whose time is up ends once it has found nothing to do.
    fn live(&self, number: u64, parker: &Arc<Parker>, is_late: impl Fn() -> bool) {
        loop {
            let mut state = self.state();
            state.resting.get_up(number);
            if state.jobs > 0 {
                state.jobs -= 1;
                state.done += 1;
                continue;
            }
            if state.stopped || is_late() {
                state.threads -= 1;
                return;
            }
            state.resting.lie_down(number, Arc::clone(parker));
            drop(state);
            // A wake that is lost is a deadlock.
            parker.park();
        }
    }

    /// Wakes a thread, or does what a new one would where there is none.
    fn bring(&self) {
        let mut state = self.state();
        state.jobs += 1;
        let woken = state.resting.rouse();
        if woken.is_none() && state.threads == 0 {
            state.jobs -= 1;
            state.done += 1;
        }
        drop(state);
        woken.into_iter().for_each(|thread| thread.unpark());
    }

    fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        let woken: Vec<_> = std::iter::from_fn(|| state.resting.rouse()).collect();
        drop(state);
        woken.into_iter().for_each(|thread| thread.unpark());
    }
}

/// The time of the first thread is up at some time.
fn jobs_beside_rests(threads: u64, bringers: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let state = State {
            threads: usize::try_from(threads).unwrap(),
            ..State::default()
        };
        let pool = Arc::new(Pool(Mutex::new(state)));
        let parkers: Vec<_> = (0..threads).map(|_| Arc::new(Parker::new())).collect();
        let late = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let residents: Vec<_> = (0..threads)
            .zip(&parkers)
            .map(|(number, parker)| {
                let (pool, parker) = (Arc::clone(&pool), Arc::clone(parker));
                let late = Arc::clone(&late);
                thread::spawn(move || {
                    let is_late =
                        || number == 0 && late.load(loom::sync::atomic::Ordering::Relaxed);
                    pool.live(number, &parker, is_late);
                })
            })
            .collect();
        let bringer = |pool: Arc<Pool>| thread::spawn(move || pool.bring());
        let others: Vec<_> = (1..bringers).map(|_| bringer(Arc::clone(&pool))).collect();
        late.store(true, loom::sync::atomic::Ordering::Relaxed);
        // It wakes by itself, and is still among those that rest.
        parkers[0].unpark();
        pool.bring();
        others.into_iter().for_each(|other| other.join().unwrap());
        pool.stop();
        residents
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let state = pool.state();
        assert_eq!(
            (state.done, state.jobs),
            (bringers, 0),
            "jobs are done once"
        );
        assert_eq!((state.threads, state.resting.count()), (0, 0));
    });
}

#[test]
fn who_rests_is_woken_for_a_job_or_ends() {
    jobs_beside_rests(1, 1);
    jobs_beside_rests(1, 2);
}

#[test]
fn a_job_is_not_left_to_one_that_has_ended() {
    jobs_beside_rests(2, 1);
}
