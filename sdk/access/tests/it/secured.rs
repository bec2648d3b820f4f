//! Handshakes over TLS: which servers and clients are taken, and that a proof is good in its own session alone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ringway_access::doorkeeper::{CertificateIdentity, Identity};
use ringway_access::handshake::{Accepted, Arrival, HandshakeError, Peer};
use ringway_access::issue::{Authority, ClientRequest, ServerFiles};
use ringway_access::limited::Limited;
use ringway_access::tls::{
    ALPN, CertificateFingerprint, ClientCertificates, ClientTls, ServerTls, ServerTrust, TlsError,
};
use ringway_access::{Credentials, Doorkeeper, Grant};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use crate::stage::{DAY, authority, credentials, dial, doorkeeper, meet, near, now_s, request, serve, soon};

fn files(authority: &Authority) -> ServerFiles {
    authority.server("engine", &["localhost", "127.0.0.1"], now_s(), DAY).unwrap()
}

fn server(authority: &Authority, clients: ClientCertificates<'_>) -> ServerTls {
    let files = files(authority);
    ServerTls::from_pem(&files.certificate, &files.key, clients).unwrap()
}

const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 1);

/// Why one end gave up: by TLS, or by what was said over it.
#[derive(Debug)]
enum End {
    Tls(TlsError),
    Handshake(HandshakeError),
}

fn let_in<S: Read + Write>(tls: &ServerTls, doorkeeper: &Doorkeeper, stream: S) -> Result<Peer, End> {
    let mut session = tls.accept(stream).map_err(End::Tls)?;
    let arrival = Arrival::secured(SocketAddr::from(PEER), &session);
    serve(&mut session.stream, doorkeeper, &arrival).map_err(End::Handshake)
}

fn come<S: Read + Write>(credentials: &Credentials, host: &str, stream: S) -> Result<Accepted, End> {
    let tls = credentials.tls.as_ref().unwrap();
    let mut session = tls.connect(host, stream).map_err(End::Tls)?;
    dial(&mut session.stream, credentials, Some(&session.binding)).map_err(End::Handshake)
}

fn shake(
    tls: &ServerTls,
    doorkeeper: &Doorkeeper,
    shown: &Credentials,
) -> (Result<Peer, End>, Result<Accepted, End>) {
    meet(|stream| let_in(tls, doorkeeper, stream), |stream| come(shown, "localhost", stream))
}

fn with_tls(tls: ClientTls) -> Credentials {
    let mut credentials = Credentials::default();
    credentials.tls = Some(tls);
    credentials
}

#[test]
fn a_token_is_shown_over_tls_and_over_tcp() {
    let authority = authority();
    let tls = server(&authority, ClientCertificates::NotAsked);
    let (known, shown) = (doorkeeper(&authority), credentials(&authority, &request("edge-7")));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (stream, from) = listener.accept().unwrap();
            let mut session = tls.accept(Limited::new(stream, soon())).unwrap();
            let arrival = Arrival::secured(from, &session);
            assert!(arrival.loopback && arrival.certificate.is_none());
            let peer = serve(&mut session.stream, &known, &arrival).unwrap();
            // From here on the stream is the link's.
            let (connection, limited) = session.stream.into_parts();
            let mut link = rustls::StreamOwned::new(connection, limited.into_inner().unwrap());
            link.write_all(b"frames").unwrap();
            peer
        });
        let stream = Limited::new(TcpStream::connect(address).unwrap(), soon());
        let mut session = shown.tls.as_ref().unwrap().connect("127.0.0.1", stream).unwrap();
        let accepted = dial(&mut session.stream, &shown, Some(&session.binding)).unwrap();
        let mut frames = [0; 6];
        session.stream.read_exact(&mut frames).unwrap();
        assert_eq!(&frames, b"frames");
        assert_eq!(accepted.grant, server.join().unwrap().grant);
    });
}

