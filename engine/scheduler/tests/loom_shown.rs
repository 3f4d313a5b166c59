//! What a thread shows of itself, and a job's state, in every interleaving: nobody reads an entry whose
//! frame is gone, and an outcome is seen whole, by one.
#![cfg(reiver_loom)]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use reiver::model::{Shown, State, fails_without};

/// Memory that loom watches.
#[derive(Default)]
struct Memory(UnsafeCell<u8>);

// SAFETY: loom says where two use it at once.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

impl Memory {
    fn write(&self, value: u8) {
        // SAFETY: loom checks that nobody else uses it.
        self.0.with_mut(|memory| unsafe { *memory = value });
    }

    fn read(&self) -> u8 {
        // SAFETY: loom checks that nobody writes it.
        self.0.with(|memory| unsafe { *memory })
    }
}

struct Thread {
    shown: Shown<usize>,
    frames: [Memory; 2],
}

/// A thread shows one value inside of another, and afterwards uses their frames for something else.
fn shows() {
    loom::model(|| {
        let here = Arc::new(Thread {
            shown: Shown::default(),
            frames: Default::default(),
        });
        let reader = {
            let there = Arc::clone(&here);
            thread::spawn(move || {
                there
                    .shown
                    .read(|&frame| assert_eq!(there.frames[frame].read(), 1))
            })
        };
        let show = |frame: usize, body: &dyn Fn()| {
            here.frames[frame].write(1);
            // SAFETY: this is the thread, and the frames outlive it.
            unsafe { here.shown.during(frame, false, body) };
            here.frames[frame].write(2);
        };
        show(0, &|| show(1, &|| ()));
        reader.join().unwrap();
    });
}

#[test]
fn nobody_reads_an_entry_whose_frame_is_gone() {
    shows();
}

#[test]
fn it_needs_each_of_its_fences_and_orderings() {
    fails_without("shown off fence", shows);
    fails_without("shown read fence", shows);
    fails_without("shown on", shows);
    fails_without("shown read", shows);
    fails_without("shown done", shows);
    fails_without("shown below", shows);
    fails_without("shown seen", shows);
}

#[derive(Default)]
struct Job {
    outcome: Memory,
    waker: Memory,
}

/// A worker ends a job whose handle waits for it: the handle has the outcome, or the worker wakes it.
fn ends() {
    loom::model(|| {
        let job = Arc::new((State::queued(), Job::default()));
        let worker = {
            let job = Arc::clone(&job);
            thread::spawn(move || {
                let (state, job) = &*job;
                assert!(state.claim());
                job.outcome.write(1);
                let wakes = state.end();
                if wakes {
                    assert_eq!(job.waker.read(), 1);
                    job.waker.write(2);
                }
                wakes
            })
        };
        let (state, cell) = &*job;
        let mut waits = false;
        if !state.is_ended() {
            cell.waker.write(1);
            waits = !state.wait();
            if !waits {
                // Nobody comes for it.
                cell.waker.write(3);
            }
        }
        if !waits {
            assert!(state.take() && !state.take());
            assert_eq!(cell.outcome.read(), 1);
        }
        assert_eq!(worker.join().unwrap(), waits, "one of them sees to it");
    });
}

#[test]
fn an_outcome_is_seen_whole_or_its_waiter_woken() {
    ends();
}

#[test]
fn the_state_of_a_job_needs_each_of_its_orderings() {
    fails_without("state end", ends);
    fails_without("state end sees", ends);
    fails_without("state wait", ends);
    fails_without("state ended", ends);
}
