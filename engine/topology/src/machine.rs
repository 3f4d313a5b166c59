//! The machine itself: nodes, CPUs and caches with their relations, whoever read them.
//!
//! Readers hand over [`Parts`]; [`Topology::from_parts`] puts them in order once, so that whoever
//! asks afterwards never meets an odd machine: every CPU has a node, every pair of nodes a distance.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::quota::{self, Quota};
use crate::{CpuId, CpuSet, TopologyError, synthetic, sys, sysfs, xml};

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

/// How fast the memory of one node is to CPUs of another, as the firmware says: reads and writes
/// taken together, their mean where they differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryAccess {
    /// MiB a second; `None` where nobody says.
    pub bandwidth_mib_s: Option<u64>,
    /// Nanoseconds; `None` where nobody says.
    pub latency_ns: Option<u64>,
}

/// What is known of accesses, by the node whose CPUs make them and the node that is accessed.
pub(crate) type Accesses = BTreeMap<(NodeId, NodeId), MemoryAccess>;

/// Of a number for reads and one for writes: their mean, or the one that is known.
pub(crate) fn mean(read: Option<u64>, write: Option<u64>) -> Option<u64> {
    match (read, write) {
        (Some(read), Some(write)) => Some(read.midpoint(write)),
        (one, other) => one.or(other),
    }
}

/// Who read a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reader {
    /// The kernel's files under `/sys/devices/system`.
    Sysfs,
    /// The hwloc library.
    Hwloc,
    /// A file of lstopo: [`Topology::from_xml`].
    Xml,
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
            Reader::Xml => "xml",
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
    quota: OnceLock<Option<Quota>>,
    /// Ascending.
    nodes: Vec<Node>,
    /// Ascending.
    cpus: Vec<Cpu>,
    /// Inner ones before outer ones. Where the reader leaves them, read when first asked for.
    caches: OnceLock<Vec<Cache>>,
    /// Left and read likewise.
    accesses: OnceLock<Accesses>,
    /// Row by row, in the order of `nodes`.
    distances: Vec<u32>,
}

impl Machine {
    fn quota(&self) -> Option<&Quota> {
        let read = || self.this_machine.then(|| quota::read("/".as_ref()))?;
        self.quota.get_or_init(read).as_ref()
    }

    fn caches(&self) -> &[Cache] {
        let read = || in_order(sysfs::caches("/".as_ref(), &self.cpus));
        self.caches.get_or_init(read)
    }

    fn accesses(&self) -> &Accesses {
        let read = || sysfs::accesses("/".as_ref(), &self.nodes);
        self.accesses.get_or_init(read)
    }
}

impl PartialEq for Machine {
    fn eq(&self, other: &Machine) -> bool {
        (self.reader, self.this_machine) == (other.reader, other.this_machine)
            && (&self.nodes, &self.cpus) == (&other.nodes, &other.cpus)
            && self.distances == other.distances
            && self.caches() == other.caches()
            && self.accesses() == other.accesses()
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
    /// With the CPUs that each claims, whatever others do.
    pub(crate) nodes: Vec<Node>,
    /// Their nodes are not looked at: the claims decide.
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) caches: Vec<Cache>,
    pub(crate) accesses: Accesses,
    /// The sysfs reader is to be asked for the caches of this machine, and for accesses, once
    /// somebody wants them.
    pub(crate) rest_is_left: bool,
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
    /// Costs some two file reads a core, 5 µs each. [`caches`](Topology::caches),
    /// [`memory_access`](Topology::memory_access) and [`cpu_quota`](Topology::cpu_quota) are read
    /// when they are first asked for.
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
    /// `[NUMANode(memory=16GB)]` after a level attaches memory to each of it, at the front to the
    /// machine. CPUs belong to the innermost memory around them, and there to the first: the second
    /// one attached to the same place is a node without CPUs. `indexes=0,8` or `indexes=2*4:1*2`
    /// gives nodes and PUs their numbers, as hwloc does; those of memory stand with any of it, and
    /// are of all, the innermost first.
    ///
    /// A last word of our own gives distances, nodes ascending, row by row:
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

    /// A machine that hwloc's `lstopo` wrote down: `lstopo machine.xml`, of hwloc 2 or 3. Every CPU
    /// in the file counts, also one that whoever wrote it was not allowed to use (files have those
    /// only if `lstopo` was told `--disallowed`).
    ///
    /// - A node without CPUs of its own stands in the file with those it is near to. They stay with
    ///   the node that shares them with the fewest others, among equals the lowest. A node that has
    ///   CPUs and is not in the file, for it lacks memory or was out of bounds, is there
    ///   without memory.
    /// - Distances come from the file's matrix of latencies: its own, where the kernel's units are in
    ///   it (10 is local), else scaled so that each node is 10 from itself. Others are 11 or more.
    /// - Bandwidths and latencies are there where the file has them (hwloc 2.3 and later).
    ///
    /// # Errors
    /// [`TopologyError::Unreadable`] where the file cannot be read, [`TopologyError::Xml`] where it
    /// is not such a file, or longer than 32 MiB, or has more than 1,024 nodes or 65,536 CPUs.
    pub fn from_xml(path: impl AsRef<std::path::Path>) -> Result<Topology, TopologyError> {
        let path = path.as_ref();
        let text = xml::text_of(path)?;
        let objects = xml::read(&text, &path.display().to_string())?;
        Topology::from_parts(objects.into_parts(), Reader::Xml, false)
    }

