use std::sync::{Barrier, mpsc};
use std::thread;

use super::*;
use crate::Pool;

/// Numbers are the process's: one test at a time has threads that take them.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does what it is given, one after the other.
struct Worker {
    jobs: mpsc::Sender<Job>,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    fn start() -> Worker {
        let (jobs, given) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || given.into_iter().for_each(|job| job()));
        Worker { jobs, thread }
    }

    fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (say, said) = mpsc::channel();
        let job = move || say.send(job()).expect("it is waited for");
        self.jobs.send(Box::new(job)).expect("it has not ended");
        said.recv().expect("the job does not panic")
    }

    /// Gets an object and returns it; says where the thread sits after that.
    fn uses(&self, pool: &Pool<u64>) -> SeatOffset {
        let pool = pool.clone();
        self.run(move || {
            drop(pool.get());
            SEAT.get()
        })
    }

    /// Ends the thread, and waits until it has left its caches.
    fn end(self) {
        drop(self.jobs);
        self.thread.join().expect("it does not panic");
    }
}

fn new_pool() -> Pool<u64> {
    Pool::builder(|| 0).build()
}

/// A pool that a thread has used which has ended, who has its number now, and who has its cache.
fn used() -> (Pool<u64>, Worker, Worker) {
    let pool = new_pool();
    let first = Worker::start();
    let seat = first.uses(&pool);
    first.end();
    pool.trim();
    let heir = Worker::start();
    assert_eq!(heir.uses(&new_pool()), seat);
    let tenant = Worker::start();
    assert_ne!(tenant.uses(&pool), seat);
    (pool, heir, tenant)
}

#[test]
fn who_has_a_number_next_gets_from_a_cache_of_its_own() {
    let _alone = alone();
    let (pool, heir, tenant) = used();
    let created = pool.stats().created;
    heir.uses(&pool);
    assert_eq!(pool.stats().created, created + 1);
    heir.end();
    tenant.end();
}

#[test]
fn who_has_a_number_next_puts_into_a_cache_of_its_own() {
    let _alone = alone();
    let (pool, heir, tenant) = used();
    let of_pool = pool.clone();
    let held = tenant.run(move || of_pool.get_owned());
    let created = pool.stats().created;
    heir.run(move || drop(held));
    heir.uses(&pool);
    assert_eq!(pool.stats().created, created);
    heir.end();
    tenant.end();
}

/// Uses a pool when its thread has left its caches, once it may.
struct Late {
    pool: Pool<u64>,
    has_left: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl Drop for Late {
    fn drop(&mut self) {
        let _ = self.has_left.send(());
        let _ = self.go_on.recv();
        drop(self.pool.get());
    }
}

#[test]
fn who_uses_a_pool_after_it_has_left_stays_away_from_who_has_its_number_next() {
    thread_local! {
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }
    let _alone = alone();
    let pool = new_pool();
    let (has_left, left) = mpsc::channel();
    let (may_go_on, go_on) = mpsc::channel();
    let late = Late {
        pool: pool.clone(),
        has_left,
        go_on,
    };
    let first = thread::spawn(move || {
        let pool = late.pool.clone();
        // Registered before the caches, and so dropped after them.
        LATE.set(Some(late));
        drop(pool.get());
        SEAT.get()
    });
    left.recv().expect("it ends");
    pool.trim();
    let heir = Worker::start();
    let seat = heir.uses(&pool);
    let created = pool.stats().created;
    may_go_on.send(()).expect("it waits");
    assert_eq!(first.join().expect("it does not panic"), seat);
    assert_eq!(pool.stats().created, created + 1);
    heir.end();
}

#[test]
fn threads_without_a_number_have_caches_of_their_own() {
    let _alone = alone();
    let pool = new_pool();
    let workers: Vec<_> = (FIRST..SEATS + 2).map(|_| Worker::start()).collect();
    let seats = workers.iter().map(|worker| worker.uses(&pool));
    assert_eq!(seats.filter(|&seat| seat == NOBODY).count(), 2);
    assert_eq!(pool.stats().created, workers.len() as u64);
    workers.into_iter().for_each(Worker::end);
}

#[test]
fn a_thread_without_a_number_gets_one_when_others_have_ended() {
    let _alone = alone();
    let pool = new_pool();
    let others: Vec<_> = (FIRST..SEATS).map(|_| Worker::start()).collect();
    for other in &others {
        other.uses(&pool);
    }
    let late = Worker::start();
    assert_eq!(late.uses(&pool), NOBODY);
    let created = pool.stats().created;
    others.into_iter().for_each(Worker::end);
    assert_ne!(late.uses(&pool), NOBODY);
    assert_eq!(pool.stats().created, created);
    late.end();
}

#[test]
fn a_thread_has_a_number_however_many_have_ended() {
    let _alone = alone();
    let pool = new_pool();
    for _ in 0..3 * SEATS {
        let worker = Worker::start();
        assert_ne!(worker.uses(&pool), NOBODY);
        worker.end();
    }
}

#[test]
fn threads_of_which_there_are_more_than_seats_use_their_caches() {
    const THREADS: usize = 2 * SEATS;
    let _alone = alone();
    let pool = new_pool();
    let together = Barrier::new(THREADS);
    let seated: usize = thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| {
            scope.spawn(|| {
                let held = pool.get();
                together.wait();
                drop(held);
                (0..5).for_each(|_| drop(pool.get()));
                together.wait();
                usize::from(SEAT.get() != NOBODY)
            })
        });
        threads
            .map(|thread| thread.join().expect("it does not panic"))
            .into_iter()
            .sum()
    });
    assert!(seated <= SEATS - FIRST);
    let stats = pool.stats();
    assert_eq!((stats.outstanding, stats.created), (0, THREADS as u64));
}

#[test]
fn a_number_is_one_threads_at_a_time() {
    let mut numbers = Numbers {
        fresh: FIRST,
        free: Vec::new(),
    };
    let first: Vec<_> = (FIRST..SEATS).map(|_| numbers.take()).collect();
    assert!(
        (FIRST..SEATS)
            .map(|seat| SeatOffset(seat * size_of::<Seat>()))
            .eq(first.clone())
    );
    assert_eq!(numbers.take(), NOBODY);
    numbers.give_back(first[2]);
    assert_eq!([numbers.take(), numbers.take()], [first[2], NOBODY]);
}
