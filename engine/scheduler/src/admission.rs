//! What a job has to pass before it enters its queue: the limits of its name and of its class, and the
//! breaker of its name. It holds its places at the limits until it has ended.
//!
//! An engine without any of these has no [`Rules`], and its jobs carry no [`Pass`]: then nothing here
//! costs more than to see that. The rules never change, so nobody locks them.
//!
//! The queue comes before the limits, for its place can be given back and tokens cannot. Who waits for
//! a limit has no place in the queue: else jobs of a slow name would fill it for all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crate::Class;
use crate::breaker::{Breaker, BreakerMetrics, Gate, Round, Verdict};
use crate::cell::Meta;
use crate::current::{block_until, unstopped};
use crate::error::{BuildError, SubmitError};
use crate::limit::{HybridLimiter, Refused, Short, Waiting};
use crate::protocol::sync::{AtomicU8, AtomicU64, Ordering};
use crate::room::{Entry, Stands, Waiter, WhenFull};
use crate::schedule::{LOOKS_AGAIN, is_stoppable, note_lock_of_all};
use crate::shared::Shared;

/// What holds for jobs of a class or a name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    classes: HashMap<Class, Arc<HybridLimiter>>,
    names: HashMap<Box<str>, NameRules>,
}

#[derive(Debug, Clone, Default)]
struct NameRules {
    limit: Option<Arc<HybridLimiter>>,
    /// As it was asked for, and once there is an engine as it is.
    breaker: Option<(Breaker, Option<Arc<Gate>>)>,
}

impl Rules {
    pub(crate) fn limit(&mut self, class: Class, limiter: Arc<HybridLimiter>) {
        self.classes.insert(class, limiter);
    }

    pub(crate) fn limit_name(&mut self, name: &str, limiter: Arc<HybridLimiter>) {
        self.names.entry(name.into()).or_default().limit = Some(limiter);
    }

    pub(crate) fn breaker(&mut self, name: &str, breaker: Breaker) {
        self.names.entry(name.into()).or_default().breaker = Some((breaker, None));
    }

    /// What no engine can have.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let mut breakers = self
            .names
            .values()
            .filter_map(|rules| rules.breaker.as_ref());
        breakers.try_for_each(|(breaker, _)| breaker.check())
    }

    /// Those of a new engine, whose breakers are its own.
    pub(crate) fn begun(mut self) -> Rules {
        for rules in self.names.values_mut() {
            if let Some((breaker, gate)) = &mut rules.breaker {
                *gate = Some(Arc::new(Gate::new(*breaker)));
            }
        }
        self
    }

    pub(crate) fn breakers(&self) -> Vec<BreakerMetrics> {
        let gate = |rules: &NameRules| rules.breaker.clone()?.1;
        let breakers = self.names.iter();
        let breakers = breakers.filter_map(|(name, rules)| Some(gate(rules)?.metrics(name)));
        let mut breakers: Vec<_> = breakers.collect();
        breakers.sort_by(|one, other| one.name.cmp(&other.name));
        breakers
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.names.is_empty()
    }

    /// True if jobs of a class without a name have something to pass.
    pub(crate) fn concern(&self, class: Class) -> bool {
        self.classes.contains_key(&class)
    }

    /// What a job of this class, name and weight has to pass, if it is anything.
    pub(crate) fn pass(&self, class: Class, name: Option<&str>, weight: u32) -> Option<Arc<Pass>> {
        let of_name = name.and_then(|name| self.names.get(name));
        let of_class = self.classes.get(&class).cloned();
        let limit = of_name.and_then(|rules| rules.limit.clone());
        // One that serves both is asked once.
        let is_same =
            |one: &Arc<HybridLimiter>| limit.as_ref().is_some_and(|other| Arc::ptr_eq(one, other));
        let of_class = of_class.filter(|one| !is_same(one));
        let gate = of_name.and_then(|rules| rules.breaker.as_ref()?.1.clone());
        if limit.is_none() && of_class.is_none() && gate.is_none() {
            return None;
        }
        // In one order for all: else of two jobs whose name and class have the same two limits the other way
        // round, each would have a place at one and wait for the other.
        let mut limits = [limit, of_class];
        limits.sort_by_key(|limit| limit.as_ref().map(Arc::as_ptr));
        Some(Arc::new(Pass {
            gate,
            round: AtomicU64::new(NO_ROUND),
            limits,
            weight,
            held: AtomicU8::new(0),
        }))
    }
}

