//! Threads for jobs that compute and block by turns: as many of them are in a job as there are CPU
//! workers, and one more for each that blocks.
//!
//! They are the elastic threads of [`io`](crate::io), in three pools: those of P0, those of P1, which yield
//! to urgent work as ordinary workers do, and those of P2, which the kernel may stop at any step, as
//! background workers; what these want of their pool the spawner does for them, for the lock of it is also
//! that of whoever submits. What bounds a pool is how many of its threads may be in a job at once, its places;
//! a thread that finds none free sleeps, and ends after a while.
//!
//! One thread a pool, its regulator, sets the places. It looks at the threads that are in jobs: what share
//! of the time since its last look each was blocked is what it neither computed nor waited for a CPU. The
//! kernel adds to the latter only once a thread gets its CPU, so one that is able to run when looked at is
//! not blocked, whatever that says. The sum, rounded, is how many are blocked. While jobs wait and no place
//! is free it looks every millisecond, or, where there are many threads, so seldom that it takes a tenth of
//! a CPU at the most; else ten times a second while any job runs, for the metrics. While none does it
//! sleeps. That of the background also gives a job of each node where none was taken for too long to the
//! ordinary threads.
//!
//! Where `/proc` cannot be read a thread is blocked that has not computed at all for a while.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::auto::{Queued, queued};
use crate::clock::Stamp;
use crate::cpu_time;
use crate::io::{Io, Pool};
use crate::shared::Shared;
use crate::spawner::Request;

/// The least between two looks while jobs wait.
const SHORT: Duration = Duration::from_millis(1);
/// A look takes this share of the time at the most.
const REST_PER_LOOK: u32 = 10;
/// Between two looks for the metrics.
const LAZY: Duration = Duration::from_millis(100);
/// A thread that has not computed for so long is blocked, where more is not known: beside as many others
/// as one has CPUs it would have had one in between. One of the background need not, and seems blocked then.
const STILL: Duration = Duration::from_millis(50);

/// A thread of a pool, for others to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pub(crate) id: i32,
    pub(crate) clock: Option<libc::clockid_t>,
}

/// What a thread was found doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// On a CPU, or waiting for one.
    Able,
    Asleep,
    /// It cannot be read.
    Unknown,
}

/// What is known of a thread from a look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    at: Stamp,
    cpu: Duration,
    queued: Option<Duration>,
    state: State,
    /// Since when it has not computed.
    still_since: Stamp,
}

/// A thread that was blocked all the time.
const WHOLE: u128 = 1000;

/// Of the time since `before`, the share that it was blocked, in thousandths.
fn blocked(before: &Seen, now: &Seen) -> u128 {
    let wall = now.at.since(before.at);
    if wall.is_zero() {
        return 0;
    }
    match now.state {
        State::Able => 0,
        State::Asleep => {
            let queued = match (before.queued, now.queued) {
                (Some(before), Some(now)) => now.saturating_sub(before),
                _ => Duration::ZERO,
            };
            let computed = now.cpu.saturating_sub(before.cpu);
            let blocked = wall.saturating_sub(computed + queued);
            WHOLE * blocked.as_nanos() / wall.as_nanos()
        }
        State::Unknown if now.at.since(now.still_since) >= STILL => WHOLE,
        State::Unknown => 0,
    }
}

/// Looks at a thread of this process.
fn look(proc: &Path, thread: Watched, before: Option<&Seen>) -> Option<Seen> {
    let at = Stamp::now();
    let cpu = cpu_time::read(thread.clock?)?;
    let is_still = before.is_some_and(|before| before.cpu == cpu);
    let folder = proc.join("self/task").join(thread.id.to_string());
    let state = state(&folder.join("stat"));
    let queued = match queued(&folder.join("schedstat")) {
        Queued::For(time) => Some(time),
        Queued::Unread | Queued::Uncounted => None,
    };
    Some(Seen {
        at,
        cpu,
        queued,
        state,
        still_since: before
            .filter(|_| is_still)
            .map_or(at, |before| before.still_since),
    })
}

/// The third field of a `stat`, which follows the name, and that may have any brackets in it.
fn state(stat: &Path) -> State {
    let letter = std::fs::read(stat).ok().and_then(|text| {
        let end = text.iter().rposition(|&byte| byte == b')')?;
        text.get(end + 2).copied()
    });
    match letter {
        Some(b'R') => State::Able,
        Some(_) => State::Asleep,
        None => State::Unknown,
    }
}

