//! How jobs and runs end: by themselves, by time, by signals from outside.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::case::{Case, Done, daemon_that_keeps_nothing, lives, marked, with_time_enough};

fn signal(child: &std::process::Child, signal: i32) {
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: no pointers; the child is ours and has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// A job whose processes are of every kind that is hard to end, and that says when they all run.
fn stubborn(name: &str) -> String {
    format!(
        "[[job]]\nname = '{name}'\nkill-after = '200ms'\nrun = '''\n\
         sleep 1000 & sleep 1000 &\n\
         sh -c 'trap \"\" TERM; while :; do sleep 1; done' &\n\
         setsid sh -c 'setsid sleep 1000 & exec sleep 1000' &\n\
         (sleep 1000 & exec setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done') &\n\
         sleep 0.1; touch {name}.started; wait'''\n"
    )
}

#[test]
fn a_signal_in_the_middle_leaves_no_process_behind() {
    for (number, code) in [
        (libc::SIGTERM, 143),
        (libc::SIGINT, 130),
        (libc::SIGHUP, 129),
    ] {
        let waits = "[[job]]\nname = 'waits'\nneeds = ['a']\nrun = 'touch waits.ran'";
        let case = Case::toml(&format!("{}{}{waits}", stubborn("a"), stubborn("b")));
        let mark = format!("REIVER_TEST_MARK={}", case.folder().display());
        let (key, value) = mark.split_once('=').unwrap();
        let mut command = case.command(["run", "jobs.toml", "-j2"]);
        let child = command.env(key, value).spawn().unwrap();
        case.wait_for("a.started");
        case.wait_for("b.started");
        assert!(marked(&mark).len() > 12, "they run");
        signal(&child, number);
        let done = Done::of(child).expect(code);
        assert!(marked(&mark).is_empty(), "none is left");
        assert!(!case.has("waits.ran"));
        assert!(done.stderr.contains("3 cancelled"), "{}", done.stderr);
    }
}

#[test]
fn a_second_signal_kills_at_once() {
    let case = Case::toml(
        "[[job]]\nkill-after = '1h'\nrun = 'trap \"\" TERM; touch started; while :; do sleep 1; done'",
    );
    let mut child = case.start(&["run", "jobs.toml"]);
    case.wait_for("started");
    signal(&child, libc::SIGINT);
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    assert_eq!(
        first,
        "reiver: SIGINT: ending what runs; once more to kill it"
    );
    signal(&child, libc::SIGTERM);
    // Somebody reads on, so that reiver can say the rest.
    assert!(said.any(|line| line.unwrap().contains("1 cancelled")));
    // By the first of them.
    Done::of(child).expect(130);
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let case = Case::toml(
        "[[job]]\nrun = 'touch started; while ! [ -e go ]; do sleep 0.01; done; echo well'",
    );
    let child = case.start_shell("trap '' HUP; exec $REIVER run jobs.toml");
    case.wait_for("started");
    signal(&child, libc::SIGHUP);
    case.write("go", "");
    assert_eq!(Done::of(child).expect(0).stdout, "well\n");
}

#[test]
fn what_was_printed_before_a_cancel_is_printed() {
    let case = Case::toml("[[job]]\nrun = 'echo so far; touch started; sleep 1000'");
    let child = case.start(&["run", "jobs.toml"]);
    case.wait_for("started");
    signal(&child, libc::SIGTERM);
    assert_eq!(Done::of(child).expect(143).stdout, "so far\n");
}

#[test]
fn a_timeout_ends_everything_that_the_attempt_started() {
    let case = Case::toml(&stubborn("slow").replace("kill-after", "timeout = '500ms'\nkill-after"));
    let mark = format!("REIVER_TEST_MARK={}", case.folder().display());
    let (key, value) = mark.split_once('=').unwrap();
    let mut command = case.command(["run", "jobs.toml", "--output", "json"]);
    let done = Done::of(command.env(key, value).spawn().unwrap()).expect(1);
    assert!(marked(&mark).is_empty());
    let events = crate::case::events(&done.stdout);
    let finished = &events[2];
    assert_eq!(finished["reason"], "timeout", "{finished}");
    assert!(finished["seconds"].as_f64().unwrap() >= 0.5, "{finished}");
}

/// What is just being started has all descriptors of reiver for a moment, the pipes of others too.
#[test]
fn a_timeout_ends_nothing_that_others_start_meanwhile() {
    let job = |number: usize| match number % 4 {
        0 => "[[job]]\nrun = 'sleep 1000'\ntimeout = '10ms'\n",
        _ => "[[job]]\nrun = '/bin/true'\n",
    };
    let case = Case::toml(&(0..240).map(job).collect::<String>());
    let done = case.reiver(&["run", "jobs.toml", "-j16"]).expect(1);
    let summary = "240 jobs: 180 succeeded, 60 failed";
    assert!(done.stderr.contains(summary), "{}", done.stderr);
}

#[test]
fn a_timeout_is_of_one_attempt_and_is_tried_again() {
    let events = with_time_enough(|ms| {
        let case = Case::toml(&format!(
            "[[job]]\nname = 'slow'\ntimeout = '{ms}ms'\nretries = 2\n\
             run = 'if [ $REIVER_ATTEMPT = 3 ]; then touch third; else exec sleep 100; fi'",
        ));
        let (events, done) = case.events(&[]);
        case.has("third").then(|| {
            done.expect(0);
            events
        })
    });
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "run-started",
            "job-started",
            "job-retried",
            "job-started",
            "job-retried",
            "job-started",
            "job-finished",
            "run-finished",
        ]
    );
    assert_eq!(events[2]["reason"], "timeout");
    assert_eq!(events[2]["signal"], libc::SIGTERM);
}

