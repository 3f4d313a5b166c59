//! From idle to running: the time from handing over a job to its start, when all workers sleep.
//!
//! One sample is one wake. The floor is a thread that parks and one that unparks it. Who hands over
//! sleeps between the wakes, long enough for every contender's workers to have gone to sleep.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::case::{Case, Outcome, Task, floor};
use crate::forkjoin::case;
use crate::thread_pools::{Pool, pools};

pub(super) fn cases() -> Vec<Case> {
    let mut contenders = pools!(wake);
    contenders.push(floor("park and unpark", park));
    let what = "from handing over a job to its start, with all workers asleep";
    vec![case("wake", "us", what, contenders)]
}

const PAUSE: Duration = Duration::from_millis(1);

fn us(start: Instant, woke: Instant) -> f64 {
    woke.duration_since(start).as_secs_f64() * 1e6
}

fn wake<P: Pool>(task: &Task) -> Outcome {
    let pool = P::start(task.threads);
    Ok(task.sample(|| {
        thread::sleep(PAUSE);
        let (say, woke) = mpsc::channel();
        let start = Instant::now();
        pool.give(move || say.send(Instant::now()).expect("somebody waits for it"));
        us(start, woke.recv().expect("the job runs"))
    }))
}

fn park(task: &Task) -> Outcome {
    let (say, woke) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        loop {
            // It may wake for nothing, which then counts as quick; that is rare.
            thread::park();
            if say.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    Ok(task.sample(|| {
        thread::sleep(PAUSE);
        let start = Instant::now();
        sleeper.thread().unpark();
        us(start, woke.recv().expect("it sends"))
    }))
}
