//! What a request makes of a group: the batch with its precondition, the entries of the log, the answer. Called by `core`
//! with the shard of the group held, so that it neither waits nor asks the time. It must not know who asked.

use std::collections::HashMap;
use std::sync::Arc;

use ringway::TraceContext;
use ringway_store::{Batch, Snapshot};
use ringway_update_ops::{Op, OpError, apply};

use crate::ahead::Ahead;
use crate::config::Rules;
use crate::error::Refusal;
use crate::place::Place;
use crate::record::{Entry, Head, Item, Kind};
use crate::tables;

/// What is wanted of a group.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Set {
        item: Arc<str>,
        /// JSON text.
        data: Arc<[u8]>,
        /// Milliseconds after which it is absent.
        ttl_ms: Option<u64>,
        /// The version that it must have, 0 for none at all.
        if_version: Option<u64>,
    },
    Delete {
        item: Arc<str>,
        if_version: Option<u64>,
    },
    Update {
        item: Arc<str>,
        ops: Vec<Op>,
        /// Nothing is written if one of them cannot be applied.
        all_or_nothing: bool,
        if_version: Option<u64>,
    },
    /// An entry of the log and nothing else.
    Note {
        kind: Kind,
        item: Option<Arc<str>>,
        name: Option<Arc<str>>,
        data: Arc<[u8]>,
    },
    /// Removes an item whose time has come, if it is still that one.
    Expire {
        item: Arc<str>,
        at_ms: u64,
    },
    /// Removes the oldest entries.
    Trim {
        /// What the oldest entry was when it was decided to; if it is another by now, nothing is done.
        first: u64,
        /// The oldest entry afterwards.
        keep_from: u64,
        /// Bytes that go.
        bytes: u64,
    },
    /// Removes what is known of a group that has neither items nor entries. Its number is kept as the floor.
    Forget {
        floor: u64,
        /// Keys of those who have read its log.
        cursors: Vec<Vec<u8>>,
    },
}

/// What became of one act.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    pub(crate) old: Option<Item>,
    pub(crate) new: Option<Item>,
    pub(crate) errors: Vec<OpError>,
    /// The entry that tells of it, 0 if there is none.
    pub(crate) sequence: u64,
}

/// Everything that follows from a request.
#[derive(Debug)]
pub(crate) struct Plan {
    /// `None` if nothing has to be written, nor waited for.
    pub(crate) batch: Option<Batch>,
    /// What the group will be.
    pub(crate) head: Option<Head>,
    pub(crate) items: Vec<(Arc<str>, Option<Item>)>,
    pub(crate) outcomes: Vec<Outcome>,
    /// Whether the log has grown.
    pub(crate) told: bool,
    /// The first expiry among the items written.
    pub(crate) expires_ms: Option<u64>,
}

/// How a plan looks at things.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) now_ms: u64,
    /// Goes into the head; another one for every plan.
    pub(crate) mark: u64,
    /// Numbers of a new group begin after it.
    pub(crate) floor: u64,
    pub(crate) rules: Rules,
    pub(crate) value_bytes_max: u64,
    pub(crate) backlog_max: u64,
    /// What the entries belong to.
    pub(crate) trace: TraceContext,
}

#[derive(Debug)]
struct Slot {
    key: Vec<u8>,
    /// What the store holds or is about to, expired or not.
    base: Option<Item>,
    /// What it is after the acts so far; never expired.
    now: Option<Item>,
    written: bool,
}

struct Planner<'a> {
    place: &'a Place,
    terms: Terms,
    head: Option<Head>,
    before: Head,
    slots: HashMap<Arc<str>, Slot>,
    batch: Batch,
    changed: bool,
    told: bool,
}

