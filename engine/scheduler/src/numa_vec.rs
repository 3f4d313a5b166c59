//! Vectors whose parts lie on the nodes that will visit them.
//!
//! The elements are made by a loop over their range, split as every loop over it is, so that each
//! page is touched first by a worker of its node. The allocator may have handed out pages that were
//! touched before, and a worker of another node may have helped: once a node's part is made, what of
//! it lies elsewhere is moved. No policy is set on the memory, for the allocator has it back one day.
//!
//! What is made is owned by pieces; neighbours are put together as a sum is, and a piece that nobody
//! takes because somebody panicked drops its elements.

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use reiver_topology::place;

use crate::affinity::Part;
use crate::engine::Engine;
use crate::parallel::{chosen, inside, on_nodes, split, with_parts};

/// A vector of `f(0)` to `f(len - 1)`, each part of which lies on the node whose workers `par_for` and
/// its like give it to, over the range `0..len` and whatever grain.
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
            let make = |part: &Part| {
                let piece = split(part.range.clone(), grain, &fill, &Piece::with);
                move_home(piece.elements(), part.node);
                piece
            };
            let made = on_nodes(0..len, grain, &parts, make, &Piece::with);
            settle_borders(made.elements(), &parts);
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

/// The largest page that a kernel is built with.
const PAGE_BYTES: usize = 64 << 10;
/// A huge page, on nearly all kernels.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What lies around the borders of parts is looked at again, when nobody else is about it: a page that
/// two parts of a node share was in neither, and neighbours that moved their pieces at the same time may
/// have fought over a huge page that both have some of.
fn settle_borders<T>(elements: &[T], parts: &[Part]) {
    for pair in parts.windows(2) {
        let (left, right) = (&pair[0], &pair[1]);
        let border = right.range.start;
        let around = |bytes: usize| {
            let reach = bytes / size_of::<T>().max(1) + 1;
            let begin = left.range.start.max(border.saturating_sub(reach));
            begin..right.range.end.min(border.saturating_add(reach))
        };
        if left.node == right.node {
            move_home(&elements[around(PAGE_BYTES)], left.node);
        } else {
            let Range { start, end } = around(HUGE_PAGE_BYTES);
            move_home(&elements[start..border], left.node);
            move_home(&elements[border..end], right.node);
        }
    }
}

/// Moves what of these lies on other nodes.
fn move_home<T>(elements: &[T], node: usize) {
    Engine::of_thread(|engine| {
        let machine = &engine.shared().machine;
        if machine.topology.is_this_machine() {
            place::move_to_node(elements, machine.nodes[node].memory);
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
    fn elements(&self) -> &[T] {
        // SAFETY: so many elements were made from there on, and it owns them.
        unsafe { slice::from_raw_parts(self.start, self.made) }
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
