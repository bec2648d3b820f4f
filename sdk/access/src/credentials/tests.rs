//! Files that are read and files that are refused, and that no error shows a secret.

use proptest::prelude::*;

use super::*;

fn key_pem() -> String {
    IdentityKey::generate().unwrap().to_pem()
}

fn check(text: &str, expected: &str) {
    let found = Credentials::parse(text).unwrap_err().to_string();
    assert!(found.contains(expected), "wanted `{expected}`, found `{found}`");
}

#[test]
fn a_file_is_read_as_it_is_written() {
    let key = IdentityKey::generate().unwrap();
    let written = Written {
        address: Some("ringway://engine.example.org:49135".parse().unwrap()),
        token: Some("a.b.c".to_owned()),
        key: Some(key.to_pem()),
        tls: Some(WrittenTls { pin: Some(CertificateFingerprint::of(b"x")), ..WrittenTls::default() }),
        ..Written::default()
    };
    let read = Credentials::parse(&written.to_text()).unwrap();
    assert_eq!((read.address, read.token), (written.address, written.token));
    assert_eq!(read.key.map(|key| key.public()), Some(key.public()));
    assert!(read.tls.is_some());
    let nothing = Credentials::parse("version = 1").unwrap();
    assert!(nothing.token.is_none() && nothing.tls.is_none() && !nothing.has_authentication());
}

#[test]
fn a_file_with_something_missing_or_too_much_is_refused() {
    let key = key_pem();
    check("", "missing field `version`");
    check("version = 2", "found version 2");
    check("version = 1\ntokn = 'a'", "unknown field `tokn`");
    check("version = 1\ntoken = 'a.b.c'", "`token` together with `key`");
    check(&format!("version = 1\nkey = '''\n{key}'''"), "`token` together with `key`");
    check("version = 1\ntoken = 'a.b.c'\nkey = 'none'", "wanted an Ed25519 private key");
    check("version = 1\naddress = 'http://x'", "wanted an address");
    check("version = 1\n[tls]", "either `ca` or `pin`");
    let pin = CertificateFingerprint::of(b"x");
    check(&format!("version = 1\n[tls]\npin = '{pin}'\nca = 'x'"), "either `ca` or `pin`");
    check("version = 1\n[tls]\nca = 'x'", "the authorities of servers as PEM");
    check("version = 1\n[tls]\npin = 'x'", "wanted a certificate's fingerprint");
    check(
        &format!("version = 1\n[tls]\npin = '{pin}'\ncertificate = 'x'"),
        "together with `certificate_key`",
    );
    check(&format!("version = 1\n[tls]\npin = '{pin}'\nserver_name = 'a b'"), "wanted a host name");
    check("version = 1\n\ntoken = 'never closed", "in line 3");
}

#[test]
fn no_error_and_no_debug_text_shows_a_secret() {
    let key = key_pem();
    let body = key.lines().nth(1).unwrap().to_owned();
    for text in [
        format!("version = 1\nkey = \"{body}"),
        format!("version = \"{body}\""),
        format!("version = 1\nkey = {body}"),
        format!("version = 1\ntoken = 1\nkey = '{body}'"),
        format!("version = 1\ntls = \"{body}\""),
        format!("version = 1\ntoken = 'a.b.c'\nkey = '{body}'"),
        format!("version = 1\n[tls]\nca = '{body}'"),
    ] {
        let error = Credentials::parse(&text).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(!told.contains(&body), "{told}");
    }
    let good = Credentials::default().with_token("the.whole.token", IdentityKey::from_pem(&key).unwrap());
    let told = format!("{good:?}");
    assert!(!told.contains("whole") && !told.contains(&body), "{told}");
    assert!(good.has_authentication());
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge-7.toml");
    crate::file::write_private(&path, "version = 1\n").unwrap();
    assert!(Credentials::from_file(&path).is_ok());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let found = Credentials::from_file(&path);
    assert!(matches!(found, Err(CredentialsError::File(FileError::OpenToOthers { mode: 0o640, .. }))));
}

proptest! {
    #[test]
    fn any_text_is_safe(text in "\\PC{0,200}", lines in prop::collection::vec(prop::sample::select(vec!["version = 1", "[tls]", "pin = 'x'", "token = ''", "key = 1", "é"]), 0..6)) {
        drop(Credentials::parse(&text));
        drop(Credentials::parse(&lines.join("\n")));
    }
}
