//! How a run is told to end from outside: by a signal handler's thread, say.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use super::Message;
use super::pause::{Clock, Halted};

/// Whoever stops a run waits so long for what is just being started.
const LAUNCHING: Duration = Duration::from_millis(200);

/// Ends a run; clones are the same control.
#[derive(Debug, Clone)]
pub struct Control {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Readable from the moment that the run is to end, and never read: so every attempt sees it.
    cancel: OwnedFd,
    kill: OwnedFd,
    ending: AtomicBool,
    killing: AtomicBool,
    /// The signal by which it was told; 0 for none.
    signal: AtomicI32,
    coordinator: Mutex<Option<Sender<Message>>>,
    clock: Clock,
    /// Held for reading by whoever starts a process, for writing while the run is stopped.
    launches: RwLock<()>,
}

impl Control {
    /// A control for one run.
    ///
    /// # Errors
    /// The system's, where it has no descriptors left.
    pub fn new() -> io::Result<Control> {
        let inner = Inner {
            cancel: event()?,
            kill: event()?,
            ending: AtomicBool::new(false),
            killing: AtomicBool::new(false),
            signal: AtomicI32::new(0),
            coordinator: Mutex::new(None),
            clock: Clock::default(),
            launches: RwLock::new(()),
        };
        Ok(Control {
            inner: Arc::new(inner),
        })
    }

    /// Ends the run: what runs gets TERM, and KILL after its `kill-after`; what has not started is
    /// cancelled. `signal` is why, for the exit code.
    pub fn cancel(&self, signal: Option<i32>) {
        if self.inner.ending.swap(true, Ordering::SeqCst) {
            return;
        }
        self.inner
            .signal
            .store(signal.unwrap_or(0), Ordering::SeqCst);
        set(&self.inner.cancel);
        self.tell(Message::Cancel);
    }

    /// Ends what still runs at once, by KILL.
    pub fn kill(&self) {
        self.cancel(None);
        self.inner.killing.store(true, Ordering::SeqCst);
        set(&self.inner.kill);
    }

    /// Stops what runs, and calls `stop_itself`, which is to return when all goes on: as for Ctrl-Z.
    /// Meanwhile nothing starts, and neither timeouts nor waits for a retry run.
    ///
    /// # Errors
    /// Where `/proc` cannot be read: nothing was stopped then, nor was `stop_itself` called.
    pub fn stop_for(&self, stop_itself: impl FnOnce()) -> io::Result<()> {
        let _no_launches = self.launches_held_up();
        self.inner.clock.stopped_for(|| {
            let halted = Halted::descendants()?;
            stop_itself();
            halted.go_on();
            Ok(())
        })
    }

    /// None where one takes too long: a program on a file system that is gone, say.
    fn launches_held_up(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        let begin = Instant::now();
        loop {
            match self.inner.launches.try_write() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if begin.elapsed() > LAUNCHING => return None,
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Held while a process is started.
    pub(super) fn launching(&self) -> RwLockReadGuard<'_, ()> {
        let launches = self.inner.launches.read();
        launches.unwrap_or_else(PoisonError::into_inner)
    }

    /// The time, but for that during which the run was stopped.
    pub(super) fn now(&self) -> Instant {
        self.inner.clock.now()
    }

    /// The signal that the run was ended by.
    pub fn signal(&self) -> Option<i32> {
        Some(self.inner.signal.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }

    /// True once the run is to end.
    pub fn is_ending(&self) -> bool {
        self.inner.ending.load(Ordering::SeqCst)
    }

    pub(super) fn is_killing(&self) -> bool {
        self.inner.killing.load(Ordering::SeqCst)
    }

    pub(super) fn cancel_fd(&self) -> RawFd {
        self.inner.cancel.as_raw_fd()
    }

    pub(super) fn kill_fd(&self) -> RawFd {
        self.inner.kill.as_raw_fd()
    }

    /// Where to say from now on that the run is to end; said at once if it is already.
    pub(super) fn connect(&self, coordinator: Sender<Message>) {
        *self
            .inner
            .coordinator
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(coordinator);
        if self.is_ending() {
            self.tell(Message::Cancel);
        }
    }

    fn tell(&self, message: Message) {
        let coordinator = self
            .inner
            .coordinator
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(coordinator) = &*coordinator {
            // Refused only once the run is over.
            let _ = coordinator.send(message);
        }
    }
}

fn event() -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers, gives a new descriptor.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set(event: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight bytes, as an eventfd takes them.
    let written = unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    debug_assert_eq!(written, 8, "an eventfd takes a first one");
}
