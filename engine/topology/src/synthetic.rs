//! Reads a machine described in words, in hwloc's grammar of synthetic topologies, with a matrix
//! of distances of our own behind it. What is understood stands at
//! [`Topology::synthetic`](crate::Topology::synthetic).

use std::collections::BTreeMap;

use crate::machine::Parts;
use crate::{Cache, CacheKind, Cpu, CpuId, CpuSet, Node, NodeId, TopologyError};

/// More than any machine that runs Linux: its kernels are built for 1,024 nodes and 8,192 CPUs.
const MOST_NODES: u64 = 4096;
const MOST_CPUS: u64 = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Package,
    /// Die, group, tile, module: structure that nothing here asks about.
    Group,
    Node,
    Cache(u8, CacheKind),
    Core,
    Pu,
}

#[derive(Debug, Clone)]
struct Level {
    kind: Kind,
    /// How many each of the level above has.
    count: u64,
    memory_bytes: u64,
    size_bytes: u64,
    /// Memory attached to each of this level: the bytes of each node.
    attached: Vec<u64>,
    at: usize,
}

pub(crate) fn read(text: &str) -> Result<Parts, TopologyError> {
    let refuse = |at: usize, problem: String| TopologyError::Synthetic {
        text: text.to_owned(),
        at: text[..at].chars().count() + 1,
        problem,
    };
    let (levels, matrix) = parse(text).map_err(|(at, problem)| refuse(at, problem))?;
    let mut parts = unfold(&levels).map_err(|(at, problem)| refuse(at, problem))?;
    if let Some((at, rows)) = matrix {
        let nodes = parts.nodes.len();
        if rows.len() != nodes || rows.iter().any(|row| row.len() != nodes) {
            let problem = format!("the machine has {nodes} nodes, so {nodes} rows of {nodes}");
            return Err(refuse(at, problem));
        }
        let pairs = parts.nodes.iter().zip(&rows).flat_map(|(from, row)| {
            parts
                .nodes
                .iter()
                .zip(row)
                .map(|(to, &distance)| ((from.id, to.id), distance))
        });
        parts.distances = pairs.collect();
    }
    Ok(parts)
}

/// A refusal: the byte it is about, and why.
type Refused = (usize, String);
type Matrix = Option<(usize, Vec<Vec<u32>>)>;

fn parse(text: &str) -> Result<(Vec<Level>, Matrix), Refused> {
    let mut levels: Vec<(Option<Kind>, Level)> = Vec::new();
    let mut matrix = None;
    for (at, word) in words(text) {
        if matrix.is_some() {
            return Err((at, "distances come last".into()));
        }
        if let Some(rows) = word.strip_prefix("distances=") {
            matrix = Some((at, distances(rows).map_err(|problem| (at, problem))?));
        } else if let Some(inner) = word.strip_prefix('[') {
            let inner = inner
                .strip_suffix(']')
                .ok_or((at, "`[` without its `]`".to_owned()))?;
            let (_, level) = level(at + 1, inner, true)?;
            let Some((_, last)) = levels.last_mut() else {
                return Err((at, "attached memory needs a level before it".into()));
            };
            last.attached.push(level.memory_bytes);
        } else {
            levels.push(level(at, word, false)?);
        }
    }
    if levels.is_empty() {
        return Err((0, "there is no level".into()));
    }
    Ok((typed(levels)?, matrix))
}

/// Words, with blanks inside brackets kept, and where each starts.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut start = None;
    let mut depth = 0u32;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if letter.is_whitespace() && depth == 0 {
            words.extend(start.take().map(|start| (start, &text[start..at])));
        } else {
            start.get_or_insert(at);
        }
    }
    words.extend(start.map(|start| (start, &text[start..])));
    words
}

