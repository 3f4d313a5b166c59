//! A product of matrices by quadrants, as Cilk's: eight products of halves in two phases of four forks.
//!
//! A matrix lies in memory quadrant by quadrant, down to tiles that lie row by row, so that every part
//! of it is one slice and forks need nothing unsafe.

use crate::case::{Case, Outcome, Task};
use crate::forkjoin::case;
use crate::forks::{self, Forks, forkers_and_serial};

pub(super) fn cases() -> Vec<Case> {
    let what = "a product of two 1024x1024 f32 matrices (quick 512) by quadrants, tiles of 32x32";
    vec![case("matmul", "ms", what, forkers_and_serial!(run))]
}

const TILE: usize = 32;

/// Adds the product of `a` and `b` to `c`.
fn multiply<F: Forks>(here: &mut F::Here<'_>, c: &mut [f32], a: &[f32], b: &[f32]) {
    if c.len() == TILE * TILE {
        return multiply_tiles(c, a, b);
    }
    let quarter = c.len() / 4;
    let (above, below) = c.split_at_mut(2 * quarter);
    let (c00, c01) = above.split_at_mut(quarter);
    let (c10, c11) = below.split_at_mut(quarter);
    let a = |row: usize, column: usize| &a[(2 * row + column) * quarter..][..quarter];
    let b = |row: usize, column: usize| &b[(2 * row + column) * quarter..][..quarter];
    for k in 0..2 {
        F::join(
            here,
            |here| {
                F::join(
                    here,
                    |here| multiply::<F>(here, c00, a(0, k), b(k, 0)),
                    |here| multiply::<F>(here, c01, a(0, k), b(k, 1)),
                )
            },
            |here| {
                F::join(
                    here,
                    |here| multiply::<F>(here, c10, a(1, k), b(k, 0)),
                    |here| multiply::<F>(here, c11, a(1, k), b(k, 1)),
                )
            },
        );
    }
}

fn multiply_tiles(c: &mut [f32], a: &[f32], b: &[f32]) {
    for (c, a) in c.chunks_exact_mut(TILE).zip(a.chunks_exact(TILE)) {
        for (a, b) in a.iter().zip(b.chunks_exact(TILE)) {
            for (c, b) in c.iter_mut().zip(b) {
                *c += a * b;
            }
        }
    }
}

/// Where row and column lie, in a matrix of `side` columns.
fn place(side: usize, row: usize, column: usize) -> usize {
    if side == TILE {
        return row * TILE + column;
    }
    let half = side / 2;
    let quadrant = 2 * (row / half) + column / half;
    quadrant * half * half + place(half, row % half, column % half)
}

fn run<F: Forks>(task: &Task) -> Outcome {
    let side = task.size(1024, 512);
    let small =
        |seed: usize| move |i: usize| f32::from(u8::try_from(i * seed % 7).expect("below 7"));
    let a: Vec<f32> = (0..side * side).map(small(3)).collect();
    let b: Vec<f32> = (0..side * side).map(small(5)).collect();
    let mut c = vec![0.0; side * side];
    let outcome = forks::sample_ms(task, |engine: &F| {
        c.fill(0.0);
        engine.enter(|here| multiply::<F>(here, &mut c, &a, &b));
    });
    // Whole numbers below 2^24: exact in any order.
    for (row, column) in [
        (0, 0),
        (side - 1, 3),
        (side / 3, side / 2),
        (side - 1, side - 1),
    ] {
        let products = (0..side).map(|k| a[place(side, row, k)] * b[place(side, k, column)]);
        assert_eq!(
            c[place(side, row, column)],
            products.sum::<f32>(),
            "a product"
        );
    }
    outcome
}
