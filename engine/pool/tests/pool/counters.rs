//! Counters.

use reiver_pool::counter::PaddedCounter;

static HITS: PaddedCounter = PaddedCounter::new();

#[test]
fn nothing_is_lost_however_many_threads_add() {
    let counter = PaddedCounter::default();
    for round in 1..4_u64 {
        std::thread::scope(|scope| {
            for _ in 0..60 {
                scope.spawn(|| (0..1000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counter.sum(), round * 60_000);
    }
    assert_eq!(format!("{counter:?}"), "PaddedCounter(180000)");
}

#[test]
fn a_counter_may_be_static_and_wraps_around() {
    HITS.add(3);
    HITS.add(u64::MAX);
    assert_eq!(HITS.sum(), 2);
}

#[test]
fn a_thread_counts_until_its_very_end() {
    struct Late(std::sync::Arc<PaddedCounter>);
    impl Drop for Late {
        fn drop(&mut self) {
            self.0.add(10);
        }
    }
    thread_local! { static LATE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) }; }
    let counter = std::sync::Arc::new(PaddedCounter::new());
    for late_first in [true, false] {
        let counter = std::sync::Arc::clone(&counter);
        let thread = std::thread::spawn(move || {
            if !late_first {
                counter.add(1);
            }
            LATE.set(Some(Late(std::sync::Arc::clone(&counter))));
            if late_first {
                counter.add(1);
            }
        });
        thread.join().unwrap();
    }
    assert_eq!(counter.sum(), 22);
}
