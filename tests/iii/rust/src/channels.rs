//! The actor's functions of channels, and the HTTP ones that use them. It must not know who is at the other end.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::actor::{Actor, lock, text};
use crate::iii_sdk::Error;
use crate::iii_sdk::channel::{ChannelReader, ChannelWriter};
use crate::iii_sdk::helpers::{create_channel, extract_channel_refs};

/// Registers them.
pub(crate) fn serve(actor: &Actor) {
    both_ends(actor);
    one_end(actor);
    http(actor);
}

fn both_ends(actor: &Actor) {
    let own = actor.clone();
    actor.serve("push", move |data, _| {
        let actor = own.clone();
        async move {
            let channel = create_channel(&actor.iii, None).await?;
            let to = text(&data, "to");
            let answer = actor.trigger(&to, json!({ "reader": channel.reader_ref }));
            let (answer, filled) = tokio::join!(answer, fill(&channel.writer, &data));
            filled?;
            answer
        }
    });
    let own = actor.clone();
    actor.serve("pull", move |data, _| {
        let actor = own.clone();
        async move {
            let channel = create_channel(&actor.iii, None).await?;
            let request =
                json!({ "writer": channel.writer_ref, "bytes": data["bytes"], "texts": data["texts"] });
            let from = text(&data, "from");
            let (poured, came) = tokio::join!(actor.trigger(&from, request), drain(&channel.reader));
            poured?;
            came
        }
    });
}

fn one_end(actor: &Actor) {
    let own = actor.clone();
    actor.serve("receive", move |data, _| {
        let actor = own.clone();
        async move { drain(&reader(&actor, &data, "reader")?).await }
    });
    let own = actor.clone();
    actor.serve("pour", move |data, _| {
        let actor = own.clone();
        async move {
            fill(&writer(&actor, &data, "writer")?, &data).await?;
            Ok(json!({ "poured": data["bytes"] }))
        }
    });
}

fn http(actor: &Actor) {
    let name = actor.name.clone();
    actor.serve("answer", move |data, _| {
        let said = ["method", "path_params", "query_params", "body"]
            .map(|field| (field.to_owned(), data[field].clone()));
        let mut body = serde_json::Map::from_iter(said);
        body.insert("name".to_owned(), json!(name));
        let answer = json!({ "status_code": 201, "headers": { "x-actor": name }, "body": body });
        std::future::ready(Ok(answer))
    });
    let own = actor.clone();
    actor.serve("stream_answer", move |data, _| {
        let actor = own.clone();
        async move {
            let response = writer(&actor, &data, "response")?;
            let status = json!({ "type": "set_status", "status_code": 202 });
            response.send_message(&status.to_string()).await?;
            let headers = json!({ "type": "set_headers", "headers": { "x-actor": actor.name } });
            response.send_message(&headers.to_string()).await?;
            response.write(b"first,").await?;
            response.write(b"second").await?;
            response.close().await?;
            Ok(Value::Null)
        }
    });
    let own = actor.clone();
    actor.serve("body", move |data, _| {
        let actor = own.clone();
        async move {
            let came = drain(&reader(&actor, &data, "request_body")?).await?;
            Ok(json!({ "status_code": 200, "body": { "bytes": came["bytes"], "sum": came["sum"] } }))
        }
    });
}

fn reader(actor: &Actor, data: &Value, field: &str) -> Result<ChannelReader, Error> {
    let end = extract_channel_refs(data).into_iter().find(|(path, _)| path == field);
    let (_, end) = end.ok_or_else(|| Error::Handler(format!("wanted a channel in {field}")))?;
    Ok(ChannelReader::new(actor.iii.address(), &end))
}

fn writer(actor: &Actor, data: &Value, field: &str) -> Result<ChannelWriter, Error> {
    let end = extract_channel_refs(data).into_iter().find(|(path, _)| path == field);
    let (_, end) = end.ok_or_else(|| Error::Handler(format!("wanted a channel in {field}")))?;
    Ok(ChannelWriter::new(actor.iii.address(), &end))
}

/// Writes the texts and so many bytes that were asked for, and closes.
async fn fill(writer: &ChannelWriter, asked: &Value) -> Result<(), Error> {
    for text in asked["texts"].as_array().into_iter().flatten() {
        writer.send_message(text.as_str().unwrap_or_default()).await?;
    }
    let length = asked["bytes"].as_u64().unwrap_or_default();
    let bytes: Vec<u8> = (0..length).map(|i| ((31 * i + (i >> 8)) & 0xff) as u8).collect();
    writer.write(&bytes).await?;
    writer.close().await
}

/// Everything that a channel brings until it ends.
async fn drain(reader: &ChannelReader) -> Result<Value, Error> {
    let texts: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&texts);
    reader.on_message(move |text| lock(&kept).push(text)).await;
    let bytes = reader.read_all().await?;
    let texts = lock(&texts).clone();
    Ok(json!({ "bytes": bytes.len(), "sum": adler32(&bytes), "texts": texts }))
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}