#[test]
fn a_server_is_known_by_its_authority_and_its_name_or_by_its_pin() {
    let (authority, other) = (authority(), authority());
    let ours = files(&authority);
    let tls = ServerTls::from_pem(&ours.certificate, &ours.key, ClientCertificates::NotAsked).unwrap();
    let open = doorkeeper(&authority);
    let check = |trust: ServerTrust<'_>, name: Option<&str>, host: &str, good: bool| {
        let client = with_tls(ClientTls::new(trust, name, None).unwrap());
        let (_, accepted) = meet(|stream| let_in(&tls, &open, stream), |stream| come(&client, host, stream));
        // The doorkeeper refuses all of them, once TLS is agreed on.
        let reached = matches!(accepted, Err(End::Handshake(HandshakeError::Refused(_))));
        assert_eq!(reached, good, "{trust:?} {name:?} {host}: {accepted:?}");
        assert!(good || matches!(accepted, Err(End::Tls(TlsError::Handshake(_)))), "{accepted:?}");
    };
    let known = ServerTrust::Authorities(authority.certificate());
    check(known, None, "localhost", true);
    check(known, None, "127.0.0.1", true);
    check(known, None, "example.org", false);
    check(known, Some("localhost"), "example.org", true);
    check(known, Some("example.org"), "localhost", false);
    check(ServerTrust::Authorities(other.certificate()), None, "localhost", false);
    check(ServerTrust::Pinned(ours.fingerprint), None, "example.org", true);
    check(ServerTrust::Pinned(files(&authority).fingerprint), None, "localhost", false);
    check(ServerTrust::Pinned(CertificateFingerprint::of(b"")), None, "localhost", false);
}

#[test]
fn a_pinned_certificate_without_its_key_is_worth_nothing() {
    let authority = authority();
    let (right, thief) = (files(&authority), files(&authority));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(right.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(thief.key.as_bytes()).unwrap();
    // What is seen on the wire can be shown by anybody.
    let stolen = CertifiedKey::new(chain, provider.key_provider.load_private_key(key).unwrap());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let resolver = Arc::new(SingleCertAndKey::from(stolen));
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN.to_vec()];
    let client = ClientTls::new(ServerTrust::Pinned(right.fingerprint), None, None).unwrap();
    let ((), found) = meet(
        |mut stream| {
            let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
            while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
        },
        |stream| client.connect("localhost", stream).map(|_| ()),
    );
    let told = found.unwrap_err().to_string();
    assert!(told.contains("BadSignature"), "{told}");
}

#[test]
fn no_session_is_resumed() {
    let authority = authority();
    let tls = server(&authority, ClientCertificates::NotAsked);
    let (known, shown) = (doorkeeper(&authority), credentials(&authority, &request("edge-7")));
    let bindings = [(); 2].map(|()| {
        let (peer, (binding, kind)) = meet(
            |stream| let_in(&tls, &known, stream),
            |stream| {
                let mut session = shown.tls.as_ref().unwrap().connect("localhost", stream).unwrap();
                dial(&mut session.stream, &shown, Some(&session.binding)).unwrap();
                (session.binding, session.stream.conn.handshake_kind())
            },
        );
        peer.unwrap();
        assert_eq!(kind, Some(HandshakeKind::Full));
        binding
    });
    assert_ne!(bindings[0], bindings[1]);
}

