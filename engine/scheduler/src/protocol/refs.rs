//! A value with several owners, as `std`'s `Arc`, but for three things: its memory is [`memory`]'s; two
//! owners are made at once, for none of which there is an atomic operation, or [`many`](Ref::many), with
//! one for all; and where it cannot be [`watched`](Ref::watched) the only owner that is left goes without
//! one.
//!
//! The last owner drops the value. The memory goes with the last of those who only watch it, among
//! whom all owners together count as one. `tests/loom_refs.rs` checks it.
//!
//! [`memory`]: crate::memory

use std::alloc::Layout;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};

#[cfg(not(reiver_loom))]
use crate::memory;
use crate::protocol::sync::{AtomicU32, Ordering, needed};

/// In lines of its own, for it goes from thread to thread.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Inner<T: ?Sized> {
    owners: AtomicU32,
    /// Watchers, and one for the owners; never changed from zero, for what nobody can watch.
    watchers: AtomicU32,
    value: T,
}

/// One of the owners.
pub struct Ref<T: ?Sized> {
    inner: NonNull<Inner<T>>,
    owns: PhantomData<Inner<T>>,
}

// SAFETY: it gives shared references to the value, and drops it on any thread.
unsafe impl<T: ?Sized + Send + Sync> Send for Ref<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for Ref<T> {}

/// One that watches, and can become an owner while there is one.
pub struct Watch<T: ?Sized>(NonNull<Inner<T>>);

// SAFETY: it can become an owner.
unsafe impl<T: ?Sized + Send + Sync> Send for Watch<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for Watch<T> {}

impl<T> Ref<T> {
    /// The only owner.
    pub fn new(value: T) -> Ref<T> {
        Ref::with((1, 1), value)
    }

    /// Two owners of a value that can be watched, or not.
    pub fn pair(value: T, is_watchable: bool) -> (Ref<T>, Ref<T>) {
        let first = Ref::with((2, u32::from(is_watchable)), value);
        let second = Ref { ..first };
        (first, second)
    }

    fn with((owners, watchers): (u32, u32), value: T) -> Ref<T> {
        let inner = place(Inner {
            owners: AtomicU32::new(owners),
            watchers: AtomicU32::new(watchers),
            value,
        });
        let owns = PhantomData;
        Ref { inner, owns }
    }
}

impl<T: ?Sized> Ref<T> {
    fn inner(&self) -> &Inner<T> {
        // SAFETY: it is there while somebody owns it.
        unsafe { self.inner.as_ref() }
    }

    /// The same owner of the value as something else.
    ///
    /// # Safety
    /// `cast` gives the pointer that it is given, as one to what the value is too.
    pub unsafe fn cast<U: ?Sized>(
        self,
        cast: impl FnOnce(*mut Inner<T>) -> *mut Inner<U>,
    ) -> Ref<U> {
        let inner = cast(self.inner.as_ptr());
        std::mem::forget(self);
        // SAFETY: as the caller says, it is what was there.
        let inner = unsafe { NonNull::new_unchecked(inner) };
        let owns = PhantomData;
        Ref { inner, owns }
    }

    /// So many more, for one atomic operation.
    pub fn many(this: &Ref<T>, owners: u32) -> Owners<T> {
        this.inner().owners.fetch_add(owners, Ordering::Relaxed);
        Owners {
            inner: this.inner,
            left: owners,
        }
    }

    /// True if this is the only owner, and nobody watches or will: whoever has it has the value to
    /// itself. What other owners did is visible.
    #[inline]
    pub fn is_alone(this: &Ref<T>) -> bool {
        // ORDERING: acquire, with the release in `drop`. Nobody can become an owner but by this one.
        let acquire = needed("ref alone", Ordering::Acquire);
        this.watchers() == 0 && this.inner().owners.load(acquire) == 1
    }

    /// Another one, which only watches.
    ///
    /// # Panics
    /// If the value cannot be watched.
    pub fn watched(this: &Ref<T>) -> Watch<T> {
        let watchers = &this.inner().watchers;
        // ORDERING: relaxed, here and where owners become more: who has one knows what there is.
        let before = watchers.fetch_add(1, Ordering::Relaxed);
        assert!(before > 0, "it was said that nobody watches this");
        Watch(this.inner)
    }

    /// The last owner drops the value.
    #[cold]
    fn drop_value(&mut self) {
        let inner = self.inner;
        // One for all owners, be it that a panic comes out of the value.
        let watch = (self.watchers() > 0).then(|| Watch(inner));
        let unwatched = watch.is_none().then(|| Memory(inner));
        // SAFETY: it is there, and nobody owns it any more.
        let value = unsafe { &raw mut (*inner.as_ptr()).value };
        // SAFETY: as above, and this happens once.
        unsafe { ptr::drop_in_place(value) };
        drop((watch, unwatched));
    }

    fn watchers(&self) -> u32 {
        // ORDERING: relaxed: of interest is only whether it is zero, and it never becomes or ceases to
        // be that here.
        self.inner().watchers.load(Ordering::Relaxed)
    }
}

