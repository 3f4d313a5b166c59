//! Whatever threads do at once could have been done one after the other, in an order that agrees with when
//! each began and ended: by a pool that is a set of free objects and a count of those that may be.
//!
//! Small histories of real runs are checked by search ("Testing for Linearizability", Lowe, 2017: Wing and
//! Gong's search, with what was found wanting remembered).

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;
use reiver_pool::{Pool, Pooled};
use reiver_topology::here::{self, Here};
use reiver_topology::{NodeId, Topology};

use crate::watchdog::watched;

/// What a thread does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Get,
    /// Returns the oldest that it has, or the newest.
    PutOldest,
    PutNewest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happened {
    Got(u64),
    Exhausted,
    Put(u64),
}

/// Something that happened between two moments.
#[derive(Debug, Clone, Copy)]
struct Event {
    began: u64,
    ended: u64,
    what: Happened,
}

/// True if the events can be put in order.
fn is_linearisable(events: &[Event], capacity: usize) -> bool {
    assert!(events.len() <= 64);
    search(events, capacity, 0, &mut HashSet::new())
}

fn search(events: &[Event], capacity: usize, done: u64, failed: &mut HashSet<u64>) -> bool {
    if done.count_ones() as usize == events.len() {
        return true;
    }
    if failed.contains(&done) {
        return false;
    }
    let is_open = |at: &usize| done & (1 << at) == 0;
    let first_end = (0..events.len())
        .filter(is_open)
        .map(|at| events[at].ended)
        .min();
    let first_end = first_end.expect("one is open");
    for at in (0..events.len()).filter(is_open) {
        let may_be_next = events[at].began < first_end;
        if may_be_next
            && is_allowed(events, capacity, done, events[at].what)
            && search(events, capacity, done | 1 << at, failed)
        {
            return true;
        }
    }
    failed.insert(done);
    false
}

/// Whether the pool does this after what was done.
fn is_allowed(events: &[Event], capacity: usize, done: u64, what: Happened) -> bool {
    let mut uses = 0_usize;
    let mut of_this = 0_i32;
    for (at, event) in events.iter().enumerate() {
        if done & (1 << at) == 0 {
            continue;
        }
        let (object, change) = match event.what {
            Happened::Got(object) => (object, 1),
            Happened::Put(object) => (object, -1),
            Happened::Exhausted => continue,
        };
        uses = uses.wrapping_add_signed(change);
        if let Happened::Got(this) | Happened::Put(this) = what
            && this == object
        {
            of_this += i32::try_from(change).expect("one");
        }
    }
    match what {
        Happened::Got(_) => of_this == 0 && uses < capacity,
        Happened::Put(_) => of_this == 1,
        Happened::Exhausted => uses == capacity,
    }
}

/// Runs scripts at once, each on a thread at one of the nodes.
fn run(pool: &Pool<u64>, nodes: u32, scripts: &[Vec<Step>]) -> Vec<Event> {
    let clock = AtomicU64::new(0);
    let start = Barrier::new(scripts.len());
    let tick = || clock.fetch_add(1, Ordering::SeqCst);
    let mut events = Vec::new();
    thread::scope(|scope| {
        let threads: Vec<_> = scripts
            .iter()
            .zip((0..nodes).cycle())
            .map(|(script, node)| {
                let (start, tick) = (&start, &tick);
                scope.spawn(move || {
                    let node = NodeId(node);
                    here::set(Some(Here { node, worker: 0 }));
                    let mut held: Vec<Pooled<'_, u64>> = Vec::new();
                    let mut events = Vec::new();
                    start.wait();
                    // What is left is returned, which is a part of the history.
                    let rest = std::iter::repeat_n(Step::PutNewest, script.len());
                    for step in script.iter().copied().chain(rest) {
                        let began = tick();
                        let what = match step {
                            Step::Get => match pool.try_get() {
                                Ok(object) => {
                                    held.push(object);
                                    Happened::Got(**held.last().expect("it was pushed"))
                                }
                                Err(_) => Happened::Exhausted,
                            },
                            Step::PutOldest | Step::PutNewest => {
                                let object = match step {
                                    Step::PutOldest if !held.is_empty() => Some(held.remove(0)),
                                    _ => held.pop(),
                                };
                                let Some(object) = object else { continue };
                                let number = *object;
                                drop(object);
                                Happened::Put(number)
                            }
                        };
                        let ended = tick();
                        events.push(Event { began, ended, what });
                    }
                    events
                })
            })
            .collect();
        for thread in threads {
            events.extend(thread.join().expect("no panic"));
        }
    });
    events
}

fn numbered(capacity: usize, nodes: u32) -> Pool<u64> {
    let next = AtomicU64::new(0);
    let machine = format!("NUMANode:{nodes} PU:1");
    Pool::builder(move || next.fetch_add(1, Ordering::Relaxed))
        .capacity_per_node(capacity)
        .topology(Topology::synthetic(&machine).expect("a machine"))
        .build()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Get),
        1 => Just(Step::PutOldest),
        2 => Just(Step::PutNewest),
    ];
    prop::collection::vec(step, 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_threads_do_at_once_could_have_been_done_in_turns(
        capacity in 1..3_usize,
        nodes in 1..3_u32,
        scripts in prop::collection::vec(steps(), 2..5),
    ) {
        watched();
        let pool = numbered(capacity, nodes);
        for _ in 0..10 {
            // The pool goes on from wherever the last history has left its objects.
            let events = run(&pool, nodes, &scripts);
            let total = capacity * nodes as usize;
            prop_assert!(is_linearisable(&events, total), "{events:#?} of {total}");
            let stats = pool.stats();
            prop_assert_eq!(stats.outstanding, 0);
            prop_assert!(stats.cached <= total);
        }
    }
}

#[test]
fn the_checker_refuses_what_cannot_have_been() {
    let event = |began, ended, what| Event { began, ended, what };
    // Two have the same object.
    let twice = [event(0, 1, Happened::Got(7)), event(2, 3, Happened::Got(7))];
    assert!(!is_linearisable(&twice, 2));
    // Exhausted, though one of two was free all the time.
    let wrong = [
        event(0, 1, Happened::Got(7)),
        event(2, 3, Happened::Exhausted),
    ];
    assert!(!is_linearisable(&wrong, 2));
    assert!(is_linearisable(&wrong, 1));
    // More than there may be.
    let many = [event(0, 1, Happened::Got(7)), event(2, 3, Happened::Got(8))];
    assert!(!is_linearisable(&many, 1));
    // At once with a return there may be nothing yet, and after it there is something.
    let returned = |began| {
        [
            event(0, 1, Happened::Got(7)),
            event(2, 5, Happened::Put(7)),
            event(began, began + 1, Happened::Exhausted),
        ]
    };
    assert!(is_linearisable(&returned(3), 1));
    assert!(!is_linearisable(&returned(6), 1));
}
