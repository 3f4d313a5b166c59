//! What a run leaves in its journal, and what the next one makes of it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::case::{Case, Done, daemon_that_keeps_nothing, events, lives, marked, started, sums};

const JOURNAL: &str = ".reiver/jobs.toml/journal";

/// A job that fails until there is a file `well`.
const THREE: &str = "[[job]]\nname = 'a'\nrun = 'true'\n\
     [[job]]\nname = 'b'\nrun = '[ -e well ]'\n\
     [[job]]\nname = 'c'\nrun = 'true'\nneeds = ['b']\n";

#[test]
fn resume_runs_what_did_not_succeed_and_nothing_else() {
    let case = Case::toml(THREE);
    case.run().expect(1);
    let (found, done) = case.events(&["--resume"]);
    done.expect(1);
    assert_eq!(started(&found), ["b"]);
    assert_eq!(sums(&found), [1, 1, 0, 1]);
    assert_eq!(found[0]["jobs"], 3);
    case.write("well", "");
    let (found, done) = case.events(&["--resume"]);
    done.expect(0);
    assert_eq!(started(&found), ["b", "c"]);
    assert_eq!(sums(&found), [3, 0, 0, 0]);
    let (found, done) = case.events(&["--resume"]);
    let done = done.expect(0);
    assert!(started(&found).is_empty());
    assert_eq!(sums(&found), [3, 0, 0, 0]);
    assert!(
        done.stderr.contains("3 of 3 jobs succeeded before"),
        "{}",
        done.stderr
    );
}

#[test]
fn resume_failed_runs_what_failed_and_leaves_alone_what_hung_on_it() {
    let case = Case::toml(THREE);
    case.run().expect(1);
    case.write("well", "");
    let (found, done) = case.events(&["--resume-failed"]);
    done.expect(0);
    assert_eq!(started(&found), ["b"]);
    assert_eq!(sums(&found), [2, 0, 0, 0]);
    assert_eq!(found[0]["jobs"], 2, "what it leaves alone is left out");
    let (found, done) = case.events(&["--resume-failed"]);
    done.expect(0);
    assert!(started(&found).is_empty());
}

#[test]
fn without_resume_the_journal_is_begun_anew_and_the_one_before_is_kept() {
    let case = Case::toml(THREE);
    case.run().expect(1);
    let first = fs::read(case.path(&format!("{JOURNAL}/segment-00000001"))).unwrap();
    let (found, _) = case.events(&[]);
    assert_eq!(started(&found), ["a", "b"]);
    let old = fs::read(case.path(&format!("{JOURNAL}.old/segment-00000001"))).unwrap();
    assert_eq!(first, old);
    // Whole or not.
    case.write(&format!("{JOURNAL}/segment-00000001"), "rubbish");
    case.run().expect(1);
    assert_eq!(
        case.read(&format!("{JOURNAL}.old/segment-00000001")),
        "rubbish"
    );
    case.reiver(&["run", "jobs.toml", "--resume"]).expect(1);
}

#[test]
fn without_a_journal_resume_starts_afresh() {
    let case = Case::toml(THREE);
    let (found, done) = case.events(&["--resume"]);
    let done = done.expect(1);
    assert_eq!(started(&found), ["a", "b"]);
    assert!(done.stderr.contains("starting afresh"), "{}", done.stderr);
    let case = Case::toml(THREE);
    case.reiver(&["run", "jobs.toml", "--no-journal"]).expect(1);
    assert!(!case.has(".reiver/jobs.toml/journal"));
    case.reiver(&["run", "jobs.toml", "--no-journal", "--resume"])
        .expect(2);
    case.reiver(&["run", "jobs.toml", "--resume-failed", "--resume"])
        .expect(2);
}

