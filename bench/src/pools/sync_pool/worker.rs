//! The number of the current thread: what the number of its P is to a goroutine.
//!
//! Numbers are small, and free again for others once their thread has ended.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Mutex;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(UNKNOWN) };
    static TAKEN: Cell<Option<Taken>> = const { Cell::new(None) };
}

const UNKNOWN: usize = usize::MAX;
/// Of a thread that ends; larger than any.
const GONE: usize = usize::MAX - 1;

/// Gives a number back when its thread ends.
struct Taken(usize);

struct Numbers {
    free: BTreeSet<usize>,
    next: usize,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers {
    free: BTreeSet::new(),
    next: 0,
});

const UNPOISONED: &str = "nothing panics while holding it";

/// The current thread's.
#[inline]
pub(super) fn number() -> usize {
    match NUMBER.get() {
        UNKNOWN => take(),
        number => number,
    }
}

#[cold]
fn take() -> usize {
    let mut numbers = NUMBERS.lock().expect(UNPOISONED);
    let number = numbers.free.pop_first().unwrap_or_else(|| {
        numbers.next += 1;
        numbers.next - 1
    });
    drop(numbers);
    NUMBER.set(number);
    TAKEN.set(Some(Taken(number)));
    number
}

impl Drop for Taken {
    fn drop(&mut self) {
        NUMBER.set(GONE);
        NUMBERS.lock().expect(UNPOISONED).free.insert(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn threads_that_live_together_have_numbers_of_their_own() {
        let mine = number();
        assert_eq!(number(), mine);
        let other = thread::spawn(number).join().expect("a number");
        assert_ne!(other, mine);
    }
}
