//! Needs, looked up: from names and globs to jobs.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use super::cycles;
use super::draft::Draft;
use super::findings::{Findings, Place};
use super::lists::Lists;
use super::table::{Common, Job, Key};
use super::{JobIndex, Need, Plan};
use crate::glob::Glob;
use crate::job_file::When;
use crate::template::Template;

/// How many names are compared, in all, to suggest others for those that name no job.
const COMPARISONS_MAX: usize = 2_000_000;

/// Looks up all needs, refuses cycles, and leaves the lists in the plan.
pub(super) fn resolve(
    plan: &mut Plan,
    drafts: &[Draft],
    left_out: &[(String, Glob)],
    findings: &mut Findings,
) {
    let has_needs = |draft: &&Draft| !draft.needs.is_empty();
    let tables = drafts.iter().filter(has_needs).count();
    if tables == 0 {
        return;
    }
    let mut resolver = Resolver {
        plan,
        left_out,
        findings,
        sorted: None,
        globs: HashMap::new(),
        lists: Lists::with_capacity(tables),
        shared: HashMap::new(),
        comparisons: 0,
    };
    let mut list_of = vec![0; plan.len()];
    let mut end = 0;
    for (table, draft) in (0..).zip(drafts) {
        let rest = plan.jobs[end as usize..].iter();
        let own = rest.take_while(|job| job.table() == table).count();
        let jobs = end..end + u32::try_from(own).expect("no more jobs than numbers");
        end = jobs.end;
        if draft.needs.is_empty() {
            continue;
        }
        let needs = Needs::of(plan, table, draft);
        if needs.iter().all(|need| need.job.is_constant()) {
            let list = resolver.list(needs, jobs.clone());
            list_of[jobs.start as usize..jobs.end as usize].fill(list);
        } else {
            for job in jobs {
                list_of[job as usize] = resolver.list(needs, job..job + 1);
            }
        }
    }
    let Resolver { mut lists, .. } = resolver;
    let cycles = cycles::find(&mut lists, &mut list_of);
    refuse_cycles(plan, drafts, &cycles, findings);
    for (job, list) in plan.jobs.iter_mut().zip(list_of) {
        if let Job::Cell { needs, .. } = job {
            *needs = list;
        }
    }
    lists.shrink_to_fit();
    plan.needs = lists;
}

/// The needs of a table as they are written.
#[derive(Clone, Copy)]
struct Needs<'p> {
    common: &'p Common,
    draft: &'p Draft,
}

/// One of them.
struct Written<'p> {
    job: &'p Template<Key>,
    when: When,
    place: Place,
}

impl<'p> Needs<'p> {
    fn of(plan: &'p Plan, table: u32, draft: &'p Draft) -> Self {
        let common = &plan.tables[table as usize].common;
        Self { common, draft }
    }

    fn iter(self) -> impl Iterator<Item = Written<'p>> {
        let places = self.draft.needs.iter();
        let written = self.common.around.needs.iter().zip(places);
        written.map(move |((job, when), span)| Written {
            job,
            when: *when,
            place: Place {
                source: self.common.base.source,
                span: span.clone(),
            },
        })
    }
}

/// A need's text and condition.
type Text = (String, When);

