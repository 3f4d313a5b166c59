//! A pool's objects on their ways, in every interleaving of a few threads (some with a bound on how often
//! a thread is interrupted): each object has one user at a time, who sees what its last one did to it;
//! nobody waits for what is there; nothing is lost when threads and pools end.
//!
//! Magazines of one object, so that every second return comes to the depot.
#![cfg(reiver_loom)]

mod things;

use std::sync::Arc;

use loom::thread;
use reiver_pool::model::{Object, fails_without, refused, refused_late};
use things::{Mine, Things, bounded, number};

/// All that is left when the threads are done: nothing is in use, and each is cached once.
fn all_is_there(things: &Things, live: usize) {
    let counts = things.store.counts();
    assert_eq!((counts.cached, counts.live), (live, live));
    things.store.shake_out();
    assert_eq!(things.drop_cached(), live);
    assert_eq!(things.store.counts().live, 0);
}

fn spawned<T: Send + 'static>(
    things: &Arc<Things>,
    body: impl FnOnce(&Things) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let things = Arc::clone(things);
    thread::spawn(move || body(&things))
}

/// One returns more than its cache holds, while another one wants some: through the depot.
fn exchange() {
    bounded(3, || {
        let things = Things::shared(1, 3);
        let (mine, others) = (things.join(0), things.join(0));
        let held: Vec<Object> = (0..3).map(|_| things.get(mine, 0)).collect();
        let other = spawned(&things, move |things| {
            let object = things.try_get(others, 0);
            object
                .inspect(|&object| things.put(others, object))
                .is_some()
        });
        held.into_iter().for_each(|object| things.put(mine, object));
        other.join().unwrap();
        all_is_there(&things, 3);
    });
}

#[test]
fn what_goes_through_the_depot_has_one_user_at_a_time() {
    exchange();
}

/// Sends home what is away, as a worker does that is about to sleep. Unless it has to come again, nothing is
/// away then, and the owner comes to the lock with the next object that is.
fn flush(things: &Things, away: Mine) {
    // SAFETY: the caller owns it.
    let is_done = unsafe { things.store.flush(away.cache()) };
    let stack = &away.cache().away;
    assert!(!is_done || stack.is_shut() && stack.seems_empty());
}

/// An object goes home from another node, while its home takes what has come.
fn comes_home() {
    bounded(3, || {
        let things = Things::shared(2, 1);
        let (home, away) = (things.join(0), things.join(1));
        let object = things.get(home, 0);
        let other = spawned(&things, move |things| {
            things.put(away, object);
            flush(things, away);
        });
        let got = things.try_get(home, 0);
        if let Some(got) = got {
            things.put(home, got);
        }
        other.join().unwrap();
        things.store.shake_out();
        let cached = things.store.node(0).unwrap().depot.cached();
        assert_eq!(cached, 1, "it is at home");
        assert!(things.store.counts().sent >= 1);
    });
}

#[test]
fn an_object_comes_home() {
    comes_home();
}

/// A magazine of two and one of one go home at once, while their home, where nothing is left, wants one. (Who
/// puts begins, as in `hands_on` of the other models: else loom overlooks that the list may be there.)
fn comes_home_together() {
    bounded(3, || {
        let things = Arc::new(Things::with_magazines(4, 2, 32));
        let (home, away) = (things.join(0), things.join(1));
        let held: Vec<Object> = (0..3).map(|_| things.get(home, 0)).collect();
        let other = spawned(&things, move |things| {
            let got = things.get(home, 0);
            things.put(home, got);
        });
        held.into_iter().for_each(|object| things.put(away, object));
        flush(&things, away);
        other.join().unwrap();
        things.store.shake_out();
        let cached = things.store.node(0).unwrap().depot.cached();
        assert_eq!(cached, things.store.counts().live, "all are at home");
    });
}

#[test]
fn what_comes_home_together_is_all_there() {
    comes_home_together();
}

/// An epoch ends while one has something that is away, goes on with objects of its own, and is about to sleep.
fn flushes_against_an_epoch() {
    bounded(3, || {
        let things = Things::shared(2, 1);
        let (home, away) = (things.join(0), things.join(1));
        let object = things.get(home, 0);
        let ager = spawned(&things, |things| things.store.probe());
        things.put(away, object);
        let own = things.get(away, 1);
        things.put(away, own);
        flush(&things, away);
        ager.join().unwrap();
    });
}

