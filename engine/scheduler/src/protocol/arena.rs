//! Memory for what a worker spawns: taken from the front of a chunk, given back by counting, so that
//! a spawn costs no call of an allocator.
//!
//! A chunk belongs to the thread that takes from it. What that thread gives back it counts in a plain
//! word, others count in an atomic one, many blocks at a time; once a chunk is used up and all that
//! was taken from it has been given back, it is used again. So memory follows what lives at once, not
//! what was ever spawned; a block that lives long keeps its chunk, and no other. A chunk whose arena
//! is gone is freed by whoever gives its last block back. `tests/loom_arena.rs` checks it.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::offset_of;
use std::ptr::{self, NonNull};

use crossbeam_utils::CachePadded;

#[cfg(reiver_loom)]
use crate::protocol::sync::UnsafeCell;
use crate::protocol::sync::{AtomicUsize, Ordering, alloc, both, dealloc, needed};

/// Also what chunks are aligned to, so that a block finds its chunk.
const CHUNK_BYTES: usize = if cfg!(reiver_loom) { 512 } else { 32 << 10 };
const BLOCK_ALIGN: usize = 16;
const LINE: usize = 64;
/// Larger blocks are the allocator's.
pub(crate) const MOST_BYTES: usize = if cfg!(reiver_loom) { 128 } else { 1 << 10 };
/// So many old chunks are looked at before a new one is allocated.
const LOOKS: usize = 4;
/// So many free ones are kept by an idle worker.
const KEPT: usize = 4;

/// The chunks of one thread.
#[derive(Debug)]
pub struct Arena {
    /// What is free of the current chunk; both null before the first.
    at: Cell<*mut u8>,
    end: Cell<*mut u8>,
    /// Used up ones, the oldest first.
    used: RefCell<VecDeque<NonNull<Chunk>>>,
    /// A chunk of another arena, and how much of it was given back here and is not yet counted.
    foreign: Cell<(*const Chunk, usize)>,
    /// It keeps its chunks to use them again.
    keeps: bool,
}

/// What stands at the beginning of a chunk.
#[derive(Debug)]
#[repr(C)]
struct Chunk {
    owner: *const Arena,
    /// How much was taken; set when it is used up.
    taken_bytes: Cell<usize>,
    /// How much its own thread has given back.
    own_bytes: Cell<usize>,
    /// Loom sees whether somebody still uses what is freed, or begun again.
    #[cfg(reiver_loom)]
    used: UnsafeCell<()>,
    /// How much others have given back, and [`ORPHAN`]. Padded, for they write it while the owner
    /// takes.
    others_bytes: CachePadded<AtomicUsize>,
}

/// In what others have given back: the arena is gone, and what its own thread had given back is added.
const ORPHAN: usize = 1 << 63;

const FIRST_BLOCK: usize = size_of::<Chunk>().next_multiple_of(LINE);
const LAYOUT: Layout = match Layout::from_size_align(CHUNK_BYTES, CHUNK_BYTES) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};
const _: () = assert!(offset_of!(Chunk, others_bytes) >= 128);

/// True if blocks of this type can come from an arena.
pub(crate) const fn fits<T>() -> bool {
    size_of::<T>() <= MOST_BYTES && align_of::<T>() <= BLOCK_ALIGN
}

/// True if [`take_lines`](Arena::take_lines) has memory for it.
#[cfg(not(reiver_loom))]
pub(crate) const fn fits_lines(layout: Layout) -> bool {
    layout.size() <= MOST_BYTES && layout.align() == LINE
}

const fn block_bytes<T>() -> usize {
    size_of::<T>().next_multiple_of(BLOCK_ALIGN)
}

impl Arena {
    /// An empty one, for a thread that is told when to [`trim`](Arena::trim) it.
    pub const fn new() -> Arena {
        Arena::empty(true)
    }

    /// An empty one, which leaves its chunks when they are used up: as if it was gone then, whoever
    /// gives the last block back frees them. It may move.
    pub const fn leaving() -> Arena {
        Arena::empty(false)
    }

    const fn empty(keeps: bool) -> Arena {
        Arena {
            at: Cell::new(ptr::null_mut()),
            end: Cell::new(ptr::null_mut()),
            used: RefCell::new(VecDeque::new()),
            foreign: Cell::new((ptr::null(), 0)),
            keeps,
        }
    }

