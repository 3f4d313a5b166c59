//! The suite `mixed`: urgent work, bulk, and jobs that block, all at once, on a machine that is kept full.
//!
//! A sample is the time of an urgent job from when it was meant to come to its end. What else became of
//! the load stands beside it in the table, and each figure that has a bar is compared round by round
//! with the row that is the bar: the median of these ratios is what counts.

mod hosts;
mod kernel;
mod load;
mod work;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hosts::{Apart, Host, Ours, Rayon, Reiver, Strict, Tokio};
use kernel::{Ask, Policy};
use load::{Allocator, Beside, Bulk, Load};
use reiver::Priority;

use crate::case::{Case, Contender, Outcome, Task, floor, ours, peer};

/// The row that most others are compared with.
const REAL_TIME: &str = "real-time urgent threads";

const P2: Ours = Ours {
    bulk: Priority::P2,
    has_checkpoints: false,
    shields_locks: false,
};
const P1: Ours = Ours {
    bulk: Priority::P1,
    has_checkpoints: false,
    shields_locks: false,
};

const POISSON: Load = Load {
    bulk: Bulk::Poisson { total: 0.7 },
    ..Load::HEADLINE
};
const BACKLOG: Load = Load {
    bulk: Bulk::Backlog(20_000),
    ..Load::HEADLINE
};
const LOOPS: Load = Load {
    bulk: Bulk::Loops(100_000),
    ..Load::HEADLINE
};

/// All of them, in the order in which they are told.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        case(
            "headline",
            "urgent jobs of 200 us beside saturating bulk of 5 ms and jobs that block",
            REAL_TIME,
            all(false),
        ),
        case(
            "half-as-often",
            "the same with half as many urgent jobs, and half as many that block",
            REAL_TIME,
            vec![
                ours("reiver", |task| on(task, HALF, P2)),
                peer("hand-written, SCHED_IDLE", |task| {
                    apart(task, HALF, |_| Ask::ORDINARY, IDLE)
                }),
                floor(REAL_TIME, |task| apart(task, HALF, |_| real_time(1), IDLE)),
            ],
        )
        .slow(),
        case(
            "poisson",
            "the same with bulk that comes at random, 70 % load in all",
            REAL_TIME,
            all(true),
        ),
        case(
            "p1-bulk",
            "the same with bulk of the default priority, 5 ms, saturating",
            "reiver, bulk at P2",
            ordinary_bulk(),
        ),
        case(
            "others",
            "bulk of the default priority, few urgent jobs, and another program on all CPUs",
            "reiver, not yielding",
            vec![
                ours("reiver", |task| beside_others(task, true)),
                floor("reiver, not yielding", |task| beside_others(task, false)),
            ],
        ),
        case(
            "backlog",
            "the same with 20,000 background jobs queued at the start",
            "reiver, four outstanding",
            vec![
                ours("reiver", |task| on(task, BACKLOG, P2)),
                floor("reiver, four outstanding", |task| {
                    on(task, Load::HEADLINE, P2)
                }),
            ],
        ),
        case(
            "fork-join",
            "the same with loops over bodies of 1 us at the default priority in place of the bulk",
            "reiver",
            vec![
                ours("reiver", |task| on(task, LOOPS, P1)),
                peer("rayon, as many threads", |task| {
                    measure(task, LOOPS, Arc::new(Rayon::beside_plain(task.threads)))
                }),
            ],
        ),
        case(
            "quota",
            "half the load inside a CPU quota of half the CPUs",
            "reiver, on half the CPUs",
            vec![
                ours("reiver", |task| {
                    let _quota = kernel::Quota::of_half()?;
                    half(task)
                }),
                floor("reiver, on half the CPUs", |task| {
                    kernel::confine_to_half()?;
                    half(task)
                }),
                peer("hand-written, SCHED_IDLE", |task| {
                    let _quota = kernel::Quota::of_half()?;
                    half_apart(task)
                }),
                peer("that, on half the CPUs", |task| {
                    kernel::confine_to_half()?;
                    half_apart(task)
                }),
            ],
        ),
        case(
            "locks",
            "the load of the headline where jobs allocate, or share a lock for 50 us each",
            "reiver",
            vec![
                ours("reiver", |task| on(task, Load::HEADLINE, P2)),
                floor("reiver, glibc allocates", |task| {
                    on(task, allocating(Allocator::System), P2)
                }),
                floor("reiver, mimalloc allocates", |task| {
                    on(task, allocating(Allocator::Mimalloc), P2)
                }),
                floor("reiver, a shared lock", |task| on(task, LOCKED, P2)),
                floor("reiver, a lock held at P0", |task| {
                    let how = Ours {
                        shields_locks: true,
                        ..P2
                    };
                    on(task, LOCKED, how)
                }),
            ],
        ),
    ]
}