/// What one job has to pass, and which of it it has passed.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Option<Arc<Gate>>,
    /// In which the breaker took it. Written as `held` is.
    round: AtomicU64,
    /// Of its name and of its class, by where they lie.
    limits: [Option<Arc<HybridLimiter>>; 2],
    weight: u32,
    /// A bit for each limit that it has a place at. Written by who submits it, then by who ends it.
    held: AtomicU8,
}

/// Why somebody who waits for limits has no place at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotTaken {
    GaveUp,
    Late,
    Never(Refused),
}

const NO_ROUND: u64 = u64::MAX;

impl Pass {
    /// Passes the breaker of its name.
    fn pass_gate(&self) -> Result<(), SubmitError> {
        if let Some(gate) = &self.gate {
            let round = gate.admit().ok_or(SubmitError::BreakerOpen)?;
            // ORDERING: relaxed, here and below: as with `held`.
            self.round.store(round.0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The limits at which it has no place yet, with their bits.
    fn missing(&self) -> impl Iterator<Item = (u8, &HybridLimiter)> {
        // ORDERING: relaxed, here and below: whoever has the job has it from who wrote this.
        let held = self.held.load(Ordering::Relaxed);
        let limits = [1, 2].into_iter().zip(&self.limits);
        limits
            .filter(move |(bit, _)| held & bit == 0)
            .filter_map(|(bit, limit)| Some((bit, &**limit.as_ref()?)))
    }

    fn note_held(&self, bit: u8) {
        self.held.fetch_or(bit, Ordering::Relaxed);
    }

    /// Takes a place at each limit, or at none of them. Permits come first: tokens cannot be given back.
    pub(crate) fn try_take(&self) -> Result<(), Short> {
        let missing = || self.missing();
        let (first, second) = (missing().next(), missing().nth(1));
        let both = || first.into_iter().chain(second);
        let permits = both().try_for_each(|(bit, limit)| {
            limit.try_permits(self.weight)?;
            self.note_held(bit);
            Ok(())
        });
        let tokens = || both().try_for_each(|(_, limit)| limit.try_tokens(self.weight));
        permits
            .and_then(|()| tokens())
            .inspect_err(|_| self.give_back())
    }

    /// Waits for a place at each limit, one after the other, by `until` if that is given.
    fn take(
        &self,
        until: Option<Instant>,
        mut gives_up: impl FnMut(&Waker) -> bool,
    ) -> Result<(), NotTaken> {
        let is_over = || until.is_some_and(|until| Instant::now() >= until);
        if is_stoppable() {
            return self.take_by_the_clock(until, gives_up);
        }
        for (bit, limit) in self.missing() {
            let mut has_given_up = false;
            let taken = limit.take_until(self.weight, until, |waker| {
                has_given_up = gives_up(waker);
                has_given_up
            });
            match taken {
                Ok(()) => self.note_held(bit),
                Err(_) if has_given_up => return Err(NotTaken::GaveUp),
                Err(_) if is_over() => return Err(NotTaken::Late),
                // Also tokens that cannot come in time.
                Err(refused) => return Err(NotTaken::Never(refused)),
            }
        }
        Ok(())
    }

    /// As [`take`](Pass::take), for who may be stopped with what others wait for: it has all, or nothing.
    fn take_by_the_clock(
        &self,
        until: Option<Instant>,
        mut gives_up: impl FnMut(&Waker) -> bool,
    ) -> Result<(), NotTaken> {
        loop {
            let Err(short) = self.try_take() else {
                return Ok(());
            };
            let now = Instant::now();
            let wait = match short {
                Short::Permits => LOOKS_AGAIN,
                Short::Tokens(wait) => wait.max(LOOKS_AGAIN),
                Short::Never(refused) => return Err(NotTaken::Never(refused)),
            };
            if until.is_some_and(|until| now >= until) {
                return Err(NotTaken::Late);
            }
            let next = now.checked_add(wait);
            let comes = until.is_none_or(|until| next.is_some_and(|next| next <= until));
            if !comes && short != Short::Permits {
                return Err(NotTaken::Never(Refused::Rate));
            }
            let next = next.into_iter().chain(until).min();
            if block_until(next, &mut gives_up) {
                return Err(NotTaken::GaveUp);
            }
        }
    }

    /// It has ended like this, or does not come in: leaves its places at the limits, and tells the breaker.
    pub(crate) fn leave(&self, verdict: Verdict) {
        self.give_back();
        if let Some(gate) = &self.gate {
            let round = self.round.swap(NO_ROUND, Ordering::Relaxed);
            if round != NO_ROUND {
                gate.end(Round(round), verdict);
            }
        }
    }

    /// Leaves its places at the limits.
    fn give_back(&self) {
        let held = self.held.swap(0, Ordering::Relaxed);
        let limits = [1, 2].into_iter().zip(&self.limits);
        for (_, limit) in limits.filter(|(bit, _)| held & bit != 0) {
            limit.iter().for_each(|limit| limit.give(self.weight));
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // One whose engine was gone before it.
        self.leave(Verdict::None);
    }
}

/// Somebody who has a job that could not come in at once, and waits until it can.
#[derive(Debug)]
pub(crate) struct Entering<'s> {
    shared: &'s Shared,
    stage: Stage<'s>,
    listener: Listener<'s>,
}

#[derive(Debug)]
enum Stage<'s> {
    /// For permits of a limit, with its bit.
    Permits(&'s Pass, u8, Waiting<'s>),
    /// For tokens, until then.
    Tokens(Option<Instant>),
    /// For a place in the queue.
    Room(Waiter<'s>),
    /// It will never be taken, which is found on trying.
    Never,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It has a place in the queue.
    Entered,
    /// It is worth trying again.
    TriesAgain,
    /// The waker is woken when it is.
    Waits,
}

impl Entering<'_> {
    /// When it is worth trying again, whether it is woken or not.
    pub(crate) fn until(&self) -> Option<Instant> {
        match self.stage {
            Stage::Tokens(until) => until,
            Stage::Room(ref waiter) => waiter.until(),
            Stage::Permits(.., ref waiting) => waiting.until(),
            Stage::Never => None,
        }
    }

    pub(crate) fn poll(&mut self, waker: &Waker) -> Step {
        let step = match &mut self.stage {
            Stage::Permits(pass, bit, waiting) => match waiting.poll(pass.weight, waker) {
                Ok(()) => {
                    pass.note_held(*bit);
                    Step::TriesAgain
                }
                Err(Short::Permits) => Step::Waits,
                Err(Short::Tokens(_) | Short::Never(_)) => Step::TriesAgain,
            },
            Stage::Tokens(_) => Step::Waits,
            Stage::Room(waiter) => match waiter.poll(waker) {
                true => Step::Entered,
                false => Step::Waits,
            },
            Stage::Never => Step::TriesAgain,
        };
        let shared = self.shared;
        if step == Step::Waits && self.listener.is_said(waker, || shared.is_closed()) {
            return Step::TriesAgain;
        }
        step
    }
}

/// Who is to hear that no more jobs are taken, while they wait for something else.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closing(Arc<Mutex<Listeners>>);

#[derive(Debug, Default)]
struct Listeners {
    /// Tells them apart.
    next: u64,
    wakers: HashMap<u64, Waker>,
}

impl Closing {
    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        note_lock_of_all();
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `what` makes of them, which nobody waits for long to look at.
    fn change<T: Send + Sync + 'static>(
        &self,
        what: impl FnOnce(&mut Listeners) -> T + Send + 'static,
    ) -> T {
        let closing = self.clone();
        unstopped(move || what(&mut closing.listeners()))
    }

    /// No more jobs are taken, which whoever asks sees already.
    pub(crate) fn tell(&self) {
        let wakers = self.change(|listeners| std::mem::take(&mut listeners.wakers));
        wakers.into_values().for_each(Waker::wake);
    }

    fn listener(&self) -> Listener<'_> {
        Listener {
            closing: self,
            number: None,
        }
    }
}

