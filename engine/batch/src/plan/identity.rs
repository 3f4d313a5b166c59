//! What a job is known by over edits of its file: for a journal that outlives them.
//!
//! A job with a name is known by that. One without is known by what it says, and by the how-many-eth
//! in its file to say so: lines may move, and those above them change. What a job says, its
//! definition, is all of its keys after defaults and placeholders, as far as they differ from what
//! holds where they are unset; so a key that reiver learns one day changes no definition of today.
//!
//! Both are digests of 128 bits (SipHash-2-4, by Aumasson and Bernstein, with keys of its own), over
//! text and not over memory: they are part of the journal's format.

use std::collections::HashMap;
use std::ffi::OsString;
use std::hash::Hasher;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use reiver::{Class, Priority};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::merged::KILL_AFTER;
use super::table::{Action, Around, Common, Files, Job, Join, Key};
use super::{JobIndex, Numa, Plan, Retries, Settings, tasks};
use crate::job_file::{Affinity, Arg, Backoff, MemoryPolicy, When};
use crate::source::Source;
use crate::task::Filled;
use crate::template::Template;

/// What a job is known by, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The digest of its name, or of its file, its definition and its how-many-eth. No other job of
    /// the run has it.
    pub key: u128,
    /// The digest of its definition.
    pub definition: u128,
}

/// What identities are made from, besides the jobs themselves: those are made when asked for, for a plan may
/// have millions of jobs.
#[derive(Debug)]
pub(super) struct KnownBy {
    /// What each file is known by.
    files: Vec<Vec<u8>>,
    /// How many jobs before it in its file say the same, for each job without a name; empty where all have
    /// one.
    pub(super) nth: Vec<u32>,
}

impl Plan {
    /// Readies what [`identity`](Plan::identity) needs. To be done before a filter takes some away: how
    /// many jobs say the same is counted over all of them.
    ///
    /// Takes time linear in the jobs without a name, which are then sorted; of others none.
    pub fn identify(&mut self) {
        let mut nameless = Vec::new();
        // Jobs that follow each other mostly have it in common.
        let mut constant: Option<(&Arc<Common>, Option<Vec<u8>>)> = None;
        for job in self.jobs().filter(|job| !self.is_named(*job)) {
            let common = &self.table(job).common;
            let known = constant.take();
            let known = known.filter(|(known, _)| Arc::ptr_eq(known, common));
            let (_, known) =
                constant.insert(known.unwrap_or_else(|| (common, constant_of(common))));
            let definition = self.definition(job, known.as_deref());
            nameless.push((self.source_of(job), definition, job));
        }
        let mut nth = Vec::new();
        if !nameless.is_empty() {
            nth.resize(self.len(), 0);
        }
        nameless.sort_unstable();
        for same in nameless.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            for (own, (_, _, job)) in (0..).zip(same) {
                nth[job.0 as usize] = own;
            }
        }
        let files = file_keys(self);
        self.known_by = Some(KnownBy { files, nth });
    }

    /// What a job is known by, after [`identify`](Plan::identify). Takes time linear in what the job says.
    ///
    /// # Panics
    /// Before that.
    pub fn identity(&self, job: JobIndex) -> Identity {
        let constant = constant_of(&self.table(job).common);
        let definition = self.definition(job, constant.as_deref());
        let key = match self.is_named(job) {
            true => self.key_by_name(job),
            false => self.key_by_definition(job, definition),
        };
        Identity { key, definition }
    }

    /// The key alone, which takes less time where the job has a name.
    ///
    /// # Panics
    /// As [`identity`](Plan::identity).
    pub(crate) fn key(&self, job: JobIndex) -> u128 {
        match self.is_named(job) {
            true => self.key_by_name(job),
            false => self.identity(job).key,
        }
    }

    fn known_by(&self) -> &KnownBy {
        let known_by = self.known_by.as_ref();
        known_by.expect("identify comes before")
    }

    fn key_by_name(&self, job: JobIndex) -> u128 {
        self.known_by();
        digest(&[b"name", self.name(job).as_bytes()])
    }

    fn key_by_definition(&self, job: JobIndex, definition: u128) -> u128 {
        let KnownBy { files, nth } = self.known_by();
        digest(&[
            b"nameless",
            &files[self.source_of(job).0 as usize],
            &definition.to_le_bytes(),
            &u64::from(nth[job.0 as usize]).to_le_bytes(),
        ])
    }

    fn definition(&self, job: JobIndex, constant: Option<&[u8]>) -> u128 {
        let table = self.table(job);
        if let (Job::Line { begin, .. }, Some(constant)) = (self.job(job), constant) {
            // There may be millions: nothing is copied.
            return digest_of_line(constant, self.line(job, *begin));
        }
        let value_of = |key| match key {
            // The one that is another for each attempt stays as it was written.
            Key::Attempt => "{attempt}".into(),
            key => self.value_of(job, 1, key),
        };
        let mut definition = match constant {
            Some(constant) => constant.to_vec(),
            None => definition_of_table(&table.common, value_of),
        };
        let render = |template: &Template<Key>| template.render(value_of);
        match (self.job(job), &table.action) {
            (Job::Line { begin, .. }, _) => {
                put(&mut definition, "run", self.line(job, *begin));
            }
            (Job::Cell { .. }, Action::Shell(line)) => {
                put(&mut definition, "run", render(line).as_bytes());
            }
            (Job::Cell { .. }, action @ (Action::Words(_) | Action::Argv(_))) => {
                for word in action.words(value_of) {
                    put(&mut definition, "command", word.as_bytes());
                }
            }
            (Job::Cell { .. }, Action::Task(call)) => {
                put(&mut definition, "task", call.name.as_bytes());
                let args = tasks::filled(&call.args, value_of).value;
                if args != Arg::Table(Vec::new()) {
                    put(&mut definition, "args", b"");
                    put_arg(&mut definition, &args);
                }
            }
        }
        digest(&[&definition])
    }
}

