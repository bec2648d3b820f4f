//! Tokens that were taken back before their end: a set of their ids, from a text file that people edit. Reading it again
//! makes a new set, which takes the old one's place. It must not know tokens.

use std::collections::HashSet;
use std::path::Path;

use crate::file::{FileError, read_public};

/// The longest id of a token, in bytes.
const TOKEN_ID_BYTES_MAX: usize = 128;

/// Why a list of revoked tokens cannot be used. The list before it stays in force, since an empty one would let in
/// whom it shut out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// A line is no id.
    #[error("wanted one token id in line {line} of the revoked tokens, then at most a comment behind `#`")]
    Line {
        /// Its number, from 1 on.
        line: usize,
    },
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The ids (`jti`) of tokens that hold no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations(HashSet<String>);

impl Revocations {
    /// Reads ids, one on each line; what stands behind `#` is a comment.
    ///
    /// # Errors
    /// A line holds something else: a token that somebody meant to revoke would hold on.
    pub fn parse(text: &str) -> Result<Self, RevocationError> {
        let mut ids = HashSet::new();
        for (index, line) in text.lines().enumerate() {
            let id = line.split('#').next().unwrap_or_default().trim();
            if id.is_empty() {
                continue;
            }
            if id.len() > TOKEN_ID_BYTES_MAX || id.contains(|letter: char| !letter.is_ascii_graphic()) {
                return Err(RevocationError::Line { line: index + 1 });
            }
            ids.insert(id.to_owned());
        }
        Ok(Self(ids))
    }

    /// Reads ids from a file. May block on the disk.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it holds no id.
    pub fn read(path: &Path) -> Result<Self, RevocationError> {
        Self::parse(&read_public(path)?)
    }

    /// Says whether a token was revoked.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.0.contains(id)
    }

    /// Returns the ids, in any order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Returns how many tokens were revoked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stand_on_lines_with_comments() {
        let check = |text: &str, expected: Option<&[&str]>| match (Revocations::parse(text), expected) {
            (Ok(found), Some(expected)) => {
                assert_eq!(found.len(), expected.len(), "{text:?}");
                assert!(expected.iter().all(|id| found.contains(id)), "{text:?}");
                assert!(found.ids().all(|id| expected.contains(&id)), "{text:?}");
            }
            (found, expected) => assert_eq!(found.is_err(), expected.is_none(), "{text:?}"),
        };
        check("", Some(&[]));
        check("# nothing yet\n\n", Some(&[]));
        check("abc\n  def  # lost laptop\r\n#ghi\n", Some(&["abc", "def"]));
        check("abc def\n", None);
        check("größe\n", None);
        check(&"x".repeat(129), None);
        assert!(matches!(Revocations::parse("a\n\nb c"), Err(RevocationError::Line { line: 3 })));
    }

    #[test]
    fn a_file_that_is_gone_is_an_error_and_not_an_empty_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked");
        assert!(matches!(Revocations::read(&path), Err(RevocationError::File(_))));
        std::fs::write(&path, "abc\n").unwrap();
        assert!(Revocations::read(&path).unwrap().contains("abc"));
        assert!(Revocations::default().is_empty());
    }
}
