//! Which part of a range belongs to which node: the same each time, so that a node gets again what it
//! touched first. Policy alone, no threads.
//!
//! Nodes have shares of a range in order, in proportion to their workers. A loop splits its range by
//! halves, always at the same places; borders between nodes are put at such places, so that the parts
//! that a sum is made of do not depend on how many nodes there are. Near a border halving goes on
//! until what is left to either side is small beside a share.

use std::ops::Range;

/// A border is as exact as this part of the smallest share.
const EXACT: usize = 16;

/// A node's part is forked in about so many pieces: who steals one from another node has so little of it.
const PIECES: usize = 64;

/// A part of a range, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) range: Range<usize>,
    /// The index of its node.
    pub(crate) node: usize,
}

impl Part {
    /// Where a range of it is split, unless it is small enough to be one piece.
    pub(crate) fn middle(&self, range: &Range<usize>, grain: usize) -> Option<usize> {
        middle(range, grain).filter(|_| range.len() > self.range.len() / PIECES)
    }
}

/// The places where a range is split: in the middle, while both halves have at least `grain`.
pub(crate) fn middle(range: &Range<usize>, grain: usize) -> Option<usize> {
    let half = range.len() / 2;
    (half >= grain).then(|| range.start + half)
}

/// The range of which this one, that `from` comes to by halving, is one half, and the other half.
///
/// # Panics
/// If it is all of `from`, or `from` does not come to it.
pub(crate) fn sibling(
    from: &Range<usize>,
    range: &Range<usize>,
    grain: usize,
) -> (Range<usize>, Range<usize>) {
    let mut whole = from.clone();
    loop {
        let middle = middle(&whole, grain).expect("it comes to the range");
        let (left, right) = (whole.start..middle, middle..whole.end);
        let (half, other) = match range.start < middle {
            true => (left, right),
            false => (right, left),
        };
        if half == *range {
            return (whole, other);
        }
        whole = half;
    }
}

/// The parts of `range`, in order, for nodes with so many workers each.
pub(crate) fn parts(range: Range<usize>, grain: usize, workers: &[usize]) -> Vec<Part> {
    let all: usize = workers.iter().sum();
    let share = |workers: usize| {
        // Wide enough for any range.
        let share = range.len() as u128 * workers as u128 / all as u128;
        usize::try_from(share).expect("a share is no longer than the range")
    };
    let mut before = 0;
    let mut borders = Vec::with_capacity(workers.len() + 1);
    borders.push(range.start);
    for &workers in workers {
        before += workers;
        borders.push(range.start + share(before));
    }
    let smallest = workers.iter().map(|&workers| share(workers)).min();
    let shares = Shares {
        exact: smallest.unwrap_or(0) / EXACT,
        borders,
    };
    let mut parts = Vec::new();
    shares.divide(range, grain, &mut parts);
    parts
}

struct Shares {
    /// The start of each node's share, and the end of the last.
    borders: Vec<usize>,
    exact: usize,
}

impl Shares {
    /// Whose share a place lies in.
    fn node_at(&self, place: usize) -> usize {
        let nodes = self.borders.len() - 1;
        let inner = &self.borders[1..nodes];
        inner.partition_point(|&border| border <= place)
    }