    /// A block with this value. The arena does not move while any of its blocks lives, and outlives
    /// them.
    #[inline]
    pub fn take<T>(&self, value: T) -> NonNull<T> {
        // Not when it is compiled: the branch that spawns what does not fit elsewhere is compiled too.
        assert!(const { fits::<T>() });
        let block = self.take_bytes(block_bytes::<T>()).cast::<T>();
        // SAFETY: aligned and large enough, and nobody else's.
        unsafe { block.write(value) };
        block
    }

    /// Memory for a value of a layout that [`fits_lines`], in cache lines of its own. All that is taken of
    /// such an arena is taken so.
    #[inline]
    pub fn take_lines(&self, layout: Layout) -> NonNull<u8> {
        let block = self.take_bytes(layout.size());
        debug_assert!(block.addr().get().is_multiple_of(layout.align()));
        block
    }

    #[inline]
    fn take_bytes(&self, bytes: usize) -> NonNull<u8> {
        if self.end.get().addr() - self.at.get().addr() < bytes {
            self.next_chunk();
        }
        let at = self.at.get();
        // SAFETY: there is so much left of the chunk.
        self.at.set(unsafe { at.add(bytes) });
        // SAFETY: it lies in a chunk.
        unsafe { NonNull::new_unchecked(at) }
    }

    /// Moves the value out of a block of any arena and gives the block back; this is the arena of the
    /// current thread.
    ///
    /// # Safety
    /// The block came from [`take`](Arena::take) of this type, and is given back once.
    #[inline]
    pub unsafe fn give_back<T>(&self, block: NonNull<T>) -> T {
        // SAFETY: it holds a value, which is moved out once.
        let value = unsafe { block.read() };
        // SAFETY: as the caller says.
        unsafe { self.give_back_bytes(block.cast(), block_bytes::<T>()) };
        value
    }

    /// As [`give_back`](Arena::give_back), of memory whose value is gone.
    ///
    /// # Safety
    /// It came from [`take_lines`](Arena::take_lines) for this layout, and is given back once.
    #[inline]
    pub unsafe fn give_back_lines(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { self.give_back_bytes(block, layout.size()) };
    }

    /// # Safety
    /// It is a block of some arena, so large, and is given back once.
    #[inline]
    unsafe fn give_back_bytes(&self, block: NonNull<u8>, bytes: usize) {
        let chunk = block
            .as_ptr()
            .map_addr(|addr| addr & !(CHUNK_BYTES - 1))
            .cast::<Chunk>()
            .cast_const();
        // SAFETY: chunks are aligned to their size and begin with this; it is freed only after all
        // its blocks have been given back.
        let header = unsafe { &*chunk };
        header.is_used();
        if ptr::eq(header.owner, self) {
            header.own_bytes.set(header.own_bytes.get() + bytes);
            return;
        }
        let (known, uncounted) = self.foreign.get();
        if ptr::eq(known, chunk) {
            self.foreign.set((known, uncounted + bytes));
        } else {
            self.count_foreign();
            self.foreign.set((chunk, bytes));
        }
    }

    /// Counts what was given back here and belongs to others. Until then they cannot use it.
    pub fn count_foreign(&self) {
        let (chunk, bytes) = self.foreign.replace((ptr::null(), 0));
        if bytes == 0 {
            return;
        }
        // SAFETY: a chunk of which not all blocks are counted as given back.
        let header = unsafe { &*chunk };
        // ORDERING: release, with the acquire in `is_free`, or here: the blocks are not touched any
        // more. Acquire: nor are those that others gave back, if this is to free the chunk.
        let both = both("arena count release", "arena count acquire");
        let before = header.others_bytes.fetch_add(bytes, both);
        if before & ORPHAN != 0 && (before & !ORPHAN) + bytes == header.taken_bytes.get() {
            // SAFETY: its arena is gone, and this was the last of it.
            unsafe { free(chunk) };
        }
    }

    #[cold]
    fn next_chunk(&self) {
        let mut used = self.used.borrow_mut();
        self.put_away(&mut used);
        let looks = if self.keeps { LOOKS } else { 0 };
        for _ in 0..looks.min(used.len()) {
            let oldest = used.pop_front().expect("there are so many");
            // SAFETY: chunks of this arena, until it frees them.
            let header = unsafe { oldest.as_ref() };
            if header.is_free() {
                header.is_unused();
                return self.begin(oldest);
            }
            used.push_back(oldest);
        }
        if !self.keeps {
            used.drain(..).for_each(leave);
        }
        // SAFETY: the layout is not empty.
        let Some(chunk) = NonNull::new(unsafe { alloc(LAYOUT) }) else {
            handle_alloc_error(LAYOUT)
        };
        self.begin(chunk.cast());
    }

