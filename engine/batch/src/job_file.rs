//! A job file as it was parsed: every key known, every value well formed and with its place.
//!
//! Nothing is merged, unfolded or looked up yet; that is [`plan`](crate::plan).

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use reiver::{Class, Priority};

use crate::source::{SourceId, Span, Spanned};

/// One parsed file.
#[derive(Debug, Clone)]
pub struct JobFile {
    /// The file it was parsed from.
    pub source: SourceId,
    /// `name`, checked against the letters that it may have.
    pub name: Option<Spanned<String>>,
    /// `max-fails`, as written (0 means 1).
    pub max_fails: Option<Spanned<u32>>,
    /// `[limits]`.
    pub limits: LimitKeys,
    /// `[pools]`: names with how many jobs each holds at once, 1 or more.
    pub pools: Vec<(Spanned<String>, Spanned<u32>)>,
    /// `[resources]`: names, of the letters that a variable's name may have, with how many there
    /// are, 1 or more.
    pub resources: Vec<(Spanned<String>, Spanned<u32>)>,
    /// `[defaults]` of a TOML file. Text jobs carry their own: see [`Entry::Line`].
    pub defaults: JobKeys,
    /// The jobs in file order.
    pub entries: Vec<Entry>,
    /// What reading has refused of `[limits]`, `[pools]` and `[resources]`.
    pub refused: Refused,
}

impl JobFile {
    /// A file that says nothing.
    pub fn empty(source: SourceId) -> JobFile {
        JobFile {
            source,
            name: None,
            max_fails: None,
            limits: LimitKeys::default(),
            pools: Vec::new(),
            resources: Vec::new(),
            defaults: JobKeys::default(),
            entries: Vec::new(),
            refused: Refused::default(),
        }
    }

    /// The file as a whole could not be read: it may hold any jobs and limits.
    pub(crate) fn nothing_was_read(&mut self) {
        self.entries.push(Entry::Unread);
        self.refused = Refused::All;
    }
}

/// What could not be read of the numbers that jobs share: no job is wrong for want of one of those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Those of these names.
    Some(Vec<String>),
    /// There may have been any.
    All,
}

impl Refused {
    /// True where this number is unknown.
    pub fn holds(&self, name: &str) -> bool {
        match self {
            Refused::Some(names) => names.iter().any(|refused| refused == name),
            Refused::All => true,
        }
    }
}

impl Default for Refused {
    fn default() -> Refused {
        Refused::Some(Vec::new())
    }
}

/// `[limits]`.
#[derive(Debug, Clone, Default)]
pub struct LimitKeys {
    /// Slots that jobs of class cpu share, 1 or more.
    pub cpus: Option<Spanned<u32>>,
    /// Slots that jobs of class io share, 1 or more.
    pub io: Option<Spanned<u32>>,
    /// Bytes that jobs which state memory share, 1 or more.
    pub memory: Option<Spanned<u64>>,
    /// The load of the last minute above which nothing is started, more than zero.
    pub load: Option<Spanned<f64>>,
}

/// One job as it stands in its file, before its matrix is unfolded.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A `[[job]]` table or a line of JSON.
    Table {
        /// Its place in its file, from 1: an unnamed one is `job-N`.
        place: u32,
        /// Its header (TOML) or its line (JSON), for what concerns the whole job.
        span: Span,
        /// Its keys.
        keys: Box<JobKeys>,
    },
    /// What was to be a job, or the name of one, and could not be read: a job that may be called anything.
    Unread,
    /// A line of a text file, for `/bin/sh -c` as it stands.
    Line {
        /// Its line in its file, from 1: it is called `line-N`.
        line: u32,
        /// Its bytes, without the line end.
        span: Span,
        /// The sum of the `#JOB` lines before it; lines between two of them share one.
        defaults: Arc<JobKeys>,
    },
}

/// The keys of a `[[job]]`, of `[defaults]` or of `#JOB` lines; those that were not given are
/// `None` or empty. `name`, `run`, `command`, `task`, `args`, `matrix` and `needs` never stand in
/// defaults.
///
/// A file may have millions: the [`OtherKeys`], which few of them state, take room only where some is set.
#[derive(Debug, Clone, Default)]
pub struct JobKeys {
    /// `name`, placeholders and all.
    pub name: Option<Spanned<String>>,
    /// `run`: a line for `/bin/sh -c`.
    pub run: Option<Spanned<String>>,
    /// `command`: a program and its arguments, at least the program.
    pub command: Option<Spanned<Vec<Spanned<String>>>>,
    /// `needs`.
    pub needs: Vec<Spanned<NeedKey>>,
    /// All others; `None` for none.
    pub others: Option<Box<OtherKeys>>,
}

impl Deref for JobKeys {
    type Target = OtherKeys;

    fn deref(&self) -> &OtherKeys {
        static NONE: LazyLock<OtherKeys> = LazyLock::new(OtherKeys::default);
        match &self.others {
            Some(others) => others,
            None => &NONE,
        }
    }
}

impl DerefMut for JobKeys {
    fn deref_mut(&mut self) -> &mut OtherKeys {
        self.others.get_or_insert_default()
    }
}

