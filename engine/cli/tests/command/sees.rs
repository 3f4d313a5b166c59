//! What a job sees when it starts.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::case::{Case, Done};

#[test]
fn a_line_is_the_shells_whatever_is_in_it() {
    let case = Case::new();
    let lines: &[u8] = b"# a comment\n\n  \n\
        echo 'a  b' \"$((1+2))\"; echo second\n\
        printf '%s\\n' \"$HOME\" | wc -l\n\
        printf '\xff\xfe' | od -An -tx1\n\
        echo {name} {{name}} ${none-{name}}\r\n\
        echo no newline at the end";
    case.write("lines.txt", lines);
    let done = case.reiver(&["run", "lines.txt", "-j1"]).expect(0);
    let expected = "a  b 3\nsecond\n1\n ff fe\n{name} {{name}} {name}\nno newline at the end\n";
    assert_eq!(done.stdout, expected);
}

#[test]
fn bytes_that_are_no_text_pass_through_a_plain_line() {
    let case = Case::new();
    case.write("lines.txt", b"printf %s \xff\xfe'\xfd x'");
    let done = case.command(["run", "lines.txt"]).output().unwrap();
    assert_eq!(done.stdout, b"\xff\xfe\xfd x");
}

#[test]
fn a_plain_line_and_one_for_the_shell_see_the_same() {
    let see = "cat /proc/self/status | grep -E '^(SigBlk|SigIgn|SigCgt|Cpus_allowed|Mems_allowed):'; \
               readlink /proc/self/cwd; umask; echo $PWD";
    let case = Case::new();
    case.write("see.sh", see);
    case.write("jobs.txt", "sh see.sh\nsh see.sh; true\n");
    let done = case.reiver(&["run", "jobs.txt", "-j1"]).expect(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    let (plain, shell) = lines.split_at(lines.len() / 2);
    assert_eq!(plain, shell);
    assert!(lines.len() > 10, "{lines:?}");
}

#[test]
fn signals_are_at_their_defaults_even_those_that_reiver_ignores() {
    let case = Case::toml("[[job]]\nrun = \"grep -E '^Sig(Blk|Ign)' /proc/self/status\"");
    let done = case
        .through_shell("trap '' HUP USR1 PIPE; exec $REIVER run jobs.toml")
        .expect(0);
    for line in done.stdout.lines() {
        assert!(line.ends_with("\t0000000000000000"), "{}", done.stdout);
    }
    assert_eq!(done.stdout.lines().count(), 2);
}

#[test]
fn a_job_has_its_three_streams_and_a_jobservers_pipe_and_no_descriptor_more() {
    let case = Case::toml("[[job]]\nrun = 'echo $MAKEFLAGS; exec ls /proc/self/fd'");
    let done = case
        .through_shell("exec 9<jobs.toml 7<.; exec $REIVER run jobs.toml")
        .expect(0);
    let (flags, open) = done.stdout.split_once('\n').unwrap();
    let (_, pipe) = flags.rsplit_once("--jobserver-auth=").expect(flags);
    let numbers = |text: &str| -> BTreeSet<u32> {
        let numbers = text.split([',', '\n']).filter(|word| !word.is_empty());
        numbers.map(|number| number.parse().unwrap()).collect()
    };
    let mut expected = numbers(pipe);
    assert_eq!(expected.len(), 2);
    expected.extend(0..3);
    // The folder that `ls` reads is the first that is free.
    expected.extend((3..).find(|fd| !expected.contains(fd)));
    assert_eq!(numbers(open), expected);
}

#[test]
fn each_attempt_leads_a_session_of_its_own() {
    let case = Case::toml("[[job]]\nrun = \"cut -d' ' -f1,6 /proc/$$/stat; : not plain\"");
    let done = case.run().expect(0);
    let words: Vec<&str> = done.stdout.split_whitespace().collect();
    assert_eq!(words[0], words[1]);
}

#[test]
fn standard_input_is_empty_or_the_file_that_was_named() {
    let case = Case::toml(
        "[[job]]\nname = 'none'\ncommand = ['cat']\n\
         [[job]]\nname = 'file'\ncommand = ['cat']\nstdin = 'in {name}.txt'\n\
         [[job]]\nname = 'gone'\ncommand = ['cat']\nstdin = 'gone.txt'",
    );
    case.write("in file.txt", "from a file\n");
    let done = case
        .reiver_with_input(&["run", "jobs.toml"], b"not for jobs")
        .expect(1);
    assert_eq!(done.stdout, "from a file\n");
    assert!(
        done.stderr.contains("gone.txt: No such file"),
        "{}",
        done.stderr
    );
}

#[test]
fn the_folder_is_that_of_the_file_and_pwd_says_so() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("deep/work")).unwrap();
    case.write(
        "deep/jobs.toml",
        "[[job]]\nrun = 'pwd; echo $PWD'\n[[job]]\nrun = 'pwd; echo $PWD'\ncwd = 'work'",
    );
    let done = case.reiver(&["run", "deep/jobs.toml", "-j1"]).expect(0);
    let deep = case.path("deep").canonicalize().unwrap();
    let (deep, work) = (
        deep.display().to_string(),
        deep.join("work").display().to_string(),
    );
    assert_eq!(done.stdout, format!("{deep}\n{deep}\n{work}\n{work}\n"));

    // From standard input: where reiver was started.
    let done = case.reiver_with_input(&["run", "-"], b"pwd").expect(0);
    let here = case.folder().canonicalize().unwrap();
    assert_eq!(done.stdout.trim_end(), here.display().to_string());
}

