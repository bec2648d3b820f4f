//! The log: groups of commits, appended and synced, until the index has them. Written by the committer alone, read when
//! a store is opened. It must not know what changes mean.
//!
//! Segments are files of a fixed length, filled with zeros when they are made and used again when the index has
//! everything in them, so that an `fdatasync` has no metadata to write. The first sector of a segment says how far it is
//! written, see `mark`; records follow. A record says its own revision; whatever is at or below that of the index is old.
//! A record is:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | `RWL1` |
//! | 4 | 4 | length of the payload |
//! | 8 | 8 | revision of the first batch |
//! | 16 | 4 | number of batches; each has the next revision |
//! | 20 | 4 | zero |
//! | 24 | 8 | the last revision that was known to be on disk when this was written |
//! | 32 | 8 | checksum of the 32 bytes before |
//! | 40 | … | payload: per batch a count of changes (4); per change lengths of key (4) and value (4, all ones: removed), then both |
//! | end | 8 | checksum of the payload, seeded with that of the header |
//!
//! Numbers are little-endian. Where no record begins, the reader looks for the next one: damage loses the groups that it
//! hits, no others. Where revisions are missing, a later record that knew them on disk says that they were damaged; if
//! none does, they and everything behind them are writes that a crash cut short, and nobody was told that they are on
//! disk. Those records are destroyed before anything is appended, as their revisions are given out anew.

mod mark;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::batch::Change;
use crate::files::{File, Files};
use crate::log::mark::Mark;

const MAGIC: [u8; 4] = *b"RWL1";
const HEADER_BYTES: usize = 40;
const REMOVED: u32 = u32::MAX;
/// What is read of every segment: its mark, and the header of the record behind it.
const READ_FIRST: usize = mark::BYTES + HEADER_BYTES;

/// One batch as the log has it.
#[derive(Debug)]
pub(crate) struct Logged {
    pub(crate) revision: u64,
    pub(crate) changes: Vec<Change>,
    /// What was known to be on disk when it was written.
    synced: u64,
    /// The number of the segment that it was read from, and where its record begins there.
    place: (usize, u64),
}

/// Appends a batch to the payload of a group.
pub(crate) fn encode(changes: &[Change], into: &mut Vec<u8>) {
    let word = |number: usize| u32::try_from(number).unwrap_or(REMOVED).to_le_bytes();
    into.extend_from_slice(&word(changes.len()));
    for change in changes {
        into.extend_from_slice(&word(change.key.len()));
        match &change.value {
            Some(value) => {
                into.extend_from_slice(&word(value.len()));
                into.extend_from_slice(&change.key);
                into.extend_from_slice(value);
            }
            None => {
                into.extend_from_slice(&REMOVED.to_le_bytes());
                into.extend_from_slice(&change.key);
            }
        }
    }
}

/// Begins a record: room for the header.
pub(crate) fn begin(record: &mut Vec<u8>) {
    record.clear();
    record.resize(HEADER_BYTES, 0);
}