#[test]
fn a_job_runs_again_when_its_definition_has_changed_and_that_is_said() {
    let text = |defaults: &str, a: &str, shards: &str| {
        format!(
            "{defaults}\n[[job]]\nname = 'a'\n{a}\n[[job]]\nname = 's-{{i}}'\n\
             matrix = {{ i = {shards} }}\nrun = 'echo {{i}}'"
        )
    };
    let case = Case::toml(&text("", "run = 'true'", "[1, 2]"));
    case.run().expect(0);
    let resumed = |text: String, expected: &[&str]| {
        case.write("jobs.toml", text);
        let (found, done) = case.events(&["--resume"]);
        let done = done.expect(0);
        assert_eq!(started(&found), expected, "{}", done.stderr);
        done.stderr
    };
    // Another order, comments, and a value said in another place are no change.
    let said = "# moved\n[[job]]\nname = 's-{i}'\nmatrix = { i = [2, 1] }\nrun = 'echo {i}'\n\
                [[job]]\nrun = \"true\"\nkill-after = '5000ms'\nname = 'a'";
    resumed(said.to_owned(), &[]);
    let said = resumed(text("", "run = 'true; true'", "[1, 2, 3]"), &["a", "s-3"]);
    assert!(
        said.contains("1 job changed since, and will run again: a"),
        "{said}"
    );
    let said = resumed(
        text(
            "[defaults]\nenv = { X = 'y' }",
            "run = 'true; true'",
            "[1, 3]",
        ),
        &["a", "s-1", "s-3"],
    );
    assert!(said.contains("3 jobs changed since"), "{said}");
    assert!(said.contains("no longer in the file: s-2"), "{said}");
    // `--resume-failed` does not run again what succeeded, but where that has changed.
    let again = text("[defaults]\nenv = { X = 'y' }", "run = 'true'", "[1, 3, 4]");
    case.write("jobs.toml", again);
    let (found, done) = case.events(&["--resume-failed"]);
    done.expect(0);
    assert_eq!(started(&found), ["a"]);
}

#[test]
fn lines_are_known_by_what_they_say_and_how_often_they_did() {
    let case = Case::new();
    let resumed = |text: &str, expected: &[&str]| {
        case.write("lines", text);
        let done = case.reiver(&["run", "lines", "--resume", "--output", "json"]);
        assert_eq!(
            started(&events(&done.stdout)),
            expected,
            "{text}: {}",
            done.stderr
        );
        done
    };
    resumed("echo a\necho b\necho a\n", &["line-1", "line-2", "line-3"]).expect(0);
    resumed("# above\n\necho new\necho a\necho a\necho b\n", &["line-3"]).expect(0);
    resumed("echo a\necho a\necho a\n", &["line-3"]).expect(0);
    resumed("#JOB env.X=y\necho a\n", &["line-2"]).expect(0);
    let done = resumed("echo b\n", &[]).expect(0);
    assert!(
        done.stderr.contains("no longer in the file"),
        "{}",
        done.stderr
    );
}

#[test]
fn the_count_of_equal_lines_is_of_all_of_them_whatever_the_filter() {
    let case = Case::new();
    case.write("lines", "echo a >> ran\necho a >> ran\n");
    let resumed = |filter: &str| {
        case.reiver(&["run", "lines", "--resume", "--filter", filter])
            .expect(0);
    };
    resumed("line-2");
    resumed("line-2");
    assert_eq!(case.read("ran"), "a\n");
    resumed("line-*");
    assert_eq!(case.read("ran"), "a\na\n");
}

