//! Here-documents: their delimiters, and where their bodies end.

use super::lexer::{Lexer, MARK};
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
        let strips_tabs = self.take(b'-');
        while self.take(b' ') || self.take(b'\t') {}
        let mut here = HereDocument {
            delimiter: Vec::new(),
            is_quoted: false,
            strips_tabs,
        };
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => break,
                b'\\' => {
                    here.is_quoted = true;
                    self.at += 1;
                    here.delimiter.extend(self.next_raw());
                }
                b'\'' => {
                    here.is_quoted = true;
                    self.at += 1;
                    let begin = self.at;
                    let length = self.line[begin..].iter().position(|byte| *byte == b'\'');
                    let Some(length) = length else { break };
                    here.delimiter.extend(&self.line[begin..begin + length]);
                    self.at += length + 1;
                }
                // Nobody's delimiter has these, and each shell has its own idea of them.
                b'$' | b'`' => return self.lose(),
                b'"' => {
                    here.is_quoted = true;
                    self.at += 1;
                    while !self.take(b'"') {
                        match self.next_raw() {
                            None | Some(b'\\' | b'$' | b'`') => return self.lose(),
                            Some(byte) => here.delimiter.push(byte),
                        }
                    }
                }
                _ => {
                    self.at += 1;
                    here.delimiter.push(byte);
                }
            }
        }
        let marks = here.delimiter.iter().filter(|byte| **byte == MARK).count();
        if marks > 0 {
            for _ in 0..marks {
                self.refuse(Unclear::HereDelimiter);
            }
            return self.lose();
        }
        self.here.push(here);
    }

    /// The bodies that begin after the newline that was just taken.
    pub(super) fn here_documents(&mut self) {
        // Whether the bodies of the line around a `$( )` begin in it is answered differently.
        if self.here_outside {
            return self.lose();
        }
        for here in std::mem::take(&mut self.here) {
            let begin = self.at;
            let Some(end) = self.here_end(&here) else {
                return self.lose();
            };
            let body = &self.line[begin..end];
            for _ in body.iter().filter(|byte| **byte == MARK) {
                self.refuse(Unclear::HereDocument);
            }
            if !here.is_quoted && !all_expansions_end(body) {
                return self.lose();
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
