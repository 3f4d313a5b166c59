//! Signals from outside that do not end a run, and the terminal before and after.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::case::{Case, Done, events};

fn send(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).unwrap();
    // SAFETY: no pointers; the process is ours or our reiver's, and has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

fn is_in(pid: u32, states: &[char]) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with(states))
}

fn is_stopped(pid: u32) -> bool {
    is_in(pid, &['T'])
}

/// True if a job's process is stopped, or waits in `vfork` for a child that is.
fn is_held(pid: u32) -> bool {
    is_in(pid, &['T', 'D'])
}

fn wait_until(what: impl Fn() -> bool) {
    while !what() {
        thread::sleep(Duration::from_millis(2));
    }
}

fn number(case: &Case, file: &str) -> u32 {
    wait_until(|| case.has(file) && case.read(file).ends_with('\n'));
    case.read(file).trim().parse().unwrap()
}

/// Time enough on this machine for what took so long.
fn time_enough(rehearsal: Duration) -> Duration {
    (rehearsal * 10).max(Duration::from_secs(2))
}

/// A run whose clocks end it early, stopped and let go on, and how long that took but for the pause: a job
/// whose leader, child and daemon say their numbers has the timeout, and another waits so long to be retried.
fn stop_and_go_on(timeout: Duration, wait: Duration, pause: Duration) -> Duration {
    let case = Case::toml(&format!(
        "[[job]]\nname = 'family'\ntimeout = '{}ms'\nrun = '''\n\
         setsid sh -c 'echo $$ > daemon; while :; do sleep 0.01; done' &\n\
         sh -c 'echo $$ > child; while :; do sleep 0.01; done' &\n\
         sh -c 'kill -STOP $$; touch went-on' & echo $! > still\n\
         echo $$ > leader; while ! [ -e go ]; do sleep 0.01; done; kill -KILL $(cat daemon child still)'''\n\
         [[job]]\nname = 'again'\nretries = {{ count = 1, delay = '{}ms' }}\n\
         run = 'if [ $REIVER_ATTEMPT = 1 ]; then touch failed; exit 1; fi; touch again'\n",
        timeout.as_millis(),
        wait.as_millis(),
    ));
    let begun = Instant::now();
    let child = case.start(&["run", "jobs.toml", "-j2"]);
    let family = ["leader", "child", "daemon"].map(|file| number(&case, file));
    let still = number(&case, "still");
    case.wait_for("failed");
    wait_until(|| is_stopped(still));
    send(child.id(), libc::SIGTSTP);
    wait_until(|| is_stopped(child.id()));
    for process in family {
        assert!(is_held(process), "{process}");
    }
    thread::sleep(pause);
    assert!(pause.is_zero() || !case.has("again"));
    case.write("go", "");
    send(child.id(), libc::SIGCONT);
    case.wait_for("again");
    let done = Done::of(child).expect(0);
    assert!(done.stderr.contains("2 succeeded"), "{}", done.stderr);
    assert!(!case.has("went-on"), "what others have stopped stays so");
    begun.elapsed().saturating_sub(pause)
}

#[test]
fn a_run_that_is_stopped_stops_its_jobs_and_its_clocks() {
    let (none, long) = (Duration::ZERO, Duration::from_secs(1000));
    let clock = time_enough(stop_and_go_on(long, none, none));
    stop_and_go_on(clock, clock, clock + Duration::from_millis(500));
}