#[test]
fn a_filter_keeps_no_journal_unless_it_is_asked_for() {
    let case = Case::toml(THREE);
    case.reiver(&["run", "jobs.toml", "--filter", "a"])
        .expect(0);
    assert!(!case.has(".reiver"));
    case.run().expect(1);
    let before = fs::read(case.path(&format!("{JOURNAL}/segment-00000001"))).unwrap();
    case.reiver(&["run", "jobs.toml", "--filter", "b"])
        .expect(1);
    let after = fs::read(case.path(&format!("{JOURNAL}/segment-00000001"))).unwrap();
    assert_eq!(before, after, "the command to paste touches nothing");
    let done = case
        .reiver(&["run", "jobs.toml", "--filter", "c", "--resume"])
        .expect(0);
    assert!(
        done.stderr
            .contains("1 need outside the filter: taken as met"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("needed and not succeeded yet: b"),
        "{}",
        done.stderr
    );
    let (found, _) = case.events(&["--resume"]);
    assert_eq!(started(&found), ["b"]);
    case.reiver(&["run", "jobs.toml", "--filter", "a", "--journal", "own"])
        .expect(0);
    assert!(case.has("own/segment-00000001") && case.has("own.lock"));
}

#[test]
fn a_dry_run_shows_what_is_left_and_touches_nothing() {
    let case = Case::toml(THREE);
    case.run().expect(1);
    let before = fs::read(case.path(&format!("{JOURNAL}/segment-00000001"))).unwrap();
    let done = case
        .reiver(&["run", "jobs.toml", "--resume", "--dry-run"])
        .expect(0);
    assert!(done.stdout.starts_with("2 jobs"), "{}", done.stdout);
    assert!(!case.has(&format!("{JOURNAL}/segment-00000002")));
    assert_eq!(
        before,
        fs::read(case.path(&format!("{JOURNAL}/segment-00000001"))).unwrap()
    );
}

#[test]
fn a_run_that_is_refused_leaves_the_files_of_the_one_that_goes_on() {
    let case = Case::toml(
        "[[job]]\nname = 'w'\nrun = 'touch started; while ! [ -e go ]; do sleep 0.01; done'",
    );
    let arguments = [
        "run",
        "jobs.toml",
        "--joblog",
        "log.tsv",
        "--report",
        "run.html",
    ];
    let child = case.start(&arguments);
    case.wait_for("started");
    let before = case.read("log.tsv");
    case.write("run.html", "of before");
    case.reiver(&arguments).expect(2);
    assert_eq!(case.read("log.tsv"), before);
    assert_eq!(case.read("run.html"), "of before");
    case.write("go", "");
    Done::of(child).expect(0);
    assert_eq!(case.read("log.tsv").lines().count(), 2);
}

#[test]
fn two_runs_never_share_a_journal() {
    let case = Case::toml(
        "[[job]]\nname = 'w'\nrun = 'touch started; while ! [ -e go ]; do sleep 0.01; done'",
    );
    fs::create_dir(case.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(case.path("elsewhere"), case.path("link")).unwrap();
    let child = case.start(&["run", "jobs.toml", "--journal", "link"]);
    case.wait_for("started");
    for (option, folder) in [
        ("--resume", "elsewhere"),
        ("--color=never", "./link/../link/"),
    ] {
        let done = case
            .reiver(&["run", "jobs.toml", option, "--journal", folder])
            .expect(2);
        let expected = format!("in use by another run, process {}", child.id());
        assert!(done.stderr.contains(&expected), "{}", done.stderr);
        assert!(done.stderr.contains("nothing was run"), "{}", done.stderr);
    }
    let shown = case
        .reiver(&["journal", "show", "elsewhere"])
        .expect(0)
        .stdout;
    assert!(
        shown.contains("is writing it") && shown.contains("running:\n  w"),
        "{shown}"
    );
    case.write("go", "");
    Done::of(child).expect(0);
    case.reiver(&["run", "jobs.toml", "--resume", "--journal", "elsewhere"])
        .expect(0);
}

#[test]
fn what_cannot_be_a_journal_is_refused_and_nothing_runs() {
    let case = Case::toml("[[job]]\nrun = 'touch ran'");
    case.write("file", "");
    fs::create_dir(case.path("kept")).unwrap();
    case.write("kept/mine.txt", "");
    for folder in ["file", "kept", "/proc/no/such"] {
        let done = case
            .reiver(&["run", "jobs.toml", "--journal", folder])
            .expect(2);
        assert!(done.stderr.contains("nothing was run"), "{}", done.stderr);
    }
    assert!(!case.has("ran") && case.has("kept/mine.txt"));
    case.reiver(&["journal", "show", "jobs.toml"]).expect(2);
    case.reiver(&["journal", "show", "no-such-file"]).expect(2);
}

#[test]
fn a_journal_that_is_damaged_is_refused_with_its_place_and_salvaged_when_asked() {
    let text: String = (0..20)
        .map(|job| format!("[[job]]\nname = 'j{job}'\nrun = 'echo {job} >> ran'\n"))
        .collect();
    let case = Case::toml(&text);
    case.run().expect(0);
    let segment = case.path(&format!("{JOURNAL}/segment-00000001"));
    let mut bytes = fs::read(&segment).unwrap();
    bytes[400] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    for option in ["--resume", "--resume-failed"] {
        let done = case.reiver(&["run", "jobs.toml", option]).expect(2);
        assert!(
            done.stderr.contains("segment-00000001, byte "),
            "{}",
            done.stderr
        );
        assert!(done.stderr.contains("journal salvage"), "{}", done.stderr);
    }
    let shown = case
        .reiver(&["journal", "show", "jobs.toml"])
        .expect(2)
        .stdout;
    assert!(shown.contains("damaged"), "{shown}");
    assert_eq!(case.read("ran").lines().count(), 20);
    let kept = case
        .reiver(&["journal", "salvage", "jobs.toml"])
        .expect(0)
        .stdout;
    assert!(kept.contains("kept"), "{kept}");
    assert_eq!(
        fs::read(case.path(&format!("{JOURNAL}.old/segment-00000001"))).unwrap(),
        bytes
    );
    let (found, done) = case.events(&["--resume"]);
    done.expect(0);
    let again = started(&found).len();
    assert!((1..20).contains(&again), "{again}");
    assert_eq!(sums(&found), [20, 0, 0, 0]);
    case.reiver(&["journal", "show", "jobs.toml"]).expect(0);
    case.reiver(&["journal", "salvage", "jobs.toml"]).expect(0);
}

#[test]
fn a_torn_end_is_cut_off_and_said() {
    let case = Case::toml(THREE);
    case.run().expect(1);
    let segment = case.path(&format!("{JOURNAL}/segment-00000001"));
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 3]).unwrap();
    let shown = case.reiver(&["journal", "show", JOURNAL]).expect(0).stdout;
    assert!(shown.contains("but for its end"), "{shown}");
    let (found, done) = case.events(&["--resume"]);
    assert_eq!(started(&found), ["b"]);
    assert!(done.stderr.contains("cut off"), "{}", done.stderr);
    let shown = case.reiver(&["journal", "show", JOURNAL]).expect(0).stdout;
    assert!(shown.contains("\nwhole\n"), "{shown}");
    assert!(shown.contains("no end is recorded"), "{shown}");
}

