//! Vectors whose parts lie on the nodes that will visit them.
//!
//! The elements are made by a loop over their range, split as every loop over it is, so that each
//! page is touched first by a worker of its node. The allocator may have handed out pages that were
//! touched before, and a worker of another node may have helped: once all is made, what lies elsewhere is
//! moved. No policy is set on the memory, for the allocator has it back one day.
//!
//! What is made is owned by pieces; neighbours are put together as a sum is, and a piece that nobody
//! takes because somebody panicked drops its elements.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use reiver_topology::place;

use crate::affinity::Part;
use crate::engine::Engine;
use crate::parallel::{chosen, inside, on_nodes, split, with_parts};

/// A vector of `f(0)` to `f(len - 1)`, each part of which lies on the node whose workers `par_for` and
/// its like give it to, over the range `0..len` and whatever grain.
///
/// A border between two parts is as exact as a page, until the kernel gathers the pages around it into a
/// huge one (2 MiB), which lies on one node. What finds no room on its node, also once all else has gone to its
/// own, stays where it is.
///
/// On a worker of an engine it is made there, else by the global engine. On a machine of one node, and
/// on one that is only described, it is made in parallel and no more.
///
/// Costs a loop over the range, and where there are several nodes some 0.1 µs a page, and 1 µs or more
/// for each page that has to be moved.
///
/// # Panics
/// If `f` panics, once all that had begun has ended; what was made is dropped. If `len` elements are
/// more than memory can hold.
///
/// ```
/// let squares = reiver::numa_vec(10_000, |i| i * i);
/// assert_eq!(squares.len(), 10_000);
/// let sum = reiver::par_reduce(0..squares.len(), 0, || 0, |sum, i| sum + squares[i], |a, b| a + b);
/// assert_eq!(sum, 333_283_335_000);
/// ```
pub fn numa_vec<T: Send>(len: usize, f: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    let mut vec: Vec<T> = Vec::with_capacity(len);
    let base = Base(vec.as_mut_ptr());
    let grain = chosen(0, len);
    let fill = |range: Range<usize>| base.fill(range, &f);
    let made = with_parts(0..len, grain, |parts| match parts {
        None => split(0..len, grain, &fill, &Piece::with),
        Some(parts) => {
            let fill = |range: Range<usize>| inside(|| fill(range));
            let make = |range: Range<usize>| split(range, grain, &fill, &Piece::with);
            let made = on_nodes(0..len, grain, &parts, make, &Piece::with);
            settle(&made, &parts);
            made
        }
    });
    assert_eq!(made.made, len, "a loop makes the whole range");
    std::mem::forget(made);
    // SAFETY: as many elements were made at its start, and nobody else owns them any more.
    unsafe { vec.set_len(len) };
    vec
}

impl Engine {
    /// As [`numa_vec`](crate::numa_vec), on workers of this engine.
    ///
    /// # Panics
    /// As there.
    pub fn numa_vec<T: Send>(&self, len: usize, f: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
        self.install(|| numa_vec(len, f))
    }
}

/// Nobody moves what is nearer to a border while somebody may move what is beyond it: a huge page.
const APART: usize = 2 << 20;

/// So often is what found no room tried again.
const ROUNDS: usize = 8;

