//! What every actor does, but for triggers and observers: see ../../README.md. Compiled against each SDK, which is
//! `crate::iii_sdk`; from 0.26 on the names used here are deprecated, and still there. It must not know who calls or why.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::channels;
use crate::iii_helpers::observability::Logger;
use crate::iii_sdk::protocol::{TriggerAction, TriggerRequest};
use crate::iii_sdk::runtime::WorkerMetadata;
use crate::iii_sdk::{Error, IIIClient, InitOptions, RegisterFunction, register_worker};

/// A connected worker under the name that it was given.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) iii: IIIClient,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Terms {
    a: f64,
    b: f64,
}

#[derive(Serialize, schemars::JsonSchema)]
struct Sum {
    sum: f64,
}

impl Actor {
    /// Connects with the address and the name of the command line.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut words = std::env::args().skip(1);
        let (Some(url), Some(name)) = (words.next(), words.next()) else {
            anyhow::bail!("usage: ACTOR URL NAME");
        };
        let metadata = WorkerMetadata { name: name.clone(), ..WorkerMetadata::default() };
        let version = metadata.version.clone();
        let iii = register_worker(&url, InitOptions { metadata: Some(metadata), ..InitOptions::default() });
        let actor = Self { name, iii };
        actor.plain(version);
        actor.outcomes();
        actor.calls();
        actor.memory();
        channels::serve(&actor);
        Ok(actor)
    }

    /// Serves until the standard input ends.
    pub(crate) async fn until_told(self) -> anyhow::Result<()> {
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        self.iii.shutdown_async().await;
        Ok(())
    }

    /// Registers a function of this actor.
    pub(crate) fn serve<F, Fut>(&self, id: &str, handler: F)
    where
        F: Fn(Value, Option<Value>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        self.iii.register_function(format!("{}::{id}", self.name), RegisterFunction::new_async(handler));
    }

    /// Calls a function.
    pub(crate) async fn trigger(&self, function_id: &str, payload: Value) -> Result<Value, Error> {
        self.iii.trigger(request(function_id, payload)).await
    }

    fn plain(&self, version: String) {
        let identity =
            json!({ "name": self.name, "sdk": format!("crates.io {version}"), "pid": std::process::id() });
        self.serve("identity", move |_, _| std::future::ready(Ok(identity.clone())));
        self.serve("echo", async |input, metadata| {
            let (data, caller) = unstamped(input);
            Ok(json!({ "data": data, "caller": caller, "metadata": metadata }))
        });
        let add = RegisterFunction::new(|Terms { a, b }: Terms| Ok(Sum { sum: a + b }));
        self.iii.register_function(format!("{}::add", self.name), add);
        self.serve("log", async |data, _| {
            let (logger, message) = (Logger::new(), text(&data, "message"));
            match data["level"].as_str() {
                Some("debug") => logger.debug(&message, None),
                Some("warn") => logger.warn(&message, None),
                Some("error") => logger.error(&message, None),
                _ => logger.info(&message, None),
            }
            Ok(Value::Null)
        });
    }

    fn outcomes(&self) {
        self.serve("fail", async |data, _| {
            let (code, message) = (text(&data, "code"), text(&data, "message"));
            Err(Error::Remote { code, message, stacktrace: None })
        });
        self.serve("silent", async |_, _| Ok(Value::Null));
        self.serve("wait", async |data, _| {
            let ms = data["ms"].as_u64().unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(json!({ "waited": ms }))
        });
    }

    fn calls(&self) {
        let actor = self.clone();
        self.serve("call", move |data, _| {
            let actor = actor.clone();
            async move {
                Ok(match actor.asked(&data).await {
                    Ok(answer) => json!({ "ok": answer }),
                    Err(Error::Remote { code, message, .. }) => {
                        json!({ "error": { "code": code, "message": message } })
                    }
                    Err(Error::Timeout) => json!({ "error": { "code": "TIMEOUT", "message": "timed out" } }),
                    Err(other) => json!({ "error": { "code": "", "message": other.to_string() } }),
                })
            }
        });
        let actor = self.clone();
        self.serve("relay", move |data, _| {
            let actor = actor.clone();
            async move {
                let mut names = vec![json!(actor.name)];
                if let Some((next, path)) = data["path"].as_array().and_then(|path| path.split_first()) {
                    let answer =
                        actor.trigger(next.as_str().unwrap_or_default(), json!({ "path": path })).await?;
                    names.extend(answer.as_array().cloned().unwrap_or_default());
                }
                Ok(Value::Array(names))
            }
        });
    }

    /// Calls as `call` was asked to.
    async fn asked(&self, data: &Value) -> Result<Value, Error> {
        let action = match data["action"]["type"].as_str() {
            Some("void") => Some(TriggerAction::Void),
            Some("enqueue") => Some(TriggerAction::Enqueue { queue: text(&data["action"], "queue") }),
            _ => None,
        };
        let mut request = request(&text(data, "function"), data["data"].clone());
        request.action = action;
        request.timeout_ms = data["timeout_ms"].as_u64();
        match &data["metadata"] {
            Value::Null => self.iii.trigger(request).await,
            metadata => self.iii.trigger(request.metadata(metadata.clone())).await,
        }
    }

    fn memory(&self) {
        let notes: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&notes);
        self.serve("note", move |input, metadata| {
            lock(&kept).push(json!({ "data": unstamped(input).0, "metadata": metadata }));
            std::future::ready(Ok(Value::Null))
        });
        self.serve("noted", move |_, _| std::future::ready(Ok(json!({ "notes": *lock(&notes) }))));
    }
}

/// A call that waits for its answer.
pub(crate) fn request(function_id: &str, payload: Value) -> TriggerRequest {
    TriggerRequest { function_id: function_id.to_owned(), payload, action: None, timeout_ms: None }
}

/// An object as whoever called has sent it, and who that was.
fn unstamped(mut input: Value) -> (Value, Option<Value>) {
    let caller = input.as_object_mut().and_then(|fields| fields.remove("_caller_worker_id"));
    (input, caller)
}

/// A field that is text; empty if it is not there.
pub(crate) fn text(data: &Value, field: &str) -> String {
    data[field].as_str().unwrap_or_default().to_owned()
}

/// What is kept stays right whoever panicked.
pub(crate) fn lock<T>(kept: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
