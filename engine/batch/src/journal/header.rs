//! What every file of a journal begins with, and how the files are called.

use std::ffi::OsStr;

/// What a file of a journal begins with, whatever its version.
const MAGIC: [u8; 8] = *b"reiver\x1aj";
/// The one that is written, and the one that is read.
pub(super) const VERSION: u32 = 1;
/// Bytes of a header.
pub(super) const LEN: usize = 8 + 4 + 4 + 8 + 8 + 8 + 4;

/// What a file of a journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// All that was known when the segment of this number began.
    Snapshot,
    /// Records in the order in which things happened.
    Segment,
}

/// A file of a journal, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) kind: Kind,
    pub(super) id: u64,
}

/// The beginning of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Name,
    /// How long the segment before it is: what stands there beyond that was cut off. 0 where there is
    /// none.
    pub(super) previous_len: u64,
    /// The sequence number of its first record.
    pub(super) first: u64,
}

/// Why a file has no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// It is of this version.
    Version(u32),
    /// There is less, or something else.
    Damaged,
}

impl Name {
    pub(super) fn segment(id: u64) -> Name {
        Name {
            kind: Kind::Segment,
            id,
        }
    }

    /// The snapshot of what was known before the segment of this number.
    pub(super) fn snapshot(id: u64) -> Name {
        Name {
            kind: Kind::Snapshot,
            id,
        }
    }

    pub(super) fn text(self) -> String {
        let word = match self.kind {
            Kind::Snapshot => "snapshot",
            Kind::Segment => "segment",
        };
        format!("{word}-{:08}", self.id)
    }

    /// As a snapshot is called until it is whole.
    pub(super) fn unfinished(self) -> String {
        format!("{}.new", self.text())
    }

    pub(super) fn parse(name: &OsStr) -> Option<Name> {
        let (kind, number) = name.to_str()?.split_once('-')?;
        let kind = match kind {
            "segment" => Kind::Segment,
            "snapshot" => Kind::Snapshot,
            _ => return None,
        };
        let name = Name {
            kind,
            id: number.parse().ok()?,
        };
        (name.text().split_once('-')?.1 == number).then_some(name)
    }
}

/// True for whatever a journal may leave in its folder.
pub(super) fn is_journals(name: &OsStr) -> bool {
    let text = name.to_string_lossy();
    let text = text.strip_suffix(".new").unwrap_or(&text);
    Name::parse(OsStr::new(text)).is_some()
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = match self.name.kind {
            Kind::Segment => 1u32,
            Kind::Snapshot => 2,
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        for number in [self.name.id, self.previous_len, self.first] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// The header of the file of this name.
    pub(super) fn decode(bytes: &[u8], name: Name) -> Result<Header, NoHeader> {
        let number = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
        };
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
        };
        let version = word(8).filter(|_| bytes.starts_with(&MAGIC));
        if let Some(version) = version.filter(|&version| version != VERSION) {
            return Err(NoHeader::Version(version));
        }
        let decoded = || {
            let header = Header {
                name,
                previous_len: number(24)?,
                first: number(32)?,
            };
            (bytes.get(..LEN)? == header.encode()).then_some(header)
        };
        decoded().ok_or(NoHeader::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_no_other_is() {
        for name in [Name::segment(1), Name::snapshot(99_999_999_999)] {
            assert_eq!(Name::parse(OsStr::new(&name.text())), Some(name));
            assert!(is_journals(OsStr::new(&name.unfinished())));
        }
        for other in [
            "segment-1",
            "segment-",
            "segment-+0000001",
            "lock",
            "x-00000001",
        ] {
            assert_eq!(Name::parse(OsStr::new(other)), None, "{other}");
            assert!(!is_journals(OsStr::new(other)));
        }
    }

    #[test]
    fn a_header_is_of_its_file_and_its_version() {
        let header = Header {
            name: Name::segment(3),
            previous_len: 1234,
            first: 56,
        };
        let bytes = header.encode();
        assert_eq!(bytes.len(), LEN);
        assert_eq!(Header::decode(&bytes, header.name), Ok(header));
        let other = Header::decode(&bytes, Name::segment(4));
        assert_eq!(other, Err(NoHeader::Damaged));
        let mut later = bytes.clone();
        later[8] = 7;
        let refused = Header::decode(&later, header.name);
        assert_eq!(refused, Err(NoHeader::Version(7)));
        for len in 0..LEN {
            let cut = Header::decode(&bytes[..len], header.name);
            assert_eq!(cut, Err(NoHeader::Damaged), "{len}");
        }
    }
}
