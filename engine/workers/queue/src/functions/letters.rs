//! Reading dead messages, and choosing among them. A record that cannot be read is no reason to hide the others: it comes
//! with what is known of it. Reads the store on the caller's thread, not on the driver's; used by the functions that list
//! dead messages and by those that do something with them. It must not know what is done.

use std::ops::Bound;

use jiff::Timestamp;
use ringway::{Failure, HandlerResult};
use ringway_store::{Scan, Snapshot, Store, StoreError};
use ringway_worker_kit::{names, store_failure};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::blobs;
use crate::machine::Dead;
use crate::record::{self, DeadRecord, Head, Place};

/// Which dead messages are meant; all of them where nothing is said. What is said must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Filter {
    /// The function that they are for.
    pub(super) function_id: Option<String>,
    /// The code of the error that they died of.
    pub(super) code: Option<String>,
    /// What the text of that error contains, whatever the case of the letters.
    pub(super) text: Option<String>,
    /// Dead since then or later (RFC 3339).
    pub(super) after: Option<String>,
    /// Dead before then (RFC 3339).
    pub(super) before: Option<String>,
}

/// A filter whose times are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    filter: Filter,
    after_ms: u64,
    before_ms: Option<u64>,
}

impl Filter {
    /// # Errors
    /// When a time is not one.
    pub(super) fn read(self) -> HandlerResult<Chosen> {
        let time = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => {
                text.parse::<Timestamp>().map(|time| Some(time.as_millisecond())).map_err(|error| {
                    let text = format!("wanted `{name}` as in 2030-01-31T08:00:00Z, found `{text}`: {error}");
                    Failure::invalid(text)
                })
            }
        };
        // Nothing died before 1970.
        let ms = |time: i64| u64::try_from(time).unwrap_or(0);
        let after_ms = time("after", &self.after)?.map_or(0, ms);
        let before_ms = time("before", &self.before)?.map(ms);
        Ok(Chosen {
            filter: Self { text: self.text.map(|text| text.to_lowercase()), ..self },
            after_ms,
            before_ms,
        })
    }
}

impl Chosen {
    /// Whether all are meant.
    pub(super) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a message is meant. One of which a part cannot be read is meant if what can be read fits, and nothing is
    /// asked of the rest.
    pub(super) fn fits(&self, dead: &Dead) -> bool {
        let wanted = |wanted: &Option<String>, found: Option<&str>| match wanted {
            Some(wanted) => found == Some(wanted.as_str()),
            None => true,
        };
        let function = dead.head.as_ref().and_then(|head| head.function.as_deref());
        let record = dead.record.as_ref();
        let contains = |text: &String| {
            record.is_some_and(|record| record.message.to_lowercase().contains(text.as_str()))
        };
        let in_time = |record: &DeadRecord| {
            record.at_ms >= self.after_ms && self.before_ms.is_none_or(|before| record.at_ms < before)
        };
        let timeless = self.after_ms == 0 && self.before_ms.is_none();
        wanted(&self.filter.function_id, function)
            && wanted(&self.filter.code, record.map(|record| record.code.as_str()))
            && self.filter.text.as_ref().is_none_or(contains)
            && (timeless || record.is_some_and(in_time))
    }
}

/// A dead message as it was read, and why a part of it could not be.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) dead: Dead,
    pub(super) problems: Vec<String>,
}

/// Reads a dead message; `None` if it is none.
pub(super) fn read(snapshot: &dyn Snapshot, place: &Place, code: &str) -> HandlerResult<Option<Letter>> {
    let key = place.key();
    let mut problems = Vec::new();
    let mut revisions = Vec::new();
    let mut get = |table: &'static str| match snapshot.get(table, &key) {
        Ok(value) => {
            revisions.extend(value.as_ref().map(|value| (table, value.revision)));
            Ok(value)
        }
        // Damaged in both copies: it is there all the same.
        Err(StoreError::Corrupt { reason, .. }) => {
            Err(Ok(format!("the record of table {table} is damaged: {reason}")))
        }
        Err(error) => Err(Err(store_failure(code, &error))),
    };
    let record = match get(record::DEAD) {
        Ok(None) => return Ok(None),
        Ok(Some(value)) => match record::decode::<DeadRecord>(record::DEAD, &key, &value.bytes) {
            Ok(record) => Some(record),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        },
        Err(Ok(problem)) => {
            problems.push(problem);
            None
        }
        Err(Err(failure)) => return Err(failure),
    };
    let head = match get(record::MESSAGE) {
        Ok(Some(value)) => match record::decode::<Head>(record::MESSAGE, &key, &value.bytes) {
            Ok(head) => Some(head),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        },
        Ok(None) => {
            problems.push("its message is not there".to_owned());
            None
        }
        Err(Ok(problem)) => {
            problems.push(problem);
            None
        }
        Err(Err(failure)) => return Err(failure),
    };
    // What the records that cannot be read would have said, so that nothing of the message is left behind with its end.
    let last_attempt = match record {
        Some(_) => None,
        None => unless_damaged(last_attempt(snapshot, place), &mut problems, code)?,
    };
    let blob = match &head {
        Some(head) => head.blob.map(|blob| blob.id),
        None => unless_damaged(blobs::held_by(snapshot, place), &mut problems, code)?,
    };
    let last_attempt = last_attempt.unwrap_or(0);
    let dead = Dead { place: place.clone(), record, head, last_attempt, blob, revisions };
    Ok(Some(Letter { dead, problems }))
}

