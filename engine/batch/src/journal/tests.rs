//! A journal on a file system that fails, or loses what it may, at every single call.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::header::LEN;
use super::reader::{self, Unreadable};
use super::record::{Born, JobEnd, Record, RunFinished, RunStarted};
use super::state::State;
use super::storage::{Identity, LogFile, Storage};
use super::writer::{Sizes, Writer};
use crate::event::{Reason, Status, Summary};

/// A file: what programs see, and what a crash leaves.
#[derive(Debug, Default, Clone)]
struct Contents {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

/// What goes wrong at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// This call fails. A write leaves half of its bytes there.
    Fails,
    /// This write takes one byte, and what comes after it goes well.
    Short,
    /// This call, and all that come after it: the machine is down.
    Down,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<String, Arc<Mutex<Contents>>>,
    /// The names that a crash leaves.
    durable: BTreeMap<String, Arc<Mutex<Contents>>>,
    calls: usize,
    fault: Option<(usize, Fault)>,
    is_down: bool,
}

/// A folder in memory; clones are the same.
#[derive(Debug, Default, Clone)]
struct Memory(Arc<Mutex<Inner>>);

impl Memory {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn with_fault(&self, at: usize, fault: Fault) {
        let mut inner = self.inner();
        inner.calls = 0;
        inner.fault = Some((at, fault));
    }

    /// One that changes something; what is to become of it.
    fn call(&self) -> io::Result<Option<Fault>> {
        let mut inner = self.inner();
        let at = inner.calls;
        inner.calls += 1;
        if inner.is_down {
            return Err(io::Error::other("the machine is down"));
        }
        match inner.fault {
            Some((place, Fault::Down)) if place == at => {
                inner.is_down = true;
                Err(io::Error::other("the machine goes down"))
            }
            Some((place, fault)) if place == at => Ok(Some(fault)),
            _ => Ok(None),
        }
    }

