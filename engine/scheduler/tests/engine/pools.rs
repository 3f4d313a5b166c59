//! Pools, as workers use them.

use std::collections::BTreeSet;
use std::time::Duration;

use reiver::counter::PaddedCounter;
use reiver::pool::{Pool, PooledArc};
use reiver::{Class, Engine, NodeId, Topology};

use crate::watchdog::watched;

fn machine() -> Topology {
    Topology::synthetic("NUMANode:2 PU:1").unwrap()
}

fn address(object: &u64) -> usize {
    (&raw const *object).addr()
}

#[test]
fn workers_that_sleep_keep_nothing_of_other_nodes() {
    watched();
    for class in [Class::Cpu, Class::Io] {
        let engine = Engine::builder().topology(machine()).build().unwrap();
        // Nothing comes home because an epoch has ended.
        let pool = Pool::builder(|| 0_u64).topology(machine());
        let pool = pool.epoch(Duration::MAX).build();
        let take = |count: usize| {
            let pool = pool.clone();
            let job = engine.job().class(class).node(NodeId(0)).submit(move |_| {
                let taken = (0..count).map(|_| pool.get_owned());
                taken.collect::<Vec<PooledArc<u64>>>()
            });
            job.unwrap().join().unwrap()
        };
        let taken = take(10);
        let own: BTreeSet<usize> = taken.iter().map(|object| address(object)).collect();
        let returned = engine
            .job()
            .class(class)
            .node(NodeId(1))
            .submit(move |_| drop(taken));
        returned.unwrap().join().unwrap();
        assert_eq!(pool.stats().remote_returns, 10);
        // They come home once the worker has nothing else to do, and not before somebody asks for them:
        // there is room for any number of others. Those are kept, or the next would be one of them.
        let mut taken = Vec::new();
        let is_own = |object: &&PooledArc<u64>| own.contains(&address(object));
        while taken.iter().filter(is_own).count() < 10 {
            taken.extend(take(1));
        }
    }
}

#[test]
fn forks_and_jobs_share_a_pool() {
    watched();
    let engine = Engine::builder().topology(machine()).build().unwrap();
    let pool = Pool::builder(Vec::<usize>::new)
        .reset(Vec::clear)
        .topology(machine())
        .capacity_per_node(8)
        .build();
    let sum = PaddedCounter::new();
    engine.par_for(0..10_000, 10, |i| {
        let mut numbers = pool.get();
        assert!(numbers.is_empty());
        numbers.extend([i, 1]);
        sum.add(numbers.iter().sum::<usize>() as u64);
    });
    assert_eq!(sum.sum(), 10_000 * 9_999 / 2 + 10_000);
    let stats = pool.stats();
    assert_eq!(stats.outstanding, 0);
    assert!(stats.cached <= 16);
    // Its workers end, and what they have cached is there.
    drop(engine);
    assert_eq!(pool.stats().cached, stats.cached);
}
