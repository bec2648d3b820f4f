//! What a client is given to use a link: one TOML file with the token, the private key that proves it, and what TLS wants.
//! `ringway link new` writes it, whoever dials reads it. It must not know what the token says.
//!
//! ```toml
//! version = 1
//! address = "ringway://engine.example.org:49135"
//! token = "…"
//! key = """PEM"""
//!
//! [tls]
//! server_name = "engine.example.org"    # if it is not the host in the address
//! ca = """PEM"""                        # or: pin = "sha256:…"
//! certificate = """PEM"""               # the client's own, with its key, if the server asks for one
//! certificate_key = """PEM"""
//! ```

use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::address::LinkAddress;
use crate::file::{FileError, read_private};
use crate::key::{IdentityKey, KeyError};
use crate::tls::{CertificateFingerprint, ClientTls, ServerTrust, TlsError};

/// The version of the file. It rises when a field changes meaning.
const VERSION: u32 = 1;

/// Why a credentials file cannot be used. Nothing of what it holds is repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// It is no TOML, or has other fields.
    #[error("cannot read the credentials: {problem}, in line {line}")]
    Format {
        /// What is wrong.
        problem: String,
        /// Where, from 1 on.
        line: usize,
    },
    /// It was written for another release.
    #[error(
        "wanted credentials of version {VERSION}, found version {found}; make new ones, or use the release they were made by"
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// Of two fields that belong together one is missing, or of two that exclude each other both are there.
    #[error("wanted {wanted} in the credentials")]
    Fields {
        /// What was wanted.
        wanted: &'static str,
    },
    /// The key is none.
    #[error("cannot use the key of the credentials: {0}")]
    Key(#[from] KeyError),
    /// A certificate is none, or does not go with its key.
    #[error("cannot use the TLS part of the credentials: {0}")]
    Tls(#[from] TlsError),
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What a client shows, and by what it knows its server. The default is nothing at all: good for a server on this host
/// that lets anybody in.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Credentials {
    /// Where the link leads; none: it is said elsewhere.
    pub address: Option<LinkAddress>,
    /// The token.
    pub token: Option<String>,
    /// The key of the token's holder.
    pub key: Option<IdentityKey>,
    /// TLS; none: the link is not encrypted, which is allowed on loopback alone.
    pub tls: Option<ClientTls>,
    /// Whether there is a certificate for the client in `tls`.
    has_certificate: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("address", &self.address)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("key", &self.key)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Sets a token and its holder's key.
    #[must_use]
    pub fn with_token(mut self, token: &str, key: IdentityKey) -> Self {
        self.token = Some(token.to_owned());
        self.key = Some(key);
        self
    }

    /// Says whether there is anything that proves who this is: what [`check_exposure`](crate::doorkeeper::check_exposure)
    /// wants to know.
    #[must_use]
    pub const fn has_authentication(&self) -> bool {
        self.token.is_some() || self.has_certificate
    }

    /// Reads a credentials file, which its owner alone may be able to read. May block on the disk.
    ///
    /// # Errors
    /// The file is open to others or cannot be read, or as [`Credentials::parse`].
    pub fn from_file(path: &Path) -> Result<Self, CredentialsError> {
        Self::parse(&read_private(path)?)
    }

    /// Reads the text of a credentials file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let written: Written = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
            // Shown whole, the error would show the line, and there may be a key in it.
            CredentialsError::Format { problem: without_values(error.message()), line }
        })?;
        written.check()
    }
}

/// A message of the parser's, without the texts of the file that it may quote.
fn without_values(message: &str) -> String {
    let kept: Vec<_> = message.lines().next().unwrap_or_default().split('"').step_by(2).collect();
    kept.join("…")
}

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    pub(crate) version: u32,
    pub(crate) address: Option<LinkAddress>,
    pub(crate) token: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) tls: Option<WrittenTls>,
}

/// The TLS part of the file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenTls {
    pub(crate) server_name: Option<String>,
    pub(crate) ca: Option<String>,
    pub(crate) pin: Option<CertificateFingerprint>,
    pub(crate) certificate: Option<String>,
    pub(crate) certificate_key: Option<String>,
}

impl Written {
    fn check(self) -> Result<Credentials, CredentialsError> {
        if self.version != VERSION {
            return Err(CredentialsError::Version { found: self.version });
        }
        if self.token.is_some() != self.key.is_some() {
            let wanted = "`token` together with `key`, the private key of its holder";
            return Err(CredentialsError::Fields { wanted });
        }
        let has_certificate = self.tls.as_ref().is_some_and(|tls| tls.certificate.is_some());
        Ok(Credentials {
            address: self.address,
            token: self.token.map(|token| token.trim().to_owned()),
            key: self.key.as_deref().map(IdentityKey::from_pem).transpose()?,
            tls: self.tls.as_ref().map(WrittenTls::check).transpose()?,
            has_certificate,
        })
    }

    /// Writes the file. The texts are PEM, names and addresses, so that none holds what would end its quotes;
    /// whoever calls this reads the result to be sure.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("version = {VERSION}\n");
        let put = |text: &mut String, name: &str, value: Option<&str>| match value {
            None => {}
            Some(value) if value.contains('\n') => *text += &format!("{name} = '''\n{value}'''\n"),
            Some(value) => *text += &format!("{name} = '{value}'\n"),
        };
        put(&mut text, "address", self.address.as_ref().map(LinkAddress::to_string).as_deref());
        put(&mut text, "token", self.token.as_deref());
        put(&mut text, "key", self.key.as_deref());
        if let Some(tls) = &self.tls {
            text.push_str("\n[tls]\n");
            put(&mut text, "server_name", tls.server_name.as_deref());
            put(&mut text, "ca", tls.ca.as_deref());
            put(&mut text, "pin", tls.pin.as_ref().map(CertificateFingerprint::to_string).as_deref());
            put(&mut text, "certificate", tls.certificate.as_deref());
            put(&mut text, "certificate_key", tls.certificate_key.as_deref());
        }
        text
    }
}

impl WrittenTls {
    fn check(&self) -> Result<ClientTls, CredentialsError> {
        let trust = match (&self.ca, self.pin) {
            (Some(ca), None) => ServerTrust::Authorities(ca),
            (None, Some(pin)) => ServerTrust::Pinned(pin),
            _ => return Err(CredentialsError::Fields { wanted: "either `ca` or `pin` under `[tls]`" }),
        };
        let identity = match (&self.certificate, &self.certificate_key) {
            (None, None) => None,
            (Some(chain), Some(key)) => Some((&**chain, &**key)),
            _ => {
                let wanted = "`certificate` together with `certificate_key` under `[tls]`";
                return Err(CredentialsError::Fields { wanted });
            }
        };
        Ok(ClientTls::new(trust, self.server_name.as_deref(), identity)?)
    }
}

#[cfg(test)]
mod tests;
