//! What the tests share: stores on a server, a look at the server beside the store.

use async_nats::jetstream::{self, Context};
use ringway_store::{OpenReport, Store};
use ringway_store_nats::NatsStore;
use ringway_store_nats::testing::Server;

/// Opens the store of a name.
pub(crate) fn open(server: &Server, name: &str) -> (NatsStore, OpenReport) {
    NatsStore::open(server.options(name)).unwrap()
}

/// Whoever else uses the server.
pub(crate) struct Stranger {
    runtime: tokio::runtime::Runtime,
    pub(crate) jetstream: Context,
}

impl Stranger {
    pub(crate) fn at(server: &Server) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let jetstream =
            runtime.block_on(async { jetstream::new(async_nats::connect(server.url()).await.unwrap()) });
        Self { runtime, jetstream }
    }

    pub(crate) fn wait<F: Future>(&self, what: F) -> F::Output {
        self.runtime.block_on(what)
    }

    /// What `nats kv get` shows.
    pub(crate) fn read(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.wait(async {
            let bucket = self.jetstream.get_key_value(bucket).await.unwrap();
            bucket.get(key).await.unwrap().map(|bytes| bytes.to_vec())
        })
    }

    /// What `nats pub` does, acknowledged.
    pub(crate) fn publish(&self, subject: &str, body: &'static str) {
        self.wait(async {
            self.jetstream.publish(subject.to_owned(), body.into()).await.unwrap().await.unwrap();
        });
    }

    /// Takes what a subject has out of a stream, as if the server had never had it.
    pub(crate) fn remove(&self, stream: &str, subject: &str) {
        self.wait(async {
            let stream = self.jetstream.get_stream(stream).await.unwrap();
            let purged = stream.purge().filter(subject).await.unwrap();
            assert_eq!(purged.purged, 1, "what {subject} has");
        });
    }

    /// Fills a server with so many messages of 500 KiB.
    pub(crate) fn fill(&self, messages: usize) {
        self.wait(async {
            let config = jetstream::stream::Config {
                name: "filler".to_owned(),
                subjects: vec!["filler".to_owned()],
                ..Default::default()
            };
            self.jetstream.create_stream(config).await.unwrap();
            for _ in 0..messages {
                let sent = self.jetstream.publish("filler", vec![0; 500 << 10].into());
                sent.await.unwrap().await.unwrap();
            }
        });
    }

    /// How many messages a stream has.
    pub(crate) fn count(&self, stream: &str) -> u64 {
        self.wait(async { self.jetstream.get_stream(stream).await.unwrap().cached_info().state.messages })
    }
}

/// A value as bytes.
pub(crate) fn bytes(store: &impl Store, table: &str, key: &[u8]) -> Option<Vec<u8>> {
    store.get(table, key).unwrap().map(|value| value.bytes.to_vec())
}
