//! Attempts: what may start is started, and what becomes of a message when its attempt is over, or is given up. Used by
//! the machine's other parts and the driver; it must not know how a function is called.

use std::sync::Arc;

use ringway_store::BlobId;

use super::queue::{Entry, NEVER, State};
use super::{ATTEMPTS_KEPT, Delivery, Failed, Machine, Outcome, Pending, Ticket, Token, erase, write_end};
use crate::blobs;
use crate::record::{self, Place, Writes};

/// Messages that end with one commit when a subscription does.
const AT_ONCE: usize = 256;

/// What is kept of an error's text, in bytes.
const ERROR_BYTES_MAX: usize = 16_384;

/// What is kept of an error's code, in bytes.
const CODE_BYTES_MAX: usize = 256;

impl Machine {
    /// Starts what may start.
    pub(super) fn run(&mut self, queue: usize, now_ms: u64) {
        // How it ends could not be written down, so that it would be done again after the next start.
        if self.stall.is() {
            return;
        }
        for seq in self.queues[queue].tick(now_ms) {
            let attempts = self.queues[queue].entries.get(&seq).map_or(0, |entry| entry.attempts);
            let message = "it waited longer than it was to live".to_owned();
            let dead = record::DeadRecord { at_ms: now_ms, attempts, code: "EXPIRED".into(), message };
            self.bury(queue, seq, &dead, Writes::default(), now_ms);
        }
        let absent = &self.absent;
        while self.numbers.tokens_left()
            && let Some(seq) = self.queues[queue].start(now_ms, |function| absent.contains(&function))
        {
            let at = &self.queues[queue];
            let Some(entry) = at.entries.get(&seq) else { break };
            let Some(token) = self.numbers.token() else { break };
            self.leases.insert(token, (queue, seq));
            self.output.deliveries.push(Delivery {
                token,
                place: Place { queue: Arc::clone(&at.name), seq },
                attempt: entry.attempts.saturating_add(1),
                attempts_max: at.settings.max_retries.saturating_add(1),
                timeout_ms: at.settings.timeout_ms,
            });
        }
        let alarm = self.queues[queue].next_alarm(now_ms);
        let set = self.queues[queue].alarm_ms;
        if alarm != set {
            self.alarms.remove(&(set, queue));
            if alarm != NEVER {
                self.alarms.insert((alarm, queue));
            }
            self.queues[queue].alarm_ms = alarm;
        }
    }

    /// An attempt is over. One that was given up before is ignored.
    pub(crate) fn ended(&mut self, now_ms: u64, token: Token, outcome: Outcome) {
        let Some((queue, seq)) = self.leases.remove(&token) else { return };
        match outcome {
            Outcome::Succeeded => {
                self.finish(queue, seq, record::End::Done, now_ms);
            }
            Outcome::NotStarted { after_ms } => {
                self.queues[queue].release(seq, now_ms.saturating_add(after_ms), now_ms);
            }
            Outcome::Absent(functions) => {
                for function in functions {
                    let number = self.function(&function);
                    if self.absent.insert(number) {
                        self.output.missing.push(function);
                    }
                }
                self.queues[queue].release(seq, now_ms, now_ms);
            }
            Outcome::Failed(failed) => self.fail(queue, seq, failed, now_ms),
        }
        self.run(queue, now_ms);
    }

    fn fail(&mut self, queue: usize, seq: u64, failed: Failed, now_ms: u64) {
        let Self { queues, dice, .. } = self;
        let at = &mut queues[queue];
        let place = Place { queue: Arc::clone(&at.name), seq };
        let settings = &at.settings;
        let Some(entry) = at.entries.get_mut(&seq) else { return };
        entry.attempts = entry.attempts.saturating_add(1);
        let attempts = entry.attempts;
        let rule = settings.retries_after(&failed.code);
        let wait = failed.retry_after_ms.unwrap_or_else(|| rule.wait_after(attempts, || dice.f64()));
        let due_ms = now_ms.saturating_add(wait);
        let fatal = failed.fatal || settings.fatal_codes.contains(&failed.code);
        let hopeless = fatal || attempts > rule.max || entry.expires_ms <= now_ms;
        let (code, message) =
            (shorten(failed.code, CODE_BYTES_MAX), shorten(failed.message, ERROR_BYTES_MAX));
        let attempt = record::AttemptRecord { at_ms: now_ms, due_ms, code, message };
        let mut writes = Writes::default();
        writes.put(record::ATTEMPT, place.attempt_key(attempts), &attempt);
        if attempts > ATTEMPTS_KEPT {
            writes.delete(record::ATTEMPT, place.attempt_key(attempts - ATTEMPTS_KEPT));
        }
        if hopeless {
            let record::AttemptRecord { code, message, .. } = attempt;
            let dead = record::DeadRecord { at_ms: now_ms, attempts, code, message };
            self.bury(queue, seq, &dead, writes, now_ms);
        } else {
            at.release(seq, due_ms, now_ms);
            self.commit(Pending::Note, writes);
        }
    }

