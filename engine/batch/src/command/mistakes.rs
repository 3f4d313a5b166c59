//! Shows what is wrong with a job file: the place, its line, what is underlined, what to do.

use std::borrow::Cow;
use std::fmt;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents,
    Severity as Level, SourceCode, SourceSpan, SpanContents,
};

use super::console::{Console, plain};
use crate::source::{Lines, Span};
use crate::{Diagnostic, Severity, Source};

/// Of a long line this many characters are shown on each side of what is wrong.
const AROUND: usize = 60;
/// Of what is wrong itself so many are underlined at most.
const MOST_UNDERLINED: usize = 120;

/// One finding, as text with a blank line after it.
pub(crate) fn show(finding: &Diagnostic, sources: &[Lines<'_>], console: &Console) -> String {
    let source = &sources[finding.source.0 as usize];
    let excerpt = Excerpt::new(source, &finding.span);
    let mut help: Vec<String> = finding.help.iter().map(|help| plain(help)).collect();
    for related in &finding.related {
        let other = &sources[related.source.0 as usize];
        help.push(format!(
            "{}: {}",
            place(other, related.span.start),
            plain(&related.label)
        ));
    }
    let report = Report {
        message: format!(
            "{}: {}",
            place(source, finding.span.start),
            short(&plain(&finding.message))
        ),
        label: finding.label.as_deref().map(plain),
        help: (!help.is_empty()).then(|| help.join("\n")),
        level: match finding.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
        },
        excerpt,
    };
    let theme = match (console.is_terminal, console.color) {
        (true, true) => GraphicalTheme::unicode(),
        (true, false) => GraphicalTheme::unicode_nocolor(),
        (false, true) => GraphicalTheme {
            styles: GraphicalTheme::unicode().styles,
            ..GraphicalTheme::none()
        },
        (false, false) => GraphicalTheme::none(),
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(if console.is_terminal { 100 } else { 10_000 })
        .with_links(false)
        .with_context_lines(0);
    let mut text = String::new();
    match handler.render_report(&mut text, &report) {
        Ok(()) => text,
        Err(_) => report.message + "\n",
    }
}

/// A message may hold what was written, whatever its length: its middle is left out then.
fn short(message: &str) -> Cow<'_, str> {
    let letters = message.chars().count();
    if letters <= 2 * MOST_UNDERLINED {
        return message.into();
    }
    let begin = message.chars().take(MOST_UNDERLINED);
    let end = message.chars().skip(letters - MOST_UNDERLINED);
    begin.chain(['…']).chain(end).collect()
}

/// `file:line:column`.
fn place(lines: &Lines<'_>, offset: usize) -> String {
    let (line, column) = lines.line_column(offset);
    format!("{}:{line}:{column}", name(lines.source()))
}

/// A file as it was given, fit to be shown.
pub(crate) fn name(source: &Source) -> String {
    plain(&source.given.to_string_lossy())
}

/// The line that a finding is on, fit to be shown: what is no text, and what would steer a
/// terminal, replaced; what is too long, cut.
#[derive(Debug)]
struct Excerpt {
    text: String,
    /// What is underlined, in bytes of `text`.
    marked: SourceSpan,
    name: String,
    /// Both from 0.
    line: usize,
    column: usize,
}

impl Excerpt {
    fn new(lines: &Lines<'_>, span: &Span) -> Excerpt {
        /// Bytes that hold as many characters as are shown, whatever they are.
        const WINDOW: usize = 4 * (MOST_UNDERLINED + AROUND);
        let text = &lines.source().text;
        let line = lines.line_around(span.start);
        let start = span.start.min(line.end);
        let end = span.end.clamp(start, line.end);
        let shown = |bytes: &[u8]| -> Vec<char> {
            let text = String::from_utf8_lossy(bytes);
            let text = text.trim_end_matches('\r').trim_start_matches('\u{feff}');
            text.chars()
                .map(|letter| if letter.is_control() { ' ' } else { letter })
                .collect()
        };
        let before = shown(&text[line.start.max(start.saturating_sub(WINDOW))..start]);
        let marked = shown(&text[start..end.min(start + WINDOW)]);
        let marked: Vec<char> = marked.into_iter().take(MOST_UNDERLINED).collect();
        let after = shown(&text[end..line.end.min(end + WINDOW)]);

        let mut excerpt = String::new();
        if before.len() > AROUND {
            excerpt.push('…');
        }
        excerpt.extend(&before[before.len().saturating_sub(AROUND)..]);
        let mark_start = excerpt.len();
        excerpt.extend(&marked);
        let mark_length = (excerpt.len() - mark_start).max(1);
        excerpt.extend(after.iter().take(AROUND));
        if after.len() > AROUND {
            excerpt.push('…');
        }
        // Something must stand at the end of a line for a mark to be there.
        excerpt.push(' ');
        let (line, column) = lines.line_column(start);
        Excerpt {
            text: excerpt,
            marked: (mark_start, mark_length).into(),
            name: name(lines.source()),
            line: line - 1,
            column: column - 1,
        }
    }
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        _: &SourceSpan,
        _: usize,
        _: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            self.text.as_bytes(),
            (0, self.text.len()).into(),
            self.line,
            self.column,
            1,
        )))
    }
}

#[derive(Debug)]
struct Report {
    message: String,
    label: Option<String>,
    help: Option<String>,
    level: Level,
    excerpt: Excerpt,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report {}

impl miette::Diagnostic for Report {
    fn severity(&self) -> Option<Level> {
        Some(self.level)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.excerpt)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_primary_with_span(self.label.clone(), self.excerpt.marked);
        Some(Box::new(std::iter::once(label)))
    }
}
