//! TOML to trees: one for each `[[job]]`, gone before the next is read, and one for all else.

use toml::de::{DeTable, DeValue};

use super::Findings;
use super::keys::Keys;
use super::plain_job::PlainJobs;
use super::sections::{Section, sections};
use super::tree::{Kind, Table, Value};
use crate::diagnostic::Diagnostic;
use crate::job_file::{Entry, JobFile, Refused};
use crate::source::{Span, Spanned};

/// All of a file but its jobs, which [`jobs`] reads one after the other; or those too, where some are
/// written otherwise than as `[[job]]`, and so depend on more than themselves.
pub(super) fn head(body: &str, start: usize, file: &mut JobFile, findings: &mut Findings) {
    let (mut text, mut parts) = (String::new(), Vec::new());
    let mut has_jobs = false;
    for (section, span) in sections(body) {
        match section {
            Section::Job => has_jobs = true,
            Section::Rest => {
                parts.push((text.len(), start + span.start));
                text.push_str(&body[span]);
            }
        }
    }
    let rest = Excerpt {
        text: &text,
        parts: &parts,
    };
    let parsed = DeTable::parse_recoverable(rest.text);
    let mut keys = parsed.0.get_ref().keys();
    if has_jobs && keys.any(|key| key.get_ref() == "job") {
        return whole(body, start, file, findings);
    }
    let is_read = tables(&parsed, rest, file, findings);
    if has_jobs && !is_read {
        // What they mean depends on what could not be read, but not what is wrong with each.
        jobs(body, start, &mut |_| {}, findings);
    }
}

/// All of a file at once.
fn whole(body: &str, start: usize, file: &mut JobFile, findings: &mut Findings) {
    let excerpt = Excerpt {
        text: body,
        parts: &[(0, start)],
    };
    tables(&DeTable::parse_recoverable(body), excerpt, file, findings);
}

/// The jobs of a file whose [`head`] has none; false if some cannot be read, what is wrong with the others
/// being told all the same.
pub(super) fn jobs(
    body: &str,
    start: usize,
    take: &mut impl FnMut(Entry),
    findings: &mut Findings,
) -> bool {
    let mut keys = Keys { findings };
    let mut are_read = true;
    let mut plain = PlainJobs::default();
    let spans = sections(body).filter(|(section, _)| *section == Section::Job);
    for (place, (_, span)) in (1..).zip(spans) {
        let excerpt = Excerpt {
            text: &body[span.clone()],
            parts: &[(0, start + span.start)],
        };
        if let Some((header, table)) = plain.read(excerpt.text, start + span.start) {
            entry(&table, place, header, take, &mut keys);
            continue;
        }
        let parsed = DeTable::parse_recoverable(excerpt.text);
        if has_errors(&parsed, excerpt, keys.findings) {
            are_read = false;
            continue;
        }
        for (_, job) in table(parsed.0.get_ref(), excerpt) {
            entries(&job, place, excerpt, take, &mut keys);
        }
    }
    are_read
}

type Parsed<'b> = (toml::Spanned<DeTable<'b>>, Vec<toml::de::Error>);

/// A part of a file, or several without what stands between them.
#[derive(Clone, Copy)]
struct Excerpt<'b> {
    text: &'b str,
    /// Where each part begins: in the text, and in the file.
    parts: &'b [(usize, usize)],
}

impl Excerpt<'_> {
    /// Where in the file something stands; what is missing between two parts, at the end of the first.
    fn place(&self, span: Span) -> Span {
        let parts = self.parts.partition_point(|(here, _)| *here < span.end);
        let (here, in_file) = self.parts[parts.saturating_sub(1)];
        in_file + span.start - here..in_file + span.end - here
    }

    /// Of something in the file its first line: all of a table underlined would help nobody.
    fn first_line(&self, span: &Span) -> Span {
        let parts = self
            .parts
            .partition_point(|(_, in_file)| *in_file <= span.start);
        let (here, in_file) = self.parts[parts - 1];
        let text = &self.text[span.start - in_file + here..span.end - in_file + here];
        let first = text.lines().next().unwrap_or_default().trim_end();
        span.start..span.start + first.len()
    }
}

