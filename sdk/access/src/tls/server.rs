//! The listening side of TLS: its certificate, and which certificates of clients it takes. It must not know what a
//! client may do.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ServerConfig, ServerConnection};

use super::{ALPN, Secured, TlsError, agree, certificates, private_key, provider, roots, unusable};
use crate::file::{read_private, read_public};

/// Which certificates clients show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates<'a> {
    /// None is asked for.
    NotAsked,
    /// One may be shown; it must be signed by one of these authorities (PEM).
    Optional(&'a str),
    /// One must be shown, signed by one of these authorities (PEM).
    Required(&'a str),
}

/// TLS as a server has it. Cheap to clone; renewed certificates are a new one in its place.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Takes a chain of certificates, the server's own first, and its key, as PEM.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not go together.
    pub fn from_pem(chain: &str, key: &str, clients: ClientCertificates<'_>) -> Result<Self, TlsError> {
        let chain = certificates(chain, "the server's certificate")?;
        let key = private_key(key, "the server's private key")?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable("TLS 1.3"))?;
        let builder = match clients {
            ClientCertificates::NotAsked => builder.with_no_client_auth(),
            ClientCertificates::Optional(pem) | ClientCertificates::Required(pem) => {
                const WHAT: &str = "the authorities of clients";
                let known = Arc::new(roots(pem, WHAT)?);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(known, provider());
                if matches!(clients, ClientCertificates::Optional(_)) {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier = verifier.build();
                builder.with_client_cert_verifier(
                    verifier
                        .map_err(|problem| TlsError::Unusable { what: WHAT, problem: problem.to_string() })?,
                )
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(unusable("the server's certificate with its key"))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config) })
    }

    /// Reads chain and key from files; the key's must be its owner's alone. May block on the disk.
    ///
    /// # Errors
    /// As [`ServerTls::from_pem`], or a file cannot be used.
    pub fn from_files(chain: &Path, key: &Path, clients: ClientCertificates<'_>) -> Result<Self, TlsError> {
        Self::from_pem(&read_public(chain)?, &read_private(key)?, clients)
    }

    /// Returns what rustls wants, for whoever drives TLS otherwise.
    #[must_use]
    pub const fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Agrees on TLS with a client that has connected. Blocks as long as the stream does; give it a
    /// [`Limited`](crate::limited::Limited) one.
    ///
    /// # Errors
    /// The client shows no certificate where one must be, or a wrong one; it speaks another protocol; the connection
    /// broke.
    pub fn accept<S: Read + Write>(&self, stream: S) -> Result<Secured<ServerConnection, S>, TlsError> {
        let connection =
            ServerConnection::new(Arc::clone(&self.config)).map_err(unusable("a TLS session"))?;
        agree(connection, stream)
    }
}
