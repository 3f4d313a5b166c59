//! Loops and sums over ranges, by halves: a range is split by [`join`] until its parts are as small as
//! the grain, and neighbours are summed up on the way back.
//!
//! The parts depend on the range and the grain alone, never on how many workers there are or who is
//! free: so a sum of floating-point numbers is the same on every machine.
//!
//! On a machine of several nodes the first splits follow the nodes (see [`affinity`](crate::affinity)):
//! each node's part is queued there, for others to take once they have nothing of their own: in small
//! pieces, for a node that is only waking up is to find most of its part. Loops inside of a loop do not,
//! for they are small beside it and wanted where they are.

use std::cell::Cell;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::affinity::{Part, middle, parts, sibling};
use crate::current::Current;
use crate::engine::Engine;
use crate::fork::join;
use crate::scope::Scope;

/// With grain 0 a range has about so many parts: enough for any machine to share them out evenly, few
/// enough that splitting is not seen.
const PARTS: usize = 1024;

/// Calls `body` for every number of `range`, in parts of `grain` to twice `grain` (0: chosen; an empty
/// range has none).
///
/// On a worker of an engine it runs there, else it enters the global engine, as all of these do. On a
/// machine of several nodes the same part of a range goes to the same node each time, in proportion to
/// the nodes' workers; others help once they have nothing of their own. Costs a [`join`] for each part,
/// and some microseconds for each node where there are several.
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
        let grain = chosen(0, pieces);
        with_parts(0..pieces, grain, |parts| match parts {
            None => split_chunks(data, len, 0, grain, &body),
            Some(parts) => chunks_on_nodes(data, len, &parts, grain, &body),
        });
    }
}

fn chunks_on_nodes<T: Send>(
    data: &mut [T],
    len: usize,
    parts: &[Part],
    grain: usize,
    body: &(impl Fn(usize, &mut [T]) + Sync + Send),
) {
    let mut left = data;
    let datas = parts.iter().map(|part| {
        let own = left.len().min(part.range.len().saturating_mul(len));
        left.split_off_mut(..own).expect("as long as that")
    });
    let parts = parts.iter().zip(datas);
    let body = &|number: usize, chunk: &mut [T]| inside(|| body(number, chunk));
    Engine::of_thread(|engine| {
        engine.scope(|scope| {
            scope.spawn_on_each(
                parts,
                |(part, _)| part.node,
                move |scope, (part, data)| {
                    let piece = move |range: Range<usize>, data: &mut [T]| {
                        split_chunks(data, len, range.start, grain, body);
                    };
                    let cut = move |data, chunks| <[T]>::split_at_mut(data, chunks * len);
                    in_pieces(scope, part, part.range.clone(), data, grain, cut, piece);
                },
            );
        });
    });
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
        numbered.for_each(|(number, piece)| body(number, piece));
        return end_piece();
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
    with_parts(range.clone(), grain, |parts| match parts {
        None => split(range, grain, &map, &reduce),
        Some(parts) => {
            let map = |part: Range<usize>| inside(|| map(part));
            let fold = |part: Range<usize>| split(part, grain, &map, &reduce);
            on_nodes(range, grain, &parts, fold, &reduce)
        }
    })
}

/// Gives each part to `fold`, on its node, and sums neighbours up as halving would.
pub(crate) fn on_nodes<T: Send>(
    range: Range<usize>,
    grain: usize,
    parts: &[Part],
    fold: impl Fn(Range<usize>) -> T + Sync + Send,
    reduce: &(impl Fn(T, T) -> T + Sync + Send),
) -> T {
    let done: Vec<Done<T>> = parts.iter().map(|_| Done::default()).collect();
    let fold = &fold;
    Engine::of_thread(|engine| {
        engine.scope(|scope| {
            scope.spawn_on_each(
                parts.iter().zip(&done),
                |(part, _)| part.node,
                move |scope, (part, done)| {
                    let piece = move |range: Range<usize>, ()| {
                        let result = fold(range.clone());
                        done.add(&part.range, grain, range, result, reduce);
                    };
                    let range = part.range.clone();
                    in_pieces(scope, part, range, (), grain, |(), _| ((), ()), piece);
                },
            );
        });
    });
    let results = done.into_iter().map(Done::into_whole);
    sum(
        range,
        grain,
        &mut parts.iter().zip(results).peekable(),
        reduce,
    )
}

