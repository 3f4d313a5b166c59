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
    /// The jobs that wait for a list.
    waiting: Grouped<JobIndex>,
    /// How many needs of a list have not ended; 0 once it is decided.
    left: Vec<u32>,
}

impl Dependents {
    pub(crate) fn of(plan: &Plan) -> Dependents {
        let lists = || (0_u32..).zip(plan.needs.iter());
        let on = || {
            lists().flat_map(|(list, needs)| {
                let needs = needs.iter();
                needs.map(move |need| (need.job.0, (list, need.when)))
            })
        };
        let waiting = || {
            let jobs = plan.jobs().map(|job| (plan.job(job).needs(), job));
            jobs.filter(|&(list, _)| list != 0)
        };
        let left = |(_, needs): (u32, &[_])| u32::try_from(needs.len()).expect("one piece");
        Dependents {
            lists: Grouped::sorted(plan.len(), on),
            waiting: Grouped::sorted(plan.needs.len(), waiting),
            left: lists().map(left).collect(),
        }
    }

    /// The lists that a job is on, and for which of its ends.
    pub(crate) fn lists(&self, job: JobIndex) -> &[(u32, When)] {
        self.lists.get(job.0)
    }

    /// The jobs that wait for a list.
    pub(crate) fn waiting(&self, list: u32) -> &[JobIndex] {
        self.waiting.get(list)
    }

    /// Takes note that a need on a list has ended as it was to, or not. True if that decides what becomes of
    /// those who wait: it was the last, or the first that did not.
    pub(crate) fn decides(&mut self, list: u32, is_met: bool) -> bool {
        let left = &mut self.left[list as usize];
        let was_open = *left > 0;
        *left = if is_met { left.saturating_sub(1) } else { 0 };
        was_open && *left == 0
    }
}
