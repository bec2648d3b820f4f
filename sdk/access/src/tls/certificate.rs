//! What is known of a certificate: its fingerprint, and the common name of whom it is for. Used for identities of
//! clients and for pins. It must not know whether the certificate is good; that was verified before.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use webpki::EndEntityCert;

use crate::text::{hex, is_name, sha256};

/// What stands before a fingerprint.
const SCHEME: &str = "sha256:";
/// The object identifier of a common name, 2.5.4.3, as DER.
const COMMON_NAME: [u8; 3] = [0x55, 4, 3];

/// A text that is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted a certificate's fingerprint, `sha256:` and 64 hex digits, found `{found}`")]
pub struct ParseFingerprintError {
    found: String,
}

/// The SHA-256 of a certificate, written as `sha256:` and hex digits. Colons between them, as OpenSSL writes them, are
/// read too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateFingerprint([u8; 32]);

impl CertificateFingerprint {
    /// Takes the fingerprint of a certificate in DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(sha256(der))
    }
}

impl fmt::Display for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", hex(&self.0))
    }
}

impl fmt::Debug for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateFingerprint({self})")
    }
}

impl FromStr for CertificateFingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let bytes = || {
            let digits = text.strip_prefix(SCHEME)?.bytes().filter(|byte| *byte != b':');
            let digits: Vec<u8> = digits
                .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
                .collect::<Option<_>>()?;
            if digits.len() != 64 {
                return None;
            }
            let mut bytes = [0; 32];
            for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                *byte = pair[0] << 4 | pair[1];
            }
            Some(Self(bytes))
        };
        bytes().ok_or_else(|| ParseFingerprintError { found: text.chars().take(120).collect() })
    }
}

impl Serialize for CertificateFingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CertificateFingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The certificate of a peer, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCertificate {
    /// The SHA-256 of the whole certificate.
    pub fingerprint: CertificateFingerprint,
    /// Whom it is for, if it says so in a way that can be shown. As good as the authority that signed it.
    pub common_name: Option<String>,
}

impl PeerCertificate {
    /// Reads what is known of a certificate in DER.
    #[must_use]
    pub fn of(der: &CertificateDer<'_>) -> Self {
        let parsed = EndEntityCert::try_from(der).ok();
        let common_name = parsed.and_then(|parsed| common_name(parsed.subject()));
        Self { fingerprint: CertificateFingerprint::of(der), common_name }
    }
}

/// Finds the common name in a subject: a sequence of sets of pairs of an identifier and a text. A subject with two is
/// taken to have none, since readers differ in which of them they believe.
fn common_name(subject: &[u8]) -> Option<String> {
    let mut found = None;
    let mut sets = subject;
    while !sets.is_empty() {
        let (0x31, mut pairs) = element(&mut sets)? else { return None };
        while !pairs.is_empty() {
            let (0x30, mut pair) = element(&mut pairs)? else { return None };
            let (6, identifier) = element(&mut pair)? else { return None };
            let (tag, value) = element(&mut pair)?;
            if identifier != COMMON_NAME {
                continue;
            }
            // UTF8String and PrintableString; what else a text may be, nobody writes any more.
            let text =
                std::str::from_utf8(value).ok().filter(|text| matches!(tag, 0x0c | 0x13) && is_name(text))?;
            if found.replace(text.to_owned()).is_some() {
                return None;
            }
        }
    }
    found
}

/// Takes one DER element off the front: its tag and what is in it.
fn element<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => {
            rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?
        }
        _ => return None,
    };
    let (inner, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some((tag, inner))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, DnValue)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), name.clone());
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_common_name_is_found_among_others() {
        let check = |names: &[(DnType, DnValue)], expected: Option<&str>| {
            let found = PeerCertificate::of(&certificate(names)).common_name;
            assert_eq!(found.as_deref(), expected, "{names:?}");
        };
        let text = |text: &str| DnValue::Utf8String(text.to_owned());
        check(&[(DnType::CommonName, text("edge-7"))], Some("edge-7"));
        check(&[(DnType::OrganizationName, text("o")), (DnType::CommonName, text("größe"))], Some("größe"));
        check(&[(DnType::CommonName, DnValue::PrintableString("edge".try_into().unwrap()))], Some("edge"));
        check(&[(DnType::OrganizationName, text("o"))], None);
        check(&[(DnType::CommonName, text("a\u{1b}[2J"))], None);
        check(&[(DnType::CommonName, text(&"x".repeat(200)))], Some(&"x".repeat(200)));
        check(&[(DnType::CommonName, text(&"x".repeat(300)))], None);
        check(&[], None);
    }

    #[test]
    fn two_common_names_are_none() {
        let one = [0x31, 11, 0x30, 9, 6, 3, 0x55, 4, 3, 0x0c, 2, b'm', b'e'];
        assert_eq!(common_name(&one).as_deref(), Some("me"));
        assert_eq!(common_name(&[one, one].concat()), None);
        assert_eq!(common_name(&one[..12]), None);
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_written() {
        let fingerprint = CertificateFingerprint::of(b"certificate");
        let text = fingerprint.to_string();
        assert_eq!(text.parse(), Ok(fingerprint));
        assert_eq!(text.replace("sha256:", "SHA256:").parse::<CertificateFingerprint>().ok(), None);
        let colons: Vec<_> =
            text.as_bytes()[7..].chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
        assert_eq!(format!("sha256:{}", colons.join(":").to_uppercase()).parse(), Ok(fingerprint));
        for bad in ["", "sha256:", &text[..70], &format!("{text}0"), &text.replace(':', ""), "sha256:é"] {
            assert!(bad.parse::<CertificateFingerprint>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_subject_is_safe(bytes in prop::collection::vec(any::<u8>(), 0..64), small in prop::collection::vec(prop::sample::select(vec![0x31u8, 0x30, 6, 3, 0x55, 4, 0x0c, 2, 0, 0x81, 0x82, 9]), 0..64)) {
            drop(common_name(&bytes));
            drop(common_name(&small));
            drop(PeerCertificate::of(&CertificateDer::from(bytes)));
        }
    }
}