/// With few descriptors attempts wait for others to end, which they do as they are told to.
#[test]
fn what_was_to_start_when_the_run_is_told_to_end_is_not_started() {
    for (background, is_failure) in [(false, false), (true, false), (false, true)] {
        let case = Case::new();
        let settings = if background { "#JOB priority=P2\n" } else { "" };
        let ends = if is_failure {
            "while ! [ -e go ]; do sleep 0.01; done; exit 1"
        } else {
            "exec sleep 1000"
        };
        let lines = format!("echo $$ >> started; {ends}\n").repeat(100);
        case.write("lines", format!("{settings}{lines}"));
        let fails = if is_failure { "--max-fails 1" } else { "" };
        let child = case.start_shell(&format!(
            "ulimit -n 64; exec $REIVER run lines -j100 --output json {fails}"
        ));
        let id = child.id();
        wait_until(|| case.has("started"));
        match is_failure {
            true => case.write("go", ""),
            false => send(id, libc::SIGINT),
        }
        let done = Done::of(child).expect(if is_failure { 1 } else { 130 });
        let (_, most) = done
            .stderr
            .split_once("jobs at once: ")
            .expect("it is said");
        let most: usize = most.split_once(' ').unwrap().0.parse().unwrap();
        let events = events(&done.stdout);
        let of = |kind: &str| events.iter().filter(|e| e["event"] == kind).count();
        assert!(most < 20 && of("job-started") <= most, "{most}: {done:#?}");
        assert!(case.read("started").lines().count() <= most);
        let unstarted = |event: &&Value| event["event"] == "job-finished" && event["attempt"] == 0;
        let unstarted: Vec<&Value> = events.iter().filter(unstarted).collect();
        assert_eq!(unstarted.len(), 100 - of("job-started"));
        assert!(unstarted.iter().all(|event| event["status"] == "cancelled"));
    }
}

#[test]
fn a_run_that_was_stopped_can_be_ended() {
    let case = Case::toml("[[job]]\nrun = 'echo $$ > pid; while :; do sleep 0.01; done'\n");
    let child = case.start(&["run", "jobs.toml"]);
    let job = number(&case, "pid");
    send(child.id(), libc::SIGTSTP);
    wait_until(|| is_stopped(child.id()) && is_held(job));
    send(child.id(), libc::SIGTERM);
    assert!(is_stopped(child.id()));
    send(child.id(), libc::SIGCONT);
    Done::of(child).expect(143);
    assert!(!crate::case::lives(job));
}

#[test]
fn a_stop_that_was_ignored_stays_ignored() {
    let case =
        Case::toml("[[job]]\nrun = 'touch started; while ! [ -e go ]; do sleep 0.01; done'\n");
    let child = case.start_shell("trap '' TSTP USR1; exec $REIVER run jobs.toml");
    case.wait_for("started");
    send(child.id(), libc::SIGTSTP);
    send(child.id(), libc::SIGUSR1);
    case.write("go", "");
    let done = Done::of(child).expect(0);
    assert!(!done.stderr.contains("running"), "{}", done.stderr);
}

/// The same of a run in a job.
fn stop_and_go_on_inside(timeout: Duration, pause: Duration) -> Duration {
    let case = Case::new();
    case.write("outer.txt", "\"$REIVER\" run inner.toml --no-journal\n");
    let inner = format!(
        "[[job]]\ntimeout = '{}ms'\nrun = 'echo $$ > pid; while ! [ -e go ]; do sleep 0.01; done; echo well'\n",
        timeout.as_millis()
    );
    case.write("inner.toml", inner);
    let begun = Instant::now();
    let child = case.start_shell("exec $REIVER run outer.txt");
    let job = number(&case, "pid");
    send(child.id(), libc::SIGTSTP);
    wait_until(|| is_stopped(child.id()));
    assert!(is_held(job));
    thread::sleep(pause);
    case.write("go", "");
    send(child.id(), libc::SIGCONT);
    assert_eq!(Done::of(child).expect(0).stdout, "well\n");
    begun.elapsed().saturating_sub(pause)
}

#[test]
fn a_reiver_in_a_job_stops_its_own_clocks() {
    let rehearsal = stop_and_go_on_inside(Duration::from_secs(1000), Duration::ZERO);
    let clock = time_enough(rehearsal);
    stop_and_go_on_inside(clock, clock + Duration::from_millis(500));
}

#[test]
fn who_asks_is_told_what_runs() {
    let case = Case::toml(
        "[[job]]\nname = 'long one'\nretries = 2\n\
         run = 'echo $$ > pid; while ! [ -e go ]; do sleep 0.01; done'\n\
         [[job]]\nname = 'fails'\nrun = 'exit 1'\n[[job]]\nname = 'later'\nneeds = ['long one']\nrun = 'true'\n",
    );
    let mut child = case.start(&["run", "jobs.toml", "-j2"]);
    let job = number(&case, "pid");
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().starts_with("failed: fails")));
    // A start is told a few milliseconds late.
    loop {
        send(child.id(), libc::SIGUSR1);
        let mut told = said.by_ref().map(Result::unwrap);
        let told = told.find(|line| line.starts_with("reiver: ")).unwrap();
        if told == "reiver: 1 of 3 done, 1 failed, 1 running" {
            break;
        }
        assert_eq!(told, "reiver: 1 of 3 done, 1 failed, 0 running");
    }
    let line = said.next().unwrap().unwrap();
    let begin = format!("  long one (attempt 1 of 3, process {job}) for ");
    assert!(
        line.starts_with(&begin) && line.contains("echo $$ > pid"),
        "{line}"
    );
    case.write("go", "");
    assert!(said.any(|line| line.unwrap().contains("2 succeeded")));
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

