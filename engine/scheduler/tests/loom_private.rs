//! The private list in every interleaving: each fork is taken once, by its owner or by one thief, and
//! what it points to is visible to who takes it.
//!
//! What a fork points to is a cell that loom watches: its maker writes it before the push, and whoever
//! takes the fork writes it again. So two takers, and a taker that does not see what the maker wrote,
//! fail the model. The kernel's barrier is the fence that it implies (`barrier.rs`).
#![cfg(reiver_loom)]

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};
use reiver::model::{PrivateList, Robber, fails_without};

/// Points to a place of [`Places`].
#[derive(Debug, PartialEq)]
struct Fork(usize);

const BOTTOM: Fork = Fork(usize::MAX);
const MADE: u32 = 1;
const TAKEN: u32 = 2;

/// What forks point to.
struct Places([UnsafeCell<u32>; 6]);

// SAFETY: loom watches every use.
unsafe impl Sync for Places {}
// SAFETY: as above.
unsafe impl Send for Places {}

impl Places {
    fn new() -> Arc<Places> {
        Arc::new(Places(std::array::from_fn(|_| UnsafeCell::new(0))))
    }

    fn make(&self, place: usize) -> Fork {
        // SAFETY: loom watches it.
        self.0[place].with_mut(|made| unsafe { *made = MADE });
        Fork(place)
    }

    fn take(&self, Fork(place): Fork) {
        self.0[place].with_mut(|taken| {
            // SAFETY: loom watches it.
            let taken = unsafe { &mut *taken };
            assert_eq!(*taken, MADE, "fork {place} is taken once");
            *taken = TAKEN;
        });
    }

    /// Once all threads have ended and the list is empty.
    fn all_taken(&self, made: usize) {
        for (place, taken) in self.0.iter().take(made).enumerate() {
            // SAFETY: loom watches it.
            let taken = taken.with(|taken| unsafe { *taken });
            assert_eq!(taken, TAKEN, "fork {place} is lost");
        }
    }
}

struct Owner {
    places: Arc<Places>,
    list: PrivateList<Fork>,
    robber: Arc<Robber<Fork>>,
}

impl Owner {
    fn new() -> Owner {
        let (list, robber) = PrivateList::new(BOTTOM);
        let (places, robber) = (Places::new(), Arc::new(robber));
        Owner {
            places,
            list,
            robber,
        }
    }

    fn push(&self, place: usize) {
        self.list.push(self.places.make(place));
    }

    /// As a join does: the fork that it has pushed, if it is still there.
    fn take_back(&self, place: usize) -> bool {
        let is_back = self.list.take_back(&Fork(place));
        if is_back {
            self.places.take(Fork(place));
        }
        is_back
    }

    fn pop(&self) -> bool {
        let fork = self.list.pop();
        fork.map(|fork| self.places.take(fork)).is_some()
    }

    /// As a worker does that shares.
    fn promote(&self, most: usize) {
        self.list.take_oldest(most, |fork| {
            self.places.take(fork);
            true
        });
    }

    /// Robs so many times.
    fn thief(&self, times: usize) -> JoinHandle<()> {
        let (places, robber) = (Arc::clone(&self.places), Arc::clone(&self.robber));
        thread::spawn(move || {
            for _ in 0..times {
                robber.rob(|fork| places.take(fork));
            }
        })
    }
}

/// Three threads take too long without a bound.
fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn one_fork() {
    loom::model(|| {
        let owner = Owner::new();
        owner.push(0);
        let thief = owner.thief(1);
        owner.take_back(0);
        thief.join().unwrap();
        owner.places.all_taken(1);
    });
}

/// A fork lies where another lay when the thief looked first.
fn a_push_beside_a_thief() {
    loom::model(|| {
        let owner = Owner::new();
        owner.push(0);
        let thief = owner.thief(1);
        owner.take_back(0);
        owner.push(1);
        thief.join().unwrap();
        while owner.pop() {}
        owner.places.all_taken(2);
    });
}

/// As above, and the tail that the thief sees was left there by a take.
fn a_take_beside_a_thief() {
    loom::model(|| {
        let owner = Owner::new();
        owner.push(0);
        let thief = owner.thief(1);
        owner.take_back(0);
        owner.push(1);
        owner.push(2);
        owner.take_back(2);
        thief.join().unwrap();
        while owner.pop() {}
        owner.places.all_taken(3);
    });
}

