//! Objects of pools lie on their node, cross nodes and come home, and outlive the threads of their node.

use std::collections::BTreeMap;
use std::time::Duration;

use reiver::NodeId;
use reiver::pool::{BufferPool, Pool, PooledArc};
use reiver_topology::place;

use super::Ground;
use super::pages::PAGE;

/// Two pages: at least one of them holds nothing else.
type Object = [u8; 2 * PAGE];

/// On which node an object lies, by what the kernel says of the pages within it.
fn lies(object: &[u8]) -> BTreeMap<NodeId, usize> {
    let skipped = object.as_ptr().addr().next_multiple_of(PAGE) - object.as_ptr().addr();
    place::nodes_of(&object[skipped..])
}

/// Nothing comes home because an epoch has ended.
fn pool() -> Pool<Object> {
    Pool::builder(|| [1; 2 * PAGE]).epoch(Duration::MAX).build()
}

pub(super) fn objects_lie_on_their_node(ground: &Ground) {
    let engine = ground.engine();
    let (pool, buffers) = (pool(), BufferPool::new());
    let found = ground.on_each_worker(&engine, move |_| {
        let objects: Vec<_> = (0..40).map(|_| pool.get()).collect();
        let mut lie: Vec<_> = objects.iter().map(|object| lies(&object[..])).collect();
        let mut buffer = buffers.get(1 << 20);
        buffer.fill(1);
        lie.push(lies(&buffer));
        lie
    });
    for (node, found) in found {
        for pages in found {
            let is_home = |at: &NodeId| ground.is_home(node, *at);
            assert!(
                !pages.is_empty() && pages.keys().all(is_home),
                "of a worker of node {node}: {pages:?}"
            );
        }
    }
}

pub(super) fn objects_cross_nodes_and_come_home(ground: &Ground) {
    let engine = ground.engine();
    let pool = pool();
    let nodes: Vec<NodeId> = ground.crew(&engine).into_keys().collect();
    let on = |node: NodeId, pool: &Pool<Object>, count: usize| {
        let pool = pool.clone();
        let job = engine.job().node(node).submit(move |_| {
            let taken = (0..count).map(|_| pool.get_owned());
            taken.collect::<Vec<_>>()
        });
        job.expect("it is known").join().expect("no panic")
    };
    let taken = on(nodes[0], &pool, 20);
    let mut addresses: Vec<_> = taken.iter().map(|object| object.as_ptr().addr()).collect();
    let returned = engine.job().node(nodes[1]).submit(move |_| drop(taken));
    returned.expect("it is known").join().expect("no panic");
    assert_eq!(pool.stats().remote_returns, 20);
    // The other node makes its own, for what it has returned is on its way home.
    let others = on(nodes[1], &pool, 20);
    for object in &others {
        assert!(!addresses.contains(&object.as_ptr().addr()));
        let pages = lies(&object[..]);
        assert!(
            pages.keys().all(|at| ground.is_home(nodes[1], *at)),
            "{pages:?}"
        );
    }
    // Workers that park bring home what they have; those that are still awake are waited for. What else
    // is given meanwhile is kept, or it would be given again.
    let (mut home, mut made) = (Vec::new(), Vec::new());
    while home.len() < 20 {
        let taken = on(nodes[0], &pool, 20 - home.len());
        let is_own = |object: &PooledArc<Object>| addresses.contains(&object.as_ptr().addr());
        let (own, other): (Vec<_>, Vec<_>) = taken.into_iter().partition(is_own);
        home.extend(own);
        made.extend(other);
    }
    for object in &home {
        let pages = lies(&object[..]);
        assert!(
            pages.keys().all(|at| ground.is_home(nodes[0], *at)),
            "{pages:?}"
        );
    }
    let mut found: Vec<_> = home.iter().map(|object| object.as_ptr().addr()).collect();
    found.sort_unstable();
    addresses.sort_unstable();
    assert_eq!(found, addresses);
}

pub(super) fn a_dead_node_strands_nothing(ground: &Ground) {
    let engine = ground.engine();
    let nodes: Vec<NodeId> = ground.crew(&engine).into_keys().collect();
    let pool = Pool::builder(|| [1_u8; PAGE]).capacity_per_node(10).build();
    let on = |node: NodeId| {
        let pool = pool.clone();
        let job = engine.job().node(node).submit(move |_| {
            let taken: Vec<_> = std::iter::from_fn(|| pool.try_get().ok()).collect();
            taken.len()
        });
        job.expect("it is known").join().expect("no panic")
    };
    let first = on(nodes[0]);
    assert!(
        first >= 10 * nodes.len() && first.is_multiple_of(10),
        "{first}"
    );
    // All of its threads end, and with them their caches.
    drop(engine);
    assert_eq!(pool.stats().cached, first);
    let again = std::iter::from_fn(|| pool.try_get().ok()).collect::<Vec<_>>();
    assert_eq!(again.len(), first);
    assert_eq!(pool.stats().outstanding, first);
    drop(again);
    pool.trim();
    assert_eq!(pool.stats().cached, 0);
}
