//! Our own pools.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::slice;

use reiver::Topology;
use reiver_pool::{Buffer, BufferPool, Pool, PoolBuilder, Pooled};

use super::lender::{Lender, Objects, guards_travel};
use super::memory::{self, Memory};

/// Objects of one type.
pub(crate) struct Reiver<O: Objects>(Pool<O::Memory>);

fn builder<O: Objects>() -> PoolBuilder<O::Memory> {
    let builder = Pool::builder(O::fresh);
    if O::ZEROED {
        builder.reset(O::reset)
    } else {
        builder
    }
}

impl<O: Objects> Lender for Reiver<O> {
    type Lent<'l> = Pooled<'l, O::Memory>;
    guards_travel!();

    fn start(_: usize, _: usize) -> Self {
        Reiver(builder::<O>().build())
    }

    #[inline]
    fn lend(&self) -> Pooled<'_, O::Memory> {
        self.0.get()
    }

    #[inline]
    fn bytes<'b>(lent: &'b mut Pooled<'_, O::Memory>) -> &'b mut [MaybeUninit<u8>] {
        lent.bytes()
    }
}

/// The same, with a depot on each of as many described nodes as there are threads.
pub(super) struct ReiverOnNodes<O: Objects>(Pool<O::Memory>);

/// A machine of so many nodes with one CPU each, which need not be this one's.
pub(super) fn described(nodes: usize) -> Topology {
    let machine = Topology::synthetic(&format!("NUMANode:{nodes} Core:1 PU:1"));
    machine.expect("hwloc's grammar")
}

impl<O: Objects> Lender for ReiverOnNodes<O> {
    type Lent<'l> = Pooled<'l, O::Memory>;
    guards_travel!();

    fn start(threads: usize, _: usize) -> Self {
        ReiverOnNodes(builder::<O>().topology(described(threads)).build())
    }

    #[inline]
    fn lend(&self) -> Pooled<'_, O::Memory> {
        self.0.get()
    }

    #[inline]
    fn bytes<'b>(lent: &'b mut Pooled<'_, O::Memory>) -> &'b mut [MaybeUninit<u8>] {
        lent.bytes()
    }
}

/// Buffers of any length; whoever wants zeros makes them when it has one.
pub(super) struct ReiverBuffers<O: Objects> {
    buffers: BufferPool,
    of: PhantomData<fn() -> O>,
}

impl<O: Objects> Lender for ReiverBuffers<O> {
    type Lent<'l> = Buffer<'l>;
    guards_travel!();

    fn start(_: usize, _: usize) -> Self {
        ReiverBuffers {
            buffers: BufferPool::new(),
            of: PhantomData,
        }
    }

    #[inline]
    fn lend(&self) -> Buffer<'_> {
        let mut buffer = self.buffers.get(O::Memory::BYTES);
        if O::ZEROED {
            memory::zero(Self::bytes(&mut buffer));
        }
        buffer
    }

    #[inline]
    fn bytes<'b>(lent: &'b mut Buffer<'_>) -> &'b mut [MaybeUninit<u8>] {
        let bytes: &mut [u8] = lent;
        let (at, len) = (bytes.as_mut_ptr().cast::<MaybeUninit<u8>>(), bytes.len());
        // SAFETY: the same bytes, which are this borrow's alone; nobody here makes them uninitialised.
        unsafe { slice::from_raw_parts_mut(at, len) }
    }
}
