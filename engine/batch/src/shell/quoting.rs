//! How a value is written so that the shell reads exactly that value.

use std::borrow::Cow;
use std::fmt;

/// How a value is to be written at its place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quoting {
    /// As it is: the text is not for the shell.
    AsIs,
    /// Outside all quotes: as a quoted word, or part of one.
    Bare,
    /// Between single quotes.
    Single,
    /// Between double quotes.
    Double(Before),
    /// In a comment, which a newline would end.
    Comment,
}

/// What stands right before a value between double quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing that would take in the value's first character.
    Plain,
    /// `$name`, which would go on with the value's letters: the quotes are closed and opened again.
    Parameter,
    /// A backslash that stands for itself before `{`, and needs another one before the value.
    Backslash,
}

impl Quoting {
    /// Appends `value` to `text`.
    pub(crate) fn write(self, value: &str, text: &mut String) {
        match self {
            Self::AsIs => text.push_str(value),
            Self::Bare => {
                text.push('\'');
                Self::Single.write(value, text);
                text.push('\'');
            }
            Self::Single => text.push_str(&value.replace('\'', r"'\''")),
            Self::Double(before) => {
                text.push_str(match before {
                    Before::Plain => "",
                    Before::Parameter => "\"\"",
                    Before::Backslash => "\\",
                });
                for c in value.chars() {
                    if matches!(c, '\\' | '"' | '$' | '`') {
                        text.push('\\');
                    }
                    text.push(c);
                }
            }
            Self::Comment => text.push_str(&value.replace('\n', " ")),
        }
    }
}

/// Why no value can be put in at some place of a shell line: a fragment that says where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unclear {
    /// Between backquotes, which have an unquoting of their own.
    Backquotes,
    /// In `$(( ))`, where text is an expression.
    Arithmetic,
    /// In `${ }`, where the quotes' meaning depends on the operator.
    Parameter,
    /// In the body of a here-document, where there is no quoting.
    HereDocument,
    /// In the word that ends a here-document.
    HereDelimiter,
    /// In `$'…'`, which not every shell knows.
    DollarQuote,
    /// Right after an unquoted backslash.
    Backslash,
    /// Right after `$` and a line continuation.
    Dollar,
    /// After something that shells read differently, or whose end is missing.
    Lost,
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backquotes => "between backquotes",
            Self::Arithmetic => "inside `$(( ))`",
            Self::Parameter => "inside `${ }`",
            Self::HereDocument => "in the body of a here-document",
            Self::HereDelimiter => "in the delimiter of a here-document",
            Self::DollarQuote => "inside `$'...'`",
            Self::Backslash => "right after a backslash",
            Self::Dollar => "right after `$`",
            Self::Lost => "after shell syntax that shells read differently",
        })
    }
}

/// A word as one would type it into a shell: quoted only where it has to be.
pub fn quote(word: &str) -> Cow<'_, str> {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_-./,:+@%=".contains(c) || !c.is_ascii();
    if !word.is_empty() && word.chars().all(is_safe) {
        return Cow::Borrowed(word);
    }
    let mut text = String::new();
    Quoting::Bare.write(word, &mut text);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_only_where_it_has_to_be() {
        assert_eq!(quote("a/b-1.txt"), "a/b-1.txt");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("~"), "'~'");
    }
}
