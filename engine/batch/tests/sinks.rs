//! Who is told of a run. In a program of its own, for a run reaps what nobody waits for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reiver::Topology;
use reiver_batch::event::{Event, EventKind, Sink};
use reiver_batch::plan::{Machine, Overrides, plan};
use reiver_batch::run::{Control, Options, new_run_id, run};
use reiver_batch::{Form, Plan, Source, SourceId, read};

struct Panics;

impl Sink for Panics {
    fn event(&mut self, _: &Plan, event: &Event) -> io::Result<()> {
        assert!(!matches!(event.kind, EventKind::JobFinished { .. }));
        Ok(())
    }
}

struct Hears(Arc<AtomicUsize>);

impl Sink for Hears {
    fn event(&mut self, _: &Plan, event: &Event) -> io::Result<()> {
        let is_end = matches!(event.kind, EventKind::RunFinished { .. });
        self.0.fetch_add(usize::from(is_end), Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn one_that_panics_has_failed_and_keeps_nothing_from_the_others() {
    let source = Source {
        given: "lines".into(),
        folder: "/".into(),
        is_stream: true,
        form: Form::Text,
        // More than may wait for those who are told.
        text: "true\n".repeat(600).into(),
    };
    let (file, _) = read::read(SourceId(0), &source);
    let machine = Machine::new(Topology::synthetic("Core:2").expect("a machine"), None);
    let (plan, _) = plan(
        vec![source.into()],
        vec![file],
        &Overrides::default(),
        &machine,
    );
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        run_id: new_run_id(),
        state_folder: folder.path().to_owned(),
        done: Vec::new(),
        exit_counts: false,
    };
    let heard = Arc::default();
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(Panics), Box::new(Hears(Arc::clone(&heard)))];
    let control = Control::new().expect("descriptors");
    let plan = plan.expect("nothing is wrong").into();
    let outcome = run(&plan, options, &control, None, sinks).expect("it begins");
    let trouble = outcome.trouble.expect("one has failed").to_string();
    assert!(trouble.contains("panicked"), "{trouble}");
    assert_eq!(heard.load(Ordering::Relaxed), 1);
}
