//! An end of a channel over a WebSocket: `/ws/channels/{id}?key=…&dir=read|write`, as iii's SDKs ask for it. It must not know
//! who may make channels: whoever has the key may take an end.
//!
//! An end of a channel that belonged to a call which is over is refused only once it is connected: an SDK that cannot connect
//! takes it for a fault, and Node's ends its process with it.
//!
//! How it closes. The writer's Close without a code, or with 1000, is the end; the reader is given all that was written and
//! then a Close with 1000. Any other end of the writer is a Close with 1011 to the reader, after what was written. A writer
//! whose reader has gone is told with 1001.

use std::pin::pin;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::{self, Either};
use futures_util::{SinkExt, StreamExt};
use ringway::Direction;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::lent;
use super::pipe::{Item, Reader, Writer};
use super::{Channels, TakeError};
use crate::socket::{Socket, upgrade};

/// How long the other side has to answer a Close.
const PARTING: Duration = Duration::from_secs(5);

/// Bytes of the reason in a Close at most; the protocol has room for 123.
const REASON_BYTES_MAX: usize = 120;

/// What the address says beside the id.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    key: String,
    direction: Direction,
}

impl Asked {
    /// Reads it. Other parameters may stand there too, even of the same name: clients put theirs behind.
    fn read(query: &str) -> Result<Self, &'static str> {
        let (mut key, mut direction) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "key" => key = Some(value.into_owned()).filter(|key| !key.is_empty()),
                "dir" => direction = Some(value),
                _ => {}
            }
        }
        let key = key.ok_or("the query has no `key`: the channel's `access_key` was wanted")?;
        let direction = match direction.as_deref() {
            Some("read") => Direction::Read,
            Some("write") => Direction::Write,
            _ => return Err("the query has no `dir`: `read` or `write` was wanted"),
        };
        Ok(Self { key, direction })
    }
}

/// Answers a request for an end of a channel. What is held is held as long as the socket is open.
pub(crate) fn connect(
    channels: Channels,
    id: String,
    query: &str,
    request: Request,
    held: impl Send + 'static,
) -> Response {
    let asked = match Asked::read(query) {
        Ok(asked) => asked,
        Err(text) => return (StatusCode::BAD_REQUEST, text).into_response(),
    };
    if !channels.contains(&id, &asked.key) {
        if lent::is_lent(&id) {
            return upgrade(request, move |socket| async move {
                let code = match asked.direction {
                    Direction::Write => CloseCode::Away,
                    Direction::Read => CloseCode::Error,
                };
                close(socket, code, "the call to which the channel belonged is over").await;
                drop(held);
            });
        }
        return (StatusCode::NOT_FOUND, TakeError::NotFound.to_string()).into_response();
    }
    // The end is taken when the socket is there, so that a request that is none takes nothing.
    upgrade(request, move |socket| async move {
        match asked.direction {
            Direction::Write => match channels.take_writer(&id, &asked.key) {
                Ok(writer) => write_side(socket, writer, channels.limits().message_bytes_max).await,
                Err(error) => close(socket, CloseCode::Policy, &error.to_string()).await,
            },
            Direction::Read => match channels.take_reader(&id, &asked.key) {
                Ok(reader) => read_side(socket, reader).await,
                Err(error) => close(socket, CloseCode::Policy, &error.to_string()).await,
            },
        }
        drop(held);
    })
}

/// What a writer's socket brought.
enum Brought {
    Item(Item),
    Nothing,
    End,
    Broken(String),
}

fn brought(message: Option<Result<Message, Error>>, bytes_max: usize) -> Brought {
    let item = match message {
        Some(Ok(Message::Text(text))) => Item::Text(text),
        Some(Ok(Message::Binary(bytes))) => Item::Binary(bytes),
        Some(Ok(Message::Close(None))) => return Brought::End,
        Some(Ok(Message::Close(Some(frame)))) => {
            return match frame.code {
                CloseCode::Normal | CloseCode::Status => Brought::End,
                code => Brought::Broken(format!("it closed with {}: {}", u16::from(code), frame.reason)),
            };
        }
        Some(Ok(_)) => return Brought::Nothing,
        Some(Err(error)) => return Brought::Broken(error.to_string()),
        None => return Brought::Broken("its connection ended".to_owned()),
    };
    if item.len() > bytes_max {
        let text = format!("a message has {} bytes, {bytes_max} are allowed: send it in parts", item.len());
        return Brought::Broken(text);
    }
    Brought::Item(item)
}

