//! What comes out, where, and when.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::thread;

use crate::case::{Case, Done, marked};

#[test]
fn what_a_job_prints_is_never_mixed_with_anothers() {
    let mut text = String::new();
    for job in 0..6 {
        text += &format!(
            "[[job]]\nrun = 'i=0; while [ $i -lt 300 ]; do echo {job} $i; i=$((i+1)); done'\n"
        );
    }
    let case = Case::toml(&text);
    let done = case.reiver(&["run", "jobs.toml", "-j6"]).expect(0);
    let owners: Vec<char> = done
        .stdout
        .lines()
        .filter_map(|line| line.chars().next())
        .collect();
    assert_eq!(owners.len(), 1800);
    let changes = owners.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 5);
}

#[test]
fn standard_error_goes_to_standard_error_unless_it_joins() {
    let case = Case::toml(
        "[[job]]\nname = 'apart'\nrun = 'echo out; echo err >&2'\n\
         [[job]]\nname = 'joined'\nstderr = 'stdout'\nrun = 'echo 1; echo 2 >&2; echo 3'",
    );
    let done = case.reiver(&["run", "jobs.toml", "-j1"]).expect(0);
    assert_eq!(done.stdout, "out\n1\n2\n3\n");
    assert!(done.stderr.starts_with("err\n"), "{}", done.stderr);
}

#[test]
fn files_take_streams_folders_are_made_and_each_attempt_truncates() {
    let case = Case::toml(
        "[[job]]\nname = 'split'\nretries = 1\ncwd = 'work'\n\
         stdout = 'logs/{name}.{attempt}.out'\nstderr = '../err/all.err'\n\
         run = 'echo $REIVER_ATTEMPT; echo long enough $REIVER_ATTEMPT >&2; [ $REIVER_ATTEMPT = 2 ]'\n\
         [[job]]\nname = 'one'\nstdout = 'one.txt'\nstderr = 'stdout'\nrun = 'echo a; echo b >&2'",
    );
    fs::create_dir(case.path("work")).unwrap();
    let done = case.run().expect(0);
    assert_eq!(done.stdout, "");
    assert_eq!(case.read("work/logs/split.1.out"), "1\n");
    assert_eq!(case.read("work/logs/split.2.out"), "2\n");
    assert_eq!(case.read("err/all.err"), "long enough 2\n");
    assert_eq!(case.read("one.txt"), "a\nb\n");
}

