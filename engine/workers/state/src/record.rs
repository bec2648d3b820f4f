//! A value as it is kept: a version byte, flags, the time of its expiry if it has one, its bytes. Made by whoever writes,
//! read by all; both sides of a change keep records, so that nothing is encoded twice. It must not know its key.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The format that this version writes, and the only one that it reads.
const VERSION: u8 = 1;
const BYTES: u8 = 1;
const EXPIRES: u8 = 2;

/// What kind of value a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON text.
    Json,
    /// Raw bytes.
    Bytes,
}

/// A value with its expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    bytes: Arc<[u8]>,
    form: Form,
    expires_at_ms: Option<u64>,
}

/// Bytes that are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it has format {found}, this version reads format {VERSION}: run the version that wrote it")]
    Format { found: u8 },
    #[error("it is no record: {0} bytes; restore a backup; other keys are not affected")]
    Damaged(usize),
}

impl Record {
    pub(crate) fn new(form: Form, payload: &[u8], expires_at_ms: Option<u64>) -> Self {
        let mut bytes = Vec::with_capacity(payload.len() + 10);
        let flags = if form == Form::Bytes { BYTES } else { 0 };
        bytes.extend_from_slice(&[VERSION, flags | expires_at_ms.map_or(0, |_| EXPIRES)]);
        if let Some(expires_at_ms) = expires_at_ms {
            bytes.extend_from_slice(&expires_at_ms.to_le_bytes());
        }
        bytes.extend_from_slice(payload);
        Self { bytes: bytes.into(), form, expires_at_ms }
    }

    /// Reads what is kept. Costs nothing but a look at the first bytes.
    pub(crate) fn read(bytes: Arc<[u8]>) -> Result<Self, Unreadable> {
        let damaged = || Unreadable::Damaged(bytes.len());
        let version = *bytes.first().ok_or_else(damaged)?;
        if version != VERSION {
            return Err(Unreadable::Format { found: version });
        }
        let flags = *bytes.get(1).ok_or_else(damaged)?;
        if flags & !(BYTES | EXPIRES) != 0 {
            return Err(damaged());
        }
        let expires_at_ms = if flags & EXPIRES == 0 {
            None
        } else {
            let time = bytes.get(2..10).and_then(|time| time.try_into().ok()).ok_or_else(damaged)?;
            Some(u64::from_le_bytes(time))
        };
        let form = if flags & BYTES == 0 { Form::Json } else { Form::Bytes };
        Ok(Self { bytes, form, expires_at_ms })
    }

    pub(crate) fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at_ms
    }

    pub(crate) fn is_live(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|expires| expires > now_ms)
    }

    pub(crate) fn payload(&self) -> &[u8] {
        let header = if self.expires_at_ms.is_some() { 10 } else { 2 };
        &self.bytes[header..]
    }

    /// Writes JSON text: the value's own, or `{"$bytes": "…"}` in base64.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Json => out.extend_from_slice(self.payload()),
            Form::Bytes => {
                out.extend_from_slice(b"{\"$bytes\":\"");
                out.extend_from_slice(STANDARD.encode(self.payload()).as_bytes());
                out.extend_from_slice(b"\"}");
            }
        }
    }

    /// The value as JSON.
    pub(crate) fn value(&self) -> Result<Value, serde_json::Error> {
        match self.form {
            Form::Json => serde_json::from_slice(self.payload()),
            Form::Bytes => Ok(json!({ "$bytes": STANDARD.encode(self.payload()) })),
        }
    }
}

/// Writes a record as JSON text, or null.
pub(crate) fn write_json(record: Option<&Record>, out: &mut Vec<u8>) {
    match record {
        Some(record) => record.write_json(out),
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_made() {
        for form in [Form::Json, Form::Bytes] {
            for expires in [None, Some(0), Some(u64::MAX)] {
                for payload in [&b""[..], b"[1]", &[0; 300]] {
                    let record = Record::new(form, payload, expires);
                    let read = Record::read(Arc::clone(record.bytes())).unwrap();
                    assert_eq!(read, record);
                    assert_eq!((read.form(), read.expires_at_ms(), read.payload()), (form, expires, payload));
                }
            }
        }
    }

    #[test]
    fn the_bytes_on_disk_stay_the_same() {
        assert_eq!(**Record::new(Form::Json, b"7", None).bytes(), *b"\x01\x007");
        assert_eq!(
            **Record::new(Form::Bytes, b"x", Some(0x0102)).bytes(),
            *b"\x01\x03\x02\x01\x00\x00\x00\x00\x00\x00x"
        );
    }

    #[test]
    fn what_is_no_record_is_told() {
        let read = |bytes: &[u8]| Record::read(bytes.into()).unwrap_err();
        assert_eq!(read(b""), Unreadable::Damaged(0));
        assert_eq!(read(b"\x01"), Unreadable::Damaged(1));
        assert_eq!(read(b"\x02\x00{}"), Unreadable::Format { found: 2 });
        assert_eq!(read(b"\x01\x04{}"), Unreadable::Damaged(4));
        assert_eq!(read(b"\x01\x02\x00"), Unreadable::Damaged(3));
    }

    #[test]
    fn an_expiry_is_the_first_moment_without_the_value() {
        let record = Record::new(Form::Json, b"1", Some(100));
        assert!(record.is_live(99));
        assert!(!record.is_live(100));
    }

    #[test]
    fn bytes_are_shown_as_base64() {
        let mut text = Vec::new();
        Record::new(Form::Bytes, &[0, 255], None).write_json(&mut text);
        assert_eq!(text, br#"{"$bytes":"AP8="}"#);
    }
}
