//! What a run has come to, kept so that it survives whatever becomes of reiver.
//!
//! A journal is a folder of append-only segments of records; each record has a length, a checksum
//! (CRC-32C, over its segment's number and its place too), a sequence number and a type. A snapshot
//! stands for all segments before its number. A file begins with a magic and the version of the
//! format.
//!
//! States: read (what is there is believed or refused, nothing is changed) → begun anew, or resumed
//! → written, batch by batch, each durable before anybody is told of what it says → closed. Whoever
//! has it locks it.
//!
//! What holds at any moment of any of these, and is tested with a file system that fails or loses
//! what it may at every call: all that was said to be durable is found again; what is found has
//! happened; what is damaged is named with its place and not believed.

mod header;
mod lock;
mod reader;
mod record;
mod state;
mod storage;
mod writer;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::lock::{Lock, NotLocked};
use self::reader::{Read, Unreadable};
use self::storage::Disk;
use self::writer::{Sizes, Writer};

pub use self::reader::{Damage, Torn};
pub(crate) use self::record::Record;
pub use self::record::{Born, JobEnd, RunFinished, RunStarted};
pub use self::state::{Job, Open, Run, State, Unended};

/// Why there is no journal to be had.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another run has it.
    #[error("the journal {} is in use by another run{}; wait for its end, or keep another journal (--journal DIR) or none (--no-journal)", folder.display(), process.map(|pid| format!(", process {pid}")).unwrap_or_default())]
    InUse {
        /// The journal.
        folder: PathBuf,
        /// The other run's process, where it says.
        process: Option<u32>,
    },
    /// It cannot be made, or not be read.
    #[error("the journal {}: {error}; keep it elsewhere (--journal DIR) or keep none (--no-journal)", folder.display())]
    System {
        /// The journal.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is something else in its place.
    #[error("{} holds what is no journal's, `{name}` for one; name another folder", folder.display())]
    NoJournal {
        /// The folder.
        folder: PathBuf,
        /// Something in it.
        name: String,
    },
    /// It is of another version.
    #[error("the journal {}: {file} is of version {version} of the format, and this reiver reads version {}; resume with the reiver that wrote it, or begin anew without --resume", folder.display(), header::VERSION)]
    Version {
        /// The journal.
        folder: PathBuf,
        /// The file that says so.
        file: String,
        /// The version.
        version: u32,
    },
    /// It is not as it was written, and that is not for want of an end.
    #[error("the journal {} is damaged: {}, byte {}: {}; `reiver journal salvage` keeps what can be read, and without --resume it is begun anew", folder.display(), damage.file, damage.offset, damage.what)]
    Damaged {
        /// The journal.
        folder: PathBuf,
        /// Where, and what is wrong there.
        damage: Damage,
    },
}

impl JournalError {
    fn system(folder: &Path) -> impl Fn(io::Error) -> JournalError + '_ {
        move |error| JournalError::System {
            folder: folder.to_owned(),
            error,
        }
    }

    fn unreadable(folder: &Path) -> impl Fn(Unreadable) -> JournalError + '_ {
        move |unreadable| {
            let folder = folder.to_owned();
            match unreadable {
                Unreadable::Io(error) => JournalError::System { folder, error },
                Unreadable::Version { file, version } => JournalError::Version {
                    folder,
                    file,
                    version,
                },
                Unreadable::Damaged(damage) => JournalError::Damaged { folder, damage },
            }
        }
    }
}

/// A journal that nobody else has.
#[derive(Debug)]
pub struct Locked {
    folder: PathBuf,
    lock: Lock,
}

/// What a journal says.
#[derive(Debug)]
pub struct Known {
    /// Of jobs and runs.
    pub state: State,
    /// The end that was not written whole, and so is cut off.
    pub torn: Option<Torn>,
    /// Where it is damaged, if that was to be passed over.
    pub damage: Vec<Damage>,
    read: Read,
}

/// A journal that a run writes.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    lock: Lock,
    writer: Writer,
}

/// What is in a journal, for whoever only looks: a run may be writing it. `None` where there is
/// none.
///
/// # Errors
/// Where it cannot be read, or is damaged and that is not to be passed over.
pub fn look(folder: &Path, past_damage: bool) -> Result<Option<Known>, JournalError> {
    read(folder, past_damage)
}

/// The process of the run that has a journal just now.
pub fn held_by(folder: &Path) -> Option<u32> {
    lock::held_by(folder)
}

