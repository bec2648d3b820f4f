//! Names on the server: stream, bucket, subjects, and keys as they are written in subjects. A key that is readable stays
//! so: `nats kv get ringway-shop TABLE.KEY`. Used by everything that speaks to the server; it must not know what is kept.
//!
//! A byte that is no letter, digit, `-`, `_` or `/` is written as `=` and two hexadecimal digits; nothing at all as `=`;
//! what would be too long as `==` and a hash. Of a value in several parts the others have `.1`, `.2`, … behind the key.

use ringway_store::parts;

use crate::error::OpenError;
use crate::limits::{NAME_BYTES_MAX, SUBJECT_KEY_BYTES_MAX};

/// The key in the bucket that says who has the store. It has no dot, as every key of ours has.
pub(crate) const OWNER_KEY: &str = "ringway-owner";

/// Names that begin with the one of the store.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) log_stream: String,
    pub(crate) log_subject: String,
    pub(crate) owner_subject: String,
    pub(crate) bucket: String,
    pub(crate) key_prefix: String,
}

impl Names {
    pub(crate) fn of(name: &str) -> Result<Self, OpenError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
            return Err(OpenError::Name { found: name.to_owned(), max: NAME_BYTES_MAX });
        }
        let bucket = format!("ringway-{name}");
        Ok(Self {
            log_stream: format!("ringway-{name}-log"),
            log_subject: format!("ringway.{name}.log"),
            owner_subject: format!("ringway.{name}.owner"),
            key_prefix: format!("$KV.{bucket}."),
            bucket,
        })
    }
}

/// A key as it is written in the bucket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Table, dot, key.
    pub(crate) text: String,
    /// Whether the text does not say the key.
    pub(crate) hashed: bool,
}

/// Writes a key within the whole store.
pub(crate) fn write(joined: &[u8]) -> Written {
    let (table, key) = parts::split(joined).unwrap_or(("", joined));
    let (table, readable) = (escape(table.as_bytes()), escape(key));
    let hashed = readable.len() > SUBJECT_KEY_BYTES_MAX;
    let key = if hashed { format!("=={}", blake3::hash(key).to_hex()) } else { readable };
    Written { text: format!("{table}.{key}"), hashed }
}

/// Reads what [`write`] wrote, with the number of the part; `None` for the key where it is hashed. `None` for what is no
/// key of ours.
pub(crate) fn read(text: &str) -> Option<(Option<Vec<u8>>, usize)> {
    let mut pieces = text.split('.');
    let (table, key) = (unescape(pieces.next()?)?, pieces.next()?);
    let table = String::from_utf8(table).ok()?;
    let part = pieces.next().map_or(Some(0), |number| number.parse().ok())?;
    if pieces.next().is_some() {
        return None;
    }
    if key.starts_with("==") {
        return Some((None, part));
    }
    Some((Some(parts::join(&table, &unescape(key)?)), part))
}

fn escape(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "=".to_owned();
    }
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_/".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("={byte:02X}"));
        }
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    if text == "=" {
        return Some(Vec::new());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'=' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.extend_from_slice(&unhex(std::str::from_utf8(digits).ok()?)?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

/// Bytes as hexadecimal digits, for headers.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_readably_and_read_back() {
        let check = |table: &str, key: &[u8], text: &str| {
            let joined = parts::join(table, key);
            assert_eq!(write(&joined), Written { text: text.to_owned(), hashed: false });
            assert_eq!(read(text), Some((Some(joined.clone()), 0)));
            assert_eq!(read(&format!("{text}.3")), Some((Some(joined), 3)));
        };
        check("state", b"orders/7", "state.orders/7");
        check("t", b"", "t.=");
        check("", b"k", "=.k");
        check("a b", b"x.y*>\xff=", "a=20b.x=2Ey=2A=3E=FF=3D");
        let every: Vec<u8> = (0..=255).collect();
        let joined = parts::join("t", &every[..128]);
        assert_eq!(read(&write(&joined).text), Some((Some(joined), 0)));
        let long = write(&parts::join("t", &[1; 2048]));
        assert!(long.hashed && long.text.len() < 100, "{long:?}");
        assert_eq!(read(&long.text), Some((None, 0)));
    }

    #[test]
    fn what_is_no_key_of_ours_is_not_taken_for_one() {
        for text in ["", OWNER_KEY, "t.=4", "t.=zz", "t.k.x", "t.k.1.2", "=FF.k"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(Names::of("shop-1").unwrap().bucket, "ringway-shop-1");
        for name in ["", "a.b", "a b", "a>", "é", &"x".repeat(65)] {
            assert!(matches!(Names::of(name), Err(OpenError::Name { .. })), "{name}");
        }
    }
}