#[test]
fn a_client_resumes_no_session_with_a_server_that_would() {
    let authority = authority();
    let files = files(&authority);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(files.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(files.key.as_bytes()).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config = Arc::new(config);
    let client = ClientTls::new(ServerTrust::Pinned(files.fingerprint), None, None).unwrap();
    for _ in 0..2 {
        let ((), kind) = meet(
            |stream| {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                rustls::StreamOwned::new(connection, stream).write_all(b"x").unwrap();
            },
            |stream| {
                let mut session = client.connect("localhost", stream).unwrap();
                // The tickets come before it.
                session.stream.read_exact(&mut [0]).unwrap();
                session.stream.conn.handshake_kind()
            },
        );
        assert_eq!(kind, Some(HandshakeKind::Full));
    }
}

#[test]
fn a_client_is_known_by_its_certificate() {
    let (authority, other) = (authority(), authority());
    let with = |authority: &Authority, name| {
        let made =
            authority.client(&ClientRequest { with_certificate: true, ..request(name) }, now_s()).unwrap();
        let mut shown = Credentials::parse(&made.credentials).unwrap();
        (shown.token, shown.key) = (None, None);
        assert!(shown.has_authentication());
        (shown, made.certificate.unwrap())
    };
    let (edge, edge_print) = with(&authority, "edge-7");
    let (second, second_print) = with(&authority, "edge-8");
    let (stranger, _) = with(&authority, "stranger");
    let tls = server(&authority, ClientCertificates::Required(authority.certificate()));
    let known = Doorkeeper::default()
        .with_certificate(
            CertificateIdentity::CommonName("edge-7".to_owned()),
            Grant::default().with_call("a"),
        )
        .with_certificate(CertificateIdentity::Fingerprint(second_print), Grant::default().with_call("b"));
    for (shown, print, name, call) in
        [(&edge, edge_print, "edge-7", "a"), (&second, second_print, "edge-8", "b")]
    {
        let (peer, accepted) = shake(&tls, &known, shown);
        let (peer, accepted) = (peer.unwrap(), accepted.unwrap());
        let identity = Identity::Certificate { fingerprint: print, common_name: Some(name.to_owned()) };
        assert_eq!(peer.identity, identity);
        assert!(accepted.grant.may_call("default", call));
    }
    let (peer, accepted) = shake(&tls, &known, &stranger);
    assert!(matches!(peer, Err(End::Handshake(HandshakeError::Denied(_)))), "{peer:?}");
    assert!(matches!(accepted, Err(End::Handshake(HandshakeError::Refused(_)))), "{accepted:?}");

    // The name is right, the authority is not: TLS refuses, and nobody is asked.
    let (forged, _) = with(&other, "edge-7");
    let trusting = ClientTls::new(ServerTrust::Authorities(authority.certificate()), Some("localhost"), None);
    let trusting = with_tls(trusting.unwrap());
    let made = other.client(&ClientRequest { with_certificate: true, ..request("edge-7") }, now_s()).unwrap();
    let table: toml_of::Table = toml_of::parse(&made.credentials);
    let identity = Some((table.certificate.as_str(), table.key.as_str()));
    let forging =
        ClientTls::new(ServerTrust::Authorities(authority.certificate()), Some("localhost"), identity)
            .unwrap();
    for shown in [&with_tls(forging), &trusting, &forged] {
        let (peer, accepted) = shake(&tls, &known, shown);
        assert!(matches!(peer, Err(End::Tls(TlsError::Handshake(_)))), "{peer:?}");
        assert!(accepted.is_err());
    }
    let optional = server(&authority, ClientCertificates::Optional(authority.certificate()));
    let (peer, _) = shake(&optional, &known, &trusting);
    assert!(matches!(peer, Err(End::Handshake(HandshakeError::Denied(_)))), "{peer:?}");
    let (peer, _) = shake(&optional, &known, &edge);
    assert!(peer.is_ok(), "{peer:?}");
}

/// Reads out of a credentials file what its user does not see.
mod toml_of {
    pub(super) struct Table {
        pub(super) certificate: String,
        pub(super) key: String,
    }

    pub(super) fn parse(text: &str) -> Table {
        let value: toml::Table = text.parse().unwrap();
        let field = |name: &str| value["tls"][name].as_str().unwrap().to_owned();
        Table { certificate: field("certificate"), key: field("certificate_key") }
    }
}

#[test]
fn a_proof_is_good_in_the_session_that_it_was_made_for() {
    let authority = authority();
    let tls = server(&authority, ClientCertificates::NotAsked);
    let (known, shown) = (doorkeeper(&authority), credentials(&authority, &request("edge-7")));
    for binding in [None, Some(&[0; 32])] {
        let (peer, _) = meet(
            |stream| let_in(&tls, &known, stream),
            |stream| {
                let mut session = shown.tls.as_ref().unwrap().connect("localhost", stream).unwrap();
                dial(&mut session.stream, &shown, binding)
            },
        );
        assert!(matches!(peer, Err(End::Handshake(HandshakeError::Denied(_)))), "{binding:?}: {peer:?}");
    }
    // And one made for a session is none without it.
    let (peer, _) = meet(
        |mut stream| serve(&mut stream, &known, &near()),
        |mut stream| dial(&mut stream, &shown, Some(&[0; 32])),
    );
    assert!(matches!(peer, Err(HandshakeError::Denied(_))), "{peer:?}");
}

#[test]
fn a_server_in_between_cannot_pass_a_proof_on() {
    let authority = authority();
    let right = server(&authority, ClientCertificates::NotAsked);
    let between = server(&authority, ClientCertificates::NotAsked);
    let (known, shown) = (doorkeeper(&authority), credentials(&authority, &request("edge-7")));
    let (inner, inner_far) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let last = scope.spawn(|| let_in(&right, &known, inner_far));
        let (_, accepted) = meet(
            |stream| {
                // The client trusts it as much as the right one; it tells each what the other says.
                let mut client = between.accept(stream).unwrap();
                let mut server = shown.tls.as_ref().unwrap().connect("localhost", inner).unwrap();
                for _ in 0..2 {
                    pass_on(&mut client.stream, &mut server.stream);
                    pass_on(&mut server.stream, &mut client.stream);
                }
            },
            |stream| come(&shown, "localhost", stream),
        );
        let peer = last.join().unwrap();
        assert!(matches!(peer, Err(End::Handshake(HandshakeError::Denied(_)))), "{peer:?}");
        assert!(matches!(accepted, Err(End::Handshake(HandshakeError::Refused(_)))), "{accepted:?}");
    });
}

