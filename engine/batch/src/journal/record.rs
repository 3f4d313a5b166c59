//! What a journal says, record by record, and the bytes that say so.
//!
//! Numbers are little-endian, texts follow their length. What is here is version 1 of the format and
//! never changes: another record, or another field, is another version.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::event::{LeaderEnd, Reason, Status, Summary};

/// One thing that the journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A run begins; numbers of jobs are its own from here on.
    RunStarted(RunStarted),
    /// What a number stands for, said before anything else is said of it.
    Job {
        number: u32,
        key: u128,
        definition: u128,
        name: String,
        is_named: bool,
    },
    /// An attempt has a process.
    Started {
        number: u32,
        attempt: u32,
        pid: u32,
        born: Born,
    },
    /// An attempt failed, and the job will be tried again.
    Retried {
        number: u32,
        attempt: u32,
        reason: Reason,
    },
    /// A job is over.
    Finished { number: u32, end: JobEnd },
    /// The run is over; where it says so twice, the last time holds.
    RunFinished(RunFinished),
    /// All of the segment before this place was durable when this was written.
    Durable { before: u64 },
    /// In a snapshot: a job of runs before, and how it ended.
    Known {
        key: u128,
        name: String,
        is_named: bool,
        definition: u128,
        end: JobEnd,
    },
    /// A snapshot is whole, with so many jobs.
    Whole { jobs: u64 },
}

/// A run, as it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStarted {
    /// Names it in events and in the environment of its jobs.
    pub run_id: String,
    /// When it began.
    pub time: SystemTime,
    /// Which start of the machine that was in: process numbers mean nothing in another.
    pub boot_id: String,
    /// The process of reiver.
    pub pid: u32,
    /// How many jobs it had.
    pub jobs: u64,
}

/// A run, as it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFinished {
    /// When it ended.
    pub time: SystemTime,
    /// How many jobs ended how.
    pub summary: Summary,
    /// Its exit code.
    pub exit: u8,
}

/// When a process began, in ticks of the system's clock since the machine started: not before the
/// first and not after the second.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Born {
    /// Just before it was started.
    pub from: u64,
    /// Just after.
    pub to: u64,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobEnd {
    /// What that makes of it.
    pub status: Status,
    /// Its last attempt, from 1.
    pub attempt: u32,
    /// The exit code of its leader.
    pub code: Option<i32>,
    /// The signal that ended its leader.
    pub signal: Option<i32>,
    /// How long the attempt took.
    pub duration: Duration,
    /// When it ended.
    pub time: SystemTime,
}

impl JobEnd {
    /// The code and the signal of a leader.
    pub(crate) fn of_leader(leader: &LeaderEnd) -> (Option<i32>, Option<i32>) {
        match leader {
            LeaderEnd::Exited(code) => (Some(*code), None),
            LeaderEnd::Signalled(signal) => (None, Some(*signal)),
            LeaderEnd::NotStarted(_)
            | LeaderEnd::Returned(_)
            | LeaderEnd::Panicked(_)
            | LeaderEnd::Abandoned => (None, None),
        }
    }
}

/// What stands before each record: its length, checksum, sequence number and type.
pub(super) const FRAME: usize = 4 + 4 + 8 + 1;

/// A record with its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Framed<'b> {
    pub(super) sequence: u64,
    kind: u8,
    body: &'b [u8],
}

/// Appends a record to bytes, the first of which will stand at `base` in a segment.
pub(super) fn write(record: &Record, segment: u64, base: u64, sequence: u64, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend([0; FRAME]);
    let kind = record.encode(out);
    let length = u32::try_from(out.len() - begin - FRAME).expect("names are shorter than that");
    out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
    out[begin + 8..begin + 16].copy_from_slice(&sequence.to_le_bytes());
    out[begin + 16] = kind;
    let sum = checksum(segment, base + begin as u64, &out[begin..]);
    out[begin + 4..begin + 8].copy_from_slice(&sum.to_le_bytes());
}

