//! What idle objects lay in goes back to the system. In a process of its own, whose memory nobody else uses.

use std::fs;
use std::thread;
use std::time::Duration;

use reiver_pool::Pool;

#[path = "pool/watchdog.rs"]
mod watchdog;

const MIB: usize = 1 << 20;

/// What of the process is memory, in bytes.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").expect("it can be read");
    let pages = pages
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok());
    let pages: usize = pages.expect("the second is resident");
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * usize::try_from(page).expect("it has some bytes")
}

/// Objects of that size, 64 MiB in all, that have been written to and are idle.
fn idle<const BYTES: usize>(epoch: Duration) -> Pool<[u8; BYTES]> {
    let pool = Pool::builder(|| [1; BYTES]).epoch(epoch).build();
    drop(
        (0..64 * MIB / BYTES)
            .map(|_| pool.get())
            .collect::<Vec<_>>(),
    );
    pool
}

fn goes_back<const BYTES: usize>() {
    let before = resident();
    let lies = || resident().saturating_sub(before);
    let pool = idle::<BYTES>(Duration::MAX);
    assert!(lies() > 60 * MIB, "{}", lies());
    pool.trim();
    assert!(lies() < 8 * MIB, "{}", lies());
    let pool = idle::<BYTES>(Duration::from_millis(20));
    // Until it has aged.
    while lies() > 8 * MIB {
        thread::sleep(Duration::from_millis(5));
    }
    drop(pool);
}

#[test]
fn memory_of_idle_objects_goes_back_to_the_system() {
    watchdog::watched();
    goes_back::<{ 16 << 10 }>();
    goes_back::<{ 256 << 10 }>();
}
