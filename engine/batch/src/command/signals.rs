//! Ctrl-C and its like: the first ends the run, a second kills what still runs. Ctrl-Z stops what runs
//! and then reiver, and `SIGUSR1` says what runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGUSR1};
use signal_hook::iterator::Signals;

use super::console::say;
use super::progress::Progress;
use crate::run::Control;

/// Passes signals on to a run from now on. One that was ignored when reiver started stays ignored,
/// as `nohup` wants it.
pub(crate) fn watch(control: &Control, progress: &Arc<Progress>) -> io::Result<()> {
    let wanted: Vec<i32> = [SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGUSR1]
        .into_iter()
        .filter(|&signal| !is_ignored(signal))
        .collect();
    // A file that may not grow any more (`ulimit -f`) is an error of the write, like a full disk.
    // SAFETY: no pointers; jobs start with the default all the same.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let mut signals = Signals::new(wanted)?;
    let goes_on = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGCONT, Arc::clone(&goes_on))?;
    let (control, progress) = (control.clone(), Arc::clone(progress));
    thread::Builder::new()
        .name("reiver-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGTSTP => stop(&control, &progress, &goes_on),
                    SIGUSR1 => progress.print(),
                    signal => end(&control, &progress, signal),
                }
            }
        })?;
    Ok(())
}

fn end(control: &Control, progress: &Progress, signal: i32) {
    if control.is_ending() {
        progress.aside(|| say("reiver: killing what still runs"));
        control.kill();
    } else {
        progress.aside(|| {
            say(&format!(
                "reiver: {}: ending what runs; once more to kill it",
                name(signal)
            ));
        });
        control.cancel(Some(signal));
    }
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
