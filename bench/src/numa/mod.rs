//! The suite `numa`: loops over memory that has a place, and objects that go home, on a machine with nodes.
//!
//! Beside each time stands what part of the memory was worked on where it lies (`local`), what part was not
//! (`remote`), and what part of the pieces was done by another thread than the one that touched them first
//! (`stolen`): of the last pass, and by the kernel's own words about pages and CPUs. What a machine cannot
//! tell is said under each case.

mod loops;
mod shares;

use std::fs;

use reiver::{NodeId, Topology};

use crate::case::{Case, Contender, Outcome, Task, Trouble, floor, ours, peer};
use crate::threads::{as_there_are_cpus, few};
use crate::{outside, pools};
use loops::{Rayon, Reiver, Serial, mixed, touched, triad};

/// Everybody who has parallel loops, for a function that is generic over [`loops::Loops`].
macro_rules! contenders {
    ($run:ident) => {
        vec![
            ours("reiver", $run::<Reiver>),
            peer("rayon", $run::<Rayon>),
            peer(INTERLEAVED, interleaved),
            peer("openmp spread", openmp),
            floor("serial", $run::<Serial>),
        ]
    };
}
/// All of them, in the order in which they are told.
pub(crate) fn cases() -> Vec<Case> {
    const ELEMENT: &str = "ns an element, by the wall";
    let mut cases = vec![
        case(
            "triad",
            ELEMENT,
            "a = b + 3 c over 16M f64 each (quick 2M), each array laid by its contender's own means",
            contenders!(triad),
        )
        .quickly_at(&few()),
        case(
            "touch",
            ELEMENT,
            "16M f64 (quick 2M) that a loop has touched first, then a loop with 1 pass over the first piece \
             and 4 over the last",
            contenders!(touched),
        )
        .quickly_at(&few()),
        case(
            "mixed",
            ELEMENT,
            "the triad with eight tasks a thread that compute for 0.1 ms or so beside it",
            contenders!(mixed),
        )
        .quickly_at(&few()),
    ];
    const BETWEEN: &str = "ns an object, by the wall";
    cases.extend([
        case(
            "remote-near",
            BETWEEN,
            "64 B taken and written to on the first node, looked at and given back on the one nearest to it; home \
             is what part of what is taken there in the end lies there",
            pools::between_nodes_of_this_machine::<false>(),
        )
        .at(&as_there_are_cpus()),
        case(
            "remote-far",
            BETWEEN,
            "as remote-near, to the node that is farthest away",
            pools::between_nodes_of_this_machine::<true>(),
        )
        .at(&as_there_are_cpus()),
    ]);
    cases
}

/// This machine, and two of its nodes that have CPUs: the first, and the nearest to it or the farthest.
pub(crate) fn pair(far: bool) -> Result<(Topology, [NodeId; 2]), Trouble> {
    let machine = Topology::detect().map_err(|error| Trouble::Failed(error.to_string()))?;
    let has_cpus = |node: &NodeId| machine.cpus().iter().any(|cpu| cpu.node == *node);
    let first = machine.nodes().find(has_cpus);
    let nodes = first.map(|first| {
        let near = machine.nearest_nodes(first).into_iter();
        let others: Vec<NodeId> = near
            .filter(|node| *node != first && has_cpus(node))
            .collect();
        let other = if far {
            others.get(1..)?.last()
        } else {
            others.first()
        };
        other.map(|&other| [first, other])
    });
    let lack = if far {
        "this machine has no three nodes with CPUs"
    } else {
        "this machine has no two nodes with CPUs"
    };
    match nodes.flatten() {
        Some(nodes) => Ok((machine, nodes)),
        None => Err(Trouble::Skipped(lack.to_owned())),
    }
}

fn case(
    name: &'static str,
    unit: &'static str,
    what: &'static str,
    contenders: Vec<Contender>,
) -> Case {
    Case::new("numa", (name, unit), what, contenders)
}

/// Rayon with memory that is dealt to all nodes page by page.
const INTERLEAVED: &str = "rayon interleaved";

fn interleaved(task: &Task) -> Outcome {
    outside::interleaved(task, "numa", "rayon")
}

fn openmp(task: &Task) -> Outcome {
    outside::openmp_on_nodes(task, loops::len(task), loops::PIECE)
}

/// What cannot be concluded from this suite on this machine.
pub(crate) fn caveat() -> Option<String> {
    let nodes = Topology::detect().map_or(1, |machine| machine.nodes().count());
    let is_virtual = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        let flags = text.lines().find(|line| line.starts_with("flags"));
        flags.is_some_and(|line| line.ends_with(" hypervisor") || line.contains(" hypervisor "))
    });
    said_of(nodes, is_virtual)
}

fn said_of(nodes: usize, is_virtual: bool) -> Option<String> {
    match (nodes, is_virtual) {
        (0 | 1, _) => Some(
            "This machine has one node: about the place of memory nothing can be concluded here, and no \
             share can be remote."
                .to_owned(),
        ),
        (nodes, true) => Some(format!(
            "The {nodes} nodes are a virtual machine's: the shares are what they say, but whether memory is \
             farther from one node than from another is not known here, so nothing can be concluded from \
             the times."
        )),
        (_, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_concluded_is_said() {
        assert!(said_of(1, false).is_some_and(|said| said.contains("one node")));
        assert!(said_of(4, true).is_some_and(|said| said.contains("4 nodes")));
        assert_eq!(said_of(2, false), None);
    }
}
