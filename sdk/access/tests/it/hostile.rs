//! A peer that says anything at all, at either end: each lie has a name, and none costs more than an error.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use ringway_access::handshake::{HandshakeError, connect, identify};
use ringway_access::limited::Limited;
use ringway_access::{Credentials, Doorkeeper, Grant};
use ringway_protocol::ErrorCode;
use serde_json::{Value, json};

use crate::stage::{
    Recorder, Script, clock, dial, frame, frame_of, meet, messages, near, serve, soon, worker,
};

fn open() -> Doorkeeper {
    Doorkeeper::default().with_open_loopback(Grant::everything())
}

/// What each end says in a handshake that goes well.
fn parts() -> (Vec<u8>, Vec<u8>) {
    let open = open();
    let (peer, recorder) = meet(
        |mut stream| serve(&mut stream, &open, &near()),
        |stream| {
            let mut recorder = Recorder::new(stream);
            dial(&mut recorder, &Credentials::default(), None).unwrap();
            recorder
        },
    );
    peer.unwrap();
    (recorder.said, recorder.heard)
}

/// What the server makes of a client that says this, and what it answers.
fn server_hears(says: Vec<u8>) -> (Result<(), HandshakeError>, Vec<Value>) {
    let mut script = Script::new(says);
    let found = serve(&mut script, &open(), &near()).map(|_| ());
    (found, messages(&script.hears))
}

fn client_hears(says: Vec<u8>) -> Result<(), HandshakeError> {
    dial(&mut Script::new(says), &Credentials::default(), None).map(|_| ())
}

#[test]
fn half_a_conversation_ends_with_the_connection() {
    let (said, heard) = parts();
    assert!(
        server_hears(said.clone()).0.is_ok() && client_hears(heard.clone()).is_ok(),
        "the parts are good"
    );
    for end in 0..said.len() {
        let (found, answers) = server_hears(said[..end].to_vec());
        let ended = matches!(found, Err(HandshakeError::Closed { .. } | HandshakeError::Torn { .. }));
        assert!(ended && answers.len() < 2, "{end}: {found:?} {answers:?}");
    }
    for end in 0..heard.len() {
        let found = client_hears(heard[..end].to_vec());
        let ended = matches!(found, Err(HandshakeError::Closed { .. } | HandshakeError::Torn { .. }));
        assert!(ended, "{end}: {found:?}");
    }
}

/// The hello of [`parts`], changed.
fn hello(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut message = messages(&parts().0).remove(0);
    change(&mut message["hello"]);
    frame(&message.to_string())
}

