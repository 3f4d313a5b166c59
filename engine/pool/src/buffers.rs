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
use crate::stats::PoolStats;

/// The smallest class, in bytes.
const SMALLEST: usize = 4 << 10;
/// The largest.
const LARGEST: usize = 1 << 20;
const CLASSES: usize = (LARGEST / SMALLEST).ilog2() as usize + 1;

/// Buffers of bytes: a pool for each power of two from 4 KiB to 1 MiB. Longer ones are plain allocations.
///
/// Buffers lie in memory of the node of the thread that first asked for them, and go home when they are
/// returned elsewhere. Idle ones age as those of a [`Pool`](crate::Pool). Clones are handles of the same
/// pool. There is no limit. The nine pools have seats for threads, of 144 KiB in all, which may be memory from the
/// beginning: see there.
///
/// ```
/// use reiver_pool::BufferPool;
///
/// let pool = BufferPool::new();
/// let mut buffer = pool.get(10_000);
/// buffer[..5].copy_from_slice(b"hello");
/// assert_eq!(buffer.len(), 10_000);
/// assert_eq!(buffer.capacity(), 16_384);
/// ```
#[derive(Debug, Clone)]
pub struct BufferPool {
    classes: [Arc<Core>; CLASSES],
}

/// A buffer of a [`BufferPool`], which goes back when this is dropped, on whichever thread that is. Its first
/// byte has an address that 64 divides, unless it is a plain allocation.
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

    /// A buffer of `len` bytes of unspecified content: what its last user left there, or zeros.
    ///
    /// Costs some 2 ns from the thread's own cache, which keeps two 1 MiB buffers, or more shorter ones.
    ///
    /// # Panics
    /// If `len` is more than there are addresses, as a `Vec` does. Ends the process where the system has no
    /// memory.
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

impl BufferPool {
    /// Numbers of all classes together; plain allocations are not among them. See
    /// [`Pool::stats`](crate::Pool::stats).
    pub fn stats(&self) -> PoolStats {
        let all = self.classes.iter().map(|core| core.stats());
        all.fold(PoolStats::default(), |sum, class| PoolStats {
            outstanding: sum.outstanding + class.outstanding,
            cached: sum.cached + class.cached,
            created: sum.created + class.created,
            reset_panics: 0,
            remote_returns: sum.remote_returns + class.remote_returns,
        })
    }

    /// Gives all idle buffers back to the system. See [`Pool::trim`](crate::Pool::trim).
    pub fn trim(&self) {
        self.classes.iter().for_each(|core| core.trim());
    }
}

impl Default for BufferPool {
    fn default() -> BufferPool {
        BufferPool::new()
    }
}

impl Buffer<'_> {
    /// How many bytes there are, of which it shows as many as were asked for.
    pub fn capacity(&self) -> usize {
        match self.origin {
            Origin::Class(core) => core.object_bytes(),
            Origin::Plain(capacity) => capacity,
        }
    }

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
