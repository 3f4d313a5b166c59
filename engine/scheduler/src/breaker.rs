//! Circuit breakers: jobs of a name that keeps failing are refused for a while, so that nobody waits
//! for what will fail, and what fails is left in peace.
//!
//! | state | a job that comes | becomes |
//! | --- | --- | --- |
//! | closed | is taken | open, once enough of the last `window` jobs have failed |
//! | open | is refused | half open, once `open_for` has passed |
//! | half open | is taken as a probe if none is under way, else refused | closed after a probe that succeeds, open after one that fails; a probe that does neither makes way for another |
//!
//! Each change begins a new round, and a job counts only in the round in which it was taken: so what was
//! under way when a breaker opened decides nothing about a probe.
//!
//! [`Circuit`] is the policy, with the time given to it. [`Gate`] makes it one for all threads: by a lock
//! that is held for some nanoseconds when a job of the name ends, and, while the breaker is not closed,
//! when one comes. So one of priority P0 may find it held by one of P2, but only by one of its own name.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::current::unstopped;
use crate::error::BuildError;
use crate::protocol::sync::{AtomicU64, Ordering};
use crate::schedule::note_lock_of_all;

/// When the breaker of a name opens, and for how long; see
/// [`EngineBuilder::breaker`](crate::EngineBuilder::breaker).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// The share of failures among the last [`window`](Breaker::window) jobs at which it opens: more than
    /// 0, at most 1.
    pub failures: f64,
    /// How many jobs are judged together: 1 to 1,048,576. As long as fewer have ended it does not open.
    pub window: usize,
    /// How long it refuses all jobs before it lets one through as a probe. With
    /// [`Duration::ZERO`] the next one is, with [`Duration::MAX`] none ever.
    pub open_for: Duration,
}

/// What the breaker of a name does with jobs that come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// They are taken.
    #[default]
    Closed,
    /// They are refused: [`SubmitError::BreakerOpen`](crate::SubmitError::BreakerOpen).
    Open,
    /// One at a time is taken, as a probe.
    HalfOpen,
}

/// A breaker as it was when the [`Metrics`](crate::Metrics) were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerMetrics {
    pub(crate) name: Box<str>,
    pub(crate) state: BreakerState,
    pub(crate) opened: u64,
}

impl BreakerMetrics {
    /// The name whose jobs it takes or refuses.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does with those that come.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// How often it has opened, after probes too.
    pub fn opened(&self) -> u64 {
        self.opened
    }
}

/// The longest window: a byte for each job of it.
const LONGEST: usize = 1 << 20;

impl Breaker {
    /// One that can be, or what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let refuse = |value, remedy| {
            Err(BuildError::Setting {
                setting: "breaker",
                value,
                remedy,
            })
        };
        // Also no number at all.
        if !(self.failures > 0.0 && self.failures <= 1.0) {
            return refuse(
                format!("one with failures: {:?}", self.failures),
                "one with failures above 0.0 and at most 1.0",
            );
        }
        if !(1..=LONGEST).contains(&self.window) {
            return refuse(
                format!("one with window: {}", self.window),
                "one with a window of 1 to 1048576",
            );
        }
        Ok(())
    }
}

/// How a job ended, for its breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    Failure,
    /// It was not run, or was told to end.
    None,
}

/// The round in which a job was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round(pub(crate) u64);

/// The state of one breaker; the time is what has passed since anything.
#[derive(Debug)]
struct Circuit {
    settings: Breaker,
    phase: Phase,
    /// How often the phase has changed.
    round: u64,
    /// The last ones of this round, true for those that failed.
    ended: VecDeque<bool>,
    failed: usize,
    opened: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { since: Duration },
    HalfOpen { is_probing: bool },
}

impl Circuit {
    fn new(settings: Breaker) -> Circuit {
        Circuit {
            settings,
            phase: Phase::Closed,
            round: 0,
            ended: VecDeque::new(),
            failed: 0,
            opened: 0,
        }
    }

