//! Turns a hang into a failure.

use std::sync::Once;
use std::thread;
use std::time::Duration;

/// Ends the process if its tests take as long as they never do, wherever background threads get hardly any CPU too.
pub(crate) fn watched() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        thread::spawn(|| {
            thread::sleep(Duration::from_secs(1200));
            eprintln!("a test hangs: the watchdog ends the process");
            std::process::abort();
        });
    });
}
