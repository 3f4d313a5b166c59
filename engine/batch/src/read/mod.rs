//! Text to [`JobFile`]: the three forms, each to one kind of tree, and that tree to keys.
//!
//! Reading always gives what could be read, and says everything that is wrong, not only the first.

mod jsonl;
mod keys;
mod kinds;
mod plain_job;
mod sections;
mod size;
mod text;
mod toml;
mod tree;

pub(crate) use keys::{can_name_resource, nearest};
pub use size::parse_size;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::diagnostic::{Diagnostic, Severity};
use crate::job_file::{Entry, JobFile};
use crate::source::{Form, Source, SourceId, Span};

/// Parses one file. What it finds at fault is not in the result, so a file with an error among its
/// diagnostics must not be run.
pub fn read(id: SourceId, source: &Source) -> (JobFile, Vec<Diagnostic>) {
    let (mut file, mut diagnostics) = read_head(id, source);
    if file.entries.is_empty() {
        let jobs = read_jobs(id, source, |entry| file.entries.push(entry));
        diagnostics.extend(jobs.found);
        if !jobs.are_read {
            file.entries.clear();
            file.nothing_was_read();
        }
    }
    (file, diagnostics)
}

/// All of a file but its jobs: whoever wants those as they are read, and not all at once, asks
/// [`read_jobs`] for them. Where there are entries, they are all of them.
pub(crate) fn read_head(id: SourceId, source: &Source) -> (JobFile, Vec<Diagnostic>) {
    let mut findings = Findings::of(id);
    let mut file = JobFile::empty(id);
    if source.form == Form::Toml {
        match utf8_body(source, &mut findings) {
            Some(body) => toml::head(body, source.body_start(), &mut file, &mut findings),
            None => file.nothing_was_read(),
        }
    }
    (file, findings.list)
}

/// What reading the jobs of a file came to, besides them.
pub(crate) struct Jobs {
    pub(crate) found: Vec<Diagnostic>,
    /// False if some could not be read, and with them perhaps whatever else the file says.
    pub(crate) are_read: bool,
}

/// The jobs of a file whose head has none, each told as it is read.
pub(crate) fn read_jobs(id: SourceId, source: &Source, mut take: impl FnMut(Entry)) -> Jobs {
    let mut findings = Findings::of(id);
    let mut are_read = true;
    let start = source.body_start();
    match source.form {
        Form::Text => text::read(&source.text, start, &mut take, &mut findings),
        form => match (utf8_body(source, &mut findings), form) {
            (Some(body), Form::Toml) => {
                are_read = toml::jobs(body, start, &mut take, &mut findings);
            }
            (Some(body), _) => jsonl::read(body, start, &mut take, &mut findings),
            (None, _) => take(Entry::Unread),
        },
    }
    Jobs {
        found: findings.list,
        are_read,
    }
}

/// How many jobs [`read_jobs`] tells of at the most.
pub(crate) fn jobs_at_most(source: &Source) -> usize {
    /// `{"run":"a"}` and the line's end.
    const SHORTEST_JSON: usize = 12;
    let is_header = |line: &[u8]| line.trim_ascii_start().starts_with(b"[[");
    let lines = source.text.split(|&byte| byte == b'\n');
    let filled = |line: &&[u8]| !line.is_empty();
    match source.form {
        Form::Toml => lines.filter(|line| is_header(line)).count(),
        Form::Text => lines.filter(filled).count(),
        Form::JsonLines => {
            let lines = lines.filter(filled).count();
            lines.min(source.text.len() / SHORTEST_JSON + 1)
        }
    }
}

fn utf8_body<'s>(source: &'s Source, findings: &mut Findings) -> Option<&'s str> {
    let start = source.body_start();
    match std::str::from_utf8(&source.text[start..]) {
        Ok(body) => Some(body),
        Err(error) => {
            let at = start + error.valid_up_to();
            findings
                .error(at..at + 1, "this byte is not UTF-8")
                .help("save the file as UTF-8; only text job files may hold any byte");
            None
        }
    }
}

/// A file that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {error}", file.display())]
pub struct Unreadable {
    /// The file as the user named it.
    pub file: OsString,
    /// The system's reason.
    #[source]
    pub error: io::Error,
}

/// Opens all files of a run; `form` overrides what their names say. A file that is named twice, be it
/// by two names, is read once and refused once.
pub fn open_all(files: &[OsString], form: Option<Form>) -> (Vec<Source>, Vec<Unreadable>) {
    let mut sources = Vec::new();
    let mut unreadable = Vec::new();
    let mut known: Vec<((u64, u64), &OsString)> = Vec::new();
    for file in files {
        let identity = if file == "-" {
            // No file has this number.
            Some((u64::MAX, u64::MAX))
        } else {
            let metadata = std::fs::metadata(file).ok();
            let metadata = metadata.filter(|metadata| metadata.is_file());
            metadata.map(|metadata| (metadata.dev(), metadata.ino()))
        };
        let first = identity.and_then(|own| known.iter().find(|(other, _)| *other == own));
        let opened = match first {
            Some((_, _)) if file == "-" => {
                Err(io::Error::other("standard input can be read only once"))
            }
            Some((_, first)) => {
                let first = first.display();
                Err(io::Error::other(format!(
                    "the run has it already, as {first}"
                )))
            }
            None => Source::open(file, form),
        };
        known.extend(identity.filter(|_| first.is_none()).map(|own| (own, file)));
        match opened {
            Ok(source) => sources.push(source),
            Err(error) => unreadable.push(Unreadable {
                file: file.clone(),
                error,
            }),
        }
    }
    (sources, unreadable)
}

/// What reading has to say, gathered.
struct Findings {
    source: SourceId,
    list: Vec<Diagnostic>,
}

impl Findings {
    fn of(source: SourceId) -> Findings {
        Findings {
            source,
            list: Vec::new(),
        }
    }

    fn error(&mut self, span: Span, message: impl Into<String>) -> Finding<'_> {
        self.list.push(Diagnostic {
            severity: Severity::Error,
            source: self.source,
            span,
            message: message.into(),
            label: None,
            help: None,
            related: Vec::new(),
        });
        Finding(self.list.last_mut().expect("it was pushed"))
    }
}

/// A finding that may be told more about.
struct Finding<'f>(&'f mut Diagnostic);

impl Finding<'_> {
    fn help(self, help: impl Into<String>) {
        self.0.help = Some(help.into());
    }
}
