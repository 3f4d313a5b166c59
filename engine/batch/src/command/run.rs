//! `reiver run`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use clap::ValueEnum;

use super::args::{Files, Limit, Output, RunArgs};
use super::console::{Console, count, plain, say, to_paste};
use super::files::planned;
use super::in_order::InOrder;
use super::overrides::overrides;
use super::program::Program;
use super::progress::Progress;
use super::resume::{self, Wanted};
use super::terminal::Terminal;
use super::{answer, dry_run, exit, signals, streams, trouble};
use crate::Plan;
use crate::event::Sink;
use crate::joblog::JobLog;
use crate::json::JsonLines;
use crate::report::Report;
use crate::run::{Control, Options, check_room, new_run_id};
use crate::trace::Trace;

/// Runs the jobs; gives the exit code.
pub(crate) fn run(args: &RunArgs, program: &Program) -> u8 {
    let overrides = match overrides(&args.files, &args.shares) {
        Ok(overrides) => overrides,
        Err(problem) => {
            say(&format!("reiver: {problem}"));
            return exit::REFUSED;
        }
    };
    let console = Console::new(args.look.color, io::stderr().is_terminal());
    let reader = args.reader.as_deref();
    let planned = planned(&args.files, &overrides, reader, &program.registry, &console);
    let mut planned = match planned {
        Ok(planned) => planned,
        Err(code) => return code,
    };
    if !planned.shown.is_empty() {
        say(&format!("{}{}", planned.shown, planned.tally()));
    }
    let Some(plan) = planned.plan.take() else {
        say("nothing was run");
        return exit::REFUSED;
    };
    let wanted = match resume::wanted(plan, args) {
        Ok(wanted) => wanted,
        Err(error) => {
            say(&format!("reiver: --filter: {error}; nothing was run"));
            return exit::REFUSED;
        }
    };
    if args.dry_run {
        return match resume::left_to_run(wanted, args) {
            Ok(plan) => answer(|out| dry_run::show(&plan, out).map(|()| exit::OK)),
            Err(error) => {
                say(&format!("reiver: {error}"));
                exit::REFUSED
            }
        };
    }
    match carry_out(wanted, args, program, console) {
        Ok(code) => code,
        Err(error) => {
            let remedy = match error.raw_os_error() {
                Some(libc::EMFILE) => "; raise the limit with `ulimit -n`",
                _ => "",
            };
            say(&format!("reiver: the run cannot begin: {error}{remedy}"));
            exit::ENGINE_FAILED
        }
    }
}

fn carry_out(
    wanted: Wanted,
    args: &RunArgs,
    program: &Program,
    console: Console,
) -> io::Result<u8> {
    let control = Control::new()?;
    let progress = Arc::new(Progress::default());
    signals::watch(&control, &progress)?;
    let asked_for = [
        ("--joblog", &args.joblog),
        ("--report", &args.report),
        ("--trace", &args.trace),
    ];
    let mut taken = given_files(&args.files);
    let made = asked_for.map(|(option, path)| made(option, path.as_ref(), &mut taken));
    let [joblog, report, trace] = match made {
        [Ok(joblog), Ok(report), Ok(trace)] => [joblog, report, trace],
        refused => {
            for problem in refused.into_iter().filter_map(Result::err) {
                say(&format!("reiver: {problem}; nothing was run"));
            }
            return Ok(exit::REFUSED);
        }
    };
    // Before anything of a run before it is put aside.
    check_room()?;
    let run_id = new_run_id();
    let prepared = match resume::prepare(wanted, args, &run_id, &control) {
        Ok(prepared) => prepared,
        Err(code) => return Ok(code),
    };
    // Not before: they may be those of a run that goes on.
    for made in [&joblog, &report, &trace].into_iter().flatten() {
        if made.file.metadata()?.is_file() {
            made.file.set_len(0)?;
        }
    }
    let joblog = joblog.map(JobLog::new).transpose()?;
    let plan = &Arc::new(prepared.plan);
    progress.of(plan);
    let options = Options {
        run_id,
        state_folder: plan.state_folder(),
        done: prepared.done,
        exit_counts: args.exit_count,
    };
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    let is_json = args.output == Some(Output::Json);
    if is_json {
        let run_id = options.run_id.clone();
        sinks.push(match program.registry.is_empty() {
            true => Box::new(JsonLines::new(streams::stdout(), run_id)),
            // Tasks may print, too.
            false => Box::new(JsonLines::new(streams::stdout_alone()?, run_id)),
        });
    }
    if let Some(joblog) = joblog {
        sinks.push(Box::new(joblog));
    }
    if let Some(report) = report {
        let report = Report::new(BufWriter::new(report), options.run_id.clone());
        sinks.push(Box::new(report));
    }
    if let Some(trace) = trace {
        sinks.push(Box::new(Trace::new(BufWriter::new(trace))));
    }
    let alone = alone(plan, args, program);
    let in_order = args
        .keep_order
        .then(|| InOrder::new(options.done.clone(), options.state_folder.clone()));
    sinks.push(Box::new(Terminal::new(
        console,
        is_json,
        alone,
        in_order,
        Arc::clone(&progress),
    )));
    let outcome = crate::run::run(plan, options, &control, prepared.journal, sinks)?;
    if outcome.unrecorded > 0 {
        let ends = count(outcome.unrecorded, "end");
        say(&format!(
            "reiver: {ends} of jobs could not be recorded: they count as cancelled, and run again \
             with --resume"
        ));
    }
    if let Some(panic) = &outcome.panic {
        say(&format!(
            "reiver: this is a bug of reiver's own, please report it: {}; what ran was ended, and counts as \
             cancelled",
            plain(panic)
        ));
    }
    if let Some(error) = &outcome.trouble {
        trouble(error);
    }
    Ok(outcome.exit)
}

