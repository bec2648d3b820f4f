//! `links.nats`: what is refused and where that stands, and engines that see each other through a real server by it.

use std::path::Path;

use ringway::{ErrorCode, Function, Worker};
use ringway_config::Settings;
use ringway_engine::Engine;
use ringway_store_nats::testing::Server;
use ringway_workers::{Workers, check_files};
use serde_json::{Value, json};

use crate::links::{read, refuses, until};
use crate::{call, client, engine};

/// An engine with its workers, at home in a folder.
struct Home {
    // Dropped in this order.
    client: Worker,
    workers: Workers,
    _engine: Engine,
    _folder: tempfile::TempDir,
}

fn file(folder: &Path, server: &str, name: &str, further: &str) -> Settings {
    let text = format!(
        "links:\n  name: {name}\n  nats:\n    servers: ['{server}']\n    offer: ['shop::*', 'links::*']\n    call: ['*']\n{further}"
    );
    read(folder, &text).unwrap()
}

impl Home {
    fn start(server: &str, name: &str, further: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = file(folder.path(), server, name, further);
        let engine = engine();
        let workers = Workers::start(engine.address(), &folder.path().join("store"), &settings).unwrap();
        Self { client: client(&engine), workers, _engine: engine, _folder: folder }
    }

    fn nats(&self) -> Value {
        call(&self.client, "links::list", &json!({}))["nats"].clone()
    }

    fn says(&self) -> String {
        self.workers.words().join("\n")
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str, expected: &str| refuses(folder.path(), text, expected);
    check("links: {nats: {}}\n", ":1:15: nothing would cross: wanted `call`");
    check(
        "links:\n  nats:\n    project: a.b\n    call: ['*']\n",
        ":3:14: wanted a project of 1 to 64 letters",
    );
    check(
        "links:\n  nats:\n    call: ['*']\n    servers: [localhost, 'nats://nats.example:4222']\n",
        ":4:26: wanted TLS and authentication for `nats://nats.example:4222`, which is not a loopback address, found neither",
    );
    check(
        "links:\n  nats:\n    call: ['*']\n    token: abc\n    servers: ['nats://nats.example']\n",
        ":5:15: wanted TLS and authentication for `nats://nats.example`, which is not a loopback address, found authentication alone",
    );
    check(
        "links: {nats: {call: ['*'], servers: ['http://a']}}\n",
        ":1:39: the address `http://a` cannot be used",
    );
    check("links: {nats: {call: ['*'], servers: []}}\n", ":1:38: wanted one server at least");
    check("links: {nats: {call: ['*'], user: me}}\n", ":1:35: wanted `user` and `password` together");
    check(
        "links: {nats: {call: ['*'], token: a, credentials: b}}\n",
        "wanted one of `credentials`, `user` and `token`",
    );
    check("links: {nats: {call: ['*'], tls: {key: b}}}\n", "wanted `certificate` and `key` together");
    check("links: {nats: {call: ['*'], server: a}}\n", "unknown key `server`; did you mean `servers`?");
    let good =
        "links: {nats: {call: ['*'], token: a, tls: {required: true}, servers: ['nats://nats.example']}}\n";
    let good = read(folder.path(), good).unwrap();
    assert!(check_files(&good).is_ok());
}

#[test]
fn files_and_projects_that_cannot_be_used_are_named_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let check = |before: &str, text: &str, expected: &str| {
        let text = format!("{before}links: {{nats: {{call: ['*'], {text}}}}}\n");
        let settings = read(folder.path(), &text).unwrap();
        let found = check_files(&settings).expect_err(&text).to_string();
        assert!(found.contains(expected), "{text}\n`{expected}` is not in\n{found}");
    };
    check("", "credentials: none.creds", "`links.nats.credentials`: cannot use");
    check("", "tls: {roots: none.pem}", "`links.nats.tls.roots`: cannot use");
    check("", "tls: {certificate: none.pem, key: none.key}", "`links.nats.tls.certificate`: cannot use");
    check(
        "engine: {project: 'my shop'}\n",
        "",
        "`links.nats.project` names another: wanted a project of 1 to 64 letters",
    );
    let named = "engine: {project: 'my shop'}\nlinks: {nats: {call: ['*'], project: shop}}\n";
    assert!(check_files(&read(folder.path(), named).unwrap()).is_ok());
}

