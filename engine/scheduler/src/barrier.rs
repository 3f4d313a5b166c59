//! A fence with two sides: one that costs nothing, for those who pass it at every fork, and one that
//! costs some microseconds, for those who are about to sleep anyway.
//!
//! The dear side asks the kernel (`membarrier`, private expedited) to have every CPU that runs a
//! thread of this process pass a full fence. So whatever the cheap side has in its store buffer is
//! visible after it, and whatever the cheap side loads later is what stands now: together they order
//! as two full fences do. Where the kernel refuses, both are full fences.
//!
//! See `membarrier(2)`, and "Asymmetric Dekker Synchronization" (Dice, Huang, Yang, 2001).

#[cfg(not(reiver_loom))]
use std::sync::atomic::{AtomicBool, compiler_fence};

use crate::sync::{Ordering, fence};

/// True once the process is registered with the kernel.
#[cfg(not(reiver_loom))]
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Makes the cheap side cheap. Before the first thread of an engine starts.
#[cfg(not(reiver_loom))]
pub(crate) fn register() {
    // ORDERING: relaxed, here and below: who still sees it unset makes a full fence, which orders
    // with either.
    if !REGISTERED.load(Ordering::Relaxed) {
        let registered = membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        REGISTERED.store(registered, Ordering::Relaxed);
    }
}

/// The cheap side.
#[inline]
pub(crate) fn light() {
    #[cfg(not(reiver_loom))]
    if REGISTERED.load(Ordering::Relaxed) {
        // ORDERING: with `heavy`, which makes it a full fence when it matters.
        compiler_fence(Ordering::SeqCst);
        return;
    }
    // ORDERING: with `heavy`.
    fence(Ordering::SeqCst);
}

/// The dear side.
pub(crate) fn heavy() {
    #[cfg(not(reiver_loom))]
    if REGISTERED.load(Ordering::Relaxed) {
        if membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            return;
        }
        // A sandbox that the process has entered since: from now on both sides are full fences.
        REGISTERED.store(false, Ordering::Relaxed);
    }
    // ORDERING: with `light`; that is a full fence too where the kernel has refused.
    fence(Ordering::SeqCst);
}

#[cfg(not(reiver_loom))]
fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: three numbers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}
