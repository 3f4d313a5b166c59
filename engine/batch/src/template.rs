//! Texts with placeholders: parsed once, rendered for each job and attempt.
//!
//! `{key}` is a placeholder where the key is known; any other `{word}` stands as it is, and so does
//! a `{` or `{{` right after `$`, which is the shell's. `{{key}}` writes a known one literally. A
//! value is put in as it is, but for a line for the shell, where it is quoted for its place (see
//! [`shell`](crate::shell)). What the keys are and what they stand for is the caller's business.

use std::borrow::Cow;
use std::ops::Range;

use crate::shell::{self, Quoting, Unclear};

/// A text whose placeholders are known by keys `K`.
#[derive(Debug, Clone)]
pub(crate) struct Template<K> {
    pieces: Pieces<K>,
}

/// Most texts have no placeholder, and a plan may hold millions: in two boxes, the others make those no larger.
#[derive(Debug, Clone)]
enum Pieces<K> {
    Plain(Box<str>),
    Several(Box<Box<[Piece<K>]>>),
}

#[derive(Debug, Clone)]
enum Piece<K> {
    Text(Box<str>),
    Value { key: K, quoting: Quoting },
}

/// A placeholder, where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placeholder<'t, K> {
    /// What its word means.
    pub(crate) key: K,
    /// The word between its braces.
    pub(crate) word: &'t str,
    /// Its bytes in the text, braces included.
    pub(crate) range: Range<usize>,
    /// Why no value can be put in here, where the text is a line for the shell.
    pub(crate) unclear: Option<Unclear>,
}

/// What was found in a text besides the template itself.
#[derive(Debug)]
pub(crate) struct Found<'t, K> {
    /// The placeholders, in order.
    pub(crate) placeholders: Vec<Placeholder<'t, K>>,
    /// Words in braces that are no known key, with their bytes in the text.
    pub(crate) unknown: Vec<(&'t str, Range<usize>)>,
}

impl<K> Pieces<K> {
    fn of(mut pieces: Vec<Piece<K>>) -> Self {
        match (pieces.pop(), pieces.is_empty()) {
            (None, _) => Self::Plain(Box::default()),
            (Some(Piece::Text(text)), true) => Self::Plain(text),
            (Some(last), _) => {
                pieces.push(last);
                Self::Several(Box::new(pieces.into()))
            }
        }
    }
}

impl<K: Copy> Template<K> {
    /// Parses a text whose values are put in as they are.
    pub(crate) fn parse<'t>(
        text: &'t str,
        key_of: impl Fn(&str) -> Option<K>,
    ) -> (Self, Found<'t, K>) {
        let (pieces, found) = split(text, key_of);
        (
            Self {
                pieces: Pieces::of(pieces),
            },
            found,
        )
    }

    /// Parses a line for `/bin/sh -c`, where each value arrives as it is.
    pub(crate) fn parse_line<'t>(
        text: &'t str,
        key_of: impl Fn(&str) -> Option<K>,
    ) -> (Self, Found<'t, K>) {
        let (mut pieces, mut found) = split(text, key_of);
        if !found.placeholders.is_empty() {
            let marked: Vec<&[u8]> = pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text.as_bytes(),
                    Piece::Value { .. } => &[shell::MARK],
                })
                .collect();
            let clear = shell::quoting_at_marks(&marked.concat()).into_iter();
            let clear = clear.chain(std::iter::repeat(Err(Unclear::Lost)));
            let values = pieces.iter_mut().filter_map(|piece| match piece {
                Piece::Value { quoting, .. } => Some(quoting),
                Piece::Text(_) => None,
            });
            for ((quoting, placeholder), clear) in values.zip(&mut found.placeholders).zip(clear) {
                match clear {
                    Ok(clear) => *quoting = clear,
                    Err(unclear) => placeholder.unclear = Some(unclear),
                }
            }
        }
        (
            Self {
                pieces: Pieces::of(pieces),
            },
            found,
        )
    }

    /// The text with its values.
    pub(crate) fn render<'v>(&self, value_of: impl Fn(K) -> Cow<'v, str>) -> String {
        let pieces = match &self.pieces {
            Pieces::Plain(text) => return text.clone().into_string(),
            Pieces::Several(pieces) => pieces,
        };
        let mut text = String::new();
        for piece in &**pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Value { key, quoting } => quoting.write(&value_of(*key), &mut text),
            }
        }
        text
    }

    /// True if every job has the same text.
    pub(crate) fn is_constant(&self) -> bool {
        self.constant().is_some()
    }

    /// The text that every job has, if they have the same.
    pub(crate) fn constant(&self) -> Option<&str> {
        match &self.pieces {
            Pieces::Plain(text) => Some(text),
            Pieces::Several(_) => None,
        }
    }

    /// True if some values could make it empty.
    pub(crate) fn may_be_empty(&self) -> bool {
        match &self.pieces {
            Pieces::Plain(text) => text.is_empty(),
            Pieces::Several(pieces) => {
                let mut pieces = pieces.iter();
                pieces.all(|piece| matches!(piece, Piece::Value { .. }))
            }
        }
    }
}

