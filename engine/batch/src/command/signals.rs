//! Ctrl-C and its like: the first ends the run, a second kills what still runs. Ctrl-Z stops what runs
//! and then reiver, and `SIGUSR1` says what runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGUSR1};
use signal_hook::iterator::Signals;

use super::console::say;
use super::progress::Progress;
use crate::run::Control;

/// So long is waited for what is said of a signal to be said: standard error may take nothing.
const SAID: Duration = Duration::from_millis(100);
/// A signal that comes so long after all was killed ends reiver itself.
const KILLED: Duration = Duration::from_secs(1);

/// Passes signals on to a run from now on. One that was ignored when reiver started stays ignored,
/// as `nohup` wants it; one that was blocked gets through.
pub(crate) fn watch(control: &Control, progress: &Arc<Progress>) -> io::Result<()> {
    let wanted: Vec<i32> = [SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGUSR1]
        .into_iter()
        .filter(|&signal| !is_ignored(signal))
        .collect();
    // A file that may not grow any more (`ulimit -f`) is an error of the write, like a full disk.
    // SAFETY: no pointers; jobs start with the default all the same.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // Or the kernel reaps jobs itself, and keeps how they ended from us.
    // SAFETY: no pointers, and no handler of anybody's.
    unsafe { libc::signal(SIGCHLD, libc::SIG_DFL) };
    let mut signals = Signals::new(&wanted)?;
    unblock(wanted.iter().copied().chain([SIGCONT]));
    let goes_on = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGCONT, Arc::clone(&goes_on))?;
    let (control, progress) = (control.clone(), Arc::clone(progress));
    thread::Builder::new()
        .name("reiver-signals".into())
        .spawn(move || {
            let mut killed = None;
            for signal in signals.forever() {
                match signal {
                    SIGTSTP => stop(&control, &progress, &goes_on),
                    SIGUSR1 => say_aside(&progress, progress.text()),
                    signal => end(&control, &progress, signal, &mut killed),
                }
            }
        })?;
    Ok(())
}

fn end(control: &Control, progress: &Arc<Progress>, signal: i32, killed: &mut Option<Instant>) {
    match killed {
        // It cannot end by itself: standard output takes nothing, say.
        Some(killed) if killed.elapsed() >= KILLED => {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
        Some(_) => {}
        None if control.is_ending() => {
            say_aside(progress, "reiver: killing what still runs".to_owned());
            control.kill();
            *killed = Some(Instant::now());
        }
        None => {
            let name = name(signal);
            say_aside(
                progress,
                format!("reiver: {name}: ending what runs; once more to kill it"),
            );
            control.cancel(Some(signal));
        }
    }
}

/// Says it beside the bar, and waits for that but a moment: signals are to be seen to wherever what
/// is said goes.
fn say_aside(progress: &Arc<Progress>, line: String) {
    let (said, is_said) = mpsc::channel();
    let progress = Arc::clone(progress);
    let speaker = thread::Builder::new().name("reiver-says".into());
    let spoken = speaker.spawn(move || {
        progress.aside(|| say(&line));
        let _ = said.send(());
    });
    if spoken.is_ok() {
        let _ = is_said.recv_timeout(SAID);
    }
}

/// Lets these in on this thread, and on those that it starts.
fn unblock(signals: impl Iterator<Item = i32>) {
    // SAFETY: an all-zero set is a valid one.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: a set of ours, and the number of a signal.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: a set of ours, and nothing is to be written.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Stops what runs, and then this process, until somebody lets it go on. Nothing is drawn meanwhile.
fn stop(control: &Control, progress: &Progress, goes_on: &AtomicBool) {
    goes_on.store(false, Ordering::SeqCst);
    let stop_itself = || {
        if goes_on.load(Ordering::SeqCst) {
            // Whoever stops us has changed his mind meanwhile.
            return;
        }
        // SAFETY: no pointers. The signal is for this thread, and so it is stopped when this returns,
        // and with it all others.
        unsafe { libc::raise(libc::SIGSTOP) };
    };
    if let Err(error) = progress.aside(|| control.stop_for(stop_itself)) {
        say(&format!("reiver: cannot stop: /proc: {error}"));
    }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: an all-zero sigaction is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with no new action it only writes the current one.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// A signal's name, or its number.
pub(crate) fn name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal)
        .map_or_else(|| format!("signal {signal}"), ToOwned::to_owned)
}
