//! The machine as JSON: everything that is known, nothing that is drawn.

use std::io::{self, Write};

use reiver_topology::{CacheKind, Topology};
use serde_json::{Value, json};

pub(super) fn write(machine: &Topology, out: &mut dyn Write) -> io::Result<()> {
    let nodes: Vec<Value> = machine
        .nodes()
        .filter_map(|id| machine.node(id))
        .map(|node| {
            let distances: Vec<u32> = machine
                .nodes()
                .map(|to| machine.distance(node.id, to))
                .collect();
            let accesses: Vec<Value> = machine
                .nodes()
                .filter_map(|from| Some((from, machine.memory_access(from, node.id)?)))
                .map(|(from, access)| {
                    json!({
                        "from": from.0, "bandwidth_mib_s": access.bandwidth_mib_s,
                        "latency_ns": access.latency_ns,
                    })
                })
                .collect();
            let cpus: Vec<u32> = node.cpus.iter().map(|cpu| cpu.0).collect();
            json!({
                "id": node.id.0, "cpus": cpus, "memory_bytes": node.memory_bytes,
                "distances": distances, "accesses": accesses,
            })
        })
        .collect();
    let cpus: Vec<Value> = machine
        .cpus()
        .iter()
        .map(|cpu| {
            json!({
                "id": cpu.id.0, "node": cpu.node.0, "package": cpu.package, "core": cpu.core,
            })
        })
        .collect();
    let caches: Vec<Value> = machine
        .caches()
        .iter()
        .map(|cache| {
            let kind = match cache.kind {
                CacheKind::Data => "data",
                CacheKind::Instruction => "instruction",
                CacheKind::Unified => "unified",
            };
            let cpus: Vec<u32> = cache.cpus.iter().map(|cpu| cpu.0).collect();
            json!({
                "level": cache.level, "kind": kind, "size_bytes": cache.size_bytes, "cpus": cpus,
            })
        })
        .collect();
    let machine = json!({
        "reader": machine.reader().to_string(),
        "this_machine": machine.is_this_machine(),
        "workers": machine.worker_count(),
        "cpu_quota": machine.cpu_quota(),
        "nodes": nodes,
        "cpus": cpus,
        "caches": caches,
    });
    serde_json::to_writer_pretty(&mut *out, &machine)?;
    writeln!(out)
}
