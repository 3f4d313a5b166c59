//! Values of one kind each, whatever key they stand at: texts, counts, sizes, durations, words of a few. What is
//! of another kind, or out of its range, is said with what would be right.

use std::time::Duration;

use super::keys::{Keys, nearest};
use super::size::parse_size;
use super::tree::{Kind, Table, Value};
use crate::source::Spanned;

impl Keys<'_> {
    /// Says that a value is of the wrong kind.
    pub(super) fn refuse(&mut self, value: &Value, wanted: &str) {
        let message = format!("expected {wanted}, found {}", value.noun());
        self.findings.error(value.span.clone(), message);
    }

    pub(super) fn table<'v>(&mut self, value: &'v Value) -> Option<&'v Table> {
        match &value.kind {
            Kind::Table(table) => Some(table),
            _ => {
                self.refuse(value, "a table");
                None
            }
        }
    }

    pub(super) fn array<'v>(&mut self, value: &'v Value, what: &str) -> Option<&'v [Value]> {
        match &value.kind {
            Kind::Array(values) => Some(values),
            _ => {
                let message = format!("`{what}` is {}, not an array", value.noun());
                self.findings
                    .error(value.span.clone(), message)
                    .help("write it in brackets, with commas between: [\"a\", \"b\"]");
                None
            }
        }
    }

    pub(super) fn text(&mut self, value: &Value) -> Option<Spanned<String>> {
        let Some(text) = value.text() else {
            self.refuse(value, "a text");
            return None;
        };
        if text.contains('\0') {
            let message = "a text cannot hold a NUL character";
            self.findings
                .error(value.span.clone(), message)
                .help("take it out");
            return None;
        }
        Some(Spanned {
            value: text.to_owned(),
            span: value.span.clone(),
        })
    }

    pub(super) fn filled_text(
        &mut self,
        key: &Spanned<String>,
        value: &Value,
    ) -> Option<Spanned<String>> {
        let text = self.text(value)?;
        if text.value.is_empty() {
            let message = format!("`{}` is empty", key.value);
            self.findings
                .error(text.span, message)
                .help("fill it in, or leave the key out");
            return None;
        }
        Some(text)
    }

    /// Text, a number or a boolean, as text.
    pub(super) fn scalar(&mut self, value: &Value) -> Option<Spanned<String>> {
        let text = match &value.kind {
            Kind::Integer(number) => number.to_string(),
            Kind::Number(number) => number.clone(),
            Kind::Bool(value) => value.to_string(),
            Kind::Text(_) => return self.text(value),
            _ => {
                self.refuse(value, "a text, a number or a boolean");
                return None;
            }
        };
        let text = value.bare.clone().unwrap_or(text);
        Some(Spanned {
            value: text,
            span: value.span.clone(),
        })
    }

    pub(super) fn count(&mut self, value: &Value, least: u32) -> Option<Spanned<u32>> {
        let wanted = format!("a whole number, {least} or more");
        let Kind::Integer(number) = value.kind else {
            self.refuse(value, &wanted);
            return None;
        };
        match u32::try_from(number) {
            Ok(count) if count >= least => Some(Spanned {
                value: count,
                span: value.span.clone(),
            }),
            _ => {
                let message = format!("{number} is out of range: expected {wanted}");
                let finding = self.findings.error(value.span.clone(), message);
                if number > 0 {
                    finding.help(format!("at most {}", u32::MAX));
                }
                None
            }
        }
    }

    /// A number of bytes, or a text with a unit; 1 or more.
    pub(super) fn size(&mut self, value: &Value) -> Option<Spanned<u64>> {
        let (shown, bytes) = match &value.kind {
            Kind::Integer(number) => (number.to_string(), u64::try_from(*number).ok()),
            Kind::Text(text) => {
                let size = parse_size(text);
                (text.clone(), size.filter(|_| text.parse::<u64>().is_err()))
            }
            Kind::Number(number) => (number.clone(), None),
            _ => {
                self.refuse(value, "a size");
                return None;
            }
        };
        match bytes.filter(|&bytes| bytes > 0) {
            Some(bytes) => Some(Spanned {
                value: bytes,
                span: value.span.clone(),
            }),
            None => {
                let message = format!("`{shown}` is no size");
                self.findings.error(value.span.clone(), message).help(
                    "write a number of bytes, or a text with its unit: \"24GiB\", \"1.5 GB\", \
                     \"512MiB\"; the units are KiB MiB GiB TiB KB MB GB TB",
                );
                None
            }
        }
    }

    pub(super) fn above_zero(&mut self, value: &Value) -> Option<Spanned<f64>> {
        let text = match &value.kind {
            Kind::Integer(number) => number.to_string(),
            Kind::Number(number) => number.replace('_', ""),
            _ => {
                self.refuse(value, "a number above 0");
                return None;
            }
        };
        match text.parse::<f64>() {
            Ok(number) if number > 0.0 && number.is_finite() => Some(Spanned {
                value: number,
                span: value.span.clone(),
            }),
            _ => {
                let message = format!("{text} is out of range: expected a number above 0");
                self.findings.error(value.span.clone(), message);
                None
            }
        }
    }

    pub(super) fn duration(&mut self, value: &Value) -> Option<Spanned<Duration>> {
        let help = "write a number with its unit: \"90s\", \"700ms\", \"1h 30m\"";
        if let Kind::Integer(_) | Kind::Number(_) = value.kind {
            self.findings
                .error(value.span.clone(), "a duration needs its unit")
                .help(help);
            return None;
        }
        let text = self.text(value)?;
        match humantime::parse_duration(&text.value) {
            Ok(duration) if text.value.trim() != "0" => Some(Spanned {
                value: duration,
                span: text.span,
            }),
            Ok(_) => {
                self.findings
                    .error(text.span, "a duration needs its unit")
                    .help(help);
                None
            }
            Err(error) => {
                let message = format!("`{}` is no duration: {error}", text.value);
                self.findings.error(text.span, message).help(help);
                None
            }
        }
    }

    pub(super) fn word<T: Copy>(
        &mut self,
        value: &Value,
        words: &[(&str, T)],
    ) -> Option<Spanned<T>> {
        let names = || -> Vec<&str> { words.iter().map(|&(word, _)| word).collect() };
        if value.text().is_none() {
            self.refuse(value, &format!("one of {}", names().join(", ")));
            return None;
        }
        let text = self.text(value)?;
        if let Some(&(_, meaning)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(Spanned {
                value: meaning,
                span: text.span,
            });
        }
        let names = names();
        let help = nearest(&text.value, &names).map_or_else(
            || format!("it is one of {}", names.join(", ")),
            |near| format!("did you mean `{near}`? it is one of {}", names.join(", ")),
        );
        self.findings
            .error(text.span, format!("unknown value `{}`", text.value))
            .help(help);
        None
    }
}
