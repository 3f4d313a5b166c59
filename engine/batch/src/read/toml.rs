//! TOML to a tree.

use toml::de::{DeTable, DeValue};

use super::keys::Keys;
use super::tree::{Kind, Table, Value};
use super::{Findings, jsonl};
use crate::diagnostic::Diagnostic;
use crate::job_file::{Entry, JobFile, Refused};
use crate::source::{Span, Spanned};

pub(super) fn read(body: &str, start: usize, file: &mut JobFile, findings: &mut Findings) {
    let (document, errors) = DeTable::parse_recoverable(body);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        findings.error(shifted(span, start), message);
    }
    if !errors.is_empty() {
        // What was recovered may mean something else than what was meant.
        file.nothing_was_read();
        return;
    }
    let table = table(document.get_ref(), body, start);
    let mut keys = Keys { findings };
    for (key, value) in table {
        let found_before = keys.findings.list.len();
        match key.value.as_str() {
            "name" => file.name = keys.run_name(&value),
            "max-fails" => file.max_fails = keys.count(&value, 0),
            "limits" => file.limits = keys.limits(&value),
            "pools" => file.pools = keys.counts(&value, "pools"),
            "resources" => file.resources = keys.counts(&value, "resources"),
            "defaults" => {
                if let Some(table) = keys.table(&value) {
                    file.defaults = keys.defaults(table, "[defaults]");
                }
            }
            "job" => jobs(&value, body, start, file, &mut keys),
            _ => keys.unknown(
                &key,
                &[
                    "name",
                    "max-fails",
                    "limits",
                    "pools",
                    "resources",
                    "defaults",
                    "job",
                ],
                "",
            ),
        }
        if ["limits", "pools", "resources"].contains(&key.value.as_str()) {
            note_refused(
                &value,
                &keys.findings.list[found_before..],
                &mut file.refused,
            );
        }
    }
}

fn jobs(value: &Value, body: &str, start: usize, file: &mut JobFile, keys: &mut Keys<'_>) {
    let Kind::Array(jobs) = &value.kind else {
        let message = format!("`job` is {}, not an array of tables", value.noun());
        keys.findings
            .error(value.span.clone(), message)
            .help("write `[[job]]` above each job");
        file.entries.push(Entry::Unread);
        return;
    };
    for (place, job) in (1..).zip(jobs) {
        let Some(table) = keys.table(job) else {
            file.entries.push(Entry::Unread);
            continue;
        };
        let span = header(body, start, &job.span);
        let keys = Box::new(keys.job(table, &span, &mut |entry| file.entries.push(entry)));
        file.entries.push(Entry::Table { place, span, keys });
    }
}

/// Notes which of the numbers that jobs share these findings are about.
fn note_refused(shared: &Value, found: &[Diagnostic], refused: &mut Refused) {
    let is_found = |span: &Span| found.iter().any(|finding| finding.span == *span);
    match (&shared.kind, refused) {
        (Kind::Table(table), Refused::Some(names)) => {
            let wrong = table
                .iter()
                .filter(|(key, value)| is_found(&key.span) || is_found(&value.span));
            names.extend(wrong.map(|(key, _)| key.value.clone()));
        }
        (_, refused) => *refused = Refused::All,
    }
}

/// Of a table its first line: all of it underlined would help nobody.
fn header(body: &str, start: usize, span: &Span) -> Span {
    let text = &body[span.start - start..span.end - start];
    let first = text.lines().next().unwrap_or_default().trim_end();
    span.start..span.start + first.len()
}

/// A single value, for `#JOB`.
pub(super) fn value_of(text: &str, start: usize) -> Result<Value, String> {
    match DeValue::parse(text) {
        Ok(parsed) => Ok(value(&parsed, text, start)),
        Err(error) => Err(error.message().to_owned()),
    }
}

fn table(table: &DeTable<'_>, body: &str, start: usize) -> Table {
    let entry = |(key, item): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        let key = Spanned {
            value: name.to_string(),
            span: shifted(key.span(), start),
        };
        (key, value(item, body, start))
    };
    table.iter().map(entry).collect()
}

/// `start` is where `body` begins in its file.
fn value(parsed: &toml::Spanned<DeValue<'_>>, body: &str, start: usize) -> Value {
    let kind = match parsed.get_ref() {
        DeValue::String(text) => Kind::Text(match with_plain_line_ends(&body[parsed.span()]) {
            Some(text) => text,
            None => text.to_string(),
        }),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Kind::Integer(number),
            Err(_) => Kind::Number(number.as_str().to_owned()),
        },
        DeValue::Float(number) => Kind::Number(number.as_str().to_owned()),
        DeValue::Boolean(value) => Kind::Bool(*value),
        DeValue::Datetime(_) => Kind::Other("a date"),
        DeValue::Array(values) => {
            Kind::Array(values.iter().map(|item| value(item, body, start)).collect())
        }
        DeValue::Table(inner) => Kind::Table(table(inner, body, start)),
    };
    Value {
        span: shifted(parsed.span(), start),
        kind,
        bare: None,
    }
}

/// A text as it was written over several lines, where those end in CRLF, which is taken off as in other
/// files. An escape that says `\r` is meant.
fn with_plain_line_ends(written: &str) -> Option<String> {
    let plain = written
        .contains("\r\n")
        .then(|| written.replace("\r\n", "\n"))?;
    match DeValue::parse(&plain).ok()?.into_inner() {
        DeValue::String(text) => Some(text.into_owned()),
        _ => None,
    }
}

use jsonl::shifted;
