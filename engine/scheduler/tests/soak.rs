//! Everything at once for as long as one likes: jobs of each class and priority that compute, block, fork,
//! submit others, panic, are cancelled, or late, from several threads, on engines that end in the midst of it.
//! Each round is checked: no job is lost, each has ended in one way and is counted as that, what it
//! owned was dropped once, and nothing of the engine's is left when that has gone. Over the rounds memory
//! stays what it was, and within one that is long.
//!
//! ```text
//! cargo test --release -p reiver --test soak -- --seconds 600 [--round SECONDS, up to 250] [--seed N]
//! ```
//!
//! In a process of its own, so that it sees the memory of its engines alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use reiver::limit::HybridLimiter;
use reiver::{
    Breaker, CancellationToken, Class, Engine, JobContext, JobCounts, JobError, JobHandle,
    Priority, SubmitError, WhenFull,
};

/// Counts the bytes that are allocated.
struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("no object is so large")
}

// SAFETY: it does what the system's does, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(signed(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(signed(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How long a round lasts unless that is said, if its engine does not end before.
const ROUND: Duration = Duration::from_millis(900);
/// One that lasts for so long is long: what is allocated in its second half is compared with that in its first.
const LONG: Duration = Duration::from_secs(10);
/// Those of other threads than the engine's.
const SUBMITTERS: u64 = 3;
/// Jobs that come from outside submit others, and those too, and no more.
const DEPTH: u32 = 2;
/// So many handles a submitter keeps at once.
const KEPT: usize = 256;
/// What rounds may differ by in the memory that is left after them: what the process keeps for itself.
const SLACK_BYTES: i64 = 64 << 10;
const SLACK_RESIDENT_KIB: u64 = 32 << 10;
/// And the halves of a long one: what happens to be under way.
const SLACK_UNDER_WAY: i64 = 8 << 20;

/// Xorshift, by Marsaglia.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, cases: u64) -> bool {
        self.below(cases) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = self.below(choices.len() as u64);
        choices[usize::try_from(index).expect("it is small")]
    }
}

/// What became of the jobs of a round, as those see it who submit them and who run them.
#[derive(Debug, Default)]
struct Ledger {
    /// Closures that were made and dropped; each job has one.
    made: AtomicU64,
    dropped: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
    /// Taken, and their handles dropped.
    forgotten: AtomicU64,
    /// Those of several at once that came to nothing because the engine ended: whether each was taken before
    /// its handle does not say.
    unclear: AtomicU64,
    completed: AtomicU64,
    panicked: AtomicU64,
    cancelled: AtomicU64,
    late: AtomicU64,
    shut_down: AtomicU64,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// What a job owns.
#[derive(Debug)]
struct Owned {
    ledger: Arc<Ledger>,
    _memory: Vec<u8>,
}

impl Owned {
    fn new(ledger: &Arc<Ledger>, bytes: u64) -> Owned {
        add(&ledger.made);
        Owned {
            ledger: Arc::clone(ledger),
            _memory: vec![1; usize::try_from(bytes).expect("it is small")],
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        add(&self.ledger.dropped);
    }
}

impl Ledger {
    fn note(&self, outcome: &Result<u64, JobError>) {
        add(match outcome {
            Ok(_) => &self.completed,
            Err(JobError::Panicked(_)) => &self.panicked,
            Err(JobError::Cancelled) => &self.cancelled,
            Err(JobError::DeadlineExceeded { .. }) => &self.late,
            Err(JobError::ShutDown) => &self.shut_down,
            Err(JobError::Rejected(_)) => &self.refused,
            Err(other) => panic!("nobody knows {other}"),
        });
    }

    fn note_one_of_many(&self, outcome: &Result<u64, JobError>) {
        match outcome {
            Err(JobError::ShutDown) => return add(&self.unclear),
            Err(JobError::Rejected(_)) => {}
            _ => add(&self.taken),
        }
        self.note(outcome);
    }

