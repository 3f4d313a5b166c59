//! Which quotes a place in a shell line stands in.
//!
//! The line is read as the shell reads it, construct by construct, each by a function that returns
//! behind its end. Where the shells' readings part, or an end is missing, the lexer gives up, and
//! every place from there on is [`Unclear::Lost`].

use super::here::HereDocument;
use super::quoting::{Before, Quoting, Unclear};
use super::syntax::{Closed, Syntax};

/// Stands in a line for a value to come. UTF-8 has no such byte.
pub(crate) const MARK: u8 = 0xFF;

/// `$( )`, `${ }` and quotes in each other, deeper than anybody means; bounds the recursion.
const DEPTH_MAX: u32 = 100;

/// How to write a value at each [`MARK`] of a line for `/bin/sh -c`, or why none can be.
pub(crate) fn quoting_at_marks(line: &[u8]) -> Vec<Result<Quoting, Unclear>> {
    let mut lexer = Lexer::new(line);
    lexer.commands();
    lexer.lose();
    debug_assert_eq!(
        lexer.found.len(),
        line.iter().filter(|byte| **byte == MARK).count()
    );
    lexer.found
}

pub(super) struct Lexer<'a> {
    pub(super) line: &'a [u8],
    pub(super) at: usize,
    found: Vec<Result<Quoting, Unclear>>,
    /// Set inside a construct that takes no values, however deep.
    refused: Option<Unclear>,
    /// True once the shells' readings may differ, or an end was missing.
    pub(super) is_lost: bool,
    /// Here-documents of the current `$( )` whose bodies begin after the next newline.
    pub(super) here: Vec<HereDocument>,
    /// True inside a `$( )` on whose line a here-document waits for its body.
    pub(super) here_outside: bool,
    depth: u32,
}

/// A word that is being read.
#[derive(Default)]
struct Word {
    text: Vec<u8>,
    has_begun: bool,
    is_quoted: bool,
}

impl Word {
    fn push(&mut self, byte: u8) {
        self.has_begun = true;
        self.text.push(byte);
    }

    /// Notes that the word has a part that is not plain text.
    fn quote(&mut self) {
        self.has_begun = true;
        self.is_quoted = true;
    }

    fn end(&mut self, syntax: &mut Syntax) {
        let word = std::mem::take(self);
        if word.has_begun {
            syntax.word((!word.is_quoted).then_some(&word.text));
        }
    }
}

impl<'a> Lexer<'a> {
    pub(super) fn new(line: &'a [u8]) -> Self {
        Self {
            line,
            at: 0,
            found: Vec::new(),
            refused: None,
            is_lost: false,
            here: Vec::new(),
            here_outside: false,
            depth: 0,
        }
    }

