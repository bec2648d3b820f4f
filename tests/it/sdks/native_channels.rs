//! The native worker's functions of channels, on Ringway's own SDK. It must not know who is at the other end.

use ringway::{CallError, ChannelRef, Context, Encoding, Failure, Function, HandlerResult, Message};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::channels::{byte_at, sum_of_bytes};

/// Bytes of a message, as iii's SDKs cut them.
const PART: usize = 64 * 1024;

/// What is to be written, and to whom the other end goes.
#[derive(Deserialize, JsonSchema)]
struct Asked {
    /// Who is to read.
    to: Option<String>,
    /// Who is to write.
    from: Option<String>,
    /// Where to write.
    writer: Option<ChannelRef>,
    bytes: usize,
    texts: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
struct ToRead {
    reader: ChannelRef,
}

/// `push`, `receive`, `pull` and `pour`.
pub(crate) fn functions(name: &str) -> Vec<Function> {
    let id = |id: &str| format!("{name}::{id}");
    vec![
        Function::json(&id("push"), |context, asked: Asked| {
            let channel = context.worker().create_channel()?;
            let to = asked.to.clone().unwrap_or_default();
            let request = Message::json(&json!({ "reader": channel.reader }))?;
            let answer = context.worker().handle(&to).start(&request, &Default::default())?;
            fill(context, &channel.writer, &asked)?;
            value(&answer.wait()?)
        })
        .pooled(),
        Function::json(&id("receive"), |context, ToRead { reader }: ToRead| drain(context, &reader)).pooled(),
        Function::json(&id("pull"), |context, asked: Asked| {
            let channel = context.worker().create_channel()?;
            let from = asked.from.clone().unwrap_or_default();
            let request = json!({ "writer": channel.writer, "bytes": asked.bytes, "texts": asked.texts });
            let request = Message::json(&request)?;
            let poured = context.worker().handle(&from).start(&request, &Default::default())?;
            let came = drain(context, &channel.reader)?;
            poured.wait()?;
            Ok(came)
        })
        .pooled(),
        Function::json(&id("pour"), |context, asked: Asked| {
            let writer = asked.writer.as_ref().ok_or_else(|| Failure::invalid("wanted a writer"))?;
            fill(context, writer, &asked)?;
            Ok(json!({ "poured": asked.bytes }))
        })
        .pooled(),
    ]
}

fn value(message: &Message) -> HandlerResult<Value> {
    serde_json::from_slice(message.body()).map_err(|error| Failure::invalid(error.to_string()))
}

/// Writes the texts, then the bytes, and ends.
fn fill(context: &Context, writer: &ChannelRef, asked: &Asked) -> Result<(), CallError> {
    let call = context.worker().open_channel(writer)?;
    for text in &asked.texts {
        call.send(Message::json(text).map_err(Failure::into_error)?)?;
    }
    let bytes: Vec<u8> = (0..asked.bytes).map(byte_at).collect();
    for part in bytes.chunks(PART) {
        call.send(Message::bytes(part))?;
    }
    call.end().map(drop)
}

/// Everything that a channel brings until it ends.
fn drain(context: &Context, reader: &ChannelRef) -> HandlerResult<Value> {
    let call = context.worker().open_channel(reader)?;
    let (mut bytes, mut texts) = (Vec::new(), Vec::new());
    while let Some(message) = call.recv()? {
        if message.encoding() == Encoding::Json {
            texts.push(value(&message)?);
        } else {
            bytes.extend_from_slice(message.body());
        }
    }
    call.end()?;
    Ok(json!({ "bytes": bytes.len(), "sum": sum_of_bytes(bytes.into_iter()), "texts": texts }))
}
