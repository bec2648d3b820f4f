//! Functions to register: how a request becomes a handler's argument and its result a reply.
//!
//! One registration serves every caller that can send one of its encodings: a typed function is called with archived
//! bytes by Rust callers whose types have the same layout, and with JSON by everybody else and by the command line.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use ringway_ipc::plain;
use ringway_protocol::control::{CatalogFunction, FunctionSpec};
use ringway_protocol::header::Encoding;
use ringway_protocol::{CallError, ErrorCode, FunctionId};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::ser::writer::Buffer;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::Context;
use crate::error::{Failure, HandlerResult};
use crate::message::{Body, Message};
use crate::stream::{StreamReader, StreamWriter};
use crate::wire::Received;

/// Types of typed requests and replies: archived for Rust callers, JSON for all others. Implemented for every type that
/// derives `rkyv::{Archive, Serialize, Deserialize}`, `serde::{Serialize, Deserialize}` and `schemars::JsonSchema`.
pub trait Typed:
    Archive<
        Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, RkyvError>>
                      + Deserialize<Self, HighDeserializer<RkyvError>>,
    > + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>
    + for<'a, 'b> Serialize<HighSerializer<Buffer<'b>, ArenaHandle<'a>, RkyvError>>
    + serde::Serialize
    + DeserializeOwned
    + JsonSchema
    + Send
    + 'static
{
}

impl<T> Typed for T where
    T: Archive<
            Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, RkyvError>>
                          + Deserialize<T, HighDeserializer<RkyvError>>,
        > + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>
        + for<'a, 'b> Serialize<HighSerializer<Buffer<'b>, ArenaHandle<'a>, RkyvError>>
        + serde::Serialize
        + DeserializeOwned
        + JsonSchema
        + Send
        + 'static
{
}

/// A typed request, read where it arrived. Dereferences to the archived value.
#[derive(Debug)]
pub struct View<'a, T: Archive> {
    archived: &'a T::Archived,
    _type: PhantomData<fn() -> T>,
}

impl<T: Archive> Deref for View<'_, T> {
    type Target = T::Archived;

    fn deref(&self) -> &T::Archived {
        self.archived
    }
}

impl<T: Typed> View<'_, T> {
    /// The value itself, deserialized.
    ///
    /// # Errors
    /// `invalid_request` when the type's own deserialization fails.
    pub fn to_value(&self) -> HandlerResult<T> {
        rkyv::deserialize::<T, RkyvError>(self.archived).map_err(|error| Failure::invalid(error.to_string()))
    }
}

/// Where a synchronous handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// Starts in the pool; moves to the dispatcher's thread when it proves short, and back when it does not.
    #[default]
    Adaptive,
    /// On the thread that reads the ring: no hand-off. For handlers of a few microseconds.
    Inline,
    /// On a pool thread: for handlers that compute long or block.
    Pooled,
}

pub(crate) type BoxReply = Pin<Box<dyn Future<Output = HandlerResult<Message>> + Send>>;

/// Writes its reply where it will be sent from.
type SyncHandler = dyn Fn(&Context, &Received, &mut Message) -> HandlerResult<()> + Send + Sync;
type AsyncHandler = dyn Fn(Context, Received) -> BoxReply + Send + Sync;
type StreamHandler =
    dyn Fn(&Context, Received, StreamReader, StreamWriter) -> HandlerResult<Message> + Send + Sync;
type AsyncStreamHandler = dyn Fn(Context, Received, StreamReader, StreamWriter) -> BoxReply + Send + Sync;

pub(crate) enum Handler {
    Sync(Box<SyncHandler>),
    Async(Box<AsyncHandler>),
    Stream(Box<StreamHandler>),
    StreamAsync(Box<AsyncStreamHandler>),
    /// The one for callers without streams, the other for those who opened some.
    Either(Box<AsyncHandler>, Box<AsyncStreamHandler>),
}

/// A function to register: id, handler, and what the catalog tells of it.
pub struct Function {
    pub(crate) id: String,
    pub(crate) handler: Handler,
    pub(crate) placement: Placement,
    pub(crate) spec: FunctionSpec,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function")
            .field("id", &self.id)
            .field("placement", &self.placement)
            .finish_non_exhaustive()
    }
}

impl Function {
    fn new(id: &str, handler: Handler, encodings: &[Encoding]) -> Self {
        // An invalid id is refused when the function is registered, where there is an error to return.
        let placeholder = FunctionId::new(id).or_else(|_| FunctionId::new("invalid"));
        let mut spec = FunctionSpec::new(placeholder.unwrap_or_else(|_| unreachable!("a valid literal")), 0);
        spec.encodings = encodings.to_vec();
        Self { id: id.to_owned(), handler, placement: Placement::default(), spec }
    }

