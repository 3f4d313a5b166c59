//! The machine as a drawing: a box a node, its caches and cores in it, equal ones drawn once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use reiver_topology::{Cache, CacheKind, CpuId, CpuSet, MemoryAccess, Node, Topology};

use crate::command::console::count;

pub(crate) fn draw(machine: &Topology, out: &mut dyn Write) -> io::Result<()> {
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
        let plural = |many: bool| if many { "s" } else { "" };
        lines.push(format!(
            "CPU{} {} of package{} {}",
            plural(node.cpus.len() > 1),
            node.cpus,
            plural(packages.len() > 1),
            packages.join(", ")
        ));
        let inside = outline(machine, &node.cpus, u8::MAX, 0);
        lines.extend(
            inside
                .into_iter()
                .map(|line| line.replace('×', letters.times)),
        );
    }
    lines.extend(accesses(machine, node));
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
        bar(width - title.chars().count())
    )?;
    for line in &lines {
        let blank = " ".repeat(width - line.chars().count());
        writeln!(out, "{} {line}{blank}  {}", letters.side, letters.side)?;
    }
    writeln!(out, "{bottom_left}{}{bottom_right}", bar(width + 3))
}

/// How fast the node's memory is, and from where; nodes that are equally fast share a line.
fn accesses(machine: &Topology, node: &Node) -> Vec<String> {
    let mut equal: Vec<(MemoryAccess, CpuSet)> = Vec::new();
    for from in machine.nodes() {
        let Some(access) = machine.memory_access(from, node.id) else {
            continue;
        };
        match equal.iter_mut().find(|(known, _)| *known == access) {
            Some((_, nodes)) => nodes.insert(CpuId(from.0)),
            None => equal.push((access, CpuSet::from_iter([CpuId(from.0)]))),
        }
    }
    let line = |(access, nodes): &(MemoryAccess, CpuSet)| {
        let plural = if nodes.len() > 1 { "s" } else { "" };
        let bandwidth = access
            .bandwidth_mib_s
            .map(|mib| format!(" {}/s", size(mib.saturating_mul(1 << 20))));
        let latency = access.latency_ns.map(|ns| format!(" {ns} ns"));
        let facts: Vec<String> = bandwidth.into_iter().chain(latency).collect();
        format!("from node{plural} {nodes}:{}", facts.join(","))
    };
    equal.iter().map(line).collect()
}

/// What a set of CPUs consists of below caches of a level, outermost first; equal parts once, with
/// their number.
fn outline(machine: &Topology, cpus: &CpuSet, below: u8, depth: usize) -> Vec<String> {
    let indent = "  ".repeat(depth);
    let mut parts: Vec<(Vec<String>, usize)> = Vec::new();
    for part in parts_of(machine, cpus, below) {
        let lines = match part {
            Part::Core(cpus) => vec![core(machine, &cpus)],
            Part::Cache(cache) => {
                let inside = cache.cpus.intersection(cpus);
                let mut lines = vec![format!("L{} {}", cache.level, size(cache.size_bytes))];
                lines.extend(outline(machine, &inside, cache.level, depth + 1));
                lines
            }
        };
        match parts.iter_mut().find(|(known, _)| *known == lines) {
            Some((_, number)) => *number += 1,
            None => parts.push((lines, 1)),
        }
    }
    let mut outline = Vec::new();
    for (lines, number) in parts {
        let (first, inner) = lines.split_first().expect("a part has a line");
        let times = if number == 1 {
            String::new()
        } else {
            format!("{number} × ")
        };
        outline.push(format!("{indent}{times}{first}"));
        outline.extend_from_slice(inner);
    }
    outline
}

enum Part<'m> {
    Cache(&'m Cache),
    Core(CpuSet),
}

