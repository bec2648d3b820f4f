//! What is read when a store is opened: every entry of the bucket, then the log over it. The log may begin before what the
//! bucket has, and never after; what is older than an entry changes nothing. It must not write anything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::Stream;
use futures_lite::StreamExt;
use ringway_store::parts::{self, Record};
use ringway_store::report::{Damage, OpenReport};

use crate::access::words;
use crate::core::{Behind, Changed, News};
use crate::error::OpenError;
use crate::limits::ANSWER;
use crate::link::Link;
use crate::map::{At, Held};
use crate::messages::{self, EntryMark, LogMark};
use crate::names;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) at: At,
    pub(crate) news: News,
    pub(crate) report: OpenReport,
    /// Subjects of the bucket that hold parts of nothing.
    pub(crate) strays: Vec<String>,
}

/// Reads bucket and log.
pub(crate) async fn load(link: &Link) -> Result<Loaded, OpenError> {
    let bucket_failed = |reason: String| OpenError::Server { place: link.names.bucket.clone(), reason };
    let log_failed = |reason: String| OpenError::Server { place: link.names.log_stream.clone(), reason };
    let mut bucket = Bucket::default();
    let prefix = &link.names.key_prefix;
    let stream = link.bucket().await.map_err(bucket_failed)?;
    each(&stream, |message, _| bucket.add(prefix, message)).await.map_err(bucket_failed)?;
    let mut loaded = bucket.loaded();
    let stream = link.log().await.map_err(log_failed)?;
    let mut replay = Replay { loaded: &mut loaded, series: None };
    let last = each(&stream, |message, sequence| replay.add(message, sequence)).await.map_err(log_failed)?;
    replay.torn();
    loaded.news.log_seq = last;
    loaded.news.record_seq = match loaded.news.record_seq {
        0 => last,
        first => first,
    };
    loaded.report.revision = loaded.at.revision;
    loaded.report.checked = true;
    Ok(loaded)
}

/// Compares the bucket with what is in memory, but for keys that it may have in an older form.
pub(crate) async fn verify(
    link: &Link,
    at: &At,
    is_changed: impl Fn(&[u8]) -> bool,
) -> Result<Vec<Damage>, String> {
    let mut bucket = Bucket::default();
    each(&link.bucket().await?, |message, _| bucket.add(&link.names.key_prefix, message)).await?;
    let found = bucket.loaded();
    let mut damage = found.report.damage;
    let mut tell = |key: &[u8], reason: String| {
        let (table, key) = parts::named(key);
        damage.push(Damage::Entry { table, key, reason });
    };
    for (key, held) in &at.map {
        match found.at.map.get(&**key) {
            _ if is_changed(key) => {}
            Some(Held { bytes: Err(reason), .. }) => tell(key, reason.to_string()),
            Some(there) if there.revision == held.revision => {}
            Some(there) => {
                tell(key, format!("the bucket has revision {}, wanted {}", there.revision, held.revision));
            }
            None => tell(key, "it is missing in the bucket".to_owned()),
        }
    }
    for (key, there) in &found.at.map {
        if !is_changed(key) && !at.map.contains_key(&**key) {
            tell(key, format!("the bucket has revision {} of what was removed", there.revision));
        }
    }
    Ok(damage)
}

/// Gives every message of a stream with its number, and returns the last number.
async fn each(stream: &Stream<()>, mut take: impl FnMut(&Message, u64)) -> Result<u64, String> {
    let last = stream.get_info().await.map_err(|error| words(&error))?.state.last_sequence;
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.map_err(|error| words(&error))?;
    let mut messages = consumer.messages().await.map_err(|error| words(&error))?;
    loop {
        let message = tokio::time::timeout(2 * ANSWER, messages.next()).await;
        let message =
            message.map_err(|_| format!("wanted message {last}, found that the server sends no more"))?;
        let message =
            message.ok_or("the server ended what it was sending")?.map_err(|error| words(&error))?;
        let (sequence, pending) = {
            let info = message.info().map_err(|error| error.to_string())?;
            (info.stream_sequence, info.pending)
        };
        take(&message, sequence);
        if sequence >= last || pending == 0 {
            return Ok(sequence.max(last));
        }
    }
}

