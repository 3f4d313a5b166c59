//! The profiles of names: a table of fixed size, which forgets the names that have not come for long.
//!
//! Nobody holds a lock: background threads, which the kernel may stop at any step, note what they have
//! measured too. A name is known by 63 bits of its hash; which keys collide nobody outside can foresee,
//! and two names that do share a profile.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU64;

use super::profile::Profile;
use crate::clock::Stamp;
use crate::protocol::sync::{AtomicU64, Ordering};

/// A name is in one set only, in one of so many places.
const WAYS: usize = 8;
const SETS: usize = 128;

/// A name, as the table knows it; the lowest bit is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(NonZeroU64);

impl Key {
    /// That of these bits, whatever the lowest one is.
    pub(super) fn of(bits: u64) -> Key {
        const SECOND: NonZeroU64 = NonZeroU64::new(2).expect("it is not zero");
        Key(NonZeroU64::new(bits & !1).unwrap_or(SECOND))
    }

    pub(super) fn bits(self) -> NonZeroU64 {
        self.0
    }
}

#[derive(Debug, Default)]
struct Entry {
    /// 0 for none.
    key: AtomicU64,
    /// When a job of the name last came.
    used: AtomicU64,
    /// How many have come.
    pub(super) jobs: AtomicU64,
    profile: Profile,
}

#[derive(Debug)]
pub(super) struct Table {
    hasher: RandomState,
    entries: Box<[Entry]>,
}

/// What is known of a name when a job of it comes.
#[derive(Debug)]
pub(super) struct Known<'t> {
    pub(super) profile: &'t Profile,
    /// How many of the name came before it.
    pub(super) before: u64,
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            hasher: RandomState::new(),
            entries: (0..SETS * WAYS).map(|_| Entry::default()).collect(),
        }
    }

    pub(super) fn key(&self, name: impl Hash) -> Key {
        Key::of(self.hasher.hash_one(name))
    }

    fn set(&self, key: Key) -> &[Entry] {
        // ORDERING: relaxed, all here: an entry that changes hands while somebody writes it has a sample
        // too many, or too few.
        let set = usize::try_from((key.0.get() >> 1) % SETS as u64).expect("there are few sets");
        &self.entries[set * WAYS..(set + 1) * WAYS]
    }

    fn entry(&self, key: Key) -> Option<&Entry> {
        let mut set = self.set(key).iter();
        set.find(|entry| entry.key.load(Ordering::Relaxed) == key.0.get())
    }

    /// What is known of a name, if it is.
    pub(super) fn find(&self, key: Key) -> Option<&Profile> {
        self.entry(key).map(|entry| &entry.profile)
    }

    /// A job of a name comes; one that is new takes the place of the one that has not come for longest.
    /// `None` where others have taken that meanwhile.
    pub(super) fn note_job(&self, key: Key) -> Option<Known<'_>> {
        let entry = self.entry(key).or_else(|| {
            let used = |entry: &&Entry| entry.used.load(Ordering::Relaxed);
            let oldest = self.set(key).iter().min_by_key(used)?;
            let was = oldest.key.load(Ordering::Relaxed);
            let taken =
                oldest
                    .key
                    .compare_exchange(was, key.0.get(), Ordering::Relaxed, Ordering::Relaxed);
            taken.ok()?;
            oldest.profile.clear();
            oldest.jobs.store(0, Ordering::Relaxed);
            Some(oldest)
        })?;
        entry.used.store(Stamp::now().ticks(), Ordering::Relaxed);
        Some(Known {
            profile: &entry.profile,
            before: entry.jobs.fetch_add(1, Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;
    use crate::auto::profile::Sample;
    use std::time::Duration;

    fn note(table: &Table, name: &str, times: usize) {
        let key = table.key(name);
        let sample = Sample {
            computed: Duration::from_micros(100),
            waited: Duration::ZERO,
        };
        for _ in 0..times {
            if let Some(known) = table.note_job(key) {
                known.profile.note(sample);
            }
        }
    }

    fn class(table: &Table, name: &str) -> Option<Class> {
        table.find(table.key(name)).map(Profile::class)
    }

    #[test]
    fn a_million_names_take_no_more_room_than_a_thousand() {
        let table = Table::new();
        let size = table.entries.len();
        for name in 0..1_000_000 {
            note(&table, &format!("request {name}"), 1);
            if name % 100 == 0 {
                // One that comes again and again is not forgotten for those that come once.
                note(&table, "again", 1);
            }
        }
        assert_eq!(table.entries.len(), size);
        assert!(size_of::<Entry>() * size <= 64 << 10, "some pages");
        assert_eq!(class(&table, "again"), Some(Class::Cpu));
        assert_eq!(class(&table, "request 0"), None);
    }

    #[test]
    fn who_takes_the_place_of_another_begins_anew() {
        let table = Table::new();
        note(&table, "first", 100);
        assert_eq!(class(&table, "first"), Some(Class::Cpu));
        for name in 0..100_000 {
            note(&table, &name.to_string(), 1);
        }
        assert_eq!(class(&table, "first"), None);
        note(&table, "first", 1);
        assert_eq!(class(&table, "first"), Some(Class::Hybrid));
    }
}
