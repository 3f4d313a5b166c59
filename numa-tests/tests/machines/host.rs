//! Every promise on every machine as a test, in the words of cargo's own tests: a filter, `--list`,
//! `--exact`, `--quiet`. `--test-threads` is how many machines run at once.

use std::collections::VecDeque;
use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use reiver_numa_tests::machines::{Machine, machines};
use reiver_numa_tests::said;

use crate::initramfs;
use crate::promises::{PROMISES, Site};
use crate::requirements::Requirements;
use crate::trial::{Ended, Verdict};
use crate::vm::Vm;

/// A machine to boot, and what is wanted of it.
struct Booking {
    machine: Machine,
    wanted: Vec<Wanted>,
}

/// A promise in a stance, and who waits for it.
struct Wanted {
    stance: &'static str,
    promise: &'static str,
    says: Sender<Result<Ended, String>>,
}

pub(crate) fn run() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let requirements = Requirements::find();
    let is_silent = !arguments.nocapture;
    let (trials, bookings) = tests(&arguments, is_silent);
    let at_once = arguments.test_threads.take();
    // In order; they only wait for what others bring.
    arguments.test_threads = Some(1);
    if arguments.list || bookings.is_empty() {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    match requirements {
        Ok(requirements) => {
            let cpus = thread::available_parallelism().map_or(1, |cpus| cpus.get());
            let at_once = at_once.unwrap_or(cpus);
            let folder = tempfile::tempdir().expect("a temporary folder");
            let initramfs = folder.path().join("initramfs");
            initramfs::write(&initramfs, &requirements).expect("a file system for the machines");
            let bookings = Mutex::new(VecDeque::from(bookings));
            thread::scope(|scope| {
                for _ in 0..at_once.max(1) {
                    scope.spawn(|| serve(&bookings, &requirements, &initramfs, folder.path()));
                }
                libtest_mimic::run(&arguments, trials).exit_code()
            })
        }
        Err(missing) => without_machines(&arguments, trials, bookings, &missing),
    }
}

/// All tests, and what those that are not filtered out need.
fn tests(arguments: &Arguments, is_silent: bool) -> (Vec<Trial>, Vec<Booking>) {
    let (mut trials, mut bookings) = (Vec::new(), Vec::new());
    for machine in machines() {
        let mut wanted = Vec::new();
        for stance in &machine.stances {
            let site = Site::told(&machine.told(stance), stance);
            for promise in PROMISES {
                if promise.lacks(&site).is_some() {
                    continue;
                }
                let path = [machine.layout.name.as_str(), stance.name, promise.name];
                let path: Vec<&str> = path.into_iter().filter(|part| !part.is_empty()).collect();
                let (says, waits) = channel();
                let trial = trial(path.join("::"), waits, is_silent);
                if !arguments.is_filtered_out(&trial) {
                    wanted.push(Wanted {
                        stance: stance.name,
                        promise: promise.name,
                        says,
                    });
                }
                trials.push(trial);
            }
        }
        if !wanted.is_empty() {
            bookings.push(Booking { machine, wanted });
        }
    }
    (trials, bookings)
}

fn trial(name: String, waits: Receiver<Result<Ended, String>>, is_silent: bool) -> Trial {
    Trial::ignorable_test(name, move || {
        let ended = waits.recv().map_err(|_| Failed::from("nobody ran it"))??;
        if !is_silent {
            print!("{}", ended.output);
        }
        match ended.verdict() {
            Verdict::Holds => Ok(Completion::Completed),
            Verdict::NotHeld(reason) => Ok(Completion::ignored_with(reason)),
            Verdict::Broken(how) => Err(how.into()),
        }
    })
}

/// Boots one machine after the other.
fn serve(
    bookings: &Mutex<VecDeque<Booking>>,
    requirements: &Requirements,
    initramfs: &Path,
    folder: &Path,
) {
    let next = || {
        let mut bookings = bookings.lock().unwrap_or_else(PoisonError::into_inner);
        bookings.pop_front()
    };
    while let Some(Booking { machine, wanted }) = next() {
        let mut vm = Vm::boot(&machine, requirements, initramfs, folder);
        for wanted in wanted {
            let ended = match &mut vm {
                Ok(running) => running.run(wanted.stance, wanted.promise).map(|mut ended| {
                    if matches!(ended.verdict(), Verdict::Broken(_)) {
                        ended.output.push_str(&running.console_tail());
                    }
                    ended
                }),
                // In full to the first, to the others only how.
                Err(lost) => {
                    let how = lost.lines().next().unwrap_or_default().to_owned();
                    Err(std::mem::replace(lost, how))
                }
            };
            if let (Err(lost), Ok(_)) = (&ended, &vm) {
                let how = lost.lines().next().unwrap_or_default();
                vm = Err(format!("not run, for its machine is gone: {how}"));
            }
            // Nobody waits any more once the run has been broken off.
            let _ = wanted.says.send(ended);
        }
    }
}

/// All tests are skipped, or where they must not be, fail.
fn without_machines(
    arguments: &Arguments,
    trials: Vec<Trial>,
    bookings: Vec<Booking>,
    missing: &[String],
) -> ExitCode {
    let is_required = env::var_os("REIVER_REQUIRE_VM").is_some_and(|value| value == "1");
    let wanted: Vec<Wanted> = bookings.into_iter().flat_map(|b| b.wanted).collect();
    let missing = missing.join("\n  ");
    if is_required {
        for wanted in &wanted {
            let _ = wanted
                .says
                .send(Err("REIVER_REQUIRE_VM=1, and no machine".into()));
        }
        said(&format!(
            "REIVER_REQUIRE_VM=1, but no machine can be booted:\n  {missing}"
        ));
    } else {
        for wanted in &wanted {
            let _ = wanted
                .says
                .send(Ok(Ended::not_held("no machine can be booted")));
        }
        said(&format!(
            "skipped, on emulated machines: {} of the tests:\n  {missing}",
            wanted.len()
        ));
    }
    libtest_mimic::run(arguments, trials).exit_code()
}
