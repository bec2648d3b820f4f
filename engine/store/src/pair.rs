//! The two files of the index as one: opened so that damage to one is mended from the other, written one after the other,
//! read from the first and, where that fails, from the second. Used by `embedded` and `view`; it must not know the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::embedded::Options;
use crate::error::OpenError;
use crate::files::{self, Files};
use crate::index::{Edge, Facts, Index, Read, Reader, Refusal};
use crate::memory::Version;
use crate::metrics::Counters;
use crate::report::Damage;
use crate::store::Value;

/// Entries that are compared at once.
const CHUNK: usize = 256;

/// Both files.
#[derive(Debug)]
pub(crate) struct Pair {
    indexes: [Index; 2],
    pub(crate) paths: [PathBuf; 2],
}

/// Renames a file that cannot be trusted, so that a person can look at it.
pub(crate) fn set_aside(files: &dyn Files, folder: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut aside = folder.join(format!("{name}.damaged-{}-{:09}", now.as_secs(), now.subsec_nanos()));
    while aside.exists() {
        aside.as_mut_os_string().push("x");
    }
    files.rename(path, &aside)?;
    files.sync_folder(folder)?;
    Ok(aside)
}

/// What a file was found to be.
enum State {
    Whole(Index, Facts),
    Missing,
    Damaged(String),
}

fn look(
    files: &dyn Files,
    folder: &Path,
    path: &Path,
    options: &Options,
    check: bool,
) -> Result<State, OpenError> {
    let io = |source| OpenError::io(folder, path, source);
    if !path.exists() {
        return Ok(State::Missing);
    }
    let file = files.open(path, false).map_err(io)?;
    if file.is_empty().map_err(io)? {
        return Ok(State::Damaged("it is empty".to_owned()));
    }
    let index = match Index::open(file, options.cache_bytes, check) {
        Ok(index) => index,
        Err(Refusal::Disk(source)) => return Err(io(source)),
        Err(Refusal::Damaged(reason)) => return Ok(State::Damaged(reason)),
    };
    match index.facts() {
        Ok(Some(facts)) => Ok(State::Whole(index, facts)),
        Ok(None) => Ok(State::Damaged("it lacks the facts that every index begins with".to_owned())),
        Err(Refusal::Disk(source)) => Err(io(source)),
        Err(Refusal::Damaged(reason)) => Ok(State::Damaged(reason)),
    }
}

impl Pair {
    /// Makes both files where there is no store yet.
    pub(crate) fn create(
        files: &dyn Files,
        folder: &Path,
        options: &Options,
        facts: Facts,
    ) -> Result<Self, OpenError> {
        let paths = paths(folder);
        let make = |path: &PathBuf| {
            // What a crash left before the store was whole.
            if path.exists() {
                files.remove(path).map_err(|source| OpenError::io(folder, path, source))?;
            }
            let io = |source| OpenError::io(folder, path, source);
            let refused = |refusal| match refusal {
                Refusal::Disk(source) => io(source),
                Refusal::Damaged(reason) => OpenError::Index { path: path.clone(), reason },
            };
            let file = files.open(path, true).map_err(io)?;
            let index = Index::open(file, options.cache_bytes, false).map_err(refused)?;
            index.apply(&mut std::iter::empty(), facts).map_err(refused)?;
            Ok::<Index, OpenError>(index)
        };
        let indexes = [make(&paths[0])?, make(&paths[1])?];
        files.sync_folder(folder).map_err(|source| OpenError::io(folder, folder, source))?;
        Ok(Self { indexes, paths })
    }

