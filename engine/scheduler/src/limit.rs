//! How much may begin in a second, and how much may be under way at once: one limiter for both.
//!
//! Concurrency is a weighted semaphore, rate a token bucket (crate `governor`); the state of each is one
//! word. So nobody who takes or gives waits for a thread that holds a lock, however low that thread's
//! priority is. The list of who waits for permits has no background threads in it: one that is woken for
//! a permit may not get a CPU for long, and others would wait behind it. So these look by the clock.
//!
//! The permit is taken first, then the tokens, for a permit can be given back and a token cannot.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::current::{block_until, unstopped_later};
use crate::protocol::permits::{Permits, Waiter};
use crate::protocol::sync::{AtomicUsize, Ordering};
use crate::room::Stands;
use crate::schedule::{is_stoppable, looks_again};

/// Limits a rate by a token bucket, and concurrency by a weighted semaphore.
///
/// By itself for whatever is to be limited, or for all jobs of a class
/// ([`EngineBuilder::limit`](crate::EngineBuilder::limit)) or of a name
/// ([`limit_name`](crate::EngineBuilder::limit_name)). One limiter may serve several of these, and several
/// engines: then they share it.
///
/// Costs some 50 ns to acquire and give back, half of it to read the clock. Neither limit is ever
/// exceeded: in any time `t`, in seconds, no more than `burst + per_second * t` tokens are given out.
///
/// ```
/// use reiver::limit::{HybridLimiter, Refused};
///
/// let limiter = HybridLimiter::new(1000, 10, 2);
/// let first = limiter.acquire(1)?;
/// let second = limiter.acquire(1)?;
/// assert_eq!(limiter.acquire(1).unwrap_err(), Refused::Concurrency);
/// drop(first);
/// let third = limiter.acquire(1)?;
/// # drop((second, third));
/// # Ok::<(), Refused>(())
/// ```
pub struct HybridLimiter {
    concurrency: u32,
    permits: Arc<Permits>,
    burst: u32,
    tokens: Tokens,
}

/// Which of its limits a [`HybridLimiter`] refused something for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There are not enough tokens.
    #[error("the limit of rate is reached; try again later, or ask for less than the burst")]
    Rate,
    /// There are not enough permits.
    #[error(
        "the limit of concurrency is reached; try again once something has ended, or ask for no \
         more than the limit"
    )]
    Concurrency,
}

/// What may be under way; given back when it is dropped.
#[derive(Debug)]
#[must_use = "what was acquired is given back at once"]
pub struct Permit<'l> {
    limiter: &'l HybridLimiter,
    weight: u32,
}

/// As [`Permit`], for who keeps the limiter alive with it.
#[derive(Debug)]
#[must_use = "what was acquired is given back at once"]
pub struct OwnedPermit {
    limiter: Arc<HybridLimiter>,
    weight: u32,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.limiter.give(self.weight);
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.limiter.give(self.weight);
    }
}

/// Why something was not given, and when it is worth asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// Never.
    Never(Refused),
    /// Once permits are given back.
    Permits,
    /// Not before this has passed.
    Tokens(Duration),
}

impl Short {
    pub(crate) fn refused(self) -> Refused {
        match self {
            Short::Never(refused) => refused,
            Short::Permits => Refused::Concurrency,
            Short::Tokens(_) => Refused::Rate,
        }
    }
}

impl HybridLimiter {
    /// A limiter of `per_second` tokens a second, of which `burst` can be saved, and of `concurrency`
    /// permits. The bucket is full at first.
    ///
    /// With 0 tokens a second the burst is all that there ever is. With a burst of 0, or a concurrency of
    /// 0, nothing of any weight is given out. A token comes every so many whole nanoseconds, rounded up:
    /// above some ten million tokens a second the rate is that much lower.
    pub fn new(per_second: u32, burst: u32, concurrency: u32) -> HybridLimiter {
        HybridLimiter::with_time(per_second, burst, concurrency, Time::Real(Instant::now()))
    }

    fn with_time(per_second: u32, burst: u32, concurrency: u32, time: Time) -> HybridLimiter {
        HybridLimiter {
            concurrency,
            permits: Arc::new(Permits::new(concurrency as usize)),
            burst,
            tokens: Tokens::new(per_second, burst, time),
        }
    }

