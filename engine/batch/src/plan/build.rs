//! Job files made into a plan.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::findings::{Findings, Place, place_of, source_of};
use super::matrix::Matrix;
use super::names::{self, NameIndex};
use super::table::{Action, Job, Join, Key, Table, TableName};
use super::{Limits, Overrides, Plan, Retries, Settings, limits, needs};
use crate::diagnostic::Diagnostic;
use crate::job_file::{Entry, JobFile, JobKeys, When};
use crate::source::{Source, SourceId, Span, Spanned};
use crate::template::{Found, Template};
use reiver::Class;

/// A run with more jobs is refused; job numbers are 32 bits wide.
const JOBS_MAX: usize = 100_000_000;

/// How long after TERM comes KILL, where the file does not say.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// What only planning wants to know of a table.
pub(super) struct Draft {
    pub(super) entry: Span,
    pub(super) name: Option<Span>,
    /// False where a mistake in `name` makes its jobs' names mean nothing.
    pub(super) has_sound_name: bool,
    pub(super) needs: Vec<DraftNeed>,
    /// Its jobs.
    pub(super) jobs: std::ops::Range<u32>,
}

/// One entry of `needs`, before it is looked up.
pub(super) struct DraftNeed {
    pub(super) job: Template<Key>,
    pub(super) place: Place,
    pub(super) when: When,
}

/// Makes a plan of job files, each [`JobFile::source`] an index into `sources`; `machine` is for
/// what neither a file nor an override limits.
///
/// There is no plan where there is an error, and all errors are told; warnings come along in any
/// case. Files in which reading has found mistakes may be planned too, to find what else is wrong.
/// Takes time linear in the jobs and their needs, and for globs in the names that share their
/// beginning.
pub fn plan(
    sources: Vec<Arc<Source>>,
    files: Vec<JobFile>,
    overrides: &Overrides,
    machine: Limits,
) -> (Option<Plan>, Vec<Diagnostic>) {
    let mut findings = Findings::default();
    let is_repeated = names::refuse_repeated(&sources, &mut findings);
    let (limits, max_fails) = limits::settle(&sources, &files, overrides, machine, &mut findings);
    let name_of_run = name_of_run(&sources, &files);
    let mut builder = Builder {
        sources: &sources,
        limits,
        findings,
        tables: Vec::new(),
        drafts: Vec::new(),
        jobs: Vec::new(),
        is_complete: true,
    };
    for file in files {
        if !is_repeated[file.source.0 as usize] {
            builder.file(file);
        }
    }
    let Builder {
        mut findings,
        tables,
        drafts,
        jobs,
        is_complete,
        ..
    } = builder;
    let mut plan = Plan {
        labels: names::labels(&sources),
        sources,
        tables,
        jobs,
        needs: vec![Box::default()],
        names: NameIndex::default(),
        limits,
        max_fails,
        name_of_run,
    };
    plan.names = NameIndex::of(&plan);
    names::refuse_duplicates(&plan, &drafts, &mut findings);
    needs::resolve(&mut plan, &drafts, &mut findings);
    let is_sound = is_complete && !findings.has_errors();
    (is_sound.then_some(plan), findings.into_sorted())
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
    limits: Limits,
    findings: Findings,
    tables: Vec<Table>,
    drafts: Vec<Draft>,
    jobs: Vec<Job>,
    /// False where reading has left out what a job needs; it has said so.
    is_complete: bool,
}

