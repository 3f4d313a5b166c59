//! A number that whatever an attempt starts carries, even what leaves its session, drops its environment
//! and closes its output: the soft limit on the CPU time of real-time threads (`RLIMIT_RTTIME`, in
//! microseconds).
//!
//! A limit is handed on to children and over executions, and can be asked for of each process. This one
//! holds for threads with a real-time class alone, and the numbers are beyond a hundred thousand years.
//! Where somebody has set it to less it is left as it is, and nothing is branded.
//!
//! The number is made of the run's id, the job's number and the attempt's: whoever knows the run, by its
//! journal, knows after its end whose a process is. So how it is made never changes.

use std::hash::Hasher;
use std::mem::size_of;
use std::ptr;

use siphasher::sip::SipHasher24;

use super::process::Pid;
use crate::plan::JobIndex;

/// An attempt's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Brand(u64);

/// All brands are larger, of whatever run.
const LEAST: u64 = 1 << 62;
/// Bits of the attempt and of the job; the rest are the run's. Beyond those there is no brand.
const ATTEMPT: u32 = 9;
const JOB: u32 = 27;

/// The brands of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brands {
    /// What all of them have in common.
    first: u64,
}

/// As the kernel takes it.
#[repr(C)]
struct Limit {
    soft: u64,
    hard: u64,
}

const NONE: u64 = u64::MAX;

impl Brands {
    /// Those of the run of this id, be it over.
    pub(super) fn of_run(run_id: &str) -> Brands {
        let mut hasher = SipHasher24::new_with_keys(0x7265_6976_6572_2062, 0x7261_6e64_7320_2031);
        hasher.write(run_id.as_bytes());
        let within = JOB + ATTEMPT;
        Brands {
            first: LEAST | (hasher.finish() >> (2 + within) << within),
        }
    }

    /// The same, of the run of this process; `None` where the limit is somebody's.
    pub(super) fn to_give(run_id: &str) -> Option<Brands> {
        let limit = limit_of(0)?;
        // One of a run that this one is a job of is as good as none.
        let is_free = limit.hard == NONE && limit.soft >= LEAST;
        is_free.then(|| Brands::of_run(run_id))
    }

    /// That of an attempt, counted from 1.
    pub(super) fn brand(self, job: JobIndex, attempt: u32) -> Option<Brand> {
        let (job, attempt) = (u64::from(job.0), u64::from(attempt));
        let is_small = job >> JOB == 0 && attempt >> ATTEMPT == 0;
        is_small.then_some(Brand(self.first | job << ATTEMPT | attempt))
    }

    /// Whose a brand is, if it is one of these: the job and the attempt.
    pub(super) fn attempt_of(self, brand: Brand) -> Option<(JobIndex, u32)> {
        let within = JOB + ATTEMPT;
        let job = u32::try_from(brand.0 >> ATTEMPT & ((1 << JOB) - 1)).expect("it is 27 bits");
        let attempt = u32::try_from(brand.0 & ((1 << ATTEMPT) - 1)).expect("it is 9 bits");
        (brand.0 >> within == self.first >> within).then_some((JobIndex(job), attempt))
    }
}

impl Brand {
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
    fn a_brand_says_whose_it_is_and_is_always_the_same() {
        let (run, other) = (
            Brands::of_run("2839d8b6f9a39a59"),
            Brands::of_run("another"),
        );
        let brand = |job, attempt| run.brand(JobIndex(job), attempt);
        for (job, attempt) in [(0, 1), (1, 1), (0, 2), ((1 << JOB) - 1, (1 << ATTEMPT) - 1)] {
            let brand = brand(job, attempt).expect("there is room");
            assert_eq!(run.attempt_of(brand), Some((JobIndex(job), attempt)));
            assert_eq!(other.attempt_of(brand), None);
            assert_eq!(Brand::from_number(brand.to_number()), Some(brand));
        }
        assert_eq!((brand(1 << JOB, 1), brand(0, 1 << ATTEMPT)), (None, None));
        assert_eq!(brand(5, 3), Some(Brand(5_879_638_841_849_022_979)));
        for none in [0, 1 << 40, NONE] {
            assert_eq!(Brand::from_number(none), None);
        }
    }
}