/// The keys of a job but those that most have.
#[derive(Debug, Clone, Default)]
pub struct OtherKeys {
    /// `task`: a function of the program, by its name in the [registry](crate::Registry).
    pub task: Option<Spanned<String>>,
    /// `args` of a task, a table.
    pub args: Option<Spanned<Arg>>,
    /// `matrix`.
    pub matrix: Option<Spanned<MatrixKeys>>,
    /// `class`.
    pub class: Option<Spanned<Class>>,
    /// `priority`.
    pub priority: Option<Spanned<Priority>>,
    /// `cpus`, 1 or more.
    pub cpus: Option<Spanned<u32>>,
    /// `timeout` of one attempt, more than zero.
    pub timeout: Option<Spanned<Duration>>,
    /// `kill-after`.
    pub kill_after: Option<Spanned<Duration>>,
    /// `retries`.
    pub retries: Option<Spanned<RetryKeys>>,
    /// `cwd`.
    pub cwd: Option<Spanned<String>>,
    /// `env`, in file order; numbers and booleans already as text.
    pub env: Vec<(Spanned<String>, Spanned<String>)>,
    /// `stdin`.
    pub stdin: Option<Spanned<String>>,
    /// `stdout`.
    pub stdout: Option<Spanned<String>>,
    /// `stderr`, where `stdout` joins the two.
    pub stderr: Option<Spanned<String>>,
    /// `success-codes`, each 0 to 255, at least one.
    pub success_codes: Option<Spanned<Vec<u8>>>,
    /// `memory` in bytes, 1 or more.
    pub memory: Option<Spanned<u64>>,
    /// `numa`.
    pub numa: Option<Spanned<NumaKeys>>,
    /// `pool`.
    pub pool: Option<Spanned<String>>,
    /// `resources`; 0 takes back what the defaults ask for.
    pub resources: Vec<(Spanned<String>, Spanned<u32>)>,
    /// `deadline` of the job with all its attempts, more than zero.
    pub deadline: Option<Spanned<Duration>>,
}

/// `numa`, each part as given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumaKeys {
    /// Whether the job is confined to nodes.
    pub affinity: Option<Affinity>,
    /// Where its memory comes from.
    pub policy: Option<MemoryPolicy>,
    /// The nodes that it is about, at least one.
    pub nodes: Option<Spanned<Vec<u32>>>,
}

/// Whether a job is confined to nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// It is not.
    #[default]
    None,
    /// To one that has room just now, else it is not.
    Prefer,
    /// To one, and it waits for that.
    Require,
}

/// Where the memory comes from that a job touches first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemoryPolicy {
    /// From these nodes alone.
    Bind,
    /// From these nodes while they have some.
    Preferred,
    /// From these nodes in turns.
    Interleave,
    /// From the node of the CPU that touches it.
    Local,
}

/// One entry of `needs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedKey {
    /// A name or a glob, with the place of its text.
    pub job: Spanned<String>,
    /// `when`; success where unset.
    pub when: When,
}

/// How a need must end for the job that has it to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    /// It succeeded.
    Success,
    /// It failed.
    Failure,
    /// It succeeded, failed or was skipped, but was not cancelled.
    Always,
}

/// `retries`, each part as given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryKeys {
    /// How often a failed job is tried again.
    pub count: Option<u32>,
    /// How the waits grow.
    pub backoff: Option<Backoff>,
    /// The wait before the second attempt.
    pub delay: Option<Duration>,
    /// The longest wait.
    pub max_delay: Option<Duration>,
    /// Whether a wait is a random part of itself.
    pub jitter: Option<bool>,
    /// True where reading has refused what was, or may have been, the count.
    pub is_count_refused: bool,
}

/// How the waits between attempts grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backoff {
    /// Every wait is `delay`.
    #[default]
    Fixed,
    /// Each wait is twice the one before.
    Exponential,
}

/// `matrix`: the axes in file order, the last of which runs fastest.
#[derive(Debug, Clone, Default)]
pub struct MatrixKeys {
    /// The axes with their values (text, numbers and booleans, already as text), none empty.
    pub axes: Vec<(Spanned<String>, Vec<Spanned<String>>)>,
    /// `include`.
    pub include: Vec<Spanned<Cell>>,
    /// `exclude`.
    pub exclude: Vec<Spanned<Cell>>,
    /// True where reading has refused some of it: what is here does not say which cells there are.
    pub has_mistakes: bool,
}

/// A value among a task's `args`; its texts are `T`.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg<T = String> {
    /// A text.
    Text(T),
    /// A whole number that 64 bits hold.
    Integer(i64),
    /// Any other number, as written.
    Number(String),
    /// A boolean.
    Bool(bool),
    /// JSON's `null`.
    Null,
    /// An array.
    List(Vec<Spanned<Arg<T>>>),
    /// A table, its keys in the order of the file.
    Table(Vec<(Spanned<String>, Spanned<Arg<T>>)>),
}

impl<T> Arg<T> {
    /// The same with other texts; `text` is told each with its place.
    pub(crate) fn map<U, F: FnMut(&T, &Span) -> U>(&self, span: &Span, text: &mut F) -> Arg<U> {
        let mut item = |item: &Spanned<Arg<T>>| Spanned {
            value: item.value.map(&item.span, text),
            span: item.span.clone(),
        };
        match self {
            Arg::List(list) => Arg::List(list.iter().map(item).collect()),
            Arg::Table(table) => {
                let entries = table.iter();
                Arg::Table(entries.map(|(key, it)| (key.clone(), item(it))).collect())
            }
            Arg::Text(value) => Arg::Text(text(value, span)),
            Arg::Integer(number) => Arg::Integer(*number),
            Arg::Number(number) => Arg::Number(number.clone()),
            Arg::Bool(value) => Arg::Bool(*value),
            Arg::Null => Arg::Null,
        }
    }
}

/// Keys with values: one entry of `include` or `exclude`.
pub type Cell = Vec<(Spanned<String>, Spanned<String>)>;