/// The record at a place of a segment, and where the next begins. `None` where there is none, or
/// one that is not as it was written, or that is none of these sequence numbers.
pub(super) fn read(
    bytes: &[u8],
    at: usize,
    segment: u64,
    sequences: std::ops::RangeInclusive<u64>,
) -> Option<(Framed<'_>, usize)> {
    let rest = &bytes[at..];
    let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
    let end = FRAME.checked_add(length)?;
    let frame = rest.get(..end)?;
    let sequence = u64::from_le_bytes(*frame[8..].first_chunk()?);
    if !sequences.contains(&sequence) {
        return None;
    }
    let sum = u32::from_le_bytes(*frame[4..].first_chunk()?);
    (sum == checksum(segment, at as u64, frame)).then_some((
        Framed {
            sequence,
            kind: frame[16],
            body: &frame[FRAME..],
        },
        at + end,
    ))
}

/// Of a frame without its checksum, and of its place: a record that was moved is none.
fn checksum(segment: u64, offset: u64, frame: &[u8]) -> u32 {
    let mut sum = crc32c::crc32c(&segment.to_le_bytes());
    sum = crc32c::crc32c_append(sum, &offset.to_le_bytes());
    sum = crc32c::crc32c_append(sum, &frame[..4]);
    crc32c::crc32c_append(sum, &frame[8..])
}

const RUN_STARTED: u8 = 1;
const JOB: u8 = 2;
const STARTED: u8 = 3;
const RETRIED: u8 = 4;
const FINISHED: u8 = 5;
const RUN_FINISHED: u8 = 6;
const DURABLE: u8 = 7;
const KNOWN: u8 = 8;
const WHOLE: u8 = 9;

impl Record {
    /// Appends the body, and gives the type.
    fn encode(&self, out: &mut Vec<u8>) -> u8 {
        let mut out = Encoder(out);
        match self {
            Record::RunStarted(run) => {
                out.text(&run.run_id);
                out.time(run.time);
                out.text(&run.boot_id);
                out.u32(run.pid);
                out.u64(run.jobs);
                RUN_STARTED
            }
            Record::Job {
                number,
                key,
                definition,
                name,
                is_named,
            } => {
                out.u32(*number);
                out.u128(*key);
                out.u128(*definition);
                out.text(name);
                out.u8((*is_named).into());
                JOB
            }
            Record::Started {
                number,
                attempt,
                pid,
                born,
            } => {
                out.u32(*number);
                out.u32(*attempt);
                out.u32(*pid);
                out.u64(born.from);
                out.u64(born.to);
                STARTED
            }
            Record::Retried {
                number,
                attempt,
                reason,
            } => {
                out.u32(*number);
                out.u32(*attempt);
                out.status(Status::Failed(*reason));
                RETRIED
            }
            Record::Finished { number, end } => {
                out.u32(*number);
                out.end(end);
                FINISHED
            }
            Record::RunFinished(run) => {
                out.time(run.time);
                let summary = &run.summary;
                for count in [
                    summary.succeeded,
                    summary.failed,
                    summary.cancelled,
                    summary.skipped,
                ] {
                    out.u64(count as u64);
                }
                out.duration(summary.duration);
                out.u8(run.exit);
                RUN_FINISHED
            }
            Record::Durable { before } => {
                out.u64(*before);
                DURABLE
            }
            Record::Known {
                key,
                name,
                is_named,
                definition,
                end,
            } => {
                out.u128(*key);
                out.text(name);
                out.u8((*is_named).into());
                out.u128(*definition);
                out.end(end);
                KNOWN
            }
            Record::Whole { jobs } => {
                out.u64(*jobs);
                WHOLE
            }
        }
    }