#[test]
fn another_version_is_refused_with_both_named() {
    let case = Case::toml(THREE);
    case.run().expect(1);
    let segment = case.path(&format!("{JOURNAL}/segment-00000001"));
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8] = 7;
    fs::write(&segment, &bytes).unwrap();
    let done = case.reiver(&["run", "jobs.toml", "--resume"]).expect(2);
    let expected = "is of version 7 of the format, and this reiver reads version 1";
    assert!(done.stderr.contains(expected), "{}", done.stderr);
    case.reiver(&["journal", "show", "jobs.toml"]).expect(2);
    case.run().expect(1);
}

/// The first released version: written by it, and never written again.
#[test]
fn the_journal_of_version_1_is_resumed() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-v1");
    let case = Case::new();
    fs::copy(fixture.join("jobs.toml"), case.path("jobs.toml")).unwrap();
    fs::create_dir_all(case.path(JOURNAL)).unwrap();
    for entry in fs::read_dir(fixture.join("journal")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        fs::copy(entry.path(), case.path(&format!("{JOURNAL}/{name}"))).unwrap();
    }
    let shown = case
        .reiver(&["journal", "show", "jobs.toml"])
        .expect(0)
        .stdout;
    assert!(
        shown.contains("7 jobs that ran: 5 succeeded, 1 failed, 1 cancelled"),
        "{shown}"
    );
    let (found, done) = case.events(&["--resume"]);
    done.expect(0);
    assert_eq!(started(&found), ["fails-once", "hangs", "job-7", "waits"]);
    assert_eq!(sums(&found), [9, 0, 0, 0]);
}