impl Builder<'_> {
    fn file(&mut self, file: JobFile) {
        let source = file.source;
        // The `#JOB` state whose table is the last one.
        let mut state: Option<Arc<JobKeys>> = None;
        for entry in file.entries {
            match entry {
                Entry::Table { place, span, keys } => {
                    let merged = Merged {
                        own: &keys,
                        defaults: &file.defaults,
                    };
                    self.table(source, place, span, &merged);
                }
                Entry::Line {
                    line,
                    span,
                    defaults,
                } => {
                    if !state
                        .as_ref()
                        .is_some_and(|state| Arc::ptr_eq(state, &defaults))
                    {
                        self.lines(source, &defaults, span.clone());
                        state = Some(defaults);
                    }
                    self.line(source, line, span);
                }
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
            self.is_complete = false;
            return;
        };
        let begin = self.jobs.len();
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
            builder: self,
            source,
            matrix: &matrix,
            is_sound: true,
        };
        let name = match &keys.own.name {
            None => TableName::Place(place),
            Some(name) => TableName::Given(texts.of_columns(name, "`name`")),
        };
        let has_sound_name = texts.is_sound;
        let needs = keys
            .own
            .needs
            .iter()
            .map(|need| texts.need(&need.value))
            .collect();
        let action = texts.action(keys.own);
        let table = texts.table(name, action, keys);
        self.tables.push(Table { matrix, ..table });
        self.drafts.push(Draft {
            entry,
            name: keys.own.name.as_ref().map(|name| name.span.clone()),
            has_sound_name,
            needs,
            jobs: index_of(begin)..index_of(self.jobs.len()),
        });
    }

    /// A table for the lines under one `#JOB` state.
    fn lines(&mut self, source: SourceId, defaults: &JobKeys, first: Span) {
        let keys = Merged {
            own: &JobKeys::default(),
            defaults,
        };
        let matrix = Matrix::single();
        let mut texts = Texts {
            builder: self,
            source,
            matrix: &matrix,
            is_sound: true,
        };
        let table = texts.table(TableName::Place(0), Action::Argv(Box::default()), &keys);
        self.tables.push(table);
        let begin = index_of(self.jobs.len());
        self.drafts.push(Draft {
            entry: first,
            name: None,
            has_sound_name: true,
            needs: Vec::new(),
            jobs: begin..begin,
        });
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
            table,
            line,
            begin: span.start,
            end: span.end,
        });
        if let Some(draft) = self.drafts.last_mut() {
            draft.jobs.end += 1;
        }
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

/// A job's keys over the defaults.
struct Merged<'k> {
    own: &'k JobKeys,
    defaults: &'k JobKeys,
}

impl<'k> Merged<'k> {
    fn get<T>(&self, key: fn(&JobKeys) -> &Option<Spanned<T>>) -> Option<&'k Spanned<T>> {
        key(self.own).as_ref().or(key(self.defaults).as_ref())
    }

    fn value<T: Clone>(&self, key: fn(&JobKeys) -> &Option<Spanned<T>>) -> Option<T> {
        self.get(key).map(|spanned| spanned.value.clone())
    }

    /// The defaults' variables in their order, each with the job's value where it has one, then
    /// the job's others.
    fn env(&self) -> impl Iterator<Item = (&'k str, &'k Spanned<String>)> {
        let of = |keys: &'k JobKeys| {
            keys.env
                .iter()
                .map(|(key, value)| (key.value.as_str(), value))
        };
        let own: HashMap<_, _> = of(self.own).collect();
        let defaults: HashMap<_, _> = of(self.defaults).collect();
        of(self.defaults)
            .map(move |(key, value)| (key, own.get(key).copied().unwrap_or(value)))
            .chain(of(self.own).filter(move |(key, _)| !defaults.contains_key(key)))
    }

    fn settings(&self, source: SourceId, findings: &mut Findings) -> Settings {
        Settings {
            class: self.value(|keys| &keys.class).unwrap_or_default(),
            priority: self.value(|keys| &keys.priority).unwrap_or_default(),
            cpus: self.value(|keys| &keys.cpus),
            timeout: self.value(|keys| &keys.timeout),
            kill_after: self.value(|keys| &keys.kill_after).unwrap_or(KILL_AFTER),
            retries: self.retries(source, findings),
            success_codes: self
                .value(|keys| &keys.success_codes)
                .unwrap_or_else(|| vec![0]),
        }
    }

    fn retries(&self, source: SourceId, findings: &mut Findings) -> Retries {
        let own = self.own.retries.as_ref();
        let first = own.map(|retries| retries.value).unwrap_or_default();
        let then = self
            .defaults
            .retries
            .as_ref()
            .map(|r| r.value)
            .unwrap_or_default();
        let count = first.count.or(then.count);
        if let (None, Some(own)) = (count, own) {
            let mut error = place_of(source, own).error("`retries` has no `count`");
            error.help = Some("say how often: `count = 2`".into());
            findings.push(error);
        }
        Retries {
            count: count.unwrap_or(0),
            backoff: first.backoff.or(then.backoff).unwrap_or_default(),
            delay: first.delay.or(then.delay).unwrap_or_default(),
            max_delay: first.max_delay.or(then.max_delay),
            jitter: first.jitter.or(then.jitter).unwrap_or(false),
        }
    }
}

