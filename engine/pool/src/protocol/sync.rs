//! All atomics, fences, cells and locks of the pools' protocol, from std or, for the models in
//! `tests/loom_*.rs`, from loom: the same code runs under both.
//!
//! Every ordering and fence that a protocol is said to need has a name. A model that is run without it
//! (`fails_without`) has to fail; `tests/needed.rs` sees to it that there is one
//! for each name.

#[cfg(not(reiver_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{
        AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    },
};

#[cfg(reiver_loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{
        Mutex, MutexGuard,
        atomic::{
            AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
        },
    },
};

#[cfg(not(reiver_loom))]
pub(crate) use cell::UnsafeCell;

/// This ordering, which is needed under this name.
#[cfg(not(reiver_loom))]
#[inline(always)]
pub(crate) const fn needed(_name: &str, ordering: Ordering) -> Ordering {
    ordering
}

/// A full fence, which is needed under this name.
#[cfg(not(reiver_loom))]
#[inline(always)]
pub(crate) fn fence_needed(_name: &str) {
    fence(Ordering::SeqCst);
}

#[cfg(reiver_loom)]
pub(crate) fn needed(name: &'static str, ordering: Ordering) -> Ordering {
    if weak::is_needed(name) {
        ordering
    } else {
        Ordering::Relaxed
    }
}

#[cfg(reiver_loom)]
pub(crate) fn fence_needed(name: &'static str) {
    if weak::is_needed(name) {
        fence(Ordering::SeqCst);
    }
}

/// Lets others run for a while: until their store buffers are empty.
#[cfg(not(reiver_loom))]
pub(crate) fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(1));
}

#[cfg(reiver_loom)]
pub(crate) fn pause() {
    loom::thread::yield_now();
}

/// What one thread waits for and another one gives, once.
#[cfg(not(reiver_loom))]
#[derive(Debug, Default)]
pub(crate) struct Signal(Mutex<bool>, std::sync::Condvar);

#[cfg(not(reiver_loom))]
impl Signal {
    pub(crate) fn wait(&self) {
        let given = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(self.1.wait_while(given, |given| !*given));
    }

    pub(crate) fn give(&self) {
        *self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        self.1.notify_one();
    }
}

/// Without a lock: who waits for ever holds none, and so the model that finds it can end.
#[cfg(reiver_loom)]
#[derive(Debug)]
pub(crate) struct Signal(loom::sync::Notify);

#[cfg(reiver_loom)]
impl Default for Signal {
    fn default() -> Signal {
        Signal(loom::sync::Notify::new())
    }
}

#[cfg(reiver_loom)]
impl Signal {
    pub(crate) fn wait(&self) {
        self.0.wait();
    }

    pub(crate) fn give(&self) {
        self.0.notify();
    }
}

#[cfg(not(reiver_loom))]
pub(crate) use std::thread::yield_now;

#[cfg(reiver_loom)]
pub(crate) use loom::thread::yield_now;

#[cfg(not(reiver_loom))]
mod cell {
    /// `std`'s, with loom's face.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        #[inline]
        pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}

/// What a model is run without.
#[cfg(reiver_loom)]
pub(crate) mod weak {
    use std::cell::{Cell, RefCell};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    // Loom runs all threads of a model on the one that runs the model.
    thread_local! {
        /// The names that are taken away, and whether each was asked for.
        static WEAK: RefCell<Vec<(&'static str, bool)>> = const { RefCell::new(Vec::new()) };
        static REFUSED: Cell<bool> = const { Cell::new(false) };
    }

    /// False for a name that is taken away.
    pub(crate) fn is_needed(name: &'static str) -> bool {
        WEAK.with_borrow_mut(|weak| {
            let known = weak.iter_mut().find(|(known, _)| *known == name);
            known.map(|(_, asked)| *asked = true).is_none()
        })
    }

    /// True if the kernel refuses the barrier.
    pub(crate) fn is_refused() -> bool {
        REFUSED.get()
    }

    /// Runs a model in which the kernel refuses the barrier.
    pub fn refused(model: impl FnOnce()) {
        REFUSED.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(model));
        REFUSED.set(false);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }

    /// Runs a model without the ordering or fence of this name, and expects that it fails.
    ///
    /// # Panics
    /// If it does not.
    pub fn fails_without(name: &'static str, model: impl FnOnce()) {
        WEAK.with_borrow_mut(|weak| weak.push((name, false)));
        let outcome = catch_unwind(AssertUnwindSafe(model));
        let asked = WEAK.take().into_iter().all(|(_, asked)| asked);
        assert!(asked, "the model passes no {name}");
        assert!(outcome.is_err(), "the model holds without {name}");
    }
}
