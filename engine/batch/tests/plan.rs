//! Job files, as reading hands them on, made into plans: the rules of the format.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reiver::{Class, Priority};
use reiver_batch::job_file::{
    Backoff, Entry, JobFile, JobKeys, LimitKeys, MatrixKeys, NeedKey, RetryKeys, When,
};
use reiver_batch::plan::{Command, JobIndex, Limits, Need, Overrides, Plan, Stderr, Stdout, plan};
use reiver_batch::source::Spanned;
use reiver_batch::{Diagnostic, Form, Severity, Source, SourceId};

/// A file in the making: its text holds what its values say, so that spans can be checked.
struct Maker {
    text: Vec<u8>,
    file: JobFile,
}

impl Maker {
    fn new(source: u32) -> Self {
        let file = JobFile {
            source: SourceId(source),
            name: None,
            max_fails: None,
            limits: LimitKeys::default(),
            defaults: JobKeys::default(),
            entries: Vec::new(),
        };
        Self {
            text: Vec::new(),
            file,
        }
    }

    fn spanned<T>(&mut self, written: &str, value: T) -> Spanned<T> {
        let begin = self.text.len();
        self.text.extend(written.bytes());
        let span = begin..self.text.len();
        self.text.push(b'\n');
        Spanned { value, span }
    }

    fn text(&mut self, text: &str) -> Spanned<String> {
        self.spanned(&format!("{text:?}"), text.to_owned())
    }

    fn number(&mut self, number: u32) -> Spanned<u32> {
        self.spanned(&number.to_string(), number)
    }

    fn job(&mut self, keys: JobKeys) {
        let place = u32::try_from(self.file.entries.len()).expect("few") + 1;
        let span = self.spanned("[[job]]", ()).span;
        self.file.entries.push(Entry::Table {
            place,
            span,
            keys: Box::new(keys),
        });
    }

    /// A job with a `run` line.
    fn run(&mut self, name: &str, run: &str) -> JobKeys {
        let name = (!name.is_empty()).then(|| self.text(name));
        JobKeys {
            name,
            run: Some(self.text(run)),
            ..JobKeys::default()
        }
    }

    fn need(&mut self, text: &str, when: When) -> Spanned<NeedKey> {
        let job = self.text(text);
        Spanned {
            span: job.span.clone(),
            value: NeedKey { job, when },
        }
    }

    /// A named job that does nothing but need.
    fn needing(&mut self, name: &str, needs: &[&str]) {
        let mut keys = self.run(name, "/bin/true");
        keys.needs = needs
            .iter()
            .map(|need| self.need(need, When::Success))
            .collect();
        self.job(keys);
    }

    fn matrix(
        &mut self,
        axes: &[(&str, &[&str])],
        include: &[&[(&str, &str)]],
        exclude: &[&[(&str, &str)]],
    ) -> Option<Spanned<MatrixKeys>> {
        let axes = axes
            .iter()
            .map(|(key, values)| {
                (
                    self.text(key),
                    values.iter().map(|v| self.text(v)).collect(),
                )
            })
            .collect();
        let mut cells = |cells: &[&[(&str, &str)]]| {
            let pair =
                |maker: &mut Self, key: &str, value: &str| (maker.text(key), maker.text(value));
            cells
                .iter()
                .map(|cell| {
                    let value = cell
                        .iter()
                        .map(|(key, value)| pair(self, key, value))
                        .collect();
                    self.spanned("{}", value)
                })
                .collect()
        };
        let value = MatrixKeys {
            axes,
            include: cells(include),
            exclude: cells(exclude),
        };
        Some(self.spanned("matrix", value))
    }

    fn line(&mut self, line: &[u8], defaults: &Arc<JobKeys>) {
        let number = u32::try_from(self.file.entries.len()).expect("few") + 1;
        let begin = self.text.len();
        self.text.extend(line);
        let span = begin..self.text.len();
        self.text.push(b'\n');
        let defaults = Arc::clone(defaults);
        self.file.entries.push(Entry::Line {
            line: number,
            span,
            defaults,
        });
    }
}

const MACHINE: Limits = Limits { cpus: 4, io: 64 };

fn plan_files(
    makers: Vec<(&str, Maker)>,
    overrides: &Overrides,
) -> (Result<Plan, Vec<Diagnostic>>, Vec<Diagnostic>) {
    let (mut sources, mut files) = (Vec::new(), Vec::new());
    for (given, maker) in makers {
        sources.push(Arc::new(Source {
            given: given.into(),
            folder: PathBuf::from("/files"),
            is_stream: given == "-",
            form: Form::Toml,
            text: maker.text,
        }));
        files.push(maker.file);
    }
    let (plan, findings) = plan(sources, files, overrides, MACHINE);
    let (errors, warnings): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|finding| finding.severity == Severity::Error);
    assert_eq!(plan.is_none(), !errors.is_empty(), "{errors:?}");
    (plan.ok_or(errors), warnings)
}

