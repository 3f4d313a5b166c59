//! What keys mean: a tree to keys with checked values. To add a key to the job file, add it here,
//! to [`JobKeys`], and to what [`plan`](crate::plan) makes of it.

use std::time::Duration;

use reiver::{Class, Priority};

use super::Findings;
use super::tree::{Kind, Table, Value};
use crate::job_file::{
    Affinity, Arg, Backoff, Cell, Entry, JobKeys, LimitKeys, MatrixKeys, MemoryPolicy, NeedKey,
    NumaKeys, RetryKeys, When,
};
use crate::source::{Span, Spanned};

const JOB_KEYS: [&str; 22] = [
    "name",
    "run",
    "command",
    "needs",
    "matrix",
    "class",
    "priority",
    "cpus",
    "timeout",
    "kill-after",
    "retries",
    "cwd",
    "env",
    "stdin",
    "stdout",
    "stderr",
    "success-codes",
    "memory",
    "numa",
    "pool",
    "resources",
    "deadline",
];

/// Keys of programs that have tasks of their own; nobody else is told of them.
const TASK_KEYS: [&str; 2] = [TASK, ARGS];
const TASK: &str = "task";
const ARGS: &str = "args";

/// Keys that make a job what it is, and so cannot be the same for all.
const NOT_IN_DEFAULTS: [&str; 7] = ["name", "run", "command", "task", "args", "matrix", "needs"];

/// What a job does; it has one of them.
const ACTIONS: [&str; 3] = ["run", "command", TASK];

/// What a process has, and a function of the program has not.
const NOT_FOR_TASKS: [&str; 8] = [
    "cwd",
    "env",
    "stdin",
    "stdout",
    "stderr",
    "kill-after",
    "success-codes",
    "numa",
];

/// Checks values, and notes what is wrong with them.
pub(super) struct Keys<'f> {
    pub(super) findings: &'f mut Findings,
}