    /// Takes a permit and tokens of this weight, or says which of the two there is not enough of; it
    /// does not wait. What is refused for its rate gives its permit back.
    ///
    /// A weight of 0 is never refused.
    ///
    /// # Errors
    /// [`Refused::Concurrency`] or [`Refused::Rate`]. A weight above the concurrency or the burst can
    /// never be had, and is refused each time.
    pub fn acquire(&self, weight: u32) -> Result<Permit<'_>, Refused> {
        self.try_take(weight).map_err(Short::refused)?;
        Ok(Permit {
            limiter: self,
            weight,
        })
    }

    /// As [`acquire`](HybridLimiter::acquire), for who takes the permit elsewhere.
    ///
    /// # Errors
    /// As there.
    pub fn acquire_owned(self: &Arc<Self>, weight: u32) -> Result<OwnedPermit, Refused> {
        self.try_take(weight).map_err(Short::refused)?;
        Ok(OwnedPermit {
            limiter: Arc::clone(self),
            weight,
        })
    }

    /// As [`acquire`](HybridLimiter::acquire), but waits for up to `timeout`. Who waits for permits gets
    /// them in the order in which they came, however heavy they are; but threads of the background
    /// ([`P2`](crate::Priority::P2), of class Cpu or Hybrid) look each millisecond whether there are any
    /// left, so that nobody waits behind one that has no CPU; heavy ones may wait for long. While it waits
    /// for tokens it holds no permit; where they cannot come in time it is refused at once.
    ///
    /// A worker of an engine hands its place on meanwhile.
    ///
    /// # Errors
    /// Which of the two there was still not enough of.
    pub fn acquire_timeout(&self, weight: u32, timeout: Duration) -> Result<Permit<'_>, Refused> {
        // What is further away than a clock can say is never reached.
        let until = Instant::now().checked_add(timeout);
        let _stands = Stands::while_waiting();
        self.take_until(weight, until, |_| false)?;
        Ok(Permit {
            limiter: self,
            weight,
        })
    }

    /// How much is under way: the sum of the weights of all permits that are held.
    pub fn in_use(&self) -> u32 {
        let free = u32::try_from(self.permits.free()).unwrap_or(u32::MAX);
        self.concurrency.saturating_sub(free)
    }

    /// Takes a permit and tokens, or says why not.
    pub(crate) fn try_take(&self, weight: u32) -> Result<(), Short> {
        self.try_permits(weight)?;
        self.take_tokens(weight)
    }

    /// Takes a permit alone, for who is to take tokens next.
    pub(crate) fn try_permits(&self, weight: u32) -> Result<(), Short> {
        self.check(weight)?;
        let taken = self.permits.try_take(weight as usize);
        taken.then_some(()).ok_or(Short::Permits)
    }

    /// Takes tokens for who has the permit, and keeps it.
    pub(crate) fn try_tokens(&self, weight: u32) -> Result<(), Short> {
        self.tokens.take(weight)
    }

    /// A weight that can be had at all.
    fn check(&self, weight: u32) -> Result<(), Short> {
        if weight > self.concurrency {
            return Err(Short::Never(Refused::Concurrency));
        }
        if weight > self.burst {
            return Err(Short::Never(Refused::Rate));
        }
        Ok(())
    }

    /// Takes tokens for who has the permit, or gives that back.
    fn take_tokens(&self, weight: u32) -> Result<(), Short> {
        let taken = self.try_tokens(weight);
        if taken.is_err() {
            self.give(weight);
        }
        taken
    }

    pub(crate) fn give(&self, weight: u32) {
        if weight > 0 && self.permits.give(weight as usize) {
            let permits = Arc::clone(&self.permits);
            unstopped_later(move || permits.wake_first());
        }
    }

    /// Somebody who is to wait.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        Waiting {
            limiter: self,
            waiter: None,
        }
    }

    /// Takes a permit and tokens, by `until` if that is given, and as long as it does not give up: asked
    /// now and then, that arranges that its waker is woken when it would say something else.
    pub(crate) fn take_until(
        &self,
        weight: u32,
        until: Option<Instant>,
        mut gives_up: impl FnMut(&Waker) -> bool,
    ) -> Result<(), Refused> {
        let mut waiting = self.waiting();
        loop {
            let mut taken = Err(Short::Permits);
            let mut has_given_up = false;
            let is_in_time = |at: &Instant| until.is_none_or(|until| *at < until);
            let looks_again = waiting.until().filter(is_in_time);
            block_until(looks_again.or(until), |waker| {
                taken = waiting.poll(weight, waker);
                has_given_up = taken.is_err() && gives_up(waker);
                has_given_up || taken != Err(Short::Permits)
            });
            let Err(short) = taken else {
                return Ok(());
            };
            let Short::Tokens(wait) = short else {
                if short == Short::Permits && looks_again.is_some() && !has_given_up {
                    continue;
                }
                return Err(short.refused());
            };
            let at = Instant::now().checked_add(wait);
            let comes = at.filter(|&at| until.is_none_or(|until| at <= until));
            let Some(at) = comes.filter(|_| !has_given_up) else {
                return Err(Refused::Rate);
            };
            if block_until(Some(at), &mut gives_up) {
                return Err(Refused::Rate);
            }
        }
    }
}

