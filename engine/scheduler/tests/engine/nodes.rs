//! What goes to which node, on machines that are only described.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};

use reiver::{Engine, JobHandle, NodeId, Topology};
use reiver_topology::{here, place};

use crate::engine;
use crate::watchdog::watched;

fn described(machine: &str) -> Engine {
    watched();
    let topology = Topology::synthetic(machine).unwrap();
    Engine::builder().topology(topology).build().unwrap()
}

/// The node that the current worker works for.
fn node() -> NodeId {
    here::get().expect("a worker").node
}

/// Four nodes of one worker each, of which those of 1, 2 and 3 are held, so that whatever node 0 does
/// is done before they look for work.
struct Stage {
    engine: Engine,
    held: Vec<(Sender<()>, JobHandle<()>)>,
}

impl Stage {
    fn new() -> Stage {
        let engine = described("NUMANode:4 Core:1 PU:1");
        let (says, begun) = channel();
        let held = (1..4).map(|node| {
            let (go, wait) = channel();
            let says = says.clone();
            let job = engine.job().node(NodeId(node)).submit(move |_| {
                says.send(()).unwrap();
                wait.recv().unwrap();
            });
            (go, job.unwrap())
        });
        let held = held.collect();
        (0..3).for_each(|_| begun.recv().unwrap());
        Stage { engine, held }
    }

    /// Runs `play` on node 0 with what lets the others go.
    fn on_node_0<R: Send + 'static>(
        &mut self,
        play: impl FnOnce(&Engine, &(dyn Fn() + Sync)) -> R + Send + 'static,
    ) -> R {
        let (go, held): (Vec<_>, Vec<_>) = self.held.drain(..).unzip();
        let go = Mutex::new(go);
        let job = self.engine.job().node(NodeId(0)).submit(move |ctx| {
            play(ctx.engine(), &|| {
                for go in go.lock().unwrap().drain(..) {
                    go.send(()).unwrap();
                }
            })
        });
        let result = job.unwrap().join().unwrap();
        held.into_iter().for_each(|job| job.join().unwrap());
        result
    }
}

#[test]
fn each_node_does_its_own_part_of_a_loop() {
    for _ in 0..50 {
        let seen = Stage::new().on_node_0(|_, let_go| {
            let (seen, all) = (Mutex::new(BTreeMap::new()), Barrier::new(4));
            reiver::par_for_ranges(0..400, 100, |part| {
                let_go();
                all.wait();
                seen.lock().unwrap().insert(part.start, (part.end, node()));
            });
            seen.into_inner().unwrap()
        });
        let part = |node: u32| {
            let start = node as usize * 100;
            (start, (start + 100, NodeId(node)))
        };
        assert!(seen.into_iter().eq((0..4).map(part)));
    }
}

#[test]
fn each_node_has_its_own_pieces_of_a_slice_and_makes_its_own_part_of_a_vector() {
    let each_its_own = |nodes: Vec<Option<NodeId>>| {
        assert!(nodes.into_iter().eq((0..4).map(|node| Some(NodeId(node)))));
    };
    each_its_own(Stage::new().on_node_0(|_, let_go| {
        let mut nodes = vec![None; 4];
        let all = Barrier::new(4);
        reiver::par_chunks_mut(&mut nodes, 1, |_, piece| {
            let_go();
            all.wait();
            piece[0] = Some(node());
        });
        nodes
    }));
    each_its_own(Stage::new().on_node_0(|_, let_go| {
        let all = Barrier::new(4);
        reiver::numa_vec(4, |_| {
            let_go();
            all.wait();
            Some(node())
        })
    }));
}

#[test]
fn what_is_spawned_on_a_node_is_done_there_while_its_workers_are_free() {
    for _ in 0..50 {
        let seen = Stage::new().on_node_0(|_, let_go| {
            let (seen, all) = (Mutex::new(Vec::new()), Barrier::new(4));
            reiver::scope(|scope| {
                for number in [3, 1, 0, 2] {
                    let (seen, all) = (&seen, &all);
                    scope.spawn_on(NodeId(number), move |_| {
                        let_go();
                        all.wait();
                        seen.lock().unwrap().push((NodeId(number), node()));
                    });
                }
            });
            seen.into_inner().unwrap()
        });
        assert!(seen.into_iter().all(|(meant, was)| meant == was));
    }
}

#[test]
fn a_job_near_data_is_queued_on_its_node() {
    let data = vec![1_u64; 100_000];
    let Some(near) = place::node_of(&data).filter(|node| node.0 < 4) else {
        eprintln!("skipped: the system does not say where pages lie, or it is no node of four");
        return;
    };
    // Each node has one job before any of them looks for work, and all wait for each other: so nobody
    // has time to fetch that of another.
    // It outlives the jobs, which a drop would end.
    let mut stage = Stage::new();
    let jobs = stage.on_node_0(move |engine, let_go| {
        let all = Arc::new(Barrier::new(4));
        let jobs = (0..4).map(|node| {
            let job = engine.job();
            let job = if NodeId(node) == near {
                job.near(&data)
            } else {
                job.node(NodeId(node))
            };
            let all = Arc::clone(&all);
            let job = job.submit(move |ctx| {
                all.wait();
                ctx.node()
            });
            job.unwrap()
        });
        let jobs: Vec<_> = jobs.collect();
        let_go();
        jobs
    });
    for (node, job) in (0..).zip(jobs) {
        assert_eq!(job.join().unwrap(), NodeId(node));
    }
}

/// The parts that a range is given in, in order.
fn leaves(engine: &Engine, range: Range<usize>, grain: usize) -> Vec<Range<usize>> {
    let parts = Mutex::new(Vec::new());
    engine.par_for_ranges(range, grain, |part| parts.lock().unwrap().push(part));
    let mut parts = parts.into_inner().unwrap();
    parts.sort_by_key(|part| part.start);
    parts
}

