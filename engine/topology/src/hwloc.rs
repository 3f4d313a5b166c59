//! Reads this machine through the hwloc library: the reference that the sysfs reader is held to.

use std::collections::BTreeMap;

use hwlocality::Topology as Hwloc;
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::types::ObjectType;

use crate::machine::Parts;
use crate::{Cache, CacheKind, Cpu, CpuId, CpuSet, Node, NodeId, TopologyError};

/// What hwloc says of this machine, as far as the CPUs are `allowed`: by itself it does not look
/// at the affinity mask.
pub(crate) fn read(allowed: &CpuSet) -> Result<Parts, TopologyError> {
    let refused = |error: &dyn std::fmt::Display| TopologyError::Hwloc {
        reason: error.to_string(),
    };
    let hwloc = Hwloc::new().map_err(|error| refused(&error))?;
    let mut parts = Parts::default();

    let mut owner = BTreeMap::new();
    for object in hwloc.objects_with_type(ObjectType::NUMANode) {
        let Some(id) = os_index(object).map(NodeId) else {
            continue;
        };
        // A node without CPUs of its own shows those it is near to; they have an owner already.
        let local = set_of(object, allowed);
        let cpus: CpuSet = local
            .iter()
            .filter(|cpu| !owner.contains_key(cpu))
            .collect();
        owner.extend(cpus.iter().map(|cpu| (cpu, id)));
        let memory_bytes = match object.attributes() {
            Some(ObjectAttributes::NUMANode(node)) => node.local_memory().map_or(0, |b| b.get()),
            _ => 0,
        };
        parts.nodes.push(Node {
            id,
            cpus,
            memory_bytes,
        });
    }
    for object in hwloc.objects_with_type(ObjectType::PU) {
        let Some(id) = os_index(object)
            .map(CpuId)
            .filter(|&id| allowed.contains(id))
        else {
            continue;
        };
        let ancestor = |kind| object.ancestors().find(|above| above.object_type() == kind);
        let core = ancestor(ObjectType::Core).and_then(|core| set_of(core, allowed).first());
        let package = ancestor(ObjectType::Package)
            .and_then(os_index)
            .unwrap_or(0);
        let node = owner.get(&id).copied().unwrap_or(NodeId(0));
        parts.cpus.push(Cpu {
            id,
            node,
            package,
            core: core.unwrap_or(id).0,
        });
    }
    let levels = [
        (ObjectType::L1Cache, 1, CacheKind::Data),
        (ObjectType::L1ICache, 1, CacheKind::Instruction),
        (ObjectType::L2Cache, 2, CacheKind::Unified),
        (ObjectType::L2ICache, 2, CacheKind::Instruction),
        (ObjectType::L3Cache, 3, CacheKind::Unified),
        (ObjectType::L4Cache, 4, CacheKind::Unified),
        (ObjectType::L5Cache, 5, CacheKind::Unified),
    ];
    for (object_type, level, kind) in levels {
        for object in hwloc.objects_with_type(object_type) {
            let size_bytes = match object.attributes() {
                Some(ObjectAttributes::Cache(cache)) => cache.size().map_or(0, |b| b.get()),
                _ => 0,
            };
            parts.caches.push(Cache {
                level,
                kind,
                size_bytes,
                cpus: set_of(object, allowed),
            });
        }
    }
    Ok(parts)
}

fn os_index(object: &TopologyObject) -> Option<u32> {
    object
        .os_index()
        .and_then(|index| u32::try_from(index).ok())
}

fn set_of(object: &TopologyObject, allowed: &CpuSet) -> CpuSet {
    let Some(all) = object.cpuset() else {
        return CpuSet::new();
    };
    let ids = all
        .iter_set()
        .filter_map(|index| u32::try_from(usize::from(index)).ok());
    ids.map(CpuId).filter(|&id| allowed.contains(id)).collect()
}
