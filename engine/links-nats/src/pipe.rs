//! The bytes of one link as messages: what is read from a socket is published on the other end's subject, what comes on this
//! end's is written to it. Used by [`crate::bus`]. It must not know what the bytes mean.
//!
//! Every message has a number, so that one that was lost is seen: the link is cut then, as a broken connection is. And no more
//! is on its way than a window, so that whoever reads slowly slows down the other end, and is not cut off by the server.
//!
//! A message is one byte that says what it is, eight of a number, and the rest. `D`: bytes, with their message's number, from
//! 0. `C`: what has been taken so far, in charges. `E`: the end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{Client, Subscriber};
use bytes::{BufMut, Bytes, BytesMut};
use futures_lite::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use crate::limits::{CHARGE_MIN, WINDOW_BYTES};

const HEAD: usize = 9;
const DATA: u8 = b'D';
const CREDIT: u8 = b'C';
const END: u8 = b'E';

/// Why a pipe is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PipeError {
    #[error("this end closed it")]
    Here,
    #[error("the other end closed it")]
    There,
    #[error("messages were lost: wanted number {wanted}, found {found}")]
    Lost { wanted: u64, found: u64 },
    #[error("a message is none of a link's")]
    Nonsense,
    #[error("the connection to NATS is closed")]
    Closed,
    #[error("the link's socket failed: {0}")]
    Socket(#[from] io::Error),
}

/// What of its messages the other end has taken, in charges; it only grows.
#[derive(Debug, Default)]
struct Taken {
    charges: AtomicU64,
    news: Notify,
}

/// Carries bytes until either end closes, or a message is lost. The other end is told.
pub(crate) async fn carry(
    socket: UnixStream,
    client: &Client,
    to: &str,
    from: Subscriber,
    chunk_bytes: usize,
) -> PipeError {
    let (reader, writer) = socket.into_split();
    let taken = Arc::new(Taken::default());
    let over = tokio::select! {
        over = send(reader, client, to, &taken, chunk_bytes) => over,
        over = receive(writer, client, to, from, &taken) => over,
    };
    let told = client.publish(to.to_owned(), head(END, 0, 0).freeze()).await;
    if told.is_err() { PipeError::Closed } else { over }
}

fn head(kind: u8, number: u64, more: usize) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(HEAD + more);
    bytes.put_u8(kind);
    bytes.put_u64_le(number);
    bytes
}

fn charge(len: usize) -> u64 {
    CHARGE_MIN.max(len as u64)
}

async fn send(
    mut socket: OwnedReadHalf,
    client: &Client,
    to: &str,
    taken: &Taken,
    chunk_bytes: usize,
) -> PipeError {
    let (mut number, mut sent) = (0, 0);
    let mut room = vec![0; chunk_bytes];
    loop {
        while sent - taken.charges.load(Ordering::Acquire).min(sent) >= WINDOW_BYTES {
            taken.news.notified().await;
        }
        let len = match socket.read(&mut room).await {
            Ok(0) => return PipeError::Here,
            Ok(len) => len,
            Err(error) => return error.into(),
        };
        let mut bytes = head(DATA, number, len);
        bytes.put_slice(&room[..len]);
        sent += charge(len);
        number += 1;
        if client.publish(to.to_owned(), bytes.freeze()).await.is_err() {
            return PipeError::Closed;
        }
    }
}

async fn receive(
    mut socket: OwnedWriteHalf,
    client: &Client,
    to: &str,
    mut from: Subscriber,
    taken: &Taken,
) -> PipeError {
    let (mut wanted, mut got, mut told) = (0, 0, 0);
    while let Some(message) = from.next().await {
        let Some((kind, number, bytes)) = split(&message.payload) else { return PipeError::Nonsense };
        match kind {
            DATA if number != wanted => return PipeError::Lost { wanted, found: number },
            DATA => {
                wanted += 1;
                if let Err(error) = socket.write_all(&bytes).await {
                    return error.into();
                }
                got += charge(bytes.len());
                if got - told >= WINDOW_BYTES / 4 {
                    told = got;
                    if client.publish(to.to_owned(), head(CREDIT, got, 0).freeze()).await.is_err() {
                        return PipeError::Closed;
                    }
                }
            }
            CREDIT => {
                taken.charges.fetch_max(number, Ordering::Release);
                taken.news.notify_one();
            }
            END => return PipeError::There,
            _ => return PipeError::Nonsense,
        }
    }
    PipeError::Closed
}

fn split(payload: &Bytes) -> Option<(u8, u64, Bytes)> {
    let (head, _) = payload.split_first_chunk::<HEAD>()?;
    let [kind, number @ ..] = *head;
    Some((kind, u64::from_le_bytes(number), payload.slice(HEAD..)))
}

#[cfg(test)]
mod tests;