#[test]
fn the_journal_says_with_which_code_the_process_ended() {
    let is_told = |case: &Case, code: i32| {
        let shown = case.reiver(&["journal", "show", "jobs.toml"]).expect(0);
        let ended = format!("; exit code {code}\n");
        assert!(shown.stdout.contains(&ended), "{}", shown.stdout);
    };
    for (run, code) in [
        ("run jobs.toml", 0),
        ("run jobs.toml >/dev/full", 3),
        ("run jobs.toml --report /dev/full", 3),
        ("run jobs.toml --output json >/dev/full", 3),
        ("run jobs.toml --output json 2>/dev/full", 3),
    ] {
        let case = Case::toml("[[job]]\nrun = 'echo said'\n");
        let done = case.through_shell(&format!("$REIVER {run}")).expect(code);
        is_told(&case, code);
        if run.ends_with("json 2>/dev/full") {
            assert_eq!(events(&done.stdout).pop().unwrap()["exit"], code);
        }
    }
    let case = Case::toml("[[job]]\nrun = 'echo said'\n");
    let (nobody, output) = std::io::pipe().unwrap();
    drop(nobody);
    let mut command = case.command(["run", "jobs.toml"]);
    let child = command.stdout(output).spawn().unwrap();
    let code = 128 + libc::SIGPIPE;
    Done::of(child).expect(code);
    is_told(&case, code);
}