/// Plans a request.
///
/// # Errors
/// Another version than wanted, something too large, a group that is full, or what the store said.
pub(crate) fn plan(
    acts: &[Act],
    place: &Place,
    ahead: &Ahead,
    snapshot: &dyn Snapshot,
    terms: Terms,
) -> Result<Plan, Refusal> {
    let before = ahead.head.unwrap_or_else(|| Head::new(terms.floor));
    let expected = match &ahead.head {
        Some(head) => Batch::new().expect_bytes(tables::HEADS, &place.key, head.encode()),
        None => Batch::new().expect_absent(tables::HEADS, &place.key),
    };
    let mut planner = Planner {
        place,
        terms,
        head: ahead.head,
        before,
        slots: HashMap::new(),
        batch: expected,
        changed: false,
        told: false,
    };
    let mut outcomes = Vec::with_capacity(acts.len());
    for act in acts {
        if let Some(item) = act.item()
            && !planner.slots.contains_key(item)
        {
            planner.open(item, ahead, snapshot)?;
        }
        outcomes.push(planner.perform(act)?);
    }
    planner.finish(outcomes, ahead.is_under_way())
}

impl Act {
    /// The item that is read for it.
    fn item(&self) -> Option<&Arc<str>> {
        match self {
            Self::Set { item, .. }
            | Self::Delete { item, .. }
            | Self::Update { item, .. }
            | Self::Expire { item, .. } => Some(item),
            Self::Note { .. } | Self::Trim { .. } | Self::Forget { .. } => None,
        }
    }
}