fn planned(make: impl FnOnce(&mut Maker)) -> Plan {
    let mut maker = Maker::new(0);
    make(&mut maker);
    plan_files(vec![("jobs.toml", maker)], &Overrides::default())
        .0
        .expect("no mistakes")
}

/// What is said of a file, each with the text that it underlines.
fn said(make: impl FnOnce(&mut Maker)) -> Vec<(String, String)> {
    let mut maker = Maker::new(0);
    make(&mut maker);
    let text = maker.text.clone();
    let (plan, warnings) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
    let underlined = |finding: &Diagnostic| {
        String::from_utf8(text[finding.span.clone()].to_vec()).expect("UTF-8")
    };
    let errors = plan.err().unwrap_or_default();
    let findings = errors.iter().chain(&warnings);
    findings
        .map(|finding| (underlined(finding), finding.message.clone()))
        .collect()
}

/// One mistake, underlined and named.
#[track_caller]
fn one_mistake(make: impl FnOnce(&mut Maker), underlined: &str, message: &str) {
    assert_eq!(said(make), [(underlined.to_owned(), message.to_owned())]);
}

fn names(plan: &Plan) -> Vec<String> {
    plan.jobs().map(|job| plan.name(job).into_owned()).collect()
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.jobs()
        .map(|job| plan.command_text(job).into_string().expect("UTF-8"))
        .collect()
}

fn needs(plan: &Plan, name: &str) -> Vec<String> {
    let job = plan.find(name).expect("it is there");
    plan.needs(job)
        .iter()
        .map(|need| plan.name(need.job).into_owned())
        .collect()
}

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
    assert_eq!((plan.limits(), plan.max_fails()), (MACHINE, None));
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
        m.file.defaults = JobKeys {
            env: vec![(m.text("A"), m.text("1")), (m.text("B"), m.text("2"))],
            retries: Some(m.spanned("", retries(Some(2), Some(9), Some(Backoff::Exponential)))),
            success_codes: Some(m.spanned("", vec![1, 2])),
            class: Some(m.spanned("", Class::Io)),
            ..JobKeys::default()
        };
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
fn only_matrix_keys_are_known_in_name_and_needs() {
    let plan = planned(|m| {
        m.needing("{cpus}", &[]);
        m.needing("{name}", &["{cpus}"]);
    });
    assert_eq!(needs(&plan, "{name}"), ["{cpus}"]);
}

