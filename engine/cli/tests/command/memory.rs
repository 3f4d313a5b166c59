//! Memory that jobs state is a limit where cgroups can be written, and nothing is left of those.

use std::fs;
use std::path::PathBuf;
use std::process::Child;

use serde_json::Value;

use crate::case::{Case, Done, lives, with_time_enough};

/// Takes so many MiB of memory, and keeps them for a moment.
fn takes(mib: u32) -> String {
    format!("head -c {mib}M /dev/zero | tail -c {mib}M | wc -c")
}

/// Where this process's memory is counted, in either version.
fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = |which: &str| {
        let mut lines = groups
            .lines()
            .filter_map(|line| line.split_once(':')?.1.split_once(':'));
        lines
            .find(|(controllers, _)| controllers.split(',').any(|one| one == which))
            .map(|(_, path)| path)
    };
    let one = path("memory").map(|path| PathBuf::from(format!("/sys/fs/cgroup/memory{path}")));
    let two = path("").map(|path| PathBuf::from(format!("/sys/fs/cgroup{path}")));
    one.or(two)
}

/// Folders of runs that there are just now, beside this process's group and in it.
fn folders() -> Vec<PathBuf> {
    let Some(own) = own_group() else {
        return Vec::new();
    };
    let bases = [own.parent().map(PathBuf::from).unwrap_or_default(), own];
    let entries = bases
        .iter()
        .filter_map(|base| fs::read_dir(base).ok())
        .flatten()
        .flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"reiver-"))
        })
        .collect()
}

/// True, and said so, where no cgroup can limit memory.
fn is_without(done: &str) -> bool {
    let is_without = done.contains("cgroups cannot be used here");
    if is_without {
        eprintln!("skipped: {done}");
    }
    is_without
}

fn run_of(events: &[Value]) -> &str {
    events[0]["run"].as_str().expect("a run")
}

fn is_left(run: &str) -> bool {
    let name = format!("reiver-{run}");
    folders().iter().any(|folder| folder.ends_with(&name))
}

#[test]
fn a_job_that_takes_more_than_it_states_is_told_apart() {
    let case = Case::toml(&format!(
        "[[job]]\nname = 'fits'\nmemory = '600MiB'\nrun = '{}'\n\
         [[job]]\nname = 'grows'\nmemory = '40MiB'\nrun = '{}'\nretries = 1\n\
         [[job]]\nname = 'background'\npriority = 'P2'\nmemory = '40MiB'\nrun = '{}'\n\
         [[job]]\nname = 'killed'\nmemory = '600MiB'\nrun = 'kill -9 $$'\n\
         [[job]]\nname = 'fails'\nmemory = '600MiB'\nrun = 'exit 7'\n\
         [[job]]\nname = 'tiny'\nmemory = 1\ncommand = ['true']\n",
        takes(20),
        takes(200) + "; exit 1",
        takes(200) + "; exit 1",
    ));
    let (events, done) = case.events(&["--limit", "memory=2GiB", "--joblog", "log"]);
    if is_without(&done.stderr) {
        return;
    }
    let done = done.expect(1);
    let reason = |name: &str| {
        let mut ends = events
            .iter()
            .filter(|event| event["event"] == "job-finished");
        ends.find(|event| event["job"] == name).expect("it ended")["reason"].clone()
    };
    for (name, expected) in [
        ("grows", "oom"),
        ("background", "oom"),
        ("tiny", "oom"),
        ("killed", "signal"),
        ("fails", "exit"),
    ] {
        assert_eq!(reason(name), expected, "{name}: {}", done.stderr);
    }
    assert_eq!(reason("fits"), Value::Null);
    assert!(
        done.stderr
            .contains("grows (attempt 2 of 2): out of memory"),
        "{}",
        done.stderr
    );
    assert!(!is_left(run_of(&events)), "{:?}", folders());
}

#[test]
fn a_process_that_has_left_everything_behind_is_known_by_its_cgroup() {
    let ended = with_time_enough(|ms| {
        let case = Case::toml(&format!(
            "[[job]]\nmemory = '100MiB'\ntimeout = '{ms}ms'\nrun = '''\n\
             (env -i setsid sh -c \"sh -c 'echo \\$\\$ > number; mv number daemon; exec sleep 300' \
             > /dev/null 2>&1 < /dev/null &\" &)\n\
             sleep 300'''\n",
        ));
        let (events, done) = case.events(&[]);
        if is_without(&done.stderr) {
            return Some(None);
        }
        done.expect(1);
        let daemon = case.has("daemon").then(|| case.pid("daemon"))?;
        Some(Some((daemon, events)))
    });
    if let Some((daemon, events)) = ended {
        assert!(!lives(daemon));
        assert!(!is_left(run_of(&events)));
    }
}

#[test]
fn what_outlives_a_normal_end_lives_on_and_leaves_no_cgroup_behind() {
    let case = Case::toml(
        "[[job]]\nmemory = '100MiB'\nrun = 'sleep 300 > /dev/null 2>&1 & echo $! > left'\n",
    );
    let (events, done) = case.events(&[]);
    let is_without = is_without(&done.stderr);
    done.expect(0);
    let left: u32 = fs::read_to_string(case.path("left"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(lives(left));
    assert!(is_without || !is_left(run_of(&events)));
    case.through_shell(&format!("kill {left}"));
}

#[test]
fn what_a_killed_run_has_left_is_removed_by_the_next() {
    let case = Case::toml(
        "[[job]]\nname = 'first'\nmemory = '100MiB'\nrun = 'echo $$ > new; mv new pid; [ -e second ] || sleep 300'\n",
    );
    let mut child: Child = case.start(&["run", "jobs.toml"]);
    case.wait_for("pid");
    let run = {
        let pid = fs::read_to_string(case.path("pid")).unwrap();
        let environment = fs::read(format!("/proc/{}/environ", pid.trim())).unwrap_or_default();
        let words = environment.split(|&byte| byte == 0);
        let mut runs = words.filter_map(|word| word.strip_prefix(b"REIVER_RUN_ID="));
        String::from_utf8(runs.next().expect("it is marked").to_vec()).unwrap()
    };
    child.kill().expect("it runs");
    let done = Done::of(child);
    if is_without(&done.stderr) {
        return;
    }
    assert!(is_left(&run), "it had no time to tidy up: {:?}", folders());
    case.write("second", "");
    case.reiver(&["run", "jobs.toml", "--resume"]).expect(0);
    assert!(!is_left(&run), "{:?}", folders());
}

#[test]
fn where_cgroups_cannot_be_used_that_is_said_once() {
    let case = Case::toml(
        "[[job]]\nname = '{i}'\nmatrix = { i = [1, 2, 3] }\nmemory = '10MiB'\nrun = 'true'\n",
    );
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(case.folder(), mode).expect("a folder of ours");
    let others = "setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs";
    let done = case.through_shell(&format!("exec {others} $REIVER run jobs.toml"));
    if done.code != 0 {
        eprintln!("skipped: {}", done.stderr);
        return;
    }
    let said = done.stderr.matches("cgroups cannot be used here").count();
    assert_eq!(said, 1, "{}", done.stderr);
}
