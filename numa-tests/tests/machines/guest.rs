//! The first process of a machine: mounts what a program expects, and runs the trials that it is asked
//! for.

use std::ffi::CString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;

use reiver_numa_tests::machines::machines;

use crate::trial::{self, Ended};
use crate::vm::{RAN, UP};

/// The serial line to whoever booted the machine.
const LINE: &str = "/dev/ttyS1";
const OUTPUT: &str = "/tmp/output";

/// Lives until the machine ends. What goes wrong here is a panic of the kernel, with the reason above it
/// on the console.
pub(crate) fn live(machine: &str) -> ! {
    for (kind, place, options) in [
        ("proc", "/proc", ""),
        ("sysfs", "/sys", ""),
        ("devtmpfs", "/dev", ""),
        ("tmpfs", "/tmp", "mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", ""),
    ] {
        mount(kind, place, options).unwrap_or_else(|error| panic!("cannot mount {place}: {error}"));
    }
    let controllers = "+cpuset +cpu +memory +pids";
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", controllers).expect("cgroup v2");
    let known = machines();
    let found = known.iter().find(|known| known.layout.name == machine);
    let found = found.unwrap_or_else(|| panic!("there is no machine `{machine}`"));
    for cpu in found.offline.iter() {
        let online = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        fs::write(online, "0").expect("a CPU that can be taken offline");
    }
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("PATH", "/bin") };

    let line = open_line().expect("a second serial line");
    let mut answers = line.try_clone().expect("a second descriptor");
    writeln!(answers, "{UP}").expect("somebody listens");
    for asked in BufReader::new(line).lines() {
        let asked = asked.expect("a line of text");
        let trial = asked
            .strip_prefix("run ")
            .and_then(|trial| trial.split_once('/'));
        let Some((stance, promise)) = trial else {
            panic!("`{asked}` is no question");
        };
        let ended = trial::run(machine, stance, promise, Path::new(OUTPUT));
        let ended = ended.unwrap_or_else(|error| Ended {
            code: 2,
            output: format!("the trial cannot be run: {error}"),
        });
        let (code, output) = (ended.code, ended.output.as_bytes());
        writeln!(answers, "{RAN} {code} {}", output.len()).expect("somebody listens");
        answers.write_all(output).expect("somebody listens");
    }
    loop {
        thread::park();
    }
}

fn mount(kind: &str, place: &str, options: &str) -> io::Result<()> {
    fs::create_dir_all(place)?;
    let [kind, place, options] = [kind, place, options].map(CString::new);
    let (kind, place, options) = (kind?, place?, options?);
    // SAFETY: the kernel reads the texts, which live until the call returns.
    let result = unsafe {
        libc::mount(
            kind.as_ptr(),
            place.as_ptr(),
            kind.as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Bytes as they are: no echo, nothing translated.
fn open_line() -> io::Result<fs::File> {
    let line = fs::File::options().read(true).write(true).open(LINE)?;
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the kernel writes the settings, for which there is room.
    let read = unsafe { libc::tcgetattr(line.as_raw_fd(), settings.as_mut_ptr()) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: they were written.
    let mut settings = unsafe { settings.assume_init() };
    // SAFETY: changes what it is given alone.
    unsafe { libc::cfmakeraw(&raw mut settings) };
    // SAFETY: the kernel reads the settings.
    let written = unsafe { libc::tcsetattr(line.as_raw_fd(), libc::TCSANOW, &raw const settings) };
    match written {
        0 => Ok(line),
        _ => Err(io::Error::last_os_error()),
    }
}
