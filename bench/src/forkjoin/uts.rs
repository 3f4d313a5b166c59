//! UTS, the unbalanced tree search: a tree that exists only in the hashes of its nodes, so that nobody
//! can know beforehand how large a part is.
//!
//! Olivier et al., "UTS: An Unbalanced Tree Search Benchmark", 2006. The tree T1 of its samples: a node's
//! state is the SHA-1 of its parent's and its own number, a geometric distribution with 4 children in
//! the mean down to depth 10, seed 19; 4,130,071 nodes. Quick is the same one down to depth 8.

use sha1_smol::Sha1;

use crate::case::{Case, Outcome, Task};
use crate::forkjoin::case;
use crate::forks::{self, Forks, Serial, forkers_and_serial};

pub(super) fn cases() -> Vec<Case> {
    let what = "UTS T1 with SHA-1, a fork a child (4.1M nodes, quick cut at depth 8)";
    vec![case("uts", "ms", what, forkers_and_serial!(run))]
}

const DEPTH: u32 = 10;
const T1_NODES: u64 = 4_130_071;
const MEAN_CHILDREN: f64 = 4.0;
const MOST_CHILDREN: u32 = 100;
const SEED: u32 = 19;

type State = [u8; 20];

fn root() -> State {
    let mut sha = Sha1::from([0_u8; 16]);
    sha.update(&SEED.to_be_bytes());
    sha.digest().bytes()
}

fn child(state: &State, number: u32) -> State {
    let mut sha = Sha1::from(state);
    sha.update(&number.to_be_bytes());
    sha.digest().bytes()
}

/// How many children the node with this state has.
fn children(state: &State) -> u32 {
    let random = u32::from_be_bytes([state[16], state[17], state[18], state[19]]) & 0x7fff_ffff;
    drawn_children(f64::from(random) / f64::from(1_u32 << 31))
}

/// A number of children, drawn by a number from 0 to 1.
pub(crate) fn drawn_children(uniform: f64) -> u32 {
    let each = 1.0 / (1.0 + MEAN_CHILDREN);
    let drawn = (1.0 - uniform).ln() / (1.0_f64 - each).ln();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of children is small and not negative"
    )]
    let drawn = drawn.floor() as u32;
    drawn.min(MOST_CHILDREN)
}

/// The nodes of the subtree below, this one included.
fn count<F: Forks>(here: &mut F::Here<'_>, state: &State, more_depth: u32) -> u64 {
    let children = if more_depth == 0 { 0 } else { children(state) };
    1 + count_children::<F>(here, state, 0..children, more_depth)
}

fn count_children<F: Forks>(
    here: &mut F::Here<'_>,
    state: &State,
    range: std::ops::Range<u32>,
    more_depth: u32,
) -> u64 {
    match range.end - range.start {
        0 => 0,
        1 => count::<F>(here, &child(state, range.start), more_depth - 1),
        len => {
            let middle = range.start + len / 2;
            let (left, right) = F::join(
                here,
                |here| count_children::<F>(here, state, range.start..middle, more_depth),
                |here| count_children::<F>(here, state, middle..range.end, more_depth),
            );
            left + right
        }
    }
}

fn run<F: Forks>(task: &Task) -> Outcome {
    let depth = task.size(DEPTH, 8);
    let expected = task.size(T1_NODES, count::<Serial>(&mut (), &root(), 8));
    forks::sample_ms(task, |engine: &F| {
        let nodes = engine.enter(|here| count::<F>(here, &root(), depth));
        assert_eq!(nodes, expected, "the size of the tree");
    })
}
