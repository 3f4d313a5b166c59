//! One thread takes objects and writes to them, another one looks at them and gives them back.
//!
//! They go through a ring for two, a batch at a time, so that the ring costs little beside them. A sample
//! is what an object took by the clock on the wall: the slower of the two sets the pace, and the other waits
//! for it.

use std::array;
use std::mem::MaybeUninit;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Instant;

use crossbeam_utils::Backoff;
use reiver::Engine;
use reiver_topology::place::{self, Target};

use super::lender::Lender;
use super::memory::{Touch, touch};
use super::ours::described;
use crate::case::{Outcome, Task};
use crate::costs::{self, Costs};
use crate::forks::reiver_engine;
use crate::numa;

/// Objects that go together.
const BATCH: usize = 32;
/// Batches on their way.
const RING: usize = 8;
/// So many batches are one sample.
const SAMPLE: u8 = 32;
/// So many objects.
const OBJECTS: f64 = SAMPLE as f64 * BATCH as f64;
const MOST_SAMPLES: usize = 4_000;
/// So many objects are asked where they lie.
const OUT: usize = 64;

/// Between threads that no engine knows; so many threads are half as many pairs.
pub(super) fn between_threads<L: Lender>(task: &Task) -> Outcome {
    measure::<L>(task, |hands| {
        thread::scope(|scope| {
            for hand in hands {
                scope.spawn(hand);
            }
        });
    })
}

/// Between workers of our engine.
pub(super) fn between_workers<L: Lender>(task: &Task) -> Outcome {
    on_workers_of::<L>(&reiver_engine(task.threads), task)
}

/// Between threads that are pinned to two nodes of this machine; and what part of what is lent in the end to
/// the one that gave back lies where that one is.
pub(crate) fn between_own_nodes<L: Lender, const FAR: bool>(task: &Task) -> Outcome {
    let (machine, nodes) = numa::pair(FAR)?;
    let (machine, nodes) = (&machine, &nodes);
    let run = |hands: Vec<Hand<'_>>| {
        thread::scope(|scope| {
            for (hand, node) in hands.into_iter().zip(nodes.iter().cycle()) {
                scope.spawn(move || {
                    place::pin_thread_to(machine, Target::Node(*node));
                    hand();
                });
            }
        });
    };
    let at_home = |lender: &L| {
        let mut lent: Vec<_> = (0..OUT).map(|_| lender.lend()).collect();
        let lies_at_home = |lent: &mut L::Lent<'_>| {
            let bytes = L::bytes(lent);
            touch(bytes, Touch::Line);
            place::node_of(bytes) == Some(nodes[1])
        };
        let at_home = lent.iter_mut().map(lies_at_home).filter(|is_so| *is_so);
        let share = 100.0 * at_home.count() as f64 / OUT as f64;
        task.tell(vec![("home %".to_owned(), share)]);
    };
    measure_and::<L>(task, run, at_home)
}

/// Between workers of our engine, each on a node of its own of a machine that is only described.
pub(super) fn between_nodes<L: Lender>(task: &Task) -> Outcome {
    let engine = Engine::builder().topology(described(task.threads)).build();
    on_workers_of::<L>(
        &engine.expect("a worker for each CPU that is described"),
        task,
    )
}

fn on_workers_of<L: Lender>(engine: &Engine, task: &Task) -> Outcome {
    measure::<L>(task, |hands| {
        // They wait for each other, so no worker takes two.
        engine.scope(|scope| {
            for hand in hands {
                scope.spawn(move |_| hand());
            }
        });
    })
}

/// A thread's part.
type Hand<'h> = Box<dyn FnOnce() + Send + 'h>;