impl fmt::Debug for HybridLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HybridLimiter")
            .field("concurrency", &self.concurrency)
            .field("in_use", &self.in_use())
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

/// Somebody who waits for a limiter.
#[derive(Debug)]
pub(crate) struct Waiting<'l> {
    limiter: &'l HybridLimiter,
    /// While it stands in the list.
    waiter: Option<Waiter>,
}

impl Waiting<'_> {
    /// When it is worth trying again without being woken.
    pub(crate) fn until(&self) -> Option<Instant> {
        looks_again()
    }

    /// Takes a permit and tokens; where permits are short, the waker is woken when it is worth trying
    /// again, but that of who may be stopped, who looks again by the clock, see [`until`](Waiting::until).
    pub(crate) fn poll(&mut self, weight: u32, waker: &Waker) -> Result<(), Short> {
        let limiter = self.limiter;
        if weight == 0 || is_stoppable() {
            // Nothing is not waited for, be there who waits for more.
            return limiter.try_take(weight);
        }
        limiter.check(weight)?;
        let permits = || limiter.permits.waiter();
        if self
            .waiter
            .get_or_insert_with(permits)
            .poll(weight as usize, waker)
        {
            self.waiter = None;
            return limiter.take_tokens(weight);
        }
        Err(Short::Permits)
    }
}

/// A token bucket.
enum Tokens {
    /// It fills up again.
    Filled(
        Box<RateLimiter<NotKeyed, InMemoryState, Time, NoOpMiddleware<Duration>>>,
        Time,
    ),
    /// So many, and no more.
    Left(AtomicUsize),
}

impl Tokens {
    fn new(per_second: u32, burst: u32, time: Time) -> Tokens {
        let interval = NonZeroU32::new(per_second)
            .map(|rate| Duration::from_nanos(1_000_000_000_u64.div_ceil(rate.get().into())));
        let quota = interval
            .and_then(Quota::with_period)
            .zip(NonZeroU32::new(burst));
        match quota {
            None => Tokens::Left(AtomicUsize::new(burst as usize)),
            Some((quota, burst)) => {
                let quota = quota.allow_burst(burst);
                let limiter = RateLimiter::direct_with_clock(quota, time.clone());
                Tokens::Filled(Box::new(limiter), time)
            }
        }
    }

    /// Takes so many, which is no more than the burst.
    fn take(&self, weight: u32) -> Result<(), Short> {
        let Some(weight) = NonZeroU32::new(weight) else {
            return Ok(());
        };
        match self {
            Tokens::Filled(limiter, time) => match limiter.check_n(weight) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(not_until)) => Err(Short::Tokens(not_until.wait_time_from(time.now()))),
                Err(_) => Err(Short::Never(Refused::Rate)),
            },
            Tokens::Left(left) => {
                let take = |left: usize| left.checked_sub(weight.get() as usize);
                // ORDERING: relaxed: a count that publishes nothing.
                let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
                taken.map(drop).map_err(|_| Short::Never(Refused::Rate))
            }
        }
    }
}

/// The time, as how long something has been there.
#[derive(Debug, Clone)]
enum Time {
    Real(Instant),
    #[cfg(test)]
    MadeUp(governor::clock::FakeRelativeClock),
}

impl Clock for Time {
    type Instant = Duration;