/// `Type:count(attributes)`, `count`, or, attached, `NUMANode(attributes)`.
fn level(at: usize, word: &str, attached: bool) -> Result<(Option<Kind>, Level), Refused> {
    let (head, attributes) = match word.split_once('(') {
        None => (word, ""),
        Some((head, rest)) => {
            let open = at + head.len();
            (
                head,
                rest.strip_suffix(')')
                    .ok_or((open, "`(` without its `)`".to_owned()))?,
            )
        }
    };
    let (name, count) = match head.split_once(':') {
        Some((name, count)) => (Some(name), count),
        None if attached => (Some(head), "1"),
        None => (None, head),
    };
    let kind = name.map(|name| kind(name).ok_or((at, format!("`{name}` is no type of level"))));
    let kind = kind.transpose()?;
    if attached && kind != Some(Kind::Node) {
        return Err((at, "only a NUMANode can be attached".into()));
    }
    let count_at = at + head.len() - count.len();
    let count: u64 = match count.parse() {
        Ok(0) => return Err((count_at, "a level has at least 1".into())),
        Ok(count) => count,
        Err(_) => return Err((count_at, format!("`{count}` is no number"))),
    };
    let mut level = Level {
        kind: Kind::Group,
        count,
        memory_bytes: 0,
        size_bytes: 0,
        attached: vec![],
        at,
    };
    for attribute in attributes.split_whitespace() {
        match attribute.split_once('=') {
            Some(("memory", size)) => level.memory_bytes = bytes(at, size)?,
            Some(("size", size)) => level.size_bytes = bytes(at, size)?,
            Some(("memorysidecachesize", _)) => {}
            _ => {
                let problem = format!("`{attribute}` is not known; memory= and size= are");
                return Err((at, problem));
            }
        }
    }
    Ok((kind, level))
}

fn kind(name: &str) -> Option<Kind> {
    let name = name.to_ascii_lowercase();
    Some(match name.as_str() {
        "package" | "pack" | "socket" | "sock" => Kind::Package,
        "die" | "group" | "tile" | "module" | "cluster" => Kind::Group,
        "numanode" | "numa" | "node" => Kind::Node,
        "core" => Kind::Core,
        "pu" => Kind::Pu,
        _ => {
            let (level, rest) = name.strip_prefix('l')?.split_at_checked(1)?;
            let level = level.parse().ok().filter(|level| (1..=5).contains(level))?;
            let kind = match rest.strip_suffix("cache").unwrap_or(rest) {
                "" if level == 1 => CacheKind::Data,
                "" | "u" => CacheKind::Unified,
                "d" => CacheKind::Data,
                "i" => CacheKind::Instruction,
                _ => return None,
            };
            Kind::Cache(level, kind)
        }
    })
}

/// `4GB`, `16GiB`, `512kB` or bytes.
fn bytes(at: usize, text: &str) -> Result<u64, Refused> {
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err((at, format!("`{text}` is no size; write it like 64GiB"))),
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit));
    bytes.ok_or((at, format!("`{text}` is no size; write it like 64GiB")))
}

fn distances(rows: &str) -> Result<Vec<Vec<u32>>, String> {
    let distance = |text: &str| match text.trim().parse::<u32>() {
        Ok(distance) if distance >= 1 => Ok(distance),
        _ => Err(format!("`{text}` is no distance; 10 is local")),
    };
    rows.split(';')
        .map(|row| row.split(',').map(distance).collect())
        .collect()
}

/// Gives levels without a type theirs, and the last level its place: a machine ends in PUs.
fn typed(levels: Vec<(Option<Kind>, Level)>) -> Result<Vec<Level>, Refused> {
    let mut free = [Kind::Pu, Kind::Core, Kind::Node, Kind::Package]
        .into_iter()
        .filter(|free| {
            let taken = |(kind, _): &(Option<Kind>, Level)| *kind == Some(*free);
            !levels.iter().any(taken)
        });
    let mut typed: Vec<Level> = Vec::with_capacity(levels.len() + 1);
    for (kind, level) in levels.iter().rev() {
        let kind = kind.or_else(|| free.next()).unwrap_or(Kind::Group);
        typed.push(Level {
            kind,
            ..level.clone()
        });
    }
    typed.reverse();
    for kind in [Kind::Package, Kind::Node, Kind::Core, Kind::Pu] {
        let mut of_kind = typed.iter().filter(|level| level.kind == kind);
        if let Some(second) = of_kind.nth(1) {
            return Err((
                second.at,
                "this type stands at another level already".into(),
            ));
        }
    }
    let last = typed.len() - 1;
    if let Some(early) = typed[..last].iter().find(|level| level.kind == Kind::Pu) {
        return Err((early.at, "PU is the innermost level".into()));
    }
    if typed[last].kind != Kind::Pu {
        let at = typed[last].at;
        let (count, attached) = (1, vec![]);
        let pu = Level {
            kind: Kind::Pu,
            count,
            memory_bytes: 0,
            size_bytes: 0,
            attached,
            at,
        };
        typed.push(pu);
    }
    Ok(typed)
}

