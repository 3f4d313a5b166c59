//! No pool at all: every object is allocated and freed again, by one of three allocators.
//!
//! They are called by their `GlobalAlloc`, as `Box` would call the one that is global, so that the rest of
//! the process is the same for all.

use std::alloc::{GlobalAlloc, Layout, System, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice;

use super::lender::{Lender, Objects, guards_travel};
use super::memory::Memory;
#[cfg(not(feature = "snmalloc"))]
use crate::case::{Outcome, Task, Trouble};

/// An allocator.
pub(super) trait Heap: Send + Sync + 'static {
    type Allocator: GlobalAlloc;
    const ALLOCATOR: Self::Allocator;
}

/// Whatever libc has.
pub(super) struct Glibc;

impl Heap for Glibc {
    type Allocator = System;
    const ALLOCATOR: System = System;
}

pub(super) struct Mimalloc;

impl Heap for Mimalloc {
    type Allocator = mimalloc::MiMalloc;
    const ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
}

#[cfg(feature = "snmalloc")]
pub(super) struct Snmalloc;

#[cfg(feature = "snmalloc")]
impl Heap for Snmalloc {
    type Allocator = snmalloc_rs::SnMalloc;
    const ALLOCATOR: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc::new();
}

/// The kernel alone: every object has fresh pages, which are given back at once.
pub(super) struct Mmap;

impl Heap for Mmap {
    type Allocator = Pages;
    const ALLOCATOR: Pages = Pages;
}

/// Allocates by `mmap`, and frees by `munmap`.
pub(super) struct Pages;

// SAFETY: mappings are page-aligned, as long as was asked for, all zeros and nobody else's.
unsafe impl GlobalAlloc for Pages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: it takes the place of nothing.
        let at = unsafe { libc::mmap(ptr::null_mut(), layout.size(), access, kind, -1, 0) };
        if at == libc::MAP_FAILED {
            return ptr::null_mut();
        }
        at.cast()
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `alloc` mapped so much there, and its owner is done with it.
        let unmapped = unsafe { libc::munmap(at.cast(), layout.size()) };
        assert_eq!(unmapped, 0, "it was mapped");
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises; it is zeroed in any case.
        unsafe { self.alloc(layout) }
    }
}

/// Allocates every object anew.
pub(super) struct Boxes<H, O>(PhantomData<(H, O)>);

impl<H: Heap, O: Objects> Boxes<H, O> {
    /// Aligned as numbers are, which every allocator is by itself.
    const LAYOUT: Layout = match Layout::from_size_align(O::Memory::BYTES, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("a size that an object can have"),
    };
}

/// One allocation.
pub(super) struct Allocated<H: Heap, O: Objects> {
    at: NonNull<u8>,
    from: PhantomData<(H, O)>,
}

// SAFETY: it is the only owner of plain bytes, and allocators free what other threads allocated.
unsafe impl<H: Heap, O: Objects> Send for Allocated<H, O> {}

impl<H: Heap, O: Objects> Lender for Boxes<H, O> {
    type Lent<'l> = Allocated<H, O>;
    guards_travel!();

    fn start(_: usize, _: usize) -> Self {
        Boxes(PhantomData)
    }

    #[inline]
    fn lend(&self) -> Allocated<H, O> {
        let at = if O::ZEROED {
            // SAFETY: the layout is not empty.
            unsafe { H::ALLOCATOR.alloc_zeroed(Self::LAYOUT) }
        } else {
            // SAFETY: the layout is not empty.
            unsafe { H::ALLOCATOR.alloc(Self::LAYOUT) }
        };
        let Some(at) = NonNull::new(at) else {
            handle_alloc_error(Self::LAYOUT)
        };
        let mut allocated = Allocated {
            at,
            from: PhantomData,
        };
        O::Memory::construct(Self::bytes(&mut allocated));
        allocated
    }

    #[inline]
    fn bytes(lent: &mut Allocated<H, O>) -> &mut [MaybeUninit<u8>] {
        let bytes = lent.at.as_ptr().cast::<MaybeUninit<u8>>();
        // SAFETY: so many bytes were allocated, are this guard's alone, and need not be initialised.
        unsafe { slice::from_raw_parts_mut(bytes, O::Memory::BYTES) }
    }
}

impl<H: Heap, O: Objects> Drop for Allocated<H, O> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it came from this allocator with this layout, and ends here.
        unsafe { H::ALLOCATOR.dealloc(self.at.as_ptr(), Boxes::<H, O>::LAYOUT) }
    }
}

/// Where this program was built without it.
#[cfg(not(feature = "snmalloc"))]
pub(super) fn no_snmalloc(_: &Task) -> Outcome {
    Err(Trouble::Skipped(
        "built without snmalloc, which is C++: `just bench` builds it where there is a compiler"
            .into(),
    ))
}
