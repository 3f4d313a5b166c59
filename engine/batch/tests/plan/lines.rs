//! Files with a job a line, which are planned as they are read: with the same result as if they were
//! read whole first.

use std::path::PathBuf;
use std::sync::Arc;

use reiver_batch::plan::{JobIndex, Overrides, Plan, plan_with, read_and_plan};
use reiver_batch::{Diagnostic, Form, Registry, Severity, Source, SourceId, read};

use crate::maker::machine;

fn source(given: &str, form: Form, text: &[u8]) -> Arc<Source> {
    Arc::new(Source {
        given: given.into(),
        folder: PathBuf::from("/files"),
        is_stream: false,
        form,
        text: text.to_vec(),
    })
}

/// What can be told of a plan.
fn told(plan: &Plan) -> Vec<String> {
    let job = |job: JobIndex| {
        let (name, attempt) = (plan.name(job), plan.attempt(job, 1));
        let (settings, needs) = (plan.settings(job), Vec::from_iter(plan.needs(job)));
        format!("{name}: {attempt:?} {settings:?} {needs:?}")
    };
    plan.jobs().map(job).collect()
}

fn both_ways(sources: &[Arc<Source>]) -> (Option<Vec<String>>, Vec<Diagnostic>) {
    let (overrides, registry) = (Overrides::default(), Registry::new());
    let read = (0..).map(SourceId).zip(sources);
    let read = read.map(|(id, source)| read::read(id, source));
    let (files, found): (Vec<_>, Vec<_>) = read.unzip();
    let mut diagnostics = found.concat();
    let (plan, found) = plan_with(sources.to_vec(), files, &overrides, &machine(), &registry);
    diagnostics.extend(found);
    let is_error = |finding: &Diagnostic| finding.severity == Severity::Error;
    let has_errors = diagnostics.iter().any(is_error);
    let plan = plan.filter(|_| !has_errors).as_ref().map(told);

    let (at_once, found) = read_and_plan(sources.to_vec(), &overrides, &machine(), &registry);
    let sorted = |mut found: Vec<Diagnostic>| {
        found.sort_by_key(|finding| (finding.source, finding.span.start));
        found
    };
    let diagnostics = sorted(diagnostics);
    assert_eq!(sorted(found), diagnostics);
    assert_eq!(at_once.as_ref().map(told), plan);
    (plan, diagnostics)
}

#[test]
fn what_is_planned_line_by_line_is_what_is_read_whole_and_planned() {
    let json = source(
        "a.jsonl",
        Form::JsonLines,
        b"{\"name\":\"one\",\"command\":[\"a b\",\"\",\"{x}\"]}\n\n\
          {\"run\":\"echo {cpus} {name}\",\"cpus\":2,\"needs\":[\"one\"]}\n\
          {\"run\":\"echo\",\"env\":{\"A\":\"b\"},\"cwd\":\"c\",\"needs\":[{\"job\":\"one\",\"when\":\"always\"}]}\n\
          {\"command\":[\"{n}\",\"-{n}\"],\"matrix\":{\"n\":[1,2]}}\n\
          {\"command\":[\"last\"]}",
    );
    let text = source(
        "b.jobs",
        Form::Text,
        b"first\n#JOB cpus=2\nsecond\n\n# said\nthird\xff\n#JOB cpus=1 stdout=\"out\"\nfourth\n",
    );
    let toml = source(
        "c.toml",
        Form::Toml,
        b"[limits]\ncpus = 2\n[defaults]\ncwd = \"in\"\n[[job]]\nrun = \"true\"\n",
    );
    let (plan, found) = both_ways(&[json, text, toml]);
    let plan = plan.expect("nothing is wrong");
    assert_eq!(found.len(), 0, "{found:?}");
    assert_eq!(plan.len(), 6 + 4 + 1);
    assert!(
        plan[0].contains(r#"Argv(["a b", "", "{x}"])"#),
        "{}",
        plan[0]
    );
}

#[test]
fn mistakes_are_the_same_whether_a_file_is_read_whole_or_line_by_line() {
    let wrong = source(
        "a.jsonl",
        Form::JsonLines,
        b"{\"name\":\"one\",\"run\":\"a\",\"cpus\":64}\n[]\n{\"run\":\n{\"name\":\"one\",\"command\":[]}\n\
          {\"run\":\"b\",\"colour\":1}\n{\"run\":\"c\",\"retries\":{}}\n\
          {\"command\":[\"d\",\"{name}\"],\"name\":\"{nam}\"}\n{\"run\":\"e\",\"cpus\":64}\n",
    );
    let text = source(
        "b.jobs",
        Form::Text,
        b"a\n#JOB cpu=2\nb\0\n#JOB cpus=64\nc\n",
    );
    let (plan, found) = both_ways(&[Arc::clone(&wrong), text, Arc::clone(&wrong)]);
    assert!(plan.is_none());
    assert!(found.len() > 15, "{found:?}");

    // Of whom a line that cannot be read may be, nothing can be said.
    let needing = source(
        "a.jsonl",
        Form::JsonLines,
        b"{\"run\":\"c\",\"needs\":[\"nobody\"]}\n",
    );
    let (plan, found) = both_ways(&[needing]);
    assert!(plan.is_none());
    assert_eq!(found.len(), 1, "{found:?}");
    let no_utf8 = source("a.jsonl", Form::JsonLines, b"{\"run\":\"\xff\"}\n");
    let (plan, found) = both_ways(&[no_utf8]);
    assert!(plan.is_none());
    assert_eq!(found.len(), 1, "{found:?}");
}