    /// The machine in a text that `lstopo` wrote: [`from_xml`](Topology::from_xml) without the file.
    ///
    /// # Errors
    /// [`TopologyError::Xml`], as there.
    pub fn from_xml_text(text: &str) -> Result<Topology, TopologyError> {
        let objects = xml::read(text, "the XML text")?;
        Topology::from_parts(objects.into_parts(), Reader::Xml, false)
    }

    /// This machine as hwloc sees it, as far as this process may use it. Where hwloc's environment
    /// names another one (`HWLOC_XMLFILE`, `HWLOC_FSROOT`, `HWLOC_SYNTHETIC`), that one, whole and
    /// only described.
    ///
    /// # Errors
    /// [`TopologyError::Hwloc`] with the library's reason, and [`TopologyError::NoHwloc`] where this
    /// was built without the feature `hwloc`.
    pub fn from_hwloc() -> Result<Topology, TopologyError> {
        #[cfg(feature = "hwloc")]
        {
            let (objects, this_machine) = crate::hwloc::read(&allowed_cpus()?)?;
            Topology::from_parts(objects.into_parts(), Reader::Hwloc, this_machine)
        }
        #[cfg(not(feature = "hwloc"))]
        Err(TopologyError::NoHwloc)
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
            accesses,
            rest_is_left,
            distances,
        } = parts;
        if cpus.is_empty() {
            return Err(TopologyError::NoCpus {
                origin: format!("the {reader} reader"),
            });
        }
        nodes.sort_by_key(|node| node.id);
        cpus.sort_by_key(|cpu| cpu.id);
        settle(&mut cpus, &mut nodes);
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
        let (caches, accesses) = match rest_is_left {
            true => (OnceLock::new(), OnceLock::new()),
            false => (in_order(caches).into(), accesses.into()),
        };
        let machine = Machine {
            reader,
            this_machine,
            quota: OnceLock::new(),
            nodes,
            cpus,
            caches,
            accesses,
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

    /// How fast memory of `to` is to CPUs of `from`, where the firmware says: it often does so for
    /// the nearest nodes alone, or not at all. On this machine it is read on the first call, at some
    /// six file reads a node.
    pub fn memory_access(&self, from: NodeId, to: NodeId) -> Option<MemoryAccess> {
        self.machine.accesses().get(&(from, to)).copied()
    }

    /// How many CPUs the cgroup of this process grants it (its own quota or that of a group above
    /// it, whichever is less); `None` without a limit, and on a machine that is only described.
    /// Read on the first call, some six files.
    pub fn cpu_quota(&self) -> Option<f64> {
        self.machine.quota().map(|quota| quota.cpus)
    }

    /// How often the cgroup of that quota has been stopped because it had used it up (`nr_throttled`
    /// of its `cpu.stat`), since there is that group. `None` without a quota. Costs reading a file, some
    /// 20 µs.
    pub fn nr_throttled(&self) -> Option<u64> {
        self.machine.quota()?.throttled()
    }

    /// How many workers make sense: one for each CPU that may be used, or fewer where a cgroup's
    /// quota grants less than that, rounded down. At least 1. The quota is read on the first call, as by
    /// [`cpu_quota`](Topology::cpu_quota).
    pub fn worker_count(&self) -> usize {
        let cpus = self.machine.cpus.len();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole CPUs, and what is beyond any number of CPUs stays there"
        )]
        let granted = self.cpu_quota().map(|quota| quota as usize);
        granted.map_or(cpus, |granted| granted.clamp(1, cpus))
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

/// Gives every CPU a node. One that several claim stays with the first; one that none claims goes to
/// the node of a CPU in its package, else to the lowest; a machine without nodes gets node 0.
fn settle(cpus: &mut [Cpu], nodes: &mut Vec<Node>) {
    if nodes.is_empty() {
        nodes.push(Node {
            id: NodeId(0),
            cpus: CpuSet::new(),
            memory_bytes: 0,
        });
    }
    let mut owner: BTreeMap<CpuId, NodeId> = BTreeMap::new();
    let mut owned = CpuSet::new();
    for node in &mut *nodes {
        node.cpus = node.cpus.difference(&owned);
        owned = owned.union(&node.cpus);
        owner.extend(node.cpus.iter().map(|cpu| (cpu, node.id)));
    }
    let mut of_package: BTreeMap<u32, NodeId> = BTreeMap::new();
    for cpu in cpus.iter() {
        if let Some(&node) = owner.get(&cpu.id) {
            of_package.entry(cpu.package).or_insert(node);
        }
    }
    for cpu in cpus {
        let home = owner.get(&cpu.id).or_else(|| of_package.get(&cpu.package));
        cpu.node = home.copied().unwrap_or(nodes[0].id);
        if let Ok(index) = nodes.binary_search_by_key(&cpu.node, |node| node.id) {
            nodes[index].cpus.insert(cpu.id);
        }
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
        match machine.cpu_quota() {
            None => assert_eq!(machine.worker_count(), cpus.len()),
            Some(_) => assert!((1..=cpus.len()).contains(&machine.worker_count())),
        }
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

    #[test]
    fn nodes_that_do_not_exist_have_the_assumed_distance() {
        let machine = Topology::synthetic("NUMANode:2 PU:1").expect("a machine");
        assert_eq!(machine.distance(NodeId(7), NodeId(7)), 10);
        assert_eq!(machine.distance(NodeId(0), NodeId(7)), 20);
        assert!(machine.node(NodeId(7)).is_none());
    }
}
