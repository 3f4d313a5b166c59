//! Which attempt ran when, and beside which others: events made into bars in rows, a row a slot.
//!
//! A row is one of its class that was free when the attempt started. Who hears of attempts one by one has
//! them in the order in which they were told, and so a few rows more than ran at once; once all are known
//! they are [arranged](arrange) by nodes, in as few as possible.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use reiver::{Class, NodeId};

use crate::event::{AttemptEnd, Event, EventKind, Status};
use crate::plan::JobIndex;

/// The slots that an attempt ran in one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    Cpu,
    Io,
}

impl Lane {
    pub(crate) const ALL: [Lane; 2] = [Lane::Cpu, Lane::Io];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Lane::Cpu => "cpu",
            Lane::Io => "io",
        }
    }
}

/// One attempt that got a process, and has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) job: JobIndex,
    pub(crate) attempt: u32,
    pub(crate) pid: u32,
    pub(crate) lane: Lane,
    /// The node that it was placed on, if it was.
    pub(crate) node: Option<NodeId>,
    /// From 0, within its lane; once it is [arranged](arrange) among all.
    pub(crate) row: u32,
    /// Since the start of the run.
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    pub(crate) status: Status,
}

impl Bar {
    pub(crate) fn duration(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// Watches events go by.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// None before it has.
    began: Option<Instant>,
    running: HashMap<JobIndex, Bar>,
    lanes: [Rows; 2],
}

/// Rows of one lane and one node; of none, where jobs are not placed.
pub(crate) type Group = (Lane, Option<NodeId>);

/// Gives bars rows anew, grouped by node within each lane, those of no node last: in each group as few as
/// ran at once at the most. Rows are counted through all groups; how many each has is told.
pub(crate) fn arrange(bars: &mut [Bar]) -> Vec<(Group, u32)> {
    bars.sort_by_key(|bar| (bar.start, bar.job, bar.attempt));
    let place = |bar: &Bar| (bar.lane, bar.node.is_none(), bar.node);
    let mut groups: BTreeMap<_, Rows> = BTreeMap::new();
    for bar in &mut *bars {
        let rows = groups.entry(place(bar)).or_default();
        bar.row = rows.take(bar.start);
        rows.0[bar.row as usize] = Some(bar.end);
    }
    let mut before = HashMap::new();
    let mut sum = 0;
    for (&place, rows) in &groups {
        before.insert(place, sum);
        sum += rows.count();
    }
    for bar in bars {
        bar.row += before[&place(bar)];
    }
    let groups = groups.into_iter();
    groups
        .map(|((lane, _, node), rows)| ((lane, node), rows.count()))
        .collect()
}

/// When each row is free again; `None` while something runs in it.
#[derive(Debug, Default)]
struct Rows(Vec<Option<Duration>>);

impl Rows {
    /// Starts and ends may be told together, and then the next ones that ran beside them.
    fn take(&mut self, start: Duration) -> u32 {
        let is_free = |free: &Option<Duration>| free.is_some_and(|free| free <= start);
        let row = self.0.iter().position(is_free).unwrap_or(self.0.len());
        if row == self.0.len() {
            self.0.push(None);
        }
        self.0[row] = None;
        u32::try_from(row).expect("no more than slots")
    }

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("no more than slots")
    }
}

impl Timeline {
    /// Takes note of an event; the attempt that has ended by it, if one has.
    pub(crate) fn event(&mut self, event: &Event) -> Option<Bar> {
        match &event.kind {
            EventKind::RunStarted { .. } => {
                self.began = Some(event.time.steady);
                None
            }
            EventKind::JobStarted {
                job,
                attempt,
                pid,
                class,
                placement,
            } => {
                let lane = match class {
                    Class::Io => Lane::Io,
                    _ => Lane::Cpu,
                };
                let start = self.since_start(event.time.steady);
                let bar = Bar {
                    job: *job,
                    attempt: *attempt,
                    pid: *pid,
                    lane,
                    node: placement.as_ref().and_then(|placement| placement.node),
                    row: self.lanes[lane as usize].take(start),
                    start,
                    end: start,
                    status: Status::Cancelled,
                };
                self.running.insert(*job, bar);
                None
            }
            EventKind::JobRetried { job, end, .. }
            | EventKind::JobFinished {
                job,
                end: Some(end),
                ..
            } => self.ended(*job, event.time.steady, end.status, end),
            EventKind::JobUnrecorded {
                job,
                end: Some(end),
                ..
            } => self.ended(*job, event.time.steady, Status::Cancelled, end),
            EventKind::JobFinished { end: None, .. }
            | EventKind::JobUnrecorded { end: None, .. }
            | EventKind::JobSkipped { .. }
            | EventKind::RunFinished { .. } => None,
        }
    }

    fn since_start(&self, time: Instant) -> Duration {
        let began = self.began.unwrap_or(time);
        time.saturating_duration_since(began)
    }

    /// How many rows a lane has had.
    pub(crate) fn rows(&self, lane: Lane) -> u32 {
        self.lanes[lane as usize].count()
    }

    fn ended(
        &mut self,
        job: JobIndex,
        time: Instant,
        status: Status,
        end: &AttemptEnd,
    ) -> Option<Bar> {
        let bar = self.running.remove(&job)?;
        let at = self.since_start(time);
        self.lanes[bar.lane as usize].0[bar.row as usize] = Some(at);
        Some(Bar {
            // What ends soon is told to have started only then.
            start: at.saturating_sub(end.duration),
            end: at,
            status,
            ..bar
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_grouped_by_node_and_bars_of_one_row_never_overlap() {
        let bar = |job, lane, node: Option<u32>, start, end| Bar {
            job: JobIndex(job),
            attempt: 1,
            pid: 1,
            lane,
            node: node.map(NodeId),
            row: 0,
            start: Duration::from_secs(start),
            end: Duration::from_secs(end),
            status: Status::Success,
        };
        let mut bars = [
            bar(0, Lane::Io, None, 0, 9),
            bar(1, Lane::Cpu, None, 0, 2),
            bar(2, Lane::Cpu, Some(1), 0, 4),
            bar(3, Lane::Cpu, Some(0), 1, 3),
            bar(4, Lane::Cpu, Some(1), 2, 3),
            bar(5, Lane::Cpu, Some(0), 3, 5),
            bar(6, Lane::Cpu, None, 2, 4),
        ];
        let groups = arrange(&mut bars);
        let expected = [
            ((Lane::Cpu, Some(NodeId(0))), 1),
            ((Lane::Cpu, Some(NodeId(1))), 2),
            ((Lane::Cpu, None), 1),
            ((Lane::Io, None), 1),
        ];
        assert_eq!(groups, expected);
        bars.sort_by_key(|bar| bar.job);
        assert_eq!(bars.map(|bar| bar.row), [4, 3, 1, 0, 2, 0, 3]);
        assert_eq!(arrange(&mut []), []);
    }
}
