//! A journal read, and what is wrong with it: a torn tail told from damage in the middle.
//!
//! What was made durable is there to its last bit, or something has damaged it. What was not may be
//! there, or in part, or with holes. So where a record cannot be read it is asked what had been
//! durable: a record further on may say so (each batch that follows a sync begins with how far that
//! went), and a segment that is followed by another was durable to the length that the other one
//! names. What nobody vouches for is a torn tail, of a reiver that was killed or a machine that went
//! down, and is cut off; anything else is damage.

use std::collections::BTreeSet;
use std::io;

use super::header::{self, Header, Kind, Name, NoHeader};
use super::record::{self, FRAME, Record};
use super::storage::Storage;

/// What became of reading.
#[derive(Debug)]
pub(super) struct Read {
    /// The files that it was read from, and all that lie beside them.
    pub(super) files: BTreeSet<Name>,
    /// The end of the last segment; `None` where there is none.
    pub(super) end: Option<End>,
    /// The number of the next segment.
    pub(super) next_segment: u64,
    /// The sequence number of the next record.
    pub(super) next: u64,
    /// What was cut off.
    pub(super) torn: Option<Torn>,
    /// Bytes in segments, what was cut off not among them.
    pub(super) bytes: u64,
    /// Where it is damaged, where that was to be passed over.
    pub(super) damage: Vec<Damage>,
}

/// The end of the last segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) segment: u64,
    pub(super) len: u64,
}

/// The end of a journal that was not written whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub file: String,
    /// Where in it the first record is that cannot be read.
    pub offset: u64,
    /// How many bytes there are from there on.
    pub bytes: u64,
}

/// A place where a journal is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it the first record is that cannot be read.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

/// Why a journal cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    Io(io::Error),
    Version { file: String, version: u32 },
    Damaged(Damage),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Unreadable {
        Unreadable::Io(error)
    }
}

/// One thing after another that a journal says.
#[derive(Debug)]
pub(super) enum Said {
    Record(Record),
    /// Something that cannot be read any more, a run's beginning perhaps.
    Gap,
}

/// Reads all of it, and hands on what it says, in order. Where it is damaged it is refused, or, to
/// salvage what can be, what cannot be read is passed over.
pub(super) fn read(
    storage: &dyn Storage,
    salvages: bool,
    take: &mut dyn FnMut(Said),
) -> Result<Read, Unreadable> {
    let names = storage.list()?;
    let files: BTreeSet<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
    let mut reader = Reader { salvages, take };
    let mut read = Read {
        files,
        end: None,
        next_segment: 1,
        next: 1,
        torn: None,
        bytes: 0,
        damage: Vec::new(),
    };
    let of_kind = |kind| {
        let ids = read.files.iter().filter(move |name| name.kind == kind);
        ids.map(|name| name.id)
    };
    let snapshot = of_kind(Kind::Snapshot).next_back();
    // Without a snapshot there has never been less than all.
    let first = snapshot.unwrap_or(1);
    read.next_segment = first;
    let ids: Vec<u64> = of_kind(Kind::Segment).filter(|&id| id >= first).collect();
    if let Some(id) = snapshot {
        reader.snapshot(&mut read, &storage.read(&Name::snapshot(id).text())?, id)?;
    }
    let (mut ahead, mut expected) = (None, first);
    for (place, &id) in ids.iter().enumerate() {
        let load = |id: u64| -> Result<Loaded, Unreadable> {
            let bytes = storage.read(&Name::segment(id).text())?;
            let header = header_of(&bytes, Name::segment(id))?;
            Ok(Loaded { id, bytes, header })
        };
        let segment = match ahead.take() {
            Some(segment) => segment,
            None => load(id)?,
        };
        if segment.id != expected {
            let missing = Damage {
                file: Name::segment(expected).text(),
                offset: 0,
                what: "it is missing, and a later one is there".to_owned(),
            };
            reader.damaged(&mut read, missing)?;
        }
        expected = segment.id + 1;
        if let Some(&id) = ids.get(place + 1) {
            let next = load(id)?;
            if place + 2 == ids.len() && next.is_unborn() {
                read.torn = Some(next.torn_at(0));
                reader.segment(&mut read, &segment, None)?;
                break;
            }
            reader.segment(&mut read, &segment, Some(&next))?;
            ahead = Some(next);
        } else if ids.len() == 1 && segment.is_unborn() {
            read.torn = Some(segment.torn_at(0));
        } else {
            reader.segment(&mut read, &segment, None)?;
        }
    }
    Ok(read)
}

/// A segment in memory.
struct Loaded {
    id: u64,
    bytes: Vec<u8>,
    header: Option<Header>,
}

impl Loaded {
    /// True for one that was being made when reiver was killed: nothing was ever written to it.
    fn is_unborn(&self) -> bool {
        self.header.is_none() && self.bytes.len() <= header::LEN
    }

    fn torn_at(&self, at: usize) -> Torn {
        Torn {
            file: Name::segment(self.id).text(),
            offset: at as u64,
            bytes: (self.bytes.len() - at) as u64,
        }
    }
}

const CHANGED: &str = "this record is not as it was written";
const UNKNOWN: &str = "this record says nothing that is known";

struct Reader<'t> {
    salvages: bool,
    take: &'t mut dyn FnMut(Said),
}

