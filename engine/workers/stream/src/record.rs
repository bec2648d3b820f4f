//! What lies in the store: the head of a group, an item, an entry of a log, how far somebody has read, a trigger that was
//! bound. Each begins with its format. Numbers are little-endian. It must not know under which key anything lies.

use std::sync::Arc;

use ringway::TraceContext;
use ringway::protocol::trace::TRACE_CONTEXT_BYTES;
use serde_json::Value;

/// The format of all but entries, the only one that there has been.
const VERSION: u8 = 1;

/// The format of entries. The one before it, which has no trace, is read too.
const ENTRY_VERSION: u8 = 2;

/// Bytes before the JSON of an item.
const ITEM_HEADER: usize = 17;

/// Bytes that are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(
        "it has format {found}, this version reads formats up to {ENTRY_VERSION}: run the version that wrote it"
    )]
    Format { found: u8 },
    #[error("it is no record: {0} bytes; restore a backup")]
    Damaged(usize),
}

/// Reads a record from its beginning.
struct Fields<'a> {
    whole: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of(whole: &'a [u8]) -> Result<Self, Unreadable> {
        match whole.split_first() {
            Some((&VERSION, rest)) => Ok(Self { whole, rest }),
            Some((found, _)) => Err(Unreadable::Format { found: *found }),
            None => Err(Unreadable::Damaged(0)),
        }
    }

    fn damaged(&self) -> Unreadable {
        Unreadable::Damaged(self.whole.len())
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, Unreadable> {
        let bytes = self.bytes(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| self.damaged())?))
    }

    fn trace(&mut self) -> Result<TraceContext, Unreadable> {
        let bytes = self.bytes(TRACE_CONTEXT_BYTES)?;
        Ok(TraceContext::from_bytes(bytes.try_into().map_err(|_| self.damaged())?))
    }

    /// A text behind its length in four bytes, the highest of which says that there is none.
    fn text(&mut self) -> Result<Option<Arc<str>>, Unreadable> {
        let length = self.bytes(4)?;
        let length = u32::from_le_bytes(length.try_into().map_err(|_| self.damaged())?);
        if length == u32::MAX {
            return Ok(None);
        }
        let bytes = self.bytes(length as usize)?;
        std::str::from_utf8(bytes).map(|text| Some(text.into())).map_err(|_| self.damaged())
    }

    fn end(self) -> Result<(), Unreadable> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged()) }
    }
}

fn push_text(out: &mut Vec<u8>, text: Option<&str>) {
    let length = text.map_or(u32::MAX, |text| u32::try_from(text.len()).unwrap_or(u32::MAX - 1));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.unwrap_or_default().as_bytes());
}

fn numbers(of: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + 8 * of.len());
    out.push(VERSION);
    of.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out
}

/// What is known of a group as a whole. Written with every change of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// Another one in every batch, so that two heads are equal only if they are the same.
    pub(crate) mark: u64,
    /// The number of the last entry, 0 if there never was one.
    pub(crate) last: u64,
    /// The number of the oldest entry that is kept; `last + 1` if none is.
    pub(crate) first: u64,
    /// When the last entry was written, in milliseconds since 1970.
    pub(crate) last_ms: u64,
    pub(crate) log_bytes: u64,
    pub(crate) items: u64,
    pub(crate) item_bytes: u64,
}

impl Head {
    /// That of a group whose numbers begin after this one.
    pub(crate) fn new(after: u64) -> Self {
        Self { last: after, first: after + 1, ..Self::default() }
    }

    /// How many entries are kept.
    pub(crate) fn entries(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { mark, last, first, last_ms, log_bytes, items, item_bytes } = *self;
        numbers(&[mark, last, first, last_ms, log_bytes, items, item_bytes])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut fields = Fields::of(bytes)?;
        let mut next = || fields.number();
        let head = Self {
            mark: next()?,
            last: next()?,
            first: next()?,
            last_ms: next()?,
            log_bytes: next()?,
            items: next()?,
            item_bytes: next()?,
        };
        fields.end()?;
        Ok(head)
    }
}

/// An item with the number of the entry that told of it, and its expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    bytes: Arc<[u8]>,
    pub(crate) version: u64,
    pub(crate) expires_at_ms: Option<u64>,
}

impl Item {
    pub(crate) fn new(version: u64, expires_at_ms: Option<u64>, json: &[u8]) -> Self {
        let mut bytes = numbers(&[version, expires_at_ms.unwrap_or(0)]);
        bytes.extend_from_slice(json);
        Self { bytes: bytes.into(), version, expires_at_ms }
    }

    pub(crate) fn read(bytes: Arc<[u8]>) -> Result<Self, Unreadable> {
        let mut fields = Fields::of(&bytes)?;
        let (version, expires) = (fields.number()?, fields.number()?);
        Ok(Self { version, expires_at_ms: (expires > 0).then_some(expires), bytes })
    }

    pub(crate) fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Its JSON text.
    pub(crate) fn json(&self) -> &[u8] {
        &self.bytes[ITEM_HEADER..]
    }

    pub(crate) fn is_live(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|expires| expires > now_ms)
    }

    pub(crate) fn value(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(self.json())
    }
}