#[test]
fn a_text_line_is_taken_as_it_stands_but_its_defaults_have_placeholders() {
    let plan = planned(|m| {
        let defaults = Arc::new(JobKeys {
            stdout: Some(m.text("logs/{name}.out")),
            cpus: Some(m.number(2)),
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
fn cells_go_in_the_order_of_the_axes_the_last_fastest() {
    let plan = planned(|m| {
        let mut keys = m.run("", "echo {b}{a}");
        keys.matrix = m.matrix(&[("b", &["1", "2"]), ("a", &["x", "y"])], &[], &[]);
        m.job(keys);
    });
    assert_eq!(
        names(&plan),
        ["job-1-1-x", "job-1-1-y", "job-1-2-x", "job-1-2-y"]
    );
    assert_eq!(lines(&plan)[1], "echo '1''y'");
}

#[test]
fn include_and_exclude_do_what_github_documents() {
    let plan = planned(|m| {
        let mut keys = m.run("", "make");
        keys.matrix = m.matrix(
            &[("fruit", &["apple", "pear"]), ("animal", &["cat", "dog"])],
            &[
                &[("color", "green")],
                &[("color", "pink"), ("animal", "cat")],
                &[("fruit", "apple"), ("shape", "circle")],
                &[("fruit", "banana")],
                &[("fruit", "banana"), ("animal", "cat")],
            ],
            &[],
        );
        m.job(keys);
    });
    let expected = [
        "job-1-apple-cat-pink-circle",
        "job-1-apple-dog-green-circle",
        "job-1-pear-cat-pink",
        "job-1-pear-dog-green",
        "job-1-banana",
        "job-1-banana-cat",
    ];
    assert_eq!(names(&plan), expected);

    let plan = planned(|m| {
        let mut keys = m.run("", "make");
        let os: &[&str] = &["linux", "mac"];
        let include: &[&[_]] = &[&[("os", "mac"), ("arch", "arm"), ("x", "1")]];
        let exclude: &[&[_]] = &[&[("os", "mac")], &[("os", "linux"), ("arch", "arm")]];
        keys.matrix = m.matrix(&[("os", os), ("arch", &["x86", "arm"])], include, exclude);
        m.job(keys);
        let mut keys = m.run("only-{k}", "make");
        keys.matrix = m.matrix(&[], &[&[("k", "1")], &[("k", "2")]], &[]);
        m.job(keys);
    });
    assert_eq!(
        names(&plan),
        ["job-1-linux-x86", "job-1-mac-arm-1", "only-1", "only-2"]
    );
}

#[test]
fn a_matrix_with_mistakes_is_refused() {
    let with =
        |axes: &'static [(&str, &[&str])], include: &'static [&[_]], exclude: &'static [&[_]]| {
            move |m: &mut Maker| {
                let mut keys = m.run("", "make");
                keys.matrix = m.matrix(axes, include, exclude);
                m.job(keys);
            }
        };
    let (axes, none): (&[(&str, &[&str])], &[&[_]]) = (&[("a", &["1"])], &[]);
    let wrong = with(axes, none, &[&[("b", "1")]]);
    one_mistake(wrong, "\"b\"", "`exclude` gives `b`, which is no axis");
    let wrong = with(&[("cpus", &["1"])], none, none);
    one_mistake(wrong, "\"cpus\"", "a matrix key cannot be called `cpus`");
    let wrong = with(axes, &[&[("name", "1")]], none);
    one_mistake(wrong, "\"name\"", "a matrix key cannot be called `name`");
    let wrong = with(&[("a b", &["1"])], none, none);
    one_mistake(
        wrong,
        "\"a b\"",
        "no placeholder can name the matrix key `a b`",
    );
    let wrong = with(axes, none, &[&[("a", "1")]]);
    one_mistake(
        wrong,
        "matrix",
        "this matrix has no cells, so the job never runs",
    );
    let wrong = with(&[("a", &["1", "2", "1"])], none, none);
    one_mistake(
        wrong,
        "[[job]]",
        "2 cells of this matrix are called `job-1-1`",
    );
}

#[test]
fn too_many_cells_are_refused_before_they_are_made() {
    let values: Vec<String> = (0..1000).map(|value| value.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let make = |m: &mut Maker| {
        let mut keys = m.run("", "make");
        let axes: Vec<(&str, &[&str])> = ["a", "b", "c", "d"].map(|key| (key, &*values)).to_vec();
        keys.matrix = m.matrix(&axes, &[], &[]);
        m.job(keys);
    };
    one_mistake(
        make,
        "matrix",
        "this matrix has 1000000000000 cells; 10000000 is the most",
    );
}

#[test]
fn a_key_that_a_cell_lacks_is_refused_where_it_is_used() {
    let make = |m: &mut Maker| {
        let mut keys = m.run("x-{a}", "echo \"{a} {color}\"");
        keys.matrix = m.matrix(
            &[("a", &["1", "2"])],
            &[&[("a", "2"), ("color", "red")]],
            &[],
        );
        m.job(keys);
    };
    one_mistake(make, "{color}", "`{color}` has no value in the cell a=1");
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

#[test]
fn two_jobs_of_one_name_are_refused_with_both_places() {
    let mut maker = Maker::new(0);
    for name in ["a", "b", "a"] {
        maker.needing(name, &[]);
    }
    let (plan, _) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
    let errors = plan.expect_err("two are called a");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message, "two jobs are called `a`");
    assert_eq!(errors[0].related.len(), 1);
    assert!(errors[0].related[0].span.end <= errors[0].span.start);
}

#[test]
fn with_several_files_a_name_that_was_left_out_says_its_file() {
    let file = |id, name: &str| {
        let mut maker = Maker::new(id);
        let keys = maker.run(name, "make");
        maker.job(keys);
        maker
    };
    let files = vec![
        ("a/x.toml", file(0, "")),
        ("-", file(1, "")),
        ("y", file(2, "named")),
    ];
    let plan = plan_files(files, &Overrides::default())
        .0
        .expect("no mistakes");
    assert_eq!(names(&plan), ["x.toml:job-1", "-:job-1", "named"]);
    assert_eq!(plan.source_of(JobIndex(1)), SourceId(1));

    let files = vec![
        ("a/x", file(0, "")),
        ("b/x", file(1, "")),
        ("c/y", file(2, "")),
    ];
    let plan = plan_files(files, &Overrides::default())
        .0
        .expect("no mistakes");
    assert_eq!(names(&plan), ["a/x:job-1", "b/x:job-1", "y:job-1"]);

    let files = vec![("a/x", file(0, "")), ("a/x", file(1, ""))];
    let errors = plan_files(files, &Overrides::default())
        .0
        .expect_err("twice");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message, "a/x is given twice");
}

#[test]
fn a_need_is_a_name_first_and_else_a_glob_over_all_files() {
    let mut first = Maker::new(0);
    for name in ["f-1", "f-2", "f-*", "f-[x", "g/h"] {
        first.needing(name, &[]);
    }
    let mut second = Maker::new(1);
    second.needing("by-name", &["f-*"]);
    second.needing("f-all", &["f-?", "f-[!1]", "f-[x", "*/*"]);
    let files = vec![("a", first), ("b", second)];
    let plan = plan_files(files, &Overrides::default())
        .0
        .expect("no mistakes");
    assert_eq!(needs(&plan, "by-name"), ["f-*"]);
    assert_eq!(needs(&plan, "f-all"), ["f-1", "f-2", "f-*", "f-[x", "g/h"]);
}

#[test]
fn a_glob_never_matches_its_own_job_but_its_own_name_is_a_cycle() {
    let plan = planned(|m| {
        m.needing("a-1", &[]);
        m.needing("a-all", &["a-*"]);
    });
    assert_eq!(needs(&plan, "a-all"), ["a-1"]);
    one_mistake(|m| m.needing("a", &["a"]), "\"a\"", "`a` needs itself");
    one_mistake(
        |m| m.needing("a", &["a*"]),
        "\"a*\"",
        "`a*` matches no other job",
    );
}

#[test]
fn a_need_that_names_nothing_is_refused_with_the_nearest_name() {
    let mut maker = Maker::new(0);
    maker.needing("fetch", &[]);
    maker.needing("b", &["fecth", "nothing-like-it", "x*"]);
    let (plan, _) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
    let errors = plan.expect_err("three needs name nothing");
    let said = |at: usize| (errors[at].message.as_str(), errors[at].help.as_deref());
    assert_eq!(
        said(0),
        ("no job is called `fecth`", Some("did you mean `fetch`?"))
    );
    assert_eq!(said(1), ("no job is called `nothing-like-it`", None));
    assert_eq!(said(2), ("`x*` matches no other job", None));
    assert_eq!(errors.len(), 3);
}

#[test]
fn a_job_needed_under_two_conditions_is_there_twice_and_under_one_once() {
    let plan = planned(|m| {
        m.needing("f-1", &[]);
        let mut keys = m.run("b", "make");
        let conditions = [
            ("f-*", When::Success),
            ("f-1", When::Always),
            ("f-1", When::Success),
        ];
        keys.needs = conditions.map(|(need, when)| m.need(need, when)).to_vec();
        m.job(keys);
    });
    let job = JobIndex(0);
    let expected = [When::Success, When::Always].map(|when| Need { job, when });
    assert_eq!(plan.needs(JobIndex(1)), expected);
}

#[test]
fn needs_of_cells_follow_their_keys() {
    let plan = planned(|m| {
        for (name, need) in [("a-{x}", None), ("b-{x}", Some("a-{x}"))] {
            let mut keys = m.run(name, "make");
            keys.matrix = m.matrix(&[("x", &["1", "2"])], &[], &[]);
            keys.needs = need
                .map(|need| m.need(need, When::Success))
                .into_iter()
                .collect();
            m.job(keys);
        }
    });
    assert_eq!(
        (needs(&plan, "b-1"), needs(&plan, "b-2")),
        (vec!["a-1".into()], vec!["a-2".into()])
    );
}

#[test]
fn each_cycle_is_refused_once_with_the_names_of_its_loop() {
    let mut maker = Maker::new(0);
    maker.needing("a", &["b"]);
    maker.needing("b", &["c", "start"]);
    maker.needing("c", &["a"]);
    maker.needing("start", &[]);
    maker.needing("x-1", &["x-*"]);
    maker.needing("x-2", &["x-*"]);
    let text = maker.text.clone();
    let (plan, _) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
    let errors = plan.expect_err("two cycles");
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    let expected = [
        "a cycle: `a` needs `b`, which needs `c`, which needs `a`",
        "a cycle: `x-1` needs `x-2`, which needs `x-1`",
    ];
    assert_eq!(messages, expected);
    assert_eq!(text[errors[0].span.clone()], *b"\"b\"");
    assert_eq!(errors[0].related.len(), 2);
}

#[test]
fn the_same_cycle_in_every_cell_is_one_mistake() {
    let make = |m: &mut Maker| {
        for (name, need) in [("a-{x}", "b-{x}"), ("b-{x}", "a-{x}")] {
            let mut keys = m.run(name, "make");
            keys.matrix = m.matrix(&[("x", &["1", "2", "3"])], &[], &[]);
            keys.needs = vec![m.need(need, When::Success)];
            m.job(keys);
        }
    };
    one_mistake(
        make,
        "\"b-{x}\"",
        "a cycle: `a-1` needs `b-1`, which needs `a-1`",
    );
}

#[test]
fn jobs_without_a_cycle_are_never_refused_and_others_always() {
    // Job n needs what the bits of `seed` say; upwards only there is no cycle.
    for seed in 0_u64..400 {
        let bits = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let edges: Vec<(usize, usize)> = (0..16)
            .map(|at| (bits >> (at * 4)) as usize & 15)
            .map(|bits| (bits >> 2, bits & 3))
            .filter(|(from, to)| from != to)
            .collect();
        let mut reach = [[false; 4]; 4];
        edges
            .iter()
            .take(5)
            .for_each(|(from, to)| reach[*from][*to] = true);
        let mut maker = Maker::new(0);
        for (job, needs) in reach.iter().enumerate() {
            let needs: Vec<String> = (0..4)
                .filter(|to| needs[*to])
                .map(|to| format!("j{to}"))
                .collect();
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            maker.needing(&format!("j{job}"), &needs);
        }
        for via in 0..4 {
            for from in 0..4 {
                for to in 0..4 {
                    reach[from][to] |= reach[from][via] && reach[via][to];
                }
            }
        }
        let is_cyclic = (0..4).any(|job| reach[job][job]);
        let (plan, _) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
        assert_eq!(plan.is_err(), is_cyclic, "{edges:?}");
    }
}

#[test]
fn jobs_with_the_same_needs_share_them() {
    let shards = 2000;
    let plan = planned(|m| {
        for job in 0..shards {
            m.needing(&format!("shard-{job}"), &[]);
            m.needing(&format!("merge-{job}"), &["shard-*"]);
        }
        m.needing("all", &["*"]);
    });
    let first = plan.needs(JobIndex(1));
    assert_eq!(first.len(), shards);
    assert_eq!(first.as_ptr(), plan.needs(JobIndex(3)).as_ptr());
    assert_eq!(needs(&plan, "all").len(), 2 * shards);
}

#[test]
fn a_job_that_can_never_fit_is_refused_and_io_takes_no_cpus() {
    let class = |class| {
        move |m: &mut Maker| {
            let mut keys = m.run("a", "make");
            keys.cpus = Some(m.number(9));
            keys.class = Some(m.spanned("", class));
            m.job(keys);
        }
    };
    one_mistake(class(Class::Cpu), "9", "9 cpus never fit: the run has 4");
    assert_eq!(planned(class(Class::Io)).len(), 1);
}

#[test]
fn files_that_disagree_about_the_run_are_refused_unless_an_option_settles_it() {
    let file = |id, cpus, max_fails| {
        let mut maker = Maker::new(id);
        maker.file.limits.cpus = Some(maker.number(cpus));
        maker.file.max_fails = Some(maker.number(max_fails));
        maker
    };
    let files = || {
        vec![
            ("a", file(0, 2, 0)),
            ("b", file(1, 3, 1)),
            ("c", file(2, 2, 1)),
        ]
    };
    let errors = plan_files(files(), &Overrides::default())
        .0
        .expect_err("2 and 3");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message, "`limits.cpus` is 3 here and 2 in a");
    let overrides = Overrides {
        cpus: Some(7),
        io: Some(8),
        max_fails: Some(0),
    };
    let plan = plan_files(files(), &overrides).0.expect("settled");
    assert_eq!(
        (plan.limits(), plan.max_fails()),
        (Limits { cpus: 7, io: 8 }, Some(1))
    );
}

#[test]
fn a_run_is_named_by_its_first_file() {
    let named = |given: &'static str, name: Option<&str>| {
        let mut maker = Maker::new(0);
        maker.file.name = name.map(|name| maker.text(name));
        let files = vec![(given, maker), ("other", Maker::new(1))];
        let plan = plan_files(files, &Overrides::default())
            .0
            .expect("no mistakes");
        assert!(plan.is_empty());
        plan.name_of_run().to_owned()
    };
    assert_eq!(named("a/jobs.toml", Some("nightly")), "nightly");
    assert_eq!(named("a/jobs.toml", None), "jobs.toml");
    assert_eq!(named("-", None), "stdin");
}