    /// The current chunk joins the used ones.
    fn put_away(&self, used: &mut VecDeque<NonNull<Chunk>>) {
        let Some(last) = NonNull::new(self.end.get()) else {
            return;
        };
        // SAFETY: the end of a chunk, and so its beginning.
        let chunk = unsafe { last.sub(CHUNK_BYTES) };
        let taken = self.at.get().addr() - chunk.addr().get() - FIRST_BLOCK;
        let chunk = chunk.cast::<Chunk>();
        // SAFETY: a chunk of this arena.
        unsafe { chunk.as_ref() }.taken_bytes.set(taken);
        used.push_back(chunk);
        self.at.set(ptr::null_mut());
        self.end.set(ptr::null_mut());
    }

    fn begin(&self, chunk: NonNull<Chunk>) {
        let header = Chunk {
            owner: if self.keeps { self } else { ptr::null() },
            taken_bytes: Cell::new(0),
            own_bytes: Cell::new(0),
            others_bytes: CachePadded::new(AtomicUsize::new(0)),
            #[cfg(reiver_loom)]
            used: UnsafeCell::new(()),
        };
        // SAFETY: a whole chunk that is free.
        unsafe { chunk.write(header) };
        let first = chunk.as_ptr().cast::<u8>();
        // SAFETY: within the chunk.
        self.at.set(unsafe { first.add(FIRST_BLOCK) });
        // SAFETY: the end of the chunk.
        self.end.set(unsafe { first.add(CHUNK_BYTES) });
    }

    /// True if there may be something to [`trim`](Arena::trim).
    pub fn is_large(&self) -> bool {
        self.used.borrow().len() > KEPT
    }

    /// Frees what a burst has left.
    pub fn trim(&self) {
        let mut used = self.used.borrow_mut();
        let mut kept = 0;
        used.retain(|&chunk| {
            // SAFETY: chunks of this arena, until it frees them.
            let is_free = unsafe { chunk.as_ref() }.is_free();
            kept += usize::from(is_free);
            let stays = !is_free || kept <= KEPT;
            if !stays {
                // SAFETY: it was allocated so, and nothing of it is used any more.
                unsafe { free(chunk.as_ptr()) };
            }
            stays
        });
    }
}

impl Chunk {
    /// True if all that was taken from it has been given back; asked once it is used up.
    fn is_free(&self) -> bool {
        // ORDERING: acquire, see `give_back`.
        let acquire = needed("arena is free", Ordering::Acquire);
        let others = self.others_bytes.load(acquire);
        self.own_bytes.get() + others == self.taken_bytes.get()
    }

    /// For loom.
    #[inline]
    fn is_used(&self) {
        #[cfg(reiver_loom)]
        self.used.with(|_| ());
    }

    /// For loom.
    fn is_unused(&self) {
        #[cfg(reiver_loom)]
        self.used.with_mut(|_| ());
    }
}

/// # Safety
/// It was allocated as one, and nothing of it is used any more.
unsafe fn free(chunk: *const Chunk) {
    // SAFETY: as the caller says.
    unsafe { &*chunk }.is_unused();
    // SAFETY: as the caller says.
    unsafe { dealloc(chunk.cast_mut().cast(), LAYOUT) };
}

impl Drop for Arena {
    fn drop(&mut self) {
        #[cfg(reiver_loom)]
        if std::thread::panicking() {
            return;
        }
        self.count_foreign();
        let mut used = std::mem::take(self.used.get_mut());
        self.put_away(&mut used);
        used.into_iter().for_each(leave);
    }
}

/// A chunk that is used up no longer belongs to its arena.
fn leave(chunk: NonNull<Chunk>) {
    // SAFETY: chunks of an arena stay until it leaves or frees them.
    let header = unsafe { chunk.as_ref() };
    let (taken, own) = (header.taken_bytes.get(), header.own_bytes.get());
    // ORDERING: as in `count_foreign`.
    let both = both("arena orphan release", "arena orphan acquire");
    let others = header.others_bytes.fetch_add(own | ORPHAN, both);
    if own + others == taken {
        // SAFETY: it was allocated so, and nothing of it is used any more.
        unsafe { free(chunk.as_ptr()) };
    }
}
