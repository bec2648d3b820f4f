//! Who has the store: one engine at a time. Whoever opens it asks whether anybody has it; if nobody answers it writes a
//! claim behind everything that is in the log, from which on nobody else's writes are taken, and then one in the bucket.
//! Used when a store is opened, and by whoever finds that a write was not taken.

use std::hash::{BuildHasher, Hasher, RandomState};

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use futures_lite::StreamExt;
use tokio::task::JoinHandle;

use crate::access::words;
use crate::error::OpenError;
use crate::limits::OWNER_ANSWER;
use crate::link::Link;
use crate::messages::{self, LogMark};
use crate::names::OWNER_KEY;

/// A store that is ours until somebody else claims it. Dropping it ends the answers to those who ask.
#[derive(Debug)]
pub(crate) struct Claim {
    /// A random name, so that no two are alike.
    pub(crate) owner: String,
    /// The message of our claim in the log: later claims have greater ones.
    pub(crate) epoch: u64,
    /// The last message of the bucket, which is our claim there.
    pub(crate) bucket_seq: u64,
    answers: JoinHandle<()>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Whose the bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) epoch: u64,
    pub(crate) holder: String,
}

impl Owner {
    fn read(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let (epoch, holder) = text.split_once(' ')?;
        Some(Self { epoch: epoch.parse().ok()?, holder: holder.to_owned() })
    }
}

/// Makes stream and bucket where they are missing, and takes the store.
pub(crate) async fn claim(link: &Link, replicas: usize) -> Result<Claim, OpenError> {
    let names = &link.names;
    ensure(link, log_config(link, replicas)).await?;
    ensure(link, bucket_config(link, replicas)).await?;
    let server = |reason: String| OpenError::Server { place: names.log_stream.clone(), reason };
    let locked = |holder: String| OpenError::Locked { place: place(link), holder };
    let log = link.log().await.map_err(server)?;
    // First what is there, then the question: whoever comes between the two moves the end of the log.
    let last = log.get_info().await.map_err(|error| server(words(&error)))?.state.last_sequence;
    if let Some(holder) = ask(link).await.map_err(server)? {
        return Err(locked(holder));
    }
    let (owner, holder) = (random(), holder());
    let answers = answer(link, &holder).await.map_err(server)?;
    let mut claim = Claim { owner, epoch: 0, bucket_seq: 0, answers };
    let mark = LogMark { owner: claim.owner.clone(), number: 0, part: 0, parts: 1 };
    let message =
        PublishMessage::build().headers(messages::claim(&mark, &holder)).expected_last_sequence(last);
    let sent = link.jetstream.send_publish(names.log_subject.clone(), message).await;
    let sent = sent.map_err(|error| server(words(&error)))?;
    claim.epoch = match sent.await {
        Ok(ack) => ack.sequence,
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
            return Err(locked("another engine that starts right now".to_owned()));
        }
        Err(error) => return Err(server(words(&error))),
    };
    claim.bucket_seq = claim_bucket(link, claim.epoch, &holder).await?;
    Ok(claim)
}

/// What the store is called in words.
pub(crate) fn place(link: &Link) -> String {
    format!("the store {} on NATS at {}", link.names.bucket, link.servers)
}

/// Asks who has the store, and waits for an answer no longer than somebody who lives would take.
pub(crate) async fn ask(link: &Link) -> Result<Option<String>, String> {
    let asked = link.client.request(link.names.owner_subject.clone(), Vec::new().into());
    match tokio::time::timeout(OWNER_ANSWER, asked).await {
        Err(_silence) => Ok(None),
        Ok(Ok(answer)) => Ok(Some(String::from_utf8_lossy(&answer.payload).into_owned())),
        Ok(Err(error)) => match error.kind() {
            RequestErrorKind::NoResponders | RequestErrorKind::TimedOut => Ok(None),
            _ => Err(words(&error)),
        },
    }
}

async fn answer(link: &Link, holder: &str) -> Result<JoinHandle<()>, String> {
    let subscribed = link.client.subscribe(link.names.owner_subject.clone()).await;
    let mut questions = subscribed.map_err(|error| words(&error))?;
    link.client.flush().await.map_err(|error| words(&error))?;
    let (client, holder) = (link.client.clone(), holder.to_owned());
    Ok(tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            if let Some(reply) = question.reply {
                // Whoever asked over a connection that has gone asks again.
                drop(client.publish(reply, holder.clone().into()).await);
            }
        }
    }))
}

