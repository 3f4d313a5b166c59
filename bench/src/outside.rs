//! Programs that are not Rust: whoever counts (valgrind, perf, strace), and contenders in C.
//!
//! Those are compiled when they are first measured, and lie in the folder of the results from then on.
//! Whatever is missing is skipped, and said to be.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};
use std::{env, fs};

use crate::case::{Outcome, Task, Trouble};
use crate::child::Said;

/// Ends this process without waiting for the threads of contenders.
pub(crate) fn end_now() -> ! {
    process::exit(0)
}

/// Runs a program to its end. One that is not there is skipped, one that fails has failed.
pub(crate) fn output(command: &mut Command) -> Result<Output, Trouble> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Trouble::Skipped(format!("{program} is not installed")),
        _ => Trouble::Failed(format!("{program}: {error}")),
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    // Valgrind's own lines begin so, and a backtrace's with blanks.
    let own = |line: &&str| !line.starts_with(['=', ' ']) && !line.is_empty();
    let said: Vec<&str> = errors.lines().filter(own).take(3).collect();
    Err(Trouble::Failed(format!(
        "{program}: {}: {}",
        output.status,
        said.join(" ")
    )))
}

/// This program again, to do the work of this case once, `size` big, under somebody who counts.
pub(crate) fn probe(counter: &mut Command, task: &Task, size: u64) -> Result<Output, Trouble> {
    let itself = env::current_exe().map_err(|error| Trouble::Failed(error.to_string()))?;
    counter.arg(itself);
    counter.args([
        "--child",
        "forkjoin",
        task.case,
        task.contender,
        &task.threads.to_string(),
    ]);
    counter.args(["--probe", &size.to_string()]);
    output(counter)
}

const OPENMP: &str = include_str!("../c/openmp.c");

/// Has the C program measure one of its loops.
pub(crate) fn openmp(task: &Task, loop_name: &str, len: usize) -> Outcome {
    let program = compiled(&task.out, "openmp", OPENMP)?;
    let budget = task.budget.as_millis();
    let mut command = Command::new(program);
    command.env("OMP_NUM_THREADS", task.threads.to_string());
    command.args([
        loop_name,
        &len.to_string(),
        &(budget / 5).to_string(),
        &budget.to_string(),
    ]);
    let output = output(&mut command)?;
    match serde_json::from_slice(&output.stdout) {
        Ok(Said::Samples(samples)) => Ok(samples),
        _ => Err(Trouble::Failed(
            "the program in C printed something else".into(),
        )),
    }
}

/// The program made of `source`, which lies in `out` from then on.
fn compiled(out: &Path, name: &str, source: &str) -> Result<PathBuf, Trouble> {
    let failed = |error: std::io::Error| Trouble::Failed(format!("{}: {error}", out.display()));
    let out = out.canonicalize().map_err(failed)?;
    let program = out.join(format!("{name}-{:016x}", fnv(source)));
    if program.exists() {
        return Ok(program);
    }
    let source_file = out.join(format!("{name}.c"));
    fs::write(&source_file, source).map_err(failed)?;
    let unfinished = program.with_extension(process::id().to_string());
    let mut cc = Command::new("cc");
    cc.args(["-O3", "-march=native", "-fopenmp", "-o"])
        .arg(&unfinished)
        .arg(&source_file);
    match output(&mut cc) {
        Ok(_) => {}
        Err(Trouble::Failed(why)) => {
            return Err(Trouble::Skipped(format!("no OpenMP here: {why}")));
        }
        Err(skipped) => return Err(skipped),
    }
    fs::rename(&unfinished, &program).map_err(failed)?;
    Ok(program)
}

/// The FNV-1a hash: another source is another program.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
