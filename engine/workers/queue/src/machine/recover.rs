//! From what is on disk back to a machine: every message that has not ended waits again, whatever was under way. Used at
//! the start, and by the property tests at every crash. It must not know which store the records came from.

use std::collections::{BTreeMap, HashSet};

use super::Machine;
use crate::record::{self, Place, Unreadable};

/// Where records are read from.
pub(crate) trait Tables {
    /// Calls `each` with every key and value of a table, in order.
    ///
    /// # Errors
    /// When the table cannot be read on.
    fn each(&self, table: &'static str, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Unreadable>;
}

impl Machine {
    /// Reads everything back, into a machine that is empty, and returns what could not be read. Costs a read of every
    /// message that has not ended, but not of long data. The caller starts what may start with [`Machine::start_all`].
    ///
    /// # Errors
    /// When a table as a whole cannot be read.
    pub(crate) fn recover(
        &mut self,
        now_ms: u64,
        tables: &dyn Tables,
    ) -> Result<Vec<Unreadable>, Unreadable> {
        let mut unreadable = Vec::new();
        let mut note = |error: Unreadable| unreadable.push(error);
        tables.each(record::SETTINGS, &mut |key, value| {
            let name = std::str::from_utf8(key)
                .map_err(|_| Unreadable::new(record::SETTINGS, key, "wanted a queue's name"));
            let read = record::decode::<record::SettingsRecord>(record::SETTINGS, key, value);
            match name.and_then(|name| read.map(|read| (name, read))) {
                Ok((name, read)) => {
                    let queue = self.queue(name);
                    self.queues[queue].mode = read.mode;
                    if let Some(settings) = &read.settings {
                        self.queues[queue].settings = settings.clone();
                    }
                    self.records.insert(name.to_owned(), read);
                }
                Err(error) => note(error),
            }
        })?;
        tables.each(record::ENDED, &mut |key, value| {
            let name = std::str::from_utf8(key)
                .map_err(|_| Unreadable::new(record::ENDED, key, "wanted a queue's name"));
            let read = record::decode::<u64>(record::ENDED, key, value);
            match name.and_then(|name| read.map(|read| (name, read))) {
                Ok((name, below)) => {
                    let queue = self.queue(name);
                    self.queues[queue].ended_below = below;
                }
                Err(error) => note(error),
            }
        })?;
        let mut dead = HashSet::new();
        tables.each(record::DEAD, &mut |key, _| match Place::parse(record::DEAD, key) {
            Ok((place, _)) => {
                let queue = self.queue(&place.queue);
                self.queues[queue].dead += 1;
                dead.insert(place);
            }
            Err(error) => note(error),
        })?;
        let mut attempts = BTreeMap::new();
        tables.each(record::ATTEMPT, &mut |key, value| match read_attempt(key, value) {
            Ok((place, attempt, due_ms)) => {
                attempts.insert(place, (attempt, due_ms));
            }
            Err(error) => note(error),
        })?;
        tables.each(record::MESSAGE, &mut |key, value| {
            let place = match Place::parse(record::MESSAGE, key) {
                Ok((place, _)) => place,
                Err(error) => return note(error),
            };
            if dead.contains(&place) {
                return;
            }
            match record::decode::<record::Head>(record::MESSAGE, key, value) {
                Ok(head) => {
                    let mut entry = self.entry_of(&head, head.is_long());
                    if let Some((failed, due_ms)) = attempts.get(&place) {
                        entry.attempts = *failed;
                        entry.due_ms = entry.due_ms.max(*due_ms);
                    }
                    let queue = self.queue(&place.queue);
                    self.note_blob(queue, place.seq, &head);
                    self.insert(queue, place.seq, entry, &head.lane, now_ms);
                }
                Err(error) => note(error),
            }
        })?;
        tables.each(record::STEP, &mut |key, _| match Place::parse(record::STEP, key) {
            Ok((place, _)) => self.has_steps(&place, dead.contains(&place)),
            Err(error) => note(error),
        })?;
        for queue in 0..self.queues.len() {
            self.end_those_below(queue, now_ms);
        }
        Ok(unreadable)
    }

    /// Starts what may start, after everything that could be there has been told.
    pub(crate) fn start_all(&mut self, now_ms: u64) {
        for queue in 0..self.queues.len() {
            self.run(queue, now_ms);
        }
    }
}

fn read_attempt(key: &[u8], value: &[u8]) -> Result<(Place, u32, u64), Unreadable> {
    let (place, rest) = Place::parse(record::ATTEMPT, key)?;
    let number = <[u8; 4]>::try_from(rest)
        .map_err(|_| Unreadable::new(record::ATTEMPT, key, "wanted 4 bytes of number at its end"))?;
    let read = record::decode::<record::AttemptRecord>(record::ATTEMPT, key, value)?;
    Ok((place, u32::from_be_bytes(number), read.due_ms))
}
