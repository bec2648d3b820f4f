//! What our messages say in their headers: those of the log, and those of the bucket. Used by whoever writes or reads them;
//! it must not know how they travel.

use async_nats::HeaderMap;

use crate::names;

/// `OWNER NUMBER PART PARTS` of a message of the log.
const LOG: &str = "Ringway-Log";

/// Who claims the store, in words; in the first message of each owner.
const HOLDER: &str = "Ringway-Holder";

/// `REVISION SEAL PART PARTS` of an entry of the bucket.
const ENTRY: &str = "Ringway-Entry";

/// The whole key, in hexadecimal digits, where the subject has its hash only.
const KEY: &str = "Ringway-Key";

/// NATS's own: what was done to a key, and for how many seconds a message stays.
const OPERATION: &str = "KV-Operation";
const TIME_TO_LIVE: &str = "Nats-TTL";

/// Where a message of the log belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogMark {
    /// Whose it is.
    pub(crate) owner: String,
    /// The record's number, which each owner counts from 0; 0 is the claim.
    pub(crate) number: u64,
    pub(crate) part: usize,
    pub(crate) parts: usize,
}

impl LogMark {
    pub(crate) fn write(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(LOG, format!("{} {} {} {}", self.owner, self.number, self.part, self.parts));
        headers
    }

    pub(crate) fn read(headers: Option<&HeaderMap>) -> Option<Self> {
        let mut words = headers?.get(LOG)?.as_str().split(' ');
        let owner = words.next()?.to_owned();
        let number = words.next()?.parse().ok()?;
        Some(Self { owner, number, part: words.next()?.parse().ok()?, parts: words.next()?.parse().ok()? })
    }
}

/// The headers of a claim.
pub(crate) fn claim(mark: &LogMark, holder: &str) -> HeaderMap {
    let mut headers = mark.write();
    headers.insert(HOLDER, holder);
    headers
}

/// Who claims the store in a message, in words; `None` if it is no claim.
pub(crate) fn claimant(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(HOLDER)?.as_str().to_owned())
}

/// What an entry of the bucket says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryMark {
    pub(crate) revision: u64,
    /// Over key, revision and the whole value.
    pub(crate) seal: u64,
    pub(crate) part: usize,
    pub(crate) parts: usize,
}

impl EntryMark {
    pub(crate) fn write(self, hashed: Option<&[u8]>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Self { revision, seal, part, parts } = self;
        headers.insert(ENTRY, format!("{revision} {seal:016x} {part} {parts}"));
        if let Some(key) = hashed {
            headers.insert(KEY, names::hex(key));
        }
        headers
    }

    pub(crate) fn read(headers: Option<&HeaderMap>) -> Option<Self> {
        let mut words = headers?.get(ENTRY)?.as_str().split(' ');
        let revision = words.next()?.parse().ok()?;
        let seal = u64::from_str_radix(words.next()?, 16).ok()?;
        Some(Self { revision, seal, part: words.next()?.parse().ok()?, parts: words.next()?.parse().ok()? })
    }
}

/// The key of an entry whose subject has its hash only.
pub(crate) fn hashed_key(headers: Option<&HeaderMap>) -> Option<Vec<u8>> {
    names::unhex(headers?.get(KEY)?.as_str())
}

/// The headers that say that a key was removed, and go away by themselves.
pub(crate) fn removed() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(OPERATION, "DEL");
    headers.insert(TIME_TO_LIVE, crate::limits::REMOVED_FOR.as_secs().to_string());
    headers
}

/// Whether a message of a bucket says that its key was removed.
pub(crate) fn is_removed(headers: Option<&HeaderMap>) -> bool {
    headers.and_then(|headers| headers.get(OPERATION)).is_some_and(|value| value.as_str() != "PUT")
        || headers.is_some_and(|headers| headers.get("Nats-Marker-Reason").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_were_written() {
        let log = LogMark { owner: "a1".to_owned(), number: 7, part: 2, parts: 3 };
        assert_eq!(LogMark::read(Some(&log.write())), Some(log.clone()));
        assert_eq!(LogMark::read(Some(&claim(&log, "me"))), Some(log));
        let entry = EntryMark { revision: u64::MAX, seal: 1, part: 0, parts: 1 };
        let headers = entry.write(Some(b"\x00k"));
        assert_eq!(EntryMark::read(Some(&headers)), Some(entry));
        assert_eq!(hashed_key(Some(&headers)), Some(b"\x00k".to_vec()));
        assert!(is_removed(Some(&removed())) && !is_removed(Some(&headers)) && !is_removed(None));
        let mut odd = HeaderMap::new();
        odd.insert(LOG, "a 1 x 2");
        odd.insert(ENTRY, "1 2");
        assert_eq!((LogMark::read(Some(&odd)), EntryMark::read(Some(&odd))), (None, None));
    }
}