    /// The engine's own numbers are those of all who have seen it.
    fn check(&self, counts: JobCounts) {
        assert_eq!((counts.queued, counts.running), (0, 0), "{counts:?}");
        let cleared = counts.submitted.checked_sub(get(&self.taken));
        let cleared = cleared.unwrap_or_else(|| panic!("{counts:?} {self:?}"));
        let refused = counts.rejected.checked_sub(get(&self.refused));
        let refused = refused.unwrap_or_else(|| panic!("{counts:?} {self:?}"));
        assert_eq!(cleared + refused, get(&self.unclear), "{counts:?} {self:?}");
        let ends = [
            (counts.completed, &self.completed),
            (counts.panicked, &self.panicked),
            (counts.cancelled, &self.cancelled),
            (counts.deadline_exceeded, &self.late),
            (counts.shut_down, &self.shut_down),
        ];
        let mut sum = 0;
        let mut unseen = 0;
        for (counted, seen) in ends {
            sum += counted;
            let more = counted.checked_sub(get(seen));
            unseen += more.unwrap_or_else(|| panic!("{counts:?} {self:?}"));
        }
        assert_eq!(sum, counts.submitted, "{counts:?}");
        assert_eq!(
            unseen,
            get(&self.forgotten) + cleared,
            "{counts:?} {self:?}"
        );
    }
}

/// What a job does.
#[derive(Debug, Clone, Copy)]
enum Act {
    Computes,
    Sleeps,
    Panics,
    /// Until it is told to end, or for some ms.
    Checks,
    Joins,
    Loops,
    /// Submits one, and waits for it.
    Asks,
    /// Submits some, and does not.
    Spreads,
}

const ACTS: [Act; 12] = [
    Act::Computes,
    Act::Computes,
    Act::Computes,
    Act::Sleeps,
    Act::Sleeps,
    Act::Panics,
    Act::Checks,
    Act::Checks,
    Act::Joins,
    Act::Loops,
    Act::Asks,
    Act::Spreads,
];

fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = reiver::join(|| fib(n - 1), || fib(n - 2));
    a + b
}

/// What a job does, `depth` others below it.
fn act(ctx: &JobContext, owned: &Owned, seed: u64, depth: u32) -> u64 {
    let random = &mut Random(seed | 1);
    let ledger = &owned.ledger;
    let time = Duration::from_micros(random.below(200));
    match random.of(&ACTS) {
        Act::Computes => spin(time),
        Act::Sleeps => thread::sleep(time * 4),
        Act::Panics => std::panic::resume_unwind(Box::new("meant")),
        Act::Checks => {
            let begun = Instant::now();
            while ctx.checkpoint().is_ok() && begun.elapsed() < time * 20 {
                thread::yield_now();
            }
        }
        Act::Joins => return fib(8),
        Act::Loops => {
            let sum = AtomicU64::new(0);
            reiver::par_for(0..500, 16, |_| add(&sum));
            return get(&sum);
        }
        Act::Asks if depth > 0 => {
            if let Ok(job) = submit(ctx.engine(), ledger, random, None, depth - 1) {
                let outcome = job.join();
                ledger.note(&outcome);
            }
        }
        Act::Spreads if depth > 0 => {
            for _ in 0..3 {
                if let Ok(job) = submit(ctx.engine(), ledger, random, None, depth - 1) {
                    add(&ledger.forgotten);
                    drop(job);
                }
            }
        }
        Act::Asks | Act::Spreads => {}
    }
    seed
}

/// Submits a job of any kind.
fn submit(
    engine: &Engine,
    ledger: &Arc<Ledger>,
    random: &mut Random,
    token: Option<&CancellationToken>,
    depth: u32,
) -> Result<JobHandle<u64>, SubmitError> {
    let class = random.of(&[
        Class::Cpu,
        Class::Cpu,
        Class::Io,
        Class::Hybrid,
        Class::Auto,
    ]);
    let priority = random.of(&[Priority::P0, Priority::P1, Priority::P1, Priority::P2]);
    let mut job = engine.job().class(class).priority(priority);
    match random.below(12) {
        0 => job = job.name("fails"),
        // Not from inside of others, which may hold what it would wait for.
        1 if depth == DEPTH => job = job.name("limited"),
        2 | 3 => job = job.name(format!("one of many {}", random.below(5000))),
        _ => {}
    }
    if random.one_in(8) {
        job = job.deadline(Duration::from_micros(random.below(3000)));
    }
    if let Some(token) = token {
        job = job.cancel_with(token);
    }
    let owned = Owned::new(ledger, random.below(400));
    let seed = random.next();
    let submitted = job.submit(move |ctx| act(ctx, &owned, seed, depth));
    add(match submitted {
        Ok(_) => &ledger.taken,
        Err(_) => &ledger.refused,
    });
    submitted
}

/// One of those that bring work from outside, until the round is over.
fn bring(engine: &Engine, ledger: &Arc<Ledger>, seed: u64, is_over: &AtomicBool) {
    let random = &mut Random(seed | 1);
    let mut kept: VecDeque<JobHandle<u64>> = VecDeque::new();
    let mut tokens: VecDeque<CancellationToken> = VecDeque::new();
    let root = CancellationToken::new();
    while !is_over.load(Ordering::Relaxed) {
        if tokens.len() < 16 {
            let token = match tokens.back() {
                Some(token) if random.one_in(2) => token.child(),
                _ => root.child(),
            };
            tokens.push_back(token);
        }
        let token = tokens.back().filter(|_| random.one_in(3)).cloned();
        if let Ok(job) = submit(engine, ledger, random, token.as_ref(), DEPTH) {
            if random.one_in(4) {
                add(&ledger.forgotten);
            } else {
                kept.push_back(job);
            }
        }
        if random.one_in(20)
            && let Some(token) = tokens.pop_front()
        {
            token.cancel();
        }
        if random.one_in(200) {
            many(engine, ledger, random, &mut kept);
        }
        if random.one_in(400) {
            batch(engine, ledger, random);
        }
        if random.one_in(50) {
            thread::sleep(Duration::from_micros(random.below(2000)));
        }
        while kept.len() > KEPT {
            let job = kept.pop_front().expect("there are some");
            ledger.note(&job.join());
        }
    }
    root.cancel();
    kept.into_iter().for_each(|job| ledger.note(&job.join()));
}

/// Some at once.
fn many(
    engine: &Engine,
    ledger: &Arc<Ledger>,
    random: &mut Random,
    kept: &mut VecDeque<JobHandle<u64>>,
) {
    let jobs = random.below(200);
    let bodies: Vec<_> = (0..jobs)
        .map(|number| {
            let owned = Owned::new(ledger, 8);
            move |_: &JobContext| {
                let _owned = owned;
                number
            }
        })
        .collect();
    for job in engine.submit_many(bodies) {
        // Those that were not taken come as handles too.
        if job.is_finished() {
            ledger.note_one_of_many(&job.join());
        } else {
            add(&ledger.taken);
            kept.push_back(job);
        }
    }
}

/// One input after the other, all of them or none after the first that fails.
fn batch(engine: &Engine, ledger: &Arc<Ledger>, random: &mut Random) {
    let inputs = 1 + random.below(60);
    let fails = random.below(2 * inputs);
    let class = random.of(&[Class::Cpu, Class::Io, Class::Hybrid, Class::Auto]);
    let run = engine.batch(0..inputs).class(class).max_in_flight(8);
    let run = run.map(move |_, input| {
        if input == fails {
            std::panic::resume_unwind(Box::new("meant"));
        }
        input
    });
    let outcomes = run.collect();
    assert_eq!(outcomes.len() as u64, inputs);
    let note = |outcome| ledger.note_one_of_many(outcome);
    outcomes.iter().for_each(note);
}

fn engine(random: &mut Random) -> Engine {
    let mut builder = Engine::builder()
        .io_workers(0..=16)
        .background_patience(Duration::from_millis(20))
        .limit_name("limited", Arc::new(HybridLimiter::new(100_000, 100, 4)))
        .breaker(
            "fails",
            Breaker {
                failures: 0.3,
                window: 20,
                open_for: Duration::from_millis(5),
            },
        );
    if random.one_in(2) {
        builder = builder.cpu_workers(usize::try_from(1 + random.below(4)).expect("it is small"));
    }
    for class in [Class::Cpu, Class::Io, Class::Hybrid, Class::Auto] {
        if random.one_in(2) {
            let policy = random.of(&[WhenFull::Reject, WhenFull::Block, WhenFull::CallerRuns]);
            builder = builder.queue_capacity(class, 200).when_full(class, policy);
        }
    }
    if random.one_in(2) {
        builder = builder.watchdog(Duration::from_millis(5), |_| ());
    }
    builder.build().expect("the system gives threads")
}

/// One engine from its beginning to its end, which may come at any time.
fn round(random: &mut Random, usual: Duration) -> JobCounts {
    let ledger = Arc::new(Ledger::default());
    let engine = engine(random);
    let is_over = AtomicBool::new(false);
    let ends_early = random.one_in(3);
    let lasts = if ends_early {
        Duration::from_millis(random.below(200))
    } else {
        usual
    };
    // The most that was allocated in each half.
    let mut most = [0; 2];
    let seeds: Vec<u64> = (0..SUBMITTERS).map(|_| random.next()).collect();
    thread::scope(|scope| {
        let (engine, ledger, is_over) = (&engine, &ledger, &is_over);
        for seed in seeds {
            scope.spawn(move || bring(engine, ledger, seed, is_over));
        }
        let begun = Instant::now();
        while begun.elapsed() < lasts {
            thread::sleep(Duration::from_millis(5));
            let half = &mut most[usize::from(begun.elapsed() > lasts / 2)];
            *half = LIVE.load(Ordering::Relaxed).max(*half);
            // Whoever looks on finds nothing that cannot be.
            let counts = engine.metrics().total();
            assert!(counts.submitted >= counts.completed + counts.queued + counts.running);
            engine.running();
        }
        if ends_early {
            // Clean or not: the next one says what is left.
            let _ = engine.shutdown(lasts / 400);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(engine.shutdown(Duration::from_secs(3600)).is_clean());
    ledger.check(engine.metrics().total());
    let counts = engine.metrics().total();
    drop(engine);
    if lasts >= LONG {
        println!("soak: at most {most:?} bytes allocated in the halves of a round of {lasts:?}");
        assert!(
            most[1] <= most[0] + SLACK_UNDER_WAY,
            "memory grows: {most:?}"
        );
    }
    assert_eq!(get(&ledger.made), get(&ledger.dropped), "{ledger:?}");
    assert_eq!(Arc::strong_count(&ledger), 1);
    counts
}

/// In KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// Has freed what threads that are gone left to `crossbeam-epoch`, below the deques: of each a block of 2,304
/// bytes and some of 2,072. It is the process's and not an engine's, up to 64 of them lie in each thread's
/// bag until that is full, so after a round there is now more of it, now less.
fn free_what_threads_left() {
    // A block is free once the epoch has passed by; a call frees eight bags.
    (0..100).for_each(|_| crossbeam_epoch::pin().flush());
}

static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// Turns a hang into a failure: a round that takes minutes ends the process.
fn watch() {
    thread::spawn(|| {
        let mut before = u64::MAX;
        loop {
            let now = ROUNDS.load(Ordering::Relaxed);
            if now == before {
                eprintln!("soak: round {now} hangs: the watchdog ends the process");
                std::process::abort();
            }
            before = now;
            // Time in which the process is stopped does not count.
            (0..300).for_each(|_| thread::sleep(Duration::from_secs(1)));
        }
    });
}

fn argument(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.next()?;
    let value = arguments.next()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} {value}: give a number")),
    )
}

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let seconds = argument("--seconds").unwrap_or(3);
    let seed = argument("--seed").unwrap_or_else(|| u64::from(std::process::id()));
    println!("soak: {seconds} s, --seed {seed}");
    let usual = argument("--round").map_or(ROUND, Duration::from_secs);
    let random = &mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let begun = Instant::now();
    watch();
    let (mut rounds, mut jobs) = (0_u64, JobCounts::default());
    // What is left after each round: bytes that are allocated, and KiB that are resident.
    let mut left: Vec<(i64, u64)> = Vec::new();
    while begun.elapsed() < Duration::from_secs(seconds) || rounds < 3 {
        let counts = round(random, usual);
        rounds += 1;
        ROUNDS.store(rounds, Ordering::Relaxed);
        jobs.submitted += counts.submitted;
        jobs.completed += counts.completed;
        jobs.panicked += counts.panicked;
        jobs.cancelled += counts.cancelled;
        jobs.deadline_exceeded += counts.deadline_exceeded;
        jobs.shut_down += counts.shut_down;
        jobs.rejected += counts.rejected;
        free_what_threads_left();
        left.push((LIVE.load(Ordering::Relaxed), resident()));
        if rounds.is_multiple_of(50) {
            let (bytes, kib) = left[left.len() - 1];
            println!("soak: {rounds} rounds, {bytes} bytes allocated, {kib} KiB resident");
        }
    }
    println!("soak: {rounds} rounds, seed {seed}: {jobs:?}");
    // The first ones fill what the process keeps.
    let quarter = left.len().div_ceil(4);
    let most = |part: &[(i64, u64)]| {
        let bytes = part.iter().map(|&(bytes, _)| bytes).max().unwrap_or(0);
        (bytes, part.iter().map(|&(_, kib)| kib).max().unwrap_or(0))
    };
    let (first, last) = (
        most(&left[..2 * quarter]),
        most(&left[left.len() - quarter..]),
    );
    println!(
        "soak: at most {first:?} left in the first half of the rounds, {last:?} in the last quarter"
    );
    assert!(last.0 <= first.0 + SLACK_BYTES, "memory grows: {left:?}");
    assert!(
        last.1 <= first.1 + SLACK_RESIDENT_KIB,
        "memory grows: {left:?}"
    );
}
