//! Where jobs go: CPU sets, nodes, and what jobs and people are told of that.

use std::collections::{HashMap, HashSet};
use std::thread;

use serde_json::Value;

use crate::case::{Case, lives};

/// What a job prints of the CPUs that it may run on, and of its memory.
const SEE: &str = "run = 'grep ^Cpus_allowed_list: /proc/self/status; head -1 /proc/self/numa_maps; \
     echo node ${REIVER_NODE-none}'\n";

fn cpus() -> usize {
    thread::available_parallelism()
        .expect("a number of CPUs")
        .get()
}

#[test]
fn jobs_that_run_at_once_have_cpus_of_their_own() {
    let text = format!(
        "[limits]\ncpus = {0}\n[[job]]\nname = '{{i}}'\nmatrix = {{ i = [1,2,3,4,5,6,7,8] }}\ncpus = 1\n\
         run = 'grep ^Cpus_allowed_list: /proc/self/status > $REIVER_JOB; sleep 0.1'",
        cpus()
    );
    let case = Case::toml(&text);
    let (events, done) = case.events(&[]);
    done.expect(0);
    let mut of_job: HashMap<String, u64> = HashMap::new();
    for event in events
        .iter()
        .filter(|event| event["event"] == "job-started")
    {
        let name = event["job"].as_str().expect("a name").to_owned();
        let cpus = event["cpus"].as_array().expect("where it is");
        assert_eq!(cpus.len(), 1);
        assert!(event["node"].is_u64());
        let seen = std::fs::read_to_string(case.path(&name)).unwrap();
        assert_eq!(seen, format!("Cpus_allowed_list:\t{}\n", cpus[0]));
        of_job.insert(name, cpus[0].as_u64().expect("a number"));
    }
    let held: HashSet<u64> = of_job.values().copied().collect();
    assert_eq!(of_job.len(), 8);
    assert!(held.len() <= cpus());
}

#[test]
fn the_affinity_of_the_command_line_is_for_jobs_that_state_none() {
    let case = Case::toml(
        "[[job]]\nnuma = { affinity = 'none' }\nrun = 'echo ${REIVER_NODE-free}'\n\
         [[job]]\nnuma = { policy = 'local' }\nrun = 'echo ${REIVER_NODE:+bound}'\n\
         [[job]]\nrun = 'echo ${REIVER_NODE:+bound}'\n",
    );
    for how in ["prefer", "require"] {
        let run = ["run", "jobs.toml", "--keep-order", "--numa", how];
        assert_eq!(case.reiver(&run).expect(0).stdout, "free\nbound\nbound\n");
    }
}

#[test]
fn without_cpus_a_job_has_all_that_reiver_has() {
    let case = Case::toml(&format!("[[job]]\n{SEE}"));
    let done = case.run().expect(0);
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find(|line| line.starts_with("Cpus_allowed_list:"))
        .unwrap();
    assert!(done.stdout.starts_with(own), "{}", done.stdout);
    assert!(done.stdout.contains(" default ") && done.stdout.ends_with("node none\n"));
}

#[test]
fn one_that_asks_for_more_than_there_is_gets_what_there_is() {
    let case = Case::toml(&format!(
        "[limits]\ncpus = 100000\n[[job]]\ncpus = 100000\n{SEE}\
         [[job]]\nname = 'second'\ncpus = 2\nneeds = ['job-1']\n{SEE}"
    ));
    let done = case.run().expect(0);
    assert!(
        done.stdout.starts_with("Cpus_allowed_list:\t0"),
        "{}",
        done.stdout
    );
    case.reiver(&["run", "jobs.toml", "-j2"]).expect(2);
}