/// Makes the templates of one table, and reports what is wrong with its texts.
struct Texts<'b, 's, 'm> {
    builder: &'b mut Builder<'s>,
    source: SourceId,
    matrix: &'m Matrix,
    /// False once a text had a mistake.
    is_sound: bool,
}

impl Texts<'_, '_, '_> {
    /// All of a table but its matrix.
    fn table(&mut self, name: TableName, action: Action, keys: &Merged<'_>) -> Table {
        let settings = keys.settings(self.source, &mut self.builder.findings);
        self.check_cpus(&settings, keys);
        Table {
            source: self.source,
            name,
            settings,
            action,
            cwd: keys.get(|keys| &keys.cwd).map(|cwd| self.text(cwd)),
            env: keys
                .env()
                .map(|(key, value)| (key.into(), self.text(value)))
                .collect(),
            stdin: keys
                .get(|keys| &keys.stdin)
                .map(|file| self.filled(file, "`stdin`")),
            stdout: keys
                .get(|keys| &keys.stdout)
                .map(|file| self.filled(file, "`stdout`")),
            stderr: keys
                .get(|keys| &keys.stderr)
                .map(|file| match file.value.as_str() {
                    "stdout" => Join::Stdout,
                    _ => Join::File(self.filled(file, "`stderr`")),
                }),
            matrix: Matrix::single(),
        }
    }

    fn check_cpus(&mut self, settings: &Settings, keys: &Merged<'_>) {
        let limit = self.builder.limits.cpus;
        if let Some(cpus) = keys.get(|keys| &keys.cpus)
            && settings.class != Class::Io
            && cpus.value > limit
        {
            let message = format!("{} cpus never fit: the run has {limit}", cpus.value);
            let mut error = place_of(self.source, cpus).error(message);
            error.help = Some(format!(
                "ask for at most {limit}, or raise `limits.cpus` or `--limit cpus=N`"
            ));
            self.builder.findings.push(error);
        }
    }

    fn action(&mut self, keys: &JobKeys) -> Action {
        match (&keys.run, &keys.command) {
            (Some(run), _) => Action::Shell(self.line(run)),
            (None, Some(command)) => {
                let (first, rest) = command.value.split_first().unzip();
                self.builder.is_complete &= first.is_some();
                let program = first.map(|program| self.filled(program, "the program"));
                let rest = rest.unwrap_or_default().iter().map(|text| self.text(text));
                Action::Argv(program.into_iter().chain(rest).collect())
            }
            (None, None) => {
                self.builder.is_complete = false;
                Action::Argv(Box::default())
            }
        }
    }

    fn need(&mut self, need: &crate::job_file::NeedKey) -> DraftNeed {
        DraftNeed {
            job: self.of_columns(&need.job, "this need"),
            place: place_of(self.source, &need.job),
            when: need.when,
        }
    }

    fn key_of(&self, word: &str) -> Option<Key> {
        match word {
            "name" => Some(Key::Name),
            "attempt" => Some(Key::Attempt),
            "cpus" => Some(Key::Cpus),
            key => self.column_of(key),
        }
    }

    fn column_of(&self, word: &str) -> Option<Key> {
        self.matrix.column(word).map(Key::Column)
    }

    /// A text in which values are put as they are.
    fn text(&mut self, text: &Spanned<String>) -> Template<Key> {
        let (template, found) = Template::parse(&text.value, |word| self.key_of(word));
        self.report(text, &found, &["name", "attempt", "cpus"]);
        template
    }

    /// A line for the shell.
    fn line(&mut self, text: &Spanned<String>) -> Template<Key> {
        let (template, found) = Template::parse_line(&text.value, |word| self.key_of(word));
        self.report(text, &found, &["name", "attempt", "cpus"]);
        template
    }

    /// A text with values, that must not be empty.
    fn filled(&mut self, text: &Spanned<String>, what: &str) -> Template<Key> {
        let template = self.text(text);
        self.refuse_empty(&template, text, what);
        template
    }

    /// A text that knows matrix keys only, and must not be empty.
    fn of_columns(&mut self, text: &Spanned<String>, what: &str) -> Template<Key> {
        let (template, found) = Template::parse(&text.value, |word| self.column_of(word));
        self.report(text, &found, &[]);
        self.refuse_empty(&template, text, what);
        template
    }

    fn refuse_empty(&mut self, template: &Template<Key>, text: &Spanned<String>, what: &str) {
        if !template.may_be_empty() || text.value.is_empty() {
            return;
        }
        let value_of = |cell, key| match key {
            Key::Column(column) => {
                Cow::Borrowed(self.matrix.value(cell, column).unwrap_or("absent"))
            }
            Key::Name | Key::Attempt | Key::Cpus => "given".into(),
        };
        let cells = 0..self.matrix.cells();
        let empty = |cell: &u32| template.render(|key| value_of(*cell, key)).is_empty();
        if let Some(cell) = cells.into_iter().find(empty) {
            let cell = self.matrix.describe(cell);
            let error =
                place_of(self.source, text).error(format!("{what} is empty in the cell {cell}"));
            self.builder.findings.push(error);
            self.is_sound = false;
        }
    }

    /// Reports what was found in a text; `own_keys` are those it knows besides the matrix's.
    fn report(&mut self, text: &Spanned<String>, found: &Found<'_, Key>, own_keys: &[&str]) {
        let source = source_of(self.builder.sources, self.source);
        let whole = place_of(self.source, text);
        let findings = &mut self.builder.findings;
        let place = |range: &Span| whole.part(source, &text.value, range.clone());
        for placeholder in &found.placeholders {
            let word = placeholder.word;
            if let Key::Column(column) = placeholder.key
                && let Some(cell) = self.matrix.cell_without(column)
            {
                let cell = self.matrix.describe(cell);
                let mut error = place(&placeholder.range)
                    .error(format!("`{{{word}}}` has no value in the cell {cell}"));
                error.help = Some(format!(
                    "give the cell a `{word}` by `include`, or take the placeholder out"
                ));
                findings.push(error);
                self.is_sound = false;
            }
            if let Some(unclear) = placeholder.unclear {
                let mut error = place(&placeholder.range)
                    .error(format!("`{{{word}}}` cannot be quoted {unclear}"));
                error.help = Some(format!(
                    "hand it over by `env = {{ VALUE = \"{{{word}}}\" }}`, and use \"$VALUE\" here"
                ));
                findings.push(error);
            }
        }
        for (word, range) in &found.unknown {
            let nearest = self
                .matrix
                .keys()
                .chain(own_keys.iter().copied())
                .find(|key| {
                    let has_common_letter = word.len().max(key.len()) > 1;
                    has_common_letter && strsim::osa_distance(word, key) == 1
                });
            if let Some(nearest) = nearest {
                let mut warning = place(range).warning(format!(
                    "`{{{word}}}` stands as it is, for `{word}` is no key of this job"
                ));
                warning.help = Some(format!("did you mean `{{{nearest}}}`?"));
                findings.push(warning);
            }
        }
    }
}
