//! TLS 1.3 for links, on rustls with `ring`: a server's and a client's side from PEM, certificates of clients, pins for
//! servers that no authority vouches for, and what binds a handshake to its session. Used by whoever listens or dials.
//! It must not know tokens.
//!
//! No session is resumed and no data is sent early: a certificate that is no longer good lets nobody in once more, and
//! nothing can be replayed.

use std::io::{self, Read, Write};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CommonState, ConnectionCommon, RootCertStore, SideData, StreamOwned};

use crate::file::FileError;

mod certificate;

mod client;

mod server;

pub use certificate::{CertificateFingerprint, ParseFingerprintError, PeerCertificate};
pub use client::{ClientTls, ServerTrust};
pub use server::{ClientCertificates, ServerTls};

/// The application protocol (ALPN) of links. A server of another protocol on the same port is found out by it.
pub const ALPN: &[u8] = b"ringway-link/1";
/// The label under which both ends derive the same 32 bytes from a session, and nobody else can (RFC 8446, 7.5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-ringway-link";

/// What both ends of one TLS session know and nobody else: a handshake that was signed with it is good nowhere else.
pub type Binding = [u8; 32];

/// Why TLS could not be set up or agreed on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no certificate, or none that can be read.
    #[error("wanted {what} as PEM (`BEGIN CERTIFICATE`), found none that can be read")]
    NoCertificate {
        /// Which was wanted.
        what: &'static str,
    },
    /// There is no private key, or none that can be read.
    #[error("wanted {what} as PEM (`BEGIN PRIVATE KEY`), found none that can be read")]
    NoKey {
        /// Which was wanted.
        what: &'static str,
    },
    /// What was given does not go together.
    #[error("cannot use {what}: {problem}")]
    Unusable {
        /// What was being set up.
        what: &'static str,
        /// What rustls says.
        problem: String,
    },
    /// The server has a name that no certificate can be for.
    #[error("wanted a host name or an IP address to hold the server's certificate against, found `{found}`")]
    ServerName {
        /// The name.
        found: String,
    },
    /// A certificate or key file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The two did not agree, or the connection broke; rustls says here which certificate was refused and why.
    #[error("TLS was not agreed on: {0}")]
    Handshake(#[source] io::Error),
    /// The other end speaks TLS but not the protocol of links.
    #[error("wanted a peer that speaks `ringway-link/1`, found one that did not say so")]
    Protocol,
    /// The session gives no key material.
    #[error("the TLS session cannot be bound to a handshake: {problem}")]
    Binding {
        /// What rustls says.
        problem: String,
    },
}

/// A connection on which TLS has been agreed on.
#[derive(Debug)]
pub struct Secured<C, S>
where
    C: DerefMut,
    C::Target: Sized,
    S: Read + Write,
{
    /// The connection: what is read and written here is encrypted below. [`StreamOwned::into_parts`] gives TLS and
    /// socket to whoever drives them otherwise.
    pub stream: StreamOwned<C, S>,
    /// What the handshake of this link is signed with.
    pub binding: Binding,
    /// The other end's certificate. A server has verified it against its authorities, a client against its own or a pin.
    pub certificate: Option<PeerCertificate>,
}

/// Agrees on TLS. Blocks as long as the stream does.
fn agree<C, S, D>(mut connection: C, mut stream: S) -> Result<Secured<C, S>, TlsError>
where
    C: DerefMut + Deref<Target = ConnectionCommon<D>>,
    S: Read + Write,
    D: SideData,
{
    while connection.is_handshaking() {
        let (read, written) = connection.complete_io(&mut stream).map_err(TlsError::Handshake)?;
        if (read, written) == (0, 0) {
            return Err(TlsError::Handshake(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    if state(&connection).alpn_protocol() != Some(ALPN) {
        return Err(TlsError::Protocol);
    }
    let binding = connection.export_keying_material([0; 32], EXPORTER_LABEL, None);
    let binding = binding.map_err(|problem| TlsError::Binding { problem: problem.to_string() })?;
    let certificate = state(&connection).peer_certificates().and_then(<[_]>::first).map(PeerCertificate::of);
    Ok(Secured { stream: StreamOwned::new(connection, stream), binding, certificate })
}

fn state<D: SideData>(connection: &ConnectionCommon<D>) -> &CommonState {
    connection
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(what: &'static str) -> impl Fn(rustls::Error) -> TlsError {
    move |problem| TlsError::Unusable { what, problem: problem.to_string() }
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    found.ok().filter(|found| !found.is_empty()).ok_or(TlsError::NoCertificate { what })
}

/// Reads a private key. What the text is instead is not told: it may be a secret.
fn private_key(pem: &str, what: &'static str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| TlsError::NoKey { what })
}

fn roots(pem: &str, what: &'static str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, what)? {
        roots.add(certificate).map_err(unusable(what))?;
    }
    Ok(roots)
}
