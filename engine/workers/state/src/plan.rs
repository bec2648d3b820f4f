//! What a request makes of the keys that it names: the batch with its preconditions, the changes to tell, the answer. Called
//! by `core` with the shards of those keys held, so that it neither waits nor asks the time. It must not know who asked.

use std::collections::HashMap;
use std::sync::Arc;

use ringway_store::{Batch, Snapshot, StoreError};
use ringway_update_ops::{Op, OpError, apply};

use crate::change::Change;
use crate::error::WriteError;
use crate::keys;
use crate::pending::Held;
use crate::record::{Form, Record};
use crate::tables;

/// What is wanted of one key.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// Scope and key, joined.
    pub(crate) key: Arc<[u8]>,
    pub(crate) action: Action,
    /// The revision that the key must have before the request, 0 for none at all.
    pub(crate) if_revision: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) enum Action {
    Set(Record),
    Delete,
    Update {
        ops: Vec<Op>,
        /// Nothing is written if one of them cannot be applied.
        all_or_nothing: bool,
    },
    /// Nothing but the revision is wanted.
    Check,
    /// Removes a value whose time has come, if it is still that one.
    Expire {
        at_ms: u64,
    },
}

/// What became of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) old: Option<Record>,
    pub(crate) new: Option<Record>,
    pub(crate) errors: Vec<OpError>,
}

/// What the store holds, or is about to.
#[derive(Debug)]
enum Base {
    /// Committed: the revision (0 if there is nothing) and the record, expired or not.
    Committed(u64, Option<Record>),
    /// Written by a commit under way.
    Pending(Option<Record>),
}

impl Base {
    fn record(&self) -> Option<&Record> {
        match self {
            Self::Committed(_, record) | Self::Pending(record) => record.as_ref(),
        }
    }
}

#[derive(Debug)]
struct Slot {
    key: Arc<[u8]>,
    base: Base,
    /// What it is after the operations so far; never an expired record.
    now: Option<Record>,
    written: bool,
}

/// Everything that follows from a request.
#[derive(Debug)]
pub(crate) struct Plan {
    /// `None` if nothing has to be written, nor waited for.
    pub(crate) batch: Option<Batch>,
    /// What happened to each key, in order.
    pub(crate) changes: Vec<Change>,
    /// One for each operation.
    pub(crate) done: Vec<Done>,
    pub(crate) written: Vec<Written>,
}

/// What a key will be.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) key: Arc<[u8]>,
    pub(crate) record: Option<Record>,
    /// Whether it follows from a commit under way.
    pub(crate) chained: bool,
}

/// How a plan looks at things.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) now_ms: u64,
    pub(crate) value_bytes_max: u64,
}

/// Looks at the values that a request brings along. Costs a look at each byte of them, so that it is done before shards are
/// held.
///
/// # Errors
/// A value that is too large, or that no parser would read.
pub(crate) fn check_values(operations: &[Operation], limits: Limits) -> Result<(), WriteError> {
    operations.iter().try_for_each(|operation| match &operation.action {
        Action::Set(record) => check_value(record, limits),
        Action::Delete | Action::Update { .. } | Action::Check | Action::Expire { .. } => Ok(()),
    })
}

fn check_value(record: &Record, limits: Limits) -> Result<(), WriteError> {
    let (found, max) = (record.payload().len() as u64, limits.value_bytes_max);
    if found > max {
        return Err(WriteError::TooLarge { found, max });
    }
    if record.form() == Form::Json {
        ringway_worker_kit::text::check(record.payload())?;
    }
    Ok(())
}

/// Plans a request whose values have been looked at.
///
/// # Errors
/// A revision that is not the one wanted, a value that grew too large, or what the store said.
pub(crate) fn plan(
    operations: &[Operation],
    snapshot: &dyn Snapshot,
    held: &mut Held<'_>,
    limits: Limits,
) -> Result<Plan, WriteError> {
    let mut planner =
        Planner { stale: Vec::new(), slots: Vec::new(), by_key: HashMap::new(), changes: Vec::new(), limits };
    for operation in operations {
        planner.open(operation, operations, snapshot, held)?;
    }
    planner.check_revisions(operations)?;
    let done = operations.iter().map(|operation| planner.perform(operation));
    let done = done.collect::<Result<Vec<_>, _>>()?;
    Ok(planner.finish(done))
}

struct Planner {
    /// Entries of the index of expiries that speak of a value that is another by now.
    stale: Vec<Vec<u8>>,
    slots: Vec<Slot>,
    by_key: HashMap<Arc<[u8]>, usize>,
    changes: Vec<Change>,
    limits: Limits,
}

impl Planner {
    /// Reads a key, once. Where a revision is wanted only a committed one will do.
    fn open(
        &mut self,
        operation: &Operation,
        all: &[Operation],
        snapshot: &dyn Snapshot,
        held: &mut Held<'_>,
    ) -> Result<(), WriteError> {
        let key = &operation.key;
        if self.by_key.contains_key(key) {
            return Ok(());
        }
        let numbered = all.iter().any(|other| other.if_revision.is_some() && other.key == *key);
        let pending = if numbered { None } else { held.head(key) };
        let base = match pending {
            Some(record) => Base::Pending(record),
            None => match snapshot.get(tables::VALUES, key)? {
                None => Base::Committed(0, None),
                Some(value) => Base::Committed(value.revision, Some(tables::record(key, value.bytes)?)),
            },
        };
        let now = base.record().filter(|record| record.is_live(self.limits.now_ms)).cloned();
        self.by_key.insert(Arc::clone(key), self.slots.len());
        self.slots.push(Slot { key: Arc::clone(key), base, now, written: false });
        Ok(())
    }