struct Resolver<'p, 'f> {
    plan: &'p Plan,
    /// Names that would be there, were it not for other mistakes.
    left_out: &'p [(String, Glob)],
    findings: &'f mut Findings,
    /// All names in order, made for the first glob: those that begin alike stand together.
    sorted: Option<Vec<(Cow<'p, str>, JobIndex)>>,
    globs: HashMap<String, Rc<[JobIndex]>>,
    lists: Lists,
    /// The lists of what globs match, by their texts: many jobs may have the same long one.
    shared: HashMap<Vec<Text>, u32>,
    comparisons: usize,
}

impl Resolver<'_, '_> {
    /// The list that a table's needs come to for some of its jobs, all of which have the same
    /// texts.
    fn list(&mut self, needs: Needs<'_>, users: Range<u32>) -> u32 {
        let texts = needs
            .iter()
            .map(|need| (text_of(self.plan, &need, users.start), need.when));
        let texts: Vec<Text> = texts.collect();
        let mut named: Vec<(&str, Need)> = Vec::new();
        let mut globs: Vec<(&Text, Rc<[JobIndex]>)> = Vec::new();
        for (written, need) in texts.iter().zip(needs.iter()) {
            let (text, when) = written;
            if let Some(job) = self.plan.find(text) {
                if users.contains(&job.0) {
                    let mut error = need.place.error(format!("`{text}` needs itself"));
                    error.help = Some("take it out of its own `needs`".into());
                    self.findings.push(error);
                } else {
                    named.push((text, Need { job, when: *when }));
                }
                continue;
            }
            let glob = Glob::new(text);
            if !glob.is_pattern() {
                if !self.left_out.iter().any(|(_, name)| name.matches(text)) {
                    self.refuse_unknown(text, &need, &users);
                }
                continue;
            }
            let jobs = self.matches(text, &glob);
            if self.left_out.is_empty() && jobs.iter().all(|job| users == (job.0..job.0 + 1)) {
                let error = need.place.error(format!("`{text}` matches no other job"));
                self.findings.push(error);
            }
            globs.push((written, jobs));
        }
        if texts.len() > 1 {
            let mut seen = HashSet::new();
            named.retain(|(name, need)| {
                let mut globs = globs.iter().map(|(text, _)| *text);
                let is_matched =
                    globs.any(|(glob, when)| *when == need.when && Glob::new(glob).matches(name));
                !is_matched && seen.insert((need.job, need.when))
            });
        }
        let matched = match globs[..] {
            [] => 0,
            _ => self.list_of_globs(&globs),
        };
        match named[..] {
            [] => matched,
            _ => {
                let named = named.iter().map(|(_, need)| *need);
                self.lists.push(named, matched)
            }
        }
    }

    /// The list of all that globs match, each of which stands with its jobs.
    fn list_of_globs(&mut self, globs: &[(&Text, Rc<[JobIndex]>)]) -> u32 {
        let texts: Vec<Text> = globs.iter().map(|(text, _)| (*text).clone()).collect();
        if let Some(list) = self.shared.get(&texts) {
            return *list;
        }
        let needs = flatten(globs);
        let list = match needs[..] {
            [] => 0,
            _ => self.lists.push(needs, 0),
        };
        self.shared.insert(texts, list);
        list
    }

    /// The jobs that a glob matches, in their order.
    fn matches(&mut self, text: &str, glob: &Glob) -> Rc<[JobIndex]> {
        if let Some(jobs) = self.globs.get(text) {
            return Rc::clone(jobs);
        }
        let plan = self.plan;
        let sorted = self.sorted.get_or_insert_with(|| {
            let mut names: Vec<_> = plan.jobs().map(|job| (plan.name(job), job)).collect();
            names.sort();
            names
        });
        let prefix = glob.prefix();
        let begin = sorted.partition_point(|(name, _)| **name < *prefix);
        let mut jobs: Vec<JobIndex> = sorted[begin..]
            .iter()
            .take_while(|(name, _)| name.starts_with(&prefix))
            .filter(|(name, _)| glob.matches(name))
            .map(|(_, job)| *job)
            .collect();
        jobs.sort_unstable();
        let jobs: Rc<[JobIndex]> = jobs.into();
        self.globs.insert(text.to_owned(), Rc::clone(&jobs));
        jobs
    }

    fn refuse_unknown(&mut self, text: &str, need: &Written<'_>, users: &Range<u32>) {
        let mut error = need.place.error(format!("no job is called `{text}`"));
        error.help = self
            .nearest(text, users)
            .map(|name| format!("did you mean `{name}`?"));
        self.findings.push(error);
    }

