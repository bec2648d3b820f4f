//! Who is let in, as whoever dials hears of it, and for how long.

use std::time::{Duration, Instant};

use ringway::{CallOptions, Credentials, ErrorCode, Function, Message, Worker, WorkerId};
use ringway_access::issue::ClientRequest;
use ringway_access::tls::CertificateFingerprint;
use ringway_access::token::Revocations;
use ringway_access::{Doorkeeper, Grant};
use ringway_link::driver::Path;
use serde_json::{Value, json};

use crate::stage::{PATHS, Secrets, Stage, now_s, until, wait_for};

fn echo(id: &str) -> Function {
    Function::json(id, |_, value: Value| Ok(value))
}

#[test]
fn whoever_is_not_let_in_hears_why() {
    let secrets = Secrets::new(Grant::everything());
    let stranger = Secrets::new(Grant::everything());
    let revoked = secrets.authority.client(&secrets.request("revoked"), now_s()).unwrap();
    let doorkeeper = Doorkeeper::default()
        .with_issuer(secrets.authority.issuer().public())
        .with_revocations(Revocations::parse(&revoked.token_id).unwrap());
    let stage = Stage::with(Path::Epoll, doorkeeper, Some(secrets));
    let secrets = stage.secrets.as_ref().unwrap();
    let good = secrets.request("edge");
    // The right server, and a token that somebody else has signed.
    let mut unknown = secrets.credentials(&good);
    let foreign = stranger.credentials(&stranger.request("edge"));
    (unknown.token, unknown.key) = (foreign.token, foreign.key);
    let mut without = secrets.credentials(&good);
    (without.token, without.key) = (None, None);
    let mut stolen = secrets.credentials(&good);
    stolen.token = secrets.credentials(&secrets.request("victim")).token;
    let files =
        secrets.authority.client(&ClientRequest { lifetime: Duration::from_secs(1), ..good.clone() }, 1000);
    let expired = Credentials::parse(&files.unwrap().credentials).unwrap();
    let other_pin = Some(CertificateFingerprint::of(b"another"));
    let pinned = secrets.credentials(&ClientRequest { pin: other_pin, ..good.clone() });
    let misnamed = secrets.credentials(&ClientRequest { server_name: Some("example.org"), ..good.clone() });
    let cases: [(&str, Credentials, ErrorCode, &str); 9] = [
        ("a token of an unknown issuer", unknown, ErrorCode::Forbidden, "issuer"),
        ("no token", without, ErrorCode::Forbidden, "wanted a token"),
        ("somebody else's token", stolen, ErrorCode::Forbidden, "key"),
        ("an expired token", expired, ErrorCode::Forbidden, "expired"),
        (
            "a revoked token",
            Credentials::parse(&revoked.credentials).unwrap(),
            ErrorCode::Forbidden,
            "was revoked",
        ),
        (
            "a server of another authority",
            stranger.credentials(&stranger.request("edge")),
            ErrorCode::EngineUnavailable,
            "invalid peer certificate",
        ),
        ("a server that is not the pinned one", pinned, ErrorCode::EngineUnavailable, "certificate"),
        ("a server of another name", misnamed, ErrorCode::EngineUnavailable, "example.org"),
        ("no encryption", Credentials::default(), ErrorCode::EngineUnavailable, ""),
    ];
    for (what, credentials, code, word) in cases {
        let builder = Worker::builder("edge").address(stage.address()).credentials(credentials);
        let error = builder.attach_timeout(Duration::from_secs(3)).connect().map(drop).expect_err(what);
        assert_eq!(error.code, code, "{what}: {error}");
        assert!(error.message.contains(word), "{what}: wanted `{word}` in: {error}");
    }
    assert!(stage.links.status().is_empty());
    // The door is still open for those who may come.
    let worker = stage.remote("edge");
    worker.register(echo("edge::f")).unwrap();
}

#[test]
fn a_token_that_expires_closes_its_link() {
    for path in PATHS {
        let stage = Stage::secured(path, Grant::everything());
        let local = stage.local("local");
        let secrets = stage.secrets.as_ref().unwrap();
        // A token's times are whole seconds.
        let short = ClientRequest { lifetime: Duration::from_secs(2), ..secrets.request("guest") };
        let guest = stage.dial("guest", secrets.credentials(&short)).unwrap();
        guest
            .register(Function::raw("guest::wait", |context, _| {
                while !context.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(Message::empty())
            }))
            .unwrap();
        let friend = stage.remote("friend");
        friend.register(echo("friend::echo")).unwrap();
        wait_for(&local, "guest::wait");
        let options = CallOptions::new().timeout(Duration::from_secs(60));
        let error = local.handle("guest::wait").call_with(&Message::empty(), &options).unwrap_err();
        assert_eq!(error.code, ErrorCode::WorkerGone, "{path:?}: {error}");
        until("the engine has forgotten the guest", || {
            local.catalog().workers.iter().all(|worker| worker.name != "guest")
        });
        wait_for(&local, "friend::echo");
        assert_eq!(local.trigger_json("friend::echo", &json!(1)).unwrap(), json!(1));
        until("one link is left", || stage.links.status().len() == 1);
    }
}

