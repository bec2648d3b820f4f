//! Telemetry of iii's SDKs: frames of four letters and OTLP as JSON, over a socket for them alone or beside a worker's
//! messages. Each is handed to the engine, which keeps what it says beside its own spans and logs. It must not know workers,
//! nor what a frame says.
//!
//! No frame is ever answered over the socket; iii's SDKs expect that. One that cannot be taken in is counted, by the engine
//! where it cannot be read and here where there are too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use ringway::protocol::naming;
use ringway::{CallOptions, Encoding, Message as Native, SpanId, TraceContext, TraceId, Worker};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

use crate::listener::Place;
use crate::session::{self, Opening};
use crate::socket::Socket;

/// Frames that are being handed over at a time, of all sockets.
const UNDER_WAY_MAX: usize = 64;

/// How long the engine may take for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// A trace that nobody records: calls that hand over telemetry are not to be seen in it.
const UNSEEN: TraceContext =
    TraceContext { trace_id: TraceId::from_bytes([1; 16]), span_id: SpanId::from_bytes([1; 8]), flags: 0 };

/// What all sockets share of it.
#[derive(Debug)]
pub(crate) struct Telemetry {
    under_way: Arc<Semaphore>,
    /// Frames that were not handed over, as there were too many.
    dropped: AtomicU64,
    /// Frames that the engine refused.
    refused: AtomicU64,
}

impl Default for Telemetry {
    fn default() -> Self {
        let (dropped, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)), dropped, refused }
    }
}

impl Telemetry {
    /// Frames that were dropped here, and those that the engine refused.
    pub(crate) fn lost(&self) -> (u64, u64) {
        (self.dropped.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// The signal that a frame is about, and its body; none where it is no telemetry.
pub(crate) fn signal(frame: &[u8]) -> Option<(&'static str, &[u8])> {
    let (letters, body) = frame.split_first_chunk::<4>()?;
    let signal = match letters {
        b"OTLP" => "traces",
        b"LOGS" => "logs",
        b"MTRC" => "metrics",
        _ => return None,
    };
    Some((signal, body))
}

/// Reads telemetry until the client leaves, no faster than the engine takes it in.
pub(crate) async fn serve(place: Arc<Place>, opening: Opening, mut socket: Socket) {
    tracing::trace!(?opening, "a client sends telemetry");
    if let Err(error) = session::authenticate(&place, &opening).await {
        return session::send_away(socket, &error).await;
    }
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(frame) = message else { continue };
        let Some((signal, body)) = signal(&frame) else {
            tracing::debug!("a frame for telemetry is none");
            continue;
        };
        let shared = &place.shared;
        // The semaphore is never closed.
        let _under_way = shared.telemetry.under_way.acquire().await;
        hand_over(&shared.telemetry, &shared.worker, signal, body).await;
    }
}

/// Takes one frame that came beside a worker's messages, without waiting for it: where too many are under way it is dropped
/// and counted. Says whether it was telemetry.
pub(crate) fn ingest(place: &Arc<Place>, worker: &Worker, frame: &[u8]) -> bool {
    if signal(frame).is_none() {
        return false;
    }
    let telemetry = &place.shared.telemetry;
    let Ok(permit) = Arc::clone(&telemetry.under_way).try_acquire_owned() else {
        telemetry.dropped.fetch_add(1, Ordering::Relaxed);
        return true;
    };
    let (place, worker, frame) = (Arc::clone(place), worker.clone(), Bytes::copy_from_slice(frame));
    tokio::spawn(async move {
        if let Some((signal, body)) = signal(&frame) {
            hand_over(&place.shared.telemetry, &worker, signal, body).await;
        }
        drop(permit);
    });
    true
}

async fn hand_over(telemetry: &Telemetry, worker: &Worker, signal: &str, body: &[u8]) {
    let options = CallOptions::new().metadata(json!({ "signal": signal })).timeout(PATIENCE).parent(UNSEEN);
    let frame = Native::new(Encoding::Json, body);
    if let Err(error) = worker.handle(naming::TELEMETRY_INGEST).call_async_with(&frame, &options).await {
        telemetry.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, signal, "a frame of telemetry was not taken in");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_letters_say_what_a_frame_is() {
        assert_eq!(signal(b"OTLP{}"), Some(("traces", &b"{}"[..])));
        assert_eq!(signal(b"MTRC"), Some(("metrics", &b""[..])));
        assert_eq!(signal(b"LOGS{"), Some(("logs", &b"{"[..])));
        for other in [&b""[..], b"OTL", b"otlp{}", b"{\"type\":\"ping\"}"] {
            assert_eq!(signal(other), None);
        }
    }
}