/// Reads one message here and writes it there.
fn pass_on(from: &mut impl Read, to: &mut impl Write) {
    let mut prefix = [0; 12];
    from.read_exact(&mut prefix).unwrap();
    let length = u32::from_le_bytes(prefix[8..].try_into().unwrap()) as usize;
    let mut json = vec![0; length];
    from.read_exact(&mut json).unwrap();
    to.write_all(&[&prefix[..], &json].concat()).unwrap();
    to.flush().unwrap();
}

/// A client of TLS that is not ours.
fn other_client(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

#[test]
fn another_version_and_another_protocol_are_refused() {
    let authority = authority();
    let tls = server(&authority, ClientCertificates::NotAsked);
    let check = |versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]], expected: Option<&str>| {
        let config = Arc::new(other_client(&authority, versions, alpn));
        let (found, _) = meet(
            |stream| tls.accept(stream).map(|_| ()),
            |mut stream| {
                let name = ServerName::try_from("localhost").unwrap();
                let mut connection = ClientConnection::new(config, name).unwrap();
                while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
            },
        );
        let found = found.err().map(|error| error.to_string());
        match (&found, expected) {
            (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
            _ => assert_eq!(found.as_deref(), expected),
        }
    };
    check(&[&TLS13], &[ALPN], None);
    check(&[&TLS13], &[b"h2", ALPN], None);
    check(&[&TLS12], &[ALPN], Some("TLS was not agreed on"));
    check(&[&TLS13], &[b"h2"], Some("TLS was not agreed on"));
    check(&[&TLS13], &[], Some("a peer that speaks `ringway-link/1`"));
}

#[test]
fn bytes_that_are_no_tls_are_an_error() {
    let authority = authority();
    let tls = server(&authority, ClientCertificates::NotAsked);
    for bytes in [&b""[..], b"RWLK", b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0xff, 0xff]] {
        let (found, ()) =
            meet(|stream| tls.accept(stream).map(|_| ()), |mut stream| stream.write_all(bytes).unwrap());
        assert!(matches!(found, Err(TlsError::Handshake(_))), "{bytes:?}: {found:?}");
    }
    let found = ServerTls::from_pem("", "", ClientCertificates::NotAsked);
    assert!(matches!(found, Err(TlsError::NoCertificate { .. })));
    let (one, two) = (files(&authority), files(&authority));
    let found = ServerTls::from_pem(&one.certificate, "", ClientCertificates::NotAsked);
    assert!(matches!(found, Err(TlsError::NoKey { .. })));
    let found = ServerTls::from_pem(&one.certificate, &two.key, ClientCertificates::NotAsked);
    assert!(matches!(found, Err(TlsError::Unusable { .. })), "{found:?}");
}