/// What was found; nothing, and why, where it is damaged in both copies.
fn unless_damaged<T>(
    found: Result<Option<T>, StoreError>,
    problems: &mut Vec<String>,
    code: &str,
) -> HandlerResult<Option<T>> {
    found.or_else(|error| match error {
        StoreError::Corrupt { .. } => {
            problems.push(error.to_string());
            Ok(None)
        }
        error => Err(store_failure(code, &error)),
    })
}

/// The number of the last attempt that is kept of a message.
fn last_attempt(snapshot: &dyn Snapshot, place: &Place) -> Result<Option<u32>, StoreError> {
    let last = snapshot.scan(&Scan::table(record::ATTEMPT).prefix(&place.key()).reverse().limit(1))?;
    Ok(last.first().and_then(|entry| entry.key.last_chunk()).map(|number| u32::from_be_bytes(*number)))
}

/// The places of dead messages of a queue behind `passed`, at most so many, in order or against it. A key that is no place is
/// passed over and logged: it belongs to nothing.
pub(super) fn places(
    snapshot: &dyn Snapshot,
    queue: &str,
    passed: Option<u64>,
    reverse: bool,
    limit: usize,
    code: &str,
) -> HandlerResult<Vec<Place>> {
    let bound = passed.map(|seq| Place::new(queue, seq).key());
    let prefix = record::queue_prefix(queue);
    let behind = names::behind(&prefix);
    let (mut from, mut to) = (Bound::Included(&*prefix), Bound::Excluded(&*behind));
    match (&bound, reverse) {
        (Some(bound), true) => to = Bound::Excluded(bound),
        (Some(bound), false) => from = Bound::Excluded(bound),
        (None, _) => {}
    }
    let scan = Scan::table(record::DEAD).range(from, to).limit(limit);
    let scan = if reverse { scan.reverse() } else { scan };
    let entries = snapshot.scan(&scan).map_err(|error| store_failure(code, &error))?;
    let mut places = Vec::with_capacity(entries.len());
    for entry in entries {
        match Place::parse(record::DEAD, &entry.key) {
            Ok((place, _)) => places.push(place),
            Err(error) => tracing::error!(%error, "left as it is"),
        }
    }
    Ok(places)
}

/// A dead message by its id; `None` if there is none.
pub(super) fn find(store: &dyn Store, id: &str, code: &str) -> HandlerResult<Option<Letter>> {
    let place = match super::receipt::place(store, id) {
        Ok(place) => place,
        // An id that stands for nothing is no error: nothing was dead under it.
        Err(failure) => {
            let error = failure.into_error();
            let unknown = error.user_code.as_deref() == Some("NOT_FOUND");
            return if unknown { Ok(None) } else { Err(error.into()) };
        }
    };
    let snapshot = store.snapshot().map_err(|error| store_failure(code, &error))?;
    read(&*snapshot, &place, code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_asks_for_all_that_it_says() {
        let head: Head = serde_json::from_str(r#"{"function":"a::b","enqueued_ms":1,"data":1}"#).unwrap();
        let record =
            DeadRecord { at_ms: 60_000, attempts: 1, code: "E1".into(), message: "No Money left".into() };
        let place = Place::new("q", 1);
        let (record, head) = (Some(record), Some(head));
        let whole = Dead { place, record, head, last_attempt: 0, blob: None, revisions: Vec::new() };
        let check = |filter: serde_json::Value, expected: bool| {
            let chosen = serde_json::from_value::<Filter>(filter.clone()).unwrap().read().unwrap();
            assert_eq!(chosen.fits(&whole), expected, "{filter}");
        };
        check(serde_json::json!({}), true);
        check(serde_json::json!({ "function_id": "a::b", "code": "E1", "text": "money" }), true);
        check(serde_json::json!({ "function_id": "a::c", "code": "E1" }), false);
        check(serde_json::json!({ "code": "e1" }), false);
        check(serde_json::json!({ "text": "monkey" }), false);
        check(serde_json::json!({ "after": "1970-01-01T00:01:00Z" }), true);
        check(serde_json::json!({ "before": "1970-01-01T00:01:00Z" }), false);
        check(serde_json::json!({ "before": "1970-01-01T00:01:00.001Z" }), true);
        check(serde_json::json!({ "after": "1960-01-01T00:00:00Z" }), true);
        let unreadable = Dead { record: None, ..whole };
        assert!(Chosen::default().is_all() && Chosen::default().fits(&unreadable));
        let by_code = Filter { code: Some("E1".into()), ..Filter::default() }.read().unwrap();
        assert!(!by_code.fits(&unreadable), "nobody knows what it died of");
        let wrong = Filter { after: Some("yesterday".into()), ..Filter::default() }.read().unwrap_err();
        assert!(wrong.into_error().message.contains("2030-01-31T08:00:00Z"));
    }
}
