//! Calls that a worker only passes on. The engine's worker does so between zones: its indexes from
//! [`RELAY_INDEX_START`](ringway_protocol::limits::RELAY_INDEX_START) on stand for functions of other zones. Whatever has
//! such an index goes to one handler, past the permission page, which has no bit for it; the handler decides anew at each
//! call. It must not know zones or policies.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ringway_ipc::clock::now_ns;
use ringway_protocol::control::CatalogFunction;
use ringway_protocol::header::{Flags, Kind};
use ringway_protocol::{FunctionId, WorkerId, naming};

use crate::call::CallOptions;
use crate::callee::Registered;
use crate::context::Context;
use crate::error::HandlerResult;
use crate::function::{BoxReply, Function, Handler};
use crate::handle::Handle;
use crate::message::Message;
use crate::stream::{StreamReader, StreamWriter};
use crate::wire::Received;
use crate::worker::Worker;

/// A call to be passed on.
#[derive(Debug)]
pub struct Relayed {
    /// Who called, when it must be over, and the worker that passes it on.
    pub context: Context,
    /// The index that was called.
    pub index: u32,
    /// Nobody waits for a reply.
    pub is_send: bool,
    /// The body and its attachments, where the caller wrote them.
    pub message: Message,
    /// What the caller streams.
    pub input: StreamReader,
    /// What is streamed to the caller.
    pub output: StreamWriter,
    idempotent: bool,
}

impl Relayed {
    fn new(context: Context, received: Received, input: StreamReader, output: StreamWriter) -> Self {
        let header = received.header;
        Self {
            context,
            index: header.function,
            is_send: header.kind == Kind::Send.to_u8(),
            idempotent: header.flags & Flags::IDEMPOTENT.bits() != 0,
            message: received.into_message(),
            input,
            output,
        }
    }

    /// The options with which the call goes on: the caller's deadline, metadata, baggage and trace state.
    #[must_use]
    pub fn options(&self) -> CallOptions {
        let mut options = CallOptions::new();
        if let Some(deadline_ns) = self.context.deadline_ns() {
            options = options.deadline_ns(deadline_ns);
        }
        if let Some(meta) = &self.context.meta {
            if let Some(metadata) = &meta.metadata {
                options = options.metadata(metadata.clone());
            }
            if let Some(baggage) = &meta.baggage {
                options = options.baggage(baggage.clone());
            }
            if let Some(state) = &meta.trace_state {
                options = options.trace_state(state.clone());
            }
        }
        if self.idempotent { options.idempotent() } else { options }
    }
}

/// A catalog's entry made by hand, for a function that the worker's own catalog does not have.
#[must_use]
pub fn relayed_function(id: &FunctionId, worker: WorkerId, index: u32, generation: u16) -> CatalogFunction {
    CatalogFunction {
        id: id.clone(),
        namespace: naming::NAMESPACE_DEFAULT.to_owned(),
        worker,
        index,
        generation,
        encodings: Vec::new(),
        type_key: None,
        idempotent: false,
        streams_in: false,
        streams_out: false,
        streams_optional: false,
        relay: None,
    }
}

impl Worker {
    /// Sets who handles calls of relayed functions; the first one stays.
    ///
    /// # Errors
    /// The id of the handler is not valid, which a release would not ship with.
    #[doc(hidden)]
    pub fn serve_relayed<Fut>(
        &self,
        handler: impl Fn(Relayed) -> Fut + Send + Sync + 'static,
    ) -> HandlerResult<()>
    where
        Fut: Future<Output = HandlerResult<Message>> + Send + 'static,
    {
        let call = move |context, received, input, output| -> BoxReply {
            Box::pin(handler(Relayed::new(context, received, input, output)))
        };
        let mut function = Function::raw(RELAY_ID, |_, _| Ok(Message::empty()));
        function.spec.id = FunctionId::new(RELAY_ID)?;
        function.handler = Handler::StreamAsync(Box::new(call));
        self.inner().functions.relay_with(Arc::new(Registered::new(function)));
        Ok(())
    }

    /// Resolves functions that the worker's own catalog need not have, replicas of one.
    #[doc(hidden)]
    #[must_use]
    pub fn fixed_handle(&self, replicas: Vec<CatalogFunction>) -> Handle {
        Handle { worker: self.clone(), route: self.inner().routes.fixed(replicas) }
    }

    /// Waits without a thread.
    #[doc(hidden)]
    pub async fn pause(&self, time: Duration) {
        let until_ns = now_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let mut timer = None;
        std::future::poll_fn(|cx| {
            if now_ns() >= until_ns {
                return Poll::Ready(());
            }
            if let Some(timer) = timer.take() {
                self.inner().cancel_timer(timer);
            }
            timer = self.inner().schedule_wake(until_ns, cx.waker().clone());
            // Without a control thread there is nobody to wake the task, and nothing to wait for.
            if timer.is_some() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

/// What the handler is called in errors; it is in no catalog.
const RELAY_ID: &str = "ringway::relay";
