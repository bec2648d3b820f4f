//! What is known of a job on disk: a version byte, then JSON. The table is `cron`, the key the trigger's id; the README has
//! the fields. Read when a job is bound, written before its function is called. It must not know when that is.

use ringway_store::Batch;
use serde::{Deserialize, Serialize};

use crate::config::Bound;
use crate::job::{Job, Millis};
use crate::ledger::{Ledger, Second};

/// The table of records.
pub(crate) const TABLE: &str = "cron";

/// Where records go that cannot be read, by their key and the time in milliseconds.
pub(crate) const TABLE_ASIDE: &str = "cron.aside";

/// The format that this version writes.
const VERSION: u8 = 1;

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("it has format {0}, this engine reads format {VERSION}: run the version that wrote it")]
    Version(u8),
    #[error("it is empty")]
    Empty,
    #[error("it does not fit format {VERSION}: {0}")]
    Damaged(String),
}

/// What is known of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The schedule that the slots below are of.
    pub(crate) expression: String,
    pub(crate) timezone: String,
    /// The decided time, in seconds since 1970: spans without their first second and with their last.
    pub(crate) decided: Vec<(Second, Second)>,
    /// Up to where the schedule was looked through.
    pub(crate) cursor: Second,
    /// What `cron::pause` and `cron::resume` said last, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paused: Option<bool>,
    /// Whether it was paused, by that or by its trigger: what came since is not made up for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) held: bool,
    /// The slot that was fired last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<Second>,
    /// Slots whose function was called and has not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) started: Vec<Second>,
    /// When this was written.
    #[serde(default)]
    pub(crate) written_ms: Millis,
}

impl Record {
    /// What there is to know of a job's slots; the rest is for the caller to fill in.
    pub(crate) fn of(job: &Job, bound: &Bound) -> Self {
        Self {
            expression: bound.schedule.expression().to_owned(),
            timezone: bound.schedule.zone().to_owned(),
            decided: job.ledger().spans().to_vec(),
            cursor: job.cursor(),
            ..Self::default()
        }
    }

    /// The job that goes on from here.
    pub(crate) fn job(&self, id: &str) -> Job {
        Job::restored(id, Ledger::from_spans(&self.decided), self.cursor)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        // Numbers, texts and lists: there is nothing in it that JSON could refuse.
        bytes.extend(serde_json::to_vec(self).unwrap_or_default());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (version, rest) = bytes.split_first().ok_or(RecordError::Empty)?;
        if *version != VERSION {
            return Err(RecordError::Version(*version));
        }
        serde_json::from_slice(rest).map_err(|error| RecordError::Damaged(error.to_string()))
    }

    pub(crate) fn put(&self, batch: Batch, id: &str) -> Batch {
        batch.put(TABLE, id.as_bytes(), self.encode())
    }
}

/// Moves a record that cannot be read to where it harms nobody, in the batch that replaces it.
pub(crate) fn set_aside(batch: Batch, id: &str, bytes: &[u8], now: Millis) -> Batch {
    let key = format!("{id}@{now}");
    batch.put(TABLE_ASIDE, key.as_bytes(), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_was_written() {
        let record = Record {
            expression: "@daily".to_owned(),
            timezone: "UTC".to_owned(),
            decided: vec![(1, 5), (7, 9)],
            cursor: 9,
            paused: Some(true),
            held: true,
            last: Some(9),
            started: vec![9],
            written_ms: 9001,
        };
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn this_is_how_it_lies_on_disk() {
        let record = Record {
            expression: "@daily".to_owned(),
            timezone: "UTC".to_owned(),
            cursor: 9,
            ..Record::default()
        };
        let expected = b"\x01{\"expression\":\"@daily\",\"timezone\":\"UTC\",\"decided\":[],\"cursor\":9,\"written_ms\":0}";
        assert_eq!(record.encode(), expected);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        assert_eq!(Record::decode(b""), Err(RecordError::Empty));
        assert_eq!(Record::decode(b"\x02{}"), Err(RecordError::Version(2)));
        assert!(matches!(Record::decode(b"\x01{"), Err(RecordError::Damaged(_))));
    }
}
