//! How many jobs of a class may wait, who waits for room among them, and what a submitter does where
//! there is none.
//!
//! A job enters the room of its class when it is taken and leaves it when it begins, or ends without
//! having begun. Whoever leaves wakes one that waits for room. One that was woken and no longer needs
//! it passes that on, so no place stays free while somebody waits for it:
//!
//! | who waits | who leaves |
//! | --- | --- |
//! | 1. tries to enter, finds it full | 1. counts itself out |
//! | 2. puts its waker into the list, fence | 2. fence, asks whether anybody waits |
//! | 3. tries again, then sleeps | 3. takes the first waker out of the list, wakes it |
//!
//! Of the two fences one comes first: either the second try finds the place, or whoever leaves finds
//! the waker.
//!
//! A thread of an engine that waits for room may be the one that would make it. So it hands its place
//! on, and where nobody is left to take it, it runs the job itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crossbeam_utils::CachePadded;

use crate::Class;
use crate::cell::AnyJob;
use crate::current::{Current, block_until};
use crate::error::{Interrupted, SubmitError};
use crate::io::Pool;
use crate::panics::contain;
use crate::protocol::refs::Ref;
use crate::protocol::sync::{AtomicUsize, Ordering, fence};
use crate::schedule::{is_stoppable, looks_again, note_lock_of_all};
use crate::shared::Shared;
use crate::spawner::Request;
use crate::worker::MOST_NESTED;

/// What becomes of a job whose queue is full, see [`queue_capacity`].
///
/// [`queue_capacity`]: crate::EngineBuilder::queue_capacity
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// It is refused: [`SubmitError::QueueFull`].
    #[default]
    Reject,
    /// Its submitter waits for room, but not past the job's deadline: then the job is taken, and ends
    /// late. A thread of the engine hands its place on meanwhile, so that somebody makes room; where
    /// nobody is left to take it, as [`CallerRuns`](WhenFull::CallerRuns).
    Block,
    /// Its submitter runs it at once, on its own stack, whatever class and node it asks for; jobs
    /// that submit jobs then lie on top of each other.
    CallerRuns,
}

/// The jobs of one class that wait.
#[derive(Debug)]
pub(crate) struct Room {
    capacity: Option<usize>,
    when_full: WhenFull,
    queued: CachePadded<AtomicUsize>,
    /// How long the list is.
    waiting: AtomicUsize,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    /// Tells them apart.
    next: u64,
    list: VecDeque<(u64, Waker)>,
}

impl Room {
    pub(crate) fn new(capacity: Option<usize>, when_full: WhenFull) -> Room {
        Room {
            capacity,
            when_full,
            queued: CachePadded::default(),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::default(),
        }
    }

    /// True if only so many may wait.
    pub(crate) fn is_bounded(&self) -> bool {
        self.capacity.is_some()
    }

    pub(crate) fn when_full(&self) -> WhenFull {
        self.when_full
    }

    /// How many jobs wait; counted only where there may be too many.
    pub(crate) fn queued(&self) -> usize {
        // ORDERING: relaxed: a count that bounds memory and publishes nothing; here and below.
        self.queued.load(Ordering::Relaxed)
    }