/// A file that is written as the run goes on; its errors say which.
struct Made {
    /// `--report: page.html`.
    what: String,
    file: File,
}

impl Made {
    fn named<R>(&self, result: io::Result<R>) -> io::Result<R> {
        result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.what)))
    }
}

impl Write for Made {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        self.named(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        self.named(flushed)
    }
}

/// A file's device and number there, and what it is already.
type Taken = Vec<((u64, u64), String)>;

/// The files of jobs.
fn given_files(files: &Files) -> Taken {
    let identities = files.files.iter().filter_map(|path| {
        let metadata = fs::metadata(path).ok()?;
        let what = format!("the job file {}", path.display());
        Some(((metadata.dev(), metadata.ino()), what))
    });
    identities.collect()
}

/// The file that an option asks for, made, with what is in it if it is there; the error is what is wrong
/// with it.
fn made(option: &str, path: Option<&OsString>, taken: &mut Taken) -> Result<Option<Made>, String> {
    let Some(path) = path else {
        return Ok(None);
    };
    let what = format!("{option}: {}", path.display());
    let mut options = File::options();
    let made = options.write(true).create(true).truncate(false).open(path);
    let made = made.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = made.map_err(|error| format!("{what}: {error}"))?;
    if metadata.is_file() {
        let identity = (metadata.dev(), metadata.ino());
        if let Some((_, other)) = taken.iter().find(|(taken, _)| *taken == identity) {
            return Err(format!(
                "{what}: this is {other}, and would be written over"
            ));
        }
        taken.push((identity, format!("the file of {option}")));
    }
    Ok(Some(Made { what, file }))
}

/// The command that runs one job of this run alone, but for the job's name at its end; none where
/// a file cannot be read a second time.
fn alone(plan: &Plan, args: &RunArgs, program: &Program) -> Option<String> {
    let mut words = vec![program.to_paste(), "run".to_owned()];
    for source in plan.sources() {
        if source.is_stream {
            return None;
        }
        let given = source.given.as_bytes();
        let dash: &[u8] = if given.starts_with(b"-") { b"./" } else { b"" };
        words.push(to_paste(&[dash, given].concat()));
    }
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    if let Some(format) = args
        .files
        .format
        .and_then(|format| format.to_possible_value())
    {
        option("--format", format.get_name().to_owned());
    }
    for (key, value) in &args.files.set {
        option("--set", to_paste(format!("{key}={value}").as_bytes()));
    }
    let jobs = args.shares.jobs.map(Limit::Cpus);
    for limit in jobs.into_iter().chain(args.shares.limit.iter().copied()) {
        option(
            "--limit",
            match limit {
                Limit::Cpus(slots) => format!("cpus={slots}"),
                Limit::Io(slots) => format!("io={slots}"),
                Limit::Memory(bytes) => format!("memory={bytes}"),
                Limit::Load(load) => format!("load={load}"),
            },
        );
    }
    for (name, list) in [
        ("--pool", &args.shares.pool),
        ("--resource", &args.shares.resource),
    ] {
        for (what, count) in list {
            option(name, to_paste(format!("{what}={count}").as_bytes()));
        }
    }
    if let Some(affinity) = args
        .shares
        .numa
        .and_then(|affinity| affinity.to_possible_value())
    {
        option("--numa", affinity.get_name().to_owned());
    }
    if let Some(fails) = args.shares.max_fails {
        option("--max-fails", fails.to_string());
    }
    words.push("--filter".to_owned());
    Some(words.join(" "))
}
