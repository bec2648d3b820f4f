//! Which functions over HTTP there are: those of the settings, those that stay over restarts, and those that whoever
//! registered them takes away again. Each is a function of this worker in the catalog, in the namespace it was registered for.
//! It must not know how a request is made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use ringway::{CallError, Context, Encoding, ErrorCode, Failure, Function, HandlerResult, Message, Worker};
use ringway_store::{Batch, Durability, Scan, Store, StoreError};
use ringway_worker_kit::store_failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::NAME;
use crate::outbound::{Asked, Outbound};
use crate::spec::{Invocation, SpecError, Target};

/// Functions that stay. The key is namespace and id with a zero byte between them, the value JSON.
const TABLE: &str = "http-functions.function";

/// Functions at a time.
const FUNCTIONS_MAX: usize = 10_000;

/// The code of what the store refuses.
const CODE: &str = "HTTP_FUNCTION_ERROR";

/// What is known of a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Registration {
    /// Its id.
    pub(crate) function_id: String,
    /// The namespace it is in; `default` unless given.
    #[serde(default = "default_namespace")]
    pub(crate) namespace: String,
    /// How it is called.
    pub(crate) invocation: Invocation,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// JSON Schema of its payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_format: Option<Value>,
    /// JSON Schema of its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response_format: Option<Value>,
    /// Anything its author wants to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<Value>,
    /// Whether it is still there when the engine was started again. Default: true.
    #[serde(default = "yes")]
    pub(crate) durable: bool,
}

/// What the metadata of `http-functions::call` says.
#[derive(Debug, Deserialize)]
struct Once {
    function_id: String,
    invocation: Invocation,
}

fn default_namespace() -> String {
    ringway::protocol::naming::NAMESPACE_DEFAULT.to_owned()
}

const fn yes() -> bool {
    true
}

/// A function by its namespace and id.
type Key = (String, String);

#[derive(Debug)]
struct Known {
    registration: Registration,
    /// Whether it is of the settings.
    fixed: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    address: String,
    store: Arc<dyn Store>,
    outbound: Outbound,
    runtime: Handle,
    /// Held by whoever changes what is registered, so that of two the last is what is known, served and stored.
    changing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    functions: BTreeMap<Key, Known>,
    /// One worker for each namespace: what a worker registers is in its own.
    workers: HashMap<String, Worker>,
}

impl Registry {
    pub(crate) fn new(
        address: &str,
        worker: Worker,
        store: Arc<dyn Store>,
        outbound: Outbound,
        runtime: Handle,
    ) -> Self {
        let workers = HashMap::from([(default_namespace(), worker)]);
        let state = Mutex::new(State { functions: BTreeMap::new(), workers });
        Self { address: address.to_owned(), store, outbound, runtime, changing: Mutex::default(), state }
    }

    /// Registers a function of the settings.
    pub(crate) fn register_fixed(
        &self,
        id: &str,
        invocation: Invocation,
    ) -> Result<Result<(), CallError>, SpecError> {
        let target = self.outbound.check(&invocation)?;
        let registration = Registration {
            function_id: id.to_owned(),
            namespace: default_namespace(),
            invocation,
            description: None,
            request_format: None,
            response_format: None,
            metadata: None,
            durable: false,
        };
        Ok(self.serve(registration, target, true).map_err(Failure::into_error))
    }

    /// Registers what was registered to stay. One that cannot be called so any more is told in the log, and kept.
    pub(crate) fn restore(&self) -> Result<(), StoreError> {
        for entry in self.store.scan(&Scan::table(TABLE))? {
            let read: Result<Registration, _> = serde_json::from_slice(&entry.value.bytes);
            let registration = match read {
                Ok(registration) => registration,
                Err(error) => {
                    tracing::error!(%error, key = %String::from_utf8_lossy(&entry.key), "a function over HTTP cannot be read");
                    continue;
                }
            };
            let id = registration.function_id.clone();
            let served = self
                .outbound
                .check(&registration.invocation)
                .map_err(refused)
                .and_then(|target| self.serve(registration, target, false));
            if let Err(error) = served {
                tracing::error!(function = id, %error, "a function over HTTP is not served");
            }
        }
        Ok(())
    }

    /// Registers a function, in place of the one of that id if it was registered here.
    pub(crate) fn register(&self, registration: Registration) -> HandlerResult<()> {
        let target = self.outbound.check(&registration.invocation).map_err(refused)?;
        let key = (registration.namespace.clone(), registration.function_id.clone());
        let batch = if registration.durable {
            Batch::new().put(TABLE, &stored(&key), serde_json::to_vec(&registration)?)
        } else {
            Batch::new().delete(TABLE, &stored(&key))
        };
        let _changing = self.changing.lock();
        let durable = registration.durable || self.is_durable(&key);
        self.serve(registration, target, false)?;
        if durable && let Err(error) = self.store.commit(batch, Durability::Durable) {
            // The store may hold an earlier one still, which the next change has to see to.
            if let Some(known) = self.state.lock().functions.get_mut(&key) {
                known.registration.durable = true;
            }
            return Err(store_failure(CODE, &error));
        }
        Ok(())
    }

    fn is_durable(&self, key: &Key) -> bool {
        self.state.lock().functions.get(key).is_some_and(|known| known.registration.durable)
    }