    /// Counts a job in, unless as many wait as may.
    pub(crate) fn try_enter(&self) -> bool {
        let Some(most) = self.capacity else {
            return true;
        };
        let enter = |queued: usize| (queued < most).then_some(queued + 1);
        let entered = self
            .queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter);
        entered.is_ok()
    }

    /// Counts a job in that begins at once, whether there is room or not.
    fn enter_anyway(&self) {
        if self.capacity.is_some() {
            self.queued.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a job out; true if somebody waits for room, who is to be woken.
    #[inline]
    pub(crate) fn leave(&self) -> bool {
        if self.capacity.is_none() {
            return false;
        }
        self.queued.fetch_sub(1, Ordering::Relaxed);
        // ORDERING: with the fence in `Waiter::poll`.
        fence(Ordering::SeqCst);
        // ORDERING: relaxed: the fence is enough to see who must be seen.
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        note_lock_of_all();
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_waiting(&self, waiters: &Waiters) {
        // ORDERING: relaxed: written under the lock; who must see it is told by the fences.
        self.waiting.store(waiters.list.len(), Ordering::Relaxed);
    }

    /// Wakes the one who has waited longest.
    pub(crate) fn wake_one(&self) {
        let first = {
            let mut waiters = self.waiters();
            let first = waiters.list.pop_front();
            self.note_waiting(&waiters);
            first
        };
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    /// Wakes all that wait, to see that no more jobs are taken.
    pub(crate) fn wake_all(&self) {
        let all = {
            let mut waiters = self.waiters();
            let all = std::mem::take(&mut waiters.list);
            self.note_waiting(&waiters);
            all
        };
        all.into_iter().for_each(|(_, waker)| waker.wake());
    }

    pub(crate) fn waiter(&self) -> Waiter<'_> {
        Waiter {
            room: self,
            number: None,
        }
    }
}

/// Somebody who waits for room, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter<'r> {
    room: &'r Room,
    /// Under which it is, or was, in the list.
    number: Option<u64>,
}

impl Waiter<'_> {
    /// When it is worth trying again without being woken: for who must not hold the list of those who
    /// wait.
    pub(crate) fn until(&self) -> Option<Instant> {
        looks_again()
    }

    /// Enters, or arranges that the waker is woken when it is worth trying again; who may be stopped
    /// looks again by the clock, see [`until`](Waiter::until).
    pub(crate) fn poll(&mut self, waker: &Waker) -> bool {
        if self.room.try_enter() {
            return true;
        }
        if is_stoppable() {
            return false;
        }
        {
            let mut waiters = self.room.waiters();
            let listed = waiters
                .list
                .iter_mut()
                .find(|(number, _)| Some(*number) == self.number);
            match listed {
                Some((_, known)) => known.clone_from(waker),
                None => {
                    let number = waiters.next;
                    waiters.next += 1;
                    waiters.list.push_back((number, waker.clone()));
                    self.number = Some(number);
                }
            }
            self.room.note_waiting(&waiters);
        }
        // ORDERING: with the fence in `leave`.
        fence(Ordering::SeqCst);
        self.room.try_enter()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else {
            return;
        };
        let was_woken = {
            let mut waiters = self.room.waiters();
            let listed = waiters.list.iter().position(|&(other, _)| other == number);
            if let Some(index) = listed {
                waiters.list.remove(index);
            }
            self.room.note_waiting(&waiters);
            listed.is_none()
        };
        // It may have been woken for a place that it did not take, or got another one.
        let has_room = self
            .room
            .capacity
            .is_none_or(|most| self.room.queued() < most);
        if was_woken && has_room {
            self.room.wake_one();
        }
    }
}

/// A thread that waits for what other threads of its engine may have to do. An I/O thread hands its
/// place on until this is dropped; a CPU worker does so by itself, in [`block_until`].
#[derive(Debug)]
pub(crate) struct Stands(Option<(Arc<Shared>, Pool)>);

impl Stands {
    /// True where many have handed their places on already: then a thread rather does what it can
    /// itself. Else all who wait would begin before any of them ends.
    pub(crate) fn are_few() -> bool {
        Current::with(|current| {
            current.is_some_and(|current| {
                let shared = current.engine().shared();
                match current.worker() {
                    Some(worker) => worker.crew(shared).are_few_spares(worker.node()),
                    None => shared.with_pool(current.pool(), |io, _| io.is_mostly_replaced()),
                }
            })
        })
    }

    /// The same, for who waits in any case. Threads of class Hybrid hand nothing on: those that wait are
    /// seen to be blocked.
    pub(crate) fn while_waiting() -> Option<Stands> {
        let is_io = |current: &Current| current.worker().is_none() && current.pool() == Pool::Io;
        Current::with(|current| current.is_some_and(is_io)).then(Stands::by)?
    }

    /// `None` where nobody is left who could take the place: then the thread must do itself what it
    /// waits for.
    pub(crate) fn by() -> Option<Stands> {
        Current::with(|current| {
            let Some(current) = current else {
                return Some(Stands(None));
            };
            if current.worker().is_some() {
                return (current.depth() < MOST_NESTED).then_some(Stands(None));
            }
            let shared = current.engine().shared();
            let pool = current.pool();
            let wanted = shared.with_pool(pool, |io, machine| io.hand_on(&machine.near))?;
            if let Some(node) = wanted.thread() {
                shared
                    .spawner
                    .ask(Request::Io(Arc::downgrade(shared), pool, node));
            }
            Some(Stands(Some((Arc::clone(shared), pool))))
        })
    }
}

impl Drop for Stands {
    fn drop(&mut self) {
        if let Some((shared, pool)) = &self.0 {
            shared.with_pool(*pool, |io, _| io.give_back());
        }
    }
}

/// How a job comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Through the queue, where it has been counted in.
    Queued,
    /// The submitter runs it.
    Caller,
    /// Its deadline has passed while its submitter waited.
    Late,
}

impl Shared {
    pub(crate) fn room(&self, class: Class) -> &Room {
        &self.rooms[class as usize]
    }

    /// Enters the room of a class, or does what is to be done where it is full.
    pub(crate) fn enter_room(
        &self,
        class: Class,
        until: Option<Instant>,
    ) -> Result<Entry, SubmitError> {
        let room = self.room(class);
        if room.try_enter() {
            return Ok(Entry::Queued);
        }
        if self.is_closed() {
            return Err(SubmitError::ShutDown);
        }
        match room.when_full {
            WhenFull::Reject => Err(SubmitError::QueueFull),
            WhenFull::CallerRuns => Ok(Entry::Caller),
            WhenFull::Block => self.wait_for_room(room, until),
        }
    }

