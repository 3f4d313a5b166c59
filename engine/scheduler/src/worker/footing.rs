//! Whether a worker may still use the CPUs that it was put on. They can be taken from it, by a cpuset or
//! when they go offline: then the kernel moves it to others, and its work is done there. The engine says
//! so, and goes on. Once they are there again it is put back: the kernel does that too, but not with a thread that
//! woke while they went (Linux forgets in `select_fallback_rq` what was asked for it).

use std::cell::Cell;
use std::time::{Duration, Instant};

use reiver_topology::{CpuSet, Seat, place};

use crate::builder::Pinning;
use crate::shared::Shared;

/// What a worker stands on.
#[derive(Debug)]
pub(super) struct Footing {
    cpus: CpuSet,
    looks_from: Cell<Instant>,
    is_displaced: Cell<bool>,
    /// To the CPU of its seat, see [`Footing::bind`].
    is_bound: Cell<bool>,
    /// When its engine filled the machine, as it last knew.
    filled_at: Cell<Option<Instant>>,
}

/// So often it looks at the most.
const PAUSE: Duration = Duration::from_millis(100);

impl Footing {
    /// That of the current thread, which has been put in its place; none if it was put nowhere.
    pub(super) fn of_thread(shared: &Shared) -> Option<Footing> {
        let is_pinned =
            shared.options.pinning != Pinning::None && shared.machine.topology.is_this_machine();
        Some(Footing {
            cpus: is_pinned.then(place::thread_affinity)?.ok()?,
            looks_from: Cell::new(Instant::now() + PAUSE),
            is_displaced: Cell::new(false),
            is_bound: Cell::new(false),
            filled_at: Cell::new(None),
        })
    }

    /// An urgent worker with this seat is about to sleep. While its engine fills the machine it is bound to
    /// the CPU of its seat, so that the kernel wakes it there, and not behind another urgent one while a
    /// CPU runs something that would make room. That is not done where there are fewer such workers than
    /// CPUs.
    pub(super) fn bind(&self, seat: Seat, workers: usize, is_filled: bool) {
        if is_filled {
            self.filled_at.set(Some(Instant::now()));
        }
        // Loops have no work for all for a moment each time that one ends.
        let filled_at = self.filled_at.get();
        let is_filled = is_filled || filled_at.is_some_and(|at| at.elapsed() < PAUSE);
        let is_whole = workers >= self.cpus.len() && self.cpus.contains(seat.cpu);
        let binds = is_filled && is_whole && !self.is_displaced.get();
        if binds == self.is_bound.get() {
            return;
        }
        let cpus = if binds {
            [seat.cpu].into_iter().collect()
        } else {
            self.cpus.clone()
        };
        // Refused where CPUs were taken meanwhile, and then the kernel has moved it.
        let _ = place::set_thread_affinity(&cpus);
        self.is_bound.set(binds);
    }

    /// After a sleep: looks, if it has not for a while.
    pub(super) fn look(&self, shared: &Shared) {
        let now = Instant::now();
        if now < self.looks_from.get() || self.is_bound.get() {
            return;
        }
        self.looks_from.set(now + PAUSE);
        let before = &self.cpus;
        let Ok(cpus) = place::thread_affinity() else {
            return;
        };
        let is_displaced = !before.is_subset(&cpus);
        if !is_displaced && cpus != *before {
            // Refused, it is looked at again.
            let _ = place::set_thread_affinity(before);
        }
        if is_displaced == self.is_displaced.replace(is_displaced) {
            return;
        }
        match (shared.note_displaced(is_displaced), is_displaced) {
            (1, true) => tracing::warn!(
                "CPUs were taken from this process: a worker that was put on {before} may use {cpus} \
                 now; the engine goes on with as many workers, and work may be far from its memory"
            ),
            (0, false) => tracing::info!("the workers have the CPUs again that they were put on"),
            _ => {}
        }
    }
}
