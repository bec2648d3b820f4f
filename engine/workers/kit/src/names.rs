//! Names as parts of a key of the store: each zero byte is followed by 255, and two zero bytes end the name. So a name may
//! hold any text, keys that begin with the same names lie together, and keys sort as lists of names do. Also keys by the time
//! when something ends. Used by workers that keep things under several names. It must not know what is named.

/// Adds a name to the end of a key.
pub fn push(key: &mut Vec<u8>, name: &str) {
    for byte in name.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(u8::MAX);
        }
    }
    key.extend_from_slice(&[0, 0]);
}

/// Takes the first name off a key, with what follows; `None` if it does not begin with one.
#[must_use]
pub fn take(key: &[u8]) -> Option<(String, &[u8])> {
    let mut name = Vec::new();
    let mut rest = key;
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        if *byte == 0 {
            let (mark, after) = rest.split_first()?;
            rest = after;
            match *mark {
                0 => break,
                u8::MAX => {}
                _ => return None,
            }
        }
        name.push(*byte);
    }
    Some((String::from_utf8(name).ok()?, rest))
}

/// The first key behind those with this beginning, which always exists for one that ends with a name.
#[must_use]
pub fn behind(prefix: &[u8]) -> Vec<u8> {
    ringway_store::parts::after_prefix(prefix).unwrap_or_default()
}

/// What an entry holds that only marks its key: the format of the mark.
pub const MARK: [u8; 1] = [1];

/// The key under which it is kept that `key` ends at this time (milliseconds since 1970); such keys sort by their times.
#[must_use]
pub fn expiry_key(at_ms: u64, key: &[u8]) -> Vec<u8> {
    [&at_ms.to_be_bytes(), key].concat()
}

/// Takes time and key apart; `None` if that is no such key.
#[must_use]
pub fn split_expiry(joined: &[u8]) -> Option<(u64, &[u8])> {
    let (time, key) = joined.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*time), key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(names: &[&str]) -> Vec<u8> {
        let mut key = Vec::new();
        names.iter().for_each(|name| push(&mut key, name));
        key
    }

    #[test]
    fn names_are_taken_as_they_were_pushed_and_sort_as_lists() {
        let lists: [&[&str]; 7] =
            [&["", ""], &["", "a"], &["a", ""], &["a", "b"], &["a\0", ""], &["a:", "b"], &["ab", ""]];
        for (at, names) in lists.iter().enumerate() {
            let joined = key(names);
            let (first, rest) = take(&joined).unwrap();
            let (second, end) = take(rest).unwrap();
            assert_eq!((first.as_str(), second.as_str(), end), (names[0], names[1], &b""[..]));
            for later in &lists[at + 1..] {
                assert!(joined < key(later), "{names:?} and {later:?}");
            }
        }
        let prefix = key(&["a"]);
        let end = behind(&prefix);
        assert!(key(&["a", "\u{10ffff}"]) < end && key(&["a\0"]) >= end);
    }

    #[test]
    fn what_ends_sorts_by_its_time() {
        let key = expiry_key(256, b"k");
        assert_eq!(split_expiry(&key), Some((256, &b"k"[..])));
        assert!(expiry_key(255, b"z") < key);
        assert_eq!(split_expiry(&key[..7]), None);
    }

    #[test]
    fn what_was_not_pushed_is_not_taken() {
        for strange in [&b""[..], b"abc", b"a\0", b"a\0\x01b", b"\xff\0\0k"] {
            assert_eq!(take(strange), None, "{strange:?}");
        }
    }
}
