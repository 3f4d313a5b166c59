//! What must hold of any bytes that are given as a job file: they are read, planned, and what is
//! wrong with them is shown, without a panic; and a plan that comes of them keeps its promises.

use std::path::PathBuf;

use reiver_batch::{Form, Source};

/// Jobs of one plan that are looked at; a matrix may unfold to millions.
const MOST_LOOKED_AT: usize = 200;

/// Takes `text` the whole way to a plan.
pub fn check(form: Form, text: &[u8]) {
    let source = Source {
        given: "jobs".into(),
        folder: PathBuf::from("/folder"),
        is_stream: false,
        form,
        text: text.to_vec(),
    };
    let (shown, plan) = reiver_cli::check(source);
    let Some(plan) = plan else {
        assert!(!shown.is_empty(), "refused without a word");
        return;
    };
    for job in plan.jobs().take(MOST_LOOKED_AT) {
        let name = plan.name(job);
        assert_eq!(plan.find(&name), Some(job), "its name finds another job");
        for need in plan.needs(job) {
            assert_ne!(need.job, job, "it needs itself");
        }
        let _ = (plan.attempt(job, 1), plan.command_text(job));
    }
    if let Some(first) = plan.jobs().next() {
        let name = plan.name(first).into_owned();
        let filtered = plan.filter(&name).expect("the name is there");
        assert_eq!(filtered.plan.len(), 1);
    }
}
