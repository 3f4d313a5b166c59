//! Output of jobs held back until that of all jobs before them has been printed: `--keep-order`.
//!
//! What is held is bounded in memory and in descriptors, however long the first job takes: it goes to
//! one file without a name, which is cut back once nothing in it is waited for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::capture::{Captured, nameless_file};
use crate::event::AttemptEnd;
use crate::plan::JobIndex;

/// What may be held in memory, of all jobs and of one.
const IN_MEMORY: u64 = 16 * 1024 * 1024;
const OF_ONE: u64 = 64 * 1024;

/// Jobs whose output waits for its turn.
pub(crate) struct InOrder {
    /// The first job that is not over.
    next: u32,
    /// Jobs that succeeded in a run before, one mark a job; empty for none.
    done: Vec<bool>,
    waiting: BTreeMap<u32, Output>,
    in_memory: u64,
    /// How many of those that wait lie in the file.
    spooled: usize,
    spool: Option<File>,
    spool_bytes: u64,
    /// Where the file is made.
    folder: PathBuf,
}

/// What a job has printed.
pub(crate) enum Output {
    Nothing,
    InMemory(Arc<AttemptEnd>),
    Spooled([Part; 2]),
}

/// One stream, in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    at: u64,
    bytes: u64,
    pub(crate) ends_within_a_line: bool,
    pub(crate) lost_bytes: u64,
}

impl Part {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl InOrder {
    pub(crate) fn new(done: Vec<bool>, folder: PathBuf) -> InOrder {
        let mut order = InOrder {
            next: 0,
            done,
            waiting: BTreeMap::new(),
            in_memory: 0,
            spooled: 0,
            spool: None,
            spool_bytes: 0,
            folder,
        };
        order.pass_over_done();
        order
    }

    /// True if nothing that is before this job is waited for.
    pub(crate) fn is_next(&self, job: JobIndex) -> bool {
        self.next == job.0
    }

    /// A job is over, with what its last attempt has printed.
    pub(crate) fn over(&mut self, job: JobIndex, end: Option<&Arc<AttemptEnd>>) {
        let output = match end {
            Some(end) if !end.stdout.is_empty() || !end.stderr.is_empty() => self.hold(job, end),
            _ => Output::Nothing,
        };
        self.waiting.insert(job.0, output);
    }

    /// What is to be printed now.
    pub(crate) fn due(&mut self) -> Option<Output> {
        loop {
            let output = self.waiting.remove(&self.next)?;
            self.next += 1;
            self.pass_over_done();
            if let Some(output) = self.let_go(output) {
                return Some(output);
            }
        }
    }

    /// What is to be printed once nothing more will come, whatever is missing before it.
    pub(crate) fn rest(&mut self) -> Option<Output> {
        loop {
            let (_, output) = self.waiting.pop_first()?;
            if let Some(output) = self.let_go(output) {
                return Some(output);
            }
        }
    }

    /// Writes a part of the file.
    pub(crate) fn write(&self, part: Part, target: &mut dyn Write) -> io::Result<()> {
        let mut buffer = [0; 32 * 1024];
        let (mut at, end) = (part.at, part.at + part.bytes);
        while let Some(spool) = self.spool.as_ref().filter(|_| at < end) {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX);
            let most = most.min(buffer.len());
            let read = spool.read_at(&mut buffer[..most], at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            target.write_all(&buffer[..read])?;
            at += read as u64;
        }
        Ok(())
    }

    /// To be told when what was due has been written.
    pub(crate) fn written(&mut self) {
        if self.spooled == 0 && self.spool_bytes > 0 {
            let cut = self.spool.as_ref().map(|spool| spool.set_len(0));
            if let Some(Ok(())) = cut {
                self.spool_bytes = 0;
            }
        }
    }

    fn pass_over_done(&mut self) {
        while self.done.get(self.next as usize) == Some(&true) {
            self.next += 1;
        }
    }

    fn hold(&mut self, job: JobIndex, end: &Arc<AttemptEnd>) -> Output {
        let bytes = end.stdout.len() + end.stderr.len();
        let fits = bytes <= OF_ONE && self.in_memory + bytes <= IN_MEMORY;
        if !fits && job.0 != self.next {
            match self.spool(end) {
                Ok(parts) => {
                    self.spooled += 1;
                    return Output::Spooled(parts);
                }
                Err(error) => tracing::warn!(
                    "cannot put output that waits for its turn into a file ({error}); it stays in \
                     memory"
                ),
            }
        }
        self.in_memory += bytes;
        Output::InMemory(Arc::clone(end))
    }

    fn spool(&mut self, end: &AttemptEnd) -> io::Result<[Part; 2]> {
        let mut spool = match self.spool.take() {
            Some(spool) => spool,
            None => {
                nameless_file(&self.folder).or_else(|_| nameless_file(&std::env::temp_dir()))?
            }
        };
        let begin = self.spool_bytes;
        let mut write = |stream: &Captured| -> io::Result<Part> {
            let at = self.spool_bytes;
            spool.seek(SeekFrom::Start(at))?;
            stream.write_to(&mut spool)?;
            self.spool_bytes += stream.len();
            Ok(Part {
                at,
                bytes: stream.len(),
                ends_within_a_line: stream.ends_within_a_line(),
                lost_bytes: stream.lost_bytes(),
            })
        };
        let parts = write(&end.stdout).and_then(|out| Ok([out, write(&end.stderr)?]));
        if parts.is_err() {
            // What was written of it is written over.
            self.spool_bytes = begin;
        }
        self.spool = Some(spool);
        parts
    }

    fn let_go(&mut self, output: Output) -> Option<Output> {
        match &output {
            Output::Nothing => return None,
            Output::InMemory(end) => self.in_memory -= end.stdout.len() + end.stderr.len(),
            Output::Spooled(_) => self.spooled -= 1,
        }
        Some(output)
    }
}