#[test]
fn what_is_away_goes_home_though_an_epoch_has_ended() {
    flushes_against_an_epoch();
}

/// One gets and returns, while another one trims.
fn trim_against_get() {
    bounded(3, || {
        let things = Things::shared(1, 2);
        let mine = things.join(0);
        let held = [things.get(mine, 0), things.get(mine, 0)];
        let [(), ()] = held.map(|object| things.put(mine, object));
        let trimmer = spawned(&things, |things| {
            things.store.shake_out();
            things.drop_cached()
        });
        let first = things.try_get(mine, 0);
        let second = things.try_get(mine, 0);
        for object in first.into_iter().chain(second) {
            things.put(mine, object);
        }
        trimmer.join().unwrap();
        let left = things.store.counts().live;
        all_is_there(&things, left);
    });
}

#[test]
fn what_is_trimmed_is_in_nobodys_hands() {
    trim_against_get();
}

/// Everything is in the cache of one, who goes on with it, while another one wants some.
fn robs() {
    bounded(3, || {
        let things = Things::shared(1, 2);
        let (mine, others) = (things.join(0), things.join(0));
        let held = [things.get(mine, 0), things.get(mine, 0)];
        let [(), ()] = held.map(|object| things.put(mine, object));
        let other = spawned(&things, move |things| {
            let object = things
                .try_get(others, 0)
                .expect("one of two is free all the time");
            things.put(others, object);
        });
        let object = things
            .try_get(mine, 0)
            .expect("one of two is free all the time");
        things.put(mine, object);
        other.join().unwrap();
        all_is_there(&things, 2);
    });
}

#[test]
fn nobody_is_told_that_there_is_nothing_while_another_one_caches_it() {
    robs();
}

/// All is in use, one waits, and another one returns into its own cache.
fn waits() {
    bounded(3, || {
        let things = Things::shared(1, 1);
        let (mine, others) = (things.join(0), things.join(0));
        let object = things.get(mine, 0);
        let waiter = spawned(&things, move |things| {
            let object = things.get(others, 0);
            things.put(others, object);
        });
        things.put(mine, object);
        waiter.join().unwrap();
        all_is_there(&things, 1);
    });
}

#[test]
fn who_waits_is_woken_by_a_return() {
    waits();
}

/// All is in use, one waits, and another one returns, and at once wants it back. (Who waits begins: that
/// saves an interruption.)
fn evacuates() {
    bounded(3, || {
        let things = Things::shared(1, 1);
        let (mine, others) = (things.join(0), things.join(0));
        let object = things.get(others, 0);
        let other = spawned(&things, move |things| {
            things.put(others, object);
            if let Some(object) = things.try_get(others, 0) {
                things.put(others, object);
            }
        });
        let object = things.get(mine, 0);
        things.put(mine, object);
        other.join().unwrap();
        all_is_there(&things, 1);
    });
}

#[test]
fn what_was_returned_and_is_wanted_back_goes_to_one() {
    evacuates();
}

/// The same, where the kernel has no barrier.
#[test]
fn who_waits_is_woken_where_there_is_no_barrier() {
    refused(waits);
    refused(robs);
    refused(trim_against_get);
}

#[test]
fn an_object_comes_home_where_there_is_no_barrier() {
    refused(comes_home);
    refused_late(comes_home);
    refused(comes_home_together);
    refused(flushes_against_an_epoch);
}

/// All is in use; one returns it into a cache that it opens with that, and at once wants it back, while
/// another one looks for it.
fn opens() {
    bounded(3, || {
        let things = Things::shared(1, 1);
        let (mine, others) = (things.join(0), things.join(0));
        let object = things.try_get_directly(0).unwrap();
        let other = spawned(&things, move |things| {
            things.put(others, object);
            if let Some(object) = things.try_get(others, 0) {
                things.put(others, object);
            }
        });
        let object = things.get(mine, 0);
        things.put(mine, object);
        other.join().unwrap();
        all_is_there(&things, 1);
    });
}

#[test]
fn what_was_returned_into_a_shut_cache_and_is_wanted_back_goes_to_one() {
    opens();
}

