//! How a run is told to end from outside: by a signal handler's thread, say.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
    launches: Launches,
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
            launches: Launches::default(),
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

    /// Ends what still runs at once, by KILL. Tasks cannot be killed: none is waited for any more.
    pub fn kill(&self) {
        self.cancel(None);
        self.inner.killing.store(true, Ordering::SeqCst);
        set(&self.inner.kill);
        self.tell(Message::Kill);
    }

    /// Stops what runs, and calls `stop_itself`, which is to return when all goes on: as for Ctrl-Z.
    /// Meanwhile nothing starts, and neither timeouts nor waits for a retry run.
    ///
    /// # Errors
    /// Where `/proc` cannot be read: nothing was stopped then, nor was `stop_itself` called.
    pub fn stop_for(&self, stop_itself: impl FnOnce()) -> io::Result<()> {
        let _no_launches = self.inner.launches.hold_up(LAUNCHING);
        self.inner.clock.stopped_for(|| {
            let halted = Halted::descendants()?;
            stop_itself();
            halted.go_on();
            Ok(())
        })
    }

    /// Held while a process is started; waits while the run is stopped.
    pub(super) fn launching(&self) -> Launching<'_> {
        self.inner.launches.begin()
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
        if self.is_killing() {
            self.tell(Message::Kill);
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

/// Who starts processes just now, and who wants nobody to.
#[derive(Debug, Default)]
struct Launches {
    state: Mutex<LaunchState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LaunchState {
    under_way: u32,
    holders: u32,
}

/// A launch that is under way.
#[derive(Debug)]
pub(super) struct Launching<'l>(&'l Launches);

/// While it lives no launch begins.
struct HeldUp<'l>(&'l Launches);

impl Launches {
    fn lock(&self) -> MutexGuard<'_, LaunchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Launching<'_> {
        let is_held_up = |state: &mut LaunchState| state.holders > 0;
        let state = self.changed.wait_while(self.lock(), is_held_up);
        state.unwrap_or_else(PoisonError::into_inner).under_way += 1;
        Launching(self)
    }

    /// Waits for what is under way, unless that takes longer than this: a program on a file system that is gone, say.
    fn hold_up(&self, patience: Duration) -> HeldUp<'_> {
        let mut state = self.lock();
        state.holders += 1;
        let is_under_way = |state: &mut LaunchState| state.under_way > 0;
        drop(
            self.changed
                .wait_timeout_while(state, patience, is_under_way),
        );
        HeldUp(self)
    }
}

impl Drop for Launching<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        if state.under_way == 0 && state.holders > 0 {
            self.0.changed.notify_all();
        }
    }
}

impl Drop for HeldUp<'_> {
    fn drop(&mut self) {
        self.0.lock().holders -= 1;
        self.0.changed.notify_all();
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn while_launches_are_held_up_none_is_under_way() {
        let (launches, is_over) = (Launches::default(), AtomicBool::new(false));
        let hour = Duration::from_secs(3600);
        let mut most = 0;
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let launching = launches.begin();
                        thread::yield_now();
                        drop(launching);
                        thread::yield_now();
                    }
                });
            }
            for _ in 0..500 {
                let held_up = launches.hold_up(hour);
                for _ in 0..3 {
                    most = most.max(launches.lock().under_way);
                    thread::yield_now();
                }
                drop(held_up);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(most, 0);
    }

    #[test]
    fn a_launch_that_takes_too_long_is_not_waited_for() {
        let launches = Launches::default();
        let launching = launches.begin();
        let held_up = launches.hold_up(Duration::from_millis(1));
        assert_eq!(launches.lock().under_way, 1);
        drop(launching);
        drop(held_up);
        drop(launches.begin());
    }
}
