//! The caches of each CPU, below its folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Source, cpu_folder, cpu_path, numbered, set, text};
use crate::{Cache, CacheKind, Cpu, CpuId, CpuSet};

/// The caches of the running kernel's machine, whose files lie under `root`.
pub(crate) fn caches(root: &Path, cpus: &[Cpu]) -> Vec<Cache> {
    let usable = cpus.iter().map(|cpu| cpu.id).collect();
    caches_in(&cpu_folder(root), &usable, Source::Kernel)
}

pub(super) fn caches_in(folder: &Path, usable: &CpuSet, source: Source) -> Vec<Cache> {
    let mut known: BTreeSet<(u8, CacheKind, CpuId)> = BTreeSet::new();
    // Whose caches of a level and kind are known already: CPUs that share one agree on it.
    let mut told: BTreeMap<(u8, CacheKind), CpuSet> = BTreeMap::new();
    let mut caches = Vec::new();
    for id in usable.iter() {
        let of_cpu = cpu_path(folder, id).join("cache");
        for index in numbered(&of_cpu, "index").unwrap_or_default() {
            let path = of_cpu.join(format!("index{index}"));
            let Some((level, kind)) = level_and_kind(&path) else {
                continue;
            };
            let told = told.entry((level, kind)).or_default();
            if source == Source::Kernel && told.contains(id) {
                continue;
            }
            let cache = cache(&path, (level, kind), id, usable);
            *told = told.union(&cache.cpus);
            let first = cache.cpus.first().unwrap_or(id);
            if known.insert((level, kind, first)) {
                caches.push(cache);
            }
        }
    }
    caches
}

fn level_and_kind(path: &Path) -> Option<(u8, CacheKind)> {
    let level = text(path.join("level"))?.parse().ok()?;
    let kind = match text(path.join("type"))?.as_str() {
        "Data" => CacheKind::Data,
        "Instruction" => CacheKind::Instruction,
        "Unified" => CacheKind::Unified,
        _ => return None,
    };
    Some((level, kind))
}

fn cache(path: &Path, (level, kind): (u8, CacheKind), of: CpuId, usable: &CpuSet) -> Cache {
    let size_bytes = text(path.join("size"))
        .and_then(|size| cache_bytes(&size))
        .unwrap_or(0);
    let mut cpus = set(path, "shared_cpu_list", "shared_cpu_map").unwrap_or_default();
    cpus.insert(of);
    Cache {
        level,
        kind,
        size_bytes,
        cpus: cpus.intersection(usable),
    }
}

/// `32K`, `8192K`, and `1M` should a kernel come to it.
fn cache_bytes(size: &str) -> Option<u64> {
    let (number, unit) = match size.as_bytes().last()? {
        b'K' => (&size[..size.len() - 1], 1 << 10),
        b'M' => (&size[..size.len() - 1], 1 << 20),
        _ => (size, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
