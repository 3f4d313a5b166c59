//! Who has worked on which piece of an array, and whether it lies where he was.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use reiver::Topology;
use reiver_topology::{NodeId, place};

use crate::case::Figures;

/// Pieces of an array, and who worked on each last: a thread, and the node that it ran on.
#[derive(Debug)]
pub(super) struct Pieces {
    machine: Option<Topology>,
    last: Box<[AtomicU64]>,
}

thread_local! {
    static THREAD: Cell<u32> = const { Cell::new(0) };
}

/// The number of the current thread, from 1.
fn thread() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    THREAD.with(|number| {
        if number.get() == 0 {
            number.set(COUNT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

fn thread_of(mark: u64) -> u64 {
    mark >> 32
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is the node"
)]
fn node_of(mark: u64) -> NodeId {
    NodeId(mark as u32)
}

impl Pieces {
    pub(super) fn new(count: usize) -> Pieces {
        Pieces {
            machine: Topology::detect().ok(),
            last: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The node that the current thread runs on; the first where nobody knows.
    fn here(&self) -> NodeId {
        let cpu = place::current_cpu();
        let cpu = cpu.and_then(|cpu| self.machine.as_ref()?.cpu(cpu));
        cpu.map_or(NodeId(0), |cpu| cpu.node)
    }

    /// The current thread works on this piece.
    pub(super) fn mark(&self, piece: usize) {
        let mark = u64::from(thread()) << 32 | u64::from(self.here().0);
        self.last[piece].store(mark, Ordering::Relaxed);
    }

    /// The threads that have marked pieces last.
    pub(super) fn threads(&self) -> Vec<u64> {
        let marks = self.last.iter().map(|mark| mark.load(Ordering::Relaxed));
        marks.map(thread_of).collect()
    }

    /// The shares of the last pass; `first` are the threads of the one that touched the data first. Without
    /// places where the kernel says none.
    pub(super) fn figures<T>(&self, data: &[T], len: usize, first: &[u64]) -> Figures {
        let (mut local, mut pages) = (0, 0);
        for (piece, mark) in data.chunks(len).zip(&self.last) {
            let here = node_of(mark.load(Ordering::Relaxed));
            for (node, count) in place::nodes_of(piece) {
                pages += count;
                local += if node == here { count } else { 0 };
            }
        }
        let now = self.threads();
        let stolen = now.iter().zip(first).filter(|(now, first)| now != first);
        let percent = |part: usize, all: usize| 100.0 * part as f64 / all as f64;
        let mut figures = Figures::new();
        if pages > 0 {
            figures.push(("local %".to_owned(), percent(local, pages)));
            figures.push(("remote %".to_owned(), percent(pages - local, pages)));
        }
        figures.push(("stolen %".to_owned(), percent(stolen.count(), now.len())));
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(figures: &Figures, name: &str) -> Option<f64> {
        let found = figures.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value)
    }

    #[test]
    fn what_another_thread_does_is_stolen() {
        let data = vec![1_u8; 40_000];
        let pieces = Pieces::new(4);
        (0..4).for_each(|piece| pieces.mark(piece));
        let first = pieces.threads();
        let stolen = |pieces: &Pieces| figure(&pieces.figures(&data, 10_000, &first), "stolen %");
        assert_eq!(stolen(&pieces), Some(0.0));
        std::thread::scope(|scope| {
            scope.spawn(|| pieces.mark(2));
        });
        assert_eq!(stolen(&pieces), Some(25.0));
    }

    #[test]
    fn every_page_is_local_or_remote() {
        let data = vec![1_u8; 1 << 20];
        let pieces = Pieces::new(1);
        pieces.mark(0);
        let figures = pieces.figures(&data, 1 << 20, &pieces.threads());
        let Some(local) = figure(&figures, "local %") else {
            eprintln!("skipped: the kernel says of no page where it lies");
            return;
        };
        assert_eq!(local + figure(&figures, "remote %").unwrap(), 100.0);
    }
}
