//! Lists what the hwloc library sees: the reference that the sysfs reader is held to.

use std::fmt::Display;

use hwlocality::Topology as Hwloc;
use hwlocality::bitmap::BitmapIndex;
use hwlocality::memory::attribute::{Initiator, MemoryAttribute};
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::distance::DistancesKind;
use hwlocality::object::types::{CacheType, ObjectType};
use hwlocality::topology::builder::{BuildFlags, TypeFilter};

use crate::objects::{Attribute, Matrix, MemoryNode, Objects, Pu, Speed};
use crate::{Cache, CacheKind, CpuId, CpuSet, NodeId, TopologyError};

fn refused(error: impl Display) -> TopologyError {
    TopologyError::Hwloc {
        reason: error.to_string(),
    }
}

/// What hwloc says, and whether it is of this machine: that as far as the CPUs are `allowed`, for by
/// itself hwloc does not look at the affinity mask.
pub(crate) fn read(allowed: &CpuSet) -> Result<(Objects, bool), TopologyError> {
    // What a cgroup keeps from this process is left out by `allowed`; its nodes are nodes
    // still, as in /sys.
    let hwloc = Hwloc::builder()
        .with_flags(BuildFlags::INCLUDE_DISALLOWED)
        .map_err(refused)?
        .with_cpu_icache_type_filter(TypeFilter::KeepAll)
        .map_err(refused)?
        .build()
        .map_err(refused)?;
    let this_machine = hwloc.is_this_system();
    let objects = objects(&hwloc, this_machine.then_some(allowed))?;
    Ok((objects, this_machine))
}

fn objects(hwloc: &Hwloc, allowed: Option<&CpuSet>) -> Result<Objects, TopologyError> {
    let nodes: Vec<&TopologyObject> = hwloc.objects_with_type(ObjectType::NUMANode).collect();
    let caches = hwloc.objects().filter_map(cache);
    let objects = Objects {
        pus: pus(hwloc, allowed),
        caches: caches.collect(),
        nodes: nodes.iter().filter_map(|node| memory_node(node)).collect(),
        latencies: latencies(hwloc)?,
        speeds: speeds(hwloc, &nodes)?,
    };
    Ok(objects)
}

fn pus(hwloc: &Hwloc, allowed: Option<&CpuSet>) -> Vec<Pu> {
    let mut pus = Vec::new();
    for object in hwloc.objects_with_type(ObjectType::PU) {
        let Some(id) = os_index(object).map(CpuId) else {
            continue;
        };
        if allowed.is_some_and(|allowed| !allowed.contains(id)) {
            continue;
        }
        let above = |kind| object.ancestors().find(|above| above.object_type() == kind);
        let core = above(ObjectType::Core).and_then(|core| cpus_of(core).first());
        pus.push(Pu {
            id,
            package: above(ObjectType::Package).and_then(os_index).unwrap_or(0),
            core: core.unwrap_or(id).0,
            nodes: nodes_of(object),
        });
    }
    pus
}

fn memory_node(object: &TopologyObject) -> Option<MemoryNode> {
    let memory_bytes = match object.attributes() {
        Some(ObjectAttributes::NUMANode(node)) => node.local_memory().map_or(0, |b| b.get()),
        _ => 0,
    };
    Some(MemoryNode {
        id: NodeId(os_index(object)?),
        cpus: cpus_of(object),
        memory_bytes,
    })
}

fn cache(object: &TopologyObject) -> Option<Cache> {
    // A memory-side cache has the same attributes, and belongs to no CPU.
    let Some(ObjectAttributes::Cache(cache)) = object
        .attributes()
        .filter(|_| object.object_type().is_cpu_cache())
    else {
        return None;
    };
    let kind = match cache.cache_type() {
        CacheType::Unified => CacheKind::Unified,
        CacheType::Data => CacheKind::Data,
        CacheType::Instruction => CacheKind::Instruction,
        CacheType::Unknown(_) => return None,
    };
    Some(Cache {
        level: u8::try_from(cache.depth()).ok()?,
        kind,
        size_bytes: cache.size().map_or(0, |bytes| bytes.get()),
        cpus: cpus_of(object),
    })
}

/// The matrix of latencies between nodes, that of the kernel before others.
fn latencies(hwloc: &Hwloc) -> Result<Option<Matrix>, TopologyError> {
    let mut matrices = hwloc
        .distances_with_type(Some(DistancesKind::MEANS_LATENCY), ObjectType::NUMANode)
        .map_err(refused)?;
    matrices.sort_by_key(|matrix| !matrix.kind().contains(DistancesKind::FROM_OS));
    let matrix = matrices.first().and_then(|matrix| {
        let nodes = matrix.objects().map(|node| Some(NodeId(os_index(node?)?)));
        Some(Matrix {
            nodes: nodes.collect::<Option<_>>()?,
            values: matrix.distances().to_vec(),
        })
    });
    Ok(matrix)
}

fn speeds(hwloc: &Hwloc, nodes: &[&TopologyObject]) -> Result<Vec<Speed>, TopologyError> {
    let attributes = [
        (Attribute::Bandwidth, MemoryAttribute::bandwidth(hwloc)),
        (
            Attribute::ReadBandwidth,
            MemoryAttribute::read_bandwidth(hwloc),
        ),
        (
            Attribute::WriteBandwidth,
            MemoryAttribute::write_bandwidth(hwloc),
        ),
        (Attribute::Latency, MemoryAttribute::latency(hwloc)),
        (Attribute::ReadLatency, MemoryAttribute::read_latency(hwloc)),
        (
            Attribute::WriteLatency,
            MemoryAttribute::write_latency(hwloc),
        ),
    ];
    let mut speeds = Vec::new();
    for (attribute, of_hwloc) in attributes {
        for node in nodes {
            let Some(to) = os_index(node).map(NodeId) else {
                continue;
            };
            let (initiators, values) = of_hwloc.initiators(node).map_err(refused)?;
            for (initiator, value) in initiators.into_iter().zip(values) {
                let from = match initiator {
                    Initiator::CpuSet(cpus) => set_of(cpus.iter_set()),
                    Initiator::Object(object) => cpus_of(object),
                };
                speeds.push(Speed {
                    attribute,
                    to,
                    from,
                    value,
                });
            }
        }
    }
    Ok(speeds)
}

fn os_index(object: &TopologyObject) -> Option<u32> {
    object
        .os_index()
        .and_then(|index| u32::try_from(index).ok())
}

/// The CPUs of an object, or those it is near to.
fn cpus_of(object: &TopologyObject) -> CpuSet {
    object
        .cpuset()
        .map(|set| set_of(set.iter_set()))
        .unwrap_or_default()
}

/// The numbers of an object's nodes, also of nodes that hwloc leaves out.
fn nodes_of(object: &TopologyObject) -> CpuSet {
    let set = object.complete_nodeset();
    set.map(|set| set_of(set.iter_set())).unwrap_or_default()
}

fn set_of(indexes: impl Iterator<Item = BitmapIndex>) -> CpuSet {
    let ids = indexes.map_while(|index| u32::try_from(usize::from(index)).ok());
    // An infinite set ends where ours do.
    ids.take_while(|&id| id <= CpuSet::LARGEST.0)
        .map(CpuId)
        .collect()
}
