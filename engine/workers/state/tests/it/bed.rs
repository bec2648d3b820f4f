//! What every test stands on, and the usual calls. It must not know what is tested.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use ringway_store::{Embedded, Options, Store};
pub(crate) use ringway_worker_bed::{NOW_MS, PATIENCE, bind, hear, next};
use ringway_worker_state::{Config, State};
use serde_json::{Value, json};

type Inner = ringway_worker_bed::Bed<State>;

/// Engine, store, worker, client.
pub(crate) struct Bed(Inner);

impl Deref for Bed {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl DerefMut for Bed {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.0
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::on(Options::default(), config, |store| store)
    }

    /// On a store with these options, and whatever stands before it.
    pub(crate) fn on(
        options: Options,
        config: Config,
        wrap: impl Fn(Arc<Embedded>) -> Arc<dyn Store> + Send + Sync + 'static,
    ) -> Self {
        let mut bed = Inner::new("state", "watch", move |address, store, clock| {
            State::start_with_clock(address, store, config.clone(), clock)
        });
        bed.options = options;
        bed.wrap(wrap);
        bed.start();
        Self(bed)
    }

    pub(crate) fn set(&self, scope: &str, key: &str, value: Value) -> Value {
        self.call("set", json!({"scope": scope, "key": key, "value": value}))
    }

    pub(crate) fn get(&self, scope: &str, key: &str) -> Value {
        self.call("get", json!({"scope": scope, "key": key}))
    }

    pub(crate) fn revision(&self, scope: &str, key: &str) -> u64 {
        let found = self.call("get", json!({"scope": scope, "key": key, "with_revision": true}));
        found["revision"].as_u64().unwrap()
    }
}
