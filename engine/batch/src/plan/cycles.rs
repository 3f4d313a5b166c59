//! Cycles among needs.
//!
//! Jobs that need the same share a list, so the graph that is searched goes from jobs to lists, from
//! lists to jobs, and from lists to those that they go on with: a thousand jobs that all need the same
//! thousand are two thousand edges. It is a depth-first search with a stack of its own, linear in jobs
//! and lists' lengths.

use super::lists::Lists;
use super::{JobIndex, Need};

/// Neither the job, or list, nor what it leads to has been looked at.
const NEW: u32 = u32::MAX;
/// All it leads to has been looked at.
const DONE: u32 = u32::MAX - 1;

/// Once the cycles found have this many jobs, no more are told: each may be as long as the file.
const TOLD_MAX: usize = 100_000;

/// A job on the way to where the search is.
struct Step {
    job: JobIndex,
    /// Which of its list comes next, and then of what that goes on with.
    next: u32,
}

/// Takes jobs out of the lists they share with others where they are in it themselves (by a glob,
/// which never means its own job), and returns the cycles that are left. In each, every job needs
/// the one after it, and the last the first.
///
/// Not every cycle there is, of which there may be exponentially many, but without the returned
/// ones' last needs there is none (unless they come to more than [`TOLD_MAX`] jobs).
pub(super) fn find(lists: &mut Lists, list_of: &mut [u32]) -> Vec<Vec<JobIndex>> {
    let mut search = Search {
        jobs: vec![NEW; list_of.len()],
        lists: vec![NEW; lists.len()],
        path: Vec::new(),
        cycles: Vec::new(),
        told: 0,
    };
    search.lists[0] = DONE;
    let written = u32::try_from(lists.len()).expect("no more than two a job");
    for list in 1..written {
        let is_own = |need: &&Need| {
            let its = list_of[need.job.0 as usize];
            its == list || lists.goes_on(its) == list
        };
        let mut own: Vec<JobIndex> = lists
            .own(list)
            .iter()
            .filter(is_own)
            .map(|need| need.job)
            .collect();
        own.dedup();
        match own[..] {
            [] => {}
            [job] => {
                let needs = lists.all(list_of[job.0 as usize]);
                let others: Vec<Need> = needs.filter(|need| need.job != job).collect();
                list_of[job.0 as usize] = lists.push(others, 0);
                search.lists.push(NEW);
            }
            // Each of these needs all the others; one cycle says it.
            [first, second, ..] => {
                search.cycles.push(vec![first, second]);
                search.lists[list as usize] = DONE;
            }
        }
    }
    for job in (0..).map(JobIndex).take(list_of.len()) {
        search.from(job, lists, list_of);
    }
    search.cycles
}

struct Search {
    /// `NEW`, `DONE` or the job's place on the path.
    jobs: Vec<u32>,
    /// `NEW`, `DONE` or the place on the path of the job that led here.
    lists: Vec<u32>,
    path: Vec<Step>,
    cycles: Vec<Vec<JobIndex>>,
    /// How many jobs the cycles have.
    told: usize,
}

impl Search {
    fn from(&mut self, start: JobIndex, lists: &Lists, list_of: &[u32]) {
        self.enter(start, list_of);
        while let Some(step) = self.path.last_mut() {
            let (job, next) = (step.job, step.next as usize);
            step.next += 1;
            let list = list_of[job.0 as usize];
            let own = lists.own(list);
            if let Some(need) = own.get(next) {
                self.enter(need.job, list_of);
                continue;
            }
            let place = self.jobs[job.0 as usize];
            let rest = lists.goes_on(list);
            if self.lists[rest as usize] == NEW {
                self.lists[rest as usize] = place;
            }
            match (
                self.lists[rest as usize],
                lists.own(rest).get(next - own.len()),
            ) {
                (at, Some(need)) if at == place => {
                    self.enter(need.job, list_of);
                    continue;
                }
                (at, None) if at == place => self.lists[rest as usize] = DONE,
                (DONE, _) => {}
                // It leads to the job that comes next on the path, and so to this one.
                (at, _) => self.tell_from(at + 1, None),
            }
            self.jobs[job.0 as usize] = DONE;
            self.lists[list as usize] = DONE;
            self.path.pop();
        }
    }

    fn enter(&mut self, job: JobIndex, list_of: &[u32]) {
        let at = job.0 as usize;
        let list = list_of[at];
        match (self.jobs[at], self.lists[list as usize]) {
            (DONE, _) => {}
            (NEW, NEW) => {
                let place =
                    u32::try_from(self.path.len()).expect("no longer than the jobs are many");
                self.jobs[at] = place;
                self.lists[list as usize] = place;
                self.path.push(Step { job, next: 0 });
            }
            (NEW, DONE) => self.jobs[at] = DONE,
            // The list leads to the job that comes next on the path, and so to this one, which
            // leads to the list again.
            (NEW, place) => {
                self.jobs[at] = DONE;
                self.tell_from(place + 1, Some(job));
            }
            (place, _) => self.tell_from(place, None),
        }
    }

    /// Tells of the cycle of the path's end, from a place on, and perhaps one more job.
    fn tell_from(&mut self, place: u32, last: Option<JobIndex>) {
        if self.told < TOLD_MAX {
            let jobs = self.path[place as usize..]
                .iter()
                .map(|step| step.job)
                .chain(last);
            let cycle: Vec<JobIndex> = jobs.collect();
            self.told += cycle.len();
            self.cycles.push(cycle);
        }
    }
}
