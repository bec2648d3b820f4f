//! Errors of the SDK's surface: [`CallError`] with its stable code for callers, [`Failure`] for handlers.

use std::fmt;
use std::time::Duration;

pub use ringway_protocol::{CallError, ErrorCode};
use serde_json::{Map, Value};

/// What a handler returns when it fails. Any error turns into one with `?`; the caller sees `handler_error` with its
/// message. A [`CallError`] is passed on as it is.
pub struct Failure(Box<CallError>);

/// What a handler returns.
pub type HandlerResult<T> = Result<T, Failure>;

impl Failure {
    /// An error of the handler's own, with the user's code.
    #[must_use]
    pub fn with_code(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(CallError::new(ErrorCode::HandlerError, message).with_user_code(code)))
    }

    /// An error of the handler's own.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(CallError::new(ErrorCode::HandlerError, message)))
    }

    /// The request cannot be used; says what was wanted and what was found.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self(Box::new(CallError::new(ErrorCode::InvalidRequest, message)))
    }

    /// Asks a queue that delivered the call to make the next attempt after this time, in place of its own backoff. It is in
    /// the error's details as `retry_after_ms`.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.with_detail("retry_after_ms", millis.into())
    }

    /// Tells a queue that delivered the call that no further attempt can succeed: the message becomes a dead letter. It is in
    /// the error's details as `retry: false`.
    #[must_use]
    pub fn do_not_retry(self) -> Self {
        self.with_detail("retry", false.into())
    }

    /// Details that are no object stay, under `details`.
    fn with_detail(mut self, name: &str, value: Value) -> Self {
        let mut details = match self.0.details.take().map(|details| *details) {
            Some(Value::Object(details)) => details,
            Some(other) => Map::from_iter([("details".to_owned(), other)]),
            None => Map::new(),
        };
        details.insert(name.to_owned(), value);
        self.0.details = Some(Box::new(Value::Object(details)));
        self
    }

    /// The stable code that the caller will see.
    pub(crate) fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// The error as the caller will see it.
    #[must_use]
    pub fn into_error(self) -> CallError {
        *self.0
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let boxed: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
        match boxed.downcast::<CallError>() {
            Ok(error) => Self(error),
            Err(error) => {
                let mut message = error.to_string();
                let mut cause = error.source();
                while let Some(inner) = cause {
                    message.push_str(": ");
                    message.push_str(&inner.to_string());
                    cause = inner.source();
                }
                Self::new(message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_queue_is_told_stands_beside_other_details() {
        let check = |failure: Failure, expected: Value| {
            assert_eq!(*failure.into_error().details.unwrap(), expected);
        };
        let plain = || Failure::with_code("E", "no");
        check(plain().retry_after(Duration::from_secs(2)), json!({ "retry_after_ms": 2000 }));
        check(plain().do_not_retry(), json!({ "retry": false }));
        let with = |details| Failure::from(plain().into_error().with_details(details));
        check(with(json!({ "n": 1 })).do_not_retry(), json!({ "n": 1, "retry": false }));
        check(with(json!([1])).do_not_retry(), json!({ "details": [1], "retry": false }));
    }
}
