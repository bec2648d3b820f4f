//! The one who commits: takes what waits, checks conditions, writes it to the log as one record, shows it, tells everybody.
//! A record is acknowledged when the server has acknowledged every message of it. Where it is not known whether the server
//! has one, it is found out before anything else happens: nobody is told "no" of what may be there.

use std::sync::Arc;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use ringway_store::store::Done;
use ringway_store::{Batch, StoreError};

use crate::access::words;
use crate::claim::{self, Claim};
use crate::core::{Core, Job, record};
use crate::limits::{OWNER_ANSWER, PART_BYTES, PAUSE};
use crate::link::Link;
use crate::messages::{self, LogMark};

/// The writer of an open store.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) core: Arc<Core>,
    pub(crate) link: Link,
    owner: String,
    /// The last message of the log.
    last: u64,
    /// The number of the last record.
    number: u64,
}

/// How a part came to no acknowledgement.
enum Unwritten {
    /// The server has refused it, in these words.
    Refused(String),
    /// It is not known whether the server has it.
    Unknown,
}

impl Writer {
    pub(crate) fn new(core: Arc<Core>, link: Link, claim: &Claim, last: u64) -> Self {
        Self { core, link, owner: claim.owner.clone(), last, number: 0 }
    }

    /// Commits until the store ends.
    pub(crate) async fn run(mut self) {
        while self.core.until_work().await {
            tokio::select! {
                biased;
                () = self.link.until_up() => self.commit().await,
                () = self.core.until_hurry() => self.core.away(self.link.told()),
                // What waited was refused, and the store may be about to end.
                () = self.core.until_idle() => {}
            }
        }
        self.core.all_written();
    }

    async fn commit(&mut self) {
        let jobs = self.core.take();
        let mut at = self.core.now();
        let mut accepted: Vec<Batch> = Vec::with_capacity(jobs.len());
        let mut outcomes: Vec<(Done, Result<u64, StoreError>)> = Vec::with_capacity(jobs.len());
        let first = at.revision + 1;
        for Job { batch, done } in jobs {
            let outcome = batch.check(|key| at.read(key)).map(|()| {
                at.revision += 1;
                for change in batch.changes() {
                    at.change(Arc::clone(&change.key), at.revision, change.value.clone());
                }
                accepted.push(batch);
                at.revision
            });
            outcomes.push((done, outcome));
        }
        if !accepted.is_empty() {
            let begin = self.last + 1;
            if let Err(error) = self.append(record(first, accepted.iter())).await {
                // What the others were told to be there is not there, so that refusals would not be true either.
                for (done, _) in outcomes {
                    done(Err(error.clone()));
                }
                return;
            }
            let keys = accepted.iter().flat_map(Batch::changes).map(|change| &change.key);
            self.core.show(at, keys, begin..=self.last);
        }
        for (done, outcome) in outcomes {
            done(outcome);
        }
    }

    /// Has the server keep a record, in as many messages as it takes.
    async fn append(&mut self, record: Vec<u8>) -> Result<(), StoreError> {
        self.number += 1;
        let record = Bytes::from(record);
        let part = |at: usize| record.slice(at..record.len().min(at + PART_BYTES));
        let parts: Vec<Bytes> = (0..record.len()).step_by(PART_BYTES).map(part).collect();
        let mut there = 0;
        // Whether nothing that was sent can still arrive.
        let mut certain = true;
        let mut is_last = false;
        loop {
            let Err(unwritten) = self.send(&parts, there).await else {
                self.last += parts.len() as u64;
                return Ok(());
            };
            there = self.found_there(parts.len()).await?;
            if there == parts.len() {
                self.last += parts.len() as u64;
                return Ok(());
            }
            match unwritten {
                Unwritten::Refused(reason) if certain => {
                    self.remove_beginning(there as u64).await;
                    return Err(StoreError::Unavailable { reason });
                }
                Unwritten::Refused(reason) => {
                    tracing::warn!(%reason, "NATS refuses a record; it is asked again");
                }
                Unwritten::Unknown => certain = false,
            }
            if is_last {
                // What was sent first may arrive yet.
                let reason = "it is not known whether NATS has the last record".to_owned();
                let error = StoreError::Failed { reason };
                self.core.end(error.clone());
                return Err(error);
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.core.until_hurry() => is_last = true,
            }
        }
    }

