//! Requests that are made once however often they come: by `Idempotency-Key`, as the draft of the IETF says
//! (draft-ietf-httpapi-idempotency-key-header). The first one writes down that it has begun before its function is called,
//! and goes on even if its client leaves; its answer is written down too, and given to all who come after with the same key
//! and the same request. It must not know what is asked.
//!
//! A function that fails, or whose worker dies, has answered nothing: the key is free again. Of a process that ended in
//! between nobody knows how far it came; its keys are free again when the time of their routes is over.

mod record;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use ring::digest;
use ringway::Message;
use ringway_store::{Batch, Durability, Scan, Store, StoreError, Value as Stored};
use ringway_worker_kit::{Clock, names};

use crate::auth::Identity;
use crate::call;
use crate::config::route::Idempotency;
use crate::exchange::Exchange;
use crate::problem::{Code, Problem};
use crate::response::Answer;
use crate::route::text;
use record::{Record, State};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// How much longer than its function may take a request is held for one that goes on.
const LEASE_MS: u64 = 5000;

const RECORDS: &str = "http.idempotency";
const ENDS: &str = "http.idempotency.ends";

/// So many are forgotten at a time.
const SWEPT_MAX: usize = 1000;

/// What is remembered.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    store: Arc<dyn Store>,
    clock: Clock,
}

/// What a key is used for already.
#[derive(Debug)]
enum Known {
    Nothing,
    /// By the same request, which has not ended.
    Goes,
    Ended(Answer),
    /// By another request.
    Other,
}

/// A place in the store that this request holds.
#[derive(Debug)]
struct Held {
    key: Vec<u8>,
    fingerprint: String,
    until_ms: u64,
}

