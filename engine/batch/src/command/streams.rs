//! Standard output and standard error, whoever shares them with us: one that does not block, as some
//! programs leave a terminal or a pipe, is waited for as any other.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};

/// Standard output.
pub(crate) fn stdout() -> Patient<io::Stdout> {
    Patient(io::stdout())
}

/// Standard output for the caller alone: whatever else in this process prints to it prints to standard error
/// from now on.
///
/// # Errors
/// The system's, where it has no descriptors left.
pub(crate) fn stdout_alone() -> io::Result<Patient<File>> {
    let own = io::stdout().as_fd().try_clone_to_owned()?;
    // SAFETY: takes two numbers. Who writes to the one finds the other's file there, and nobody an invalid one.
    if unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Patient(own.into()))
}

/// Standard error.
pub(crate) fn stderr() -> Patient<io::Stderr> {
    Patient(io::stderr())
}

/// Waits until what it writes to takes something.
#[derive(Debug)]
pub(crate) struct Patient<W>(W);

impl<W: AsFd> Patient<W> {
    fn until_taken<R>(
        &mut self,
        mut attempt: impl FnMut(&mut W) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            match attempt(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                done => return done,
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let mut fd = libc::pollfd {
            fd: self.0.as_fd().as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one entry, which lives.
        if unsafe { libc::poll(&raw mut fd, 1, -1) } >= 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        }
    }
}

impl<W: Write + AsFd> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.until_taken(|target| target.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.until_taken(W::flush)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::thread;

    use super::*;

    #[test]
    fn a_pipe_that_does_not_block_gets_all_the_same() {
        let (mut reader, writer) = io::pipe().unwrap();
        // SAFETY: sets flags of a descriptor of ours.
        let result = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        assert_eq!(result, 0);
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(300_000).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = Patient(writer);
                writer.write_all(&bytes).unwrap();
                writer.flush().unwrap();
            });
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{} bytes", read.len());
        });
    }
}
