//! What each change does: reads the entry, decides, commits on condition that the entry is still the one that was read, and
//! begins anew where it is not. No lock is held meanwhile, so that all callers share the store's commits. It must not know
//! how it is called.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ringway::{CallError, ErrorCode, Failure, TraceContext};
use ringway_store::{Batch, Durability, StoreError};
use ringway_worker_kit::{Clock, store_failure};
use serde_json::Value;

use crate::check;
use crate::config::Config;
use crate::store::{Cause, Entry, STORE_ERROR, Shelf, Version};
use crate::trigger::{Event, Events, Happened};

/// Changes of one entry may come between reading and writing it; after so many the caller is asked to come again.
const ATTEMPTS_MAX: u32 = 1000;

/// All configurations, and who is told of their changes.
#[derive(Debug)]
pub(crate) struct Entries {
    pub(crate) shelf: Shelf,
    pub(crate) events: Arc<Events>,
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) clock: Clock,
}

/// What a change led to.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    pub(crate) old: Option<Entry>,
    pub(crate) entry: Entry,
}

/// A registration as it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) schema: Value,
    pub(crate) initial_value: Option<Value>,
    pub(crate) metadata: Option<Value>,
}

/// What is to be written, decided from what is there.
struct Next {
    entry: Entry,
    cause: Cause,
    of: Option<u64>,
}

impl Entries {
    /// An entry that must be there.
    pub(crate) fn entry(&self, id: &str) -> Result<Entry, Failure> {
        check::id(id)?;
        self.shelf.get(id)?.entry().cloned().ok_or_else(|| not_found(id))
    }

    /// Registers: what was stored stays unless a value is given. One that changes nothing is no change.
    pub(crate) async fn register(
        &self,
        wanted: Registration,
        trace: TraceContext,
    ) -> Result<Changed, Failure> {
        check::id(&wanted.id)?;
        let validator = check::schema(&wanted.id, &wanted.schema)?;
        if let Some(value) = &wanted.initial_value {
            self.check_value(&wanted.id, &validator, value)?;
        }
        self.change(&wanted.id, trace, |before| {
            let kept = || before.map_or(Value::Null, |before| before.value.clone());
            let entry = Entry {
                id: wanted.id.clone(),
                name: wanted.name.clone(),
                description: wanted.description.clone(),
                schema: wanted.schema.clone(),
                metadata: wanted.metadata.clone(),
                value: wanted.initial_value.clone().unwrap_or_else(kept),
                version: before.map_or(0, |before| before.version),
            };
            Ok(Next { entry, cause: Cause::Registered, of: None })
        })
        .await
    }

    /// Sets the whole value; only at a version where one is named.
    pub(crate) async fn set(
        &self,
        id: &str,
        value: &Value,
        expected: Option<u64>,
        trace: TraceContext,
    ) -> Result<Changed, Failure> {
        check::id(id)?;
        self.change(id, trace, |before| {
            let before = before.ok_or_else(|| not_registered(id))?;
            if let Some(expected) = expected.filter(|expected| *expected != before.version) {
                let found = before.version;
                let text =
                    format!("wanted `{id}` at version {expected}, found version {found}: read it again");
                return Err(Failure::with_code("VERSION_MISMATCH", text));
            }
            self.fits(before, value)?;
            let entry = Entry { value: value.clone(), ..before.clone() };
            Ok(Next { entry, cause: Cause::Set, of: None })
        })
        .await
    }

    /// Goes back to the value of an earlier version, as a new version.
    pub(crate) async fn roll_back(&self, id: &str, to: u64, trace: TraceContext) -> Result<Changed, Failure> {
        check::id(id)?;
        self.change(id, trace, |before| {
            let before = before.ok_or_else(|| not_registered(id))?;
            let version = self.shelf.version(id, to)?.ok_or_else(|| {
                let text = format!("version {to} of `{id}` is not kept: see `configuration::history`");
                Failure::with_code("NOT_FOUND", text)
            })?;
            self.fits(before, &version.value)?;
            let entry = Entry { value: version.value, ..before.clone() };
            Ok(Next { entry, cause: Cause::RolledBack, of: Some(to) })
        })
        .await
    }

