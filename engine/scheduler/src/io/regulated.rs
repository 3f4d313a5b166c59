//! A pool as its regulator sees it, see [`hybrid`](crate::hybrid): who is in a job, and how many may be.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Io;
use crate::hybrid::Watched;
use crate::protocol::sync::Ordering;

/// What the regulator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Regulator {
    Awake,
    /// It sleeps for longer than is good while jobs wait for a place.
    Lazy,
    /// It sleeps until there is a job.
    Resting,
}

/// A thread, as its pool's regulator sees it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) number: u64,
    pub(super) thread: Watched,
    pub(super) is_idle: bool,
    /// It was idle since the last look.
    pub(super) is_fresh: bool,
    pub(super) yields: bool,
}

impl Io {
    /// For the regulator: waits until it is time for a look, `short` after the last one while jobs wait for
    /// a place; gives the threads that are in jobs, with a number each and whether they were idle since.
    /// `None` once the engine has stopped.
    pub(crate) fn next_look(
        &self,
        short: Duration,
        lazy: Duration,
    ) -> Option<Vec<(u64, Watched, bool)>> {
        let mut state = self.state();
        let begun = Instant::now();
        loop {
            if state.stopped {
                return None;
            }
            let is_hungry = state.has_jobs() && !state.has_place();
            let pause = match (is_hungry, state.busy() > 0) {
                (true, _) => Some(short),
                (false, true) => Some(lazy.max(short)),
                (false, false) => None,
            };
            let left = pause.map(|pause| pause.saturating_sub(begun.elapsed()));
            if left == Some(Duration::ZERO) {
                break;
            }
            state = match left {
                None => {
                    state.regulator = Regulator::Resting;
                    self.note_blocked(0);
                    let woken = self.looks.wait(state);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
                Some(left) => {
                    if !is_hungry {
                        state.regulator = Regulator::Lazy;
                    }
                    let waited = self.looks.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.regulator = Regulator::Awake;
        }
        let busy = state.members.iter_mut().filter(|member| !member.is_idle);
        let see = |member: &mut Member| {
            let is_fresh = std::mem::take(&mut member.is_fresh);
            (member.number, member.thread, is_fresh)
        };
        Some(busy.map(see).collect())
    }

    fn note_blocked(&self, blocked: usize) {
        self.counts[1].store(blocked, Ordering::Relaxed);
    }

    /// So many threads are blocked in a job: as many more may be in one. Gives the nodes at which threads
    /// are wanted.
    pub(crate) fn set_blocked(&self, blocked: usize, near: &[Vec<usize>]) -> Vec<usize> {
        let mut state = self.state();
        self.note_blocked(blocked.min(state.threads));
        state.blocked = blocked;
        // As many as may begin one, and no more than there are jobs for.
        let waiting: Vec<(usize, usize)> = state
            .nodes
            .iter()
            .map(|node| node.jobs.iter().map(VecDeque::len).sum())
            .enumerate()
            .collect();
        let mut wanted = Vec::new();
        for (node, jobs) in waiting {
            for _ in 0..jobs {
                if !state.has_place() {
                    return wanted;
                }
                let admitted = self.admit(&mut state, &near[node]);
                wanted.extend(admitted.carry_out().thread());
            }
        }
        wanted
    }
}