    fn check_revisions(&self, operations: &[Operation]) -> Result<(), WriteError> {
        for (number, operation) in operations.iter().enumerate() {
            let Some(wanted) = operation.if_revision else { continue };
            let slot = &self.slots[self.by_key[&operation.key]];
            let found = match slot.base {
                Base::Committed(revision, _) if slot.now.is_some() => revision,
                _ => 0,
            };
            if found != wanted {
                let (scope, key) = keys::split(&operation.key).unwrap_or_default();
                let key = key.to_owned();
                return Err(WriteError::Revision { number, scope, key, wanted, found });
            }
        }
        Ok(())
    }

    fn perform(&mut self, operation: &Operation) -> Result<Done, WriteError> {
        let at = self.by_key[&operation.key];
        let old = self.slots[at].now.clone();
        let mut errors = Vec::new();
        let new = match &operation.action {
            Action::Set(record) => self.write(at, Some(record.clone())),
            Action::Delete => old.as_ref().and_then(|_| self.write(at, None)),
            Action::Check => old.clone(),
            Action::Update { ops, all_or_nothing } => {
                let (after, failed) = self.update(old.as_ref(), ops)?;
                let nothing = failed.len() == ops.len() || (*all_or_nothing && !failed.is_empty());
                errors = failed;
                if nothing {
                    old.clone()
                } else {
                    check_value(&after, self.limits)?;
                    self.write(at, Some(after))
                }
            }
            Action::Expire { at_ms } => {
                let gone = self.slots[at].base.record().and_then(Record::expires_at_ms) == Some(*at_ms);
                if gone && *at_ms <= self.limits.now_ms {
                    self.write(at, None)
                } else {
                    if !gone {
                        self.stale.push(tables::expiry_key(*at_ms, &operation.key));
                    }
                    old.clone()
                }
            }
        };
        Ok(Done { old, new, errors })
    }

    fn update(&self, old: Option<&Record>, ops: &[Op]) -> Result<(Record, Vec<OpError>), WriteError> {
        if old.is_some_and(|record| record.form() == Form::Bytes) {
            return Err(WriteError::Binary);
        }
        let damaged =
            |error| WriteError::Unreadable(format!("what is there is no JSON that can be read: {error}"));
        let value = old.map(Record::value).transpose().map_err(damaged)?;
        let outcome = apply(value, ops);
        let text = serde_json::to_vec(&outcome.value).map_err(damaged)?;
        let expires_at_ms = old.and_then(Record::expires_at_ms);
        Ok((Record::new(Form::Json, &text, expires_at_ms), outcome.errors))
    }

    /// Writes a key, and notes what happened; first the end of a value that had expired unnoticed.
    fn write(&mut self, at: usize, new: Option<Record>) -> Option<Record> {
        let slot = &mut self.slots[at];
        let expired = slot.base.record().filter(|record| !record.is_live(self.limits.now_ms));
        if let Some(expired) = expired.filter(|_| !slot.written) {
            let old = Some(expired.clone());
            self.changes.push(Change { key: Arc::clone(&slot.key), old, new: None });
        }
        let old = std::mem::replace(&mut slot.now, new.clone());
        if old.is_some() || new.is_some() {
            self.changes.push(Change { key: Arc::clone(&slot.key), old, new: new.clone() });
        }
        slot.written = true;
        new
    }

    /// If anything is submitted, it goes with a precondition for every key that the answer speaks of.
    fn finish(self, done: Vec<Done>) -> Plan {
        let chained = |slot: &Slot| matches!(slot.base, Base::Pending(_));
        let needed = !self.stale.is_empty() || self.slots.iter().any(|slot| slot.written || chained(slot));
        let mut batch = Batch::new();
        for entry in &self.stale {
            batch = batch.delete(tables::EXPIRIES, entry);
        }
        let mut written = Vec::new();
        for slot in self.slots.into_iter().filter(|_| needed) {
            batch = match &slot.base {
                Base::Committed(0, _) | Base::Pending(None) => batch.expect_absent(tables::VALUES, &slot.key),
                Base::Committed(revision, _) => batch.expect_revision(tables::VALUES, &slot.key, *revision),
                Base::Pending(Some(record)) => {
                    batch.expect_bytes(tables::VALUES, &slot.key, Arc::clone(record.bytes()))
                }
            };
            if slot.written {
                batch = write_slot(batch, &slot);
                written.push(Written { chained: chained(&slot), key: slot.key, record: slot.now });
            }
        }
        Plan { batch: needed.then_some(batch), changes: self.changes, done, written }
    }
}

fn write_slot(mut batch: Batch, slot: &Slot) -> Batch {
    let expiry = |record: Option<&Record>| record.and_then(Record::expires_at_ms);
    let (before, after) = (expiry(slot.base.record()), expiry(slot.now.as_ref()));
    if let Some(before) = before.filter(|before| Some(*before) != after) {
        batch = batch.delete(tables::EXPIRIES, &tables::expiry_key(before, &slot.key));
    }
    if let Some(after) = after.filter(|after| Some(*after) != before) {
        batch = batch.put(tables::EXPIRIES, &tables::expiry_key(after, &slot.key), tables::MARK.to_vec());
    }
    match &slot.now {
        Some(record) => batch.put(tables::VALUES, &slot.key, Arc::clone(record.bytes())),
        None => batch.delete(tables::VALUES, &slot.key),
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