/// Ends a record: fills the header, appends the checksum.
pub(crate) fn finish(record: &mut Vec<u8>, first: u64, batches: u32, synced: u64) {
    let length = u32::try_from(record.len() - HEADER_BYTES).unwrap_or(u32::MAX);
    record[..4].copy_from_slice(&MAGIC);
    record[4..8].copy_from_slice(&length.to_le_bytes());
    record[8..16].copy_from_slice(&first.to_le_bytes());
    record[16..20].copy_from_slice(&batches.to_le_bytes());
    record[24..32].copy_from_slice(&synced.to_le_bytes());
    let seal = xxh3_64(&record[..32]);
    record[32..40].copy_from_slice(&seal.to_le_bytes());
    let end = xxh3_64_with_seed(&record[HEADER_BYTES..], seal);
    record.extend_from_slice(&end.to_le_bytes());
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A header that is right: revision, batches, the length of the whole record.
fn header(bytes: &[u8]) -> Option<(u64, u32, usize)> {
    let head = bytes.get(..HEADER_BYTES)?;
    if head[..4] != MAGIC || long(head, 32)? != xxh3_64(&head[..32]) {
        return None;
    }
    let length = usize::try_from(word(head, 4)?).ok()?;
    Some((long(head, 8)?, word(head, 16)?, HEADER_BYTES + length + 8))
}

/// The batches of a record with a right header, or `None` if the rest is not right.
fn payload(record: &[u8], first: u64, batches: u32) -> Option<Vec<Logged>> {
    let (payload, end) = record.get(HEADER_BYTES..)?.split_at_checked(record.len() - HEADER_BYTES - 8)?;
    if long(end, 0)? != xxh3_64_with_seed(payload, long(record, 32)?) {
        return None;
    }
    let synced = long(record, 24)?;
    let mut at = 0_usize;
    let mut take = |bytes: usize| {
        let taken = payload.get(at..at.checked_add(bytes)?)?;
        at += bytes;
        Some(taken)
    };
    let mut found = Vec::new();
    for number in 0..batches {
        let mut changes = Vec::new();
        for _ in 0..word(take(4)?, 0)? {
            let (key, value) = (word(take(4)?, 0)?, word(take(4)?, 0)?);
            let key = take(key as usize)?.into();
            let value = if value == REMOVED { None } else { Some(take(value as usize)?.into()) };
            changes.push(Change { key, value });
        }
        found.push(Logged { revision: first + u64::from(number), changes, synced, place: (0, 0) });
    }
    Some(found)
}

/// The batches of a record that stands alone, in the order of their revisions, or `None` if it is not whole.
pub(crate) fn read_one(record: &[u8]) -> Option<Vec<(u64, Vec<Change>)>> {
    let (first, batches, length) = header(record)?;
    let found = if length == record.len() { payload(record, first, batches)? } else { return None };
    Some(found.into_iter().map(|batch| (batch.revision, batch.changes)).collect())
}

/// What a segment held.
#[derive(Debug, Default)]
struct Contents {
    batches: Vec<Logged>,
    /// Bytes behind the last whole record that are not zero.
    tail: u64,
    /// Where the last record of this use ends that is whole, or would be if what was read did not end before.
    end: u64,
}

/// Reads every whole record of a segment whose revisions lie above `after`. `base` is the first revision of this use.
fn read(bytes: &[u8], after: u64, base: u64) -> Contents {
    let mut contents = Contents::default();
    let (mut at, mut end) = (0, 0);
    while at < bytes.len() {
        if let Some((first, batches, length)) = header(&bytes[at..]) {
            let whole = bytes.get(at..at + length).and_then(|record| payload(record, first, batches));
            if let Some(mut found) = whole {
                found.iter_mut().for_each(|batch| batch.place.1 = at as u64);
                at += length;
                if first >= base {
                    contents.end = at as u64;
                }
                if found.last().is_some_and(|last| last.revision > after) {
                    end = at;
                    contents.batches.extend(found.into_iter().filter(|batch| batch.revision > after));
                }
                continue;
            }
            if first >= base && at + length > bytes.len() {
                contents.end = (at + length) as u64;
            }
        }
        // No record here: go on to the next place where one may begin.
        at += 1;
        match bytes[at..].iter().position(|byte| *byte == MAGIC[0]) {
            Some(ahead) => at += ahead,
            None => break,
        }
    }
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    contents.tail = used.saturating_sub(end) as u64;
    contents
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Arc<dyn File>,
    length: u64,
    /// The last revision written to it since it was last taken into use.
    last: u64,
    /// Its mark, `None` if it has none that can be trusted.
    mark: Option<Mark>,
    /// The revision with which the record begins that lies first in it, `None` if none does.
    first: Option<u64>,
}

impl Segment {
    fn open(files: &dyn Files, path: PathBuf) -> io::Result<Self> {
        let file = files.open(&path, false)?;
        let length = file.len()?;
        let mut first = vec![0; usize::try_from(length).map_or(READ_FIRST, |length| length.min(READ_FIRST))];
        file.read_at(0, &mut first)?;
        let mark = Mark::read(&first).filter(|mark| mark.extent <= length);
        let first = first.get(mark::BYTES..).and_then(header).map(|(first, ..)| first);
        Ok(Self { path, file, length, last: 0, mark, first })
    }

    /// Whether all that it holds lies below this revision. A mark may be that of an earlier use, if the disk lost the one
    /// of this use; what lies first tells.
    fn ends_below(&self, revision: u64) -> bool {
        self.mark.is_some_and(|mark| mark.base < revision) && self.first.is_none_or(|first| first < revision)
    }

    /// Reads what may be above `after`, no further than it is written.
    fn contents(&self, after: u64, step: u64) -> io::Result<Contents> {
        let read_to = |end: u64, base: u64| {
            let mut bytes = vec![0; usize::try_from(end).map_err(io::Error::other)?];
            self.file.read_at(0, &mut bytes)?;
            Ok::<_, io::Error>(read(&bytes, after, base))
        };
        if let Some(Mark { base, extent }) = self.mark {
            let contents = read_to(extent, base)?;
            if extent == self.length || contents.end + step <= extent {
                return Ok(contents);
            }
        }
        read_to(self.length, 0)
    }
}

/// What a log held when it was opened.
#[derive(Debug)]
pub(crate) struct Found {
    /// In the order of their revisions.
    pub(crate) batches: Vec<Logged>,
    pub(crate) torn_bytes: u64,
    /// Revisions that are missing between others.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// The files that held something.
    pub(crate) used: Vec<PathBuf>,
}

/// The open log, with a place to append to.
#[derive(Debug)]
pub(crate) struct Log {
    files: Arc<dyn Files>,
    folder: PathBuf,
    segment_bytes: u64,
    segments: Vec<Segment>,
    /// Which segment is written, and where; none until the first group.
    current: Option<(usize, u64)>,
    /// By how much marks grow.
    step: u64,
    unsynced: bool,
    /// Everything up to here is in the index, so that its segments may be used again.
    released: Arc<AtomicU64>,
}

impl Log {
    /// Opens the segments and reads what the index does not have. Where there was no index any more, `everything` is read,
    /// whatever marks say: they rely on it.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        folder: &Path,
        segment_bytes: u64,
        released: Arc<AtomicU64>,
        everything: bool,
    ) -> io::Result<(Self, Found)> {
        let after = released.load(Acquire);
        let mut found = Found { batches: Vec::new(), torn_bytes: 0, gaps: Vec::new(), used: Vec::new() };
        let paths = files.list(folder)?.into_iter().filter(|path| is_segment(path));
        let mut segments =
            paths.map(|path| Segment::open(&*files, path)).collect::<io::Result<Vec<Segment>>>()?;
        if everything {
            segments.iter_mut().for_each(|segment| segment.mark = None);
        }
        // A segment was synced before the next was taken into use, so that what it holds lies below the next one's base.
        let bases = segments.iter().filter_map(|segment| segment.mark).map(|mark| mark.base);
        let oldest = bases.filter(|base| *base <= after.saturating_add(1)).max().unwrap_or(0);
        let step = mark::step(segment_bytes);
        // The end that a crash cut short is behind the newest record; elsewhere old bytes are no news.
        let mut newest = after;
        for (number, segment) in segments.iter_mut().enumerate() {
            if segment.ends_below(oldest) {
                continue;
            }
            let mut contents = segment.contents(after, step)?;
            contents.batches.iter_mut().for_each(|batch| batch.place.0 = number);
            let last = contents.batches.last().map_or(0, |batch| batch.revision);
            if last > newest {
                newest = last;
                found.torn_bytes = contents.tail;
            }
            if last > 0 {
                found.used.push(segment.path.clone());
            }
            found.batches.extend(contents.batches);
            segment.last = last;
        }
        found.batches.sort_by_key(|batch| batch.revision);
        found.batches.dedup_by_key(|batch| batch.revision);
        let synced = found.batches.iter().map(|batch| batch.synced).max().unwrap_or(after);
        let mut expected = after + 1;
        let mut whole = found.batches.len();
        for (number, batch) in found.batches.iter().enumerate() {
            if batch.revision > expected {
                if expected > synced {
                    whole = number;
                    break;
                }
                found.gaps.push((expected, batch.revision - 1));
            }
            expected = batch.revision + 1;
        }
        let unknown = found.batches.split_off(whole);
        destroy(&segments, &unknown)?;
        // A store that was killed leaves records that the system has and the disk has not. What builds on them is synced
        // elsewhere: the index, the next segment.
        let mut used = segments.iter().filter(|segment| segment.last > 0);
        used.try_for_each(|segment| segment.file.sync())?;
        found.torn_bytes += unknown.iter().map(|batch| size(&batch.changes)).sum::<u64>();
        let folder = folder.to_owned();
        let log =
            Self { files, folder, segment_bytes, segments, current: None, step, unsynced: false, released };
        Ok((log, found))
    }

    /// Finds a place for a record. Fails without having written anything that matters, so that it may be tried again.
    pub(crate) fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = bytes as u64;
        if self.current.is_some_and(|(number, at)| at + bytes <= self.segments[number].length) {
            return Ok(());
        }
        self.sync()?;
        let released = self.released.load(Acquire);
        let current = self.current.map(|(number, _)| number);
        let free = (0..self.segments.len()).find(|number| {
            let segment = &self.segments[*number];
            let room = segment.length >= bytes + mark::BYTES as u64;
            Some(*number) != current && segment.last <= released && room
        });
        let number = match free {
            Some(number) => number,
            None => self.add_segment(bytes)?,
        };
        self.current = Some((number, mark::BYTES as u64));
        self.segments[number].mark = None;
        Ok(())
    }

    /// Makes a segment and fills it, so that it takes no room of the disk later.
    fn add_segment(&mut self, bytes: u64) -> io::Result<usize> {
        let length = self.segment_bytes.max(bytes + mark::BYTES as u64);
        let mut number = self.segments.len();
        let path = loop {
            let path = self.folder.join(format!("log-{number:06}.seg"));
            if self.segments.iter().all(|segment| segment.path != path) {
                break path;
            }
            number += 1;
        };
        let fill = || {
            let file = self.files.open(&path, true)?;
            let zeros = vec![0; 1 << 20];
            let mut at = 0;
            while at < length {
                let piece = usize::try_from(length - at).map_or(zeros.len(), |rest| rest.min(zeros.len()));
                file.write_at(at, &zeros[..piece])?;
                at += piece as u64;
            }
            file.sync()?;
            self.files.sync_folder(&self.folder)?;
            Ok(file)
        };
        match fill() {
            Ok(file) => {
                self.segments.push(Segment { path, file, length, last: 0, mark: None, first: None });
                Ok(self.segments.len() - 1)
            }
            Err(error) => {
                // Half a segment only takes room; if it cannot be removed, the next attempt fills it anew.
                drop(self.files.remove(&path));
                Err(error)
            }
        }
    }

    /// Writes a record of these revisions where `make_room` found a place, and before it, now and then, a mark.
    pub(crate) fn append(&mut self, record: &[u8], first: u64, last: u64) -> io::Result<()> {
        let Some((number, at)) = self.current else {
            return Err(io::Error::other("wanted a segment to append to, found none"));
        };
        let segment = &mut self.segments[number];
        segment.last = last;
        self.unsynced = true;
        let end = at + record.len() as u64;
        let mark = segment.mark.unwrap_or(Mark { base: first, extent: 0 });
        if end + self.step > mark.extent && mark.extent < segment.length {
            let mark = Mark { extent: (end + 2 * self.step).min(segment.length), ..mark };
            segment.file.write_at(0, &mark.write())?;
            segment.mark = Some(mark);
        }
        segment.file.write_at(at, record)?;
        self.current = Some((number, end));
        Ok(())
    }

    /// Returns when everything appended is on disk.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if let (true, Some((number, _))) = (self.unsynced, self.current) {
            self.segments[number].file.sync()?;
        }
        self.unsynced = false;
        Ok(())
    }
}

