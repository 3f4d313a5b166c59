//! The three streams of an attempt, ready for its process.
//!
//! A named pipe is opened by the child, not here: that waits for somebody at its other end, and an
//! attempt that waits has a timeout and can be ended.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::launch::{SHELL, about};
use crate::plan::{Attempt, Stderr, Stdout};

/// What a process reads and writes.
#[derive(Debug)]
pub(super) struct Streams {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Standard error goes where standard output goes.
    is_joined: bool,
    /// What the child opens, by the number of the stream.
    pipes: Vec<(u8, CString)>,
    /// Where to read standard output, if that is captured.
    pub(super) stdout_reader: Option<OwnedFd>,
    /// Where to read standard error, if that is captured apart.
    pub(super) stderr_reader: Option<OwnedFd>,
}

impl Streams {
    /// Opens them.
    ///
    /// # Errors
    /// The system's reason, with what it is about.
    pub(super) fn open(attempt: &Attempt) -> Result<Streams, String> {
        let is_joined = match (&attempt.stdout, &attempt.stderr) {
            (_, Stderr::Stdout) => true,
            // Opened twice, each would write over what the other has written.
            (Stdout::File(stdout), Stderr::File(stderr)) => stdout == stderr,
            _ => false,
        };
        let mut streams = Streams {
            stdin: None,
            stdout: None,
            stderr: None,
            is_joined,
            pipes: Vec::new(),
            stdout_reader: None,
            stderr_reader: None,
        };
        if let Some(path) = &attempt.stdin {
            let open = || File::open(path).map_err(about("stdin", path));
            streams.stdin = streams.unless_pipe(0, path, open)?;
        }
        match &attempt.stdout {
            Stdout::File(path) => {
                streams.stdout = streams.unless_pipe(1, path, || output("stdout", path))?;
            }
            Stdout::Captured => {
                let (reader, writer) = pipe()?;
                (streams.stdout_reader, streams.stdout) = (Some(reader), Some(writer));
            }
        }
        match &attempt.stderr {
            _ if is_joined => {}
            Stderr::File(path) => {
                streams.stderr = streams.unless_pipe(2, path, || output("stderr", path))?;
            }
            Stderr::Stdout | Stderr::Captured => {
                let (reader, writer) = pipe()?;
                (streams.stderr_reader, streams.stderr) = (Some(reader), Some(writer));
            }
        }
        Ok(streams)
    }

    fn unless_pipe(
        &mut self,
        number: u8,
        path: &Path,
        open: impl FnOnce() -> Result<File, String>,
    ) -> Result<Option<OwnedFd>, String> {
        if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            let path = CString::new(path.as_os_str().as_bytes());
            let path = path.expect("a path that exists holds no NUL byte");
            self.pipes.push((number, path));
            return Ok(None);
        }
        open().map(|file| Some(file.into()))
    }

    /// The descriptors that the child starts with; `null` for what it opens itself, and for an input
    /// that is none.
    pub(super) fn descriptors(&self, null: RawFd) -> [RawFd; 3] {
        let of = |stream: &Option<OwnedFd>| stream.as_ref().map_or(null, AsRawFd::as_raw_fd);
        let stdout = of(&self.stdout);
        let stderr = if self.is_joined {
            stdout
        } else {
            of(&self.stderr)
        };
        [of(&self.stdin), stdout, stderr]
    }

    /// True if there are named pipes.
    pub(super) fn has_pipes(&self) -> bool {
        !self.pipes.is_empty()
    }

    /// Where there are named pipes: the shell that opens them and then executes the program.
    pub(super) fn around(
        &self,
        program: &CStr,
        arguments: &[CString],
    ) -> Option<(CString, Vec<CString>)> {
        if self.pipes.is_empty() {
            return None;
        }
        let mut script = "exec".to_owned();
        for (place, (number, _)) in (1..).zip(&self.pipes) {
            let direction = if *number == 0 { '<' } else { '>' };
            script += &format!(" {number}{direction}\"${place}\"");
        }
        if self.is_joined {
            script += " 2>&1";
        }
        script += &format!("; shift {}; exec \"$@\"", self.pipes.len());
        let script = CString::new(script).expect("it was just written");
        let mut words = vec![c"sh".to_owned(), c"-c".to_owned(), script, c"sh".to_owned()];
        words.extend(self.pipes.iter().map(|(_, path)| path.clone()));
        words.push(program.to_owned());
        words.extend_from_slice(arguments.get(1..).unwrap_or_default());
        Some((SHELL.to_owned(), words))
    }
}

fn output(what: &str, path: &Path) -> Result<File, String> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(about(what, folder))?;
    File::create(path).map_err(about(what, path))
}

/// A pipe whose reader does not block.
fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    let (reader, writer) = io::pipe().map_err(|error| format!("a pipe: {error}"))?;
    let reader = OwnedFd::from(reader);
    set_status(&reader, libc::O_NONBLOCK).map_err(|error| format!("a pipe: {error}"))?;
    Ok((reader, writer.into()))
}

/// Makes a pipe's reader one that blocks, for somebody else who reads.
pub(super) fn set_blocking(file: &OwnedFd) -> io::Result<()> {
    set_status(file, 0)
}

fn set_status(file: &OwnedFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
