//! One trial's folder, and the program started in it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::PROGRAM;

/// A trial by its name.
pub(crate) type Named = (&'static str, fn());

pub(crate) struct Case {
    folder: TempDir,
}

/// What came of one start of the program.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Case {
    /// A case with this job file, `jobs.toml`.
    pub(crate) fn toml(text: &str) -> Case {
        let folder = tempfile::tempdir().expect("a folder for a trial");
        let case = Case { folder };
        case.write("jobs.toml", text);
        case
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a trial's folder takes files");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let this = std::env::current_exe().expect("this program");
        self.start_program(this.as_os_str(), arguments)
    }

    /// What comes of a line of a shell that knows where `$THIS` program is.
    pub(crate) fn shell(&self, line: &str) -> Done {
        Done::of(self.start_program("sh".as_ref(), &["-c", line]))
    }

    fn start_program(&self, program: &OsStr, arguments: &[&str]) -> Child {
        Command::new(program)
            .args(arguments)
            .env("THIS", std::env::current_exe().expect("this program"))
            .current_dir(self.folder.path())
            .env(PROGRAM, "1")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }

    pub(crate) fn program(&self, arguments: &[&str]) -> Done {
        Done::of(self.start(arguments))
    }

    /// Runs `jobs.toml`, with more arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.program(&[&["jobs.toml"], arguments].concat())
    }

    /// The events of a run of `jobs.toml`, with more arguments.
    pub(crate) fn events(&self, arguments: &[&str]) -> (Vec<Value>, Done) {
        let done = self.run(&[&["--output", "json"], arguments].concat());
        let event =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        (done.stdout.lines().map(event).collect(), done)
    }
}

impl Done {
    pub(crate) fn of(child: Child) -> Done {
        let output = child.wait_with_output().expect("it can be waited for");
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

    /// Expects words on standard error.
    pub(crate) fn says(self, words: &str) -> Done {
        assert!(self.stderr.contains(words), "no `{words}` in {self:#?}");
        self
    }
}

/// Waits until an event of the program's standard output holds these words; gives it back.
pub(crate) fn wait_for_event(child: &mut Child, words: &str) {
    let stdout = child.stdout.as_mut().expect("it is piped");
    let mut line = String::new();
    // No byte more than that line: the rest is read by whoever waits for the end.
    let mut one = BufReader::with_capacity(1, stdout);
    loop {
        line.clear();
        let read = one.read_line(&mut line).expect("it can be read");
        assert!(read > 0, "it ended before an event with `{words}`");
        if line.contains(words) {
            return;
        }
    }
}

/// Waits until the program has said this on standard error.
pub(crate) fn wait_for_words(child: &mut Child, words: &str) {
    let stderr = child.stderr.as_mut().expect("it is piped");
    let mut said = Vec::new();
    while !said.ends_with(words.as_bytes()) {
        let mut byte = [0];
        let read = stderr.read(&mut byte).expect("it can be read");
        assert_eq!(read, 1, "{}", String::from_utf8_lossy(&said));
        said.extend(byte);
    }
}

pub(crate) fn signal(child: &Child, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process number");
    // SAFETY: no pointers; the child has not been waited for, so the number is its own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Makes this process one to start the program from: with a watchdog, and without the ignored signals
/// that a shell gives what it runs in the background.
pub(crate) fn prepare() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: no pointers, and no handler of anybody is taken away.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(300));
        eprintln!("a trial hangs: the watchdog ends the process");
        std::process::abort();
    });
}