/// Makes records unreadable, for good when this returns. Else whoever opens the log next would find their revisions twice,
/// and could not tell which of the two somebody was told of.
fn destroy(segments: &[Segment], batches: &[Logged]) -> io::Result<()> {
    let places: BTreeSet<(usize, u64)> = batches.iter().map(|batch| batch.place).collect();
    for (number, at) in &places {
        segments[*number].file.write_at(*at, &[0; MAGIC.len()])?;
    }
    let numbers: BTreeSet<usize> = places.iter().map(|(number, _)| *number).collect();
    numbers.iter().try_for_each(|number| segments[*number].file.sync())
}

/// Bytes of keys and values.
fn size(changes: &[Change]) -> u64 {
    let bytes =
        changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, |value| value.len()));
    bytes.sum::<usize>() as u64
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("log-") && path.extension().is_some_and(|ending| ending == "seg")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(first: u64, keys: &[&str]) -> Vec<u8> {
        let mut record = Vec::new();
        begin(&mut record);
        for key in keys {
            let value = Some(key.as_bytes().repeat(3).into());
            encode(&[Change { key: key.as_bytes().into(), value }], &mut record);
        }
        finish(&mut record, first, u32::try_from(keys.len()).unwrap(), first - 1);
        record
    }

    fn revisions(bytes: &[u8], after: u64) -> Vec<u64> {
        read(bytes, after, 0).batches.iter().map(|batch| batch.revision).collect()
    }

    #[test]
    fn every_flipped_bit_loses_one_group_at_most() {
        let groups = [record(1, &["a", "b"]), record(3, &["c"]), record(4, &["d", "e"])];
        let mut bytes = groups.concat();
        bytes.extend_from_slice(&[0; 64]);
        assert_eq!(revisions(&bytes, 0), [1, 2, 3, 4, 5]);
        assert_eq!(revisions(&bytes, 3), [4, 5]);
        let ends = [groups[0].len(), groups[0].len() + groups[1].len(), bytes.len() - 64];
        let left = [vec![3, 4, 5], vec![1, 2, 4, 5], vec![1, 2, 3]];
        for bit in 0..ends[2] * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let group = ends.iter().position(|end| bit / 8 < *end).unwrap();
            assert_eq!(revisions(&damaged, 0), left[group], "bit {bit}");
        }
    }

    #[test]
    fn a_record_cut_short_is_a_torn_end() {
        let whole = record(1, &["a"]);
        let mut bytes = whole.clone();
        bytes.extend_from_slice(&record(2, &["b"])[..40]);
        let contents = read(&bytes, 0, 0);
        assert_eq!((contents.batches.len(), contents.tail), (1, 40));
    }
}