    /// Opens both files, and says up to which revision both have everything. `None` if both had to be set aside.
    pub(crate) fn open(
        files: &dyn Files,
        folder: &Path,
        options: &Options,
        check: bool,
        damage: &mut Vec<Damage>,
    ) -> Result<Option<(Self, [Facts; 2])>, OpenError> {
        let paths = paths(folder);
        let states = [
            look(files, folder, &paths[0], options, check)?,
            look(files, folder, &paths[1], options, check)?,
        ];
        let whole = |state: &State| matches!(state, State::Whole(..));
        let twin = [whole(&states[1]), whole(&states[0])];
        let mut found = Vec::new();
        for ((state, path), twin) in states.into_iter().zip(&paths).zip(twin) {
            let io = |source| OpenError::io(folder, path, source);
            match state {
                State::Whole(index, facts) => found.push(Some((index, facts))),
                State::Missing => {
                    damage.push(Damage::FileMissing { path: path.clone() });
                    found.push(None);
                }
                State::Damaged(reason) => {
                    let set_aside = set_aside(files, folder, path).map_err(io)?;
                    damage.push(if twin {
                        Damage::FileReplaced { set_aside, reason }
                    } else {
                        Damage::FileLost { set_aside, reason }
                    });
                    found.push(None);
                }
            }
        }
        let (second, first) = (found.pop().flatten(), found.pop().flatten());
        let (first, second) = match (first, second) {
            (None, None) => return Ok(None),
            (Some(first), Some(second)) => (first, second),
            (Some(first), None) => {
                let pair = replace(files, folder, options, first, [&paths[0], &paths[1]])?;
                (pair.0, pair.1)
            }
            (None, Some(second)) => {
                let pair = replace(files, folder, options, second, [&paths[1], &paths[0]])?;
                (pair.1, pair.0)
            }
        };
        let facts = [first.1, second.1];
        Ok(Some((Self { indexes: [first.0, second.0], paths }, facts)))
    }

    /// Writes versions to both files. Until both have them, the log keeps them.
    pub(crate) fn apply(
        &self,
        mut versions: impl FnMut() -> Box<dyn Iterator<Item = Version>>,
        facts: Facts,
    ) -> Result<(), String> {
        for (index, path) in self.indexes.iter().zip(&self.paths) {
            index.apply(&mut *versions(), facts).map_err(|reason| format!("{}: {reason}", path.display()))?;
        }
        Ok(())
    }

    /// Views of both files as they are now.
    pub(crate) fn readers(&self, counters: Arc<Counters>) -> Result<Readers, String> {
        let reader = |index: &Index| index.reader().map_err(|refusal| refusal.to_string());
        Ok(Readers { readers: [reader(&self.indexes[0])?, reader(&self.indexes[1])?], counters })
    }
}

fn paths(folder: &Path) -> [PathBuf; 2] {
    [folder.join("index-1.redb"), folder.join("index-2.redb")]
}

type Opened = (Index, Facts);

/// Copies the whole file over its twin and opens both again.
fn replace(
    files: &dyn Files,
    folder: &Path,
    options: &Options,
    whole: Opened,
    [from, to]: [&PathBuf; 2],
) -> Result<(Opened, Opened), OpenError> {
    drop(whole);
    files::copy(files, folder, from, to).map_err(|source| OpenError::io(folder, to, source))?;
    let again = |path: &PathBuf| match look(files, folder, path, options, false)? {
        State::Whole(index, facts) => Ok((index, facts)),
        State::Missing => Err(OpenError::Index { path: path.clone(), reason: "it is gone".to_owned() }),
        State::Damaged(reason) => Err(OpenError::Index { path: path.clone(), reason }),
    };
    Ok((again(from)?, again(to)?))
}

/// Views of both files as of one checkpoint.
#[derive(Debug)]
pub(crate) struct Readers {
    readers: [Reader; 2],
    counters: Arc<Counters>,
}

/// Where reading ended, and why.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) key: Vec<u8>,
    pub(crate) reason: String,
    /// The disk refused to give one of the copies, which may be whole.
    pub(crate) by_disk: bool,
}

impl Broken {
    fn new(key: Vec<u8>, refusals: [&Refusal; 2]) -> Self {
        let [first, second] = refusals;
        let by_disk = refusals.iter().any(|refusal| matches!(refusal, Refusal::Disk(_)));
        Self { key, reason: format!("{first}; and in the second copy: {second}"), by_disk }
    }
}

impl Readers {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>, Broken> {
        self.readers[0].get(key).or_else(|first| {
            Counters::add(&self.counters.second_copy_reads, 1);
            self.readers[1].get(key).map_err(|second| Broken::new(key.to_vec(), [&first, &second]))
        })
    }

