//! Certificates: read from files, looked at again now and then, so that a renewed one is taken without a restart; one that
//! cannot be read leaves the one before in force. It must not know connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ring::digest;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection};

use crate::config::Tls;

/// The certificates in force.
pub(crate) struct Certificates {
    settings: Tls,
    current: ArcSwap<ServerConfig>,
    seen: Mutex<Seen>,
}

/// When the files were last changed.
type Seen = Vec<Option<SystemTime>>;

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// Which of them cannot be used, and why.
    pub(crate) fn read(settings: &Tls) -> Result<Self, String> {
        let seen = changed(settings);
        let current = ArcSwap::from_pointee(read(settings)?);
        Ok(Self { settings: settings.clone(), current, seen: Mutex::new(seen) })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files again if one of them has changed.
    pub(crate) fn look(&self) {
        let now = changed(&self.settings);
        if *self.seen.lock() == now {
            return;
        }
        match read(&self.settings) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(target: "ringway", "the certificates of HTTP were read again");
            }
            // The other file may be about to follow; it is looked at again when one of them changes.
            Err(error) => tracing::warn!(target: "ringway", error, "the certificates before stay in force"),
        }
        *self.seen.lock() = now;
    }
}

fn files(settings: &Tls) -> impl Iterator<Item = &PathBuf> {
    [Some(&settings.certificate), Some(&settings.key), settings.client_roots.as_ref()].into_iter().flatten()
}

fn changed(settings: &Tls) -> Seen {
    files(settings).map(|file| std::fs::metadata(file).and_then(|found| found.modified()).ok()).collect()
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let found = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(&error))?;
    if found.is_empty() { Err(unreadable(&"there is no certificate in it")) } else { Ok(found) }
}

fn read(settings: &Tls) -> Result<ServerConfig, String> {
    let key = PrivateKeyDer::from_pem_file(&settings.key);
    let key = key.map_err(|error| format!("{}: {error}", settings.key.display()))?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &settings.client_roots {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(file)? {
                roots.add(root).map_err(|error| format!("{}: {error}", file.display()))?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if settings.client_optional {
                verifier = verifier.allow_unauthenticated();
            }
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    let chain = certificates(&settings.certificate)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        format!(
            "{} and {} do not go together: {error}",
            settings.certificate.display(),
            settings.key.display()
        )
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The SHA-256 of the certificate that a client showed, in hex.
pub(crate) fn fingerprint(connection: &ServerConnection) -> Option<String> {
    let first = connection.peer_certificates()?.first()?;
    let hash = digest::digest(&digest::SHA256, first);
    Some(hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}