#[test]
fn a_folder_that_is_gone_fails_its_job_and_no_other() {
    let case = Case::toml(
        "[[job]]\nname = 'lost'\nrun = 'true'\ncwd = 'nowhere'\n\
         [[job]]\nname = 'file'\nrun = 'true'\ncwd = 'jobs.toml'\n\
         [[job]]\nname = 'well'\nrun = 'echo well'",
    );
    let done = case.run().expect(1);
    assert_eq!(done.stdout, "well\n");
    assert!(
        done.stderr.contains("nowhere: No such file or directory"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.to_lowercase().contains("not a directory"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("1 succeeded, 2 failed"),
        "{}",
        done.stderr
    );
}

#[test]
fn variables_are_set_kept_and_marked() {
    let case = Case::toml(
        "[defaults]\nenv = { BOTH = 'default', KEPT = 'default' }\n\
         [[job]]\nname = 'show'\nretries = 1\n\
         env = { BOTH = 'job {attempt}', NUMBER = 3, TRUTH = true, REIVER_JOB = 'ours wins' }\n\
         run = 'env | grep -E \"^(BOTH|KEPT|NUMBER|TRUTH|OUTER|REIVER_(ATTEMPT|JOB|RUN_ID))\" | sort; exit 1'",
    );
    let mut command = case.command(["run", "jobs.toml", "--output", "json"]);
    let child = command
        .env("OUTER", "kept")
        .env("REIVER_ATTEMPT", "9")
        .spawn()
        .unwrap();
    let done = Done::of(child).expect(1);
    let run = crate::case::events(&done.stdout)[0]["run"]
        .as_str()
        .unwrap()
        .to_owned();
    let last = format!(
        "BOTH=job 2\nKEPT=default\nNUMBER=3\nOUTER=kept\nREIVER_ATTEMPT=2\nREIVER_JOB=show\n\
         REIVER_RUN_ID={run}\nTRUTH=true\n"
    );
    assert!(done.stderr.contains(&last), "{}", done.stderr);
}

#[test]
fn values_arrive_as_they_are_in_whatever_quotes() {
    let case = Case::toml(
        "[[job]]\nname = 'job'\n\
         matrix = { v = [\"a b\", \"it's\", \"\\\"q\\\"\", \"$HOME `x` \\\\\", \"-n\", \"new\\nline\", \"\"] }\n\
         command = ['true']\n",
    );
    // Two cells with one name: the name must hold the key.
    case.reiver(&["check", "jobs.toml"]).expect(2);
    let case = Case::toml(
        "[[job]]\nname = '{i}'\n\
         run = '''./show {v} '{v}' \"{v}\" $(./show {v} \"{v}\")'''\n\
         [job.matrix]\ni = [1, 2, 3, 4, 5, 6, 7]\n\
         include = [{ i = 1, v = 'a  b' }, { i = 2, v = \"it's\" }, { i = 3, v = '\"q\"' }, \
         { i = 4, v = '$HOME `x` \\ {name}' }, { i = 5, v = '-n' }, { i = 6, v = \"new\\nline\" }, \
         { i = 7, v = '' }]\n",
    );
    case.write(
        "show",
        "#!/bin/sh\nfor each; do printf '<%s>' \"$each\"; done\n",
    );
    std::fs::set_permissions(
        case.path("show"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let done = case.reiver(&["run", "jobs.toml", "-j1"]).expect(0);
    let shown = |value: &str| {
        // What `$( )` gives stands unquoted, so the shell splits it at blanks.
        let inner = format!("<{value}><{value}>");
        let split: String = inner
            .split_whitespace()
            .map(|word| format!("<{word}>"))
            .collect();
        format!("<{value}><{value}><{value}>{split}")
    };
    let values = [
        "a  b",
        "it's",
        "\"q\"",
        "$HOME `x` \\ {name}",
        "-n",
        "new\nline",
        "",
    ];
    assert_eq!(done.stdout, values.map(shown).concat());
}

#[test]
fn a_program_is_found_as_a_shell_finds_it_and_its_lack_is_told() {
    let case = Case::toml(
        "[[job]]\nname = 'mine'\ncommand = ['mine']\nenv = { PATH = 'bin:/usr/bin:/bin' }\n\
         [[job]]\nname = 'lacks'\ncommand = ['no-such-program']\n\
         [[job]]\nname = 'plain'\ncommand = ['./jobs.toml']\n\
         [[job]]\nname = 'line'\nrun = 'no-such-program'\n\
         [[job]]\nname = 'deny'\nrun = './jobs.toml'\n",
    );
    std::fs::create_dir(case.path("bin")).unwrap();
    case.write("bin/mine", "#!/bin/sh\necho mine\n");
    std::fs::set_permissions(
        case.path("bin/mine"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let (events, done) = case.events(&[]);
    done.expect(1);
    let end = |name: &str| {
        let is_it =
            |event: &&serde_json::Value| event["event"] == "job-finished" && event["job"] == name;
        let event = events.iter().find(is_it).unwrap();
        format!("{} {} {}", event["status"], event["reason"], event["code"]).replace('"', "")
    };
    assert_eq!(end("mine"), "success null 0");
    assert_eq!(end("lacks"), "failed spawn null");
    assert_eq!(end("plain"), "failed spawn null");
    assert_eq!(end("line"), "failed exit 127");
    assert_eq!(end("deny"), "failed exit 126");
    let told = case.run().stderr;
    assert!(
        told.contains("cannot run `no-such-program`: No such file"),
        "{told}"
    );
    assert!(
        told.contains("cannot run `./jobs.toml`: permission denied")
            || told.contains("Permission denied"),
        "{told}"
    );
}

#[test]
fn what_a_program_is_read_by_is_told_where_it_lacks() {
    let case = Case::toml(
        "[[job]]\ncommand = ['./lacks']\n[[job]]\ncommand = ['./windows']\n\
         [[job]]\npriority = 'P2'\ncommand = ['./lacks']\n[[job]]\ncommand = ['./binary']\n",
    );
    // Of an ELF file all but the name of its loader.
    let mut binary = std::fs::read("/bin/true").unwrap();
    let loader = binary
        .windows(4)
        .position(|bytes| bytes == b"/ld-")
        .expect("a loader");
    binary[loader + 1] = b'?';
    for (name, text) in [
        ("lacks", b"#! /nowhere/python -x\nprint(1)\n".as_slice()),
        ("windows", b"#!/bin/sh\r\necho\r\n"),
        ("binary", &binary),
    ] {
        case.write(name, text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(case.path(name), mode).unwrap();
    }
    let told = case.run().expect(1).stderr;
    for (said, times) in [
        (
            "cannot run `./lacks`: its first line wants \"/nowhere/python\", which is not there",
            4,
        ),
        (
            "cannot run `./windows`: its first line wants \"/bin/sh\\r\", which is not there; \
             its lines end as on Windows",
            2,
        ),
        (
            "cannot run `./binary`: it is there, but the program that would load it is not",
            2,
        ),
    ] {
        assert_eq!(told.matches(said).count(), times, "{told}");
    }
}

#[test]
fn pipes_are_read_as_text() {
    let case = Case::new();
    let script = format!(
        "cd '{}' && '{}' run <(echo 'echo from a pipe')",
        case.folder().display(),
        crate::case::REIVER
    );
    let Ok(output) = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
    else {
        let _ = writeln!(std::io::stderr(), "skipped: there is no bash here");
        return;
    };
    assert_eq!(output.stdout, b"from a pipe\n", "{output:?}");
}

#[test]
fn names_of_files_are_any_bytes() {
    let case = Case::new();
    let name = std::ffi::OsStr::from_bytes(b"odd \xff name.toml");
    std::fs::write(case.folder().join(name), "[[job]]\nrun = 'echo odd'").unwrap();
    let mut command = case.command([std::ffi::OsStr::new("run"), name]);
    let done = Done::of(command.stdin(Stdio::null()).spawn().unwrap()).expect(0);
    assert_eq!(done.stdout, "odd\n");
}
