//! Job files made into a plan.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reiver::{Class, NodeId, Topology};

use super::draft::Draft;
use super::findings::{Findings, Place, place_of, source_of};
use super::known::Known;
use super::limits::Settled;
use super::lists::Lists;
use super::matrix::Matrix;
use super::merged::Merged;
use super::names::{self, NameIndex};
use super::set::SetKeys;
use super::table::{Action, Around, Files, Job, Join, Key, Offset, Table, TableName};
use super::texts::Texts;
use super::{Machine, Overrides, Plan, Settings, limits, needs, tasks};
use crate::diagnostic::{Diagnostic, Severity};
use crate::glob::Glob;
use crate::job_file::{Affinity, Entry, JobFile, JobKeys, When};
use crate::read::{self, nearest};
use crate::source::{Form, Source, SourceId, Span, Spanned};
use crate::task::Registry;
use crate::template::{self, Template};

/// A run with more jobs is refused; job numbers are 32 bits wide.
const JOBS_MAX: usize = 100_000_000;

/// Makes a plan of job files, each [`JobFile::source`] an index into `sources`; `machine` is for
/// what neither a file nor an override limits.
///
/// There is no plan where there is an error, and all errors are told; warnings come along in any
/// case. Files in which reading has found mistakes may be planned too, to find what else is wrong.
/// Takes time linear in the jobs and their needs, and for globs in the names that share their
/// beginning.
///
/// Files that name tasks are refused: see [`plan_with`].
pub fn plan(
    sources: Vec<Arc<Source>>,
    files: Vec<JobFile>,
    overrides: &Overrides,
    machine: &Machine,
) -> (Option<Plan>, Vec<Diagnostic>) {
    plan_with(sources, files, overrides, machine, &Registry::new())
}

/// As [`plan()`], for a program that has these tasks. Their arguments are read once for each job, where
/// placeholders make them different.
pub fn plan_with(
    sources: Vec<Arc<Source>>,
    files: Vec<JobFile>,
    overrides: &Overrides,
    machine: &Machine,
    registry: &Registry,
) -> (Option<Plan>, Vec<Diagnostic>) {
    let (plan, _, found) = plan_files(sources, files, Jobs::AreRead, overrides, machine, registry);
    (plan, found)
}

/// Reads files and plans them: as [`read`](read::read) and [`plan_with`] one after the other, and the
/// diagnostics are of both. What is read of a job is gone once that is planned, for there may be millions.
pub fn read_and_plan(
    sources: Vec<Arc<Source>>,
    overrides: &Overrides,
    machine: &Machine,
    registry: &Registry,
) -> (Option<Plan>, Vec<Diagnostic>) {
    let heads = || {
        let sources = (0..).map(SourceId).zip(&sources);
        sources
            .map(|(id, source)| read::read_head(id, source))
            .unzip()
    };
    let plan_heads = |files| {
        let sources = sources.clone();
        plan_files(
            sources,
            files,
            Jobs::AreUnread,
            overrides,
            machine,
            registry,
        )
    };
    let (files, found): (Vec<JobFile>, Vec<_>) = heads();
    let mut diagnostics: Vec<Diagnostic> = found.into_iter().flatten().collect();
    let (plan, read, mut found) = plan_heads(files);
    diagnostics.extend(read.found);
    if !read.broken.is_empty() {
        // What could not be read may be any job and any limit: what is wrong for want of one is no mistake.
        let (mut files, _): (Vec<JobFile>, Vec<_>) = heads();
        let broken = files
            .iter_mut()
            .filter(|file| read.broken.contains(&file.source));
        broken.for_each(JobFile::nothing_was_read);
        found = plan_heads(files).2;
    }
    diagnostics.extend(found);
    let is_error = |finding: &Diagnostic| finding.severity == Severity::Error;
    let has_errors = diagnostics.iter().any(is_error);
    (plan.filter(|_| !has_errors), diagnostics)
}

/// Whether the jobs of files are among their entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Jobs {
    AreRead,
    AreUnread,
}

/// What reading jobs came to that were unread.
#[derive(Default)]
struct Read {
    found: Vec<Diagnostic>,
    /// The files that have some which could not be.
    broken: Vec<SourceId>,
}

