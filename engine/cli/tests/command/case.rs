//! One test's folder, and `reiver` started in it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const REIVER: &str = env!("CARGO_BIN_EXE_reiver");

pub(crate) struct Case {
    folder: TempDir,
}

/// What came of one start of `reiver`.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Case {
    pub(crate) fn new() -> Case {
        prepared();
        Case {
            folder: tempfile::tempdir().expect("a folder for a test"),
        }
    }

    /// A case with this job file, `jobs.toml`.
    pub(crate) fn toml(text: &str) -> Case {
        let case = Case::new();
        case.write("jobs.toml", text);
        case
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("a test's folder takes files");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub(crate) fn command(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let mut command = Command::new(REIVER);
        command
            .args(arguments)
            .current_dir(self.folder())
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("reiver starts")
    }

    /// Starts a shell, which knows where `$REIVER` is.
    pub(crate) fn start_shell(&self, line: &str) -> Child {
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(self.folder())
            .env("REIVER", REIVER)
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("there is a shell")
    }

    pub(crate) fn through_shell(&self, line: &str) -> Done {
        Done::of(self.start_shell(line))
    }

    pub(crate) fn reiver(&self, arguments: &[&str]) -> Done {
        Done::of(self.start(arguments))
    }

    /// Runs `jobs.toml`.
    pub(crate) fn run(&self) -> Done {
        self.reiver(&["run", "jobs.toml"])
    }

    pub(crate) fn reiver_with_input(&self, arguments: &[&str], input: &[u8]) -> Done {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .spawn()
            .expect("reiver starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input).expect("reiver reads its input");
        drop(stdin);
        Done::of(child)
    }

    /// The events of a run of `jobs.toml`, with more arguments.
    pub(crate) fn events(&self, arguments: &[&str]) -> (Vec<Value>, Done) {
        let done = self.reiver(&[&["run", "jobs.toml", "--output", "json"], arguments].concat());
        (events(&done.stdout), done)
    }

    /// What a process of the test has written of its own number.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        self.read(name).trim().parse().expect("a number")
    }

    /// Waits until a file of the test is there.
    pub(crate) fn wait_for(&self, name: &str) {
        while !self.has(name) {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(crate) fn events(text: &str) -> Vec<Value> {
    let event = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    text.lines().map(event).collect()
}

impl Done {
    pub(crate) fn of(child: Child) -> Done {
        let output = child.wait_with_output().expect("reiver can be waited for");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Done {
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            code: output
                .status
                .code()
                .unwrap_or_else(|| -output.status.signal().expect("code or signal")),
        }
    }

    pub(crate) fn expect(self, code: i32) -> Done {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}

/// The jobs that started, sorted.
pub(crate) fn started(events: &[Value]) -> Vec<String> {
    let started = events
        .iter()
        .filter(|event| event["event"] == "job-started");
    let mut names: Vec<String> = started
        .map(|event| event["job"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// How many the end of the run says have succeeded, failed, been cancelled, been skipped.
pub(crate) fn sums(events: &[Value]) -> [usize; 4] {
    let last = events.last().unwrap();
    ["succeeded", "failed", "cancelled", "skipped"]
        .map(|key| last[key].as_u64().unwrap().try_into().unwrap())
}

/// A line that starts a daemon which leaves its session, and keeps neither what it was given open nor its
/// environment. Its number is in a file, once it is there.
pub(crate) fn daemon_that_keeps_nothing(file: &str) -> String {
    format!(
        "setsid -f env -i /bin/sh -c 'echo $$ > {file}.number; mv {file}.number {file}; \
         exec sleep 1000' >/dev/null 2>&1 </dev/null"
    )
}

/// What a trial gives with the first of ever longer times, in milliseconds, that is enough on this machine:
/// it gives nothing where what it is about had not come to pass by then.
pub(crate) fn with_time_enough<T>(trial: impl Fn(u64) -> Option<T>) -> T {
    let times = (0..).map(|doubled| 300 << doubled);
    times.filter_map(&trial).next().expect("times do not end")
}

/// True while a process lives, the zombies not among them.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The processes that live and have this word in their environment.
pub(crate) fn marked(word: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc");
    let pids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_marked = environment
            .split(|&byte| byte == 0)
            .any(|variable| variable == word.as_bytes());
        is_marked && lives(pid)
    })
    .collect()
}

/// Makes this process one to start reiver from: with a watchdog that turns a hang into a failure,
/// and without what whoever runs the tests may hand down: the ignored signals that a shell gives what
/// it runs in the background, and open files beyond the usual three.
fn prepared() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGTSTP,
            libc::SIGUSR1,
        ] {
            // SAFETY: no pointers, and no handler of anybody is taken away.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        let close_on_exec = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
        // SAFETY: a call without pointers that closes nothing of this process. An old kernel refuses.
        unsafe { libc::close_range(3, u32::MAX, close_on_exec) };
        thread::spawn(|| {
            thread::sleep(Duration::from_secs(400));
            eprintln!("a test hangs: the watchdog ends the process");
            std::process::abort();
        });
    });
}