/// The outermost caches below a level that several cores share, and the cores outside of them.
fn parts_of<'m>(machine: &'m Topology, cpus: &CpuSet, below: u8) -> Vec<Part<'m>> {
    let cores_of = |set: &CpuSet| -> BTreeMap<u32, CpuSet> {
        let mut cores: BTreeMap<u32, CpuSet> = BTreeMap::new();
        for cpu in set.iter().filter_map(|cpu| machine.cpu(cpu)) {
            cores.entry(cpu.core).or_default().insert(cpu.id);
        }
        cores
    };
    let mut left = cpus.clone();
    let mut parts = Vec::new();
    for cache in machine.caches().iter().rev() {
        let inside = cache.cpus.intersection(cpus);
        let holds_data = cache.kind != CacheKind::Instruction && cache.level < below;
        if holds_data && inside.is_subset(&left) && cores_of(&inside).len() > 1 {
            left = left.difference(&inside);
            parts.push((inside.first(), Part::Cache(cache)));
        }
    }
    let cores = cores_of(&left)
        .into_values()
        .map(|cpus| (cpus.first(), Part::Core(cpus)));
    parts.extend(cores);
    parts.sort_by_key(|(first, _)| *first);
    parts.into_iter().map(|(_, part)| part).collect()
}

/// A core with the caches that are its own.
fn core(machine: &Topology, cpus: &CpuSet) -> String {
    let own = machine
        .caches()
        .iter()
        .filter(|cache| cache.cpus.is_subset(cpus));
    let mut facts: Vec<String> = own
        .map(|cache| {
            let kind = match (cache.level, cache.kind) {
                (_, CacheKind::Instruction) => "i",
                (_, CacheKind::Data) => "d",
                (_, CacheKind::Unified) => "",
            };
            format!("L{}{kind} {}", cache.level, size(cache.size_bytes))
        })
        .collect();
    facts.dedup();
    if cpus.len() > 1 {
        facts.push(count(cpus.len(), "CPU"));
    }
    if facts.is_empty() {
        "core".to_owned()
    } else {
        format!("core ({})", facts.join(", "))
    }
}

fn draw_distances(machine: &Topology, out: &mut dyn Write) -> io::Result<()> {
    /// A wider matrix is no drawing any more; `--json` has it.
    const MOST_NODES: usize = 16;
    let nodes: Vec<_> = machine.nodes().collect();
    if nodes.len() > MOST_NODES {
        return writeln!(out, "distances: {} nodes, see --json", nodes.len());
    }
    let width = nodes
        .iter()
        .flat_map(|&from| nodes.iter().map(move |&to| machine.distance(from, to)))
        .chain(nodes.iter().map(|node| node.0))
        .map(|number| number.to_string().len())
        .max()
        .unwrap_or(1);
    write!(out, "distances {:>width$}", "")?;
    for to in &nodes {
        write!(out, " {:>width$}", to.0)?;
    }
    writeln!(out)?;
    for &from in &nodes {
        write!(out, "     node {:>width$}", from.0)?;
        for &to in &nodes {
            write!(out, " {:>width$}", machine.distance(from, to))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    if bytes == 0 {
        return "of unknown size".to_owned();
    }
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    #[expect(
        clippy::cast_precision_loss,
        reason = "for people, who want two digits"
    )]
    let (mut number, mut unit) = (bytes as f64, 0);
    while number >= 1024.0 && unit + 1 < units.len() {
        number /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(number < 10.0 && number.fract() >= 0.05);
    format!("{number:.digits$} {}", units[unit])
}

/// What boxes are drawn of.
struct Letters {
    corners: [&'static str; 4],
    bar: &'static str,
    side: &'static str,
    times: &'static str,
}

impl Letters {
    /// Of a UTF-8 locale, or of any.
    fn of_locale() -> Letters {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL")
            .or_else(|| set("LC_CTYPE"))
            .or_else(|| set("LANG"));
        let is_utf8 = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        if is_utf8 {
            Letters {
                corners: ["┌", "┐", "└", "┘"],
                bar: "─",
                side: "│",
                times: "×",
            }
        } else {
            Letters {
                corners: ["+"; 4],
                bar: "-",
                side: "|",
                times: "x",
            }
        }
    }
}
