//! The other pools, as their documentation would have them used.

use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::DerefMut;

use crossbeam_queue::ArrayQueue;

use super::lender::{Lender, Objects, guards_travel};
use super::memory::Memory;
use super::sync_pool;

/// Go's design in Rust.
pub(crate) struct SyncPoolStyle<O: Objects>(sync_pool::SyncPool<O::Memory>);

/// Resets what it gives back: `sync.Pool` has no hook for it, and its users do it themselves.
pub(crate) struct FromSyncPool<'l, O: Objects>(sync_pool::Lent<'l, O::Memory>);

impl<O: Objects> Drop for FromSyncPool<'_, O> {
    #[inline]
    fn drop(&mut self) {
        O::reset(&mut self.0);
    }
}

impl<O: Objects> Lender for SyncPoolStyle<O> {
    type Lent<'l> = FromSyncPool<'l, O>;
    guards_travel!();

    fn start(threads: usize, _: usize) -> Self {
        SyncPoolStyle(sync_pool::SyncPool::new(threads, O::fresh))
    }

    #[inline]
    fn lend(&self) -> Self::Lent<'_> {
        FromSyncPool(self.0.get())
    }

    #[inline]
    fn bytes<'b>(lent: &'b mut Self::Lent<'_>) -> &'b mut [MaybeUninit<u8>] {
        lent.0.bytes()
    }
}

/// A lock-free ring of boxes; what it has no room for is freed.
pub(super) struct Ring<O: Objects>(ArrayQueue<Box<O::Memory>>);

pub(super) struct FromRing<'l, O: Objects> {
    /// There until the drop.
    object: Option<Box<O::Memory>>,
    ring: &'l ArrayQueue<Box<O::Memory>>,
}

impl<O: Objects> Drop for FromRing<'_, O> {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut object) = self.object.take() {
            O::reset(&mut object);
            drop(self.ring.push(object));
        }
    }
}

impl<O: Objects> Lender for Ring<O> {
    type Lent<'l> = FromRing<'l, O>;
    guards_travel!();

    fn start(_: usize, out: usize) -> Self {
        Ring(ArrayQueue::new(out))
    }

    #[inline]
    fn lend(&self) -> FromRing<'_, O> {
        let object = self.0.pop().unwrap_or_else(|| Box::new(O::fresh()));
        FromRing {
            object: Some(object),
            ring: &self.0,
        }
    }

    #[inline]
    fn bytes<'b>(lent: &'b mut FromRing<'_, O>) -> &'b mut [MaybeUninit<u8>] {
        let object = lent.object.as_mut();
        object.expect("it is there until the drop").bytes()
    }
}

/// A stack under a lock.
pub(crate) struct ObjectPool<O: Objects>(object_pool::Pool<Box<O::Memory>>);

/// Resets what it gives back, which that crate leaves to its users.
pub(crate) struct Reusable<'l, O: Objects>(object_pool::Reusable<'l, Box<O::Memory>>);

impl<O: Objects> Drop for Reusable<'_, O> {
    #[inline]
    fn drop(&mut self) {
        O::reset(&mut self.0);
    }
}

impl<O: Objects> Lender for ObjectPool<O> {
    type Lent<'l> = Reusable<'l, O>;
    guards_travel!();

    fn start(_: usize, _: usize) -> Self {
        ObjectPool(object_pool::Pool::new(0, || Box::new(O::fresh())))
    }

    #[inline]
    fn lend(&self) -> Reusable<'_, O> {
        Reusable(self.0.pull(|| Box::new(O::fresh())))
    }

    #[inline]
    fn bytes<'b>(lent: &'b mut Reusable<'_, O>) -> &'b mut [MaybeUninit<u8>] {
        lent.0.bytes()
    }
}

/// Pages of slots with a free list of bits.
pub(super) struct LockFree<O: Objects>(lockfree_object_pool::LinearObjectPool<O::Memory>);

impl<O: Objects> Lender for LockFree<O> {
    type Lent<'l> = lockfree_object_pool::LinearReusable<'l, O::Memory>;
    guards_travel!();

    fn start(_: usize, _: usize) -> Self {
        LockFree(lockfree_object_pool::LinearObjectPool::new(
            O::fresh,
            O::reset,
        ))
    }

    #[inline]
    fn lend(&self) -> Self::Lent<'_> {
        self.0.pull()
    }

    #[inline]
    fn bytes<'b>(lent: &'b mut Self::Lent<'_>) -> &'b mut [MaybeUninit<u8>] {
        lent.deref_mut().bytes()
    }
}

/// A slab a thread, with a list of what others have freed.
pub(super) struct Slab<O: Objects>(sharded_slab::Pool<Slot<O>>);

/// As that crate wants its objects.
pub(super) struct Slot<O: Objects>(O::Memory);

impl<O: Objects> Default for Slot<O> {
    fn default() -> Slot<O> {
        Slot(O::fresh())
    }
}

impl<O: Objects> sharded_slab::Clear for Slot<O> {
    #[inline]
    fn clear(&mut self) {
        O::reset(&mut self.0);
    }
}

pub(super) struct FromSlab<'l, O: Objects> {
    /// There until the drop.
    slot: ManuallyDrop<sharded_slab::pool::RefMut<'l, Slot<O>>>,
    slab: &'l Slab<O>,
}

impl<O: Objects> Drop for FromSlab<'_, O> {
    #[inline]
    fn drop(&mut self) {
        let key = self.slot.key();
        // SAFETY: it is not used again.
        unsafe { ManuallyDrop::drop(&mut self.slot) };
        self.slab.0.clear(key);
    }
}

impl<O: Objects> Lender for Slab<O> {
    type Lent<'l> = FromSlab<'l, O>;

    /// Its guards stay on their thread; keys travel.
    type Parcel<'l> = usize;

    fn start(_: usize, _: usize) -> Self {
        Slab(sharded_slab::Pool::new())
    }

    #[inline]
    fn lend(&self) -> FromSlab<'_, O> {
        let slot = self.0.create().expect("it grows by itself");
        FromSlab {
            slot: ManuallyDrop::new(slot),
            slab: self,
        }
    }

    #[inline]
    fn bytes<'b>(lent: &'b mut FromSlab<'_, O>) -> &'b mut [MaybeUninit<u8>] {
        lent.slot.0.bytes()
    }

    #[inline]
    fn pack<'l>(&'l self, lent: FromSlab<'l, O>) -> usize {
        let mut lent = ManuallyDrop::new(lent);
        let key = lent.slot.key();
        // SAFETY: it is not used again; the object stays with the slab until it is cleared.
        unsafe { ManuallyDrop::drop(&mut lent.slot) };
        key
    }

    /// Only looks: what was shared is not written to.
    #[inline]
    fn receive(&self, key: usize) {
        let slot = self.0.get(key).expect("it was not cleared yet");
        std::hint::black_box(&raw const slot.0);
        drop(slot);
        self.0.clear(key);
    }
}