    fn now(&self) -> Duration {
        match self {
            Time::Real(start) => start.elapsed(),
            #[cfg(test)]
            Time::MadeUp(clock) => clock.now().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;
    use crate::crew::Rank;
    use crate::schedule;

    fn made_up(
        per_second: u32,
        burst: u32,
        concurrency: u32,
    ) -> (HybridLimiter, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let time = Time::MadeUp(clock.clone());
        let limiter = HybridLimiter::with_time(per_second, burst, concurrency, time);
        (limiter, clock)
    }

    fn refused(limiter: &HybridLimiter, weight: u32) -> Option<Refused> {
        limiter.acquire(weight).err()
    }

    /// It may have been stopped when a permit comes that it waits for.
    #[test]
    fn nobody_waits_behind_a_thread_of_the_background() {
        let background = std::thread::spawn(|| {
            schedule::settle(Rank::Background);
            let limiter = HybridLimiter::new(0, 10, 1);
            let held = limiter.acquire(1).unwrap();
            let mut waiting = limiter.waiting();
            assert_eq!(waiting.poll(1, Waker::noop()), Err(Short::Permits));
            drop(held);
            let mut got = None;
            schedule::in_place_of_another(|| {
                got = Some(
                    limiter
                        .acquire_timeout(1, Duration::from_secs(200))
                        .map(drop),
                );
            });
            assert_eq!(got, Some(Ok(())));
            assert_eq!(waiting.poll(1, Waker::noop()), Ok(()));
            assert_eq!(limiter.in_use(), 1);
            let soon = Duration::from_millis(10);
            assert_eq!(
                limiter.acquire_timeout(1, soon).map(drop),
                Err(Refused::Concurrency)
            );
        });
        background.join().unwrap();
    }

    #[test]
    fn nothing_is_had_at_once_whoever_waits_for_more() {
        let limiter = HybridLimiter::new(0, 10, 1);
        let _held = limiter.acquire(1).unwrap();
        let mut waiting = limiter.waiting();
        assert_eq!(waiting.poll(1, Waker::noop()), Err(Short::Permits));
        assert!(limiter.acquire_timeout(0, Duration::ZERO).is_ok());
    }

    #[test]
    fn a_refusal_for_the_rate_gives_the_permit_back() {
        let (limiter, clock) = made_up(10, 1, 1);
        drop(limiter.acquire(1).unwrap());
        assert_eq!(refused(&limiter, 1), Some(Refused::Rate));
        assert_eq!(limiter.in_use(), 0);
        clock.advance(Duration::from_millis(100));
        let held = limiter.acquire(1).unwrap();
        assert_eq!(refused(&limiter, 1), Some(Refused::Concurrency));
        drop(held);
    }

    #[test]
    fn a_refusal_for_concurrency_costs_no_token() {
        let (limiter, _) = made_up(1, 2, 1);
        let held = limiter.acquire(1).unwrap();
        assert_eq!(refused(&limiter, 1), Some(Refused::Concurrency));
        drop(held);
        assert!(limiter.acquire(1).is_ok());
    }

    #[test]
    fn weights_that_can_never_be_had_are_refused_at_once() {
        let limiter = HybridLimiter::new(10, 2, 4);
        let forever = |weight| limiter.acquire_timeout(weight, Duration::MAX).err();
        assert_eq!(forever(5), Some(Refused::Concurrency));
        assert_eq!(forever(3), Some(Refused::Rate));
        assert_eq!(forever(u32::MAX), Some(Refused::Concurrency));
        assert_eq!(limiter.in_use(), 0);
    }

    #[test]
    fn no_weight_is_never_refused() {
        let limiter = HybridLimiter::new(0, 0, 0);
        assert!(limiter.acquire(0).is_ok());
        assert!(limiter.acquire_timeout(0, Duration::ZERO).is_ok());
        assert_eq!(refused(&limiter, 1), Some(Refused::Concurrency));
        assert_eq!(
            refused(&HybridLimiter::new(5, 0, 5), 1),
            Some(Refused::Rate)
        );
    }

    #[test]
    fn without_a_rate_the_burst_is_all_there_is() {
        let (limiter, clock) = made_up(0, 3, 8);
        assert!(limiter.acquire(2).is_ok() && limiter.acquire(1).is_ok());
        clock.advance(Duration::from_secs(1_000_000));
        assert_eq!(refused(&limiter, 1), Some(Refused::Rate));
        let forever = limiter.acquire_timeout(1, Duration::MAX);
        assert_eq!(forever.err(), Some(Refused::Rate));
    }

    #[test]
    fn the_largest_numbers_are_numbers() {
        let limiter = HybridLimiter::new(u32::MAX, u32::MAX, u32::MAX);
        let all = limiter.acquire(u32::MAX).unwrap();
        assert_eq!(limiter.in_use(), u32::MAX);
        assert_eq!(refused(&limiter, 1), Some(Refused::Concurrency));
        drop(all);
        assert_eq!(limiter.in_use(), 0);
        let slow = HybridLimiter::new(1, u32::MAX, u32::MAX);
        assert!(slow.acquire(u32::MAX).is_ok());
        assert_eq!(refused(&slow, u32::MAX), Some(Refused::Rate));
    }

    #[test]
    fn who_cannot_have_its_tokens_in_time_does_not_wait_for_them() {
        let limiter = HybridLimiter::new(1, 1, 1);
        let begun = Instant::now();
        drop(limiter.acquire(1).unwrap());
        let late = limiter.acquire_timeout(1, Duration::from_millis(900));
        // It may have been held up for the rest of the second; then it has the token.
        assert!(late.err() == Some(Refused::Rate) || begun.elapsed() >= Duration::from_secs(1));
    }

    #[test]
    fn who_waits_gets_what_is_given_back() {
        let limiter = Arc::new(HybridLimiter::new(1_000_000, 100, 2));
        let held = limiter.acquire_owned(2).unwrap();
        let waits = std::thread::spawn({
            let limiter = Arc::clone(&limiter);
            move || limiter.acquire_timeout(2, Duration::from_secs(200)).is_ok()
        });
        drop(held);
        assert!(waits.join().unwrap());
        let refused = limiter.acquire_owned(2).map(|held| {
            let soon = limiter.acquire_timeout(1, Duration::from_millis(1));
            drop(held);
            soon.err()
        });
        assert_eq!(refused.unwrap(), Some(Refused::Concurrency));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Acquire(u32),
        /// One of those that are held, by its number modulo how many there are.
        Drop(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u32..6).prop_map(Step::Acquire),
            2 => (0_usize..8).prop_map(Step::Drop),
            2 => (0_u64..400_000_000).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// A bucket that counts in billionths of a token, and a sum of weights.
        #[test]
        fn it_gives_and_refuses_as_the_model_does(
            rate in prop_oneof![Just(0_u32), Just(1), Just(4), Just(10), Just(1000)],
            burst in 0_u32..6,
            concurrency in 0_u32..6,
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let (limiter, clock) = made_up(rate, burst, concurrency);
            // Each of these rates divides the second, so that nothing is rounded.
            const TOKEN: u64 = 1_000_000_000;
            let most = u64::from(burst) * TOKEN;
            let (mut tokens, mut used) = (most, 0);
            let mut held = VecDeque::new();
            for step in steps {
                match step {
                    Step::Pass(ns) => {
                        clock.advance(Duration::from_nanos(ns));
                        tokens = most.min(tokens + ns * u64::from(rate));
                    }
                    Step::Drop(number) => {
                        if !held.is_empty() {
                            let (permit, weight) = held.remove(number % held.len()).unwrap();
                            drop::<Permit<'_>>(permit);
                            used -= weight;
                        }
                    }
                    Step::Acquire(weight) => {
                        let needed = u64::from(weight) * TOKEN;
                        let expected = if weight == 0 {
                            None
                        } else if weight > concurrency {
                            Some(Refused::Concurrency)
                        } else if weight > burst {
                            Some(Refused::Rate)
                        } else if used + weight > concurrency {
                            Some(Refused::Concurrency)
                        } else if needed > tokens {
                            Some(Refused::Rate)
                        } else {
                            None
                        };
                        let outcome = limiter.acquire(weight);
                        prop_assert_eq!(outcome.as_ref().err().copied(), expected);
                        if let Ok(permit) = outcome {
                            used += weight;
                            tokens -= needed;
                            held.push_back((permit, weight));
                        }
                    }
                }
                prop_assert_eq!(limiter.in_use(), used);
                prop_assert!(used <= concurrency);
            }
        }
    }
}
