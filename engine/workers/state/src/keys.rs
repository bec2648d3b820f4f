//! Scope and key as one key of the store: the scope with each zero byte followed by 255, two zero bytes, the key as it is.
//! So scopes and keys may hold any text, entries of a scope lie together, and both sort by their bytes. Used by whatever
//! reads or writes the store. It must not know what is kept under a key.

use ringway_worker_kit::names;
pub(crate) use ringway_worker_kit::names::behind;

use crate::limits::KEY_BYTES_MAX;

/// A key that cannot be used, in words.
pub(crate) type KeyError = String;

/// What every key of a scope begins with.
pub(crate) fn of_scope(scope: &str) -> Vec<u8> {
    let mut joined = Vec::with_capacity(scope.len() + 2);
    names::push(&mut joined, scope);
    joined
}

/// Joins scope and key.
pub(crate) fn join(scope: &str, key: &str) -> Result<Vec<u8>, KeyError> {
    let mut joined = Vec::with_capacity(scope.len() + key.len() + 2);
    names::push(&mut joined, scope);
    joined.extend_from_slice(key.as_bytes());
    if joined.len() > KEY_BYTES_MAX {
        let found = scope.len() + key.len();
        return Err(format!(
            "scope and key have {found} bytes together, at most {} are taken: use shorter names",
            KEY_BYTES_MAX - 2
        ));
    }
    Ok(joined)
}

/// Takes scope and key apart; `None` if this was not joined here.
pub(crate) fn split(joined: &[u8]) -> Option<(String, &str)> {
    let (scope, key) = names::take(joined)?;
    Some((scope, std::str::from_utf8(key).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_look_like_others_are_kept_apart() {
        let all = [("a", "b"), ("", "ab"), ("ab", ""), ("a\0", "b"), ("a", "\0b"), ("a\0\0", ""), ("", "")];
        for (at, one) in all.iter().enumerate() {
            let joined = join(one.0, one.1).unwrap();
            assert_eq!(split(&joined), Some((one.0.to_owned(), one.1)));
            for other in &all[at + 1..] {
                assert_ne!(joined, join(other.0, other.1).unwrap(), "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn what_was_not_joined_is_not_split() {
        for strange in [&b""[..], b"abc", b"a\0", b"a\0\x01b", b"\xff\0\0k", b"a\0\0\xff"] {
            assert_eq!(split(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn long_names_are_refused() {
        assert!(join(&"s".repeat(1000), &"k".repeat(1000)).is_ok());
        assert!(join("s", &"k".repeat(KEY_BYTES_MAX)).unwrap_err().contains("bytes together"));
    }

    proptest! {
        #[test]
        fn joined_keys_sort_as_scope_and_key(
            a in ("[\0\u{1}ab\u{ff}\u{10ffff}]{0,4}", "[\0\u{1}ab\u{ff}]{0,4}"),
            b in ("[\0\u{1}ab\u{ff}\u{10ffff}]{0,4}", "[\0\u{1}ab\u{ff}]{0,4}"),
        ) {
            let join = |pair: &(String, String)| join(&pair.0, &pair.1).unwrap();
            prop_assert_eq!(join(&a).cmp(&join(&b)), a.cmp(&b));
            let joined = join(&a);
            prop_assert_eq!(split(&joined), Some((a.0.clone(), a.1.as_str())));
            let scope = of_scope(&b.0);
            prop_assert_eq!(joined.starts_with(&scope), a.0 == b.0);
            prop_assert_eq!(joined >= scope && joined < behind(&scope), a.0 == b.0);
        }
    }
}