/// What the regulator of a pool remembers from look to look, by thread.
#[derive(Debug, Default)]
pub(crate) struct Looks(std::collections::HashMap<u64, Seen>);

impl Looks {
    /// How many of these threads are blocked; what was seen before of one that is `fresh`, which was not in
    /// a job for a while, says nothing.
    pub(crate) fn blocked(&mut self, proc: &Path, threads: &[(u64, Watched, bool)]) -> usize {
        let before = std::mem::take(&mut self.0);
        let mut sum = 0;
        for &(number, thread, is_fresh) in threads {
            let before = before.get(&number).filter(|_| !is_fresh);
            let Some(now) = look(proc, thread, before) else {
                continue;
            };
            sum += before.map_or(0, |before| blocked(before, &now));
            self.0.insert(number, now);
        }
        usize::try_from((sum + WHOLE / 2) / WHOLE).expect("there are no more than threads")
    }
}

/// The life of the regulator of a pool.
pub(crate) fn regulate(shared: &Arc<Shared>, pool: Pool) {
    let io = shared.pool(pool);
    let mut looks = Looks::default();
    let mut pause = SHORT;
    while let Some(threads) = io.next_look(pause, LAZY) {
        let begun = Stamp::now();
        if pool == Pool::BackgroundHybrid {
            relieve(shared, io);
        }
        let blocked = looks.blocked("/proc".as_ref(), &threads);
        let wanted = io.set_blocked(blocked, &shared.machine.near);
        pause = (begun.elapsed() * REST_PER_LOOK).max(SHORT);
        ask(shared, pool, wanted);
    }
}

/// Where the background has taken none of its jobs for too long, ordinary threads do one of them.
fn relieve(shared: &Arc<Shared>, background: &Io) {
    for (node, job) in background.take_overdue() {
        let ordinary = shared.pool(Pool::Hybrid);
        let wanted = ordinary.push_overdue(&shared.machine.near[node], job);
        // It lay in no queue meanwhile.
        shared.end_queued_if_ending();
        ask(shared, Pool::Hybrid, wanted.thread());
    }
}

/// Where the system refuses the regulator, nobody knows who is blocked: then all may be.
pub(crate) fn do_without(shared: &Arc<Shared>, pool: Pool) {
    let io: &Io = shared.pool(pool);
    let wanted = io.set_blocked(usize::MAX, &shared.machine.near);
    ask(shared, pool, wanted);
}