    /// A chunk of entries. An entry that is damaged in the first file is taken from the second.
    pub(crate) fn chunk(
        &self,
        from: Edge<'_>,
        to: Edge<'_>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Value)>, Broken> {
        let whole = |entries: Vec<Read>| {
            let read = entries.into_iter().map(|(key, value)| value.map(|value| (key, value)));
            read.collect::<Result<Vec<_>, _>>().map_err(Refusal::Damaged)
        };
        let first = self.readers[0].entries(from, to, reverse, limit).and_then(whole);
        first.or_else(|first| {
            Counters::add(&self.counters.second_copy_reads, 1);
            let second = self.readers[1].entries(from, to, reverse, limit).map_err(|second| {
                let key = match if reverse { to } else { from } {
                    std::ops::Bound::Included(key) | std::ops::Bound::Excluded(key) => key.to_vec(),
                    std::ops::Bound::Unbounded => Vec::new(),
                };
                Broken::new(key, [&first, &second])
            })?;
            // Each entry for itself: the two files may be damaged in different places.
            let mut entries = Vec::new();
            for (key, value) in second {
                let value = match value {
                    Ok(value) => value,
                    Err(reason) => {
                        let second = Refusal::Damaged(reason);
                        match self.readers[0].get(&key) {
                            Ok(Some(value)) => value,
                            Ok(None) => return Err(Broken::new(key, [&first, &second])),
                            Err(first) => return Err(Broken::new(key, [&first, &second])),
                        }
                    }
                };
                entries.push((key, value));
            }
            Ok(entries)
        })
    }

    /// Compares the two files entry by entry. After a crash one may be ahead of the other, in keys that the log has too;
    /// `pending` names those.
    pub(crate) fn verify(
        &self,
        paths: &[PathBuf; 2],
        pending: &dyn Fn(&[u8]) -> bool,
        damage: &mut Vec<Damage>,
    ) {
        use std::collections::BTreeMap;
        use std::ops::Bound;
        let mut from: Bound<Vec<u8>> = Bound::Unbounded;
        let mut broken = [false, false];
        loop {
            let edge = from.as_ref().map(Vec::as_slice);
            let mut chunks: [Vec<Read>; 2] = [Vec::new(), Vec::new()];
            for side in 0..2 {
                if broken[side] {
                    continue;
                }
                match self.readers[side].entries(edge, Bound::Unbounded, false, CHUNK) {
                    Ok(chunk) => chunks[side] = chunk,
                    Err(refusal) => {
                        broken[side] = true;
                        let reason = refusal.to_string();
                        damage.push(Damage::Unreadable { path: paths[side].clone(), reason });
                    }
                }
            }
            // Up to the nearer of the two ends both have been read.
            let ends = [0, 1].map(|side| {
                let full = chunks[side].len() == CHUNK;
                chunks[side].last().filter(|_| full).map(|(key, _)| key.clone())
            });
            let end = match ends {
                [Some(first), Some(second)] => Some(first.min(second)),
                [first, second] => first.or(second),
            };
            let mut merged: BTreeMap<Vec<u8>, [Option<Result<Value, String>>; 2]> = BTreeMap::new();
            for (side, chunk) in chunks.into_iter().enumerate() {
                for (key, value) in chunk {
                    if end.as_ref().is_none_or(|end| key <= *end) {
                        merged.entry(key).or_default()[side] = Some(value);
                    }
                }
            }
            for (key, sides) in merged {
                let reason = match &sides {
                    [Some(Err(reason)), _] | [_, Some(Err(reason))] => reason.clone(),
                    [Some(Ok(first)), Some(Ok(second))] if first == second => continue,
                    [Some(_), Some(_)] if pending(&key) => continue,
                    [Some(_), Some(_)] => "the two copies differ".to_owned(),
                    _ if broken[0] || broken[1] || pending(&key) => continue,
                    _ => "one copy lacks it".to_owned(),
                };
                let (table, key) = crate::keys::split(&key).unwrap_or(("", &key));
                damage.push(Damage::Entry { table: table.to_owned(), key: key.to_vec(), reason });
            }
            match end {
                Some(end) => from = Bound::Excluded(end),
                None => break,
            }
        }
    }
}
