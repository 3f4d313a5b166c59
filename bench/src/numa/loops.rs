//! Loops over arrays, as each contender spells them.

use std::hint::black_box;
use std::time::Instant;

use super::shares::Pieces;
use crate::case::{Outcome, Task};
use crate::forks::{rayon_pool, reiver_engine};

/// What is worked on at once: 128 KiB, some pages.
pub(super) const PIECE: usize = 16 << 10;
/// Tasks for each thread, in `mixed`.
const TASKS: usize = 8;
/// Steps of a task, a nanosecond or two each.
const STEPS: u32 = 70_000;

pub(super) fn len(task: &Task) -> usize {
    task.size(16 << 20, 2 << 20)
}

/// Times passes over arrays of this task's length.
fn per_element(task: &Task, pass: impl FnMut()) -> Vec<f64> {
    let ns = 1e6 / len(task) as f64;
    let samples = task.sample_ms(pass);
    samples.into_iter().map(|ms| ms * ns).collect()
}

/// Who has parallel loops.
pub(super) trait Loops: Sync {
    fn start(threads: usize) -> Self;

    /// An array whose parts lie where loops over it will be, as far as this contender can have it so.
    fn array(&self, len: usize, value: impl Fn(usize) -> f64 + Sync + Send) -> Vec<f64>;

    /// Calls `body` for each piece, with its number.
    fn each(&self, data: &mut [f64], body: impl Fn(usize, &mut [f64]) + Sync + Send);

    /// The same beside so many calls of `task`.
    fn each_beside(
        &self,
        data: &mut [f64],
        body: impl Fn(usize, &mut [f64]) + Sync + Send,
        tasks: usize,
        task: impl Fn() + Sync + Send,
    );
}

pub(super) struct Reiver(reiver::Engine);

impl Loops for Reiver {
    fn start(threads: usize) -> Reiver {
        Reiver(reiver_engine(threads))
    }

    fn array(&self, len: usize, value: impl Fn(usize) -> f64 + Sync + Send) -> Vec<f64> {
        self.0.numa_vec(len, value)
    }

    fn each(&self, data: &mut [f64], body: impl Fn(usize, &mut [f64]) + Sync + Send) {
        self.0.par_chunks_mut(data, PIECE, body);
    }

    fn each_beside(
        &self,
        data: &mut [f64],
        body: impl Fn(usize, &mut [f64]) + Sync + Send,
        tasks: usize,
        task: impl Fn() + Sync + Send,
    ) {
        self.0.scope(|scope| {
            for _ in 0..tasks {
                scope.spawn(|_| task());
            }
            reiver::par_chunks_mut(data, PIECE, &body);
        });
    }
}

pub(super) struct Rayon(rayon::ThreadPool);

impl Loops for Rayon {
    fn start(threads: usize) -> Rayon {
        Rayon(rayon_pool(threads))
    }

    fn array(&self, len: usize, value: impl Fn(usize) -> f64 + Sync + Send) -> Vec<f64> {
        use rayon::prelude::*;
        let all = || (0..len).into_par_iter().with_min_len(PIECE).map(&value);
        self.0.install(|| all().collect())
    }

    fn each(&self, data: &mut [f64], body: impl Fn(usize, &mut [f64]) + Sync + Send) {
        use rayon::prelude::*;
        let each = |(number, piece): (usize, &mut [f64])| body(number, piece);
        self.0
            .install(|| data.par_chunks_mut(PIECE).enumerate().for_each(each));
    }

    fn each_beside(
        &self,
        data: &mut [f64],
        body: impl Fn(usize, &mut [f64]) + Sync + Send,
        tasks: usize,
        task: impl Fn() + Sync + Send,
    ) {
        self.0.scope(|scope| {
            for _ in 0..tasks {
                scope.spawn(|_| task());
            }
            self.each(data, body);
        });
    }
}

/// One thread: the floor where there is one CPU, and else what the others save.
pub(super) struct Serial;

impl Loops for Serial {
    fn start(_: usize) -> Serial {
        Serial
    }

    fn array(&self, len: usize, value: impl Fn(usize) -> f64 + Sync + Send) -> Vec<f64> {
        (0..len).map(value).collect()
    }

    fn each(&self, data: &mut [f64], body: impl Fn(usize, &mut [f64]) + Sync + Send) {
        let pieces = data.chunks_mut(PIECE).enumerate();
        pieces.for_each(|(number, piece)| body(number, piece));
    }

