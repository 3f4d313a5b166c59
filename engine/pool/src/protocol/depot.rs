//! Where the magazines of a node stand: full ones, empty ones, and those that come home from other
//! nodes.
//!
//! A magazine holds up to [`MOST`] objects. It belongs to one depot for good and stands on one of its
//! racks, or is in somebody's hands. Racks are lists whose head carries a tag that every change counts
//! up, so that nobody mistakes a head that went and came back (Treiber 1986, with the tags of IBM's
//! System/370 Principles of Operation): what a magazine's link said is looked at only if the head is
//! still the same. Magazines are numbered, and their memory stays until the pool goes, so a link may be
//! read at any time. Many of them may be linked first and put there by one exchange ([`Load`]). The inbound
//! list takes such from everywhere, and is emptied whole by one swap.
//!
//! After "Magazines and Vmem" (Bonwick, Adams, 2001).

use std::ptr::{self, NonNull};

use crossbeam_utils::CachePadded;
use reiver_topology::NodeId;

use crate::protocol::arena::{Arena, drop_placed};
use crate::protocol::stack::Object;
use crate::protocol::sync::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, UnsafeCell, needed,
};

/// So many objects a magazine holds at most.
pub const MOST: usize = if cfg!(reiver_loom) { 2 } else { 64 };
/// No magazine: ends a list.
const NOBODY: u32 = u32::MAX;
/// The first chunk of magazines; each further one is twice as many.
const FIRST_CHUNK: u32 = if cfg!(reiver_loom) { 2 } else { 8 };
const CHUNKS: usize = if cfg!(reiver_loom) { 4 } else { 29 };

/// Whole cache lines: two of them are in different hands.
#[derive(Debug)]
#[repr(C, align(64))]
struct Magazine {
    next: AtomicU32,
    len: UnsafeCell<usize>,
    objects: UnsafeCell<[Object; MOST]>,
}

/// A magazine in somebody's hands: nobody else uses it.
#[derive(Debug)]
pub struct Held<'a> {
    magazine: &'a Magazine,
    number: u32,
}

impl Held<'_> {
    /// How many objects it holds.
    pub fn len(&self) -> usize {
        // SAFETY: it is in our hands.
        self.magazine.len.with(|len| unsafe { *len })
    }

    /// Adds an object; there is room.
    pub fn put(&mut self, object: Object) {
        let at = self.len();
        self.magazine.objects.with_mut(|objects| {
            // SAFETY: it is in our hands.
            unsafe { (*objects)[at] = object };
        });
        self.set_len(at + 1);
    }

    /// Adds objects; there is room.
    pub fn extend(&mut self, objects: impl ExactSizeIterator<Item = Object>) {
        let (at, count) = (self.len(), objects.len());
        self.magazine.objects.with_mut(|all| {
            // SAFETY: it is in our hands.
            let all = unsafe { &mut *all };
            let places = all[at..at + count].iter_mut();
            places
                .zip(objects)
                .for_each(|(place, object)| *place = object);
        });
        self.set_len(at + count);
    }

    /// Takes all objects, the last of which was added last.
    pub fn take_all(&mut self, take: impl FnOnce(&[Object])) {
        let count = self.len();
        self.set_len(0);
        // SAFETY: it is in our hands.
        let see = |all: *const [Object; MOST]| take(unsafe { &(&*all)[..count] });
        self.magazine.objects.with(see);
    }

    /// Takes the last object.
    pub fn pop(&mut self) -> Option<Object> {
        let at = self.len().checked_sub(1)?;
        self.set_len(at);
        // SAFETY: it is in our hands.
        Some(
            self.magazine
                .objects
                .with(|objects| unsafe { (*objects)[at] }),
        )
    }

    fn set_len(&mut self, count: usize) {
        // SAFETY: it is in our hands.
        self.magazine.len.with_mut(|len| unsafe { *len = count });
    }
}

/// Magazines of a depot in somebody's hands, that are put there together: they come home, or are what a thread
/// of that node has too much of.
#[derive(Debug)]
pub struct Load<'a> {
    depot: &'a Depot,
    /// Not in the list yet.
    last: Held<'a>,
    /// The number of the first, and the one that has no next.
    list: Option<(u32, &'a Magazine)>,
    count: usize,
}

