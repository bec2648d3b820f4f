//! Takes in spans, logs and figures in OpenTelemetry's formats, from workers whose programs have an SDK of it, or that pass
//! on what others sent. Who sent them is known by the channel; which program they are of, they say themselves.

use std::sync::Arc;

use ringway::{Context, Encoding, Failure, Function, HandlerResult, Message, Request};
use ringway_protocol::naming;
use ringway_telemetry::{Batch, Format, Signal};
use serde::Deserialize;

use crate::shared::{Shared, now_ns};

/// What stands in the call's metadata.
#[derive(Deserialize)]
struct About {
    signal: Option<Signal>,
}

pub(super) fn ingest(shared: &Arc<Shared>) -> Function {
    let shared = Arc::clone(shared);
    let call = move |context: &Context, request: &Request<'_>| take_in(&shared, context, request);
    Function::raw(naming::TELEMETRY_INGEST, call)
        .pooled()
        .internal()
        .description(
            "takes in OTLP, as JSON or as bytes of protobuf; `signal` in the metadata is traces, logs or metrics, traces \
             unless given",
        )
}

fn take_in(shared: &Shared, context: &Context, request: &Request<'_>) -> HandlerResult<Message> {
    let about = context.metadata().map(About::deserialize).transpose();
    let about = about.map_err(|error| Failure::invalid(format!("`signal`: {error}")))?;
    let signal = about.and_then(|about| about.signal).unwrap_or(Signal::Traces);
    let format = match request.encoding() {
        Encoding::Json => Format::Json,
        Encoding::Bytes => Format::Protobuf,
        other => {
            shared.collector.lock().count_malformed();
            return Err(Failure::invalid(format!("OTLP as json or bytes was wanted, this is {other}")));
        }
    };
    // Read before the lock is taken: that is nearly all of the work.
    let read = Batch::read(signal, format, request.body());
    let mut collector = shared.collector.lock();
    let counts = match read {
        Ok(batch) => collector.ingest_batch(context.caller(), batch, now_ns()),
        Err(error) => {
            collector.count_malformed();
            drop(collector);
            return Err(Failure::invalid(error.to_string()));
        }
    };
    drop(collector);
    Message::json(&counts?)
}
