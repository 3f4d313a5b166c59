//! What has gone wrong in other engines, held here: each test says whose story it is.

use std::collections::BTreeMap;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use reiver::{Class, Engine, NodeId, Topology};

use crate::size::sized;
use crate::watchdog::watched;
use crate::{Held, engine};

const LONG: Duration = Duration::from_secs(200);

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (left, right) = reiver::join(|| fib(n - 1), || fib(n - 2));
    left + right
}

/// Where frames were that have ended: whoever still writes there is seen.
#[inline(never)]
fn use_the_stack_again() {
    const PATTERN: u64 = 0xA5A5_5A5A_A5A5_5A5A;
    let mut frame = [PATTERN; 512];
    for _ in 0..4 {
        assert_eq!(*black_box(&mut frame), [PATTERN; 512]);
    }
}

/// rayon #739: the thread that set a latch touched it once more after its owner had seen it set,
/// returned, and used the stack for something else.
#[test]
fn a_latch_is_not_touched_once_its_owner_has_returned() {
    for workers in [2, 4] {
        let engine = engine(workers);
        let joins = || {
            for _ in 0..sized(10_000) {
                let begun = AtomicBool::new(false);
                let until_stolen = || {
                    while !begun.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                };
                reiver::join(until_stolen, || begun.store(true, Ordering::Relaxed));
                use_the_stack_again();
            }
        };
        thread::scope(|threads| {
            threads.spawn(|| engine.install(joins));
            for _ in 0..2 {
                threads.spawn(|| {
                    for _ in 0..sized(10_000) {
                        engine.install(|| black_box(1));
                        use_the_stack_again();
                        engine.join(|| black_box(1), || black_box(2));
                        use_the_stack_again();
                    }
                });
            }
        });
    }
}

/// rayon #739 again, for scopes: whoever ends the last that was spawned must not touch the scope
/// after that.
#[test]
fn a_scope_is_not_touched_once_its_owner_has_returned() {
    let engine = engine(3);
    engine.install(|| {
        for _ in 0..sized(10_000) {
            let begun = AtomicBool::new(false);
            reiver::scope(|scope| {
                scope.spawn(|_| begun.store(true, Ordering::Relaxed));
                while !begun.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            });
            use_the_stack_again();
        }
    });
}