impl<T: ?Sized> Clone for Ref<T> {
    fn clone(&self) -> Ref<T> {
        self.inner().owners.fetch_add(1, Ordering::Relaxed);
        Ref { ..*self }
    }
}

/// Owners that are there, one after the other.
pub struct Owners<T: ?Sized> {
    inner: NonNull<Inner<T>>,
    left: u32,
}

impl<T: ?Sized> Iterator for Owners<T> {
    type Item = Ref<T>;

    #[inline]
    fn next(&mut self) -> Option<Ref<T>> {
        self.left = self.left.checked_sub(1)?;
        let (inner, owns) = (self.inner, PhantomData);
        Some(Ref { inner, owns })
    }
}

impl<T: ?Sized> Drop for Owners<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl<T: ?Sized> Deref for Ref<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T: ?Sized> Drop for Ref<T> {
    #[inline]
    fn drop(&mut self) {
        let owners = &self.inner().owners;
        if !Ref::is_alone(self) {
            // ORDERING: release, with the acquire below and in `is_alone`.
            if owners.fetch_sub(1, needed("ref drop", Ordering::Release)) != 1 {
                return;
            }
            // ORDERING: acquire, with the release of the others: what they did is done.
            owners.load(needed("ref last", Ordering::Acquire));
        }
        self.drop_value();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized> Watch<T> {
    fn inner(&self) -> &Inner<T> {
        // SAFETY: the memory is there while somebody watches; of the value nothing is touched.
        unsafe { self.0.as_ref() }
    }

    /// True while there are owners.
    pub fn is_alive(&self) -> bool {
        // ORDERING: relaxed: a hint.
        self.inner().owners.load(Ordering::Relaxed) > 0
    }

    /// An owner, while there is one.
    pub fn upgrade(&self) -> Option<Ref<T>> {
        let owners = &self.inner().owners;
        let more = |owners: u32| (owners > 0).then_some(owners + 1);
        // ORDERING: relaxed: who made this had the value, and gave it on with it.
        let upgraded = owners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let (inner, owns) = (self.0, PhantomData);
        // Made only then: one that is dropped again would be counted as gone.
        upgraded.is_ok().then(|| Ref { inner, owns })
    }
}

impl<T: ?Sized> Drop for Watch<T> {
    fn drop(&mut self) {
        let watchers = &self.inner().watchers;
        // ORDERING: release, with the acquire of the last: it is not touched any more.
        if watchers.fetch_sub(1, needed("watch drop", Ordering::Release)) == 1 {
            watchers.load(needed("watch last", Ordering::Acquire));
            drop(Memory(self.0));
        }
    }
}

impl<T: ?Sized> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// The memory of a value that is gone, when nobody looks at it any more.
struct Memory<T: ?Sized>(NonNull<Inner<T>>);

impl<T: ?Sized> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: the counts are still there, and what it is made of goes with the pointer.
        let layout = Layout::for_value(unsafe { self.0.as_ref() });
        // Loom sees here that nobody uses them any more.
        #[cfg(reiver_loom)]
        if !std::thread::panicking() {
            // SAFETY: as the caller says.
            let inner = unsafe { self.0.as_mut() };
            inner.owners.with_mut(|_| ());
            inner.watchers.with_mut(|_| ());
        }
        // SAFETY: it came from `place`, and nobody has it any more.
        unsafe { give_back(self.0.cast(), layout) };
    }
}

#[cfg(not(reiver_loom))]
fn place<T>(inner: Inner<T>) -> NonNull<Inner<T>> {
    memory::take(inner)
}

#[cfg(not(reiver_loom))]
unsafe fn give_back(block: NonNull<u8>, layout: Layout) {
    // SAFETY: as the caller says.
    unsafe { memory::give_back(block, layout) };
}

/// Loom watches it.
#[cfg(reiver_loom)]
fn place<T>(inner: Inner<T>) -> NonNull<Inner<T>> {
    let layout = Layout::new::<Inner<T>>();
    // SAFETY: it is not empty.
    let memory = unsafe { crate::protocol::sync::alloc(layout) }.cast::<Inner<T>>();
    let memory = NonNull::new(memory).expect("models are small");
    // SAFETY: it was allocated as such.
    unsafe { memory.write(inner) };
    memory
}

#[cfg(reiver_loom)]
unsafe fn give_back(block: NonNull<u8>, layout: Layout) {
    // SAFETY: as the caller says.
    unsafe { crate::protocol::sync::dealloc(block.as_ptr(), layout) };
}

#[cfg(all(test, not(reiver_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_stays_gone_however_often_it_is_asked_for() {
        let owner = Ref::new(String::from("owned"));
        let watches = [Ref::watched(&owner), Ref::watched(&owner)];
        drop(watches[0].upgrade().expect("there is an owner"));
        assert_eq!(*owner, "owned");
        drop(owner);
        for watch in watches.iter().chain(&watches) {
            assert!(watch.upgrade().is_none());
            assert!(!watch.is_alive());
        }
    }
}
