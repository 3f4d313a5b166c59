//! The promise that no fork waits while a worker is idle, put to the test where it is hardest: its owner
//! is deep in a long leaf and polls nothing.
//!
//! Two workers. The second is held until the first has several forks pending and is in its leaf; then
//! it is let go. A sample is the time from there to the start of any of the pending forks. The leaf
//! ends once one has started, or after 5 ms, when its owner starts them itself: so who never shares
//! shows as 5 ms less what passed before.

use std::hint::spin_loop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reiver::{Engine, Topology};

use crate::case::{Case, Outcome, Task, Trouble, ours};
use crate::forkjoin::case;
use crate::forks::{Forks, Reiver, forkers};
use crate::hold::{Hold, held};

pub(super) fn cases() -> Vec<Case> {
    let what =
        "from a worker becoming idle to the start of a pending fork, its owner in a 5 ms leaf";
    let nodes = "as long-leaf, the two workers on two nodes of a described machine";
    vec![
        case("long-leaf", "us", what, forkers!(run)).at(&[2]),
        case(
            "long-leaf-nodes",
            "us",
            nodes,
            vec![ours("reiver", two_nodes)],
        )
        .at(&[2]),
    ]
}

const PENDING: u32 = 4;
const LEAF: Duration = Duration::from_millis(5);
/// In the leaf before the other worker is let go.
const DEEP: Duration = Duration::from_micros(300);

/// When the first of the pending forks started.
#[derive(Debug, Default)]
struct Started {
    any: AtomicBool,
    first: Mutex<Option<Instant>>,
}

impl Started {
    fn note(&self) {
        let now = Instant::now();
        self.first
            .lock()
            .expect("no panic inside")
            .get_or_insert(now);
        // ORDERING: relaxed: the time goes by the lock.
        self.any.store(true, Ordering::Relaxed);
    }
}

fn pend<F: Forks>(here: &mut F::Here<'_>, more: u32, hold: &Hold, started: &Started) {
    if more > 0 {
        let note = |_: &mut F::Here<'_>| started.note();
        F::join(here, |here| pend::<F>(here, more - 1, hold, started), note);
        return;
    }
    let begin = Instant::now();
    while begin.elapsed() < DEEP {
        spin_loop();
    }
    hold.release();
    while begin.elapsed() < DEEP + LEAF && !started.any.load(Ordering::Relaxed) {
        spin_loop();
    }
}

/// Microseconds; none where the second worker, let go, did not get to run before the leaf was over.
fn attempt<F: Forks>(engine: &F) -> Option<f64> {
    let hold = Hold::new(2);
    let started = Started::default();
    held(engine, 1, &hold, |here| {
        pend::<F>(here, PENDING, &hold, &started)
    });
    let first = started.first.into_inner().expect("no panic inside")?;
    let time = first.checked_duration_since(hold.left()?)?;
    Some(time.as_secs_f64() * 1e6)
}

const ATTEMPTS: usize = 100;

fn measure<F: Forks>(task: &Task, engine: &F) -> Outcome {
    Ok(task.sample(|| {
        let mut attempts = (0..ATTEMPTS).filter_map(|_| attempt(engine));
        attempts
            .next()
            .expect("a worker that is let go gets to run")
    }))
}

fn run<F: Forks>(task: &Task) -> Outcome {
    measure(task, &F::start(task.threads))
}

fn two_nodes(task: &Task) -> Outcome {
    let machine = Topology::synthetic("NUMANode:2 Core:1 PU:1");
    let machine = machine.map_err(|error| Trouble::Failed(error.to_string()))?;
    let engine = Engine::builder().topology(machine).build();
    let engine = engine.map_err(|error| Trouble::Failed(error.to_string()))?;
    measure(task, &Reiver::of(engine))
}
