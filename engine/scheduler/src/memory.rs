//! Memory for jobs: each thread has an [`Arena`] from which it takes what it submits, and where it
//! counts what it gives back of others.
//!
//! A job is made by one thread and ended by another. An allocator takes a lock, or a line that all share,
//! for each that moves so; an arena one atomic operation for a chunk of hundreds.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::protocol::arena::{Arena, fits_lines};

thread_local! {
    static ARENA: Arena = const { Arena::leaving() };
}

/// Calls `code` with the arena of the thread, or one for just this where the thread is about to end.
#[inline]
fn with_arena<R>(code: impl Fn(&Arena) -> R) -> R {
    ARENA
        .try_with(|arena| code(arena))
        .unwrap_or_else(|_| code(&Arena::leaving()))
}

/// Memory with this value.
#[inline]
pub(crate) fn take<T>(value: T) -> NonNull<T> {
    let layout = const { Layout::new::<T>() };
    let memory = if const { fits_lines(Layout::new::<T>()) } {
        with_arena(|arena| arena.take_lines(layout)).cast::<T>()
    } else {
        // SAFETY: what fits nowhere is not empty.
        let memory = unsafe { alloc(layout) }.cast::<T>();
        NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
    };
    // SAFETY: large enough, aligned, and nobody else's.
    unsafe { memory.write(value) };
    memory
}

/// Gives it back, without the value.
///
/// # Safety
/// It came from [`take`] of a type of this layout, and is given back once.
#[inline]
pub(crate) unsafe fn give_back(memory: NonNull<u8>, layout: Layout) {
    if fits_lines(layout) {
        // SAFETY: as the caller says.
        with_arena(|arena| unsafe { arena.give_back_lines(memory, layout) });
    } else {
        // SAFETY: as the caller says.
        unsafe { dealloc(memory.as_ptr(), layout) };
    }
}

/// The thread is idle: what it has given back others may use.
pub(crate) fn rest() {
    let _ = ARENA.try_with(Arena::count_foreign);
}