    /// A beginning without an end is nothing; it only takes room, which a server that refuses may lack.
    async fn remove_beginning(&mut self, there: u64) {
        let before = self.last;
        self.last += there;
        for sequence in before + 1..=self.last {
            let removed = match self.link.log().await {
                Ok(log) => log.delete_message(sequence).await.map_err(|error| words(&error)),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = removed {
                tracing::warn!(%reason, "half a record stays in the log on NATS until that is cut");
            }
        }
    }

    /// Sends the parts that are not there yet, each for the place behind the one before, and waits for all of them.
    async fn send(&self, parts: &[Bytes], there: usize) -> Result<(), Unwritten> {
        let mut sent = Vec::with_capacity(parts.len());
        for (part, body) in parts.iter().enumerate().skip(there) {
            let owner = self.owner.clone();
            let mark = LogMark { owner, number: self.number, part, parts: parts.len() };
            let message = PublishMessage::build()
                .headers(mark.write())
                .payload(body.clone())
                .expected_last_sequence(self.last + part as u64);
            let subject = self.link.names.log_subject.clone();
            sent.push(
                self.link.jetstream.send_publish(subject, message).await.map_err(|error| told(&error))?,
            );
        }
        for ack in sent {
            tokio::select! {
                ack = ack.into_future() => drop(ack.map_err(|error| told(&error))?),
                () = self.link.until_down() => return Err(Unwritten::Unknown),
            }
        }
        Ok(())
    }

    /// Finds out how many parts of the last record the server has. Waits for the server, unless the store is to end.
    async fn found_there(&self, parts: usize) -> Result<usize, StoreError> {
        let give_up = async {
            self.core.until_hurry().await;
            tokio::time::sleep(OWNER_ANSWER).await;
        };
        let found = tokio::select! {
            found = self.find(parts) => found,
            () = give_up => Err(StoreError::Failed { reason: self.link.told() }),
        };
        found.inspect_err(|error| self.core.end(error.clone()))
    }

    async fn find(&self, parts: usize) -> Result<usize, StoreError> {
        loop {
            self.link.until_up().await;
            match self.look(parts).await {
                Ok(found) => return found,
                Err(reason) => tracing::warn!(%reason, "NATS does not say what it has; it is asked again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The outer error is that of a server that does not answer.
    async fn look(&self, parts: usize) -> Result<Result<usize, StoreError>, String> {
        let log = match self.link.log().await?.get_info().await {
            Ok(info) => info,
            Err(error) if words(&error).contains("stream not found") => {
                let reason = format!("the stream {} is gone", self.link.names.log_stream);
                return Ok(Err(StoreError::Failed { reason }));
            }
            Err(error) => return Err(words(&error)),
        };
        let end = log.state.last_sequence;
        if end < self.last {
            let reason = format!(
                "the stream {} ends with message {end}, though NATS had acknowledged {}",
                self.link.names.log_stream, self.last
            );
            return Ok(Err(StoreError::Failed { reason }));
        }
        if end == self.last {
            return Ok(Ok(0));
        }
        let message = self.link.log().await?.get_raw_message(end).await.map_err(|error| words(&error))?;
        let found = usize::try_from(end - self.last).unwrap_or(usize::MAX);
        let mark = LogMark::read(Some(&message.headers));
        let ours = mark.is_some_and(|mark| {
            (&mark.owner, mark.number, mark.part + 1) == (&self.owner, self.number, found) && found <= parts
        });
        if ours {
            return Ok(Ok(found));
        }
        let holder = self.claimant(end).await?;
        Ok(Err(StoreError::Taken { place: claim::place(&self.link), holder }))
    }

    /// Who wrote behind us: whoever claimed the store, in the words of the claim.
    async fn claimant(&self, end: u64) -> Result<String, String> {
        let log = self.link.log().await?;
        for sequence in self.last + 1..=end {
            let message = log.get_raw_message(sequence).await.map_err(|error| words(&error))?;
            if let Some(holder) = messages::claimant(&message.headers) {
                return Ok(holder);
            }
        }
        Ok(format!("somebody who is no engine and wrote to {}", self.link.names.log_subject))
    }
}

fn told(error: &PublishError) -> Unwritten {
    match error.kind() {
        // The server's own words; all others are about the way there.
        PublishErrorKind::Other if is_answer(error) => Unwritten::Refused(words(error)),
        PublishErrorKind::MaxPayloadExceeded => Unwritten::Refused(words(error)),
        _ => Unwritten::Unknown,
    }
}

fn is_answer(error: &PublishError) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<async_nats::jetstream::Error>)
}