/// Reads what is written, as fast as the reader takes it: while there is no room the socket is not read.
async fn write_side(mut socket: Socket, writer: Writer, bytes_max: usize) {
    loop {
        let next = match future::select(pin!(writer.lost()), pin!(socket.next())).await {
            Either::Left((lost, _)) => Err(lost),
            Either::Right((message, _)) => Ok(brought(message, bytes_max)),
        };
        match next {
            Ok(Brought::Item(item)) => {
                if let Err(lost) = writer.send(item).await {
                    return close(socket, CloseCode::Away, &lost.to_string()).await;
                }
            }
            Ok(Brought::Nothing) => {}
            Ok(Brought::End) => {
                writer.finish();
                return part(socket).await;
            }
            Ok(Brought::Broken(why)) => {
                let code = if why.starts_with("a message") { CloseCode::Size } else { CloseCode::Error };
                let text = why.clone();
                writer.break_off(why);
                return close(socket, code, &text).await;
            }
            Err(lost) => return close(socket, CloseCode::Away, &lost.to_string()).await,
        }
    }
}

/// Writes what is read, and listens meanwhile: for pings, which are answered, and for the end of the connection.
async fn read_side(socket: Socket, reader: Reader) {
    let (mut sink, mut stream) = socket.split();
    let feed = async {
        let end = loop {
            let first = match reader.recv().await {
                Ok(Some(item)) => item,
                Ok(None) => break frame(CloseCode::Normal, ""),
                Err(lost) => break frame(CloseCode::Error, &lost.to_string()),
            };
            // What is there already goes out with one write.
            let mut next = Some(first);
            while let Some(item) = next {
                sink.feed(message(item)).await?;
                next = reader.recv_now();
            }
            sink.flush().await?;
        };
        sink.send(Message::Close(Some(end))).await
    };
    let listen = async {
        while let Some(Ok(message)) = stream.next().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
    };
    let fed = {
        let (feed, listen) = (pin!(feed), pin!(listen));
        matches!(future::select(feed, listen).await, Either::Left((Ok(()), _)))
    };
    // The reader has what it came for, or has gone: either way its writer is told now.
    drop(reader);
    if let Ok(socket) = sink.reunite(stream)
        && fed
    {
        part(socket).await;
    }
}

fn message(item: Item) -> Message {
    match item {
        Item::Text(text) => Message::Text(text),
        Item::Binary(bytes) => Message::Binary(bytes),
    }
}

fn frame(code: CloseCode, reason: &str) -> CloseFrame {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    CloseFrame { code, reason: reason.into() }
}

/// Closes with a reason.
async fn close(mut socket: Socket, code: CloseCode, reason: &str) {
    // One that has gone needs no Close.
    let _gone = socket.send(Message::Close(Some(frame(code, reason)))).await;
    part(socket).await;
}

/// Reads until the other side has closed too, so that nothing that was sent is lost with the connection.
async fn part(mut socket: Socket) {
    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
    let _in_time = tokio::time::timeout(PARTING, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_says_key_and_direction() {
        let check = |query: &str, expected: Option<(&str, Direction)>| {
            let expected = expected.map(|(key, direction)| Asked { key: key.to_owned(), direction });
            assert_eq!(Asked::read(query).ok(), expected, "{query}");
        };
        check("key=a&dir=read", Some(("a", Direction::Read)));
        check("dir=write&key=a%2Bb", Some(("a+b", Direction::Write)));
        check("token=x&key=mine&key=a&dir=up&dir=read&x", Some(("a", Direction::Read)));
        for query in ["", "key=a", "dir=read", "key=&dir=read", "key=a&dir=both", "key=a&dir="] {
            check(query, None);
        }
    }

    #[test]
    fn an_end_is_told_from_a_break() {
        let check = |frame: Option<CloseFrame>, is_end: bool| {
            let found = brought(Some(Ok(Message::Close(frame))), 10);
            assert_eq!(matches!(found, Brought::End), is_end);
            assert_eq!(matches!(found, Brought::Broken(_)), !is_end);
        };
        check(None, true);
        check(Some(frame(CloseCode::Normal, "stream_complete")), true);
        check(Some(frame(CloseCode::Away, "")), false);
        check(Some(frame(CloseCode::Error, "")), false);
        assert!(matches!(brought(None, 10), Brought::Broken(_)));
        let large = Message::Binary(vec![0; 11].into());
        assert!(matches!(brought(Some(Ok(large)), 10), Brought::Broken(_)));
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        assert_eq!(frame(CloseCode::Error, &"é".repeat(200)).reason.len(), REASON_BYTES_MAX);
    }
}