    pub(crate) fn wait_for_room(
        &self,
        room: &Room,
        until: Option<Instant>,
    ) -> Result<Entry, SubmitError> {
        let Some(_stands) = Stands::by() else {
            return Ok(Entry::Caller);
        };
        if is_stoppable() {
            // It must not hold the list of those who wait, so it looks by the clock.
            while !room.try_enter() {
                if self.is_closed() {
                    return Err(SubmitError::ShutDown);
                }
                if until.is_some_and(|until| Instant::now() >= until) {
                    return Ok(Entry::Late);
                }
                block_until(looks_again(), |_| false);
            }
            return Ok(Entry::Queued);
        }
        let mut waiter = room.waiter();
        let mut entered = false;
        let is_in_time = block_until(until, |waker| {
            entered = entered || waiter.poll(waker);
            entered || self.is_closed()
        });
        match (entered, is_in_time) {
            (true, _) => Ok(Entry::Queued),
            (false, true) => Err(SubmitError::ShutDown),
            (false, false) => Ok(Entry::Late),
        }
    }

    /// Ends a job that was counted in whose deadline has passed before it came in.
    pub(crate) fn end_late(&self, job: &dyn AnyJob) {
        let meta = job.meta();
        self.room(meta.class).enter_anyway();
        self.metrics.note_submitted(meta.class, meta.priority, 1);
        job.end_queued(Interrupted::DeadlineExceeded, Some(self));
    }

    /// Runs a job that was counted in on the current thread, at once, as the job it is.
    pub(crate) fn run_on_caller(self: &Arc<Self>, job: Ref<dyn AnyJob>) {
        let meta = job.meta();
        self.room(meta.class).enter_anyway();
        self.metrics.note_submitted(meta.class, meta.priority, 1);
        self.note_watched();
        let token = meta.token();
        if token.is_some_and(|token| token.register(&job)) {
            return;
        }
        let may_block = meta.runs_as != Class::Cpu;
        let run = |current: &Current| {
            contain(|| {
                job.run(&job, current);
            })
        };
        Current::with(|current| match current {
            // It may block, where nothing that blocks is to run.
            Some(current) if current.is_of(self) && may_block => {
                current.engine().blocking(|| run(current));
            }
            Some(current) if current.is_of(self) => run(current),
            // What it waits for may be a job of the engine whose thread this is.
            Some(other) => other.engine().blocking(|| self.as_guest(run)),
            None => self.as_guest(run),
        });
    }

    /// The current thread becomes one of this engine for as long as `run` takes. Not a CPU worker:
    /// those are known to others by their numbers.
    fn as_guest(self: &Arc<Self>, run: impl FnOnce(&Current)) {
        let node = self.node_of_caller();
        run(&Current::io(Arc::clone(self), node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn wakes(count: &Count) -> usize {
        count.0.load(Ordering::Relaxed)
    }

    /// As `Shared` does.
    fn leave(room: &Room) {
        if room.leave() {
            room.wake_one();
        }
    }

    #[test]
    fn whoever_leaves_wakes_the_first_that_waits() {
        let room = Room::new(Some(1), WhenFull::Block);
        assert!(room.try_enter());
        let ((a, wake_a), (b, wake_b)) = (count(), count());
        let (mut first, mut second) = (room.waiter(), room.waiter());
        assert!(!first.poll(&wake_a) && !second.poll(&wake_b));
        leave(&room);
        assert_eq!((wakes(&a), wakes(&b)), (1, 0));
        assert!(first.poll(&wake_a) && !second.poll(&wake_b));
        drop(first);
        assert_eq!(wakes(&b), 0, "there is no room for it");
        leave(&room);
        assert_eq!(wakes(&b), 1);
    }

    #[test]
    fn one_that_was_woken_and_goes_away_wakes_the_next() {
        let room = Room::new(Some(1), WhenFull::Block);
        assert!(room.try_enter());
        let ((_, wake_a), (b, wake_b)) = (count(), count());
        let (mut first, mut second) = (room.waiter(), room.waiter());
        assert!(!first.poll(&wake_a) && !second.poll(&wake_b));
        leave(&room);
        drop(first);
        assert_eq!(wakes(&b), 1);
        assert!(second.poll(&wake_b));
    }

    #[test]
    fn one_that_goes_away_unwoken_is_forgotten() {
        let room = Room::new(Some(1), WhenFull::Block);
        assert!(room.try_enter());
        let ((a, wake_a), (b, wake_b)) = (count(), count());
        let (mut first, mut second) = (room.waiter(), room.waiter());
        assert!(!first.poll(&wake_a) && !second.poll(&wake_b));
        drop(first);
        leave(&room);
        assert_eq!((wakes(&a), wakes(&b)), (0, 1));
    }
}