/// Processes of every kind, of a runner that is killed.
#[test]
fn what_a_killed_run_left_behind_is_ended_before_its_jobs_run_again() {
    let case = Case::toml(
        "[[job]]\nname = 'done'\nrun = 'sleep 1000 >/dev/null 2>&1 & echo $! > kept'\n\
         [[job]]\nname = 'stubborn'\nkill-after = '200ms'\nneeds = ['done']\nrun = '''\n\
         [ -e second ] && exit 0\n\
         sleep 1000 & sh -c 'trap \"\" TERM; while :; do sleep 1; done' &\n\
         setsid sh -c 'setsid sleep 1000 & exec sleep 1000' &\n\
         touch started; wait'''\n",
    );
    for options in [&["--resume"][..], &[]] {
        let _ = fs::remove_file(case.path("started"));
        let _ = fs::remove_file(case.path("second"));
        let mark = format!("REIVER_TEST_MARK={}", case.folder().display());
        let (key, value) = mark.split_once('=').unwrap();
        let mut command = case.command(["run", "jobs.toml"]);
        let mut child = command.env(key, value).spawn().unwrap();
        case.wait_for("started");
        while marked(&mark).len() < 7 {
            thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        case.write("second", "");
        let done = case
            .reiver(&[&["run", "jobs.toml"], options].concat())
            .expect(0);
        assert!(
            done.stderr.contains("when it was killed: stubborn"),
            "{}",
            done.stderr
        );
        // What a job left behind that had ended is nobody's.
        let kept = case.pid("kept");
        let left = marked(&mark);
        assert!(lives(kept));
        if !options.is_empty() {
            assert_eq!(left, [kept]);
        }
        for pid in left.into_iter().chain([kept]) {
            // SAFETY: no pointers; they are ours.
            unsafe { libc::kill(i32::try_from(pid).unwrap(), libc::SIGKILL) };
        }
    }
}

#[test]
fn a_daemon_of_a_killed_run_that_keeps_nothing_that_it_was_given_is_ended_too() {
    for (priority, resume) in [("P1", true), ("P2", true), ("P1", false)] {
        let case = Case::toml(&format!(
            "[defaults]\npriority = '{priority}'\n[[job]]\nname = 'before'\nrun = \"{}\"\n\
             [[job]]\nname = 'killed'\nneeds = ['before']\nrun = \"[ -e again ] || {{ {}; touch again; \
             exec sleep 1000; }}\"\n",
            daemon_that_keeps_nothing("other"),
            daemon_that_keeps_nothing("daemon"),
        ));
        let mut child = case.start(&["run", "jobs.toml"]);
        for file in ["other", "daemon", "again"] {
            case.wait_for(file);
        }
        // The end of the first job is recorded within some milliseconds.
        let shown = || case.reiver(&["journal", "show", "jobs.toml"]).stdout;
        while !shown().contains("1 succeeded") {}
        child.kill().unwrap();
        child.wait().unwrap();
        let (daemon, other) = (case.pid("daemon"), case.pid("other"));
        assert!(lives(daemon) && lives(other));
        let options: &[&str] = if resume { &["--resume"] } else { &[] };
        let done = case
            .reiver(&[&["run", "jobs.toml"], options].concat())
            .expect(0);
        let said = "that a run left behind when it was killed: killed\n";
        assert!(done.stderr.contains(said), "{priority}: {}", done.stderr);
        assert!(!lives(daemon), "{priority}");
        assert!(lives(other), "{priority}: it is of a job that had ended");
        // Without the journal of before, the first job has left another one.
        for pid in [other, case.pid("other")] {
            // SAFETY: no pointers; it is ours.
            unsafe { libc::kill(i32::try_from(pid).unwrap(), libc::SIGKILL) };
        }
    }
}

#[test]
fn a_journal_in_a_folder_that_takes_none_is_refused() {
    let case = Case::toml("[[job]]\nrun = 'touch ran'");
    // A file where the folder would be: refused to root, too.
    case.write(".reiver", "");
    let done = case.run().expect(2);
    assert!(done.stderr.contains("--no-journal"), "{}", done.stderr);
    assert!(!case.has("ran"));
    case.reiver(&["run", "jobs.toml", "--no-journal"]).expect(0);
    let case = Case::toml("[[job]]\nrun = 'true'");
    // SAFETY: takes and gives a number.
    if unsafe { libc::geteuid() } == 0 {
        let _ = writeln!(std::io::stderr(), "skipped: root may write anywhere");
        return;
    }
    fs::set_permissions(case.folder(), fs::Permissions::from_mode(0o555)).unwrap();
    case.run().expect(2);
    fs::set_permissions(case.folder(), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs that are killed again and again, held against a model: what was told to have succeeded, or is
/// in the journal, never runs again, and in the end every job has succeeded.
#[test]
fn a_run_that_is_killed_at_any_moment_is_resumed_as_the_model_says() {
    let rounds: usize = match std::env::var("REIVER_KILLS") {
        Ok(rounds) => rounds.parse().expect("a number of kills"),
        Err(_) => 40,
    };
    let mut kills = 0;
    let mut seed = 0x5eed_u64;
    while kills < rounds {
        kills += killed_run(&mut seed, rounds - kills);
    }
}

const JOBS: usize = 60;

/// One run of some jobs that need each other, killed until it comes to its end.
fn killed_run(seed: &mut u64, most: usize) -> usize {
    let mut random = |below: u64| {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % below
    };
    // Each writes a line as it begins and one as it ends; every seventh fails the first time.
    let mut text = String::new();
    for job in 0..JOBS {
        let needs = match job {
            0..8 => String::new(),
            _ => format!("needs = ['j{}']\n", job - 8),
        };
        let first = match job % 7 {
            3 => format!("mkdir once-{job} 2>/dev/null && exit 1; "),
            _ => String::new(),
        };
        text += &format!(
            "[[job]]\nname = 'j{job}'\n{needs}run = 'echo b >> log-{job}; {first}sleep 0.00{}; \
             echo e >> log-{job}'\n",
            job % 10
        );
    }
    let case = Case::toml(&text);
    // By how many ends of each job had been told when it was last told to have succeeded.
    let mut told: HashMap<String, usize> = HashMap::new();
    let ran = |job: &str| {
        let log = fs::read_to_string(case.path(&format!("log-{}", &job[1..]))).unwrap_or_default();
        log.matches('b').count()
    };
    let mut kills = 0;
    loop {
        let mut command = case.command(["run", "jobs.toml", "--resume", "--output", "json", "-j4"]);
        let out = fs::File::create(case.path("events")).unwrap();
        let mut child = command
            .stdout(out)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let is_last = kills >= most;
        if !is_last {
            // The moment is what is drawn, and not waited for.
            std::thread::sleep(std::time::Duration::from_micros(random(120_000)));
            let _ = child.kill();
        }
        let status = child.wait().unwrap();
        let text = case.read("events");
        // The last line may be cut short.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let found = events(&text[..whole]);
        for name in started(&found) {
            assert!(
                !told.contains_key(&name),
                "{name} had succeeded, and ran again"
            );
        }
        for event in &found {
            if event["status"] == "success" {
                let name = event["job"].as_str().unwrap().to_owned();
                told.insert(name.clone(), ran(&name));
            }
        }
        for (name, times) in &told {
            assert_eq!(ran(name), *times, "{name} ran again");
        }
        let Some(code) = status.code() else {
            kills += 1;
            // What the journal has recorded and nobody was told is as true, and as final.
            let dry = case
                .reiver(&["run", "jobs.toml", "--resume", "--dry-run"])
                .expect(0);
            let left: HashSet<&str> = dry
                .stdout
                .lines()
                .filter_map(|line| line.split_whitespace().nth(2)?.strip_suffix(':'))
                .collect();
            for name in (0..JOBS).map(|job| format!("j{job}")) {
                if !left.contains(name.as_str()) {
                    let log = case.read(&format!("log-{}", &name[1..]));
                    assert!(
                        log.ends_with("e\n"),
                        "{name} is recorded, and came to no end"
                    );
                    told.insert(name.clone(), ran(&name));
                }
            }
            continue;
        };
        let [succeeded, failed, cancelled, skipped] = sums(&found);
        assert_eq!(succeeded + failed + cancelled + skipped, JOBS);
        assert_eq!(
            code,
            i32::from(failed + cancelled > 0),
            "the exit code is true"
        );
        assert_eq!(cancelled, 0);
        if code == 0 {
            assert_eq!(succeeded, JOBS, "nothing is forgotten");
            for job in 0..JOBS {
                let log = case.read(&format!("log-{job}"));
                assert!(log.ends_with("e\n"), "j{job} came to its end: {log}");
            }
            case.reiver(&["journal", "show", "jobs.toml"]).expect(0);
            return kills;
        }
    }
}

/// As `git clean` does that a job runs.
#[test]
fn a_journal_that_a_job_removes_is_missed() {
    let case = Case::new();
    case.write("lines", "rm -r .reiver\necho well\n");
    let done = case.reiver(&["run", "lines", "-j1"]).expect(3);
    assert_eq!(done.stdout, "well\n");
    let said = "somebody has removed the journal";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    assert!(done.stderr.contains("2 succeeded"), "{}", done.stderr);
}

#[test]
fn a_journal_in_whose_place_another_run_has_begun_one_is_missed() {
    let case = Case::new();
    case.write(
        "jobs",
        "rm -r .reiver/jobs; $REIVER run others --journal .reiver/jobs/journal\necho well\n",
    );
    case.write("others", "echo other\n");
    let done = case.through_shell("$REIVER run jobs -j1").expect(3);
    let said = "somebody has removed the journal";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    assert!(done.stderr.contains("2 succeeded"), "{}", done.stderr);
    let shown = case.reiver(&["journal", "show", "jobs"]).expect(0).stdout;
    assert!(shown.contains("1 succeeded"), "{shown}");
}

/// Of two, one runs, and the other is told that it does.
#[test]
fn runs_that_begin_at_one_moment_wait_for_no_other_reason() {
    let case = Case::new();
    case.write("lines", "true\n");
    for _ in 0..40 {
        let both = [(); 2].map(|()| case.start(&["run", "lines"]));
        for done in both.map(Done::of) {
            let is_told = done.code == 2 && done.stderr.contains("in use by");
            assert!(done.code == 0 || is_told, "{done:?}");
        }
    }
}

#[test]
fn a_folder_that_is_no_journals_is_left_as_it_is() {
    let case = Case::new();
    case.write("lines", "touch ran\n");
    fs::create_dir(case.path("mine")).unwrap();
    case.write("mine/own", "");
    for resume in [&[][..], &["--resume"]] {
        let journal = ["run", "lines", "--journal", "mine"];
        let done = case.reiver(&[&journal[..], resume].concat()).expect(2);
        let said = "holds what is no journal's, `own` for one";
        assert!(done.stderr.contains(said), "{}", done.stderr);
    }
    assert!(!case.has("ran"));
    let mut left: Vec<_> = fs::read_dir(case.folder()).unwrap().flatten().collect();
    left.sort_by_key(|entry| entry.file_name());
    let left: Vec<_> = left.iter().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["lines", "mine"], "no lock is left beside it");
}
