//! `ringway link`: what it makes is used as it was printed, nothing is written over, and what is wrong is said in plain words.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ringway::{Credentials, ErrorCode, Function, Worker};
use ringway_store_nats::testing::Server;
use serde_json::{Value, json};

use crate::host::{Ran, address, ringway};
use crate::settings::Up;

const PATIENCE: Duration = Duration::from_secs(20);

/// The part of `ringway.yaml` that keeps other listeners from running.
const QUIET: &str = "workers: {http: false, stream-socket: false, iii: false}\n";

fn link(folder: &Path, arguments: &[&str]) -> Ran {
    Ran::of(ringway().current_dir(folder).arg("link").args(arguments))
}

/// A port that nobody listens at.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The lines of an output from the one that begins so to the next empty one.
fn part(text: &str, begin: &str) -> String {
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with(begin)).collect();
    let end = lines.iter().position(|line| line.is_empty()).unwrap_or(lines.len());
    lines[..end].join("\n") + "\n"
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_printed_is_used_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let host = format!("127.0.0.1:{}", port());
    let made =
        link(folder.path(), &["new", "edge-7", "--host", &host, "--call", "shop::*", "--offer", "edge::*"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    std::fs::write(folder.path().join("ringway.yaml"), part(&made.out, "links:") + QUIET).unwrap();
    let variables = part(&made.out, "RINGWAY_SOCKET=");
    let variables: Vec<(&str, &str)> = variables.lines().map(|line| line.split_once('=').unwrap()).collect();
    let [("RINGWAY_SOCKET", socket), ("RINGWAY_CREDENTIALS", file)] = variables[..] else {
        panic!("{variables:?}")
    };
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);

    Ran::of(ringway().current_dir(folder.path()).args(["config", "check"])).prints("ringway.yaml is good\n");
    let up = Up::start(&["--data", "data"], folder.path());
    let shop = Worker::builder("shop").address(&up.address).connect().unwrap();
    let both = ["shop::sell", "vault::open"].map(|id| Function::json(id, |_, text: String| Ok(text)));
    shop.register_all(both.into()).unwrap();
    let credentials = Credentials::from_file(Path::new(file)).unwrap();
    let edge = Worker::builder("edge-7").address(socket).credentials(credentials).connect().unwrap();
    edge.wait_for("shop::sell", PATIENCE).unwrap();
    assert_eq!(edge.trigger_json("shop::sell", &json!("a")).unwrap(), "a");
    let refused = edge.trigger_json("vault::open", &json!("a")).unwrap_err();
    assert!(matches!(refused.code, ErrorCode::NotFound | ErrorCode::Forbidden), "{refused}");
    edge.register(Function::json("edge::read", |_, (): ()| Ok(7))).unwrap();
    shop.wait_for("edge::read", PATIENCE).unwrap();
    assert_eq!(shop.trigger_json("edge::read", &Value::Null).unwrap(), 7);
    let refused = edge.register(Function::json("shop::steal", |_, (): ()| Ok(7))).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Forbidden, "{refused}");

    let listed = up.run(&["link", "list", "--json"]).json();
    let token = listed["links"][0]["token"].as_str().unwrap();
    assert_eq!((&listed["links"][0]["name"], &listed["address"]), (&json!("edge-7"), &json!(host)));
    let shown = up.run(&["link", "list"]);
    assert!(
        shown.out.contains(token) && shown.out.starts_with(&format!("dialled at {socket}, ")),
        "{shown:?}"
    );
    let tried = Ran::of(ringway().envs(variables.iter().copied()).args(["link", "test", "--json"])).json();
    assert_eq!(tried["grant"], json!({"call": ["shop::*"], "offer": ["edge::*"], "namespaces": ["default"]}));
    assert!(tried["round_trip_ns"].as_u64().unwrap() > 0 && tried["encrypted"] == true, "{tried}");
    // The whole program works from elsewhere, within what is granted.
    let called = ringway()
        .envs(variables.iter().copied())
        .args(["trigger", "shop::sell", "--json", "\"b\""])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&called.stdout), "\"b\"\n", "{called:?}");
    let doctor = Ran::of(ringway().envs(variables.iter().copied()).args(["doctor"]));
    assert!(doctor.out.contains("one on another host answers at"), "{doctor:?}");

    let revoked = link(folder.path(), &["revoke", token]);
    assert_eq!((revoked.code, revoked.out), (Some(0), format!("{token} is revoked\n")));
    until("its links are closed", || up.run(&["link", "list", "--json"]).json()["links"] == json!([]));
    let refused = Ran::of(ringway().envs(variables.iter().copied()).args(["link", "test"]));
    refused.fails(4, &["forbidden: the token", "was revoked", "make a new one with `ringway link new`"]);
    link(folder.path(), &["revoke", token]).prints_first(&format!("{token} was revoked before\n"));
    drop((edge, shop));
    up.stop();
}

