//! The caller's side of a call with streams.

use std::sync::Arc;
use std::task::Waker;

use ringway_ipc::frame::Header;
use ringway_protocol::{CallError, InvocationId, Started};

use crate::call::Pending;
use crate::caller::CallerChannel;
use crate::message::Message;
use crate::meta::Meta;
use crate::stream::{Carrier, Inbox, Need, StreamReader, StreamWriter};
use crate::wire;
use crate::worker::Inner;

/// A call with streams: items to send, items to receive, and a result at the end.
#[derive(Debug)]
pub struct StreamCall {
    pending: Pending,
    reader: StreamReader,
    writer: Option<StreamWriter>,
}

impl StreamCall {
    pub(crate) fn new(pending: Pending, reader: StreamReader, writer: StreamWriter) -> Self {
        Self { pending, reader, writer: Some(writer) }
    }

    /// Sends an item; blocks while the callee is a window behind.
    ///
    /// # Errors
    /// `stream_closed` after [`StreamCall::finish`] or when the call is over.
    pub fn send(&self, message: Message) -> Result<(), CallError> {
        match &self.writer {
            Some(writer) => writer.send(message),
            None => Err(finished()),
        }
    }

    /// Sends an item from async code.
    ///
    /// # Errors
    /// As [`StreamCall::send`].
    pub async fn send_async(&self, message: Message) -> Result<(), CallError> {
        match &self.writer {
            Some(writer) => writer.send_async(message).await,
            None => Err(finished()),
        }
    }

    /// Says that no more items follow.
    pub fn finish(&mut self) {
        self.writer = None;
    }

    /// The next item, or `None` after the last.
    ///
    /// # Errors
    /// The error that ended the call.
    pub fn recv(&self) -> Result<Option<Message>, CallError> {
        self.reader.recv()
    }

    /// The next item from async code, or `None` after the last.
    ///
    /// # Errors
    /// As [`StreamCall::recv`].
    pub async fn recv_async(&self) -> Result<Option<Message>, CallError> {
        self.reader.recv_async().await
    }

    /// Takes the call apart, so that its two streams and its result can be looked after separately. The writer ends its
    /// stream when it is dropped; the result given up before its end gives the call up. None for the writer after
    /// [`StreamCall::finish`].
    #[must_use]
    pub fn split(self) -> (Option<StreamWriter>, StreamReader, Pending) {
        (self.writer, self.reader, self.pending)
    }

    /// Ends this side's stream and waits for the handler's result.
    ///
    /// # Errors
    /// How the call ended otherwise.
    pub fn end(mut self) -> Result<Message, CallError> {
        self.finish();
        self.pending.wait()
    }

    /// Ends this side's stream and waits for the handler's result, from async code.
    ///
    /// # Errors
    /// How the call ended otherwise.
    pub async fn end_async(mut self) -> Result<Message, CallError> {
        self.finish();
        self.pending.await
    }
}

fn finished() -> CallError {
    CallError::new(ringway_protocol::ErrorCode::StreamClosed, "this side has finished its stream")
}

/// Leads the reply ring while it waits.
#[derive(Debug)]
pub(crate) struct CallerCarrier {
    pub(crate) caller: Arc<CallerChannel>,
    pub(crate) inner: Arc<Inner>,
    pub(crate) invocation: u64,
}

impl Carrier for CallerCarrier {
    fn publish(&self, mut header: Header, message: Message) -> Result<(), CallError> {
        if self.caller.entry(InvocationId::from_u64(self.invocation)).is_none() {
            // The call is over; its number may belong to another soon.
            return Err(CallError::new(ringway_protocol::ErrorCode::StreamClosed, "the call is over"));
        }
        let (inline, leases) = wire::compose(
            &self.caller.channel,
            &self.caller.memory,
            &mut header,
            &message,
            &Meta::default(),
        )?;
        self.caller.publish_more(&header, &inline, || self.inner.patience_ns()).map_err(|mut error| {
            wire::end_leases(&self.caller.channel, &leases);
            // An item that was not published says nothing about the call that it belongs to.
            if error.code == ringway_protocol::ErrorCode::WorkerGone {
                error.started = Some(Started::Maybe);
            }
            error
        })
    }

    fn wait(&self, inbox: &Inbox, need: Need) {
        self.caller.wait_for_news(InvocationId::from_u64(self.invocation), || inbox.meets(need));
    }

    fn watch(&self, waker: &Waker) {
        // Streams are read by the dispatcher from the first async wait to the end of the call.
        self.caller.watch_stream(InvocationId::from_u64(self.invocation), waker);
    }
}
