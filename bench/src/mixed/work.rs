//! What jobs do: compute for so much time of the CPU, or block.
//!
//! Computing is measured by the thread's own CPU time, looked at every few microseconds, so that a job
//! takes as much of a CPU whoever else had it meanwhile, and whatever its clock does.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Duration;

/// Between two looks at the clock.
const STRIDE: Duration = Duration::from_micros(4);
/// So often a job that has checkpoints passes one.
const CHECKPOINTS: Duration = Duration::from_micros(100);

/// CPU time of the current thread.
pub(super) fn thread_cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: there is room for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).expect("time is not negative");
    let nanos = u32::try_from(time.tv_nsec).expect("less than a second");
    Duration::new(seconds, nanos)
}

fn turns(turns: u64) {
    let mut state = black_box(1_u64);
    for _ in 0..turns {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
    }
    black_box(state);
}

/// Turns in a microsecond of CPU time: the most of some tries, for others may be at work.
fn turns_per_us() -> u64 {
    const TURNS: u64 = 200_000;
    static RATE: OnceLock<u64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let rate = || {
            let start = thread_cpu();
            turns(TURNS);
            let taken = (thread_cpu() - start).as_nanos().max(1);
            u64::try_from(u128::from(TURNS) * 1000 / taken).unwrap_or(1)
        };
        (0..8).map(|_| rate()).max().unwrap_or(1).max(1)
    })
}

/// Makes ready, so that no job does.
pub(super) fn calibrate() {
    turns_per_us();
}

/// A microsecond or so, too short to look at a clock.
#[inline]
pub(super) fn compute_us(us: u64) {
    turns(us * turns_per_us());
}

/// Computes for so much CPU time, passing checkpoints; gives how much it was.
pub(super) fn compute(cpu: Duration, mut checkpoint: impl FnMut()) -> Duration {
    let start = thread_cpu();
    let stride = u64::try_from(STRIDE.as_micros()).expect("a few") * turns_per_us();
    // What a checkpoint does is no work of this job.
    let (mut done, mut passed, mut elsewhere) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    while done < cpu {
        turns(stride);
        done = thread_cpu() - start - elsewhere;
        if done - passed >= CHECKPOINTS {
            passed = done;
            checkpoint();
            elsewhere = thread_cpu() - start - done;
        }
    }
    done
}
