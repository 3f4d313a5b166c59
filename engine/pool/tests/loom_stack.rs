//! A thread's stack and the racks of a depot, in every interleaving: no object and no magazine goes to
//! two, and each is seen whole.
#![cfg(reiver_loom)]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use loom::thread;
use reiver_pool::model::{Depot, Load, Object, Stack, fails_without, heavy};

/// A stack, its lock, and the memory of its objects, which loom watches.
struct Owned {
    stack: Stack<4>,
    lock: Mutex<()>,
    memory: [UnsafeCell<u32>; 4],
}

// SAFETY: loom says where two use an object at once.
unsafe impl Sync for Owned {}
// SAFETY: as above.
unsafe impl Send for Owned {}

fn object(number: usize) -> Object {
    Object(std::ptr::without_provenance_mut(number + 1))
}

impl Owned {
    fn new() -> Arc<Owned> {
        let owned = Owned {
            stack: Stack::new(),
            lock: Mutex::new(()),
            memory: Default::default(),
        };
        owned.stack.open(4);
        Arc::new(owned)
    }

    fn touch(&self, object: Object) -> usize {
        let number = object.0.addr() - 1;
        // SAFETY: loom checks that nobody else uses it.
        self.memory[number].with_mut(|memory| unsafe { *memory += 1 });
        number
    }

    fn push(&self, number: usize) {
        self.touch(object(number));
        // SAFETY: the model's owner calls it.
        unsafe { self.stack.push(object(number)) }.unwrap();
    }

    /// As the owner does it: first without, then under the lock.
    fn pop(&self) -> Option<usize> {
        // SAFETY: the model's owner calls it.
        let popped = unsafe { self.stack.pop() };
        let popped = popped.or_else(|| {
            let _lock = self.lock.lock().unwrap();
            let newest = self.stack.take_newest();
            self.stack.open(4);
            newest
        });
        popped.map(|object| self.touch(object))
    }

    fn steal(&self, most: usize) -> Vec<usize> {
        let mut stolen = Vec::new();
        let _lock = self.lock.lock().unwrap();
        self.stack.raise_floor();
        heavy("rob fence");
        self.stack.take(most, |all| {
            stolen.extend(all.map(|object| self.touch(object)))
        });
        self.stack.reopen_floor();
        stolen
    }
}

/// The owner pops, and pushes and pops again, while a thief takes what it finds.
fn pops_against_a_thief() {
    loom::model(|| {
        let owned = Owned::new();
        owned.push(0);
        owned.push(1);
        let thief = {
            let owned = Arc::clone(&owned);
            thread::spawn(move || owned.steal(2))
        };
        let mut all: Vec<usize> = owned.pop().into_iter().collect();
        owned.push(2);
        all.extend(owned.pop());
        all.extend(thief.join().unwrap());
        all.extend(std::iter::from_fn(|| owned.pop()));
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2], "each goes to one");
    });
}

#[test]
fn an_object_that_two_want_goes_to_one() {
    pops_against_a_thief();
}

/// What was pushed while the thief looks it sees whole.
fn pushes_against_a_thief() {
    loom::model(|| {
        let owned = Owned::new();
        let thief = {
            let owned = Arc::clone(&owned);
            thread::spawn(move || owned.steal(4))
        };
        owned.push(0);
        owned.push(1);
        let popped = owned.pop();
        let stolen = thief.join().unwrap();
        let rest = std::iter::from_fn(|| owned.pop()).count();
        assert_eq!(popped.into_iter().count() + stolen.len() + rest, 2);
    });
}

#[test]
fn what_a_thief_takes_it_sees_whole() {
    pushes_against_a_thief();
}

/// A pop that finds the gate shut puts the length back, which the thief then goes by.
fn undoes_against_a_thief() {
    loom::model(|| {
        let owned = Owned::new();
        let thief = {
            let owned = Arc::clone(&owned);
            thread::spawn(move || owned.steal(4))
        };
        owned.push(0);
        // SAFETY: this is the owner.
        let popped = unsafe { owned.stack.pop() };
        let popped = popped.map(|object| owned.touch(object));
        let stolen = thief.join().unwrap();
        let rest = std::iter::from_fn(|| owned.pop()).count();
        assert_eq!(popped.into_iter().count() + stolen.len() + rest, 1);
    });
}

