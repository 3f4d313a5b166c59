//! What a measurement takes beside time: memory, page faults, and the clocks that are asked for them.
//!
//! Time is that of a thread's own CPU where threads share CPUs: what it waits for is no cost of its own.

use std::fs;
use std::mem::MaybeUninit;
use std::time::Duration;

/// What a child took beside time while it measured.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Costs {
    /// Of all threads together, by the clock on the wall.
    pub(crate) operations_per_second: f64,
    /// Pages that were mapped on first touch, for each operation.
    pub(crate) minor_faults_per_operation: f64,
    /// The most memory that the whole child ever had.
    pub(crate) peak_kib: u64,
}

/// How long this thread has had a CPU.
pub(crate) fn thread_cpu() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: it writes to one `timespec`, which is there.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    assert_eq!(told, 0, "every Linux has this clock");
    // SAFETY: it was written to just now.
    let time = unsafe { time.assume_init() };
    let seconds = u64::try_from(time.tv_sec).expect("time that has passed");
    let nanoseconds = u32::try_from(time.tv_nsec).expect("less than a second");
    Duration::new(seconds, nanoseconds)
}

/// Pages that this process has had mapped without reading them from anywhere.
pub(crate) fn minor_faults() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: it writes to one `rusage`, which is there.
    let told = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    assert_eq!(told, 0, "every process may ask about itself");
    // SAFETY: it was written to just now.
    let usage = unsafe { usage.assume_init() };
    u64::try_from(usage.ru_minflt).expect("a count")
}

/// The most memory that this process has had, since it became this program. Zero where /proc is not.
pub(crate) fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_is_seen_as_faults_and_as_a_peak() {
        const BYTES: usize = 64 << 20;
        let (faults, peak) = (minor_faults(), peak_kib());
        let touched = std::hint::black_box(vec![1_u8; BYTES]);
        // Huge pages are one fault for 512 small ones.
        assert!(minor_faults() >= faults + (BYTES >> 21) as u64);
        assert!(peak_kib() >= peak.max(64 << 10) && touched.len() == BYTES);
    }

    #[test]
    fn work_takes_cpu_time() {
        let before = thread_cpu();
        let sum: u64 = (0..1_000_000_u64).map(std::hint::black_box).sum();
        assert!(thread_cpu() > before && sum > 0);
    }
}
