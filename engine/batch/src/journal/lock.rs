//! Two runs never share a journal: each locks a file beside it (`flock`), which the system lets go of
//! whatever becomes of the process.
//!
//! The file stays, for whoever takes it away may take another one's lock with it. While a run holds
//! it, it says which; what a run says that does not hold it any more was killed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// The run before was killed.
    pub(super) was_killed: bool,
}

/// Why a lock is not held.
#[derive(Debug)]
pub(super) enum NotLocked {
    /// By this process, if that could be told.
    Held(Option<u32>),
    Io(io::Error),
}

impl From<io::Error> for NotLocked {
    fn from(error: io::Error) -> NotLocked {
        NotLocked::Io(error)
    }
}

/// How long a process that a killed run was just starting may hold on to what it inherits. It lets go
/// as soon as it executes its program.
const STARTING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The lock of a journal, by its folder.
pub(super) fn path(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

impl Lock {
    pub(super) fn take(folder: &Path) -> Result<Lock, NotLocked> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path(folder))?;
        let begin = Instant::now();
        loop {
            if try_lock(&file, libc::LOCK_EX)? {
                break;
            }
            let holder = holder(&mut file)?;
            // Whoever is new has not said yet who it is, and whoever only looks never does.
            let holds_on = begin.elapsed() < STARTING && holder.is_none_or(|pid| !lives(pid));
            if !holds_on {
                return Err(NotLocked::Held(holder));
            }
            // A wait for such a lock has no time limit.
            thread::sleep(LOOK_AGAIN);
        }
        let was_killed = holder(&mut file)?.is_some();
        let mut lock = Lock { file, was_killed };
        lock.say(&format!("{}\n", std::process::id()))?;
        Ok(lock)
    }

    /// Lets go, and says that the run came to its end.
    pub(super) fn release(mut self) {
        // Where this fails the next run looks for processes that are left, and finds none.
        let _ = self.say("");
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

/// The process that holds the lock of a journal just now.
pub(super) fn held_by(folder: &Path) -> Option<u32> {
    let mut file = File::open(path(folder)).ok()?;
    match try_lock(&file, libc::LOCK_SH) {
        Ok(false) => holder(&mut file).ok()?.filter(|&pid| lives(pid)),
        _ => None,
    }
}

fn try_lock(file: &File, kind: libc::c_int) -> io::Result<bool> {
    // SAFETY: the descriptor is open for as long as it is borrowed.
    if unsafe { libc::flock(file.as_raw_fd(), kind | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EWOULDBLOCK | libc::EINTR) => Ok(false),
        _ => Err(error),
    }
}

/// Who says to hold it.
fn holder(file: &mut File) -> io::Result<Option<u32>> {
    let mut text = String::new();
    file.rewind()?;
    // What is no text names nobody.
    if let Err(error) = file.read_to_string(&mut text)
        && error.kind() != io::ErrorKind::InvalidData
    {
        return Err(error);
    }
    Ok(text.trim().parse().ok())
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
