//! Which CPUs and nodes a job gets: policy alone, on any machine that can be described.
//!
//! A job with `cpus` holds its CPUs: no other such job gets them meanwhile. A job that is only
//! confined to a node holds nothing, and counts there when the next one is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reiver::{NodeId, Topology};
use reiver_topology::CpuSet;

use crate::event::Placement;
use crate::job_file::{Affinity, MemoryPolicy};
use crate::plan::Numa;

/// What a job wants of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wish {
    pub(super) cpus: Option<u32>,
    pub(super) affinity: Affinity,
    /// The nodes that it may be on; empty for any.
    pub(super) nodes: Vec<NodeId>,
    pub(super) policy: Option<MemoryPolicy>,
}

/// What a job was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) placement: Arc<Placement>,
    /// CPUs that no other job gets meanwhile.
    held: CpuSet,
    /// Where it counts, if it holds none.
    counts_at: Option<NodeId>,
}

/// Who is where.
#[derive(Debug)]
pub(super) struct Places {
    topology: Arc<Topology>,
    /// CPUs that nobody holds.
    free: CpuSet,
    /// How many jobs that hold no CPUs are confined to a node.
    confined: BTreeMap<NodeId, usize>,
}

/// Whether a wish can be granted just now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Given(Given),
    /// The job runs where the kernel puts it.
    Anywhere,
    /// Not now; these CPUs are best kept for it.
    Wait(CpuSet),
}

impl Wish {
    pub(super) fn of(cpus: Option<u32>, numa: &Numa, default: Affinity) -> Wish {
        Wish {
            cpus,
            affinity: numa.affinity.unwrap_or(default),
            nodes: numa.nodes.clone(),
            policy: numa.policy,
        }
    }

    /// True if it waits for CPUs of its own where others have them; without, it goes where there are some.
    pub(super) fn may_wait(&self) -> bool {
        self.cpus.is_some() && self.affinity == Affinity::Require
    }
}

impl Places {
    pub(super) fn new(topology: Arc<Topology>) -> Places {
        let free = topology.cpus().iter().map(|cpu| cpu.id).collect();
        Places {
            topology,
            free,
            confined: BTreeMap::new(),
        }
    }

    /// Finds a place for a job, of CPUs that are not `kept` for others. Nothing is taken yet.
    pub(super) fn find(&self, wish: &Wish, kept: &CpuSet) -> Answer {
        let Some(cpus) = wish.cpus else {
            return self.find_node(wish);
        };
        let free = self.free.difference(kept);
        let count = (cpus as usize).min(self.topology.cpus().len());
        let any = Wish {
            nodes: Vec::new(),
            ..wish.clone()
        };
        let around = |wish: &Wish| {
            let theirs = free.intersection(&self.cpus_of(wish));
            let theirs = self.topology.pack(&theirs, count);
            (theirs.len() == count).then_some(theirs)
        };
        let confined = |wish: &Wish| self.pack_into_one(wish, &free, count);
        let anywhere = || confined(&any).unwrap_or_else(|| self.topology.pack(&free, count));
        let found = match wish.affinity {
            Affinity::None => Some(anywhere()),
            Affinity::Prefer => {
                let near = confined(wish).or_else(|| around(wish));
                Some(near.unwrap_or_else(anywhere))
            }
            Affinity::Require if self.has_one_of(wish, count) => confined(wish),
            Affinity::Require => around(wish),
        };
        match found {
            None => Answer::Wait(self.best_for(wish, count)),
            Some(cpus) if cpus.is_empty() => self.anywhere(wish),
            Some(cpus) => Answer::Given(Given {
                placement: self.placement(wish, cpus.clone()),
                held: cpus,
                counts_at: None,
            }),
        }
    }

    pub(super) fn take(&mut self, given: &Given) {
        self.free = self.free.difference(&given.held);
        if let Some(node) = given.counts_at {
            *self.confined.entry(node).or_default() += 1;
        }
    }

    pub(super) fn give_back(&mut self, given: &Given) {
        self.free = self.free.union(&given.held);
        if let Some(count) = given
            .counts_at
            .and_then(|node| self.confined.get_mut(&node))
        {
            *count -= 1;
        }
    }