impl Ledger {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { store, clock }
    }

    async fn waiting<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Box<Problem>> {
        let store = Arc::clone(&self.store);
        let ended = tokio::task::spawn_blocking(move || work(&*store)).await;
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(target: "ringway", %error, "what is remembered of requests cannot be read or written");
            Problem::new(Code::Overloaded, "requests cannot be remembered at the moment")
                .retry_after(Duration::from_secs(1))
        };
        ended.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    /// What is known under a key, with the revision of that.
    async fn look(&self, held: &Held) -> Result<(Known, Option<u64>), Box<Problem>> {
        let (key, now_ms) = (held.key.clone(), self.clock.now_ms());
        let found: Option<Stored> = self.waiting(move |store| store.get(RECORDS, &key)).await?;
        let Some(found) = found else { return Ok((Known::Nothing, None)) };
        let Some(record) = Record::read(&found.bytes).filter(|record| record.until_ms > now_ms) else {
            return Ok((Known::Nothing, Some(found.revision)));
        };
        let known = match record.state {
            _ if record.fingerprint != held.fingerprint => Known::Other,
            State::Ended { .. } => record.answer().map_or(Known::Nothing, Known::Ended),
            State::Begun { lease_ms } if lease_ms > now_ms => Known::Goes,
            State::Begun { .. } => Known::Nothing,
        };
        Ok((known, Some(found.revision)))
    }

    /// Writes down that a request has begun; false if somebody was faster.
    async fn begin(&self, held: &Held, lease_ms: u64, revision: Option<u64>) -> Result<bool, Box<Problem>> {
        let record = Record::begun(&held.fingerprint, held.until_ms, lease_ms);
        let batch = Batch::new();
        let batch = match revision {
            None => batch.expect_absent(RECORDS, &held.key),
            Some(revision) => batch.expect_revision(RECORDS, &held.key, revision),
        };
        let batch = batch.put(RECORDS, &held.key, record).put(
            ENDS,
            &names::expiry_key(held.until_ms, &held.key),
            &names::MARK[..],
        );
        self.waiting(move |store| match store.commit(batch, Durability::Durable) {
            Ok(_) => Ok(true),
            Err(StoreError::Precondition { .. }) => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    async fn end(&self, held: &Held, answer: &Answer) -> Result<(), Box<Problem>> {
        let batch =
            Batch::new().put(RECORDS, &held.key, Record::ended(&held.fingerprint, held.until_ms, answer));
        self.waiting(move |store| store.commit(batch, Durability::Durable).map(|_| ())).await
    }

    async fn forget(&self, held: &Held) -> Result<(), Box<Problem>> {
        let batch = Batch::new()
            .delete(RECORDS, &held.key)
            .delete(ENDS, &names::expiry_key(held.until_ms, &held.key));
        self.waiting(move |store| store.commit(batch, Durability::Durable).map(|_| ())).await
    }

    /// Forgets what has been remembered long enough; true if there may be more.
    pub(crate) async fn sweep(&self) -> bool {
        let now_ms = self.clock.now_ms();
        let swept = self.waiting(move |store| {
            let last = names::expiry_key(now_ms, &[]);
            let bounds = (std::ops::Bound::Unbounded, std::ops::Bound::Excluded(&last[..]));
            let due = store.scan(&Scan::table(ENDS).range(bounds.0, bounds.1).limit(SWEPT_MAX))?;
            let mut batch = Batch::new();
            for entry in &due {
                batch = batch.delete(ENDS, &entry.key);
                let Some((_, key)) = names::split_expiry(&entry.key) else { continue };
                let Some(found) = store.get(RECORDS, key)? else { continue };
                // It may have been used again since, for longer, or be about to be.
                if Record::read(&found.bytes).is_none_or(|record| record.until_ms <= now_ms) {
                    batch = batch.expect_revision(RECORDS, key, found.revision).delete(RECORDS, key);
                }
            }
            if due.is_empty() {
                return Ok(false);
            }
            match store.commit(batch, Durability::Durable) {
                Ok(_) => Ok(due.len() == SWEPT_MAX),
                Err(StoreError::Precondition { .. }) => Ok(true),
                Err(error) => Err(error),
            }
        });
        swept.await.unwrap_or(false)
    }
}

/// Calls a route's function once for its key, or gives the answer that was given before.
///
/// # Errors
/// The key is missing or in use, or the function failed.
pub(crate) async fn once(
    exchange: &Exchange<'_>,
    settings: &Idempotency,
    identity: Option<&Identity>,
    body: &[u8],
    message: Message,
) -> Result<Answer, Box<Problem>> {
    let Some(handle) = exchange.route.handle.clone() else {
        return Err(Problem::new(Code::FunctionUnavailable, "the route has no function"));
    };
    let ledger = exchange.door.ledger.clone();
    let Some(key) = key(exchange, settings)? else {
        let reply = call::call(&handle, &message, &exchange.options()).await;
        return Answer::of(reply.map_err(|error| exchange.failed(&error))?);
    };
    let now_ms = ledger.clock.now_ms();
    let time_ms = u64::try_from(exchange.route.timeout.as_millis()).unwrap_or(u64::MAX);
    let lease_ms = now_ms.saturating_add(time_ms).saturating_add(LEASE_MS);
    let mut held = place(exchange, settings, identity, body, &key, now_ms);
    // It is known for at least as long as it may go on.
    held.until_ms = held.until_ms.max(lease_ms);
    // Whoever is overtaken between looking and writing looks again.
    loop {
        let (known, revision) = ledger.look(&held).await?;
        match known {
            Known::Other => {
                let text = "the key was used for another request: take a new one for each";
                return Err(Problem::new(Code::IdempotencyKeyReused, text));
            }
            Known::Goes => {
                let text = "the first request with this key goes on: come again for its answer";
                return Err(Problem::new(Code::IdempotencyInFlight, text).retry_after(Duration::from_secs(1)));
            }
            Known::Ended(mut answer) => {
                answer.headers.insert(REPLAYED, HeaderValue::from_static("true"));
                return Ok(answer);
            }
            Known::Nothing => {}
        }
        if ledger.begin(&held, lease_ms, revision).await? {
            break;
        }
    }
    let options = exchange.options();
    let bytes_max = settings.answer_bytes_max;
    // It goes on without its client, who will ask again.
    let going = tokio::spawn(async move {
        let reply = call::call(&handle, &message, &options).await;
        let answer = reply.map(Answer::of);
        let kept = match &answer {
            Ok(Ok(answer)) if answer.body.len() <= bytes_max => ledger.end(&held, answer).await,
            _ => ledger.forget(&held).await,
        };
        // What cannot be written down was told to the log; the client has its answer all the same.
        drop(kept);
        answer
    });
    match going.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(exchange.failed(&error)),
        Err(error) => Err(Problem::new(Code::Internal, error.to_string())),
    }
}

/// The key of a request, with or without the quotes that the draft wants.
fn key(exchange: &Exchange<'_>, settings: &Idempotency) -> Result<Option<String>, Box<Problem>> {
    let wrong = |text: &'static str| Problem::new(Code::IdempotencyKeyInvalid, text);
    let mut lines = exchange.parts.headers.get_all(KEY).iter();
    let line = match (lines.next(), lines.next()) {
        (None, _) if settings.required => return Err(wrong("this route wants the header Idempotency-Key")),
        (None, _) => return Ok(None),
        (Some(line), None) => line.to_str().map_err(|_| wrong("the key is no text"))?.trim(),
        (Some(_), Some(_)) => return Err(wrong("there is more than one Idempotency-Key")),
    };
    let key = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap_or(line);
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(wrong("the key has 1 to 255 bytes"));
    }
    Ok(Some(key.to_owned()))
}

fn place(
    exchange: &Exchange<'_>,
    settings: &Idempotency,
    identity: Option<&Identity>,
    body: &[u8],
    key: &str,
    now_ms: u64,
) -> Held {
    let parts = exchange.parts;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [parts.method.as_str(), path, text(&parts.headers, CONTENT_TYPE).unwrap_or_default()] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    hash.update(body);
    let fingerprint = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut place = Vec::new();
    // What one has asked nobody else is told, so that a key is its owner's alone.
    let owner = identity.map_or_else(String::new, |who| format!("{} {}", who.scheme, who.subject));
    let route = format!("{} {}", parts.method, exchange.route.pattern);
    for name in [route.as_str(), owner.as_str(), key] {
        names::push(&mut place, name);
    }
    Held {
        key: place,
        fingerprint,
        until_ms: now_ms.saturating_add(settings.keep_seconds.saturating_mul(1000)),
    }
}
