//! Resolved functions: what to hold for calling the same function often.
//!
//! A handle follows the catalog by itself: replicas that come and go, workers that restart. It costs no look-up.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use ringway_protocol::header::Encoding;
use ringway_protocol::{CallError, ErrorCode};
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;

use crate::call::{self, CallOptions, Pending, Request};
use crate::error::Failure;
use crate::function::{ArchiveKey, Typed, access, archive_into, type_key};
use crate::message::Message;
use crate::pipeline::{Pipeline, TypedPipeline};
use crate::routes::{Route, Target};
use crate::stream::{Inbox, StreamReader, StreamWriter};
use crate::stream_call::{CallerCarrier, StreamCall};
use crate::wire::{Archive, Received};
use crate::worker::{Inner, Worker};

/// A function of whole messages.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) worker: Worker,
    pub(crate) route: Arc<Route>,
}

impl Handle {
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        self.worker.inner()
    }

    /// Names the function in an error.
    #[cold]
    pub(crate) fn named(&self, error: CallError) -> CallError {
        error.with_function(self.route.id.as_str())
    }

    /// The function's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.route.id
    }

    /// Replicas that the catalog has at this moment.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.route.targets.load().len()
    }

    /// The worker that serves it, if only one does.
    #[must_use]
    pub fn sole_worker(&self) -> Option<ringway_protocol::WorkerId> {
        match &self.route.targets.load()[..] {
            [only] => Some(only.function.worker),
            _ => None,
        }
    }

    /// Whether its callers may stream items to it, and whether it streams items to callers who read them, as the catalog says
    /// now; none while no replica is there.
    #[must_use]
    pub fn streams(&self) -> Option<(bool, bool)> {
        let targets = self.route.targets.load();
        let function = &targets.first()?.function;
        let optional = function.streams_optional;
        Some((optional || function.streams_in, optional || function.streams_out))
    }

    /// Opens channels to every replica now, so that no call has to wait for one.
    ///
    /// # Errors
    /// The first channel's error.
    pub fn bind(&self) -> Result<(), CallError> {
        let until = self.inner().patience_ns();
        for target in self.route.targets.load().iter() {
            self.inner().channel_to(&target.link, until)?;
        }
        Ok(())
    }

    /// Calls and waits for the reply.
    ///
    /// # Errors
    /// How the call ended otherwise; see the pages in `docs/errors`.
    pub fn call(&self, message: &Message) -> Result<Message, CallError> {
        self.call_with(message, &CallOptions::default())
    }

    /// Calls with options and waits for the reply.
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub fn call_with(&self, message: &Message, options: &CallOptions) -> Result<Message, CallError> {
        let mut reply = Received::blank();
        match call::call(self.inner(), &self.route, options, message, &mut reply) {
            Ok(()) => Ok(reply.into_message()),
            Err(error) => Err(self.named(*error)),
        }
    }

    /// Starts a call. The result is a future, and can be waited for without a runtime by [`Pending::wait`].
    ///
    /// # Errors
    /// When the call could not be published.
    pub fn start(&self, message: &Message, options: &CallOptions) -> Result<Pending, CallError> {
        call::start(self.inner(), &self.route, options, None, message)
    }

    /// A way to keep many calls in flight from one thread, at the least cost.
    #[must_use]
    pub fn pipeline(&self) -> Pipeline<'_> {
        Pipeline::new(self, CallOptions::default())
    }

    /// As [`Handle::pipeline`], with options for every call.
    #[must_use]
    pub fn pipeline_with(&self, options: CallOptions) -> Pipeline<'_> {
        Pipeline::new(self, options)
    }

    /// Calls from async code. Dropping the future gives the call up and tells the handler.
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub async fn call_async(&self, message: &Message) -> Result<Message, CallError> {
        self.call_async_with(message, &CallOptions::default()).await
    }

    /// Calls with options from async code.
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub async fn call_async_with(
        &self,
        message: &Message,
        options: &CallOptions,
    ) -> Result<Message, CallError> {
        self.start(message, options)?.await
    }

    /// Sends without waiting for anything.
    ///
    /// # Errors
    /// When the message could not be published.
    pub fn send(&self, message: &Message, options: &CallOptions) -> Result<(), CallError> {
        call::send(self.inner(), &self.route, options, message).map_err(|error| self.named(error))
    }

    /// Calls a function with streams.
    ///
    /// # Errors
    /// When the call could not be published.
    pub fn stream(&self, message: &Message, options: &CallOptions) -> Result<StreamCall, CallError> {
        let inbox = Inbox::new();
        let pending = call::start(self.inner(), &self.route, options, Some(&inbox), message)?;
        let invocation = pending.invocation.to_u64();
        let carrier = Arc::new(CallerCarrier {
            caller: Arc::clone(pending.caller()),
            inner: Arc::clone(self.inner()),
            invocation,
        });
        if let Some(deadline_ns) = call::deadline_of(options) {
            self.inner().schedule(deadline_ns, end_at_deadline(&inbox));
        }
        let reader = StreamReader { inbox: Arc::clone(&inbox), carrier: carrier.clone(), invocation };
        let writer = StreamWriter { inbox, carrier, invocation, finished: false, is_answered: false };
        Ok(StreamCall::new(pending, reader, writer))
    }
}