/// rayon #945: several threads waited for one latch that could tell only one of them.
#[test]
fn all_who_wait_for_the_same_end_are_woken() {
    for _ in 0..sized(100) {
        let engine = engine(2);
        let held = Held::new(&engine);
        let all = Arc::new(Barrier::new(7));
        let waits = |engine: &Engine, all: &Barrier| {
            all.wait();
            engine.shutdown(LONG).is_clean()
        };
        let inside: Vec<_> = (0..2)
            .map(|_| {
                let all = Arc::clone(&all);
                let job = engine.job().class(Class::Io);
                job.submit(move |ctx| waits(ctx.engine(), &all)).unwrap()
            })
            .collect();
        thread::scope(|threads| {
            let outside = [(); 4].map(|()| threads.spawn(|| waits(&engine, &all)));
            all.wait();
            held.let_go();
            assert!(outside.into_iter().all(|thread| thread.join().unwrap()));
        });
        assert!(inside.into_iter().all(|job| job.join().unwrap()));
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// rayon #945 again, for a job: who has asked for it before and waits no more is not woken in place
/// of who does.
#[test]
fn whoever_asked_last_is_the_one_who_is_woken() {
    let engine = engine(1);
    for _ in 0..sized(1000) {
        let held = Held::new(&engine);
        let mut job = pin!(engine.submit(|_| 7));
        let wakes = [(); 3].map(|()| Arc::new(Wakes::default()));
        for wakes in &wakes {
            let waker = Waker::from(Arc::clone(wakes));
            let poll = job.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(poll.is_pending());
        }
        held.let_go();
        // One worker: once this has run, the other has ended and woken.
        engine.submit(|_| ()).join().unwrap();
        assert_eq!(
            wakes.map(|wakes| wakes.0.load(Ordering::Relaxed)),
            [0, 0, 1]
        );
        let poll = job.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(poll, Poll::Ready(Ok(7))));
    }
}

/// rayon #1064: each job that yielded had another put on top of it on the same stack, and hundreds of
/// them were too many. Here nobody yields; a wait is where that would be.
#[test]
fn jobs_that_wait_do_not_pile_up_on_one_stack() {
    let engine = engine(2);
    let stacks = Arc::new(Mutex::new(BTreeMap::new()));
    let jobs = (0..sized(5000)).map(|_| {
        let stacks = Arc::clone(&stacks);
        engine.submit(move |ctx| {
            let here = 0_u8;
            let here = (&raw const here).addr();
            let name = thread::current().name().map(str::to_owned);
            let mut stacks = stacks.lock().unwrap();
            let (low, high): &mut (usize, usize) = stacks.entry(name).or_insert((here, here));
            (*low, *high) = (here.min(*low), here.max(*high));
            drop(stacks);
            let io = ctx.engine().job().class(Class::Io);
            io.submit(|_| thread::yield_now()).unwrap().join().unwrap();
        })
    });
    let jobs: Vec<_> = jobs.collect();
    jobs.into_iter().for_each(|job| job.join().unwrap());
    for (name, (low, high)) in stacks.lock().unwrap().iter() {
        assert!(high - low < 1 << 20, "{name:?} uses {} bytes", high - low);
    }
}

/// rayon #1064 again, for forks: joins that wait for what was stolen run others meanwhile, on the same
/// stack, and those join in turn.
#[test]
fn joins_that_wait_have_room_on_their_stack_for_what_they_run_meanwhile() {
    let engine = engine(4);
    let ran = AtomicUsize::new(0);
    let forks = sized(20_000);
    engine.scope(|scope| {
        for _ in 0..forks {
            scope.spawn(|_| {
                let side = || {
                    thread::yield_now();
                    ran.fetch_add(1, Ordering::Relaxed);
                };
                reiver::join(side, || reiver::join(side, side));
            });
        }
    });
    assert_eq!(ran.into_inner(), 3 * forks);
}

/// RUSTSEC-2021-0093 (crossbeam-deque): a thief that was stopped while the owner's deque grew took one
/// that had been taken before, and another was forgotten.
#[test]
fn nothing_is_taken_twice_while_lists_grow_under_thieves() {
    let engine = engine(4);
    let numbers = sized(20_000);
    for _ in 0..sized(20) {
        let taken: Vec<AtomicU64> = (0..numbers).map(|_| AtomicU64::new(0)).collect();
        engine.scope(|scope| {
            for taken in &taken {
                scope.spawn(|_| {
                    taken.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert!(taken.into_iter().all(|taken| taken.into_inner() == 1));
    }
}

/// RUSTSEC-2021-0093 again, for joins: so many wait under an owner in a long leaf that who takes them
/// over needs a longer deque, from which others steal meanwhile.
#[test]
fn nothing_is_taken_twice_while_hundreds_of_joins_change_hands() {
    const DEEP: usize = 500;

    struct Seen {
        taken: Vec<AtomicU64>,
        all: Mutex<usize>,
        changed: Condvar,
    }

    fn nest(seen: &Seen, depth: usize) {
        if depth == DEEP {
            let all = seen.all.lock().unwrap();
            let all = seen.changed.wait_while(all, |all| *all < DEEP).unwrap();
            return assert_eq!(*all, DEEP);
        }
        let taken = || {
            seen.taken[depth].fetch_add(1, Ordering::Relaxed);
            *seen.all.lock().unwrap() += 1;
            seen.changed.notify_all();
        };
        reiver::join(|| nest(seen, depth + 1), taken);
    }

    let engine = engine(4);
    for _ in 0..sized(100) {
        let seen = Seen {
            taken: (0..DEEP).map(|_| AtomicU64::new(0)).collect(),
            all: Mutex::new(0),
            changed: Condvar::new(),
        };
        engine.install(|| nest(&seen, 0));
        assert!(seen.taken.into_iter().all(|taken| taken.into_inner() == 1));
    }
}

/// The bug that every pool has had once: a push falls between a worker's last look and its sleep, and
/// nobody comes. Here all sleep, and whoever pushes waits before the next push.
#[test]
fn no_wake_is_lost_among_many_sleepers() {
    const THREADS: usize = 8;
    let engines = [1, 2, 8, 8].map(engine);
    let rounds = sized(100_000) / THREADS;
    thread::scope(|threads| {
        for number in 0..THREADS {
            let engines = &engines;
            threads.spawn(move || {
                for round in 0..rounds {
                    let engine = &engines[(number + round) % engines.len()];
                    match round % 8 {
                        0 => assert_eq!(engine.install(|| 1), 1),
                        1 => {
                            let value = AtomicUsize::new(0);
                            engine.scope(|scope| {
                                scope.spawn_on(NodeId(0), |_| value.store(2, Ordering::Relaxed));
                            });
                            assert_eq!(value.into_inner(), 2);
                        }
                        2 if round % 64 == 2 => {
                            let io = engine.job().class(Class::Io).submit(|_| 3);
                            assert_eq!(io.unwrap().join().unwrap(), 3);
                        }
                        3 => {
                            let strict = engine.job().node(NodeId(0)).submit(|_| 4);
                            assert_eq!(strict.unwrap().join().unwrap(), 4);
                        }
                        _ => assert_eq!(engine.submit(|_| 5).join().unwrap(), 5),
                    }
                }
            });
        }
    });
}

/// Who is to take a fork: idle when it is made, or busy then and idle later.
struct Thief(Mutex<Option<Held>>);

impl Thief {
    fn new(engine: &Engine, is_busy: bool) -> Thief {
        Thief(Mutex::new(is_busy.then(|| Held::new(engine))))
    }

    fn is_free_now(&self) {
        if let Some(held) = self.0.lock().unwrap().take() {
            held.let_go_alone();
        }
    }
}

/// Two workers, near each other or on two nodes.
fn twos() -> [Engine; 2] {
    let topology = Topology::synthetic("NUMANode:2 Core:1 PU:1").unwrap();
    let two_nodes = Engine::builder().topology(topology).build().unwrap();
    [engine(2), two_nodes]
}

/// One after the other, for the second holds a worker.
fn thieves(engine: &Engine) -> impl Iterator<Item = Thief> {
    [false, true]
        .into_iter()
        .map(|is_busy| Thief::new(engine, is_busy))
}

/// tokio #4941: a task in the slot that a worker keeps for itself waited as long as that worker was
/// busy, however many were idle.
#[test]
fn a_fork_is_started_while_its_owner_is_in_a_long_leaf() {
    for engine in twos() {
        for _ in 0..sized(200) {
            for thief in thieves(&engine) {
                let (says, hears): (Sender<()>, Receiver<()>) = channel();
                let long = move || {
                    thief.is_free_now();
                    hears.recv().unwrap();
                };
                engine.join(long, move || says.send(()).unwrap());
            }
        }
    }
}

/// tokio #4941 again: of several that lie under one leaf, the newest too.
#[test]
fn all_forks_under_a_long_leaf_are_started() {
    fn nest(depth: usize, says: &Sender<usize>, leaf: &(dyn Fn() + Sync)) {
        if depth == 0 {
            return leaf();
        }
        reiver::join(|| nest(depth - 1, says, leaf), || says.send(depth).unwrap());
    }
    for engine in twos() {
        for _ in 0..sized(100) {
            for thief in thieves(&engine) {
                let (says, hears) = channel();
                let hears = Mutex::new(hears);
                let leaf = || {
                    thief.is_free_now();
                    let hears = hears.lock().unwrap();
                    let mut heard: Vec<usize> = hears.iter().take(9).collect();
                    heard.sort_unstable();
                    assert!(heard.into_iter().eq(1..=9));
                };
                engine.install(|| nest(9, &says, &leaf));
            }
        }
    }
}

/// tokio #4941 again, for what is spawned: one or many, and the body of the scope goes on for long.
#[test]
fn what_is_spawned_is_started_while_its_spawner_is_in_a_long_leaf() {
    for engine in twos() {
        for spawned in [1, 2, 10, 1000] {
            for _ in 0..sized(20) {
                for thief in thieves(&engine) {
                    let (says, hears) = channel();
                    let says = &says;
                    engine.scope(move |scope| {
                        for _ in 0..spawned {
                            scope.spawn(move |_| says.send(()).unwrap());
                        }
                        thief.is_free_now();
                        hears.iter().take(spawned).for_each(|()| ());
                    });
                }
            }
        }
    }
}

/// tokio #4941 again: many that were spawned are taken as one, and whoever took them is stuck in the
/// first; the others must not wait for that.
#[test]
fn what_a_thief_took_with_a_long_one_is_started_by_others() {
    const SPAWNED: usize = 1000;

    #[derive(Default)]
    struct Ran {
        ran: Mutex<usize>,
        changed: Condvar,
        stuck: AtomicBool,
    }

    impl Ran {
        fn wait_for_the_others(&self) {
            let ran = self.ran.lock().unwrap();
            let others = |ran: &mut usize| *ran < SPAWNED - 1;
            drop(self.changed.wait_while(ran, others).unwrap());
        }
    }

    watched();
    for machine in ["NUMANode:1 Core:3 PU:1", "NUMANode:3 Core:1 PU:1"] {
        let topology = Topology::synthetic(machine).unwrap();
        let engine = Engine::builder().topology(topology).build().unwrap();
        for is_stuck_itself in [false, true] {
            for _ in 0..sized(50) {
                let ran = Ran::default();
                engine.scope(|scope| {
                    let owner = thread::current().id();
                    let (says, hears) = channel();
                    for _ in 0..SPAWNED {
                        let (ran, says) = (&ran, says.clone());
                        scope.spawn(move |_| {
                            let is_others = thread::current().id() != owner;
                            if is_others && !ran.stuck.swap(true, Ordering::Relaxed) {
                                says.send(()).unwrap();
                                return ran.wait_for_the_others();
                            }
                            *ran.ran.lock().unwrap() += 1;
                            ran.changed.notify_all();
                        });
                    }
                    hears.recv().unwrap();
                    if is_stuck_itself {
                        ran.wait_for_the_others();
                    }
                });
                assert_eq!(ran.ran.into_inner().unwrap(), SPAWNED - 1);
            }
        }
    }
}

/// rayon #592: a job held a mutex across a join, and while it waited its thread began another job,
/// which wanted that mutex. Here a join takes forks and no jobs meanwhile.
#[test]
fn a_lock_held_across_a_join_is_not_met_again_in_another_job() {
    for workers in [1, 2, 4] {
        let engine = engine(workers);
        let lock = Arc::new(Mutex::new(0));
        let jobs = (0..sized(2000)).map(|_| {
            let lock = Arc::clone(&lock);
            engine.submit(move |_| {
                let mut held = lock.lock().unwrap();
                *held += reiver::join(|| fib(6), || fib(7)).1;
            })
        });
        let jobs: Vec<_> = jobs.collect();
        let count = jobs.len() as u64;
        jobs.into_iter().for_each(|job| job.join().unwrap());
        assert_eq!(*lock.lock().unwrap(), 13 * count);
    }
}

/// rayon #592 again, with the way out that is documented: who holds the mutex waits for another job,
/// all others want the mutex, and say that they block. There are fewer of them than spare threads, for
/// without one a job that waits has others on top of it.
#[test]
fn a_lock_held_across_a_wait_for_a_job_holds_up_nobody_who_says_that_it_blocks() {
    const AT_ONCE: u64 = 12;
    for workers in [1, 2] {
        let engine = engine(workers);
        let lock = Arc::new(Mutex::new(0));
        for round in 1..=sized(100) as u64 {
            let jobs = (0..AT_ONCE).map(|number| {
                let lock = Arc::clone(&lock);
                engine.submit(move |ctx| {
                    let mut held = ctx.engine().blocking(|| lock.lock().unwrap());
                    let class = if number % 2 == 0 {
                        Class::Cpu
                    } else {
                        Class::Io
                    };
                    let inner = ctx.engine().job().class(class);
                    *held += inner.submit(|_| fib(7)).unwrap().join().unwrap();
                })
            });
            let jobs: Vec<_> = jobs.collect();
            jobs.into_iter().for_each(|job| job.join().unwrap());
            assert_eq!(*lock.lock().unwrap(), 13 * AT_ONCE * round);
        }
    }
}
