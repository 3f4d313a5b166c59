//! All atomics, fences, cells and locks of the pools' protocol and of the scheduler's, from std or, for
//! the models in `tests/loom_*.rs` of both crates, from loom: the same code runs under both.
//!
//! Every ordering and fence that a protocol is said to need has a name. A model that is run without it
//! (`fails_without`) has to fail; `tests/needed.rs` of each crate sees to it that there is one for each
//! name.

#[cfg(not(reiver_loom))]
pub use std::alloc::{alloc, dealloc};
#[cfg(not(reiver_loom))]
pub use std::sync::{
    Mutex, MutexGuard,
    atomic::{
        AtomicBool, AtomicI32, AtomicIsize, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
        Ordering, fence,
    },
};

#[cfg(reiver_loom)]
pub use loom::{
    cell::UnsafeCell,
    sync::{
        Mutex, MutexGuard,
        atomic::{
            AtomicBool, AtomicIsize, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
            Ordering, fence,
        },
    },
};

#[cfg(not(reiver_loom))]
pub use cell::UnsafeCell;
#[cfg(reiver_loom)]
pub use weak::{alloc, dealloc};

/// This ordering, which is needed under this name.
#[cfg(not(reiver_loom))]
#[inline(always)]
pub const fn needed(_name: &str, ordering: Ordering) -> Ordering {
    ordering
}

/// Release and acquire, which are needed under these names.
#[cfg(not(reiver_loom))]
#[inline(always)]
pub const fn both(_release: &str, _acquire: &str) -> Ordering {
    Ordering::AcqRel
}

/// A full fence, which is needed under this name.
#[cfg(not(reiver_loom))]
#[inline(always)]
pub fn fence_needed(_name: &str) {
    fence(Ordering::SeqCst);
}

/// Sequential consistency, for a load; needed under this name.
#[cfg(not(reiver_loom))]
#[inline(always)]
pub const fn total(_name: &str) -> Ordering {
    Ordering::SeqCst
}

/// Loom makes no more of it than of an acquire, so a fence before the load stands for its order.
#[cfg(reiver_loom)]
pub fn total(name: &'static str) -> Ordering {
    fence_needed(name);
    Ordering::SeqCst
}

/// The same, unless the model is run without it.
#[cfg(reiver_loom)]
pub fn needed(name: &'static str, ordering: Ordering) -> Ordering {
    if weak::is_needed(name) {
        ordering
    } else {
        Ordering::Relaxed
    }
}

/// The same, unless the model is run without them.
#[cfg(reiver_loom)]
pub fn both(release: &'static str, acquire: &'static str) -> Ordering {
    match (weak::is_needed(release), weak::is_needed(acquire)) {
        (true, true) => Ordering::AcqRel,
        (true, false) => Ordering::Release,
        (false, true) => Ordering::Acquire,
        (false, false) => Ordering::Relaxed,
    }
}

/// The same, unless the model is run without it.
#[cfg(reiver_loom)]
pub fn fence_needed(name: &'static str) {
    if weak::is_needed(name) {
        fence(Ordering::SeqCst);
    }
}

/// Waits until whatever other threads had in their store buffers is out, and what was stored before is what
/// they load: no promise of the machine, but a time in which it happens. A store leaves its buffer when its
/// line arrives, at the latest at the next interrupt of its CPU, and there is a timer's every 1 to 10 ms.
/// Measured, a store was last seen to be late after 0.6 µs ("Temporally Bounding TSO for Fence-Free
/// Asymmetric Synchronization", Morrison, Afek, 2015, has the argument, and more machines).
#[cfg(not(reiver_loom))]
pub fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(20));
}

/// The same; from here on the cheap side of the barrier is none.
#[cfg(reiver_loom)]
pub fn pause() {
    weak::pause();
    loom::thread::yield_now();
}

/// What one thread waits for and another one gives, once.
#[cfg(not(reiver_loom))]
#[derive(Debug, Default)]
pub struct Signal(Mutex<bool>, std::sync::Condvar);

#[cfg(not(reiver_loom))]
impl Signal {
    /// Waits for it.
    pub fn wait(&self) {
        let given = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(self.1.wait_while(given, |given| !*given));
    }