/// The plan, what reading found in jobs that were unread, and what planning found.
fn plan_files(
    sources: Vec<Arc<Source>>,
    files: Vec<JobFile>,
    jobs: Jobs,
    overrides: &Overrides,
    machine: &Machine,
    registry: &Registry,
) -> (Option<Plan>, Read, Vec<Diagnostic>) {
    let mut findings = Findings::default();
    let is_repeated = names::refuse_repeated(&sources, &mut findings);
    let settled = limits::settle(&sources, &files, overrides, machine.limits, &mut findings);
    let affinity = overrides.affinity.unwrap_or_default();
    let name_of_run = name_of_run(&sources, &files);
    let mut builder = Builder {
        sources: &sources,
        fit: Fit {
            settled: &settled,
            topology: &machine.topology,
            affinity,
        },
        registry,
        set: SetKeys::of(&overrides.set),
        findings,
        tables: Vec::new(),
        drafts: Vec::new(),
        jobs: Vec::new(),
        left_out: Vec::new(),
        is_complete: true,
        state: None,
        known: Known::default(),
    };
    let mut read = Read::default();
    for mut file in files {
        let is_planned = !is_repeated[file.source.0 as usize];
        let source = source_of(&sources, file.source);
        let entries = std::mem::take(&mut file.entries);
        let unread = Some(source).filter(|_| jobs == Jobs::AreUnread && entries.is_empty());
        if is_planned {
            let unread = unread.map_or(0, |source| read::jobs_at_most(source));
            builder.reserve(source.form, entries.len() + unread);
        }
        let mut take = |entry| {
            if is_planned {
                builder.entry(&file, entry);
            }
        };
        entries.into_iter().for_each(&mut take);
        if let Some(source) = unread {
            let jobs = read::read_jobs(file.source, source, take);
            read.found.extend(jobs.found);
            read.broken.extend((!jobs.are_read).then_some(file.source));
        }
        builder.state = None;
        builder.known.plain = None;
    }
    let Builder {
        set,
        mut findings,
        tables,
        drafts,
        jobs,
        left_out,
        is_complete,
        ..
    } = builder;
    let mut plan = Plan {
        labels: names::labels(&sources),
        sources,
        tables,
        jobs,
        needs: Lists::with_capacity(0),
        names: NameIndex::empty(),
        limits: settled.limits,
        pools: settled.pools,
        resources: settled.resources,
        affinity,
        topology: Arc::clone(&machine.topology),
        max_fails: settled.max_fails,
        name_of_run,
        set,
        known_by: None,
    };
    plan.names = NameIndex::of(&plan);
    names::refuse_duplicates(&plan, &drafts, &mut findings);
    needs::resolve(&mut plan, &drafts, &left_out, &mut findings);
    tasks::check(&plan, &mut findings);
    let is_sound = is_complete && !findings.has_errors();
    (is_sound.then_some(plan), read, findings.into_sorted())
}

/// Where the state of a run of these files lives: `.reiver/<name>` beside the first, absolute. It is not
/// made here, and nothing of the files but the first one's `name` has to be right.
pub fn state_folder(sources: &[Arc<Source>], files: &[JobFile]) -> PathBuf {
    state_folder_of(sources, &name_of_run(sources, files))
}

pub(super) fn state_folder_of(sources: &[Arc<Source>], name_of_run: &OsStr) -> PathBuf {
    let folder = sources.first().map(|source| source.folder.clone());
    folder.unwrap_or_default().join(".reiver").join(name_of_run)
}

fn name_of_run(sources: &[Arc<Source>], files: &[JobFile]) -> OsString {
    match (
        sources.first(),
        files.first().and_then(|file| file.name.as_ref()),
    ) {
        (_, Some(name)) => name.value.clone().into(),
        (Some(source), None) if !source.is_stream => Path::new(&source.given)
            .file_name()
            .unwrap_or(&source.given)
            .to_owned(),
        _ => "stdin".into(),
    }
}

struct Builder<'s> {
    sources: &'s [Arc<Source>],
    fit: Fit<'s>,
    registry: &'s Registry,
    set: SetKeys,
    findings: Findings,
    tables: Vec<Table>,
    drafts: Vec<Draft>,
    jobs: Vec<Job>,
    /// The names of jobs that could not be read, or whose matrix is wrong: to need them is no second mistake.
    left_out: Vec<(String, Glob)>,
    /// False where reading has left out what a job needs; it has said so.
    is_complete: bool,
    /// The `#JOB` state whose table is the last one.
    state: Option<Arc<JobKeys>>,
    known: Known,
}

