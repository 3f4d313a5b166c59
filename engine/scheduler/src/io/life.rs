//! The life of a thread of a pool.

use std::sync::Arc;
use std::time::Instant;

use reiver_topology::here::{self, Here};
use reiver_topology::place;

use super::{Io, KEEP_ALIVE, Next, Pool, Resident};
use crate::builder::Pinning;
use crate::cell::Place;
use crate::crew::Rank;
use crate::current::Current;
use crate::machine::Machine;
use crate::parker::Parker;
use crate::queues::Task;
use crate::schedule;
use crate::shared::Shared;
use crate::spawner::Request;
use crate::worker::run;

/// The life of a thread of a pool, which begins at a node.
pub(crate) fn live(shared: Arc<Shared>, pool: Pool, mut node: usize) {
    settle(&shared, pool, node);
    let current = Current::elastic(Arc::clone(&shared), pool, node);
    let io = shared.pool(pool);
    let computes = pool != Pool::Io;
    let counted = computes.then(|| shared.metrics.cpu_times.count());
    let parker = Parker::new();
    let (number, wants_regulator) = io.enter();
    let resident = Resident {
        number,
        wakes: parker.unparker().clone(),
    };
    if wants_regulator {
        let regulator = Request::Regulator(Arc::downgrade(&shared), pool);
        shared.spawner.ask(regulator);
    }
    if shared.yields() {
        io.yield_to_urgent(shared.options.nice);
    }
    if pool == Pool::BackgroundHybrid {
        schedule::settle(Rank::Background);
    }
    let mut idle_since: Option<Instant> = None;
    loop {
        let idle = idle_since.map(|since| since.elapsed());
        let thread = resident.clone();
        let next = move |io: &Io, machine: &Machine| io.next(&machine.near[node], &thread, idle);
        match shared.with_pool(pool, next) {
            Next::Job(home, job) => {
                idle_since = None;
                if home != node && matches!(job.meta().place, Place::Strict(_) | Place::Prefer(_)) {
                    node = home;
                    reiver_pool::move_hook();
                    settle(&shared, pool, node);
                    current.move_to(node);
                }
                run(Task::Job(job), &current);
                current.forget_stamp();
                // What it has in its hands of other nodes' objects is not to wait for the next job.
                reiver_pool::park_hook();
            }
            Next::Rest => {
                // One that is needed however long it has had nothing to do begins anew.
                let since = idle_since.filter(|_| idle < Some(KEEP_ALIVE));
                let since = *idle_since.insert(since.unwrap_or_else(Instant::now));
                parker.park_until(Some(since + KEEP_ALIVE));
            }
            Next::End => break,
        }
    }
    shared.with_pool(pool, move |io, _| io.leave(number));
    drop(counted);
    here::set(None);
}

/// Where the system refuses the first thread of a pool: runs what waits, on a thread that is none.
pub(crate) fn stand_in(shared: &Arc<Shared>, pool: Pool) {
    let current = Current::elastic(Arc::clone(shared), pool, 0);
    while let Some(job) = shared.pool(pool).next_without_threads() {
        run(Task::Job(job), &current);
    }
}

/// Puts the thread at a node; what computes on no more CPUs than a quota grants.
pub(crate) fn settle(shared: &Shared, pool: Pool, node: usize) {
    let id = shared.machine.nodes[node].id;
    let pinning = shared.options.pinning;
    if pinning != Pinning::None {
        place::pin_thread_to(&shared.machine.topology, place::Target::Node(id));
        shared.machine.settle_memory(node);
    }
    if let (true, Some(cpus)) = (pool != Pool::Io, &shared.options.confined) {
        let node = shared.machine.topology.node(id);
        let own = node.map_or_else(|| cpus.clone(), |node| node.cpus.intersection(cpus));
        // Refused, it stays on those of its node.
        let _ = place::set_thread_affinity(&own);
    }
    here::set(Some(Here {
        node: id,
        worker: shared.main().workers.len() + node,
    }));
}