#[test]
fn memory_policies_are_as_asked_and_reiver_goes_back_to_its_own() {
    let case = Case::toml(&format!(
        "[limits]\ncpus = 1\n\
         [[job]]\nname = 'bind'\nnuma = {{ affinity = 'require', policy = 'bind', nodes = [0] }}\n{SEE}\
         [[job]]\nname = 'after'\n{SEE}\
         [[job]]\nname = 'prefer'\nnuma = {{ affinity = 'prefer' }}\n{SEE}\
         [[job]]\nname = 'turns'\nnuma = {{ policy = 'interleave' }}\n{SEE}\
         [[job]]\nname = 'last'\n{SEE}"
    ));
    let done = case.run().expect(0);
    if done
        .stderr
        .contains("the system refuses a job's memory policy")
    {
        eprintln!("skipped: the system refuses memory policies");
        return;
    }
    let policies: Vec<&str> = done
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    let expected = [
        "bind:0",
        "0",
        "default",
        "none",
        "prefer:0",
        "0",
        "interleave:0",
        "none",
        "default",
        "none",
    ];
    assert_eq!(policies, expected, "{}", done.stdout);
}

#[test]
fn jobs_are_told_their_trace_and_it_is_the_one_of_the_environment() {
    let case = Case::toml(
        "[[job]]\nname = '{i}'\nmatrix = { i = [1, 2] }\nrun = 'echo $TRACEPARENT'\nretries = 1\n",
    );
    let spans = |line: &str| -> Vec<String> {
        let done = case.through_shell(line).expect(0);
        let mut lines: Vec<String> = done.stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), 2, "each job is a span of its own");
        lines
    };
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let given = format!("TRACEPARENT=00-{trace}-b7ad6b7169203331-01 $REIVER run jobs.toml");
    for span in spans(&given) {
        assert!(
            span.starts_with(&format!("00-{trace}-")) && span.ends_with("-01"),
            "{span}"
        );
        assert!(!span.contains("b7ad6b7169203331"));
    }
    let own = spans("unset TRACEPARENT; exec $REIVER run jobs.toml");
    assert_eq!(own[0][..35], own[1][..35], "one trace a run");
    assert_eq!(own[0].len(), 55);
}