impl<'a> Load<'a> {
    /// Adds objects, which are no more than a magazine is to hold.
    pub fn extend(&mut self, magazine: usize, objects: impl ExactSizeIterator<Item = Object>) {
        if self.last.len() + objects.len() > magazine {
            let full = std::mem::replace(&mut self.last, self.depot.empty());
            self.list = Some(linked(full, self.list));
        }
        self.count += objects.len();
        self.last.extend(objects);
    }

    /// Puts them on the rack of magazines with objects.
    pub fn put(self) {
        debug_assert!(self.count > 0, "only magazines with objects stand there");
        let (first, last) = linked(self.last, self.list);
        self.depot.count(self.count);
        self.depot.racks.full.push_list(first, last);
    }

    /// Brings them home from another node.
    pub fn bring(self) {
        debug_assert!(self.count > 0, "only magazines with objects stand there");
        let (first, last) = linked(self.last, self.list);
        self.depot.count(self.count);
        self.depot.racks.inbound.push_list(first, last);
    }
}

/// A list with one more in front.
fn linked<'a>(held: Held<'a>, list: Option<(u32, &'a Magazine)>) -> (u32, &'a Magazine) {
    let (next, last) = list.unwrap_or((NOBODY, held.magazine));
    // ORDERING: relaxed: it is in our hands; whoever reads it from an old head finds that that has changed.
    held.magazine.next.store(next, Ordering::Relaxed);
    (held.number, last)
}

/// A list of magazines. The number of the first, and a tag above it.
#[derive(Debug)]
struct Rack(AtomicU64);

impl Rack {
    fn new() -> Rack {
        Rack(AtomicU64::new(u64::from(NOBODY)))
    }

    fn push(&self, held: Held<'_>) {
        self.push_list(held.number, held.magazine);
    }

    /// Pushes magazines that are linked already, by the number of the first and the last itself.
    fn push_list(&self, list: u32, last: &Magazine) {
        // ORDERING: relaxed: the exchange checks it.
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            // ORDERING: relaxed: the exchange publishes it; whoever reads it too early finds that the
            // head has changed.
            last.next.store(first(head), Ordering::Relaxed);
            let new = tagged(list, head);
            // ORDERING: release, with the acquire in `pop` and `take_all`: what is in the magazine.
            let release = needed("rack push", Ordering::Release);
            match self
                .0
                .compare_exchange_weak(head, new, release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn pop<'a>(&self, depot: &'a Depot) -> Option<Held<'a>> {
        // ORDERING: acquire, with the release in `push`: the chunk that the magazine lies in, its link,
        // and what it holds.
        let acquire = needed("rack pop", Ordering::Acquire);
        let mut head = self.0.load(acquire);
        loop {
            let number = first(head);
            if number == NOBODY {
                return None;
            }
            let magazine = depot.magazine(number);
            // ORDERING: relaxed: if it is that of another time, the exchange fails by the tag.
            let next = magazine.next.load(Ordering::Relaxed);
            let new = tagged(next, head);
            // ORDERING: the head carries on the releases of the pushes below it, for an exchange
            // continues their sequence whatever its own order.
            match self
                .0
                .compare_exchange_weak(head, new, Ordering::Relaxed, acquire)
            {
                Ok(_) => return Some(Held { magazine, number }),
                Err(now) => head = now,
            }
        }
    }

    /// Puts a whole list there, if nothing is; whoever has it need not walk to its end for that.
    fn fill(&self, list: u32) -> bool {
        // ORDERING: relaxed: the exchange checks it.
        let head = self.0.load(Ordering::Relaxed);
        // ORDERING: release, with the acquire in `pop`: what is in the magazines, of which we have made sure
        // when we took the list.
        let release = needed("rack fill", Ordering::Release);
        first(head) == NOBODY
            && self
                .0
                .compare_exchange(head, tagged(list, head), release, Ordering::Relaxed)
                .is_ok()
    }

    /// Takes all of them, and gives the number of the first. Of a rack from which nothing else takes: the
    /// tag begins anew.
    fn take_all(&self) -> u32 {
        if self.is_empty() {
            return NOBODY;
        }
        // ORDERING: acquire, with the release in `push`: what is in the magazines. The head carries on
        // the releases of those below it.
        let acquire = needed("rack swap", Ordering::Acquire);
        first(self.0.swap(u64::from(NOBODY), acquire))
    }

    fn is_empty(&self) -> bool {
        // ORDERING: relaxed: a guess.
        first(self.0.load(Ordering::Relaxed)) == NOBODY
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is the number"
)]
fn first(head: u64) -> u32 {
    head as u32
}