fn measure<L: Lender>(task: &Task, run: impl FnOnce(Vec<Hand<'_>>) + Send) -> Outcome {
    measure_and::<L>(task, run, |_| ())
}

/// The same; in the end, who gave objects back looks `after` what there is.
fn measure_and<L: Lender>(
    task: &Task,
    run: impl FnOnce(Vec<Hand<'_>>) + Send,
    after: impl Fn(&L) + Sync,
) -> Outcome {
    let pairs = (task.threads / 2).max(1);
    let lender = L::start(2 * pairs, pairs * BATCH * (RING + 2));
    let (ready, together) = (Barrier::new(2 * pairs), Barrier::new(pairs + 1));
    let samples = Mutex::new(Vec::with_capacity(MOST_SAMPLES));
    let mut hands: Vec<Hand<'_>> = Vec::new();
    for _ in 0..pairs {
        let (mut give, mut take) = rtrb::RingBuffer::new(RING);
        let (lender, ready, together, samples) = (&lender, &ready, &together, &samples);
        let after = &after;
        hands.push(Box::new(move || {
            ready.wait();
            let taken = produce(task, lender, &mut give, together);
            samples.lock().expect(UNPOISONED).extend(taken);
        }));
        hands.push(Box::new(move || {
            ready.wait();
            consume(lender, &mut take);
            after(lender);
        }));
    }
    let costs = thread::scope(|scope| {
        scope.spawn(|| run(hands));
        together.wait();
        let (start, faults) = (Instant::now(), costs::minor_faults());
        together.wait();
        together.wait();
        (start.elapsed(), costs::minor_faults() - faults)
    });
    let samples = samples.into_inner().expect(UNPOISONED);
    let objects = samples.len() as f64 * OBJECTS;
    task.took(Costs {
        operations_per_second: objects / costs.0.as_secs_f64(),
        minor_faults_per_operation: costs.1 as f64 / objects,
        peak_kib: costs::peak_kib(),
    });
    Ok(samples)
}

const UNPOISONED: &str = "nothing panics while holding it";

fn produce<'l, L: Lender>(
    task: &Task,
    lender: &'l L,
    give: &mut rtrb::Producer<[L::Parcel<'l>; BATCH]>,
    together: &Barrier,
) -> Vec<f64> {
    let mut timed = || {
        let start = Instant::now();
        for _ in 0..SAMPLE {
            hand_over(lender, give);
        }
        start.elapsed().as_secs_f64() * 1e9 / OBJECTS
    };
    // Touched before anybody counts faults.
    let mut samples = vec![1.0; MOST_SAMPLES];
    samples.clear();
    let warm = Instant::now();
    while warm.elapsed() < task.short_budget() / 5 {
        timed();
    }
    together.wait();
    together.wait();
    let start = Instant::now();
    while samples.is_empty()
        || (start.elapsed() < task.short_budget() && samples.len() < MOST_SAMPLES)
    {
        samples.push(timed());
    }
    together.wait();
    samples
}

#[inline(never)]
fn hand_over<'l, L: Lender>(lender: &'l L, give: &mut rtrb::Producer<[L::Parcel<'l>; BATCH]>) {
    let mut batch = array::from_fn(|_| {
        let mut lent = lender.lend();
        touch(L::bytes(&mut lent), Touch::Line);
        lender.pack(lent)
    });
    let backoff = Backoff::new();
    while let Err(rtrb::PushError::Full(back)) = give.push(batch) {
        batch = back;
        backoff.snooze();
    }
}

#[inline(never)]
fn consume<'l, L: Lender>(lender: &'l L, take: &mut rtrb::Consumer<[L::Parcel<'l>; BATCH]>) {
    let backoff = Backoff::new();
    loop {
        // Before the look into the ring: what came before the end is still taken out.
        let over = take.is_abandoned();
        match take.pop() {
            Ok(batch) => {
                batch.into_iter().for_each(|parcel| lender.receive(parcel));
                backoff.reset();
            }
            Err(rtrb::PopError::Empty) if over => return,
            Err(rtrb::PopError::Empty) => backoff.snooze(),
        }
    }
}

/// Lends nothing but bytes on the stack, so that what is left is the ring: the floor.
pub(super) struct RingAlone;

impl Lender for RingAlone {
    type Lent<'l> = [MaybeUninit<u8>; 64];
    type Parcel<'l> = u64;

    fn start(_: usize, _: usize) -> RingAlone {
        RingAlone
    }

    #[inline]
    fn lend(&self) -> [MaybeUninit<u8>; 64] {
        [MaybeUninit::uninit(); 64]
    }

    #[inline]
    fn bytes(lent: &mut [MaybeUninit<u8>; 64]) -> &mut [MaybeUninit<u8>] {
        lent
    }

    #[inline]
    fn pack(&self, _: [MaybeUninit<u8>; 64]) -> u64 {
        0
    }

    #[inline]
    fn receive(&self, parcel: u64) {
        std::hint::black_box(parcel);
    }
}
