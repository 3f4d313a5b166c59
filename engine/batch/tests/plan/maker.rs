//! Job files in the making, and what planning says of them.

use std::path::PathBuf;
use std::sync::Arc;

use reiver::Topology;
use reiver_batch::job_file::{Entry, JobFile, JobKeys, MatrixKeys, NeedKey, When};
use reiver_batch::plan::{Machine, Overrides, Plan, plan};
use reiver_batch::source::Spanned;
use reiver_batch::{Diagnostic, Form, Severity, Source, SourceId};

/// A file in the making: its text holds what its values say, so that spans can be checked.
pub(crate) struct Maker {
    pub(crate) text: Vec<u8>,
    pub(crate) file: JobFile,
}

impl Maker {
    pub(crate) fn new(source: u32) -> Self {
        Self {
            text: Vec::new(),
            file: JobFile::empty(SourceId(source)),
        }
    }

    pub(crate) fn spanned<T>(&mut self, written: &str, value: T) -> Spanned<T> {
        let begin = self.text.len();
        self.text.extend(written.bytes());
        let span = begin..self.text.len();
        self.text.push(b'\n');
        Spanned { value, span }
    }

    pub(crate) fn text(&mut self, text: &str) -> Spanned<String> {
        self.spanned(&format!("{text:?}"), text.to_owned())
    }

    pub(crate) fn number(&mut self, number: u32) -> Spanned<u32> {
        self.spanned(&number.to_string(), number)
    }

    pub(crate) fn job(&mut self, keys: JobKeys) {
        let place = u32::try_from(self.file.entries.len()).expect("few") + 1;
        let span = self.spanned("[[job]]", ()).span;
        self.file.entries.push(Entry::Table {
            place,
            span,
            keys: Box::new(keys),
        });
    }

    /// A job with a `run` line.
    pub(crate) fn run(&mut self, name: &str, run: &str) -> JobKeys {
        let name = (!name.is_empty()).then(|| self.text(name));
        JobKeys {
            name,
            run: Some(self.text(run)),
            ..JobKeys::default()
        }
    }

    pub(crate) fn need(&mut self, text: &str, when: When) -> Spanned<NeedKey> {
        let job = self.text(text);
        Spanned {
            span: job.span.clone(),
            value: NeedKey { job, when },
        }
    }

    /// A named job that does nothing but need.
    pub(crate) fn needing(&mut self, name: &str, needs: &[&str]) {
        let mut keys = self.run(name, "/bin/true");
        keys.needs = needs
            .iter()
            .map(|need| self.need(need, When::Success))
            .collect();
        self.job(keys);
    }

    pub(crate) fn matrix(
        &mut self,
        axes: &[(&str, &[&str])],
        include: &[&[(&str, &str)]],
        exclude: &[&[(&str, &str)]],
    ) -> Option<Spanned<MatrixKeys>> {
        let axes = axes
            .iter()
            .map(|(key, values)| {
                (
                    self.text(key),
                    values.iter().map(|v| self.text(v)).collect(),
                )
            })
            .collect();
        let mut cells = |cells: &[&[(&str, &str)]]| {
            let pair =
                |maker: &mut Self, key: &str, value: &str| (maker.text(key), maker.text(value));
            cells
                .iter()
                .map(|cell| {
                    let value = cell
                        .iter()
                        .map(|(key, value)| pair(self, key, value))
                        .collect();
                    self.spanned("{}", value)
                })
                .collect()
        };
        let value = MatrixKeys {
            axes,
            include: cells(include),
            exclude: cells(exclude),
            has_mistakes: false,
        };
        Some(self.spanned("matrix", value))
    }

    pub(crate) fn line(&mut self, line: &[u8], defaults: &Arc<JobKeys>) {
        let number = u32::try_from(self.file.entries.len()).expect("few") + 1;
        let begin = self.text.len();
        self.text.extend(line);
        let span = begin..self.text.len();
        self.text.push(b'\n');
        let defaults = Arc::clone(defaults);
        self.file.entries.push(Entry::Line {
            line: number,
            span,
            defaults,
        });
    }
}

/// Two nodes of two CPUs, and memory alone at a third.
pub(crate) fn machine() -> Machine {
    let nodes = "[NUMANode] Package:2 [NUMANode(memory=1GB)] Core:2";
    let topology = Topology::synthetic(nodes).expect("a machine");
    Machine::new(topology, Some(1 << 30))
}

pub(crate) fn plan_files(
    makers: Vec<(&str, Maker)>,
    overrides: &Overrides,
) -> (Result<Plan, Vec<Diagnostic>>, Vec<Diagnostic>) {
    let (mut sources, mut files) = (Vec::new(), Vec::new());
    for (given, maker) in makers {
        sources.push(Arc::new(Source {
            given: given.into(),
            folder: PathBuf::from("/files"),
            is_stream: given == "-",
            form: Form::Toml,
            text: maker.text,
        }));
        files.push(maker.file);
    }
    let (plan, findings) = plan(sources, files, overrides, &machine());
    let (errors, warnings): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|finding| finding.severity == Severity::Error);
    assert_eq!(plan.is_none(), !errors.is_empty(), "{errors:?}");
    (plan.ok_or(errors), warnings)
}

pub(crate) fn planned(make: impl FnOnce(&mut Maker)) -> Plan {
    let mut maker = Maker::new(0);
    make(&mut maker);
    plan_files(vec![("jobs.toml", maker)], &Overrides::default())
        .0
        .expect("no mistakes")
}

/// What is said of a file, each with the text that it underlines.
pub(crate) fn said(make: impl FnOnce(&mut Maker)) -> Vec<(String, String)> {
    let mut maker = Maker::new(0);
    make(&mut maker);
    let text = maker.text.clone();
    let (plan, warnings) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
    let underlined = |finding: &Diagnostic| {
        String::from_utf8(text[finding.span.clone()].to_vec()).expect("UTF-8")
    };
    let errors = plan.err().unwrap_or_default();
    let findings = errors.iter().chain(&warnings);
    findings
        .map(|finding| (underlined(finding), finding.message.clone()))
        .collect()
}

/// One mistake, underlined and named.
#[track_caller]
pub(crate) fn one_mistake(make: impl FnOnce(&mut Maker), underlined: &str, message: &str) {
    assert_eq!(said(make), [(underlined.to_owned(), message.to_owned())]);
}

pub(crate) fn names(plan: &Plan) -> Vec<String> {
    plan.jobs().map(|job| plan.name(job).into_owned()).collect()
}

pub(crate) fn lines(plan: &Plan) -> Vec<String> {
    plan.jobs()
        .map(|job| plan.command_text(job).into_string().expect("UTF-8"))
        .collect()
}

pub(crate) fn needs(plan: &Plan, name: &str) -> Vec<String> {
    let job = plan.find(name).expect("it is there");
    plan.needs(job)
        .map(|need| plan.name(need.job).into_owned())
        .collect()
}
