//! Brings the bucket up to date, so that others can read what is kept and the log can be cut. Each pass writes the newest
//! form of every key that has changed; a key that came and went meanwhile costs nothing. Writes are taken only behind those
//! of our own claim: whoever claims the bucket ends them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use ringway_store::{StoreError, parts};
use tokio::time::Instant;

use crate::access::words;
use crate::claim;
use crate::core::{Changed, Core};
use crate::limits::{CHANGED_MAX, PART_BYTES, PAUSE, WINDOW, WINDOW_BYTES};
use crate::link::Link;
use crate::load;
use crate::map::At;
use crate::messages::{self, EntryMark};
use crate::names;

/// How long the last pass may take when the store is closed. What it does not do is done after the next opening.
const LAST_PASS: Duration = Duration::from_secs(10);

/// How far apart places are at which the log may be cut.
const CUT_EVERY: Duration = Duration::from_secs(5);

/// The mover of an open store.
#[derive(Debug)]
pub(crate) struct Mover {
    pub(crate) core: Arc<Core>,
    pub(crate) link: Link,
    pub(crate) gather: Duration,
    pub(crate) keep: Duration,
    /// The message of our claim in the log.
    pub(crate) epoch: u64,
    /// The last message of the bucket.
    pub(crate) last: u64,
    /// When the bucket had everything before which message of the log.
    pub(crate) cuts: VecDeque<(Instant, u64)>,
    /// The same of the last pass, which comes when the one before is old enough.
    pub(crate) cut_next: Option<(Instant, u64)>,
}

/// The bucket is not ours any more, or nothing is to be waited for.
pub(crate) struct Stopped;