/// What files are known by: their names where those differ, so that a folder may move; streams by
/// their order.
fn file_keys(plan: &Plan) -> Vec<Vec<u8>> {
    let name = |source: &Source| -> OsString {
        let name = Path::new(&source.given).file_name();
        name.unwrap_or(&source.given).to_owned()
    };
    let mut uses: HashMap<OsString, usize> = HashMap::new();
    for source in plan.sources() {
        *uses.entry(name(source)).or_default() += 1;
    }
    let mut streams = 0;
    plan.sources()
        .iter()
        .map(|source| {
            if source.is_stream {
                streams += 1;
                return format!("stream {streams}").into_bytes();
            }
            let name = name(source);
            let key = if uses[&name] == 1 {
                Path::new(&name).to_owned()
            } else {
                source.folder.join(name)
            };
            [b"file ", key.as_os_str().as_bytes()].concat()
        })
        .collect()
}

fn templates(common: &Common) -> impl Iterator<Item = &Template<Key>> {
    let table = &common.around;
    let files = table.files();
    let stderr = match &files.stderr {
        Some(Join::File(file)) => Some(file),
        Some(Join::Stdout) | None => None,
    };
    let env = table.env.iter().map(|(_, value)| value);
    let needs = table.needs.iter().map(|(need, _)| need);
    let streams = [files.stdin.as_ref(), files.stdout.as_ref(), stderr];
    let one = files.cwd.iter().chain(streams.into_iter().flatten());
    one.chain(env).chain(needs)
}

/// True if all but the command is the same for all jobs of a table.
fn is_constant(common: &Common) -> bool {
    templates(common).all(Template::is_constant)
}

/// All of a definition but the command, where that is the same for all jobs of a table.
fn constant_of(common: &Common) -> Option<Vec<u8>> {
    is_constant(common).then(|| definition_of_table(common, |_| unreachable!("no keys")))
}

/// All of a definition but the command.
fn definition_of_table<'v>(
    common: &Common,
    value_of: impl Fn(Key) -> std::borrow::Cow<'v, str> + Copy,
) -> Vec<u8> {
    let Common { base, around } = common;
    let Around { env, needs, .. } = around;
    let Files {
        cwd,
        stdin,
        stdout,
        stderr,
    } = around.files();
    let mut definition = Vec::new();
    put_settings(&mut definition, &base.settings);
    let render = |template: &Template<Key>| template.render(value_of);
    for (key, template) in [("cwd", cwd), ("stdin", stdin), ("stdout", stdout)] {
        if let Some(template) = template {
            put(&mut definition, key, render(template).as_bytes());
        }
    }
    match stderr {
        Some(Join::File(file)) => put(&mut definition, "stderr", render(file).as_bytes()),
        Some(Join::Stdout) => put(&mut definition, "stderr-joins", b""),
        None => {}
    }
    let mut env: Vec<(&str, String)> = env
        .iter()
        .map(|(key, value)| (&**key, render(value)))
        .collect();
    env.sort_unstable();
    for (key, value) in env {
        put(&mut definition, "env", key.as_bytes());
        put(&mut definition, "value", value.as_bytes());
    }
    let mut needs: Vec<(String, &str)> = needs
        .iter()
        .map(|(need, when)| {
            let when = match when {
                When::Success => "success",
                When::Failure => "failure",
                When::Always => "always",
            };
            (render(need), when)
        })
        .collect();
    needs.sort_unstable();
    for (need, when) in needs {
        put(&mut definition, "need", need.as_bytes());
        put(&mut definition, "when", when.as_bytes());
    }
    definition
}

