//! Warnings of all that the command stands on, as lines on standard error.
//!
//! A thread of their own writes them: who warns may hold what others need, and standard error may be a
//! pipe that nobody reads.

use std::io::{self, Write};
use std::mem;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::streams;

/// The end waits so long for what is still to be written.
const AT_THE_END: Duration = Duration::from_secs(1);

struct Writer {
    lines: Sender<Vec<u8>>,
    has_ended: Receiver<()>,
}

static WRITER: Mutex<Option<Writer>> = Mutex::new(None);

/// A line, written when it is dropped.
pub(crate) struct Line(Vec<u8>);

/// An empty one.
pub(crate) fn line() -> Line {
    Line(Vec::new())
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = mem::take(&mut self.0);
        let mut writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            *writer = start().ok();
        }
        let refused = match &*writer {
            Some(writer) => writer.lines.send(line).map_err(|refused| refused.0),
            // No thread is to be had.
            None => Err(line),
        };
        drop(writer);
        if let Err(line) = refused {
            write(&line);
        }
    }
}

/// Where that is gone nobody is left to be told.
fn write(line: &[u8]) {
    let _ = streams::stderr().write_all(line);
}

fn start() -> io::Result<Writer> {
    let (lines, written) = channel::<Vec<u8>>();
    let (ended, has_ended) = channel();
    let thread = thread::Builder::new().name("reiver-warnings".into());
    thread.spawn(move || {
        written.iter().for_each(|line| write(&line));
        let _ = ended.send(());
    })?;
    Ok(Writer { lines, has_ended })
}

/// Waits until all that was said is written, but not for ever.
pub(crate) fn finish() {
    let writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Writer { lines, has_ended }) = writer {
        drop(lines);
        let _ = has_ended.recv_timeout(AT_THE_END);
    }
}
