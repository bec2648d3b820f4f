//! Dead messages: they live again, are thrown away, or get other data. Whoever asks has read their records; since others
//! may be at the same messages, a change is written only if the records are still those. Used by the functions by way of the
//! driver; it must not know how the messages were chosen.

use ringway_store::BlobId;
use serde_json::value::RawValue;

use super::{Machine, Pending, Ticket, erase, erase_attempts, write_end};
use crate::blobs;
use crate::record::{self, DeadRecord, Head, Place, Writes};

/// A dead message as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    pub(crate) place: Place,
    /// Why it is dead; `None` if that cannot be read.
    pub(crate) record: Option<DeadRecord>,
    /// `None` if it cannot be read.
    pub(crate) head: Option<Head>,
    /// The number of the last attempt of which there is a record; 0 for none.
    pub(crate) last_attempt: u32,
    /// The blob that it holds.
    pub(crate) blob: Option<BlobId>,
    /// The revisions of its records, by table.
    pub(crate) revisions: Vec<(&'static str, u64)>,
}

impl Dead {
    /// How many attempts there were, as far as is known.
    fn attempts(&self) -> u32 {
        self.record.as_ref().map_or(self.last_attempt, |record| record.attempts)
    }

    fn expect(&self, writes: &mut Writes) {
        for (table, revision) in &self.revisions {
            writes.expect(table, self.place.key(), *revision);
        }
    }
}

impl Machine {
    /// Says whether a dead message may live again: nothing else is being done with it, and what it was for is there.
    pub(crate) fn may_live(&self, place: &Place) -> bool {
        self.names.get(&place.queue).is_some_and(|queue| {
            !self.handled.contains(&(*queue, place.seq))
                && !self.queues[*queue].entries.contains_key(&place.seq)
                && place.seq >= self.queues[*queue].ended_below
        })
    }

    /// Says whether nothing else is being done with a dead message.
    fn is_free(&self, place: &Place) -> bool {
        self.names.get(&place.queue).is_some_and(|queue| {
            !self.handled.contains(&(*queue, place.seq))
                && !self.queues[*queue].entries.contains_key(&place.seq)
        })
    }

    /// Lets dead messages live again, with all their attempts, one after the other with `every_ms` between them. Each
    /// comes with its records as they are on disk; if one has changed by then, nothing is written.
    pub(crate) fn revive(&mut self, start_ms: u64, dead: Vec<Dead>, every_ms: u64) -> (Ticket, usize) {
        let mut writes = Writes::default();
        let mut revived = Vec::new();
        for dead in dead {
            let Some(mut head) = dead.head.clone().filter(|_| self.may_live(&dead.place)) else { continue };
            dead.expect(&mut writes);
            let attempts = dead.attempts();
            let Dead { place, .. } = dead;
            let queue = self.queue(&place.queue);
            let number = u64::try_from(revived.len()).unwrap_or(u64::MAX);
            let wait_ms = number.saturating_mul(every_ms);
            let due_ms = if every_ms == 0 { 0 } else { start_ms.saturating_add(wait_ms) };
            let expires_ms = 0;
            if (head.due_ms, head.expires_ms) != (due_ms, expires_ms) {
                (head.due_ms, head.expires_ms) = (due_ms, expires_ms);
                writes.put(record::MESSAGE, place.key(), &head);
            }
            writes.delete(record::DEAD, place.key());
            erase_attempts(&mut writes, &place, attempts);
            let entry = self.entry_of(&head, head.is_long());
            self.note_blob(queue, place.seq, &head);
            self.handled.insert((queue, place.seq));
            revived.push((queue, place.seq, entry, head.lane.as_str().into()));
        }
        let count = revived.len();
        (self.commit(Pending::Revival(revived), writes), count)
    }

    /// Throws dead messages away, also such as cannot be read. Each comes with its records as they are on disk; if one has
    /// changed by then, nothing is written.
    pub(crate) fn discard(&mut self, now_ms: u64, dead: Vec<Dead>) -> (Ticket, usize) {
        let mut writes = Writes::default();
        let (mut discarded, mut freed) = (Vec::new(), Vec::new());
        for dead in dead {
            if !self.is_free(&dead.place) {
                continue;
            }
            dead.expect(&mut writes);
            let attempts = dead.attempts();
            let Dead { place, head, blob, .. } = dead;
            let queue = self.queue(&place.queue);
            let long = head.as_ref().is_none_or(Head::is_long);
            if let Some(blob) = blob {
                blobs::let_go(&mut writes, &place, &blob);
                freed.push(blob);
            }
            let (end, at_ms) = (record::End::Discarded, now_ms);
            let receipt = head.and_then(|head| head.receipt);
            let steps = self.stepped.contains(&(queue, place.seq));
            let done = record::DoneRecord { end, at_ms, attempts, receipt, steps };
            writes.delete(record::DEAD, place.key());
            erase(&mut writes, &place, long, attempts);
            write_end(&mut writes, &place, &done, self.config.receipt_retention_ms);
            self.handled.insert((queue, place.seq));
            discarded.push((queue, place.seq));
        }
        let count = discarded.len();
        (self.commit(Pending::Discard(discarded, freed), writes), count)
    }

    /// Gives a dead message whose record was read other data, if its records are still as they were. With somebody else at it
    /// the commits decide, in whichever order they come. Returns the blob too that it then holds no more.
    pub(crate) fn edit(&mut self, dead: &Dead, data: Box<RawValue>) -> (Ticket, Option<BlobId>) {
        let key = dead.place.key();
        let mut writes = Writes::default();
        dead.expect(&mut writes);
        let mut freed = None;
        if let Some(mut head) = dead.head.clone() {
            let was_long = head.is_long();
            if let Some(blob) = head.blob.take() {
                blobs::let_go(&mut writes, &dead.place, &blob.id);
                freed = Some(blob.id);
            }
            if data.get().len() > record::INLINE_BYTES_MAX {
                writes.put_bytes(record::BODY, key.clone(), record::encode_body(&data));
                head.data = None;
            } else {
                if was_long {
                    writes.delete(record::BODY, key.clone());
                }
                head.data = Some(data);
            }
            writes.put(record::MESSAGE, key, &head);
        }
        (self.commit(Pending::Note, writes), freed)
    }
}
