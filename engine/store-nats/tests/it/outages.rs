//! Servers that are not there, that are not ours to use, that go away, that are full.

use std::time::Duration;

use ringway_store::{Batch, Durability, Scan, Store, StoreError};
use ringway_store_nats::testing::{Server, wait_for};
use ringway_store_nats::{Identity, NatsStore, OpenError};

use crate::tools::{Stranger, bytes, open};

const DURABLE: Durability = Durability::Durable;

#[track_caller]
fn refuse(outcome: Result<impl Sized, OpenError>, words: &[&str]) {
    let Err(error) = outcome.map(drop) else { panic!("wanted an error, found a store") };
    for words in words {
        assert!(error.to_string().contains(words), "`{words}` is not in: {error}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let mut server = Server::start();
    let options = server.options("shop");
    server.kill();
    let url = server.url();
    refuse(NatsStore::open(options), &[&url, "refused", "nats-server --jetstream", "engine.store.servers"]);
    let mut options = server.options("shop");
    options.servers = vec!["nats://nobody:secret@[".to_owned()];
    let error = NatsStore::open(options).unwrap_err().to_string();
    assert!(error.contains("the address `nats://[`") && !error.contains("secret"), "{error}");
    refuse(NatsStore::open(server.options("a.b")), &["`a.b`", "engine.store.name"]);
}

#[test]
fn a_server_that_cannot_be_used_is_refused() {
    let plain = Server::with("", "off");
    refuse(NatsStore::open(plain.options("shop")), &["wanted JetStream", "--jetstream"]);
    let small = Server::with("max_payload: 65536", "");
    refuse(NatsStore::open(small.options("shop")), &["1048576", "65536", "max_payload"]);
    let guarded = Server::with("authorization { user: me, password: secret }", "");
    refuse(NatsStore::open(guarded.options("shop")), &["authorization violation"]);
    let mut options = guarded.options("shop");
    options.identity = Identity::Password { user: "me".to_owned(), password: "secret".to_owned() };
    NatsStore::open(options).unwrap().0.close().unwrap();
    let mut options = guarded.options("shop");
    options.identity = Identity::Credentials("/nowhere/me.creds".into());
    refuse(NatsStore::open(options), &["/nowhere/me.creds"]);
}

#[test]
fn a_stream_that_would_lose_messages_is_refused() {
    let server = Server::start();
    let stranger = Stranger::at(&server);
    stranger.wait(async {
        let config = async_nats::jetstream::stream::Config {
            name: "ringway-shop-log".to_owned(),
            subjects: vec!["ringway.shop.log".to_owned()],
            max_age: std::time::Duration::from_secs(60),
            ..Default::default()
        };
        stranger.jetstream.create_stream(config).await.unwrap();
    });
    refuse(NatsStore::open(server.options("shop")), &["ringway-shop-log", "max_age", "none"]);
}

#[test]
fn commits_fail_cleanly_while_the_server_is_away_and_work_when_it_is_back() {
    let mut server = Server::start();
    let (store, _) = open(&server, "shop");
    let put = |key: &str| store.commit(Batch::new().put("t", key.as_bytes(), &b"v"[..]), DURABLE);
    put("before").unwrap();
    server.kill();
    let begin = |key: &str| {
        let (tell, told) = std::sync::mpsc::channel();
        match store.start(Batch::new().put("t", key.as_bytes(), &b"v"[..]), DURABLE) {
            // Nobody listens any more where the test has failed.
            Ok(commit) => drop(std::thread::spawn(move || drop(tell.send(commit.wait())))),
            Err(error) => tell.send(Err(error)).unwrap(),
        }
        told
    };
    // What is on its way when the connection ends, and what shares a record with it, waits for its end.
    let mut under_way = vec![("waiting".to_owned(), begin("waiting"))];
    let (refused, error) = wait_for(|| {
        let key = format!("away-{}", under_way.len());
        let told = begin(&key);
        match told.recv_timeout(Duration::from_secs(1)) {
            Ok(outcome) => outcome.err().map(|error| (key, error)),
            Err(_) => {
                under_way.push((key, told));
                None
            }
        }
    });
    assert!(matches!(&error, StoreError::Unavailable { .. }) && error.may_pass(), "{error}");
    assert!(error.to_string().contains(&server.url()), "{error}");
    assert_eq!(bytes(&store, "t", refused.as_bytes()), None);
    assert_eq!(bytes(&store, "t", b"before"), Some(b"v".to_vec()), "what is there is read all the while");
    server.restart();
    wait_for(|| put("after").ok());
    let scan = Scan::table("t");
    let keys =
        |store: &NatsStore| store.scan(&scan).unwrap().into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    let mut expected: Vec<Vec<u8>> = vec![b"after".to_vec(), b"before".to_vec()];
    for (key, told) in under_way {
        if told.recv().unwrap().is_ok() {
            expected.push(key.into_bytes());
        }
    }
    expected.sort();
    assert_eq!(keys(&store), expected);
    store.close().unwrap();
    let (store, report) = open(&server, "shop");
    assert_eq!(report.damage, []);
    assert_eq!(keys(&store), expected, "what was refused is not there");
}

#[test]
fn a_store_whose_server_is_away_can_be_closed() {
    let mut server = Server::start();
    let (store, _) = open(&server, "shop");
    store.commit(Batch::new().put("t", b"k", &b"v"[..]), DURABLE).unwrap();
    server.kill();
    let waiting = store.start(Batch::new().put("t", b"waiting", &b"v"[..]), DURABLE);
    store.hurry();
    let outcome = waiting.and_then(ringway_store::store::Commit::wait);
    assert!(
        matches!(outcome, Err(StoreError::Unavailable { .. } | StoreError::Failed { .. })),
        "{outcome:?}"
    );
    drop(store);
    server.restart();
    assert_eq!(bytes(&open(&server, "shop").0, "t", b"k"), Some(b"v".to_vec()));
}

#[test]
fn a_store_is_closed_without_its_server_once_what_waited_was_refused() {
    let mut server = Server::start();
    let mut options = server.options("shop");
    (options.patience, options.gather) = (Duration::from_secs(3), Duration::from_millis(200));
    let (store, _) = NatsStore::open(options).unwrap();
    store.commit(Batch::new().put("t", b"k", &b"v"[..]), DURABLE).unwrap();
    server.kill();
    // Until the end of the connection is seen, so that nothing more is sent.
    std::thread::sleep(Duration::from_millis(500));
    let waiting = store.commit(Batch::new().put("t", b"waiting", &b"v"[..]), DURABLE);
    assert!(matches!(waiting, Err(StoreError::Unavailable { .. })), "{waiting:?}");
    store.close().unwrap();
    server.restart();
    assert_eq!(bytes(&open(&server, "shop").0, "t", b"k"), Some(b"v".to_vec()));
}

#[test]
fn a_look_at_everything_ends_though_nobody_moves_anything_any_more() {
    let mut server = Server::start();
    let mut options = server.options("shop");
    options.gather = Duration::from_millis(200);
    let (store, _) = NatsStore::open(options).unwrap();
    store.commit(Batch::new().put("t", b"k", &b"v"[..]), DURABLE).unwrap();
    server.kill();
    store.hurry();
    // The bucket lacks the key, and nobody waits for the server to give it that.
    std::thread::sleep(Duration::from_millis(500));
    store.verify().unwrap_err();
}

#[test]
fn a_store_whose_server_refuses_what_it_may_have_can_be_ended() {
    // Now and then the server finds room when it starts again, and takes what it was to refuse.
    assert!((0..5).any(|_| was_refused()), "the server has taken everything");
}

fn was_refused() -> bool {
    let mut server = Server::with("", "max_file_store: 32MB");
    Stranger::at(&server).fill(40);
    let (store, _) = open(&server, "shop");
    let big = |number: u8| Batch::new().put("t", &[number], vec![number; 3 << 20]);
    let written = (0..10).take_while(|number| store.commit(big(*number), DURABLE).is_ok()).count();
    assert!((1..10).contains(&written), "12 MB take no more than 4 times 3 MB, found {written}");
    server.freeze();
    let waiting = store.start(big(99), DURABLE).unwrap();
    // By then it is sent, and the server neither takes it nor says so.
    std::thread::sleep(Duration::from_secs(1));
    server.restart();
    std::thread::sleep(Duration::from_secs(1));
    store.hurry();
    let outcome = waiting.wait();
    if outcome.is_ok() {
        return false;
    }
    assert!(
        matches!(&outcome, Err(StoreError::Failed { reason }) if reason.contains("not known")),
        "{outcome:?}"
    );
    assert!(matches!(store.close(), Err(StoreError::Failed { .. })));
    // Opening wants room too.
    let stranger = Stranger::at(&server);
    stranger.wait(async { stranger.jetstream.delete_stream("filler").await.unwrap() });
    let (store, _) = open(&server, "shop");
    assert_eq!(bytes(&store, "t", &[99]), None);
    assert_eq!(bytes(&store, "t", &[0]), Some(vec![0; 3 << 20]));
    true
}

#[test]
fn a_full_server_refuses_and_recovers_when_there_is_room() {
    let server = Server::with("", "max_file_store: 32MB");
    let stranger = Stranger::at(&server);
    stranger.fill(40);
    let (store, _) = open(&server, "shop");
    let big = |number: u8| store.commit(Batch::new().put("t", &[number], vec![number; 3 << 20]), DURABLE);
    let mut written = 0;
    let error = loop {
        match big(written) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 10, "12 MB take no more than 4 times 3 MB");
    };
    assert!(matches!(&error, StoreError::Unavailable { .. }) && error.may_pass(), "{error}");
    assert!(error.to_string().contains("insufficient"), "{error}");
    assert!(written > 0);
    let keys = |store: &NatsStore| {
        store.scan(&Scan::table("t")).unwrap().into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    let expected: Vec<Vec<u8>> = (0..written).map(|number| vec![number]).collect();
    assert_eq!(keys(&store), expected, "nothing of what was refused");
    stranger.wait(async { stranger.jetstream.delete_stream("filler").await.unwrap() });
    wait_for(|| big(99).ok());
    store.close().unwrap();
    let (store, report) = open(&server, "shop");
    assert_eq!(report.damage, []);
    assert_eq!(bytes(&store, "t", &[99]), Some(vec![99; 3 << 20]));
    assert_eq!(keys(&store), [expected, vec![vec![99]]].concat());
    assert_eq!(store.verify().unwrap(), []);
}