    /// The node with the most room, for a job that holds no CPUs.
    fn find_node(&self, wish: &Wish) -> Answer {
        if wish.affinity == Affinity::None {
            return self.anywhere(wish);
        }
        let room = |id: NodeId| {
            let cpus = self.topology.node(id).map(|node| &node.cpus)?;
            let free = cpus.intersection(&self.free).len();
            let room = free.cast_signed() - self.confined.get(&id).map_or(0, |&n| n.cast_signed());
            (!cpus.is_empty()).then_some((room, Reverse(id)))
        };
        let best = self.nodes_of(wish).into_iter().filter_map(room).max();
        let is_wanted = |&(room, _): &(isize, _)| wish.affinity == Affinity::Require || room > 0;
        let Some((_, Reverse(id))) = best.filter(is_wanted) else {
            return self.anywhere(wish);
        };
        let cpus = self.topology.node(id).map(|node| node.cpus.clone());
        Answer::Given(Given {
            placement: self.placement(wish, cpus.unwrap_or_default()),
            held: CpuSet::new(),
            counts_at: Some(id),
        })
    }

    /// No place, but perhaps memory from nodes that were named.
    fn anywhere(&self, wish: &Wish) -> Answer {
        if wish.policy.is_none() {
            return Answer::Anywhere;
        }
        let placement = self.placement(wish, CpuSet::new());
        match placement.memory {
            None => Answer::Anywhere,
            Some(_) => Answer::Given(Given {
                placement,
                held: CpuSet::new(),
                counts_at: None,
            }),
        }
    }

    /// So many of the free CPUs, all of one node: the one where they make up the fewest cores, then
    /// that with the fewest free, so that large ones stay large.
    fn pack_into_one(&self, wish: &Wish, free: &CpuSet, count: usize) -> Option<CpuSet> {
        let packed = self.nodes_of(wish).into_iter().filter_map(|id| {
            let free = self.topology.node(id)?.cpus.intersection(free);
            let packed = self.topology.pack(&free, count);
            let cores: BTreeSet<u32> = packed
                .iter()
                .filter_map(|cpu| Some(self.topology.cpu(cpu)?.core))
                .collect();
            (packed.len() == count).then_some((cores.len(), free.len(), id, packed))
        });
        let best = packed.min_by_key(|(cores, free, id, _)| (*cores, *free, *id));
        best.map(|(_, _, _, packed)| packed)
    }

    /// True if one of the nodes has so many CPUs, free or not.
    fn has_one_of(&self, wish: &Wish, count: usize) -> bool {
        let nodes = self.nodes_of(wish).into_iter();
        let mut nodes = nodes.filter_map(|id| self.topology.node(id));
        nodes.any(|node| node.cpus.len() >= count)
    }

    /// What is to be kept for a job that waits: the node that lacks the fewest, or all of its nodes.
    fn best_for(&self, wish: &Wish, count: usize) -> CpuSet {
        let large = self.nodes_of(wish).into_iter().filter_map(|id| {
            let node = self.topology.node(id)?;
            let free = node.cpus.intersection(&self.free).len();
            (node.cpus.len() >= count).then_some((free, Reverse(id), node.cpus.clone()))
        });
        let best = large.max_by_key(|(free, id, _)| (*free, *id));
        best.map_or_else(|| self.cpus_of(wish), |(_, _, cpus)| cpus)
    }

    fn nodes_of(&self, wish: &Wish) -> Vec<NodeId> {
        match wish.nodes.is_empty() {
            true => self.topology.nodes().collect(),
            false => wish.nodes.clone(),
        }
    }

    fn cpus_of(&self, wish: &Wish) -> CpuSet {
        let nodes = self.nodes_of(wish).into_iter();
        let nodes = nodes.filter_map(|id| self.topology.node(id));
        nodes.fold(CpuSet::new(), |all, node| all.union(&node.cpus))
    }

    fn placement(&self, wish: &Wish, cpus: CpuSet) -> Arc<Placement> {
        let cpu = |id| self.topology.cpu(id);
        let nodes: BTreeSet<NodeId> = cpus.iter().filter_map(cpu).map(|cpu| cpu.node).collect();
        let memory = self.memory(wish, &nodes);
        let mut nodes = nodes.into_iter();
        let node = nodes.next().filter(|_| nodes.next().is_none());
        Arc::new(Placement { cpus, node, memory })
    }

