//! Errors as clients see them: iii's codes and words for what ends a call here. It must not know who is told.

use ringway::{CallError, ErrorCode, Failure};
use serde_json::{Value, json};

/// iii's codes of errors that this side raises.
pub(crate) mod code {
    pub(crate) const FUNCTION_NOT_FOUND: &str = "function_not_found";
    pub(crate) const INVOCATION_FAILED: &str = "invocation_failed";
    pub(crate) const INVOCATION_STOPPED: &str = "invocation_stopped";
    pub(crate) const DESERIALIZATION_ERROR: &str = "deserialization_error";
    pub(crate) const ENQUEUE_ERROR: &str = "enqueue_error";
    pub(crate) const FORBIDDEN: &str = "FORBIDDEN";
    pub(crate) const AUTH_ERROR: &str = "AUTH_ERROR";
    pub(crate) const INVALID_NAMESPACE: &str = "INVALID_NAMESPACE";
    pub(crate) const INVOCATION_ERROR: &str = "invocation_error";
    pub(crate) const PAYLOAD_TOO_LARGE: &str = "payload_too_large";
    pub(crate) const TIMEOUT: &str = "TIMEOUT";
    pub(crate) const TRIGGER_REGISTRATION_FAILED: &str = "trigger_registration_failed";
    pub(crate) const FUNCTION_NAMESPACE_CONFLICT: &str = "FUNCTION_NAMESPACE_CONFLICT";
    pub(crate) const WORKER_NAMESPACE_CONFLICT: &str = "WORKER_NAMESPACE_CONFLICT";
}

/// An error on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// A stable word.
    pub code: String,
    /// What happened.
    pub message: String,
    /// Where, as the callee's language tells it.
    pub stacktrace: Option<String>,
}

impl ErrorBody {
    /// An error of a code and words.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), stacktrace: None }
    }

    /// What a call to a callee that has gone ends with.
    #[must_use]
    pub fn stopped() -> Self {
        Self::new(code::INVOCATION_STOPPED, "Invocation stopped")
    }

    /// The same for whoever called by the SDK.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        if self.code == code::INVOCATION_STOPPED {
            let gone = CallError::new(ErrorCode::WorkerGone, "the worker left before it answered");
            return gone.into();
        }
        let error = Failure::with_code(self.code, self.message).into_error();
        match self.stacktrace {
            Some(trace) => error.with_details(json!({ "stacktrace": trace })).into(),
            None => error.into(),
        }
    }
}

/// What a client is told of a call that ended so.
pub(crate) fn of_call(error: &CallError, namespace: &str, function: &str, elsewhere: &[String]) -> ErrorBody {
    let stacktrace = error.details.as_deref().and_then(|details| details.get("stacktrace"));
    let stacktrace = stacktrace.and_then(Value::as_str).map(str::to_owned);
    if let Some(user_code) = &error.user_code {
        return ErrorBody { code: user_code.clone(), message: error.message.clone(), stacktrace };
    }
    let is_ours = error.function.as_deref().is_none_or(|named| named == function);
    let word = match error.code {
        ErrorCode::NotFound if is_ours => {
            let mut message = format!("Function {function} not found in namespace {namespace}.");
            if !elsewhere.is_empty() {
                message.push_str(" It is available in: ");
                message.push_str(&elsewhere.join(", "));
                message.push('.');
            }
            return ErrorBody::new(code::FUNCTION_NOT_FOUND, message);
        }
        ErrorCode::WorkerGone | ErrorCode::Cancelled => return ErrorBody::stopped(),
        ErrorCode::HandlerError | ErrorCode::HandlerPanicked => code::INVOCATION_FAILED,
        ErrorCode::InvalidRequest | ErrorCode::UnsupportedEncoding => code::DESERIALIZATION_ERROR,
        ErrorCode::Forbidden => code::FORBIDDEN,
        ErrorCode::PayloadTooLarge => code::PAYLOAD_TOO_LARGE,
        ErrorCode::DeadlineExceeded => code::TIMEOUT,
        other => other.as_str(),
    };
    ErrorBody { code: word.to_owned(), message: error.message.clone(), stacktrace }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_codes_that_clients_know() {
        let check = |error: CallError, code: &str, message: &str| {
            let body = of_call(&error, "default", "a::b", &[]);
            assert_eq!((body.code.as_str(), body.message.as_str()), (code, message));
        };
        check(
            CallError::function_not_found("a::b"),
            "function_not_found",
            "Function a::b not found in namespace default.",
        );
        check(CallError::new(ErrorCode::WorkerGone, "x"), "invocation_stopped", "Invocation stopped");
        check(CallError::new(ErrorCode::HandlerError, "boom"), "invocation_failed", "boom");
        check(CallError::new(ErrorCode::HandlerError, "boom").with_user_code("MINE"), "MINE", "boom");
        check(CallError::new(ErrorCode::InvalidRequest, "no"), "deserialization_error", "no");
        check(CallError::new(ErrorCode::Busy, "full"), "busy", "full");
    }

    #[test]
    fn an_error_is_the_same_after_the_way_there_and_back() {
        let said = ErrorBody { code: "E".into(), message: "m".into(), stacktrace: Some("at x".into()) };
        let back = of_call(&said.clone().into_failure().into_error(), "default", "f", &[]);
        assert_eq!(back, said);
        let back = of_call(&ErrorBody::stopped().into_failure().into_error(), "default", "f", &[]);
        assert_eq!(back, ErrorBody::stopped());
    }
}
