//! A TOML file cut into its jobs and the rest, so that the trees of a million jobs are not there at once.
//!
//! A section begins with a table's header. That of a job is its `[[job]]` and the tables in it
//! (`[job.env]`); what stands between jobs, before them and after them is the rest. The cuts are the
//! tokens' of the parser that reads the sections, so that a `[[job]]` within a text or a comment is none.
//!
//! A header stands where no bracket is open. One that the file has left open ends at the next `[[job]]` that
//! begins a line: no array can hold that, for a bare `job` is no value.

use std::iter::Peekable;

use toml_parser::Source;
use toml_parser::lexer::{Lexer, Token, TokenKind};

use crate::source::Span;

/// What a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Job,
    Rest,
}

/// What a table's header says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    /// `[[job]]`.
    Job,
    /// `[job.env]`, `[[job.env]]`.
    OfJob,
    /// `[limits]`; and `[job]`, which belongs to no `[[job]]`.
    Other,
}

/// The sections of a file in their order; two that are rest never follow each other.
pub(super) fn sections(body: &str) -> Sections<'_> {
    Sections {
        body,
        tokens: Source::new(body).lex().peekable(),
        next: Some((Section::Rest, 0)),
    }
}

pub(super) struct Sections<'b> {
    body: &'b str,
    tokens: Peekable<Lexer<'b>>,
    /// What comes next, and where that begins.
    next: Option<(Section, usize)>,
}

impl Iterator for Sections<'_> {
    type Item = (Section, Span);

    fn next(&mut self) -> Option<(Section, Span)> {
        let (section, begin) = self.next.take()?;
        let mut end = self.body.len();
        while let Some((header, at)) = self.header() {
            let next = match (section, header) {
                (_, Header::Job) => Section::Job,
                (Section::Job, Header::Other) => Section::Rest,
                (Section::Job, Header::OfJob) | (Section::Rest, _) => continue,
            };
            end = at;
            self.next = Some((next, at));
            break;
        }
        Some((section, begin..end))
    }
}

impl Sections<'_> {
    /// The next header, and where it begins; what is taken of the tokens is its line up to the end.
    fn header(&mut self) -> Option<(Header, usize)> {
        let mut open_brackets = 0_usize;
        let mut is_first = true;
        while let Some(token) = self.tokens.next() {
            match token.kind() {
                TokenKind::Whitespace => continue,
                TokenKind::LeftSquareBracket if is_first => {
                    let (header, brackets) = self.header_after_bracket();
                    if open_brackets == 0 || header == Header::Job {
                        while self.take(|token| token != TokenKind::Newline).is_some() {}
                        return Some((header, token.span().start()));
                    }
                    open_brackets += brackets;
                }
                TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => open_brackets += 1,
                TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                    open_brackets = open_brackets.saturating_sub(1);
                }
                _ => {}
            }
            is_first = token.kind() == TokenKind::Newline;
        }
        None
    }

    /// What a header is whose first bracket was taken, if it is one, and how many brackets are taken then.
    fn header_after_bracket(&mut self) -> (Header, usize) {
        let body = self.body;
        let is_blank = |token| token == TokenKind::Whitespace;
        let is_array = self.take(|token| token == TokenKind::LeftSquareBracket);
        self.take(is_blank);
        let is_job = |token: &Token| &body[token.span().start()..token.span().end()] == "job";
        let header = match self.tokens.next_if(is_job) {
            None => Header::Other,
            Some(_) => {
                self.take(is_blank);
                match self.tokens.peek().map(Token::kind) {
                    Some(TokenKind::Dot) => Header::OfJob,
                    _ if is_array.is_some() => Header::Job,
                    _ => Header::Other,
                }
            }
        };
        (header, 1 + usize::from(is_array.is_some()))
    }

    fn take(&mut self, is_wanted: impl Fn(TokenKind) -> bool) -> Option<Token> {
        self.tokens.next_if(|token| is_wanted(token.kind()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(body: &str) -> Vec<(Section, &str)> {
        sections(body)
            .map(|(section, span)| (section, &body[span]))
            .collect()
    }

    #[test]
    fn a_job_goes_on_to_the_next_table_that_is_not_its_own() {
        use Section::{Job, Rest};
        let body = "a = 1\n[limits]\nio = 2\n[[job]]\nrun = 'x'\n[job.env]\nA = 1\n[[job.b]]\n\
                    [pools]\n\n[resources]\n  [[ job ]] # two\n";
        assert_eq!(
            cut(body),
            [
                (Rest, "a = 1\n[limits]\nio = 2\n"),
                (Job, "[[job]]\nrun = 'x'\n[job.env]\nA = 1\n[[job.b]]\n"),
                (Rest, "[pools]\n\n[resources]\n  "),
                (Job, "[[ job ]] # two\n"),
            ]
        );
    }

    #[test]
    fn what_only_looks_like_a_header_cuts_nothing() {
        let body = "[[job]]\nrun = '''\n[[job]]\n'''\nname = \"\"\"\n[limits]\\\"\"\"\"\"\n# a\n#[[job]]\n\
                    command = [\n[\"job\"],\n[limits],\n[[1]],\n]\nx = {\n}\n";
        assert_eq!(cut(body), [(Section::Rest, ""), (Section::Job, body)]);
    }

    #[test]
    fn a_bracket_that_is_left_open_ends_with_its_job() {
        let body =
            "[[job]]\ncommand = [\n[limits]\n[[job]]\nenv = {\n [[job]]\n[limits\n[job.env]\n";
        let cuts: Vec<usize> = sections(body).map(|(_, span)| span.start).collect();
        let expected = [
            "[[job]]\ncommand",
            "[[job]]\nenv",
            "[[job]]\n[limits\n",
            "[limits\n[job",
        ];
        let expected = expected.map(|begin| body.find(begin).expect("it is there"));
        assert_eq!(cuts[0], 0);
        assert_eq!(cuts[1..], expected);
    }
}