/// What the bucket has of one key.
#[derive(Debug, Default)]
struct Pieces {
    parts: BTreeMap<usize, (Option<EntryMark>, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct Bucket {
    keys: HashMap<Vec<u8>, Pieces>,
    damage: Vec<Damage>,
}

impl Bucket {
    fn add(&mut self, prefix: &str, message: &Message) {
        let headers = message.headers.as_ref();
        let text = message.subject.as_str().strip_prefix(prefix).unwrap_or_default();
        if text == names::OWNER_KEY || messages::is_removed(headers) {
            return;
        }
        let read = names::read(text).and_then(|(key, part)| {
            let key = key.or_else(|| messages::hashed_key(headers))?;
            // A hash that is not of this key, or a key that is written otherwise, is none of ours.
            text.starts_with(&names::write(&key).text).then_some((key, part))
        });
        match read {
            Some((key, part)) => {
                let pieces = self.keys.entry(key).or_default();
                pieces.parts.insert(part, (EntryMark::read(headers), message.payload.to_vec()));
            }
            None => self.damage.push(Damage::Entry {
                table: String::new(),
                key: text.as_bytes().to_vec(),
                reason: "it is in the bucket and is no key of ours; it is left alone".to_owned(),
            }),
        }
    }

    fn loaded(self) -> Loaded {
        let mut loaded = Loaded::default();
        loaded.report.damage = self.damage;
        for (key, pieces) in self.keys {
            let text = names::write(&key).text;
            let count = match pieces.parts.get(&0) {
                None => 0,
                Some(_) => {
                    let held = pieces.held(&key);
                    loaded.at.revision = loaded.at.revision.max(held.revision);
                    let count = held.parts();
                    loaded.at.map.insert_mut(key.into(), held);
                    count
                }
            };
            let strays = pieces.parts.keys().filter(|part| **part >= count.max(1));
            loaded.strays.extend(strays.map(|part| format!("{text}.{part}")));
        }
        loaded
    }
}

impl Pieces {
    fn held(&self, key: &[u8]) -> Held {
        let Some(Some(first)) = self.parts.get(&0).map(|(mark, _)| *mark) else {
            let reason = "somebody else has written it in the bucket";
            return Held { revision: 0, bytes: Err(reason.into()) };
        };
        let mut bytes = Vec::new();
        for part in 0..first.parts {
            match self.parts.get(&part) {
                Some((Some(mark), body)) if mark.revision == first.revision && mark.part == part => {
                    bytes.extend_from_slice(body);
                }
                _ => {
                    let reason = format!("part {part} of {} is missing in the bucket", first.parts);
                    return Held { revision: first.revision, bytes: Err(reason.into()) };
                }
            }
        }
        if parts::seal(key, first.revision, &bytes) != first.seal {
            return Held { revision: first.revision, bytes: Err("its seal does not fit it".into()) };
        }
        Held { revision: first.revision, bytes: Ok(bytes.into()) }
    }
}

/// The messages of a record that are there so far.
#[derive(Debug)]
struct Series {
    mark: LogMark,
    bytes: Vec<u8>,
    first: u64,
}

struct Replay<'a> {
    loaded: &'a mut Loaded,
    series: Option<Series>,
}

impl Replay<'_> {
    fn add(&mut self, message: &Message, sequence: u64) {
        let Some(mark) = LogMark::read(message.headers.as_ref()) else {
            return self.loaded.report.damage.push(Damage::Entry {
                table: String::new(),
                key: sequence.to_be_bytes().to_vec(),
                reason: format!("message {sequence} of the log is none of ours; it is left alone"),
            });
        };
        if mark.number == 0 {
            return self.torn();
        }
        match &mut self.series {
            Some(series)
                if (&series.mark.owner, series.mark.number) == (&mark.owner, mark.number)
                    && series.mark.part + 1 == mark.part =>
            {
                series.mark.part = mark.part;
                series.bytes.extend_from_slice(&message.payload);
            }
            _ => {
                self.torn();
                if mark.part > 0 {
                    // The end of one whose beginning the bucket has.
                    return;
                }
                self.series = Some(Series { mark, bytes: message.payload.to_vec(), first: sequence });
            }
        }
        if let Some(series) = self.series.take_if(|series| series.mark.part + 1 == series.mark.parts) {
            self.record(&series);
        }
    }

    /// What has begun and does not go on was never acknowledged.
    fn torn(&mut self) {
        if let Some(series) = self.series.take() {
            self.loaded.report.torn_bytes += series.bytes.len() as u64;
        }
    }

    fn record(&mut self, series: &Series) {
        let Loaded { at, news, report, .. } = &mut *self.loaded;
        let Some(batches) = Record::read(&series.bytes) else {
            let lost = at.revision + 1;
            return report.damage.push(Damage::CommitsLost {
                first: lost,
                last: lost,
                set_aside: Vec::new(),
            });
        };
        news.record_seq = series.first;
        for (revision, changes) in batches {
            report.replayed += 1;
            for change in changes {
                replay(at, &mut news.changed, (change.key, change.value), revision, series.first);
            }
            at.revision = at.revision.max(revision);
        }
    }
}

/// Applies a change of the log to what the bucket has, unless it has that or something newer. What the bucket has half, as
/// after a crash between two messages, the log has whole.
fn replay(
    at: &mut At,
    changed: &mut Changed,
    (key, value): (Arc<[u8]>, Option<Arc<[u8]>>),
    revision: u64,
    since: u64,
) {
    let before = at.map.get(&*key);
    let is_there =
        |before: &Held| before.revision > revision || (before.revision == revision && before.bytes.is_ok());
    if before.is_some_and(is_there) || (before.is_none() && value.is_none()) {
        return;
    }
    let there = before.map_or(0, Held::parts);
    changed.entry(Arc::clone(&key)).or_insert(Behind { there, since });
    at.change(key, revision, value);
}