    /// The same, for what either happens or not.
    fn whole_call(&self) -> io::Result<()> {
        match self.call()? {
            Some(Fault::Fails) => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }

    /// What a crash leaves: all that is durable, of the rest as much as `keeps` says for each file, and
    /// the names as they are or as they were.
    fn after_crash(&self, names_are_kept: bool, keeps: impl Fn(usize) -> usize) -> Memory {
        let inner = self.inner();
        let names = match names_are_kept {
            true => &inner.files,
            false => &inner.durable,
        };
        let files: BTreeMap<_, _> = names
            .iter()
            .map(|(name, contents)| {
                let contents = contents.lock().unwrap();
                let common = contents.durable.len().min(contents.seen.len());
                let more = keeps(contents.seen.len() - common).min(contents.seen.len() - common);
                let left = contents.seen[..common + more].to_vec();
                let left = Contents {
                    seen: left.clone(),
                    durable: left,
                };
                (name.clone(), Arc::new(Mutex::new(left)))
            })
            .collect();
        Memory(Arc::new(Mutex::new(Inner {
            durable: files.clone(),
            files,
            ..Inner::default()
        })))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.inner().files[name].lock().unwrap().seen.clone()
    }

    fn put(&self, name: &str, bytes: Vec<u8>) {
        let contents = Contents {
            durable: bytes.clone(),
            seen: bytes,
        };
        let contents = Arc::new(Mutex::new(contents));
        self.inner().files.insert(name.to_owned(), contents);
    }

    fn names(&self) -> Vec<String> {
        self.inner().files.keys().cloned().collect()
    }
}

#[derive(Debug)]
struct MemoryFile {
    folder: Memory,
    contents: Arc<Mutex<Contents>>,
}

impl Storage for Memory {
    fn list(&self) -> io::Result<Vec<OsString>> {
        Ok(self.names().into_iter().map(OsString::from).collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.bytes(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        self.whole_call()?;
        let contents: Arc<Mutex<Contents>> = Arc::default();
        let mut inner = self.inner();
        inner.files.insert(name.to_owned(), Arc::clone(&contents));
        Ok(Box::new(MemoryFile {
            folder: self.clone(),
            contents,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.whole_call()?;
        let mut inner = self.inner();
        let contents = inner.files.remove(from).expect("it was made");
        inner.files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.whole_call()?;
        self.inner().files.remove(name);
        Ok(())
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        let inner = self.inner();
        inner
            .files
            .get(name)
            .map(identity)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.whole_call()?;
        let mut inner = self.inner();
        inner.durable = inner.files.clone();
        Ok(())
    }
}

impl LogFile for MemoryFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let offset = usize::try_from(offset).unwrap();
        let write = |bytes: &[u8]| {
            let mut contents = self.contents.lock().unwrap();
            let end = (offset + bytes.len()).max(contents.seen.len());
            contents.seen.resize(end, 0);
            contents.seen[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        match self.folder.call()? {
            Some(Fault::Fails) => {
                write(&bytes[..bytes.len() / 2]);
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            Some(Fault::Short) => {
                write(&bytes[..1]);
                Ok(1)
            }
            _ => {
                write(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.folder.whole_call()?;
        let mut contents = self.contents.lock().unwrap();
        contents.durable = contents.seen.clone();
        Ok(())
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.folder.whole_call()?;
        let mut contents = self.contents.lock().unwrap();
        contents.seen.truncate(usize::try_from(len).unwrap());
        Ok(())
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(identity(&self.contents))
    }
}

fn identity(contents: &Arc<Mutex<Contents>>) -> Identity {
    (0, Arc::as_ptr(contents).addr() as u64)
}

const SMALL: Sizes = Sizes {
    segment: 600,
    compact: 1500,
};
const LARGE: Sizes = Sizes {
    segment: 1 << 20,
    compact: 1 << 20,
};

fn started(id: &str) -> RunStarted {
    RunStarted {
        run_id: id.to_owned(),
        time: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        boot_id: "boot".to_owned(),
        pid: 42,
        jobs: 9,
    }
}

fn declared(number: u32) -> Record {
    Record::Job {
        number,
        key: u128::from(number) + 1000,
        definition: 7,
        name: format!("job {number}"),
        is_named: true,
    }
}

fn ended(number: u32, status: Status) -> Record {
    Record::Finished {
        number,
        end: JobEnd {
            status,
            attempt: 1,
            code: Some(0),
            signal: None,
            duration: Duration::from_millis(3),
            time: UNIX_EPOCH,
        },
    }
}

fn read_state(storage: &Memory, salvages: bool) -> Result<(State, reader::Read), Unreadable> {
    let mut state = State::default();
    let read = reader::read(storage, salvages, &mut |said| state.take(said))?;
    Ok((state, read))
}

/// How jobs ended, by their keys.
type Ends = HashMap<u128, Status>;

fn ends(state: &State) -> Ends {
    let jobs = state.jobs_by_key();
    jobs.filter_map(|(key, job)| Some((key, job.end?.1.status)))
        .collect()
}

/// Two runs, the second one resumed, in small segments; `told` is what was durable and so was told.
/// Ends early where something fails.
fn two_runs(storage: &Memory, sizes: Sizes, told: &mut Ends) -> io::Result<()> {
    let mut writer = Writer::begin(Box::new(storage.clone()), sizes)?;
    writer.start(started("one"))?;
    batches(&mut writer, 0..12, told)?;
    let (state, read) =
        read_state(storage, false).map_err(|e| io::Error::other(format!("{e:?}")))?;
    let mut writer = Writer::resume(Box::new(storage.clone()), sizes, &read, &state)?;
    writer.start(started("two"))?;
    batches(&mut writer, 6..24, told)?;
    let end = Record::RunFinished(RunFinished {
        time: UNIX_EPOCH,
        summary: Summary::default(),
        exit: 0,
    });
    writer.append(&[end])?;
    writer.sync()
}

/// Two jobs start, and end, and that is made durable; then the next two. What cannot be written is
/// tried once more, with what comes next.
fn batches(writer: &mut Writer, jobs: std::ops::Range<u32>, told: &mut Ends) -> io::Result<()> {
    let mut waiting: Vec<(Vec<Record>, Ends)> = Vec::new();
    let mut trouble = None;
    for job in jobs.step_by(2) {
        let mut records = Vec::new();
        let mut meant = Ends::new();
        for number in [job, job + 1] {
            records.push(declared(number));
            records.push(Record::Started {
                number,
                attempt: 1,
                pid: 100 + number,
                born: Born { from: 1, to: 2 },
            });
            let status = match number % 5 {
                0 => Status::Failed(Reason::Exit),
                _ => Status::Success,
            };
            records.push(ended(number, status));
            meant.insert(u128::from(number) + 1000, status);
        }
        waiting.push((records, meant));
        let all: Vec<Record> = waiting
            .iter()
            .flat_map(|(records, _)| records.clone())
            .collect();
        match writer.append(&all).and_then(|()| writer.sync()) {
            Ok(()) => waiting.drain(..).for_each(|(_, meant)| told.extend(meant)),
            Err(error) => trouble = Some(error),
        }
    }
    match trouble {
        Some(error) if !waiting.is_empty() => Err(error),
        _ => Ok(()),
    }
}

fn meant() -> Ends {
    let mut told = Ends::new();
    two_runs(&Memory::default(), SMALL, &mut told).expect("nothing fails");
    told
}

/// All that was told is there, and all that is there was meant.
fn check(storage: &Memory, told: &Ends, meant: &Ends, what: &str) {
    let (state, _) = match read_state(storage, false) {
        Ok(read) => read,
        Err(error) => panic!("{what}: {error:?}"),
    };
    let found = ends(&state);
    for (key, status) in told {
        assert_eq!(found.get(key), Some(status), "{what}: {key} was told");
    }
    for (key, status) in &found {
        assert_eq!(meant.get(key), Some(status), "{what}: {key} was not meant");
    }
    // It can be gone on with.
    let (state, read) = read_state(storage, false).unwrap();
    storage.inner().fault = None;
    storage.inner().is_down = false;
    let mut writer = Writer::resume(Box::new(storage.clone()), SMALL, &read, &state).unwrap();
    writer.start(started("three")).unwrap();
    writer
        .append(&[declared(77), ended(77, Status::Success)])
        .unwrap();
    writer.sync().unwrap();
    let (state, read) = read_state(storage, false).unwrap();
    assert_eq!(read.torn, None, "{what}");
    assert_eq!(ends(&state).len(), found.len() + 1, "{what}");
}

fn calls() -> usize {
    let storage = Memory::default();
    two_runs(&storage, SMALL, &mut Ends::new()).unwrap();
    let calls = storage.inner().calls;
    assert!(calls > 40, "{calls}: several segments and a snapshot");
    assert!(
        storage
            .names()
            .iter()
            .any(|name| name.starts_with("snapshot"))
    );
    calls
}

#[test]
fn what_was_told_is_found_again_whatever_call_fails() {
    let meant = meant();
    for at in 0..calls() {
        for fault in [Fault::Fails, Fault::Short] {
            let storage = Memory::default();
            storage.with_fault(at, fault);
            let mut told = Ends::new();
            let done = two_runs(&storage, SMALL, &mut told);
            assert!(done.is_ok() || fault == Fault::Fails, "{at}: {done:?}");
            check(
                &storage,
                &told,
                &meant,
                &format!("{fault:?} at {at}, {done:?}"),
            );
        }
    }
}

#[test]
fn what_was_told_is_found_again_whenever_the_machine_goes_down() {
    let meant = meant();
    for at in 0..calls() {
        let storage = Memory::default();
        storage.with_fault(at, Fault::Down);
        let mut told = Ends::new();
        let done = two_runs(&storage, SMALL, &mut told);
        assert!(done.is_err());
        for names_are_kept in [true, false] {
            for keeps in [0, 1, 20, 100, usize::MAX] {
                let left = storage.after_crash(names_are_kept, |_| keeps);
                let what = format!("down at {at}, {names_are_kept}, {keeps} bytes more");
                check(&left, &told, &meant, &what);
            }
        }
    }
}

#[test]
fn a_sync_that_fails_is_final_and_what_it_was_for_is_not_found() {
    let storage = Memory::default();
    let mut writer = Writer::begin(Box::new(storage.clone()), LARGE).unwrap();
    writer.start(started("one")).unwrap();
    writer
        .append(&[declared(1), ended(1, Status::Success)])
        .unwrap();
    storage.with_fault(0, Fault::Fails);
    writer.sync().expect_err("it fails");
    writer.sync().expect_err("it is final");
    let more = writer.append(&[declared(2), ended(2, Status::Success)]);
    more.expect_err("it is final");
    let (state, read) = read_state(&storage, false).unwrap();
    assert!(ends(&state).is_empty());
    assert_eq!(read.torn, None, "it was cut back");
}

/// A journal of one segment, closed or killed, with where each record begins.
fn one_segment(is_closed: bool) -> (Vec<u8>, Vec<usize>) {
    let storage = Memory::default();
    let mut writer = Writer::begin(Box::new(storage.clone()), LARGE).unwrap();
    writer.start(started("one")).unwrap();
    batches(&mut writer, 0..6, &mut Ends::new()).unwrap();
    if is_closed {
        let finished = RunFinished {
            time: UNIX_EPOCH,
            summary: Summary::default(),
            exit: 0,
        };
        writer.append(&[Record::RunFinished(finished)]).unwrap();
        writer.sync().unwrap();
    }
    let bytes = storage.bytes("segment-00000001");
    let mut places = vec![LEN];
    let mut sequence = 1;
    while *places.last().unwrap() < bytes.len() {
        let at = *places.last().unwrap();
        let (_, next) = super::record::read(&bytes, at, 1, sequence..=sequence).unwrap();
        places.push(next);
        sequence += 1;
    }
    (bytes, places)
}

fn of_bytes(bytes: Vec<u8>) -> Memory {
    let storage = Memory::default();
    storage.put("segment-00000001", bytes);
    storage
}

#[test]
fn a_journal_cut_at_any_byte_is_torn_there_and_what_is_before_is_believed() {
    let (bytes, places) = one_segment(true);
    for len in 0..bytes.len() {
        let storage = of_bytes(bytes[..len].to_vec());
        let (_, read) = read_state(&storage, false).unwrap();
        if len < LEN {
            assert_eq!(read.torn.map(|torn| torn.offset), Some(0), "{len}");
            continue;
        }
        let last = *places.iter().rfind(|&&place| place <= len).unwrap();
        let torn = read.torn.map(|torn| (torn.offset, torn.bytes));
        let expected = (last < len).then_some((last as u64, (len - last) as u64));
        assert_eq!(torn, expected, "{len}");
        assert_eq!(read.end.unwrap().len, last as u64);
    }
}

#[test]
fn a_bit_that_flips_anywhere_is_named_with_its_record_and_never_believed() {
    let (bytes, places) = one_segment(true);
    let whole = read_state(&of_bytes(bytes.clone()), false).unwrap().0;
    let whole = ends(&whole);
    // The last batch, which nobody vouches for: how far all was durable, and the end of the run.
    let unvouched = places[places.len() - 3];
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let storage = of_bytes(bytes);
            let record = *places.iter().rfind(|&&place| place <= at).unwrap_or(&0);
            match read_state(&storage, false) {
                Err(Unreadable::Damaged(damage)) => {
                    assert!(at < unvouched, "{at}.{bit}");
                    assert_eq!(damage.offset, record as u64, "{at}.{bit}");
                }
                Err(Unreadable::Version { version, .. }) => {
                    assert!((8..12).contains(&at) && version != 1, "{at}.{bit}");
                    continue;
                }
                Err(error) => panic!("{at}.{bit}: {error:?}"),
                Ok((state, read)) => {
                    assert!(at >= unvouched, "{at}.{bit}");
                    assert_eq!(read.torn.unwrap().offset, record as u64, "{at}.{bit}");
                    assert_eq!(ends(&state), whole, "no end of a job is lost");
                    continue;
                }
            }
            let (state, read) = read_state(&storage, true).unwrap();
            assert!(!read.damage.is_empty());
            for (key, status) in ends(&state) {
                assert_eq!(whole.get(&key), Some(&status), "{at}.{bit}");
            }
        }
    }
}

#[test]
fn a_segment_is_not_begun_among_those_of_another_run() {
    let storage = Memory::default();
    let mut writer = Writer::begin(Box::new(storage.clone()), SMALL).unwrap();
    writer.start(started("first")).unwrap();
    assert!(writer.is_there());
    let mut other = Writer::begin(Box::new(storage.clone()), SMALL).unwrap();
    other.start(started("second")).unwrap();
    assert!(!writer.is_there() && other.is_there());
    let names = storage.names();
    let error = (0..1000)
        .find_map(|_| writer.start(started("more")).err())
        .expect("it is full some day");
    assert!(error.to_string().contains("removed it"), "{error}");
    assert_eq!(storage.names(), names);
}

#[test]
fn segments_and_snapshots_that_are_damaged_missing_or_moved_are_named() {
    let storage = Memory::default();
    let mut told = Ends::new();
    two_runs(&storage, SMALL, &mut told).unwrap();
    let names = storage.names();
    assert!(names.len() > 3, "{names:?}");
    let last = names
        .iter()
        .filter(|name| name.starts_with("segment"))
        .max();
    for name in &names {
        let bytes = storage.bytes(name);
        let is_last = Some(name) == last;
        let copy = || storage.after_crash(true, |_| usize::MAX);
        let damaged_in = |storage: &Memory| match read_state(storage, false) {
            Err(Unreadable::Damaged(damage)) => Some(damage.file),
            Err(error) => panic!("{name}: {error:?}"),
            Ok(_) => None,
        };
        for len in 0..bytes.len() {
            let storage = copy();
            storage.put(name, bytes[..len].to_vec());
            match damaged_in(&storage) {
                // One that goes missing is missed where the next one begins.
                Some(file) => assert!(!is_last, "{file} for {name} at {len}"),
                None => assert!(is_last, "{name} at {len}"),
            }
        }
        for at in 0..bytes.len() {
            let storage = copy();
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            storage.put(name, bytes);
            match read_state(&storage, false) {
                Err(Unreadable::Damaged(damage)) => assert_eq!(&damage.file, name, "{at}"),
                Err(Unreadable::Version { .. }) => assert!((8..12).contains(&at)),
                Err(error) => panic!("{error:?}"),
                Ok((_, read)) => assert_eq!(&read.torn.unwrap().file, name, "{at}"),
            }
        }
        if !is_last {
            let storage = copy();
            storage.inner().files.remove(name);
            let damaged = damaged_in(&storage).expect("one is missing");
            if name.starts_with("segment") {
                assert_eq!(&damaged, name);
                let (_, read) = read_state(&storage, true).unwrap();
                let files: BTreeSet<&str> = read.damage.iter().map(|it| it.file.as_str()).collect();
                // And its successor, for what was before it.
                assert!(files.len() <= 2 && files.contains(&name[..]), "{files:?}");
            }
        }
    }
    // The right bytes under another name are not what they were.
    let moved = storage.after_crash(true, |_| usize::MAX);
    let first = names
        .iter()
        .find(|name| name.starts_with("segment"))
        .unwrap();
    moved.put(last.unwrap(), storage.bytes(first));
    assert!(matches!(
        read_state(&moved, false),
        Err(Unreadable::Damaged(_))
    ));
}

#[test]
fn holes_in_what_was_not_durable_are_a_torn_end() {
    // The second of two batches came to the disk, and the first did not, before either was durable.
    let storage = Memory::default();
    let mut writer = Writer::begin(Box::new(storage.clone()), LARGE).unwrap();
    writer.start(started("one")).unwrap();
    let begin = storage.bytes("segment-00000001").len();
    writer
        .append(&[declared(1), ended(1, Status::Success)])
        .unwrap();
    let end = storage.bytes("segment-00000001").len();
    writer
        .append(&[declared(2), ended(2, Status::Success)])
        .unwrap();
    let mut bytes = storage.bytes("segment-00000001");
    bytes[begin..end].fill(0);
    let (state, read) = read_state(&of_bytes(bytes), false).unwrap();
    assert!(ends(&state).is_empty());
    assert_eq!(read.torn.unwrap().offset, begin as u64);
}

#[test]
fn another_version_is_refused_by_its_number() {
    let (mut bytes, _) = one_segment(true);
    bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
    for salvages in [false, true] {
        match read_state(&of_bytes(bytes.clone()), salvages) {
            Err(Unreadable::Version { file, version }) => {
                assert_eq!((file.as_str(), version), ("segment-00000001", 9));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_number_means_nothing_after_a_gap() {
    // The run's beginning is lost, and with it that 1 is another job now.
    let storage = Memory::default();
    let mut writer = Writer::begin(Box::new(storage.clone()), LARGE).unwrap();
    writer.start(started("one")).unwrap();
    writer.append(&[declared(1)]).unwrap();
    writer.sync().unwrap();
    let begin = storage.bytes("segment-00000001").len();
    writer
        .append(&[Record::RunStarted(started("two"))])
        .unwrap();
    writer.append(&[ended(1, Status::Success)]).unwrap();
    writer.sync().unwrap();
    writer.append(&[declared(3)]).unwrap();
    writer.sync().unwrap();
    let mut bytes = storage.bytes("segment-00000001");
    bytes[begin + 60] ^= 1;
    let (state, _) = read_state(&of_bytes(bytes), true).unwrap();
    assert!(ends(&state).is_empty());
}

#[test]
fn a_cancel_takes_nothing_from_what_was_known_and_a_change_is_told() {
    let mut state = State::default();
    let mut say = |record| state.take(reader::Said::Record(record));
    say(Record::RunStarted(started("one")));
    say(declared(1));
    say(ended(1, Status::Failed(Reason::Exit)));
    say(Record::RunStarted(started("two")));
    say(declared(1));
    say(ended(1, Status::Cancelled));
    say(Record::RunStarted(started("three")));
    say(declared(1));
    say(Record::Started {
        number: 1,
        attempt: 1,
        pid: 5,
        born: Born { from: 3, to: 4 },
    });
    let job = state.job(1001).unwrap();
    assert!(job.has_failed_as(7) && !job.has_failed_as(8));
    assert!(!job.has_changed_from(7) && job.has_changed_from(8));
    let unended = state.unended();
    assert_eq!(unended.run.unwrap().run_id, "three");
    assert_eq!(unended.open.len(), 1);
    assert_eq!(unended.open[0].1.pid, 5);
    assert!(unended.ended.is_empty());
}

/// A step of a history: of these jobs, some start, some end, and all that is made durable or not.
fn steps() -> impl Strategy<Value = Vec<(u32, u8, bool)>> {
    proptest::collection::vec((0u32..8, 0u8..4, any::<bool>()), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens, what was durable is found, in order, and nothing that did not happen.
    #[test]
    fn a_history_that_is_cut_off_anywhere_is_a_beginning_of_itself(
        steps in steps(), keep in 0usize..400, compact in 200u64..4000, resumes in 0usize..4,
    ) {
        let sizes = Sizes { segment: 500, compact };
        let storage = Memory::default();
        let mut writer = Writer::begin(Box::new(storage.clone()), sizes).unwrap();
        writer.start(started("run")).unwrap();
        let mut histories = vec![Ends::new()];
        let mut durable = 0;
        let part = steps.len() / (resumes + 1) + 1;
        for (place, (job, what, syncs)) in steps.into_iter().enumerate() {
            if place > 0 && place % part == 0 {
                writer.sync().unwrap();
                durable = histories.len() - 1;
                let (state, read) = read_state(&storage, false).unwrap();
                writer = Writer::resume(Box::new(storage.clone()), sizes, &read, &state).unwrap();
                writer.start(started("again")).unwrap();
            }
            let status = [Status::Success, Status::Failed(Reason::Timeout)][usize::from(what % 2)];
            writer.append(&[declared(job), ended(job, status)]).unwrap();
            let mut next = histories.last().unwrap().clone();
            next.insert(u128::from(job) + 1000, status);
            histories.push(next);
            if syncs {
                writer.sync().unwrap();
                durable = histories.len() - 1;
            }
        }
        let left = storage.after_crash(true, |_| keep);
        let (state, _) = read_state(&left, false).unwrap();
        let found = ends(&state);
        prop_assert!(histories[durable..].contains(&found));
    }

    /// Records are what they were, or none.
    #[test]
    fn random_bytes_are_no_journal(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut with_header = one_segment(false).0[..LEN].to_vec();
        with_header.extend(&bytes);
        for bytes in [bytes, with_header] {
            for salvages in [false, true] {
                if let Ok((state, _)) = read_state(&of_bytes(bytes.clone()), salvages) {
                    prop_assert!(ends(&state).is_empty());
                }
            }
        }
    }
}
