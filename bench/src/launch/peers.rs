//! Others who start processes.

use std::fmt::Write;
use std::fs::File;
use std::process::Command;

use super::{Folder, Started, failed, lines, run};
use crate::case::{Outcome, Task};

pub(super) fn make(task: &Task, started: Started) -> Outcome {
    let (program, launches) = (started.program(task)?, started.launches(task));
    let folder = Folder::new(task)?;
    let targets: String = (0..launches).map(|number| format!(" t{number}")).collect();
    let program = program.display();
    let text = format!(".PHONY: all{targets}\nall:{targets}\n{targets}:\n\t@{program}\n");
    let file = folder.write("Makefile", text)?;
    let mut command = Command::new("make");
    command.arg("-j").arg(task.threads.to_string());
    command.arg("-f").arg(file);
    // Whoever started us may be a make of its own.
    command.env_remove("MAKEFLAGS").env_remove("MFLAGS");
    run(task, command, launches)
}

pub(super) fn xargs(task: &Task, started: Started) -> Outcome {
    let (program, launches) = (started.program(task)?, started.launches(task));
    let folder = Folder::new(task)?;
    let words = folder.write("words", "x\n".repeat(launches as usize))?;
    let mut command = Command::new("xargs");
    command.arg("-P").arg(task.threads.to_string());
    command.args(["-n", "1"]).arg("-a").arg(words).arg(program);
    run(task, command, launches)
}

/// It is slow enough that a tenth is plenty.
pub(super) fn parallel(task: &Task, started: Started) -> Outcome {
    let (program, launches) = (started.program(task)?, started.launches(task).div_ceil(10));
    let folder = Folder::new(task)?;
    let file = folder.write("lines", lines(&program, launches))?;
    let mut command = Command::new("parallel");
    command.arg("-j").arg(task.threads.to_string());
    command.stdin(File::open(file).map_err(failed)?);
    run(task, command, launches)
}

pub(super) fn ninja(task: &Task, started: Started) -> Outcome {
    let (program, launches) = (started.program(task)?, started.launches(task));
    let folder = Folder::new(task)?;
    let mut text = format!("rule run\n  command = {}\n", program.display());
    for number in 0..launches {
        // Text in memory takes all that is written.
        let _ = writeln!(text, "build t{number}: run");
    }
    folder.write("build.ninja", text)?;
    let mut command = Command::new("ninja");
    command.arg("-j").arg(task.threads.to_string());
    command.arg("-C").arg(&folder.0);
    run(task, command, launches)
}
