//! The texts of a table made into templates, and what is wrong with them.

use std::borrow::Cow;

use super::findings::{Findings, place_of};
use super::matrix::Matrix;
use super::set::SetKeys;
use super::table::Key;
use crate::source::{Source, SourceId, Span, Spanned};
use crate::template::{Found, Template};

/// What a placeholder may say besides the matrix's keys, but in `name` and `needs`.
const OWN_KEYS: [(&str, Key); 3] = [
    ("name", Key::Name),
    ("attempt", Key::Attempt),
    ("cpus", Key::Cpus),
];

/// Makes the templates of one table, and reports what is wrong with its texts.
pub(super) struct Texts<'t> {
    pub(super) id: SourceId,
    pub(super) source: &'t Source,
    pub(super) matrix: &'t Matrix,
    pub(super) set: &'t mut SetKeys,
    pub(super) findings: &'t mut Findings,
    /// False once a text had no meaning for some cell.
    pub(super) is_sound: bool,
}

impl Texts<'_> {
    fn key_of(&self, word: &str) -> Option<Key> {
        let own = OWN_KEYS.iter().find(|(key, _)| *key == word);
        own.map(|(_, key)| *key).or_else(|| self.column_of(word))
    }

    /// A key of the matrix, which wins, or of the command line.
    fn column_of(&self, word: &str) -> Option<Key> {
        let column = self.matrix.column(word).map(Key::Column);
        column.or_else(|| self.set.find(word).map(Key::Set))
    }

    /// A text in which values are put as they are.
    pub(super) fn text(&mut self, text: &Spanned<String>) -> Template<Key> {
        let (template, found) = Template::parse(&text.value, |word| self.key_of(word));
        self.report(text, &found, &OWN_KEYS);
        template
    }

    /// A line for the shell.
    pub(super) fn line(&mut self, text: &Spanned<String>) -> Template<Key> {
        let (template, found) = Template::parse_line(&text.value, |word| self.key_of(word));
        self.report(text, &found, &OWN_KEYS);
        template
    }

    /// A text with values, that must not be empty.
    pub(super) fn filled(&mut self, text: &Spanned<String>, what: &str) -> Template<Key> {
        let template = self.text(text);
        self.refuse_empty(&template, text, what);
        template
    }

    /// A text that knows keys of the matrix and of the command line only, and must not be empty.
    pub(super) fn of_columns(&mut self, text: &Spanned<String>, what: &str) -> Template<Key> {
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
            Key::Set(place) => self.set.value(place).into(),
            Key::Name | Key::Attempt | Key::Cpus => "given".into(),
        };
        let cells = 0..self.matrix.cells();
        let empty = |cell: &u32| template.render(|key| value_of(*cell, key)).is_empty();
        if let Some(cell) = cells.into_iter().find(empty) {
            let place = place_of(self.id, text);
            let error = match self.matrix.keys().next() {
                Some(_) => {
                    let cell = self.matrix.describe(cell);
                    place.error(format!("{what} is empty in the cell {cell}"))
                }
                None => place.error(format!("{what} is empty, by what `--set` gives")),
            };
            self.findings.push(error);
            self.is_sound = false;
        }
    }

    /// Reports what was found in a text; `own_keys` are those it knows besides the matrix's.
    fn report(&mut self, text: &Spanned<String>, found: &Found<'_, Key>, own_keys: &[(&str, Key)]) {
        let whole = place_of(self.id, text);
        let source = self.source;
        let place = |range: &Span| whole.part(source, &text.value, range.clone());
        for placeholder in &found.placeholders {
            let word = placeholder.word;
            if let Key::Set(place) = placeholder.key {
                self.set.use_key(place);
            }
            if let Key::Column(column) = placeholder.key
                && let Some(cell) = self.matrix.cell_without(column)
            {
                let cell = self.matrix.describe(cell);
                let mut error = place(&placeholder.range)
                    .error(format!("`{{{word}}}` has no value in the cell {cell}"));
                error.help = Some(format!(
                    "give the cell a `{word}` by `include`, or take the placeholder out"
                ));
                self.findings.push(error);
                self.is_sound = false;
            }
            if let Some(unclear) = placeholder.unclear {
                let mut error = place(&placeholder.range)
                    .error(format!("`{{{word}}}` cannot be quoted {unclear}"));
                error.help = Some(format!(
                    "hand it over by `env = {{ VALUE = \"{{{word}}}\" }}`, and use \"$VALUE\" here"
                ));
                self.findings.push(error);
            }
        }
        for (word, range) in &found.unknown {
            let nearest = self
                .matrix
                .keys()
                .chain(self.set.keys())
                .chain(own_keys.iter().map(|(key, _)| *key))
                .find(|key| {
                    let has_common_letter = word.len().max(key.len()) > 1;
                    has_common_letter && strsim::osa_distance(word, key) == 1
                });
            if let Some(nearest) = nearest {
                let mut warning = place(range).warning(format!(
                    "`{{{word}}}` stands as it is, for `{word}` is no key of this job"
                ));
                warning.help = Some(format!("did you mean `{{{nearest}}}`?"));
                self.findings.push(warning);
            }
        }
    }
}