/// Moves what lies on other nodes. Each node moves its own, but for what is near to others' parts: of two
/// that move parts of one huge page at a time both may fail. That is done when nobody else is about it, and
/// so is what a node had no room for, until others had moved theirs away.
fn settle<T>(made: &Piece<T>, parts: &[Part]) {
    let (size, len, memory) = (size_of::<T>(), made.made, made.memory());
    let reach = APART / size.max(1) + 1;
    let shares = parts.chunk_by(|left, right| left.node == right.node);
    let shares: Vec<Part> = shares
        .map(|parts| Part {
            range: parts[0].range.start..parts[parts.len() - 1].range.end,
            node: parts[0].node,
        })
        .collect();
    Engine::of_thread(|engine| {
        let machine = &engine.shared().machine;
        if !machine.topology.is_this_machine() {
            return;
        }
        let is_left = AtomicBool::new(false);
        let move_home = |Range { start, end }, node: usize| {
            let memory = &memory[start * size..end * size];
            let moved = place::move_to_node(memory, machine.nodes[node].memory);
            if moved.left > 0 {
                // ORDERING: relaxed: it is read once the scope has ended.
                is_left.store(true, Ordering::Relaxed);
            }
            moved.pages
        };
        let move_home = &move_home;
        engine.scope(|scope| {
            let inner = shares.iter().map(|Part { range, node }| {
                let from = if range.start == 0 { 0 } else { reach };
                let to = if range.end == len { 0 } else { reach };
                let start = range.end.min(range.start.saturating_add(from));
                (start..start.max(range.end.saturating_sub(to)), *node)
            });
            let move_inner = move |_: &_, (range, node)| {
                move_home(range, node);
            };
            scope.spawn_on_each(inner, |&(_, node)| node, move_inner);
        });
        for pair in shares.windows(2) {
            let (left, right) = (&pair[0], &pair[1]);
            let border = right.range.start;
            let start = left.range.start.max(border.saturating_sub(reach));
            let end = right.range.end.min(border.saturating_add(reach));
            move_home(start..border, left.node);
            move_home(border..end, right.node);
        }
        for _ in 0..ROUNDS {
            // ORDERING: relaxed: no other thread is about it any more.
            if !is_left.swap(false, Ordering::Relaxed) {
                break;
            }
            let shares = shares.iter();
            let moved = shares.map(|share| move_home(share.range.clone(), share.node));
            if moved.sum::<usize>() == 0 {
                break;
            }
        }
    });
}

/// Where the vector's elements are to lie.
struct Base<T>(*mut T);

// SAFETY: it is only where elements are made; whoever makes one is the only one to touch it.
unsafe impl<T: Send> Sync for Base<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Base<T> {}

impl<T> Base<T> {
    fn fill(&self, range: Range<usize>, f: &impl Fn(usize) -> T) -> Piece<T> {
        // SAFETY: the vector has room for the whole range.
        let start = unsafe { self.0.add(range.start) };
        let mut piece = Piece {
            start,
            made: 0,
            marker: PhantomData,
        };
        for index in range {
            let element = f(index);
            // SAFETY: within the same room.
            let place = unsafe { start.add(piece.made) };
            // SAFETY: the parts of a loop do not overlap, so nothing was made here yet, and nobody
            // else is here.
            unsafe { place.write(element) };
            piece.made += 1;
        }
        piece
    }
}

/// Elements that were made and belong to nobody else.
struct Piece<T> {
    start: *mut T,
    made: usize,
    marker: PhantomData<T>,
}

// SAFETY: it owns its elements, which may be sent.
unsafe impl<T: Send> Send for Piece<T> {}

impl<T> Piece<T> {
    /// Its memory, whatever lies there.
    fn memory(&self) -> &[MaybeUninit<u8>] {
        let bytes = self.made * size_of::<T>();
        // SAFETY: so much memory was written from there on, and it owns it.
        unsafe { slice::from_raw_parts(self.start.cast(), bytes) }
    }

    /// Both as one; the second begins where the first ends.
    fn with(mut self, next: Piece<T>) -> Piece<T> {
        debug_assert!(std::ptr::eq(self.start.wrapping_add(self.made), next.start));
        self.made += next.made;
        std::mem::forget(next);
        self
    }
}

impl<T> Drop for Piece<T> {
    fn drop(&mut self) {
        let elements = std::ptr::slice_from_raw_parts_mut(self.start, self.made);
        // SAFETY: so many elements were made from there on, and it owns them.
        unsafe { std::ptr::drop_in_place(elements) };
    }
}