/// What was compared for urgent work beside ordinary work, on threads of each their own.
fn ordinary_bulk() -> Vec<Contender> {
    const LOAD: Load = Load::HEADLINE;
    vec![
        ours("reiver", |task| on(task, LOAD, P1)),
        ours("reiver with checkpoints", |task| {
            let how = Ours {
                has_checkpoints: true,
                ..P1
            };
            on(task, LOAD, how)
        }),
        floor("reiver, not yielding", |task| {
            let builder = reiver::Engine::builder().cpu_workers(task.threads);
            let host = Reiver::of(builder.yield_to_urgent(false), P1)?;
            measure(task, LOAD, Arc::new(host))
        }),
        floor("reiver, bulk at P2", |task| on(task, LOAD, P2)),
        peer("hand-written, shared", |task| strict(task, LOAD, false)),
        peer("hand-written, own threads", |task| {
            apart(task, LOAD, |_| Ask::ORDINARY, Ask::ORDINARY)
        }),
        peer("hand-written, nice bulk", |task| {
            apart(task, LOAD, |_| Ask::ORDINARY, NICE)
        }),
        peer("hand-written, nice, slice", |task| {
            apart(task, LOAD, |_| SHORT, NICE)
        }),
        peer("hand-written, nice, slices", |task| {
            let bulk = Ask {
                slice_us: Some(100),
                ..NICE
            };
            apart(task, LOAD, |_| SHORT, bulk)
        }),
        peer("hand-written, slices", |task| {
            apart(task, LOAD, |_| SHORT, SHORT)
        }),
    ]
}

/// What it costs ordinary work to yield to urgent work: others do not know what it is for.
fn beside_others(task: &Task, yields: bool) -> Outcome {
    let builder = reiver::Engine::builder().cpu_workers(task.threads);
    let host = Reiver::of(builder.yield_to_urgent(yields), P1)?;
    let _others = kernel::Others::start(task.threads)?;
    measure(task, SELDOM_URGENT, Arc::new(host))
}

const SELDOM_URGENT: Load = Load {
    urgent_per_s: 100,
    blocking_per_s: 100,
    ..Load::HEADLINE
};
const HALF: Load = Load {
    urgent_per_s: Load::HEADLINE.urgent_per_s / 2,
    blocking_per_s: Load::HEADLINE.blocking_per_s / 2,
    ..Load::HEADLINE
};
const LOCKED: Load = Load {
    beside: Beside::Locks(Duration::from_micros(50)),
    ..Load::HEADLINE
};

fn allocating(allocator: Allocator) -> Load {
    Load {
        beside: Beside::Allocates(allocator),
        ..Load::HEADLINE
    }
}

/// With as many workers as the engine takes by itself.
fn half(task: &Task) -> Outcome {
    measure(
        task,
        HALF,
        Arc::new(Reiver::of(reiver::Engine::builder(), P2)?),
    )
}

/// With as many threads as the standard library counts, which knows of quotas too.
fn half_apart(task: &Task) -> Outcome {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let host = Apart::start(threads, |_| Ask::ORDINARY, IDLE)?;
    measure(task, HALF, Arc::new(host))
}