fn ask(shared: &Arc<Shared>, pool: Pool, wanted: impl IntoIterator<Item = usize>) {
    for node in wanted {
        let request = Request::Io(Arc::downgrade(shared), pool, node);
        shared.spawner.ask(request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Instant;

    use crate::cell::{AnyJob, Outcome};
    use crate::protocol::refs::Ref;
    use crate::room::Entry;
    use crate::{Class, Engine, JobError, Priority};

    fn seen(at: u64, cpu: u64, queued: Option<u64>, state: State) -> Seen {
        let start = Stamp::now();
        // One that is so many ms later, whatever the clock's ticks are.
        let tick = {
            let later = Stamp::from_ticks(start.ticks() + 1_000_000);
            later.since(start).as_nanos()
        };
        let ticks = u128::from(at) * 1_000_000 * 1_000_000 / tick;
        Seen {
            at: Stamp::from_ticks(u64::try_from(ticks).unwrap()),
            cpu: Duration::from_millis(cpu),
            queued: queued.map(Duration::from_millis),
            state,
            still_since: Stamp::from_ticks(0),
        }
    }

    #[test]
    fn what_a_thread_neither_computed_nor_waited_for_a_cpu_it_was_blocked() {
        let before = seen(1000, 0, Some(0), State::Able);
        let share = |now: Seen| (blocked(&before, &now) + 5) / 10;
        assert_eq!(share(seen(1100, 0, Some(0), State::Asleep)), 100);
        assert_eq!(share(seen(1100, 20, Some(30), State::Asleep)), 50);
        assert_eq!(share(seen(1100, 90, Some(30), State::Asleep)), 0);
        // The kernel may not have counted yet how long it waits for its CPU.
        assert_eq!(share(seen(1100, 0, Some(0), State::Able)), 0);
        // Nobody counts that: what it did not compute it was blocked.
        assert_eq!(share(seen(1100, 40, None, State::Asleep)), 60);
    }

    #[test]
    fn where_nothing_can_be_read_one_is_blocked_that_stands_still() {
        let before = seen(1000, 0, None, State::Unknown);
        let now = |at: u64, still: u64| Seen {
            still_since: seen(still, 0, None, State::Unknown).at,
            ..seen(at, 0, None, State::Unknown)
        };
        assert_eq!(blocked(&before, &now(1100, 1000)), WHOLE);
        assert_eq!(blocked(&before, &now(1100, 1080)), 0);
    }

    /// On the kernel that there is, and where there is no `/proc`.
    #[test]
    fn threads_that_sleep_are_counted_and_those_that_compute_are_not() {
        for proc in ["/proc", "/nowhere"] {
            let proc = Path::new(proc);
            let (says, hears) = channel();
            let own = || Watched {
                // SAFETY: asks for a number.
                id: unsafe { libc::gettid() },
                clock: cpu_time::own_clock(),
            };
            let stop = std::sync::atomic::AtomicBool::new(false);
            let (stop, begun) = (&stop, Instant::now());
            thread::scope(|scope| {
                let mut sleepers = Vec::new();
                let computing = 2 * thread::available_parallelism().unwrap().get();
                for number in 0..3 + computing {
                    let says = says.clone();
                    let (go, wait) = channel::<()>();
                    scope.spawn(move || {
                        says.send((number as u64, own(), false)).unwrap();
                        if number < 3 {
                            let _ = wait.recv();
                            return;
                        }
                        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                            assert!(begun.elapsed() < Duration::from_secs(200));
                        }
                    });
                    sleepers.push(go);
                }
                let threads: Vec<_> = hears.iter().take(3 + computing).collect();
                let mut looks = Looks::default();
                assert_eq!(looks.blocked(proc, &threads), 0, "there was no look before");
                let mut blocked = Vec::new();
                for _ in 0..5 {
                    thread::sleep(Duration::from_millis(120));
                    blocked.push(looks.blocked(proc, &threads));
                }
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                drop(sleepers);
                // One that computes may be seen without a CPU for as long once, beside other programs.
                blocked.sort_unstable();
                let is_right = match proc.exists() {
                    true => blocked[2] == 3,
                    // By the CPU time alone, who gets no CPU seems to wait.
                    false => blocked[2] >= 3,
                };
                assert!(is_right, "{blocked:?} in {}", proc.display());
            });
        }
    }

    /// A background job that has been admitted and lies nowhere yet.
    fn admitted<T: Send + 'static>(
        engine: &Engine,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> (Ref<dyn AnyJob>, Ref<dyn Outcome<T>>) {
        let job = engine.job().class(Class::Hybrid).priority(Priority::P2);
        let cell = job.into_cell(move |_| body()).unwrap();
        let shared = engine.shared();
        shared.admit(Class::Hybrid, Entry::Queued).unwrap();
        cell.split()
    }

    #[test]
    fn who_takes_any_job_while_it_waits_does_one_that_was_the_backgrounds() {
        let engine = Engine::builder().cpu_workers(1).build().unwrap();
        // Where the system has refused a thread, who waits does such jobs itself.
        engine.shared().pool(Pool::Hybrid).note_refused();
        let (says, hears) = channel();
        let hears = std::sync::Mutex::new(hears);
        let job = engine.job().class(Class::Hybrid).submit(move |ctx| {
            let (job, handle) = admitted(ctx.engine(), move || says.send(7).unwrap());
            let shared = ctx.engine().shared();
            let near = &shared.machine.near[0];
            let _ = shared.pool(Pool::Hybrid).push_overdue(near, job);
            let batch = ctx.engine().batch(0..1).class(Class::Io);
            let batch = batch.map(move |_, _| hears.lock().unwrap().recv().unwrap());
            let heard: Vec<_> = batch.unordered().map(Result::unwrap).collect();
            (heard, handle.is_ended())
        });
        assert_eq!(job.unwrap().join().unwrap(), (vec![7], true));
    }

    #[test]
    fn what_the_background_is_relieved_of_ends_with_its_engine() {
        let builder = Engine::builder().cpu_workers(1);
        let engine = builder.background_patience(Duration::ZERO).build().unwrap();
        let (job, handle) = admitted(&engine, || ());
        let shared = engine.shared();
        shared.close();
        shared.end_queued();
        // As if it had been taken before.
        let background = shared.pool(Pool::BackgroundHybrid);
        let _ = background.push(&shared.machine.near[0], job);
        relieve(shared, background);
        assert!(matches!(handle.take(None), Some(Err(JobError::ShutDown))));
    }
}