/// A message for the bucket.
struct Put {
    subject: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Mover {
    /// Follows the writer until it has ended; then once more.
    pub(crate) async fn run(mut self, strays: Vec<String>) {
        self.sweep(strays).await;
        while !self.core.is_all_written() {
            if self.core.changed_count() > 0 {
                self.gather().await;
                if self.pass().await.is_err() {
                    return;
                }
            }
            self.cut().await;
            self.note_cut();
            self.verify().await;
            let next = self.next_alarm();
            // The news that the writer has ended may have been taken by `gather`.
            if self.core.changed_count() > 0 || self.core.is_all_written() {
                continue;
            }
            tokio::select! {
                () = self.core.changed.notified() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
        if self.core.ended().is_none() && self.link.is_up() {
            // What is left is in the log.
            drop(tokio::time::timeout(LAST_PASS, self.pass()).await);
        }
    }

    /// Looks at everything in the bucket, for whoever has asked. Nothing is on its way there now.
    async fn verify(&self) {
        let asked = self.core.asked();
        if asked.is_empty() {
            return;
        }
        let at = self.core.now();
        let verified = load::verify(&self.link, &at, |key| self.core.is_changed(key)).await;
        let verified = verified.map_err(|reason| StoreError::Unavailable { reason });
        for tell in asked {
            // Who does not wait any more is not told.
            drop(tell.send(verified.clone()));
        }
    }

    /// Waits a little, so that what changes again meanwhile is written once.
    async fn gather(&self) {
        let until = Instant::now() + self.gather;
        while self.core.changed_count() < CHANGED_MAX && !self.core.is_all_written() {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.core.changed.notified() => {}
            }
        }
    }

    /// Removes parts of nothing. What stays is found again at the next opening.
    async fn sweep(&mut self, strays: Vec<String>) {
        let prefix = &self.link.names.key_prefix;
        let removed = |text| Put {
            subject: format!("{prefix}{text}"),
            headers: messages::removed(),
            body: Bytes::new(),
        };
        let puts: Vec<Put> = strays.into_iter().take(WINDOW).map(removed).collect();
        match self.send(&puts).await {
            Ok(()) => self.last += puts.len() as u64,
            // The first pass finds the end.
            Err(reason) => tracing::warn!(%reason, "the bucket on NATS keeps parts of what is gone"),
        }
    }

    /// Brings the bucket up to date. What it does not take waits for the next pass, in the form that it has then.
    async fn pass(&mut self) -> Result<(), Stopped> {
        let (changed, at) = self.core.take_news();
        let sent = self.put_all(&changed, &at).await;
        if sent.is_err() {
            self.core.put_back();
        }
        self.cut_next = Some((Instant::now(), self.core.needed_from()));
        self.note_cut();
        let Err(reason) = sent else { return Ok(()) };
        tracing::debug!(%reason, "the bucket on NATS did not take everything");
        if self.core.is_all_written() {
            // What is left is in the log.
            return Err(Stopped);
        }
        tokio::select! {
            found = self.find_end() => self.last = found?,
            () = self.core.until_hurry() => return Err(Stopped),
            () = self.core.until_all_written() => return Err(Stopped),
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// When the next place to cut at is far enough from the one before.
    fn cut_due(&self) -> Option<Instant> {
        self.cuts.back().map(|(before, _)| *before + CUT_EVERY.min(self.keep))
    }

    fn note_cut(&mut self) {
        if self.cut_due().is_none_or(|due| Instant::now() >= due) {
            self.cuts.extend(self.cut_next.take());
        }
    }

    /// When there is something to do though nothing has changed.
    fn next_alarm(&self) -> Option<Instant> {
        let first = self.cuts.front().map(|(at, _)| *at + self.keep);
        let next = self.cut_next.and_then(|_| self.cut_due());
        first.into_iter().chain(next).min()
    }

    /// Cuts the log where the bucket has had everything for long enough.
    async fn cut(&mut self) {
        let mut before = None;
        while let Some((at, needed_from)) = self.cuts.front() {
            if at.elapsed() < self.keep {
                break;
            }
            before = Some((*needed_from).min(self.core.last_record()));
            self.cuts.pop_front();
        }
        let Some(before) = before.filter(|_| self.link.is_up()) else { return };
        let cut = async {
            let log = self.link.log().await?;
            log.purge().sequence(before).await.map_err(|error| words(&error))
        };
        if let Err(reason) = cut.await {
            tracing::warn!(%reason, "the log on NATS was not cut; it will be later");
        }
    }

    /// Writes what the bucket lacks, a few messages at once, and notes what it has.
    async fn put_all(&mut self, changed: &Changed, at: &At) -> Result<(), String> {
        // What is removed makes room for the rest.
        let (there, gone): (Vec<_>, Vec<_>) =
            changed.iter().partition(|(key, _)| at.map.contains_key(&***key));
        let (mut window, mut keys, mut bytes): (Vec<Put>, Vec<&Arc<[u8]>>, usize) = Default::default();
        let mut left = gone.into_iter().chain(there).peekable();
        while let Some((key, behind)) = left.next() {
            let puts = puts(&self.link.names.key_prefix, key, behind.there, at);
            bytes += puts.iter().map(|put| put.body.len()).sum::<usize>();
            window.extend(puts);
            keys.push(key);
            if window.len() >= WINDOW || bytes >= WINDOW_BYTES || left.peek().is_none() {
                self.send(&window).await?;
                self.last += window.len() as u64;
                self.core.moved(keys.drain(..));
                window.clear();
                bytes = 0;
            }
        }
        Ok(())
    }

    async fn send(&self, window: &[Put]) -> Result<(), String> {
        let mut sent = Vec::with_capacity(window.len());
        for (before, put) in (self.last..).zip(window) {
            let message = PublishMessage::build()
                .headers(put.headers.clone())
                .payload(put.body.clone())
                .expected_last_sequence(before);
            let ack = self.link.jetstream.send_publish(put.subject.clone(), message).await;
            sent.push(ack.map_err(|error| words(&error))?);
        }
        for ack in sent {
            tokio::select! {
                ack = ack.into_future() => drop(ack.map_err(|error| words(&error))?),
                () = self.link.until_down() => return Err(self.link.told()),
            }
        }
        Ok(())
    }

    /// The end of the bucket, if it is still ours: whoever else writes there moves it.
    async fn find_end(&self) -> Result<u64, Stopped> {
        loop {
            self.link.until_up().await;
            match claim::bucket_owner(&self.link).await {
                Ok((_, Some(owner))) if owner.epoch > self.epoch => {
                    let place = claim::place(&self.link);
                    self.core.end(StoreError::Taken { place, holder: owner.holder });
                    return Err(Stopped);
                }
                Ok((last, _)) => return Ok(last),
                Err(reason) => tracing::warn!(%reason, "NATS does not say what it has; it is asked again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What the bucket lacks of a key of which it has some messages already.
fn puts(prefix: &str, key: &Arc<[u8]>, there: usize, at: &At) -> Vec<Put> {
    let written = names::write(key);
    let subject = |part: usize| match part {
        0 => format!("{prefix}{}", written.text),
        part => format!("{prefix}{}.{part}", written.text),
    };
    let mut puts = Vec::new();
    let mut now = 0;
    if let Some(held) = at.map.get(&**key)
        && let Ok(bytes) = &held.bytes
    {
        let revision = held.revision;
        let seal = parts::seal(key, revision, bytes);
        now = held.parts();
        for part in 0..now {
            let mark = EntryMark { revision, seal, part, parts: now };
            let body = &bytes[part * PART_BYTES..bytes.len().min((part + 1) * PART_BYTES)];
            puts.push(Put {
                subject: subject(part),
                headers: mark.write(written.hashed.then_some(&**key)),
                body: Bytes::copy_from_slice(body),
            });
        }
    }
    for part in now..there {
        puts.push(Put { subject: subject(part), headers: messages::removed(), body: Bytes::new() });
    }
    puts
}
