//! How many ways there are to place n queens, a fork a square.
//!
//! Parts are many, small and uneven; there is no row below which it stops to fork.

use crate::case::{Case, Outcome, Task};
use crate::forkjoin::case;
use crate::forks::{self, Forks, forkers_and_serial};

pub(super) fn cases() -> Vec<Case> {
    let what = "all placements of 14 queens (quick 12), a fork a square, down to the last row";
    vec![case("nqueens", "ms", what, forkers_and_serial!(run))]
}

/// What the rows above leave: columns and diagonals taken, as bits.
#[derive(Clone, Copy)]
struct Board {
    all: u32,
    columns: u32,
    left: u32,
    right: u32,
}

impl Board {
    fn with(self, queen: u32) -> Board {
        Board {
            all: self.all,
            columns: self.columns | queen,
            left: (self.left | queen) << 1,
            right: (self.right | queen) >> 1,
        }
    }

    fn free(self) -> u32 {
        self.all & !(self.columns | self.left | self.right)
    }
}

fn place<F: Forks>(here: &mut F::Here<'_>, board: Board) -> u64 {
    if board.columns == board.all {
        return 1;
    }
    try_squares::<F>(here, board, board.free())
}

/// The lowest free square in one fork, the others in the other.
fn try_squares<F: Forks>(here: &mut F::Here<'_>, board: Board, free: u32) -> u64 {
    if free == 0 {
        return 0;
    }
    let square = free & free.wrapping_neg();
    let others = free ^ square;
    if others == 0 {
        return place::<F>(here, board.with(square));
    }
    let (this, others) = F::join(
        here,
        |here| place::<F>(here, board.with(square)),
        |here| try_squares::<F>(here, board, others),
    );
    this + others
}

fn run<F: Forks>(task: &Task) -> Outcome {
    let (queens, ways) = task.size((14, 365_596), (12, 14_200));
    let board = Board {
        all: (1 << queens) - 1,
        columns: 0,
        left: 0,
        right: 0,
    };
    forks::sample_ms(task, |engine: &F| {
        let found = engine.enter(|here| place::<F>(here, board));
        assert_eq!(found, ways, "the number of placements");
    })
}
