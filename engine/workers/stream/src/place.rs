//! Where things are: a group of a stream, and the keys under which the store has its items, its log, who reads it. The names
//! of stream and group stand before everything else, as the kit writes names, so that they may hold any text. Used by
//! whatever reads or writes the store. It must not know what is kept there.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ringway_worker_kit::names;

use crate::limits::KEY_BYTES_MAX;

/// A name that cannot be used, in words.
pub(crate) type NameError = String;

/// A group of a stream. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) stream: Arc<str>,
    pub(crate) group: Arc<str>,
    /// Both names, and what every key of the group begins with.
    pub(crate) key: Arc<[u8]>,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key.hash(hasher);
    }
}

/// What every key of a stream begins with.
pub(crate) fn of_stream(stream: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(stream.len() + 2);
    names::push(&mut key, stream);
    key
}

impl Place {
    /// Names a group.
    pub(crate) fn new(stream: &str, group: &str) -> Result<Self, NameError> {
        let mut key = of_stream(stream);
        names::push(&mut key, group);
        if key.len() > KEY_BYTES_MAX {
            return Err(too_long("stream and group", stream.len() + group.len()));
        }
        Ok(Self { stream: stream.into(), group: group.into(), key: key.into() })
    }

    /// Reads what a key begins with, and gives the rest; `None` if that is no group.
    pub(crate) fn take(key: &[u8]) -> Option<(Self, &[u8])> {
        let (stream, rest) = names::take(key)?;
        let (group, rest) = names::take(rest)?;
        let own = key[..key.len() - rest.len()].into();
        Some((Self { stream: stream.into(), group: group.into(), key: own }, rest))
    }

    /// The key of an item.
    pub(crate) fn item(&self, item: &str) -> Result<Vec<u8>, NameError> {
        let key = [&self.key, item.as_bytes()].concat();
        if key.len() > KEY_BYTES_MAX {
            let found = self.stream.len() + self.group.len() + item.len();
            return Err(too_long("stream, group and item", found));
        }
        Ok(key)
    }

    /// The key of an entry of the log.
    pub(crate) fn entry(&self, sequence: u64) -> Vec<u8> {
        [&*self.key, &sequence.to_be_bytes()].concat()
    }

    /// The key of a reader of the log.
    pub(crate) fn reader(&self, reader: &Reader) -> Result<Vec<u8>, NameError> {
        let key = match reader {
            Reader::Trigger(number) => [&*self.key, b"t", &number.to_be_bytes()].concat(),
            Reader::Consumer(name) => [&*self.key, b"c", name.as_bytes()].concat(),
        };
        if key.len() > KEY_BYTES_MAX {
            return Err(too_long("stream, group and consumer", key.len()));
        }
        Ok(key)
    }
}

/// Who reads a log, and how far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    /// A trigger, by the number that its label has.
    Trigger(u64),
    /// A consumer, by its name.
    Consumer(Arc<str>),
}

impl Reader {
    /// Reads what follows the place in a key.
    pub(crate) fn read(rest: &[u8]) -> Option<Self> {
        match rest.split_first()? {
            (b't', number) => Some(Self::Trigger(u64::from_be_bytes(number.try_into().ok()?))),
            (b'c', name) => Some(Self::Consumer(std::str::from_utf8(name).ok()?.into())),
            _ => None,
        }
    }
}

fn too_long(what: &str, found: usize) -> NameError {
    format!("{what} have {found} bytes together, at most about {KEY_BYTES_MAX} are taken: use shorter names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_others_are_kept_apart() {
        let all = [("a", "b", "c"), ("a:b", "", "c"), ("a", "b:c", ""), ("", "", "abc"), ("a\0", "b", "")];
        let keys = all.map(|(stream, group, item)| Place::new(stream, group).unwrap().item(item).unwrap());
        for (at, (names, key)) in all.iter().zip(&keys).enumerate() {
            let (place, item) = Place::take(key).unwrap();
            assert_eq!((&*place.stream, &*place.group, item), (names.0, names.1, names.2.as_bytes()));
            assert!(!keys[..at].contains(key));
        }
        assert!(Place::take(b"abc").is_none() && Place::take(b"a\0\0b").is_none());
    }

    #[test]
    fn readers_are_read_as_they_were_written() {
        let place = Place::new("s", "g").unwrap();
        for reader in [Reader::Trigger(7), Reader::Consumer("t\0".into()), Reader::Consumer("".into())] {
            let key = place.reader(&reader).unwrap();
            let (of, rest) = Place::take(&key).unwrap();
            assert_eq!((of, Reader::read(rest)), (place.clone(), Some(reader)));
        }
        assert_eq!((Reader::read(b""), Reader::read(b"x"), Reader::read(b"t1")), (None, None, None));
    }

    #[test]
    fn long_names_are_refused() {
        assert!(Place::new(&"s".repeat(KEY_BYTES_MAX), "").unwrap_err().contains("shorter"));
        let place = Place::new("s", "g").unwrap();
        assert!(place.item(&"i".repeat(KEY_BYTES_MAX)).is_err());
        assert!(place.reader(&Reader::Consumer("c".repeat(KEY_BYTES_MAX).into())).is_err());
    }
}