/// Ends a stream whose time is up: a reader or writer that waits for the other side waits no longer.
fn end_at_deadline(inbox: &Arc<Inbox>) -> Box<dyn FnOnce() + Send> {
    let inbox = Arc::downgrade(inbox);
    Box::new(move || {
        if let Some(inbox) = inbox.upgrade() {
            let text = "the stream did not end in the time allowed";
            inbox.end(Some(CallError::new(ErrorCode::DeadlineExceeded, text)));
        }
    })
}

/// A typed function: archived bytes where both sides' types have the same layout, JSON otherwise.
#[derive(Debug)]
pub struct TypedHandle<Req, Resp> {
    handle: Handle,
    archive_key: Option<ArchiveKey>,
    _types: PhantomData<fn(Req) -> Resp>,
}

impl<Req, Resp> Clone for TypedHandle<Req, Resp> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), archive_key: self.archive_key, _types: PhantomData }
    }
}

impl<Req: Typed, Resp: Typed> TypedHandle<Req, Resp> {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle, archive_key: ArchiveKey::parse(&type_key::<Req, Resp>()), _types: PhantomData }
    }

    /// The same function without types.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn say<'a>(&'a self, request: &'a Req) -> TypedRequest<'a, Req> {
        TypedRequest { value: request, archive_key: self.archive_key }
    }

    /// Calls and waits; the reply is read where it arrived.
    ///
    /// # Errors
    /// How the call ended otherwise.
    #[inline]
    pub fn call(&self, request: &Req) -> Result<Reply<Resp>, CallError> {
        self.call_with(request, &CallOptions::default())
    }

    /// Calls with options.
    ///
    /// # Errors
    /// As [`TypedHandle::call`].
    #[inline]
    pub fn call_with(&self, request: &Req, options: &CallOptions) -> Result<Reply<Resp>, CallError> {
        let Handle { worker, route } = &self.handle;
        let mut reply = Received::blank();
        match call::call(worker.inner(), route, options, &self.say(request), &mut reply) {
            Ok(()) => Reply::check(reply),
            Err(error) => Err(self.handle.named(*error)),
        }
    }

    /// Starts a call; many may be in flight from one thread.
    ///
    /// # Errors
    /// When the call could not be published.
    #[inline]
    pub fn start(&self, request: &Req) -> Result<PendingReply<Resp>, CallError> {
        self.start_with(request, &CallOptions::default())
    }

    /// Starts a call with options.
    ///
    /// # Errors
    /// As [`TypedHandle::start`].
    #[inline]
    pub fn start_with(&self, request: &Req, options: &CallOptions) -> Result<PendingReply<Resp>, CallError> {
        let Handle { worker, route } = &self.handle;
        let pending = call::start(worker.inner(), route, options, None, &self.say(request))?;
        Ok(PendingReply { pending, _type: PhantomData })
    }

    /// A way to keep many calls in flight from one thread, at the least cost.
    #[must_use]
    pub fn pipeline(&self) -> TypedPipeline<'_, Req, Resp> {
        self.pipeline_with(CallOptions::default())
    }

    /// As [`TypedHandle::pipeline`], with options for every call.
    #[must_use]
    pub fn pipeline_with(&self, options: CallOptions) -> TypedPipeline<'_, Req, Resp> {
        TypedPipeline::new(self, options)
    }

    /// Calls from async code.
    ///
    /// # Errors
    /// As [`TypedHandle::call`].
    pub async fn call_async(&self, request: &Req) -> Result<Reply<Resp>, CallError> {
        self.start(request)?.await
    }
}

