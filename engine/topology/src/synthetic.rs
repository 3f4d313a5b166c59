//! Reads a machine described in words, in hwloc's grammar of synthetic topologies, with a matrix
//! of distances of our own behind it. What is understood stands at
//! [`Topology::synthetic`](crate::Topology::synthetic).

mod indexes;

use std::cmp::Reverse;

use crate::machine::Parts;
use crate::objects::{MemoryNode, Objects, Pu};
use crate::{Cache, CacheKind, CpuId, CpuSet, NodeId, TopologyError};

/// More than any machine that runs Linux: its kernels are built for 1,024 nodes and 8,192 CPUs.
const MOST_NODES: u64 = 4096;
const MOST_CPUS: u64 = 65_536;
/// As many as hwloc knows.
const MOST_LEVELS: usize = 128;

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
    /// The text of the attribute.
    indexes: Option<String>,
    /// Memory attached to each of this level.
    attached: Vec<Level>,
    at: usize,
}

impl Level {
    fn new(kind: Kind, count: u64, at: usize) -> Level {
        Level {
            kind,
            count,
            memory_bytes: 0,
            size_bytes: 0,
            indexes: None,
            attached: vec![],
            at,
        }
    }
}

pub(crate) fn read(text: &str) -> Result<Parts, TopologyError> {
    let refuse = |at: usize, problem: String| TopologyError::Synthetic {
        text: text.to_owned(),
        at: text[..at].chars().count() + 1,
        problem,
    };
    let (levels, matrix) = parse(text).map_err(|(at, problem)| refuse(at, problem))?;
    let objects = unfold(&levels).map_err(|(at, problem)| refuse(at, problem))?;
    let mut parts = objects.into_parts();
    if let Some((at, rows)) = matrix {
        // A machine without a node gets one.
        let nodes = parts.nodes.len().max(1);
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
    // The machine itself, to which memory may be attached as well.
    let mut levels = vec![(Some(Kind::Group), Level::new(Kind::Group, 1, 0))];
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
            let (_, last) = levels.last_mut().expect("it has the machine");
            last.attached.push(level);
        } else {
            if levels.len() > MOST_LEVELS {
                return Err((at, format!("more than {MOST_LEVELS} levels")));
            }
            levels.push(level(at, word, false)?);
        }
    }
    if levels.len() == 1 {
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
    let mut level = Level::new(Kind::Group, count, at);
    for attribute in attributes.split_whitespace() {
        match attribute.split_once('=') {
            Some(("memory", size)) => level.memory_bytes = bytes(at, size)?,
            Some(("size", size)) => level.size_bytes = bytes(at, size)?,
            Some(("indexes", indexes)) => level.indexes = Some(indexes.to_owned()),
            Some(("memorysidecachesize", _)) => {}
            _ => {
                let problem =
                    format!("`{attribute}` is not known; memory=, size= and indexes= are");
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
        typed.push(Level::new(Kind::Pu, 1, typed[last].at));
    }
    Ok(typed)
}

fn unfold(levels: &[Level]) -> Result<Objects, Refused> {
    let widths = widths(levels)?;
    let (cpus, last) = (widths[levels.len() - 1], levels.len() - 1);
    let kinds = levels.iter().map(|level| level.kind);
    let around: Vec<(Kind, usize)> = kinds.zip(widths.iter().copied()).collect();
    let numbers = |level: &Level, depth: usize, count: usize| match &level.indexes {
        None => Ok((0..).take(count).collect()),
        Some(text) => {
            indexes::read(text, count, &around[..depth]).map_err(|problem| (level.at, problem))
        }
    };
    let ids: Vec<u32> = numbers(&levels[last], last, cpus)?;
    let cpus_of = |depth: usize, index: usize| -> CpuSet {
        let each = cpus / widths[depth];
        let places = index * each..(index + 1) * each;
        ids[places].iter().copied().map(CpuId).collect()
    };

    let mut objects = Objects::default();
    // Which of its kind a CPU is in.
    let of_kind = |kind, cpu: usize| {
        let depth = levels.iter().position(|level| level.kind == kind)?;
        let index = cpu / (cpus / widths[depth]);
        Some(u32::try_from(index).expect("at most MOST_CPUS"))
    };
    objects.pus = (ids.iter().enumerate())
        .map(|(cpu, &id)| Pu {
            id: CpuId(id),
            package: of_kind(Kind::Package, cpu).unwrap_or(0),
            core: of_kind(Kind::Core, cpu).unwrap_or(id),
            nodes: CpuSet::new(),
        })
        .collect();
    for (depth, level) in levels.iter().enumerate() {
        if let Kind::Cache(number, kind) = level.kind {
            objects.caches.extend((0..widths[depth]).map(|index| Cache {
                level: number,
                kind,
                size_bytes: level.size_bytes,
                cpus: cpus_of(depth, index),
            }));
        }
    }

    let memory = memory(levels, &widths);
    let numbered = memory.iter().find(|(_, _, node)| node.indexes.is_some());
    let node_ids = match numbered {
        Some((depth, _, node)) => numbers(node, *depth, memory.len())?,
        None => (0..).take(memory.len()).collect(),
    };
    let nodes = memory.iter().zip(node_ids);
    objects.nodes = nodes
        .map(|(&(depth, index, node), id)| MemoryNode {
            id: NodeId(id),
            cpus: cpus_of(depth, index),
            memory_bytes: node.memory_bytes,
        })
        .collect();
    Ok(objects)
}

/// How many there are of each level in all.
fn widths(levels: &[Level]) -> Result<Vec<usize>, Refused> {
    let mut widths = Vec::with_capacity(levels.len());
    let mut total = 1u64;
    let mut nodes = 0;
    for level in levels {
        total = total.saturating_mul(level.count);
        let of_each = memory_of(level).count() as u64;
        nodes += total.saturating_mul(of_each);
        let refuse = |problem| Err((level.at, problem));
        if nodes > MOST_NODES {
            return refuse(format!("{nodes} nodes are more than {MOST_NODES}"));
        }
        if total > MOST_CPUS {
            return refuse(format!("{total} are more than {MOST_CPUS} CPUs"));
        }
        widths.push(usize::try_from(total).expect("at most MOST_CPUS"));
    }
    Ok(widths)
}

/// The nodes that each of a level has: itself, where it is one, and what is attached to it.
fn memory_of(level: &Level) -> impl Iterator<Item = &Level> {
    let own = (level.kind == Kind::Node).then_some(level);
    own.into_iter().chain(&level.attached)
}

/// All memory with the level and the place that it belongs to, in the order in which hwloc numbers
/// it: by where its CPUs end, inner memory before outer.
fn memory<'l>(levels: &'l [Level], widths: &[usize]) -> Vec<(usize, usize, &'l Level)> {
    let mut memory = Vec::new();
    for (depth, level) in levels.iter().enumerate() {
        let places = 0..widths[depth];
        memory.extend(
            places.flat_map(|index| memory_of(level).map(move |node| (depth, index, node))),
        );
    }
    let cpus = widths.last().copied().unwrap_or(1);
    let end = |depth: usize, index: usize| (index + 1) * (cpus / widths[depth]);
    memory.sort_by_key(|&(depth, index, _)| (end(depth, index), Reverse(depth)));
    memory
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
            [4, 0, 4, 0]
        );
        assert_eq!(nodes[2].memory_bytes, 16 << 30);
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
            ("[NUMANode(memory=1GB)]", 1, "no level"),
            ("Core:2 PU:2(indexes=0,1,2)", 8, "4 different numbers"),
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
