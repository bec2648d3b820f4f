//! What is made can be used, and what cannot be used is not made. Whole handshakes with it are in `tests/it`.

use super::*;
use crate::tls::{ClientCertificates, ServerTls};
use crate::token::{Revocations, verify};

const NOW_S: u64 = 1_772_366_400;
const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn authority() -> Authority {
    Authority::new("links of example.org", NOW_S, YEAR).unwrap()
}

fn request(name: &str) -> ClientRequest<'_> {
    ClientRequest {
        name,
        grant: Grant::default().with_call("orders::*"),
        address: Some("ringway://engine.example.org:49135".parse().unwrap()),
        server_name: None,
        pin: None,
        with_certificate: true,
        lifetime: YEAR,
    }
}

#[test]
fn a_clients_file_holds_all_that_it_needs() {
    let authority = authority();
    let made = authority.client(&request("edge-7"), NOW_S).unwrap();
    let read = Credentials::parse(&made.credentials).unwrap();
    assert_eq!(read.address, request("edge-7").address);
    assert!(read.tls.is_some() && made.certificate.is_some());
    let issuers = [authority.issuer().public()];
    let claims = verify(&read.token.unwrap(), &issuers, &Revocations::default(), NOW_S).unwrap();
    assert_eq!((claims.subject.as_str(), &claims.id), ("edge-7", &made.token_id));
    assert_eq!((claims.expires_s, claims.holder), (made.expires_s, read.key.unwrap().public()));
    assert_eq!(claims.grant, request("edge-7").grant);
}

#[test]
fn an_authority_survives_its_texts() {
    let first = authority();
    let (issuer, key) = (first.issuer().to_pem(), first.key());
    let read = Authority::from_pem(&issuer, first.certificate(), &key).unwrap();
    let server = read.server("engine", &["localhost", "127.0.0.1"], NOW_S, YEAR).unwrap();
    let clients = ClientCertificates::Required(first.certificate());
    ServerTls::from_pem(&server.certificate, &server.key, clients).unwrap();
    let other = authority();
    let mixed = Authority::from_pem(&issuer, other.certificate(), &key);
    assert!(mixed.unwrap_err().to_string().contains("not that of its certificate"));
    assert!(Authority::from_pem("", first.certificate(), &key).is_err());
    assert!(Authority::from_pem(&issuer, "", &key).is_err());
    assert!(Authority::from_pem(&issuer, first.certificate(), "").is_err());
}

#[test]
fn a_servers_certificate_says_for_which_hosts_it_is() {
    let hosts = ["engine.example.org", "10.0.0.1", "::1"];
    let made = authority().server("engine", &hosts, NOW_S, YEAR).unwrap();
    let check = |host: &str, expected: bool| {
        assert_eq!(is_for_host(&made.certificate, host).unwrap(), expected, "{host}");
    };
    hosts.iter().for_each(|host| check(host, true));
    for other in ["example.org", "10.0.0.2", "::2", "no host", ""] {
        check(other, false);
    }
    assert!(is_for_host("text", "10.0.0.1").is_err());
}

#[test]
fn what_cannot_be_used_is_not_made() {
    let authority = authority();
    for name in ["", "a\nb", "it's", "a\"b", &"x".repeat(257)] {
        assert!(matches!(authority.client(&request(name), NOW_S), Err(IssueError::Name { .. })), "{name}");
        assert!(matches!(Authority::new(name, NOW_S, YEAR), Err(IssueError::Name { .. })), "{name}");
    }
    assert!(matches!(authority.server("engine", &[], NOW_S, YEAR), Err(IssueError::NoHost)));
    assert!(authority.server("engine", &["größe"], NOW_S, YEAR).is_err());
    let odd = ClientRequest { server_name: Some("' "), ..request("edge-7") };
    assert!(matches!(authority.client(&odd, NOW_S), Err(IssueError::Credentials(_))));
    let many = (0..2000).fold(Grant::default(), |grant, number| grant.with_call(&format!("n{number}::*")));
    let long = ClientRequest { grant: many, ..request("edge-7") };
    assert!(matches!(authority.client(&long, NOW_S), Err(IssueError::Token(TokenError::TooLong { .. }))));
    // As far as times go.
    assert!(
        authority.client(&ClientRequest { lifetime: Duration::MAX, ..request("edge-7") }, u64::MAX).is_ok()
    );
}

#[test]
fn no_two_clients_have_a_key_or_an_id_in_common() {
    let authority = authority();
    let (one, two) = (authority.client(&request("a"), NOW_S), authority.client(&request("a"), NOW_S));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.token_id, two.token_id);
    assert_ne!(one.certificate, two.certificate);
    let key = |files: &ClientFiles| Credentials::parse(&files.credentials).unwrap().key.unwrap().public();
    assert_ne!(key(&one), key(&two));
}