/// One who listens, until it is dropped.
#[derive(Debug)]
struct Listener<'c> {
    closing: &'c Closing,
    number: Option<u64>,
}

impl Listener<'_> {
    /// True if it is so; else the waker is woken when it is told. The question comes after the lock, so
    /// that whoever tells finds the waker or is seen to have told.
    fn is_said(&mut self, waker: &Waker, is_so: impl FnOnce() -> bool) -> bool {
        if self.number.is_some() && is_stoppable() {
            // The spawner would do it again and again for who looks by the clock; the waker that is there wakes
            // the same thread.
            return is_so();
        }
        let (known, waker) = (self.number, waker.clone());
        self.number = self.closing.change(move |listeners| {
            let number = known.unwrap_or_else(|| {
                listeners.next += 1;
                listeners.next
            });
            listeners.wakers.insert(number, waker);
            Some(number)
        });
        is_so()
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let remove = move |listeners: &mut Listeners| listeners.wakers.remove(&number);
            drop(self.closing.change(remove));
        }
    }
}

impl Shared {
    /// True if jobs of a class come in one by one only.
    pub(crate) fn is_single(&self, class: Class) -> bool {
        let rules = self.rules.as_ref();
        #[cfg(feature = "tracing")]
        if crate::trace::is_recorded() {
            return true;
        }
        // One that others hide would seem to be as old as they are.
        let is_watched = self.watchdog.is_some();
        is_watched
            || self.room(class).is_bounded()
            || rules.is_some_and(|rules| rules.concern(class))
    }

