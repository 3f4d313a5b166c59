//! The life of a worker's thread: it is put in its place, works, and goes; one of a background crew when
//! there has been nothing to do for a while.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use reiver_topology::here::{self, Here};
use reiver_topology::place;

use super::footing::Footing;
use super::{Takes, Worker};
use crate::builder::Pinning;
use crate::crew::Rank;
use crate::current::Current;
use crate::protocol::sync::Ordering;
use crate::running::Own;
use crate::schedule::{self, ThreadId};
use crate::shared::Shared;
use crate::spawner::Request;

/// A background worker stays so long without work, and its crew with it: long enough to outlast the pauses
/// of a steady load.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// They look one after the other whether they are to.
const LOOKS_APART: Duration = Duration::from_millis(20);
impl Worker {
    /// The life of the thread of one of those who are there from the start.
    pub(crate) fn live(self, shared: Arc<Shared>) {
        let own = shared.running.enter();
        self.live_until(shared, own, |shared, worker, current| {
            worker.work_until(current, Takes::All, None, |_| shared.stop.is_said());
        });
    }

    /// The life of the thread of one of those who come when they are needed. A background worker leaves
    /// once nobody of its crew has had anything to do for a while.
    pub(crate) fn live_in_crew(self, shared: Arc<Shared>, own: Arc<Own>) {
        let engine = Arc::downgrade(&shared);
        let shown = Arc::clone(&own);
        let worker = self.live_until(shared, own, |shared, worker, current| {
            let is_stopped = |_: &Waker| shared.stop.is_said();
            if worker.rank != Rank::Background {
                worker.work_until(current, Takes::All, None, is_stopped);
                return;
            }
            loop {
                worker.has_worked.set(false);
                // Who looks while another one looks too finds that one awake, and stays.
                let number = u32::try_from(worker.index).unwrap_or(u32::MAX);
                let until = Some(Instant::now() + KEEP_ALIVE + LOOKS_APART * number);
                if worker.work_until(current, Takes::All, until, is_stopped)
                    || (!worker.has_worked.get() && worker.leaves(shared))
                {
                    return;
                }
            }
        });
        if let Some((shared, worker)) = engine.upgrade().zip(worker)
            && !shared.stop.is_said()
        {
            let left = Request::Left(engine, worker, shown);
            shared.spawner.ask(left);
        }
    }

    /// It has had nothing to do for a while: true if it is to leave, see [`crew`](crate::crew).
    fn leaves(&self, shared: &Shared) -> bool {
        let crew = self.crew(shared);
        // Who works may have forks for all.
        let is_lonely = crew.sleepers.idle() + 1 < crew.muster.present();
        if is_lonely || !self.private.is_empty() || !self.deque.is_empty() {
            return false;
        }
        crew.muster.leaves(self.node);
        let leaves = !crew.has_queued();
        if !leaves {
            crew.muster.stays(self.node);
        }
        leaves
    }

    /// The life of the thread of a spare.
    pub(crate) fn live_as_spare(self, shared: Arc<Shared>, own: Arc<Own>) {
        self.live_until(shared, own, |shared, worker, current| {
            let spares = &worker.crew(shared).spares[worker.node];
            while !shared.stop.is_said() {
                // Nobody looks into the lists of one that rests.
                let holds_forks = || !worker.private.is_empty() || !worker.deque.is_empty();
                worker.work_until(current, Takes::All, None, |_| {
                    shared.stop.is_said()
                        || (!holds_forks() && spares.rests(worker.index, worker.crew(shared)))
                });
                reiver_pool::park_hook();
                while !shared.stop.is_said() && spares.still_rests(worker.index) {
                    worker.parker.park();
                }
            }
        });
    }

    /// Gives the worker back.
    fn live_until(
        self,
        shared: Arc<Shared>,
        own: Arc<Own>,
        life: impl FnOnce(&Arc<Shared>, &Worker, &Current),
    ) -> Option<Worker> {
        settle(&shared, &self);
        if let Some(footing) = Footing::of_thread(&shared) {
            self.footing.get_or_init(|| Box::new(footing));
        }
        let current = Current::cpu(shared, self, own);
        let worker = current.worker().expect("this is a CPU worker");
        let shared = current.engine().shared();
        let counted = shared.metrics.cpu_times.count();
        let face = &worker.crew(shared).workers[worker.index];
        current.set_unparker(&face.unparker);
        life(shared, worker, &current);
        if shared.stop.is_said() {
            shared.stop.before_last_look();
            shared.finish_forks(&current);
        }
        reiver_pool::park_hook();
        // ORDERING: relaxed, see `WorkerFace::thread`.
        face.thread.store(0, Ordering::Relaxed);
        drop(counted);
        here::set(None);
        current.into_worker()
    }
}

/// Puts the thread in its place: its first act, before it touches memory of its own.
fn settle(shared: &Shared, worker: &Worker) {
    let face = &worker.crew(shared).workers[worker.index];
    let seat = face.seat;
    let pinning = shared.options.pinning;
    let target = match (pinning, worker.rank) {
        (Pinning::None, _) => None,
        (Pinning::Core, _) => Some(place::Target::Core(seat.cpu)),
        (Pinning::Node, _) => Some(place::Target::Node(seat.node)),
    };
    if let Some(target) = target {
        place::pin_thread_to(&shared.machine.topology, target);
        shared.machine.settle_memory(worker.node);
    }
    if let (Some(cpus), Pinning::Node) = (&shared.options.confined, pinning) {
        let node = shared.machine.topology.node(seat.node);
        let own = node.map_or_else(|| cpus.clone(), |node| node.cpus.intersection(cpus));
        // Refused, it stays on those of its node.
        let _ = place::set_thread_affinity(&own);
    }
    schedule::settle(worker.rank);
    let thread = ThreadId::current();
    // ORDERING: relaxed: the fence in `yields` orders it.
    face.thread.store(thread.as_raw(), Ordering::Relaxed);
    if worker.rank == Rank::Ordinary && shared.yields() {
        thread.yield_to_others(shared.options.nice);
    }
    here::set(Some(Here {
        node: seat.node,
        worker: shared.number_of(worker.rank, worker.index),
    }));
}
