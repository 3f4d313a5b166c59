//! A file that is read job by job says what it says when it is read as a whole.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::Findings;
use super::*;
use crate::source::SourceId;

/// A byte order mark's width: what is read need not begin where its file does.
const START: usize = 3;

/// What reading comes to: the file and what it found, in the order of the places.
fn read(by: impl FnOnce(&mut JobFile, &mut Findings)) -> (JobFile, Vec<Diagnostic>) {
    let id = SourceId(0);
    let mut findings = Findings::of(id);
    let mut file = JobFile::empty(id);
    by(&mut file, &mut findings);
    findings.list.sort_by_key(|finding| finding.span.start);
    (file, findings.list)
}

fn read_at_once(body: &str) -> (JobFile, Vec<Diagnostic>) {
    read(|file, findings| whole(body, START, file, findings))
}

fn read_by_job(body: &str) -> (JobFile, Vec<Diagnostic>) {
    read(|file, findings| {
        head(body, START, file, findings);
        if file.entries.is_empty() {
            let mut take = |entry| file.entries.push(entry);
            if !jobs(body, START, &mut take, findings) {
                file.entries.clear();
                file.nothing_was_read();
            }
        }
    })
}

fn said(findings: &[Diagnostic]) -> BTreeSet<(usize, usize, &str)> {
    let said = findings.iter();
    said.map(|it| (it.span.start, it.span.end, it.message.as_str()))
        .collect()
}

/// Holds for any text. What is TOML says the same. Of what is not, everything that is wrong as a whole is said by
/// job too, but for what a bracket that is left open makes of the jobs behind it, and for keys that clash because
/// of, or beside, what could not be read.
fn holds(body: &str) {
    let (at_once, expected) = read_at_once(body);
    let (by_job, found) = read_by_job(body);
    let (_, errors) = DeTable::parse_recoverable(body);
    if errors.is_empty() {
        assert_eq!(format!("{by_job:#?}"), format!("{at_once:#?}"), "{body}");
        assert_eq!(found, expected, "{body}");
        return;
    }
    assert!(!found.is_empty(), "it lets pass what is no TOML: {body}");
    assert!(matches!(by_job.entries[..], [Entry::Unread]), "{body}");
    assert_eq!(by_job.refused, Refused::All, "{body}");
    let is_left_open = |error: &toml::de::Error| {
        let mut messages = ["unclosed array,", "unclosed inline table,"].iter();
        messages.any(|message| error.message().starts_with(message))
    };
    let mut sections = sections(body).map(|(_, span)| DeTable::parse_recoverable(&body[span]).1);
    if !sections.any(|errors| errors.iter().any(is_left_open)) {
        let (expected, found) = (said(&expected), said(&found));
        let is_clash = |it: &&(usize, usize, &str)| {
            it.2 == "duplicate key" || it.2.starts_with("cannot extend ")
        };
        let has_others = !expected.iter().all(|it| is_clash(&it));
        let missing: Vec<_> = expected
            .difference(&found)
            .filter(|it| !has_others || !is_clash(it))
            .collect();
        assert!(missing.is_empty(), "{missing:?} of {body}\n{found:?}");
    }
}

/// Whole lines, so that random rows of them are often files that mean something.
const LINES: &[&str] = &[
    "[[job]]",
    "[[job]]",
    "[[job]]",
    "[[job]] # one",
    "  [[ job ]]",
    "[[\"job\"]]",
    "[['job']]",
    "[job]",
    "[job.env]",
    "[job.matrix]",
    "[ job . retries ]",
    "[[job.needs]]",
    "[job.env.deep]",
    "[job",
    "[[job]",
    "[[job]]]",
    "[[jobs]]",
    "[[job.x.y]]",
    "[limits]",
    "[pools]",
    "[defaults]",
    "[defaults.env]",
    "[[limits]]",
    "[unknown]",
    "[]",
    "name = 'a'",
    "name = \"b-{x}\"",
    "name.x = 'c'",
    "run = 'true'",
    "run = \"a\\qb\"",
    "run = 'unclosed",
    "run = '''",
    "[[job]] '''",
    "'''",
    "run = \"\"\"a \\",
    "[[job]]\\\"\"\"",
    "\"\"\"",
    "command = ['a', 'b']",
    "command = [",
    "  'a', # [[job]]",
    "  ['x'],",
    "  [1],",
    "]",
    "env = { A = 'b', B = 1 }",
    "env = {",
    "  A = [1,",
    "}",
    "env.A = 'c'",
    "env.A = 'd'",
    "A = 1",
    "B = true",
    "x = [1, 2]",
    "count = 1",
    "cpus = 0x10",
    "cpus = 0x",
    "env = { A = 0xFFFFFFFFFFFFFFFFFF, B = 0b }",
    "cpus = 1_0",
    "io = 2",
    "memory = 1.5",
    "timeout = 1979-05-27",
    "timeout = '1s'",
    "max-fails = 3",
    "job = [{ run = 'x' }, 1]",
    "job = 1",
    "job.x = 2",
    "\"job\".y = 3",
    "when = 'always'",
    "job = 'a'",
    "needs = ['a']",
    "= 1",
    "x",
    ". = ",
    "# [limits]",
    "\u{1}",
    "",
    "ä = 'ö'",
];

