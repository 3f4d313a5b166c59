//! What is lent: memory of some size, inline or behind a box, of which none, one or all lines are touched.
//!
//! Nothing is ever read before it was written, so that memory may be handed out as it comes.

use std::hint::black_box;
use std::mem::MaybeUninit;

/// An object that pools keep.
pub(crate) trait Memory: Send + Sync + 'static {
    const BYTES: usize;

    /// As it comes, before `construct`.
    fn raw() -> Self;

    fn zeroed() -> Self;

    fn bytes(&mut self) -> &mut [MaybeUninit<u8>];

    /// What a constructor does to new memory; nothing, for most.
    fn construct(_: &mut [MaybeUninit<u8>]) {}

    /// A new one, ready for use.
    fn fresh(zeroed: bool) -> Self
    where
        Self: Sized,
    {
        let mut memory = if zeroed { Self::zeroed() } else { Self::raw() };
        Self::construct(memory.bytes());
        memory
    }
}

/// Overwrites all of it.
pub(super) fn zero(bytes: &mut [MaybeUninit<u8>]) {
    bytes.fill(MaybeUninit::new(0));
}

/// Lies in the pool itself.
pub(crate) struct Inline<const N: usize>([MaybeUninit<u8>; N]);

impl<const N: usize> Memory for Inline<N> {
    const BYTES: usize = N;

    fn raw() -> Self {
        Inline([MaybeUninit::uninit(); N])
    }

    fn zeroed() -> Self {
        Inline([MaybeUninit::new(0); N])
    }

    #[inline]
    fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut self.0
    }
}

/// Lies behind a pointer: too large to be moved about.
pub(super) struct Boxed<const N: usize>(Box<[MaybeUninit<u8>]>);

impl<const N: usize> Memory for Boxed<N> {
    const BYTES: usize = N;

    fn raw() -> Self {
        Boxed(Box::new_uninit_slice(N))
    }

    fn zeroed() -> Self {
        let zeroed = Box::<[u8]>::new_zeroed_slice(N);
        Boxed(zeroed)
    }

    #[inline]
    fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut self.0
    }
}

/// One kibibyte that takes some microseconds to make: a table of hashes, each of those before it.
pub(super) struct Costly(Inline<1024>);

impl Memory for Costly {
    const BYTES: usize = 1024;

    fn raw() -> Self {
        Costly(Inline::raw())
    }

    fn zeroed() -> Self {
        Costly(Inline::zeroed())
    }

    #[inline]
    fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        self.0.bytes()
    }

    #[inline(never)]
    fn construct(bytes: &mut [MaybeUninit<u8>]) {
        // FNV-1a: a multiplication waits for the one before it.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for (at, byte) in bytes.iter_mut().enumerate() {
            hash = (hash ^ at as u64).wrapping_mul(0x0100_0000_01b3);
            byte.write(hash.to_le_bytes()[7]);
        }
        black_box(bytes.as_mut_ptr());
    }
}

/// How much of an object is written to while it is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    Nothing,
    /// The first one.
    Line,
    /// Each line.
    All,
    /// Each page.
    Pages,
}

const LINE: usize = 64;
/// The smallest that there are.
const PAGE: usize = 4096;

/// Writes a byte to each line or page that is to be touched, and shows the object to the compiler as used.
#[inline]
pub(super) fn touch(bytes: &mut [MaybeUninit<u8>], touch: Touch) {
    match touch {
        Touch::Nothing => {}
        Touch::Line => {
            bytes[0].write(1);
        }
        Touch::All => write_each(bytes, LINE),
        Touch::Pages => write_each(bytes, PAGE),
    }
    black_box(bytes.as_mut_ptr());
}

#[inline]
fn write_each(bytes: &mut [MaybeUninit<u8>], step: usize) {
    bytes.iter_mut().step_by(step).for_each(|byte| {
        byte.write(1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that `touch` writes.
    fn touched<const N: usize>(how: Touch) -> Vec<usize> {
        let mut memory = Inline::<N>::zeroed();
        touch(memory.bytes(), how);
        let bytes = memory.bytes().iter();
        // SAFETY: all of it was zeroed.
        let written = bytes.map(|byte| unsafe { byte.assume_init_read() });
        (0..)
            .zip(written)
            .filter(|(_, byte)| *byte != 0)
            .map(|(at, _)| at)
            .collect()
    }

    #[test]
    fn a_byte_of_each_line_or_page_is_touched() {
        assert!(touched::<224>(Touch::Nothing).is_empty());
        assert_eq!(touched::<224>(Touch::Line), [0]);
        assert_eq!(touched::<224>(Touch::All), [0, 64, 128, 192]);
        assert_eq!(touched::<12289>(Touch::Pages), [0, 4096, 8192, 12288]);
    }
}