/// Owner and thief want the only fork: neither has it twice, and it is not lost between them.
#[test]
fn the_last_fork_is_its_owners_or_a_thiefs() {
    one_fork();
}

/// What a thief takes was written by another thread just before.
#[test]
fn what_a_fork_points_to_is_visible_to_a_thief() {
    a_push_beside_a_thief();
}

/// The tail that a thief sees may be one that a take has left, and not a push.
#[test]
fn what_lies_below_a_tail_that_a_take_has_left_is_visible_to_a_thief() {
    a_take_beside_a_thief();
}

#[test]
fn an_owner_that_pops_all_meets_a_thief_of_many() {
    loom::model(|| {
        let owner = Owner::new();
        (0..3).for_each(|place| owner.push(place));
        let thief = owner.thief(1);
        while owner.pop() {}
        thief.join().unwrap();
        assert!(!owner.pop(), "an owner that found nothing left nothing");
        owner.places.all_taken(3);
    });
}

/// The head stands beyond the tail until the owner has noticed; what it pushes then is its own.
#[test]
fn after_a_lost_dispute_new_forks_are_not_taken_for_old_ones() {
    loom::model(|| {
        let owner = Owner::new();
        owner.push(0);
        let thief = owner.thief(2);
        owner.take_back(0);
        owner.push(1);
        owner.take_back(1);
        thief.join().unwrap();
        owner.places.all_taken(2);
    });
}

#[test]
fn two_thieves_and_an_owner_share_two_forks() {
    bounded(3, || {
        let owner = Owner::new();
        owner.push(0);
        owner.push(1);
        let thieves = [owner.thief(1), owner.thief(1)];
        owner.take_back(1);
        owner.take_back(0);
        thieves.into_iter().for_each(|thief| thief.join().unwrap());
        while owner.pop() {}
        owner.places.all_taken(2);
    });
}

/// The array is full, and the owner replaces it while a thief reads it.
#[test]
fn a_thief_does_not_read_an_array_that_is_replaced() {
    loom::model(|| {
        let owner = Owner::new();
        (0..3).for_each(|place| owner.push(place));
        let thief = owner.thief(1);
        owner.push(3);
        thief.join().unwrap();
        while owner.pop() {}
        owner.places.all_taken(4);
    });
}

/// Owner and thief both want the oldest.
#[test]
fn what_is_promoted_is_not_robbed() {
    loom::model(|| {
        let owner = Owner::new();
        owner.push(0);
        owner.push(1);
        let thief = owner.thief(1);
        owner.promote(1);
        owner.take_back(1);
        thief.join().unwrap();
        while owner.pop() {}
        owner.places.all_taken(2);
    });
}

/// The array of a burst is given back while a thief looks at it.
#[test]
fn an_array_that_is_trimmed_is_not_robbed() {
    loom::model(|| {
        let owner = Owner::new();
        (0..4).for_each(|place| owner.push(place));
        assert!(owner.list.is_large());
        while owner.pop() {}
        let thief = owner.thief(1);
        owner.list.trim();
        assert!(!owner.list.is_large());
        owner.push(4);
        thief.join().unwrap();
        while owner.pop() {}
        owner.places.all_taken(5);
    });
}

/// A thief that has seen more than there still is moves the head beyond what is pushed meanwhile, and
/// steps back. An owner that took the head at its word slept on top of its own fork.
#[test]
fn a_pop_does_not_miss_what_a_thief_is_about_to_step_back_from() {
    loom::model(|| {
        let owner = Owner::new();
        (0..2).for_each(|place| owner.push(place));
        let thief = owner.thief(1);
        while owner.pop() {}
        owner.push(2);
        while owner.pop() {}
        thief.join().unwrap();
        assert!(
            owner.list.len() == 0,
            "a pop found nothing where something was"
        );
        owner.places.all_taken(3);
    });
}

#[test]
fn a_push_has_to_release() {
    fails_without("private push", a_push_beside_a_thief);
}

#[test]
fn a_take_has_to_release() {
    fails_without("private take", a_take_beside_a_thief);
}

#[test]
fn a_thief_has_to_acquire() {
    fails_without("private rob", a_push_beside_a_thief);
}

#[test]
fn an_owner_needs_the_cheap_fence() {
    fails_without("private take fence", one_fork);
}

#[test]
fn a_thief_needs_the_dear_fence() {
    fails_without("private rob fence", one_fork);
}
