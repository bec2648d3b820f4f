//! Who is let in and who is not, without TLS.

use std::time::Duration;

use ringway_access::doorkeeper::Identity;
use ringway_access::handshake::{HandshakeError, PeerKind, identify};
use ringway_access::issue::ClientRequest;
use ringway_access::token::{Claims, Revocations};
use ringway_access::{Credentials, Doorkeeper, Grant, IdentityKey};
use ringway_protocol::{CallError, ErrorCode};

use crate::stage::{
    Recorder, Script, authority, clock, credentials, dial, doorkeeper, engine, far, meet, messages, near,
    now_s, request, serve, shake, soon, worker,
};

#[test]
fn the_holder_of_a_token_is_let_in_and_both_know_each_other() {
    let authority = authority();
    let made = authority.client(&request("edge-7"), now_s()).unwrap();
    let shown = Credentials::parse(&made.credentials).unwrap();
    let (peer, accepted) = shake(&doorkeeper(&authority), &far(), &shown);
    let (peer, accepted) = (peer.unwrap(), accepted.unwrap());
    assert_eq!(peer.introduction, worker());
    let issuer = authority.issuer().public().fingerprint();
    let identity = Identity::Token { id: made.token_id, subject: "edge-7".to_owned(), issuer };
    assert_eq!((peer.identity, peer.expires_s), (identity, Some(made.expires_s)));
    assert!(
        peer.grant.may_call("default", "orders::validate") && !peer.grant.may_call("default", "admin::drop")
    );
    assert_eq!((peer.clock.monotonic_ns, peer.heard.monotonic_ns), (7, 7));
    assert_eq!((accepted.server, accepted.link), (engine(), 42));
    assert_eq!(accepted.limits["frame_bytes_max"], 1024);
    assert_eq!(accepted.grant, peer.grant);
    assert_eq!(accepted.server_clock.monotonic_ns, 7);
}

/// Both ends say no, the client with the server's words, under `forbidden`.
fn check_refused(doorkeeper: &Doorkeeper, shown: &Credentials, expected: &str) {
    let (peer, accepted) = shake(doorkeeper, &far(), shown);
    let Err(HandshakeError::Denied(denied)) = peer else { panic!("wanted a refusal, found {peer:?}") };
    let Err(HandshakeError::Refused(refused)) = accepted else {
        panic!("wanted a refusal, found {accepted:?}")
    };
    assert_eq!(denied, refused);
    assert_eq!(refused.code, ErrorCode::Forbidden);
    assert!(refused.message.contains(expected), "wanted `{expected}`, found `{}`", refused.message);
}

#[test]
fn a_token_that_does_not_hold_is_refused_with_the_reason() {
    let authority = authority();
    let shown = credentials(&authority, &request("edge-7"));
    let known = doorkeeper(&authority);
    check_refused(&Doorkeeper::default(), &shown, "a known issuer");
    check_refused(&doorkeeper(&crate::stage::authority()), &shown, "a known issuer");
    let made = authority.client(&request("edge-7"), now_s()).unwrap();
    let revoked = known.clone().with_revocations(Revocations::parse(&made.token_id).unwrap());
    check_refused(&revoked, &Credentials::parse(&made.credentials).unwrap(), "was revoked");
    let short = ClientRequest { lifetime: Duration::ZERO, ..request("edge-7") };
    check_refused(&known, &credentials(&authority, &short), "expired at");
    let key = IdentityKey::generate().unwrap();
    let late =
        Claims::new("edge-7", key.public(), Grant::everything(), now_s() + 1000, Duration::from_secs(60));
    let late = late.unwrap().sign(authority.issuer()).unwrap();
    check_refused(&known, &Credentials::default().with_token(&late, key), "holds from");
    let thief = IdentityKey::generate().unwrap();
    let stolen = Credentials::default().with_token(&shown.token.unwrap(), thief);
    check_refused(&known, &stolen, "somebody who did not sign this handshake");
    check_refused(&known, &Credentials::default(), "found neither");
    check_refused(&known.with_open_loopback(Grant::everything()), &Credentials::default(), "found neither");
}