/// The last message of the bucket, and who claimed it last.
pub(crate) async fn bucket_owner(link: &Link) -> Result<(u64, Option<Owner>), String> {
    let bucket = link.bucket().await?;
    // In this order: a claim after the first look has a greater number than it found.
    let last = bucket.get_info().await.map_err(|error| words(&error))?.state.last_sequence;
    let subject = format!("{}{OWNER_KEY}", link.names.key_prefix);
    match bucket.get_last_raw_message_by_subject(&subject).await {
        Ok(message) => Ok((last, Owner::read(&message.payload))),
        Err(error)
            if error.kind() == async_nats::jetstream::stream::LastRawMessageErrorKind::NoMessageFound =>
        {
            Ok((last, None))
        }
        Err(error) => Err(words(&error)),
    }
}

async fn claim_bucket(link: &Link, epoch: u64, holder: &str) -> Result<u64, OpenError> {
    let server = |reason: String| OpenError::Server { place: link.names.bucket.clone(), reason };
    loop {
        let (last, owner) = bucket_owner(link).await.map_err(server)?;
        if let Some(owner) = owner.filter(|owner| owner.epoch > epoch) {
            return Err(OpenError::Locked { place: place(link), holder: owner.holder });
        }
        let body = format!("{epoch} {holder}");
        let message = PublishMessage::build().payload(body.into()).expected_last_sequence(last);
        let subject = format!("{}{OWNER_KEY}", link.names.key_prefix);
        let sent = link.jetstream.send_publish(subject, message).await;
        match sent.map_err(|error| server(words(&error)))?.await {
            Ok(ack) => return Ok(ack.sequence),
            // Whoever had it was writing still.
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {}
            Err(error) => return Err(server(words(&error))),
        }
    }
}

fn random() -> String {
    let number = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}

fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "a machine without a name" } else { host.trim() };
    format!("process {} on {host}", std::process::id())
}

fn log_config(link: &Link, replicas: usize) -> Config {
    Config {
        name: link.names.log_stream.clone(),
        description: Some(
            "The log of a Ringway store: whoever writes here ends the engine that has it".to_owned(),
        ),
        subjects: vec![link.names.log_subject.clone()],
        ..common(replicas)
    }
}

fn bucket_config(link: &Link, replicas: usize) -> Config {
    Config {
        name: format!("KV_{}", link.names.bucket),
        description: Some("What a Ringway store keeps, for reading; the engine writes it".to_owned()),
        subjects: vec![format!("{}>", link.names.key_prefix)],
        max_messages_per_subject: 1,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        ..common(replicas)
    }
}

fn common(replicas: usize) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        max_bytes: -1,
        max_messages: -1,
        ..Config::default()
    }
}

/// Makes a stream, or looks whether the one that is there keeps what it is given.
async fn ensure(link: &Link, wanted: Config) -> Result<(), OpenError> {
    let server = |reason: String| OpenError::Server { place: wanted.name.clone(), reason };
    let stream = link.jetstream.get_or_create_stream(wanted.clone()).await;
    let found = stream.map_err(|error| server(words(&error)))?.cached_info().config.clone();
    let wrong = |found: String, wanted_text: &str| {
        Err(OpenError::Stream { stream: wanted.name.clone(), found, wanted: wanted_text.to_owned() })
    };
    if found.subjects != wanted.subjects {
        return wrong(format!("the subjects {:?}", found.subjects), &format!("{:?}", wanted.subjects));
    }
    if found.storage != StorageType::File {
        return wrong("its messages in memory".to_owned(), "them in files");
    }
    if !found.max_age.is_zero() {
        return wrong(format!("a `max_age` of {:?}", found.max_age), "none");
    }
    if found.retention != RetentionPolicy::Limits || found.discard != DiscardPolicy::New {
        return wrong("a policy by which old messages go".to_owned(), "`limits`, which discards new ones");
    }
    let per_subject = |number: i64| number.max(0);
    if per_subject(found.max_messages_per_subject) != per_subject(wanted.max_messages_per_subject) {
        let text = format!("{} messages for each subject", found.max_messages_per_subject);
        return wrong(text, if wanted.max_messages_per_subject > 0 { "one" } else { "no such limit" });
    }
    if wanted.allow_message_ttl && !found.allow_message_ttl {
        return wrong("no `allow_msg_ttl`".to_owned(), "it");
    }
    if found.num_replicas != wanted.num_replicas {
        let changed = Config { num_replicas: wanted.num_replicas, ..found };
        link.jetstream.update_stream(changed).await.map_err(|error| server(words(&error)))?;
    }
    Ok(())
}