    /// Removes an entry with its versions.
    pub(crate) async fn delete(&self, id: &str, trace: TraceContext) -> Result<Entry, Failure> {
        for _ in 0..ATTEMPTS_MAX {
            check::id(id)?;
            let before = self.shelf.get(id)?;
            let entry = before.entry().ok_or_else(|| not_found(id))?;
            let batch = self.shelf.removal(&before, entry)?;
            let event = Event { happened: Happened::Deleted, old: Some(entry.clone()), new: None, trace };
            if self.commit(batch, event).await? {
                return Ok(entry.clone());
            }
        }
        Err(contended(id))
    }

    async fn change(
        &self,
        id: &str,
        trace: TraceContext,
        decide: impl Fn(Option<&Entry>) -> Result<Next, Failure>,
    ) -> Result<Changed, Failure> {
        for _ in 0..ATTEMPTS_MAX {
            let before = self.shelf.get(id)?;
            let old = before.entry().cloned();
            let Next { mut entry, cause, of } = decide(old.as_ref())?;
            if let Some(old) = old.as_ref().filter(|old| **old == entry) {
                return Ok(Changed { old: Some(old.clone()), entry });
            }
            entry.version = before.next_version();
            let version = Version {
                version: entry.version,
                at_ms: self.clock.now_ms(),
                cause,
                of,
                value: entry.value.clone(),
            };
            let history_max = self.config.load().history_max;
            let batch = self.shelf.change(&before, &entry, &version, history_max)?;
            let happened = match cause {
                Cause::Registered => Happened::Registered,
                Cause::Set | Cause::RolledBack => Happened::Updated,
            };
            let event = Event { happened, old: old.clone(), new: Some(entry.clone()), trace };
            if self.commit(batch, event).await? {
                return Ok(Changed { old, entry });
            }
        }
        Err(contended(id))
    }

    /// Commits, and has the event told once it is on disk. Says whether the entry was still the one that was read.
    async fn commit(&self, batch: Batch, event: Event) -> Result<bool, Failure> {
        self.events.room()?;
        let events = Arc::clone(&self.events);
        let then = move |outcome: &Result<u64, StoreError>| {
            if outcome.is_ok() {
                events.push(event);
            }
        };
        let outcome = match self.shelf.0.start_then(batch, Durability::Durable, Box::new(then)) {
            Ok(commit) => commit.await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(_) => Ok(true),
            Err(StoreError::Precondition { .. }) => Ok(false),
            Err(error) => Err(store_failure(STORE_ERROR, &error)),
        }
    }

    fn fits(&self, entry: &Entry, value: &Value) -> Result<(), Failure> {
        let validator = check::schema(&entry.id, &entry.schema)?;
        self.check_value(&entry.id, &validator, value)
    }

    fn check_value(&self, id: &str, validator: &jsonschema::Validator, value: &Value) -> Result<(), Failure> {
        let (found, max) = (value.to_string().len(), self.config.load().value_bytes_max as usize);
        if found > max {
            let text = format!("the value of `{id}` has {found} bytes of JSON, at most {max} are taken");
            return Err(Failure::with_code("VALUE_TOO_LARGE", text));
        }
        check::value(id, validator, &check::expand(id, value)?)
    }
}

fn not_found(id: &str) -> Failure {
    let text = format!("there is no configuration `{id}`: register it, or see `configuration::list`");
    Failure::with_code("NOT_FOUND", text)
}

fn not_registered(id: &str) -> Failure {
    let text = format!("there is no configuration `{id}`: register it with its schema before it is set");
    Failure::with_code("NOT_REGISTERED", text)
}

fn contended(id: &str) -> Failure {
    let text = format!("`{id}` was changed by others {ATTEMPTS_MAX} times in between; try again");
    Failure::from(CallError::new(ErrorCode::Busy, text).with_user_code(STORE_ERROR))
}