    fn each_beside(
        &self,
        data: &mut [f64],
        body: impl Fn(usize, &mut [f64]) + Sync + Send,
        tasks: usize,
        task: impl Fn() + Sync + Send,
    ) {
        (0..tasks).for_each(|_| task());
        self.each(data, body);
    }
}

fn from(i: usize) -> f64 {
    (i % 1000) as f64
}

/// The part of `data` that the piece of this number is.
fn part(data: &[f64], number: usize) -> &[f64] {
    &data[number * PIECE..data.len().min((number + 1) * PIECE)]
}

/// The three arrays of the triad, and who touched the first of them first.
struct Triad {
    a: Vec<f64>,
    b: Vec<f64>,
    c: Vec<f64>,
    pieces: Pieces,
    first: Vec<u64>,
}

impl Triad {
    fn laid_by<L: Loops>(host: &L, task: &Task) -> Triad {
        let len = len(task);
        let pieces = Pieces::new(len.div_ceil(PIECE));
        let mark = |i: usize| {
            if i.is_multiple_of(PIECE) {
                pieces.mark(i / PIECE);
            }
            0.0
        };
        let a = host.array(len, mark);
        let first = pieces.threads();
        Triad {
            a,
            b: host.array(len, from),
            c: host.array(len, |i| from(i + 1)),
            pieces,
            first,
        }
    }

    /// Times `pass`, which is to do the triad, until the budget is spent.
    fn sample(
        mut self,
        task: &Task,
        pass: impl Fn(&mut [f64], &(dyn Fn(usize, &mut [f64]) + Sync + Send)),
    ) -> Outcome {
        let (b, c, pieces) = (&self.b, &self.c, &self.pieces);
        let body = |number: usize, a: &mut [f64]| {
            pieces.mark(number);
            let terms = part(b, number).iter().zip(part(c, number));
            for (a, (b, c)) in a.iter_mut().zip(terms) {
                *a = b + 3.0 * c;
            }
        };
        let a = &mut self.a;
        let samples = per_element(task, || pass(a, &body));
        for (i, a) in self.a.iter().enumerate() {
            assert_eq!(*a, from(i) + 3.0 * from(i + 1), "the triad at {i}");
        }
        task.tell(self.pieces.figures(&self.a, PIECE, &self.first));
        Ok(samples)
    }
}

/// A loop that only moves memory.
pub(super) fn triad<L: Loops>(task: &Task) -> Outcome {
    let host = L::start(task.threads);
    Triad::laid_by(&host, task).sample(task, |a, body| host.each(a, body))
}

/// The same where tasks that compute want threads too.
pub(super) fn mixed<L: Loops>(task: &Task) -> Outcome {
    let host = L::start(task.threads);
    let compute = || {
        let mut x = black_box(0.3);
        for _ in 0..STEPS {
            x = 3.9 * x * (1.0 - x);
        }
        black_box(x);
    };
    Triad::laid_by(&host, task).sample(task, |a, body| {
        host.each_beside(a, body, TASKS * task.threads, compute);
    })
}

/// First a loop that touches, then one whose pieces are not alike, so that some are stolen.
pub(super) fn touched<L: Loops>(task: &Task) -> Outcome {
    let host = L::start(task.threads);
    let len = len(task);
    let pieces = Pieces::new(len.div_ceil(PIECE));
    // Zeros that nobody has touched.
    let mut data = vec![0.0; len];
    let start = Instant::now();
    host.each(&mut data, |number, piece| {
        pieces.mark(number);
        piece.fill(1.0);
    });
    let fill = start.elapsed().as_secs_f64() * 1e3;
    let first = pieces.threads();
    let count = len.div_ceil(PIECE);
    let samples = per_element(task, || {
        host.each(&mut data, |number, piece| {
            pieces.mark(number);
            for _ in 0..1 + 4 * number / count {
                piece.iter_mut().for_each(|x| *x = 2.0 - black_box(*x));
            }
        });
    });
    assert!(data.iter().all(|x| *x == 1.0), "2 less 1 is 1");
    let mut figures = pieces.figures(&data, PIECE, &first);
    figures.push(("touch ms".to_owned(), fill));
    task.tell(figures);
    Ok(samples)
}
