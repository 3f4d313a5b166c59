//! Loops and sums over ranges, by halves: a range is split by [`join`] until its parts are as small as
//! the grain, and neighbours are summed up on the way back.
//!
//! The parts depend on the range and the grain alone, never on how many workers there are or who is
//! free: so a sum of floating-point numbers is the same on every machine.

use std::ops::Range;

use crate::engine::Engine;
use crate::fork::join;

/// With grain 0 a range has about so many parts: enough for any machine to share them out evenly, few
/// enough that splitting is not seen.
const PARTS: usize = 1024;

/// Calls `body` for every number of `range`, in parts of `grain` to twice `grain` (0: chosen; an empty
/// range has none).
///
/// On a worker of an engine it runs there, else it enters the global engine, as all of these do. Costs
/// a [`join`] for each part.
///
/// # Panics
/// If `body` panics, once all that had begun has ended.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// let squares: Vec<AtomicU64> = (0..1000).map(|_| AtomicU64::new(0)).collect();
/// reiver::par_for(0..squares.len(), 0, |i| squares[i].store((i * i) as u64, Ordering::Relaxed));
/// assert_eq!(squares[30].load(Ordering::Relaxed), 900);
/// ```
pub fn par_for(range: Range<usize>, grain: usize, body: impl Fn(usize) + Sync + Send) {
    par_for_ranges(range, grain, |part: Range<usize>| part.for_each(&body));
}

/// As [`par_for`], a part at a time: where the loop inside is to be vectorised, or has something to
/// make ready first.
///
/// # Panics
/// As there.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// let longest = AtomicUsize::new(0);
/// reiver::par_for_ranges(0..10_000, 100, |part| {
///     longest.fetch_max(part.len(), Ordering::Relaxed);
/// });
/// assert!(longest.into_inner() < 200);
/// ```
pub fn par_for_ranges(
    range: Range<usize>,
    grain: usize,
    body: impl Fn(Range<usize>) + Sync + Send,
) {
    if !range.is_empty() {
        par_map_reduce(range, grain, body, |(), ()| ());
    }
}

/// Calls `body` for every piece of `data` that is `len` long, the last one being as long as what is
/// left, with its number.
///
/// # Panics
/// If `len` is 0, or as [`par_for`].
///
/// ```
/// let mut data = [0; 10];
/// reiver::par_chunks_mut(&mut data, 4, |number, piece| piece.fill(number));
/// assert_eq!(data, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
/// ```
pub fn par_chunks_mut<T: Send>(
    data: &mut [T],
    len: usize,
    body: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    assert!(len > 0, "pieces of length 0 never end");
    if !data.is_empty() {
        let pieces = data.len().div_ceil(len);
        split_chunks(data, len, 0, chosen(0, pieces), &body);
    }
}

fn split_chunks<T: Send>(
    data: &mut [T],
    len: usize,
    first: usize,
    grain: usize,
    body: &(impl Fn(usize, &mut [T]) + Sync + Send),
) {
    let pieces = data.len().div_ceil(len);
    if pieces < 2 * grain {
        let numbered = (first..).zip(data.chunks_mut(len));
        return numbered.for_each(|(number, piece)| body(number, piece));
    }
    let half = pieces / 2;
    let (left, right) = data.split_at_mut(half * len);
    join(
        || split_chunks(left, len, first, grain, body),
        || split_chunks(right, len, first + half, grain, body),
    );
}

/// Folds every part of `range` beginning with `identity`, and sums neighbouring parts up by `reduce`.
/// The parts are those of [`par_for`], the same on every machine. An empty range gives `identity`.
///
/// # Panics
/// If a closure panics.
///
/// ```
/// let sum = reiver::par_reduce(0..1001, 0, || 0, |sum, i| sum + i, |left, right| left + right);
/// assert_eq!(sum, 500_500);
/// ```
pub fn par_reduce<T: Send>(
    range: Range<usize>,
    grain: usize,
    identity: impl Fn() -> T + Sync + Send,
    fold: impl Fn(T, usize) -> T + Sync + Send,
    reduce: impl Fn(T, T) -> T + Sync + Send,
) -> T {
    par_map_reduce(
        range,
        grain,
        |part: Range<usize>| part.fold(identity(), &fold),
        reduce,
    )
}