#[test]
fn a_token_that_is_revoked_closes_its_link() {
    let stage = Stage::secured(Path::Uring, Grant::everything());
    let local = stage.local("local");
    let secrets = stage.secrets.as_ref().unwrap();
    let files = secrets.authority.client(&secrets.request("guest"), now_s()).unwrap();
    let guest = stage.dial("guest", Credentials::parse(&files.credentials).unwrap()).unwrap();
    let friend = stage.remote("friend");
    guest.register(echo("guest::echo")).unwrap();
    friend.register(echo("friend::echo")).unwrap();
    wait_for(&local, "guest::echo");
    wait_for(&local, "friend::echo");
    let doorkeeper = Doorkeeper::default()
        .with_issuer(secrets.authority.issuer().public())
        .with_revocations(Revocations::parse(&files.token_id).unwrap());
    stage.links.set_doorkeeper(doorkeeper);
    until("the guest is gone", || {
        let gone = local.trigger_json("guest::echo", &json!(1));
        gone.is_err_and(|error| error.code == ErrorCode::NotFound)
    });
    assert_eq!(local.trigger_json("friend::echo", &json!(1)).unwrap(), json!(1));
    assert_eq!(stage.links.status().len(), 1);
}

/// Whoever shows the same as before may come back with the same id: its link may have been cut without the engine's notice.
/// Anybody else is refused, and whoever is there stays.
#[test]
fn a_worker_id_belongs_to_whoever_came_with_it() {
    for path in PATHS {
        let stage = Stage::secured(path, Grant::everything());
        let watcher = stage.local("watcher");
        let id = WorkerId::new(0x1234_5678);
        let dial = |name: &str| {
            let builder = Worker::builder(name).id(id).address(stage.address());
            let builder = builder.credentials(stage.credentials(name));
            builder.without_reconnect().attach_timeout(Duration::from_secs(5)).connect()
        };
        let first = dial("first").unwrap();
        first.register(echo("first::f")).unwrap();
        wait_for(&watcher, "first::f");
        let error = dial("second").map(drop).unwrap_err();
        assert_eq!(error.code, ErrorCode::RegistrationConflict, "{path:?}: {error}");
        for _ in 0..20 {
            assert_eq!(watcher.trigger_json("first::f", &json!(1)).unwrap(), json!(1), "{path:?}");
        }
        assert!(first.is_attached());
    }
}

#[test]
fn a_remote_worker_cannot_be_one_of_this_host() {
    for path in PATHS {
        for name in ["worker", "home"] {
            let stage = Stage::secured(path, Grant::everything());
            let watcher = stage.local("watcher");
            let local = stage.local("worker");
            local.register(echo("worker::f")).unwrap();
            // The id of a worker in the engine's own process, as the built-in ones are, and the engine's own.
            let id = if name == "home" { stage.engine.id() } else { local.id() };
            let builder = Worker::builder(name).id(id).address(stage.address());
            let builder = builder.credentials(stage.credentials(name)).without_reconnect();
            let error = builder.attach_timeout(Duration::from_secs(5)).connect().map(drop).unwrap_err();
            let expected = [ErrorCode::RegistrationConflict, ErrorCode::Forbidden];
            assert!(expected.contains(&error.code), "{path:?}: {error}");
            for _ in 0..20 {
                assert_eq!(watcher.trigger_json("worker::f", &json!(1)).unwrap(), json!(1), "{path:?}");
            }
            assert!(local.is_attached());
        }
    }
}

/// And the other way round: a worker of this host does not take the place of a remote one.
#[test]
fn a_worker_of_this_host_cannot_be_a_remote_one() {
    let stage = Stage::secured(Path::Epoll, Grant::everything());
    let watcher = stage.local("watcher");
    let remote = stage.remote("remote");
    remote.register(echo("remote::f")).unwrap();
    wait_for(&watcher, "remote::f");
    let builder = Worker::builder("local").id(remote.id()).address(stage.engine.address());
    let error = builder.without_reconnect().connect().map(drop).unwrap_err();
    assert_eq!(error.code, ErrorCode::RegistrationConflict, "{error}");
    assert_eq!(watcher.trigger_json("remote::f", &json!(1)).unwrap(), json!(1));
}

#[test]
fn whoever_connects_and_says_nothing_holds_up_nobody() {
    let stage = Stage::secured(Path::Epoll, Grant::everything());
    let silent: Vec<_> =
        (0..20).map(|_| std::net::TcpStream::connect(stage.links.address().unwrap()).unwrap()).collect();
    let began = Instant::now();
    let worker = stage.remote("edge");
    worker.register(echo("edge::f")).unwrap();
    // Their time is ten seconds; nobody waited for that.
    assert!(stage.links.status().len() == 1 && silent.len() == 20, "{:?}", began.elapsed());
}
