//! Engines in processes of their own: killed, and stopped for a while.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringway::{CallOptions, Encoding, ErrorCode, Function, Message, Worker};
use ringway_link::driver::Path;
use ringway_links_nats::NatsSettings;
use serde_json::json;

use crate::stage::{OnNats, PATIENCE, engine, join, until, wait_for};
use crate::suite::{Host, host};

const VARIABLE: &str = "RINGWAY_NATS_PEER";

const MIB: u64 = 1 << 20;

/// The process of the tests below: an engine with a worker that serves, and calls, until it is killed.
#[test]
fn the_peer() {
    let Ok(server) = std::env::var(VARIABLE) else { return };
    let engine = engine();
    let mut settings = NatsSettings::new("shop", "peer");
    settings.servers = vec![server];
    let _joined = join(&engine, settings, Path::Probe);
    let worker = Worker::builder("peer").address(engine.address()).connect().unwrap();
    let wait = Function::raw("peer::wait", |_, _| {
        std::thread::sleep(Duration::from_secs(600));
        Ok(Message::empty())
    });
    let sink = Function::stream("peer::sink", |_, _, items, _| {
        let mut bytes = 0;
        while let Some(item) = items.recv()? {
            bytes += item.body().len();
        }
        Message::json(&bytes)
    });
    let flood = Function::stream("peer::flood", |_, _, _, output| {
        loop {
            output.send(Message::from_vec(Encoding::Bytes, vec![1; 100_000]))?;
        }
    });
    let echo = Function::raw("peer::echo", |_, request| Ok(Message::bytes(request.body())));
    worker.register_all(vec![wait.pooled(), sink, flood, echo]).unwrap();
    loop {
        drop(worker.handle("local::wait").call(&Message::empty()));
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Peer(Child);

impl Peer {
    fn start(nats: &OnNats) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::the_peer", "--nocapture"])
            .env(VARIABLE, nats.server.url())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}

fn knows_peer(worker: &Worker) -> bool {
    worker.catalog().functions.iter().any(|function| function.id.as_str().starts_with("peer::"))
}

#[test]
fn an_engine_that_is_killed_ends_its_calls_and_the_next_one_takes_its_place() {
    let nats = OnNats::start();
    let here: Host<_> = host(&nats, &[]);
    let local = here.worker("local");
    let (begun, cancelled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counts = (Arc::clone(&begun), Arc::clone(&cancelled));
    let wait = Function::raw("local::wait", move |context, _| {
        counts.0.fetch_add(1, Ordering::Relaxed);
        while !context.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        counts.1.fetch_add(1, Ordering::Relaxed);
        Ok(Message::empty())
    });
    local.register(wait.pooled()).unwrap();
    for round in 1..=2 {
        let mut peer = Peer::start(&nats);
        wait_for(&local, "peer::flood");
        until("it calls here", || begun.load(Ordering::Relaxed) == round);
        let options = CallOptions::new().timeout(PATIENCE * 10);
        let wait = local.handle("peer::wait");
        let echo = local.handle("peer::echo");
        assert_eq!(echo.call(&Message::bytes(b"x")).unwrap().body(), b"x");
        let pending: Vec<_> = (0..20).map(|_| wait.start(&Message::empty(), &options).unwrap()).collect();
        let flood = local.handle("peer::flood").stream(&Message::empty(), &options).unwrap();
        assert!(flood.recv().unwrap().is_some());
        peer.kill();
        for call in pending {
            assert_eq!(call.wait().unwrap_err().code, ErrorCode::WorkerGone);
        }
        let end = std::iter::from_fn(|| flood.recv().transpose()).find_map(Result::err);
        assert_eq!(end.map(|error| error.code), Some(ErrorCode::WorkerGone));
        until("what it called hears that nobody waits", || cancelled.load(Ordering::Relaxed) == round);
        until("its functions are gone", || !knows_peer(&local));
        let error = local.trigger_json("peer::echo", &json!(0)).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
    }
}

/// The most that this process, or one that it has started, has in memory, in bytes.
fn resident_most() -> u64 {
    let own = std::process::id();
    let of = |pid: &str, key: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    let pids = pids.filter_map(|name| name.into_string().ok()).filter(|name| name.parse::<u32>().is_ok());
    let related = pids.filter(|pid| pid == &own.to_string() || of(pid, "PPid:") == u64::from(own));
    related.map(|pid| of(&pid, "VmRSS:") * 1024).max().unwrap_or(0)
}

/// Streams so many bytes; what the other end got, or why it broke off.
fn stream(local: &Worker, bytes: u64) -> Result<Message, ringway::CallError> {
    let options = CallOptions::new().timeout(PATIENCE * 20);
    let mut call = local.handle("peer::sink").stream(&Message::empty(), &options)?;
    for _ in 0..bytes / MIB {
        call.send(Message::from_vec(Encoding::Bytes, vec![7; usize::try_from(MIB).unwrap()]))?;
    }
    call.finish();
    while call.recv()?.is_some() {}
    call.end()
}

#[test]
fn a_reader_that_stops_holds_its_writer_up_and_nobodys_memory_grows() {
    let mut nats = OnNats::start();
    // So that the server cuts off whoever does not read while this test looks on.
    nats.server = ringway_store_nats::testing::Server::with("write_deadline: \"2s\"", "off");
    let here = host(&nats, &[]);
    let local = here.worker("local");
    let peer = Peer::start(&nats);
    wait_for(&local, "peer::sink");
    assert_eq!(stream(&local, 4 * MIB).unwrap().body(), (4 * MIB).to_string().as_bytes());
    let before = resident_most();
    std::thread::scope(|scope| {
        // Stopped for less than the silence by which a link counts as cut: everything arrives.
        let short = scope.spawn(|| stream(&local, 1024 * MIB));
        std::thread::sleep(Duration::from_millis(300));
        peer.signal("-STOP");
        std::thread::sleep(Duration::from_secs(1));
        let stopped = resident_most();
        peer.signal("-CONT");
        assert_eq!(short.join().unwrap().unwrap().body(), (1024 * MIB).to_string().as_bytes());
        assert!(
            stopped < before + 256 * MIB,
            "{before} bytes before, {stopped} with a reader that has stopped"
        );
        // For longer: the call ends, the server cuts the connection, and all of it heals.
        let long = scope.spawn(|| stream(&local, 1024 * MIB));
        std::thread::sleep(Duration::from_millis(300));
        peer.signal("-STOP");
        let error = long.join().unwrap().unwrap_err();
        assert_eq!(error.code, ErrorCode::WorkerGone, "{error}");
        until("nothing is heard of it", || !knows_peer(&local));
        let after = resident_most();
        assert!(after < before + 256 * MIB, "{before} bytes before, {after} after");
        peer.signal("-CONT");
    });
    wait_for(&local, "peer::sink");
    until("it serves again", || {
        stream(&local, 4 * MIB).is_ok_and(|told| told.body() == (4 * MIB).to_string().as_bytes())
    });
}
