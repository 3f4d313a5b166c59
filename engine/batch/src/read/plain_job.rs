//! A `[[job]]` as its tree, straight from the parser's events, where it is written plainly: without dotted
//! keys, tables within its tables, dates and mistakes. A million of these take a third of the time that tables
//! of the parser's own do; whatever is not plain is left to those.

use std::borrow::Cow;

use toml_parser::decoder::{Encoding, ScalarKind};
use toml_parser::lexer::Token;
use toml_parser::parser::{EventReceiver, parse_document};
use toml_parser::{ErrorSink, ParseError, Raw, Source, Span as Place};

use super::toml::beyond_integers;
use super::tree::{Kind, Table, Value};
use crate::source::{Span, Spanned};

/// More keys than this in one table are looked up by whoever has an index of them.
const KEYS_MAX: usize = 64;
/// Arrays and inline tables within each other; the parser itself has a limit too.
const DEPTH_MAX: usize = 16;

/// Reads jobs one after the other.
#[derive(Default)]
pub(super) struct PlainJobs {
    /// Of one job; kept for the next.
    tokens: Vec<Token>,
}

impl PlainJobs {
    /// The header of a job and its keys, if it is plain; `start` is where `text` begins in its file.
    pub(super) fn read(&mut self, text: &str, start: usize) -> Option<(Span, Table)> {
        let source = Source::new(text);
        self.tokens.clear();
        self.tokens.extend(source.lex());
        let mut job = Job {
            source,
            start,
            is_plain: true,
            header: None,
            open: Vec::new(),
            key: None,
        };
        let mut has_errors = false;
        parse_document(&self.tokens, &mut job, &mut |_: ParseError| {
            has_errors = true
        });
        job.close_table();
        let is_plain = job.is_plain && !has_errors;
        match (is_plain, job.open.pop()?) {
            (
                true,
                Open {
                    span,
                    items: Items::Table(table),
                    ..
                },
            ) => Some((span, table)),
            _ => None,
        }
    }
}

/// What has been read of a job.
struct Job<'t> {
    source: Source<'t>,
    start: usize,
    is_plain: bool,
    /// How many keys have been read of the header that is being read.
    header: Option<usize>,
    /// What has begun and has not ended: the job, then perhaps a table of its own, then what stands within that.
    open: Vec<Open>,
    /// The key whose value comes next.
    key: Option<Spanned<String>>,
}

struct Open {
    span: Span,
    /// The key that it has in what it stands in.
    key: Option<Spanned<String>>,
    items: Items,
}

enum Items {
    Table(Table),
    Array(Vec<Value>),
}

impl<'t> Job<'t> {
    fn place(&self, place: Place) -> Span {
        self.start + place.start()..self.start + place.end()
    }

    fn raw(&self, place: Place, encoding: Option<Encoding>) -> Raw<'t> {
        let text = &self.source.input()[place.start()..place.end()];
        Raw::new_unchecked(text, encoding, place)
    }

    fn open(&mut self, place: Place, items: Items) -> bool {
        self.is_plain &= self.open.len() < DEPTH_MAX;
        self.open.push(Open {
            span: self.place(place),
            key: self.key.take(),
            items,
        });
        self.is_plain
    }

    fn close(&mut self, end: usize) {
        let Some(Open { span, key, items }) = self.open.pop() else {
            return self.is_plain = false;
        };
        let kind = match items {
            Items::Table(table) => Kind::Table(table),
            Items::Array(values) => Kind::Array(values),
        };
        self.put(key, span.start..end, kind);
    }

    fn put(&mut self, key: Option<Spanned<String>>, span: Span, kind: Kind) {
        // What is read on is only parsed.
        if !self.is_plain {
            return;
        }
        let bare = None;
        let value = Value { span, kind, bare };
        match (self.open.last_mut().map(|open| &mut open.items), key) {
            (Some(Items::Array(values)), None) => values.push(value),
            (Some(Items::Table(table)), Some(key)) => {
                let is_new = || table.iter().all(|(known, _)| known.value != key.value);
                self.is_plain = table.len() < KEYS_MAX && is_new();
                table.push((key, value));
            }
            _ => self.is_plain = false,
        }
    }

    /// The table whose header came last is over, if it was not the job itself.
    fn close_table(&mut self) {
        match &self.open[..] {
            [] | [_] => {}
            [_, table] => self.close(table.span.end),
            _ => self.is_plain = false,
        }
    }

    fn close_header(&mut self, place: Place, keys: usize) {
        let end = self.place(place).end;
        self.is_plain &= self.header.take() == Some(keys);
        if let Some(open) = self.open.last_mut() {
            open.span.end = end;
        }
    }
}

