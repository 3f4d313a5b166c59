//! Buffers of bytes, from pools by size class.

use std::alloc::Layout;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use crate::places::Places;
use crate::protocol::stack::Object;
use crate::shared::{Core, Parts};

/// The smallest class, in bytes.
const SMALLEST: usize = 4 << 10;
/// The largest.
const LARGEST: usize = 1 << 20;
const CLASSES: usize = (LARGEST / SMALLEST).ilog2() as usize + 1;

/// Pools of buffers of 4 KiB, 8 KiB and so on to 1 MiB.
#[derive(Debug, Clone)]
pub struct BufferPool {
    classes: [Arc<Core>; CLASSES],
}

/// A buffer of a [`BufferPool`], which goes back when this is dropped.
pub struct Buffer<'a> {
    start: NonNull<u8>,
    len: usize,
    origin: Origin<'a>,
}

enum Origin<'a> {
    Class(&'a Core),
    /// A vector's, of this capacity.
    Plain(usize),
}

// SAFETY: it is the only user of its bytes.
unsafe impl Send for Buffer<'_> {}
// SAFETY: a shared one gives shared bytes, no more.
unsafe impl Sync for Buffer<'_> {}

impl BufferPool {
    /// A pool without buffers.
    pub fn new() -> BufferPool {
        let places = Places::detected();
        let class = |class: usize| {
            let layout = Layout::from_size_align(SMALLEST << class, 64);
            Core::new(Parts {
                layout: layout.expect("a power of two"),
                // Fresh slots are zeros, and used ones bytes of some buffer.
                make: Box::new(|_| ()),
                keep: None,
                drop: None,
                capacity_per_node: usize::MAX,
                places: Arc::clone(&places),
                epoch: Duration::from_secs(10),
            })
        };
        BufferPool {
            classes: std::array::from_fn(class),
        }
    }

    /// A buffer of `len` bytes.
    #[inline]
    pub fn get(&self, len: usize) -> Buffer<'_> {
        if len > LARGEST {
            return Buffer::plain(len);
        }
        let class = len.div_ceil(SMALLEST).max(1).next_power_of_two().ilog2() as usize;
        let core = &*self.classes[class];
        let object = core.get();
        Buffer {
            // SAFETY: objects lie in slabs, and not at null.
            start: unsafe { NonNull::new_unchecked(object.0) },
            len,
            origin: Origin::Class(core),
        }
    }
}

impl Default for BufferPool {
    fn default() -> BufferPool {
        BufferPool::new()
    }
}

impl Buffer<'_> {
    #[cold]
    fn plain(len: usize) -> Buffer<'static> {
        let mut bytes = std::mem::ManuallyDrop::new(vec![0_u8; len]);
        Buffer {
            start: NonNull::from(bytes.as_mut_slice()).cast(),
            len,
            origin: Origin::Plain(bytes.capacity()),
        }
    }
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: there are so many bytes, which are this buffer's.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: there are so many bytes, which are this buffer's.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.origin {
            // SAFETY: it is the pool's, and this was its only user.
            Origin::Class(core) => unsafe { core.put(Object(self.start.as_ptr())) },
            Origin::Plain(capacity) => {
                // SAFETY: it was a vector's of this length and capacity.
                drop(unsafe { Vec::from_raw_parts(self.start.as_ptr(), self.len, capacity) });
            }
        }
    }
}

impl fmt::Debug for Buffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
