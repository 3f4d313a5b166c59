//! The machine itself: nodes, CPUs and caches with their relations, whoever read them.
//!
//! Readers hand over [`Parts`]; [`Topology::from_parts`] puts them in order once, so that whoever
//! asks afterwards never meets an odd machine: every CPU has a node, every pair of nodes a distance.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::{CpuId, CpuSet, TopologyError, quota, synthetic, sys, sysfs};

/// A NUMA node, by the operating system's number; numbers may have gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its CPUs that may be used; none on a node of memory alone, or on one that is not allowed.
    pub cpus: CpuSet,
    /// Its memory in bytes; 0 where it has none, or where nobody says.
    pub memory_bytes: u64,
}

/// A hardware thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: CpuId,
    /// The node it belongs to.
    pub node: NodeId,
    /// The package (socket) it sits in.
    pub package: u32,
    /// Its core, from 0 over the whole machine; hardware threads of one core share it.
    pub core: u32,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CacheKind {
    /// Data.
    Data,
    /// Instructions.
    Instruction,
    /// Both.
    Unified,
}

/// A cache, and who shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// 1 is the one next to the core.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// Its size in bytes; 0 where nobody says.
    pub size_bytes: u64,
    /// The usable CPUs that share it, at least one.
    pub cpus: CpuSet,
}

/// Who read a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reader {
    /// The kernel's files under `/sys/devices/system`.
    Sysfs,
    /// The hwloc library.
    Hwloc,
    /// A description in words: [`Topology::synthetic`].
    Synthetic,
    /// Nobody could: the CPUs that this process may use, as one node.
    Fallback,
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reader::Sysfs => "sysfs",
            Reader::Hwloc => "hwloc",
            Reader::Synthetic => "synthetic",
            Reader::Fallback => "fallback",
        })
    }
}

/// A machine: this one, or one that is only described.
///
/// Cheap to clone, never changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    machine: Arc<Machine>,
}

#[derive(Debug)]
struct Machine {
    reader: Reader,
    this_machine: bool,
    /// Of this machine read when it is first asked for: few ask, and it costs as much as all else.
    quota: OnceLock<Option<f64>>,
    /// Ascending.
    nodes: Vec<Node>,
    /// Ascending.
    cpus: Vec<Cpu>,
    /// Inner ones before outer ones. Where the reader leaves them, read when first asked for.
    caches: OnceLock<Vec<Cache>>,
    /// Row by row, in the order of `nodes`.
    distances: Vec<u32>,
}

impl Machine {
    fn quota(&self) -> Option<f64> {
        let read = || self.this_machine.then(|| quota::read("/".as_ref()))?;
        *self.quota.get_or_init(read)
    }

    fn caches(&self) -> &[Cache] {
        let read = || in_order(sysfs::caches("/".as_ref(), &self.cpus));
        self.caches.get_or_init(read)
    }
}

impl PartialEq for Machine {
    fn eq(&self, other: &Machine) -> bool {
        (self.reader, self.this_machine) == (other.reader, other.this_machine)
            && (&self.nodes, &self.cpus) == (&other.nodes, &other.cpus)
            && self.distances == other.distances
            && self.caches() == other.caches()
            && self.quota() == other.quota()
    }
}

/// Those that somebody has, inner ones before outer ones.
fn in_order(mut caches: Vec<Cache>) -> Vec<Cache> {
    caches.retain(|cache| !cache.cpus.is_empty());
    caches.sort_by_key(|cache| (cache.level, cache.kind, cache.cpus.first()));
    caches
}

/// What a reader found, in any order.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) nodes: Vec<Node>,
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) caches: Vec<Cache>,
    /// The sysfs reader is to be asked for the caches of this machine once somebody wants them.
    pub(crate) caches_are_left: bool,
    /// Those that are known.
    pub(crate) distances: BTreeMap<(NodeId, NodeId), u32>,
}

/// The distance of a node to itself, in the kernel's units (those of ACPI's SLIT).
const LOCAL_DISTANCE: u32 = 10;
/// The distance of two nodes of which nobody says how far they are, as the kernel assumes it.
const REMOTE_DISTANCE: u32 = 20;

impl Topology {
    /// This machine, as far as this process may use it: its affinity mask (so also its cpuset) is
    /// the machine. Read from `/sys`; where that says nothing, all usable CPUs are one node.
    ///
    /// Costs some two file reads a core, 5 µs each. [`caches`](Topology::caches) and
    /// [`cpu_quota`](Topology::cpu_quota) are read when they are first asked for.
    ///
    /// # Errors
    /// Where the kernel does not even say which CPUs this process may use.
    pub fn detect() -> Result<Topology, TopologyError> {
        let allowed = allowed_cpus()?;
        match sysfs::read("/".as_ref(), Some(&allowed)) {
            Ok(parts) => Topology::from_parts(parts, Reader::Sysfs, true),
            Err(error) => {
                tracing::warn!("{error}; taking all usable CPUs for one node");
                let cpus = allowed
                    .iter()
                    .map(|id| Cpu {
                        id,
                        node: NodeId(0),
                        package: 0,
                        core: id.0,
                    })
                    .collect();
                let node = Node {
                    id: NodeId(0),
                    cpus: allowed,
                    memory_bytes: 0,
                };
                let parts = Parts {
                    nodes: vec![node],
                    cpus,
                    ..Parts::default()
                };
                Topology::from_parts(parts, Reader::Fallback, true)
            }
        }
    }

