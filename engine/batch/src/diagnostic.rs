//! What is wrong with a job file, as data: rendering it is the command's business.

use crate::source::{SourceId, Span};

/// Whether a finding stops the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing runs.
    Error,
    /// `reiver check` shows it, and the file runs all the same.
    Warning,
}

/// One finding about one place in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops the run.
    pub severity: Severity,
    /// The file it is in.
    pub source: SourceId,
    /// The offending bytes, to be underlined. Empty only where something is missing at that point.
    pub span: Span,
    /// What is wrong: a lower-case fragment that names the thing and the value.
    pub message: String,
    /// A few words to stand at the underline, where the message alone does not point.
    pub label: Option<String>,
    /// What to do about it: the nearest right spelling, the allowed values, the other way.
    pub help: Option<String>,
    /// Other places that belong to it (the first of two jobs with one name, say).
    pub related: Vec<Related>,
}

/// A second place that a [`Diagnostic`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// The file it is in.
    pub source: SourceId,
    /// The bytes to be underlined.
    pub span: Span,
    /// What is there.
    pub label: String,
}