/// What an entry tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Create,
    Update,
    Delete,
    /// Sent with `stream::send`.
    Event,
    /// Added with `stream::append`.
    Append,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Create, Self::Update, Self::Delete, Self::Event, Self::Append];

    /// As callers are told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Event => "event",
            Self::Append => "append",
        }
    }
}

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When it was written, in milliseconds since 1970; never less than that of the entry before.
    pub(crate) time_ms: u64,
    pub(crate) kind: Kind,
    /// The item that it is about.
    pub(crate) item: Option<Arc<str>>,
    /// The type of an event that was sent.
    pub(crate) name: Option<Arc<str>>,
    /// JSON text.
    pub(crate) data: Arc<[u8]>,
    /// Where whoever wrote it stands in its trace, so that what triggers do belongs there too; all zeros if nowhere.
    pub(crate) trace: TraceContext,
}

impl Entry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = numbers(&[self.time_ms]);
        out[0] = ENTRY_VERSION;
        out.extend_from_slice(&self.trace.to_bytes());
        out.push(self.kind as u8);
        push_text(&mut out, self.item.as_deref());
        push_text(&mut out, self.name.as_deref());
        out.extend_from_slice(&self.data);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (mut fields, has_trace) = match bytes.split_first() {
            Some((&ENTRY_VERSION, rest)) => (Fields { whole: bytes, rest }, true),
            _ => (Fields::of(bytes)?, false),
        };
        let time_ms = fields.number()?;
        let trace = if has_trace { fields.trace()? } else { TraceContext::default() };
        let kind = fields.bytes(1)?[0];
        let kind =
            Kind::ALL.into_iter().find(|known| *known as u8 == kind).ok_or_else(|| fields.damaged())?;
        let (item, name) = (fields.text()?, fields.text()?);
        Ok(Self { time_ms, kind, item, name, data: fields.rest.into(), trace })
    }
}

/// How far somebody has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Everything up to this number is done.
    pub(crate) done: u64,
    /// When it was written, in milliseconds since 1970.
    pub(crate) time_ms: u64,
}

impl Cursor {
    pub(crate) fn encode(self) -> Vec<u8> {
        numbers(&[self.done, self.time_ms])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut fields = Fields::of(bytes)?;
        let cursor = Self { done: fields.number()?, time_ms: fields.number()? };
        fields.end()?;
        Ok(cursor)
    }
}

/// A trigger that was bound, known by what outlives its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// It is told of what was committed after this revision of the store.
    pub(crate) since: u64,
    /// Since when nobody binds it, in milliseconds since 1970; 0 while somebody does.
    pub(crate) unbound_ms: u64,
    /// The stream and the group that it watches; none for all of them.
    pub(crate) stream: Option<Arc<str>>,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) label: Arc<str>,
}

impl Known {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = numbers(&[self.since, self.unbound_ms]);
        push_text(&mut out, self.stream.as_deref());
        push_text(&mut out, self.group.as_deref());
        push_text(&mut out, Some(&self.label));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut fields = Fields::of(bytes)?;
        let known = Self {
            since: fields.number()?,
            unbound_ms: fields.number()?,
            stream: fields.text()?,
            group: fields.text()?,
            label: fields.text()?.ok_or_else(|| fields.damaged())?,
        };
        fields.end()?;
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let (item, name) = (Some("i".into()), Some("".into()));
        let trace = TraceContext::from_bytes(&[5; TRACE_CONTEXT_BYTES]);
        Entry { time_ms: 7, kind: Kind::Event, item, name, data: (*b"[1]").into(), trace }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let head = Head { mark: 1, last: 2, first: 3, last_ms: 4, log_bytes: 5, items: 6, item_bytes: 7 };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
        for expires in [None, Some(9)] {
            let item = Item::new(3, expires, b"{}");
            let read = Item::read(Arc::clone(item.bytes())).unwrap();
            assert_eq!((read.json(), &read), (&b"{}"[..], &item));
        }
        for kind in Kind::ALL {
            let entry = Entry { kind, item: None, ..entry() };
            assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
        }
        assert_eq!(Entry::decode(&entry().encode()), Ok(entry()));
        let cursor = Cursor { done: 1, time_ms: 2 };
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        let known =
            Known { since: 1, unbound_ms: 2, stream: Some("s".into()), group: None, label: "f {}".into() };
        assert_eq!(Known::decode(&known.encode()), Ok(known));
    }

    #[test]
    fn the_bytes_on_disk_stay_the_same() {
        assert_eq!(
            Cursor { done: 1, time_ms: 0x0102 }.encode(),
            b"\x01\x01\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0"
        );
        assert_eq!(**Item::new(5, None, b"7").bytes(), *b"\x01\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x007");
        let rest = b"\x03\x01\0\0\0i\0\0\0\0[1]";
        let bytes = [b"\x02\x07\0\0\0\0\0\0\0".as_slice(), &[5; TRACE_CONTEXT_BYTES], rest].concat();
        assert_eq!(entry().encode(), bytes);
        // As versions before wrote it.
        let old = [b"\x01\x07\0\0\0\0\0\0\0".as_slice(), rest].concat();
        assert_eq!(Entry::decode(&old), Ok(Entry { trace: TraceContext::default(), ..entry() }));
    }

    #[test]
    fn what_is_no_record_is_told() {
        let bytes = entry().encode();
        for length in 0..bytes.len() - b"[1]".len() {
            assert!(Entry::decode(&bytes[..length]).is_err(), "{length}");
        }
        let mut strange = bytes.clone();
        strange[9 + TRACE_CONTEXT_BYTES] = 9;
        assert!(Entry::decode(&strange).is_err());
        let mut newer = bytes;
        newer[0] = 3;
        assert_eq!(Entry::decode(&newer), Err(Unreadable::Format { found: 3 }));
        assert_eq!(Cursor::decode(&[1; 18]), Err(Unreadable::Damaged(18)));
        assert_eq!(Item::read((*b"\x01\0").into()), Err(Unreadable::Damaged(2)));
    }
}
