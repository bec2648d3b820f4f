//! The name of a blob: the BLAKE3 hash of its bytes, as 64 hexadecimal digits. Used wherever one is named; it must not know
//! where blobs lie.

use std::fmt;
use std::str::FromStr;

/// The hash of a blob's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId([u8; 32]);

/// A text that names no blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wanted the id of a blob, 64 digits from 0 to f, found `{found}`")]
pub struct ParseBlobIdError {
    /// The text.
    pub found: String,
}

impl BlobId {
    /// The id of these bytes. About a gigabyte in a second.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        blake3::hash(bytes).into()
    }

    /// The hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn read(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }
}

impl From<blake3::Hash> for BlobId {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobId {
    type Err = ParseBlobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseBlobIdError { found: text.chars().take(80).collect() };
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(wrong()),
        };
        if text.len() != 64 {
            return Err(wrong());
        }
        let mut id = [0; 32];
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(digits[0])? << 4 | digit(digits[1])?;
        }
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hashes_and_survive_text() {
        // The hash of nothing, from the specification's test vectors.
        let none = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(BlobId::of(b"").to_string(), none);
        assert_eq!(none.parse(), Ok(BlobId::of(b"")));
        let check = |text: &str| assert!(text.parse::<BlobId>().is_err(), "{text}");
        check("");
        check(&none[1..]);
        check(&none.to_uppercase());
        check(&format!("g{}", &none[1..]));
    }
}