#[test]
fn engines_of_one_project_call_what_is_offered_and_granted() {
    let server = Server::with("", "off");
    let (first, second) = (Home::start(&server.url(), "a", ""), Home::start(&server.url(), "b", ""));
    let stranger = Home::start(&server.url(), "c", "    project: other\n");
    assert!(
        first.says().contains("it sees engines of project default by NATS at nats://127.0.0.1:"),
        "{}",
        first.says()
    );
    let both = ["shop::sell", "vault::open"].map(|id| Function::json(id, |_, text: String| Ok(text)));
    first.client.register_all(both.into()).unwrap();
    assert_eq!(call(&second.client, "shop::sell", &json!("a")), "a");
    // What was not offered is not there, and each has its own built-in functions.
    assert_eq!(second.client.trigger_json("vault::open", &json!("a")).unwrap_err().code, ErrorCode::NotFound);
    let replicas = second.client.catalog().functions;
    assert_eq!(replicas.iter().filter(|function| function.id.as_str() == "links::list").count(), 1);
    assert_eq!(
        stranger.client.trigger_json("shop::sell", &json!("a")).unwrap_err().code,
        ErrorCode::NotFound
    );
    assert_eq!(stranger.nats()["engines"], json!([]));
    let listed = second.nats();
    assert_eq!((&listed["project"], &listed["servers"]), (&json!("default"), &json!(server.url())));
    assert!(listed["server"].as_str().unwrap().starts_with("test, version 2."), "{listed}");
    let engine = &listed["engines"][0];
    assert_eq!(
        (&engine["name"], &engine["heard"], &engine["linked"]),
        (&json!("a"), &json!(true), &json!(true))
    );
    let links = call(&first.client, "links::list", &json!({}))["links"].clone();
    assert_eq!((&links[0]["name"], &links[0]["host"]), (&json!("b"), &json!("NATS")));
    drop(first);
    until("the engine that left is gone", || second.nats()["engines"] == json!([]));
}

#[test]
fn an_engine_starts_without_its_server_and_says_so() {
    let mut server = Server::with("", "off");
    server.kill();
    let (first, second) = (Home::start(&server.url(), "a", ""), Home::start(&server.url(), "b", ""));
    assert!(
        first.says().contains("does not answer (IO error") && first.says().contains("are seen once it does"),
        "{}",
        first.says()
    );
    first.client.register(Function::json("shop::sell", |_, text: String| Ok(text))).unwrap();
    let listed = second.nats();
    assert!(
        listed["server"].is_null() && listed["why_not"].as_str().unwrap().contains("IO error"),
        "{listed}"
    );
    server.restart();
    assert_eq!(call(&second.client, "shop::sell", &json!("a")), "a");
    assert!(second.nats()["why_not"].is_null());
    server.kill();
    until("it is seen that the server is away", || second.nats()["server"].is_null());
}

#[test]
fn a_server_that_refuses_is_said_at_the_start() {
    let server = Server::with("authorization { user: me, password: right }", "off");
    let folder = tempfile::tempdir().unwrap();
    for (further, expected) in [
        ("", "refused the connection: authorization violation"),
        ("    user: me\n    password: wrong\n", "refused the connection: authorization violation"),
        ("    user: me\n    password: right\n    tls: {required: true}\n", "refused the connection: "),
    ] {
        let settings = file(folder.path(), &server.url(), "a", further);
        let engine = engine();
        let refused = Workers::start(engine.address(), &folder.path().join("store"), &settings).unwrap_err();
        let told = refused.to_string();
        let begin = format!("cannot start the worker `links`: `links.nats`: NATS at {} ", server.url());
        assert!(told.starts_with(&begin) && told.contains(expected), "{told}");
    }
    let right = Home::start(&server.url(), "a", "    user: me\n    password: right\n");
    assert!(right.nats()["server"].is_string());
}
