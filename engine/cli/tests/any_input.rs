//! No text makes the parsers, the planner or what shows mistakes panic. `fuzz/` looks for longer.

use std::path::PathBuf;

use proptest::prelude::*;
use reiver_batch::{Form, Source};

/// Pieces that job files are made of, so that random rows of them get far.
const PIECES: &[&str] = &[
    "[[job]]\n",
    "[limits]\n",
    "[defaults]\n",
    "[job.matrix]\n",
    "name = ",
    "run = ",
    "command = ",
    "task = ",
    "args = ",
    "needs = ",
    "matrix = ",
    "cpus = ",
    "timeout = ",
    "retries = ",
    "env = ",
    "include = ",
    "exclude = ",
    "\"",
    "'",
    "'''",
    "\"a-{x}\"",
    "'true'",
    "[",
    "]",
    "{",
    "}",
    "{ ",
    " }",
    "x = ",
    ", ",
    "1",
    "0",
    "-1",
    "1.5",
    "true",
    "\n",
    "\r\n",
    "\\",
    "$",
    "$(",
    ")",
    "`",
    "<<E\n",
    "#JOB ",
    "# ",
    "cpus=2 ",
    "timeout=\"1s\" ",
    "env.A=b ",
    "{\"run\": ",
    "\"true\"",
    "{\"name\": \"j\", ",
    "}",
    "\u{feff}",
    "\0",
    "ä",
    "{name}",
    "{{name}}",
    "{x}",
    "*",
    "when = 'always'",
    "[1, 2, 'a b']",
];

fn holds(form: Form, text: Vec<u8>) {
    let (shown, plan) = reiver_cli::check(Source {
        given: "jobs".into(),
        folder: PathBuf::from("/"),
        is_stream: false,
        form,
        text,
    });
    let Some(plan) = plan else {
        assert!(!shown.is_empty(), "refused without a word");
        return;
    };
    for job in plan.jobs().take(100) {
        assert_eq!(plan.find(&plan.name(job)), Some(job));
        let _ = (plan.attempt(job, 1), plan.command_text(job));
    }
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Toml), Just(Form::JsonLines), Just(Form::Text)]
}

proptest! {
    #[test]
    fn any_bytes(form in form(), text in proptest::collection::vec(any::<u8>(), 0..200)) {
        holds(form, text);
    }

    #[test]
    fn any_row_of_pieces(
        form in form(),
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40),
    ) {
        holds(form, pieces.concat().into_bytes());
    }
}
