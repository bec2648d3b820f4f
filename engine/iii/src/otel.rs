//! The socket for telemetry alone. It must not know workers.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::Message;

use crate::listener::Place;
use crate::session::Opening;
use crate::socket::Socket;

/// Reads telemetry until the client leaves.
pub(crate) async fn serve(place: Arc<Place>, opening: Opening, mut socket: Socket) {
    tracing::trace!(?opening, "a client sends telemetry");
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(frame) = message {
            ingest(&place, &frame);
        }
    }
}

/// Takes one frame of telemetry: four letters, then OTLP as JSON. Says whether it was one.
pub(crate) fn ingest(_place: &Place, frame: &[u8]) -> bool {
    frame.get(..4).is_some_and(|kind| matches!(kind, b"OTLP" | b"MTRC" | b"LOGS"))
}
