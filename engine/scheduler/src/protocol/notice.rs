//! Something that is said once, with those who asked to be told: each is told, or finds that it has
//! been said.

use std::sync::PoisonError;

use crate::protocol::sync::{AtomicBool, Mutex, MutexGuard, Ordering, needed};

/// Said once, or not yet; `L` lists who is to be told.
#[derive(Debug)]
pub struct Notice<L> {
    said: AtomicBool,
    listeners: Mutex<L>,
}

impl<L: Default> Default for Notice<L> {
    fn default() -> Notice<L> {
        Notice {
            said: AtomicBool::new(false),
            listeners: Mutex::new(L::default()),
        }
    }
}

impl<L: Default> Notice<L> {
    fn listeners(&self) -> MutexGuard<'_, L> {
        #[cfg(test)]
        crate::schedule::note_lock_of_all();
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// True once it is said.
    pub fn is_said(&self) -> bool {
        // ORDERING: acquire, with the release in `say`: what was done before it is visible.
        self.said.load(needed("notice is said", Ordering::Acquire))
    }

    /// Says it, and gives those who are to be told.
    pub fn say(&self) -> L {
        let mut listeners = self.listeners();
        // ORDERING: release, with the acquire in `is_said`. Under the lock, so that whoever listens
        // sees it or is seen.
        self.said
            .store(true, needed("notice say", Ordering::Release));
        std::mem::take(&mut *listeners)
    }

    /// Adds to those who are to be told; false, and nothing is done, if it has been said.
    pub fn listen(&self, add: impl FnOnce(&mut L)) -> bool {
        let mut listeners = self.listeners();
        let is_said = self.is_said();
        if !is_said {
            add(&mut listeners);
        }
        !is_said
    }
}
