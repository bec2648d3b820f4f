//! The section `links`: what is refused and where that stands, and an engine that remote workers reach by it.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringway::{Credentials, ErrorCode, Function, Worker};
use ringway_access::Grant;
use ringway_access::file::write_private;
use ringway_access::issue::{Authority, ClientFiles, ClientRequest};
use ringway_config::{Settings, Variables};
use ringway_workers::{Workers, check_files, sections};
use serde_json::{Value, json};

use crate::{call, client, engine};

const PATIENCE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Writes a file of settings and reads it.
pub(crate) fn read(folder: &Path, text: &str) -> Result<Settings, String> {
    let path = folder.join("ringway.yaml");
    std::fs::write(&path, text).unwrap();
    Settings::read(&path, &sections(), &Variables::default())
        .map_err(|problems| problems.to_string().replace(&*folder.to_string_lossy(), ""))
}

/// A file of settings is refused with these words among others.
pub(crate) fn refuses(folder: &Path, text: &str, expected: &str) {
    let found = read(folder, text).expect_err(text);
    assert!(found.contains(expected), "{text}\n`{expected}` is not in\n{found}");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str, expected: &str| refuses(folder.path(), text, expected);
    check(
        "links: {}\n",
        "ringway.yaml:1:8: wanted `listen`, where others dial, `peers`, which are dialled, or `nats`",
    );
    check("links:\n  listen: 127.0.0.1\n", ":2:11: nobody would be let in: wanted `issuers`");
    check("links:\n  listen: somewhere\n", ":2:11: wanted an IP address to listen at, such as 127.0.0.1");
    check(
        "links: {listen: 49135, open: {}}\n",
        ":1:17: wanted an IP address to listen at, such as 127.0.0.1",
    );
    check(
        "links:\n  open: {}\n  listen: 0.0.0.0:7\n",
        ":3:11: wanted TLS and authentication for `ringway://0.0.0.0:7`, which is not a loopback address, found neither",
    );
    check(
        "links:\n  tls: {certificate: a, key: b}\n  listen: 0.0.0.0\n",
        ":3:11: wanted TLS and authentication for `ringway://0.0.0.0:49135`, which is not a loopback address, found TLS alone",
    );
    let key = "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE";
    check(
        &format!("links:\n  issuers: ['{key}']\n  listen: '::'\n"),
        ":3:11: wanted TLS and authentication for `ringway://[::]:49135`, which is not a loopback address, found \
         authentication alone",
    );
    check(
        "links:\n  issuers:\n    - ed25519:short\n",
        ":3:7: wanted a public key such as `ed25519:` and 43 letters",
    );
    check(
        "links: {listen: localhost, open: {}, revoked: r}\n",
        ":1:47: this means something with `issuers` only",
    );
    check(
        "links:\n  listen: localhost\n  certificates:\n    - {common_name: a, grant: {}}\n",
        ":4:5: no client is asked for a certificate: wanted `tls.client_authorities`",
    );
    check(
        "links:\n  listen: localhost\n  tls: {certificate: a, key: b, client_authorities: c}\n  certificates:\n    - \
         {grant: {}}\n",
        ":5:7: wanted either `fingerprint` or `common_name`",
    );
    check(
        "links:\n  certificates:\n    - {fingerprint: 'sha256:00', grant: {}}\n",
        ":3:21: wanted a certificate's fingerprint",
    );
    check("links: {listen: localhost, open: {cal: [a]}}\n", "unknown key `cal`; did you mean `call`?");
    check(
        "links: {listen: localhost, open: {}, ping_ms: 20000}\n",
        ":1:47: wanted less than `silence_ms`, which is 2500",
    );
    check(
        "links: {listen: localhost, open: {}, path: uring}\n",
        "unknown word `uring`; known are `epoll`, `io_uring`, `probe`",
    );
    check("links: {listen: localhost, open: {}, memory_bytes: 1}\n", ":1:52: this is out of bounds");
    check(
        "links:\n  peers:\n    - {address: 'ringway://b.example:49135', call: ['*']}\n",
        ":3:17: wanted TLS and authentication for `ringway://b.example:49135`",
    );
    check(
        "links:\n  peers:\n    - {address: 'b.example:49135', call: ['*']}\n",
        ":3:17: wanted an address such as",
    );
    check(
        "links:\n  peers:\n    - {address: 'ringway://localhost:1'}\n",
        ":3:7: this link would carry nothing",
    );
    let peer = "{address: 'ringway://localhost:1', call: [a]}";
    check(&format!("links:\n  peers: [{peer}, {peer}]\n"), "this engine is dialled already");
}

