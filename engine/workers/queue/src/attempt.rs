//! An attempt as a span of its message's trace: its number, its end, and what it was an attempt of. Used by the runner; it
//! must not know how an attempt is made.

use ringway::protocol::telemetry::{FieldValue, Level, SpanKind};
use ringway::{ErrorCode, Span, SpanId, TraceContext, TraceId, Worker};

use crate::machine::{Delivery, Outcome};

/// Begins the span of an attempt below that of the sender, if there is one.
pub(crate) fn begin(worker: &Worker, delivery: &Delivery, sender: Option<TraceContext>) -> Span {
    let nobody = TraceContext { trace_id: TraceId::NONE, span_id: SpanId::NONE, flags: 0 };
    let name = format_args!("attempt {}", delivery.attempt);
    let mut span = worker.span(name, SpanKind::Consumer, sender.unwrap_or(nobody));
    // One that is given up, since its message is cancelled or the queue ends, is dropped and says nothing more.
    span.fail(ErrorCode::Cancelled);
    span
}

/// Says in the span how the attempt ended.
pub(crate) fn end(span: &mut Span, delivery: &Delivery, id: &str, function: &str, outcome: &Outcome) {
    let fields = || {
        vec![
            ("queue", FieldValue::Text(delivery.place.queue.to_string())),
            ("message_id", FieldValue::Text(id.to_owned())),
            ("function", FieldValue::Text(function.to_owned())),
            ("attempt", FieldValue::I64(delivery.attempt.into())),
            ("attempts_max", FieldValue::I64(delivery.attempts_max.into())),
        ]
    };
    let failed = |code: &str, message: &str| {
        let mut fields = fields();
        fields.push(("code", FieldValue::Text(code.to_owned())));
        fields.push(("error", FieldValue::Text(message.to_owned())));
        fields
    };
    match outcome {
        Outcome::Succeeded => {
            span.succeed();
            span.note(Level::Debug, "the attempt succeeded", fields);
        }
        Outcome::Failed(error) => {
            span.fail(code_of(&error.code));
            span.note(Level::Warn, "the attempt failed", || failed(&error.code, &error.message));
        }
        Outcome::NotStarted { .. } => {
            span.fail(ErrorCode::Busy);
            span.note(Level::Debug, "the attempt did not begin, and counts as none", fields);
        }
        Outcome::Absent(_) => {
            span.fail(ErrorCode::NotFound);
            span.note(Level::Debug, "the function is not there; the attempt counts as none", fields);
        }
    }
}

/// The stable code of a failure; a code of the function's own stands for its handler's error.
fn code_of(code: &str) -> ErrorCode {
    code.parse().unwrap_or(ErrorCode::HandlerError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_the_functions_own_is_its_handlers_error() {
        assert_eq!(code_of("worker_gone"), ErrorCode::WorkerGone);
        assert_eq!(code_of("E_CARD"), ErrorCode::HandlerError);
    }
}