impl Builder<'_> {
    /// Makes room for a file's jobs, so that what they are kept in is not copied as it grows.
    fn reserve(&mut self, form: Form, entries: usize) {
        self.jobs.reserve(entries);
        if form != Form::Text {
            self.tables.reserve(entries);
            self.drafts.reserve(entries);
        }
    }

    fn entry(&mut self, file: &JobFile, entry: Entry) {
        let source = file.source;
        match entry {
            Entry::Table { place, span, keys } => {
                let merged = Merged {
                    own: &keys,
                    defaults: &file.defaults,
                };
                self.table(source, place, span, &merged);
            }
            Entry::Unread => self.leave_out("*"),
            Entry::Line {
                line,
                span,
                defaults,
            } => {
                let is_same = |state| Arc::ptr_eq(state, &defaults);
                if !self.state.as_ref().is_some_and(is_same) {
                    self.lines(source, &defaults, span.clone());
                    self.state = Some(defaults);
                }
                self.line(source, line, span);
            }
        }
    }

    fn table(&mut self, source: SourceId, place: u32, entry: Span, keys: &Merged<'_>) {
        let matrix = match &keys.own.matrix {
            None => Some(Matrix::single()),
            Some(matrix) => Matrix::unfold(source, matrix, &mut self.findings),
        };
        // A job whose matrix is wrong is left out: its placeholders would mean nothing.
        let Some(matrix) = matrix else {
            let name = keys.own.name.as_ref().map_or("{job}", |name| &name.value);
            let (pattern, _) = Template::parse(name, |_| Some(()));
            self.leave_out(&pattern.render(|()| "*".into()));
            return;
        };
        if !self.has_room(
            matrix.cells() as usize,
            &Place {
                source,
                span: entry.clone(),
            },
        ) {
            return;
        }
        let index = index_of(self.tables.len());
        let cells = (0..matrix.cells()).map(|cell| Job::Cell {
            table: index,
            cell,
            needs: 0,
        });
        self.jobs.extend(cells);

        let mut texts = Texts {
            id: source,
            source: source_of(self.sources, source),
            matrix: &matrix,
            set: &mut self.set,
            findings: &mut self.findings,
            is_sound: true,
        };
        let name = match &keys.own.name {
            None => TableName::Place(place),
            Some(name) => TableName::Given(texts.of_columns(name, "`name`")),
        };
        let has_sound_name = texts.is_sound;
        let needs: Needs = keys
            .own
            .needs
            .iter()
            .map(|need| {
                let job = texts.of_columns(&need.value.job, "this need");
                (job, need.value.when)
            })
            .collect();
        let action = action(&mut texts, keys.own, self.registry);
        self.is_complete &= action.is_some();
        let action = action.unwrap_or(Action::Argv(Box::default()));
        let is_plain = keys.own.others.is_none() && needs.is_empty();
        let common = match &self.known.plain {
            Some(plain) if is_plain => Arc::clone(plain),
            _ => {
                let stated = stated(&mut texts, self.fit, needs, keys);
                self.known.common(source, stated, matrix)
            }
        };
        if is_plain {
            self.known.plain = Some(Arc::clone(&common));
        }
        self.tables.push(Table {
            name,
            action,
            common,
        });
        let name = keys.own.name.as_ref().map_or(&entry, |name| &name.span);
        let needs = keys.own.needs.iter();
        let needs = needs.map(|need| need.value.job.span.clone()).collect();
        self.drafts.push(Draft::new(name, has_sound_name, needs));
    }

    /// There would be jobs with such names, were it not for what has been said.
    fn leave_out(&mut self, names: &str) {
        self.is_complete = false;
        // They may be as many as the lines of a file.
        if self.left_out.last().is_none_or(|(last, _)| last != names) {
            self.left_out.push((names.to_owned(), Glob::new(names)));
        }
    }

    /// A table for the lines under one `#JOB` state.
    fn lines(&mut self, source: SourceId, defaults: &JobKeys, first: Span) {
        let keys = Merged {
            own: &JobKeys::default(),
            defaults,
        };
        let mut texts = Texts {
            id: source,
            source: source_of(self.sources, source),
            matrix: &Matrix::single(),
            set: &mut self.set,
            findings: &mut self.findings,
            is_sound: true,
        };
        let stated = stated(&mut texts, self.fit, Box::default(), &keys);
        self.tables.push(Table {
            name: TableName::Place(0),
            action: Action::Argv(Box::default()),
            common: self.known.common(source, stated, Matrix::single()),
        });
        self.drafts.push(Draft::new(&first, true, Box::default()));
    }

    fn line(&mut self, source: SourceId, line: u32, span: Span) {
        if !self.has_room(
            1,
            &Place {
                source,
                span: span.clone(),
            },
        ) {
            return;
        }
        let table = index_of(self.tables.len() - 1);
        self.jobs.push(Job::Line {
            begin: Offset::of(span.start),
            table,
            line,
        });
    }

    fn has_room(&mut self, jobs: usize, place: &Place) -> bool {
        let has_room = self.jobs.len() + jobs <= JOBS_MAX;
        if !has_room && self.is_complete {
            let message = format!("this is more than the {JOBS_MAX} jobs that a run may have");
            let mut error = place.error(message);
            error.help = Some("split the file".into());
            self.findings.push(error);
            self.is_complete = false;
        }
        has_room
    }
}