/// A terminal, and somebody who reads all that is written to it.
struct Terminal {
    master: File,
    slave: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Terminal {
    fn new() -> Terminal {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: writes two numbers, reads a size; neither name nor settings are given.
        let opened = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                (&raw const size).cast_mut(),
            )
        };
        assert_eq!(opened, 0);
        // SAFETY: it is new, and nobody else's.
        let master = unsafe { File::from_raw_fd(master) };
        // SAFETY: it is new, and nobody else's.
        let slave = unsafe { OwnedFd::from_raw_fd(slave) };
        for fd in [master.as_raw_fd(), slave.as_raw_fd()] {
            // SAFETY: no pointers.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        let mut read = master.try_clone().unwrap();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let seen = Arc::clone(&written);
        let reader = thread::spawn(move || {
            let mut piece = [0; 4096];
            // It ends with an error once nobody has the other side open.
            while let Ok(length @ 1..) = read.read(&mut piece) {
                seen.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Terminal {
            master,
            slave,
            written,
            reader: Some(reader),
        }
    }

    /// Starts reiver as the one in front of the terminal.
    fn start(&self, case: &Case, arguments: &[&str]) -> Child {
        let stream = || Stdio::from(self.slave.try_clone().unwrap());
        let mut command = case.command(arguments);
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let lead = || {
            // SAFETY: no pointers.
            let leads = unsafe { libc::setsid() } >= 0;
            // SAFETY: takes a number; standard input is the terminal.
            let has = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } == 0;
            match leads && has {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: two system calls, which may be made between fork and exec.
        unsafe { command.pre_exec(lead) };
        command.spawn().unwrap()
    }

    fn settings(&self) -> Vec<u8> {
        let mut settings = MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: writes settings to memory of the right type.
        let got = unsafe { libc::tcgetattr(self.slave.as_raw_fd(), settings.as_mut_ptr()) };
        assert_eq!(got, 0);
        // SAFETY: it was filled with zeros before it was written to.
        let settings = unsafe { settings.assume_init() };
        format!(
            "{:?}",
            (
                settings.c_iflag,
                settings.c_oflag,
                settings.c_lflag,
                settings.c_cc
            )
        )
        .into_bytes()
    }

    fn press(&mut self, key: u8) {
        self.master.write_all(&[key]).unwrap();
    }

    /// True once this was written to it.
    fn shows(&self, text: &str) -> bool {
        let written = self.written.lock().unwrap();
        String::from_utf8_lossy(&written).contains(text)
    }

    /// All that was written to it.
    fn shown(self) -> String {
        let Terminal {
            slave,
            written,
            reader,
            ..
        } = self;
        drop(slave);
        reader.unwrap().join().unwrap();
        let shown = std::mem::take(&mut *written.lock().unwrap());
        String::from_utf8_lossy(&shown).into_owned()
    }
}

fn assert_left_as_it_was(shown: &str) {
    let hidden = shown.matches("\u{1b}[?25l").count();
    assert_eq!(
        hidden,
        shown.matches("\u{1b}[?25h").count(),
        "the cursor is seen: {shown:?}"
    );
    assert!(!shown.contains("\u{1b}[?1049h"), "{shown:?}");
    assert!(shown.ends_with("\r\n"), "{shown:?}");
}

const ENDLESS: &str = "[[job]]\nname = 'endless'\nrun = 'echo $$ > pid; while ! [ -e go ]; do sleep 0.01; done; echo well'\n";

#[test]
fn ctrl_c_at_a_terminal_ends_the_run_and_leaves_the_terminal_as_it_was() {
    let case = Case::toml(ENDLESS);
    let mut terminal = Terminal::new();
    let before = terminal.settings();
    let mut child = terminal.start(&case, &["run", "jobs.toml"]);
    let job = number(&case, "pid");
    wait_until(|| terminal.shows("0/1") && terminal.shows("endless"));
    terminal.press(3);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!crate::case::lives(job));
    assert_eq!(terminal.settings(), before);
    let shown = terminal.shown();
    assert!(shown.contains("1 cancelled"), "{shown:?}");
    assert_left_as_it_was(&shown);
}

#[test]
fn ctrl_z_at_a_terminal_stops_all_and_the_run_goes_on_with_its_bar() {
    let case = Case::toml(ENDLESS);
    let mut terminal = Terminal::new();
    let before = terminal.settings();
    let mut child = terminal.start(&case, &["run", "jobs.toml"]);
    let job = number(&case, "pid");
    terminal.press(26);
    wait_until(|| is_stopped(child.id()));
    assert!(is_held(job));
    assert_eq!(terminal.settings(), before);
    case.write("go", "");
    send(child.id(), libc::SIGCONT);
    assert!(child.wait().unwrap().success());
    assert_eq!(terminal.settings(), before);
    let shown = terminal.shown();
    assert!(
        shown.contains("well") && shown.contains("1 succeeded"),
        "{shown:?}"
    );
    assert_left_as_it_was(&shown);
}

#[test]
fn a_parent_that_waits_for_no_children_keeps_no_ends_of_jobs_from_reiver() {
    let case = Case::new();
    case.write("lines", "sleep 0.1\ntrue\n");
    let done = case.through_shell("trap '' CHLD; exec $REIVER run lines -j2");
    assert_eq!(done.code, 0, "{done:?}");
}

fn block(signal: i32) -> io::Result<()> {
    // SAFETY: an all-zero set is a valid one.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set of ours, and the number of a signal.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: a set of ours, and nothing is to be written.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    Ok(())
}

#[test]
fn a_signal_that_was_blocked_when_reiver_started_ends_the_run() {
    let case = Case::new();
    case.write("lines", "touch started; sleep 100\n");
    let mut command = case.command(["run", "lines"]);
    // SAFETY: it calls the kernel alone.
    let child = unsafe { command.pre_exec(|| block(libc::SIGTERM)) };
    let child = child.spawn().unwrap();
    case.wait_for("started");
    send(child.id(), libc::SIGTERM);
    let done = Done::of(child);
    assert_eq!(done.code, 143, "{done:?}");
}

#[test]
fn a_stream_that_nobody_reads_keeps_no_signal_from_the_jobs() {
    let case = Case::new();
    // What is printed does not fit into a pipe.
    case.write(
        "lines",
        "head -c 300000 /dev/zero >&2\ntrap '' TERM; echo $$ > number; while :; do sleep 0.01; done\n",
    );
    let (mut reader, writer) = io::pipe().unwrap();
    let mut command = case.command(["run", "lines", "-j2", "--no-journal"]);
    let mut child = command.stderr(writer).spawn().unwrap();
    drop(command);
    let job = number(&case, "number");
    // Until the first one's output fills the pipe.
    let mut byte = [0];
    reader.read_exact(&mut byte).unwrap();
    send(child.id(), libc::SIGTERM);
    // Two that come at once are one to the kernel; then the job is killed by its `kill-after`.
    thread::sleep(Duration::from_millis(300));
    send(child.id(), libc::SIGTERM);
    // The job is killed, whatever its reiver is waiting for; and a later one ends that too.
    wait_until(|| !is_in(job, &['R', 'S', 'D']));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        send(child.id(), libc::SIGTERM);
        thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(status.signal(), Some(libc::SIGTERM));
    drop(reader);
}

#[test]
fn a_job_that_makes_nothing_of_being_ended_has_not_succeeded_in_the_job_log() {
    let case = Case::new();
    case.write(
        "lines",
        "trap 'exit 0' TERM; touch started; while :; do sleep 0.01; done\n",
    );
    let child = case.start(&["run", "lines", "--joblog", "log"]);
    case.wait_for("started");
    send(child.id(), libc::SIGINT);
    assert_eq!(Done::of(child).code, 130);
    let log = case.read("log");
    let row: Vec<&str> = log
        .lines()
        .nth(1)
        .expect("it started")
        .split('\t')
        .collect();
    assert_eq!(row[6..8], ["-1", "0"], "{log}");
}
