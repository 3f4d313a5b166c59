//! What planning has to say, gathered.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Related, Severity};
use crate::source::{Source, SourceId, Span, Spanned};

/// A place in one of the files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) source: SourceId,
    pub(super) span: Span,
}

impl Place {
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        self.finding(Severity::Error, message.into())
    }

    pub(super) fn warning(&self, message: impl Into<String>) -> Diagnostic {
        self.finding(Severity::Warning, message.into())
    }

    fn finding(&self, severity: Severity, message: String) -> Diagnostic {
        Diagnostic {
            severity,
            source: self.source,
            span: self.span.clone(),
            message,
            label: None,
            help: None,
            related: Vec::new(),
        }
    }

    pub(super) fn related(&self, label: impl Into<String>) -> Related {
        Related {
            source: self.source,
            span: self.span.clone(),
            label: label.into(),
        }
    }

    /// The place of a part of a text whose place this is.
    ///
    /// Escapes shift what follows them, so the part is looked for by its own text; where that
    /// cannot tell, it is the place of the whole.
    pub(super) fn part(&self, source: &Source, text: &str, part: Range<usize>) -> Self {
        let wanted = &text[part.clone()];
        let written = &source.text[self.span.clone()];
        let found: Vec<usize> = written
            .windows(wanted.len().max(1))
            .enumerate()
            .filter(|(_, window)| *window == wanted.as_bytes())
            .map(|(at, _)| at)
            .collect();
        let earlier = text[..part.start].matches(wanted).count();
        let span = if found.len() == text.matches(wanted).count() && earlier < found.len() {
            let begin = self.span.start + found[earlier];
            begin..begin + wanted.len()
        } else {
            self.span.clone()
        };
        Self {
            source: self.source,
            span,
        }
    }
}

/// All findings so far, none of them twice: cells of one matrix share their mistakes.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Diagnostic>,
    seen: HashSet<(Place, String)>,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Diagnostic) {
        let place = Place {
            source: finding.source,
            span: finding.span.clone(),
        };
        if self.seen.insert((place, finding.message.clone())) {
            self.list.push(finding);
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.list
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }

    /// The findings in the order of the files.
    pub(super) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.list
            .sort_by_key(|finding| (finding.source, finding.span.start));
        self.list
    }
}

/// The place of a value of this file.
pub(super) fn place_of<T>(source: SourceId, spanned: &Spanned<T>) -> Place {
    Place {
        source,
        span: spanned.span.clone(),
    }
}

/// The file that an id stands for.
pub(super) fn source_of(sources: &[Arc<Source>], id: SourceId) -> &Arc<Source> {
    &sources[id.0 as usize]
}
