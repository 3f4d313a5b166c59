//! The first job of every queue, in the order in which they are to start.

use std::collections::BTreeSet;

use reiver::Priority;

use super::stock::Lane;
use crate::plan::JobIndex;

/// The more urgent first, then in file order; and the queue that it is the first of.
pub(super) type Head = (Priority, JobIndex, u32);

/// By lanes, so that who looks for one that may start passes over a whole lane at once: there may be as
/// many queues as jobs.
#[derive(Debug, Default)]
pub(super) struct Heads {
    lanes: [BTreeSet<Head>; Lane::COUNT],
}

impl Heads {
    pub(super) fn insert(&mut self, lane: Lane, head: Head) {
        self.lanes[lane.index()].insert(head);
    }

    pub(super) fn remove(&mut self, lane: Lane, head: Head) {
        self.lanes[lane.index()].remove(&head);
    }

    pub(super) fn clear(&mut self) {
        *self = Heads::default();
    }

    /// All of them, in order.
    pub(super) fn in_order(&self) -> InOrder<impl Iterator<Item = Head>> {
        let lanes = self.lanes.each_ref();
        InOrder {
            lanes: lanes.map(|lane| lane.iter().copied().peekable()),
        }
    }
}

/// The heads that are left.
pub(super) struct InOrder<I: Iterator<Item = Head>> {
    lanes: [std::iter::Peekable<I>; Lane::COUNT],
}

impl<I: Iterator<Item = Head>> InOrder<I> {
    /// The next head of the lanes that are open now.
    pub(super) fn next(&mut self, is_open: impl Fn(Lane) -> bool) -> Option<Head> {
        let open = self.lanes.iter_mut().zip(Lane::all());
        let open = open.filter(|(_, lane)| is_open(*lane));
        let heads = open.filter_map(|(heads, _)| Some((*heads.peek()?, heads)));
        let (_, heads) = heads.min_by_key(|(head, _)| *head)?;
        heads.next()
    }
}
