//! Who waits for whom while jobs end.

use super::{JobIndex, Plan};
use crate::grouped::Grouped;
use crate::job_file::When;

/// What waits for jobs. By lists of needs, which jobs share: ten thousand jobs that all wait for the same ten
/// thousand are twenty thousand entries, and not a hundred million.
#[derive(Debug)]
pub(crate) struct Dependents {
    /// The lists that a job is on, and for which of its ends.
    lists: Grouped<(u32, When)>,
    /// The lists that go on with one; there are none for lists behind the last of these.
    before: Grouped<u32>,
    /// The jobs that wait for a list.
    waiting: Grouped<JobIndex>,
    /// How many needs of a list have not ended, what it goes on with being one; 0 once it is decided.
    left: Vec<u32>,
}

impl Dependents {
    pub(crate) fn of(plan: &Plan) -> Dependents {
        let on = || {
            plan.needs.iter().flat_map(|(list, own, _)| {
                let needs = own.iter();
                needs.map(move |need| (need.job.0, (list, need.when)))
            })
        };
        let before = || {
            let lists = plan.needs.iter();
            lists.filter_map(|(list, _, goes_on)| (goes_on != 0).then_some((goes_on, list)))
        };
        let shared = before().map(|(goes_on, _)| goes_on as usize + 1).max();
        let waiting = || {
            let jobs = plan.jobs().map(|job| (plan.job(job).needs(), job));
            jobs.filter(|&(list, _)| list != 0)
        };
        let left = plan.needs.iter().map(|(_, own, goes_on)| {
            let own = u32::try_from(own.len()).expect("one piece");
            own + u32::from(goes_on != 0)
        });
        Dependents {
            lists: Grouped::sorted(plan.len(), on),
            before: Grouped::sorted(shared.unwrap_or(0), before),
            waiting: Grouped::sorted(plan.needs.len(), waiting),
            left: left.collect(),
        }
    }

    /// The jobs that wait for a list.
    pub(crate) fn waiting(&self, list: u32) -> &[JobIndex] {
        self.waiting.get(list)
    }

    /// Takes note that a job has ended, for each way of needing it as it was to or not. Returns the lists
    /// for which that decides what becomes of those who wait, and what: their last need was met, or the first
    /// was not.
    pub(crate) fn end(&mut self, job: JobIndex, is_met: impl Fn(When) -> bool) -> Vec<(u32, bool)> {
        let mut decided = Vec::new();
        for &(list, when) in self.lists.get(job.0) {
            let is_met = is_met(when);
            if !decides(&mut self.left, list, is_met) {
                continue;
            }
            decided.push((list, is_met));
            if (list as usize) < self.before.len() {
                let lists = self.before.get(list).iter().copied();
                let now = lists.filter(|&list| decides(&mut self.left, list, is_met));
                decided.extend(now.map(|list| (list, is_met)));
            }
        }
        decided
    }
}

/// True if one need on a list, having ended as it was to or not, was the last, or the first that did not.
fn decides(left: &mut [u32], list: u32, is_met: bool) -> bool {
    let left = &mut left[list as usize];
    let was_open = *left > 0;
    *left = if is_met { left.saturating_sub(1) } else { 0 };
    was_open && *left == 0
}