    /// Takes a function away; whether there was one.
    pub(crate) fn unregister(&self, namespace: &str, id: &str) -> HandlerResult<bool> {
        let key = (namespace.to_owned(), id.to_owned());
        let _changing = self.changing.lock();
        let (durable, worker) = {
            let state = self.state.lock();
            let Some(known) = state.functions.get(&key) else { return Ok(false) };
            if known.fixed {
                let text = format!("`{id}` is a function of the settings: remove it there");
                return Err(CallError::new(ErrorCode::Forbidden, text).into());
            }
            (known.registration.durable, state.workers.get(namespace).cloned())
        };
        // First of all, so that one that could not be taken out of the store is still known, to be taken away again.
        if durable {
            let batch = Batch::new().delete(TABLE, &stored(&key));
            self.store.commit(batch, Durability::Durable).map_err(|error| store_failure(CODE, &error))?;
        }
        if let Some(worker) = worker {
            worker.unregister(id)?;
        }
        self.state.lock().functions.remove(&key);
        Ok(true)
    }

    /// All functions.
    pub(crate) fn all(&self) -> Vec<Registration> {
        self.state.lock().functions.values().map(|known| known.registration.clone()).collect()
    }

    /// Puts a function into the catalog.
    fn serve(&self, registration: Registration, target: Target, fixed: bool) -> HandlerResult<()> {
        let key = (registration.namespace.clone(), registration.function_id.clone());
        let mut state = self.state.lock();
        let before = state.functions.get(&key);
        if before.is_some_and(|known| known.fixed) {
            let text = format!("`{}` is a function of the settings: change it there", key.1);
            return Err(CallError::new(ErrorCode::Forbidden, text).into());
        }
        if before.is_none() && state.functions.len() >= FUNCTIONS_MAX {
            let text = format!(
                "there are {FUNCTIONS_MAX} functions over HTTP, no more are allowed: unregister some"
            );
            return Err(CallError::new(ErrorCode::Busy, text).into());
        }
        let worker = self.worker(&mut state, &registration.namespace)?;
        if state.functions.contains_key(&key) {
            worker.unregister(&registration.function_id)?;
            state.functions.remove(&key);
        }
        worker.register(self.function(&registration, target))?;
        state.functions.insert(key, Known { registration, fixed });
        Ok(())
    }

    fn worker(&self, state: &mut State, namespace: &str) -> HandlerResult<Worker> {
        if let Some(worker) = state.workers.get(namespace) {
            return Ok(worker.clone());
        }
        let worker = Worker::builder(NAME)
            .address(&self.address)
            .namespace(namespace)
            .description("Functions that are served over HTTP elsewhere")
            .connect()?;
        state.workers.insert(namespace.to_owned(), worker.clone());
        Ok(worker)
    }

    fn function(&self, registration: &Registration, target: Target) -> Function {
        let (target, outbound, runtime) = (Arc::new(target), self.outbound.clone(), self.runtime.clone());
        let id: Arc<str> = registration.function_id.as_str().into();
        let repeatable = target.repeatable;
        let call = move |context: Context, message: Message| {
            let (target, outbound, runtime, id) =
                (Arc::clone(&target), outbound.clone(), runtime.clone(), Arc::clone(&id));
            call(outbound, target, runtime, id, context, message)
        };
        let function = Function::raw_async(&registration.function_id, call)
            .exclusive()
            .schema(registration.request_format.clone(), registration.response_format.clone());
        let function = if repeatable { function.idempotent() } else { function };
        let function = match &registration.description {
            Some(text) => function.description(text.clone()),
            None => function,
        };
        match &registration.metadata {
            Some(metadata) => function.metadata(metadata.clone()),
            None => function,
        }
    }

    /// Calls a function that nobody registered here: how, its metadata says. For whoever has functions of his own to serve so.
    pub(crate) async fn call_once(&self, context: Context, message: Message) -> HandlerResult<Message> {
        let about = context
            .metadata()
            .ok_or_else(|| Failure::invalid("the call has no metadata with `invocation`"))?;
        let about =
            Once::deserialize(about).map_err(|error| Failure::invalid(format!("the metadata: {error}")))?;
        let target = Arc::new(self.outbound.check(&about.invocation).map_err(refused)?);
        call(self.outbound.clone(), target, self.runtime.clone(), about.function_id.into(), context, message)
            .await
    }

    /// Leaves the engine.
    pub(crate) fn shut_down(&self) {
        let workers = std::mem::take(&mut self.state.lock().workers);
        workers.values().for_each(Worker::shut_down);
    }
}

fn stored(key: &Key) -> Vec<u8> {
    format!("{}\0{}", key.0, key.1).into_bytes()
}

/// What a caller is told of a function that cannot be called so.
pub(crate) fn refused(error: SpecError) -> Failure {
    CallError::new(ErrorCode::InvalidRegistration, error.message).with_user_code(error.code).into()
}

/// Ends a request when it is dropped, as it is when the caller gives up.
struct Ending(tokio::task::AbortHandle);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn call(
    outbound: Outbound,
    target: Arc<Target>,
    runtime: Handle,
    id: Arc<str>,
    context: Context,
    message: Message,
) -> HandlerResult<Message> {
    let body = match message.encoding() {
        Encoding::Json => Bytes::copy_from_slice(message.body()),
        Encoding::None => Bytes::from_static(b"null"),
        other => {
            let text = format!("a function over HTTP takes json, the request is {other}");
            return Err(CallError::new(ErrorCode::UnsupportedEncoding, text).into());
        }
    };
    drop(message);
    let asked = Asked {
        function: id.to_string(),
        invocation: Uuid::new_v4().to_string(),
        body,
        trace: context.trace(),
        baggage: context.baggage().map(ringway::Baggage::format),
        remaining: context.remaining(),
    };
    let request = runtime.spawn(async move { outbound.call(&target, &asked).await });
    let _ending = Ending(request.abort_handle());
    request.await.unwrap_or_else(|_| Err(Failure::with_code("LEAVING", "the worker is being shut down")))
}
