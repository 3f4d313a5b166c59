//! What running jobs hold of what they share, and whether one more fits: policy alone.
//!
//! A ready job that does not fit is not passed over for ever: what it lacks is kept for it against all
//! that come after it, and so are the places in pools, the resources and the memory that it will
//! need. Slots are kept only for one that lacks nothing else, or a long wait for a pool would keep
//! CPUs idle.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use reiver::Class;
use reiver_topology::CpuSet;

use super::places::{Answer, Given, Places, Wish};
use crate::Plan;
use crate::event::Placement;
use crate::job_file::Affinity;
use crate::plan::{Numa, Settings};

/// What a job needs to start; jobs with the same needs wait in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Demand {
    /// 0 for cpu, 1 for io.
    class: usize,
    slots: u32,
    memory: u64,
    pool: Option<usize>,
    resources: Vec<(usize, u32)>,
    wish: Wish,
}

/// Demands that are passed over together once what they all need is kept for others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    class: usize,
    /// They have nothing to wait for but memory and slots.
    needs_memory_alone: bool,
}

/// What a running job holds, besides its slots.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Held {
    given: Option<Given>,
    /// For each resource of its demand the indices.
    indices: Vec<(usize, Vec<u32>)>,
}

/// What there is.
#[derive(Debug)]
pub(super) struct Stock {
    slots: [u32; 2],
    memory: u64,
    pools: Vec<u32>,
    resources: Vec<Indices>,
    places: Places,
}

/// The indices of a resource that are free. There may be four billion, of which few are ever held.
#[derive(Debug)]
struct Indices {
    /// Those that were held once.
    returned: BTreeSet<u32>,
    /// Those that never were.
    fresh: Range<u32>,
}

/// What is kept for jobs that come first.
#[derive(Debug, Default)]
pub(super) struct Kept {
    classes: [bool; 2],
    memory: u64,
    pools: HashMap<usize, u32>,
    resources: HashMap<usize, usize>,
    cpus: CpuSet,
}

impl Demand {
    /// Whose slots it takes: `Cpu` or `Io`.
    pub(super) fn class(&self) -> Class {
        match self.class {
            0 => Class::Cpu,
            _ => Class::Io,
        }
    }

    /// With whom it is passed over.
    pub(super) fn lane(&self) -> Lane {
        let shares_more = self.pool.is_some() || !self.resources.is_empty() || self.wish.may_wait();
        Lane {
            class: self.class,
            needs_memory_alone: self.memory > 0 && !shares_more,
        }
    }

    /// Of a job on slots of this class.
    pub(super) fn of(plan: &Plan, settings: &Settings, class: Class) -> Demand {
        let place = |list: &[(String, u32)], name: &str| {
            let place = list.iter().position(|(known, _)| known == name);
            place.expect("a plan knows all that its jobs name")
        };
        let (class, slots) = match class {
            Class::Cpu | Class::Hybrid | Class::Auto => (0, settings.cpus.unwrap_or(1)),
            Class::Io => (1, 1),
        };
        let pool = settings.pool.as_ref();
        let resources = settings.resources.iter();
        Demand {
            class,
            slots,
            memory: settings.memory.unwrap_or(0),
            pool: pool.map(|name| place(plan.pools(), name)),
            resources: resources
                .map(|(name, count)| (place(plan.resources(), name), *count))
                .collect(),
            wish: match settings.is_task {
                // The engine's workers are where they are.
                true => Wish::of(None, &Numa::default(), Affinity::None),
                false => Wish::of(settings.cpus, &settings.numa, plan.affinity()),
            },
        }
    }
}

impl Lane {
    pub(super) const COUNT: usize = 4;

    pub(super) fn all() -> impl Iterator<Item = Lane> {
        (0..Lane::COUNT).map(|index| Lane {
            class: index / 2,
            needs_memory_alone: index % 2 == 1,
        })
    }

    /// Its place among all.
    pub(super) fn index(self) -> usize {
        self.class * 2 + usize::from(self.needs_memory_alone)
    }
}

impl Held {
    /// Where the job is.
    pub(super) fn placement(&self) -> Option<&Arc<Placement>> {
        self.given.as_ref().map(|given| &given.placement)
    }

    /// The indices that it holds, with the resource's place among the plan's.
    pub(super) fn indices(&self) -> &[(usize, Vec<u32>)] {
        &self.indices
    }

    /// True if it holds nothing.
    pub(super) fn is_nothing(&self) -> bool {
        self.given.is_none() && self.indices.is_empty()
    }
}

impl Kept {
    /// True if cpu slots are kept for a job that lacks nothing else.
    pub(super) fn waits_for_cpus(&self) -> bool {
        self.classes[0]
    }

    fn keep(&mut self, demand: &Demand, cpus: &CpuSet) {
        self.memory = self.memory.saturating_add(demand.memory);
        if let Some(pool) = demand.pool {
            *self.pools.entry(pool).or_default() += 1;
        }
        for &(resource, count) in &demand.resources {
            *self.resources.entry(resource).or_default() += count as usize;
        }
        self.cpus = self.cpus.union(cpus);
    }
}