fn tagged(number: u32, head: u64) -> u64 {
    let tag = (head >> 32).wrapping_add(rack_tag()) << 32;
    tag | u64::from(number)
}

/// What a tag is counted up by.
#[cfg(not(reiver_loom))]
const fn rack_tag() -> u64 {
    1
}

#[cfg(reiver_loom)]
fn rack_tag() -> u64 {
    u64::from(needed("rack tag", Ordering::Release) == Ordering::Release)
}

/// All that an exchange writes to, in one line: who exchanges a magazine writes to two or three of them one
/// after the other, and has it fetched from another CPU once.
#[derive(Debug)]
struct Racks {
    /// Of magazines with objects: used lately.
    full: Rack,
    /// The same, of which nobody has used any since the last epoch.
    aged: Rack,
    empty: Rack,
    /// From other nodes.
    inbound: Rack,
    /// Objects in magazines on a rack. Counted before they are there, and until they no longer are.
    cached: AtomicUsize,
}

/// What belongs to one node.
#[derive(Debug)]
pub struct Depot {
    racks: CachePadded<Racks>,
    /// Magazines that were ever asked for.
    magazines: AtomicU32,
    chunks: [AtomicPtr<Magazine>; CHUNKS],
    /// Goes last.
    pub(crate) arena: Arena,
}

impl Default for Depot {
    fn default() -> Depot {
        Depot::new(None)
    }
}

impl Depot {
    /// A depot whose magazines, and what else is placed there, lie on a node.
    pub fn new(node: Option<NodeId>) -> Depot {
        Depot {
            arena: Arena::new(node),
            racks: CachePadded::new(Racks {
                full: Rack::new(),
                aged: Rack::new(),
                empty: Rack::new(),
                inbound: Rack::new(),
                cached: AtomicUsize::new(0),
            }),
            magazines: AtomicU32::new(0),
            chunks: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }
}

/// In which chunk a magazine lies, and as which.
fn place_of(number: u32) -> (usize, usize) {
    let shifted = number / FIRST_CHUNK + 1;
    let chunk = shifted.ilog2();
    let first = FIRST_CHUNK * ((1 << chunk) - 1);
    (chunk as usize, (number - first) as usize)
}

fn chunk_len(chunk: usize) -> usize {
    (FIRST_CHUNK as usize) << chunk
}

impl Depot {
    fn magazine(&self, number: u32) -> &Magazine {
        let (chunk, at) = place_of(number);
        // ORDERING: acquire, with the release in `new_magazine`: the magazines of the chunk. Whoever has
        // the number mostly has them by the rack; who made it need not be who put it there.
        let acquire = needed("depot chunk seen", Ordering::Acquire);
        let start = self.chunks[chunk].load(acquire);
        // A model that is to fail does so here.
        #[cfg(reiver_loom)]
        assert!(!start.is_null(), "its chunk is not seen");
        // SAFETY: a number is given away once its chunk is there, which is so long, and stays.
        unsafe { &*start.wrapping_add(at) }
    }

    /// An empty magazine.
    pub fn empty(&self) -> Held<'_> {
        if let Some(held) = self.racks.empty.pop(self) {
            return held;
        }
        // ORDERING: relaxed: it gives numbers away.
        let number = self.magazines.fetch_add(1, Ordering::Relaxed);
        assert_ne!(number, NOBODY, "a pool has too many magazines");
        let (chunk, _) = place_of(number);
        // ORDERING: acquire, as in `magazine`.
        if self.chunks[chunk].load(Ordering::Acquire).is_null() {
            self.add_chunk(chunk);
        }
        Held {
            magazine: self.magazine(number),
            number,
        }
    }

    #[cold]
    fn add_chunk(&self, chunk: usize) {
        let magazines: Vec<Magazine> = (0..chunk_len(chunk))
            .map(|_| Magazine {
                next: AtomicU32::new(NOBODY),
                len: UnsafeCell::new(0),
                objects: UnsafeCell::new([Object::NONE; MOST]),
            })
            .collect();
        let new = self.arena.place(magazines);
        // ORDERING: release, with the acquire in `magazine`: the chunk is seen whole. Who comes second
        // finds one there.
        let release = needed("depot chunk", Ordering::Release);
        let placed = self.chunks[chunk].compare_exchange(
            ptr::null_mut(),
            new.as_ptr(),
            release,
            Ordering::Relaxed,
        );
        if placed.is_err() {
            // SAFETY: it was made above, and nobody has seen it.
            unsafe { drop_placed(new, chunk_len(chunk), self.arena.is_placed()) };
        }
    }

