//! One machine under QEMU, and the talk with it.
//!
//! The kernel's console goes to a file. The guest's second serial line is QEMU's standard input and
//! output: on it the guest says `up`, is asked to `run` a promise in a stance, and answers with its exit
//! code and what it printed. So nothing that the kernel says can break what tests say.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use reiver_numa_tests::machines::{Machine, leading};

use crate::requirements::Requirements;
use crate::trial::{Ended, HANGS_AFTER};

/// So long a machine may take to come up, and so long it may be silent for longer than a trial may take.
const SILENT: Duration = Duration::from_secs(300);
/// So many lines of the console are shown.
const TAIL_LINES: usize = 60;

/// What the guest says when it is up.
pub(crate) const UP: &str = "up";
/// What precedes an exit code and a length.
pub(crate) const RAN: &str = "ran";

/// A machine that is up.
pub(crate) struct Vm {
    qemu: Child,
    asks: ChildStdin,
    answers: Receiver<Answer>,
    console: PathBuf,
}

#[derive(Debug)]
enum Answer {
    Up,
    Ran(Ended),
}

impl Vm {
    /// Boots a machine. Once more where the first attempt never came up: under emulation one boot in some
    /// twenty ends in a panic of the early kernel.
    pub(crate) fn boot(
        machine: &Machine,
        requirements: &Requirements,
        initramfs: &Path,
        folder: &Path,
    ) -> Result<Vm, String> {
        let first = Vm::boot_once(machine, requirements, initramfs, folder);
        first.or_else(|first| {
            let name = &machine.layout.name;
            reiver_numa_tests::said(&format!("{name}: booting once more, for {first}"));
            Vm::boot_once(machine, requirements, initramfs, folder)
        })
    }

    fn boot_once(
        machine: &Machine,
        requirements: &Requirements,
        initramfs: &Path,
        folder: &Path,
    ) -> Result<Vm, String> {
        let file = |of: &str| folder.join(format!("{}.{of}", machine.layout.name));
        let (console, complaints) = (file("console"), file("qemu"));
        let refused = |error: io::Error| format!("QEMU cannot be started: {error}");
        let mut qemu = Command::new(&requirements.qemu)
            .args(arguments(machine))
            .arg("-kernel")
            .arg(&requirements.kernel)
            .arg("-initrd")
            .arg(initramfs)
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args([
                "-chardev",
                "stdio,id=talk,signal=off",
                "-serial",
                "chardev:talk",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&complaints).map_err(refused)?)
            .spawn()
            .map_err(refused)?;
        let asks = qemu.stdin.take().expect("it was piped");
        let said = BufReader::new(qemu.stdout.take().expect("it was piped"));
        let (says, answers) = channel();
        // Ends with QEMU.
        thread::spawn(move || {
            let mut said = said;
            while let Ok(answer) = read_answer(&mut said) {
                if says.send(answer).is_err() {
                    return;
                }
            }
        });
        let vm = Vm {
            qemu,
            asks,
            answers,
            console,
        };
        match vm.answers.recv_timeout(SILENT) {
            Ok(Answer::Up) => Ok(vm),
            Ok(Answer::Ran(_)) => Err(vm.lost("it answered before it was asked")),
            Err(RecvTimeoutError::Timeout) => Err(vm.lost("it never came up")),
            Err(RecvTimeoutError::Disconnected) => {
                let qemu = fs::read_to_string(&complaints).unwrap_or_default();
                Err(vm.lost(&format!("it ended before it was up; QEMU says: {qemu}")))
            }
        }
    }

    /// Holds a promise there; or says how the machine was lost.
    pub(crate) fn run(&mut self, stance: &str, promise: &str) -> Result<Ended, String> {
        let asked = writeln!(self.asks, "run {stance}/{promise}");
        if let Err(error) = asked.and_then(|()| self.asks.flush()) {
            return Err(self.lost(&format!("it cannot be asked ({error})")));
        }
        match self.answers.recv_timeout(HANGS_AFTER + SILENT) {
            Ok(Answer::Ran(ended)) => Ok(ended),
            Ok(Answer::Up) => Err(self.lost("it started anew")),
            Err(RecvTimeoutError::Timeout) => Err(self.lost("it does not answer any more")),
            Err(RecvTimeoutError::Disconnected) => Err(self.lost("it has ended")),
        }
    }

    fn lost(&self, how: &str) -> String {
        format!("{how}\n{}", self.console_tail())
    }

