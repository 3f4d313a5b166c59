//! Merged keys, placeholders and what an attempt is started with.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reiver::{Class, Priority};
use reiver_batch::job_file::{Backoff, JobKeys, OtherKeys, RetryKeys};
use reiver_batch::plan::{Command, JobIndex, Overrides, Stderr, Stdout};

use crate::maker::*;

#[test]
fn a_job_that_says_nothing_has_the_documented_defaults() {
    let plan = planned(|m| {
        let keys = m.run("", "make");
        m.job(keys);
    });
    let job = JobIndex(0);
    let settings = plan.settings(job);
    assert_eq!(
        (settings.class, settings.priority),
        (Class::Cpu, Priority::P1)
    );
    assert_eq!((settings.cpus, settings.timeout), (None, None));
    assert_eq!(settings.kill_after, Duration::from_secs(5));
    assert_eq!(
        (settings.retries.count, &*settings.success_codes),
        (0, &[0][..])
    );
    assert_eq!((plan.limits(), plan.max_fails()), (machine().limits, None));
    let attempt = plan.attempt(job, 1);
    assert_eq!(attempt.command, Command::Shell("make".into()));
    assert_eq!(attempt.cwd, PathBuf::from("/files"));
    assert_eq!(
        (attempt.stdout, attempt.stderr),
        (Stdout::Captured, Stderr::Captured)
    );
    assert_eq!((attempt.stdin, attempt.env), (None, vec![]));
    assert_eq!(plan.name_of_run(), "jobs.toml");
    assert_eq!(
        plan.state_folder(),
        PathBuf::from("/files/.reiver/jobs.toml")
    );
}

#[test]
fn env_and_retries_merge_key_by_key_and_other_keys_replace() {
    let plan = planned(|m| {
        let retries = |count, delay: Option<u64>, backoff| RetryKeys {
            count,
            delay: delay.map(Duration::from_secs),
            backoff,
            ..RetryKeys::default()
        };
        let others = OtherKeys {
            env: vec![(m.text("A"), m.text("1")), (m.text("B"), m.text("2"))],
            retries: Some(m.spanned("", retries(Some(2), Some(9), Some(Backoff::Exponential)))),
            success_codes: Some(m.spanned("", vec![1, 2])),
            class: Some(m.spanned("", Class::Io)),
            ..OtherKeys::default()
        };
        m.file.defaults.others = Some(Box::new(others));
        let mut keys = m.run("a", "make");
        keys.env = vec![(m.text("C"), m.text("3")), (m.text("A"), m.text("4"))];
        keys.retries = Some(m.spanned("", retries(None, Some(1), None)));
        keys.success_codes = Some(m.spanned("", vec![3]));
        m.job(keys);
    });
    let settings = plan.settings(JobIndex(0));
    assert_eq!(settings.class, Class::Io);
    assert_eq!(settings.success_codes, [3]);
    assert_eq!(
        (settings.retries.count, settings.retries.delay),
        (2, Duration::from_secs(1))
    );
    assert_eq!(settings.retries.backoff, Backoff::Exponential);
    let env = plan.attempt(JobIndex(0), 1).env;
    let pairs = [("A", "4"), ("B", "2"), ("C", "3")];
    assert_eq!(
        env,
        pairs.map(|(key, value)| (OsString::from(key), OsString::from(value)))
    );
}

#[test]
fn retries_without_a_count_are_refused_in_a_job_and_none_in_defaults() {
    let plan = planned(|m| {
        m.file.defaults.retries = Some(m.spanned("", RetryKeys::default()));
        let keys = m.run("a", "make");
        m.job(keys);
    });
    assert_eq!(plan.settings(JobIndex(0)).retries.count, 0);
    let delay = RetryKeys {
        delay: Some(Duration::from_secs(1)),
        ..RetryKeys::default()
    };
    let make = |m: &mut Maker| {
        let mut keys = m.run("a", "make");
        keys.retries = Some(m.spanned("{ delay = \"1s\" }", delay));
        m.job(keys);
    };
    one_mistake(make, "{ delay = \"1s\" }", "`retries` has no `count`");
}