impl EventReceiver for Job<'_> {
    fn array_table_open(&mut self, place: Place, _: &mut dyn ErrorSink) {
        self.is_plain &= self.open.is_empty();
        self.header = Some(0);
        self.open(place, Items::Table(Table::new()));
    }

    fn array_table_close(&mut self, place: Place, _: &mut dyn ErrorSink) {
        self.close_header(place, 1);
    }

    fn std_table_open(&mut self, place: Place, _: &mut dyn ErrorSink) {
        self.close_table();
        self.header = Some(0);
        self.open(place, Items::Table(Table::new()));
    }

    fn std_table_close(&mut self, place: Place, _: &mut dyn ErrorSink) {
        self.close_header(place, 2);
    }

    fn inline_table_open(&mut self, place: Place, _: &mut dyn ErrorSink) -> bool {
        self.open(place, Items::Table(Table::new()))
    }

    fn inline_table_close(&mut self, place: Place, _: &mut dyn ErrorSink) {
        self.close(self.place(place).end);
    }

    fn array_open(&mut self, place: Place, _: &mut dyn ErrorSink) -> bool {
        self.open(place, Items::Array(Vec::new()))
    }

    fn array_close(&mut self, place: Place, _: &mut dyn ErrorSink) {
        self.close(self.place(place).end);
    }

    fn simple_key(&mut self, place: Place, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let mut key = Cow::Borrowed("");
        self.raw(place, encoding).decode_key(&mut key, error);
        let key = Spanned {
            value: key.into_owned(),
            span: self.place(place),
        };
        match (&mut self.header, self.open.last_mut()) {
            (None, _) => self.key = Some(key),
            (Some(keys), open) => {
                *keys += 1;
                // The first is `job`, and the second the table's in it.
                if let (2, Some(open)) = (*keys, open) {
                    open.key = Some(key);
                }
            }
        }
    }

    fn key_sep(&mut self, _: Place, _: &mut dyn ErrorSink) {
        self.is_plain &= self.header.is_some();
    }

    fn scalar(&mut self, place: Place, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let raw = self.raw(place, encoding);
        let mut text = Cow::Borrowed("");
        let kind = match raw.decode_scalar(&mut text, error) {
            ScalarKind::String => {
                // Line ends that a text would keep are taken off by who reads what is not plain.
                self.is_plain &= !raw.as_str().contains("\r\n");
                Kind::Text(text.into_owned())
            }
            ScalarKind::Boolean(value) => Kind::Bool(value),
            ScalarKind::Integer(radix) => match i64::from_str_radix(&text, radix.value()) {
                Ok(number) => Kind::Integer(number),
                Err(_) => beyond_integers(&text, raw.as_str()),
            },
            ScalarKind::Float => Kind::Number(text.into_owned()),
            ScalarKind::DateTime => return self.is_plain = false,
        };
        let key = self.key.take();
        self.put(key, self.place(place), kind);
    }

    fn comment(&mut self, place: Place, error: &mut dyn ErrorSink) {
        self.raw(place, None).decode_comment(error);
    }

    fn newline(&mut self, place: Place, error: &mut dyn ErrorSink) {
        self.raw(place, None).decode_newline(error);
    }

    fn error(&mut self, _: Place, _: &mut dyn ErrorSink) {
        self.is_plain = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_plain(keys: &str) -> bool {
        let text = format!("[[job]]\n{keys}\n");
        PlainJobs::default().read(&text, 0).is_some()
    }

    #[test]
    fn what_most_jobs_are_made_of_is_plain() {
        for keys in [
            "",
            "name = 'a' # first\nrun = \"\"\"\nb\n\"\"\"",
            "command = [\n'a',\n'b',\n]\ncpus = 0x1\nmemory = 1.5\n\"needs\" = []",
            "env = { A = 1, B = [{ C = true }] }",
            "run = 'a'\n[job.env]\nA = 1\n[job.retries]\ncount = 1",
        ] {
            assert!(is_plain(keys), "{keys}");
        }
    }

    #[test]
    fn what_needs_more_than_that_is_left_to_others() {
        let deep = format!("x = {}{}", "[".repeat(40), "]".repeat(40));
        let keys = (0..100).map(|key| format!("k{key} = 1\n"));
        let many: String = keys.collect();
        for keys in [
            "env.A = 1",
            "x = 1\nx = 2",
            "env = { A = 1, A = 2 }",
            "env = {}\n[job.env]",
            "[job.env]\n[job.env]",
            "[job.env.deep]",
            "[[job.needs]]\njob = 'a'",
            "[other.env]\n[[job]]",
            "x = 1979-05-27",
            "x = '''a\r\nb'''",
            "x = \"\\q\"",
            "x = ",
            "x = [",
            "# \u{1}",
            &deep,
            &many,
        ] {
            assert!(!is_plain(keys), "{keys}");
        }
    }

    #[test]
    fn places_are_those_of_the_file() {
        let text = "[[ job ]]\nrun = 'a'\n[job.env]\nA = [1]\n";
        let (header, table) = PlainJobs::default().read(text, 100).expect("it is plain");
        let written = |span: &Span| &text[span.start - 100..span.end - 100];
        assert_eq!(written(&header), "[[ job ]]");
        let places: Vec<_> = table
            .iter()
            .map(|(key, value)| (written(&key.span), written(&value.span)))
            .collect();
        assert_eq!(places, [("run", "'a'"), ("env", "[job.env]")]);
    }
}
