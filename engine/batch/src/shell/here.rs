//! Here-documents: their delimiters, and where their bodies end.

use super::lexer::Lexer;
use super::quoting::Unclear;

/// A here-document whose `<<` has been read.
pub(super) struct HereDocument {
    delimiter: Vec<u8>,
    is_quoted: bool,
    strips_tabs: bool,
}

impl Lexer<'_> {
    /// What follows `<<`.
    pub(super) fn here_delimiter(&mut self) {
        let begin = self.at;
        let here = self.read_delimiter();
        let has_values = self.refuse_since(begin, Unclear::HereDelimiter);
        match here {
            Some(here) if !has_values => self.here.push(here),
            _ => self.lose(),
        }
    }

    /// Reads a delimiter, unless it has what each shell has its own idea of there.
    fn read_delimiter(&mut self) -> Option<HereDocument> {
        let strips_tabs = self.take(b'-');
        while self.take(b' ') || self.take(b'\t') {}
        let mut delimiter = Vec::new();
        let mut is_quoted = false;
        while let Some(byte) = self.peek() {
            if matches!(
                byte,
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')'
            ) {
                break;
            }
            self.at += 1;
            is_quoted |= matches!(byte, b'\\' | b'\'' | b'"');
            match byte {
                b'\\' => delimiter.push(self.next_raw()?),
                b'\'' => loop {
                    match self.next_raw()? {
                        b'\'' => break,
                        byte => delimiter.push(byte),
                    }
                },
                b'"' => loop {
                    match self.next()? {
                        b'"' => break,
                        b'\\' | b'$' | b'`' => return None,
                        byte => delimiter.push(byte),
                    }
                },
                b'$' | b'`' => return None,
                _ => delimiter.push(byte),
            }
        }
        Some(HereDocument {
            delimiter,
            is_quoted,
            strips_tabs,
        })
    }

    /// The bodies that begin after the newline that was just taken.
    pub(super) fn here_documents(&mut self) {
        // Whether the bodies of the line around a `$( )` begin in it is answered differently.
        if self.here_outside {
            return self.lose();
        }
        for here in std::mem::take(&mut self.here) {
            let begin = self.at;
            let end = self.here_end(&here);
            self.refuse_since(begin, Unclear::HereDocument);
            match end {
                Some(end) if here.is_quoted || all_expansions_end(&self.line[begin..end]) => {}
                _ => return self.lose(),
            }
        }
    }

    /// Moves behind the line that ends a body, and says where that line begins.
    fn here_end(&mut self, here: &HereDocument) -> Option<usize> {
        let mut is_continued = false;
        while self.at < self.line.len() {
            let begin = self.at;
            let rest = &self.line[begin..];
            let length = rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len());
            self.at = (begin + length + 1).min(self.line.len());
            let mut text = &rest[..length];
            while here.strips_tabs
                && let Some(stripped) = text.strip_prefix(b"\t")
            {
                text = stripped;
            }
            let backslashes = text.iter().rev().take_while(|byte| **byte == b'\\').count();
            let continues = !here.is_quoted && backslashes % 2 == 1;
            if is_continued || continues {
                // Whether a continued line can end a body is answered differently.
                let ends_one = is_continued && here.delimiter.ends_with(text);
                let begins_one = continues && here.delimiter.starts_with(&text[..text.len() - 1]);
                if ends_one || begins_one {
                    return None;
                }
            } else if text == here.delimiter {
                return Some(begin);
            }
            is_continued = continues;
        }
        None
    }
}

/// True if no expansion in the body of a here-document goes on behind its end.
fn all_expansions_end(body: &[u8]) -> bool {
    let mut lexer = Lexer::new(body);
    while let Some(byte) = lexer.next() {
        match byte {
            b'\\' => {
                lexer.next_raw();
            }
            b'`' | b'$' => lexer.expansion(byte, true),
            _ => {}
        }
    }
    !lexer.is_lost
}
