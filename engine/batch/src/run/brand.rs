//! A number that whatever an attempt starts carries, even what leaves its session, drops its environment
//! and closes its output: the soft limit on the CPU time of real-time threads (`RLIMIT_RTTIME`, in
//! microseconds).
//!
//! A limit is handed on to children and over executions, and can be asked for of each process. This one
//! holds for threads with a real-time class alone, and the numbers are beyond a hundred thousand years.
//! Where somebody has set it to less it is left as it is, and nothing is branded.

use std::hash::{BuildHasher, RandomState};
use std::mem::size_of;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::process::Pid;

/// An attempt's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Brand(u64);

/// All brands are larger, of whatever run.
const LEAST: u64 = 1 << 62;
/// Bits of the number within a process; the rest are the process's own.
const WITHIN: u32 = 33;

/// As the kernel takes it.
#[repr(C)]
struct Limit {
    soft: u64,
    hard: u64,
}

const NONE: u64 = u64::MAX;

impl Brand {
    /// One that no other attempt has; `None` where the limit is somebody's.
    pub(crate) fn new() -> Option<Brand> {
        static FIRST: OnceLock<Option<u64>> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let first = FIRST.get_or_init(|| {
            let limit = limit_of(0)?;
            // One of a run that this one is a job of is as good as none.
            let is_free = limit.hard == NONE && limit.soft >= LEAST;
            let own = RandomState::new().hash_one(std::process::id());
            is_free.then_some(LEAST | (own >> (2 + WITHIN) << WITHIN))
        });
        // ORDERING: relaxed: the numbers are different, and that is all.
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % (1 << WITHIN);
        first.map(|first| Brand(first | next))
    }

    /// That of a process which may be looked at: one of this user's, or any for root.
    pub(super) fn of(pid: Pid) -> Option<Brand> {
        let limit = limit_of(pid)?;
        (limit.soft >= LEAST && limit.soft != NONE).then_some(Brand(limit.soft))
    }

    /// The calling process carries it from now on, if the system lets it. Calls the kernel and nothing else.
    pub(super) fn take_on(self) {
        let limit = Limit {
            soft: self.0,
            hard: NONE,
        };
        // SAFETY: the kernel reads one limit, and writes none.
        unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                0,
                libc::RLIMIT_RTTIME,
                ptr::from_ref(&limit),
                ptr::null_mut::<Limit>(),
            )
        };
    }

    pub(super) fn to_number(self) -> u64 {
        self.0
    }

    pub(super) fn from_number(number: u64) -> Option<Brand> {
        (number >= LEAST && number != NONE).then_some(Brand(number))
    }
}

/// Of a process; 0 is the calling one.
fn limit_of(pid: Pid) -> Option<Limit> {
    let mut limit = Limit { soft: 0, hard: 0 };
    const { assert!(size_of::<Limit>() == size_of::<libc::rlimit64>()) };
    // SAFETY: the kernel reads no limit, and writes one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            libc::RLIMIT_RTTIME,
            ptr::null::<Limit>(),
            ptr::from_mut(&mut limit),
        )
    };
    (result == 0).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_attempts_have_one() {
        let Some(first) = Brand::new() else {
            eprintln!("skipped: the limit is set here");
            return;
        };
        let second = Brand::new().expect("as the first");
        assert_ne!(first, second);
        assert_eq!(first.0 >> WITHIN, second.0 >> WITHIN);
        assert_eq!(Brand::from_number(second.to_number()), Some(second));
        for none in [0, 1 << 40, NONE] {
            assert_eq!(Brand::from_number(none), None);
        }
    }
}
