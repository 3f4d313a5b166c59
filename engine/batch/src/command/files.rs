//! From files named on the command line to a plan, or to everything that is wrong with them.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::args::{CheckArgs, Files};
use super::console::{Console, count, say};
use super::overrides::overrides;
use super::{exit, machine, mistakes};
use crate::plan::{Machine, Overrides, read_and_plan};
use crate::source::Lines;
use crate::{Diagnostic, Form, Plan, Registry, Severity, Source, SourceId, read};

/// What reading and planning came to.
pub(crate) struct Planned {
    /// None where something is wrong.
    pub(crate) plan: Option<Plan>,
    /// What is wrong, ready to be shown.
    pub(crate) shown: String,
    errors: usize,
    warnings: usize,
    sources: Vec<Arc<Source>>,
}

/// Reads and plans; the error is the exit code, what is wrong having been said.
pub(crate) fn planned(
    files: &Files,
    overrides: &Overrides,
    reader: Option<&OsStr>,
    registry: &Registry,
    console: &Console,
) -> Result<Planned, u8> {
    let topology = machine::read(reader).map_err(|error| {
        say(&format!("reiver: {error}"));
        match reader {
            Some(_) => exit::REFUSED,
            None => exit::ENGINE_FAILED,
        }
    })?;
    let machine = &Machine::new(topology, memory_budget());
    let (sources, unreadable) = read::open_all(&files.files, files.format.map(Into::into));
    if unreadable.is_empty() {
        let misleading = match files.format {
            Some(_) => Vec::new(),
            None => misleading_names(&sources),
        };
        let planned = planned_from(sources, misleading, overrides, machine, registry, console);
        return match planned.unused_set_keys() {
            None => Ok(planned),
            Some(unused) => {
                say(&format!("reiver: {unused}"));
                Err(exit::REFUSED)
            }
        };
    }
    // What is wrong within those that can be read is told too; not what they say of each other, for
    // some are missing.
    let sources: Vec<Arc<Source>> = sources.into_iter().map(Arc::new).collect();
    let ids = (0..).map(SourceId);
    let read = ids.zip(&sources);
    let read = read.flat_map(|(id, source)| read::read(id, source).1);
    let mut findings = read.collect();
    for shown in show(&mut findings, &sources, console).lines() {
        say(shown);
    }
    for error in unreadable {
        say(&format!("reiver: {error}"));
    }
    Err(exit::REFUSED)
}

/// Files whose names promise more than lines for a shell, which they are all the same.
fn misleading_names(sources: &[Source]) -> Vec<Diagnostic> {
    let warning = |(id, source): (SourceId, &Source)| {
        let extension = Path::new(&source.given).extension()?.to_str()?;
        let extension = extension.to_ascii_lowercase();
        let promising = ["json", "ndjson", "jsonl", "yaml", "yml", "toml"];
        let is_misleading = promising.contains(&extension.as_str());
        (is_misleading && source.form == Form::Text && !source.is_stream).then(|| Diagnostic {
            severity: Severity::Warning,
            source: id,
            span: source.line_from(source.body_start()),
            message: "this file is read as text: each line is run by /bin/sh".to_owned(),
            label: None,
            help: Some(
                "call it `.toml` or `.jsonl`, or say with --format toml, jsonl or text what it is"
                    .into(),
            ),
            related: Vec::new(),
        })
    };
    let sources = (0..).map(SourceId).zip(sources);
    sources.filter_map(warning).collect()
}

/// As [`planned`], of sources that are in memory, with what was found of them before.
pub(crate) fn planned_from(
    sources: Vec<Source>,
    found: Vec<Diagnostic>,
    overrides: &Overrides,
    machine: &Machine,
    registry: &Registry,
    console: &Console,
) -> Planned {
    let sources: Vec<Arc<Source>> = sources.into_iter().map(Arc::new).collect();
    let (plan, mut findings) = read_and_plan(sources.clone(), overrides, machine, registry);
    findings.extend(found);
    let shown = show(&mut findings, &sources, console);
    let is_error = |finding: &&Diagnostic| finding.severity == Severity::Error;
    let errors = findings.iter().filter(is_error).count();
    Planned {
        plan,
        shown,
        errors,
        warnings: findings.len() - errors,
        sources,
    }
}

/// Findings as text, in the order of their places, each once.
fn show(findings: &mut Vec<Diagnostic>, sources: &[Arc<Source>], console: &Console) -> String {
    if findings.is_empty() {
        return String::new();
    }
    findings.sort_by_key(|finding| (finding.source, finding.span.start));
    findings.dedup();
    let lines: Vec<Lines<'_>> = sources.iter().map(|source| Lines::of(source)).collect();
    let shown = findings.iter();
    shown
        .map(|finding| mistakes::show(finding, &lines, console))
        .collect()
}

impl Planned {
    /// What is wrong with the keys that the command line sets.
    fn unused_set_keys(&self) -> Option<String> {
        let unused: Vec<&str> = self.plan.as_ref()?.unused_set_keys().collect();
        let (first, _) = unused.split_first()?;
        let keys: Vec<String> = unused.iter().map(|key| format!("`{key}`")).collect();
        Some(format!(
            "--set: no job uses {}; write {{{first}}} where its value is to stand, or leave the option \
             out",
            keys.join(", ")
        ))
    }

    /// `3 mistakes and 1 warning in 2 files`.
    pub(crate) fn tally(&self) -> String {
        let mut found = Vec::new();
        if self.errors > 0 {
            found.push(count(self.errors, "mistake"));
        }
        if self.warnings > 0 {
            found.push(count(self.warnings, "warning"));
        }
        if found.is_empty() {
            found.push("no mistakes".to_owned());
        }
        let files = match &self.sources[..] {
            [only] => mistakes::name(only),
            many => count(many.len(), "file"),
        };
        format!("{} in {files}", found.join(" and "))
    }
}

/// Of the memory that is available nine tenths: the rest is reiver's, and the system's.
fn memory_budget() -> Option<u64> {
    crate::run::available_memory().map(|bytes| bytes / 10 * 9)
}

/// `reiver check`.
pub(crate) fn check(
    args: &CheckArgs,
    registry: &Registry,
    console: &Console,
    out: &mut dyn Write,
) -> io::Result<u8> {
    let overrides = match overrides(&args.files, &args.shares) {
        Ok(overrides) => overrides,
        Err(problem) => {
            say(&format!("reiver: {problem}"));
            return Ok(exit::REFUSED);
        }
    };
    let mut planned = match planned(&args.files, &overrides, None, registry, console) {
        Ok(planned) => planned,
        Err(code) => return Ok(code),
    };
    if let Some(filter) = &args.filter
        && let Some(plan) = planned.plan.take()
    {
        match plan.filter(filter) {
            Ok(filtered) => planned.plan = Some(filtered.plan),
            Err(error) => {
                say(&format!("reiver: --filter: {error}"));
                return Ok(exit::REFUSED);
            }
        }
    }
    out.write_all(planned.shown.as_bytes())?;
    match &planned.plan {
        Some(plan) => writeln!(out, "{}: {}", planned.tally(), count(plan.len(), "job"))?,
        None => writeln!(out, "{}", planned.tally())?,
    }
    Ok(if planned.plan.is_some() {
        exit::OK
    } else {
        exit::REFUSED
    })
}