/// Takes a text apart at its placeholders.
fn split<'t, K: Copy>(
    text: &'t str,
    key_of: impl Fn(&str) -> Option<K>,
) -> (Vec<Piece<K>>, Found<'t, K>) {
    let mut found = Found {
        placeholders: Vec::new(),
        unknown: Vec::new(),
    };
    let mut pieces = Vec::new();
    if is_plain(text) {
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        return (pieces, found);
    }
    let mut plain = String::new();
    let mut at = 0;
    while let Some(ahead) = text[at..].find('{') {
        plain.push_str(&text[at..at + ahead]);
        at += ahead;
        let rest = &text[at..];
        let braces = if rest.starts_with("{{") { 2 } else { 1 };
        if text[..at].ends_with('$') {
            plain.push_str(&rest[..braces]);
            at += braces;
            continue;
        }
        if let Some(word) = word_in(rest, "{{", "}}")
            && key_of(word).is_some()
        {
            plain.extend(["{", word, "}"]);
            at += word.len() + 4;
            continue;
        }
        let Some(word) = word_in(rest, "{", "}") else {
            plain.push('{');
            at += 1;
            continue;
        };
        let range = at..at + word.len() + 2;
        at = range.end;
        match key_of(word) {
            Some(key) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
                }
                pieces.push(Piece::Value {
                    key,
                    quoting: Quoting::AsIs,
                });
                found.placeholders.push(Placeholder {
                    key,
                    word,
                    range,
                    unclear: None,
                });
            }
            None => {
                plain.push_str(&text[range.clone()]);
                found.unknown.push((word, range));
            }
        }
    }
    plain.push_str(&text[at..]);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain.into()));
    }
    (pieces, found)
}

/// The word that `text` begins with, between these braces.
fn word_in<'t>(text: &'t str, open: &str, close: &str) -> Option<&'t str> {
    let inner = text.strip_prefix(open)?;
    let end = inner.find(|c: char| !is_key_char(c))?;
    (end > 0 && inner[end..].starts_with(close)).then(|| &inner[..end])
}

/// True of a text that stands for itself, whatever keys are known.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.contains('{')
}

/// True if a placeholder can name this key.
pub(crate) fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_key_char)
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let keys = ["x", "long-key_2"];
        let (template, _) = Template::parse(text, |word| keys.iter().position(|key| *key == word));
        template.render(|key| ["<{x}>", "LONG"][key].into())
    }

    #[test]
    fn a_known_key_is_replaced_once_and_any_other_word_stands() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{x}", "<{x}>"),
            ("a{x}{long-key_2}b", "a<{x}>LONGb"),
            ("awk '{print}' {x}", "awk '{print}' <{x}>"),
            ("{ x }{x {}{x", "{ x }{x {}{x"),
            ("{ {x} }", "{ <{x}> }"),
            ("ä{x}ö", "ä<{x}>ö"),
        ] {
            assert_eq!(rendered(text), expected, "{text}");
        }
    }

    #[test]
    fn double_braces_write_a_known_key_literally_and_others_stand() {
        for (text, expected) in [
            ("{{x}}", "{x}"),
            ("{{y}}", "{{y}}"),
            ("{{x}", "{<{x}>"),
            ("{x}}", "<{x}>}"),
            ("{{{x}}}", "{{x}}"),
        ] {
            assert_eq!(rendered(text), expected, "{text}");
        }
    }

    #[test]
    fn braces_right_after_a_dollar_are_the_shells() {
        for (text, expected) in [
            ("${x}", "${x}"),
            ("${{x}}", "${{x}}"),
            ("$ {x}", "$ <{x}>"),
            ("${y:-{x}}", "${y:-<{x}>}"),
            ("$x{x}", "$x<{x}>"),
        ] {
            assert_eq!(rendered(text), expected, "{text}");
        }
    }
}