    /// Passes what a job has to pass and enters the room of its class, if both may be at once; false if
    /// it is worth waiting for.
    pub(crate) fn try_enter(&self, meta: &Meta) -> Result<bool, SubmitError> {
        let room = self.room(meta.class);
        let has_entered = room.try_enter();
        let passed = meta.pass().map_or(Ok(()), Pass::try_take);
        if has_entered && passed.is_ok() {
            return Ok(true);
        }
        if has_entered {
            self.leave_room(meta.class);
        }
        if let Err(Short::Never(refused)) = passed {
            let refused = SubmitError::Limited(refused);
            self.note_rejected(meta, &refused);
            return Err(refused);
        }
        if self.is_closed() {
            self.note_rejected(meta, &SubmitError::ShutDown);
            return Err(SubmitError::ShutDown);
        }
        Ok(false)
    }

    /// For who waits until such a job may come in. While it waits for its limits it has no place in the
    /// queue.
    pub(crate) fn entering<'s>(&'s self, meta: &'s Meta) -> Entering<'s> {
        let stage = match meta.pass().map(|pass| (pass, pass.try_take())) {
            None | Some((_, Ok(()))) => Stage::Room(self.room(meta.class).waiter()),
            Some((_, Err(Short::Never(_)))) => Stage::Never,
            Some((_, Err(Short::Tokens(wait)))) => Stage::Tokens(Instant::now().checked_add(wait)),
            Some((pass, Err(Short::Permits))) => match pass.missing().next() {
                Some((bit, limit)) => Stage::Permits(pass, bit, limit.waiting()),
                None => Stage::Never,
            },
        };
        Entering {
            shared: self,
            stage,
            listener: self.closing.listener(),
        }
    }

    /// As [`enter`](Shared::enter), for what its submitter cannot run.
    #[cfg(feature = "tokio")]
    pub(crate) fn enter_to_wait(&self, meta: &Meta) -> Result<Entry, SubmitError> {
        let entered = match self.enter(meta)? {
            Entry::Caller => self.wait_for_room(self.room(meta.class), meta.deadline())?,
            entered => entered,
        };
        match entered {
            Entry::Caller => Err(SubmitError::QueueFull),
            entered => Ok(entered),
        }
    }

    /// Passes what a job has to pass and enters the room of its class; or does what is to be done where
    /// it is full, or a limit refuses.
    pub(crate) fn enter(&self, meta: &Meta) -> Result<Entry, SubmitError> {
        match meta.pass() {
            None => self.enter_room(meta.class, meta.deadline()),
            Some(pass) => self.enter_by(pass, meta.class, meta.deadline()),
        }
    }

    #[cold]
    fn enter_by(
        &self,
        pass: &Pass,
        class: Class,
        until: Option<Instant>,
    ) -> Result<Entry, SubmitError> {
        // A shut-down engine refuses for that, and nothing is a probe.
        if self.is_closed() {
            return Err(SubmitError::ShutDown);
        }
        pass.pass_gate()?;
        self.enter_past(pass, class, until)
    }

    fn enter_past(
        &self,
        pass: &Pass,
        class: Class,
        until: Option<Instant>,
    ) -> Result<Entry, SubmitError> {
        let room = self.room(class);
        let refused = if room.try_enter() {
            let Err(short) = pass.try_take() else {
                return Ok(Entry::Queued);
            };
            self.leave_room(class);
            if let Short::Never(refused) = short {
                return Err(SubmitError::Limited(refused));
            }
            SubmitError::Limited(short.refused())
        } else {
            SubmitError::QueueFull
        };
        if room.when_full() == WhenFull::Reject {
            return Err(refused);
        }
        {
            // Nobody may be left to do what would make place: then it is not waited for.
            let _stands = Stands::by().ok_or(refused)?;
            let mut listener = self.closing.listener();
            let taken = pass.take(until, |waker| listener.is_said(waker, || self.is_closed()));
            match taken {
                Ok(()) => {}
                Err(NotTaken::GaveUp) => return Err(SubmitError::ShutDown),
                Err(NotTaken::Late) => return Ok(Entry::Late),
                Err(NotTaken::Never(refused)) => return Err(SubmitError::Limited(refused)),
            }
        }
        self.enter_room(class, until)
    }
}
