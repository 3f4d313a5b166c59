//! The output of an attempt, as reiver caught it: small ones in memory, large ones in a file
//! without a name, so that a job may print more than the machine has memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// What a stream may hold in memory before it goes to a file: most jobs print less than this, and a
/// thousand at once are then no more than 128 MiB.
const IN_MEMORY: usize = 64 * 1024;

/// What an attempt wrote to one of its streams.
#[derive(Debug, Default)]
pub struct Captured {
    memory: Vec<u8>,
    /// What came after `memory`, once that was full.
    spilled: Option<File>,
    spilled_bytes: u64,
    /// Bytes that had no place, for a full disk.
    lost_bytes: u64,
    last: Option<u8>,
    /// Where a failed attempt's output is kept for people to read.
    log: Option<PathBuf>,
}

impl Captured {
    /// True if nothing was written.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.memory.len() as u64 + self.spilled_bytes
    }

    /// Bytes that were written but could not be kept, for a full disk.
    pub fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }

    /// True if there is something, and it does not end with a newline.
    pub fn ends_within_a_line(&self) -> bool {
        self.last.is_some_and(|last| last != b'\n')
    }

    /// Where a failed attempt's output is kept for people to read.
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Those of `target`, and of reading a file back.
    pub fn write_to(&self, target: &mut dyn Write) -> io::Result<()> {
        target.write_all(&self.memory)?;
        let mut buffer = [0; 32 * 1024];
        let mut at = 0;
        while let Some(file) = self.spilled.as_ref().filter(|_| at < self.spilled_bytes) {
            let read = file.read_at(&mut buffer, at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            target.write_all(&buffer[..read])?;
            at += read as u64;
        }
        Ok(())
    }

    /// Its last lines, at most `lines` of them and at most 64 KiB.
    pub fn last_lines(&self, lines: usize) -> Vec<u8> {
        let mut tail = self.memory.clone();
        if let Some(file) = &self.spilled {
            let from = self.spilled_bytes.saturating_sub(IN_MEMORY as u64);
            let mut end = Vec::new();
            let mut file: &File = file;
            let read = file
                .seek(SeekFrom::Start(from))
                .and_then(|_| file.read_to_end(&mut end));
            if read.is_ok() {
                tail.extend(end);
            }
        }
        let excess = tail.len().saturating_sub(IN_MEMORY);
        tail.drain(..excess);
        let without_end = tail.strip_suffix(b"\n").unwrap_or(&tail);
        let mut ends = without_end.iter().rposition_nth(lines);
        let start = ends.take().map_or(0, |newline| newline + 1);
        tail.split_off(start)
    }

    /// Takes more. What has no place in memory goes to a file in `folder`, made if need be, or in
    /// the system's folder for temporary files.
    pub(crate) fn push(&mut self, bytes: &[u8], folder: &Path) {
        self.last = bytes.last().copied().or(self.last);
        if self.spilled.is_none() && self.memory.len() + bytes.len() <= IN_MEMORY {
            self.memory.extend_from_slice(bytes);
            return;
        }
        if self.spilled.is_none() && self.lost_bytes == 0 {
            self.spilled = nameless_file(folder)
                .or_else(|_| nameless_file(&std::env::temp_dir()))
                .inspect_err(warn_lost)
                .ok();
        }
        let kept = match &mut self.spilled {
            Some(file) if self.lost_bytes == 0 => {
                file.write_all(bytes).inspect_err(warn_lost).is_ok()
            }
            _ => false,
        };
        if kept {
            self.spilled_bytes += bytes.len() as u64;
        } else {
            self.lost_bytes += bytes.len() as u64;
        }
    }

    /// Keeps it in a file for people to read.
    pub(crate) fn keep(&mut self, path: PathBuf) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(&path)?;
        // A part of it would be taken for the whole.
        self.write_to(&mut file)
            .inspect_err(|_| drop(fs::remove_file(&path)))?;
        self.log = Some(path);
        Ok(())
    }
}

fn warn_lost(error: &io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!("cannot keep the output of a job ({error}); what is over 64 KiB is lost");
    });
}

/// A file that nobody else can open, in a folder that is made if need be. It is gone when it is closed.
///
/// # Errors
/// The system's, also where the folder's file system knows no such files.
pub fn nameless_file(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(folder)
}

trait NthNewline {
    /// The place of the `n`-th newline from the end, counted from 1.
    fn rposition_nth(self, n: usize) -> Option<usize>;
}

impl NthNewline for std::slice::Iter<'_, u8> {
    fn rposition_nth(self, n: usize) -> Option<usize> {
        let newlines = self.enumerate().rev().filter(|&(_, &byte)| byte == b'\n');
        newlines.map(|(at, _)| at).nth(n.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(text: &[u8]) -> Captured {
        let mut captured = Captured::default();
        for part in text.chunks(1000) {
            captured.push(part, &std::env::temp_dir());
        }
        captured
    }

    #[test]
    fn what_went_in_comes_out_whatever_its_size() {
        for size in [
            0,
            1,
            IN_MEMORY - 1,
            IN_MEMORY,
            IN_MEMORY + 1,
            3 * IN_MEMORY + 17,
        ] {
            let text: Vec<u8> = (b'a'..=b'z').cycle().take(size).collect();
            let captured = captured(&text);
            let mut out = Vec::new();
            captured.write_to(&mut out).expect("a vector takes all");
            assert!(out == text, "{size} bytes");
            assert_eq!(captured.len(), size as u64);
            assert_eq!(captured.is_empty(), size == 0);
        }
    }

    #[test]
    fn the_last_lines_are_the_last() {
        assert_eq!(captured(b"1\n2\n3\n").last_lines(2), b"2\n3\n");
        assert_eq!(captured(b"1\n2\n3").last_lines(2), b"2\n3");
        assert_eq!(captured(b"1\n2\n").last_lines(20), b"1\n2\n");
        assert_eq!(captured(b"").last_lines(2), b"");
        let long: Vec<u8> = (0..100_000)
            .flat_map(|n| format!("{n}\n").into_bytes())
            .collect();
        assert_eq!(captured(&long).last_lines(2), b"99998\n99999\n");
        let one_line = vec![b'x'; 5 * IN_MEMORY];
        assert_eq!(captured(&one_line).last_lines(20).len(), IN_MEMORY);
    }
}
