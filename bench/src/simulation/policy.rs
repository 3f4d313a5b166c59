//! The choices that are compared: in which order a thief looks, how much it takes from another node,
//! and how many of a node look elsewhere at once.
//!
//! The order is the engine's own, from [`steal_orders`](reiver::steal_order::steal_orders).

use super::machine::Machine;
use super::random::Random;

/// One way to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) name: &'static str,
    pub(super) victims: Victims,
    pub(super) far: Take,
    /// One thief a node looks at other nodes at a time, except in the last search before it sleeps.
    pub(super) one_crosser: bool,
    /// So many searches are of the own node alone, before any is of others.
    pub(super) patience: u32,
    /// The same for forks that were placed on their node alone, which is where their data lies.
    pub(super) patience_for_placed: u32,
    /// As long as it spins it does not look at other nodes while half of its mates have forks that they
    /// have not shared.
    pub(super) waits_for_mates: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victims {
    /// The nearest first.
    ByDistance,
    /// All others, one after the other from a random one on.
    Random,
}

/// What a thief takes from another node, to leave where its own node can steal it what it does not do
/// at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// One fork or job.
    One,
    /// Half of what is shared in one place.
    Half,
    /// That, and half of what the victim has not shared.
    HalfOfAll,
}

/// The engine as it is.
const ENGINE: Policy = Policy {
    name: "reiver",
    victims: Victims::ByDistance,
    far: Take::One,
    one_crosser: false,
    patience: 0,
    patience_for_placed: 0,
    waits_for_mates: true,
};

/// What is compared; the engine as it is comes first, whom all should beat last.
pub(super) const POLICIES: [Policy; 9] = [
    ENGINE,
    Policy {
        name: "reiver, half",
        far: Take::Half,
        ..ENGINE
    },
    Policy {
        name: "reiver, half of all",
        far: Take::HalfOfAll,
        ..ENGINE
    },
    Policy {
        name: "reiver, one crosser",
        one_crosser: true,
        ..ENGINE
    },
    Policy {
        name: "reiver, half, one crosser",
        far: Take::Half,
        one_crosser: true,
        ..ENGINE
    },
    Policy {
        name: "reiver, patient",
        patience: PATIENT,
        ..ENGINE
    },
    Policy {
        name: "reiver, half, placed wait",
        far: Take::Half,
        patience_for_placed: PATIENT,
        ..ENGINE
    },
    Policy {
        name: "reiver, crossing at once",
        waits_for_mates: false,
        ..ENGINE
    },
    Policy {
        name: "random victim",
        victims: Victims::Random,
        waits_for_mates: false,
        ..ENGINE
    },
];

/// Half of the searches that the engine spins between.
const PATIENT: u32 = 4;

/// Where a thief looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The deque of a worker.
    Worker(usize),
    /// What came to a node from outside.
    Injector(usize),
}

/// The order in which one worker looks for work that is not its own.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) targets: Vec<Target>,
    /// From here on they are on other nodes.
    pub(super) remote_from: usize,
}

impl Policy {
    /// The order of a worker before any search.
    pub(super) fn order(self, machine: &Machine, worker: usize) -> Order {
        let node = machine.node_of[worker];
        let order = &machine.orders[worker];
        let mates = order.same_node.iter().map(|victim| victim.worker);
        let mut targets: Vec<Target> = mates.map(Target::Worker).collect();
        targets.push(Target::Injector(node));
        let remote_from = targets.len();
        for (id, victims) in &order.remote {
            targets.extend(victims.iter().map(|victim| Target::Worker(victim.worker)));
            targets.push(Target::Injector(machine.index_of(*id)));
        }
        match self.victims {
            Victims::ByDistance => Order {
                targets,
                remote_from,
            },
            // Nobody is near or far to it.
            Victims::Random => Order {
                targets,
                remote_from: 0,
            },
        }
    }

    /// Before each search.
    pub(super) fn renew(self, order: &mut Order, random: &mut Random) {
        if self.victims == Victims::Random && !order.targets.is_empty() {
            let from = random.below(order.targets.len());
            order.targets.rotate_left(from);
        }
    }
}