    /// What a frame says; `None` if that is nothing of this version.
    pub(super) fn decode(framed: &Framed<'_>) -> Option<Record> {
        let mut body = Decoder(framed.body);
        let record = match framed.kind {
            RUN_STARTED => Record::RunStarted(RunStarted {
                run_id: body.text()?,
                time: body.time()?,
                boot_id: body.text()?,
                pid: body.u32()?,
                jobs: body.u64()?,
            }),
            JOB => Record::Job {
                number: body.u32()?,
                key: body.u128()?,
                definition: body.u128()?,
                name: body.text()?,
                is_named: body.flag()?,
            },
            STARTED => Record::Started {
                number: body.u32()?,
                attempt: body.u32()?,
                pid: body.u32()?,
                born: Born {
                    from: body.u64()?,
                    to: body.u64()?,
                },
            },
            RETRIED => Record::Retried {
                number: body.u32()?,
                attempt: body.u32()?,
                reason: match body.status()? {
                    Status::Failed(reason) => reason,
                    Status::Success | Status::Cancelled => return None,
                },
            },
            FINISHED => Record::Finished {
                number: body.u32()?,
                end: body.end()?,
            },
            RUN_FINISHED => Record::RunFinished(RunFinished {
                time: body.time()?,
                summary: Summary {
                    succeeded: body.count()?,
                    failed: body.count()?,
                    cancelled: body.count()?,
                    skipped: body.count()?,
                    duration: body.duration()?,
                },
                exit: body.u8()?,
            }),
            DURABLE => Record::Durable {
                before: body.u64()?,
            },
            KNOWN => Record::Known {
                key: body.u128()?,
                name: body.text()?,
                is_named: body.flag()?,
                definition: body.u128()?,
                end: body.end()?,
            },
            WHOLE => Record::Whole { jobs: body.u64()? },
            _ => return None,
        };
        body.0.is_empty().then_some(record)
    }
}

struct Encoder<'o>(&'o mut Vec<u8>);

impl Encoder<'_> {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn u128(&mut self, value: u128) {
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).expect("names are shorter than that"));
        self.0.extend(text.as_bytes());
    }

    /// Microseconds since 1970; the clock may stand before that.
    fn time(&mut self, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.u64(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    }

    fn duration(&mut self, duration: Duration) {
        self.u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    fn status(&mut self, status: Status) {
        self.u8(match status {
            Status::Success => 0,
            Status::Cancelled => 1,
            // Of a task there is neither code nor signal beside it.
            Status::Failed(Reason::Exit | Reason::Error | Reason::Panic) => 2,
            Status::Failed(Reason::Signal) => 3,
            Status::Failed(Reason::Timeout) => 4,
            Status::Failed(Reason::Spawn) => 5,
            Status::Failed(Reason::OutOfMemory) => 6,
            Status::Failed(Reason::Deadline) => 7,
        });
    }

    fn end(&mut self, end: &JobEnd) {
        self.status(end.status);
        self.u32(end.attempt);
        let (kind, value) = match (end.code, end.signal) {
            (Some(code), _) => (1, code),
            (None, Some(signal)) => (2, signal),
            (None, None) => (0, 0),
        };
        self.u8(kind);
        self.0.extend(value.to_le_bytes());
        self.duration(end.duration);
        self.time(end.time);
    }
}

struct Decoder<'b>(&'b [u8]);

impl<'b> Decoder<'b> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.bytes().map(u128::from_le_bytes)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.u64()?).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let (text, rest): (&'b [u8], _) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn time(&mut self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(self.duration()?)
    }

    fn duration(&mut self) -> Option<Duration> {
        self.u64().map(Duration::from_micros)
    }

    fn status(&mut self) -> Option<Status> {
        Some(match self.u8()? {
            0 => Status::Success,
            1 => Status::Cancelled,
            2 => Status::Failed(Reason::Exit),
            3 => Status::Failed(Reason::Signal),
            4 => Status::Failed(Reason::Timeout),
            5 => Status::Failed(Reason::Spawn),
            6 => Status::Failed(Reason::OutOfMemory),
            7 => Status::Failed(Reason::Deadline),
            _ => return None,
        })
    }

    fn end(&mut self) -> Option<JobEnd> {
        let (status, attempt) = (self.status()?, self.u32()?);
        let kind = self.u8()?;
        let value = i32::from_le_bytes(self.bytes()?);
        let (code, signal) = match kind {
            0 => (None, None),
            1 => (Some(value), None),
            2 => (None, Some(value)),
            _ => return None,
        };
        Some(JobEnd {
            status,
            attempt,
            code,
            signal,
            duration: self.duration()?,
            time: self.time()?,
        })
    }
}