    /// Gives it.
    pub fn give(&self) {
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
pub struct Signal(loom::sync::Notify);

#[cfg(reiver_loom)]
impl Default for Signal {
    fn default() -> Signal {
        Signal(loom::sync::Notify::new())
    }
}

#[cfg(reiver_loom)]
impl Signal {
    /// Waits for it.
    pub fn wait(&self) {
        self.0.wait();
    }

    /// Gives it.
    pub fn give(&self) {
        self.0.notify();
    }
}

#[cfg(not(reiver_loom))]
pub use std::thread::yield_now;

#[cfg(reiver_loom)]
pub use loom::thread::yield_now;

#[cfg(not(reiver_loom))]
mod cell {
    /// `std`'s, with loom's face.
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// A cell.
        #[inline]
        pub const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        /// For whoever reads it.
        #[inline]
        pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        /// For whoever writes it.
        #[inline]
        pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}

/// What a model is run without.
#[cfg(reiver_loom)]
pub mod weak {
    use super::{AtomicUsize, Ordering};
    use std::alloc::Layout;
    use std::cell::{Cell, RefCell};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    loom::lazy_static! {
        /// What is out when somebody has paused.
        static ref PAUSE: AtomicUsize = AtomicUsize::new(0);
    }

    // Loom runs all threads of a model on the one that runs the model.
    thread_local! {
        /// The names that are taken away, and whether each was asked for.
        static WEAK: RefCell<Vec<(&'static str, bool)>> = const { RefCell::new(Vec::new()) };
        static REFUSAL: Cell<Refusal> = const { Cell::new(Refusal::Never) };
        static HAS_PAUSED: Cell<bool> = const { Cell::new(false) };
    }

    /// False for a name that is taken away.
    pub fn is_needed(name: &'static str) -> bool {
        WEAK.with_borrow_mut(|weak| {
            let known = weak.iter_mut().find(|(known, _)| *known == name);
            known.map(|(_, asked)| *asked = true).is_none()
        })
    }

    /// Loom ends the process when a model fails in which it watches memory, so where that is expected
    /// it does not.
    ///
    /// # Safety
    /// As `std`'s.
    pub unsafe fn alloc(layout: Layout) -> *mut u8 {
        if WEAK.with_borrow(Vec::is_empty) {
            // SAFETY: as the caller says.
            unsafe { loom::alloc::alloc(layout) }
        } else {
            // SAFETY: as the caller says.
            unsafe { std::alloc::alloc(layout) }
        }
    }

    /// # Safety
    /// As `std`'s.
    pub unsafe fn dealloc(memory: *mut u8, layout: Layout) {
        if WEAK.with_borrow(Vec::is_empty) {
            // SAFETY: as the caller says.
            unsafe { loom::alloc::dealloc(memory, layout) }
        } else {
            // SAFETY: as the caller says.
            unsafe { std::alloc::dealloc(memory, layout) }
        }
    }

    /// From when on the kernel refuses the barrier.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Refusal {
        /// It does not.
        Never,
        /// After it has promised it.
        Late,
        /// It does not promise it.
        Early,
    }

    /// From when on the kernel refuses the barrier.
    pub fn refusal() -> Refusal {
        REFUSAL.get()
    }

    /// A store is made, which nobody has paused for.
    pub(crate) fn begin() {
        HAS_PAUSED.set(false);
    }

    /// All that was stored before is seen behind [`paused`] by everybody.
    pub(crate) fn pause() {
        HAS_PAUSED.set(true);
        PAUSE.fetch_add(1, Ordering::AcqRel);
    }

    /// True if somebody has paused; what was stored before that is seen then, and nothing else is ordered.
    pub(crate) fn paused() -> bool {
        HAS_PAUSED.get() && PAUSE.fetch_add(1, Ordering::AcqRel) > 0
    }

    /// Runs a model in which the kernel refuses the barrier.
    pub fn refused(model: impl FnOnce()) {
        with(Refusal::Early, model);
    }

    /// Runs a model in which the kernel refuses the barrier after it has promised it.
    pub fn refused_late(model: impl FnOnce()) {
        with(Refusal::Late, model);
    }

    fn with(refusal: Refusal, model: impl FnOnce()) {
        REFUSAL.set(refusal);
        let outcome = catch_unwind(AssertUnwindSafe(model));
        REFUSAL.set(Refusal::Never);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }

    /// Runs a model without these, which holds all the same.
    ///
    /// # Panics
    /// If it fails, or does not ask for one of them.
    pub fn without(names: &[&'static str], model: impl FnOnce()) {
        WEAK.with_borrow_mut(|weak| weak.extend(names.iter().map(|&name| (name, false))));
        let outcome = catch_unwind(AssertUnwindSafe(model));
        let weak = WEAK.take();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        for (name, asked) in weak {
            assert!(asked, "the model passes no {name}");
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