#[test]
fn placeholders_are_rendered_for_each_attempt_and_paths_are_absolute() {
    let plan = planned(|m| {
        let mut keys = m.run("a-{x}", "");
        keys.run = None;
        let arguments = [
            "./{x}",
            "{name}",
            "{cpus}",
            "{attempt}",
            "{{x}}",
            "{y}",
            "${x}",
        ];
        let arguments = arguments.iter().map(|text| m.text(text)).collect();
        keys.command = Some(m.spanned("", arguments));
        keys.matrix = m.matrix(&[("x", &["it's"])], &[], &[]);
        keys.cpus = Some(m.number(3));
        keys.cwd = Some(m.text("work/{x}"));
        keys.env = vec![(m.text("V"), m.text("{x}{attempt}"))];
        keys.stdin = Some(m.text("/abs/in"));
        keys.stdout = Some(m.text("{name}.{attempt}.out"));
        keys.stderr = Some(m.text("stdout"));
        m.job(keys);
    });
    let attempt = plan.attempt(JobIndex(0), 2);
    let arguments = ["./it's", "a-it's", "3", "2", "{x}", "{y}", "${x}"];
    assert_eq!(
        attempt.command,
        Command::Argv(arguments.iter().map(OsString::from).collect())
    );
    assert_eq!(attempt.cwd, PathBuf::from("/files/work/it's"));
    assert_eq!(attempt.env, [("V".into(), "it's2".into())]);
    assert_eq!(attempt.stdin, Some("/abs/in".into()));
    assert_eq!(
        attempt.stdout,
        Stdout::File("/files/work/it's/a-it's.2.out".into())
    );
    assert_eq!(attempt.stderr, Stderr::Stdout);
    assert_eq!(
        plan.command_text(JobIndex(0)),
        r"'./it'\''s' 'a-it'\''s' 3 1 '{x}' '{y}' '${x}'"
    );
}

#[test]
fn a_text_line_is_taken_as_it_stands_but_its_defaults_have_placeholders() {
    let plan = planned(|m| {
        let others = OtherKeys {
            stdout: Some(m.text("logs/{name}.out")),
            cpus: Some(m.number(2)),
            ..OtherKeys::default()
        };
        let defaults = Arc::new(JobKeys {
            others: Some(Box::new(others)),
            ..JobKeys::default()
        });
        m.line(b"printf \xff {name} '", &defaults);
        m.line(b"echo", &Arc::default());
    });
    assert_eq!(names(&plan), ["line-1", "line-2"]);
    let attempt = plan.attempt(JobIndex(0), 1);
    let Command::Shell(line) = attempt.command else {
        panic!("a line is for the shell")
    };
    assert_eq!(line.as_encoded_bytes(), b"printf \xff {name} '");
    assert_eq!(
        attempt.stdout,
        Stdout::File("/files/logs/line-1.out".into())
    );
    assert_eq!(plan.settings(JobIndex(0)).cpus, Some(2));
    assert_eq!(plan.settings(JobIndex(1)).cpus, None);
    assert_eq!(plan.find("line-2"), Some(JobIndex(1)));
    assert_eq!(plan.find("line-3"), None);
}

#[test]
fn a_value_whose_quoting_cannot_be_told_is_refused_with_env_as_the_way() {
    let mut maker = Maker::new(0);
    let mut keys = maker.run("", "cat <<E\n{x} {x}\nE");
    keys.matrix = maker.matrix(&[("x", &["1"])], &[], &[]);
    maker.job(keys);
    let (plan, _) = plan_files(vec![("-", maker)], &Overrides::default());
    let errors = plan.expect_err("it cannot be quoted");
    assert_eq!(errors.len(), 2);
    assert_eq!(
        errors[0].message,
        "`{x}` cannot be quoted in the body of a here-document"
    );
    assert!(
        errors[0]
            .help
            .as_ref()
            .is_some_and(|help| help.contains("env = "))
    );
    assert_eq!(errors[1].span.start - errors[0].span.start, 4);
}

#[test]
fn a_word_one_slip_away_from_a_key_is_pointed_out_and_stands() {
    let make = |m: &mut Maker| {
        let mut keys = m.run("x", "echo {shrad} {nme} {print} {x} ${shar}");
        keys.matrix = m.matrix(&[("shard", &["1"]), ("n", &["1"])], &[], &[]);
        m.job(keys);
    };
    let message =
        |word| format!("`{{{word}}}` stands as it is, for `{word}` is no key of this job");
    let expected = ["shrad", "nme"].map(|word| (format!("{{{word}}}"), message(word)));
    assert_eq!(said(make), expected);
}

#[test]
fn what_values_make_empty_is_refused() {
    let make = |m: &mut Maker| {
        let mut keys = m.run("{x}", "make");
        keys.stdout = Some(m.text("{x}"));
        keys.matrix = m.matrix(&[("x", &["1", ""])], &[], &[]);
        m.job(keys);
    };
    let said = said(make);
    assert_eq!(said[0].1, "`name` is empty in the cell x=");
    assert_eq!(said[1].1, "`stdout` is empty in the cell x=");
    assert_eq!(said.len(), 2);
}