    fn divide(&self, range: Range<usize>, grain: usize, parts: &mut Vec<Part>) {
        let last = range.end.saturating_sub(1).max(range.start);
        let is_shared = self.node_at(range.start) != self.node_at(last);
        let middle = middle(&range, grain).filter(|_| is_shared && range.len() > self.exact);
        match middle {
            Some(middle) => {
                self.divide(range.start..middle, grain, parts);
                self.divide(middle..range.end, grain, parts);
            }
            None => {
                // Of what lies across a border, whoever has the middle has it all.
                let node = self.node_at(range.start + range.len() / 2);
                parts.push(Part { range, node });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts that halving ends with.
    fn leaves(range: Range<usize>, grain: usize) -> Vec<Range<usize>> {
        match middle(&range, grain) {
            None => vec![range],
            Some(middle) => {
                let mut leaves = leaves(range.start..middle, grain);
                leaves.extend(self::leaves(middle..range.end, grain));
                leaves
            }
        }
    }

    #[test]
    fn parts_are_the_range_in_order_and_nodes_ascend() {
        for workers in [
            &[1][..],
            &[1, 1],
            &[2, 2, 2, 2],
            &[1, 2, 3],
            &[7, 1],
            &[3; 16],
        ] {
            for (range, grain) in [
                (0..1, 1),
                (5..105, 1),
                (0..100_000, 97),
                (3..1003, 400),
                (usize::MAX - 5000..usize::MAX, 1),
                (0..usize::MAX, usize::MAX / 1024),
            ] {
                let parts = parts(range.clone(), grain, workers);
                let mut at = range.start;
                let mut node = 0;
                for part in &parts {
                    assert_eq!(part.range.start, at);
                    assert!(part.node >= node && part.node < workers.len());
                    (at, node) = (part.range.end, part.node);
                }
                assert_eq!(at, range.end);
            }
        }
    }

    #[test]
    fn nodes_have_their_shares() {
        for workers in [
            &[1, 1][..],
            &[2, 2, 2, 2],
            &[1, 2, 3],
            &[5, 3],
            &[4, 4, 4, 4, 4, 4],
        ] {
            let all: usize = workers.iter().sum();
            for (len, grain) in [(1 << 20, 1024), (1_000_000, 976), (100_000, 1)] {
                let parts = parts(0..len, grain, workers);
                for (node, workers) in workers.iter().enumerate() {
                    let own = parts.iter().filter(|part| part.node == node);
                    let own: usize = own.map(|part| part.range.len()).sum();
                    let share = len * workers / all;
                    let inexact = share / 4 + 4 * grain;
                    assert!(own.abs_diff(share) <= inexact, "{own} of {share}");
                }
                assert!(parts.len() <= 40 * workers.len(), "{}", parts.len());
            }
        }
        let equal = parts(0..4096, 1, &[2, 2, 2, 2]);
        let equal: Vec<_> = equal.into_iter().map(|part| part.range).collect();
        assert_eq!(equal, [0..1024, 1024..2048, 2048..3072, 3072..4096]);
    }

    #[test]
    fn siblings_lead_to_the_whole() {
        for (from, grain) in [
            (0..1, 1),
            (5..1005, 7),
            (0..4096, 1),
            (3..usize::MAX, usize::MAX / 100),
        ] {
            for mut range in leaves(from.clone(), grain) {
                while range != from {
                    let (whole, other) = sibling(&from, &range, grain);
                    let (first, second) = match range.start < other.start {
                        true => (range, other),
                        false => (other, range),
                    };
                    assert_eq!(first.end, second.start);
                    assert_eq!(whole, first.start..second.end);
                    range = whole;
                }
            }
        }
    }

    #[test]
    fn borders_lie_where_halving_splits() {
        for workers in [&[1, 1][..], &[1, 2, 3], &[7, 1], &[1; 5]] {
            for (range, grain) in [(0..12_345, 13), (7..1007, 1), (0..1023, 400)] {
                let leaves = leaves(range.clone(), grain);
                let of_parts: Vec<_> = parts(range, grain, workers)
                    .into_iter()
                    .flat_map(|part| self::leaves(part.range, grain))
                    .collect();
                assert_eq!(of_parts, leaves);
            }
        }
    }

    #[test]
    fn the_grain_moves_no_border_while_it_is_small() {
        for workers in [&[1, 1][..], &[1, 2, 3], &[2, 2, 2, 2]] {
            let parts = |grain| parts(0..1_000_000, grain, workers);
            assert_eq!(parts(1), parts(976));
            assert_eq!(parts(1), parts(100));
        }
    }
}