impl Keys<'_> {
    /// A `[[job]]` or a line of JSON; `header` is where it stands.
    pub(super) fn job(
        &mut self,
        table: &Table,
        header: &Span,
        take: &mut impl FnMut(Entry),
    ) -> JobKeys {
        let keys = self.keys(table, "a job");
        if keys.name.is_none() && table.iter().any(|(key, _)| key.value == "name") {
            take(Entry::Unread);
        }
        let place = |name: &str| table.iter().find(|(key, _)| key.value == name);
        let given: Vec<&Spanned<String>> = ACTIONS
            .iter()
            .filter_map(|action| place(action))
            .map(|(key, _)| key)
            .collect();
        match given[..] {
            [] => self
                .findings
                .error(header.clone(), "the job has neither `run` nor `command`")
                .help("give it one: run = \"a line for the shell\" or command = [\"program\"]"),
            [_] => {}
            [first, second, ..] => {
                let later = given.iter().max_by_key(|key| key.span.start);
                let span = later.map_or(second, |later| later).span.clone();
                let (first, second) = (&first.value, &second.value);
                let message = format!("the job has both `{first}` and `{second}`");
                self.findings.error(span, message).help("keep one of them");
            }
        }
        self.check_task(table);
        keys
    }

    /// What only a task has stands beside one, and what a task has not does not.
    fn check_task(&mut self, table: &Table) {
        let is_task = table.iter().any(|(key, _)| key.value == TASK);
        for (key, _) in table {
            let name = key.value.as_str();
            if is_task && NOT_FOR_TASKS.contains(&name) {
                self.findings
                    .error(key.span.clone(), format!("a task has no `{name}`"))
                    .help("a task is a function of the program and no process; tell it by `args`");
            } else if !is_task && name == ARGS {
                self.findings
                    .error(
                        key.span.clone(),
                        "`args` are a task's, and the job has none",
                    )
                    .help("say which: task = \"name\"");
            }
        }
    }

    /// `[defaults]` or a `#JOB` line, as `place` says.
    pub(super) fn defaults(&mut self, table: &Table, place: &str) -> JobKeys {
        let (own, shared): (Table, Table) = table
            .iter()
            .cloned()
            .partition(|(key, _)| NOT_IN_DEFAULTS.contains(&key.value.as_str()));
        for (key, _) in own {
            self.findings
                .error(key.span, format!("`{}` cannot stand in {place}", key.value))
                .help("it is each job's own");
        }
        self.keys(&shared, place)
    }

    fn keys(&mut self, table: &Table, place: &str) -> JobKeys {
        let mut keys = JobKeys::default();
        for (key, value) in table {
            match key.value.as_str() {
                "name" => keys.name = self.filled_text(key, value),
                "run" => keys.run = self.filled_text(key, value),
                "command" => keys.command = self.command(value),
                TASK => keys.task = self.filled_text(key, value),
                ARGS => keys.args = self.args(value),
                "needs" => {
                    keys.needs = self.array(value, "needs").map_or_else(Vec::new, |needs| {
                        needs.iter().filter_map(|need| self.need(need)).collect()
                    })
                }
                "matrix" => keys.matrix = Some(self.matrix(value)),
                "class" => {
                    let classes = [
                        ("cpu", Class::Cpu),
                        ("io", Class::Io),
                        ("hybrid", Class::Hybrid),
                        ("auto", Class::Auto),
                    ];
                    keys.class = self.word(value, &classes);
                }
                "priority" => {
                    keys.priority = self.word(
                        value,
                        &[
                            ("P0", Priority::P0),
                            ("P1", Priority::P1),
                            ("P2", Priority::P2),
                        ],
                    )
                }
                "cpus" => keys.cpus = self.count(value, 1),
                "memory" => keys.memory = self.size(value),
                "numa" => keys.numa = self.numa(value),
                "pool" => keys.pool = self.filled_text(key, value),
                "resources" => keys.resources = self.resources(value, 0),
                "deadline" => keys.deadline = self.time_limit(key, value),
                "timeout" => keys.timeout = self.time_limit(key, value),
                "kill-after" => keys.kill_after = self.duration(value),
                "retries" => keys.retries = Some(self.retries(value)),
                "cwd" => keys.cwd = self.filled_text(key, value),
                "env" => keys.env = self.env(value),
                "stdin" => keys.stdin = self.filled_text(key, value),
                "stdout" => keys.stdout = self.filled_text(key, value),
                "stderr" => keys.stderr = self.filled_text(key, value),
                "success-codes" => keys.success_codes = self.success_codes(value),
                _ => {
                    let shared = place != "a job";
                    let acts = table
                        .iter()
                        .any(|(key, _)| ["run", "command"].contains(&key.value.as_str()));
                    // What has no command may be meant for a task.
                    let task_keys = match nearest(&key.value, &TASK_KEYS) {
                        Some(_) if !shared && !acts => &TASK_KEYS[..],
                        _ => &[],
                    };
                    let allowed: Vec<&str> = JOB_KEYS
                        .into_iter()
                        .chain(task_keys.iter().copied())
                        .filter(|key| !shared || !NOT_IN_DEFAULTS.contains(key))
                        .collect();
                    self.unknown(key, &allowed, &format!(" in {place}"));
                }
            }
        }
        keys
    }

    pub(super) fn limits(&mut self, value: &Value) -> LimitKeys {
        let mut limits = LimitKeys::default();
        for (key, value) in self.table(value).into_iter().flatten() {
            match key.value.as_str() {
                "cpus" => limits.cpus = self.count(value, 1),
                "io" => limits.io = self.count(value, 1),
                "memory" => limits.memory = self.size(value),
                "load" => limits.load = self.above_zero(value),
                _ => self.unknown(key, &["cpus", "io", "memory", "load"], " in [limits]"),
            }
        }
        limits
    }

    /// `[pools]` or `[resources]`, as `what` says: names with how many of each there are.
    pub(super) fn counts(
        &mut self,
        value: &Value,
        what: &str,
    ) -> Vec<(Spanned<String>, Spanned<u32>)> {
        if what == "resources" {
            return self.resources(value, 1);
        }
        let mut counts = Vec::new();
        for (key, value) in self.table(value).into_iter().flatten() {
            if key.value.is_empty() {
                self.findings
                    .error(key.span.clone(), "the name of a pool is empty");
                continue;
            }
            counts.extend(self.count(value, 1).map(|count| (key.clone(), count)));
        }
        counts
    }

    fn resources(&mut self, value: &Value, least: u32) -> Vec<(Spanned<String>, Spanned<u32>)> {
        let mut resources = Vec::new();
        for (key, value) in self.table(value).into_iter().flatten() {
            if !can_name_resource(&key.value) {
                let message = format!("`{}` cannot name a resource", key.value.escape_default());
                self.findings
                    .error(key.span.clone(), message)
                    .help("use letters, digits, `_` and `-`: jobs see it as REIVER_<NAME>");
                continue;
            }
            resources.extend(self.count(value, least).map(|count| (key.clone(), count)));
        }
        resources
    }

    fn numa(&mut self, value: &Value) -> Option<Spanned<NumaKeys>> {
        let Kind::Table(table) = &value.kind else {
            self.refuse(
                value,
                "a table: { affinity = \"require\", policy = \"bind\" }",
            );
            return None;
        };
        let mut numa = NumaKeys::default();
        for (key, value) in table {
            match key.value.as_str() {
                "affinity" => {
                    let words = [
                        ("none", Affinity::None),
                        ("prefer", Affinity::Prefer),
                        ("require", Affinity::Require),
                    ];
                    numa.affinity = self.word(value, &words).map(|word| word.value);
                }
                "policy" => {
                    let words = [
                        ("bind", MemoryPolicy::Bind),
                        ("preferred", MemoryPolicy::Preferred),
                        ("interleave", MemoryPolicy::Interleave),
                        ("local", MemoryPolicy::Local),
                    ];
                    numa.policy = self.word(value, &words).map(|word| word.value);
                }
                "nodes" => numa.nodes = self.nodes(value),
                _ => self.unknown(key, &["affinity", "policy", "nodes"], " in numa"),
            }
        }
        Some(Spanned {
            value: numa,
            span: value.span.clone(),
        })
    }

    fn nodes(&mut self, value: &Value) -> Option<Spanned<Vec<u32>>> {
        let Kind::Array(nodes) = &value.kind else {
            self.refuse(value, "a list of nodes, like [0, 1]");
            return None;
        };
        if nodes.is_empty() {
            self.findings
                .error(value.span.clone(), "`nodes` is empty")
                .help("name at least one node, or leave the key out for any");
            return None;
        }
        let nodes: Option<Vec<u32>> = nodes
            .iter()
            .map(|node| Some(self.count(node, 0)?.value))
            .collect();
        let mut nodes = nodes?;
        nodes.sort_unstable();
        nodes.dedup();
        Some(Spanned {
            value: nodes,
            span: value.span.clone(),
        })
    }

    /// `timeout` or `deadline`.
    fn time_limit(&mut self, key: &Spanned<String>, value: &Value) -> Option<Spanned<Duration>> {
        let limit = self.duration(value)?;
        if limit.value.is_zero() {
            let message = format!("a {} of zero lets nothing run", key.value);
            let help = format!("leave `{}` out for none", key.value);
            self.findings.error(limit.span, message).help(help);
            return None;
        }
        Some(limit)
    }

    pub(super) fn run_name(&mut self, value: &Value) -> Option<Spanned<String>> {
        let name = self.text(value)?;
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        if name.value.is_empty()
            || name.value.starts_with('.')
            || !name.value.chars().all(is_letter)
        {
            let message = format!("`{}` cannot name a run", name.value);
            self.findings
                .error(name.span, message)
                .help("use letters, digits, `.`, `_` and `-`, and no `.` first");
            return None;
        }
        Some(name)
    }

    pub(super) fn unknown(&mut self, key: &Spanned<String>, allowed: &[&str], place: &str) {
        let finding = self.findings.error(
            key.span.clone(),
            format!("unknown key `{}`{place}", key.value),
        );
        finding.help(nearest(&key.value, allowed).map_or_else(
            || format!("the keys are {}", allowed.join(", ")),
            |near| format!("did you mean `{near}`?"),
        ));
    }

    fn command(&mut self, value: &Value) -> Option<Spanned<Vec<Spanned<String>>>> {
        let words = self.array(value, "command")?;
        if words.is_empty() {
            self.findings
                .error(value.span.clone(), "`command` is empty")
                .help("give at least the program: command = [\"program\"]");
            return None;
        }
        if matches!(&words[0].kind, Kind::Text(program) if program.is_empty()) {
            self.findings
                .error(words[0].span.clone(), "the program has no name");
            return None;
        }
        let words: Option<Vec<_>> = words.iter().map(|word| self.text(word)).collect();
        Some(Spanned {
            value: words?,
            span: value.span.clone(),
        })
    }

    fn args(&mut self, value: &Value) -> Option<Spanned<Arg>> {
        self.table(value)?;
        self.arg(value)
    }

    fn arg(&mut self, value: &Value) -> Option<Spanned<Arg>> {
        let arg = match &value.kind {
            Kind::Text(text) => Arg::Text(text.clone()),
            Kind::Integer(number) => Arg::Integer(*number),
            Kind::Number(number) => Arg::Number(number.clone()),
            Kind::Bool(value) => Arg::Bool(*value),
            Kind::Other("null") => Arg::Null,
            Kind::Other(noun) => {
                self.findings
                    .error(value.span.clone(), format!("`args` cannot hold {noun}"))
                    .help("write it as a text, in quotes");
                return None;
            }
            Kind::Array(values) => {
                let values: Option<Vec<_>> = values.iter().map(|value| self.arg(value)).collect();
                Arg::List(values?)
            }
            Kind::Table(table) => {
                let entry =
                    |(key, value): &(Spanned<String>, Value)| Some((key.clone(), self.arg(value)?));
                let entries: Option<Vec<_>> = table.iter().map(entry).collect();
                Arg::Table(entries?)
            }
        };
        Some(Spanned {
            value: arg,
            span: value.span.clone(),
        })
    }

    fn need(&mut self, value: &Value) -> Option<Spanned<NeedKey>> {
        let need = match &value.kind {
            Kind::Table(table) => {
                let (mut job, mut when) = (None, None);
                for (key, value) in table {
                    match key.value.as_str() {
                        "job" => job = self.filled_text(key, value),
                        "when" => {
                            when = self.word(
                                value,
                                &[
                                    ("success", When::Success),
                                    ("failure", When::Failure),
                                    ("always", When::Always),
                                ],
                            )
                        }
                        _ => self.unknown(key, &["job", "when"], " in a need"),
                    }
                }
                if !table.iter().any(|(key, _)| key.value == "job") {
                    self.findings
                        .error(value.span.clone(), "the need does not say which job")
                        .help("write { job = \"name\", when = \"failure\" }");
                }
                NeedKey {
                    job: job?,
                    when: when.map_or(When::Success, |when| when.value),
                }
            }
            Kind::Text(_) => NeedKey {
                job: self.text(value)?,
                when: When::Success,
            },
            _ => {
                self.refuse(value, "a name or { job = \"name\", when = ... }");
                return None;
            }
        };
        if need.job.value.is_empty() {
            self.findings
                .error(need.job.span, "the name of a need is empty");
            return None;
        }
        Some(Spanned {
            value: need,
            span: value.span.clone(),
        })
    }

    fn matrix(&mut self, value: &Value) -> Spanned<MatrixKeys> {
        let mut matrix = MatrixKeys::default();
        let before = self.findings.list.len();
        let table = self.table(value).map_or(&[][..], Vec::as_slice);
        if table.is_empty() && self.findings.list.len() == before {
            self.findings
                .error(value.span.clone(), "the matrix is empty")
                .help("give it an axis, or leave it out");
        }
        for (key, value) in table {
            match key.value.as_str() {
                "include" => matrix.include = self.cells(value, "include"),
                "exclude" => matrix.exclude = self.cells(value, "exclude"),
                _ => {
                    let values = self.array(value, &key.value);
                    if values.is_some_and(<[Value]>::is_empty) {
                        let message = format!("the axis `{}` is empty", key.value);
                        self.findings
                            .error(value.span.clone(), message)
                            .help("give it values, or leave it out");
                    }
                    let values = values.unwrap_or_default().iter();
                    let values = values.filter_map(|value| self.scalar(value)).collect();
                    matrix.axes.push((key.clone(), values));
                }
            }
        }
        matrix.has_mistakes = self.findings.list.len() > before;
        Spanned {
            value: matrix,
            span: value.span.clone(),
        }
    }

    fn cells(&mut self, value: &Value, what: &str) -> Vec<Spanned<Cell>> {
        let cells = self.array(value, what).unwrap_or_default();
        let mut read = Vec::new();
        for cell in cells {
            let Some(table) = self.table(cell) else {
                continue;
            };
            if table.is_empty() {
                self.findings
                    .error(cell.span.clone(), format!("an empty entry of `{what}`"));
                continue;
            }
            let pairs = table
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), self.scalar(value)?)));
            read.push(Spanned {
                value: pairs.collect(),
                span: cell.span.clone(),
            });
        }
        read
    }

    fn retries(&mut self, value: &Value) -> Spanned<RetryKeys> {
        let mut retries = RetryKeys::default();
        match &value.kind {
            Kind::Table(table) => {
                for (key, value) in table {
                    match key.value.as_str() {
                        "count" => {
                            retries.count = self.count(value, 0).map(|count| count.value);
                            retries.is_count_refused |= retries.count.is_none();
                        }
                        "backoff" => {
                            let words = [
                                ("fixed", Backoff::Fixed),
                                ("exponential", Backoff::Exponential),
                            ];
                            retries.backoff = self.word(value, &words).map(|word| word.value);
                        }
                        "delay" => retries.delay = self.duration(value).map(|delay| delay.value),
                        "max-delay" => {
                            retries.max_delay = self.duration(value).map(|delay| delay.value);
                        }
                        "jitter" => match value.kind {
                            Kind::Bool(jitter) => retries.jitter = Some(jitter),
                            _ => self.refuse(value, "true or false"),
                        },
                        _ => {
                            let known = ["count", "backoff", "delay", "max-delay", "jitter"];
                            self.unknown(key, &known, " in retries");
                            retries.is_count_refused = true;
                        }
                    }
                }
            }
            Kind::Integer(_) => {
                retries.count = self.count(value, 0).map(|count| count.value);
                retries.is_count_refused = retries.count.is_none();
            }
            _ => {
                self.refuse(value, "a number or { count = ..., delay = ... }");
                retries.is_count_refused = true;
            }
        }
        Spanned {
            value: retries,
            span: value.span.clone(),
        }
    }

    fn env(&mut self, value: &Value) -> Vec<(Spanned<String>, Spanned<String>)> {
        let mut variables = Vec::new();
        for (key, value) in self.table(value).into_iter().flatten() {
            if key.value.is_empty() || key.value.contains(['=', '\0']) {
                let message = format!("`{}` cannot name a variable", key.value.escape_default());
                self.findings
                    .error(key.span.clone(), message)
                    .help("a name is not empty and holds neither `=` nor NUL");
                continue;
            }
            variables.extend(self.scalar(value).map(|value| (key.clone(), value)));
        }
        variables
    }

    fn success_codes(&mut self, value: &Value) -> Option<Spanned<Vec<u8>>> {
        let codes = self.array(value, "success-codes")?;
        if codes.is_empty() {
            self.findings
                .error(
                    value.span.clone(),
                    "without a success code nothing can succeed",
                )
                .help("leave the key out for [0]");
            return None;
        }
        let mut read = Vec::new();
        for code in codes {
            match code.kind {
                Kind::Integer(number) => match u8::try_from(number) {
                    Ok(code) => read.push(code),
                    Err(_) => {
                        let message = format!("{number} is no exit code; those are 0 to 255");
                        self.findings.error(code.span.clone(), message);
                    }
                },
                _ => self.refuse(code, "an exit code, 0 to 255"),
            }
        }
        Some(Spanned {
            value: read,
            span: value.span.clone(),
        })
    }
}

/// True to what a variable `REIVER_<NAME>` can be made of.
pub(crate) fn can_name_resource(name: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    !name.is_empty() && name.chars().all(is_letter)
}

/// The nearest right spelling, if one is near: a third of the letters may be wrong.
pub(crate) fn nearest<'w>(word: &str, words: &[&'w str]) -> Option<&'w str> {
    let lower = word.to_lowercase().replace('_', "-");
    let distance = |known: &str| strsim::damerau_levenshtein(&lower, &known.to_lowercase());
    let (near, known) = words.iter().map(|&known| (distance(known), known)).min()?;
    (near * 3 <= known.chars().count().max(3)).then_some(known)
}