#[test]
fn who_cleans_up_on_term_is_given_the_time() {
    let (case, done) = with_time_enough(|ms| {
        let case = Case::toml(&format!(
            "[[job]]\ntimeout = '{ms}ms'\nrun = 'trap \"sleep 0.3; touch cleaned; exit 0\" TERM; \
             touch ready; while :; do sleep 0.05; done'",
        ));
        let done = case.run().expect(1);
        case.has("ready").then_some((case, done))
    });
    assert!(case.has("cleaned"));
    assert!(done.stderr.contains("timeout"), "{}", done.stderr);
}

#[test]
fn a_background_child_outlives_a_normal_end_and_may_write() {
    let case = Case::toml(
        "[[job]]\nname = 'leaves'\n\
         run = '(while ! [ -e go ]; do sleep 0.01; done; head -c 500000 /dev/zero; echo $? > writing; mv writing wrote) & \
         echo $! > child; echo out'",
    );
    let done = case.run().expect(0);
    assert_eq!(done.stdout, "out\n");
    let child = case.pid("child");
    assert!(lives(child), "it was not ended with its job");
    case.write("go", "");
    case.wait_for("wrote");
    assert_eq!(
        case.read("wrote"),
        "0\n",
        "writing neither blocked nor killed it"
    );
}

#[test]
fn a_job_that_is_stopped_is_ended_all_the_same() {
    let case = Case::toml("[[job]]\ntimeout = '200ms'\nrun = 'kill -STOP $$; echo never'");
    let done = case.run().expect(1);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("timeout"), "{}", done.stderr);
}

#[test]
fn ends_are_told_apart() {
    let case = Case::toml(
        "[[job]]\nname = 'code'\nrun = 'exit 3'\n\
         [[job]]\nname = 'fine'\nrun = 'exit 3'\nsuccess-codes = [0, 3]\n\
         [[job]]\nname = 'zero'\nrun = 'true'\nsuccess-codes = [3]\n\
         [[job]]\nname = 'signal'\nrun = 'kill -KILL $$'\n\
         [[job]]\nname = 'spawn'\ncommand = ['/nowhere']\n",
    );
    let (events, done) = case.events(&["-j1"]);
    done.expect(1);
    let mut ends: Vec<String> = events
        .iter()
        .filter(|event| event["event"] == "job-finished")
        .map(|event| {
            let word = |key| event[key].to_string();
            [
                word("job"),
                word("status"),
                word("reason"),
                word("code"),
                word("signal"),
                word("attempt"),
            ]
            .join(" ")
            .replace('"', "")
        })
        .collect();
    ends.sort();
    assert_eq!(
        ends,
        [
            "code failed exit 3 null 1",
            "fine success null 3 null 1",
            "signal failed signal null 9 1",
            "spawn failed spawn null null 1",
            "zero failed exit 0 null 1",
        ]
    );
}

#[test]
fn every_exit_code_and_every_signal_is_told_as_it_was() {
    let codes = 0..=255;
    // Those that end a process by default; 17 to 23 and 28 stop it or do nothing.
    let signals = (1..=16).chain(24..=27).chain(29..=31).chain([34, 50, 64]);
    let case = Case::new();
    let exits = codes.clone().map(|code| format!("exit {code}\n"));
    let kills = signals.clone().map(|signal| format!("kill -{signal} $$\n"));
    case.write("lines", exits.chain(kills).collect::<String>());
    let done = case.reiver(&["run", "lines", "--output", "json"]).expect(1);
    let mut told: Vec<(u32, [String; 4])> = crate::case::events(&done.stdout)
        .iter()
        .filter(|event| event["event"] == "job-finished")
        .map(|event| {
            let line = event["job"].as_str().unwrap().strip_prefix("line-");
            let words = ["status", "reason", "code", "signal"];
            let words = words.map(|key| event[key].to_string().replace('"', ""));
            (line.unwrap().parse().unwrap(), words)
        })
        .collect();
    told.sort();
    let expected = codes
        .map(|code| match code {
            0 => ["success", "null", "0", "null"].map(str::to_owned),
            code => ["failed", "exit", &code.to_string(), "null"].map(str::to_owned),
        })
        .chain(
            signals
                .map(|signal| ["failed", "signal", "null", &signal.to_string()].map(str::to_owned)),
        );
    let expected: Vec<(u32, [String; 4])> = (1..).zip(expected).collect();
    assert_eq!(told, expected);
}

