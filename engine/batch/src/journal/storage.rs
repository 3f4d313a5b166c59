//! What the journal asks of a file system, so that tests can put one in its place that fails, or
//! loses what was not made durable, at every single call.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

/// The device of a file, and its number there.
pub(super) type Identity = (u64, u64);

/// The folder of a journal.
pub(super) trait Storage: Debug + Send {
    /// The names in it.
    fn list(&self) -> io::Result<Vec<OsString>>;
    /// All of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// A file that is empty, made if need be.
    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Puts a file in the place of another one, at once.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Which file has this name.
    fn identity(&self, name: &str) -> io::Result<Identity>;
    /// Makes the names durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file that is being written.
pub(super) trait LogFile: Debug + Send {
    /// Writes some of the bytes, at least one, and says how many.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Takes away what is beyond.
    fn cut(&mut self, len: u64) -> io::Result<()>;
    fn identity(&self) -> io::Result<Identity>;
}

/// A folder of this machine.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// The folder must be there by the time that something is asked of it.
    pub(super) fn new(folder: PathBuf) -> Disk {
        Disk { folder }
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(&self.folder)?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.folder.join(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true);
        Ok(Box::new(options.open(self.folder.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        fs::metadata(self.folder.join(name)).map(|metadata| identity(&metadata))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

impl LogFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.metadata().map(|metadata| identity(&metadata))
    }
}

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Writes all of it, whatever the pieces.
pub(super) fn write_all(file: &mut dyn LogFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
