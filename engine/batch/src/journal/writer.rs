//! A journal being written: batches of records at the end of a segment, and how far that is durable.
//!
//! What cannot be written is cut back, and may be tried again: the journal is as if nobody had tried.
//! What cannot be made durable is final, for nobody knows what the disk has kept of it: it is cut
//! back too, and nothing more is written.

use std::io;

use super::header::{self, Header, Name};
use super::reader::Read;
use super::record::{self, Record, RunStarted};
use super::state::State;
use super::storage::{LogFile, Storage, write_all};

/// A segment that is longer is followed by another.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Where segments hold more than this, resuming begins with a snapshot.
const COMPACT_BYTES: u64 = 4 << 20;

/// How large what a journal is made of may grow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) segment: u64,
    pub(super) compact: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            segment: SEGMENT_BYTES,
            compact: COMPACT_BYTES,
        }
    }
}

/// The end of a journal.
#[derive(Debug)]
pub(super) struct Writer {
    storage: Box<dyn Storage>,
    sizes: Sizes,
    file: Box<dyn LogFile>,
    segment: u64,
    /// Bytes of the segment; what the file may have beyond is nothing.
    len: u64,
    /// How many of them are durable, and how many its records say are.
    durable: u64,
    vouched: u64,
    /// The sequence number of the next record.
    next: u64,
    /// Nothing more is written: what the system said, and of what.
    broken: Option<String>,
}

impl Writer {
    /// The first segment of a journal in an empty folder.
    pub(super) fn begin(storage: Box<dyn Storage>, sizes: Sizes) -> io::Result<Writer> {
        let header = Header {
            name: Name::segment(1),
            previous_len: 0,
            first: 1,
        };
        Writer::with_segment(storage, sizes, header)
    }

    /// The next segment of a journal that was read; where it has grown large, after a snapshot.
    pub(super) fn resume(
        storage: Box<dyn Storage>,
        sizes: Sizes,
        read: &Read,
        state: &State,
    ) -> io::Result<Writer> {
        let id = read.next_segment;
        let mut header = Header {
            name: Name::segment(id),
            previous_len: read.end.map_or(0, |end| end.len),
            first: read.next,
        };
        if read.bytes <= sizes.compact {
            return Writer::with_segment(storage, sizes, header);
        }
        header.first = snapshot(&*storage, id, read.next, state)?;
        let writer = Writer::with_segment(storage, sizes, header)?;
        for old in read.files.iter().filter(|name| name.id < id) {
            // Readers begin at the snapshot, whatever lies beside it.
            let _ = writer.storage.remove(&old.text());
        }
        Ok(writer)
    }

    fn with_segment(storage: Box<dyn Storage>, sizes: Sizes, header: Header) -> io::Result<Writer> {
        let mut file = storage.create(&header.name.text())?;
        write_all(&mut *file, &header.encode(), 0)?;
        file.sync()?;
        storage.sync_names()?;
        Ok(Writer {
            storage,
            sizes,
            file,
            segment: header.name.id,
            len: header::LEN as u64,
            durable: header::LEN as u64,
            vouched: header::LEN as u64,
            next: header.first,
            broken: None,
        })
    }

    /// True while what is written can be found under its name; also where that cannot be told.
    pub(super) fn is_there(&self) -> bool {
        let name = Name::segment(self.segment).text();
        match (self.storage.identity(&name), self.file.identity()) {
            (Ok(named), Ok(written)) => named == written,
            (Err(error), _) => error.kind() != io::ErrorKind::NotFound,
            (Ok(_), Err(_)) => true,
        }
    }

    /// Writes that a run begins, durably.
    pub(super) fn start(&mut self, run: RunStarted) -> io::Result<()> {
        self.append(&[Record::RunStarted(run)])?;
        self.sync()
    }

    /// Writes records, all or none.
    ///
    /// # Errors
    /// The system's. The same may be tried again; after a sync that failed it fails again.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        self.check()?;
        if self.len >= self.sizes.segment {
            self.rotate()?;
        }
        let (mut bytes, mut next) = (Vec::new(), self.next);
        let mut put = |record: &Record| {
            record::write(record, self.segment, self.len, next, &mut bytes);
            next += 1;
        };
        if self.durable > self.vouched {
            put(&Record::Durable {
                before: self.durable,
            });
        }
        records.iter().for_each(&mut put);
        if let Err(error) = write_all(&mut *self.file, &bytes, self.len) {
            // Where even that fails, what is there is no record, or one that is true.
            let _ = self.file.cut(self.len);
            return Err(error);
        }
        self.len += bytes.len() as u64;
        self.next = next;
        self.vouched = self.durable;
        Ok(())
    }

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// The system's; what was not durable by now never will be.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        if self.durable == self.len {
            return Ok(());
        }
        match self.file.sync() {
            Ok(()) => {
                self.durable = self.len;
                Ok(())
            }
            Err(error) => {
                // Nobody was told of it, so nobody is to find it.
                let _ = self.file.cut(self.durable);
                self.len = self.durable;
                Err(self.break_for(error))
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(io::Error::other(why.clone())),
        }
    }

    fn break_for(&mut self, error: io::Error) -> io::Error {
        self.broken = Some(error.to_string());
        error
    }

    /// Goes on in another segment. Where that one cannot be made, and leaves no trace, this one serves
    /// on.
    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        if !self.is_there() {
            // What is in that folder now is somebody else's.
            let error = io::Error::other("somebody has removed it while the run went on");
            return Err(self.break_for(error));
        }
        let header = Header {
            name: Name::segment(self.segment + 1),
            previous_len: self.len,
            first: self.next,
        };
        let name = header.name.text();
        let Ok(mut file) = self.storage.create(&name) else {
            return Ok(());
        };
        if write_all(&mut *file, &header.encode(), 0).is_err() {
            return match self.storage.remove(&name) {
                Ok(()) => Ok(()),
                // It would be taken for the end of this one.
                Err(error) => Err(self.break_for(error)),
            };
        }
        if let Err(error) = file.sync().and_then(|()| self.storage.sync_names()) {
            return Err(self.break_for(error));
        }
        self.file = file;
        self.segment += 1;
        self.len = header::LEN as u64;
        self.durable = self.len;
        self.vouched = self.len;
        Ok(())
    }
}

/// Writes all that is known of jobs and runs, as what was known before the segment of this number;
/// gives the next sequence number. It is there whole, or not at all.
pub(super) fn snapshot(
    storage: &dyn Storage,
    id: u64,
    first: u64,
    state: &State,
) -> io::Result<u64> {
    /// Bytes that are written at a time.
    const PART: usize = 1 << 20;
    let name = Name::snapshot(id);
    let unfinished = name.unfinished();
    let mut file = storage.create(&unfinished)?;
    let header = Header {
        name,
        previous_len: 0,
        first,
    };
    let (mut bytes, mut written, mut next) = (header.encode(), 0, first);
    let mut jobs = 0;
    for record in state.records() {
        jobs += u64::from(matches!(record, Record::Known { .. }));
        record::write(&record, id, written, next, &mut bytes);
        next += 1;
        if bytes.len() >= PART {
            write_all(&mut *file, &bytes, written)?;
            written += bytes.len() as u64;
            bytes.clear();
        }
    }
    let whole = Record::Whole { jobs };
    record::write(&whole, id, written, next, &mut bytes);
    write_all(&mut *file, &bytes, written)?;
    file.sync()?;
    storage.rename(&unfinished, &name.text())?;
    storage.sync_names()?;
    Ok(next + 1)
}
