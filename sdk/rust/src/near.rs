//! Calls between two workers of one process whose payloads go another way than through the rings: a face that holds both
//! ends of a conversation carries them over itself, and would else only wake threads to hand bytes to itself. Such a call
//! is admitted as any other (the channel, the permission page, the function's registration, draining), and its spans are
//! those of any other. It must not know which way the payloads go.

use std::sync::Arc;

use ringway_ipc::frame::Header;
use ringway_protocol::telemetry::FunctionRef;
use ringway_protocol::{ErrorCode, TraceContext};

use crate::call::{self, ClientSpan};
use crate::callee::{CalleeChannel, ServerSpan};
use crate::context::Inherited;
use crate::handle::Handle;
use crate::worker::{Inner, Worker};

/// One worker's right to call another one of this process, as long as the channel between them is open.
#[derive(Debug)]
pub struct Near {
    caller: Arc<Inner>,
    callee: Arc<Inner>,
    channel: Arc<CalleeChannel>,
}

/// A call that was admitted. It is over when this is ended; dropped, it was given up.
#[derive(Debug)]
pub struct NearCall {
    caller: Arc<Inner>,
    callee: Arc<Inner>,
    target: FunctionRef,
    trace: TraceContext,
    client: Option<ClientSpan>,
    server: Option<ServerSpan>,
    is_over: bool,
}

impl Worker {
    /// The right of another worker of this process to call this one: none before it has a channel here, which its first
    /// call opens, or when that is closed.
    #[doc(hidden)]
    #[must_use]
    pub fn near(&self, caller: &Self) -> Option<Near> {
        let (caller, callee) = (caller.inner(), self.inner());
        let channels = callee.dispatcher.callees();
        let channel = channels.iter().find(|channel| channel.peer() == caller.id && channel.is_open())?;
        let channel = Arc::clone(channel);
        Some(Near { caller: Arc::clone(caller), callee: Arc::clone(callee), channel })
    }
}

impl Near {
    /// Begins a call of this many bytes under a span. None if it has to go the usual way, where it may yet be refused.
    #[doc(hidden)]
    #[must_use]
    pub fn begin(&self, handle: &Handle, parent: Option<TraceContext>, bytes: u64) -> Option<NearCall> {
        let targets = handle.route.targets.load();
        let [target] = &targets[..] else { return None };
        if target.function.worker != self.callee.id || target.draining || !self.channel.is_open() {
            return None;
        }
        let (function, function_generation) = (target.function.index, target.function.generation);
        let mut header = Header { function, function_generation, ..Header::default() };
        if !self.channel.admits(&self.callee, &header) {
            return None;
        }
        let inherited =
            Inherited { trace: parent.unwrap_or_else(|| Inherited::default().trace), ..Inherited::default() };
        let client = call::start_span(&self.caller, &inherited, &mut header);
        let server = ServerSpan::begin(&self.callee, &header, bytes, 0);
        let trace = crate::callee::passed_on(&header);
        Some(NearCall {
            caller: Arc::clone(&self.caller),
            callee: Arc::clone(&self.callee),
            target: call::reference(&target.function),
            trace: server.as_ref().map_or(trace, ServerSpan::trace),
            client: client.map(|span| span.of_bytes(bytes)),
            server,
            is_over: false,
        })
    }
}

impl NearCall {
    /// What the callee's work is under.
    #[doc(hidden)]
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.trace
    }

    /// Ends it, with a reply of so many bytes or an error.
    #[doc(hidden)]
    pub fn end(mut self, outcome: Result<u64, ErrorCode>) {
        self.record(outcome);
    }

    fn record(&mut self, outcome: Result<u64, ErrorCode>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let (status, bytes) = match outcome {
            Ok(bytes) => (ringway_protocol::error::STATUS_OK, bytes),
            Err(code) => (code.status(), 0),
        };
        if let Some(span) = &self.server {
            span.record(&self.callee, self.caller.id, status, bytes);
        }
        if let Some(span) = &self.client {
            span.record_bytes(&self.caller, self.target, status, bytes);
        }
    }
}

impl Drop for NearCall {
    fn drop(&mut self) {
        self.record(Err(ErrorCode::Cancelled));
    }
}
