//! Objects belong to nodes, and go home. The nodes are described ones: what the kernel says of real ones is
//! in `numa-tests`.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;
use std::{env, mem, thread};

use reiver_pool::{Pool, Pooled, park_hook};
use reiver_topology::here::{self, Here};
use reiver_topology::{NodeId, Topology};

use crate::refusal::refuse_the_barrier;
use crate::watchdog::watched;

/// Runs on a thread that works for a node.
fn at<T: Send>(node: u32, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let node = NodeId(node);
            here::set(Some(Here { node, worker: 0 }));
            body()
        });
        worker.join().unwrap()
    })
}

fn described(capacity: usize) -> Pool<u64> {
    Pool::builder(|| 0)
        .capacity_per_node(capacity)
        .topology(Topology::synthetic("NUMANode:3 PU:1").unwrap())
        .build()
}

#[test]
fn what_is_returned_elsewhere_goes_home() {
    let pool = described(100);
    let held: Vec<_> = at(0, || (0..50).map(|_| pool.get()).collect());
    let addresses: Vec<_> = held.iter().map(|held| (&raw const **held).addr()).collect();
    at(1, || {
        drop(held);
        assert_eq!(pool.stats().remote_returns, 50);
        // What is on its way is not handed out here.
        let own = pool.get();
        assert!(!addresses.contains(&(&raw const *own).addr()));
        park_hook();
    });
    let stats = pool.stats();
    assert_eq!(
        (stats.outstanding, stats.cached, stats.remote_returns),
        (0, 51, 50)
    );
    at(0, || {
        let again: Vec<_> = (0..50).map(|_| pool.get()).collect();
        for held in &again {
            assert!(addresses.contains(&(&raw const **held).addr()));
        }
    });
    assert_eq!(pool.stats().created, 51);
}

#[test]
fn what_is_returned_by_turns_to_two_nodes_goes_to_both() {
    watched();
    let pool = described(usize::MAX);
    let from = |node| at(node, || (0..3000).map(|_| pool.get()).collect::<Vec<_>>());
    let address = |held: &Pooled<'_, u64>| (&raw const **held).addr();
    let (first, third) = (from(0), from(2));
    let mut of_first: Vec<_> = first.iter().map(address).collect();
    at(1, || {
        // Now one of each, now more of one than a magazine holds.
        for (at, held) in first.into_iter().zip(third).enumerate() {
            if at % 300 < 200 {
                drop(held);
            } else {
                std::mem::forget(held.1);
            }
        }
        park_hook();
    });
    assert_eq!(pool.stats().remote_returns, 5000);
    at(0, || {
        let mut again: Vec<_> = (0..3000).map(|_| pool.get()).collect();
        let mut again: Vec<_> = again.iter_mut().map(|held| address(held)).collect();
        again.sort_unstable();
        of_first.sort_unstable();
        assert_eq!(again, of_first);
    });
    assert_eq!(pool.stats().created, 6000);
}

#[test]
fn batches_are_not_stranded_with_who_sleeps() {
    watched();
    // The worker that got them ends, or parks, or just sleeps.
    for ends in [true, false] {
        let pool = described(10);
        let held: Vec<_> = at(0, || (0..10).map(|_| pool.get()).collect());
        let (done, is_done) = mpsc::channel();
        let (sleep, sleeps) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let pool = &pool;
            scope.spawn(move || {
                here::set(Some(Here {
                    node: NodeId(1),
                    worker: 1,
                }));
                drop(held);
                if ends {
                    park_hook();
                }
                done.send(()).unwrap();
                let _ = sleeps.recv();
            });
            is_done.recv().unwrap();
            let all: Vec<_> = at(0, || (0..10).map(|_| pool.get()).collect());
            assert_eq!(pool.stats().outstanding, 10);
            drop(all);
            drop(sleep);
        });
        // Without the hook nobody has asked for what was on its way: there was room for others elsewhere.
        assert!(pool.stats().created <= 20);
    }
}

#[test]
fn what_is_away_goes_home_when_its_worker_parks() {
    let pool = described(100);
    let held: Vec<_> = at(0, || (0..50).map(|_| pool.get()).collect());
    at(1, || {
        drop(held);
        park_hook();
        at(0, || (0..50).map(|_| pool.get()).for_each(mem::forget));
        assert_eq!(pool.stats().created, 50);
    });
}

#[test]
fn where_the_kernel_has_no_barrier_all_this_is_so_too() {
    watched();
    let name = "where_the_kernel_has_no_barrier";
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["nodes::", "--skip", name]);
    // SAFETY: it makes two system calls, of numbers and of what lies on its stack.
    unsafe {
        command.pre_exec(|| {
            refuse_the_barrier()
                .then_some(())
                .ok_or(ErrorKind::Other.into())
        })
    };
    let Ok(output) = command.output() else {
        return println!("skipped: no filter for system calls may be set here");
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(" 0 passed"), "{said}");
}

#[test]
fn a_full_node_takes_from_its_neighbours_up_to_all_there_is() {
    watched();
    let pool = described(4);
    at(2, || {
        let held: Vec<_> = (0..12).map(|_| pool.try_get().unwrap()).collect();
        assert!(pool.try_get().is_err());
        drop(held);
    });
    assert_eq!(pool.stats().cached, 12);
    // Eight of them were not node 2's.
    assert_eq!(pool.stats().remote_returns, 8);
    at(0, || {
        let held: Vec<_> = (0..12).map(|_| pool.try_get().unwrap()).collect();
        assert!(pool.try_get().is_err());
        drop(held);
    });
    assert_eq!(pool.stats().created, 12);
}

#[test]
fn a_node_that_died_strands_nothing() {
    watched();
    let pool = described(5);
    at(1, || {
        let held: Vec<_> = (0..5).map(|_| pool.get()).collect();
        drop(held);
    });
    // Nobody works for node 1 any more.
    at(0, || {
        let held: Vec<_> = (0..15).map(|_| pool.try_get().unwrap()).collect();
        assert_eq!(held.len(), 15);
    });
    assert_eq!(pool.stats().created, 15);
    pool.trim();
    assert_eq!(pool.stats().cached, 0);
}

#[test]
fn nodes_that_nobody_has_heard_of_are_groups() {
    let pool = Pool::builder(|| 0_u8).capacity_per_node(4).build();
    let nodes = Topology::detect().unwrap().nodes().count();
    let held: Vec<_> = at(700, || (0..4).map(|_| pool.get()).collect());
    at(701, || drop(held));
    assert_eq!(pool.stats().remote_returns, 4);
    at(700, || {
        let all: Vec<_> = std::iter::from_fn(|| pool.try_get().ok()).collect();
        assert_eq!(all.len(), 4 * (nodes + 2));
    });
    // More of them than there are groups for.
    let pool = Pool::builder(|| 0_u8).build();
    for node in 1000..1200 {
        let held = at(node, || Pooled::detach(pool.get()));
        at(node + 1, || drop(pool.get()));
        assert_eq!(held, 0);
    }
    assert_eq!(pool.stats().outstanding, 0);
}

#[test]
fn a_thread_that_moves_takes_the_objects_of_its_new_node() {
    let pool = described(100);
    at(0, || {
        drop(pool.get());
        here::set(Some(Here {
            node: NodeId(2),
            worker: 0,
        }));
        let held = [pool.get(), pool.get()];
        here::set(Some(Here {
            node: NodeId(1),
            worker: 0,
        }));
        let other = pool.get();
        drop((held, other));
    });
    let stats = pool.stats();
    assert_eq!(
        (stats.outstanding, stats.cached),
        (0, usize::try_from(stats.created).unwrap())
    );
}