impl Locked {
    /// Locks the journal in this folder, which need not be there yet.
    ///
    /// # Errors
    /// Where another run has it, no folder can be made there, or what is there is no journal.
    pub fn take(folder: &Path) -> Result<Locked, JournalError> {
        // However one has come to it, it is one folder, with one lock.
        let real = real(folder).map_err(JournalError::system(folder))?;
        refuse_others(&real)?;
        let lock = Lock::take(&real).map_err(|not| match not {
            NotLocked::Held(process) => JournalError::InUse {
                folder: real.clone(),
                process,
            },
            NotLocked::Io(error) => JournalError::system(&real)(error),
        })?;
        Ok(Locked { folder: real, lock })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it says; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read, or is damaged.
    pub fn read(&self) -> Result<Option<Known>, JournalError> {
        read(&self.folder, false)
    }

    /// What may still be alive of the run before, if that was killed, as far as can be read.
    pub fn unended(&self) -> Unended {
        if !self.lock.was_killed {
            return Unended::default();
        }
        let known = read(&self.folder, true).ok().flatten();
        known.map(|known| known.state.unended()).unwrap_or_default()
    }

    /// Begins it anew; what was there is kept beside it, with `.old` at its name's end.
    ///
    /// # Errors
    /// Where that cannot be done, or what is there is no journal.
    pub fn begin(self, run: RunStarted) -> Result<Journal, JournalError> {
        self.put_aside()?;
        let storage = Box::new(Disk::new(self.folder.clone()));
        let writer = Writer::begin(storage, Sizes::default());
        self.started(writer, run)
    }

    /// Goes on with it.
    ///
    /// # Errors
    /// The system's.
    pub fn resume(self, known: &Known, run: RunStarted) -> Result<Journal, JournalError> {
        let storage = Box::new(Disk::new(self.folder.clone()));
        let writer = Writer::resume(storage, Sizes::default(), &known.read, &known.state);
        self.started(writer, run)
    }

    /// Keeps what can be read of a damaged journal; what was there is kept beside it, with `.old` at
    /// its name's end. `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read or written at all.
    pub fn salvage(self) -> Result<Option<Known>, JournalError> {
        let Some(known) = read(&self.folder, true)? else {
            return Ok(None);
        };
        self.put_aside()?;
        let disk = Disk::new(self.folder.clone());
        writer::snapshot(&disk, 1, 1, &known.state).map_err(JournalError::system(&self.folder))?;
        // The lock goes on saying that a run was killed, if one was.
        Ok(Some(known))
    }

    fn started(self, writer: io::Result<Writer>, run: RunStarted) -> Result<Journal, JournalError> {
        let begun = writer.and_then(|mut writer| writer.start(run).map(|()| writer));
        let writer = begun.map_err(JournalError::system(&self.folder))?;
        Ok(Journal {
            folder: self.folder,
            lock: self.lock,
            writer,
        })
    }

    /// Leaves an empty folder.
    fn put_aside(&self) -> Result<(), JournalError> {
        let system = JournalError::system(&self.folder);
        let names = names_in(&self.folder).map_err(&system)?;
        // An empty one is not worth the one that was put aside before.
        if names.is_empty() {
            return Ok(());
        }
        if let Some(name) = names.iter().find(|name| !header::is_journals(name)) {
            return Err(no_journal(&self.folder, name));
        }
        let mut old = self.folder.clone().into_os_string();
        old.push(".old");
        let old = PathBuf::from(old);
        let replaced = match fs::remove_dir_all(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::rename(&self.folder, &old),
        };
        replaced
            // Whoever waits for the lock may have made one already.
            .and_then(|()| fs::create_dir_all(&self.folder))
            .and_then(|()| sync_parent(&self.folder))
            .map_err(&system)
    }
}

impl Journal {
    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        self.writer.append(records)
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.writer.sync()
    }

    /// True while what is written can be found again: nobody has removed it.
    pub(crate) fn is_there(&self) -> bool {
        self.writer.is_there()
    }

    /// The run has come to its end, and nothing of it is left running.
    pub(crate) fn close(self) {
        self.lock.release();
    }
}

fn read(folder: &Path, salvages: bool) -> Result<Option<Known>, JournalError> {
    let mut state = State::default();
    let disk = Disk::new(folder.to_owned());
    let read = match reader::read(&disk, salvages, &mut |said| state.take(said)) {
        Err(Unreadable::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(JournalError::unreadable(folder))?,
    };
    Ok((!read.files.is_empty()).then(|| Known {
        state,
        torn: read.torn.clone(),
        damage: read.damage.clone(),
        read,
    }))
}

/// A folder of somebody else, in which there is no journal, gets no lock beside it either.
fn refuse_others(folder: &Path) -> Result<(), JournalError> {
    let names = match names_in(folder) {
        // Whoever has the lock puts the journal aside just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(JournalError::system(folder))?,
    };
    match names.first() {
        Some(name) if !names.iter().any(|name| header::is_journals(name)) => {
            Err(no_journal(folder, name))
        }
        _ => Ok(()),
    }
}

fn names_in(folder: &Path) -> io::Result<Vec<OsString>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

/// For want of a journal's files, or for this one, which is none.
fn no_journal(folder: &Path, name: &OsStr) -> JournalError {
    JournalError::NoJournal {
        folder: folder.to_owned(),
        name: name.to_string_lossy().into_owned(),
    }
}

/// The folder itself, made if need be, whatever links lead to it.
fn real(folder: &Path) -> io::Result<PathBuf> {
    use io::ErrorKind::{AlreadyExists, NotFound};
    match made(folder) {
        // Whoever has the lock has put it aside meanwhile, and makes another.
        Err(error) if matches!(error.kind(), NotFound | AlreadyExists) => made(folder),
        made => made,
    }
}

/// As [`real`], by one who has the folder alone.
fn made(folder: &Path) -> io::Result<PathBuf> {
    if let Err(error) = fs::create_dir_all(folder) {
        // What is there and is no folder says so in better words.
        return Err(match fs::metadata(folder) {
            Ok(_) => io::ErrorKind::NotADirectory.into(),
            Err(_) => error,
        });
    }
    let real = folder.canonicalize()?;
    sync_parent(&real)?;
    Ok(real)
}

fn sync_parent(folder: &Path) -> io::Result<()> {
    fs::File::open(folder.parent().unwrap_or(folder))?.sync_all()
}

#[cfg(test)]
mod tests;