const MACHINES: [&str; 5] = [
    "NUMANode:1 PU:1",
    "NUMANode:2 Core:2 PU:1",
    "NUMANode:3 Core:1 PU:1",
    "NUMANode:4 Core:2 PU:1",
    "NUMANode:16 Core:1 PU:1",
];

#[test]
fn sums_are_the_same_on_any_number_of_nodes() {
    let of_one = described(MACHINES[0]);
    for machine in &MACHINES[1..] {
        let engine = described(machine);
        for (range, grain) in [
            (0..12_345, 13),
            (3..100_000, 0),
            (0..20, 1),
            (0..3, 1),
            (7..7, 1),
        ] {
            let leaves = |engine| leaves(engine, range.clone(), grain);
            assert_eq!(leaves(&engine), leaves(&of_one), "{machine}");
            let sum = |engine: &Engine| {
                let harmonic = |sum: f64, i: usize| sum + 1.0 / (1.0 + i as f64);
                engine.par_reduce(range.clone(), grain, || 0.0, harmonic, |a, b| a + b)
            };
            assert_eq!(sum(&engine).to_bits(), sum(&of_one).to_bits(), "{machine}");
            // Neighbours alone are summed up, in order.
            let text = engine.par_map_reduce(
                range.clone(),
                grain,
                |part| vec![part],
                |left, right| [left, right].concat(),
            );
            assert!(text.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}

#[test]
fn every_piece_is_given_once_on_any_number_of_nodes() {
    for machine in MACHINES {
        let engine = described(machine);
        for (length, len) in [
            (1, 1),
            (10, 3),
            (100_000, 1),
            (100_001, 10),
            (16, 1),
            (7, 100),
        ] {
            let mut data = vec![usize::MAX; length];
            engine.par_chunks_mut(&mut data, len, |number, piece| {
                for (offset, value) in piece.iter_mut().enumerate() {
                    *value = number * len + offset;
                }
            });
            assert!(data.into_iter().eq(0..length), "{length} by {len}");
        }
    }
}

#[test]
fn loops_within_loops_on_many_nodes() {
    let engine = described(MACHINES[3]);
    let count = AtomicUsize::new(0);
    engine.par_for(0..40, 1, |_| {
        reiver::par_for(0..100, 1, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let inner = reiver::numa_vec(100, |i| i);
        assert!(inner.into_iter().eq(0..100));
    });
    assert_eq!(count.into_inner(), 4000);
}

#[test]
fn a_panic_in_a_part_comes_out_once_all_that_began_has_ended() {
    for engine in [engine(2), described(MACHINES[3])] {
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let panics = AssertUnwindSafe(|| {
            engine.par_for(0..1000, 1, |i| {
                begun.fetch_add(1, Ordering::Relaxed);
                assert!(i != 500, "as it should");
                ended.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert!(catch_unwind(panics).is_err());
        assert_eq!(begun.into_inner(), ended.into_inner() + 1);
    }
}

#[test]
fn a_vector_has_its_elements_in_order_wherever_they_were_made() {
    for machine in MACHINES {
        let engine = described(machine);
        for len in [0, 1, 3, 1000, 100_000] {
            let squares = engine.numa_vec(len, |i| Box::new(i * i));
            assert!(
                squares
                    .into_iter()
                    .map(|square| *square)
                    .eq((0..len).map(|i| i * i))
            );
        }
        assert_eq!(engine.numa_vec(100_000, |_| ()).len(), 100_000);
    }
    // On this machine pages are looked at where there are nodes.
    let words = reiver::numa_vec(1 << 20, |i| i);
    assert!(words.into_iter().eq(0..1 << 20));
}

#[test]
fn a_vector_that_cannot_be_finished_drops_what_was_made() {
    struct Counted<'c>(&'c AtomicUsize);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    for machine in MACHINES {
        let engine = described(machine);
        let (made, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        for at in [0, 4999, 9999] {
            let panics = AssertUnwindSafe(|| {
                engine.numa_vec(10_000, |i| {
                    assert_ne!(i, at, "as it should");
                    made.fetch_add(1, Ordering::Relaxed);
                    Counted(&dropped)
                })
            });
            assert!(catch_unwind(panics).is_err());
            let made = made.load(Ordering::Relaxed);
            assert_eq!(dropped.load(Ordering::Relaxed), made, "{machine}");
        }
        let before = dropped.load(Ordering::Relaxed);
        drop(engine.numa_vec(1000, |_| Counted(&dropped)));
        assert_eq!(dropped.load(Ordering::Relaxed), before + 1000);
    }
}

#[test]
fn a_burst_on_one_node_spreads_by_halves() {
    let engine = described("NUMANode:2 Core:1 PU:1");
    // The worker of node 0 brings the jobs while that of node 1 is held, and then waits for them, so
    // node 1 has to fetch them all.
    let (go, wait) = channel::<()>();
    let (holds, held) = channel();
    let hold = engine.job().node(NodeId(1)).submit(move |_| {
        holds.send(()).unwrap();
        wait.recv().unwrap();
    });
    held.recv().unwrap();
    let burst = engine.job().node(NodeId(0)).submit(move |ctx| {
        let (says, done) = channel();
        for _ in 0..101 {
            let says = says.clone();
            drop(ctx.engine().submit(move |_| says.send(()).unwrap()));
        }
        go.send(()).unwrap();
        done.iter().take(101).count()
    });
    hold.unwrap().join().unwrap();
    assert_eq!(burst.unwrap().join().unwrap(), 101);
    let remote = engine.metrics().steals().remote;
    assert!(remote < 20, "{remote} jobs were fetched one by one");
}
