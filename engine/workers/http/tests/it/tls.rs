//! TLS, certificates of clients, HTTP/2.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::stage::Stage;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn write(&self, folder: &Path) {
        let (certificate, key) = self.sign("localhost");
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("roots.pem"), self.0.pem()).unwrap();
    }

    fn client(&self, shown: Option<(rcgen::Certificate, KeyPair)>, protocol: &[u8]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from(certificate.der().to_vec())];
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// Asks over a connection of its own; an error where TLS is refused.
fn get(address: &str, connector: &TlsConnector, path: &str) -> Result<(hyper::Version, Value), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.map_err(|error| text(&error))?;
        let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let request = hyper::Request::get(format!("https://localhost{path}")).header("host", "localhost");
        let request = request.body(Empty::<hyper::body::Bytes>::new()).unwrap();
        let response = if two {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .map_err(|error| text(&error))?;
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| text(&error))?;
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        let response = response.map_err(|error| text(&error))?;
        let version = response.version();
        let body = response.into_body().collect().await.map_err(|error| text(&error))?.to_bytes();
        Ok((version, serde_json::from_slice(&body).unwrap()))
    })
}

fn settings(folder: &Path) -> Value {
    json!({"certificate": folder.join("cert.pem"), "key": folder.join("key.pem"), "reload_ms": 10})
}

#[test]
fn tls_speaks_both_versions_and_takes_renewed_certificates() {
    let (folder, first, second) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    first.write(folder.path());
    let stage = Stage::with(json!({"tls": settings(folder.path())}));
    stage.serve("GET", "/a", |_, _| Ok(json!("a")));
    let address = stage.address();
    assert_eq!(get(&address, &first.client(None, b"h2"), "/a"), Ok((hyper::Version::HTTP_2, json!("a"))));
    assert_eq!(
        get(&address, &first.client(None, b"http/1.1"), "/a"),
        Ok((hyper::Version::HTTP_11, json!("a")))
    );
    assert!(get(&address, &second.client(None, b"h2"), "/a").is_err());
    // Half a renewal changes nothing.
    std::thread::sleep(Duration::from_millis(20));
    std::fs::write(folder.path().join("cert.pem"), "nothing").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(get(&address, &first.client(None, b"h2"), "/a").is_ok());
    second.write(folder.path());
    stage.wait_until("the new certificate is shown", || {
        get(&address, &second.client(None, b"h2"), "/a").is_ok()
    });
}

#[test]
fn clients_show_certificates_where_they_must() {
    let (folder, authority, other) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    authority.write(folder.path());
    let mut tls = settings(folder.path());
    tls["client_roots"] = json!(folder.path().join("roots.pem"));
    let auth = json!({"schemes": {"shown": {"kind": "certificate"}}, "default": ["shown"]});
    let stage = Stage::with(json!({"tls": tls, "auth": auth}));
    stage.serve("GET", "/who", |_, told| Ok(json!({"status_code": 200, "body": told["auth"]["subject"]})));
    let address = stage.address();
    let known = authority.client(Some(authority.sign("me")), b"h2");
    let (_, who) = get(&address, &known, "/who").unwrap();
    assert_eq!(who.as_str().unwrap().len(), 64);
    assert!(get(&address, &authority.client(None, b"http/1.1"), "/who").is_err());
    assert!(get(&address, &authority.client(Some(other.sign("me")), b"http/1.1"), "/who").is_err());
}
