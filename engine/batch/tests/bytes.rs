//! What a queued job costs in memory: at most 300 bytes over its text, at the most that a run ever has until
//! its first job starts. In a program of its own, so that it counts its own bytes alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reiver::Topology;
use reiver_batch::event::{Event, EventKind, Sink};
use reiver_batch::plan::{Machine, Overrides, read_and_plan};
use reiver_batch::run::{Control, Options, new_run_id, run};
use reiver_batch::{Form, Plan, Registry, Source};

/// Counts the bytes that are allocated, each object's in whole words.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn words(layout: Layout) -> usize {
    layout.size().next_multiple_of(8)
}

// SAFETY: it does what the system's does, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(words(layout), Ordering::Relaxed) + words(layout);
        MOST.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(words(layout), Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// So many that what a run takes whatever its jobs is little.
const JOBS: usize = 30_000;
const BYTES_MAX: usize = 300;

/// Ends the run as its first job starts.
struct First {
    control: Arc<Control>,
    most: Arc<AtomicUsize>,
}

impl Sink for First {
    fn event(&mut self, _: &Plan, event: &Event) -> io::Result<()> {
        let is_first = self.most.load(Ordering::Relaxed) == 0;
        if is_first && matches!(event.kind, EventKind::JobStarted { .. }) {
            let most = MOST.load(Ordering::Relaxed);
            self.most.store(most, Ordering::Relaxed);
            self.control.cancel(None);
        }
        Ok(())
    }
}

/// The most bytes that reading, planning and starting a file take over its text, for each of its jobs.
fn bytes_a_job(form: Form, job: impl Fn(usize) -> String) -> usize {
    let mut text = String::new();
    for number in 0..JOBS {
        writeln!(text, "{}", job(number)).expect("a text takes all");
    }
    let before = LIVE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let source = Source {
        given: "jobs".into(),
        folder: "/".into(),
        is_stream: true,
        form,
        text: text.into_bytes(),
    };
    let machine = Machine::new(Topology::synthetic("Core:2").expect("a machine"), None);
    let (plan, found) = read_and_plan(
        vec![source.into()],
        &Overrides::default(),
        &machine,
        &Registry::new(),
    );
    assert!(found.is_empty(), "{:?}", found.first());
    let mut plan = plan.expect("nothing is wrong");
    assert_eq!(plan.len(), JOBS);
    plan.identify();
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        run_id: new_run_id(),
        state_folder: folder.path().to_owned(),
        done: Vec::new(),
        exit_counts: false,
    };
    let control = Arc::new(Control::new().expect("descriptors"));
    let most = Arc::new(AtomicUsize::new(0));
    let first = First {
        control: Arc::clone(&control),
        most: Arc::clone(&most),
    };
    run(&plan.into(), options, &control, None, vec![Box::new(first)]).expect("it begins");
    let most = most.load(Ordering::Relaxed);
    assert!(most > 0, "no job has started");
    (most - before) / JOBS
}

#[test]
fn a_queued_job_takes_at_most_300_bytes_over_its_text() {
    type Job = fn(usize) -> String;
    let files: [(&str, Form, Job); 10] = [
        ("lines", Form::Text, |n| format!("true {n:07}")),
        ("names, JSON", Form::JsonLines, |n| {
            format!(r#"{{"name": "j{n:07}", "command": ["/bin/true"]}}"#)
        }),
        ("names, TOML", Form::Toml, |n| {
            format!("[[job]]\nname = \"j{n:07}\"\ncommand = [\"/bin/true\"]\n")
        }),
        ("lines without a name, TOML", Form::Toml, |n| {
            format!("[[job]]\nrun = \"true {n:07}\"\n")
        }),
        ("an env each, JSON", Form::JsonLines, |n| {
            format!(r#"{{"name": "j{n:07}", "command": ["/bin/true"], "env": {{"SHARD": "{n}"}}}}"#)
        }),
        ("an env each, TOML", Form::Toml, |n| {
            format!("[[job]]\nname = \"j{n:07}\"\nrun = \"true\"\n[job.env]\nSHARD = {n}\n")
        }),
        ("each needs the one before, JSON", Form::JsonLines, |n| {
            let before = n.saturating_sub(1);
            let needs = if n == 0 {
                "[]".to_owned()
            } else {
                format!("[\"j{before:07}\"]")
            };
            format!(r#"{{"name": "j{n:07}", "command": ["/bin/true"], "needs": {needs}}}"#)
        }),
        ("each needs the one behind, TOML", Form::Toml, |n| {
            let needs = match n + 1 {
                JOBS => String::new(),
                next => format!("needs = [\"j{next:07}\"]\n"),
            };
            format!("[[job]]\nname = \"j{n:07}\"\nrun = \"true\"\n{needs}")
        }),
        ("half need the other half, JSON", Form::JsonLines, |n| {
            let (stage, needs) = if n < JOBS / 2 {
                ("a", "[]")
            } else {
                ("b", r#"["a*"]"#)
            };
            format!(r#"{{"name": "{stage}{n:07}", "command": ["/bin/true"], "needs": {needs}}}"#)
        }),
        (
            "half need the other half and the one before, JSON",
            Form::JsonLines,
            |n| {
                let (stage, needs) = match n.checked_sub(JOBS / 2) {
                    None => ("a", "[]".to_owned()),
                    Some(0) => ("b", r#"["a*"]"#.to_owned()),
                    Some(_) => ("b", format!(r#"["a*", "b{:07}"]"#, n - 1)),
                };
                format!(
                    r#"{{"name": "{stage}{n:07}", "command": ["/bin/true"], "needs": {needs}}}"#
                )
            },
        ),
    ];
    let taken = files.map(|(what, form, job)| (what, bytes_a_job(form, job)));
    for (what, bytes) in &taken {
        println!("{bytes} bytes a job: {what}");
    }
    let over = taken.iter().filter(|(_, bytes)| *bytes > BYTES_MAX);
    assert_eq!(over.collect::<Vec<_>>(), [&("", 0); 0]);
}