    /// The policy and its nodes, of a job that is on `nodes`, if it is placed at all.
    fn memory(&self, wish: &Wish, nodes: &BTreeSet<NodeId>) -> Option<(MemoryPolicy, Vec<NodeId>)> {
        let is_confined = wish.affinity != Affinity::None && !nodes.is_empty();
        let policy = match wish.policy {
            Some(policy) => policy,
            None if is_confined && nodes.len() == 1 => MemoryPolicy::Preferred,
            None => return None,
        };
        let named = !wish.nodes.is_empty();
        let all = || self.topology.nodes().collect();
        let nodes: Vec<NodeId> = match policy {
            MemoryPolicy::Local => return Some((policy, Vec::new())),
            MemoryPolicy::Interleave if named => wish.nodes.clone(),
            MemoryPolicy::Interleave => all(),
            // Confined to some of the nodes that it names, it gets the memory of those.
            MemoryPolicy::Bind | MemoryPolicy::Preferred if is_confined || !named => {
                nodes.iter().copied().collect()
            }
            MemoryPolicy::Bind | MemoryPolicy::Preferred => wish.nodes.clone(),
        };
        let nodes: BTreeSet<NodeId> = nodes
            .into_iter()
            .filter_map(|id| self.memory_at(id))
            .collect();
        (!nodes.is_empty()).then(|| (policy, nodes.into_iter().collect()))
    }