/// Does a range of a part, and what belongs to it, a piece at a time. One of its node's workers forks the
/// rest, as it would any other work; somebody else leaves it to them, and so is soon back at the work of
/// its own node. `cut` cuts what belongs to a range after so many of its numbers.
fn in_pieces<'scope, D: Send + 'scope>(
    scope: &Scope<'scope>,
    part: &'scope Part,
    mut range: Range<usize>,
    mut data: D,
    grain: usize,
    cut: impl Fn(D, usize) -> (D, D) + Copy + Send + 'scope,
    piece: impl Fn(Range<usize>, D) + Copy + Send + 'scope,
) {
    let is_away = Current::with(|current| current.is_some_and(|it| it.is_away_from(part.node)));
    while let Some(middle) = part.middle(&range, grain) {
        let (first, rest) = cut(data, middle - range.start);
        let after = middle..range.end;
        let later = move |scope: &Scope<'scope>| {
            in_pieces(scope, part, after, rest, grain, cut, piece);
        };
        if is_away {
            scope.spawn_at(part.node, later);
        } else {
            scope.spawn(later);
        }
        (range.end, data) = (middle, first);
    }
    piece(range, data);
}

/// What is done of a part: results of ranges that halving comes by. Two halves of one are summed up at
/// once, by whoever brings the second.
#[derive(Debug)]
struct Done<T>(Mutex<Vec<(Range<usize>, T)>>);

impl<T> Default for Done<T> {
    fn default() -> Done<T> {
        Done(Mutex::default())
    }
}

impl<T> Done<T> {
    fn add(
        &self,
        part: &Range<usize>,
        grain: usize,
        mut range: Range<usize>,
        mut result: T,
        reduce: &impl Fn(T, T) -> T,
    ) {
        while range != *part {
            let (whole, other) = sibling(part, &range, grain);
            let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(found) = done.iter().position(|(range, _)| *range == other) else {
                return done.push((range, result));
            };
            let (_, found) = done.swap_remove(found);
            drop(done);
            result = match range.start < other.start {
                true => reduce(result, found),
                false => reduce(found, result),
            };
            range = whole;
        }
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        done.push((range, result));
    }

    /// The result of the whole part.
    fn into_whole(self) -> T {
        let mut done = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (_, result) = done.pop().expect("a scope ends once all it spawned has");
        result
    }
}

/// Sums up the results of the parts of `range`, which are the next ones.
fn sum<'p, T>(
    range: Range<usize>,
    grain: usize,
    results: &mut Peekable<impl Iterator<Item = (&'p Part, T)>>,
    reduce: &impl Fn(T, T) -> T,
) -> T {
    if let Some((_, result)) = results.next_if(|(part, _)| part.range == range) {
        return result;
    }
    let middle = middle(&range, grain).expect("parts are ranges that halving comes by");
    let left = sum(range.start..middle, grain, results, reduce);
    let right = sum(middle..range.end, grain, results, reduce);
    reduce(left, right)
}

/// The thread is done with a part.
#[inline]
fn end_piece() {
    Current::with(|current| {
        if let Some(current) = current {
            current.between_pieces();
        }
    });
}

thread_local! {
    /// The thread is inside of a part of a loop that was split by nodes.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs what is done with a part of a loop that was split by nodes.
pub(crate) fn inside<R>(body: impl FnOnce() -> R) -> R {
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }

    let _before = Before(INSIDE.replace(true));
    body()
}

/// Calls `code` on a worker, with the parts of a range by nodes; `None` where it is split by halves
/// alone: on one node, for fewer leaves than nodes, and inside of another loop.
pub(crate) fn with_parts<R: Send>(
    range: Range<usize>,
    grain: usize,
    code: impl FnOnce(Option<Vec<Part>>) -> R + Send,
) -> R {
    let on_worker =
        Current::with(|current| current.is_some_and(|current| current.worker().is_some()));
    if !on_worker {
        return Engine::of_thread(|engine| engine.install(|| with_parts(range, grain, code)));
    }
    let parts = Engine::of_thread(|engine| {
        let nodes = &engine.shared().machine.nodes;
        if nodes.len() == 1 || range.len() / grain < nodes.len() || INSIDE.get() {
            return None;
        }
        let workers: Vec<usize> = nodes.iter().map(|node| node.workers).collect();
        Some(parts(range, grain, &workers))
    });
    code(parts)
}

pub(crate) fn split<T: Send>(
    range: Range<usize>,
    grain: usize,
    map: &(impl Fn(Range<usize>) -> T + Sync + Send),
    reduce: &(impl Fn(T, T) -> T + Sync + Send),
) -> T {
    let Some(middle) = middle(&range, grain) else {
        let result = map(range);
        end_piece();
        return result;
    };
    let (left, right) = join(
        || split(range.start..middle, grain, map, reduce),
        || split(middle..range.end, grain, map, reduce),
    );
    reduce(left, right)
}

/// The grain, or for 0 one that gives a range of this length enough parts.
pub(crate) fn chosen(grain: usize, len: usize) -> usize {
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
