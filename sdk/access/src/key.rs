//! Ed25519 keys: what an issuer signs tokens with, and what a holder proves itself with. Used by `token`, `handshake`
//! and `issue`. It must not know what is signed.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::file::{FileError, read_private, write_private};
use crate::text::{NoRandomnessError, base64url, fixed_from_base64url, hex, random, sha256};

/// What stands before a public key that is written as text.
const SCHEME: &str = "ed25519:";
/// PKCS#8 version 1 (RFC 8410) before the 32 bytes of the seed. Version 2, which `ring` writes, other tools read badly.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Why a key could not be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is no private key.
    #[error("wanted an Ed25519 private key as PEM (`BEGIN PRIVATE KEY`), found something else")]
    NotPrivate,
    /// The text is no public key.
    #[error("wanted a public key such as `ed25519:` and 43 letters, found `{found}`")]
    NotPublic {
        /// The text.
        found: String,
    },
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomnessError),
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A public key. Written as `ed25519:` and base64url.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes the key's 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the key's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Says whether the holder of this key signed the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }

    /// Returns a short name of the key: the first half of its SHA-256, as 32 hex digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&sha256(&self.0)[..16])
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", base64url(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = text.strip_prefix(SCHEME).and_then(fixed_from_base64url);
        bytes.map(Self).ok_or_else(|| KeyError::NotPublic { found: text.chars().take(80).collect() })
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A private key. Cheap to clone; shown as its fingerprint only.
#[derive(Clone)]
pub struct IdentityKey {
    pair: Arc<Ed25519KeyPair>,
    pkcs8: Arc<PrivatePkcs8KeyDer<'static>>,
}

impl IdentityKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let seed: [u8; 32] = random()?;
        Self::from_pkcs8([&PKCS8_PREFIX[..], &seed].concat().into())
    }

    fn from_pkcs8(pkcs8: PrivatePkcs8KeyDer<'static>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.secret_pkcs8_der());
        let pair = pair.map_err(|_| KeyError::NotPrivate)?;
        Ok(Self { pair: Arc::new(pair), pkcs8: Arc::new(pkcs8) })
    }

    /// Reads a key from PEM (PKCS#8, version 1 or 2).
    ///
    /// # Errors
    /// The text is no such key. It is not repeated in the error.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotPrivate)?;
        Self::from_pkcs8(pkcs8)
    }

    /// Writes the key as PEM. Whoever reads it is the holder.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let body = STANDARD.encode(self.pkcs8.secret_pkcs8_der());
        let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
        // Base64 has one byte for each letter, so that every place is one to cut at.
        for start in (0..body.len()).step_by(64) {
            text.push_str(&body[start..body.len().min(start + 64)]);
            text.push('\n');
        }
        text + "-----END PRIVATE KEY-----\n"
    }

    /// Reads a key from a file that its owner alone can read. May block on the disk.
    ///
    /// # Errors
    /// The file is open to others, cannot be read, or holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&read_private(path)?)
    }

    /// Writes the key to a new file that its owner alone can read. May block on the disk.
    ///
    /// # Errors
    /// There is such a file already, or the system refuses.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        Ok(write_private(path, &self.to_pem())?)
    }

    /// Returns the public half.
    ///
    /// # Panics
    /// Never: an Ed25519 public key has 32 bytes.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.public().fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 8410, section 10.3, with the public key that stands in 10.1.
    const RFC_8410: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";

    #[test]
    fn the_example_of_the_standard_is_read_and_written() {
        let key = IdentityKey::from_pem(RFC_8410).unwrap();
        assert_eq!(key.to_pem(), RFC_8410);
        assert_eq!(key.public().to_string(), "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE");
        assert_eq!(key.public().fingerprint().len(), 32);
    }

    #[test]
    fn a_key_survives_its_file_and_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = IdentityKey::generate().unwrap();
        key.write(&path).unwrap();
        let read = IdentityKey::read(&path).unwrap();
        assert_eq!(read.public(), key.public());
        assert!(key.public().verifies(b"text", &read.sign(b"text")));
        assert!(!key.public().verifies(b"other", &read.sign(b"text")));
        assert!(!key.public().verifies(b"text", b"short"));
        let text = serde_json::to_string(&key.public()).unwrap();
        assert_eq!(serde_json::from_str::<PublicKey>(&text).unwrap(), key.public());
    }

    #[test]
    fn what_is_no_key_is_refused_and_no_secret_is_shown() {
        let key = IdentityKey::generate().unwrap();
        assert!(!format!("{key:?}").contains("PRIVATE"));
        for bad in ["", "text", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(matches!(IdentityKey::from_pem(bad), Err(KeyError::NotPrivate)), "{bad}");
        }
        for bad in ["", "ed25519:", "ed25519:AA", "rsa:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(matches!(bad.parse::<PublicKey>(), Err(KeyError::NotPublic { .. })), "{bad}");
        }
    }
}