/// Whether a text is not TOML, and says why.
fn has_errors((_, errors): &Parsed<'_>, excerpt: Excerpt<'_>, findings: &mut Findings) -> bool {
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        findings.error(excerpt.place(span), message);
    }
    !errors.is_empty()
}

/// What the tables of a file say, jobs among them; false if they cannot be read.
fn tables(
    parsed: &Parsed<'_>,
    excerpt: Excerpt<'_>,
    file: &mut JobFile,
    findings: &mut Findings,
) -> bool {
    if has_errors(parsed, excerpt, findings) {
        // What was recovered may mean something else than what was meant.
        file.nothing_was_read();
        return false;
    }
    let mut keys = Keys { findings };
    for (key, value) in table(parsed.0.get_ref(), excerpt) {
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
            "job" => {
                let mut take = |entry| file.entries.push(entry);
                entries(&value, 1, excerpt, &mut take, &mut keys);
            }
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
    true
}

/// The jobs of an array of tables, the first of which has this place among those of its file.
fn entries(
    value: &Value,
    first: u32,
    excerpt: Excerpt<'_>,
    take: &mut impl FnMut(Entry),
    keys: &mut Keys<'_>,
) {
    let Kind::Array(jobs) = &value.kind else {
        let message = format!("`job` is {}, not an array of tables", value.noun());
        keys.findings
            .error(value.span.clone(), message)
            .help("write `[[job]]` above each job");
        take(Entry::Unread);
        return;
    };
    for (place, job) in (first..).zip(jobs) {
        let Some(table) = keys.table(job) else {
            take(Entry::Unread);
            continue;
        };
        let header = excerpt.first_line(&job.span);
        entry(table, place, header, take, keys);
    }
}

fn entry(table: &Table, place: u32, span: Span, take: &mut impl FnMut(Entry), keys: &mut Keys<'_>) {
    let keys = Box::new(keys.job(table, &span, take));
    take(Entry::Table { place, span, keys });
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

/// A single value, for `#JOB`.
pub(super) fn value_of(text: &str, start: usize) -> Result<Value, String> {
    match DeValue::parse(text) {
        Ok(parsed) => {
            let parts = &[(0, start)];
            Ok(value(&parsed, Excerpt { text, parts }))
        }
        Err(error) => Err(error.message().to_owned()),
    }
}

fn table(table: &DeTable<'_>, excerpt: Excerpt<'_>) -> Table {
    let entry = |(key, item): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        let key = Spanned {
            value: name.to_string(),
            span: excerpt.place(key.span()),
        };
        (key, value(item, excerpt))
    };
    table.iter().map(entry).collect()
}

fn value(parsed: &toml::Spanned<DeValue<'_>>, excerpt: Excerpt<'_>) -> Value {
    let kind = match parsed.get_ref() {
        DeValue::String(text) => {
            Kind::Text(match with_plain_line_ends(&excerpt.text[parsed.span()]) {
                Some(text) => text,
                None => text.to_string(),
            })
        }
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Kind::Integer(number),
            Err(_) => beyond_integers(number.as_str(), &excerpt.text[parsed.span()]),
        },
        DeValue::Float(number) => Kind::Number(number.as_str().to_owned()),
        DeValue::Boolean(value) => Kind::Bool(*value),
        DeValue::Datetime(_) => Kind::Other("a date"),
        DeValue::Array(values) => {
            Kind::Array(values.iter().map(|item| value(item, excerpt)).collect())
        }
        DeValue::Table(inner) => Kind::Table(table(inner, excerpt)),
    };
    Value {
        span: excerpt.place(parsed.span()),
        kind,
        bare: None,
    }
}

/// An integer of these digits that is none of 64 bits: a number as it is written, where that is in
/// another base than ten.
pub(super) fn beyond_integers(digits: &str, written: &str) -> Kind {
    let is_decimal = !["0x", "0o", "0b"]
        .iter()
        .any(|base| written.starts_with(base));
    match (digits, is_decimal) {
        // The parser takes `0x` for one.
        ("", _) => Kind::Other("a number without digits"),
        (digits, true) => Kind::Number(digits.to_owned()),
        (_, false) => Kind::Number(written.to_owned()),
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

#[cfg(test)]
mod tests;