const NICE: Ask = Ask {
    nice: Some(10),
    ..Ask::ORDINARY
};
const SHORT: Ask = Ask {
    slice_us: Some(100),
    ..Ask::ORDINARY
};
const IDLE: Ask = Ask {
    policy: Policy::Idle,
    ..Ask::ORDINARY
};

fn real_time(priority: u32) -> Ask {
    Ask {
        policy: Policy::RealTime(priority),
        ..Ask::ORDINARY
    }
}

fn case(
    name: &'static str,
    what: &'static str,
    bar: &'static str,
    contenders: Vec<Contender>,
) -> Case {
    let case = Case::new("mixed", (name, "us"), what, contenders);
    // The load keeps this machine full, and what is done of it a second is among the figures.
    case.against(bar).on_all_cpus().no_rate().in_rounds(9)
}

/// Everybody, by the function that puts the load on a host.
macro_rules! everybody {
    ($load:expr) => {
        vec![
            ours("reiver", |task| on(task, $load, P2)),
            ours("reiver with checkpoints", |task| {
                let how = Ours {
                    has_checkpoints: true,
                    ..P2
                };
                on(task, $load, how)
            }),
            peer("rayon, as many threads", |task| {
                measure(task, $load, Arc::new(Rayon::start(task.threads)))
            }),
            peer("rayon, 16 threads", |task| {
                measure(task, $load, Arc::new(Rayon::start(16)))
            }),
            peer("tokio, spawn_blocking", |task| {
                measure(task, $load, Arc::new(Tokio::start(task.threads)))
            }),
            peer("rayon and I/O threads", |task| {
                measure(task, $load, Arc::new(Rayon::beside_plain(task.threads)))
            }),
            peer("hand-written, strict", |task| strict(task, $load, false)),
            peer("hand-written, checkpoints", |task| {
                strict(task, $load, true)
            }),
            peer("hand-written, SCHED_IDLE", |task| {
                apart(task, $load, |_| Ask::ORDINARY, IDLE)
            }),
            floor(REAL_TIME, |task| apart(task, $load, |_| real_time(1), IDLE)),
            floor("real-time, also who submits", |task| {
                let host = Apart::start(task.threads, |_| real_time(1), IDLE)?;
                submitted_in_time(task, $load, Arc::new(host))
            }),
            floor("reiver, who submits real-time", |task| {
                submitted_in_time(task, $load, Arc::new(Reiver::start(task, P2)?))
            }),
        ]
    };
}

fn all(is_poisson: bool) -> Vec<Contender> {
    if is_poisson {
        everybody!(POISSON)
    } else {
        everybody!(Load::HEADLINE)
    }
}

/// Puts the load on a host, and tells what became of it.
fn measure(task: &Task, load: Load, host: Arc<dyn Host>) -> Outcome {
    // A budget is meant for samples of some milliseconds; the tail of a load wants more.
    let lasts = 3 * task.budget;
    let report = load::run(host, load, lasts.max(Duration::from_millis(50)), task.seed);
    task.tell(report.figures());
    Ok(report.urgent_us)
}

/// As [`measure`], by threads that come before all of the host's.
fn submitted_in_time(task: &Task, load: Load, host: Arc<dyn Host>) -> Outcome {
    kernel::granted(real_time(2).apply())?;
    measure(task, load, host)
}

fn on(task: &Task, load: Load, how: Ours) -> Outcome {
    measure(task, load, Arc::new(Reiver::start(task, how)?))
}

fn strict(task: &Task, load: Load, has_checkpoints: bool) -> Outcome {
    measure(task, load, Arc::new(Strict::start(task, has_checkpoints)))
}

fn apart(task: &Task, load: Load, urgent: impl Fn(usize) -> Ask, bulk: Ask) -> Outcome {
    let host = Apart::start(task.threads, urgent, bulk)?;
    measure(task, load, Arc::new(host))
}
