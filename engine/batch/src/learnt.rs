//! Jobs of class auto: what was measured of them, and when it moves them to io slots.
//!
//! They begin on cpu slots. What counts is of all finished attempts of one name before its matrix (of a
//! text file: of the lines under one `#JOB`) together, and from the third on: once they waited for more
//! than 0.6 of their time, the attempts that come after take io slots. There is no way back: what was
//! measured on io slots, beside many others, says less.
//!
//! The time that a process could have run and found no CPU free is no waiting. The kernel tells it of
//! the first thread of an attempt's leader alone, so that of what else it started counts as waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use reiver::Class;

use crate::Plan;
use crate::event::{Event, EventKind, Status, Usage};
use crate::plan::JobIndex;

/// Attempts that are measured before any is moved.
const FIRST: u32 = 3;
/// A larger part of its time that is spent waiting is a job's that waits.
const ABOVE_IS_IO: f64 = 0.6;

/// What was measured of jobs that learn together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Profile {
    attempts: u32,
    /// Computed, or waited for a CPU.
    wanted: Duration,
    wall: Duration,
    lacks_queued: bool,
}

impl Profile {
    /// Takes note of a finished attempt.
    pub(crate) fn add(&mut self, usage: &Usage) {
        self.attempts = self.attempts.saturating_add(1);
        let wanted = usage.cpu.saturating_add(usage.queued.unwrap_or_default());
        self.wanted = self.wanted.saturating_add(wanted);
        self.wall = self.wall.saturating_add(usage.wall);
        self.lacks_queued |= usage.queued.is_none();
    }

    /// How many attempts were measured.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The part of their time that they waited for something else than a CPU, from 0 to 1.
    pub fn waiting(&self) -> f64 {
        if self.wall.is_zero() {
            return 0.0;
        }
        (1.0 - self.wanted.as_secs_f64() / self.wall.as_secs_f64()).max(0.0)
    }

    /// True if the system did not tell how long some of them waited for a CPU: that counts as waiting.
    pub fn lacks_queued(&self) -> bool {
        self.lacks_queued
    }

    /// True if they belong on io slots.
    pub(crate) fn waits(&self) -> bool {
        self.attempts >= FIRST && self.waiting() > ABOVE_IS_IO
    }
}

/// Gathers from events what a run has learnt of its jobs of class auto.
#[derive(Debug, Default)]
pub struct Learnt {
    tables: BTreeMap<u32, Lesson>,
}

/// What a run has learnt of jobs that learn together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lesson {
    /// What was measured.
    pub profile: Profile,
    /// How many attempts started on cpu slots.
    pub on_cpu: u32,
    /// How many attempts started on io slots.
    pub on_io: u32,
}

impl Learnt {
    /// Takes note of an event.
    pub fn event(&mut self, plan: &Plan, event: &Event) {
        let lesson =
            |tables: &mut BTreeMap<u32, Lesson>, job: JobIndex, note: &dyn Fn(&mut Lesson)| {
                if plan.settings(job).class == Class::Auto {
                    note(tables.entry(plan.table_of(job)).or_default());
                }
            };
        match &event.kind {
            EventKind::JobStarted { job, class, .. } => {
                lesson(&mut self.tables, *job, &|lesson| match class {
                    Class::Io => lesson.on_io += 1,
                    _ => lesson.on_cpu += 1,
                });
            }
            EventKind::JobRetried { job, end, .. }
            | EventKind::JobFinished {
                job,
                end: Some(end),
                ..
            }
            | EventKind::JobUnrecorded {
                job,
                end: Some(end),
                ..
            } => {
                if let Some(usage) = end.usage.filter(|_| end.status != Status::Cancelled) {
                    lesson(&mut self.tables, *job, &|lesson| lesson.profile.add(&usage));
                }
            }
            _ => {}
        }
    }

    /// What was learnt, in the order of the files: what the jobs are called, and the rest.
    pub fn lessons<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = (String, &'a Lesson)> {
        let tables = self.tables.iter();
        tables.map(|(&table, lesson)| (plan.name_of_table(table), lesson))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu: u64, queued: Option<u64>, wall: u64) -> Usage {
        let ms = Duration::from_millis;
        Usage {
            cpu: ms(cpu),
            queued: queued.map(ms),
            wall: ms(wall),
        }
    }

    fn profile(usages: &[Usage]) -> Profile {
        let mut profile = Profile::default();
        usages.iter().for_each(|usage| profile.add(usage));
        profile
    }

    #[test]
    fn it_takes_three_attempts_and_more_than_six_tenths_of_waiting() {
        let idle = usage(0, Some(0), 100);
        assert!(!profile(&[idle; 2]).waits());
        assert!(profile(&[idle; 3]).waits());
        assert!(
            !profile(&[usage(40, Some(0), 100); 3]).waits(),
            "0.6 is not more"
        );
        assert!(profile(&[usage(39, Some(0), 100); 3]).waits());
        // By time, not by attempts.
        assert!(!profile(&[idle, idle, idle, usage(300, Some(0), 300)]).waits());
    }

    #[test]
    fn to_find_no_cpu_free_is_no_waiting() {
        let starved = usage(10, Some(80), 100);
        assert!(!profile(&[starved; 3]).waits());
        let unknown = profile(&[usage(10, None, 100); 3]);
        assert!(unknown.waits() && unknown.lacks_queued());
        assert!(!profile(&[starved; 3]).lacks_queued());
    }

    #[test]
    fn more_than_one_cpu_and_no_time_at_all_are_no_waiting() {
        assert_eq!(profile(&[usage(400, Some(0), 100); 3]).waiting(), 0.0);
        assert_eq!(profile(&[usage(0, None, 0); 3]).waiting(), 0.0);
        assert_eq!(Profile::default().waiting(), 0.0);
    }
}
