//! What waits to be written to a connection. Anybody may put something in, and nobody is ever held up by it: a client that
//! does not read is closed when too much waits. It must not know what the messages say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::limits::OUTBOUND_BYTES_MAX;

/// One thing to be written.
#[derive(Debug)]
pub(crate) enum Out {
    /// A message.
    Text(String),
    /// The end.
    Close,
}

/// The way in.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    sender: UnboundedSender<Out>,
    bytes: Arc<AtomicUsize>,
}

/// The way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    receiver: UnboundedReceiver<Out>,
    bytes: Arc<AtomicUsize>,
}

/// The connection is closed, or about to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

pub(crate) fn outbox() -> (Outbox, Outgoing) {
    let (sender, receiver) = unbounded_channel();
    let bytes = Arc::<AtomicUsize>::default();
    (Outbox { sender, bytes: Arc::clone(&bytes) }, Outgoing { receiver, bytes })
}

impl Outbox {
    /// Puts a message in.
    pub(crate) fn send(&self, text: String) -> Result<(), Closed> {
        let bytes = text.len();
        if self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes > OUTBOUND_BYTES_MAX {
            tracing::warn!("a client of the iii listener does not read; its connection is closed");
            self.close();
            return Err(Closed);
        }
        self.sender.send(Out::Text(text)).map_err(|_| Closed)
    }

    /// Has the connection closed after what was put in before.
    pub(crate) fn close(&self) {
        let _closed_already = self.sender.send(Out::Close);
    }
}

impl Outgoing {
    /// The next thing, when there is one.
    pub(crate) fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Out> {
        // It ends with its session, and a session without anybody to write to it is closed.
        self.receiver.poll_recv(cx).map(|out| out.unwrap_or(Out::Close))
    }

    /// A message of so many bytes has been handed to the system.
    pub(crate) fn written(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Whether more waits than a client that reads would let wait.
    pub(crate) fn is_too_much(&self) -> bool {
        self.bytes.load(Ordering::Acquire) > OUTBOUND_BYTES_MAX
    }
}