    fn state(&self, now: Duration) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { since } if now.saturating_sub(since) < self.settings.open_for => {
                BreakerState::Open
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn become_(&mut self, phase: Phase) {
        self.phase = phase;
        self.round += 1;
        self.ended.clear();
        self.failed = 0;
    }

    fn open(&mut self, now: Duration) {
        self.become_(Phase::Open { since: now });
        self.opened += 1;
    }

    /// The round of a job that is taken; `None` for one that is refused.
    fn admit(&mut self, now: Duration) -> Option<Round> {
        let state = self.state(now);
        match self.phase {
            Phase::Closed => {}
            Phase::Open { .. } if state == BreakerState::Open => return None,
            Phase::Open { .. } => self.become_(Phase::HalfOpen { is_probing: true }),
            Phase::HalfOpen { is_probing: true } => return None,
            Phase::HalfOpen { is_probing: false } => {
                self.phase = Phase::HalfOpen { is_probing: true };
            }
        }
        Some(Round(self.round))
    }

    fn end(&mut self, round: Round, verdict: Verdict, now: Duration) {
        if round.0 != self.round {
            return;
        }
        match (self.phase, verdict) {
            (Phase::Closed, Verdict::None) | (Phase::Open { .. }, _) => {}
            (Phase::Closed, Verdict::Success | Verdict::Failure) => {
                self.note(verdict == Verdict::Failure);
                if self.is_failing() {
                    self.open(now);
                }
            }
            (Phase::HalfOpen { .. }, Verdict::None) => {
                self.phase = Phase::HalfOpen { is_probing: false };
            }
            (Phase::HalfOpen { .. }, Verdict::Success) => self.become_(Phase::Closed),
            (Phase::HalfOpen { .. }, Verdict::Failure) => self.open(now),
        }
    }

    fn note(&mut self, has_failed: bool) {
        if self.ended.len() == self.settings.window {
            self.failed -= usize::from(self.ended.pop_front() == Some(true));
        }
        self.ended.push_back(has_failed);
        self.failed += usize::from(has_failed);
    }

    fn is_failing(&self) -> bool {
        let is_full = self.ended.len() == self.settings.window;
        // Divided, and not multiplied: 7 / 100 is what people get who write 0.07, but 0.07 * 100 is above 7.
        is_full && self.failed as f64 / self.ended.len() as f64 >= self.settings.failures
    }
}

/// The breaker of one name, for all threads.
#[derive(Debug)]
pub(crate) struct Gate {
    start: Instant,
    /// The round, and [`PASSES`] while the circuit is closed.
    word: AtomicU64,
    circuit: Mutex<Circuit>,
}

const PASSES: u64 = 1 << 63;

impl Gate {
    pub(crate) fn new(settings: Breaker) -> Gate {
        Gate {
            start: Instant::now(),
            word: AtomicU64::new(PASSES),
            circuit: Mutex::new(Circuit::new(settings)),
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        note_lock_of_all();
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the circuit, and shows all what it has become.
    fn change<R: Send + Sync + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Circuit, Duration) -> R + Send + 'static,
    ) -> R {
        let gate = Arc::clone(self);
        unstopped(move || gate.change_now(change))
    }

    fn change_now<R>(&self, change: impl FnOnce(&mut Circuit, Duration) -> R) -> R {
        let mut circuit = self.circuit();
        let result = change(&mut circuit, self.start.elapsed());
        let passes = match circuit.phase {
            Phase::Closed => PASSES,
            Phase::Open { .. } | Phase::HalfOpen { .. } => 0,
        };
        // ORDERING: relaxed: a word of its own. Who has learned of a job's end reads what it has made of
        // it; any other may as well have come before.
        self.word.store(circuit.round | passes, Ordering::Relaxed);
        result
    }

    /// The round of a job that is taken; `None` for one that is refused.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Round> {
        // ORDERING: relaxed, see `change`.
        let word = self.word.load(Ordering::Relaxed);
        if word & PASSES != 0 {
            return Some(Round(word & !PASSES));
        }
        self.change(Circuit::admit)
    }

    /// A job that was taken has ended.
    pub(crate) fn end(self: &Arc<Self>, round: Round, verdict: Verdict) {
        // Of a closed circuit it makes nothing.
        if verdict == Verdict::None && self.word.load(Ordering::Relaxed) & PASSES != 0 {
            return;
        }
        self.change(move |circuit, now| circuit.end(round, verdict, now));
    }