    /// The nearest node that has memory.
    fn memory_at(&self, id: NodeId) -> Option<NodeId> {
        let has_memory = |id: &NodeId| {
            let node = self.topology.node(*id);
            node.is_some_and(|node| node.memory_bytes > 0)
        };
        // On machines whose description tells of no memory each node is taken to have some.
        if !self.topology.nodes().any(|id| has_memory(&id)) {
            return Some(id);
        }
        let others = self.topology.nearest_nodes(id);
        [id].into_iter().chain(others).find(has_memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(machine: &str) -> Places {
        Places::new(Arc::new(Topology::synthetic(machine).expect("a machine")))
    }

    fn wish(cpus: u32, affinity: Affinity, nodes: &[u32]) -> Wish {
        Wish {
            cpus: (cpus > 0).then_some(cpus),
            affinity,
            nodes: nodes.iter().map(|&id| NodeId(id)).collect(),
            policy: None,
        }
    }

    /// Takes what is found; its CPUs and its node, or what is kept where it waits.
    fn take(places: &mut Places, wish: &Wish) -> String {
        match places.find(wish, &CpuSet::new()) {
            Answer::Anywhere => "anywhere".to_owned(),
            Answer::Wait(kept) => format!("waits for {kept}"),
            Answer::Given(given) => {
                places.take(&given);
                let node = given.placement.node.map(|node| format!(" on {}", node.0));
                format!("{}{}", given.placement.cpus, node.unwrap_or_default())
            }
        }
    }

    #[test]
    fn sets_lie_on_a_node_and_never_overlap() {
        let mut places = places("NUMANode:2 Core:4 PU:1");
        let three = wish(3, Affinity::None, &[]);
        assert_eq!(take(&mut places, &three), "0-2 on 0");
        assert_eq!(take(&mut places, &three), "4-6 on 1");
        // What is left is no node's alone.
        assert_eq!(take(&mut places, &wish(2, Affinity::None, &[])), "3,7");
        assert_eq!(take(&mut places, &wish(1, Affinity::None, &[])), "anywhere");
    }

    #[test]
    fn a_job_larger_than_the_machine_gets_what_there_is() {
        let mut places = places("NUMANode:2 Core:2 PU:1");
        assert_eq!(take(&mut places, &wish(99, Affinity::None, &[])), "0-3");
        assert_eq!(
            take(&mut places, &wish(99, Affinity::None, &[])),
            "anywhere"
        );
    }

    #[test]
    fn what_is_required_is_waited_for_and_what_is_preferred_is_not() {
        let mut places = places("NUMANode:2 Core:4 PU:1");
        let require = |cpus| wish(cpus, Affinity::Require, &[1]);
        assert_eq!(take(&mut places, &require(3)), "4-6 on 1");
        assert_eq!(take(&mut places, &require(2)), "waits for 4-7");
        assert_eq!(take(&mut places, &require(1)), "7 on 1");
        let prefer = wish(2, Affinity::Prefer, &[1]);
        assert_eq!(take(&mut places, &prefer), "0-1 on 0");
    }

    #[test]
    fn nodes_that_were_named_are_taken_together_where_none_is_large_enough() {
        let mut places = places("NUMANode:3 Core:2 PU:1");
        let three = wish(3, Affinity::Require, &[0, 2]);
        assert_eq!(take(&mut places, &three), "0-1,4");
        assert_eq!(take(&mut places, &three), "waits for 0-1,4-5");
    }

    #[test]
    fn a_half_used_node_is_not_spread_over_for_whole_cores() {
        // Each node has one whole core and two halves.
        let mut places = places("NUMANode:2 Core:3 PU:2");
        places.free = "0-1,2,4,6-7,8,10".parse().expect("a set");
        assert_eq!(
            take(&mut places, &wish(4, Affinity::Require, &[])),
            "0-2,4 on 0"
        );
    }

    #[test]
    fn jobs_without_cpus_are_dealt_to_nodes() {
        let mut places = places("NUMANode:2 Core:2 PU:1");
        let any = wish(0, Affinity::Prefer, &[]);
        let dealt: Vec<String> = (0..5).map(|_| take(&mut places, &any)).collect();
        assert_eq!(
            dealt,
            ["0-1 on 0", "2-3 on 1", "0-1 on 0", "2-3 on 1", "anywhere"]
        );
        assert_eq!(
            take(&mut places, &wish(0, Affinity::Require, &[1])),
            "2-3 on 1"
        );
        assert_eq!(
            take(&mut places, &wish(0, Affinity::None, &[1])),
            "anywhere"
        );
    }

    #[test]
    fn what_is_given_back_can_be_given_again() {
        let mut places = places("NUMANode:2 Core:2 PU:1");
        for wish in [
            wish(2, Affinity::Require, &[1]),
            wish(0, Affinity::Require, &[1]),
        ] {
            for _ in 0..3 {
                let Answer::Given(given) = places.find(&wish, &CpuSet::new()) else {
                    panic!("there is room");
                };
                assert_eq!(given.placement.cpus.to_string(), "2-3");
                places.take(&given);
                places.give_back(&given);
            }
        }
        assert!(places.confined.values().all(|&count| count == 0));
    }

    #[test]
    fn memory_comes_from_where_the_job_is_unless_it_says_otherwise() {
        let memory = |affinity, policy, nodes: &[u32]| {
            let places = places("NUMANode:3 Core:2 PU:1");
            let wish = Wish {
                policy,
                ..wish(2, affinity, nodes)
            };
            let Answer::Given(given) = places.find(&wish, &CpuSet::new()) else {
                panic!("there is room");
            };
            let memory = given.placement.memory.clone();
            memory.map(|(policy, nodes)| (policy, nodes.iter().map(|id| id.0).collect::<Vec<_>>()))
        };
        use Affinity::{None as Free, Require};
        use MemoryPolicy::{Bind, Interleave, Local, Preferred};
        assert_eq!(memory(Free, None, &[]), None);
        assert_eq!(memory(Require, None, &[]), Some((Preferred, vec![0])));
        assert_eq!(memory(Require, Some(Bind), &[1, 2]), Some((Bind, vec![1])));
        assert_eq!(memory(Free, Some(Bind), &[1, 2]), Some((Bind, vec![1, 2])));
        assert_eq!(memory(Free, Some(Bind), &[]), Some((Bind, vec![0])));
        assert_eq!(
            memory(Require, Some(Interleave), &[]),
            Some((Interleave, vec![0, 1, 2]))
        );
        assert_eq!(
            memory(Require, Some(Interleave), &[1]),
            Some((Interleave, vec![1]))
        );
        assert_eq!(memory(Require, Some(Local), &[1]), Some((Local, vec![])));
    }
}