/// Tables as they stand in files, so that random rows of them are often TOML.
const TABLES: &[&str] = &[
    "[[job]]\nrun = 'a'\n",
    "[[job]]\nname = 'b'\ncommand = [\n  'b',\n  '[[job]]',\n]\n",
    "[[job]]\nrun = \"\"\"\n[[job]]\n[limits]\n\"\"\"\ntypo = 1\n",
    "  [[job]]\n  run = ''\n  env.A = 1\n  env.B = { C = [\n[1]] }\n",
    "[[job]]\n",
    "[job.env]\nA = 'x'\nB = true\n",
    "[job.retries]\ncount = -1\n",
    "[[job.needs]]\njob = 'b'\n",
    "[[job.needs]]\njob = 'a'\nwhen = 'never'\n",
    "[job.matrix]\nx = [1, 2]\n",
    "[limits]\ncpus = 2\nmemory = 'x'\n",
    "[limits.x]\n",
    "[pools]\ndb = 4\n\n",
    "[resources] # two\ngpu = 0\n",
    "[defaults]\ntimeout = '1s'\n",
    "[defaults.env]\nC = 'ä'\n",
    "[unknown]\nx = 1\n",
    "[[\"job\"]]\nrun = 'c'\n",
    "# a comment\n\n",
];

fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\r"), 1 => Just(" ")]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_lines(
        lines in proptest::collection::vec(
            (proptest::sample::select(LINES), line_end()), 0..24,
        ),
    ) {
        let text: String = lines.iter().flat_map(|(line, end)| [*line, *end]).collect();
        holds(&text);
    }

    #[test]
    fn any_tables(
        top in proptest::sample::select(&["", "name = 'n'\n", "max-fails = 'x'\n", "job.x = 1\n"]),
        tables in proptest::collection::vec(proptest::sample::select(TABLES), 0..8),
        has_crlf in any::<bool>(),
    ) {
        let text = format!("{top}{}", tables.concat());
        holds(&if has_crlf { text.replace('\n', "\r\n") } else { text });
    }

    #[test]
    fn any_text(text in "[\\[\\]{}=.,#'\"\\\\ \njobtx1\r]{0,60}") {
        holds(&text);
    }
}

/// What files may look like; each is TOML.
const FILES: &[&str] = &[
    "",
    "# nothing",
    "name = 'n'\nmax-fails = 2\n[[job]]\nrun = 'a'",
    "[[job]]\nrun = 'a'\n[job.env]\nA = 1\n[[job.needs]]\njob = 'b'\n[[job]]\nname = 'b'\nrun = 'b'\n",
    "[[job]]\nrun = 'a'\n[limits]\ncpus = 0\n[[job]]\nrun = ''\n[pools]\ndb = 1\n[resources]\n",
    "[[job]]\nrun = '''\n[[job]]\nrun = 1\n'''\n[[job]]\nrun = \"\"\"\\\n  [[job]]\\\n  \"\"\"\n",
    "[[job]]\r\nrun = '''\r\na\r\nb'''\r\ntypo = 1\r\n\r\n[[job]]\r\nrun = 'a'\r\n[limits]\r\nx = 1\r\n",
    "[[job]]\ncommand = [\n  'a',\n  # [[job]]\n  '[[job]]',\n]\n[[job]]\nenv = { A = [\n[1],\n[2]] }\n",
    "[defaults]\nenv.A = 'x'\n[defaults.retries]\ncount = 1\n[[job]]\nrun = 'a'\nenv.A = 'y'\nenv.B = 1\n",
    // Jobs that are read as a whole.
    "job = [\n{ run = 'a' },\n{ typo = 'b',\n},\n]\n[limits]\nio = 1\n",
    "job = 1\n",
    "job.x = 1\n[limits]\n",
    "[job]\nrun = 'a'\n",
    "[['job']]\nrun = 'a'\n[[job]]\nrun = 'b'\ntypo = 1\n[[\"j\\u006fb\"]]\nrun = 'c'\n",
    "[[job]]\nrun = 'a'\n[limits]\nio = 1\n[job.env]\nA = 1\n[[job]]\nrun = 'b'\n",
];

#[test]
fn files_of_every_shape() {
    for file in FILES {
        let (_, errors) = DeTable::parse_recoverable(file);
        assert!(errors.is_empty(), "{errors:?} in {file}");
        holds(file);
        holds(&file.replace('\n', "\r\n"));
    }
}

#[test]
fn what_is_wrong_beside_a_mistake_of_syntax_is_told_too() {
    let body = "[[job]]\nrun = \n[[job]]\ntypo = 1\nrun = 'a'\n[[job]]\nrun = \"\\q\"\n[[job]]\nrun = 'b'\n";
    let (_, found) = read_by_job(body);
    let line_of = |finding: &Diagnostic| body[..finding.span.start - START].split('\n').count();
    let lines: Vec<usize> = found.iter().map(line_of).collect();
    assert_eq!(lines, [2, 4, 7]);
}

#[test]
fn a_bracket_left_open_is_one_mistake_and_not_one_in_every_job_behind_it() {
    let body = "[[job]]\ncommand = ['a'\n\n[[job]]\nrun = 'b'\n\n[[job]]\nrun = 'c'\n";
    let (_, found) = read_by_job(body);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message, "unclosed array, expected `]`");
    assert_eq!(
        &body[..found[0].span.start - START],
        "[[job]]\ncommand = ['a'"
    );
    assert!(read_at_once(body).1.len() > 5);
}

#[test]
fn jobs_are_not_taken_where_the_rest_cannot_be_read() {
    let body = "[[job]]\ntypo = 1\nrun = 'a'\n[limits]\ncpus = \n";
    let (file, found) = read_by_job(body);
    assert!(matches!(file.entries[..], [Entry::Unread]));
    assert_eq!(file.refused, Refused::All);
    assert_eq!(found.len(), 2, "{found:?}");
}
