//! The promises about nodes, held on machines that nobody here has.
//!
//! This library has the machines; the promises stand in `tests/`, one folder a kind of machine: those
//! that are only described, and those that are booted. Described machines are fixtures of the project's
//! own, layouts drawn at random, and snapshots of `/sys` and files of `lstopo` that lie beside the
//! checkout (`../shared/topologies`); without these the tests say that they were skipped.

pub mod facts;
mod fixtures;
pub mod layout;
pub mod machines;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use tempfile::TempDir;

pub use fixtures::fixtures;

/// A snapshot of another machine's `/sys` and `/proc`.
#[derive(Debug)]
pub struct Snapshot {
    /// The name of its archive.
    pub name: String,
    /// The folder that stands for `/`.
    pub root: PathBuf,
    _folder: TempDir,
}

/// All snapshots; none, said aloud, where they or the tools that unpack them are missing. Tests that
/// run at the same time share what was unpacked, for that takes longer than they do.
pub fn snapshots() -> Arc<Vec<Snapshot>> {
    static UNPACKED: Mutex<Weak<Vec<Snapshot>>> = Mutex::new(Weak::new());
    let mut unpacked = UNPACKED.lock().unwrap_or_else(PoisonError::into_inner);
    unpacked.upgrade().unwrap_or_else(|| {
        let snapshots = Arc::new(unpack_all());
        *unpacked = Arc::downgrade(&snapshots);
        snapshots
    })
}

fn unpack_all() -> Vec<Snapshot> {
    let archives = shared("sysfs");
    thread::scope(|scope| {
        let unpacking: Vec<_> = archives
            .iter()
            .map(|archive| scope.spawn(|| unpack(archive)))
            .collect();
        let unpacked = unpacking.into_iter().map(|thread| thread.join());
        unpacked
            .filter_map(|snapshot| snapshot.expect("unpacking does not panic"))
            .collect()
    })
}

/// The files that `lstopo` wrote of other machines; none, said aloud, where they are missing.
pub fn xml_files() -> Vec<PathBuf> {
    shared("xml")
}

/// What lies beside the checkout in a folder of machines.
fn shared(kind: &str) -> Vec<PathBuf> {
    let topologies = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/topologies");
    let folder = topologies.join(kind);
    let Ok(entries) = fs::read_dir(&folder) else {
        skipped(&format!("no machines in {}", folder.display()));
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Says what a test leaves out.
pub fn skipped(what: &str) {
    said(&format!("skipped: {what}"));
}

/// Says something, straight to standard error: what is printed the usual way is shown only of tests that
/// fail.
pub fn said(what: &str) {
    let _ = writeln!(io::stderr(), "{what}");
}

fn unpack_into(archive: &PathBuf, folder: &TempDir) -> bool {
    let unpacked = Command::new("tar")
        .arg("-xjf")
        .arg(archive)
        .arg("-C")
        .arg(folder.path())
        .stderr(Stdio::null())
        .status();
    unpacked.is_ok_and(|status| status.success())
}

fn unpack(archive: &PathBuf) -> Option<Snapshot> {
    // Thousands of small files: a file system in memory takes them in a hundredth of the time, where
    // there is one with room for them.
    let in_memory = tempfile::tempdir_in("/dev/shm").ok();
    let in_memory = in_memory.filter(|folder| unpack_into(archive, folder));
    let folder = in_memory.or_else(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        unpack_into(archive, &folder).then_some(folder)
    });
    let Some(folder) = folder else {
        let archive = archive.display();
        skipped(&format!("cannot unpack {archive} (tar and bzip2 do it)"));
        return None;
    };
    let root = fs::read_dir(folder.path()).ok()?.flatten().next()?.path();
    let name = archive
        .file_name()?
        .to_str()?
        .trim_end_matches(".tar.bz2")
        .to_owned();
    Some(Snapshot {
        name,
        root,
        _folder: folder,
    })
}