    /// The machine whose `/sys` (and `/proc`) lie under `root`: a snapshot of another one. What
    /// the process that took it was allowed is not asked; every online CPU counts.
    ///
    /// # Errors
    /// [`TopologyError::NoCpus`] where there is no `sys/devices/system/cpu` with a CPU online.
    pub fn from_sysfs(root: impl AsRef<std::path::Path>) -> Result<Topology, TopologyError> {
        Topology::from_parts(sysfs::read(root.as_ref(), None)?, Reader::Sysfs, false)
    }

    /// A machine described in words, in hwloc's grammar: levels from the outside in, each a type
    /// and how many of it every one of the level above has.
    ///
    /// Types are `Package`, `Die`, `Group`, `NUMANode`, `L5` to `L1` (also `L2Cache`, `L1d`,
    /// `L1i`), `Core` and `PU`, in any case, with hwloc's short forms (`pack`, `numa`, `node`).
    /// Without a type, numbers are `PU`, `Core`, `NUMANode` and `Package` from the inside out.
    /// Attributes stand in brackets: `NUMANode:2(memory=64GiB) L3:1(size=32MiB) Core:8 PU:2`.
    /// `[NUMANode(memory=16GB)]` after a level attaches memory to each of it; the second one
    /// attached to the same place is a node without CPUs of its own.
    ///
    /// A last word of our own gives distances in the order of the nodes, row by row:
    /// `distances=10,16,22;16,10,16;22,16,10`. Without it they are 10 and 20.
    ///
    /// ```
    /// use reiver_topology::{NodeId, Topology};
    ///
    /// let two = Topology::synthetic("NUMANode:2 Core:4 PU:1 distances=10,21;21,10")?;
    /// assert_eq!(two.distance(NodeId(0), NodeId(1)), 21);
    /// # Ok::<(), reiver_topology::TopologyError>(())
    /// ```
    ///
    /// # Errors
    /// [`TopologyError::Synthetic`] with the place that is not understood, or that asks for more
    /// than 4,096 nodes or 65,536 CPUs.
    pub fn synthetic(description: &str) -> Result<Topology, TopologyError> {
        Topology::from_parts(synthetic::read(description)?, Reader::Synthetic, false)
    }

    /// This machine as hwloc sees it, as far as this process may use it.
    ///
    /// # Errors
    /// [`TopologyError::Hwloc`] with the library's reason.
    #[cfg(feature = "hwloc")]
    pub fn from_hwloc() -> Result<Topology, TopologyError> {
        Topology::from_parts(crate::hwloc::read(&allowed_cpus()?)?, Reader::Hwloc, true)
    }

    fn from_parts(
        parts: Parts,
        reader: Reader,
        this_machine: bool,
    ) -> Result<Topology, TopologyError> {
        let Parts {
            mut nodes,
            mut cpus,
            caches,
            caches_are_left,
            distances,
        } = parts;
        if cpus.is_empty() {
            return Err(TopologyError::NoCpus {
                origin: format!("the {reader} reader"),
            });
        }
        nodes.sort_by_key(|node| node.id);
        cpus.sort_by_key(|cpu| cpu.id);
        let mut cores = BTreeMap::new();
        for cpu in &mut cpus {
            let next = u32::try_from(cores.len()).expect("fewer cores than CPU numbers");
            cpu.core = *cores.entry(cpu.core).or_insert(next);
        }
        let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let distance = |from: NodeId, to: NodeId| {
            let assumed = if from == to {
                LOCAL_DISTANCE
            } else {
                REMOTE_DISTANCE
            };
            distances.get(&(from, to)).copied().unwrap_or(assumed)
        };
        let distances = ids
            .iter()
            .flat_map(|&from| ids.iter().map(move |&to| distance(from, to)))
            .collect();
        let caches = match caches_are_left {
            true => OnceLock::new(),
            false => in_order(caches).into(),
        };
        let machine = Machine {
            reader,
            this_machine,
            quota: OnceLock::new(),
            nodes,
            cpus,
            caches,
            distances,
        };
        Ok(Topology {
            machine: Arc::new(machine),
        })
    }

