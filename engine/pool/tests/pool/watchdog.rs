//! Turns a hang into a failure.

use std::sync::Once;
use std::thread;
use std::time::Duration;

/// Ends the process if its tests take minutes.
pub(crate) fn watched() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        thread::spawn(|| {
            thread::sleep(Duration::from_secs(300));
            eprintln!("a test hangs: the watchdog ends the process");
            std::process::abort();
        });
    });
}