fn unfold(levels: &[Level]) -> Result<Parts, Refused> {
    let mut totals = Vec::with_capacity(levels.len());
    let mut total = 1u64;
    let mut nodes = 0;
    for level in levels {
        total = total.saturating_mul(level.count);
        let own = if level.kind == Kind::Node { total } else { 0 };
        nodes += own + total.saturating_mul(level.attached.len() as u64);
        if nodes > MOST_NODES {
            return Err((
                level.at,
                format!("{nodes} nodes are more than {MOST_NODES}"),
            ));
        }
        if total > MOST_CPUS {
            return Err((level.at, format!("{total} are more than {MOST_CPUS} CPUs")));
        }
        totals.push(total);
    }
    let cpu_count = u32::try_from(total).expect("at most MOST_CPUS");
    let range = |of: u64, index: u64| -> CpuSet {
        let each = cpu_count / u32::try_from(of).expect("at most MOST_CPUS");
        let first = u32::try_from(index).expect("at most MOST_CPUS") * each;
        (first..first + each).map(CpuId).collect()
    };
    let place =
        |of: u64, cpu: u32| cpu / (cpu_count / u32::try_from(of).expect("at most MOST_CPUS"));

    let mut parts = Parts::default();
    let mut cpus: Vec<Cpu> = (0..cpu_count)
        .map(|cpu| Cpu {
            id: CpuId(cpu),
            node: NodeId(0),
            package: 0,
            core: cpu,
        })
        .collect();
    let mut owner: BTreeMap<CpuId, NodeId> = BTreeMap::new();
    let mut add_node = |mut cpus: CpuSet, memory_bytes: u64| {
        let id = NodeId(u32::try_from(parts.nodes.len()).expect("at most MOST_NODES"));
        // CPUs belong to the first node of their place; memory beside it has none of its own.
        cpus = cpus.iter().filter(|cpu| !owner.contains_key(cpu)).collect();
        owner.extend(cpus.iter().map(|cpu| (cpu, id)));
        parts.nodes.push(Node {
            id,
            cpus,
            memory_bytes,
        });
    };
    for (level, &total) in levels.iter().zip(&totals) {
        match level.kind {
            Kind::Node => (0..total).for_each(|i| add_node(range(total, i), level.memory_bytes)),
            Kind::Cache(number, kind) => parts.caches.extend((0..total).map(|i| Cache {
                level: number,
                kind,
                size_bytes: level.size_bytes,
                cpus: range(total, i),
            })),
            Kind::Package => cpus
                .iter_mut()
                .for_each(|cpu| cpu.package = place(total, cpu.id.0)),
            Kind::Core => cpus
                .iter_mut()
                .for_each(|cpu| cpu.core = place(total, cpu.id.0)),
            Kind::Group | Kind::Pu => {}
        }
        for &memory_bytes in &level.attached {
            (0..total).for_each(|i| add_node(range(total, i), memory_bytes));
        }
    }
    let ownerless: CpuSet = cpus
        .iter()
        .map(|cpu| cpu.id)
        .filter(|id| !owner.contains_key(id))
        .collect();
    if !ownerless.is_empty() {
        let id = NodeId(u32::try_from(parts.nodes.len()).expect("at most MOST_NODES"));
        owner.extend(ownerless.iter().map(|cpu| (cpu, id)));
        parts.nodes.push(Node {
            id,
            cpus: ownerless,
            memory_bytes: 0,
        });
    }
    for cpu in &mut cpus {
        cpu.node = owner[&cpu.id];
    }
    parts.cpus = cpus;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use crate::{CpuId, NodeId, Topology};
    use proptest::prelude::*;

    fn counts(text: &str) -> (usize, u32, usize) {
        let machine = Topology::synthetic(text).unwrap_or_else(|error| panic!("{error}"));
        let cores = machine
            .cpus()
            .iter()
            .map(|cpu| cpu.core)
            .max()
            .expect("a CPU")
            + 1;
        (machine.nodes().count(), cores, machine.cpus().len())
    }

    #[test]
    fn levels_multiply_from_the_outside_in() {
        assert_eq!(counts("NUMANode:8 Core:16 PU:2"), (8, 128, 256));
        assert_eq!(counts("pack:2 numa:2 l3:1 l2:4 core:1 pu:2"), (4, 16, 32));
        assert_eq!(counts("2 4 2"), (2, 8, 16));
        assert_eq!(counts("Core:4"), (1, 4, 4));
        assert_eq!(counts("PU:3"), (1, 3, 3));
        assert_eq!(counts("  node:2(memory=4GB)   core:2 1 "), (2, 4, 4));
    }

    #[test]
    fn memory_beside_a_place_that_has_a_node_has_no_cpus() {
        let text = "Package:2 [NUMANode(memory=16GiB)] [NUMANode(memory=4GiB)] Core:4 PU:1";
        let machine = Topology::synthetic(text).expect("a machine");
        let nodes: Vec<_> = machine
            .nodes()
            .map(|id| machine.node(id).expect("listed"))
            .collect();
        assert_eq!(
            nodes.iter().map(|node| node.cpus.len()).collect::<Vec<_>>(),
            [4, 4, 0, 0]
        );
        assert_eq!(nodes[0].memory_bytes, 16 << 30);
        assert_eq!(nodes[3].memory_bytes, 4 << 30);
    }

    #[test]
    fn distances_stand_row_by_row() {
        let text = "NUMANode:2 Core:1 distances=10,21;22,10";
        let machine = Topology::synthetic(text).expect("a machine");
        assert_eq!(machine.distance(NodeId(1), NodeId(0)), 22);
        assert_eq!(machine.distance(NodeId(0), NodeId(1)), 21);
        assert_eq!(machine.cpu(CpuId(1)).expect("a CPU").node, NodeId(1));
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        for (text, at, part) in [
            ("", 1, "no level"),
            ("NUMANode:0 PU:1", 10, "at least 1"),
            ("NUMANode:x", 10, "`x` is no number"),
            ("Sock:2 Chair:2", 8, "`Chair`"),
            ("PU:2 Core:2", 1, "innermost"),
            ("Core:2 Core:2 PU:1", 8, "another level"),
            ("NUMANode:2(speed=3) PU:1", 1, "`speed=3`"),
            ("NUMANode:2(memory=3PB) PU:1", 1, "`3PB`"),
            ("NUMANode:2(memory=3GB PU:1", 11, "`(`"),
            ("NUMANode:2 PU:1 distances=10,20", 17, "2 rows of 2"),
            ("NUMANode:2 PU:1 distances=10,20;x,10", 17, "`x`"),
            ("distances=10 PU:1", 14, "come last"),
            ("[NUMANode] PU:1", 1, "level before"),
            ("PU:1 [Core]", 7, "only a NUMANode"),
            ("NUMANode:5000 PU:1", 1, "5000 nodes"),
            ("Core:99999999999 PU:99999999999", 1, "more than 65536"),
        ] {
            let error = Topology::synthetic(text).expect_err(text).to_string();
            assert!(
                error.contains(&format!("at character {at}:")),
                "{text:?}: {error}"
            );
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(
            text in "((numa|pack|l3|l2i|core|pu|\\[|\\]|[a-z]|é)?:?[0-9]{0,3}(\\(memory=[0-9]GB\\))? ){0,5}(distances=[0-9,;]*)?"
        ) {
            let _ = Topology::synthetic(&text);
        }
    }
}