    /// The last that its kernel said.
    pub(crate) fn console_tail(&self) -> String {
        let console = fs::read(&self.console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = console.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        let mut shown = String::from("the end of its console:\n");
        for line in tail {
            let _ = writeln!(shown, "  | {line}");
        }
        shown
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // It has nothing to save.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn read_answer(said: &mut impl BufRead) -> io::Result<Answer> {
    let mut line = String::new();
    if said.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let garbled = || io::Error::other(format!("`{line}` is no answer"));
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [UP] => Ok(Answer::Up),
        [RAN, code, bytes] => {
            let code = code.parse().map_err(|_| garbled())?;
            let mut output = vec![0; bytes.parse().map_err(|_| garbled())?];
            said.read_exact(&mut output)?;
            let output = String::from_utf8_lossy(&output).into_owned();
            Ok(Answer::Ran(Ended { code, output }))
        }
        _ => Err(garbled()),
    }
}

/// How fast the counter counts that machines tell the time by: it is that of this machine.
///
/// Kernels find that out while they boot, and where this thread stands still just then they are wrong: five
/// of 110 had clocks that went 4 to 24 times too fast, beside eleven others on two CPUs.
#[cfg(target_arch = "x86_64")]
fn counter_khz() -> Option<u128> {
    /// The time and the counter, as near to each other as can be had.
    fn read() -> (Instant, u64) {
        let both = (0..100).map(|_| {
            let before = Instant::now();
            // SAFETY: all that this program runs on have the counter.
            let counted = unsafe { std::arch::x86_64::_rdtsc() };
            (before.elapsed(), (before, counted))
        });
        let nearest = both.min_by_key(|&(apart, _)| apart);
        nearest.expect("there are several").1
    }
    let (began, first) = read();
    thread::sleep(Duration::from_millis(100));
    let (ended, last) = read();
    Some(u128::from(last - first) * 1_000_000 / (ended - began).as_nanos())
}

/// As QEMU emulates it elsewhere, kernels find out by themselves.
#[cfg(not(target_arch = "x86_64"))]
fn counter_khz() -> Option<u128> {
    None
}

/// What QEMU is told of a machine.
///
/// One thread emulates all CPUs: with one each, three boots of 56 ended in a panic of the early kernel.
/// An Intel CPU it is because others show no hardware threads.
fn arguments(machine: &Machine) -> Vec<String> {
    let layout = &machine.layout;
    let present = machine.present();
    let leading = leading(&present);
    let mut arguments: Vec<String> = [
        "-accel",
        "tcg,thread=single",
        "-cpu",
        "max,vendor=GenuineIntel,model=85,stepping=7,family=6",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-append",
    ]
    .map(String::from)
    .into();
    let clock = counter_khz().map_or_else(String::new, |khz| format!("tsc_early_khz={khz} "));
    arguments.push(format!(
        "console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on mitigations=off nokaslr \
         tsc=reliable {clock}no_timer_check -- {}",
        layout.name
    ));
    let mut add = |option: &str, value: String| {
        arguments.push(option.to_owned());
        arguments.push(value);
    };
    add("-m", format!("{}M", machine.memory_mib()));
    add(
        "-smp",
        format!(
            "{},maxcpus={},sockets={},cores={},threads={}",
            leading.len(),
            layout.cpu_count(),
            layout.sockets,
            layout.cores,
            layout.threads
        ),
    );
    for (id, node) in layout.nodes.iter().enumerate() {
        let mut told = format!("node,nodeid={id}");
        for cpu in &node.cpus {
            let _ = write!(told, ",cpus={cpu}");
        }
        if let Some(mib) = node.mib {
            add(
                "-object",
                format!("memory-backend-ram,id=m{id},size={mib}M"),
            );
            let _ = write!(told, ",memdev=m{id}");
        }
        add("-numa", told);
    }
    for (from, row) in layout.distances.iter().enumerate() {
        for (to, distance) in row.iter().enumerate().filter(|&(to, _)| to != from) {
            add("-numa", format!("dist,src={from},dst={to},val={distance}"));
        }
    }
    for cpu in present.difference(&leading).iter() {
        let (socket, core, thread) = layout.seat_of(cpu.0);
        add(
            "-device",
            format!("max-x86_64-cpu,socket-id={socket},core-id={core},thread-id={thread}"),
        );
    }
    arguments
}
