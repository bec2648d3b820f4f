//! The blob functions as users call them: an engine, the worker, the SDK, the embedded store in a folder of its own.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringway::{CallError, CallOptions, Encoding, Message, Worker};
use ringway_engine::Engine;
use ringway_store::{Embedded, Options};
use ringway_worker_blob::{Blob, Config, StartError};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

struct Stage {
    client: Worker,
    blob: Option<Blob>,
    store: Option<Arc<Embedded>>,
    address: String,
    folder: tempfile::TempDir,
    _engine: Engine,
}

impl Stage {
    fn new(bytes_max: u64) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("@ringway-blob-test-{}-{number}", std::process::id());
        let engine = Engine::builder().address(&address).start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let client = Worker::builder("client").address(&address).connect().unwrap();
        let mut stage = Self { client, blob: None, store: None, address, folder, _engine: engine };
        stage.start(bytes_max);
        stage
    }

    fn start(&mut self, bytes_max: u64) {
        let options = Options { segment_bytes: 48 << 20, ..Options::default() };
        let store = Arc::new(Embedded::open(self.folder.path(), options).unwrap().0);
        self.blob = Some(Blob::start(&self.address, store.clone(), Config { bytes_max }).unwrap());
        self.store = Some(store);
        self.client.wait_for("blob::delete", SOON).unwrap();
    }

    /// Ends the worker, and the store as a crash would, and starts both again.
    fn restart(&mut self) {
        self.blob = None;
        Arc::into_inner(self.store.take().unwrap()).expect("the worker has let it go").abandon();
        self.start(1 << 30);
    }

    fn call(&self, id: &str, request: Value) -> Result<Value, CallError> {
        self.client.trigger_json(id, &request)
    }

    fn put(&self, bytes: &[u8]) -> Result<Value, CallError> {
        let reply = self.client.handle("blob::put").call(&Message::bytes(bytes))?;
        Ok(serde_json::from_slice(reply.body()).unwrap())
    }

    fn get(&self, id: &Value) -> Result<Message, CallError> {
        self.client.handle("blob::get").call(&Message::json(&json!({ "id": id })).unwrap())
    }

    fn code(&self, error: Result<impl std::fmt::Debug, CallError>) -> String {
        error.unwrap_err().user_code.unwrap_or_default()
    }

    fn path(&self, id: &Value) -> PathBuf {
        self.folder.path().join("blobs").join(id.as_str().unwrap())
    }
}

fn pattern(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|n| (n >> 3).to_le_bytes()[0]).collect()
}

#[test]
fn what_is_put_is_there_after_a_restart_until_its_last_holder_lets_go() {
    let mut stage = Stage::new(1 << 30);
    let bytes = pattern(1_000_000);
    let put = stage.put(&bytes).unwrap();
    let id = put["id"].clone();
    assert_eq!(put["bytes"], 1_000_000);
    assert_eq!(stage.put(&bytes).unwrap(), put, "the same bytes are the same blob");
    let job = CallOptions::new().metadata(json!({ "holder": "job 7" }));
    stage.client.handle("blob::put").call_with(&Message::bytes(&bytes), &job).unwrap();
    stage.restart();
    let reply = stage.get(&id).unwrap();
    assert_eq!((reply.encoding(), reply.body()), (Encoding::Bytes, &bytes[..]));
    assert!(reply.payload().is_some(), "it lies in a block and was not copied again");
    let stat = stage.call("blob::stat", json!({ "id": id })).unwrap();
    assert_eq!(stat, json!({ "id": id, "bytes": 1_000_000, "holders": 2 }));
    let delete = |holder: &str| stage.call("blob::delete", json!({ "id": id, "holder": holder })).unwrap();
    let check = |holder: &str, released: bool, removed: bool| {
        let found = delete(holder);
        assert_eq!((&found["released"], &found["removed"]), (&json!(released), &json!(removed)), "{holder}");
    };
    check("nobody", false, false);
    check("user", true, false);
    check("job 7", true, true);
    assert_eq!(stage.code(stage.get(&id)), "BLOB_NOT_FOUND");
    assert_eq!(stage.code(stage.call("blob::stat", json!({ "id": id }))), "BLOB_NOT_FOUND");
}

#[test]
fn long_ones_come_and_go_in_streams() {
    let stage = Stage::new(1 << 30);
    let bytes = pattern(5_000_000);
    let mut stream =
        stage.client.handle("blob::put_stream").stream(&Message::empty(), &CallOptions::new()).unwrap();
    bytes.chunks(300_000).for_each(|piece| stream.send(Message::bytes(piece)).unwrap());
    stream.finish();
    let put: Value = serde_json::from_slice(stream.end().unwrap().body()).unwrap();
    assert_eq!(put["id"], stage.put(&bytes).unwrap()["id"]);
    let request = Message::json(&json!({ "id": put["id"] })).unwrap();
    let read = || -> Result<Vec<u8>, CallError> {
        let mut stream =
            stage.client.handle("blob::get_stream").stream(&request, &CallOptions::new()).unwrap();
        stream.finish();
        let mut found = Vec::new();
        while let Some(piece) = stream.recv()? {
            found.extend_from_slice(piece.body());
        }
        stream.end()?;
        Ok(found)
    };
    assert_eq!(read().unwrap(), bytes);
    let mut damaged = bytes.clone();
    damaged[4_999_999] ^= 0x40;
    std::fs::write(stage.path(&put["id"]), &damaged).unwrap();
    assert_eq!(stage.code(read()), "BLOB_DAMAGED");
    assert_eq!(stage.code(stage.get(&put["id"])), "BLOB_DAMAGED");
}

#[test]
fn limits_are_told_and_a_cut_stream_leaves_nothing() {
    let stage = Stage::new(1000);
    assert_eq!(stage.put(&pattern(1000)).unwrap()["bytes"], 1000);
    let error = stage.put(&pattern(1001)).unwrap_err();
    assert_eq!(error.user_code.as_deref(), Some("BLOB_TOO_LARGE"));
    assert!(error.message.contains("at most 1000 bytes, found 1001"), "{error}");
    let mut stream =
        stage.client.handle("blob::put_stream").stream(&Message::empty(), &CallOptions::new()).unwrap();
    // The second may find the stream ended already.
    let _sent = [stream.send(Message::bytes(&pattern(600))), stream.send(Message::bytes(&pattern(601)))];
    stream.finish();
    assert_eq!(stage.code(stream.end()), "BLOB_TOO_LARGE");
    let files = std::fs::read_dir(stage.folder.path().join("blobs")).unwrap();
    assert_eq!(files.count(), 1);
    let wrong = stage.call("blob::stat", json!({ "id": "abc" })).unwrap_err();
    assert!(wrong.message.contains("64 digits"), "{wrong}");
    let long = CallOptions::new().metadata(json!({ "holder": "x".repeat(257) }));
    let error = stage.client.handle("blob::put").call_with(&Message::bytes(b"x"), &long).unwrap_err();
    assert!(error.message.contains("1 to 256 bytes"), "{error}");
    let store = stage.store.clone().unwrap();
    let refused = Blob::start(&stage.address, store, Config { bytes_max: 0 });
    assert!(matches!(refused, Err(StartError::Settings { found: 0, .. })));
}