#[test]
fn a_pop_that_is_refused_leaves_all_as_it_was() {
    undoes_against_a_thief();
}

#[test]
fn a_stack_needs_each_of_its_fences_and_orderings() {
    fails_without("stack pop fence", pops_against_a_thief);
    fails_without("rob fence", pops_against_a_thief);
    fails_without("stack push", pushes_against_a_thief);
    fails_without("stack look", pushes_against_a_thief);
    fails_without("stack pop", pushes_against_a_thief);
}

/// A depot, and the memory of its objects.
struct Depots {
    depot: Depot,
    memory: [UnsafeCell<u32>; 4],
}

// SAFETY: loom says where two use an object at once.
unsafe impl Sync for Depots {}
// SAFETY: as above.
unsafe impl Send for Depots {}

impl Depots {
    fn new() -> Arc<Depots> {
        Arc::new(Depots {
            depot: Depot::default(),
            memory: Default::default(),
        })
    }

    fn touch(&self, object: Object) -> usize {
        let number = object.0.addr() - 1;
        // SAFETY: loom checks that nobody else uses it.
        self.memory[number].with_mut(|memory| unsafe { *memory += 1 });
        number
    }

    fn put(&self, number: usize) {
        let mut held = self.depot.empty();
        self.touch(object(number));
        held.put(object(number));
        self.depot.put(held);
    }

    fn bring(&self, number: usize) {
        self.bring_all(&[number]);
    }

    fn bring_all(&self, numbers: &[usize]) {
        self.load(numbers).bring();
    }

    fn put_all(&self, numbers: &[usize]) {
        self.load(numbers).put();
    }

    /// In magazines of one.
    fn load(&self, numbers: &[usize]) -> Load<'_> {
        let mut load = self.depot.load();
        for &number in numbers {
            self.touch(object(number));
            load.extend(1, std::iter::once(object(number)));
        }
        load
    }

    fn take(&self) -> Option<usize> {
        let mut held = self.depot.take()?;
        let object = held.pop()?;
        let number = self.touch(object);
        self.depot.put(held);
        Some(number)
    }

    /// Takes the rest, and asserts that together with what was taken it is each of so many, once.
    fn all_are_there(&self, count: usize, taken: impl IntoIterator<Item = usize>) {
        let mut all: Vec<usize> = taken.into_iter().collect();
        all.extend(std::iter::from_fn(|| self.take()));
        all.sort_unstable();
        assert!(
            all.iter().copied().eq(0..count),
            "each goes to one: {all:?}"
        );
        assert_eq!(self.depot.cached(), 0);
    }
}

/// One takes two magazines and puts the first back, while another one takes.
fn racks() {
    loom::model(|| {
        let depots = Depots::new();
        depots.put(0);
        depots.put(1);
        let other = {
            let depots = Arc::clone(&depots);
            thread::spawn(move || depots.take())
        };
        // Both magazines, in our hands at once; then the one that was first is first again.
        let first = depots.depot.take();
        let second = depots.depot.take();
        let mut all = Vec::new();
        if let Some(mut held) = second {
            all.extend(held.pop().map(|object| depots.touch(object)));
            // It stays in our hands: nobody may find it on the rack.
            std::mem::forget(held);
        }
        if let Some(held) = first {
            depots.depot.put(held);
        }
        all.extend(other.join().unwrap());
        depots.all_are_there(2, all);
    });
}

#[test]
fn a_magazine_that_was_put_back_is_not_taken_for_the_one_that_was_there() {
    racks();
}

/// One takes two magazines, puts both at once in another order, and takes the first again, while another one
/// takes.
fn puts_together() {
    loom::model(|| {
        let depots = Depots::new();
        depots.put(0);
        depots.put(1);
        let other = {
            let depots = Arc::clone(&depots);
            thread::spawn(move || depots.take())
        };
        let mut all = Vec::new();
        let held = [(); 2].map(|()| depots.depot.take());
        for mut held in held.into_iter().flatten().rev() {
            all.extend(held.pop().map(|object| depots.touch(object)));
            depots.depot.put(held);
        }
        depots.put_all(&[2, 3]);
        if let Some(mut held) = depots.depot.take() {
            all.extend(held.pop().map(|object| depots.touch(object)));
            // It stays in our hands: nobody may find it on the rack.
            std::mem::forget(held);
        }
        all.extend(other.join().unwrap());
        depots.all_are_there(4, all);
    });
}

