//! The drawing of `reiver topology`, read back: it shows the machine, and nothing else.

use std::collections::BTreeSet;

use reiver_topology::{CpuSet, NodeId, Topology};

use crate::machines;

/// A box without its sides.
struct Drawn {
    title: String,
    lines: Vec<String>,
}

/// The boxes of a drawing, which all close.
fn boxes(name: &str, drawing: &str) -> Vec<Drawn> {
    let mut boxes = Vec::new();
    for part in drawing
        .split("\n\n")
        .filter(|part| part.starts_with(['┌', '+']))
    {
        let lines: Vec<&str> = part.lines().collect();
        let width = lines[0].chars().count();
        assert!(
            lines.iter().all(|line| line.chars().count() == width),
            "{name}: this box does not close\n{part}"
        );
        let inside =
            |line: &str| -> String { line.chars().skip(2).take(width - 4).collect::<String>() };
        let title = inside(lines[0]);
        let title = title.trim_end_matches(['─', '-', ' ']).trim().to_owned();
        let lines = lines[1..lines.len() - 1].iter().map(|line| inside(line));
        boxes.push(Drawn {
            title,
            lines: lines.map(|line| line.trim_end().to_owned()).collect(),
        });
    }
    boxes
}

/// How many cores an outline stands for: lines further in belong to the line above them, as many times
/// as it says.
fn cores(lines: &[String]) -> usize {
    let mut cores = 0;
    // How many times each open line around stands.
    let mut around: Vec<usize> = Vec::new();
    for line in lines {
        let part = line.trim_start();
        around.truncate((line.len() - part.len()) / 2);
        let (times, part) = match part.split_once([' ']) {
            Some((number, rest)) if rest.starts_with(['×', 'x']) => (
                number.parse().expect("a number of times"),
                &rest[rest.find(' ').expect("a part") + 1..],
            ),
            _ => (1, part),
        };
        let all: usize = around.iter().product::<usize>() * times;
        if part.starts_with("core") {
            cores += all;
        } else {
            assert!(part.starts_with('L'), "neither a core nor a cache: {line}");
            around.push(times);
        }
    }
    cores
}

pub(crate) fn check(name: &str, machine: &Topology) {
    let drawing = reiver_cli::drawing(machine);
    let boxes = boxes(name, &drawing);
    assert_eq!(boxes.len(), machine.nodes().count(), "{name}: a box a node");
    let mut all_cores = 0;
    for (id, drawn) in machine.nodes().zip(&boxes) {
        let node = machine.node(id).expect("it is listed");
        assert!(
            drawn.title.starts_with(&format!("node {id}: ")),
            "{name}: {}",
            drawn.title
        );
        let knows_memory = !drawn.title.ends_with("no memory known");
        assert_eq!(
            knows_memory,
            node.memory_bytes > 0,
            "{name}: {}",
            drawn.title
        );

        let told = |line: &&String| line.starts_with("from node");
        let (speeds, lines): (Vec<&String>, Vec<&String>) = drawn.lines.iter().partition(told);
        let from: CpuSet = speeds.iter().flat_map(|line| nodes_in(line)).collect();
        let expected = machine
            .nodes()
            .filter(|&from| machine.memory_access(from, id).is_some());
        assert!(
            from.iter().map(|node| NodeId(node.0)).eq(expected),
            "{name}: {speeds:?}"
        );

        let outline: Vec<String> = lines[1..].iter().map(|line| line.to_string()).collect();
        let of_node: BTreeSet<u32> = node
            .cpus
            .iter()
            .map(|cpu| machine.cpu(cpu).expect("a CPU of its node").core)
            .collect();
        assert_eq!(cores(&outline), of_node.len(), "{name}:\n{drawing}");
        all_cores += of_node.len();
        let first = lines[0];
        if node.cpus.is_empty() {
            assert_eq!(first, "no CPUs", "{name}");
        } else {
            let cpus = first.split(' ').nth(1).expect("CPUs");
            assert_eq!(
                cpus.parse().ok().as_ref(),
                Some(&node.cpus),
                "{name}: {first}"
            );
        }
    }
    let counted = format!("{} node", machine.nodes().count());
    let head = drawing.lines().next().expect("a first line");
    assert!(
        head.contains(&counted) && head.contains(&format!(" {all_cores} core")),
        "{head}"
    );
    check_distances(name, machine, &drawing);
}

/// `from nodes 0-3,7: 20 GiB/s`
fn nodes_in(line: &str) -> Vec<reiver_topology::CpuId> {
    let (nodes, _) = line.split_once(':').expect("speeds");
    let nodes = nodes.rsplit(' ').next().expect("nodes");
    nodes
        .parse::<CpuSet>()
        .expect("numbers of nodes")
        .iter()
        .collect()
}

fn check_distances(name: &str, machine: &Topology, drawing: &str) {
    let drawn = drawing.split("\n\n").last().expect("a last part");
    let nodes: Vec<NodeId> = machine.nodes().collect();
    if nodes.len() == 1 || nodes.len() > 16 {
        assert_eq!(
            drawn.contains("see --json"),
            nodes.len() > 16,
            "{name}: {drawn}"
        );
        return;
    }
    let rows: Vec<Vec<u32>> = drawn
        .lines()
        .map(|line| {
            line.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect()
        })
        .collect();
    let head: Vec<u32> = nodes.iter().map(|node| node.0).collect();
    assert_eq!(rows[0], head, "{name}:\n{drawn}");
    for (&from, row) in nodes.iter().zip(&rows[1..]) {
        let distances = nodes.iter().map(|&to| machine.distance(from, to));
        let expected: Vec<u32> = std::iter::once(from.0).chain(distances).collect();
        assert_eq!(row, &expected, "{name}:\n{drawn}");
    }
}

#[test]
fn every_machine_is_drawn_as_it_is() {
    for (name, machine) in machines::all() {
        check(name, machine);
    }
}
