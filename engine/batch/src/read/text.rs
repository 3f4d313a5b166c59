//! Text: one command a line, and `#JOB` lines that say how those after them are run.

use std::sync::Arc;

use super::keys::Keys;
use super::tree::{Kind, Table, Value};
use super::{Findings, toml};
use crate::job_file::{Entry, JobKeys};
use crate::source::{Span, Spanned};
use crate::template::is_key;

const DIRECTIVE: &[u8] = b"#JOB";

pub(super) fn read(
    text: &[u8],
    start: usize,
    take: &mut impl FnMut(Entry),
    findings: &mut Findings,
) {
    let mut keys = Keys { findings };
    let mut pairs: Table = Vec::new();
    let mut defaults: Arc<JobKeys> = Arc::default();
    let mut at = start;
    for (number, line) in (1..).zip(text[start..].split_inclusive(|&byte| byte == b'\n')) {
        let begin = at;
        at += line.len();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let span = begin..begin + line.len();
        let is_directive = line.strip_prefix(DIRECTIVE).is_some_and(|rest| {
            rest.first()
                .is_none_or(|&byte| byte == b' ' || byte == b'\t')
        });
        if is_directive {
            if let Some(added) = directive(line, begin, &mut keys) {
                // Each line is checked by itself, so that nothing is said twice.
                keys.defaults(&added, "a #JOB line");
                let added = added.into_iter().map(counted).collect();
                merge(&mut pairs, added);
                let mut silent = Findings::of(keys.findings.source);
                defaults = Arc::new(
                    Keys {
                        findings: &mut silent,
                    }
                    .defaults(&pairs, "a #JOB line"),
                );
            }
        } else if line.first() == Some(&b'#') || line.iter().all(u8::is_ascii_whitespace) {
            // A comment, or nothing.
        } else if let Some(nul) = line.iter().position(|&byte| byte == 0) {
            keys.findings
                .error(
                    begin + nul..begin + nul + 1,
                    "a command cannot hold a NUL byte",
                )
                .help("take it out; is this a text file?");
            take(Entry::Unread);
        } else {
            take(Entry::Line {
                line: number,
                span,
                defaults: Arc::clone(&defaults),
            });
        }
    }
}

/// What a directive says goes over what those before it said: tables key by key, the rest whole.
fn merge(sum: &mut Table, added: Table) {
    for (key, value) in added {
        match sum.iter_mut().find(|(known, _)| known.value == key.value) {
            None => sum.push((key, value)),
            Some((_, known)) => match (&mut known.kind, value.kind) {
                (Kind::Table(known), Kind::Table(added)) => merge(known, added),
                (_, kind) => {
                    *known = Value {
                        kind,
                        span: value.span,
                        bare: value.bare,
                    }
                }
            },
        }
    }
}

/// `retries=3` as `retries={count=3}`, for it sets the count alone.
fn counted((key, value): (Spanned<String>, Value)) -> (Spanned<String>, Value) {
    if key.value != "retries" || matches!(value.kind, Kind::Table(_)) {
        return (key, value);
    }
    let count = Spanned {
        value: "count".to_owned(),
        span: value.span.clone(),
    };
    let table = Value {
        span: value.span.clone(),
        kind: Kind::Table(vec![(count, value)]),
        bare: None,
    };
    (key, table)
}

/// The pairs of a `#JOB key=value ...` line.
fn directive(line: &[u8], begin: usize, keys: &mut Keys<'_>) -> Option<Table> {
    let text = match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => {
            let at = begin + error.valid_up_to();
            keys.findings
                .error(at..at + 1, "this byte of a #JOB line is not UTF-8");
            return None;
        }
    };
    let mut pairs: Table = Vec::new();
    let mut at = DIRECTIVE.len();
    loop {
        at += text[at..].len() - text[at..].trim_start_matches([' ', '\t']).len();
        if at == text.len() {
            return Some(pairs);
        }
        let rest = &text[at..];
        let word_end = rest.find([' ', '\t']).unwrap_or(rest.len());
        let Some(equals) = rest[..word_end].find('=') else {
            let message = format!("`{}` is no key=value", &rest[..word_end]);
            keys.findings
                .error(begin + at..begin + at + word_end, message)
                .help("write pairs with blanks between: #JOB cpus=2 timeout=\"10m\"");
            return None;
        };
        let key_span = begin + at..begin + at + equals;
        let key = rest[..equals].to_owned();
        at += equals + 1;
        let length = value_length(&text[at..]);
        let value = value(&text[at..at + length], begin + at, keys)?;
        at += length;
        match key.split_once('.') {
            // `retries.count=2` is `retries={count=2}`.
            Some((outer, inner)) => {
                let dot = key_span.start + outer.len();
                let outer_key = Spanned {
                    value: outer.to_owned(),
                    span: key_span.start..dot,
                };
                let inner_key = Spanned {
                    value: inner.to_owned(),
                    span: dot + 1..key_span.end,
                };
                let span = inner_key.span.start..value.span.end;
                let kind = Kind::Table(vec![(inner_key, value)]);
                merge(
                    &mut pairs,
                    vec![(
                        outer_key,
                        Value {
                            span,
                            kind,
                            bare: None,
                        },
                    )],
                );
            }
            None if pairs.iter().any(|(known, _)| known.value == key) => {
                keys.findings
                    .error(key_span, format!("`{key}` stands twice on this line"));
            }
            None => pairs.push((
                Spanned {
                    value: key,
                    span: key_span,
                },
                value,
            )),
        }
    }
}

/// True where a value is in quotes or brackets, and so no word: `{name}.log` is one.
fn is_opened(text: &str) -> bool {
    let placeholder = text.trim_start_matches('{').split_once('}');
    let begins_with_placeholder = placeholder.is_some_and(|(key, _)| is_key(key));
    text.starts_with(['"', '\'', '[']) || (text.starts_with('{') && !begins_with_placeholder)
}

/// How long the value is that a text begins with: to the next blank outside quotes and brackets.
fn value_length(text: &str) -> usize {
    if !is_opened(text) {
        return text.find([' ', '\t']).unwrap_or(text.len());
    }
    let mut quote = None;
    let mut escaped = false;
    let mut depth = 0u32;
    for (at, letter) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if letter == '\\' => escaped = true,
            Some(end) if letter == end => quote = None,
            Some(_) => {}
            None => match letter {
                '"' | '\'' => quote = Some(letter),
                '[' | '{' => depth += 1,
                ']' | '}' => depth = depth.saturating_sub(1),
                ' ' | '\t' if depth == 0 => return at,
                _ => {}
            },
        }
    }
    text.len()
}

/// A TOML value, or else the word itself.
fn value(text: &str, start: usize, keys: &mut Keys<'_>) -> Option<Value> {
    let span: Span = start..start + text.len();
    match toml::value_of(text, start) {
        Ok(mut value) if !text.is_empty() => {
            if !is_opened(text) {
                value.bare = Some(text.to_owned());
            }
            value.span = span;
            Some(value)
        }
        Err(problem) if is_opened(text) => {
            keys.findings
                .error(span, format!("`{text}` is no TOML value: {problem}"))
                .help("close what is opened; a value with blanks stands in quotes");
            None
        }
        _ => Some(Value {
            span,
            kind: Kind::Text(text.to_owned()),
            bare: Some(text.to_owned()),
        }),
    }
}
