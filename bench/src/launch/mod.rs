//! The suite `launch`: what it costs to start a job of a file, with the journal and captured output on,
//! beside others who start processes and beside a bare loop that does nothing else.
//!
//! A sample is the time of a run over its launches. Beside it stand the rate, and what the one who starts
//! the processes took itself of the CPUs, children excluded, for each launch. The command that is measured
//! is the one that lies beside this program; `just bench` builds it.

mod bare;
mod peers;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::case::{Case, Contender, Outcome, Task, Trouble, floor, ours, peer};
use crate::outside;

/// What is started.
#[derive(Debug, Clone, Copy)]
enum Started {
    True,
    Nothing,
}

/// All of them, in the order in which they are told.
pub(crate) fn cases() -> Vec<Case> {
    macro_rules! contenders {
        ($started:expr) => {
            vec![
                ours("reiver", |task| reiver(task, $started, &[])),
                ours("reiver, no journal", |task| {
                    reiver(task, $started, &["--no-journal"])
                }),
                peer("make", |task| peers::make(task, $started)),
                peer("xargs", |task| peers::xargs(task, $started)),
                peer("parallel", |task| peers::parallel(task, $started)),
                peer("ninja", |task| peers::ninja(task, $started)),
                floor("bare posix_spawn loop", |task| {
                    bare::measure(task, $started, false)
                }),
                floor("the same, output captured", |task| {
                    bare::measure(task, $started, true)
                }),
            ]
        };
    }
    vec![
        case(
            "true",
            "/bin/true, started again and again",
            contenders!(Started::True),
        ),
        case(
            "nothing",
            "a static program that does nothing",
            contenders!(Started::Nothing),
        ),
    ]
}

fn case(name: &'static str, what: &'static str, contenders: Vec<Contender>) -> Case {
    // As many in flight as there are threads elsewhere.
    Case::new("launch", (name, "us a launch"), what, contenders)
}

/// A folder of one measurement's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(task: &Task) -> Result<Folder, Trouble> {
        let name = format!("launch-{}", std::process::id());
        let folder = task.out.canonicalize().map_err(failed)?.join(name);
        fs::create_dir_all(&folder).map_err(failed)?;
        Ok(Folder(folder))
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<PathBuf, Trouble> {
        let path = self.0.join(name);
        fs::write(&path, text).map_err(failed)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn failed(error: io::Error) -> Trouble {
    Trouble::Failed(error.to_string())
}

impl Started {
    fn program(self, task: &Task) -> Result<PathBuf, Trouble> {
        match self {
            Started::True => Ok("/bin/true".into()),
            Started::Nothing => outside::nothing(task),
        }
    }

    fn launches(self, task: &Task) -> u32 {
        match self {
            Started::True => task.size(8_000, 800),
            Started::Nothing => task.size(24_000, 2_400),
        }
    }
}

/// The same line again and again.
fn lines(program: &Path, launches: u32) -> String {
    format!("{}\n", program.display()).repeat(launches as usize)
}

fn reiver(task: &Task, started: Started, options: &[&str]) -> Outcome {
    let itself = env::current_exe().map_err(failed)?;
    let command = itself.with_file_name("reiver");
    if !command.exists() {
        return Err(Trouble::Skipped(format!(
            "{} is not built: cargo build --release -p reiver-cli",
            command.display()
        )));
    }
    let launches = started.launches(task);
    let folder = Folder::new(task)?;
    let file = folder.write("lines", lines(&started.program(task)?, launches))?;
    let mut command = Command::new(command);
    command.args(["run", "-j", &task.threads.to_string()]);
    command.args(options).arg(file);
    run(task, command, launches)
}

/// Runs whoever starts the processes, and tells what that took.
fn run(task: &Task, mut command: Command, launches: u32) -> Outcome {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let begin = Instant::now();
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Trouble::Skipped(format!("{name} is not installed")),
        _ => failed(error),
    })?;
    let own = own_time_at_end(&child)?;
    let elapsed = begin.elapsed();
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next_back().unwrap_or_default();
        return Err(Trouble::Failed(format!(
            "{name}: {}: {said}",
            output.status
        )));
    }
    tell(task, elapsed.as_secs_f64(), own, launches)
}

/// The figures and the sample of one run.
fn tell(task: &Task, seconds: f64, own: [f64; 2], launches: u32) -> Outcome {
    let launches = f64::from(launches);
    let micros = |seconds: f64| seconds * 1e6 / launches;
    task.tell(vec![
        ("launches/s".to_owned(), launches / seconds),
        ("own us".to_owned(), micros(own[0] + own[1])),
        ("of it user".to_owned(), micros(own[0])),
        ("of it system".to_owned(), micros(own[1])),
    ]);
    Ok(vec![micros(seconds)])
}

/// Waits for the end of a child; the time that it took itself, user and system, in seconds.
fn own_time_at_end(child: &Child) -> Result<[f64; 2], Trouble> {
    // SAFETY: an all-zero siginfo_t is a valid one.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // It stays there to be looked at.
    let options = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: the kernel writes one siginfo_t to `info`.
    let waited = unsafe { libc::waitid(libc::P_PID, child.id(), &raw mut info, options) };
    if waited != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).map_err(failed)?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    // SAFETY: takes a number.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    #[expect(clippy::cast_precision_loss, reason = "a hundred, or a thousand")]
    let ticks = ticks as f64;
    let field = |place| {
        let word = after_name.split_ascii_whitespace().nth(place);
        word.and_then(|word| word.parse::<f64>().ok())
            .map_or(0.0, |value| value / ticks)
    };
    Ok([field(11), field(12)])
}
