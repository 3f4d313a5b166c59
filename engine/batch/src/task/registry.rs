//! Which tasks a program has.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error};

use super::TaskContext;
use super::args::{ArgError, Args, read};

/// The functions of a program that its job files may name: `task = "name"`, with `args = { ... }`.
///
/// A program that hands one to [`main`](crate::main()) is the command `reiver` with tasks of its own:
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use reiver_batch::{Registry, TaskContext};
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Resize {
///     input: String,
///     width: u32,
/// }
///
/// fn resize(args: Resize, context: &TaskContext<'_>) -> Result<(), std::io::Error> {
///     let picture = std::fs::read(context.folder().join(&args.input))?;
///     for _line in picture.chunks(1 << 20) {
///         context.checkpoint()?; // where a timeout and Ctrl-C are noticed
///     }
///     Ok(())
/// }
///
/// fn main() -> ExitCode {
///     let mut registry = Registry::new();
///     registry.task("resize", resize);
///     reiver_batch::main(registry)
/// }
/// ```
///
/// # In a job file
/// ```toml
/// [[job]]
/// name = "small-{picture}"
/// matrix = { picture = ["a", "b"], width = [320] }
/// task = "resize"                                  # exactly one of run, command and task
/// args = { input = "{picture}.png", width = "{width}" }
/// timeout = "10s"
/// ```
/// | key | of a task |
/// | --- | --- |
/// | `task` | its name here; no placeholders |
/// | `args` | a table, read by serde as the task's type; unset, it is empty, and `()` takes none |
/// | `name`, `needs`, `matrix`, `priority`, `retries`, `timeout`, `deadline`, `pool`, `resources` | as of any job |
/// | `class` | `cpu` and `hybrid` run on workers of the engine, `io` on its threads for what blocks; each takes the slots of its class. `auto` moves to io slots where its own thread waits most of the time: forks that others do for it count as waiting |
/// | `cpus` | so many slots; no CPUs of its own, for the engine's workers, which do its forks too, are everybody's |
/// | `memory` | a part of the budget, as for any job; nothing limits what the task then takes |
/// | `cwd`, `env`, `stdin`, `stdout`, `stderr`, `kill-after`, `success-codes`, `numa` | refused: these are a process's. Those of `[defaults]` are for the file's commands |
///
/// `{key}` is replaced in texts of `args` as in `env`: by keys of the matrix and of `--set`, by `name`,
/// `attempt` and `cpus`. A text with a placeholder may be a number or a boolean where the type wants
/// one. JSON's `null` is `None`. The arguments of every job are read once before anything runs: what
/// does not fit the type is a mistake in the file, with its line and column.
///
/// Where a task is named that is not here, the file is refused; so does the command `reiver`, which has
/// none.
///
/// # How it runs
/// In this process, as a job of the engine, of the class and priority that the file says. So `join`,
/// `scope` and `par_for` inside it use the engine's workers. `Ok` is a success; an `Err`, whose text is
/// shown with its causes where its `{:#}` has them (as `anyhow`'s), and a panic are failures, told
/// apart in every output, and retried as others are. What ends the process ends the run, as a panic
/// does in a program built with `panic = "abort"`, and `--resume` goes on from there.
///
/// A timeout, a deadline and Ctrl-C reach it by its [context](TaskContext): `checkpoint()` is an error
/// from then on, and `is_cancelled()` true. Whatever it then returns, it has timed out or is cancelled.
/// A task that does not look cannot be ended: it goes on and keeps its slots, which is said after five
/// seconds, until it returns by itself or the process ends; a second Ctrl-C waits for no task.
/// Processes that a task starts are its own to end.
///
/// In events `job-started` has the key `task`, and as `pid` that of the program; a failure's `reason` is
/// `error` or `panic`, with what it says as `message`, and `code` and `signal` are null. In a job log the
/// exit value of either is 1. The journal records what succeeded and what did not, so that `--resume` and
/// `--resume-failed` mean the same as for commands; other arguments make it another job.
///
/// What belongs to the job goes into [`TaskContext::stdout`] and [`stderr`](TaskContext::stderr): it is
/// printed whole as the job ends, shown with its failure, and kept as that of a command. What it prints
/// with `println!` cannot be told from what the program prints, for the stream is the process's: it goes
/// there at once, between what other jobs have printed, and belongs to none. With `--output json`
/// standard output is the events' alone, so it goes to standard error, as does what a process prints that
/// the task starts and gives no output of its own.
#[derive(Clone, Default)]
pub struct Registry {
    tasks: BTreeMap<String, Arc<dyn Task>>,
}

impl Registry {
    /// One without tasks.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Adds a task. `run` is called once for each attempt, on any thread, and several may run at once.
    ///
    /// # Panics
    /// Where the name is empty, or some task has it already.
    pub fn task<A, E, F>(&mut self, name: impl Into<String>, run: F) -> &mut Registry
    where
        A: DeserializeOwned + 'static,
        E: fmt::Display,
        F: Fn(A, &TaskContext<'_>) -> Result<(), E> + Send + Sync + 'static,
    {
        let name = name.into();
        assert!(!name.is_empty(), "a task has no name");
        assert!(
            !self.tasks.contains_key(&name),
            "there are two tasks `{name}`: a file could not tell them apart"
        );
        let args = PhantomData;
        self.tasks.insert(name, Arc::new(Typed { run, args }));
        self
    }

    /// The names of the tasks, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tasks.keys().map(String::as_str)
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<dyn Task>> {
        self.tasks.get(name)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A task whose type of arguments is forgotten.
pub(crate) trait Task: Send + Sync {
    /// Whether it can take these.
    fn check(&self, args: &Args) -> Result<(), ArgError>;

    /// Runs it: the outer error is that it cannot take its arguments, the inner one its own.
    fn run(&self, args: &Args, context: &TaskContext<'_>) -> Result<Result<(), String>, ArgError>;
}

impl fmt::Debug for dyn Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

struct Typed<A, F> {
    run: F,
    args: PhantomData<fn() -> A>,
}

impl<A, E, F> Task for Typed<A, F>
where
    A: DeserializeOwned + 'static,
    E: fmt::Display,
    F: Fn(A, &TaskContext<'_>) -> Result<(), E> + Send + Sync,
{
    fn check(&self, args: &Args) -> Result<(), ArgError> {
        let read = catch_unwind(AssertUnwindSafe(|| read::<A>(args).map(drop)));
        read.unwrap_or_else(|payload| {
            let message = message_of(payload);
            Err(ArgError::custom(format_args!(
                "reading them panicked: {message}"
            )))
        })
    }

    fn run(&self, args: &Args, context: &TaskContext<'_>) -> Result<Result<(), String>, ArgError> {
        let args = read(args)?;
        Ok((self.run)(args, context).map_err(|error| format!("{error:#}")))
    }
}

/// What a panic says.
pub(crate) fn message_of(payload: Box<dyn Any + Send>) -> String {
    let message = match payload.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => match payload.downcast_ref::<String>() {
            Some(text) => text.clone(),
            None => "with a value that is no text".to_owned(),
        },
    };
    // Dropping what somebody has panicked with may panic again.
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(again);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: (), _: &TaskContext<'_>) -> Result<(), String> {
        Ok(())
    }

    #[test]
    fn tasks_go_by_their_names() {
        let mut registry = Registry::new();
        assert!(registry.is_empty());
        registry.task("b", nothing).task("a", nothing);
        assert_eq!(registry.names().collect::<Vec<_>>(), ["a", "b"]);
        assert!(registry.find("a").is_some() && registry.find("c").is_none());
    }

    #[test]
    #[should_panic(expected = "two tasks `a`")]
    fn a_name_is_one_tasks() {
        Registry::new().task("a", nothing).task("a", nothing);
    }

    #[test]
    fn what_a_panic_says() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(message_of(Box::new("a")), "a");
        assert_eq!(message_of(Box::new("b".to_owned())), "b");
        assert_eq!(message_of(Box::new(Bomb)), "with a value that is no text");
    }
}