impl Planner<'_> {
    fn open(&mut self, item: &Arc<str>, ahead: &Ahead, snapshot: &dyn Snapshot) -> Result<(), Refusal> {
        let key = self.place.item(item).map_err(Refusal::Name)?;
        let base = match ahead.item(item) {
            Some(base) => base.clone(),
            None => match snapshot.get(tables::ITEMS, &key)? {
                Some(value) => {
                    let read = Item::read(value.bytes);
                    Some(read.map_err(|error| Refusal::item(self.place, item, error))?)
                }
                None => None,
            },
        };
        let now = base.clone().filter(|item| item.is_live(self.terms.now_ms));
        self.slots.insert(Arc::clone(item), Slot { key, base, now, written: false });
        Ok(())
    }

    fn perform(&mut self, act: &Act) -> Result<Outcome, Refusal> {
        match act {
            Act::Set { item, data, ttl_ms, if_version } => {
                let old = self.check(item, *if_version)?;
                let expires = ttl_ms.map(|ttl_ms| self.terms.now_ms.saturating_add(ttl_ms));
                self.write(item, old, data, expires)
            }
            Act::Delete { item, if_version } => match self.check(item, *if_version)? {
                Some(old) => self.remove(item, old),
                None => Ok(Outcome::default()),
            },
            Act::Update { item, ops, all_or_nothing, if_version } => {
                let old = self.check(item, *if_version)?;
                self.update(item, old, ops, *all_or_nothing)
            }
            Act::Note { kind, item, name, data } => {
                let (item, name, data) = (item.clone(), name.clone(), Arc::clone(data));
                self.measure(&data)?;
                let sequence = self.tell(*kind, item, name, data)?;
                Ok(Outcome { sequence, ..Outcome::default() })
            }
            Act::Expire { item, at_ms } => self.expire(item, *at_ms),
            Act::Trim { first, keep_from, bytes } => {
                self.trim(*first, *keep_from, *bytes);
                Ok(Outcome::default())
            }
            Act::Forget { floor, cursors } => {
                self.forget(*floor, cursors);
                Ok(Outcome::default())
            }
        }
    }

    /// The item as it is, if it has the version that is wanted.
    fn check(&self, item: &str, wanted: Option<u64>) -> Result<Option<Item>, Refusal> {
        let now = self.slots[item].now.clone();
        let found = now.as_ref().map_or(0, |item| item.version);
        match wanted.filter(|wanted| *wanted != found) {
            Some(wanted) => {
                let group = self.place.group.to_string();
                Err(Refusal::Version { group, item: item.to_owned(), wanted, found })
            }
            None => Ok(now),
        }
    }

    fn measure(&self, data: &[u8]) -> Result<(), Refusal> {
        let (found, max) = (data.len() as u64, self.terms.value_bytes_max);
        if found > max {
            return Err(Refusal::TooLarge { found, max });
        }
        Ok(ringway_worker_kit::text::check(data)?)
    }

    fn head(&mut self) -> &mut Head {
        self.changed = true;
        let before = self.before;
        self.head.get_or_insert(before)
    }

    /// Adds an entry to the log and gives its number.
    fn tell(
        &mut self,
        kind: Kind,
        item: Option<Arc<str>>,
        name: Option<Arc<str>>,
        data: Arc<[u8]>,
    ) -> Result<u64, Refusal> {
        let now_ms = self.terms.now_ms;
        let kept = self.before.entries();
        let max = self.terms.backlog_max;
        if kept >= self.terms.rules.retention_entries.saturating_add(max) {
            return Err(Refusal::Backlog { group: self.place.group.to_string(), waiting: kept, max });
        }
        let head = self.head();
        head.last += 1;
        head.last_ms = head.last_ms.max(now_ms);
        let (sequence, time_ms) = (head.last, head.last_ms);
        let entry = Entry { time_ms, kind, item, name, data, trace: self.terms.trace }.encode();
        let key = self.place.entry(sequence);
        self.head().log_bytes += (key.len() + entry.len()) as u64;
        self.batch = std::mem::take(&mut self.batch).put(tables::LOG, &key, entry);
        self.told = true;
        Ok(sequence)
    }

    /// Tells the end of an item that had expired unnoticed, before something else is told of it.
    fn bury(&mut self, item: &Arc<str>) -> Result<(), Refusal> {
        let slot = &self.slots[item];
        let gone = slot.base.as_ref().filter(|base| !slot.written && !base.is_live(self.terms.now_ms));
        if let Some(json) = gone.map(|gone| Arc::<[u8]>::from(gone.json())) {
            self.tell(Kind::Delete, Some(Arc::clone(item)), None, json)?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        item: &Arc<str>,
        old: Option<Item>,
        data: &Arc<[u8]>,
        expires_at_ms: Option<u64>,
    ) -> Result<Outcome, Refusal> {
        self.measure(data)?;
        self.bury(item)?;
        let kind = if old.is_some() { Kind::Update } else { Kind::Create };
        let sequence = self.tell(kind, Some(Arc::clone(item)), None, Arc::clone(data))?;
        let new = Some(Item::new(sequence, expires_at_ms, data));
        self.put(item, new.clone());
        Ok(Outcome { old, new, errors: Vec::new(), sequence })
    }

    fn remove(&mut self, item: &Arc<str>, old: Item) -> Result<Outcome, Refusal> {
        let sequence = self.tell(Kind::Delete, Some(Arc::clone(item)), None, old.json().into())?;
        self.put(item, None);
        Ok(Outcome { old: Some(old), sequence, ..Outcome::default() })
    }

    fn put(&mut self, item: &Arc<str>, new: Option<Item>) {
        if let Some(slot) = self.slots.get_mut(item) {
            (slot.now, slot.written) = (new, true);
        }
    }

    fn update(
        &mut self,
        item: &Arc<str>,
        old: Option<Item>,
        ops: &[Op],
        all_or_nothing: bool,
    ) -> Result<Outcome, Refusal> {
        let damaged = || Refusal::item(self.place, item, crate::record::Unreadable::Damaged(0));
        let value = old.as_ref().map(Item::value).transpose().map_err(|_| damaged())?;
        let after = apply(value, ops);
        let failed = after.errors.len();
        if failed == ops.len() || (all_or_nothing && failed > 0) {
            return Ok(Outcome { new: old.clone(), old, errors: after.errors, sequence: 0 });
        }
        let data = serde_json::to_vec(&after.value).map_err(|_| damaged())?;
        // An update leaves the time to live as it is; one that makes the item gives it that of its stream.
        let expires = match &old {
            Some(old) => old.expires_at_ms,
            None => self.terms.rules.ttl_ms.map(|ttl_ms| self.terms.now_ms.saturating_add(ttl_ms)),
        };
        let outcome = self.write(item, old, &data.into(), expires)?;
        Ok(Outcome { errors: after.errors, ..outcome })
    }

    fn expire(&mut self, item: &Arc<str>, at_ms: u64) -> Result<Outcome, Refusal> {
        let slot = &self.slots[item];
        let it = slot.base.clone().filter(|base| base.expires_at_ms == Some(at_ms) && !slot.written);
        match it {
            Some(base) if at_ms <= self.terms.now_ms => self.remove(item, base),
            Some(_) => Ok(Outcome::default()),
            None => {
                // It speaks of an item that is another by now.
                let stale = tables::expiry_key(at_ms, &slot.key);
                self.batch = std::mem::take(&mut self.batch).delete(tables::EXPIRIES, &stale);
                self.head();
                Ok(Outcome::default())
            }
        }
    }

    fn trim(&mut self, first: u64, keep_from: u64, bytes: u64) {
        if self.before.first != first || keep_from <= first {
            return;
        }
        for sequence in first..keep_from {
            self.batch = std::mem::take(&mut self.batch).delete(tables::LOG, &self.place.entry(sequence));
        }
        let head = self.head();
        head.first = keep_from;
        head.log_bytes = head.log_bytes.saturating_sub(bytes);
    }

    fn forget(&mut self, floor: u64, cursors: &[Vec<u8>]) {
        // With a number beyond the floor it was written since whoever decided this looked.
        let is_used = self.before.items > 0 || self.before.entries() > 0 || self.before.last > floor;
        if is_used || self.head.is_none() {
            return;
        }
        let (table, key) = tables::FLOOR;
        let batch = std::mem::take(&mut self.batch).put(table, key, floor.to_le_bytes().to_vec());
        let batch = batch.delete(tables::HEADS, &self.place.key);
        self.batch = cursors.iter().fold(batch, |batch, key| batch.delete(tables::CURSORS, key));
        (self.head, self.changed) = (None, true);
    }

    fn finish(mut self, outcomes: Vec<Outcome>, under_way: bool) -> Result<Plan, Refusal> {
        let (mut items, mut expires_ms) = (Vec::new(), None);
        for (id, slot) in std::mem::take(&mut self.slots) {
            if !slot.written {
                continue;
            }
            let size = |item: &Item| (id.len() + item.json().len()) as u64;
            let head = self.head();
            head.items += u64::from(slot.now.is_some());
            head.items -= u64::from(slot.base.is_some()).min(head.items);
            head.item_bytes += slot.now.as_ref().map_or(0, size);
            head.item_bytes -= slot.base.as_ref().map_or(0, size).min(head.item_bytes);
            let expires = slot.now.as_ref().and_then(|item| item.expires_at_ms);
            expires_ms = expires_ms.into_iter().chain(expires).min();
            self.batch = write_slot(std::mem::take(&mut self.batch), &slot);
            items.push((id, slot.now));
        }
        self.check_caps()?;
        if self.changed
            && let Some(head) = &mut self.head
        {
            head.mark = self.terms.mark;
            self.batch = std::mem::take(&mut self.batch).put(tables::HEADS, &self.place.key, head.encode());
        }
        // An answer that speaks of what is being written waits for it.
        let batch = (self.changed || under_way).then_some(self.batch);
        Ok(Plan { batch, head: self.head, items, outcomes, told: self.told, expires_ms })
    }

    fn check_caps(&self) -> Result<(), Refusal> {
        let (Some(head), before, rules) = (self.head, self.before, self.terms.rules) else { return Ok(()) };
        let caps = [
            ("items", before.items, head.items, rules.items_max, "items_max"),
            ("bytes of items", before.item_bytes, head.item_bytes, rules.item_bytes_max, "item_bytes_max"),
        ];
        for (what, before, found, max, setting) in caps {
            if found > before && found > max {
                let group = self.place.group.to_string();
                return Err(Refusal::Full { group, what, found, max, setting });
            }
        }
        Ok(())
    }
}

fn write_slot(mut batch: Batch, slot: &Slot) -> Batch {
    let expiry = |item: Option<&Item>| item.and_then(|item| item.expires_at_ms);
    let (before, after) = (expiry(slot.base.as_ref()), expiry(slot.now.as_ref()));
    if let Some(before) = before.filter(|before| Some(*before) != after) {
        batch = batch.delete(tables::EXPIRIES, &tables::expiry_key(before, &slot.key));
    }
    if let Some(after) = after.filter(|after| Some(*after) != before) {
        batch = batch.put(tables::EXPIRIES, &tables::expiry_key(after, &slot.key), tables::MARK.to_vec());
    }
    match &slot.now {
        Some(item) => batch.put(tables::ITEMS, &slot.key, Arc::clone(item.bytes())),
        None => batch.delete(tables::ITEMS, &slot.key),
    }
}
