//! The text of a job file, and where in it something stands.

use std::ffi::OsString;
use std::path::PathBuf;

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
