//! One engine has a store at a time: a second one is refused while the first lives, and takes over from one that does not
//! answer, which then acknowledges nothing.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use ringway_store::{Batch, Durability, Store, StoreError};
use ringway_store_nats::testing::{Server, wait_for};
use ringway_store_nats::{NatsOptions, NatsStore, OpenError};

use crate::tools::{Stranger, bytes, open};

const SERVER: &str = "RINGWAY_NATS_CHILD";

#[test]
fn a_second_engine_is_refused_while_the_first_lives() {
    let server = Server::start();
    let (first, _) = open(&server, "shop");
    first.commit(Batch::new().put("t", b"k", &b"1"[..]), Durability::Durable).unwrap();
    let error = NatsStore::open(server.options("shop")).unwrap_err();
    let OpenError::Locked { holder, .. } = &error else { panic!("{error}") };
    assert!(holder.contains(&format!("process {}", std::process::id())), "{holder}");
    for words in ["ringway-shop", "stop that engine", "engine.store.name"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    // Another name is another store.
    assert_eq!(bytes(&open(&server, "other").0, "t", b"k"), None);
    // The first was not harmed, and the next is not refused.
    first.commit(Batch::new().put("t", b"k", &b"2"[..]), Durability::Durable).unwrap();
    first.close().unwrap();
    assert_eq!(bytes(&open(&server, "shop").0, "t", b"k"), Some(b"2".to_vec()));
}

#[test]
fn a_claim_ends_whoever_had_the_store() {
    let server = Server::start();
    let (first, _) = open(&server, "shop");
    let batch = || Batch::new().put("t", b"k", &b"1"[..]);
    first.commit(batch(), Durability::Durable).unwrap();
    let stranger = Stranger::at(&server);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Ringway-Log", "abc 0 0 1");
    headers.insert("Ringway-Holder", "process 7 on mars");
    stranger.wait(async {
        let sent = stranger.jetstream.publish_with_headers("ringway.shop.log", headers, "".into());
        sent.await.unwrap().await.unwrap();
    });
    let error = first.commit(batch(), Durability::Durable).unwrap_err();
    assert!(matches!(error, StoreError::Taken { .. }), "{error}");
    for words in ["process 7 on mars", "ringway-shop", "stop one of the two"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(first.commit(batch(), Durability::Durable), Err(error.clone()));
    assert!(matches!(first.get("t", b"k"), Err(StoreError::Taken { .. })), "what it has may be old");
    // It does not say any more that it has the store.
    let (second, _) = open(&server, "shop");
    assert_eq!(bytes(&second, "t", b"k"), Some(b"1".to_vec()));
    assert_eq!(first.close(), Err(error));
}

/// The child's life: it commits one thing, waits for a line, and says what became of the next. Does nothing without its
/// server, as when all tests are run.
#[test]
fn child() {
    let Ok(server) = std::env::var(SERVER) else { return };
    let mut options = NatsOptions::new("shop");
    options.servers = vec![server];
    let (store, _) = NatsStore::open(options).unwrap();
    store.commit(Batch::new().put("t", b"child", &b"before"[..]), Durability::Durable).unwrap();
    let say = |text: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nsaid {text}").unwrap();
        out.flush().unwrap();
    };
    say("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    match store.commit(Batch::new().put("t", b"child", &b"after"[..]), Durability::Durable) {
        Ok(_) => say("committed"),
        Err(error) => say(&error.to_string()),
    }
}

struct Frozen {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Frozen {
    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "the child ended");
            if let Some(said) = line.strip_prefix("said ") {
                return said.to_owned();
            }
        }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn one_that_was_frozen_finds_that_it_was_replaced() {
    let server = Server::start();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["owners::child", "--exact", "--nocapture"])
        .env(SERVER, server.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    let mut frozen = Frozen { child, said };
    assert!(frozen.hear().contains("ready"));
    frozen.signal("-STOP");
    let (store, _) = open(&server, "shop");
    assert_eq!(bytes(&store, "t", b"child"), Some(b"before".to_vec()));
    store.commit(Batch::new().put("t", b"mine", &b"1"[..]), Durability::Durable).unwrap();
    let stranger = Stranger::at(&server);
    wait_for(|| stranger.read("ringway-shop", "t.mine"));
    frozen.signal("-CONT");
    frozen.child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    let said = frozen.hear();
    assert!(said.contains("has taken over"), "{said}");
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    drop(frozen);
    store.commit(Batch::new().put("t", b"mine", &b"2"[..]), Durability::Durable).unwrap();
    store.close().unwrap();
    let (store, report) = open(&server, "shop");
    assert_eq!(report.damage, []);
    assert_eq!(bytes(&store, "t", b"child"), Some(b"before".to_vec()));
    assert_eq!(bytes(&store, "t", b"mine"), Some(b"2".to_vec()));
}
