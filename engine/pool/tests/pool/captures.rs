//! What a pool's closures have captured, when the pool goes.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use reiver_pool::{Pool, Recycle};

use crate::watchdog::watched;

/// Does something when it is dropped, and panics.
struct Angry<F: Fn()>(F);

impl<F: Fn()> Angry<F> {
    /// For closures, which capture what they use.
    fn is_here(&self) {}
}

impl<F: Fn()> Drop for Angry<F> {
    fn drop(&mut self) {
        (self.0)();
        panic!("on purpose");
    }
}

fn counting(dropped: &Arc<AtomicUsize>) -> Angry<impl Fn() + Send + Sync + use<>> {
    let dropped = Arc::clone(dropped);
    Angry(move || {
        dropped.fetch_add(1, Ordering::SeqCst);
    })
}

#[test]
fn captures_that_panic_when_they_are_dropped_do_so_in_the_pool() {
    let dropped = Arc::default();
    let [create, recycle, reset] = [(); 3].map(|()| counting(&dropped));
    let pool = Pool::builder(move || create.is_here())
        .recycle(move |()| {
            recycle.is_here();
            Recycle::Keep
        })
        .reset(move |()| reset.is_here())
        .build();
    drop(pool.get());
    drop(pool);
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
}

#[test]
fn a_thread_ends_with_the_last_handle_of_a_pool_whose_captures_panic() {
    thread_local! {
        static LAST: RefCell<Option<Pool<()>>> = const { RefCell::new(None) };
    }
    let dropped = Arc::default();
    let create = counting(&dropped);
    let pool = Pool::builder(move || create.is_here()).build();
    let thread = thread::spawn(|| {
        drop(pool.get());
        LAST.set(Some(pool));
    });
    thread.join().unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

/// Says something when it is dropped.
struct Says(mpsc::Sender<&'static str>, &'static str);

impl Drop for Says {
    fn drop(&mut self) {
        // Nobody listens any more when the process ends.
        let _ = self.0.send(self.1);
    }
}

/// Waits, when it is dropped, until somebody comes, and until that one comes again.
struct Slow(Arc<Barrier>);

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.wait();
        self.0.wait();
    }
}

#[test]
fn pools_age_though_captures_of_one_have_panicked() {
    thread_local! {
        static AT_END: RefCell<Option<Says>> = const { RefCell::new(None) };
    }
    const EPOCH: Duration = Duration::from_millis(1);
    watched();
    let (say, said) = mpsc::channel();
    let says = say.clone();
    let other = Pool::builder(move || Says(says.clone(), "an object has aged"))
        .epoch(EPOCH)
        .build();
    let angry = Angry(move || {
        AT_END.set(Some(Says(say.clone(), "the thread has ended")));
        say.send("the pool has gone").unwrap();
    });
    let together = Arc::new(Barrier::new(2));
    let slow = Arc::clone(&together);
    let create = move || {
        angry.is_here();
        Slow(Arc::clone(&slow))
    };
    let pool = Pool::builder(create).epoch(EPOCH).build();
    drop(pool.get());
    // While its object ages the last handle goes but for that of the thread that ages it.
    together.wait();
    drop(pool);
    together.wait();
    assert_eq!(said.recv(), Ok("the pool has gone"));
    drop(other.get());
    assert_eq!(said.recv(), Ok("an object has aged"));
}