    /// The next byte; a backslash with a newline is none, wherever it stands but in single quotes.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while self.line[self.at..].starts_with(b"\\\n") {
            self.at += 2;
        }
        self.peek_raw()
    }

    pub(super) fn next(&mut self) -> Option<u8> {
        self.peek()?;
        self.next_raw()
    }

    /// Takes the next byte if it is this one.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    pub(super) fn peek_raw(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    pub(super) fn next_raw(&mut self) -> Option<u8> {
        let byte = self.peek_raw()?;
        self.at += 1;
        Some(byte)
    }

    fn mark(&mut self, quoting: Quoting) {
        self.found.push(self.refused.map_or(Ok(quoting), Err));
    }

    pub(super) fn refuse(&mut self, unclear: Unclear) {
        self.found.push(Err(self.refused.unwrap_or(unclear)));
    }

    /// Refuses the values between a place and here; true if there are any.
    pub(super) fn refuse_since(&mut self, begin: usize, unclear: Unclear) -> bool {
        let marks = self.line[begin..self.at]
            .iter()
            .filter(|byte| **byte == MARK)
            .count();
        (0..marks).for_each(|_| self.refuse(unclear));
        marks > 0
    }

    /// Gives up on what is left; at the end of the line that is nothing.
    pub(super) fn lose(&mut self) {
        let left = self.line[self.at..]
            .iter()
            .filter(|byte| **byte == MARK)
            .count();
        self.found
            .extend(std::iter::repeat_n(Err(Unclear::Lost), left));
        self.at = self.line.len();
        self.is_lost = true;
    }

    /// Reads a construct that may hold others.
    fn nest(&mut self, read: impl FnOnce(&mut Self)) {
        if self.depth == DEPTH_MAX {
            return self.lose();
        }
        self.depth += 1;
        read(self);
        self.depth -= 1;
    }

    /// Reads a construct that takes no values.
    fn nest_refusing(&mut self, unclear: Unclear, read: impl FnOnce(&mut Self)) {
        let outer = self.refused;
        self.refused = outer.or(Some(unclear));
        self.nest(read);
        self.refused = outer;
    }

    /// Commands up to the `)` that nothing in them opened, or to the end.
    fn commands(&mut self) {
        let mut syntax = Syntax::new();
        let mut word = Word::default();
        while let Some(byte) = self.next() {
            match byte {
                b' ' | b'\t' => word.end(&mut syntax),
                b'\n' => {
                    word.end(&mut syntax);
                    syntax.newline();
                    self.here_documents();
                }
                b'#' if !word.has_begun => self.comment(),
                b'\\' => {
                    word.quote();
                    if self.next_raw() == Some(MARK) {
                        self.refuse(Unclear::Backslash);
                    }
                }
                b'\'' | b'"' | b'`' | b'$' => {
                    word.quote();
                    self.expansion(byte, false);
                }
                MARK => {
                    word.quote();
                    self.mark(Quoting::Bare);
                }
                b';' | b'&' | b'|' | b'<' | b'>' => {
                    word.end(&mut syntax);
                    self.operator(byte, &mut syntax);
                }
                b'(' => {
                    word.end(&mut syntax);
                    syntax.open();
                }
                b')' => {
                    word.end(&mut syntax);
                    match syntax.close() {
                        Closed::Inner => {}
                        Closed::Outer => return,
                        Closed::Mismatch => self.lose(),
                    }
                }
                _ => word.push(byte),
            }
        }
        self.is_lost = true;
    }

    /// A quoted part or an expansion whose first byte has been taken.
    pub(super) fn expansion(&mut self, first: u8, in_double: bool) {
        match first {
            b'\'' => self.single(),
            b'"' => self.nest(Self::double),
            b'`' => self.backquotes(),
            _ => self.dollar(in_double),
        }
    }

    fn operator(&mut self, first: u8, syntax: &mut Syntax) {
        match first {
            b';' if self.take(b';') => {
                self.take(b'&');
                syntax.end_of_clause();
            }
            b';' if self.take(b'&') => syntax.end_of_clause(),
            b';' => syntax.separator(),
            b'&' | b'|' => {
                // `|&` is bash's; for the quoting it makes no difference.
                self.take(b'&');
                self.take(b'|');
                syntax.separator();
            }
            b'<' if self.take(b'<') => {
                syntax.redirection();
                if !self.take(b'<') {
                    self.here_delimiter();
                    syntax.word(None);
                }
            }
            _ => {
                self.take(b'>');
                self.take(b'&');
                self.take(b'|');
                syntax.redirection();
            }
        }
    }

    /// Up to the newline, which ends the comment and is not of it.
    fn comment(&mut self) {
        while let Some(byte) = self.peek_raw()
            && byte != b'\n'
        {
            self.at += 1;
            if byte == MARK {
                self.mark(Quoting::Comment);
            }
        }
    }

    fn single(&mut self) {
        while let Some(byte) = self.next_raw() {
            match byte {
                b'\'' => return,
                MARK => self.mark(Quoting::Single),
                _ => {}
            }
        }
        self.is_lost = true;
    }

    fn double(&mut self) {
        while let Some(byte) = self.next() {
            match byte {
                b'"' => return,
                b'\\' => {
                    let escaped = self.next_raw();
                    if escaped == Some(MARK) {
                        self.mark(Quoting::Double(Before::Backslash));
                    }
                }
                b'`' | b'$' => self.expansion(byte, true),
                MARK => self.mark(Quoting::Double(Before::Plain)),
                _ => {}
            }
        }
        self.is_lost = true;
    }

    /// Up to the next backquote that has no backslash, whatever quotes stand between.
    fn backquotes(&mut self) {
        while let Some(byte) = self.next_raw() {
            match byte {
                b'`' => return,
                b'\\' if self.peek_raw() != Some(MARK) => {
                    self.next_raw();
                }
                MARK => self.refuse(Unclear::Backquotes),
                _ => {}
            }
        }
        self.lose();
    }

    fn dollar(&mut self, in_double: bool) {
        match self.peek() {
            Some(b'(') => {
                self.at += 1;
                if self.take(b'(') {
                    self.nest_refusing(Unclear::Arithmetic, Self::arithmetic);
                } else {
                    self.nest(Self::substitution);
                }
            }
            Some(b'{') => {
                self.at += 1;
                self.nest_refusing(Unclear::Parameter, |lexer| lexer.parameter(in_double));
            }
            Some(b'\'') if !in_double => {
                self.at += 1;
                self.dollar_quote();
            }
            Some(MARK) => {
                self.at += 1;
                self.refuse(Unclear::Dollar);
            }
            Some(b'@' | b'*' | b'#' | b'?' | b'$' | b'!' | b'-') => self.at += 1,
            Some(byte) if is_name_byte(byte) => {
                while self.peek().is_some_and(is_name_byte) {
                    self.at += 1;
                }
                if in_double && self.take(MARK) {
                    self.mark(Quoting::Double(Before::Parameter));
                }
            }
            _ => {}
        }
    }

    fn substitution(&mut self) {
        let outer = std::mem::take(&mut self.here);
        let outer_here_outside = self.here_outside;
        self.here_outside |= !outer.is_empty();
        self.commands();
        // Where a body begins that has had no newline yet is answered differently.
        if !self.here.is_empty() {
            self.lose();
        }
        self.here = outer;
        self.here_outside = outer_here_outside;
    }

    fn arithmetic(&mut self) {
        let mut depth = 0;
        // Whether `"` quotes in here is answered differently; it matters to parentheses only.
        let mut in_quotes = false;
        while let Some(byte) = self.next() {
            match byte {
                b'(' | b')' if in_quotes => return self.lose(),
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b')' if self.take(b')') => return,
                // `$((a) | b)` is arithmetic to some, a subshell in `$( )` to others.
                b')' | b'\'' => return self.lose(),
                b'"' => in_quotes = !in_quotes,
                b'\\' if self.peek_raw() != Some(MARK) => {
                    self.next_raw();
                }
                b'`' | b'$' => self.expansion(byte, true),
                MARK => self.refuse(Unclear::Arithmetic),
                _ => {}
            }
        }
        self.lose();
    }

    fn parameter(&mut self, in_double: bool) {
        // Between double quotes, what quotes do in `${ }` depends on the operator and the shell.
        let mut in_quotes = false;
        while let Some(byte) = self.next() {
            match byte {
                b'}' if in_quotes => return self.lose(),
                b'}' => return,
                b'\'' if in_double => return self.lose(),
                b'"' if in_double => in_quotes = !in_quotes,
                b'\\' if self.peek_raw() != Some(MARK) => {
                    self.next_raw();
                }
                b'\'' | b'"' | b'`' | b'$' => self.expansion(byte, in_double),
                MARK => self.refuse(Unclear::Parameter),
                _ => {}
            }
        }
        self.lose();
    }

    /// To some shells `$'` begins a string with escapes, to others it is `$` and single quotes:
    /// one can go on where both end.
    fn dollar_quote(&mut self) {
        let text = &self.line[self.at..];
        let end = text.iter().position(|byte| *byte == b'\'');
        let mut escaping = false;
        let end_with_escapes = text.iter().position(|byte| {
            let ends = *byte == b'\'' && !escaping;
            escaping = *byte == b'\\' && !escaping;
            ends
        });
        match end {
            Some(end) if Some(end) == end_with_escapes => {
                let begin = self.at;
                self.at += end + 1;
                self.refuse_since(begin, Unclear::DollarQuote);
            }
            _ => self.lose(),
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
