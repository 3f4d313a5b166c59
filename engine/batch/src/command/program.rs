//! The program that the command is: `reiver`, or one with tasks of its own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::CommandFactory;

use super::args::Cli;
use super::console::to_paste;
use crate::Registry;

/// Under which name it was started, and what it has besides commands.
#[derive(Debug)]
pub(crate) struct Program {
    /// The words that it was started with, its own among them; none for `reiver`, which goes by that
    /// name wherever it is.
    started_as: Option<OsString>,
    pub(crate) registry: Registry,
}

impl Program {
    pub(crate) fn reiver() -> Program {
        Program {
            started_as: None,
            registry: Registry::new(),
        }
    }

    pub(crate) fn own(registry: Registry) -> Program {
        let word = std::env::args_os().next();
        Program {
            started_as: Some(word.unwrap_or_else(|| "program".into())),
            registry,
        }
    }

    /// Its name, without the folders before it.
    pub(crate) fn name(&self) -> String {
        let Some(word) = &self.started_as else {
            return "reiver".to_owned();
        };
        let name = Path::new(word).file_name().unwrap_or(word);
        name.to_string_lossy().into_owned()
    }

    /// The word that starts it where it was started.
    pub(crate) fn to_paste(&self) -> String {
        match &self.started_as {
            Some(word) => to_paste(word.as_bytes()),
            None => "reiver".to_owned(),
        }
    }

    /// The description of its command line.
    pub(crate) fn command(&self) -> clap::Command {
        let command = Cli::command();
        if self.started_as.is_none() {
            return command;
        }
        let name = self.name();
        let after = format!(
            "Examples:\n  \
             {name} jobs.toml                  run the jobs of a file; the same as {name} run jobs.toml\n  \
             {name} run jobs.toml --resume     run what did not succeed the last time\n  \
             {name} check jobs.toml            say what is wrong, run nothing\n  \
             {name} help FORMAT                what may stand in a job file\n\n\
             Tasks: {}",
            self.tasks()
        );
        command
            .bin_name(name.clone())
            .display_name(name)
            .after_help(after)
    }

    /// The words to parse: files need no `run` before them, where it is not `reiver`.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = std::env::args_os().collect();
        if words.is_empty() {
            words.push(self.name().into());
        }
        if self.started_as.is_some()
            && let Some(first) = words.get(1)
            && !["-h", "--help", "-V", "--version"]
                .iter()
                .any(|word| first == word)
            && !Cli::command()
                .get_subcommands()
                .any(|known| first == known.get_name())
        {
            words.insert(1, "run".into());
        }
        words
    }

    /// What the reference of job files says besides, where there are tasks.
    pub(crate) fn format(&self) -> String {
        if self.registry.is_empty() {
            return String::new();
        }
        format!(
            "\nTASKS OF THIS PROGRAM\n  \
             task = \"NAME\"        a function of the program, instead of `run` and `command`; there are:\n  \
                                  {}\n  \
             args = {{ ... }}       what it takes; placeholders as in `env`\n\n  \
             A task is no process: it has no cwd, env, stdin, stdout, stderr, kill-after, success-codes\n  \
             or numa.\n",
            self.tasks()
        )
    }

    fn tasks(&self) -> String {
        match self.registry.is_empty() {
            true => "none".to_owned(),
            false => self.registry.names().collect::<Vec<_>>().join(", "),
        }
    }
}
