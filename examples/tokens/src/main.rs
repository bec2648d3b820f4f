//! Tokens streamed while they are made, and a stream that is given up.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "showing something is what an example is for")]

mod chain;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use ringway::{CallOptions, Context, Failure, Function, HandlerResult, Message, StreamWriter, Worker};
use ringway_example_stage::{Stage, until_told_to_leave};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::json;

use chain::Chain;

/// What is learnt.
const TEXT: &str = include_str!("../../../ARCHITECTURE.md");

/// What to make.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Prompt {
    /// How many words; endless without
    words: Option<u64>,
    /// Another seed makes another text
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("writer") => write(&Worker::connect("writer")?),
        Some("reader") => read(&Worker::connect("reader")?),
        Some(other) => anyhow::bail!("wanted writer, reader or nothing, found {other}"),
        None => {
            let stage = Stage::open()?;
            let _writer = stage.start("writer")?;
            read(&Worker::builder("reader").address(stage.address()).connect()?)
        }
    }
}

/// Serves `text::learn`, `text::complete` and `text::given_up` until told to leave.
fn write(worker: &Worker) -> anyhow::Result<()> {
    let chain = Arc::new(Mutex::new(Chain::default()));
    let given_up = Arc::new(AtomicU64::new(0));

    let learner = Arc::clone(&chain);
    let learn = Function::stream("text::learn", move |_, _, lines, _| {
        let mut chain = Chain::default();
        while let Some(line) = lines.recv()? {
            chain.learn(std::str::from_utf8(line.body())?);
        }
        let words = chain.words();
        *learner.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Message::json(&words)
    });

    let (maker, counter) = (chain, Arc::clone(&given_up));
    let complete = Function::stream("text::complete", move |context, prompt, _, words| {
        let prompt: Prompt = serde_json::from_slice(prompt.body())?;
        let chain = maker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        make(context, &chain, &prompt, &words).inspect_err(|_| {
            counter.fetch_add(1, Ordering::Relaxed);
        })
    });

    let given_up = Function::json("text::given_up", move |_, ()| Ok(given_up.load(Ordering::Relaxed)));
    worker.register_all(vec![
        learn.description("Learns from a stream of lines"),
        complete.description("Streams words").schema(Some(schema_for!(Prompt).to_value()), None),
        given_up.description("Counts the streams that nobody read to their end"),
    ])?;
    Ok(until_told_to_leave()?)
}

/// Streams words; ends with an error when their reader has gone.
fn make(context: &Context, chain: &Chain, prompt: &Prompt, words: &StreamWriter) -> HandlerResult<Message> {
    let mut sent = 0;
    for word in chain.text(prompt.seed) {
        if prompt.words.is_some_and(|wanted| sent >= wanted) {
            break;
        }
        if context.is_cancelled() {
            return Err(Failure::new("given up"));
        }
        words.send(Message::json(word)?)?;
        sent += 1;
    }
    Message::json(&sent)
}

fn read(worker: &Worker) -> anyhow::Result<()> {
    worker.wait_for("text::complete", Duration::from_secs(10))?;
    let options = CallOptions::new();

    // A stream in: the caller sends, the callee replies when the stream has ended.
    let learning = worker.handle("text::learn").stream(&Message::empty(), &options)?;
    for line in TEXT.lines() {
        learning.send(Message::bytes(line.as_bytes()))?;
    }
    let learnt: u64 = serde_json::from_slice(learning.end()?.body())?;
    println!("{learnt} words learnt");

    // A stream out: each word is here as soon as it was made.
    let complete = worker.handle("text::complete");
    let prompt = Prompt { words: Some(20), seed: 7 };
    let stream = complete.stream(&Message::json(&prompt).map_err(Failure::into_error)?, &options)?;
    let mut text = Vec::new();
    while let Some(word) = stream.recv()? {
        text.push(serde_json::from_slice::<String>(word.body())?);
    }
    println!("made: {}", text.join(" "));
    let sent: u64 = serde_json::from_slice(stream.end()?.body())?;
    println!("{sent} words sent, {} received", text.len());

    // A stream without an end: dropping it gives it up, and its handler is told.
    let endless = Prompt { words: None, seed: 1 };
    let stream = complete.stream(&Message::json(&endless).map_err(Failure::into_error)?, &options)?;
    for _ in 0..100 {
        ensure!(stream.recv()?.is_some(), "an endless stream has ended");
    }
    drop(stream);
    let until = Instant::now() + Duration::from_secs(10);
    while worker.trigger_json("text::given_up", &json!(null))? != 1 {
        ensure!(Instant::now() < until, "the writer was not told that its reader has gone");
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("an endless stream was given up after 100 words, and its writer knows");
    Ok(())
}