impl Indices {
    fn new(count: u32) -> Indices {
        Indices {
            returned: BTreeSet::new(),
            fresh: 0..count,
        }
    }

    fn len(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    fn take_first(&mut self) -> Option<u32> {
        self.returned.pop_first().or_else(|| self.fresh.next())
    }
}

impl Stock {
    pub(super) fn new(plan: &Plan) -> Stock {
        let limits = plan.limits();
        Stock {
            slots: [limits.cpus, limits.io],
            memory: limits.memory.unwrap_or(u64::MAX),
            pools: plan.pools().iter().map(|(_, count)| *count).collect(),
            resources: plan
                .resources()
                .iter()
                .map(|(_, count)| Indices::new(*count))
                .collect(),
            places: Places::new(Arc::clone(plan.topology())),
        }
    }

    /// True if a job of neither class finds a slot.
    pub(super) fn has_no_slot(&self) -> bool {
        self.slots == [0, 0]
    }

    /// Cpu slots that nobody has.
    pub(super) fn free_cpus(&self) -> u32 {
        self.slots[0]
    }

    /// Io slots that nobody has.
    pub(super) fn free_io(&self) -> u32 {
        self.slots[1]
    }

    pub(super) fn add_cpus(&mut self, slots: u32) {
        self.slots[0] += slots;
    }

    pub(super) fn remove_cpus(&mut self, slots: u32) {
        self.slots[0] -= slots;
    }

    /// How many cpu slots a job lacks.
    pub(super) fn lacks_cpus(&self, demand: &Demand) -> u32 {
        demand.slots.saturating_sub(self.slots[0])
    }

    /// False where no demand of a lane can be given what it needs, whichever is looked at, and nothing more would
    /// be kept for it that keeps others from starting.
    pub(super) fn is_open(&self, lane: Lane, kept: &Kept) -> bool {
        let has_memory = !lane.needs_memory_alone || kept.memory < self.memory;
        has_memory && !kept.classes[lane.class]
    }

    /// Gives a job what it needs; `None` where it has to wait, and then what it waits for is kept.
    pub(super) fn take(&mut self, demand: &Demand, kept: &mut Kept) -> Option<Held> {
        let answer = self.look(demand, kept)?;
        self.slots[demand.class] -= demand.slots;
        self.memory -= demand.memory;
        if let Some(pool) = demand.pool {
            self.pools[pool] -= 1;
        }
        let indices = demand.resources.iter().map(|&(resource, count)| {
            let free = &mut self.resources[resource];
            let taken = (0..count).filter_map(|_| free.take_first()).collect();
            (resource, taken)
        });
        let indices = indices.collect();
        let given = match answer {
            Answer::Given(given) => Some(given),
            Answer::Anywhere | Answer::Wait(_) => None,
        };
        if let Some(given) = &given {
            self.places.take(given);
        }
        Some(Held { given, indices })
    }

    /// Where a job would go; `None` as for [`take`](Stock::take), which alone gives it.
    pub(super) fn look(&self, demand: &Demand, kept: &mut Kept) -> Option<Answer> {
        if kept.classes[demand.class] {
            return None;
        }
        let lacks_pool = demand
            .pool
            .is_some_and(|pool| self.pools[pool] <= kept.pools.get(&pool).copied().unwrap_or(0));
        let lacks_resource = demand.resources.iter().any(|&(resource, count)| {
            let kept = kept.resources.get(&resource).copied().unwrap_or(0);
            self.resources[resource].len() < kept.saturating_add(count as usize)
        });
        // A job that states no memory has nothing to wait for.
        let lacks_memory =
            demand.memory > 0 && self.memory < kept.memory.saturating_add(demand.memory);
        let lacks_share = lacks_pool || lacks_resource || lacks_memory;
        if lacks_share && !demand.wish.may_wait() {
            kept.keep(demand, &CpuSet::new());
            return None;
        }
        let answer = self.places.find(&demand.wish, &kept.cpus);
        let cpus = match &answer {
            Answer::Wait(cpus) => cpus.clone(),
            Answer::Given(_) | Answer::Anywhere => CpuSet::new(),
        };
        let lacks = lacks_share || matches!(answer, Answer::Wait(_));
        let lacks_slots = self.slots[demand.class] < demand.slots;
        if lacks || lacks_slots {
            kept.classes[demand.class] |= !lacks;
            kept.keep(demand, &cpus);
            return None;
        }
        Some(answer)
    }

    pub(super) fn give_back(&mut self, demand: &Demand, held: Held) {
        self.slots[demand.class] += demand.slots;
        self.memory += demand.memory;
        if let Some(pool) = demand.pool {
            self.pools[pool] += 1;
        }
        for (resource, indices) in held.indices {
            self.resources[resource].returned.extend(indices);
        }
        if let Some(given) = &held.given {
            self.places.give_back(given);
        }
    }
}