fn index_of(place: usize) -> u32 {
    u32::try_from(place).expect("JOBS_MAX is less, and each table has a job")
}

/// What every job has to fit.
#[derive(Clone, Copy)]
struct Fit<'s> {
    settled: &'s Settled,
    topology: &'s Topology,
    affinity: Affinity,
}

impl Fit<'_> {
    /// Refuses what can never start.
    fn check(&self, texts: &mut Texts<'_>, keys: &Merged<'_>, settings: &Settings) {
        let is_known = |name: &str| !self.settled.refused.iter().any(|file| file.holds(name));
        let limits = self.settled.limits;
        let id = texts.id;
        let mut refuse = |place: Place, message: String, help: String| {
            let mut error = place.error(message);
            error.help = Some(help);
            texts.findings.push(error);
        };
        if let Some(cpus) = keys.get(|keys| &keys.cpus)
            && is_known("cpus")
            && settings.class != Class::Io
            && cpus.value > limits.cpus
        {
            let limit = limits.cpus;
            refuse(
                place_of(id, cpus),
                format!("{} cpus never fit: the run has {limit}", cpus.value),
                format!("ask for at most {limit}, or raise `limits.cpus` or `--limit cpus=N`"),
            );
        }
        if let Some(memory) = keys.get(|keys| &keys.memory)
            && is_known("memory")
            && let Some(limit) = limits.memory
            && memory.value > limit
        {
            refuse(
                place_of(id, memory),
                format!("{} bytes never fit: the run has {limit}", memory.value),
                "ask for less, or raise `limits.memory` or `--limit memory=SIZE`".to_owned(),
            );
        }
        if let Some(pool) = keys.get(|keys| &keys.pool)
            && is_known(&pool.value)
        {
            let pools = &self.settled.pools;
            if !pools.iter().any(|(name, _)| *name == pool.value) {
                let message = format!("there is no pool `{}`", pool.value);
                let help = missing(&pool.value, pools, "[pools]", "--pool");
                refuse(place_of(id, pool), message, help);
            }
        }
        let asked = keys.resources().filter(|(_, count)| count.value > 0);
        for (name, count) in asked.filter(|(name, _)| is_known(name)) {
            let resources = &self.settled.resources;
            match resources.iter().find(|(known, _)| known == name) {
                None => {
                    let help = missing(name, resources, "[resources]", "--resource");
                    let message = format!("there is no resource `{name}`");
                    refuse(place_of(id, count), message, help);
                }
                Some((_, have)) if count.value > *have => refuse(
                    place_of(id, count),
                    format!("{} of `{name}` never fit: the run has {have}", count.value),
                    format!("ask for at most {have}, or raise it in [resources] or by --resource"),
                ),
                Some(_) => {}
            }
        }
        if !settings.is_task {
            self.check_nodes(texts, keys, settings);
        }
    }

    fn check_nodes(&self, texts: &mut Texts<'_>, keys: &Merged<'_>, settings: &Settings) {
        let numa = &settings.numa;
        let named = keys.nodes().map(|nodes| place_of(texts.id, nodes));
        let mut refuse = |place: Place, message: String, help: String| {
            let mut error = place.error(message);
            error.help = Some(help);
            texts.findings.push(error);
        };
        if let Some(place) = &named {
            let is_absent = |node: &&NodeId| self.topology.node(**node).is_none();
            if let Some(absent) = numa.nodes.iter().find(is_absent) {
                let nodes: Vec<String> = self.topology.nodes().map(|id| id.0.to_string()).collect();
                return refuse(
                    place.clone(),
                    format!("this machine has no node {}", absent.0),
                    format!(
                        "its nodes are {}; `reiver topology` draws them",
                        nodes.join(", ")
                    ),
                );
            }
        }
        if numa.affinity.unwrap_or(self.affinity) != Affinity::Require {
            return;
        }
        let all: Vec<NodeId> = self.topology.nodes().collect();
        let nodes = if numa.nodes.is_empty() {
            &all
        } else {
            &numa.nodes
        };
        let cpus_of = |id: &NodeId| self.topology.node(*id).map_or(0, |node| node.cpus.len());
        let (most, sum) = (
            nodes.iter().map(cpus_of).max().unwrap_or(0),
            nodes.iter().map(cpus_of).sum::<usize>(),
        );
        // Of nodes that were named a job may take several, where none of them is large enough.
        let room = if named.is_some() { sum } else { most };
        let wanted = settings.cpus.unwrap_or(1);
        if (wanted as usize) <= room {
            return;
        }
        let cpus = keys
            .get(|keys| &keys.cpus)
            .map(|cpus| place_of(texts.id, cpus));
        let numa = keys
            .get(|keys| &keys.numa)
            .map(|numa| place_of(texts.id, numa));
        let (Some(place), message) = (
            cpus.or(named).or(numa),
            match room {
                0 => "the nodes that are required have no CPUs that this run may use".to_owned(),
                room => format!(
                    "{wanted} cpus never fit the nodes that are required: those have {room}"
                ),
            },
        ) else {
            return;
        };
        refuse(
            place,
            message,
            "ask for fewer, name more nodes, or let it spread: affinity = \"prefer\"".to_owned(),
        );
    }
}

