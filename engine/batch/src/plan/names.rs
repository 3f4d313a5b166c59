//! Names: what stands before one that was left out, and that no two jobs share one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use super::draft::Draft;
use super::findings::{Findings, Place};
use super::table::Job;
use super::{JobIndex, Plan};
use crate::source::{Source, SourceId};

/// Jobs by their names' hashes, so that a million names need not be kept.
#[derive(Debug)]
pub(super) struct NameIndex {
    hasher: RandomState,
    /// In order.
    jobs: Vec<(u32, JobIndex)>,
    /// Where those of each bucket begin, and the last one's end; a bucket is the first bits of a hash. A look
    /// here and into a line or two of `jobs` finds a name, where a search through all would wait for memory at
    /// most of its steps.
    buckets: Vec<u32>,
}

/// So many names are a bucket, up to twice as many: it takes a quarter of a byte for each, at most.
const BUCKET: usize = 16;

impl NameIndex {
    /// Of no names.
    pub(super) fn empty() -> Self {
        NameIndex {
            hasher: RandomState::new(),
            jobs: Vec::new(),
            buckets: vec![0, 0],
        }
    }

    pub(super) fn of(plan: &Plan) -> Self {
        let mut index = Self::empty();
        let hashed = |job| (index.hash(&plan.name(job)), job);
        let mut jobs: Vec<_> = plan.jobs().map(hashed).collect();
        jobs.sort_unstable();
        let bits = (jobs.len() / BUCKET).checked_ilog2().unwrap_or(0);
        let begin_of = |bucket: u64| {
            let begin = jobs.partition_point(|(hash, _)| u64::from(*hash) < bucket << (32 - bits));
            u32::try_from(begin).expect("a plan holds no more jobs than that")
        };
        index.buckets = (0..=1 << bits).map(begin_of).collect();
        index.jobs = jobs;
        index
    }

    /// 32 bits are enough: of a million names some hundred share theirs with another.
    fn hash(&self, name: &str) -> u32 {
        let hash = self.hasher.hash_one(name);
        u32::try_from(hash >> 32).expect("half of 64 bits")
    }

    /// The jobs that may have this name.
    pub(super) fn candidates(&self, name: &str) -> impl Iterator<Item = JobIndex> {
        let hash = self.hash(name);
        let bits = (self.buckets.len() - 1).ilog2();
        let bucket = u64::from(hash) >> (32 - bits);
        let bucket = usize::try_from(bucket).expect("there are no more than jobs");
        let [from, to] = [bucket, bucket + 1].map(|at| self.buckets[at] as usize);
        let begin = from + self.jobs[from..to].partition_point(|(own, _)| *own < hash);
        self.jobs[begin..]
            .iter()
            .take_while(move |(own, _)| *own == hash)
            .map(|(_, job)| *job)
    }
}

/// What stands before the names that each file leaves out.
pub(super) fn labels(sources: &[Arc<Source>]) -> Vec<Box<str>> {
    if sources.len() < 2 {
        return sources.iter().map(|_| "".into()).collect();
    }
    let file_name = |source: &Source| {
        Path::new(&source.given)
            .file_name()
            .unwrap_or(&source.given)
            .to_owned()
    };
    let mut uses = HashMap::new();
    for source in sources {
        *uses.entry(file_name(source)).or_insert(0) += 1;
    }
    let label = |source: &Arc<Source>| {
        let name = file_name(source);
        let label = if uses[&name] == 1 {
            &name
        } else {
            &source.given
        };
        format!("{}:", label.to_string_lossy()).into()
    };
    sources.iter().map(label).collect()
}

/// Refuses a file that was given before; the places among `sources` of those that are left.
pub(super) fn refuse_repeated(sources: &[Arc<Source>], findings: &mut Findings) -> Vec<bool> {
    let mut first = HashMap::new();
    let mut is_repeated = Vec::new();
    for (source, id) in sources.iter().zip((0..).map(SourceId)) {
        let earlier = *first.entry(&source.given).or_insert(id);
        is_repeated.push(earlier != id);
        if earlier != id {
            let place = Place {
                source: id,
                span: 0..0,
            };
            let mut error = place.error(format!("{} is given twice", source.given.display()));
            error.help = Some("give each file once: names are unique over all files".into());
            findings.push(error);
        }
    }
    is_repeated
}

/// Refuses names that several jobs have.
pub(super) fn refuse_duplicates(plan: &Plan, drafts: &[Draft], findings: &mut Findings) {
    for same_hash in plan.names.jobs.chunk_by(|(a, _), (b, _)| a == b) {
        if let [_] = same_hash {
            continue;
        }
        let is_sound = |job: &JobIndex| drafts[plan.job(*job).table() as usize].has_sound_name;
        let jobs = same_hash.iter().map(|(_, job)| *job).filter(is_sound);
        let mut named: Vec<(Cow<'_, str>, JobIndex)> =
            jobs.map(|job| (plan.name(job), job)).collect();
        named.sort();
        for same_name in named.chunk_by(|(a, _), (b, _)| a == b) {
            refuse_same(plan, drafts, same_name, findings);
        }
    }
}

/// Reports jobs of one name: the cells of one table once, and each later table with the first.
fn refuse_same(
    plan: &Plan,
    drafts: &[Draft],
    jobs: &[(Cow<'_, str>, JobIndex)],
    findings: &mut Findings,
) {
    let place = |job: JobIndex| name_place(plan, drafts, job);
    let first = jobs[0].1;
    for table in jobs.chunk_by(|(_, a), (_, b)| plan.job(*a).table() == plan.job(*b).table()) {
        let (name, job) = &table[0];
        if table.len() > 1 {
            let cells = table.len();
            let mut error =
                place(*job).error(format!("{cells} cells of this matrix are called `{name}`"));
            error.help = Some("give the job a `name` with every key of the matrix in it".into());
            findings.push(error);
        }
        if plan.job(*job).table() != plan.job(first).table() {
            let mut error = place(*job).error(format!("two jobs are called `{name}`"));
            error.help = Some("names are unique over all files: change one of them".into());
            error.related.push(place(first).related("the other one"));
            findings.push(error);
        }
    }
}

/// Where a job's name is written, or else the job.
pub(super) fn name_place(plan: &Plan, drafts: &[Draft], job: JobIndex) -> Place {
    let span = match plan.job(job) {
        Job::Line { begin, .. } => plan.source(job).line_from(begin.get()),
        Job::Cell { table, .. } => drafts[*table as usize].name(),
    };
    Place {
        source: plan.source_of(job),
        span,
    }
}