#[test]
fn peers_without_credentials_come_over_loopback_where_that_is_set() {
    let open = Doorkeeper::default().with_open_loopback(Grant::default().with_offer("edge::*"));
    let (peer, accepted) = shake(&open, &near(), &Credentials::default());
    assert_eq!(peer.unwrap().identity, Identity::Open);
    assert!(accepted.unwrap().grant.may_offer("default", "edge::read"));
    let (peer, _) = shake(&Doorkeeper::default(), &near(), &Credentials::default());
    assert!(matches!(peer, Err(HandshakeError::Denied(_))), "{peer:?}");
}

#[test]
fn a_recorded_conversation_is_good_for_one_connection() {
    let authority = authority();
    let (known, shown) = (doorkeeper(&authority), credentials(&authority, &request("edge-7")));
    let (first, said) = meet(
        |mut stream| serve(&mut stream, &known, &far()),
        |stream| {
            let mut recorder = Recorder::new(stream);
            dial(&mut recorder, &shown, None).unwrap();
            recorder.said
        },
    );
    first.unwrap();
    let mut replay = Script::new(said);
    let second = serve(&mut replay, &known, &far());
    let Err(HandshakeError::Denied(error)) = second else { panic!("the replay was let in: {second:?}") };
    assert!(error.message.contains("did not sign this handshake"), "{error}");
    let answers = messages(&replay.hears);
    assert_eq!(answers[1]["refused"]["error"]["code"], "forbidden");
}

#[test]
fn a_token_whose_hello_was_changed_on_the_way_is_refused() {
    let authority = authority();
    let (known, shown) = (doorkeeper(&authority), credentials(&authority, &request("edge-7")));
    // Of the same length, so that the frame stays one.
    let changed = Changing { from: b"edge-7", to: b"edge-8" };
    let (peer, accepted) = meet(
        |mut stream| serve(&mut stream, &known, &far()),
        |stream| dial(&mut Altered { stream, changed }, &shown, None),
    );
    assert!(matches!(peer, Err(HandshakeError::Denied(_))), "{peer:?}");
    assert!(matches!(accepted, Err(HandshakeError::Refused(_))), "{accepted:?}");
}

#[derive(Clone, Copy)]
struct Changing {
    from: &'static [u8],
    to: &'static [u8],
}

/// Somebody in between who changes what is said.
struct Altered<S> {
    stream: S,
    changed: Changing,
}

impl<S: std::io::Read> std::io::Read for Altered<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl<S: std::io::Write> std::io::Write for Altered<S> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let mut bytes = buffer.to_vec();
        let Changing { from, to } = self.changed;
        if let Some(place) = bytes.windows(from.len()).position(|part| part == from) {
            bytes[place..place + to.len()].copy_from_slice(to);
        }
        self.stream.write(&bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn a_peer_with_a_good_token_can_still_be_refused() {
    let authority = authority();
    let (known, shown) = (doorkeeper(&authority), credentials(&authority, &request("edge-7")));
    let (kind, accepted) = meet(
        |mut stream| {
            let candidate = identify(&mut stream, &known, &far(), &clock, soon()).unwrap();
            let kind = candidate.peer().introduction.kind;
            candidate.refuse(&mut stream, CallError::draining("engine")).unwrap();
            kind
        },
        |mut stream| dial(&mut stream, &shown, None),
    );
    assert_eq!(kind, PeerKind::Worker);
    assert!(matches!(accepted, Err(HandshakeError::Refused(error)) if error.code == ErrorCode::Draining));
}

#[test]
fn a_token_without_its_key_is_not_shown() {
    let mut shown = credentials(&authority(), &request("edge-7"));
    shown.key = None;
    let (peer, accepted) = shake(&Doorkeeper::default(), &far(), &shown);
    assert!(matches!(accepted, Err(HandshakeError::KeyMissing)), "{accepted:?}");
    assert!(matches!(peer, Err(HandshakeError::Closed { wanted: "a proof" })), "{peer:?}");
}