#[test]
fn each_lie_of_a_client_has_a_name_and_an_answer() {
    let check = |says: Vec<u8>, expected: &str, code: Option<ErrorCode>| {
        let (found, answers) = server_hears(says);
        let found = found.unwrap_err();
        assert!(format!("{found:?}").starts_with(expected), "wanted {expected}, found {found:?}");
        let answered = answers.last().map(|answer| answer["refused"]["error"]["code"].clone());
        assert_eq!(answered, code.map(|code| json!(code)), "{expected}");
        if let Some(code) = code {
            assert_eq!(found.to_call_error().code, code);
        }
    };
    let broken = Some(ErrorCode::ProtocolViolation);
    let version = Some(ErrorCode::IncompatibleVersion);
    check(b"GET / HTTP/1.1\r\n\r\n".to_vec(), "Magic", None);
    check(frame_of(2, "{}"), "Version { found: 2 }", version);
    check([b"RWLK\x01\0\x01\0", &[0; 4][..]].concat(), "Reserved", broken);
    check(b"RWLK\x01\0\0\0\xff\xff\xff\xff".to_vec(), "TooLong { limit: 4096, found: 4294967295 }", broken);
    check(b"RWLK\x01\0\0\0\x01\0\x01\0".to_vec(), "TooLong { limit: 4096, found: 65537 }", broken);
    check(frame(&" ".repeat(4097)), "TooLong", broken);
    check(frame(""), "Message", broken);
    check(frame("nonsense"), "Message", broken);
    check(frame("{\"hello\": "), "Message", broken);
    check(frame("{\"hello\": {}}"), "Message", broken);
    check(frame("{\"proof\": {}}"), "Message", broken);
    check(frame(&"[".repeat(4096)), "Message", broken);
    check(hello(|hello| hello["protocol"] = json!(99)), "Denied", version);
    check(hello(|hello| hello["protocol"] = json!(-1)), "Message", broken);
    check(hello(|hello| hello["nonce"] = json!("AAAA")), "Message", broken);
    check(hello(|hello| hello["me"]["id"] = json!("7")), "Message", broken);
    check(hello(|hello| hello["me"]["kind"] = json!("king")), "Message", broken);
    check(hello(|hello| hello["me"]["name"] = json!("")), "Field { field: \"name\"", broken);
    check(hello(|hello| hello["me"]["name"] = json!("\u{1b}[2J")), "Field { field: \"name\"", broken);
    check(hello(|hello| hello["me"]["name"] = json!("x".repeat(257))), "Field { field: \"name\"", broken);
    check(
        hello(|hello| hello["me"]["release"] = json!("x".repeat(65))),
        "Field { field: \"release\"",
        broken,
    );

    let then = |proof: Vec<u8>| [hello(|_| ()), proof].concat();
    let forbidden = Some(ErrorCode::Forbidden);
    check(then(hello(|_| ())), "Message", broken);
    check(then(frame(&" ".repeat(18 << 10))), "TooLong", broken);
    check(then(frame(r#"{"proof":{"token":7}}"#)), "Message", broken);
    check(then(frame(r#"{"proof":{"token":""}}"#)), "Denied", forbidden);
    check(then(frame(r#"{"proof":{"token":"a.b.c","signature":"!"}}"#)), "Denied", forbidden);
    check(
        then(frame(&json!({ "proof": { "token": "x".repeat(16 << 10) } }).to_string())),
        "Denied",
        forbidden,
    );
}

#[test]
fn an_error_says_nothing_of_what_a_wrong_message_held() {
    let (found, answers) = server_hears(frame(r#"{"hello":{"protocol":"a secret sent by mistake"}}"#));
    let told = format!("{} {answers:?}", found.unwrap_err());
    assert!(told.contains("another kind") && !told.contains("secret"), "{told}");
}

/// What the client makes of the server's two messages, changed.
fn told(challenge: impl FnOnce(&mut Value), answer: impl FnOnce(&mut Value)) -> Result<(), HandshakeError> {
    let mut said = messages(&parts().1);
    challenge(&mut said[0]);
    answer(&mut said[1]);
    client_hears(said.iter().flat_map(|message| frame(&message.to_string())).collect())
}

#[test]
fn each_lie_of_a_server_has_a_name() {
    let check = |found: Result<(), HandshakeError>, expected: &str| {
        let found = found.unwrap_err();
        assert!(format!("{found:?}").starts_with(expected), "wanted {expected}, found {found:?}");
    };
    assert!(told(|_| (), |_| ()).is_ok());
    check(client_hears(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), "Magic");
    check(client_hears(frame_of(3, "{}")), "Version");
    check(client_hears(b"RWLK\x01\0\0\0\x01\0\x01\0".to_vec()), "TooLong { limit: 65536, found: 65537 }");
    check(told(|said| *said = json!({ "challenge": {} }), |_| ()), "Message");
    check(told(|said| *said = json!({ "challenge": { "nonce": "" } }), |_| ()), "Message");
    check(told(|_| (), |said| *said = json!(null)), "Message");
    check(told(|_| (), |said| said["accepted"]["me"]["name"] = json!("a\u{7}b")), "Field");
    check(told(|_| (), |said| said["accepted"]["link"] = json!(-1)), "Message");
    check(told(|_| (), |said| said["accepted"]["grant"] = json!({ "unheard_of": 1 })), "Message");
    let (_, heard) = parts();
    let [challenge, answer] = <[Value; 2]>::try_from(messages(&heard)).unwrap();
    let out_of_turn = [&answer, &challenge].map(|message| frame(&message.to_string())).concat();
    check(client_hears(out_of_turn), "Message");
    let twice = [&challenge, &challenge].map(|message| frame(&message.to_string())).concat();
    check(client_hears(twice), "Message");
    check(client_hears(frame(r#"{"refused":{"error":{"code":"draining"}}}"#)), "Refused");
    let found =
        client_hears(frame(r#"{"refused":{"error":{"code":"forbidden","message":"no\u001b[2J\nway"}}}"#));
    assert_eq!(found.unwrap_err().to_string(), "the server refused the link: forbidden: no[2Jway");
}

#[test]
fn a_silent_peer_and_one_that_drips_end_at_the_deadline() {
    let deadline = || Instant::now() + Duration::from_millis(50);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut limited = Limited::new(ours, deadline());
    let found = identify(&mut limited, &open(), &near(), &clock, deadline()).map(|_| ());
    assert!(matches!(found, Err(HandshakeError::DeadlinePassed { wanted: "a hello" })), "{found:?}");

    let (said, heard) = parts();
    let drip = |mut stream: UnixStream, bytes: &[u8]| {
        for byte in bytes.chunks(1) {
            if stream.write_all(byte).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let (found, ()) = meet(
        |stream| {
            let deadline = deadline();
            identify(&mut Limited::new(stream, deadline), &open(), &near(), &clock, deadline).map(|_| ())
        },
        |stream| drip(stream, &said),
    );
    assert!(matches!(found, Err(HandshakeError::DeadlinePassed { .. })), "{found:?}");
    let ((), found) = meet(
        |stream| drip(stream, &heard),
        |stream| {
            let deadline = deadline();
            let mut stream = Limited::new(stream, deadline);
            connect(&mut stream, &worker(), &Credentials::default(), None, &clock, deadline).map(|_| ())
        },
    );
    assert!(matches!(found, Err(HandshakeError::DeadlinePassed { .. })), "{found:?}");
    // Both said nothing that was not so.
    assert!(
        connect(&mut Script::new(heard), &worker(), &Credentials::default(), None, &clock, soon()).is_ok()
    );
}

/// JSON that looks a little like a handshake's.
fn some_json() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "hello",
        "proof",
        "challenge",
        "accepted",
        "refused",
        "me",
        "id",
        "name",
        "nonce",
        "clock",
        "token",
        "grant",
        "error",
        "code",
        "limits",
        "signature",
        "kind",
        "worker",
        "protocol",
    ]);
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<i64>().prop_map(|number| json!(number)),
        words.clone().prop_map(|word| json!(word)),
        "\\PC{0,50}".prop_map(|text| json!(text)),
    ];
    let value = leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|values| json!(values)),
            prop::collection::hash_map(words.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| json!(map)),
        ]
    });
    value.prop_map(|value| value.to_string())
}

proptest! {
    #[test]
    fn any_bytes_and_any_json_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200), first in some_json(), second in some_json()) {
        prop_assert!(server_hears(bytes.clone()).0.is_err());
        prop_assert!(client_hears(bytes.clone()).is_err());
        let framed = [frame(&first), frame(&second), bytes].concat();
        prop_assert!(server_hears(framed.clone()).0.is_err());
        prop_assert!(client_hears(framed).is_err());
    }

    #[test]
    fn one_changed_byte_lets_nobody_in_who_was_not(place in 0usize..2000, byte in any::<u8>()) {
        // Nobody is let in without credentials here, whatever is changed of what they say.
        let (mut said, mut heard) = parts();
        let index = place % said.len();
        said[index] = byte;
        let refused = serve(&mut Script::new(said), &Doorkeeper::default(), &near());
        prop_assert!(refused.is_err());
        let index = place % heard.len();
        heard[index] = byte;
        drop(client_hears(heard));
    }
}
