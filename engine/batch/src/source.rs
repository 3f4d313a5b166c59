//! The text of a job file, and where in it something stands.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// How a job file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// `[[job]]` tables; extension `.toml`.
    Toml,
    /// One JSON object a line; extension `.jsonl`.
    JsonLines,
    /// One command a line; any other extension, standard input and pipes.
    Text,
}

/// The place of a [`Source`] among the files of one run, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// One job file of a run, read whole.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file as the user named it; `-` is standard input.
    pub given: OsString,
    /// The folder its relative paths start from: that of the file, or, for standard input and
    /// pipes, the one reiver was started in. Absolute.
    pub folder: PathBuf,
    /// True for standard input and pipes, which cannot be read a second time.
    pub is_stream: bool,
    /// How the text is written.
    pub form: Form,
    /// The bytes as they were read, byte order mark and CRLF included: spans point into these.
    pub text: Vec<u8>,
}

/// A part of a source's text, in bytes.
pub type Span = std::ops::Range<usize>;

/// A value, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// What was read.
    pub value: T,
    /// The bytes it was read from.
    pub span: Span,
}

impl Source {
    /// Reads a file whole; `-` is standard input. `form` overrides what its name says.
    ///
    /// # Errors
    /// The system's.
    pub fn open(given: &OsStr, form: Option<Form>) -> io::Result<Source> {
        let mut text = Vec::new();
        let here = std::env::current_dir();
        if given == "-" {
            io::stdin().lock().read_to_end(&mut text)?;
            return Ok(Source {
                given: given.to_owned(),
                folder: here?,
                is_stream: true,
                form: form.unwrap_or(Form::Text),
                text,
            });
        }
        let mut file = File::open(given)?;
        let kind = file.metadata()?.file_type();
        let is_stream = kind.is_fifo() || kind.is_char_device() || kind.is_socket();
        file.read_to_end(&mut text)?;
        let folder = if is_stream {
            here?
        } else {
            let path = std::path::absolute(given)?;
            path.parent().unwrap_or(&path).to_owned()
        };
        let by_name = match Path::new(given).extension().and_then(OsStr::to_str) {
            Some("toml") if !is_stream => Form::Toml,
            Some("jsonl") if !is_stream => Form::JsonLines,
            _ => Form::Text,
        };
        let form = form.unwrap_or(by_name);
        Ok(Source {
            given: given.to_owned(),
            folder,
            is_stream,
            form,
            text,
        })
    }

    /// The bytes of the line that begins here, without its end.
    pub(crate) fn line_from(&self, begin: usize) -> Span {
        let rest = &self.text[begin..];
        let line = rest.split(|&byte| byte == b'\n').next().unwrap_or(rest);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        begin..begin + line.len()
    }

    /// Where the text begins: after a byte order mark.
    pub(crate) fn body_start(&self) -> usize {
        if self.text.starts_with(b"\xef\xbb\xbf") {
            3
        } else {
            0
        }
    }
}

/// The lines of a source, to say where in it something stands.
#[derive(Debug)]
pub struct Lines<'s> {
    source: &'s Source,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'s> Lines<'s> {
    /// Finds them; takes one look at every byte.
    pub fn of(source: &'s Source) -> Lines<'s> {
        let ends = (0..source.text.len()).filter(|&at| source.text[at] == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|end| end + 1)).collect();
        Lines { source, starts }
    }

    /// Whose lines they are.
    pub fn source(&self) -> &'s Source {
        self.source
    }

    /// The line and column of a byte, both from 1; columns count characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.source.text.len());
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = match line {
            1 => self.source.body_start().min(offset),
            _ => self.starts[line - 1],
        };
        let before = String::from_utf8_lossy(&self.source.text[start..offset]);
        (line, 1 + before.chars().count())
    }

    /// The bytes of the line that a byte is on, its end not among them.
    pub fn line_around(&self, offset: usize) -> Span {
        let offset = offset.min(self.source.text.len());
        let line = self.starts.partition_point(|&start| start <= offset);
        let end = self
            .starts
            .get(line)
            .map_or(self.source.text.len(), |next| next - 1);
        self.starts[line - 1]..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let source = Source {
            given: "x".into(),
            folder: PathBuf::new(),
            is_stream: false,
            form: Form::Text,
            text: b"\xef\xbb\xbfab\n\n\xc3\xa4\xffb\r\nend".to_vec(),
        };
        let lines = Lines::of(&source);
        let places = [
            (0, (1, 1)),
            (3, (1, 1)),
            (4, (1, 2)),
            (5, (1, 3)),
            (6, (2, 1)),
            (7, (3, 1)),
        ];
        for (offset, place) in places {
            assert_eq!(lines.line_column(offset), place, "{offset}");
        }
        assert_eq!(
            lines.line_column(10),
            (3, 3),
            "what is no UTF-8 is a character too"
        );
        assert_eq!(lines.line_column(99), (4, 4));
        assert_eq!(lines.line_around(6), 6..6);
        assert_eq!(lines.line_around(8), 7..12);
        assert_eq!(lines.line_around(99), 13..16);
    }
}