    /// A typed function that reads its request as an archive, without deserializing it. Serves archived bytes and JSON. A
    /// request that does not fit the slot (192 bytes) is copied out of the caller's block once, because an archive is only
    /// sound while nobody can change it; what is to be read where it lies travels as bytes, tensor or attachment.
    #[must_use]
    pub fn typed<Req: Typed, Resp: Typed>(
        id: &str,
        handler: impl Fn(&Context, View<'_, Req>) -> HandlerResult<Resp> + Send + Sync + 'static,
    ) -> Self {
        let call = move |context: &Context, request: &Received, reply: &mut Message| match request.encoding()
        {
            Encoding::Rkyv => {
                let archive = request.archive();
                let archived = access::<Req>(archive.bytes())?;
                archive_into(&handler(context, View { archived, _type: PhantomData })?, reply)
            }
            Encoding::Json => {
                let value: Req = from_json(request.body())?;
                let bytes = rkyv::to_bytes::<RkyvError>(&value)
                    .map_err(|error| Failure::invalid(error.to_string()))?;
                let archived = access::<Req>(&bytes)?;
                *reply = to_json(&handler(context, View { archived, _type: PhantomData })?)?;
                Ok(())
            }
            other => Err(unsupported(other, "rkyv or json")),
        };
        let mut function = Self::new(id, Handler::Sync(Box::new(call)), &[Encoding::Rkyv, Encoding::Json]);
        function.spec.type_key = Some(type_key::<Req, Resp>());
        function.schemas::<Req, Resp>()
    }

    /// A function of values that serde knows. Serves JSON.
    #[must_use]
    pub fn json<Req: DeserializeOwned + JsonSchema, Resp: serde::Serialize + JsonSchema>(
        id: &str,
        handler: impl Fn(&Context, Req) -> HandlerResult<Resp> + Send + Sync + 'static,
    ) -> Self {
        let call = move |context: &Context, request: &Received, reply: &mut Message| {
            expect_json(request)?;
            *reply = to_json(&handler(context, from_json(request.body())?)?)?;
            Ok(())
        };
        Self::new(id, Handler::Sync(Box::new(call)), &[Encoding::Json]).schemas::<Req, Resp>()
    }

    /// A function of whole messages: raw bytes, tensors, anything with attachments. Serves every encoding.
    #[must_use]
    pub fn raw(
        id: &str,
        handler: impl Fn(&Context, &Request<'_>) -> HandlerResult<Message> + Send + Sync + 'static,
    ) -> Self {
        let call = move |context: &Context, request: &Received, reply: &mut Message| {
            *reply = handler(context, &Request { received: request })?;
            Ok(())
        };
        Self::new(id, Handler::Sync(Box::new(call)), &[Encoding::Bytes, Encoding::Tensor, Encoding::Json])
    }

    /// An async function of values that serde knows. Serves JSON. Dropped when its caller gives up.
    #[must_use]
    pub fn json_async<Req, Resp, Fut>(
        id: &str,
        handler: impl Fn(Context, Req) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Req: DeserializeOwned + JsonSchema + Send + 'static,
        Resp: serde::Serialize + JsonSchema + Send + 'static,
        Fut: Future<Output = HandlerResult<Resp>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let call = move |context: Context, request: Received| -> BoxReply {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                expect_json(&request)?;
                let value = from_json(request.body())?;
                drop(request);
                to_json(&handler(context, value).await?)
            })
        };
        Self::new(id, Handler::Async(Box::new(call)), &[Encoding::Json]).schemas::<Req, Resp>()
    }