/// The kernel has promised a barrier, and refuses it when it is first asked for it.
#[test]
fn an_object_has_one_user_where_the_barrier_is_refused_late() {
    refused_late(opens);
    refused_late(waits);
    refused_late(robs);
    refused_late(evacuates);
    refused_late(trim_against_get);
    refused_late(ages_against_get);
}

/// All is in use, one waits, and another one returns without a cache.
fn waits_for_a_direct_return() {
    bounded(3, || {
        let things = Things::shared(1, 1);
        let (mine, others) = (things.join(0), things.join(0));
        let object = things.get(mine, 0);
        let waiter = spawned(&things, move |things| {
            let object = things.get(others, 0);
            things.put(others, object);
        });
        things.put_directly(object);
        waiter.join().unwrap();
        all_is_there(&things, 1);
    });
}

#[test]
fn who_waits_is_woken_by_a_thread_that_has_no_cache() {
    waits_for_a_direct_return();
}

/// All is in use, one waits, and another one takes its object out of the pool.
fn waits_for_room() {
    bounded(3, || {
        let things = Things::shared(1, 1);
        let (mine, others) = (things.join(0), things.join(0));
        let object = things.get(mine, 0);
        let waiter = spawned(&things, move |things| {
            let object = things.get(others, 0);
            assert_eq!(number(object), 1, "it is a new one");
            things.put(others, object);
        });
        things.destroy(object);
        waiter.join().unwrap();
        all_is_there(&things, 1);
    });
}

#[test]
fn who_waits_is_woken_when_there_is_room() {
    waits_for_room();
}

/// Two wait for one object, which the first hands on.
#[test]
fn of_two_who_wait_each_gets_its_turn() {
    bounded(2, || {
        let things = Things::shared(1, 1);
        let mine = things.join(0);
        let object = things.get(mine, 0);
        let waiters = [(); 2].map(|()| {
            let others = things.join(0);
            spawned(&things, move |things| {
                let object = things.get(others, 0);
                things.put(others, object);
            })
        });
        things.put(mine, object);
        let [(), ()] = waiters.map(|waiter| waiter.join().unwrap());
        all_is_there(&things, 1);
    });
}

/// A thread ends, while another one trims.
fn exit_against_trim() {
    bounded(3, || {
        let things = Things::shared(1, 2);
        let mine = things.join(0);
        let held = [things.get(mine, 0), things.get(mine, 0)];
        let [(), ()] = held.map(|object| things.put(mine, object));
        let trimmer = spawned(&things, |things| {
            things.store.shake_out();
            things.drop_cached()
        });
        things.leave(mine);
        let dropped = trimmer.join().unwrap();
        assert!(dropped <= 2);
        all_is_there(&things, 2 - dropped);
    });
}

#[test]
fn a_thread_that_ends_leaves_its_objects_to_others() {
    exit_against_trim();
}

/// A thread ends, while another one waits for what it caches.
#[test]
fn a_thread_that_ends_wakes_who_waits() {
    bounded(3, || {
        let things = Things::shared(1, 1);
        let (mine, others) = (things.join(0), things.join(0));
        let object = things.get(mine, 0);
        let waiter = spawned(&things, move |things| {
            let object = things.get(others, 0);
            things.put(others, object);
        });
        things.put(mine, object);
        things.leave(mine);
        waiter.join().unwrap();
        all_is_there(&things, 1);
    });
}

/// Two epochs end, while a thread uses its cache, or does not.
fn ages_against_get() {
    bounded(3, || {
        let things = Things::shared(1, 2);
        let mine = things.join(0);
        let held = [things.get(mine, 0), things.get(mine, 0)];
        let [(), ()] = held.map(|object| things.put(mine, object));
        let ager = spawned(&things, |things| {
            for _ in 0..2 {
                things.store.probe();
                while let Some(object) = things.store.take_aged(0) {
                    things.destroy(object);
                }
                things.store.age();
            }
        });
        if let Some(object) = things.try_get(mine, 0) {
            things.put(mine, object);
        }
        ager.join().unwrap();
        let left = things.store.counts().live;
        all_is_there(&things, left);
    });
}

#[test]
fn what_has_aged_is_in_nobodys_hands() {
    ages_against_get();
}

