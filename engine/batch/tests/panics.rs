//! What becomes of a run whose own code panics. Each in a process of its own, for a run reaps what nobody waits
//! for; and what panics is who is told of a warning, for nothing else is known that does.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use reiver::Topology;
use reiver_batch::plan::{Machine, Overrides, read_and_plan};
use reiver_batch::run::{Control, Options, new_run_id, run};
use reiver_batch::{Form, Registry, Source, TaskContext};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Panics at a warning that says one of these.
struct Panics;

const AT: [&str; 2] = ["cannot keep the output", "was asked to end and goes on"];

impl Subscriber for Panics {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Panics);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Panics {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        let said = format!("{value:?}");
        assert!(!AT.iter().any(|at| said.contains(at)), "a bug: {said}");
    }
}

/// Has this program, started anew, do a test in a folder; the files of others have no place there.
fn in_own_process(name: &str, test: fn(&Path)) {
    const FOLDER: &str = "REIVER_TEST_FOLDER";
    if let Some(folder) = std::env::var_os(FOLDER) {
        tracing::subscriber::set_global_default(Panics).expect("there is no other");
        thread::spawn(|| {
            thread::sleep(Duration::from_secs(300));
            eprintln!("a test hangs: the watchdog ends the process");
            std::process::abort();
        });
        return test(&PathBuf::from(folder));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = std::env::current_exe().expect("this program");
    let ended = Command::new(program)
        .args(["--exact", name, "--nocapture"])
        .env(FOLDER, folder.path())
        .env("TMPDIR", "/dev/null/none")
        .status()
        .expect("it starts");
    assert!(ended.success(), "{ended}");
    for file in ["leader", "child", "own"] {
        let Ok(pid) = fs::read_to_string(folder.path().join(file)) else {
            assert_eq!(file, "own", "it has started");
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        // Somebody else is to reap it.
        let has_ended = stat.as_ref().map_or(true, |stat| stat.contains(") Z "));
        assert!(has_ended, "{file}: {stat:?}");
    }
}

/// Carries out jobs, one of which makes the engine panic, beside a family.
fn assert_ends(folder: &Path, panics: &str, registry: &Registry) {
    let source = Source {
        given: "jobs.toml".into(),
        folder: folder.to_owned(),
        is_stream: false,
        form: Form::Toml,
        text: format!("{FAMILY}{panics}").into(),
    };
    let machine = Machine::new(Topology::synthetic("Core:4").expect("a machine"), None);
    let sources = vec![source.into()];
    let (plan, found) = read_and_plan(sources, &Overrides::default(), &machine, registry);
    let plan = plan.unwrap_or_else(|| panic!("{found:?}")).into();
    // A file, in which there is no place for output.
    fs::write(folder.join("state"), "").expect("the folder takes files");
    let options = Options {
        run_id: new_run_id(),
        state_folder: folder.join("state"),
        done: Vec::new(),
        exit_counts: false,
    };
    let control = Control::new().expect("descriptors");
    let outcome = run(&plan, options, &control, None, Vec::new()).expect("it begins");
    assert_eq!(outcome.exit, 3, "{outcome:?}");
    let panic = outcome.panic.as_deref().unwrap_or_default();
    assert!(panic.starts_with("a bug: "), "{outcome:?}");
    let summary = outcome.summary;
    assert_eq!(
        summary.succeeded + summary.cancelled,
        plan.len(),
        "{summary:?}"
    );
}

/// A job that says its number, and that of a child with a session of its own, and what waits for both.
const FAMILY: &str = "[[job]]\nname = 'family'\nrun = '''\n\
    setsid sh -c 'echo $$ > child.new; mv child.new child; exec sleep 1000' &\n\
    echo $$ > leader.new; mv leader.new leader; sleep 1000'''\n\
    [[job]]\nname = 'ready'\nrun = 'until [ -e leader ] && [ -e child ]; do sleep 0.01; done'\n\
    [[job]]\nneeds = ['family']\nrun = 'true'\n";

#[test]
fn a_panic_on_the_thread_of_an_attempt_ends_the_run_and_all_that_runs() {
    let name = "a_panic_on_the_thread_of_an_attempt_ends_the_run_and_all_that_runs";
    in_own_process(name, |folder| {
        let prints = "[[job]]\nneeds = ['ready']\n\
                      run = 'echo $$ > own; head -c 1000000 /dev/zero; sleep 1000'\n";
        assert_ends(folder, prints, &Registry::new());
    });
}

#[test]
fn a_panic_of_who_decides_ends_the_run_and_all_that_runs() {
    let name = "a_panic_of_who_decides_ends_the_run_and_all_that_runs";
    in_own_process(name, |folder| {
        #[derive(serde::Deserialize)]
        struct Nothing {}
        let mut registry = Registry::new();
        let stays = |_: Nothing, _: &TaskContext<'_>| -> Result<(), String> {
            loop {
                thread::park();
            }
        };
        registry.task("stays", stays);
        let stays = "[[job]]\nneeds = ['ready']\ntask = 'stays'\ntimeout = '1ms'\n";
        assert_ends(folder, stays, &registry);
    });
}
