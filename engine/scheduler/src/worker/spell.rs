//! How a worker passes a time without work, up to its sleep: policy alone.
//!
//! First it spins, in case somebody shares work at once; then it looks whether somebody in a long leaf
//! holds any; then it lets other threads have the CPU; then it is to sleep. After a job that it was
//! woken for it soon sleeps: the next one may be as long in coming.
//!
//! Urgent workers sleep soon, and at once after a job that they were woken for. They do not let others have the CPU
//! before: the kernel (Linux 6.6 and later) takes that as if they had run to the end of their slice, and then does
//! not let them in when they are woken.

use std::thread;

use super::Takes;
use crate::crew::Rank;
use crate::queues::Task;

/// A time without work.
#[derive(Debug)]
pub(super) struct Spell {
    searches: u32,
    most: u32,
    has_slept: bool,
    rank: Rank,
}

impl Spell {
    /// 254 spins in all, some 5 µs.
    const SPINNING: u32 = 7;
    const YIELDING: u32 = 4;
    /// 30 spins in all.
    const AFTER_A_JOB: u32 = 4;

    /// The first, before anything was found.
    pub(super) fn of(takes: Takes, rank: Rank) -> Spell {
        let most = match takes {
            Takes::Forks => Spell::in_flow(rank),
            Takes::All | Takes::Own => Spell::if_woken(rank),
        };
        Spell {
            searches: 0,
            most,
            has_slept: false,
            rank,
        }
    }

    /// How often it searches where one thing has followed the other.
    fn in_flow(rank: Rank) -> u32 {
        match rank {
            Rank::Urgent => Spell::AFTER_A_JOB,
            Rank::Ordinary | Rank::Background => Spell::SPINNING + Spell::YIELDING,
        }
    }

    /// After what it was woken for.
    fn if_woken(rank: Rank) -> u32 {
        match rank {
            Rank::Urgent => 0,
            Rank::Ordinary | Rank::Background => Spell::AFTER_A_JOB,
        }
    }

    /// What it found has ended it; this is the next.
    pub(super) fn after(&self, task: &Task) -> Spell {
        let most = match task {
            Task::Fork(_) => Spell::in_flow(self.rank),
            Task::Job(_) | Task::Help(_) if self.has_slept => Spell::if_woken(self.rank),
            Task::Job(_) | Task::Help(_) => Spell::in_flow(self.rank),
        };
        Spell {
            searches: 0,
            most,
            has_slept: false,
            rank: self.rank,
        }
    }

    /// Begins again: it was woken, and has not found anything yet.
    pub(super) fn begin_again(&mut self) {
        self.searches = 0;
        self.has_slept = true;
    }

    /// Before the next search. False once it is to sleep.
    pub(super) fn goes_on(&mut self) -> bool {
        self.searches += 1;
        if self.searches > self.most {
            return false;
        }
        if self.searches <= Spell::SPINNING {
            (0..1 << self.searches).for_each(|_| std::hint::spin_loop());
        } else {
            thread::yield_now();
        }
        true
    }

    /// True while it waits for its mates to share.
    pub(super) fn is_patient(&self) -> bool {
        self.searches <= Spell::SPINNING
    }

    /// True if it has waited long enough for others to share.
    pub(super) fn may_rob(&self) -> bool {
        self.searches == Spell::SPINNING
    }
}