#[test]
fn what_is_made_is_told_as_json_and_read_by_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "new",
        "b",
        "--engine",
        "--host",
        "a.example:7",
        "--call",
        "shop::*",
        "--offer",
        "edge::*",
        "--triggers",
        "cron",
        "--namespace",
        "default",
        "--valid",
        "1h",
        "--json",
    ];
    let made = link(folder.path(), &words).json();
    let (token, now_s) = (made["token"].as_str().unwrap(), ringway_ipc::clock::unix_ns() / 1_000_000_000);
    assert!(token.len() == 32 && made["expires_s"].as_u64().unwrap() <= now_s + 3600, "{made}");
    let written: Vec<&str> = made["written"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    let expected = [
        "authority.key",
        "authority.pem",
        "issuer.key",
        "server-a.example.key",
        "server-a.example.pem",
        "revoked",
        "issued",
        "b.toml",
    ];
    assert_eq!(written, expected);
    let check = |text: &str| {
        let file = folder.path().join("ringway.yaml");
        std::fs::write(&file, text).unwrap();
        Ran::of(ringway().current_dir(folder.path()).args(["config", "check"]))
            .prints("ringway.yaml is good\n");
        text.replace(&*folder.path().to_string_lossy(), "FOLDER")
            .replace(made["issuer"].as_str().unwrap(), "ISSUER")
    };
    assert_eq!(
        check(made["server_settings"].as_str().unwrap()),
        "links:\n  listen: \"0.0.0.0:7\"\n  tls:\n    certificate: \"FOLDER/ringway-links/server-a.example.pem\"\n    key: \
         \"FOLDER/ringway-links/server-a.example.key\"\n  issuers: [\"ISSUER\"]\n  revoked: \"FOLDER/ringway-links/revoked\"\n  \
         offer: [\"shop::*\"]\n"
    );
    assert_eq!(
        check(made["client_settings"].as_str().unwrap()),
        "links:\n  peers:\n    - address: \"ringway://a.example:7\"\n      credentials: \"FOLDER/ringway-links/b.toml\"\n      \
         call: [\"shop::*\"]\n      offer: [\"edge::*\"]\n"
    );
    // A second one for the same server wants nothing but its own file.
    let again =
        link(folder.path(), &["new", "c", "--host", "a.example:7", "--call", "shop::*", "--json"]).json();
    assert_eq!(again["written"].as_array().unwrap().len(), 1, "{again}");
    assert_eq!(again["issuer"], made["issuer"]);
}

#[test]
fn nothing_is_written_over_and_nothing_is_made_of_wrong_words() {
    let folder = tempfile::tempdir().unwrap();
    let refused =
        |arguments: &[&str], code: i32, words: &[&str]| link(folder.path(), arguments).fails(code, words);
    refused(&["new", "a"], 2, &["wanted at least one of --call, --offer and --triggers"]);
    refused(&["new", "a b", "--call", "x"], 2, &["wanted a name of letters", "found `a b`"]);
    refused(&["new", "../a", "--call", "x"], 2, &["wanted a name of letters"]);
    refused(&["new", "a", "--call", "x y"], 2, &["without blanks"]);
    refused(
        &["new", "a", "--call", "x", "--host", "0.0.0.0"],
        2,
        &["nobody can dial `ringway://0.0.0.0:49135`"],
    );
    refused(
        &["new", "a", "--call", "x", "--host", "http://a"],
        2,
        &["wanted a host such as engine.example.org"],
    );
    refused(
        &["new", "a", "--call", "x", "--valid", "soon"],
        2,
        &["wanted a time such as 12h, 90d or 1y, found `soon`"],
    );
    refused(&["revoke", "x"], 3, &["there are no links in", "--directory"]);
    assert_eq!(link(folder.path(), &["new", "a", "--call", "x"]).code, Some(0));
    let file = folder.path().join("ringway-links/a.toml");
    let before = std::fs::read(&file).unwrap();
    refused(
        &["new", "a", "--call", "x"],
        1,
        &["a.toml is there already, and nothing is written over", "choose another name"],
    );
    assert_eq!(std::fs::read(&file).unwrap(), before);
    refused(&["revoke", "a"], 2, &["`a` is a name; its tokens are "]);
    refused(&["revoke", "a b"], 2, &["wanted the id of a token"]);
    refused(&["revoke", "0123"], 3, &["no token `0123` was made in"]);
    std::fs::remove_file(folder.path().join("ringway-links/authority.pem")).unwrap();
    refused(&["new", "b", "--call", "x"], 1, &["a part of the authority is missing", "authority.pem"]);
}