    fn bury(&mut self, queue: usize, seq: u64, dead: &record::DeadRecord, mut writes: Writes, now_ms: u64) {
        let place = Place { queue: Arc::clone(&self.queues[queue].name), seq };
        writes.put(record::DEAD, place.key(), dead);
        // Its record names it, for whoever revives or discards it.
        self.blobs.remove(&(queue, seq));
        self.queues[queue].end(seq, now_ms);
        let (ended, again) = (vec![(seq, None)], writes.clone());
        self.commit(Pending::End { queue, ended, freed: Vec::new(), writes: again }, writes);
    }

    fn finish(&mut self, queue: usize, seq: u64, end: record::End, now_ms: u64) -> Option<Ticket> {
        let at = &mut self.queues[queue];
        let entry = at.entries.get(&seq)?;
        let place = Place { queue: Arc::clone(&at.name), seq };
        let attempts = entry.attempts.saturating_add(u32::from(end == record::End::Done));
        let done = record::DoneRecord {
            end,
            at_ms: now_ms,
            attempts,
            receipt: entry.receipt.as_deref().map(Into::into),
            steps: self.stepped.remove(&(queue, seq)),
        };
        let mut writes = Writes::default();
        erase(&mut writes, &place, entry.long, entry.attempts);
        write_end(&mut writes, &place, &done, self.config.receipt_retention_ms);
        at.end(seq, now_ms);
        let freed = self.let_go(&mut writes, queue, &place);
        let (ended, again) = (vec![(seq, Some(done))], writes.clone());
        Some(
            self.commit(
                Pending::End { queue, ended, freed: freed.into_iter().collect(), writes: again },
                writes,
            ),
        )
    }

    /// Has a message that ends let its data go.
    fn let_go(&mut self, writes: &mut Writes, queue: usize, place: &Place) -> Option<BlobId> {
        let freed = self.blobs.remove(&(queue, place.seq))?;
        blobs::let_go(writes, place, &freed);
        Some(freed)
    }

    /// Ends a message that is to be delivered, whatever is under way. `None` if there is none, or its end is being written.
    pub(crate) fn cancel(&mut self, now_ms: u64, place: &Place) -> Option<Ticket> {
        let queue = *self.names.get(&place.queue)?;
        let state = self.queues[queue].entries.get(&place.seq)?.state;
        if state == State::Ending {
            return None;
        }
        if state == State::Running {
            self.abort(queue, place.seq);
        }
        let ticket = self.finish(queue, place.seq, record::End::Cancelled, now_ms);
        self.run(queue, now_ms);
        ticket
    }

    /// Gives up the attempt of a message, or does not begin it.
    fn abort(&mut self, queue: usize, seq: u64) {
        let lease = self.leases.iter().find(|(_, at)| **at == (queue, seq));
        let Some(token) = lease.map(|(token, _)| *token) else { return };
        self.leases.remove(&token);
        let told = self.output.deliveries.len();
        self.output.deliveries.retain(|delivery| delivery.token != token);
        if self.output.deliveries.len() == told {
            self.output.aborts.push(token);
        }
    }

    /// Ends what is to be delivered of a queue and came before its subscription ended.
    pub(super) fn end_those_below(&mut self, queue: usize, now_ms: u64) {
        let at = &self.queues[queue];
        let ended = |(seq, entry): &(&u64, &Entry)| **seq < at.ended_below && entry.state != State::Ending;
        let mut seqs: Vec<u64> = at.entries.iter().filter(ended).map(|(seq, _)| *seq).collect();
        seqs.sort_unstable();
        for seqs in seqs.chunks(AT_ONCE) {
            let mut writes = Writes::default();
            let (mut ended, mut freed) = (Vec::new(), Vec::new());
            for seq in seqs {
                let Some(entry) = self.queues[queue].entries.get(seq) else { continue };
                let place = Place { queue: Arc::clone(&self.queues[queue].name), seq: *seq };
                erase(&mut writes, &place, entry.long, entry.attempts);
                let done = record::DoneRecord {
                    end: record::End::Cancelled,
                    at_ms: now_ms,
                    attempts: entry.attempts,
                    receipt: entry.receipt.as_deref().map(Into::into),
                    steps: self.stepped.remove(&(queue, *seq)),
                };
                if entry.state == State::Running {
                    self.abort(queue, *seq);
                }
                if done.steps {
                    // Nobody asks for the receipt of a copy, but it takes the steps along.
                    write_end(&mut writes, &place, &done, self.config.receipt_retention_ms);
                }
                freed.extend(self.let_go(&mut writes, queue, &place));
                ended.push((*seq, Some(done)));
                self.queues[queue].end(*seq, now_ms);
            }
            let again = writes.clone();
            self.commit(Pending::End { queue, ended, freed, writes: again }, writes);
        }
    }
}

/// The beginning of a text that may be too long for a record.
fn shorten(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push_str(" [cut]");
    }
    text
}
