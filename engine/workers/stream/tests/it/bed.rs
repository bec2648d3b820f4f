//! What every test stands on, and the calls of the usual group, `g` of stream `s`. It must not know what is tested.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use ringway::StreamCall;
use ringway_store::Options;
pub(crate) use ringway_worker_bed::{NOW_MS, PATIENCE, bind, hear, hear_traced, in_trace, next};
use ringway_worker_stream::{Config, Stream};
use serde_json::{Value, json};

use crate::trouble::{Trouble, Troubled};

type Inner = ringway_worker_bed::Bed<Stream>;

/// Engine, store, worker, client.
pub(crate) struct Bed {
    inner: Inner,
    /// What the worker finds wrong with its store; nothing unless a test says so.
    pub(crate) trouble: Arc<Trouble>,
}

impl Deref for Bed {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Bed {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::on(Options::default(), config)
    }

    pub(crate) fn on(options: Options, config: Config) -> Self {
        let mut bed = Inner::new("stream", "unsubscribe", move |address, store, clock| {
            Stream::start_with_clock(address, store, config.clone(), clock)
        });
        bed.options = options;
        let trouble = Arc::<Trouble>::default();
        let of_store = Arc::clone(&trouble);
        bed.wrap(move |store| Arc::new(Troubled { store, trouble: Arc::clone(&of_store) }));
        bed.start();
        Self { inner: bed, trouble }
    }

    pub(crate) fn set(&self, item: &str, data: Value) -> Value {
        self.call("set", json!({"stream_name": "s", "group_id": "g", "item_id": item, "data": data}))
    }

    pub(crate) fn get(&self, item: &str) -> Value {
        self.call("get", json!({"stream_name": "s", "group_id": "g", "item_id": item}))
    }

    pub(crate) fn delete(&self, item: &str) -> Value {
        self.call("delete", json!({"stream_name": "s", "group_id": "g", "item_id": item}))
    }

    pub(crate) fn append(&self, data: Value) -> u64 {
        let done = self.call("append", json!({"stream_name": "s", "group_id": "g", "data": data}));
        done["offset"].as_u64().unwrap()
    }

    /// A reading of the log of the usual group.
    pub(crate) fn read(&self, mut more: Value) -> Value {
        (more["stream_name"], more["group_id"]) = (json!("s"), json!("g"));
        self.call("read", more)
    }

    pub(crate) fn info(&self) -> Value {
        self.call("info", json!({"stream_name": "s", "group_id": "g"}))
    }

    /// A call with streams of the usual group.
    pub(crate) fn open(&self, function: &str, mut request: Value) -> StreamCall {
        (request["stream_name"], request["group_id"]) = (json!("s"), json!("g"));
        self.inner.open(function, request)
    }
}
