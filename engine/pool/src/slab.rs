//! The memory that objects lie in: slabs, each mapped for one node, with slots of one size.
//!
//! A slab begins at an address from which its slots are found and which is found from them: all but
//! its last bits. There stands to which node it belongs. Slots are whole cache lines, so that objects
//! of different threads never share one; larger ones are an odd number of lines apart, so that their
//! first lines spread over all sets of a cache. A slot without an object holds the number of the next
//! one. Empty slabs go back to the system, but for one.
//!
//! After "The Slab Allocator" (Bonwick, 1994); there the odd lines are called colours.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reiver_topology::NodeId;
use reiver_topology::place::Region;

use crate::protocol::stack::Object;

/// Bytes of a cache line.
const LINE: usize = 64;
/// What stands before the first slot: no two slabs, and no slot, share its lines.
const HEADER: usize = 128;
/// The smallest slab, but for those of one slot.
const SMALL_SLAB: usize = 64 << 10;
/// Larger slots have slabs of their own: one that is given back leaves no hole that only such a one
/// fits into.
const MOST_SHARED: usize = 128 << 10;
/// A page, the least that is mapped.
const PAGE: usize = 4096;
/// Ends the list of slots without an object.
const NO_SLOT: u32 = u32::MAX;

/// What stands at the beginning of a slab.
#[repr(C)]
struct Header {
    /// The number of its node.
    home: usize,
    /// Its own number there.
    number: usize,
}

const _: () = assert!(size_of::<Header>() <= HEADER);

/// How slabs for a type are made up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    first: usize,
    stride: usize,
    slots: u32,
    bytes: usize,
    align: usize,
}

impl Shape {
    pub(crate) fn of(layout: Layout) -> Shape {
        let align = layout.align().max(LINE);
        let mut stride = layout.size().max(1).saturating_add(align - 1) & !(align - 1);
        if layout.size() >= 16 * LINE && align == LINE && (stride / LINE).is_multiple_of(2) {
            stride = stride.saturating_add(LINE);
        }
        let first = HEADER.next_multiple_of(align);
        let slots = if stride > MOST_SHARED {
            1
        } else {
            let bytes = (16 * stride).max(SMALL_SLAB);
            u32::try_from((bytes - first.min(bytes - 1)) / stride).map_or(1, |slots| slots.max(1))
        };
        let bytes = stride.saturating_mul(slots as usize).saturating_add(first);
        let align = if slots == 1 {
            // Only the first byte of the slot has to be found.
            (first + 1).next_power_of_two().max(PAGE)
        } else {
            bytes.next_power_of_two()
        };
        Shape {
            first,
            stride,
            slots,
            bytes,
            align,
        }
    }

    /// Bits of an address that say which slab it is in.
    pub(crate) fn mask(&self) -> usize {
        !(self.align - 1)
    }
}

/// The node that an object belongs to.
///
/// # Safety
/// It lies in a slab of a shape with this mask.
#[inline(always)]
pub(crate) unsafe fn home_of(mask: usize, object: Object) -> usize {
    // SAFETY: there is a slab's header, which nobody writes while the slab has objects.
    unsafe { (*header_of(mask, object)).home }
}

#[inline(always)]
fn header_of(mask: usize, object: Object) -> *mut Header {
    object.0.map_addr(|address| address & mask).cast::<Header>()
}

#[derive(Debug)]
struct Slab {
    region: Region,
    /// Slots with objects, or about to have.
    used: u32,
    /// Slots from this one on were never used.
    fresh: u32,
    /// The first slot that was used and is not.
    free: u32,
    /// It is among those with room.
    is_listed: bool,
}

/// The slabs of one node.
#[derive(Debug, Default)]
struct Slabs {
    slabs: Vec<Option<Slab>>,
    /// Numbers of those with room, and maybe of some that are full or gone.
    with_room: Vec<usize>,
    /// Numbers of those that are gone.
    gone: Vec<usize>,
    /// How many have no objects.
    empty: usize,
}

/// The memory of a pool at one node.
#[derive(Debug)]
pub(crate) struct Heap {
    shape: Shape,
    /// The number of its node.
    home: usize,
    /// Where its memory lies; `None` leaves it to who touches it first.
    node: Option<NodeId>,
    slabs: Mutex<Slabs>,
}

