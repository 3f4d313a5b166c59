//! How much memory there is for jobs.

use std::fs;

use super::cgroups;

/// Bytes that processes can have without swapping, as the kernel estimates it, and that their cgroups
/// allow; `None` where nobody says.
pub fn available_memory() -> Option<u64> {
    let of_machine = available_to_machine();
    of_machine.into_iter().chain(cgroups::bytes_left()).min()
}

fn available_to_machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
