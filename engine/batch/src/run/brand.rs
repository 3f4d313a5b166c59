//! A number that whatever an attempt starts carries, even what leaves its session, drops its environment
//! and closes its output: the soft limit on the CPU time of real-time threads (`RLIMIT_RTTIME`, in
//! microseconds).
//!
//! A limit is handed on to children and over executions, and can be asked for of each process. This one
//! holds for threads with a real-time class alone, and the numbers are beyond a hundred thousand years.
//! Where somebody has set it to less it is left as it is, and nothing is branded.
//!
//! The number is made of the run's id, the job's number and the attempt's: whoever knows the run, by its
//! journal, knows after its end whose a process is. So how it is made never changes. It has room for 511
//! attempts; those after them have what the run had been made into anew, once for each 512.

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
/// Bits of the attempt, of those that belong together, and of the job; the rest are the run's. A job beyond
/// those has no brand.
const ATTEMPT: u32 = 9;
const JOB: u32 = 27;

/// The brands of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brands {
    /// What those of the first 511 attempts of each job have in common.
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
        Brands {
            first: made_of(run_id.as_bytes()),
        }
    }

    /// What the brands of an attempt, and of those that belong together with it, have in common.
    fn first_of(self, attempt: u32) -> u64 {
        match attempt >> ATTEMPT {
            0 => self.first,
            later => made_of(&[self.first, later.into()].map(u64::to_le_bytes).concat()),
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
        let job = u64::from(job.0);
        let among = u64::from(attempt) & ((1 << ATTEMPT) - 1);
        let brand = || Brand(self.first_of(attempt) | job << ATTEMPT | among);
        (job >> JOB == 0).then(brand)
    }

    /// Whose a brand is, if it is one of these: the job and the attempt. No job has had more attempts than
    /// `most`, and some hundreds.
    pub(super) fn attempt_of(self, brand: Brand, most: u32) -> Option<(JobIndex, u32)> {
        let within = JOB + ATTEMPT;
        let job = u32::try_from(brand.0 >> ATTEMPT & ((1 << JOB) - 1)).expect("it is 27 bits");
        let among = u32::try_from(brand.0 & ((1 << ATTEMPT) - 1)).expect("it is 9 bits");
        let last = (most >> ATTEMPT).saturating_add(1).min(u32::MAX >> ATTEMPT);
        let mut attempts = (0..=last).map(|those| those << ATTEMPT | among);
        let is_it = |attempt: &u32| brand.0 >> within == self.first_of(*attempt) >> within;
        attempts.find(is_it).map(|attempt| (JobIndex(job), attempt))
    }
}

/// The bits of a brand that are the run's, and those that all brands have.
fn made_of(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(0x7265_6976_6572_2062, 0x7261_6e64_7320_2031);
    hasher.write(bytes);
    let within = JOB + ATTEMPT;
    LEAST | (hasher.finish() >> (2 + within) << within)
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
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_brand_says_whose_it_is_and_is_always_the_same() {
        let (run, other) = (
            Brands::of_run("2839d8b6f9a39a59"),
            Brands::of_run("another"),
        );
        let brand = |job, attempt| run.brand(JobIndex(job), attempt);
        let last = (1 << JOB) - 1;
        for (job, attempt) in [
            (0, 1),
            (1, 1),
            (0, 2),
            (last, 511),
            (0, 512),
            (last, 513),
            (1, 100_000),
        ] {
            let brand = brand(job, attempt).expect("there is room");
            assert_eq!(
                run.attempt_of(brand, attempt),
                Some((JobIndex(job), attempt))
            );
            assert_eq!(other.attempt_of(brand, attempt), None);
            assert_eq!(Brand::from_number(brand.to_number()), Some(brand));
        }
        assert_eq!(brand(1 << JOB, 1), None);
        let all: HashSet<u64> = (1..=5000)
            .filter_map(|attempt| Some(brand(0, attempt)?.0))
            .collect();
        assert_eq!(all.len(), 5000, "no two attempts have one");
        assert_eq!(brand(5, 3), Some(Brand(5_879_638_841_849_022_979)));
        for none in [0, 1 << 40, NONE] {
            assert_eq!(Brand::from_number(none), None);
        }
    }
}