fn put_settings(definition: &mut Vec<u8>, settings: &Settings) {
    let Settings {
        // The task itself says so.
        is_task: _,
        class,
        priority,
        cpus,
        timeout,
        kill_after,
        retries,
        success_codes,
        memory,
        numa,
        pool,
        resources,
        deadline,
    } = settings;
    let mut text = |key, value: &str| put(definition, key, value.as_bytes());
    match class {
        Class::Cpu => {}
        Class::Io => text("class", "io"),
        Class::Hybrid => text("class", "hybrid"),
        Class::Auto => text("class", "auto"),
    }
    match priority {
        Priority::P0 => text("priority", "P0"),
        Priority::P1 => {}
        Priority::P2 => text("priority", "P2"),
    }
    if let Some(cpus) = cpus {
        text("cpus", &cpus.to_string());
    }
    if let Some(timeout) = timeout {
        text("timeout", &timeout.as_nanos().to_string());
    }
    if *kill_after != KILL_AFTER {
        text("kill-after", &kill_after.as_nanos().to_string());
    }
    if retries.count > 0 {
        let Retries {
            count,
            backoff,
            delay,
            max_delay,
            jitter,
        } = retries;
        text("retries", &count.to_string());
        text("delay", &delay.as_nanos().to_string());
        match backoff {
            Backoff::Fixed => {}
            Backoff::Exponential => text("backoff", "exponential"),
        }
        if let Some(max_delay) = max_delay {
            text("max-delay", &max_delay.as_nanos().to_string());
        }
        if *jitter {
            text("jitter", "true");
        }
    }
    if let Some(memory) = memory {
        text("memory", &memory.to_string());
    }
    if let Some(pool) = pool {
        text("pool", pool);
    }
    if let Some(deadline) = deadline {
        text("deadline", &deadline.as_nanos().to_string());
    }
    for (name, count) in resources {
        text("resource", name);
        text("count", &count.to_string());
    }
    put_numa(definition, numa);
    let mut codes = success_codes.clone();
    codes.sort_unstable();
    codes.dedup();
    if codes != [0] {
        put(definition, "success-codes", &codes);
    }
}

fn put_numa(definition: &mut Vec<u8>, numa: &Numa) {
    let Numa {
        affinity,
        policy,
        nodes,
    } = numa;
    let mut text = |key, value: &str| put(definition, key, value.as_bytes());
    match affinity {
        None => {}
        Some(Affinity::None) => text("affinity", "none"),
        Some(Affinity::Prefer) => text("affinity", "prefer"),
        Some(Affinity::Require) => text("affinity", "require"),
    }
    match policy {
        None => {}
        Some(MemoryPolicy::Bind) => text("policy", "bind"),
        Some(MemoryPolicy::Preferred) => text("policy", "preferred"),
        Some(MemoryPolicy::Interleave) => text("policy", "interleave"),
        Some(MemoryPolicy::Local) => text("policy", "local"),
    }
    for node in nodes {
        text("node", &node.0.to_string());
    }
}

/// An argument of a task; the keys of a table in the order of their names, for it has no other.
fn put_arg(definition: &mut Vec<u8>, arg: &Arg<Filled>) {
    let mut count = |kind, items: usize| put(definition, kind, &(items as u64).to_le_bytes());
    match arg {
        Arg::List(list) => {
            count("list", list.len());
            list.iter()
                .for_each(|item| put_arg(definition, &item.value));
        }
        Arg::Table(table) => {
            count("table", table.len());
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_unstable_by(|(a, _), (b, _)| a.value.cmp(&b.value));
            for (key, item) in entries {
                put(definition, "key", key.value.as_bytes());
                put_arg(definition, &item.value);
            }
        }
        Arg::Text(text) => put(definition, "text", text.text.as_bytes()),
        Arg::Integer(number) => put(definition, "integer", number.to_string().as_bytes()),
        Arg::Number(number) => put(definition, "number", number.as_bytes()),
        Arg::Bool(value) => put(definition, "boolean", value.to_string().as_bytes()),
        Arg::Null => put(definition, "null", b""),
    }
}

/// A key with its value, so that no two rows of them look the same.
fn put(definition: &mut Vec<u8>, key: &str, value: &[u8]) {
    for part in [key.as_bytes(), value] {
        definition.extend((part.len() as u64).to_le_bytes());
        definition.extend(part);
    }
}

/// The digest of what a table's jobs have in common and of what [`put`] writes of a line.
fn digest_of_line(constant: &[u8], line: &[u8]) -> u128 {
    const KEY: &[u8] = b"run";
    let mut hasher = hasher();
    hasher.write(&(constant.len() as u64).to_le_bytes());
    hasher.write(constant);
    hasher.write(&((8 + KEY.len() + 8 + line.len()) as u64).to_le_bytes());
    for part in [KEY, line] {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish128().as_u128()
}

fn hasher() -> SipHasher24 {
    SipHasher24::new_with_keys(0x7265_6976_6572_206a, 0x6f75_726e_616c_2031)
}

fn digest(parts: &[&[u8]]) -> u128 {
    let mut hasher = hasher();
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_one_digest_however_it_comes_about() {
        for (constant, line) in [
            (&b""[..], &b"true"[..]),
            (b"constant", b""),
            (b"c", b"a \xff b"),
        ] {
            let mut put_line = Vec::new();
            put(&mut put_line, "run", line);
            let whole = digest(&[constant, &put_line]);
            assert_eq!(digest_of_line(constant, line), whole);
        }
    }

    #[test]
    fn digests_are_part_of_the_format() {
        let known = 281_355_821_346_058_178_734_996_628_690_409_170_388;
        assert_eq!(digest(&[b"name", b"solve-1"]), known);
    }
}
