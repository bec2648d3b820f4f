//! Channels for native workers: `engine::channels::create` makes one, `engine::channels::read` and `write` are its ends as
//! streams of a call, with the SDK's flow control; `ringway::Worker::open_channel` is the short way there. It must not know
//! sockets.
//!
//! Bytes are messages of bytes. Text is JSON: a text that is read is a string; a string that is written is that text, and any
//! other JSON is written as it stands, which is what iii's control messages are.

use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{self, Either};
use ringway::protocol::naming;
use ringway::{
    CallError, ChannelPair, ChannelRef, Context, Direction, Encoding, ErrorCode, Failure, Function,
    HandlerResult, Message, StreamReader, StreamWriter,
};
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;

use super::pipe::{Item, Lost};
use super::{Channels, CreateError, TakeError};

/// What `engine::channels::create` takes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Create {
    /// Messages that may wait, 1 to 1,024; 64 unless given.
    buffer_size: Option<i64>,
}

/// The functions, for a worker in the engine's own process.
pub fn functions(channels: &Channels) -> Vec<Function> {
    let (maker, reading, writing) = (channels.clone(), channels.clone(), channels.clone());
    let create = move |context: &Context, asked: Option<Create>| -> HandlerResult<ChannelPair> {
        let messages = asked.unwrap_or_default().buffer_size.map(|size| usize::try_from(size).unwrap_or(1));
        maker.create(Some(context.caller()), messages).map_err(|error| not_made(&error))
    };
    let end = schema_for!(ChannelRef).to_value();
    vec![
        Function::json(naming::CHANNELS_CREATE, create)
            .inline()
            .internal()
            .description("Makes a channel: its two ends, for payloads"),
        Function::stream_async(naming::CHANNELS_READ, move |_, request, _, out| {
            read(reading.clone(), request, out)
        })
        .internal()
        .schema(Some(end.clone()), None)
        .description("Streams what is written to a channel, whose end to read is the request"),
        Function::stream_async(naming::CHANNELS_WRITE, move |_, request, items, _| {
            write(writing.clone(), request, items)
        })
        .internal()
        .schema(Some(end), None)
        .description("Writes what is streamed to a channel, whose end to write is the request"),
    ]
}

fn not_made(error: &CreateError) -> Failure {
    CallError::new(ErrorCode::Busy, error.to_string()).into()
}

fn not_taken(error: TakeError) -> Failure {
    let code = match error {
        TakeError::NotFound => ErrorCode::NotFound,
        TakeError::Taken => ErrorCode::Busy,
    };
    CallError::new(code, error.to_string()).into()
}

fn broken(lost: &Lost) -> Failure {
    CallError::new(ErrorCode::StreamClosed, lost.to_string()).into()
}

fn end_of(request: &Message, wanted: Direction) -> HandlerResult<ChannelRef> {
    let end: ChannelRef = serde_json::from_slice(request.body())
        .map_err(|error| Failure::invalid(format!("the end of a channel was wanted: {error}")))?;
    if end.direction != wanted {
        return Err(Failure::invalid(format!(
            "an end of a channel with direction `{wanted}` was wanted, this one has `{}`",
            end.direction
        )));
    }
    Ok(end)
}

async fn read(channels: Channels, request: Message, out: StreamWriter) -> HandlerResult<Message> {
    let end = end_of(&request, Direction::Read)?;
    drop(request);
    let reader = channels.take_reader(&end.channel_id, &end.access_key).map_err(not_taken)?;
    while let Some(item) = reader.recv().await.map_err(|lost| broken(&lost))? {
        let message = match item {
            Item::Text(text) => Message::json(text.as_str())?,
            Item::Binary(bytes) => Message::bytes(&bytes),
        };
        out.send_async(message).await?;
    }
    Ok(Message::empty())
}

async fn write(channels: Channels, request: Message, items: StreamReader) -> HandlerResult<Message> {
    let end = end_of(&request, Direction::Write)?;
    drop(request);
    let bytes_max = channels.limits().message_bytes_max;
    let writer = channels.take_writer(&end.channel_id, &end.access_key).map_err(not_taken)?;
    loop {
        let next = match future::select(pin!(writer.lost()), pin!(items.recv_async())).await {
            Either::Left((lost, _)) => return Err(broken(&lost)),
            Either::Right((message, _)) => message?,
        };
        let Some(message) = next else { break };
        if message.body().len() > bytes_max {
            let (found, text) = (message.body().len(), "send it in parts");
            let text = format!("a message has {found} bytes, {bytes_max} are allowed in a channel: {text}");
            return Err(CallError::new(ErrorCode::PayloadTooLarge, text).into());
        }
        writer.send(item_of(&message)?).await.map_err(|lost| broken(&lost))?;
    }
    writer.finish();
    Ok(Message::empty())
}

/// What a native worker's message is in a channel.
fn item_of(message: &Message) -> HandlerResult<Item> {
    if message.encoding() != Encoding::Json {
        return Ok(Item::Binary(Bytes::copy_from_slice(message.body())));
    }
    let no_text = |reason: String| Failure::invalid(format!("a message of JSON is none: {reason}"));
    if message.body().first() == Some(&b'"') {
        let text: String =
            serde_json::from_slice(message.body()).map_err(|error| no_text(error.to_string()))?;
        return Ok(Item::Text(text.into()));
    }
    let text = std::str::from_utf8(message.body()).map_err(|error| no_text(error.to_string()))?;
    Ok(Item::Text(text.into()))
}
