//! Errors of the SDK's surface: [`CallError`] with its stable code for callers, [`Failure`] for handlers.

use std::fmt;

pub use ringway_protocol::{CallError, ErrorCode};

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