    /// The name of another job that is nearest to a text, if it is near enough to have been meant.
    fn nearest(&mut self, text: &str, users: &Range<u32>) -> Option<String> {
        let far = (text.chars().count() / 3).max(1) + 1;
        let mut nearest = None;
        let mut least = far;
        let others = self.plan.jobs().filter(|job| !users.contains(&job.0));
        for job in others {
            if self.comparisons == COMPARISONS_MAX {
                break;
            }
            self.comparisons += 1;
            let name = self.plan.name(job);
            if name.len().abs_diff(text.len()) <= 4 * least {
                let distance = strsim::osa_distance(text, &name);
                if distance < least {
                    least = distance;
                    nearest = Some(name.into_owned());
                }
            }
        }
        nearest
    }
}

/// The jobs of all globs in their order, none twice with one condition.
fn flatten(globs: &[(&Text, Rc<[JobIndex]>)]) -> Vec<Need> {
    let needs = globs.iter().flat_map(|((_, when), jobs)| {
        jobs.iter().map(|job| Need {
            job: *job,
            when: *when,
        })
    });
    if globs.len() == 1 {
        return needs.collect();
    }
    let mut seen = HashSet::new();
    needs
        .filter(|need| seen.insert((need.job, need.when)))
        .collect()
}

/// What a need says for one of its table's jobs.
fn text_of(plan: &Plan, need: &Written<'_>, job: u32) -> String {
    let job = JobIndex(job);
    need.job.render(|key: Key| plan.value_of(job, 1, key))
}

/// Reports each cycle once; those of other cells of the same tables are the same mistake.
fn refuse_cycles(plan: &Plan, drafts: &[Draft], cycles: &[Vec<JobIndex>], findings: &mut Findings) {
    const SHOWN_MAX: usize = 8;
    let mut seen = HashSet::new();
    for cycle in cycles {
        let first = cycle
            .iter()
            .enumerate()
            .min_by_key(|(_, job)| **job)
            .map_or(0, |(at, _)| at);
        let length = cycle.len();
        let jobs: Vec<JobIndex> = cycle
            .iter()
            .cycle()
            .skip(first)
            .take(length + 1)
            .copied()
            .collect();
        let places = jobs
            .windows(2)
            .take(SHOWN_MAX)
            .map(|pair| need_place(plan, drafts, pair[0], pair[1]));
        let places: Vec<_> = places.flatten().collect();
        let Some((place, others)) = places.split_first() else {
            continue;
        };
        if !seen.insert(places.clone()) {
            continue;
        }
        let names = jobs[1..]
            .iter()
            .take(SHOWN_MAX)
            .map(|job| format!("`{}`", plan.name(*job)));
        let mut loop_text = names.collect::<Vec<_>>().join(", which needs ");
        if length > SHOWN_MAX {
            let more = length - SHOWN_MAX;
            loop_text += &format!(
                ", and so on over {more} more, back to `{}`",
                plan.name(jobs[0])
            );
        }
        let mut error = place.error(format!(
            "a cycle: `{}` needs {loop_text}",
            plan.name(jobs[0])
        ));
        error.help = Some("take one of these needs out".into());
        error.related = others
            .iter()
            .map(|place| place.related("needed here"))
            .collect();
        findings.push(error);
    }
}

/// Where a job says that it needs another.
fn need_place(plan: &Plan, drafts: &[Draft], job: JobIndex, target: JobIndex) -> Option<Place> {
    let name = plan.name(target);
    let table = plan.job(job).table();
    let needs = Needs::of(plan, table, &drafts[table as usize]);
    let names_it = |need: &Written<'_>| {
        let text = text_of(plan, need, job.0);
        text == name || (plan.find(&text).is_none() && Glob::new(&text).matches(&name))
    };
    needs.iter().find(names_it).map(|need| need.place)
}