impl Heap {
    pub(crate) fn new(shape: Shape, home: usize, node: Option<NodeId>) -> Heap {
        Heap {
            shape,
            home,
            node,
            slabs: Mutex::default(),
        }
    }

    fn slabs(&self) -> MutexGuard<'_, Slabs> {
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot without an object, of zeros if it was never used; `None` if the system has no memory.
    pub(crate) fn allocate(&self) -> Option<Object> {
        let mut slabs = self.slabs();
        loop {
            let Some(&number) = slabs.with_room.last() else {
                self.add_slab(&mut slabs)?;
                continue;
            };
            let Some(slab) = slabs.slabs[number].as_mut() else {
                slabs.with_room.pop();
                continue;
            };
            let slot = if slab.free != NO_SLOT {
                let slot = slab.free;
                let start = self.slot(slab, slot);
                // SAFETY: a slot without an object holds the number of the next.
                slab.free = unsafe { start.0.cast::<u32>().read() };
                slot
            } else if slab.fresh < self.shape.slots {
                slab.fresh += 1;
                slab.fresh - 1
            } else {
                slab.is_listed = false;
                slabs.with_room.pop();
                continue;
            };
            slab.used += 1;
            let is_first = slab.used == 1;
            let object = self.slot(slab, slot);
            slabs.empty -= usize::from(is_first);
            return Some(object);
        }
    }

    #[cold]
    fn add_slab(&self, slabs: &mut Slabs) -> Option<()> {
        let region = Region::map(self.shape.bytes, self.shape.align, self.node).ok()?;
        let number = slabs.gone.pop().unwrap_or_else(|| {
            slabs.slabs.push(None);
            slabs.slabs.len() - 1
        });
        let header = Header {
            home: self.home,
            number,
        };
        // SAFETY: the region is ours, long enough, and aligned to a page.
        unsafe { region.start().cast::<Header>().write(header) };
        slabs.slabs[number] = Some(Slab {
            region,
            used: 0,
            fresh: 0,
            free: NO_SLOT,
            is_listed: true,
        });
        slabs.with_room.push(number);
        slabs.empty += 1;
        Some(())
    }

    fn slot(&self, slab: &Slab, slot: u32) -> Object {
        let start = slab.region.start().as_ptr();
        Object(start.wrapping_add(self.shape.first + self.shape.stride * slot as usize))
    }

    /// Takes a slot back.
    ///
    /// # Safety
    /// It was allocated here, and its object is gone.
    pub(crate) unsafe fn free(&self, object: Object) {
        // SAFETY: there is its slab's header.
        let number = unsafe { (*header_of(self.shape.mask(), object)).number };
        let mut slabs = self.slabs();
        let slab = slabs.slabs[number].as_mut().expect("it has this object");
        let start = slab.region.start().as_ptr().addr();
        let slot = (object.0.addr() - start - self.shape.first) / self.shape.stride;
        // SAFETY: the slot is at least a line, and nobody else's.
        unsafe { object.0.cast::<u32>().write(slab.free) };
        slab.free = u32::try_from(slot).expect("slots have such numbers");
        slab.used -= 1;
        let is_empty = slab.used == 0;
        let was_listed = std::mem::replace(&mut slab.is_listed, true);
        if !was_listed {
            slabs.with_room.push(number);
        }
        if is_empty {
            slabs.empty += 1;
            if slabs.empty > 1 {
                let gone = slabs.remove(number);
                drop(slabs);
                drop(gone);
            }
        }
    }

    /// Gives all slabs without objects back to the system.
    pub(crate) fn trim(&self) {
        let mut slabs = self.slabs();
        let is_empty = |slab: &Option<Slab>| slab.as_ref().is_some_and(|slab| slab.used == 0);
        let empty: Vec<usize> = (0..slabs.slabs.len())
            .filter(|&number| is_empty(&slabs.slabs[number]))
            .collect();
        let gone: Vec<_> = empty
            .into_iter()
            .map(|number| slabs.remove(number))
            .collect();
        drop(slabs);
        drop(gone);
    }
}

impl Slabs {
    fn remove(&mut self, number: usize) -> Option<Slab> {
        self.empty -= 1;
        self.gone.push(number);
        self.with_room.retain(|&other| other != number);
        self.slabs[number].take()
    }
}

/// The address of an object, for whoever uses it.
pub(crate) fn address(object: Object) -> NonNull<u8> {
    NonNull::new(object.0).expect("objects lie in slabs")
}