#[test]
fn files_that_cannot_be_used_are_named_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str, expected: &str| {
        let settings = read(folder.path(), &format!("links: {{listen: localhost, {text}}}\n")).unwrap();
        let found = check_files(&settings).expect_err(text).to_string();
        assert!(found.contains(expected), "{text}\n`{expected}` is not in\n{found}");
        let engine = engine();
        assert!(Workers::start(engine.address(), &folder.path().join("store"), &settings).is_err());
    };
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    check("open: {}, tls: {certificate: none.pem, key: none.key}", "`links.tls`: cannot use");
    write("bad", "# none\n");
    check("issuers: [bad]", "`links.issuers`: wanted a public key in");
    write("bad", "\nkey\n");
    check("issuers: [bad]", "in line 2");
    check("issuers: [nowhere]", "`links.issuers`: cannot use");
    write("keys", "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE # the first\n");
    check("issuers: [keys], revoked: nowhere", "`links.revoked`: cannot use");
    write("revoked", "a b\n");
    check("issuers: [keys], revoked: revoked", "`links.revoked`: wanted one token id in line 1");
    write("open.toml", "version = 1\n");
    let peers = "open: {}, peers: [{address: 'ringway://b.example:1', call: [a], credentials: open.toml}]";
    check(peers, "found mode");
    write_private(&folder.path().join("own.toml"), "version = 1\n").unwrap();
    let peers = "open: {}, peers: [{address: 'ringway://b.example:1', call: [a], credentials: own.toml}]";
    check(peers, "own.toml: wanted TLS and authentication for `ringway://b.example:1`");
    assert!(check_files(&read(folder.path(), "").unwrap()).is_ok());
}

/// The address at which the engine's links listen.
fn dialled(client: &Worker) -> String {
    let answer = call(client, "links::list", &json!({}));
    format!("ringway://{}", answer["address"].as_str().unwrap())
}

fn serve(worker: &Worker) {
    let both = ["shop::sell", "vault::open"].map(|id| Function::json(id, |_, text: String| Ok(text)));
    worker.register_all(both.into()).unwrap();
}

#[test]
fn this_hosts_own_are_let_in_without_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let settings = read(
        folder.path(),
        "links:\n  name: home\n  listen: 127.0.0.1:0\n  path: epoll\n  open: {call: ['shop::*'], offer: ['edge::*']}\n",
    );
    let engine = engine();
    let workers = Workers::start(engine.address(), &folder.path().join("store"), &settings.unwrap()).unwrap();
    let local = client(&engine);
    serve(&local);
    let remote = Worker::builder("edge-7")
        .address(dialled(&local))
        .credentials(Credentials::default())
        .connect()
        .unwrap();
    assert_eq!(call(&remote, "shop::sell", &json!("a")), "a");
    let refused = remote.trigger_json("vault::open", &json!("a")).unwrap_err();
    assert!(matches!(refused.code, ErrorCode::NotFound | ErrorCode::Forbidden), "{refused}");
    remote.register(Function::json("edge::read", |_, (): ()| Ok(7))).unwrap();
    assert_eq!(call(&local, "edge::read", &Value::Null), 7);
    let refused = remote.register(Function::json("shop::buy", |_, (): ()| Ok(7))).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Forbidden, "{refused}");
    let listed = call(&local, "links::list", &json!({}));
    let link = &listed["links"][0];
    assert_eq!(
        (&listed["path"], &link["name"], &link["kind"]),
        (&json!("epoll"), &json!("edge-7"), &json!("worker"))
    );
    assert_eq!((&link["worker"], &link["token"]), (&json!(remote.id().to_string()), &Value::Null));
    workers.shut_down();
    until("the remote worker is gone", || local.trigger_json("edge::read", &Value::Null).is_err());
}

/// A folder with what an engine with TLS and tokens wants, and its file of settings.
fn secured(folder: &Path) -> (Authority, Settings) {
    let authority = Authority::new("links", now_s(), DAY).unwrap();
    let server = authority.server("home", &["127.0.0.1"], now_s(), DAY).unwrap();
    let write = |name: &str, text: &str| write_private(&folder.join(name), text).unwrap();
    write("server.pem", &server.certificate);
    write("server.key", &server.key);
    write("issuers", &format!("{}\n", authority.issuer().public()));
    write("revoked", "");
    let text = "links:\n  listen: 127.0.0.1:0\n  tls: {certificate: server.pem, key: server.key}\n  issuers: [issuers]\n  \
                revoked: revoked\n";
    (authority, read(folder, text).unwrap())
}