    /// Puts a magazine on the rack that it belongs on.
    pub fn put(&self, held: Held<'_>) {
        match held.len() {
            0 => self.racks.empty.push(held),
            count => {
                self.count(count);
                self.racks.full.push(held);
            }
        }
    }

    /// Puts a magazine among those that go next time, if nobody uses them until then.
    pub fn put_aged(&self, held: Held<'_>) {
        self.count(held.len());
        self.racks.aged.push(held);
    }

    /// Begins what is put there together. Objects are to follow.
    pub fn load(&self) -> Load<'_> {
        Load {
            depot: self,
            last: self.empty(),
            list: None,
            count: 0,
        }
    }

    fn count(&self, count: usize) {
        // ORDERING: relaxed, here and below: a count of its own.
        self.racks.cached.fetch_add(count, Ordering::Relaxed);
    }

    fn uncounted<'a>(&self, held: Held<'a>) -> Held<'a> {
        self.racks.cached.fetch_sub(held.len(), Ordering::Relaxed);
        held
    }

    /// A magazine with objects. What comes home is taken whole, and stands on the rack afterwards: nobody
    /// may rely on seeing it meanwhile, see [`Store`](crate::protocol::store::Store).
    pub fn take(&self) -> Option<Held<'_>> {
        let ready = self.racks.full.pop(self);
        let ready = ready.or_else(|| self.take_inbound());
        let ready = ready.or_else(|| self.racks.aged.pop(self));
        ready.map(|held| self.uncounted(held))
    }

    fn take_inbound(&self) -> Option<Held<'_>> {
        let number = self.racks.inbound.take_all();
        if number == NOBODY {
            return None;
        }
        let (taken, mut next) = self.unlinked(number);
        if next != NOBODY && !self.racks.full.fill(next) {
            while next != NOBODY {
                let (held, after) = self.unlinked(next);
                self.racks.full.push(held);
                next = after;
            }
        }
        Some(taken)
    }

    /// The first magazine of a list that is ours, and the number of the next.
    fn unlinked(&self, number: u32) -> (Held<'_>, u32) {
        let magazine = self.magazine(number);
        // ORDERING: relaxed: the swap has made the whole list ours.
        let next = magazine.next.load(Ordering::Relaxed);
        (Held { magazine, number }, next)
    }

    /// A magazine that nobody has used since the last epoch.
    pub fn take_aged(&self) -> Option<Held<'_>> {
        let held = self.racks.aged.pop(self);
        held.map(|held| self.uncounted(held))
    }

    /// An epoch ends: what is there now goes at the end of the next, unless it is used.
    pub fn age(&self) {
        while let Some(held) = self.racks.full.pop(self).or_else(|| self.take_inbound()) {
            self.racks.aged.push(held);
        }
    }

    /// How many objects are in magazines. Exact while nobody is moving any.
    pub fn cached(&self) -> usize {
        self.racks.cached.load(Ordering::Relaxed)
    }

    /// True if it seems to hold nothing.
    pub fn seems_empty(&self) -> bool {
        self.racks.full.is_empty() && self.racks.inbound.is_empty() && self.racks.aged.is_empty()
    }
}

impl Drop for Depot {
    fn drop(&mut self) {
        // A model that has failed has no memory any more.
        #[cfg(reiver_loom)]
        if std::thread::panicking() {
            return;
        }
        for (chunk, start) in self.chunks.iter().enumerate() {
            // ORDERING: relaxed: it is ours alone.
            if let Some(start) = NonNull::new(start.load(Ordering::Relaxed)) {
                // SAFETY: it was made by `add_chunk`, and nobody uses it any more.
                unsafe { drop_placed(start, chunk_len(chunk), self.arena.is_placed()) };
            }
        }
    }
}

#[cfg(all(test, not(reiver_loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_chunks_without_gaps() {
        let mut expected = (0, 0);
        for number in 0..100_000 {
            assert_eq!(place_of(number), expected);
            expected.1 += 1;
            if expected.1 == chunk_len(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(place_of(NOBODY - 1).0 < CHUNKS + 2);
    }
}