#[test]
fn reivers_own_death_is_no_jobs_affair_until_it_ends() {
    // A reiver that is killed can tell nobody; what it had started goes on, and nothing hangs.
    let case = Case::toml(
        "[[job]]\nrun = 'echo $$ > pid; touch started; while ! [ -e go ]; do sleep 0.01; done; touch ended'",
    );
    let mut child = case.start(&["run", "jobs.toml"]);
    case.wait_for("started");
    child.kill().unwrap();
    child.wait().unwrap();
    let pid = case.pid("pid");
    assert!(lives(pid));
    case.write("go", "");
    case.wait_for("ended");
}

#[test]
fn a_named_pipe_that_nobody_opens_holds_up_its_own_job_alone() {
    let case = Case::toml(
        "[[job]]\nname = 'reads'\nstdin = 'nobody'\ncommand = ['cat']\ntimeout = '300ms'\n\
         [[job]]\nname = 'writes'\nstdout = 'no-one'\nstderr = 'stdout'\nrun = 'true'\ntimeout = '300ms'\n\
         [[job]]\nname = 'other'\nrun = 'true'\n\
         [[job]]\nname = 'after'\nrun = 'touch after'\nneeds = ['other']",
    );
    case.through_shell("mkfifo nobody no-one").expect(0);
    let (events, done) = case.events(&["-j2"]);
    done.expect(1);
    assert!(case.has("after"));
    let timeouts = events.iter().filter(|event| event["reason"] == "timeout");
    assert_eq!(timeouts.count(), 2);
}

#[test]
fn two_jobs_talk_through_a_named_pipe() {
    let case = Case::toml(
        "[[job]]\nname = 'reads'\nstdin = 'pipe'\ncommand = ['wc', '-c']\n\
         [[job]]\nname = 'writes'\nstdout = 'pipe'\nrun = 'head -c 1000000 /dev/zero'",
    );
    case.through_shell("mkfifo pipe").expect(0);
    let done = case.reiver(&["run", "jobs.toml", "-j2"]).expect(0);
    assert_eq!(done.stdout.trim(), "1000000");
}

#[test]
fn a_daemon_that_drops_its_environment_is_ended_with_its_attempt() {
    let daemon = with_time_enough(|ms| {
        let case = Case::toml(&format!(
            "[[job]]\ntimeout = '{ms}ms'\nkill-after = '200ms'\nrun = \"{}; sleep 1000\"",
            daemon_that_keeps_nothing("daemon"),
        ));
        case.run().expect(1);
        case.has("daemon").then(|| case.pid("daemon"))
    });
    assert!(!lives(daemon));
}

/// Of attempt 512, where the numbers of attempts in brands begin anew; by the run, or once it was killed.
#[test]
fn a_daemon_of_a_late_attempt_is_ended_with_it() {
    for was_killed in [false, true] {
        let case = Case::toml(&format!(
            "[[job]]\nname = 'job'\nretries = 600\n\
             run = \"[ $REIVER_ATTEMPT = 512 ] || exit 1; {}; sleep 100\"\n",
            daemon_that_keeps_nothing("daemon"),
        ));
        let mut command = case.command(["run", "jobs.toml"]);
        let mut child = command.stderr(Stdio::null()).spawn().expect("it starts");
        case.wait_for("daemon");
        let daemon = case.read("daemon").trim().parse().expect("a number");
        if was_killed {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
            assert!(lives(daemon));
            case.write("jobs.toml", "[[job]]\nname = 'job'\nrun = 'true'\n");
            case.reiver(&["run", "jobs.toml", "--resume"]).expect(0);
        } else {
            signal(&child, libc::SIGINT);
            Done::of(child).expect(130);
        }
        assert!(!lives(daemon), "killed: {was_killed}");
    }
}

#[test]
fn a_daemon_that_keeps_nothing_that_it_was_given_is_ended_with_its_job() {
    for priority in ["P1", "P2"] {
        let case = Case::toml(&format!(
            "[defaults]\npriority = '{priority}'\n[[job]]\nname = 'before'\nrun = \"{}\"\n\
             [[job]]\nneeds = ['before']\nrun = \"{}; sleep 100\"\n",
            daemon_that_keeps_nothing("other"),
            daemon_that_keeps_nothing("daemon"),
        ));
        let child = case.start(&["run", "jobs.toml"]);
        case.wait_for("daemon");
        case.wait_for("other");
        let (daemon, other) = (case.pid("daemon"), case.pid("other"));
        let pid = i32::try_from(child.id()).expect("a small number");
        // SAFETY: no pointers; the child has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
        Done::of(child).expect(130);
        assert!(!lives(daemon), "{priority}");
        assert!(lives(other), "{priority}: it is of a job that has ended");
        let other = i32::try_from(other).expect("a small number");
        // SAFETY: no pointers; nobody waits for it before it is killed.
        assert_eq!(unsafe { libc::kill(other, libc::SIGKILL) }, 0);
    }
}