    /// An async function of whole messages. Dropped when its caller gives up.
    #[must_use]
    pub fn raw_async<Fut>(id: &str, handler: impl Fn(Context, Message) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = HandlerResult<Message>> + Send + 'static,
    {
        let call = move |context: Context, request: Received| -> BoxReply {
            Box::pin(handler(context, request.into_message()))
        };
        Self::new(id, Handler::Async(Box::new(call)), &[Encoding::Bytes, Encoding::Tensor, Encoding::Json])
    }

    /// An async function of JSON whose text it reads itself, or passes on unread. Dropped when its caller gives up.
    #[must_use]
    pub fn json_text_async<Fut>(
        id: &str,
        handler: impl Fn(Context, Message) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = HandlerResult<Message>> + Send + 'static,
    {
        let call = move |context: Context, request: Received| -> BoxReply {
            if let Err(failure) = expect_json(&request) {
                return Box::pin(std::future::ready(Err(failure)));
            }
            Box::pin(handler(context, request.into_message()))
        };
        Self::new(id, Handler::Async(Box::new(call)), &[Encoding::Json])
    }

    /// A function with streams in one or both directions, on a pool thread. What it returns ends the call.
    #[must_use]
    pub fn stream(
        id: &str,
        handler: impl Fn(&Context, Message, StreamReader, StreamWriter) -> HandlerResult<Message>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let call = move |context: &Context, request: Received, input, output| {
            handler(context, request.into_message(), input, output)
        };
        Self::new(id, Handler::Stream(Box::new(call)), &[Encoding::Json, Encoding::Bytes]).streaming()
    }

    /// An async function with streams in one or both directions. What it returns ends the call.
    #[must_use]
    pub fn stream_async<Fut>(
        id: &str,
        handler: impl Fn(Context, Message, StreamReader, StreamWriter) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = HandlerResult<Message>> + Send + 'static,
    {
        let call = move |context: Context, request: Received, input, output| -> BoxReply {
            Box::pin(handler(context, request.into_message(), input, output))
        };
        Self::new(id, Handler::StreamAsync(Box::new(call)), &[Encoding::Json, Encoding::Bytes]).streaming()
    }

    /// As [`Function::json_text_async`], and with streams in both directions for callers who open some: those are served by
    /// `streamed`.
    #[must_use]
    pub fn json_text_or_stream_async<Fut, Streamed>(
        id: &str,
        handler: impl Fn(Context, Message) -> Fut + Send + Sync + 'static,
        streamed: impl Fn(Context, Message, StreamReader, StreamWriter) -> Streamed + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = HandlerResult<Message>> + Send + 'static,
        Streamed: Future<Output = HandlerResult<Message>> + Send + 'static,
    {
        let call = move |context: Context, request: Received, input, output| -> BoxReply {
            if let Err(failure) = expect_json(&request) {
                return Box::pin(std::future::ready(Err(failure)));
            }
            Box::pin(streamed(context, request.into_message(), input, output))
        };
        let mut function = Self::json_text_async(id, handler);
        if let Handler::Async(plain) = function.handler {
            function.handler = Handler::Either(plain, Box::new(call));
        }
        function.spec.streams_optional = true;
        function
    }

    fn streaming(mut self) -> Self {
        (self.spec.streams_in, self.spec.streams_out) = (true, true);
        self
    }

    fn schemas<Req: JsonSchema, Resp: JsonSchema>(mut self) -> Self {
        self.spec.request_schema = Some(schema::<Req>());
        self.spec.response_schema = Some(schema::<Resp>());
        self
    }

    /// The function's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Runs the handler on the thread that reads the ring. See [`Placement::Inline`].
    #[must_use]
    pub fn inline(mut self) -> Self {
        self.placement = Placement::Inline;
        self
    }

    /// Runs the handler in the pool. See [`Placement::Pooled`].
    #[must_use]
    pub fn pooled(mut self) -> Self {
        self.placement = Placement::Pooled;
        self
    }

    /// What the function does, for the catalog.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.spec.description = Some(text.into());
        self
    }

    /// Anything its author wants to say, for the catalog.
    #[must_use]
    pub fn metadata(mut self, value: Value) -> Self {
        self.spec.metadata = Some(value);
        self
    }

    /// JSON Schema of request and reply, where the types do not give them.
    #[must_use]
    pub fn schema(mut self, request: Option<Value>, response: Option<Value>) -> Self {
        (self.spec.request_schema, self.spec.response_schema) = (request, response);
        self
    }

    /// Repeating a call does no harm, so one that may have been started by a worker that died is tried elsewhere.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.spec.idempotent = true;
        self
    }

    /// No other worker may register the id.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.spec.exclusive = true;
        self
    }

    /// Hidden from listings that do not ask for it.
    #[must_use]
    pub fn internal(mut self) -> Self {
        self.spec.internal = true;
        self
    }
}

/// A request as a raw handler sees it.
#[derive(Debug)]
pub struct Request<'a> {
    received: &'a Received,
}

impl Request<'_> {
    /// The body's encoding.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.received.encoding()
    }

    /// The body, read where it arrived.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.received.body()
    }

    /// The body's payload, where it lies in the caller's arena: a clone may be kept or sent on; the block returns when
    /// the last clone is dropped.
    #[must_use]
    pub fn payload(&self) -> Option<&ringway_ipc::channel::Payload> {
        self.received.blocks.as_ref()?.body.as_ref()
    }

    /// The attachments.
    #[must_use]
    pub fn attachments(&self) -> &[crate::Attachment] {
        self.received.blocks.as_ref().map_or(&[], |blocks| &blocks.attachments)
    }
}

