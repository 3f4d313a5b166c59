//! Programs that are not Rust: whoever counts (valgrind, perf, strace), and contenders in C, C++ and Go.
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
    counter.arg("--out").arg(&task.out);
    output(counter)
}

const OPENMP: &str = include_str!("../c/openmp.c");

/// Has the C program measure one of its loops.
pub(crate) fn openmp(task: &Task, loop_name: &str, len: usize) -> Outcome {
    let program = compiled(&task.out, "openmp", "c", OPENMP, cc)?;
    let budget = task.budget.as_millis();
    let mut command = Command::new(program);
    command.env("OMP_NUM_THREADS", task.threads.to_string());
    command.args([
        loop_name,
        &len.to_string(),
        &(budget / 5).to_string(),
        &budget.to_string(),
    ]);
    measured(task, &mut command)
}

/// What a program prints that measures as a child does.
fn measured(task: &Task, command: &mut Command) -> Outcome {
    let output = output(command)?;
    match serde_json::from_slice(&output.stdout) {
        Ok(Said::Samples(samples)) => Ok(samples),
        Ok(Said::Told(samples, figures)) => {
            task.tell(figures);
            Ok(samples)
        }
        Ok(Said::Measured { samples, costs, .. }) => {
            task.took(costs);
            Ok(samples)
        }
        Ok(Said::Skipped(why)) => Err(Trouble::Skipped(why)),
        Ok(Said::Failed(why)) => Err(Trouble::Failed(why)),
        Err(_) => Err(Trouble::Failed(format!(
            "{} printed something else",
            command.get_program().display()
        ))),
    }
}

const ONETBB: &str = include_str!("../cpp/onetbb.cpp");

/// The library that hands closures to oneTBB.
pub(crate) fn onetbb(task: &Task) -> Result<PathBuf, Trouble> {
    compiled(&task.out, "onetbb", "cpp", ONETBB, |unfinished, source| {
        let mut cxx = Command::new("c++");
        cxx.args([
            "-std=c++17",
            "-O3",
            "-march=native",
            "-shared",
            "-fPIC",
            "-o",
        ]);
        cxx.arg(unfinished).arg(source).arg("-ltbb");
        output(&mut cxx).map_err(|trouble| skipped("no oneTBB here", trouble))
    })
}

const NUMA: &str = include_str!("../c/numa.c");

/// Has the C program do a loop of the suite `numa`, its threads spread over the machine, each bound to a core.
pub(crate) fn openmp_on_nodes(task: &Task, len: usize, piece: usize) -> Outcome {
    let program = compiled(&task.out, "numa", "c", NUMA, cc)?;
    let budget = task.budget.as_millis();
    let mut command = Command::new(program);
    command.env("OMP_NUM_THREADS", task.threads.to_string());
    command.envs([("OMP_PROC_BIND", "spread"), ("OMP_PLACES", "cores")]);
    command.args([
        task.case,
        &len.to_string(),
        &piece.to_string(),
        &(budget / 5).to_string(),
        &budget.to_string(),
    ]);
    measured(task, &mut command)
}

/// The same case of this program with another contender, whose memory the kernel deals to all nodes.
pub(crate) fn interleaved(task: &Task, suite: &str, contender: &str) -> Outcome {
    let mut numactl = Command::new("numactl");
    // A kernel without nodes refuses it, and so do containers.
    output(numactl.args(["--interleave=all", "true"]))
        .map_err(|trouble| skipped("it does nothing here", trouble))?;
    let itself = env::current_exe().map_err(|error| Trouble::Failed(error.to_string()))?;
    let mut command = Command::new("numactl");
    command.arg("--interleave=all").arg(itself);
    command.args(["--child", suite, task.case, contender]);
    command.arg(task.threads.to_string());
    command.arg("--out").arg(&task.out);
    command.args(["--budget-ms", &task.budget.as_millis().to_string()]);
    command.args(task.quick.then_some("--quick"));
    measured(task, &mut command)
}

const SYNC_POOL: &str = include_str!("../go/sync_pool.go");

/// Has the program in Go do one of its loops; what it is given after the loop's name is told there.
pub(crate) fn go(task: &Task, args: &[String]) -> Outcome {
    let program = compiled(
        &task.out,
        "sync_pool",
        "go",
        SYNC_POOL,
        |unfinished, source| {
            let mut go = Command::new("go");
            // Its own tools, no modules, and nothing left in anybody's home.
            let cache = unfinished.with_file_name("go-cache");
            go.envs([
                ("GO111MODULE", "off"),
                ("GOTOOLCHAIN", "local"),
                ("GOFLAGS", ""),
            ]);
            go.env("GOCACHE", cache);
            go.args(["build", "-o"]).arg(unfinished).arg(source);
            output(&mut go).map_err(|trouble| skipped("it builds nothing here", trouble))
        },
    )?;
    measured(task, Command::new(program).args(args))
}

const NOTHING: &str = include_str!("../c/nothing.c");

/// A static program that does nothing.
pub(crate) fn nothing(task: &Task) -> Result<PathBuf, Trouble> {
    compiled(&task.out, "nothing", "c", NOTHING, |unfinished, source| {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-static", "-nostdlib", "-o"]);
        cc.arg(unfinished).arg(source);
        output(&mut cc).map_err(|trouble| skipped("no static program here", trouble))
    })
}

fn cc(unfinished: &Path, source: &Path) -> Result<Output, Trouble> {
    let mut cc = Command::new("cc");
    cc.args(["-O3", "-march=native", "-fopenmp", "-o"])
        .arg(unfinished)
        .arg(source);
    output(&mut cc).map_err(|trouble| skipped("no OpenMP here", trouble))
}

/// A compiler that does not compile is one that is not there.
fn skipped(what: &str, trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Failed(why) => Trouble::Skipped(format!("{what}: {why}")),
        skipped => skipped,
    }
}

/// The program that `compile` makes of `source`, which lies in `out` from then on.
fn compiled(
    out: &Path,
    name: &str,
    language: &str,
    source: &str,
    compile: impl FnOnce(&Path, &Path) -> Result<Output, Trouble>,
) -> Result<PathBuf, Trouble> {
    let failed = |error: std::io::Error| Trouble::Failed(format!("{}: {error}", out.display()));
    let out = out.canonicalize().map_err(failed)?;
    let program = out.join(format!("{name}-{:016x}", fnv(source)));
    if program.exists() {
        return Ok(program);
    }
    // Its own, since others may be at it too.
    let source_file = out.join(format!("{name}-{}.{language}", process::id()));
    fs::write(&source_file, source).map_err(failed)?;
    let unfinished = program.with_extension(process::id().to_string());
    let made = compile(&unfinished, &source_file);
    let _ = fs::remove_file(&source_file);
    made?;
    fs::rename(&unfinished, &program).map_err(failed)?;
    Ok(program)
}

/// The FNV-1a hash: another source is another program.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