impl Reader<'_> {
    fn snapshot(&mut self, read: &mut Read, bytes: &[u8], id: u64) -> Result<(), Unreadable> {
        let name = Name::snapshot(id);
        let damage = |offset: usize, what: &str| Damage {
            file: name.text(),
            offset: offset as u64,
            what: what.to_owned(),
        };
        let Some(header) = header_of(bytes, name)? else {
            return self.damaged(read, damage(0, "it has no header"));
        };
        let (mut at, mut jobs) = (header::LEN, 0);
        read.next = header.first;
        loop {
            let found = record::read(bytes, at, name.id, read.next..=read.next);
            let Some((framed, next)) = found else {
                self.damaged(read, damage(at, CHANGED))?;
                match further(bytes, at, name.id, read.next) {
                    Some((place, sequence)) => (at, read.next) = (place, sequence),
                    None => return Ok(()),
                }
                continue;
            };
            read.next += 1;
            match Record::decode(&framed) {
                Some(Record::Whole { jobs: count }) => {
                    if (count, next) != (jobs, bytes.len()) {
                        let what = "the snapshot holds more or less than this says";
                        self.damaged(read, damage(at, what))?;
                    }
                    return Ok(());
                }
                Some(record) => {
                    jobs += u64::from(matches!(record, Record::Known { .. }));
                    (self.take)(Said::Record(record));
                }
                None => self.damaged(read, damage(at, UNKNOWN))?,
            }
            at = next;
        }
    }

    /// Reads a segment; `next` is the one after it.
    fn segment(
        &mut self,
        read: &mut Read,
        segment: &Loaded,
        next: Option<&Loaded>,
    ) -> Result<(), Unreadable> {
        let damage = |offset: usize, what: &str| Damage {
            file: Name::segment(segment.id).text(),
            offset: offset as u64,
            what: what.to_owned(),
        };
        match segment.header {
            None => self.damaged(read, damage(0, "it has no header"))?,
            Some(header) if header.first != read.next => {
                self.damaged(read, damage(0, "records before it are missing"))?;
                read.next = header.first;
            }
            Some(_) => {}
        }
        // Until where it was durable, by what the next one says; one further on says it of another.
        let successor = next.filter(|next| next.id == segment.id + 1);
        let len = successor.and_then(|next| next.header).map(|header| {
            usize::try_from(header.previous_len).expect("a file in memory is no longer than that")
        });
        let bytes = &segment.bytes[..len.unwrap_or(usize::MAX).min(segment.bytes.len())];
        let mut at = header::LEN.min(bytes.len());
        while at < bytes.len() {
            let found = record::read(bytes, at, segment.id, read.next..=read.next);
            if let Some((framed, end)) = found {
                match Record::decode(&framed) {
                    Some(record) => (self.take)(Said::Record(record)),
                    None => self.damaged(read, damage(at, UNKNOWN))?,
                }
                (at, read.next) = (end, read.next + 1);
                continue;
            }
            if next.is_none() && !is_vouched_for(bytes, at, segment.id, read.next) {
                // Of two, the one that was being made is of less account.
                read.torn = Some(segment.torn_at(at));
                break;
            }
            self.damaged(read, damage(at, CHANGED))?;
            match further(bytes, at, segment.id, read.next) {
                Some((place, sequence)) => (at, read.next) = (place, sequence),
                None => break,
            }
        }
        if len.is_some_and(|len| at < len) {
            let what = "the rest is missing, and a later segment is there";
            self.damaged(read, damage(at, what))?;
        }
        read.bytes += at as u64;
        read.next_segment = segment.id + 1;
        read.end = Some(End {
            segment: segment.id,
            len: at as u64,
        });
        Ok(())
    }

    fn damaged(&mut self, read: &mut Read, damage: Damage) -> Result<(), Unreadable> {
        if !self.salvages {
            return Err(Unreadable::Damaged(damage));
        }
        (self.take)(Said::Gap);
        read.damage.push(damage);
        Ok(())
    }
}

fn header_of(bytes: &[u8], name: Name) -> Result<Option<Header>, Unreadable> {
    match Header::decode(bytes, name) {
        Ok(header) => Ok(Some(header)),
        Err(NoHeader::Damaged) => Ok(None),
        Err(NoHeader::Version(version)) => Err(Unreadable::Version {
            file: name.text(),
            version,
        }),
    }
}

/// True if a later record says that this place was durable.
fn is_vouched_for(bytes: &[u8], at: usize, id: u64, sequence: u64) -> bool {
    let mut place = at;
    let mut least = sequence;
    while let Some((found, number)) = further(bytes, place, id, least) {
        let Some((framed, next)) = record::read(bytes, found, id, number..=number) else {
            return false;
        };
        if let Some(Record::Durable { before }) = Record::decode(&framed)
            && before > at as u64
        {
            return true;
        }
        (place, least) = (next - 1, number);
    }
    false
}

/// The next place after this one that holds a record, one of a higher sequence number.
fn further(bytes: &[u8], at: usize, id: u64, sequence: u64) -> Option<(usize, u64)> {
    // Each record before it takes up room.
    let most = sequence + (bytes.len() / FRAME) as u64;
    (at + 1..bytes.len().saturating_sub(FRAME - 1)).find_map(|place| {
        let (framed, _) = record::read(bytes, place, id, sequence + 1..=most)?;
        Some((place, framed.sequence))
    })
}