/// A typed request: archived for a callee whose types have the same layout, JSON for any other.
pub(crate) struct TypedRequest<'a, Req> {
    value: &'a Req,
    archive_key: Option<ArchiveKey>,
}

impl<Req: Typed> Request for TypedRequest<'_, Req> {
    #[inline]
    fn message<'m>(&'m self, target: &Target, place: &'m mut Message) -> Result<&'m Message, Box<CallError>> {
        let built = if target.takes_archive(self.archive_key) {
            archive_into(self.value, place)
        } else {
            Message::json(self.value).map(|message| *place = message)
        };
        match built {
            Ok(()) => Ok(place),
            Err(failure) => Err(Box::new(failure.into_error())),
        }
    }

    fn archive_key(&self) -> Option<ArchiveKey> {
        self.archive_key
    }
}

/// A typed call in flight: a future, or to be waited for without a runtime.
#[derive(Debug)]
pub struct PendingReply<Resp> {
    pending: Pending,
    _type: PhantomData<fn() -> Resp>,
}

impl<Resp: Typed> PendingReply<Resp> {
    /// Waits for the reply.
    ///
    /// # Errors
    /// How the call ended otherwise.
    #[inline]
    pub fn wait(self) -> Result<Reply<Resp>, CallError> {
        let mut reply = Received::blank();
        let route = Arc::clone(&self.pending.route);
        match self.pending.wait_into(&mut reply) {
            Ok(()) => Reply::check(reply),
            Err(error) => Err(error.with_function(route.id.as_str())),
        }
    }
}

impl<Resp: Typed> Future for PendingReply<Resp> {
    type Output = Result<Reply<Resp>, CallError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let mut reply = Received::blank();
        let polled = self.pending.poll_into(cx, &mut reply);
        polled.map(|ended| match ended {
            Ok(()) => Reply::check(reply),
            Err(error) => Err(error.with_function(self.pending.route.id.as_str())),
        })
    }
}

/// A typed reply, where it arrived.
#[derive(Debug)]
pub struct Reply<T> {
    received: Received,
    /// An archive that came in a block: see [`Received::archive`].
    copied: Option<Box<AlignedVec>>,
    _type: PhantomData<fn() -> T>,
}

impl<T: Typed> Reply<T> {
    #[inline]
    pub(crate) fn check(received: Received) -> Result<Self, CallError> {
        let mut copied = None;
        if received.encoding() == Encoding::Rkyv {
            let archive = received.archive();
            access::<T>(archive.bytes()).map_err(Failure::into_error)?;
            if let Archive::Copied(bytes) = archive {
                copied = Some(bytes);
            }
        }
        Ok(Self { received, copied, _type: PhantomData })
    }

    /// The archived value, where the callee sent one: nothing is copied or allocated for it here.
    #[must_use]
    pub fn archived(&self) -> Option<&T::Archived> {
        match self.received.encoding() {
            Encoding::Rkyv => {
                let bytes = match &self.copied {
                    Some(copied) => copied,
                    None => self.received.body(),
                };
                access::<T>(bytes).ok()
            }
            _ => None,
        }
    }

    /// The value.
    ///
    /// # Errors
    /// `invalid_request` when the reply does not fit the type.
    pub fn value(&self) -> Result<T, CallError> {
        match self.archived() {
            Some(archived) => rkyv::deserialize::<T, RkyvError>(archived)
                .map_err(|error| Failure::invalid(error.to_string()).into_error()),
            None => serde_json::from_slice(self.received.body())
                .map_err(|error| Failure::invalid(format!("the reply does not fit: {error}")).into_error()),
        }
    }
}