/// A magazine of two is trimmed, while another one wants one of them; what is dropped first takes long.
fn trims_one_at_a_time() {
    bounded(3, || {
        let things = Arc::new(Things::with_magazines(2, 1, 2));
        let (mine, others) = (things.join(0), things.join(0));
        let held = [things.get(mine, 0), things.get(mine, 0)];
        let [(), ()] = held.map(|object| things.put(mine, object));
        things.store.shake_out();
        let trimmer = spawned(&things, |things| {
            if let Some(object) = things.store.take_idle(0) {
                things.destroy(object);
            }
        });
        let object = things
            .try_get(others, 0)
            .expect("one of two is free all the time");
        things.put(others, object);
        trimmer.join().unwrap();
        let left = things.store.counts().live;
        all_is_there(&things, left);
    });
}

#[test]
fn who_trims_has_one_object_at_a_time() {
    trims_one_at_a_time();
}

/// Who has no cache takes a magazine of two, one of which it puts back; another one looks for the other.
fn takes_directly() {
    bounded(3, || {
        let things = Things::shared(1, 2);
        let mine = things.join(0);
        let held = [things.get(mine, 0), things.get(mine, 0)];
        {
            // One magazine with both.
            let depot = &things.store.node(0).unwrap().depot;
            let mut magazine = depot.empty();
            for object in held {
                things.touch(object);
                magazine.put(object);
            }
            depot.put(magazine);
        }
        let other = spawned(&things, |things| {
            let object = things
                .try_get_directly(0)
                .expect("one of two is free all the time");
            things.put_directly(object);
        });
        let object = things
            .try_get(mine, 0)
            .expect("one of two is free all the time");
        things.put(mine, object);
        other.join().unwrap();
        all_is_there(&things, 2);
    });
}

#[test]
fn what_a_thread_without_a_cache_carries_is_not_overlooked() {
    takes_directly();
}

/// The last handles of a pool go, one of them with the last object in use.
#[test]
fn whoever_is_last_finds_all_objects() {
    bounded(3, || {
        struct Last(Things, std::sync::Arc<std::sync::atomic::AtomicUsize>);
        impl Drop for Last {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    return;
                }
                let mut found = Vec::new();
                self.0.store.drain(|object| found.push(object));
                for &object in &found {
                    self.0.touch(object);
                }
                self.1
                    .fetch_add(found.len(), std::sync::atomic::Ordering::Relaxed);
            }
        }
        let found = std::sync::Arc::default();
        let last = loom::sync::Arc::new(Last(Things::new(1, 2), std::sync::Arc::clone(&found)));
        let (mine, others) = (last.0.join(0), last.0.join(0));
        let held = [last.0.get(mine, 0), last.0.get(mine, 0)];
        let other = {
            let last = loom::sync::Arc::clone(&last);
            thread::spawn(move || {
                last.0.put(others, held[1]);
                drop(last);
            })
        };
        last.0.put(mine, held[0]);
        drop(last);
        other.join().unwrap();
        assert_eq!(found.load(std::sync::atomic::Ordering::Relaxed), 2);
    });
}

/// Two threads from a node that nobody has heard of.
fn strangers() {
    loom::model(|| {
        let things = Arc::new(Things::with_spare());
        let other = spawned(&things, |things| {
            things.store.add_node(1);
            things.store.node(1).unwrap().depot.cached()
        });
        if let Some(node) = things.store.node(1) {
            assert_eq!(node.depot.cached(), 0);
        }
        things.store.add_node(1);
        assert_eq!(other.join().unwrap(), 0);
    });
}

#[test]
fn a_node_that_comes_to_be_known_is_seen_whole() {
    strangers();
}

#[test]
fn a_store_needs_each_of_its_fences_and_orderings() {
    fails_without("put fence", waits);
    fails_without("scarce fence", waits);
    fails_without("tell fence", waits_for_room);
    fails_without("trim fence", trim_against_get);
    fails_without("trim again fence", trim_against_get);
    fails_without("probe fence", ages_against_get);
    fails_without("evacuation fence", evacuates);
    fails_without("rack push", comes_home_together);
    fails_without("rack swap", comes_home_together);
    fails_without("movers fence", takes_directly);
    fails_without("movers done", takes_directly);
    fails_without("movers seen", takes_directly);
    fails_without("store node", strangers);
    fails_without("store node seen", strangers);
}
