//! Where caches and magazines lie: in memory of their node, which allocators hand on blindly, and so in
//! pages of our own; where no node has a place, in the allocator's. It is given back when all of it goes.

use std::alloc::{Layout, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use reiver_topology::NodeId;
use reiver_topology::place::Region;

/// What is mapped at once, in bytes, unless more is wanted: three caches of threads, and the first magazines.
/// Pages of it that nobody writes take no memory.
const CHUNK: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Arena {
    node: Option<NodeId>,
    /// No part of the protocol: nobody waits for what is done under it.
    regions: Mutex<Regions>,
}

#[derive(Debug, Default)]
struct Regions {
    all: Vec<Region>,
    /// Bytes of the last one that are taken.
    taken: usize,
}

impl Arena {
    pub(crate) fn new(node: Option<NodeId>) -> Arena {
        Arena {
            node,
            regions: Mutex::default(),
        }
    }

    /// True if what it has given lies in its own pages.
    pub(crate) fn is_placed(&self) -> bool {
        self.node.is_some()
    }

    /// Places values one behind the other.
    pub(crate) fn place<T>(&self, values: Vec<T>) -> NonNull<T> {
        if !self.is_placed() {
            return NonNull::from(Box::leak(values.into_boxed_slice())).cast();
        }
        let layout = Layout::for_value(&values[..]);
        let start = self.allocate(layout).cast::<T>();
        for (at, value) in values.into_iter().enumerate() {
            // SAFETY: there is room for so many, and nobody else has it.
            unsafe { start.as_ptr().wrapping_add(at).write(value) };
        }
        start
    }

    /// Places one that `make` makes there.
    pub(crate) fn place_one<T>(&self, make: impl FnOnce(&mut MaybeUninit<T>)) -> NonNull<T> {
        let mut room = if self.is_placed() {
            self.allocate(Layout::new::<T>()).cast()
        } else {
            NonNull::from(Box::leak(Box::<T>::new_uninit()))
        };
        // SAFETY: there is room, and nobody else has it.
        make(unsafe { room.as_mut() });
        room.cast()
    }

    fn allocate(&self, layout: Layout) -> NonNull<u8> {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = regions.taken.next_multiple_of(layout.align());
        let end = begin.saturating_add(layout.size());
        if let Some(last) = regions.all.last()
            && end <= last.bytes()
        {
            let start = last.start().as_ptr().wrapping_add(begin);
            regions.taken = end;
            return NonNull::new(start).expect("it is within the region");
        }
        let Ok(region) = Region::map(layout.size().max(CHUNK), layout.align(), self.node) else {
            handle_alloc_error(layout)
        };
        let start = region.start();
        regions.all.push(region);
        regions.taken = layout.size();
        start
    }
}

/// Drops values that an arena has placed; what lies in its pages is given back with it.
///
/// # Safety
/// They were placed so, one behind the other, and nobody uses them any more.
pub(crate) unsafe fn drop_placed<T>(start: NonNull<T>, count: usize, is_placed: bool) {
    let whole = ptr::slice_from_raw_parts_mut(start.as_ptr(), count);
    if is_placed {
        // SAFETY: as the caller says.
        unsafe { whole.drop_in_place() };
    } else {
        // SAFETY: as the caller says.
        drop(unsafe { Box::from_raw(whole) });
    }
}

#[cfg(all(test, not(reiver_loom)))]
mod tests {
    use super::*;

    #[test]
    fn values_lie_apart_and_as_they_want() {
        #[repr(align(128))]
        #[derive(Debug, PartialEq, Clone)]
        struct Line(u64);
        for node in [None, Some(NodeId(0))] {
            let arena = Arena::new(node);
            let placed: Vec<_> = (1..60)
                .map(|count| (arena.place(vec![Line(count as u64); count]), count))
                .collect();
            for &(start, count) in &placed {
                assert_eq!(start.as_ptr().addr() % 128, 0);
                // SAFETY: so many were placed there.
                let values = unsafe { std::slice::from_raw_parts(start.as_ptr(), count) };
                assert!(values.iter().all(|value| *value == Line(count as u64)));
            }
            for (start, count) in placed {
                // SAFETY: so many were placed there.
                unsafe { drop_placed(start, count, arena.is_placed()) };
            }
        }
    }
}