    /// Every node, ascending; also those without CPUs or without memory.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.machine.nodes.iter().map(|node| node.id)
    }

    /// The node with this number, if the machine has it.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.node_index(id).map(|index| &self.machine.nodes[index])
    }

    fn node_index(&self, id: NodeId) -> Option<usize> {
        self.machine
            .nodes
            .binary_search_by_key(&id, |node| node.id)
            .ok()
    }

    /// The CPUs that may be used, ascending. At least one.
    pub fn cpus(&self) -> &[Cpu] {
        &self.machine.cpus
    }

    /// The CPU with this number, if it may be used.
    pub fn cpu(&self, id: CpuId) -> Option<&Cpu> {
        let cpus = &self.machine.cpus;
        cpus.binary_search_by_key(&id, |cpu| cpu.id)
            .ok()
            .map(|index| &cpus[index])
    }

    /// The caches, inner ones before outer ones. On this machine they are read on the first call, at
    /// some ten file reads a core; what cannot be read then is left out.
    pub fn caches(&self) -> &[Cache] {
        self.machine.caches()
    }

    /// The innermost cache that holds data for both CPUs. Costs a look at every cache.
    pub fn shared_cache(&self, a: CpuId, b: CpuId) -> Option<&Cache> {
        self.caches().iter().find(|cache| {
            cache.kind != CacheKind::Instruction && cache.cpus.contains(a) && cache.cpus.contains(b)
        })
    }

    /// How far memory of `to` is from CPUs of `from`, in the kernel's units: 10 is local, 20 costs
    /// twice that. Where nobody says, and for nodes that the machine does not have, 10 from a node
    /// to itself and 20 to others.
    pub fn distance(&self, from: NodeId, to: NodeId) -> u32 {
        match (self.node_index(from), self.node_index(to)) {
            (Some(row), Some(column)) => {
                self.machine.distances[row * self.machine.nodes.len() + column]
            }
            _ if from == to => LOCAL_DISTANCE,
            _ => REMOTE_DISTANCE,
        }
    }

    /// All other nodes, nearest first; among equally near ones, ascending.
    pub fn nearest_nodes(&self, from: NodeId) -> Vec<NodeId> {
        let mut others: Vec<NodeId> = self.nodes().filter(|&id| id != from).collect();
        others.sort_by_key(|&to| (self.distance(from, to), to));
        others
    }

    /// How many CPUs the cgroup of this process grants it (its own quota or that of a group above
    /// it, whichever is less); `None` without a limit, and on a machine that is only described.
    /// Read on the first call.
    pub fn cpu_quota(&self) -> Option<f64> {
        self.machine.quota()
    }

    /// How many workers make sense: one for each CPU that may be used, or fewer where a cgroup's
    /// quota grants less than that. At least 1.
    pub fn worker_count(&self) -> usize {
        let cpus = self.machine.cpus.len();
        if !self.machine.this_machine {
            return cpus;
        }
        thread::available_parallelism().map_or(cpus, |granted| granted.get().min(cpus))
    }

    /// True for the machine that this process runs on: threads are pinned and memory is placed
    /// only there.
    pub fn is_this_machine(&self) -> bool {
        self.machine.this_machine
    }

    /// Who read it.
    pub fn reader(&self) -> Reader {
        self.machine.reader
    }
}

fn allowed_cpus() -> Result<CpuSet, TopologyError> {
    sys::affinity().map_err(|source| TopologyError::Unreadable {
        path: "the affinity mask".into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_within_what_the_process_may_use() {
        let machine = Topology::detect().expect("this machine");
        let allowed = sys::affinity().expect("an affinity mask");
        let cpus: CpuSet = machine.cpus().iter().map(|cpu| cpu.id).collect();
        assert_eq!(cpus, allowed);
        let of_nodes = machine
            .nodes()
            .map(|id| machine.node(id).expect("listed").cpus.len());
        assert_eq!(of_nodes.sum::<usize>(), cpus.len());
        assert!((1..=cpus.len()).contains(&machine.worker_count()));
        assert!(machine.is_this_machine());
    }

    #[test]
    fn the_innermost_shared_cache_is_found() {
        let machine = Topology::synthetic("L3:2 L2:2 Core:2 PU:1").expect("a machine");
        let level = |a, b| {
            machine
                .shared_cache(CpuId(a), CpuId(b))
                .map(|cache| cache.level)
        };
        assert_eq!(level(0, 1), Some(2));
        assert_eq!(level(0, 2), Some(3));
        assert_eq!(level(0, 4), None);
    }

    #[cfg(feature = "hwloc")]
    #[test]
    fn hwloc_and_sysfs_see_the_same_machine() {
        let (sysfs, hwloc) = (Topology::detect(), Topology::from_hwloc());
        let (sysfs, hwloc) = (sysfs.expect("this machine"), hwloc.expect("this machine"));
        assert_eq!(hwloc.reader(), Reader::Hwloc);
        assert!(sysfs.nodes().eq(hwloc.nodes()));
        for id in sysfs.nodes() {
            assert_eq!(
                sysfs.node(id).map(|node| &node.cpus),
                hwloc.node(id).map(|node| &node.cpus)
            );
        }
        let places = |machine: &Topology| -> Vec<_> {
            machine
                .cpus()
                .iter()
                .map(|cpu| (cpu.id, cpu.node, cpu.core, cpu.package))
                .collect()
        };
        assert_eq!(places(&sysfs), places(&hwloc));
    }

    #[test]
    fn nodes_that_do_not_exist_have_the_assumed_distance() {
        let machine = Topology::synthetic("NUMANode:2 PU:1").expect("a machine");
        assert_eq!(machine.distance(NodeId(7), NodeId(7)), 10);
        assert_eq!(machine.distance(NodeId(0), NodeId(7)), 20);
        assert!(machine.node(NodeId(7)).is_none());
    }
}
