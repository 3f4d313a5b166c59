//! A fence with two sides: one that costs nothing, for those who pass it all the time (owners who get and
//! put, workers who fork), and one that costs some microseconds, for those who take from what another
//! thread has, or are about to sleep anyway.
//!
//! The dear side asks the kernel (`membarrier`, private expedited) to have every CPU that runs a thread
//! of this process pass a full fence. So whatever the cheap side has in its store buffer is visible
//! after it, and whatever the cheap side loads later is what stands now: together they order as two
//! full fences do. In the models both are full fences.
//!
//! Where the kernel refuses, whoever would pass the cheap side has to be told to do without. Pools then
//! use caches under their lock alone, see `README.md`; the scheduler tells forks by its word of demand.
//!
//! See `membarrier(2)`, and "Asymmetric Dekker Synchronization" (Dice, Huang, Yang, 2001).

#[cfg(not(reiver_loom))]
use std::sync::atomic::compiler_fence;

#[cfg(not(reiver_loom))]
use crate::protocol::sync::Ordering;

/// Makes the process known to the kernel, before the first thread that passes the cheap side; false where
/// it refuses.
#[cfg(not(reiver_loom))]
pub fn register() -> bool {
    membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
}

/// True unless the model has it refused from the beginning.
#[cfg(reiver_loom)]
pub fn register() -> bool {
    use crate::protocol::sync::weak::{Refusal, begin, refusal};
    begin();
    refusal() != Refusal::Early
}

/// The cheap side; needed under this name.
#[cfg(not(reiver_loom))]
#[inline(always)]
pub fn light(_name: &str) {
    // ORDERING: with `heavy`, which makes it a full fence when it matters.
    compiler_fence(Ordering::SeqCst);
}

/// The dear side; false if it was none, because the kernel refuses.
#[cfg(not(reiver_loom))]
pub fn heavy(_name: &str) -> bool {
    membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
}

/// As much of a fence as the dear side makes of it: none, where that is refused.
#[cfg(reiver_loom)]
pub fn light(name: &'static str) {
    if !crate::protocol::sync::weak::paused() {
        crate::protocol::sync::fence_needed(name);
    }
}

/// The fence that the barrier implies here.
#[cfg(reiver_loom)]
pub fn heavy(name: &'static str) -> bool {
    use crate::protocol::sync::weak::{Refusal, refusal};
    let granted = refusal() == Refusal::Never;
    if granted {
        crate::protocol::sync::fence_needed(name);
    }
    granted
}

#[cfg(not(reiver_loom))]
fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: three numbers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}
