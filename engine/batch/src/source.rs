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

    /// Where the text begins: after a byte order mark.
    pub(crate) fn body_start(&self) -> usize {
        if self.text.starts_with(b"\xef\xbb\xbf") {
            3
        } else {
            0
        }
    }

    /// The line and column of a byte, both from 1; columns count characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..offset.min(self.text.len())];
        let line_start = before
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        let mark = if line_start == 0 {
            self.body_start().min(before.len())
        } else {
            line_start
        };
        let column = 1 + String::from_utf8_lossy(&before[mark..]).chars().count();
        (line, column)
    }
}