fn unsupported(found: Encoding, wanted: &str) -> Failure {
    let text = format!("this function takes {wanted}, the request is {found}");
    CallError::new(ErrorCode::UnsupportedEncoding, text).into()
}

fn expect_json(request: &Received) -> HandlerResult<()> {
    match request.encoding() {
        Encoding::Json | Encoding::None => Ok(()),
        other => Err(unsupported(other, "json")),
    }
}

fn from_json<T: DeserializeOwned>(body: &[u8]) -> HandlerResult<T> {
    // No body at all means null, as a function without arguments is called.
    let body = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| Failure::invalid(format!("the request does not fit: {error}")))
}

fn to_json<T: serde::Serialize>(value: &T) -> HandlerResult<Message> {
    Ok(Message::from_vec(Encoding::Json, serde_json::to_vec(value)?))
}

#[inline]
pub(crate) fn access<T: Typed>(body: &[u8]) -> HandlerResult<&T::Archived> {
    rkyv::access::<T::Archived, RkyvError>(body)
        .map_err(|error| Failure::invalid(format!("the archived request does not fit: {error}")))
}

/// Archives a value into an empty message: inside the slot where it fits, in heap memory otherwise.
#[inline]
pub(crate) fn archive_into<T: Typed>(value: &T, message: &mut Message) -> HandlerResult<()> {
    if let Body::Inline { bytes, len } = &mut message.body
        && let Some(plain) = plain::bytes_of(value)
        && let Some(place) = bytes.bytes_mut().get_mut(..plain.len())
    {
        place.copy_from_slice(plain);
        *len = u16::try_from(plain.len()).unwrap_or(u16::MAX);
        message.encoding = Encoding::Rkyv;
        return Ok(());
    }
    if let Body::Inline { bytes, len } = &mut message.body
        && let Ok(buffer) =
            rkyv::api::high::to_bytes_in::<_, RkyvError>(value, Buffer::from(bytes.bytes_mut()))
    {
        *len = u16::try_from(buffer.len()).unwrap_or(u16::MAX);
        message.encoding = Encoding::Rkyv;
        return Ok(());
    }
    // It does not fit the slot, or it cannot be archived at all: the second attempt tells.
    *message = archive_to_heap(value)?;
    Ok(())
}

#[cold]
fn archive_to_heap<T: Typed>(value: &T) -> HandlerResult<Message> {
    let bytes = rkyv::to_bytes::<RkyvError>(value).map_err(|error| Failure::invalid(error.to_string()))?;
    Ok(Message { encoding: Encoding::Rkyv, body: Body::Heap(bytes.into_vec()), attachments: Vec::new() })
}

fn schema<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

/// A name for the layout of a pair of types: the same for types of the same structure, wherever they are declared.
///
/// It covers field names, their order and their formats (from the JSON Schema without titles and descriptions), and
/// size and alignment of the archived forms.
pub(crate) fn type_key<Req: Typed, Resp: Typed>() -> String {
    let mut hasher = DefaultHasher::new();
    for mut schema in [schema::<Req>(), schema::<Resp>()] {
        strip(&mut schema);
        schema.to_string().hash(&mut hasher);
    }
    (size_of::<Req::Archived>(), align_of::<Req::Archived>()).hash(&mut hasher);
    (size_of::<Resp::Archived>(), align_of::<Resp::Archived>()).hash(&mut hasher);
    format!("{ARCHIVE_PREFIX}{:016x}", hasher.finish())
}

/// What every type key of ours begins with.
const ARCHIVE_PREFIX: &str = "rkyv-0.8:";

/// A type key as a number, compared at every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArchiveKey(NonZeroU64);

impl ArchiveKey {
    /// `None` for the key of another format.
    pub(crate) fn parse(type_key: &str) -> Option<Self> {
        let hash = u64::from_str_radix(type_key.strip_prefix(ARCHIVE_PREFIX)?, 16).ok()?;
        NonZeroU64::new(hash).map(Self)
    }

    /// The key of the archives that a function takes; `None` where it takes none.
    pub(crate) fn of(function: &CatalogFunction) -> Option<Self> {
        let takes_any = function.encodings.contains(&Encoding::Rkyv);
        function.type_key.as_deref().filter(|_| takes_any).and_then(Self::parse)
    }
}

/// Removes what describes and does not shape. The names of properties are kept whatever they are.
fn strip(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for key in ["title", "description", "$schema", "examples", "default"] {
                fields.remove(key);
            }
            for (key, value) in fields.iter_mut() {
                match value {
                    Value::Object(named) if key == "properties" || key == "$defs" => {
                        named.values_mut().for_each(strip);
                    }
                    other => strip(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
