//! Call and serve functions at the speed of shared memory.
//!
//! A [`Worker`] is a process's place in Ringway: it attaches to the engine, registers functions and calls any function
//! of any worker by name. Calls between workers of one host go through rings in shared memory; the engine routes them
//! and touches none.
//!
//! ```no_run
//! use ringway::{Function, Worker};
//! use serde_json::json;
//!
//! let worker = Worker::connect("greeter")?;
//! worker.register(Function::json("hello::greet", |_, name: String| Ok(format!("Hello, {name}!"))))?;
//! let answer = worker.trigger_json("hello::greet", &json!("Ringway"))?;
//! assert_eq!(answer, "Hello, Ringway!");
//! # Ok::<(), ringway::CallError>(())
//! ```
//!
//! # Where to start
//! - [`Function`]: what can be registered: typed, JSON, raw, async, with streams;
//! - [`Worker::trigger`] and [`Worker::function`]: calling by name and by resolved handle, blocking or async;
//! - [`Message`], [`Worker::loan`], [`Attachment`]: large payloads and tensors, read where they were written;
//! - [`StreamCall`]: streams in both directions; [`ChannelRef`]: one that a payload names;
//! - [`Worker::enqueue`], [`Receipt`], [`Context::delivery`], [`Context::step`]: work that a queue keeps until it is done;
//! - [`layer`]: attaches `tracing` events to the active span.
//!
//! The blocking API needs no async runtime, and the async one is tied to none.
//!
//! This crate must not know how the engine works; it knows its protocol.
#![forbid(unsafe_code)]

pub mod address;

mod error;

mod message;

mod function;

mod context;

mod worker;

mod handle;

mod call;

mod stream;

mod stream_call;

mod channel;

mod layer;

mod sampler;

mod counters;

mod caller;

mod callee;

mod dispatcher;

mod links;

mod executor;

mod control;

mod inspect;

mod durable;

mod span;

mod memory;

mod meta;

mod names;

mod near;

mod pending;

mod pipeline;

mod relay;

mod routes;

mod telemetry;

mod wire;

pub use call::{CallOptions, Pending};
pub use channel::{ChannelPair, ChannelRef, Direction};
pub use context::{CancelToken, Context};
pub use control::BindAnswer;
pub use counters::{PayloadCounters, payload_counters};
pub use durable::{Delivery, Enqueue, MessageState, MessageStatus, Receipt};
pub use error::{CallError, ErrorCode, Failure, HandlerResult};
pub use executor::BoxFuture;
pub use function::{Function, Placement, Request, Typed, View};
pub use handle::{Handle, PendingReply, Reply, TypedHandle};
pub use pipeline::{Pipeline, TypedPipeline};

pub use layer::layer;
pub use message::{Attachment, Message};
#[doc(hidden)]
pub use near::{Near, NearCall};
#[doc(hidden)]
pub use relay::{Relayed, relayed_function};
pub use ringway_access::Credentials;
pub use ringway_ipc::arena::{ArenaConfig, Loan};
pub use ringway_ipc::channel::Payload;
pub use ringway_ipc::waiter::WaitMode;
pub use ringway_protocol as protocol;
pub use ringway_protocol::baggage::Baggage;
pub use ringway_protocol::header::{DType, Encoding};
pub use ringway_protocol::{SpanId, Started, TraceContext, TraceId, WorkerId};
pub use sampler::Sampler;
pub use span::Span;
pub use stream::{StreamReader, StreamWriter};
pub use stream_call::StreamCall;
pub use worker::{Builder, TriggerProvider, Worker};