    pub(crate) fn metrics(self: &Arc<Self>, name: &str) -> BreakerMetrics {
        let (state, opened) = self.change(|circuit, now| (circuit.state(now), circuit.opened));
        BreakerMetrics {
            name: name.into(),
            state,
            opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Come,
        /// One of those under way, by its number modulo how many there are.
        End(usize, u8),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Come),
            4 => (0_usize..4, 0_u8..5).prop_map(|(job, verdict)| Step::End(job, verdict)),
            1 => (0_u64..150).prop_map(Step::Pass),
        ]
    }

    /// What has happened since it last closed, as a list; what a job is decided by is looked for in it.
    #[derive(Debug, Default)]
    struct Model {
        /// Of jobs that were taken since, in the order in which they ended.
        failed: Vec<bool>,
        opened_at: Option<u64>,
        probe: Option<usize>,
        /// The first job that counts.
        since: usize,
        opened: u64,
    }

    impl Model {
        fn open(&mut self, now: u64, next: usize) {
            *self = Model {
                opened_at: Some(now),
                since: next,
                opened: self.opened + 1,
                ..Model::default()
            };
        }
    }

    proptest! {
        #[test]
        fn it_takes_and_refuses_as_the_model_does(
            failures in 1_u32..=10,
            window in 1_usize..6,
            open_for in prop_oneof![Just(0_u64), Just(100), Just(u64::MAX)],
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let settings = Breaker {
                failures: f64::from(failures) / 10.0,
                window,
                open_for: Duration::from_nanos(open_for),
            };
            prop_assert!(settings.check().is_ok());
            let mut circuit = Circuit::new(settings);
            let mut model = Model::default();
            let (mut now, mut next) = (0_u64, 0);
            let mut under_way: Vec<(usize, Round)> = Vec::new();
            for step in steps {
                let at = Duration::from_nanos(now);
                match step {
                    Step::Pass(time) => now += time,
                    Step::Come => {
                        let is_half = model.opened_at.is_some_and(|since| now - since >= open_for);
                        let expected =
                            model.opened_at.is_none() || (is_half && model.probe.is_none());
                        let taken = circuit.admit(at);
                        prop_assert_eq!(taken.is_some(), expected);
                        if let Some(round) = taken {
                            if is_half {
                                model.probe = Some(next);
                            }
                            under_way.push((next, round));
                            next += 1;
                        }
                    }
                    Step::End(number, verdict) => {
                        if under_way.is_empty() {
                            continue;
                        }
                        let (job, round) = under_way.remove(number % under_way.len());
                        let verdict = match verdict {
                            0 | 1 => Verdict::Failure,
                            2 | 3 => Verdict::Success,
                            _ => Verdict::None,
                        };
                        circuit.end(round, verdict, at);
                        if model.probe == Some(job) {
                            match verdict {
                                Verdict::None => model.probe = None,
                                Verdict::Failure => model.open(now, next),
                                Verdict::Success => {
                                    model = Model {
                                        since: next,
                                        opened: model.opened,
                                        ..Model::default()
                                    }
                                }
                            }
                        } else if model.opened_at.is_none()
                            && job >= model.since
                            && verdict != Verdict::None
                        {
                            model.failed.push(verdict == Verdict::Failure);
                            let last = model.failed.iter().rev().take(window);
                            let failed = last.filter(|&&failed| failed).count();
                            // In tenths, without fractions.
                            let share = failed * 10 >= failures as usize * window;
                            if model.failed.len() >= window && share {
                                model.open(now, next);
                            }
                        }
                    }
                }
                let at = Duration::from_nanos(now);
                let expected = match model.opened_at {
                    None => BreakerState::Closed,
                    Some(since) if now - since < open_for => BreakerState::Open,
                    Some(_) => BreakerState::HalfOpen,
                };
                prop_assert_eq!(circuit.state(at), expected);
                prop_assert_eq!(circuit.opened, model.opened);
            }
        }
    }

    #[test]
    fn a_share_is_reached_by_just_as_many() {
        for percent in 1..=100 {
            let mut circuit = Circuit::new(Breaker {
                failures: format!("{:.2}", f64::from(percent) / 100.0)
                    .parse()
                    .unwrap(),
                window: 100,
                open_for: Duration::MAX,
            });
            let round = circuit.admit(Duration::ZERO).unwrap();
            for number in 0..100 {
                assert_eq!(circuit.state(Duration::ZERO), BreakerState::Closed);
                let verdict = match number < 100 - percent {
                    true => Verdict::Success,
                    false => Verdict::Failure,
                };
                circuit.end(round, verdict, Duration::ZERO);
            }
            assert_eq!(
                circuit.state(Duration::ZERO),
                BreakerState::Open,
                "{percent}"
            );
        }
    }

    #[test]
    fn what_is_no_share_or_no_window_is_refused() {
        let breaker = Breaker {
            failures: 0.5,
            window: 1,
            open_for: Duration::MAX,
        };
        assert!(breaker.check().is_ok());
        for failures in [f64::NAN, 0.0, -1.0, 1.1, f64::INFINITY] {
            assert!(
                Breaker {
                    failures,
                    ..breaker
                }
                .check()
                .is_err(),
                "{failures}"
            );
        }
        for window in [0, LONGEST + 1, usize::MAX] {
            assert!(Breaker { window, ..breaker }.check().is_err(), "{window}");
        }
        assert!(
            Breaker {
                failures: f64::MIN_POSITIVE,
                ..breaker
            }
            .check()
            .is_ok()
        );
    }
}
