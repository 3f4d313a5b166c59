//! The sum of a binary tree in memory, a fork a node.
//!
//! A join around a few loads: what it costs shows beside the waiting for memory.

use crate::case::{Case, Outcome, Task};
use crate::forkjoin::case;
use crate::forks::{self, Forks, forkers_and_serial};

pub(super) fn cases() -> Vec<Case> {
    let what = "the sum of a binary tree, a fork a node (2^23 nodes, quick 2^20)";
    vec![case("tree", "ms", what, forkers_and_serial!(run))]
}

struct Node {
    value: u64,
    children: Option<[Box<Node>; 2]>,
}

fn grow(layers: u32) -> Node {
    let children = (layers > 1).then(|| [(); 2].map(|()| Box::new(grow(layers - 1))));
    Node { value: 1, children }
}

fn sum<F: Forks>(here: &mut F::Here<'_>, node: &Node) -> u64 {
    let Some([left, right]) = &node.children else {
        return node.value;
    };
    let (left, right) = F::join(
        here,
        |here| sum::<F>(here, left),
        |here| sum::<F>(here, right),
    );
    node.value + left + right
}

fn run<F: Forks>(task: &Task) -> Outcome {
    let layers = task.size(23, 20);
    let root = grow(layers);
    forks::sample_ms(task, |engine: &F| {
        let nodes = engine.enter(|here| sum::<F>(here, &root));
        assert_eq!(nodes, (1 << layers) - 1, "a tree's sum");
    })
}