#[test]
fn two_engines_call_each_others_functions() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (authority, _) = secured(here.path());
    let file = here.path().join("ringway.yaml");
    let text = std::fs::read_to_string(&file).unwrap() + "  name: a\n  offer: ['shop::*', 'links::*']\n";
    let first = engine();
    let settings = read(here.path(), &text).unwrap();
    let _first = Workers::start(first.address(), &here.path().join("store"), &settings).unwrap();
    let shop = client(&first);
    serve(&shop);
    let grant = Grant::default().with_call("*").with_offer("edge::*");
    let made = credentials_for(&authority, "b", grant);
    write_private(&there.path().join("b.toml"), &made.credentials).unwrap();
    let address = dialled(&shop);
    let settings = read(
        there.path(),
        &format!(
            "links:\n  name: b\n  peers:\n    - {{address: '{address}', credentials: b.toml, call: ['*'], offer: ['*']}}\n"
        ),
    );
    let second = engine();
    let settings = settings.unwrap();
    let _second = Workers::start(second.address(), &there.path().join("store"), &settings).unwrap();
    let edge = client(&second);
    let both = ["edge::read", "other::read"].map(|id| Function::json(id, |_, (): ()| Ok(7)));
    edge.register_all(both.into()).unwrap();
    assert_eq!(call(&edge, "shop::sell", &json!("a")), "a");
    assert_eq!(call(&shop, "edge::read", &Value::Null), 7);
    // What was not offered, or not granted, is not there; and each has its own built-in functions.
    assert_eq!(edge.trigger_json("vault::open", &json!("a")).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(shop.trigger_json("other::read", &Value::Null).unwrap_err().code, ErrorCode::NotFound);
    let kinds = |client: &Worker| call(client, "links::list", &json!({}))["links"][0]["kind"].clone();
    assert_eq!((kinds(&shop), kinds(&edge)), (json!("engine"), json!("engine")));
    let replicas = edge.catalog().functions;
    assert_eq!(replicas.iter().filter(|function| function.id.as_str() == "links::list").count(), 1);
}

fn credentials(authority: &Authority, name: &str) -> ClientFiles {
    credentials_for(authority, name, Grant::default().with_call("shop::*"))
}

fn credentials_for(authority: &Authority, name: &str, grant: Grant) -> ClientFiles {
    let wanted = ClientRequest {
        name,
        grant,
        address: None,
        server_name: None,
        pin: None,
        with_certificate: false,
        lifetime: DAY,
    };
    authority.client(&wanted, now_s()).unwrap()
}

#[test]
fn a_token_that_is_revoked_ends_with_its_link() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, settings) = secured(folder.path());
    let engine = engine();
    let _workers = Workers::start(engine.address(), &folder.path().join("store"), &settings).unwrap();
    let local = client(&engine);
    serve(&local);
    let address = dialled(&local);
    let dial = |files: &ClientFiles| {
        let credentials = Credentials::parse(&files.credentials).unwrap();
        Worker::builder("edge").address(&address).credentials(credentials).without_reconnect().connect()
    };
    let (one, two) = (credentials(&authority, "one"), credentials(&authority, "two"));
    let (first, second) = (dial(&one).unwrap(), dial(&two).unwrap());
    assert_eq!(call(&first, "shop::sell", &json!("a")), "a");
    assert_eq!(call(&second, "shop::sell", &json!("b")), "b");
    let tokens = || -> Vec<String> {
        let answer = call(&local, "links::list", &json!({}));
        let links = answer["links"].as_array().unwrap().iter();
        links.map(|link| link["token"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(tokens().len(), 2);
    std::fs::write(folder.path().join("revoked"), format!("{} # lost\n", one.token_id)).unwrap();
    until("the link of the revoked token is closed", || tokens() == [two.token_id.clone()]);
    assert_eq!(call(&second, "shop::sell", &json!("b")), "b");
    let refused = dial(&one).unwrap_err();
    assert!(refused.code == ErrorCode::Forbidden && refused.to_string().contains("was revoked"), "{refused}");
    // A list that is gone takes nothing back.
    std::fs::remove_file(folder.path().join("revoked")).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(dial(&one).unwrap_err().code, ErrorCode::Forbidden);
    let stranger = credentials(&Authority::new("others", now_s(), DAY).unwrap(), "one");
    let refused = dial(&stranger).unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
}
