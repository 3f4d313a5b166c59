//! What jobs of one `[[job]]` table, or of the lines under one `#JOB` state, have in common; and
//! the little that is each job's own.

use std::borrow::Cow;
use std::sync::Arc;

use super::Settings;
use super::matrix::Matrix;
use super::tasks::Call;
use crate::job_file::When;
use crate::source::SourceId;
use crate::template::Template;

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A matrix key, by its place in [`Matrix::keys`].
    Column(usize),
    /// A key of the command line, by its place there.
    Set(usize),
    /// The job's name.
    Name,
    /// The attempt's number.
    Attempt,
    /// The slots asked for.
    Cpus,
}

/// What jobs share. A plan may hold millions of these too: what many of them have in common is kept
/// once.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: TableName,
    /// Of no use to lines, which are their own.
    pub(super) action: Action,
    pub(super) common: Arc<Common>,
}

/// What tables that follow each other mostly have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) base: Arc<Base>,
    pub(super) around: Around,
}

/// What even those mostly have in common that each have something else around them.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) source: SourceId,
    pub(super) settings: Arc<Settings>,
    pub(super) matrix: Matrix,
}

/// What few tables state of what their jobs have around them.
#[derive(Debug, Default)]
pub(super) struct Around {
    pub(super) env: Box<[(Box<str>, Template<Key>)]>,
    /// As they are written; what they come to has the plan.
    pub(super) needs: Box<[(Template<Key>, When)]>,
    /// `None` for none: a plan may hold millions with an `env` or needs of their own.
    files: Option<Box<Files>>,
}

/// The folder and the files that a table states.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) cwd: Option<Template<Key>>,
    pub(super) stdin: Option<Template<Key>>,
    pub(super) stdout: Option<Template<Key>>,
    pub(super) stderr: Option<Join>,
}

impl Around {
    pub(super) fn new(
        env: Box<[(Box<str>, Template<Key>)]>,
        needs: Box<[(Template<Key>, When)]>,
        files: Files,
    ) -> Self {
        let files = (!files.is_empty()).then(|| Box::new(files));
        Self { env, needs, files }
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self { env, needs, files } = self;
        env.is_empty() && needs.is_empty() && files.is_none()
    }

    pub(super) fn files(&self) -> &Files {
        static NONE: Files = Files {
            cwd: None,
            stdin: None,
            stdout: None,
            stderr: None,
        };
        self.files.as_deref().unwrap_or(&NONE)
    }
}

impl Files {
    fn is_empty(&self) -> bool {
        let Self {
            cwd,
            stdin,
            stdout,
            stderr,
        } = self;
        let files = [cwd, stdin, stdout];
        stderr.is_none() && files.into_iter().all(Option::is_none)
    }
}

/// How a table's jobs are called.
#[derive(Debug)]
pub(super) enum TableName {
    /// By its `name`.
    Given(Template<Key>),
    /// By its place in the file.
    Place(u32),
}

/// What a table's jobs execute.
#[derive(Debug)]
pub(super) enum Action {
    Shell(Template<Key>),
    /// An argv that is the same for all jobs, with a NUL between its words: no word has one.
    Words(Box<str>),
    Argv(Box<[Template<Key>]>),
    Task(Box<Call>),
}

impl Action {
    /// The words of an argv; of another action none.
    pub(super) fn words<'v>(
        &self,
        value_of: impl Fn(Key) -> Cow<'v, str> + Copy,
    ) -> impl Iterator<Item = String> {
        let (plain, templates) = match self {
            Self::Words(words) => (Some(words), &[][..]),
            Self::Argv(words) => (None, &**words),
            Self::Shell(_) | Self::Task(_) => (None, &[][..]),
        };
        let plain = plain.into_iter().flat_map(|words| words.split('\0'));
        let rendered = templates.iter().map(move |word| word.render(value_of));
        plain.map(str::to_owned).chain(rendered)
    }
}

/// Where standard error goes, where it is not captured.
#[derive(Debug)]
pub(super) enum Join {
    Stdout,
    File(Template<Key>),
}

/// What is a job's own. A plan may hold millions.
#[derive(Debug)]
pub(super) enum Job {
    Cell {
        table: u32,
        cell: u32,
        needs: u32,
    },
    Line {
        begin: Offset,
        table: u32,
        line: u32,
    },
}

const _: () = assert!(size_of::<Job>() == 16 && size_of::<Table>() == 56);
const _: () = assert!(size_of::<Common>() == 48 && size_of::<Template<Key>>() == 16);

/// Where a line begins in its source; no file has as many bytes as 48 bits count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offset([u8; 6]);

impl Offset {
    pub(super) fn of(byte: usize) -> Self {
        let [low @ .., 0, 0] = (byte as u64).to_le_bytes() else {
            unreachable!("no file is larger than 2^48 bytes");
        };
        Self(low)
    }

    pub(super) fn get(self) -> usize {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&self.0);
        usize::try_from(u64::from_le_bytes(bytes)).expect("it was one")
    }
}

impl Table {
    pub(super) fn value(&self, cell: u32, column: usize) -> Cow<'_, str> {
        match self.common.base.matrix.value(cell, column) {
            Some(value) => value.into(),
            // Reported, so no plan comes of it; the name is still wanted until all is checked.
            None => self
                .common
                .base
                .matrix
                .keys()
                .nth(column)
                .unwrap_or_default()
                .into(),
        }
    }
}

impl Job {
    pub(super) fn table(&self) -> u32 {
        match self {
            Self::Cell { table, .. } | Self::Line { table, .. } => *table,
        }
    }

    /// Its place in the plan's lists of needs.
    pub(super) fn needs(&self) -> u32 {
        match self {
            Self::Cell { needs, .. } => *needs,
            Self::Line { .. } => 0,
        }
    }
}
