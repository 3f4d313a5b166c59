//! Who lends objects, behind one trait, so that a case is written once.

use std::mem::MaybeUninit;

use super::memory::Memory;

/// A pool, or an allocator.
pub(crate) trait Lender: Sync + Sized {
    /// What is lent; goes back when it is dropped.
    type Lent<'l>
    where
        Self: 'l;

    /// The same on its way to another thread.
    type Parcel<'l>: Send
    where
        Self: 'l;

    /// For so many threads, and at most so many objects out at once in all.
    fn start(threads: usize, out: usize) -> Self;

    fn lend(&self) -> Self::Lent<'_>;

    fn bytes<'b>(lent: &'b mut Self::Lent<'_>) -> &'b mut [MaybeUninit<u8>];

    fn pack<'l>(&'l self, lent: Self::Lent<'l>) -> Self::Parcel<'l>;

    /// Looks at the first line of what came, and gives it back.
    fn receive<'l>(&'l self, parcel: Self::Parcel<'l>);
}

/// The parts of a [`Lender`] whose guards may go from thread to thread as they are.
macro_rules! guards_travel {
    () => {
        type Parcel<'l>
            = Self::Lent<'l>
        where
            Self: 'l;

        #[inline]
        fn pack<'l>(&'l self, lent: Self::Lent<'l>) -> Self::Lent<'l> {
            lent
        }

        #[inline]
        fn receive<'l>(&'l self, mut parcel: Self::Lent<'l>) {
            $crate::pools::memory::touch(
                Self::bytes(&mut parcel),
                $crate::pools::memory::Touch::Line,
            );
        }
    };
}
pub(super) use guards_travel;

/// What a pool's objects are, and whether they are zeroed before they are lent again.
pub(crate) trait Objects: Send + Sync + 'static {
    type Memory: Memory;
    const ZEROED: bool;

    fn fresh() -> Self::Memory {
        Self::Memory::fresh(Self::ZEROED)
    }

    /// Makes an object that was used fit to be lent.
    #[inline]
    fn reset(memory: &mut Self::Memory) {
        if Self::ZEROED {
            super::memory::zero(memory.bytes());
        }
    }
}

/// As they come: no reset.
pub(crate) struct Plain<M>(std::marker::PhantomData<fn() -> M>);

impl<M: Memory> Objects for Plain<M> {
    type Memory = M;
    const ZEROED: bool = false;
}

/// Zeroed: a reset that zeroes.
pub(crate) struct Zeroed<M>(std::marker::PhantomData<fn() -> M>);

impl<M: Memory> Objects for Zeroed<M> {
    type Memory = M;
    const ZEROED: bool = true;
}
