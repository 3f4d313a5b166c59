//! What a thread asks of the kernel's scheduler: by its rank.
//!
//! What the kernel refuses is said once a process and done without: it is speed, never correctness.
//! See `sched(7)`, `sched_setattr(2)`.

use std::cell::Cell;
use std::io;
use std::sync::Once;

use crate::crew::Rank;

thread_local! {
    /// The kernel may stop this thread at any step, for as long as there is other work.
    static STOPPABLE: Cell<bool> = const { Cell::new(false) };
}

/// How long an ordinary thread asks to run at a time beside urgent ones: the least that the kernel
/// grants (Linux 6.12 and later; before that it means nothing). The kernel lets an urgent thread in at
/// once unless that one has had more than its share of late; then it waits for what it is asked here.
const YIELDING_SLICE_NS: u64 = 100_000;
/// What a background thread asks for where `SCHED_IDLE` is refused.
const MOST_NICE: i32 = 19;

/// A thread, for others that change how it is scheduled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadId(libc::pid_t);

/// As the kernel has it; libc lacks it.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// True on a thread that the kernel may stop at any step: it must hold nothing that others wait for.
#[inline]
pub(crate) fn is_stoppable() -> bool {
    STOPPABLE.get()
}

/// The first act of a worker's thread.
pub(crate) fn settle(rank: Rank) {
    match rank {
        Rank::Urgent | Rank::Ordinary => {}
        Rank::Background => be_background(),
    }
}

fn be_background() {
    STOPPABLE.set(true);
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are there; 0 is the current thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if result == 0 {
        return;
    }
    let refused = io::Error::last_os_error();
    let is_nice = ThreadId::current().set_nice(MOST_NICE).is_ok();
    static REFUSED: Once = Once::new();
    REFUSED.call_once(|| {
        tracing::warn!(
            "the system refuses SCHED_IDLE ({refused}); background threads {}",
            if is_nice {
                "have nice 19 instead, and urgent work waits for them a little longer"
            } else {
                "run like all others, and urgent work waits for them"
            }
        );
    });
}

impl ThreadId {
    pub(crate) fn current() -> ThreadId {
        // SAFETY: asks for a number.
        ThreadId(unsafe { libc::gettid() })
    }

    pub(crate) fn from_raw(id: i32) -> Option<ThreadId> {
        (id > 0).then_some(ThreadId(id))
    }

    pub(crate) fn as_raw(self) -> i32 {
        self.0
    }

    fn nice(self) -> i32 {
        // SAFETY: asks for a number.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, self.0.cast_unsigned()) }
    }

    fn set_nice(self, nice: i32) -> io::Result<()> {
        // SAFETY: numbers only.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, self.0.cast_unsigned(), nice) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Makes it nicer by so much, and lets it run for short times. It cannot come back without privilege.
    pub(crate) fn yield_to_others(self, more: i32) {
        let nice = self.nice().saturating_add(more).min(MOST_NICE);
        if let Err(error) = self.set_nice(nice) {
            static REFUSED: Once = Once::new();
            REFUSED.call_once(|| {
                tracing::warn!(
                    "the system refuses to make a thread nice ({error}); P0 jobs wait for P1 jobs"
                );
            });
        }
        self.ask_for_short_slices(nice);
    }

    /// Where that is refused, or means nothing, slices are those of everybody.
    fn ask_for_short_slices(self, nice: i32) {
        // SAFETY: asks for a number.
        let policy = unsafe { libc::sched_getscheduler(self.0) };
        if policy != libc::SCHED_OTHER {
            // Somebody has said what else it is to be.
            return;
        }
        let attributes = Attributes {
            size: u32::try_from(size_of::<Attributes>()).expect("it is small"),
            policy: policy.cast_unsigned(),
            nice,
            runtime: YIELDING_SLICE_NS,
            ..Attributes::default()
        };
        // SAFETY: the kernel reads as many bytes as `size` says.
        unsafe { libc::syscall(libc::SYS_sched_setattr, self.0, &raw const attributes, 0) };
    }
}
