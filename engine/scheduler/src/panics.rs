//! Panics where nobody could take them, and where none may come.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code that is not ours where nobody could take its panic: the panic has been reported by the
/// panic hook, and ends here.
pub(crate) fn contain(code: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(code)) {
        // Dropping a payload may panic again; forgetting it leaks a few bytes instead.
        std::mem::forget(payload);
    }
}

/// While it is held nothing may unwind through the frame that holds it, for somebody else has a pointer
/// there; if anything does, the process ends.
pub(crate) struct NoUnwind;

impl NoUnwind {
    /// Nobody has a pointer there any more.
    pub(crate) fn release(self) {
        std::mem::forget(self);
    }
}

impl Drop for NoUnwind {
    fn drop(&mut self) {
        eprintln!("reiver: a panic came out of where panics are caught; this is a bug");
        std::process::abort();
    }
}
