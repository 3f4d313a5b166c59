//! Jobs of class Auto: by what those of the same name have done with their threads, each runs as one of
//! class Cpu, Io or Hybrid. A job without a name goes by the type of its closure.
//!
//! Jobs of a name begin as Hybrid. The first of them are measured, and later every eighth: what the thread
//! did with its time (`spent`) while the job ran is noted in the profile (`profile`) of the name (`table`),
//! by which the next one is placed. A reading at each end takes 5 µs. Jobs of other classes know nothing
//! of it.

mod profile;
mod spent;
mod table;

use std::any::TypeId;
use std::num::NonZeroU64;

use spent::Gauge;
pub(crate) use spent::{Queued, Spent, queued};
use table::{Key, Table};

use crate::Class;
use crate::protocol::sync::{AtomicU64, Ordering};

/// So many of a name are measured one by one.
const EACH: u64 = 32;
/// From then on, one of so many.
const EVERY: u64 = 8;

/// What an engine knows of its jobs of class Auto.
#[derive(Debug)]
pub(crate) struct Autos {
    table: Table,
    gauge: Gauge,
    /// By class: how many were placed there.
    placed: [AtomicU64; 3],
}

/// What a job of class Auto carries, in a word: the key of its name, and in a bit whether it is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Auto(NonZeroU64);

impl Auto {
    fn new(key: Key, is_measured: bool) -> Auto {
        Auto(key.bits() | u64::from(is_measured))
    }

    fn key(self) -> Key {
        Key::of(self.0.get())
    }

    fn is_measured(self) -> bool {
        self.0.get() & 1 == 1
    }
}

/// How many jobs of class [`Auto`](Class::Auto) were placed in each of the other classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placed {
    /// Those that computed.
    pub cpu: u64,
    /// Those that blocked.
    pub io: u64,
    /// Those that did both, or of which nothing was known yet.
    pub hybrid: u64,
}

impl Autos {
    pub(crate) fn new() -> Autos {
        Autos {
            table: Table::new(),
            gauge: Gauge::new(),
            placed: Default::default(),
        }
    }

    /// Places a job that comes: what it runs as, and what it carries.
    pub(crate) fn place(&self, name: Option<&str>, body: TypeId) -> (Class, Auto) {
        let key = self.key(name, body);
        let known = self.table.note_job(key);
        let class = known
            .as_ref()
            .map_or(Class::Hybrid, |known| known.profile.class());
        let is_measured = known.is_some_and(|known| {
            known.profile.samples() < EACH || known.before.is_multiple_of(EVERY)
        });
        let placed = match class {
            Class::Cpu => 0,
            Class::Io => 1,
            Class::Hybrid | Class::Auto => 2,
        };
        // ORDERING: relaxed, here and below: in no sum with others.
        self.placed[placed].fetch_add(1, Ordering::Relaxed);
        (class, Auto::new(key, is_measured))
    }

    fn key(&self, name: Option<&str>, body: TypeId) -> Key {
        match name {
            Some(name) => self.table.key((0, name)),
            None => self.table.key((1, body)),
        }
    }

    /// A job begins on the current thread.
    pub(crate) fn begin(&self, job: Auto) -> Option<Spent> {
        job.is_measured().then(|| self.gauge.begin())
    }

    /// It has ended there.
    pub(crate) fn end(&self, job: Auto, before: Spent) {
        let sample = self.gauge.end(before);
        let profile = self.table.find(job.key());
        if let (Some(sample), Some(profile)) = (sample, profile) {
            profile.note(sample);
        }
    }

    /// What jobs of a name run as, if any have come of late.
    pub(crate) fn class_of(&self, name: &str) -> Option<Class> {
        let key = self.table.key((0, name));
        self.table.find(key).map(profile::Profile::class)
    }

    pub(crate) fn placed(&self) -> Placed {
        let [cpu, io, hybrid] = self
            .placed
            .each_ref()
            .map(|placed| placed.load(Ordering::Relaxed));
        Placed { cpu, io, hybrid }
    }
}