#[test]
fn magazines_that_were_put_back_together_are_not_taken_for_those_that_were_there() {
    puts_together();
}

/// Two are put at once, while another one puts one, and takes one.
fn puts_together_beside_others() {
    loom::model(|| {
        let depots = Depots::new();
        let other = {
            let depots = Arc::clone(&depots);
            thread::spawn(move || {
                depots.put(2);
                depots.take()
            })
        };
        depots.put_all(&[0, 1]);
        let taken = other.join().unwrap();
        assert!(taken.is_some());
        depots.all_are_there(3, taken);
    });
}

#[test]
fn what_is_put_together_and_what_others_put_is_all_there() {
    puts_together_beside_others();
}

/// What one puts another one takes. (Loom remembers one access to a word: that a thread reads what it then
/// exchanges hides who read it before. So who puts begins.)
fn hands_on() {
    loom::model(|| {
        let depots = Depots::new();
        let other = {
            let depots = Arc::clone(&depots);
            thread::spawn(move || depots.take())
        };
        depots.put(0);
        let taken = other.join().unwrap();
        assert_eq!(taken.or_else(|| depots.take()), Some(0));
    });
}

#[test]
fn what_one_puts_another_one_takes_whole() {
    hands_on();
}

/// Two bring magazines home, while the owner empties the list.
fn comes_home() {
    loom::model(|| {
        let depots = Depots::new();
        let owner = {
            let depots = Arc::clone(&depots);
            thread::spawn(move || depots.take())
        };
        let other = {
            let depots = Arc::clone(&depots);
            thread::spawn(move || depots.bring(0))
        };
        depots.bring(1);
        other.join().unwrap();
        depots.all_are_there(2, owner.join().unwrap());
    });
}

#[test]
fn what_comes_home_arrives_once() {
    comes_home();
}

/// One has brought two magazines at once, another one empties the list, and a third takes what it leaves.
fn comes_home_together() {
    loom::model(|| {
        let depots = Depots::new();
        let [owner, other] = [(); 2].map(|()| {
            let depots = Arc::clone(&depots);
            thread::spawn(move || depots.take())
        });
        depots.bring_all(&[0, 1]);
        let taken = [owner, other].map(|thread| thread.join().unwrap());
        depots.all_are_there(2, taken.into_iter().flatten());
    });
}

#[test]
fn what_comes_home_together_goes_to_all_who_want_it() {
    comes_home_together();
}

/// A list comes home while the rack that it is to stand on gets another magazine.
fn comes_home_beside_others() {
    loom::model(|| {
        let depots = Depots::new();
        depots.bring_all(&[0, 1, 2]);
        let other = {
            let depots = Arc::clone(&depots);
            thread::spawn(move || depots.put(3))
        };
        let taken = depots.take();
        other.join().unwrap();
        depots.all_are_there(4, taken);
    });
}

#[test]
fn what_comes_home_together_and_what_others_put_is_all_there() {
    comes_home_beside_others();
}

/// Two want the first magazines of a depot at once, so that both may make a chunk.
fn makes_magazines() {
    loom::model(|| {
        let depots = Depots::new();
        let other = {
            let depots = Arc::clone(&depots);
            thread::spawn(move || depots.put(0))
        };
        depots.put(1);
        other.join().unwrap();
        depots.all_are_there(2, None);
    });
}

#[test]
fn two_who_make_the_first_magazines_get_different_ones() {
    makes_magazines();
}

#[test]
fn a_depot_needs_each_of_its_orderings() {
    fails_without("rack tag", racks);
    fails_without("rack tag", puts_together);
    fails_without("rack push", puts_together_beside_others);
    fails_without("rack push", hands_on);
    fails_without("rack pop", hands_on);
    fails_without("rack swap", comes_home);
    fails_without("rack fill", comes_home_together);
    fails_without("depot chunk", makes_magazines);
    fails_without("depot chunk seen", makes_magazines);
}