/// What to do about a name that the run does not know.
fn missing(name: &str, known: &[(String, u32)], table: &str, option: &str) -> String {
    let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    match nearest(name, &names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("say how many there are, by `{table}` or `{option} {name}=N`"),
    }
}

type Needs = Box<[(Template<Key>, When)]>;

/// What a job states besides its name and what it does, defaults among it.
fn stated(
    texts: &mut Texts<'_>,
    fit: Fit<'_>,
    needs: Needs,
    keys: &Merged<'_>,
) -> (Settings, Around) {
    let settings = keys.settings(texts.id, texts.findings);
    fit.check(texts, keys, &settings);
    let around = match settings.is_task {
        true => Around::new(Box::default(), needs, Files::default()),
        false => around(texts, needs, keys),
    };
    (settings, around)
}

/// What a process has around it.
fn around(texts: &mut Texts<'_>, needs: Needs, keys: &Merged<'_>) -> Around {
    let files = Files {
        cwd: keys.get(|keys| &keys.cwd).map(|cwd| texts.text(cwd)),
        stdin: keys
            .get(|keys| &keys.stdin)
            .map(|file| texts.filled(file, "`stdin`")),
        stdout: keys
            .get(|keys| &keys.stdout)
            .map(|file| texts.filled(file, "`stdout`")),
        stderr: keys
            .get(|keys| &keys.stderr)
            .map(|file| match file.value.as_str() {
                "stdout" => Join::Stdout,
                _ => Join::File(texts.filled(file, "`stderr`")),
            }),
    };
    let variables = keys.env();
    let env = variables.map(|(key, value)| (key.into(), texts.text(value)));
    Around::new(env.collect(), needs, files)
}

/// What a table's jobs execute; `None` where reading has found nothing it could be.
fn action(texts: &mut Texts<'_>, keys: &JobKeys, registry: &Registry) -> Option<Action> {
    if let Some(run) = &keys.run {
        return Some(Action::Shell(texts.line(run)));
    }
    if keys.task.is_some() {
        return tasks::call(texts, keys, registry).map(|call| Action::Task(Box::new(call)));
    }
    let words = &keys.command.as_ref()?.value;
    let is_plain =
        |word: &Spanned<String>| template::is_plain(&word.value) && !word.value.contains('\0');
    if words.iter().all(is_plain) {
        return Some(Action::Words(joined(words)?));
    }
    let (program, arguments) = words.split_first()?;
    let program = texts.filled(program, "the program");
    let arguments = arguments.iter().map(|argument| texts.text(argument));
    Some(Action::Argv(
        std::iter::once(program).chain(arguments).collect(),
    ))
}

/// The words with a NUL between them; `None` for none.
fn joined(words: &[Spanned<String>]) -> Option<Box<str>> {
    let (first, others) = words.split_first()?;
    let bytes: usize = words.iter().map(|word| word.value.len() + 1).sum();
    let mut joined = String::with_capacity(bytes - 1);
    joined.push_str(&first.value);
    for word in others {
        joined.extend(["\0", &word.value]);
    }
    Some(joined.into())
}
