//! `blob::put`, `get`, `stat`, `delete`. Each runs on a thread of the pool, since it waits for the disk. A body is read where
//! its caller wrote it, and a reply is written where its caller reads it. They must not know where files lie.

use std::sync::{Arc, Weak};

use ringway::{Context, Encoding, Failure, Function, HandlerResult, Message, Request};
use ringway_store::blobs::{HOLD, HOLD_VALUE, Pin, hold_key};
use ringway_store::{Batch, BlobError, BlobId, Blobs, Durability, Scan, Store, StoreError};
use ringway_worker_kit::store_failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What begins the name of a holder that was given by a caller, so that it is nobody else's.
const HOLDER_PREFIX: u8 = b'u';

/// Whoever names no holder.
const HOLDER_DEFAULT: &str = "user";

/// Bytes of a holder's name.
const HOLDER_BYTES_MAX: usize = 256;

/// Holders that are counted.
const HOLDERS_COUNTED: usize = 10_000;

/// The code of everything that has none of its own.
const CODE: &str = "BLOB_ERROR";

#[derive(Debug, Deserialize, JsonSchema)]
struct OneBlob {
    /// The blob.
    #[serde(default)]
    id: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct DeleteRequest {
    /// The blob.
    #[serde(default)]
    id: String,
    /// Who lets go; `user` unless it is said, as for `blob::put`.
    #[serde(default)]
    holder: Option<String>,
}

/// A blob that was put.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Put {
    /// Its hash.
    id: String,
    /// Its length.
    bytes: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Stat {
    id: String,
    /// Its length.
    bytes: u64,
    /// How many hold it; more than 10,000 are not counted.
    holders: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Deleted {
    id: String,
    /// Whether this holder had it.
    released: bool,
    /// Whether nobody else had, so that it is gone.
    removed: bool,
}

/// The store, for the time of a call.
#[derive(Debug, Clone)]
pub(crate) struct Lent(pub(crate) Weak<dyn Store>);

impl Lent {
    pub(crate) fn take(&self) -> HandlerResult<Arc<dyn Store>> {
        let ended = || Failure::with_code(CODE, "the blob worker has ended: start the engine again");
        self.0.upgrade().ok_or_else(ended)
    }
}

pub(crate) fn all(lent: &Lent, bytes_max: u64) -> Vec<Function> {
    let [of_put, of_get, of_stat, of_delete] = [(); 4].map(|()| lent.clone());
    let put = move |context: &Context, request: &Request<'_>| {
        let (store, holder) = (of_put.take()?, holder_of(context)?);
        check_length(request.body().len() as u64, bytes_max)?;
        let pin = blobs(&*store)?.put(request.body()).map_err(|error| failure(&error))?;
        Message::json(&hold(&*store, pin, &holder)?)
    };
    let stat = move |_: &Context, request: OneBlob| {
        let (store, id) = (of_stat.take()?, parse(&request.id)?);
        let bytes = blobs(&*store)?.bytes(&id).map_err(|error| failure(&error))?;
        let scan = Scan::table(HOLD).prefix(id.as_bytes()).limit(HOLDERS_COUNTED);
        let holders = store.scan(&scan).map_err(|error| refused(&error))?.len();
        Ok(Stat { id: request.id, bytes, holders })
    };
    vec![
        Function::raw("blob::put", put)
            .pooled()
            .description("keeps the body until its holder deletes it; answers when it is on disk")
            .idempotent(),
        Function::raw("blob::get", move |context, request| get(&*of_get.take()?, context, request))
            .pooled()
            .description("the bytes of a blob, in one piece")
            .idempotent(),
        Function::json("blob::stat", stat)
            .pooled()
            .description("how long a blob is, and how many hold it")
            .idempotent(),
        Function::json("blob::delete", move |_, request: DeleteRequest| delete(&*of_delete.take()?, request))
            .pooled()
            .description("lets a blob go; it is removed with its last holder"),
    ]
}

pub(crate) fn blobs(store: &dyn Store) -> HandlerResult<&Blobs> {
    store.blobs().ok_or_else(|| {
        let text = "this store keeps no blobs, which are files beside an embedded one: set `engine.store.kind: embedded`";
        Failure::with_code("BLOB_UNSUPPORTED", text)
    })
}

pub(crate) fn parse(id: &str) -> HandlerResult<BlobId> {
    id.parse().map_err(|error: ringway_store::blobs::ParseBlobIdError| Failure::invalid(error.to_string()))
}

/// Reads the id that a request of whole messages names.
pub(crate) fn id_in(body: &[u8]) -> HandlerResult<BlobId> {
    let request: OneBlob = serde_json::from_slice(body)
        .map_err(|error| Failure::invalid(format!("wanted {{\"id\": \"…\"}}: {error}")))?;
    parse(&request.id)
}

pub(crate) fn check_length(found: u64, bytes_max: u64) -> HandlerResult<()> {
    if found > bytes_max {
        let text = format!(
            "wanted a blob of at most {bytes_max} bytes, found {found}: split it, or raise `bytes_max` of the worker `blob`"
        );
        return Err(Failure::with_code("BLOB_TOO_LARGE", text));
    }
    Ok(())
}

/// Who holds what a call puts.
pub(crate) fn holder_of(context: &Context) -> HandlerResult<Vec<u8>> {
    let named = context.metadata().and_then(|metadata| metadata.get("holder"));
    match named {
        None => holder_key(HOLDER_DEFAULT),
        Some(name) => match name.as_str() {
            Some(name) => holder_key(name),
            None => Err(Failure::invalid(format!("wanted the name of a holder, found {name}"))),
        },
    }
}

fn holder_key(name: &str) -> HandlerResult<Vec<u8>> {
    if name.is_empty() || name.len() > HOLDER_BYTES_MAX {
        let found = name.len();
        let text = format!("wanted the name of a holder of 1 to {HOLDER_BYTES_MAX} bytes, found {found}");
        return Err(Failure::invalid(text));
    }
    Ok([&[HOLDER_PREFIX], name.as_bytes()].concat())
}

/// Has somebody hold what was put.
pub(crate) fn hold(store: &dyn Store, pin: Pin, holder: &[u8]) -> HandlerResult<Put> {
    let (id, bytes) = (pin.id(), pin.bytes());
    let batch = Batch::new().put(HOLD, &hold_key(&id, holder), HOLD_VALUE);
    let held = store.commit(batch, Durability::Durable);
    drop(pin);
    held.map_err(|error| {
        let collected =
            blobs(store).and_then(|blobs| blobs.collect(store, &id).map_err(|error| failure(&error)));
        if let Err(error) = collected {
            tracing::warn!(%error, %id, "a blob that nobody holds stays until the next start");
        }
        refused(&error)
    })?;
    Ok(Put { id: id.to_string(), bytes })
}

fn get(store: &dyn Store, context: &Context, request: &Request<'_>) -> HandlerResult<Message> {
    let (id, blobs) = (id_in(request.body())?, blobs(store)?);
    let length = blobs.bytes(&id).map_err(|error| failure(&error))?;
    let length = usize::try_from(length).map_err(|_| Failure::invalid("it is longer than memory"))?;
    let mut loan = context.worker().loan(length)?;
    blobs.read_into(&id, &mut loan).map_err(|error| failure(&error))?;
    Ok(Message::from_loan(Encoding::Bytes, loan))
}

fn delete(store: &dyn Store, request: DeleteRequest) -> HandlerResult<Deleted> {
    let id = parse(&request.id)?;
    let key = hold_key(&id, &holder_key(request.holder.as_deref().unwrap_or(HOLDER_DEFAULT))?);
    let released = store.get(HOLD, &key).map_err(|error| refused(&error))?.is_some();
    if released {
        let batch = Batch::new().delete(HOLD, &key);
        store.commit(batch, Durability::Durable).map_err(|error| refused(&error))?;
    }
    let removed = blobs(store)?.collect(store, &id).map_err(|error| failure(&error))?;
    Ok(Deleted { id: request.id, released, removed })
}

fn refused(error: &StoreError) -> Failure {
    store_failure(CODE, error)
}

/// What a caller hears; the text says what was wanted, what was found, and what to do.
pub(crate) fn failure(error: &BlobError) -> Failure {
    match error {
        BlobError::Store(error) => refused(error),
        error => Failure::with_code(error.code(), error.to_string()),
    }
}
