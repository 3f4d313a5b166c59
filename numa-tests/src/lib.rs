//! The promises about nodes, held on machines that nobody here has.
//!
//! This library has the machines; the promises stand in `tests/`, one folder a kind of machine: those
//! that are only described, and those that are booted. Described machines are snapshots of `/sys` that
//! lie beside the checkout (`../shared/topologies`); without them the tests say that they were skipped.

pub mod layout;
pub mod machines;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use tempfile::TempDir;

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
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/topologies/sysfs");
    let Ok(entries) = fs::read_dir(&folder) else {
        skipped(&format!("no snapshots of machines in {}", folder.display()));
        return Vec::new();
    };
    let mut archives: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    archives.sort();
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

/// Says what a test leaves out.
pub fn skipped(what: &str) {
    said(&format!("skipped: {what}"));
}

/// Says something, straight to standard error: what is printed the usual way is shown only of tests that
/// fail.
pub fn said(what: &str) {
    let _ = writeln!(io::stderr(), "{what}");
}

fn unpack(archive: &PathBuf) -> Option<Snapshot> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unpacked = Command::new("tar")
        .arg("-xjf")
        .arg(archive)
        .arg("-C")
        .arg(folder.path())
        .status();
    if !unpacked.is_ok_and(|status| status.success()) {
        let archive = archive.display();
        skipped(&format!("cannot unpack {archive} (tar and bzip2 do it)"));
        return None;
    }
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