#[test]
fn a_link_that_cannot_be_is_said_in_plain_words() {
    let folder = tempfile::tempdir().unwrap();
    let host = format!("127.0.0.1:{}", port());
    let made = link(folder.path(), &["new", "a", "--host", &host, "--call", "x", "--json"]).json();
    let test = |arguments: &[&str]| link(folder.path(), &[&["test"], arguments].concat());
    let own = ["--credentials", "ringway-links/a.toml"];
    test(&[]).fails(2, &["wanted an address to dial", "--credentials FILE"]);
    test(&["a.example"])
        .fails(4, &["wanted TLS and authentication for `ringway://a.example:49135`", "--credentials"]);
    test(&own).fails(1, &["cannot reach", "Connection refused", "nobody listens at port"]);
    test(&["--credentials", "ringway-links/issuer.key"])
        .fails(1, &["cannot read the credentials", "in line 1"]);
    test(&["--credentials", "nowhere.toml"]).fails(1, &["cannot use nowhere.toml"]);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = other.local_addr().unwrap().to_string();
    let web = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut socket, _) = other.accept().unwrap();
            std::io::Write::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            let _rest = std::io::copy(&mut socket, &mut std::io::sink());
        }
    });
    test(&[&elsewhere]).fails(1, &["found bytes that begin with", "is no engine's link"]);
    test(&[&[elsewhere.as_str()], &own[..]].concat()).fails(1, &["does not speak TLS"]);
    web.join().unwrap();

    let yaml = made["server_settings"].as_str().unwrap();
    std::fs::write(folder.path().join("ringway.yaml"), yaml.to_owned() + QUIET).unwrap();
    let up = Up::start(&["--data", "data"], folder.path());
    test(&[&host]).fails(1, &["the engine speaks TLS and these credentials have none"]);
    let stranger = link(folder.path(), &["new", "b", "--host", &host, "--call", "x", "--directory", "other"]);
    assert_eq!(stranger.code, Some(0), "{}", stranger.err);
    test(&["--credentials", "other/b.toml"])
        .fails(1, &["signed by another authority than the one in the credentials"]);
    let soon = link(folder.path(), &["new", "c", "--host", &host, "--call", "x", "--valid", "1s"]);
    assert_eq!(soon.code, Some(0), "{}", soon.err);
    std::thread::sleep(Duration::from_millis(2100));
    test(&["--credentials", "ringway-links/c.toml"])
        .fails(4, &["the token of `c` expired at", "ringway link new"]);
    let good = test(&own);
    assert!(
        good.code == Some(0) && good.out.contains("may call      x\n") && good.err.is_empty(),
        "{good:?}"
    );
    up.stop();
}

#[test]
fn an_engine_without_links_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ringway.yaml"), QUIET).unwrap();
    let up = Up::start(&["--data", "data"], folder.path());
    up.run(&["link", "list"]).fails(3, &["no section `links`", "ringway link new"]);
    up.stop();
    let refused = "links: {listen: 0.0.0.0, open: {call: ['*']}}\n";
    std::fs::write(folder.path().join("ringway.yaml"), refused).unwrap();
    let up = Ran::of(ringway().current_dir(folder.path()).args(["--address", &address(), "up"]));
    up.fails(
        2,
        &["ringway.yaml:1:17: wanted TLS and authentication for `ringway://0.0.0.0:49135`", "found neither"],
    );
    let missing = "links: {listen: 127.0.0.1, issuers: [keys]}\n";
    std::fs::write(folder.path().join("ringway.yaml"), missing).unwrap();
    let checked = Ran::of(ringway().current_dir(folder.path()).args(["config", "check"]));
    checked.fails(1, &["`links.issuers`: cannot use"]);
}

#[test]
fn engines_by_nats_are_said_listed_and_looked_after() {
    let mut server = Server::with("", "off");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let start = |folder: &tempfile::TempDir, name: &str| {
        let links = format!(
            "links: {{name: {name}, nats: {{servers: ['{}'], project: shop, offer: ['shop::*'], call: ['shop::*']}}}}\n",
            server.url()
        );
        std::fs::write(folder.path().join("ringway.yaml"), links + QUIET).unwrap();
        let mut up = Up::start(&["--data", "data"], folder.path());
        let said = up.hear("it sees engines of project shop by NATS at");
        assert!(said.contains(&server.url()) && said.contains("test, version"), "{said}");
        up
    };
    let (first, second) = (start(&folders[0], "a"), start(&folders[1], "b"));
    let shop = Worker::builder("shop").address(&first.address).connect().unwrap();
    shop.register(Function::json("shop::sell", |_, text: String| Ok(text))).unwrap();
    let edge = Worker::builder("edge").address(&second.address).connect().unwrap();
    edge.wait_for("shop::sell", PATIENCE).unwrap();
    second.run(&["trigger", "shop::sell", "--json", "\"b\""]).prints_first("\"b\"\n");
    let shown = second.run(&["link", "list"]);
    assert!(
        shown.out.contains("project shop by NATS at") && shown.out.ends_with("there  open\n"),
        "{shown:?}"
    );
    let doctor = second.run(&["doctor"]);
    assert!(doctor.out.contains("project shop has 1 other engine there"), "{doctor:?}");
    server.kill();
    until("doctor says what to do", || {
        let doctor = second.run(&["doctor"]).out;
        doctor.contains("the engine is not connected to nats://")
            && doctor.contains("start the server, or set")
    });
    assert!(second.run(&["link", "list"]).out.contains("not connected: "));
    drop((shop, edge));
    first.stop();
    second.stop();
}
