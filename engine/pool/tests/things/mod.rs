//! Objects for the models: each has memory that loom watches, so two who have it at once are found, and
//! so is one who has it before what its last user did to it is visible.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::cell::UnsafeCell;
use reiver_pool::model::{Cache, Got, Object, Store};

pub(crate) struct Things {
    pub(crate) store: Store,
    memory: Vec<UnsafeCell<u32>>,
    /// A plain count, which orders nothing that loom watches.
    made: AtomicUsize,
}

// SAFETY: loom says where two use an object at once.
unsafe impl Sync for Things {}
// SAFETY: as above.
unsafe impl Send for Things {}

fn thing(number: usize, home: usize) -> Object {
    Object(std::ptr::without_provenance_mut((number + 1) << 8 | home))
}

pub(crate) fn number(object: Object) -> usize {
    (object.0.addr() >> 8) - 1
}

fn home_of(object: Object) -> usize {
    object.0.addr() & 0xFF
}

/// A cache, for the thread that it belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Mine(std::ptr::NonNull<Cache>);

// SAFETY: a thread hands it on before it uses it.
unsafe impl Send for Mine {}

impl Mine {
    pub(crate) fn cache(&self) -> &Cache {
        // SAFETY: it lives as long as the store.
        unsafe { self.0.as_ref() }
    }
}

impl Things {
    /// Nodes, all as near to each other, with so much room each, and magazines of one object.
    pub(crate) fn new(nodes: usize, capacity: usize) -> Things {
        Things::with_magazines(1, nodes, capacity)
    }

    /// The same with magazines of so many, as far as there may be such.
    pub(crate) fn with_magazines(magazine: usize, nodes: usize, capacity: usize) -> Things {
        let near = (0..nodes).map(|node| {
            let others = (0..nodes).filter(|&other| other != node);
            std::iter::once(node).chain(others).collect()
        });
        Things {
            store: Store::new(
                near.collect(),
                0,
                capacity,
                magazine,
                Box::new(home_of),
                Box::new(|_| None),
            ),
            memory: (0..4).map(|_| UnsafeCell::new(0)).collect(),
            made: AtomicUsize::new(0),
        }
    }

    pub(crate) fn shared(nodes: usize, capacity: usize) -> Arc<Things> {
        Arc::new(Things::new(nodes, capacity))
    }

    /// One node, and one more that may come to be known.
    pub(crate) fn with_spare() -> Things {
        let near = vec![Box::from([0])].into_boxed_slice();
        Things {
            store: Store::new(near, 1, 1, 1, Box::new(home_of), Box::new(|_| None)),
            ..Things::new(1, 1)
        }
    }

    pub(crate) fn join(&self, home: usize) -> Mine {
        Mine(self.store.join(home))
    }

    /// Uses an object: writes its memory.
    pub(crate) fn touch(&self, object: Object) {
        // SAFETY: loom checks that nobody else uses it.
        self.memory[number(object)].with_mut(|memory| unsafe { *memory += 1 });
    }

    fn taken(&self, got: Got) -> Object {
        let object = match got {
            Got::Object(object) => object,
            Got::Room(home) => thing(self.made.fetch_add(1, Ordering::Relaxed), home),
        };
        self.touch(object);
        object
    }

    pub(crate) fn try_get(&self, mine: Mine, here: usize) -> Option<Object> {
        // SAFETY: the caller owns it.
        let cached = unsafe { mine.cache().own.pop() }.map(Got::Object);
        let got = cached.or_else(|| {
            // SAFETY: the caller owns it.
            unsafe { self.store.get(Some(mine.cache()), here, false) }
        });
        got.map(|got| self.taken(got))
    }

    pub(crate) fn get(&self, mine: Mine, here: usize) -> Object {
        self.try_get(mine, here).unwrap_or_else(|| {
            // SAFETY: the caller owns it.
            let got = unsafe { self.store.get(Some(mine.cache()), here, true) };
            self.taken(got.expect("it waits"))
        })
    }

    pub(crate) fn put(&self, mine: Mine, object: Object) {
        self.touch(object);
        let put = if home_of(object) == mine.cache().home() {
            // SAFETY: the caller owns it.
            unsafe { self.store.put_own(mine.cache(), object) }
        } else {
            // SAFETY: as above.
            unsafe { self.store.put_away(mine.cache(), object) }
        };
        if put.is_err() {
            // SAFETY: as above.
            unsafe { self.store.put(Some(mine.cache()), object) };
        }
    }

    /// A thread without a cache.
    pub(crate) fn try_get_directly(&self, here: usize) -> Option<Object> {
        // SAFETY: there is no cache.
        let got = unsafe { self.store.get(None, here, false) };
        got.map(|got| self.taken(got))
    }

    pub(crate) fn put_directly(&self, object: Object) {
        self.touch(object);
        // SAFETY: there is no cache.
        unsafe { self.store.put(None, object) };
    }

    pub(crate) fn leave(&self, mine: Mine) {
        // SAFETY: the caller owns it, and is done with it.
        unsafe { self.store.leave(mine.0) };
    }

    /// Drops an object.
    pub(crate) fn destroy(&self, object: Object) {
        self.touch(object);
        self.store.release(home_of(object), 1);
    }

    /// Drops what lies in the depots.
    pub(crate) fn drop_cached(&self) -> usize {
        let mut dropped = 0;
        for (index, _) in self.store.nodes() {
            while let Some(object) = self.store.take_idle(index) {
                self.destroy(object);
                dropped += 1;
            }
        }
        dropped
    }
}

/// Runs a model with at most so many switches where a thread could have gone on.
pub(crate) fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
