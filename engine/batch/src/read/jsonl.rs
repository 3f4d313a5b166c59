//! JSON Lines to trees, one object a line.

use std::collections::HashSet;

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::Findings;
use super::keys::Keys;
use super::tree::{Kind, Table, Value};
use crate::job_file::Entry;
use crate::source::{Span, Spanned};

/// Keys of an object that are found without an index.
const FEW: usize = 32;

/// JSON as RFC 8259 has it, and nothing that the parser would let pass besides.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

pub(super) fn read(
    body: &str,
    start: usize,
    take: &mut impl FnMut(Entry),
    findings: &mut Findings,
) {
    let mut keys = Keys { findings };
    let mut at = start;
    let mut place = 0;
    for line in body.split_inclusive('\n') {
        let (line_start, text) = (at, line.trim_end_matches(['\n', '\r']));
        at += line.len();
        if text.trim().is_empty() {
            continue;
        }
        place += 1;
        let Some(value) = parse(text, line_start, &mut keys) else {
            take(Entry::Unread);
            continue;
        };
        let Kind::Table(table) = &value.kind else {
            let message = format!("the line holds {}, not an object", value.noun());
            keys.findings
                .error(value.span, message)
                .help("write one job a line: {\"run\": \"...\"}");
            take(Entry::Unread);
            continue;
        };
        let keys = Box::new(keys.job(table, &value.span, take));
        take(Entry::Table {
            place,
            span: value.span.clone(),
            keys,
        });
    }
}

fn parse(text: &str, start: usize, keys: &mut Keys<'_>) -> Option<Value> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT);
    match parsed {
        Ok(parsed) => parsed.value.map(|parsed| value(&parsed, start, keys)),
        Err(error) => {
            let span = error.range();
            let end = span.end.max(span.start).min(text.len());
            let message = error.kind().to_string();
            let mut message = message.chars();
            let message: String = message
                .next()
                .into_iter()
                .flat_map(char::to_lowercase)
                .chain(message)
                .collect();
            keys.findings
                .error(shifted(span.start.min(end)..end, start), message)
                .help("a line is one JSON object, whole");
            None
        }
    }
}

fn value(parsed: &ast::Value<'_>, start: usize, keys: &mut Keys<'_>) -> Value {
    let span = shifted(parsed.start()..parsed.end(), start);
    let kind = match parsed {
        ast::Value::StringLit(text) => Kind::Text(text.value.to_string()),
        ast::Value::NumberLit(number) => match number.value.parse() {
            Ok(number) => Kind::Integer(number),
            Err(_) => Kind::Number(number.value.to_owned()),
        },
        ast::Value::BooleanLit(value) => Kind::Bool(value.value),
        ast::Value::NullKeyword(_) => Kind::Other("null"),
        ast::Value::Array(array) => Kind::Array(
            array
                .elements
                .iter()
                .map(|item| value(item, start, keys))
                .collect(),
        ),
        ast::Value::Object(object) => {
            let mut table: Table = Vec::new();
            // Of few keys each is looked for among those before it.
            let mut known = HashSet::new();
            for property in &object.properties {
                let name = property.name.as_str().to_owned();
                let key_span = shifted(property.name.start()..property.name.end(), start);
                let is_new = match object.properties.len() {
                    ..=FEW => table.iter().all(|(key, _)| key.value != name),
                    _ => known.insert(name.clone()),
                };
                if !is_new {
                    keys.findings
                        .error(key_span, format!("duplicate key `{name}`"));
                    continue;
                }
                let item = value(&property.value, start, keys);
                table.push((
                    Spanned {
                        value: name,
                        span: key_span,
                    },
                    item,
                ));
            }
            Kind::Table(table)
        }
    };
    Value {
        span,
        kind,
        bare: None,
    }
}

pub(super) fn shifted(span: Span, by: usize) -> Span {
    span.start + by..span.end + by
}
