//! Spans of jobs: one for each, with what it was, within those that they belong to.

#[path = "engine/watchdog.rs"]
mod watchdog;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};

use reiver::{Class, Engine, JobContext, Priority};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use watchdog::watched;

#[derive(Debug, Default, Clone)]
struct Seen {
    fields: HashMap<String, String>,
    parent: Option<u64>,
    entered: usize,
    events: usize,
}

#[derive(Debug, Default)]
struct State {
    spans: Vec<Seen>,
    /// By thread.
    current: HashMap<std::thread::ThreadId, Vec<u64>>,
}

/// Keeps all spans, by number from 1 on.
#[derive(Debug, Default, Clone)]
struct Keeps(Arc<Mutex<State>>);

struct Fields<'s>(&'s mut HashMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        let text = text.trim_matches('"').to_owned();
        self.0.insert(field.name().to_owned(), text);
    }
}

impl Keeps {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn named(&self, name: &str) -> Seen {
        let state = self.state();
        let is_it = |span: &&Seen| span.fields.get("name").is_some_and(|known| known == name);
        let found: Vec<_> = state.spans.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "one span for {name}");
        found[0].clone()
    }
}

impl Subscriber for Keeps {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut seen = Seen::default();
        span.record(&mut Fields(&mut seen.fields));
        let mut state = self.state();
        let current = || {
            let of_thread = state.current.get(&std::thread::current().id());
            of_thread.and_then(|spans| spans.last().copied())
        };
        seen.parent = match span.parent() {
            Some(parent) => Some(parent.into_u64()),
            None if span.is_contextual() => current(),
            None => None,
        };
        state.spans.push(seen);
        Id::from_u64(state.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let index = usize::try_from(span.into_u64()).unwrap() - 1;
        values.record(&mut Fields(&mut self.state().spans[index].fields));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {
        let mut state = self.state();
        let of_thread = state.current.get(&std::thread::current().id());
        if let Some(&span) = of_thread.and_then(|spans| spans.last()) {
            state.spans[usize::try_from(span).unwrap() - 1].events += 1;
        }
    }

    fn enter(&self, span: &Id) {
        let mut state = self.state();
        let thread = std::thread::current().id();
        state
            .current
            .entry(thread)
            .or_default()
            .push(span.into_u64());
        state.spans[usize::try_from(span.into_u64()).unwrap() - 1].entered += 1;
    }

    fn exit(&self, span: &Id) {
        let thread = std::thread::current().id();
        let mut state = self.state();
        let left = state.current.get_mut(&thread).and_then(Vec::pop);
        assert_eq!(left, Some(span.into_u64()));
    }
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// One test, for a process has one subscriber.
#[test]
fn each_job_has_a_span_within_its_trace() {
    watched();
    let engine = Engine::builder().cpu_workers(2).build().unwrap();
    // Nobody records: nothing is made.
    let none = engine.submit(|ctx: &JobContext| ctx.traceparent());
    assert_eq!(none.join().unwrap(), None);

    let keeps = Keeps::default();
    tracing::subscriber::set_global_default(keeps.clone()).unwrap();

    let outer = engine.job().name("outer").priority(Priority::P0);
    let inner = outer.submit(|ctx| {
        tracing::info!("said inside");
        let inner = ctx.engine().job().name("inner").class(Class::Io);
        let inner = inner.submit(|ctx| ctx.traceparent().unwrap()).unwrap();
        (ctx.traceparent().unwrap(), inner.join().unwrap())
    });
    let (outer_says, inner_says) = inner.unwrap().join().unwrap();
    let (outer, inner) = (keeps.named("outer"), keeps.named("inner"));
    let text = |seen: &Seen| {
        let (trace, span) = (&seen.fields["trace_id"], &seen.fields["span_id"]);
        format!("00-{trace}-{span}-01")
    };
    assert_eq!((text(&outer), text(&inner)), (outer_says, inner_says));
    assert_eq!(outer.fields["trace_id"], inner.fields["trace_id"]);
    assert_eq!(inner.fields["parent_id"], outer.fields["span_id"]);
    assert!(!outer.fields.contains_key("parent_id"));
    assert_eq!(
        (&*outer.fields["class"], &*outer.fields["priority"]),
        ("Cpu", "P0")
    );
    assert_eq!(
        (&*inner.fields["class"], &*inner.fields["outcome"]),
        ("Io", "completed")
    );
    assert_eq!((outer.entered, outer.events), (1, 1));

    // A trace that came from elsewhere, and one that is none.
    let given = engine.job().name("given").traceparent(PARENT);
    given.submit(|_| ()).unwrap().join().unwrap();
    let given = keeps.named("given");
    assert_eq!(given.fields["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(given.fields["parent_id"], "00f067aa0ba902b7");
    let wrong = engine.job().name("wrong").traceparent("nonsense");
    wrong.submit(|_| ()).unwrap().join().unwrap();
    assert!(!keeps.named("wrong").fields.contains_key("parent_id"));

    // A panic is an outcome.
    let panics = engine.job().name("panics");
    let panics = panics.submit(|_| std::panic::resume_unwind(Box::new("meant")));
    let outcome: Result<(), _> = panics.unwrap().join();
    assert!(outcome.is_err());
    assert_eq!(keeps.named("panics").fields["outcome"], "panicked");

    // Those submitted together have a span each.
    let before = keeps.state().spans.len();
    let many = engine.submit_many((0..50).map(|_| |ctx: &JobContext| ctx.traceparent()));
    let mut all: Vec<_> = many.into_iter().map(|job| job.join().unwrap()).collect();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), keeps.state().spans.len() - before), (50, 50));

    #[cfg(feature = "tokio")]
    {
        let future = engine.job().name("future").spawn_future(async {
            tracing::info!("said inside");
            tokio::task::yield_now().await;
            tracing::info!("and again");
        });
        future.unwrap().join().unwrap();
        let future = keeps.named("future");
        assert_eq!((future.entered, future.events), (2, 2));
        assert_eq!(future.fields["outcome"], "completed");
    }
    // Once it is joined a job's span is not entered any more.
    assert!(keeps.state().current.values().all(Vec::is_empty));
}
