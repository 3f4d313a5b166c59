//! Some jobs of a plan, and no other.

use super::lists::Lists;
use super::names::NameIndex;
use super::{Identity, JobIndex, Need, Plan};
use crate::glob::Glob;

/// What is left of a plan.
#[derive(Debug)]
pub struct Filtered {
    /// The jobs that matched.
    pub plan: Plan,
    /// Jobs outside it that some of them need. They count as met.
    pub taken_as_met: Vec<Outside>,
}

/// A job that is not in a plan any more.
#[derive(Debug, Clone)]
pub struct Outside {
    /// How it was called.
    pub name: String,
    /// What it was known by, where somebody had asked.
    pub identity: Option<Identity>,
}

/// No job has such a name.
#[derive(Debug, thiserror::Error)]
#[error("no job's name matches `{0}`")]
pub struct NothingMatches(String);

impl Plan {
    /// Keeps the job of this name or, where there is none, those whose names match it as a glob.
    ///
    /// # Errors
    /// If that is none.
    pub fn filter(self, filter: &str) -> Result<Filtered, NothingMatches> {
        let kept: Vec<bool> = match self.find(filter) {
            Some(only) => self.jobs().map(|job| job == only).collect(),
            None => {
                let glob = Glob::new(filter);
                self.jobs()
                    .map(|job| glob.matches(&self.name(job)))
                    .collect()
            }
        };
        if !kept.contains(&true) {
            return Err(NothingMatches(filter.to_owned()));
        }
        Ok(self.keep(kept))
    }

    /// Keeps the jobs that are marked so, one mark a job.
    pub fn keep(mut self, kept: Vec<bool>) -> Filtered {
        // Jobs share lists, which may be long.
        let mut is_used = vec![false; self.needs.len()];
        for job in self.jobs().filter(|job| kept[job.0 as usize]) {
            let list = self.job(job).needs();
            is_used[list as usize] = true;
            is_used[self.needs.goes_on(list) as usize] = true;
        }
        let mut outside = vec![false; kept.len()];
        let lists = self.needs.iter().zip(is_used);
        for ((_, own, _), _) in lists.filter(|(_, is_used)| *is_used) {
            for need in own {
                outside[need.job.0 as usize] |= !kept[need.job.0 as usize];
            }
        }
        let mut next = 0;
        let renumbered: Vec<JobIndex> = kept
            .iter()
            .map(|&kept| {
                next += u32::from(kept);
                JobIndex(next.saturating_sub(1))
            })
            .collect();
        // Lists keep their numbers; the empty one is there already.
        let mut needs = Lists::with_capacity(self.needs.len());
        for (_, own, goes_on) in self.needs.iter().skip(1) {
            let inside = own.iter().filter(|need| kept[need.job.0 as usize]);
            let inside = inside.map(|need| Need {
                job: renumbered[need.job.0 as usize],
                when: need.when,
            });
            needs.push(inside, goes_on);
        }
        self.needs = needs;
        let taken_as_met = self
            .jobs()
            .filter(|job| outside[job.0 as usize])
            .map(|job| Outside {
                name: self.name(job).into_owned(),
                identity: self.known_by.is_some().then(|| self.identity(job)),
            })
            .collect();
        let mut keeps = kept.iter();
        self.jobs.retain(|_| keeps.next() == Some(&true));
        if let Some(known_by) = &mut self.known_by {
            let mut keeps = kept.iter();
            known_by.nth.retain(|_| keeps.next() == Some(&true));
        }
        self.names = NameIndex::of(&self);
        Filtered {
            plan: self,
            taken_as_met,
        }
    }
}