/// Gives every part of `range` to `map`, and sums neighbouring ones up by `reduce`. The parts are those
/// of [`par_for`], the same on every machine. An empty range is one part.
///
/// # Panics
/// If a closure panics.
///
/// ```
/// let data: Vec<u64> = (0..100_000).collect();
/// let largest = reiver::par_map_reduce(
///     0..data.len(),
///     0,
///     |part| data[part].iter().max().copied(),
///     Option::max,
/// );
/// assert_eq!(largest, Some(99_999));
/// ```
pub fn par_map_reduce<T: Send>(
    range: Range<usize>,
    grain: usize,
    map: impl Fn(Range<usize>) -> T + Sync + Send,
    reduce: impl Fn(T, T) -> T + Sync + Send,
) -> T {
    let grain = chosen(grain, range.len());
    split(range, grain, &map, &reduce)
}

fn split<T: Send>(
    range: Range<usize>,
    grain: usize,
    map: &(impl Fn(Range<usize>) -> T + Sync + Send),
    reduce: &(impl Fn(T, T) -> T + Sync + Send),
) -> T {
    if range.len() / 2 < grain {
        return map(range);
    }
    let middle = range.start + range.len() / 2;
    let (left, right) = join(
        || split(range.start..middle, grain, map, reduce),
        || split(middle..range.end, grain, map, reduce),
    );
    reduce(left, right)
}

/// The grain, or for 0 one that gives a range of this length enough parts.
fn chosen(grain: usize, len: usize) -> usize {
    match grain {
        0 => (len / PARTS).max(1),
        grain => grain,
    }
}

impl Engine {
    /// As [`par_for`](crate::par_for), on workers of this engine.
    ///
    /// # Panics
    /// As there.
    pub fn par_for(&self, range: Range<usize>, grain: usize, body: impl Fn(usize) + Sync + Send) {
        self.install(|| par_for(range, grain, body));
    }

    /// As [`par_for_ranges`](crate::par_for_ranges), on workers of this engine.
    ///
    /// # Panics
    /// As there.
    pub fn par_for_ranges(
        &self,
        range: Range<usize>,
        grain: usize,
        body: impl Fn(Range<usize>) + Sync + Send,
    ) {
        self.install(|| par_for_ranges(range, grain, body));
    }

    /// As [`par_chunks_mut`](crate::par_chunks_mut), on workers of this engine.
    ///
    /// # Panics
    /// As there.
    pub fn par_chunks_mut<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        body: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        self.install(|| par_chunks_mut(data, len, body));
    }

    /// As [`par_reduce`](crate::par_reduce), on workers of this engine.
    ///
    /// # Panics
    /// As there.
    pub fn par_reduce<T: Send>(
        &self,
        range: Range<usize>,
        grain: usize,
        identity: impl Fn() -> T + Sync + Send,
        fold: impl Fn(T, usize) -> T + Sync + Send,
        reduce: impl Fn(T, T) -> T + Sync + Send,
    ) -> T {
        self.install(|| par_reduce(range, grain, identity, fold, reduce))
    }

    /// As [`par_map_reduce`](crate::par_map_reduce), on workers of this engine.
    ///
    /// # Panics
    /// As there.
    pub fn par_map_reduce<T: Send>(
        &self,
        range: Range<usize>,
        grain: usize,
        map: impl Fn(Range<usize>) -> T + Sync + Send,
        reduce: impl Fn(T, T) -> T + Sync + Send,
    ) -> T {
        self.install(|| par_map_reduce(range, grain, map, reduce))
    }
}
