//! The dialling side of TLS: by what it knows the server, and which certificate it shows. It must not know what the
//! server is asked for.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, PeerIncompatible,
    SignatureScheme,
};

use super::{
    ALPN, CertificateFingerprint, Secured, TlsError, agree, certificates, private_key, provider, roots,
    unusable,
};

/// By what a client knows the right server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTrust<'a> {
    /// Its certificate is signed by one of these authorities (PEM), for the name that was dialled.
    Authorities(&'a str),
    /// Its certificate is exactly this one, whoever signed it, whatever names and end it has. As with a host key of SSH.
    Pinned(CertificateFingerprint),
}

/// TLS as a client has it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl ClientTls {
    /// Takes what the server is known by, the name that its certificate is for if that is not the host that is dialled,
    /// and the client's own chain and key as PEM, if it has them.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not go together.
    pub fn new(
        trust: ServerTrust<'_>,
        server_name: Option<&str>,
        identity: Option<(&str, &str)>,
    ) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable("TLS 1.3"))?;
        let builder = match trust {
            ServerTrust::Authorities(pem) => {
                builder.with_root_certificates(roots(pem, "the authorities of servers")?)
            }
            ServerTrust::Pinned(wanted) => {
                let verifier = Pin { wanted, provider: provider() };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain, "the client's certificate")?;
                let key = private_key(key, "the client's private key")?;
                let with = builder.with_client_auth_cert(chain, key);
                with.map_err(unusable("the client's certificate with its key"))?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        if let Some(name) = server_name {
            name_of(name)?;
        }
        Ok(Self { config: Arc::new(config), server_name: server_name.map(str::to_owned) })
    }

    /// Returns what rustls wants, for whoever drives TLS otherwise.
    #[must_use]
    pub const fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Agrees on TLS with the server that was dialled as `host`. Blocks as long as the stream does; give it a
    /// [`Limited`](crate::limited::Limited) one. That the server refuses the client's certificate shows only when
    /// something is read.
    ///
    /// # Errors
    /// It is not the right server; it speaks another protocol; the connection broke.
    pub fn connect<S: Read + Write>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<Secured<ClientConnection, S>, TlsError> {
        let name = name_of(self.server_name.as_deref().unwrap_or(host))?;
        let connection = ClientConnection::new(Arc::clone(&self.config), name);
        agree(connection.map_err(unusable("a TLS session"))?, stream)
    }
}

fn name_of(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text.to_owned()).map_err(|_| TlsError::ServerName { found: text.to_owned() })
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Pin {
    wanted: CertificateFingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if CertificateFingerprint::of(end_entity) == self.wanted {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // The configuration offers TLS 1.3 alone.
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
