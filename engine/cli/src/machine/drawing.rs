//! The machine as a drawing: a box a node, its caches and cores in it, equal ones drawn once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use reiver_topology::{Cache, CacheKind, CpuSet, Node, Topology};

use crate::console::count;

pub(super) fn draw(machine: &Topology, out: &mut dyn Write) -> io::Result<()> {
    let letters = Letters::of_locale();
    let cores: BTreeSet<u32> = machine.cpus().iter().map(|cpu| cpu.core).collect();
    let packages: BTreeSet<u32> = machine.cpus().iter().map(|cpu| cpu.package).collect();
    writeln!(
        out,
        "{}, {}, {}, {} (read by {})",
        count(packages.len(), "package"),
        count(machine.nodes().count(), "node"),
        count(cores.len(), "core"),
        count(machine.cpus().len(), "CPU"),
        machine.reader(),
    )?;
    let quota = match machine.cpu_quota() {
        Some(quota) => format!(", the cgroup grants {quota:.1} CPUs"),
        None => String::new(),
    };
    writeln!(out, "workers by default: {}{quota}", machine.worker_count())?;
    for node in machine.nodes().filter_map(|id| machine.node(id)) {
        writeln!(out)?;
        draw_node(machine, node, &letters, out)?;
    }
    if machine.nodes().count() > 1 {
        writeln!(out)?;
        draw_distances(machine, out)?;
    }
    Ok(())
}

fn draw_node(
    machine: &Topology,
    node: &Node,
    letters: &Letters,
    out: &mut dyn Write,
) -> io::Result<()> {
    let memory = match node.memory_bytes {
        0 => "no memory known".to_owned(),
        bytes => format!("{} of memory", size(bytes)),
    };
    let title = format!("node {}: {memory}", node.id);
    let mut lines = Vec::new();
    if node.cpus.is_empty() {
        lines.push("no CPUs".to_owned());
    } else {
        let of_node = machine.cpus().iter().filter(|cpu| cpu.node == node.id);
        let packages: BTreeSet<u32> = of_node.map(|cpu| cpu.package).collect();
        let packages: Vec<String> = packages.iter().map(u32::to_string).collect();
        lines.push(format!(
            "CPUs {} of package {}",
            node.cpus,
            packages.join(", ")
        ));
        lines.extend(outline(machine, &node.cpus, 0));
    }
    let width = lines
        .iter()
        .chain([&title])
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0);
    let bar = |count: usize| letters.bar.repeat(count);
    let [top_left, top_right, bottom_left, bottom_right] = letters.corners;
    writeln!(
        out,
        "{top_left}{} {title} {}{top_right}",
        bar(1),
        bar(width - title.chars().count() + 1)
    )?;
    for line in &lines {
        let blank = " ".repeat(width - line.chars().count());
        writeln!(out, "{} {line}{blank}  {}", letters.side, letters.side)?;
    }
    writeln!(out, "{bottom_left}{}{bottom_right}", bar(width + 3))
}

/// What a set of CPUs consists of, outermost caches first; equal parts once, with their number.
fn outline(machine: &Topology, cpus: &CpuSet, depth: usize) -> Vec<String> {
    let mut groups: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    let mut order: Vec<Vec<String>> = Vec::new();
    for part in parts(machine, cpus) {
        let lines = match part {
            Part::Core(cpus) => vec![core(machine, &cpus)],
            Part::Cache(cache) => {
                let mut lines = vec![format!("L{} {}", cache.level, size(cache.size_bytes))];
                lines.extend(outline(machine, &cache.cpus.intersection(cpus), depth + 1));
                lines
            }
        };
        let number = groups.entry(lines.clone()).or_insert(0);
        if *number == 0 {
            order.push(lines);
        }
        *number += 1;
    }
    let mut outline = Vec::new();
    for lines in order {
        let number = groups[&lines];
        let indent = "  ".repeat(depth + 1);
        for (index, line) in lines.iter().enumerate() {
            outline.push(match (index, number) {
                (0, 1) => format!("{indent}{line}"),
                (0, number) => format!("{indent}{number} × {line}"),
                _ => line.clone(),
            });
        }
    }
    outline
}

enum Part<'m> {
    Cache(&'m Cache),
    Core(CpuSet),
}

/// The outermost caches below these CPUs that several cores share, and the cores outside of them.
fn parts<'m>(machine: &'m Topology, cpus: &CpuSet) -> Vec<Part<'m>> {
    let cores_of = |set: &CpuSet| -> BTreeSet<u32> {
        set.iter()
            .filter_map(|cpu| machine.cpu(cpu))
            .map(|cpu| cpu.core)
            .collect()
    };
    let mut left = cpus.clone();
    let mut parts: Vec<(CpuSet, Part<'m>)> = Vec::new();
    for cache in machine.caches().iter().rev() {
        let inside = cache.cpus.intersection(cpus);
        // The whole of what is looked at is above, or has been drawn.
        let is_inner =
            inside != *cpus
                || machine.caches().iter().rev().all(|outer| {
                    outer.level <= cache.level || outer.cpus.intersection(cpus) != *cpus
                }) && is_outermost_for(machine, cache, cpus);
        if cache.kind != CacheKind::Instruction
            && is_inner
            && !inside.is_empty()
            && inside.is_subset(&left)
            && cores_of(&inside).len() > 1
        {
            left = left.difference(&inside);
            parts.push((inside, Part::Cache(cache)));
        }
    }
    let mut of_core: BTreeMap<u32, CpuSet> = BTreeMap::new();
    for cpu in left.iter().filter_map(|cpu| machine.cpu(cpu)) {
        of_core.entry(cpu.core).or_default().insert(cpu.id);
    }
    parts.extend(
        of_core
            .into_values()
            .map(|cpus| (cpus.clone(), Part::Core(cpus))),
    );
    parts.sort_by_key(|(cpus, _)| cpus.first());
    parts.into_iter().map(|(_, part)| part).collect()
}