#[test]
fn a_failure_says_all_that_helps_and_keeps_the_output() {
    let case = Case::toml(
        "[[job]]\nname = 'breaks'\nretries = 1\nstdout = 'out.txt'\n\
         run = 'echo to a file; for i in $(seq 30); do echo line $i >&2; done; exit 7'",
    );
    // Apart, so that what was printed whole is not shown again: both ends are pipes here.
    let done = case.run().expect(1);
    assert!(
        done.stderr.contains("breaks (attempt 1 of 2): exit code 7"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr
            .contains("failed: breaks (attempt 2 of 2): exit code 7")
    );
    assert!(
        done.stderr.contains("reiver: 1 job: 0 succeeded, 1 failed"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("reiver run jobs.toml --filter breaks"),
        "{}",
        done.stderr
    );
    let log = fs::read_dir(case.path(".reiver/jobs.toml/logs"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect::<Vec<_>>();
    assert_eq!(log.len(), 2, "one an attempt");
    assert!(log.iter().all(|log| log.lines().count() == 30));
}

#[test]
fn large_output_comes_whole() {
    let case = Case::toml("[[job]]\nrun = 'head -c 100000000 /dev/zero | tr \"\\\\0\" x; echo'");
    let done = case.run().expect(0);
    assert_eq!(done.stdout.len(), 100_000_001);
    assert!(done.stdout.trim_end().bytes().all(|byte| byte == b'x'));
}

#[test]
fn what_a_job_prints_is_not_held_in_memory() {
    // Sixteen times what it may take.
    let case = Case::new();
    case.write(
        "lines",
        "head -c 1G /dev/zero\ngrep VmHWM /proc/$PPID/status >&2\n",
    );
    for order in [&[][..], &["--keep-order"]] {
        let mut command = case.command([&["run", "lines", "-j1"], order].concat());
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let bytes = io::copy(&mut stdout, &mut io::sink()).unwrap();
        let done = Done::of(child).expect(0);
        assert_eq!(bytes, 1 << 30);
        let most = done
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = most.and_then(|most| most.trim().strip_suffix(" kB")?.parse().ok());
        let kibibytes: u64 = kibibytes.unwrap_or_else(|| panic!("{done:?}"));
        assert!(kibibytes < 65_536, "{kibibytes} KiB");
    }
}

#[test]
fn colours_are_for_terminals_and_for_who_asks() {
    let case = Case::toml("[[job]]\nrun = 'exit 1'");
    let escape = '\u{1b}';
    assert!(!case.run().expect(1).stderr.contains(escape));
    let done = case
        .reiver(&["run", "jobs.toml", "--color", "always"])
        .expect(1);
    assert!(done.stderr.contains(escape));
    let mut command = case.command(["run", "jobs.toml", "--color", "always"]);
    let child = command.env("NO_COLOR", "1").spawn().unwrap();
    assert!(Done::of(child).stderr.contains(escape), "the option wins");
}

#[test]
fn a_name_with_control_characters_moves_no_cursor() {
    let case = Case::toml("[[job]]\nname = \"a\\u001b[2Jb\\nc\"\nrun = 'exit 1'");
    let done = case.run().expect(1);
    assert!(!done.stderr.contains('\u{1b}'), "{:?}", done.stderr);
}

#[test]
fn a_reader_that_goes_away_ends_the_run() {
    let case = Case::toml(
        "[[job]]\nname = 'long'\nrun = 'sleep 100; true'\n\
         [[job]]\nname = 'first'\nrun = 'echo first'\n\
         [[job]]\nname = 'late'\nneeds = ['first']\nrun = 'while ! [ -e gone ]; do sleep 0.01; done; echo late'",
    );
    let mark = format!("REIVER_TEST_MARK={}", case.folder().display());
    let (key, value) = mark.split_once('=').unwrap();
    let mut command = case.command(["run", "jobs.toml", "-j2"]);
    let mut child = command.env(key, value).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    drop(out);
    case.write("gone", "");
    Done::of(child).expect(128 + libc::SIGPIPE);
    assert!(marked(&mark).is_empty());
}

#[test]
fn check_answers_on_standard_output_and_runs_nothing() {
    let case = Case::toml("[[job]]\nrun = 'touch ran'");
    let done = case.reiver(&["check", "jobs.toml"]).expect(0);
    assert!(
        done.stdout.contains("no mistakes in jobs.toml: 1 job"),
        "{}",
        done.stdout
    );
    assert_eq!(done.stderr, "");
    let dry = case.reiver(&["run", "jobs.toml", "--dry-run"]).expect(0);
    assert!(dry.stdout.contains("touch ran"), "{}", dry.stdout);
    assert!(!case.has("ran"));
    assert!(!case.has(".reiver"));
}

#[test]
fn an_empty_file_is_a_run_of_no_jobs() {
    let case = Case::new();
    for name in ["empty.toml", "empty.jsonl", "empty.txt"] {
        case.write(name, "");
        let done = case.reiver(&["run", name]).expect(0);
        assert_eq!(done.stdout, "");
        assert!(done.stderr.contains("0 jobs"), "{}", done.stderr);
    }
}

#[test]
fn nothing_is_left_where_nothing_failed_and_no_journal_is_kept() {
    let case = Case::toml("[[job]]\nrun = 'echo well'");
    case.reiver(&["run", "jobs.toml", "--no-journal"]).expect(0);
    let mut left: Vec<_> = fs::read_dir(case.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["jobs.toml"]);
}

#[test]
fn a_folder_that_takes_no_logs_changes_no_outcome() {
    let case = Case::new();
    fs::create_dir(case.path("locked")).unwrap();
    case.write(
        "locked/jobs.toml",
        "[[job]]\nrun = 'echo out; exit 3'\n[[job]]\nrun = 'echo well'",
    );
    // A file where the folder would be: refused to root, too.
    case.write("locked/.reiver", "");
    let done = case
        .reiver(&["run", "locked/jobs.toml", "-j1", "--no-journal"])
        .expect(1);
    assert_eq!(done.stdout, "out\nwell\n");
    assert!(
        done.stderr
            .contains("cannot keep the output of failed jobs"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("1 succeeded, 1 failed"),
        "{}",
        done.stderr
    );
}

#[test]
fn output_that_has_no_place_is_said_to_be_lost_and_the_run_has_failed() {
    let case = Case::toml("[[job]]\nrun = 'yes | head -c 3000000'\n[[job]]\nrun = 'echo well'");
    // No file may be larger than 100 blocks, whatever their size.
    let done = case
        .through_shell("ulimit -f 100; exec $REIVER run jobs.toml -j1")
        .expect(3);
    assert!(done.stdout.starts_with("y\ny\n") && done.stdout.ends_with("well\n"));
    assert!(done.stdout.len() < 3_000_000);
    assert!(
        done.stderr.contains("bytes of stdout were lost"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("2 succeeded"), "{}", done.stderr);
}

#[test]
fn one_file_for_both_streams_holds_both() {
    let case = Case::toml(
        "[[job]]\nstdout = 'same'\nstderr = './same'\nrun = 'echo 1; echo 2 >&2; echo 3'\n\
         [[job]]\nstdout = 'one'\nstderr = 'one'\nrun = 'echo 1; echo 2 >&2; echo 3'",
    );
    case.run().expect(0);
    assert_eq!(case.read("one"), "1\n2\n3\n");
    assert_eq!(case.read("same"), "1\n2\n3\n");
}

#[test]
fn our_own_lines_begin_on_lines_of_their_own() {
    let case = Case::toml("[[job]]\nname = 'j'\nrun = 'printf out; printf err >&2; exit 1'");
    let done = case.run().expect(1);
    assert_eq!(done.stdout, "out", "what is the job's stays as it is");
    assert!(done.stderr.starts_with("err\nfailed: j"), "{}", done.stderr);
    let (_, done) = case.events(&[]);
    assert!(
        done.stderr.starts_with("out\nerr\nfailed: j"),
        "{}",
        done.stderr
    );
}

#[test]
fn what_was_never_started_has_no_log() {
    let case = Case::toml("[[job]]\nstdout = '/proc/no/such'\nrun = 'true'");
    let done = case.run().expect(1);
    assert!(
        done.stderr.contains("not started: stdout"),
        "{}",
        done.stderr
    );
    assert!(!done.stderr.contains("kept in"), "{}", done.stderr);
}

#[test]
fn on_a_terminal_nothing_that_was_printed_is_drawn_over() {
    let case = Case::toml("[[job]]\nrun = 'printf important'\n[[job]]\nrun = 'sleep 0.5'");
    let line = "script -qec \"$REIVER run jobs.toml -j1\" /dev/null </dev/null";
    let done = case.through_shell(line);
    if done.code == 127 {
        let _ = writeln!(std::io::stderr(), "skipped: there is no `script` here");
        return;
    }
    // A line that the bar is drawn on again is cleared before: nothing may stand on it.
    let printed = done.stdout.find("important").expect("it is printed");
    let after = &done.stdout[printed + "important".len()..];
    assert!(after.starts_with("\r\n"), "{after:?}");
    assert!(done.stdout.contains("2 succeeded"), "{}", done.stdout);
}

#[test]
fn standard_error_that_has_no_room_is_no_place_either() {
    let case = Case::new();
    case.write("lines", "echo lost >&2\n");
    let done = case.through_shell("$REIVER run lines 2>/dev/full");
    assert_eq!(done.code, 3, "{done:?}");
}

#[test]
fn a_stream_that_does_not_block_gets_all_of_the_output() {
    let case = Case::new();
    case.write(
        "lines",
        "head -c 300000 /dev/zero\nhead -c 300000 /dev/zero >&2\n",
    );
    let mut child = case.command(["run", "lines", "-j1", "--no-journal"]);
    let (mut stdout, out) = io::pipe().unwrap();
    let (mut stderr, err) = io::pipe().unwrap();
    for writer in [&out, &err] {
        // SAFETY: sets flags of a descriptor of ours.
        let result = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        assert_eq!(result, 0);
    }
    let mut started = child.stdout(out).stderr(err).spawn().unwrap();
    drop(child);
    let read = |reader: &mut io::PipeReader| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes.iter().filter(|&&byte| byte == 0).count()
    };
    let read = thread::scope(|scope| {
        let first = scope.spawn(|| read(&mut stdout));
        let second = scope.spawn(|| read(&mut stderr));
        [first, second].map(|reader| reader.join().unwrap())
    });
    assert_eq!(read, [300_000; 2]);
    assert_eq!(started.wait().unwrap().code(), Some(0));
}

#[test]
fn no_log_is_written_over_a_job_file_or_another_log() {
    let case = Case::new();
    case.write("lines", "touch ran\n");
    let refused: [&[&str]; 2] = [
        &["--report", "./lines"],
        &["--joblog", "log", "--trace", "log"],
    ];
    for options in refused {
        let done = case.reiver(&[&["run", "lines"], options].concat());
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.stderr.contains("would be written over"), "{done:?}");
    }
    assert_eq!(case.read("lines"), "touch ran\n");
    assert!(!case.has("ran"));
    let done = case.reiver(&["run", "lines", "--joblog", "/dev/full"]);
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.stderr.contains("--joblog: /dev/full"), "{done:?}");
}

#[test]
fn of_a_command_that_is_very_long_a_failure_shows_a_part_and_the_report_all() {
    let words = "word ".repeat(20_000);
    let case = Case::new();
    case.write("lines", format!("echo {words} >/dev/null; exit 1\n"));
    let logs = ["--report", "page.html", "--joblog", "log"];
    let done = case
        .reiver(&[&["run", "lines"], &logs[..]].concat())
        .expect(1);
    let shown = format!("  command: echo {}...\n", "word ".repeat(99));
    assert!(done.stderr.contains(&shown), "{}", done.stderr);
    assert!(done.stderr.len() < 3000, "{}", done.stderr);
    for whole in ["page.html", "log"] {
        assert!(case.read(whole).contains(&words), "{whole}");
    }
}

#[test]
fn of_a_line_that_is_very_long_a_failure_shows_a_part() {
    let case = Case::toml(
        "[[job]]\nrun = 'head -c 300000 /dev/zero | tr \"\\\\0\" x; echo; echo short; exit 1'\n",
    );
    let done = case
        .through_shell("exec $REIVER run jobs.toml >/dev/null")
        .expect(1);
    let shown = format!("  | {}...\n  | short\n", "x".repeat(500));
    assert!(done.stderr.contains(&shown), "{}", done.stderr);
}