#[test]
fn a_dry_run_shows_where_jobs_would_go_on_any_machine() {
    let case = Case::toml(
        "[[job]]\nname = 'a'\nrun = 'x'\ncpus = 3\n[[job]]\nname = 'b'\nrun = 'x'\ncpus = 3\n\
         [[job]]\nname = 'c'\nrun = 'x'\nneeds = ['a']\nnuma = { affinity = 'require', policy = 'bind', nodes = [1] }\n\
         [[job]]\nname = 'd'\nrun = 'x'\nclass = 'io'\n",
    );
    let dry = |reader: &str| {
        let arguments = ["run", "jobs.toml", "--dry-run", "--reader", reader];
        case.reiver(&arguments)
    };
    let done = dry("NUMANode:2 Core:4 PU:1").expect(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(
        lines[0],
        "4 jobs, 8 cpu slots and 128 io slots; nothing is run"
    );
    assert_eq!(lines[1], "P1 cpu×3  a: x  [node 0, cpus 0-2]");
    assert_eq!(lines[2], "P1 cpu×3  b: x  [node 1, cpus 4-6]");
    assert_eq!(
        lines[3],
        "P1 cpu×1  c: x  [node 1, cpus 4-7, memory of 1 alone]  [after a]"
    );
    assert_eq!(lines[4], "P1 io     d: x");
    let refused = dry("NUMANode:1 Core:4 PU:1").expect(2);
    assert!(
        refused.stderr.contains("this machine has no node 1"),
        "{}",
        refused.stderr
    );
    let refused = dry("NUMANode:2 Core:1 PU:1").expect(2);
    assert!(
        refused.stderr.contains("3 cpus never fit: the run has 2"),
        "{}",
        refused.stderr
    );
    dry("no machine").expect(2);
    case.reiver(&["run", "jobs.toml", "--reader", "NUMANode:2 Core:4 PU:1"])
        .expect(2);
}

#[test]
fn what_can_never_be_placed_is_refused() {
    let refused = |numa: &str, said: &str| {
        let case = Case::toml(&format!("[[job]]\nrun = 'x'\ncpus = 5\nnuma = {numa}\n"));
        let arguments = [
            "run",
            "jobs.toml",
            "--dry-run",
            "--reader",
            "NUMANode:2 Core:4 PU:1",
        ];
        let done = case.reiver(&arguments).expect(2);
        assert!(done.stderr.contains(said), "{}", done.stderr);
    };
    let fits = "5 cpus never fit the nodes that are required: those have 4";
    refused("{ affinity = 'require' }", fits);
    refused("{ affinity = 'require', nodes = [1] }", fits);
    refused("{ nodes = [7] }", "this machine has no node 7");
    let case = Case::toml(
        "[[job]]\nrun = 'x'\ncpus = 5\nnuma = { affinity = 'require', nodes = [0, 1] }\n",
    );
    let arguments = [
        "run",
        "jobs.toml",
        "--dry-run",
        "--reader",
        "NUMANode:2 Core:4 PU:1",
    ];
    let done = case.reiver(&arguments).expect(0);
    assert!(done.stdout.contains("[cpus 0-4]"), "{}", done.stdout);
}

#[test]
fn events_of_jobs_that_are_not_placed_do_not_say_where() {
    let case = Case::toml("[[job]]\nrun = 'true'\n");
    let (events, done) = case.events(&[]);
    done.expect(0);
    let started: Vec<&Value> = events
        .iter()
        .filter(|e| e["event"] == "job-started")
        .collect();
    assert!(started[0].get("node").is_none() && started[0].get("cpus").is_none());
}

/// Two jobs on one CPU that compute until they are told to stop, and what each of them got.
fn spin(prefix: &str) -> Option<(u64, u64)> {
    let spin = |wait: &str| {
        format!(
            "run = '{wait} touch $REIVER_JOB; while ! [ -e stop ]; do :; done; \
             cut -d\" \" -f14,15 /proc/$$/stat > $REIVER_JOB.ticks'\n"
        )
    };
    let case = Case::toml(&format!(
        "[[job]]\nname = 'p1'\n{}[[job]]\nname = 'p2'\npriority = 'P2'\n{}\
         [[job]]\nname = 'clock'\nclass = 'io'\nrun = 'until [ -e p1 ] && [ -e p2 ]; do sleep 0.05; done; \
         sleep 3; touch stop'\n",
        spin(""),
        spin("until [ -e p1 ]; do sleep 0.05; done;"),
    ));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(case.folder(), mode).expect("a folder of ours");
    let line = format!("exec {prefix} taskset -c 0 $REIVER run jobs.toml -j2 --no-journal");
    let done = case.through_shell(&line);
    if done.code == 127 || done.code == 126 {
        eprintln!("skipped: {}", done.stderr);
        return None;
    }
    assert_eq!(done.expect(0).stderr.matches("warn").count(), 0);
    let ticks = |name: &str| -> u64 {
        let text = std::fs::read_to_string(case.path(&format!("{name}.ticks"))).unwrap();
        text.split_whitespace()
            .map(|word| word.parse::<u64>().unwrap())
            .sum()
    };
    Some((ticks("p1"), ticks("p2")))
}

#[test]
fn a_background_job_gives_way_to_one_that_is_not() {
    let others = "setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs";
    for prefix in ["", others] {
        let Some((p1, p2)) = spin(prefix) else {
            continue;
        };
        eprintln!("{prefix}: {p1} ticks, and {p2} in the background");
        assert!(p2 * 20 <= p1 + p2, "{prefix}: {p1} and {p2}");
        assert!(p1 > 20, "{prefix}: {p1} and {p2}");
    }
}

#[test]
fn background_jobs_are_jobs_as_all_others() {
    let job = |priority: &str| {
        format!(
            "[[job]]\nname = '{priority}'\npriority = '{priority}'\ncwd = 'sub'\nenv = {{ A = 'b c' }}\n\
             run = 'umask; pwd; echo \"$A\"; ls /proc/self/fd | wc -l; nice; \
             grep -E \"^(Sig(Blk|Ign|Cgt)|Cpus_allowed|Mems_allowed):\" /proc/self/status; \
             echo $REIVER_ATTEMPT; cat; exit 3'\n"
        )
    };
    let case = Case::toml(&format!("{}{}", job("P1"), job("P2")));
    std::fs::create_dir(case.path("sub")).unwrap();
    let done = case.reiver(&["run", "jobs.toml", "-j1"]).expect(1);
    let lines: Vec<&str> = done.stdout.lines().collect();
    let (plain, background) = lines.split_at(lines.len() / 2);
    assert_eq!(plain, background);
    assert!(lines.len() > 16, "{lines:?}");
    assert_eq!(done.stderr.matches("exit code 3").count(), 4);
}

#[test]
fn background_jobs_are_at_the_idle_class_and_end_like_all_others() {
    let case = Case::toml(
        "[defaults]\npriority = 'P2'\n[[job]]\nname = 'class'\nrun = 'cut -d\" \" -f41 /proc/self/stat'\n\
         [[job]]\nname = 'gone'\ncommand = ['no such program']\n\
         [[job]]\nname = 'tree'\nrun = 'sleep 77 & sleep 77 & (env -i setsid sleep 77 &) ; wait'\ntimeout = '300ms'\n\
         [[job]]\nname = 'killed'\nrun = 'kill -9 $$'\n\
         [[job]]\nname = 'many-{i}'\nmatrix = { i = [1,2,3,4,5,6,7,8,9] }\ncommand = ['true']\n",
    );
    let (events, done) = case.events(&[]);
    done.expect(1);
    let reason = |name: &str| {
        let mut ends = events.iter().filter(|e| e["event"] == "job-finished");
        ends.find(|event| event["job"] == name).expect("it ended")["reason"].clone()
    };
    assert_eq!(reason("gone"), "spawn");
    assert_eq!(reason("tree"), "timeout");
    assert_eq!(reason("killed"), "signal");
    assert_eq!(reason("many-9"), Value::Null);
    let done = case
        .reiver(&["run", "jobs.toml", "--filter", "class"])
        .expect(0);
    assert_eq!(done.stdout, "5\n", "SCHED_IDLE");
}

#[test]
fn background_jobs_of_a_killed_run_are_ended_before_they_run_again() {
    let case = Case::toml(
        "[[job]]\nname = 'once'\npriority = 'P2'\n\
         run = 'if [ -e second ]; then echo $$ >> pids; else echo $$ >> pids; : > told; \
         env -i sleep 300; fi'\n",
    );
    let mut child = case.start(&["run", "jobs.toml"]);
    case.wait_for("told");
    child.kill().expect("it runs");
    child.wait().expect("it has ended");
    case.write("second", "");
    let done = case.reiver(&["run", "jobs.toml", "--resume"]).expect(0);
    assert!(
        done.stderr.contains("that a run left behind"),
        "{}",
        done.stderr
    );
    let pids = std::fs::read_to_string(case.path("pids")).unwrap();
    let pids: Vec<u32> = pids.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    assert!(!lives(pids[0]));
}

#[test]
fn whoever_starts_background_jobs_may_be_killed() {
    // The leader of their session, once it has said that the job has started.
    let case = Case::toml(
        "[defaults]\npriority = 'P2'\n\
         [[job]]\nname = 'kills'\nrun = 'until grep -q job-started events; do sleep 0.01; done; \
         kill -9 $(cut -d\" \" -f6 /proc/$$/stat)'\n\
         [[job]]\nname = 'next'\nneeds = ['kills']\nrun = 'touch next'\n",
    );
    let line = "$REIVER run jobs.toml --output json > events";
    case.through_shell(line).expect(0);
    assert!(case.has("next"));
}
